"""Laws of the roofline and of the energy estimate, and goldens with their sources."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from justenough.cost.hardware import CHOICES, Hardware, profile, profiles
from justenough.cost.roofline import (
    DRAM_JOULE_PER_BYTE,
    MULTIPLY_ADD_JOULE,
    Estimate,
    Layer,
    Work,
    energy_joule,
    estimate,
    seconds,
    speedup,
)
from justenough.errors import InputError

AMOUNT = st.floats(0, 1e15)
WORK = st.builds(Work, AMOUNT, AMOUNT, AMOUNT)
HARDWARE = st.sampled_from(list(profiles().values()))
CHOICE = st.sampled_from(list(CHOICES))
LAYERS = st.lists(
    st.tuples(st.none() | AMOUNT, AMOUNT, st.none() | AMOUNT), min_size=1, max_size=6
).map(lambda rows: [Layer(f"n{k}", *r) for k, r in enumerate([*rows, (1e6, 1e3, 1e3)])])


# One node


@given(WORK, HARDWARE, st.integers(0, 5))
def test_time_is_the_longest_of_its_parts(work: Work, hardware: Hardware, launches: int) -> None:
    got = seconds(work, "fp32", hardware, launches=launches)
    parts = {
        "arithmetic": work.operations / hardware.rate("fp32"),
        "bandwidth": (work.weight_bytes + work.activation_bytes) / hardware.bandwidth_bytes_s,
        "launch": launches * hardware.launch_s,
    }
    assert got.seconds == max(parts.values())
    assert parts[got.bound] == got.seconds
    assert got.seconds_by_bound == ((got.bound, got.seconds),)


@given(WORK, HARDWARE)
def test_halving_bytes_never_slows_and_saves_at_most_half(work: Work, hardware: Hardware) -> None:
    half = replace(
        work, weight_bytes=work.weight_bytes / 2, activation_bytes=work.activation_bytes / 2
    )
    before, after = (seconds(w, "fp32", hardware).seconds for w in (work, half))
    assert before / 2 * (1 - 1e-12) <= after <= before


@given(st.floats(1e9, 1e15), st.sampled_from(["int8", "fp16", "bf16", "int4-weight"]))
def test_polaris_never_computes_faster_in_fewer_bits(operations: float, choice: str) -> None:
    rx580 = profile("rx580")
    layer = Layer("conv", operations)
    low = seconds(layer.work(choice), rx580.arithmetic(choice), rx580)
    exact = seconds(layer.work("fp32"), "fp32", rx580)
    assert exact.bound == "arithmetic" or exact.seconds == rx580.launch_s
    assert low.seconds == exact.seconds


def test_polaris_saves_bytes_where_bytes_bind() -> None:
    """A product of one row, as in a language model: 2x for fp16, 4x for int8, of weights."""
    rx580 = profile("rx580")
    layer = Layer("fc", 4096 * 4096, 4096 * 4096, 2 * 4096)
    exact = seconds(layer.work("fp32"), "fp32", rx580)
    assert exact.bound == "bandwidth"
    for choice, least in (("fp16", 2.0), ("int8", 4.0)):
        low = seconds(layer.work(choice), rx580.arithmetic(choice), rx580)
        assert exact.seconds / low.seconds == pytest.approx(least)


@pytest.mark.parametrize(
    ("name", "choice", "times"),
    [
        ("h100", "int8", 4096 * 1.83 / (128 * 1.98)),
        ("h100", "fp16", 2048 * 1.83 / (128 * 1.98)),
        ("vega64", "fp16", 2.0),
        ("gtx1060", "int8", 4.0),
        ("gtx1060", "fp16", 1.0),
        ("cpu-avx2", "int8", 2.0),
        ("cpu-avx2", "bf16", 1.0),
        ("cpu-avx512-vnni", "int8-dynamic", 4.0),
        ("cpu-avx512-vnni", "bf16", 2.0),
        ("cpu-avx512-vnni", "int8-weight", 1.0),
    ],
)
def test_arithmetic_that_the_hardware_has_pays(name: str, choice: str, times: float) -> None:
    hardware, layer = profile(name), Layer("conv", 1e14)
    low = seconds(layer.work(choice), hardware.arithmetic(choice), hardware)
    exact = seconds(layer.work("fp32"), "fp32", hardware)
    assert low.bound == exact.bound == "arithmetic"
    assert exact.seconds / low.seconds == pytest.approx(times)


@given(HARDWARE, st.floats(1e9, 1e15))
def test_arithmetic_and_memory_meet_at_the_ridge(hardware: Hardware, moved: float) -> None:
    for arithmetic, rate in hardware.peak.items():
        ridge = rate.per_s / hardware.bandwidth_bytes_s
        assert hardware.ridge(arithmetic) == ridge
        for side, bound in ((0.99, "bandwidth"), (1.01, "arithmetic")):
            work = Work(side * ridge * moved, moved, 0)
            assert seconds(work, arithmetic, hardware).bound == bound


def test_small_nodes_are_bound_by_their_launch() -> None:
    got = seconds(Work(10, 40, 40), "fp32", profile("h100"), launches=3)
    assert (got.bound, got.seconds) == ("launch", 3 * profile("h100").launch_s)


def test_bytes_of_each_choice() -> None:
    layer = Layer("fc", 6.0, 1000, 10)
    moved = {c: (layer.work(c).weight_bytes, layer.work(c).activation_bytes) for c in CHOICES}
    assert moved == {
        "fp32": (4000, 40), "bf16": (2000, 20), "fp16": (2000, 20), "int8": (1000, 10),
        "int8-dynamic": (1000, 40), "fp16-weight": (2000, 40), "int8-weight": (1000, 40),
        "int4-weight": (500, 40), "int2-weight": (250, 40),
        "bf16-weight": (2000, 40), "int4-weight-b128": (500, 40),
    }  # fmt: skip
    assert layer.work("fp32", batch=3) == Work(18, 4000, 120)


# Networks


@given(LAYERS, HARDWARE, CHOICE, st.integers(1, 64), st.integers(1, 64))
def test_networks_never_get_faster_with_more_cases(
    layers: list[Layer], hardware: Hardware, choice: str, batch: int, more: int
) -> None:
    picks = {layer.name: choice for layer in layers[::2]}
    small = estimate(layers, picks, hardware, batch=batch)
    large = estimate(layers, picks, hardware, batch=batch + more)
    assert small.seconds <= large.seconds * (1 + 1e-12)
    assert large.seconds / (batch + more) <= small.seconds / batch * (1 + 1e-12)
    assert small.joule <= large.joule
    assert small.left_out == large.left_out


@given(LAYERS, HARDWARE, CHOICE)
def test_no_choice_is_estimated_slower_or_hungrier_than_float32(
    layers: list[Layer], hardware: Hardware, choice: str
) -> None:
    exact = estimate(layers, {}, hardware)
    low = estimate(layers, {layer.name: choice for layer in layers}, hardware)
    assert speedup(exact, low) >= 1 - 1e-12
    assert low.joule <= exact.joule * (1 + 1e-12)


@given(LAYERS, HARDWARE)
def test_a_network_is_the_sum_of_its_nodes(layers: list[Layer], hardware: Hardware) -> None:
    got = estimate(layers, {}, hardware, batch=3)
    known = [la for la in layers if la.operations is not None or la.activations is not None]
    nodes = [seconds(la.work("fp32", 3), "fp32", hardware) for la in known]
    assert got.seconds == pytest.approx(sum(n.seconds for n in nodes))
    assert got.joule == pytest.approx(sum(n.joule for n in nodes))
    assert sum(s for _, s in got.seconds_by_bound) == pytest.approx(got.seconds)
    assert got.bound == max(got.seconds_by_bound, key=lambda pair: pair[1])[0]


def test_what_is_not_known_is_said() -> None:
    layers = [
        Layer("conv", 1e9, 1e4, 1e6),
        Layer("relu", 0, 0, 2e6),
        Layer("loop", None),
        Layer("odd", 1e9),
        Layer("resize", None, 0, 1e6),
    ]
    got = estimate(layers, {"conv": "int8"}, profile("rx580"), batch=2)
    assert got.left_out == ("loop", "values of odd", "operations of resize")
    assert str(got).startswith("estimate for rx580: ")
    assert str(got).endswith("; without loop, values of odd, operations of resize")
    # The node that only moves values counts by its bytes: 2 x 2e6 x 4 of 256 GB/s.
    alone = estimate(layers[1:2], {}, profile("rx580"), batch=2)
    assert alone.bound == "bandwidth"
    assert alone.seconds == pytest.approx(16e6 / 256e9)


def test_estimates_are_marked() -> None:
    got = estimate([Layer("a", 1e6)], {}, profile("h100"))
    assert got.measured is False
    assert "estimate" in str(got)


def test_a_model_larger_than_the_memory() -> None:
    layers = [Layer("fc", 7e9, 7e9, 1e4)]
    exact, low = (estimate(layers, {"fc": c}, profile("rx580")) for c in ("fp32", "int4-weight"))
    assert not exact.fits and "does not fit in its memory" in str(exact)
    assert low.fits and "fit" not in str(low)
    assert not seconds(layers[0].work("fp32"), "fp32", profile("rx580")).fits


# Energy


def test_energy_is_what_horowitz_gives() -> None:
    """ISSCC 2014, figure 1.1.9, 45 nm; quoted by gist V0XNIHILI/2b6fa61edd4c06d9ffce5551065124c1.

    pJ: float32 product 3.7, sum 0.9; float16 product 1.1; int8 product 0.2; int32 sum 0.1; 64
    bits of DRAM 1,300 to 2,600.
    """
    pico = {a: 1e12 * j for a, j in MULTIPLY_ADD_JOULE.items()}
    assert pico == pytest.approx({"fp32": 4.6, "tf32": 2.0, "fp16": 2.0, "bf16": 2.0, "int8": 0.3})
    assert 1300 <= 8e12 * DRAM_JOULE_PER_BYTE <= 2600
    assert energy_joule(Work(1e12, 0, 0), "fp32") == pytest.approx(4.6)
    assert energy_joule(Work(0, 4e9, 4e9), "int8") == pytest.approx(1.3)


@given(WORK, st.sampled_from(list(MULTIPLY_ADD_JOULE)))
def test_energy_adds_up(work: Work, arithmetic: str) -> None:
    computed = energy_joule(Work(work.operations, 0, 0), arithmetic)
    moved = energy_joule(Work(0, work.weight_bytes, work.activation_bytes), arithmetic)
    assert energy_joule(work, arithmetic) == pytest.approx(computed + moved)


def test_every_arithmetic_of_a_profile_has_an_energy() -> None:
    assert {a for h in profiles().values() for a in h.peak} <= set(MULTIPLY_ADD_JOULE)


# What is refused


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf])
def test_amounts_are_checked(bad: float) -> None:
    with pytest.raises(InputError, match=rf"weight_bytes is {bad}; it must be 0 or more and fin"):
        Work(1, bad, 1)
    with pytest.raises(InputError, match=rf"operations of 'a' is {bad}; it must be 0 or more"):
        Layer("a", bad)
    with pytest.raises(InputError, match=rf"activations of 'a' is {bad}"):
        Layer("a", None, 0, bad)


def test_networks_are_checked() -> None:
    h100, net = profile("h100"), [Layer("conv1", 1e6)]
    with pytest.raises(InputError, match="batch is 0; it must be 1 or more"):
        estimate(net, {}, h100, batch=0)
    with pytest.raises(InputError, match="no layers; give one at least"):
        estimate([], {}, h100)
    with pytest.raises(InputError, match="2 layers are called 'conv1'; names must differ"):
        estimate(2 * net, {}, h100)
    with pytest.raises(InputError, match="no layer 'conv2' for choice 'int8'; did you mean 'con"):
        estimate(net, {"conv2": "int8"}, h100)
    with pytest.raises(InputError, match="layer 'conv1' has no choice 'int16'; did you mean"):
        estimate(net, {"conv1": "int16"}, h100)
    with pytest.raises(InputError, match="nothing is known of any layer; give operations or act"):
        estimate([Layer("a", None)], {}, h100)


def test_arithmetic_without_energy_or_hardware() -> None:
    with pytest.raises(InputError, match=r"no energy is known for 'int4' arithmetic; did you me"):
        energy_joule(Work(1, 1, 1), "int4")
    with pytest.raises(InputError, match=r"cpu-avx2 has no 'bf16' arithmetic"):
        seconds(Work(1, 1, 1), "bf16", profile("cpu-avx2"))


def test_only_like_is_compared() -> None:
    net = [Layer("a", 1e9)]
    here, there = (estimate(net, {}, profile(p)) for p in ("h100", "rx580"))
    with pytest.raises(
        InputError, match=r"an estimate for h100: .* do not compare; estimate both"
    ):
        speedup(here, there)
    with pytest.raises(InputError, match="do not compare"):
        speedup(estimate([*net, Layer("b", None)], {}, profile("h100")), here)
    nothing = Estimate(0.0, "launch", 0.0, "h100", (("launch", 0.0),))
    with pytest.raises(InputError, match="is of no work; nothing compares with it"):
        speedup(here, nothing)
    assert speedup(there, there) == 1
