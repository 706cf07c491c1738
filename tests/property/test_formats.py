"""Laws that every format keeps."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.stats import norm

from justenough.formats import kernels
from justenough.formats.adaptive import AdaptiveFormat
from justenough.formats.blocks import (
    MXFP4,
    MXFP6_E2M3,
    MXFP6_E3M2,
    MXFP8_E4M3,
    MXFP8_E5M2,
    NVFP4,
    BlockFormat,
)
from justenough.formats.floats import (
    BF16,
    FP4_E2M1,
    FP6_E2M3,
    FP6_E3M2,
    FP8_E4M3,
    FP8_E5M2,
    FP16,
    FloatFormat,
    numbers_of,
)
from justenough.formats.format import Format
from justenough.formats.integers import IntFormat, largest
from justenough.formats.logarithmic import (
    ADD_ERROR,
    LNS8,
    LNS16,
    SUBTRACT_ERROR,
    LogFormat,
)
from justenough.formats.packing import pack, packed_size, unpack
from justenough.formats.snr import snr_db

Floats = NDArray[np.float32]
FLOATS = [FP16, BF16, FP8_E4M3, FP8_E5M2, FP6_E3M2, FP6_E2M3, FP4_E2M1]
LOGS = [LNS8, LNS16]
INTS = [
    IntFormat(8),
    IntFormat(4, axis=0),
    IntFormat(2, axis=-1),
    IntFormat(4, block=4),
    IntFormat(12, symmetric=False),
    IntFormat(4, block=3, symmetric=False),
]
BLOCKS = [MXFP8_E4M3, MXFP8_E5M2, MXFP6_E3M2, MXFP6_E2M3, MXFP4, NVFP4]
SHORT = [replace(f, block=4) for f in BLOCKS]
ADAPTIVE = [
    AdaptiveFormat(FP16, IntFormat(4), share=0.25),
    AdaptiveFormat(BF16, MXFP4, cut=1.0),
]
ALL: list[Format] = [*FLOATS, *LOGS, *INTS, *BLOCKS, *SHORT, *ADAPTIVE]
UNSCALED: list[Any] = [*FLOATS, *LOGS]

# Compiling at the first call takes longer than any deadline.
brief = settings(deadline=None, max_examples=25)
EDGE = float(np.float32(1e38))
wild = st.floats(-EDGE, EDGE, width=32)
tame = st.floats(-1e4, 1e4, width=32)
vectors = arrays(np.float32, st.integers(0, 40), elements=wild)
matrices = arrays(np.float32, (5, 6), elements=wild)


def named(form: Any) -> str:
    return f"{form.name}" + (f"-{form.block}" if getattr(form, "block", None) else "")


def bits(x: Floats) -> NDArray[np.uint32]:
    return np.ascontiguousarray(x).view(np.uint32)


# Every format


@pytest.mark.parametrize("form", ALL, ids=named)
@brief
@given(x=matrices, seed=st.none() | st.integers(0, 9))
def test_rounding_is_encoding_and_decoding(form: Format, x: Floats, seed: int | None) -> None:
    def rng() -> np.random.Generator | None:
        return None if seed is None else np.random.default_rng(seed)

    coded = form.encode(x, rng=rng())
    assert coded.codes.shape == x.shape
    rounded = form.round(x, rng=rng())
    np.testing.assert_array_equal(bits(form.decode(coded)), bits(rounded))
    out = x.copy()
    assert form.round(out, rng=rng(), out=out, threads=2) is out
    np.testing.assert_array_equal(bits(out), bits(rounded))


@pytest.mark.parametrize("form", ALL, ids=named)
@brief
@given(x=matrices)
def test_bytes_bring_everything_back(form: Format, x: Floats) -> None:
    coded = form.encode(x)
    data = form.packed_bytes(coded)
    back = form.from_bytes(data, x.shape)
    np.testing.assert_array_equal(bits(form.decode(back)), bits(form.decode(coded)))
    if not (isinstance(form, AdaptiveFormat) and form.share is None):
        assert len(data) == form.bytes_of(x.shape)


@pytest.mark.parametrize("form", [f for f in ALL if not isinstance(f, AdaptiveFormat)], ids=named)
@brief
@given(x=matrices, seed=st.none() | st.integers(0, 9))
def test_both_routes_give_the_same_bits(form: Format, x: Floats, seed: int | None) -> None:
    pytest.importorskip("numba")
    results = []
    for route in ("plain", "fast"):
        with kernels.only(route):
            rng = None if seed is None else np.random.default_rng(seed)
            results.append(bits(form.round(x, rng=rng)))
    np.testing.assert_array_equal(results[0], results[1])


@pytest.mark.parametrize("form", [*UNSCALED, *BLOCKS, *INTS[:4]], ids=named)
@brief
@given(x=matrices)
def test_signs_do_not_matter(form: Format, x: Floats) -> None:
    np.testing.assert_array_equal(form.round(-x), -form.round(x))


@pytest.mark.parametrize("form", UNSCALED, ids=named)
@brief
@given(x=vectors)
def test_order_is_kept(form: Format, x: Floats) -> None:
    rounded = form.round(np.sort(x))
    assert (rounded[1:] >= rounded[:-1]).all()


@pytest.mark.parametrize(
    ("form", "group"),
    [
        *((f, (3,)) for f in (*INTS[:1], *INTS[3:], *BLOCKS)),
        (INTS[1], (1, 3)),
        (INTS[2], (3, 1)),
    ],
)
@brief
@given(x=arrays(np.float32, 3, elements=wild))
def test_order_is_kept_within_a_group(form: Format, group: tuple[int, ...], x: Floats) -> None:
    rounded = form.round(np.sort(x).reshape(group)).ravel()
    assert (np.diff(rounded) >= 0).all()


@pytest.mark.parametrize("form", UNSCALED, ids=named)
@brief
@given(x=vectors)
def test_twice_is_once(form: Format, x: Floats) -> None:
    once = form.round(x)
    np.testing.assert_array_equal(bits(form.round(once)), bits(once))


@pytest.mark.parametrize("form", BLOCKS[:5], ids=named)
@brief
@given(x=arrays(np.float32, (2, 32), elements=wild))
def test_blocks_twice_is_once(form: BlockFormat, x: Floats) -> None:
    """The largest element keeps its octave, or saturates in it: the scale stays."""
    once = form.round(x)
    np.testing.assert_array_equal(form.round(once), once)


@pytest.mark.parametrize("form", INTS[:4], ids=named)
@brief
@given(x=matrices)
def test_integers_twice_is_once(form: IntFormat, x: Floats) -> None:
    """The scale is found again up to its last bit, in float32."""
    once = form.round(x)
    np.testing.assert_allclose(form.round(once), once, rtol=3e-7, atol=0)


# Errors


@pytest.mark.parametrize("form", FLOATS, ids=named)
@brief
@given(x=vectors)
def test_a_float_is_off_by_half_a_step(form: FloatFormat, x: Floats) -> None:
    x = x.astype(np.float64).clip(-form.largest, form.largest)
    exponent = np.maximum(np.frexp(x)[1] - 1, 1 - form.bias)
    error = np.abs(form.round(x.astype(np.float32)) - x)
    assert (error <= np.ldexp(0.5, exponent - form.mantissa_bits)).all()


@pytest.mark.parametrize("form", LOGS, ids=named)
@brief
@given(x=vectors)
def test_a_logarithm_is_off_by_half_a_step(form: LogFormat, x: Floats) -> None:
    x = x[(np.abs(x) >= form.smallest) & (np.abs(x) <= form.largest)]
    ratio = np.log2(form.round(x).astype(np.float64) / x)
    assert (np.abs(ratio) <= 2.0 ** -(form.fraction_bits + 1) + 1e-7).all()


@pytest.mark.parametrize("form", INTS, ids=named)
@brief
@given(x=matrices)
def test_an_integer_is_off_by_half_a_scale(form: IntFormat, x: Floats) -> None:
    coded = form.encode(x)
    scales = form._grouping.join(
        np.broadcast_to(coded.scales[0][:, None], form._grouping.split(x).shape).copy(),
        x.shape,
    )
    error = np.abs(form.decode(coded).astype(np.float64) - x)
    assert (error <= scales * 0.5 * (1 + 1e-6 * 2**form.bits)).all()


@pytest.mark.parametrize("form", BLOCKS, ids=named)
@brief
@given(x=arrays(np.float32, 32, elements=wild))
def test_a_block_is_off_by_half_a_step_of_its_largest(form: BlockFormat, x: Floats) -> None:
    """Steps grow with magnitude, so the largest bounds all; saturation of MX costs up to one more.

    With emax subtracted, max|x| / scale is below 2**(emax + 1); above the largest element it
    saturates, by less than 2**(emax + 1) - largest.
    """
    element = form.element
    coded = form.encode(x)
    tensor = np.float32(1) if form.scale == "e8m0" else coded.scales[1][0]
    scales = np.repeat(form.scales_of(coded.scales[0], tensor), form.block)[:32]
    half = math.ldexp(0.5, element.highest_exponent - element.mantissa_bits)
    if form.scale == "e8m0":
        half = max(half, 2.0 ** (element.highest_exponent + 1) - element.largest)
    else:  # the scale of a block is rounded to three bits: 6 may become 6 (1 + 2**-4)
        half = max(half, element.largest * 2.0**-4)
        scales = np.maximum(scales, np.float32(2**-120))
    error = np.abs(form.decode(coded).astype(np.float64) - x)
    if form.scale == "e8m0" or np.abs(x).max() > 2.0**-100:
        small = np.abs(x).max() * 2.0**-9 / 448 if form.scale == "e4m3" else 0
        assert (error <= np.maximum(half * scales.astype(np.float64) * (1 + 1e-6), small)).all()


@pytest.mark.parametrize("form", [*FLOATS, *LOGS, IntFormat(4), MXFP4, NVFP4], ids=named)
def test_stochastic_rounding_is_unbiased(form: Format) -> None:
    """The mean of n draws is the value within 5 standard errors, found with a fixed seed.

    A draw is one of two neighbours with distance w: its deviation is at most w / 2, that of the
    mean w / (2 sqrt(n)). The first value of each row fixes the scale and lies on the grid.
    """
    n = 20_000
    tops = {"int4": 7.0, "mxfp4": 4.0, "nvfp4": 6.0}
    top = tops.get(form.name, 1.0)
    for part in (0.03, 0.31, 0.5, 0.77):
        row = np.full((n, 16), np.float32(part * top), np.float32)
        row[:, 0] = top
        drawn = form.round(row, rng=np.random.default_rng(7))
        assert (drawn[:, 0] == top).all()
        values = np.unique(drawn[:, 1:])
        assert len(values) <= 2
        width = float(values[-1] - values[0])
        mean = drawn[:, 1:].astype(np.float64).mean()
        assert abs(mean - row[0, 1]) <= 5 * width / (2 * math.sqrt(15 * n))


@pytest.mark.parametrize("form", [FP16, FP8_E4M3, FP8_E5M2, FP6_E3M2], ids=named)
def test_stochastic_rounding_of_subnormals_is_unbiased(form: FloatFormat) -> None:
    n = 200_000
    for steps in (0.2, 0.5, 1.7):
        x = np.full(n, steps * form.smallest, np.float32)
        drawn = form.round(x, rng=np.random.default_rng(8)).astype(np.float64) / form.smallest
        assert set(drawn) == {math.floor(steps), math.floor(steps) + 1}
        assert abs(drawn.mean() - steps) <= 5 * 0.5 / math.sqrt(n)


@pytest.mark.parametrize("form", [FP16, FP8_E5M2, MXFP4, NVFP4, IntFormat(4), LNS8], ids=named)
@brief
@given(x=arrays(np.float32, 32, elements=tame), seed=st.integers(0, 99))
def test_a_draw_is_a_neighbour(form: Format, x: Floats, seed: int) -> None:
    """What lies on the grid stays; anything else moves less than to the second neighbour."""
    near = form.round(x)
    drawn = form.round(x, rng=np.random.default_rng(seed))
    np.testing.assert_array_equal(drawn[near == x], near[near == x])
    if isinstance(form, FloatFormat):
        table = np.unique(numbers_of(form)[np.isfinite(numbers_of(form))])
        low = np.searchsorted(table, x, side="right") - 1
        high = np.searchsorted(table, x, side="left")
        assert ((drawn == table[low]) | (drawn == table[high])).all()


def test_six_decibels_a_bit() -> None:
    """A uniform signal over the whole grid: 20 log10(2) dB a bit, and 20 log10(levels) in all."""
    x = np.random.default_rng(5).uniform(-1, 1, 400_000).astype(np.float32)
    found = {b: snr_db(x, IntFormat(b).round(x)) for b in range(4, 13)}
    for b, snr in found.items():
        # Error scale^2 / 12 with scale 1 / (2**(b-1) - 1); signal 1 / 3.
        assert snr == pytest.approx(20 * math.log10(2 * (2 ** (b - 1) - 1)), abs=0.05)
    slope = (found[12] - found[6]) / 6
    assert slope == pytest.approx(20 * math.log10(2), abs=0.05)


@pytest.mark.parametrize("form", [FP16, BF16, FP8_E4M3, FP8_E5M2], ids=named)
def test_snr_of_a_float_on_a_gaussian(form: FloatFormat) -> None:
    """Step^2 / 12 in each octave, weighted by the chance to fall in it."""
    exponents = np.arange(1 - form.bias, 8)
    chance = 2 * (norm.cdf(2.0 ** (exponents + 1)) - norm.cdf(2.0**exponents))
    chance[0] += 2 * norm.cdf(form.smallest_normal) - 1
    noise = (chance * 4.0 ** (exponents - form.mantissa_bits)).sum() / 12
    x = np.random.default_rng(6).standard_normal(400_000, dtype=np.float32)
    # The density is not flat within a step of few mantissa bits.
    near = 0.05 if form.mantissa_bits > 3 else 0.25
    assert snr_db(x, form.round(x)) == pytest.approx(-10 * math.log10(noise), abs=near)


# Logarithmic arithmetic


@pytest.mark.parametrize("form", [LNS8, LogFormat(5, 6), LNS16], ids=named)
def test_adding_logarithms_errs_as_stated(form: LogFormat) -> None:
    """All differences of two logarithms, both signs; the stated errors are nearly reached."""
    octave = 2**form.fraction_bits
    top = form.highest - octave  # one octave free, or sums saturate
    d = np.arange(top + form.highest + 1)
    plus = np.zeros(len(d), np.int64)
    k, low = form._coded(plus, plus + top), form._coded(plus, top - d)
    x = d / octave
    rounding = 2.0 ** -(form.fraction_bits + 1) + 2.0 ** -(form.fraction_bits + 10)
    start = top / octave
    grown = np.log2(form.decode(form.add(k, low)).astype(np.float64)) - start
    error = grown - np.log2(1 + np.exp2(-x))
    assert error.min() >= -ADD_ERROR - rounding
    assert error.max() <= rounding
    assert error.min() <= -ADD_ERROR + rounding
    minus = form._coded(plus + 1, top - d)
    difference = form.decode(form.add(k, minus)).astype(np.float64)
    assert difference[0] == 0
    assert (difference[1:] > 0).all()
    error = np.log2(difference[1:]) - start - np.log2(-np.expm1(-x[1:] * math.log(2)))
    assert error.min() >= -SUBTRACT_ERROR - rounding
    assert error.max() <= rounding


@brief
@given(x=vectors, seed=st.integers(0, 9))
def test_logarithmic_arithmetic_beside_real_arithmetic(x: Floats, seed: int) -> None:
    form = LNS16
    y = np.random.default_rng(seed).permutation(x)
    a, b = form.encode(x), form.encode(y)
    u, v = (form.decode(c).astype(np.float64) for c in (a, b))
    product = form.decode(form.multiply(a, b)).astype(np.float64)
    inside = (np.abs(u * v) >= form.smallest) & (np.abs(u * v) <= form.largest)
    np.testing.assert_allclose(product[inside], (u * v)[inside], rtol=1e-6)
    np.testing.assert_array_equal(product[u * v == 0], 0)
    assert (np.abs(product) <= form.largest).all()
    total, back = form.add(a, b), form.add(b, a)
    same = u != -v
    np.testing.assert_array_equal(form.decode(total)[same], form.decode(back)[same])
    np.testing.assert_array_equal(form.decode(total)[u == -v], 0)
    np.testing.assert_array_equal(form.decode(total)[v == 0], u[v == 0])
    assert (np.sign(form.decode(total)) * np.sign(u + v) >= 0).all()


# Packing and mixing


@brief
@given(width=st.integers(1, 16), seed=st.integers(0, 99), n=st.integers(0, 50))
def test_packing_is_one_stream_of_bits(width: int, seed: int, n: int) -> None:
    codes = np.random.default_rng(seed).integers(0, 2**width, n).astype(np.uint16)
    data = pack(codes, width)
    assert len(data) == packed_size(n, width) == math.ceil(n * width / 8)
    whole = int.from_bytes(data.tobytes(), "little")
    assert [whole >> width * i & 2**width - 1 for i in range(n)] == codes.tolist()
    assert whole >> n * width == 0
    np.testing.assert_array_equal(unpack(data, width, n), codes)


@brief
@given(x=arrays(np.float32, (4, 9), elements=tame), share=st.floats(0, 1))
def test_the_large_values_are_wide(x: Floats, share: float) -> None:
    form = AdaptiveFormat(FP16, FP4_E2M1, share=share)
    coded = form.encode(x)
    large = coded.codes.astype(bool)
    assert large.sum() == math.ceil(share * x.size)
    a = np.abs(x)
    assert a[large].min(initial=np.inf) >= a[~large].max(initial=0)
    np.testing.assert_array_equal(form.round(x)[large], FP16.round(x[large]))
    np.testing.assert_array_equal(form.round(x)[~large], FP4_E2M1.round(x[~large]))
    spent = form.spent(x)
    assert spent.wide_share == large.mean()
    stored = len(form.packed_bytes(coded))
    assert spent.bits_per_value == 8 * stored / x.size
    exact = 1 + 16 * spent.wide_share + 4 * (1 - spent.wide_share)
    assert exact <= spent.bits_per_value < exact + 3 * 8 / x.size


@brief
@given(x=matrices)
def test_largest_of_a_group(x: Floats) -> None:
    for x3 in (x.reshape(1, 1, -1), x.reshape(1, 5, 6), x.reshape(5, 6, 1), x.reshape(5, 3, 2)):
        expected = np.abs(x3).max(axis=(0, 2))
        for threads in (1, 3):
            np.testing.assert_array_equal(largest(x3, threads), expected)
