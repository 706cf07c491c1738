"""The study of heavy statistics, as its users call it."""

import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_world import Cli, process, refused
from test_resume import killed_at

from justenough.studies.heavystats.study import STAGES
from justenough.studies.heavystats.world import World

pytestmark = pytest.mark.slow
STUDY = ("study", "heavystats")
HEAVY = all(find_spec(name) for name in ("cma", "blackjax", "torch"))
needs_extra = pytest.mark.skipif(not HEAVY, reason="needs the extras stats and torch")


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text("utf8"))
    return found


def _without_times(found: Any) -> Any:
    if isinstance(found, dict):
        return {k: _without_times(v) for k, v in found.items() if k != "seconds"}
    return [_without_times(v) for v in found] if isinstance(found, list) else found


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Option D on 2,000 conversations, run to its end."""
    pytest.importorskip("cma")
    out = tmp_path_factory.mktemp("quick") / "out"
    got = process(*STUDY, "--option", "D", "--conversations", "2e3", "-o", out)
    assert got.code == 0, got.err
    assert "100,000 made-up turns in 2,000 conversations" in got.out
    assert "4 of 8 analyses" in got.out
    return out


def test_a_run_leaves_results_bundle_and_report(quick: Path) -> None:
    body = _read(quick / "results.json")
    assert tuple(body["stages"]) == STAGES["D"]
    page = (quick / "report.html").read_text("utf8")
    for title in ("Monte Carlo", "Bootstrap", "Permutation test", "Search of the weights"):
        assert f"<h2>{title}" in page
    assert "http://" not in page.replace("http://www.w3.org", "") and "https://" not in page
    assert "it says nothing of how people" in page
    for said in (
        "needed for a power of",
        "error against the truth",
        "Put in: decay 0.100",
        "by formula",
        "Evolution of the genetic search",
    ):
        assert said in page
    links = re.findall(r'href="#(\w+)"', page)
    assert len(links) == 4 and all(f'<section id="{a}">' in page for a in links)


def test_a_hostile_name_of_a_table_is_text(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    columns = {n: rng.random(200) for n in ("decay", "surprise", "relevance", "habituation")}
    path = tmp_path / "<img src=x onerror=alert(1)>.npz"
    np.savez(
        path, allow_pickle=False, importance=rng.random(200),
        conversation=np.repeat(np.arange(40), 5), **columns,
    )  # fmt: skip
    got = process(*STUDY, "--option", "A", "--cases", path, "-o", tmp_path / "out")
    assert got.code == 0, got.err
    page = (tmp_path / "out" / "report.html").read_text("utf8")
    assert "<img" not in page and "&lt;img src=x onerror=alert(1)&gt;.npz" in page


def test_every_result_is_near_the_exact_answer(quick: Path) -> None:
    stages = _read(quick / "results.json")["stages"]
    assert stages["montecarlo"]["largest_error_in_se"] < 5.0
    assert stages["bootstrap"]["ratio_by_moments"][1]["value"] == pytest.approx(1.0, abs=0.03)
    assert stages["bootstrap"]["ratio_to_formula"][1]["value"] == pytest.approx(1.0, abs=0.06)
    null = stages["permutation"]
    assert null["null_sd"]["value"] == pytest.approx(null["exact_null_sd"], rel=0.015)
    assert null["p"] == 1 / 100_001 and null["p_of_the_document"] == 0.0
    exact, _, genetic, cma = stages["search"]["methods"]
    assert exact["weights"] == pytest.approx([0.1, 0.6, 0.2, 0.1], abs=0.02)
    assert genetic["gap"]["value"] < 1e-5 and cma["gap"]["value"] < 1e-6


def test_another_run_of_the_bundle_comes_out_the_same(quick: Path, tmp_path: Path) -> None:
    got = process(*STUDY, "--compare", quick / "bundle.json", "-o", tmp_path / "again")
    assert got.code == 0, got.out + got.err
    assert "Same:" in got.out


def test_a_number_that_does_not_come_out_again_is_named(quick: Path, tmp_path: Path) -> None:
    body = _read(quick / "bundle.json")
    body["stages"]["montecarlo"]["r"][7] += 0.001
    (tmp_path / "edited.json").write_text(json.dumps(body))
    # the same folder: what it found is not found again
    got = process(*STUDY, "--compare", tmp_path / "edited.json", "-o", quick)
    assert got.code == 1
    assert "Differs: montecarlo.r[7]:" in got.out and got.out.count("Differs") == 1


def test_a_killed_run_goes_on_to_the_same_numbers(quick: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    args = (*STUDY, "--option", "D", "--conversations", "2000", "-o", out)
    assert killed_at(out, args, 5, 0.0)
    got = process(*args)
    assert got.code == 0, got.err
    mine, whole = (_read(p / "results.json")["stages"] for p in (out, quick))
    assert _without_times(mine) == _without_times(whole)


def test_a_table_of_ones_own(quick: Path, tmp_path: Path) -> None:
    world = World(2_000, seed=4)
    block = np.concatenate([world.block(b) for b in range(world.n_blocks)]).astype(np.float64)
    names = ("decay", "surprise", "relevance", "habituation", "importance")
    columns = {n: block[..., k].ravel() for k, n in enumerate(names)}
    key = np.repeat(np.arange(len(block)), world.turns)
    order = np.random.default_rng(0).permutation(len(key))
    np.savez(
        tmp_path / "t.npz",
        allow_pickle=False,
        conversation=key[order],
        **{k: v[order] for k, v in columns.items()},
    )
    out = tmp_path / "out"
    got = process(*STUDY, "--option", "A", "--cases", tmp_path / "t.npz", "-o", out)
    assert got.code == 0, got.err
    assert "100,000 turns of t.npz in 2,000 conversations" in got.out
    found = _read(out / "results.json")["stages"]["montecarlo"]
    assert found["optimum"]["weights"] == pytest.approx([0.1, 0.6, 0.2, 0.1], abs=0.02)
    made_up = _read(quick / "results.json")["stages"]["montecarlo"]
    assert found["standard_error"] == pytest.approx(made_up["standard_error"], rel=0.15)
    page = (out / "report.html").read_text("utf8")
    assert "Made-up data" not in page
    assert "exact_r" not in found
    # a bundle of a table asks for that table
    refused(process(*STUDY, "--compare", out / "bundle.json", "-o", tmp_path / "b"), "--cases")
    columns["decay"][0] += 0.1
    np.savez(tmp_path / "other.npz", allow_pickle=False, conversation=key, **columns)
    got = process(
        *STUDY, "--compare", out / "bundle.json", "--cases", tmp_path / "other.npz",
        "-o", tmp_path / "b",
    )  # fmt: skip
    refused(got, "other.npz is not the table of bundle.json")


@needs_extra
def test_the_full_stack(tmp_path: Path) -> None:
    got = process(*STUDY, "--conversations", "12000", "-o", tmp_path / "out", timeout=900)
    assert got.code == 0, got.err
    body = _read(tmp_path / "out" / "results.json")
    stages = body["stages"]
    assert tuple(stages) == STAGES["C"]
    exact, chains = stages["posterior"]["methods"]
    assert chains["r_hat"]["value"] < 1.01 and chains["divergences"] == 0
    assert chains["error"]["mean"]["value"] < 0.05 and chains["error"]["sd"]["value"] < 0.05
    low, high = exact["low"][1]["value"], exact["high"][1]["value"]
    assert low < 0.6 < high
    networks = stages["architectures"]
    assert networks["test"]["value"] <= networks["ceiling"] + 0.02
    assert networks["candidates"] == 252
    assert "8 of 8 analyses" in got.out
    assert stages["factors"]["megabytes"] == pytest.approx(4.8)


@needs_extra
@pytest.mark.timeout(900)
def test_all_claims_of_the_study_agree() -> None:
    got = process("claims", "run", "--all", "--study", "heavystats", timeout=850)
    assert got.code == 0, got.out + got.err
    assert "0 verdicts differ" in got.out


def test_what_cannot_be_asked_is_refused(cli: Cli, tmp_path: Path) -> None:
    out = ("-o", tmp_path / "out")
    table, bundle = tmp_path / "t.npz", tmp_path / "bundle.json"
    bundle.write_text("{}")
    refused(cli(*STUDY, "--conversations", "10", *out), "1,000 to 100,000,000")
    refused(cli(*STUDY, "--conversations", "1e3.5", *out), "--conversations")
    refused(cli(*STUDY, "--conversations", "1000.5", *out), "whole number")
    refused(cli(*STUDY, "--conversations", "nan", *out), "whole number")
    refused(cli(*STUDY, "--seed", "-1", *out), "--seed")
    refused(cli(*STUDY, "--option", "E", *out), "--option")
    refused(cli(*STUDY, "--cases", table, *out), "no table at")
    refused(cli(*STUDY, "--cases", table, "--conversations", "1e4", *out), "not both")
    refused(cli(*STUDY, "--compare", bundle, *out), "bundle.json")
    refused(cli(*STUDY, "--compare", bundle, "--seed", "1", *out), "leave")
    refused(cli(*STUDY, "--compare", bundle, "--option", "D", *out), "leave")
    assert not (tmp_path / "out" / "results.json").exists()


def test_a_folder_of_another_world_is_refused(quick: Path) -> None:
    got = process(*STUDY, "--option", "D", "--conversations", "3000", "-o", quick)
    refused(got, "belongs to a run with another world")
