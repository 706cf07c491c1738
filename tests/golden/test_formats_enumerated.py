"""Every code of every format, beside the slow oracle and beside other libraries."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from justenough.compiled import has_numba
from justenough.formats import kernels, oracle
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
from justenough.formats.format import Coded
from justenough.formats.integers import IntFormat
from justenough.formats.logarithmic import LNS8, LNS16, LogFormat, log_grid

ml_dtypes = pytest.importorskip("ml_dtypes")

Floats = NDArray[np.float32]
SPECIAL = [replace(FP8_E4M3, overflow="special"), replace(FP8_E5M2, overflow="special")]
SMALL = [FP8_E4M3, FP8_E5M2, *SPECIAL, FP6_E3M2, FP6_E2M3, FP4_E2M1]
WIDE = [FP16, BF16, replace(FP16, overflow="saturate"), replace(BF16, overflow="saturate")]
FLOATS = [*SMALL, *WIDE]
# Their conversions overflow to infinity, to NaN, or saturate where there is neither.
THEIRS = {
    "fp16": np.float16,
    "bf16": ml_dtypes.bfloat16,
    "fp8_e4m3": ml_dtypes.float8_e4m3fn,
    "fp8_e5m2": ml_dtypes.float8_e5m2,
    "fp6_e3m2": ml_dtypes.float6_e3m2fn,
    "fp6_e2m3": ml_dtypes.float6_e2m3fn,
    "fp4_e2m1": ml_dtypes.float4_e2m1fn,
}
AS_THEIRS = [FP16, BF16, *SPECIAL, FP6_E3M2, FP6_E2M3, FP4_E2M1]
NEEDS_NUMBA = pytest.mark.skipif(not has_numba(), reason="numba is not installed")
ROUTES = ["plain", pytest.param("fast", marks=NEEDS_NUMBA)]


def named(form: Any) -> str:
    return f"{form.name}-{form.overflow}" if isinstance(form, FloatFormat) else str(form.name)


def f32(values: Sequence[float]) -> Floats:
    return np.array(values, np.float32)


def hard_values(form: FloatFormat) -> Floats:
    """All numbers, all middles between two, their float32 neighbours, and what overflows."""
    table = numbers_of(form)
    finite = np.unique(np.abs(table[np.isfinite(table)]).astype(np.float64))
    beyond = 2 * finite[-1] - finite[-2]
    middles = (np.append(finite, beyond)[1:] + finite) / 2
    with np.errstate(over="ignore"):
        hard = np.concatenate([finite, middles, [beyond, 1e38]]).astype(np.float32)
        near = [np.nextafter(hard, np.float32(to)) for to in (-np.inf, np.inf)]
    tiny = f32([1e-45, 1.2e-38, np.inf])
    positive = np.concatenate([hard, *near, tiny])
    positive = positive[positive >= 0]
    return np.concatenate([positive, -positive])


def same(a: Floats, b: Floats) -> None:
    """Bits agree; NaNs in any code, with their sign."""
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(np.signbit(a), np.signbit(b))


@pytest.mark.parametrize("form", FLOATS, ids=named)
def test_every_code_means_what_the_oracle_says(form: FloatFormat) -> None:
    codes = np.arange(2**form.bits, dtype=np.uint16)
    expected = [float(oracle.float_value(form, int(c))) for c in codes]
    got = form.decode(Coded(codes))
    missing = np.isnan(got)
    same(got[~missing], f32(expected)[~missing])
    assert np.isnan(expected)[missing].all()
    assert got.max(initial=0, where=np.isfinite(got)) == form.largest
    assert got.min(initial=9, where=got > 0) == form.smallest


@pytest.mark.parametrize("form", FLOATS, ids=named)
def test_every_code_survives(form: FloatFormat) -> None:
    codes = np.arange(2**form.bits, dtype=np.uint16)
    values = form.decode(Coded(codes))
    kept = ~np.isnan(values)
    if form.overflow == "saturate":  # infinities are there to be read, and saturate when written
        kept &= ~np.isinf(values)
    np.testing.assert_array_equal(form.encode(values[kept]).codes, codes[kept])
    same(form.round(values[kept]), values[kept])


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("form", SMALL, ids=named)
def test_small_formats_round_as_the_oracle_does(form: FloatFormat, route: kernels.Route) -> None:
    x = hard_values(form)
    if form.has_nan:
        x = np.append(x, f32([np.nan, -np.nan]))
    with kernels.only(route):
        codes = form.encode(x).codes
    assert codes.tolist() == [oracle.float_code(form, float(v)) for v in x]


@pytest.mark.parametrize("form", WIDE, ids=named)
def test_wide_formats_round_as_the_oracle_does(form: FloatFormat) -> None:
    """A part of the middles; the test below has them all, beside other libraries."""
    x = np.append(hard_values(form)[::37], f32([np.inf, -np.inf, np.nan, -np.nan]))
    assert form.encode(x).codes.tolist() == [oracle.float_code(form, float(v)) for v in x]


def their_round(form: FloatFormat) -> Callable[[Floats], Floats]:
    kind = THEIRS[form.name]

    def convert(x: Floats) -> Floats:
        with np.errstate(all="ignore"):
            back: Floats = x.astype(kind).astype(np.float32)
        return back

    return convert


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("form", AS_THEIRS, ids=named)
def test_rounds_as_other_libraries_do(form: FloatFormat, route: kernels.Route) -> None:
    """ml_dtypes, and NumPy for fp16: all middles and 2**18 patterns over all of float32."""
    patterns = np.arange(0, 2**32, 2**14 + 1, dtype=np.uint64).astype(np.uint32)
    x = np.concatenate([hard_values(form), patterns.view(np.float32)])
    if not form.has_nan:
        x = x[~np.isnan(x)]
    with kernels.only(route):
        same(form.round(x), their_round(form)(x))


@pytest.mark.parametrize("form", AS_THEIRS, ids=named)
def test_codes_are_those_of_other_libraries(form: FloatFormat) -> None:
    codes = np.arange(2**form.bits, dtype=np.uint16 if form.bits > 8 else np.uint8)
    theirs = codes.view(THEIRS[form.name]).astype(np.float32)
    ours = form.decode(Coded(codes))
    same(ours[~np.isnan(ours)], theirs[~np.isnan(theirs)])
    np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs))
    if form.has_nan:
        nan = f32([np.nan]).astype(THEIRS[form.name]).view(codes.dtype)
        assert form.encode(f32([np.nan])).codes == nan


# Integers


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
def test_integers_round_as_the_oracle_does(bits: int, symmetric: bool) -> None:
    form = IntFormat(bits, symmetric=symmetric)
    x = np.linspace(-1.0, 0.75, 801, dtype=np.float32)
    coded = form.encode(x)
    scale = Fraction(float(coded.scales[0][0]))
    zero = 0 if symmetric else int(coded.scales[1][0])
    low, high = (int(v) for v in form.limits)
    expected = []
    for v in x:
        code = oracle.int_code(Fraction(float(v)), scale, low, high, zero)
        expected.append(code % 2**bits)
    # Ties of x / scale in exact and in float32 arithmetic can differ by one code.
    exact = (x.astype(np.float64) / float(scale)) % 1
    clear = np.abs(exact - 0.5) > 1e-4
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(coded.codes[clear], np.array(expected)[clear])


@pytest.mark.parametrize("bits", range(2, 17))
def test_every_integer_code_survives(bits: int) -> None:
    high = 2 ** (bits - 1) - 1
    x = np.arange(-high, high + 1, dtype=np.float32) * np.float32(0.25)
    form = IntFormat(bits)
    coded = form.encode(x)
    assert coded.scales[0] == 0.25
    np.testing.assert_array_equal(coded.codes, np.arange(-high, high + 1) % 2**bits)
    np.testing.assert_array_equal(form.decode(coded), x)


# Blocks


@pytest.mark.parametrize(
    "form", [MXFP8_E4M3, MXFP8_E5M2, MXFP6_E3M2, MXFP6_E2M3, MXFP4], ids=named
)
def test_blocks_are_coded_as_the_oracle_does(form: BlockFormat) -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((12, 32), dtype=np.float32)
    x *= np.ldexp(1.0, rng.integers(-20, 20, (12, 32))).astype(np.float32)
    x[0] = 0
    x[1] *= np.float32(2.0**-130)
    x[2, 0] = np.finfo(np.float32).max
    x[3] = -0.0
    x[4] = 2.0 ** np.arange(-16, 16)
    coded = form.encode(x)
    for row, scale, codes in zip(x, coded.scales[0], coded.codes, strict=True):
        assert (scale, codes.tolist()) == oracle.block_codes(form, row.tolist())


def test_every_scale_code_is_that_of_ml_dtypes() -> None:
    codes = np.arange(256, dtype=np.uint8)
    theirs = codes.view(ml_dtypes.float8_e8m0fnu).astype(np.float32)
    np.testing.assert_array_equal(MXFP4.scales_of(codes, np.float32(1)), theirs)
    assert np.isnan(MXFP4.decode(Coded(np.ones(32, np.uint8), (codes[255:],)))).all()


def test_mx_by_another_route() -> None:
    """Scale by math.frexp, elements by ml_dtypes after clipping: v1.0 of the specification."""
    rng = np.random.default_rng(2)
    x = (rng.standard_normal((64, 96)) * np.exp(3 * rng.standard_normal((64, 96)))).astype("f4")
    for form in (MXFP8_E4M3, MXFP8_E5M2, MXFP6_E3M2, MXFP6_E2M3, MXFP4):
        kind = THEIRS[form.element.name]
        top = float(ml_dtypes.finfo(kind).max)
        expected = np.empty_like(x)
        for row, out in zip(x.reshape(-1, 32), expected.reshape(-1, 32), strict=True):
            shared = math.frexp(np.abs(row).max())[1] - 1 - (math.frexp(top)[1] - 1)
            scaled = np.clip(row.astype(np.float64) * 2.0**-shared, -top, top)
            out[:] = scaled.astype(kind).astype(np.float64) * 2.0**shared
        same(form.round(x), expected)


def test_nvfp4_by_another_route() -> None:
    """Two scales as in arXiv:2509.25149: 448 * 6 for the tensor, ml_dtypes for the rest."""
    rng = np.random.default_rng(3)
    x = (rng.standard_normal((32, 64)) * np.exp(2 * rng.standard_normal((32, 1)))).astype("f4")
    tensor = np.abs(x).max() / np.float32(448 * 6)
    blocks = x.reshape(-1, 16)
    wanted = np.abs(blocks).max(axis=1) / np.float32(6) / tensor
    scales = wanted.astype(ml_dtypes.float8_e4m3fn).astype(np.float32)
    assert (scales > 0).all()
    whole = (scales * tensor)[:, None]
    elements = np.clip(blocks / whole, -6, 6).astype(ml_dtypes.float4_e2m1fn)
    expected = (elements.astype(np.float32) * whole).reshape(x.shape)
    same(NVFP4.round(x), expected)
    coded = NVFP4.encode(x)
    np.testing.assert_array_equal(coded.codes, elements.view(np.uint8).reshape(x.shape))
    assert coded.scales[1] == tensor


# Logarithms


@pytest.mark.parametrize("form", [LNS8, LNS16, LogFormat(2, 1), LogFormat(7, 1)], ids=named)
def test_every_logarithm_means_its_power(form: LogFormat) -> None:
    codes = np.arange(2**form.bits, dtype=np.uint16)
    k = (codes & 2 ** (form.bits - 1) - 1).astype(np.int64)
    k -= (k > form.highest) * 2 ** (form.bits - 1)
    power = np.exp2(k / 2**form.fraction_bits)
    power[k < -form.highest] = 0
    expected = np.where(codes >> form.bits - 1, -power, power).astype(np.float32)
    same(form.decode(Coded(codes)), expected)
    np.testing.assert_array_equal(form.encode(expected).codes, codes)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("form", [LNS8, LogFormat(2, 1), LogFormat(5, 4)], ids=named)
def test_logarithms_round_as_the_oracle_does(form: LogFormat, route: kernels.Route) -> None:
    """Beside each cut between two logarithms, in every octave, and where zero begins."""
    cuts = (log_grid(form).cuts[:-1] | (127 << 23)).view(np.float32)
    octaves = np.ldexp(np.float32(1), np.arange(-9, 9))
    x = np.outer(octaves, np.concatenate([cuts, np.nextafter(cuts, np.float32(0))])).ravel()
    half = np.float32(form.smallest) / 2
    edges = [0, half, np.nextafter(half, np.float32(1)), form.smallest, form.largest, 1e38, np.inf]
    x = np.concatenate([x, f32(edges)])
    x = np.concatenate([x, -x])
    with kernels.only(route):
        codes = form.encode(x).codes
    assert codes.tolist() == [oracle.log_code(form, float(v), form.smallest) for v in x]


@pytest.mark.slow
def test_all_cuts_of_the_wide_logarithm_are_exact() -> None:
    cuts = (log_grid(LNS16).cuts[:-1] | (127 << 23)).view(np.float32)
    x = np.concatenate([cuts, np.nextafter(cuts, np.float32(0))])
    expected = [oracle.log_code(LNS16, float(v), LNS16.smallest) for v in x]
    assert LNS16.encode(x).codes.tolist() == expected
