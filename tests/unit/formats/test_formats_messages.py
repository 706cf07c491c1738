"""What formats refuse, what overflows to what, and how many bytes things take."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from justenough import compiled
from justenough.errors import InputError
from justenough.formats import kernels
from justenough.formats.adaptive import AdaptiveFormat
from justenough.formats.blocks import MXFP4, MXFP6_E3M2, MXFP8_E4M3, NVFP4, BlockFormat
from justenough.formats.floats import (
    BF16,
    FP4_E2M1,
    FP6_E2M3,
    FP8_E4M3,
    FP8_E5M2,
    FP16,
    FloatFormat,
)
from justenough.formats.format import Coded, Format
from justenough.formats.integers import IntFormat
from justenough.formats.logarithmic import LNS8, LNS16, LogFormat
from justenough.formats.packing import unpack
from justenough.formats.snr import snr_db

ABOVE_464 = float(np.nextafter(np.float32(464), np.float32(500)))
ONES = np.ones(8, np.float32)
BROKEN = np.array([1, math.nan, math.inf, -math.inf], np.float32)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: FloatFormat("wide", 8, 8, 127),
            r"wide has 8 exponent and 8 mantissa bits; give 2 to 8 and at least 1, with the sign "
            r"16 in all",
        ),
        (
            lambda: FloatFormat("far", 5, 2, 200),
            "far with bias 200 does not fit in float32's range",
        ),
        (
            lambda: FloatFormat("odd", 4, 3, 7, has_inf=True, has_nan=False),
            "odd has infinities without NaN; give has_nan=True too",
        ),
        (
            lambda: replace(FP4_E2M1, overflow="special"),
            "fp4_e2m1 has nothing special to overflow to; let it saturate",
        ),
        (lambda: IntFormat(1), r"bits=1 is outside 2\.\.16; use fp16 or bf16 for wider formats"),
        (
            lambda: IntFormat(4, axis=0, block=32),
            "axis=0 and block=32 are both given; a block has its scale whatever its channel",
        ),
        (lambda: IntFormat(4, block=0), "block=0; give at least 1, better 32"),
        (lambda: BlockFormat("b", FP4_E2M1, block=0), "block=0; give at least 1, better 16 or 32"),
        (
            lambda: BlockFormat("b", FP16),
            "fp16 overflows to special values; elements of blocks saturate",
        ),
        (
            lambda: LogFormat(8, 3),
            "8 integer and 3 fraction bits; give 2 to 7 and 1 to 12, at most 15 together",
        ),
        (lambda: LogFormat(7, 9), "at most 15 together"),
        (
            lambda: AdaptiveFormat(FP16, FP4_E2M1),
            "share=None and cut=None; give one of them",
        ),
        (
            lambda: AdaptiveFormat(FP16, FP4_E2M1, share=1.5),
            r"share=1\.5 is outside \[0, 1\]; give a part of the values",
        ),
        (
            lambda: AdaptiveFormat(FP16, FP4_E2M1, cut=math.nan),
            "cut=nan; give a magnitude, 0 or more",
        ),
    ],
)
def test_what_cannot_be_had(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize("form", [FP6_E2M3, FP4_E2M1, LNS8], ids=lambda f: str(f.name))
@pytest.mark.parametrize("seed", [None, 1])
def test_nan_needs_a_code(form: Format, seed: int | None) -> None:
    rng = None if seed is None else np.random.default_rng(seed)
    message = f"x has 1 NaN and {form.name} has no code for it; mask them first"
    for act in (form.round, form.encode):
        with pytest.raises(InputError, match=message):
            act(BROKEN, rng=rng)


@pytest.mark.parametrize(
    "form",
    [IntFormat(8), IntFormat(8, axis=0), IntFormat(4, symmetric=False), MXFP4, NVFP4],
    ids=lambda f: str(f.name),
)
def test_scales_need_finite_values(form: Format) -> None:
    for act in (form.round, form.encode):
        with pytest.raises(
            InputError, match=r"x \(shape \(4,\)\) has 3 non-finite values; clip or mask them"
        ):
            act(BROKEN)


def test_a_zero_point_needs_room() -> None:
    x = np.array([3e38, -1], np.float32)
    with pytest.raises(
        InputError, match=r"x runs from -1 to 3e\+38; a zero point needs \|x\| at most 1\.7.*e\+38"
    ):
        IntFormat(4, symmetric=False).round(x)
    top = np.finfo(np.float32).max
    for bits in range(2, 17):  # the scale is rounded down rather than the top past the edge
        assert np.isfinite(IntFormat(bits).round(np.array([top], np.float32))).all()


def test_only_float32_is_rounded_once() -> None:
    with pytest.raises(InputError, match="x holds float64; cast it to float32 first"):
        BF16.round(np.ones(3))  # type: ignore[arg-type]
    assert BF16.round(np.ones(3, np.float16)).dtype == np.float32


@pytest.mark.parametrize(
    "out", [np.empty(7, np.float32), np.empty(8, np.float64), np.empty(16, np.float32)[::2]]
)
def test_out_must_fit(out: Any) -> None:
    with pytest.raises(InputError, match=r"give contiguous float32 of shape \(8,\)"):
        FP16.round(ONES, out=out)


def test_threads_and_routes() -> None:
    with pytest.raises(InputError, match="threads=0; give at least 1"):
        FP16.round(ONES, threads=0)
    with pytest.raises(InputError, match=r"axis=2 of an array of shape \(8,\); it has 1"):
        IntFormat(8, axis=2).round(ONES)


def test_the_fast_route_needs_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (compiled, kernels):
        monkeypatch.setattr(module, "has_numba", lambda: False)
    with (
        pytest.raises(InputError, match="numba is not installed; take the plain route"),
        kernels.only("fast"),
    ):
        pass
    from justenough.formats.plain import PLAIN

    assert kernels.kernels(compiled.FAST_FROM) is PLAIN


def test_large_arrays_take_the_fast_route() -> None:
    pytest.importorskip("numba")
    from justenough.formats import fast
    from justenough.formats.plain import PLAIN

    assert kernels.kernels(compiled.FAST_FROM) is fast.compiled()
    assert kernels.kernels(compiled.FAST_FROM - 1) is PLAIN


@pytest.mark.parametrize(
    "form", [FP16, LNS8, IntFormat(4), NVFP4, MXFP4], ids=lambda f: str(f.name)
)
def test_stored_bytes_must_be_as_many_as_are_due(form: Format) -> None:
    data = form.packed_bytes(form.encode(ONES))
    for wrong in (data[:-1], data + b"\0", b""):
        with pytest.raises(InputError, match=f"got {len(wrong)} bytes; .* take"):
            form.from_bytes(wrong, 8)


def test_stored_bytes_of_mixed_formats() -> None:
    form = AdaptiveFormat(FP16, FP4_E2M1, cut=2.0)
    with pytest.raises(InputError, match="got 0 bytes; the flags of 9 values take 2"):
        form.from_bytes(b"", 9)
    data = form.packed_bytes(form.encode(ONES))
    with pytest.raises(InputError, match="got 3 bytes; 8 codes of 4 bits take 4"):
        form.from_bytes(data[:-1], 8)
    with pytest.raises(InputError, match="how many values reach the cut depends on the data"):
        form.bytes_of(8)
    with pytest.raises(InputError, match="x has no values; give at least 1"):
        form.spent(np.empty(0, np.float32))


def test_unpacking_too_little() -> None:
    with pytest.raises(InputError, match="got 1 bytes; 3 codes of 4 bits take 2"):
        unpack(np.zeros(1, np.uint8), 4, 3)


# Overflow, infinities, zeros


@pytest.mark.parametrize(
    ("form", "edge", "over"),
    [
        (FP16, 65520.0, math.inf),
        (replace(FP16, overflow="saturate"), 65520.0, 65504.0),
        (FP8_E4M3, ABOVE_464, 448.0),
        (replace(FP8_E4M3, overflow="special"), ABOVE_464, math.nan),
        (FP8_E5M2, 61440.0, 57344.0),
        (replace(FP8_E5M2, overflow="special"), 61440.0, math.inf),
        (FP6_E2M3, 7.75, 7.5),
        (FP4_E2M1, 7.0, 6.0),
    ],
    ids=str,
)
def test_overflow_is_what_was_asked_for(form: FloatFormat, edge: float, over: float) -> None:
    x = np.array([edge, -edge, 3e38, -math.inf], np.float32)
    np.testing.assert_array_equal(form.round(x), np.array([over, -over, over, -over], np.float32))
    below = np.nextafter(np.float32(edge), np.float32(0))
    assert form.round(np.array([below], np.float32)) == form.largest


def test_a_tie_above_an_even_top_stays() -> None:
    """448 is even among the numbers of e4m3, so 464 goes down; 65504 of fp16 is odd."""
    form = replace(FP8_E4M3, overflow="special")
    assert form.round(np.array([464], np.float32)) == 448


def test_logarithms_at_the_ends() -> None:
    x = np.array([math.inf, -3e38, LNS8.smallest / 2, -LNS8.smallest * 0.51, -0.0], np.float32)
    expected = [LNS8.largest, -LNS8.largest, 0, -LNS8.smallest, -0.0]
    got = LNS8.round(x)
    np.testing.assert_array_equal(got, np.array(expected, np.float32))
    assert np.signbit(got).tolist() == [False, True, False, True, True]
    assert LNS16.largest < 2.0**64
    both = LNS8.encode(np.array([LNS8.largest, LNS8.smallest], np.float32))
    assert LNS8.decode(LNS8.multiply(both, both)).tolist() == [LNS8.largest, 0]
    assert LNS8.decode(LNS8.add(both, both))[0] == LNS8.largest


def test_what_float32_cannot_hold_is_infinity() -> None:
    coded = Coded(np.array([7, 15, 1], np.uint8), (np.array([254], np.uint8),))
    np.testing.assert_array_equal(MXFP4.decode(coded), np.array([np.inf, -np.inf, 2.0**126], "f4"))


def test_a_nan_scale_spoils_its_block_alone() -> None:
    coded = MXFP4.encode(np.ones(64, np.float32))
    spoilt = Coded(coded.codes, (np.array([255, coded.scales[0][1]], np.uint8),))
    got = MXFP4.decode(spoilt)
    assert np.isnan(got[:32]).all()
    np.testing.assert_array_equal(got[32:], 1)


@pytest.mark.parametrize(
    "form",
    [FP16, LNS8, IntFormat(4), IntFormat(4, block=32), IntFormat(4, symmetric=False), MXFP4, NVFP4,
     AdaptiveFormat(FP16, FP4_E2M1, share=0.5)],
    ids=lambda f: str(f.name),
)  # fmt: skip
@pytest.mark.parametrize("shape", [(0,), (3, 0), (), (2, 1)])
def test_any_shape(form: Format, shape: tuple[int, ...]) -> None:
    x = np.full(shape, 1.0, np.float32)
    np.testing.assert_array_equal(form.round(x), x)
    assert form.round(x).shape == shape
    data = form.packed_bytes(form.encode(x))
    assert len(data) == form.bytes_of(shape)
    np.testing.assert_array_equal(form.decode(form.from_bytes(data, shape)), x)


def test_what_is_not_contiguous_is_rounded_too() -> None:
    x = np.arange(24, dtype=np.float32).reshape(4, 6)
    for form in (BF16, IntFormat(4, axis=0), MXFP4):
        np.testing.assert_array_equal(form.round(x.T), form.round(np.ascontiguousarray(x.T)))


# Bytes


@pytest.mark.parametrize(
    ("form", "shape", "due"),
    [
        (FP16, (3, 5), 30),
        (FP8_E4M3, 7, 7),
        (FP6_E2M3, 7, 6),
        (FP4_E2M1, 7, 4),
        (IntFormat(8), (3, 5), 15 + 4),
        (IntFormat(4), 7, 4 + 4),
        (IntFormat(2), 9, 3 + 4),
        (IntFormat(4, axis=0), (3, 5), 8 + 12),
        (IntFormat(4, axis=1), (3, 5), 8 + 20),
        (IntFormat(4, block=32), (2, 40), 40 + 2 * 2 * 4),
        (IntFormat(4, block=32, symmetric=False), (2, 40), 40 + 2 * 2 * 4 + 2),
        (MXFP8_E4M3, (2, 64), 128 + 4),
        (MXFP6_E3M2, (2, 33), 50 + 4),
        (MXFP4, 32, 16 + 1),
        (NVFP4, 32, 16 + 2 + 4),
        (LNS16, 3, 6),
        (AdaptiveFormat(FP16, IntFormat(4), share=0.1), 100, 13 + 20 + 45 + 4),
    ],
    ids=str,
)
def test_bytes_are_counted_by_hand(form: Format, shape: Any, due: int) -> None:
    assert form.bytes_of(shape) == due
    x = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    assert len(form.packed_bytes(form.encode(x))) == due


def test_where_scales_and_halves_stand() -> None:
    """Low half first; then the scale, as OCP MX code: floor(log2 6) - 2 = 0 is stored as 127."""
    x = np.array([6, -0.5, 1.0], np.float32)
    assert MXFP4.packed_bytes(MXFP4.encode(x)) == bytes([0b1001_0111, 0b0010, 127])
    int4 = IntFormat(4)
    stored = int4.packed_bytes(int4.encode(np.array([7, -1], np.float32)))
    assert stored == bytes([0xF7]) + np.float32(1).tobytes()


def test_adaptive_beats_its_narrow_format_on_outliers() -> None:
    x = np.random.default_rng(4).standard_normal(10_000, dtype=np.float32)
    x[::100] *= 30
    narrow = IntFormat(4)
    spent = AdaptiveFormat(BF16, narrow, share=0.01).spent(x)
    assert spent.bits_per_value == pytest.approx(1 + 0.01 * 16 + 0.99 * 4, abs=0.01)
    assert spent.snr_db > snr_db(x, narrow.round(x)) + 10
    assert spent.cut == np.sort(np.abs(x))[-100]


def test_cut_is_inclusive() -> None:
    form = AdaptiveFormat(FP16, FP4_E2M1, cut=2.0)
    assert form.encode(np.array([2, -2, 1.9, 0], np.float32)).codes.tolist() == [1, 1, 0, 0]
    assert AdaptiveFormat(FP16, FP4_E2M1, cut=1e300).spent(ONES).cut == math.inf


def test_snr_at_the_ends() -> None:
    assert snr_db(ONES, ONES) == math.inf
    assert snr_db(0 * ONES, ONES) == -math.inf
