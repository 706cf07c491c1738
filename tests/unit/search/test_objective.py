import pytest
from hypothesis import given
from hypothesis import strategies as st

from justenough.core.subject import Runtime, Variant
from justenough.cost.hardware import profile
from justenough.cost.roofline import Layer, estimate
from justenough.search.chain import Measured, rungs
from justenough.search.goal import Goal
from justenough.search.objective import USUAL, Objective

HEAVY = Layer("heavy", 4e9, 1e4, 1e4)  # bound by arithmetic everywhere
LIGHT = Layer("light", 1e3, 4e7, 1e3)  # bound by its weights
MOVE = Layer("move", 0.0, 0.0, 1e4)
LAYERS = (HEAVY, LIGHT, MOVE)
INT8 = Variant.of({"heavy": "int8", "light": "int8"})


def objective(minimise: str = "latency", target: str = "rx580", batch: int = 1) -> Objective:
    return Objective(Goal(minimise, target), LAYERS, batch, 1000)


@pytest.mark.parametrize(
    ("minimise", "target", "unit", "estimated"),
    [
        ("bytes", "this-machine", "bytes", False),
        ("bytes", "rx580", "bytes", True),
        ("energy-estimate", "this-machine", "J", True),
        ("energy-estimate", "rx580", "J", True),
        ("latency", "rx580", "s", True),
        ("latency", "this-machine", "s", False),
    ],
)
def test_what_is_an_estimate_says_so(
    minimise: str, target: str, unit: str, estimated: bool
) -> None:
    found = objective(minimise, target)
    assert (found.unit, found.estimated) == (unit, estimated)


def test_bytes_are_those_of_the_file_and_a_cascade_holds_both() -> None:
    found = objective("bytes", "this-machine")
    assert found.of(INT8, 250) == 250.0 and found.reference == 1000.0
    for share in (0.0, 0.01, 1.0):
        assert found.exact.per_case(share) == 1000.0
    import numpy as np

    margins = np.linspace(0.1, 2, 50).astype(np.float32)
    kept = margins + np.linspace(-0.05, 0.05, 50).astype(np.float32)
    m = Measured("v", found.of(INT8, 250), kept, margins, 1.0)
    chain = rungs(margins, [m], found.reference, found.exact)
    # A cascade is the reference and something more: for bytes it never pays.
    assert [r.threshold for r in chain] == [None] and chain[0].seconds == 250.0


def test_deferred_rows_cost_what_the_reference_costs() -> None:
    found = objective("latency", "h100", 8)
    assert found.exact.per_case(0.0) == 0.0
    assert found.exact.per_case(1.0) == pytest.approx(found.reference)
    assert found.exact.per_case(0.25) == pytest.approx(found.reference / 4)


def test_an_rx580_has_no_int8_arithmetic_to_gain_from() -> None:
    """Polaris computes int8 in float32: only what is bound by its weights gets faster."""
    found = objective("latency", "rx580")
    exact = found.of(Variant(), 0)
    assert found.of(Variant.of({"heavy": "int8"}), 0) == pytest.approx(exact, rel=1e-3)
    assert found.of(Variant.of({"light": "int8"}), 0) < exact
    elsewhere = objective("latency", "cpu-avx512-vnni")
    assert elsewhere.of(Variant.of({"heavy": "int8"}), 0) < 0.5 * elsewhere.of(Variant(), 0)


def test_this_machine_counts_joules_on_a_usual_processor() -> None:
    got = objective("energy-estimate", "this-machine", 4).of(INT8, 0)
    picks = {"heavy": "int8", "light": "int8"}
    assert got == estimate(LAYERS, picks, profile(USUAL), batch=4).joule / 4


def test_a_runtime_of_bf16_counts_every_node_in_it() -> None:
    found = objective("latency", "h100")
    narrow = found.of(Variant.of({}, runtime=Runtime("openvino", "bf16")), 0)
    assert narrow < found.of(Variant(), 0)
    mixed = Variant.of({"heavy": "int8"}, runtime=Runtime("openvino", "bf16"))
    picks = {"heavy": "int8", "light": "bf16", "move": "bf16"}
    assert found.of(mixed, 0) == estimate(LAYERS, picks, profile("h100"), batch=1).seconds


def test_picks_of_no_known_layer_count_nothing() -> None:
    assert objective().of(Variant.of({"other": "int8"}), 0) == objective().reference


@pytest.mark.parametrize("minimise", ["latency", "energy-estimate", "bytes"])
@pytest.mark.parametrize("batch", [1, 8])
def test_the_program_predicts_what_the_objective_says(minimise: str, batch: int) -> None:
    found = objective(minimise, "rx580", batch)
    choices = {"heavy": ("int8",), "light": ("int8",)}
    program = found.program(
        choices, lambda s, c: {"heavy": 100, "light": 200}[s] * (1 if c == "int8" else 4)
    )
    noise = {(s, "int8"): 1.0 for s in choices}
    assert program.base == found.reference
    best = program.solve(noise, 10.0, pins=dict.fromkeys(choices, "int8"))
    assert best is not None
    want = 1000.0 - 300 * 24 / 8 if minimise == "bytes" else found.of(INT8, 0)
    assert best[1] == pytest.approx(want, rel=1e-6)


@given(st.sampled_from(["latency", "energy-estimate"]), st.sampled_from(["rx580", "h100"]),
       st.sets(st.sampled_from(["heavy", "light"])))  # fmt: skip
def test_int8_is_never_counted_dearer(minimise: str, target: str, sites: set[str]) -> None:
    found = objective(minimise, target)
    assert found.of(Variant.of(dict.fromkeys(sites, "int8")), 0) <= found.reference
