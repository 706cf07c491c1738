"""The study of simulators of assemblies, as its users call it."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from small_world import process, refused
from test_resume import killed_at

pytestmark = pytest.mark.slow
SMALL = ("study", "neurons", "--n", "2000", "--k", "40", "--p", "0.05", "--rounds", "6")
LOOSE = ("--keep", "relative_within(3, output=support) >= 0.5")


def _results(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "results.json").read_text("utf8"))
    return found


def _judged(body: dict[str, Any]) -> dict[str, Any]:
    """What does not depend on times: every simulator that was judged beside, and its verdict."""
    return {s["variant"]: s["clauses"] for s in body["beside"]}


def _ended(out: Path, code: int) -> dict[str, Any]:
    """Results of a study; whether anything is faster depends on what else the machine does."""
    body = _results(out)
    assert code == {"HELD": 0, "BROKEN": 1, "UNDECIDED": 3}[body["verdict"]]
    assert (out / "certificate.json").exists() == (body["verdict"] == "HELD")
    simulator = json.loads((out / "simulator.json").read_text("utf8"))
    assert simulator["simulator"] == (body["chosen"] or "exact")
    return body


def test_a_small_study_ends_with_a_simulator_and_a_report(tmp_path: Path) -> None:
    out = tmp_path / "out"
    got = process(*SMALL, *LOOSE, "-o", out)
    body = _ended(out, got.code)
    said = " ".join(got.out.split())
    assert ("keeps the contract at 95 %" in said) == (body["verdict"] == "HELD")
    assert "Noise floor: fp32 and fp64" in said and "edges by a xor hash" in said
    assert (out / "report.html").stat().st_size > 10_000


def test_a_contract_that_graphs_of_this_size_differ_by_is_broken(tmp_path: Path) -> None:
    out = tmp_path / "out"
    got = process(*SMALL, "-o", out, timeout=250)
    body = _ended(out, got.code)
    verdicts = {s["variant"]: s["verdict"] for s in body["beside"]}
    assert verdicts["redrawn"] == "BROKEN" and body["chosen"] is None
    assert ("so does the exact tier on another graph" in body["reason"]) == bool(body["steps"])


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--keep", "within_tolerance(0.05, output=winners) >= 0.9"), ("chaotic", "float64")),
        (("--keep", "accuracy_drop(output=support) <= 0.1"), ("does not fit a simulator",)),
        (("--p", "1"), ("p=1.0",)),
        (("--seeds", "0"), ("--seeds is 0",)),
        (("--alpha", "0.7"), ("alpha=0.7",)),
    ],
)
def test_bad_input_is_one_sentence(
    more: tuple[str, ...], words: tuple[str, ...], tmp_path: Path
) -> None:
    refused(process(*SMALL, *more, "-o", tmp_path / "out"), *words)
    assert not (tmp_path / "out").exists()


def test_a_killed_study_goes_on_to_the_same_verdicts(tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    _ended(whole, process(*SMALL, *LOOSE, "-o", whole).code)
    args = (*SMALL, *LOOSE, "-o", out)
    kills = 0
    for wanted in (3, 60, 100, 140):
        kills += killed_at(out, args, wanted, 0.0)
        with sqlite3.connect(out / "run.sqlite") as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        db.close()
    assert kills >= 2
    ours, theirs = _judged(_ended(out, process(*args).code)), _judged(_results(whole))
    assert {k: ours[k] for k in ours if k in theirs} == {k: theirs[k] for k in theirs if k in ours}
    assert set(ours) & set(theirs) >= {"bf16", "lns12", "redrawn", "xor"}
