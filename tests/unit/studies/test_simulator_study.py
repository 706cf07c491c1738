"""The study of simulators: its contract, its order, and what it leaves."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from justenough.core.contract import Contract, parse_clause
from justenough.core.judge import Paired
from justenough.core.store import Store
from justenough.errors import InputError
from justenough.studies.neurons import certifying, seeds, study
from justenough.studies.neurons.certifying import Searched, ordered, risk
from justenough.studies.neurons.seeds import CANDIDATES, FORMATS, HASHES, REFERENCE, Bench
from justenough.studies.neurons.study_report import NAMES

SIZES = {"n": 2000, "k": 40, "p": 0.05, "beta": 0.05, "rounds": 6}
LOOSE = "relative_within(3, output=support) >= 0.5"


def contract(*clauses: str) -> Contract:
    return Contract(tuple(map(parse_clause, clauses)))


@pytest.mark.parametrize(
    ("clause", "said"),
    [
        ("within_tolerance(0.05, output=winners) >= 0.9", "already end with other winners"),
        ("within_tolerance(0.05, output=free_overlap) >= 0.9", "keep one of support, settled"),
        ("decision_stability(output=support) >= 0.9", "decision_stability does not fit"),
        ("within_tolerance(0.05) >= 0.9", "say what within_tolerance is about"),
        ("within_tolerance(0.05, output=suport) >= 0.9", "did you mean 'support'"),
        ("within_tolerance(0.05, output=support) >= 1", "no number of seeds shows"),
        ("within_tolerance(0.05, output=support) >= 0.99999", "the contract takes"),
    ],
)
def test_a_contract_that_cannot_be_asked_is_refused(clause: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        study.ask(SIZES, contract(clause), None, 0)


@pytest.mark.parametrize(
    ("given", "seed_count", "seed", "said"),
    [
        ({"n": 2000.5}, None, 0, "--n is 2000.5; give a whole number"),
        ({"n": 2e10}, None, 0, "--n is 2e"),
        ({"p": 0.0}, None, 0, "p=0.0"),
        ({"rounds": 1}, None, 0, "rounds=1"),
        ({}, 0, 0, "--seeds is 0; give 29 or more"),
        ({}, None, -1, "--seed is -1"),
    ],
)
def test_bad_numbers_are_refused(
    given: dict[str, float], seed_count: int | None, seed: int, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        study.ask({**SIZES, **given}, None, seed_count, seed)


def test_seeds_follow_from_the_contract() -> None:
    assert study.ask(SIZES, None, None, 0).seeds == 46
    assert study.ask(SIZES, contract(LOOSE), None, 0).seeds == 8
    strict = contract("within_tolerance(0.005, output=winner_overlap) >= 0.95")
    assert study.ask(SIZES, strict, None, 0).seeds == 93


def test_risk_is_in_units_of_the_tolerance_and_of_the_worst_clause() -> None:
    two = contract(
        "relative_within(0.1, output=support) >= 0.9", "within_tolerance(2, output=settled) >= 0.9"
    )
    ref = {"support": np.array([100.0, 200.0]), "settled": np.array([5.0, 5.0])}
    cand = {"support": np.array([110.0, 220.0]), "settled": np.array([5.0, 7.0])}
    assert risk(two, ref, cand) == pytest.approx(1.0)
    cand["settled"] = np.array([5.0, 13.0])
    assert risk(two, ref, cand) == pytest.approx(np.sqrt(8))


def test_a_candidate_slower_than_a_safer_one_is_dropped() -> None:
    found = {"slow": Searched(0.1, 2.0, True), "fast": Searched(0.3, 1.0, True),
             "between": Searched(0.2, 2.5, True)}  # fmt: skip
    assert ordered(found) == ["slow", "fast"]
    assert ordered({"slow": Searched(0.1, 2.0, False)}) == []


def test_search_and_certification_seeds_never_meet(tmp_path: Path) -> None:
    asked = study.ask(SIZES, None, None, 0)
    store = Store(tmp_path / "run.sqlite", {"a": "b"})
    every: set[int] = set()
    for seed in range(3):
        bench = Bench(asked.problem, seed, store, lambda *_: None)
        parts = [bench.search_seeds(1000), bench.certification_seeds(1000)]
        assert not every & {s for part in parts for s in part}
        every |= {s for part in parts for s in part}
    assert len(every) == 6000
    store.close()


def test_every_simulator_has_a_name() -> None:
    assert set(NAMES) == set(seeds.VARIANTS)


@pytest.fixture(scope="module")
def loose(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A study whose contract the lazy tier can keep on a small area."""
    out = tmp_path_factory.mktemp("loose")
    asked = study.ask(SIZES, contract(LOOSE), None, 1)
    return out, study.run(asked, out)


