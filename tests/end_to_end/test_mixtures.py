"""The search as a whole, with local choices, pins and repairs, on a small real network."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_world import KEEP, SITES, Cli, Given, refused

from justenough.core.cases import load_cases
from justenough.core.contract import Contract, parse_clause
from justenough.core.subject import Variant
from justenough.measured import measure_variants
from justenough.road import compress, nobody, quiet
from justenough.search import mending, sensitivity, workbench
from justenough.search.goal import Goal
from justenough.search.mending import mend
from justenough.search.workbench import Workbench, key
from justenough.subjects.mended import Mended
from justenough.survey import Road, open_road

SHARES = (0.15, 0.35, 0.5)


def opened(given: Given, out: Path, **goal: Any) -> Road:
    cases = load_cases(given.cases, ("x",))
    contract = Contract((parse_clause("decision_stability >= 0.9"),))
    wanted = Goal(runtimes=("onnxruntime",), **goal)
    return open_road(given.model, cases, contract, out, None, SHARES, 8, 1, quiet, nobody, wanted)


@pytest.fixture
def bench(given: Given, tmp_path: Path) -> Iterator[Workbench]:
    road = opened(given, tmp_path / "out", minimise="bytes")
    yield road.bench
    road.bench.close()
    road.store.close()


@pytest.mark.slow
def test_bytes_go_below_eight_bits(given: Given, tmp_path: Path) -> None:
    """What is certified is smaller than int8 everywhere, and made of local choices."""
    cases = load_cases(given.cases, ("x",))
    contract = Contract((parse_clause("decision_stability >= 0.75"),))
    goal = Goal(minimise="bytes", runtimes=("onnxruntime",))
    got = compress(
        given.model, cases, contract, tmp_path / "out", shares=SHARES, batch=8, goal=goal
    )
    search, result = got.summary["search"], got.summary["result"]
    assert result is not None, got.summary["reason"]
    assert result["bytes"] < 0.9 * search["variants"][search["all_int8"]]["bytes"]
    assert any("weight" in c for c in result["sites"].values()), result["sites"]
    assert (tmp_path / "out/model.onnx").stat().st_size == result["bytes"]
    assert {"int8-weight", "int4-weight", "int2-weight"} <= set(search["sensitivity"]["local"])
    assert set(search["sensitivity"]["noise"]) == set(SITES)
    assert all(
        "int8-dynamic" not in dict(v["picks"]).values() for v in search["variants"].values()
    )


@pytest.mark.slow
@pytest.mark.parametrize("minimise", ["bytes", "latency"])
def test_pins_are_kept_in_every_variant(given: Given, tmp_path: Path, minimise: str) -> None:
    pins = (("first", "fp32"), ("second", "fp16-weight"))
    road = opened(given, tmp_path / "out", minimise=minimise, pins=pins)
    try:
        found = measure_variants(road)["variants"].values()
    finally:
        road.bench.close()
        road.store.close()
    assert found
    for entry in found:
        picks = dict(entry["picks"])
        assert picks.get("first", "fp32") == "fp32"
        assert picks["second"] == "fp16-weight"


@pytest.mark.parametrize(
    ("pin", "words"),
    [
        ("third=int8", ("'third'", "first, second, readout")),
        ("first=int8-dynamic", ("'int8-dynamic'", "fp32, int8, fp16-weight")),
    ],
)
def test_a_pin_that_cannot_be_is_refused(
    cli: Cli, given: Given, tmp_path: Path, pin: str, words: tuple[str, ...]
) -> None:
    """Dynamic int8 is not open in calls of several rows: they would share a range."""
    args = (*given.args, *KEEP, "--pin", pin, "--runtime", "onnxruntime")
    refused(cli("compress", *args, "-o", tmp_path / "out"), *words)


def test_dynamic_int8_is_open_in_calls_of_one_row_only(bench: Workbench) -> None:
    site = bench.sites[0].name
    assert "int8-dynamic" not in bench.choices[site]
    assert "int8-dynamic" in replace(bench, batch=1).choices[site]
    assert bench.choices[site][:2] == ("fp32", "int8")


@pytest.mark.parametrize(("wraps", "tried"), [(True, "minmax-narrow"), (False, None)])
def test_narrow_weights_are_tried_where_products_may_be_cut_off(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, wraps: bool, tried: str | None
) -> None:
    monkeypatch.setattr(workbench, "adds_in_16_bits", lambda: wraps)
    found = bench.best_calibration()
    assert (tried in found["found"]) is wraps
    assert len(found["found"]) == (4 if wraps else 3)
    assert found["best"] in found["found"]


def test_a_repair_is_kept_where_other_rows_confirm_it(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One helps, one fits the rows that chose it, one is no tenth, one does harm."""
    said = {"helps": [5.0, 5.0], "overfits": [1.0, 4.9], "slight": [4.8, 4.8], "harms": [9.0, 9.0]}
    tried: list[str] = []

    def repaired(self: Mended, name: str, *_: object) -> Mended:
        tried.append(name)
        return replace(self)

    monkeypatch.setattr(mending, "FREE", tuple(said))
    monkeypatch.setattr(Mended, "repaired", repaired)
    monkeypatch.setattr(mending, "_noise", lambda *_: said[tried[-1]] if tried else [10.0, 10.0])
    variant = Variant.of({"first": "int4-weight"})
    got = mend(bench, variant, 60.0)
    assert got is not None
    assert got.repairs == ("helps",)
    assert [s["kept"] for s in bench.store.get(f"repairs/{key(variant)}")["steps"]] == [
        True, False, False, False,
    ]  # fmt: skip
    tried.clear()
    assert mend(bench, variant, 60.0) == got, "recorded"
    assert tried == []
    monkeypatch.setattr(mending, "FREE", ("harms",))
    assert mend(bench, Variant.of({"second": "int4-weight"}), 60.0) is None
    assert mend(bench, Variant.of({"readout": "int4-weight"}), 0.0) is None, "no time"


