"""Integers with a scale for the tensor, for each channel or for each block: int2 to int16."""

from dataclasses import dataclass

import numpy as np

from justenough.compiled import spread
from justenough.errors import InputError
from justenough.formats import packing
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
from justenough.formats.grouping import Grouping, cut
from justenough.formats.kernels import kernels

_TINY = np.finfo(np.float32).smallest_normal
_HUGE = np.finfo(np.float32).max


@dataclass(frozen=True)
class IntFormat:
    """Integers q that stand for scale * (q - zero), with float32 scales found in the data.

    Symmetric: q from -(2**(bits-1) - 1) to 2**(bits-1) - 1, scale max|x| / (2**(bits-1) - 1), no
    zero point; int2 is then the three numbers -1, 0, 1. Asymmetric: q from 0 to 2**bits - 1
    over the range of x with 0 in it, and zero = rint(-min / scale), so that 0 stays 0
    (Jacob et al. 2018, arXiv:1712.05877, eq. 1). The error is at most scale / 2. Zeros lose their
    sign. Nothing overflows, for the scale follows the data; no scale is smaller than the smallest
    normal float32. NaN and infinity are refused.

    Attributes:
        bits: 2 to 16.
        axis: Axis whose every index (a channel) has its own scale; None: one for all.
        block: So many neighbours along the last axis share a scale; the last block of a row may
            be shorter. None: no blocks.
        symmetric: Without a zero point.

    Raises:
        InputError: `bits` or `block` cannot be had, or `axis` and `block` are both given.

    >>> IntFormat(4).round(np.float32([-7, 2.2, 3.5]))
    array([-7.,  2.,  4.], dtype=float32)
    """

    bits: int
    axis: int | None = None
    block: int | None = None
    symmetric: bool = True

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 16:
            raise InputError(
                f"bits={self.bits} is outside 2..16; use fp16 or bf16 for wider formats"
            )
        if self.block is not None and self.axis is not None:
            raise InputError(
                f"axis={self.axis} and block={self.block} are both given; a block has its scale "
                "whatever its channel, so give one of them"
            )
        if self.block is not None and self.block < 1:
            raise InputError(f"block={self.block}; give at least 1, better 32")

    @property
    def name(self) -> str:
        """The width, and the unsigned kind when asymmetric."""
        return f"{'' if self.symmetric else 'u'}int{self.bits}"

    @property
    def limits(self) -> tuple[float, float]:
        """Smallest and largest integer in use."""
        if self.symmetric:
            return 1.0 - 2 ** (self.bits - 1), 2 ** (self.bits - 1) - 1.0
        return 0.0, 2.0**self.bits - 1

    @property
    def _grouping(self) -> Grouping:
        return Grouping(self.axis, self.block)

    def round(
        self,
        x: Floats,
        *,
        rng: np.random.Generator | None = None,
        out: Floats | None = None,
        threads: int = 1,
    ) -> Floats:
        """Round to the nearest integer times the scale, ties to even, or stochastically.

        Args:
            x: Finite, any shape, any unit; float32, or a type that float32 holds exactly.
            rng: Draws the upper neighbour with the fraction as its probability (within 2**-32);
                None rounds to nearest.
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
        scales, zeros = self._scales(x3, x, threads)
        route, axis = kernels(x.size), cut(x3.shape)

        def work(s: slice) -> None:
            at = (slice(None),) * axis + (s,)
            g = s if axis == 1 else slice(None)
            route.round_scaled_int(x3[at], scales[g], zeros[g], self.limits, out3[at])

        spread(work, x3.shape[axis], threads)
        if ragged:
            out[...] = self._grouping.join(out3, x.shape)
        return out

    def encode(self, x: Floats, *, rng: np.random.Generator | None = None) -> Coded:
        """Round `x`; codes are two's complement in their bits, or unsigned when asymmetric.

        The scales are in the order of the channels or blocks; asymmetric formats have their zero
        points behind them.
        """
        x = as_floats(x)
        x3 = self._grouping.split(x)
        scales, zeros = self._scales(x3, x, 1)
        q = x3 / scales[:, None]
        if rng is None:
            np.rint(q, out=q)
        else:
            noise = rng.integers(0, 2**32, q.shape, np.uint32) * 2.0**-32
            q = np.floor(q + noise).astype(np.float32)
        q = np.clip(q + zeros[:, None], *self.limits)
        codes = self._grouping.join(q.astype(np.int32), x.shape) & (2**self.bits - 1)
        kind = np.uint8 if self.bits <= 8 else np.uint16
        shared = (scales,) if self.symmetric else (scales, zeros.astype(kind))
        return Coded(codes.astype(kind), shared)

    def decode(self, coded: Coded) -> Floats:
        """Return scale * (q - zero) of every code, in float32."""
        q = coded.codes.astype(np.int32)
        if self.symmetric:
            q = (q ^ 2 ** (self.bits - 1)) - 2 ** (self.bits - 1)
        q3 = self._grouping.split(q.astype(np.float32))
        if not self.symmetric:
            q3 = q3 - coded.scales[1].astype(np.float32)[:, None]
        values: Floats = q3 * coded.scales[0][:, None]
        return self._grouping.join(values, coded.codes.shape)

    def packed_bytes(self, coded: Coded) -> bytes:
        """Store codes without gaps, then float32 scales, then zero points without gaps."""
        parts = [packing.pack(coded.codes, self.bits), coded.scales[0].astype("<f4")]
        parts += [packing.pack(z, self.bits) for z in coded.scales[1:]]
        return b"".join(p.tobytes() for p in parts)

    def from_bytes(self, data: bytes, shape: Shape) -> Coded:
        """Read what `packed_bytes` stored.

        Raises:
            InputError: `data` is not as long as `bytes_of(shape)`.
        """
        raw = checked_length(data, self.bytes_of(shape), self.name, shape)
        n, groups = count_of(shape), self._grouping.groups(shape_of(shape))
        end = packing.packed_size(n, self.bits)
        codes = packing.unpack(raw[:end], self.bits, n).reshape(shape_of(shape))
        scales = np.frombuffer(data, "<f4", groups, end).astype(np.float32)
        if self.symmetric:
            return Coded(codes, (scales,))
        return Coded(codes, (scales, packing.unpack(raw[end + 4 * groups :], self.bits, groups)))

    def bytes_of(self, shape: Shape) -> int:
        """Bytes that an array of that shape takes, with scales and zero points."""
        groups = self._grouping.groups(shape_of(shape))
        zeros = 0 if self.symmetric else packing.packed_size(groups, self.bits)
        return packing.packed_size(count_of(shape), self.bits) + 4 * groups + zeros

    def _scales(self, x3: Floats, x: Floats, threads: int) -> tuple[Floats, Floats]:
        """Scale and zero point of each group, each (groups,); refuses what is not finite."""
        if not self.symmetric:
            return self._asymmetric(x3, x)
        peak = largest(x3, threads)
        if not np.isfinite(peak).all():
            refuse_non_finite(x)
        high = np.float32(self.limits[1])
        scales = np.where(peak == 0, np.float32(1), np.maximum(peak / high, _TINY))
        with np.errstate(over="ignore"):  # a scale rounded up may lift the top over the edge
            beyond = np.isinf(scales * high)
        return np.where(beyond, np.nextafter(scales, np.float32(0)), scales), np.zeros_like(peak)

    def _asymmetric(self, x3: Floats, x: Floats) -> tuple[Floats, Floats]:
        refuse_non_finite(x)
        low = x3.min(axis=(0, 2), initial=0).astype(np.float64)
        high = x3.max(axis=(0, 2), initial=0).astype(np.float64)
        if max(high.max(initial=0), -low.min(initial=0)) > _HUGE / 2:
            raise InputError(
                f"x runs from {low.min():g} to {high.max():g}; a zero point needs |x| at most "
                f"{_HUGE / 2:g}, so scale it down"
            )
        top = self.limits[1]
        scales = np.where(high == low, 1, np.maximum((high - low) / top, _TINY)).astype(np.float32)
        return scales, np.clip(np.rint(-low / scales), 0, top).astype(np.float32)


def largest(x3: Floats, threads: int = 1) -> Floats:
    """Largest |x| of each group of (outer, groups, inner), shape (groups,); NaN counts as largest.

    An empty group has 0.
    """
    u, route, axis = x3.view(np.uint32), kernels(x3.size), cut(x3.shape)
    parts = spread(
        lambda s: route.largest(u[(slice(None),) * axis + (s,)]), u.shape[axis], threads
    )
    if axis == 1 and parts:
        return np.concatenate(parts).view(np.float32)
    found: Floats = np.max([np.zeros(u.shape[1], np.uint32), *parts], axis=0).view(np.float32)
    return found
