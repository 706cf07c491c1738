"""Block floating point: narrow floats that share a scale with their neighbours (MX, NVFP4)."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from justenough.compiled import spread
from justenough.errors import InputError
from justenough.formats import packing
from justenough.formats.floats import (
    FP4_E2M1,
    FP6_E2M3,
    FP6_E3M2,
    FP8_E4M3,
    FP8_E5M2,
    FloatFormat,
)
from justenough.formats.format import (
    Coded,
    Floats,
    Shape,
    as_floats,
    checked_length,
    count_of,
    refuse_non_finite,
    room_for,
    shape_of,
)
from justenough.formats.grouping import Grouping
from justenough.formats.integers import largest
from justenough.formats.kernels import NAN, kernels

Scales = NDArray[np.uint8]
E8M0_NAN = 255
_TINY = np.finfo(np.float32).smallest_normal
# Values whose block scales are found before any is rounded: they are read again from the cache.
_NEAR = 1 << 19


@dataclass(frozen=True)
class BlockFormat:
    """Floats of a few bits with a scale for every `block` neighbours along the last axis.

    Scale "e8m0": 2**e with e = floor(log2(max|v|)) - emax of the element, from -127 to 127, stored
    as e + 127 (OCP Microscaling Formats (MX) v1.0, section 6.3). A block's largest values may
    so lie above the element's largest number: they saturate. 255 is NaN and makes the block NaN.

    Scale "e4m3": an FP8 E4M3 number s for each block and one float32 t for the tensor, with
    t = max|x| / (448 * largest element) and s = max|block| / (largest element * t), rounded to
    nearest and at least 2**-9 (NVFP4: NVIDIA 2025, arXiv:2509.25149). The value is
    element * (s * t), both products in float32.

    A block of zeros gets the smallest scale. NaN and infinity are refused. A row's last block may
    be shorter.

    Attributes:
        name: The field's own word.
        element: Format of the elements; it saturates.
        scale: "e8m0" or "e4m3".
        block: Values that share a scale.

    Raises:
        InputError: `block` is below 1, or the element does not saturate.

    >>> MXFP4.round(np.float32([5.0, 0.6, -7.9]))
    array([ 4. ,  0.5, -6. ], dtype=float32)
    """

    name: str
    element: FloatFormat
    scale: Literal["e8m0", "e4m3"] = "e8m0"
    block: int = 32

    def __post_init__(self) -> None:
        if self.block < 1:
            raise InputError(f"block={self.block}; give at least 1, better 16 or 32")
        if self.element.overflow != "saturate":
            raise InputError(
                f"{self.element.name} overflows to special values; elements of blocks saturate"
            )

    @property
    def bits(self) -> int:
        """Bits of one element, without the scales."""
        return self.element.bits

    @property
    def _grouping(self) -> Grouping:
        return Grouping(block=self.block)

    def round(
        self,
        x: Floats,
        *,
        rng: np.random.Generator | None = None,
        out: Floats | None = None,
        threads: int = 1,
    ) -> Floats:
        """Round every element to nearest, ties to even, or stochastically, on its block's scale.

        Scales are found in the data and are never random; a value above the largest element
        saturates, so stochastic rounding is unbiased only below it.

        Args:
            x: Finite, any shape, any unit; float32, or a type that float32 holds exactly.
            rng: Draws the neighbours; None rounds to nearest.
            out: Where the result goes, contiguous float32 of that shape; may be `x` itself.
            threads: Threads to use; stochastic rounding takes one.

        Raises:
            InputError: `x` or `out` has a type or shape that does not do, or `x` is not finite.
        """
        x = as_floats(x)
        out = room_for(x, out)
        if rng is not None:
            out[...] = self.decode(self.encode(x, rng=rng))
            return out
        ragged = self._grouping.ragged(x.shape)
        x3 = self._grouping.split(x)
        out3 = np.empty_like(x3) if ragged else out.reshape(x3.shape)
        top = self._tensor_scale(x3, x, threads)
        route, grid = kernels(x.size), self.element.grid
        step = max(_NEAR // self.block, 1)

        def work(part: slice) -> None:
            for i in range(part.start, part.stop, step):
                s = slice(i, min(i + step, part.stop))
                peak = route.largest(x3[:, s].view(np.uint32)).view(np.float32)
                scales = self._scales(peak, top, x)
                route.round_scaled_float(x3[:, s], scales, out3[:, s], grid)

        spread(work, x3.shape[1], threads)
        if ragged:
            out[...] = self._grouping.join(out3, x.shape)
        return out

    def encode(self, x: Floats, *, rng: np.random.Generator | None = None) -> Coded:
        """Round `x`; the scales' codes are (blocks,), then for "e4m3" the tensor's scale (1,)."""
        x = as_floats(x)
        x3 = self._grouping.split(x)
        top = self._tensor_scale(x3, x, 1)
        codes = self._codes_of(largest(x3), top, x)
        y = x3 / self.scales_of(codes, top)[:, None]
        element = self.element.encode(self._grouping.join(y, x.shape), rng=rng)
        shared = (codes,) if self.scale == "e8m0" else (codes, np.full(1, top, np.float32))
        return Coded(element.codes, shared)

    def decode(self, coded: Coded) -> Floats:
        """Return element times scale of every code; infinity where float32 cannot hold it."""
        top = np.float32(1) if self.scale == "e8m0" else coded.scales[1][0]
        scales = self.scales_of(coded.scales[0], top)
        y3 = self._grouping.split(self.element.decode(coded))
        with np.errstate(over="ignore"):
            values: Floats = y3 * scales[:, None]
        return self._grouping.join(values, coded.codes.shape)

    def scales_of(self, codes: Scales, tensor_scale: np.float32) -> Floats:
        """Float32 factors that scale codes stand for."""
        if self.scale == "e4m3":
            factors: Floats = FP8_E4M3.decode(Coded(codes)) * tensor_scale
            return factors
        powers = codes.astype(np.uint32) << np.uint32(23)
        powers[codes == 0] = 1 << 22  # 2**-127 is a subnormal float32
        powers[codes == E8M0_NAN] = NAN
        return powers.view(np.float32)

    def packed_bytes(self, coded: Coded) -> bytes:
        """Store elements without gaps, a byte for each block's scale, a float32 for the tensor."""
        parts = [packing.pack(coded.codes, self.bits), coded.scales[0]]
        parts += [s.astype("<f4") for s in coded.scales[1:]]
        return b"".join(p.tobytes() for p in parts)

    def from_bytes(self, data: bytes, shape: Shape) -> Coded:
        """Read what `packed_bytes` stored.

        Raises:
            InputError: `data` is not as long as `bytes_of(shape)`.
        """
        raw = checked_length(data, self.bytes_of(shape), self.name, shape)
        n, blocks = count_of(shape), self._grouping.groups(shape_of(shape))
        end = packing.packed_size(n, self.bits)
        codes = packing.unpack(raw[:end], self.bits, n).reshape(shape_of(shape))
        scales = raw[end : end + blocks].copy()
        if self.scale == "e8m0":
            return Coded(codes, (scales,))
        return Coded(codes, (scales, raw[end + blocks :].view("<f4").astype(np.float32)))

    def bytes_of(self, shape: Shape) -> int:
        """Bytes that an array of that shape takes, with all scales."""
        blocks = self._grouping.groups(shape_of(shape))
        tensor = 4 if self.scale == "e4m3" else 0
        return packing.packed_size(count_of(shape), self.bits) + blocks + tensor

    def _tensor_scale(self, x3: Floats, x: Floats, threads: int) -> np.float32:
        if self.scale == "e8m0":
            return np.float32(1)
        peak = largest(x3.reshape(1, 1, -1), threads)[0]
        if not np.isfinite(peak):
            refuse_non_finite(x)
        unit = np.float32(FP8_E4M3.largest * self.element.largest)
        return np.float32(1) if peak == 0 else max(peak / unit, _TINY)

    def _codes_of(self, peak: Floats, top: np.float32, x: Floats) -> Scales:
        """Scale codes of blocks with these largest magnitudes."""
        if not np.isfinite(peak).all():
            refuse_non_finite(x)
        if self.scale == "e4m3":
            codes: Scales = FP8_E4M3.encode(self._wanted(peak, top)).codes.clip(1)
            return codes
        # The exponent field is floor(log2) + 127; of subnormals it is 0, which clips the same.
        exponent = (peak.view(np.uint32) >> np.uint32(23)).astype(np.int32)
        shared: Scales = np.maximum(exponent - self.element.highest_exponent, 0).astype(np.uint8)
        return shared

    def _scales(self, peak: Floats, top: np.float32, x: Floats) -> Floats:
        """The factors that the codes stand for, without the codes where they take longer."""
        if self.scale == "e8m0" or not np.isfinite(peak).all():
            return self.scales_of(self._codes_of(peak, top, x), top)
        s = FP8_E4M3.round(self._wanted(peak, top))
        scales: Floats = np.maximum(s, np.float32(FP8_E4M3.smallest)) * top
        return scales

    def _wanted(self, peak: Floats, top: np.float32) -> Floats:
        wanted: Floats = peak / np.float32(self.element.largest) / top
        return wanted


MXFP8_E4M3 = BlockFormat("mxfp8_e4m3", FP8_E4M3)
MXFP8_E5M2 = BlockFormat("mxfp8_e5m2", FP8_E5M2)
MXFP6_E3M2 = BlockFormat("mxfp6_e3m2", FP6_E3M2)
MXFP6_E2M3 = BlockFormat("mxfp6_e2m3", FP6_E2M3)
MXFP4 = BlockFormat("mxfp4", FP4_E2M1)
NVFP4 = BlockFormat("nvfp4", FP4_E2M1, scale="e4m3", block=16)