@pytest.mark.slow
def test_a_study_leaves_what_it_found(loose: tuple[Path, dict[str, Any]]) -> None:
    out, body = loose
    assert set(body["timed"]) == {REFERENCE, *CANDIDATES}
    assert {s["variant"] for s in body["beside"]} >= {*FORMATS, *HASHES, "redrawn"} - {"uint16"}
    simulator = json.loads((out / "simulator.json").read_text())
    assert simulator["sites"] == dict(seeds.VARIANTS[simulator["simulator"]].picks)
    assert (out / "certificate.json").is_file() == (body["verdict"] == "HELD")
    # Whether anything is faster here depends on what else the machine does.
    assert (body["verdict"] == "HELD") == (body["chosen"] is not None) == bool(body["certificate"])
    assert simulator["simulator"] == (body["chosen"] or "exact")
    assert (simulator["certified_for"] is None) == (body["chosen"] is None)
    assert all(0 <= t["least"] <= t["mean"] <= 1 for t in body["taught"].values())
    page = (out / "report.html").read_text()
    for said in ("Noise floor", "Bias", "fp16 weights, fp32 sums", "emulated on top of"):
        assert said in page
    assert "http://" not in page.replace("http://www.w3.org", "") and "https://" not in page


def test_a_certificate_says_what_it_covers_and_what_not() -> None:
    asked = study.ask(SIZES, contract(LOOSE), None, 1)
    same = {"support": np.linspace(100, 120, asked.seeds)}
    pairs = Paired(same, same, np.arange(asked.seeds))
    found = {"lazy": Searched(0.1, 1.0, True)}
    decision = certifying.decide(asked.contract, ["lazy"], found, lambda _: pairs)
    assert decision.chosen == "lazy"
    body = study.certificate_of(asked, decision, "plan")
    assert body["verdict"] == "HELD" and body["plan_sha256"] == "plan"
    assert body["cases"]["n"] == 8 and body["cases"]["first"] == 2_000_001
    assert body["candidate"]["sites"]["sampler"] == "lazy"
    assert body["reference"]["sha256"] != body["candidate"]["sha256"]
    assert body["candidate"]["problem"]["n"] == 2000
    for said in ("no other values", "not covered", "no model file"):
        assert any(said in note for note in body["note"])


@pytest.mark.slow
def test_the_same_call_reads_what_is_kept_and_says_the_same(
    loose: tuple[Path, dict[str, Any]],
) -> None:
    out, body = loose
    again = study.run(study.ask(SIZES, contract(LOOSE), None, 1), out)
    changing = ("certificate",)
    assert {k: v for k, v in again.items() if k not in changing} == {
        k: v for k, v in body.items() if k not in changing
    }
    with pytest.raises(InputError, match="another contract"):
        study.run(study.ask(SIZES, contract(LOOSE.replace("0.5", "0.6")), 8, 1), out)


@pytest.mark.slow
def test_a_clause_on_the_exact_state_refuses_what_has_none(tmp_path: Path) -> None:
    asks = contract("within_tolerance(0.05, output=winner_overlap) >= 0.5")
    body = study.run(study.ask(SIZES, asks, None, 2), tmp_path)
    assert {"lazy", "authors", "top-k 0.95", "lowest", "redrawn", "xor"} <= set(body["refused"])
    judged = {s["variant"]: s["verdict"] for s in [*body["steps"], *body["beside"]]}
    assert set(judged) - {"uint16"} == set(FORMATS) and judged["fp32"] == "HELD"
    assert "no winner_overlap" in (tmp_path / "report.html").read_text()


def test_a_simulator_that_refuses_the_problem_is_left_out(tmp_path: Path) -> None:
    store = Store(tmp_path / "run.sqlite", {"a": "b"})
    problem = study.ask({**SIZES, "k": 500, "p": 0.1, "rounds": 2}, None, None, 0).problem
    bench = Bench(problem, 0, store, lambda *_: None)
    bench.judged([REFERENCE, "top-k 0.95"], 2, "exact")
    assert "too many for n=2000" in bench.failed["top-k 0.95"]
    pairs = bench.pairs("top-k 0.95", bench.certification_seeds(2))
    assert np.isnan(pairs.candidate["support"]).all()
    found = certifying.decide(certifying.default_contract(), ["top-k 0.95"], {}, lambda _: pairs)
    assert found.chosen is None and found.steps[0][1][0].changed == 2
    store.close()
