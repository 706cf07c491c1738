from collections.abc import Callable
from dataclasses import replace

import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st

from justenough.core.subject import ONNXRUNTIME, Runtime
from justenough.search import families as module
from justenough.search.families import HEADROOM, Family, families, site_program, worth_searching

FULL = Family(ONNXRUNTIME, "full", 4)
ONNX = [FULL, Family(FULL.runtime, "whole", 3)]
BF16 = Runtime("openvino", "bf16")
PLAIN = Family(BF16, "plain", 1)
NNCF, INPUTS = Family(BF16, "nncf", 3), Family(BF16, "inputs", 3)
ALL = [FULL, PLAIN, NNCF, INPUTS]
SECONDS = st.floats(1e-6, 10.0)
TIMES = st.dictionaries(st.sampled_from([f.name for f in ALL]), SECONDS)


def lacking(*names: str) -> Callable[[Runtime], str]:
    return lambda r: f"{r.name} is not installed" if r.name in names else ""


def test_a_family_names_and_makes_its_variants() -> None:
    assert (FULL.name, PLAIN.name, NNCF.name) == (
        "onnxruntime full", "openvino bf16 plain", "openvino bf16 nncf",
    )  # fmt: skip
    variant = NNCF.variant({"b": "int8", "a": "bf16"}, "kl")
    assert variant.picks == (("b", "int8"),)
    assert (variant.runtime, variant.form, variant.calibration) == (BF16, "nncf", "kl")
    assert FULL.variant({"a": "fp32"}, "minmax").picks == ()


def test_only_runtimes_that_are_asked_for_are_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "missing_part", lacking("openvino", "ncnn"))
    assert families(("onnxruntime",)) == (ONNX, [])
    found, notes = families(("ncnn",))
    assert found == [] and notes == ["ncnn is not installed"]


@pytest.mark.parametrize(("machine", "notes"), [("x86_64", 1), ("AMD64", 1), ("aarch64", 0)])
def test_openvino_is_only_missed_where_it_helps(
    monkeypatch: pytest.MonkeyPatch, machine: str, notes: int
) -> None:
    monkeypatch.setattr(module, "missing_part", lacking("openvino"))
    monkeypatch.setattr("platform.machine", lambda: machine)
    found, said = families(("onnxruntime", "openvino"))
    assert found == ONNX and len(said) == notes
    assert all("on x86 it brings bf16" in s for s in said)


@pytest.mark.parametrize(
    ("has", "precision"), [(("fp32",), "fp32"), (("fp32", "bf16", "fp16"), "bf16")]
)
def test_openvino_takes_bf16_where_there_is_any(
    monkeypatch: pytest.MonkeyPatch, has: tuple[str, ...], precision: str
) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setattr("justenough.subjects.openvino_session.precisions", lambda: has)
    found, notes = families(("openvino",))
    assert notes == [] and [f.form for f in found] == ["plain", "nncf", "inputs"]
    assert {f.runtime for f in found} == {Runtime("openvino", precision)}


@pytest.mark.parametrize(("devices", "device"), [([], "cpu"), (["card"], "vulkan")])
def test_ncnn_takes_the_card_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, devices: list[str], device: str
) -> None:
    monkeypatch.setattr(module, "missing_part", lacking())
    monkeypatch.setattr("justenough.subjects.ncnn_session.vulkan_devices", lambda: devices)
    found, _ = families(("ncnn",))
    assert [str(f.runtime) for f in found] == [
        str(Runtime("ncnn", p, device)) for p in ("fp32", "fp16")
    ]
    assert {f.form for f in found} == {"plain"}


@given(TIMES, SECONDS)
def test_what_has_no_mixtures_or_was_not_built_is_not_searched(
    times: dict[str, float], reference_s: float
) -> None:
    got = worth_searching(ALL, times, reference_s)
    assert all(f.form != "plain" and f.name in times for f in got)
    assert [f for f in ALL if f in got] == got