@pytest.mark.slow
def test_a_repaired_file_is_built_again_to_the_byte(bench: Workbench) -> None:
    variant = Variant.of({"first": "int2-weight", "second": "int2-weight", "readout": "int8"})
    bench.outputs  # noqa: B018 - what repairs are measured against
    got = mend(bench, variant, 60.0)
    assert got is not None
    assert "rounded" in got.repairs
    file = bench.file(got)
    content = file.read_bytes()
    file.unlink()
    assert bench.file(got).read_bytes() == content != bench.file(variant).read_bytes()
    assert bench.measured(got, 0.0).noise < 0.9 * bench.measured(variant, 0.0).noise


@pytest.mark.slow
def test_noise_by_files_is_that_by_gradients(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    bench.outputs  # noqa: B018
    exact = "minmax-narrow"  # on any processor
    rows = {"x": np.asarray(bench.search.cases.inputs["x"])}
    choices = dict.fromkeys(SITES, ("int8-weight", "int4-weight"))
    by_gradients = sensitivity._by_gradients(bench, exact, rows, choices)
    assert not isinstance(by_gradients, str)
    monkeypatch.setattr(sensitivity, "LOCAL_ROWS", len(rows["x"]))
    by_files = sensitivity._by_files(bench, exact, rows, choices)
    one, two = sensitivity.noise_of(by_gradients), sensitivity.noise_of(by_files)
    assert set(one) == set(two) == {(s, c) for s in SITES for c in ("int8", *choices[s])}
    # Files are judged by all logits, gradients by the margin: alike up to a factor.
    ratio = {k: one[k] / two[k] for k in one}
    usual = np.median(list(ratio.values()))
    assert 0.2 < usual < 2
    assert all(usual / 2.5 < r < usual * 2.5 for r in ratio.values()), ratio
    eight = sensitivity.eight_bits(one, bench.sites)
    assert eight == sum(min(one[s, "int8"], one[s, "int8-weight"]) for s in SITES)
