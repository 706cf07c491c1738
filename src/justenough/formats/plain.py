"""Rounding in NumPy, in pieces that stay in the cache."""

from collections.abc import Iterator

import numpy as np

from justenough.formats.format import Bits, Floats
from justenough.formats.kernels import (
    INFINITY,
    MAGNITUDE,
    NAN,
    SIGN,
    FloatGrid,
    Kernels,
    LogGrid,
)

PIECE = 1 << 14  # values; a float32 array, its result and two of its size in between fit in L2


def _slices(n: int, size: int = PIECE) -> Iterator[slice]:
    return (slice(i, min(i + size, n)) for i in range(0, n, size))


def round_float(u: Bits, out: Bits, grid: FloatGrid) -> int:
    """Round to nearest, ties to even; see `Kernels.round_float`."""
    ones = np.uint32((1 << int(grid.shift)) - 1)
    a, r = np.empty(PIECE, np.uint32), np.empty(PIECE, np.uint32)
    nans = 0
    for s in _slices(len(u)):
        here, there = a[: s.stop - s.start], r[: s.stop - s.start]
        np.bitwise_and(u[s], MAGNITUDE, out=here)
        np.right_shift(here, grid.shift, out=there)
        np.bitwise_and(there, np.uint32(1), out=there)
        np.add(there, ones >> np.uint32(1), out=there)
        np.add(there, here, out=there)
        np.bitwise_and(there, ~ones, out=there)
        if grid.low and here.min() < grid.low:
            with np.errstate(all="ignore"):  # NaNs may pass through; they are replaced below
                small = here.view(np.float32) + grid.magic
                small -= grid.magic
            np.copyto(there, small.view(np.uint32), where=here < grid.low)
        nans += _finish(u[s], here, there, out[s], grid)
    return nans


def draw_float(u: Bits, noise: Bits, out: Bits, grid: FloatGrid) -> int:
    """Round stochastically; see `Kernels.draw_float`."""
    ones = np.uint32((1 << int(grid.shift)) - 1)
    nans = 0
    for s in _slices(len(u)):
        a = u[s] & MAGNITUDE
        r = (a + (noise[s] & ones)) & ~ones
        if grid.low:
            small = a < grid.low
            steps = a[small].view(np.float32) / grid.step
            steps = np.floor(steps + noise[s][small] * 2.0**-32)
            r[small] = (steps * grid.step).astype(np.float32).view(np.uint32)
        nans += _finish(u[s], a, r, out[s], grid)
    return nans


def _finish(u: Bits, a: Bits, r: Bits, out: Bits, grid: FloatGrid) -> int:
    """Replace what is out of range, put the sign back; returns the NaNs met."""
    nans = 0
    if r.size and r.max() > grid.top:
        np.copyto(r, grid.over, where=r > grid.top)
        missing = a > INFINITY
        nans = int(missing.sum())
        np.copyto(r, NAN, where=missing)
    np.bitwise_and(u, SIGN, out=a)
    np.bitwise_or(r, a, out=out)
    return nans


def _pieces(shape: tuple[int, ...]) -> Iterator[tuple[slice, slice, slice]]:
    """Cut (outer, groups, inner) into pieces of about PIECE values."""
    outer, groups, inner = shape
    whole = slice(None)
    if inner >= PIECE:
        for o in range(outer):
            for g in range(groups):
                for i in _slices(inner):
                    yield slice(o, o + 1), slice(g, g + 1), i
    elif groups * inner >= PIECE:
        for o in range(outer):
            for s in _slices(groups, max(PIECE // max(inner, 1), 1)):
                yield slice(o, o + 1), s, whole
    else:
        for s in _slices(outer, max(PIECE // max(groups * inner, 1), 1)):
            yield s, whole, whole


def largest(u: Bits) -> Bits:
    """Largest pattern of |x| of each group; see `Kernels.largest`."""
    found = np.zeros(u.shape[1], np.uint32)
    for piece in _pieces(u.shape):
        here = (u[piece] & MAGNITUDE).max(axis=(0, 2), initial=0)
        np.maximum(found[piece[1]], here, out=found[piece[1]])
    return found


def round_scaled_float(x: Floats, scales: Floats, out: Floats, grid: FloatGrid) -> None:
    """Round x / scale and scale back; see `Kernels.round_scaled_float`."""
    for piece in _pieces(x.shape):
        scale = scales[piece[1], None]
        y = x[piece] / scale
        flat = y.reshape(-1).view(np.uint32)
        round_float(flat, flat, grid)
        np.multiply(y, scale, out=out[piece])


def round_scaled_int(
    x: Floats, scales: Floats, zeros: Floats, limits: tuple[float, float], out: Floats
) -> None:
    """Round x / scale to integers and scale back; see `Kernels.round_scaled_int`."""
    for piece in _pieces(x.shape):
        scale, zero = scales[piece[1], None], zeros[piece[1], None]
        y = x[piece] / scale
        np.rint(y, out=y)
        y += zero
        np.clip(y, *limits, out=y)
        y -= zero
        np.multiply(y, scale, out=out[piece])


def round_log(u: Bits, out: Bits, grid: LogGrid) -> int:
    """Round to the nearest logarithm; see `Kernels.round_log`."""
    nans = 0
    for s in _slices(len(u)):
        a = u[s] & MAGNITUDE
        nans += int((a > INFINITY).sum())
        mantissa = (a & np.uint32(0x7FFFFF)).astype(np.int32)
        k = grid.first[mantissa >> (22 - grid.fraction)]
        k = k + (mantissa >= grid.cuts[k])
        exponent = (a >> np.uint32(23)).astype(np.int32) - 127
        logs = np.clip((exponent << grid.fraction) + k, -grid.largest, grid.largest)
        k = logs & np.int32((1 << int(grid.fraction)) - 1)
        r = (((logs >> grid.fraction) + 127) << 23) | grid.mantissas[k]
        r[a <= grid.half] = 0
        np.bitwise_or(r.view(np.uint32), u[s] & SIGN, out=out[s])
    return nans


PLAIN = Kernels(round_float, draw_float, largest, round_scaled_float, round_scaled_int, round_log)