@given(TIMES, SECONDS, st.sampled_from([FULL, NNCF, INPUTS]), st.floats(0.01, 1.0))
def test_a_faster_family_stays_in(
    times: dict[str, float], reference_s: float, family: Family, share: float
) -> None:
    if family in worth_searching(ALL, times, reference_s):
        faster = {**times, family.name: share * times[family.name]}
        assert family in worth_searching(ALL, faster, reference_s)


@given(TIMES, SECONDS, st.sampled_from(ALL), st.floats(1.0, 100.0))
def test_a_slower_rival_takes_nothing_out(
    times: dict[str, float], reference_s: float, rival: Family, slower: float
) -> None:
    if rival.name in times:
        before = worth_searching(ALL, times, reference_s)
        after = worth_searching(
            ALL, {**times, rival.name: slower * times[rival.name]}, reference_s
        )
        assert set(before) - {rival} <= set(after)


@given(TIMES, SECONDS)
def test_the_fastest_of_all_is_searched(times: dict[str, float], reference_s: float) -> None:
    mixed = {k: v for k, v in times.items() if k != PLAIN.name}
    fastest = min(mixed, key=lambda k: mixed[k], default=None)
    others = [reference_s, times.get(PLAIN.name, reference_s)]
    if fastest is not None and mixed[fastest] < min(others):
        assert fastest in {f.name for f in worth_searching(ALL, times, reference_s)}


@given(TIMES, SECONDS, st.floats(1e-3, 1e3))
def test_the_unit_of_time_does_not_matter(
    times: dict[str, float], reference_s: float, unit: float
) -> None:
    scaled = {k: v * unit for k, v in times.items()}
    edges = [reference_s, *times.values()]
    ratios = [a / b for a in edges for b in edges if a is not b]
    if all(abs(r - edge) > 1e-9 for r in ratios for edge in (1.0, HEADROOM)):
        assert worth_searching(ALL, scaled, reference_s * unit) == worth_searching(
            ALL, times, reference_s
        )


def test_onnxruntime_gets_a_third_of_room_and_the_others_none() -> None:
    for family, most in ((FULL, HEADROOM), (NNCF, 1.0)):
        for share, kept in ((0.999, True), (1.001, False)):
            times = {family.name: most * share, PLAIN.name: 1.0}
            assert (worth_searching(ALL, times, 5.0) == [family]) is kept
    # The fastest int8 file ends the search of families that are a third slower.
    assert worth_searching(ALL, {FULL.name: 1.0, NNCF.name: 0.5}, 5.0) == [NNCF]
    assert worth_searching(ALL, {FULL.name: 1.0, NNCF.name: 0.8}, 5.0) == [FULL, NNCF]


def test_gains_of_sites_add() -> None:
    program = site_program({"a": 2.0, "b": 1.0, "c": 1.0}, {"a": 0.5, "b": 1.5, "c": 1.0}, 4.0)
    noise = {(s, "int8"): 1.0 for s in "abc"}
    found = program.solve(noise, 10.0)
    assert found is not None
    variant, cost = found
    assert variant.sites("int8")[:1] == ("a",) and "b" not in variant.sites("int8")
    assert cost == pytest.approx(2.5)
    assert program.base == 4.0
    pinned = program.solve(noise, 10.0, pins={"a": "fp32", "b": "int8"})
    assert pinned is not None and pinned[1] == pytest.approx(4.5)


def test_names_are_the_key_of_a_family() -> None:
    assert len({f.name for f in ALL}) == len(ALL)
    assert replace(NNCF, most=1).name == NNCF.name


def test_a_graphics_card_with_a_provider_is_a_runtime_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there = ["CUDAExecutionProvider", "DmlExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(ort, "get_available_providers", lambda: there)
    found, notes = families(("onnxruntime",))
    cards = [Family(Runtime("onnxruntime", device=d), "plain", 1) for d in ("cuda", "dml")]
    assert found == [*ONNX, *cards] and not notes
    assert [f.name for f in cards] == ["onnxruntime cuda plain", "onnxruntime dml plain"]
