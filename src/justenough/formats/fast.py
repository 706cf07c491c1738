"""The same rounding in loops that Numba compiles: one read and one write of each value.

Every result is the plain route's, bit for bit. Arguments are untyped on purpose: Numba
specialises on what it is given.
"""

from functools import lru_cache
from typing import Any

import numpy as np

from justenough.compiled import jit
from justenough.formats.kernels import INFINITY, MAGNITUDE, NAN, SIGN, Kernels


def _round_float(u: Any, out: Any, grid: Any) -> int:
    one = np.uint32(1)
    ones = np.uint32((one << grid.shift) - one)
    below, keep = np.uint32(ones >> one), np.uint32(~ones)
    nans = 0
    for i in range(u.size):
        b = u[i]
        a = np.uint32(b & MAGNITUDE)
        r = np.uint32((a + below + ((a >> grid.shift) & one)) & keep)
        small = np.float32(np.float32(a.view(np.float32) + grid.magic) - grid.magic)
        if a < grid.low:
            r = small.view(np.uint32)
        if r > grid.top:
            r = grid.over
        if a > INFINITY:
            r = NAN
            nans += 1
        out[i] = r | (b & SIGN)
    return nans


def _draw_float(u: Any, noise: Any, out: Any, grid: Any) -> int:
    one = np.uint32(1)
    ones = np.uint32((one << grid.shift) - one)
    keep = np.uint32(~ones)
    nans = 0
    for i in range(u.size):
        b = u[i]
        a = np.uint32(b & MAGNITUDE)
        r = np.uint32((a + (noise[i] & ones)) & keep)
        if a < grid.low:
            steps = np.floor(np.float64(a.view(np.float32)) / grid.step + noise[i] * 2.0**-32)
            r = np.float32(steps * grid.step).view(np.uint32)
        if r > grid.top:
            r = grid.over
        if a > INFINITY:
            r = NAN
            nans += 1
        out[i] = r | (b & SIGN)
    return nans


def _largest(u: Any, found: Any) -> None:
    for o in range(u.shape[0]):
        for g in range(u.shape[1]):
            top = np.uint32(0)
            for i in range(u.shape[2]):
                top = max(top, np.uint32(u[o, g, i] & MAGNITUDE))
            found[g] = max(found[g], top)


def _largest_of_columns(u: Any, found: Any) -> None:
    for o in range(u.shape[0]):
        for g in range(u.shape[1]):
            found[g] = max(found[g], np.uint32(u[o, g] & MAGNITUDE))


def _round_scaled_float(x: Any, scales: Any, out: Any, grid: Any) -> None:
    one = np.uint32(1)
    ones = np.uint32((one << grid.shift) - one)
    below, keep = np.uint32(ones >> one), np.uint32(~ones)
    for g in range(x.shape[1]):
        scale = scales[g]
        for i in range(x.shape[2]):
            b = np.float32(x[0, g, i] / scale).view(np.uint32)
            a = np.uint32(b & MAGNITUDE)
            r = np.uint32((a + below + ((a >> grid.shift) & one)) & keep)
            small = np.float32(np.float32(a.view(np.float32) + grid.magic) - grid.magic)
            if a < grid.low:
                r = small.view(np.uint32)
            if r > grid.top:
                r = grid.over
            out[0, g, i] = np.uint32(r | (b & SIGN)).view(np.float32) * scale


def _round_scaled_int(x: Any, scales: Any, zeros: Any, low: Any, high: Any, out: Any) -> None:
    for o in range(x.shape[0]):
        for g in range(x.shape[1]):
            scale, zero = scales[g], zeros[g]
            for i in range(x.shape[2]):
                q = np.rint(x[o, g, i] / scale) + zero
                q = low if q < low else q
                q = high if q > high else q
                out[o, g, i] = (q - zero) * scale


def _round_scaled_columns(x: Any, scales: Any, zeros: Any, low: Any, high: Any, out: Any) -> None:
    for o in range(x.shape[0]):
        for g in range(x.shape[1]):
            q = np.rint(x[o, g] / scales[g]) + zeros[g]
            q = low if q < low else q
            q = high if q > high else q
            out[o, g] = (q - zeros[g]) * scales[g]


def _round_log(u: Any, out: Any, grid: Any) -> int:
    nans = 0
    ones = np.int32((1 << grid.fraction) - 1)
    part = np.int32(22 - grid.fraction)
    for i in range(u.size):
        b = u[i]
        a = np.uint32(b & MAGNITUDE)
        if a > INFINITY:
            nans += 1
        mantissa = np.int32(a & np.uint32(0x7FFFFF))
        k = grid.first[mantissa >> part]
        if mantissa >= grid.cuts[k]:
            k += 1
        log = ((np.int32(a >> np.uint32(23)) - 127) << grid.fraction) + k
        log = min(max(log, -grid.largest), grid.largest)
        r = np.uint32((((log >> grid.fraction) + 127) << 23) | grid.mantissas[log & ones])
        if a <= grid.half:
            r = np.uint32(0)
        out[i] = r | (b & SIGN)
    return nans


@lru_cache
def compiled() -> Kernels:
    """The compiled kernels; Numba must be installed."""
    rows, columns = jit(_round_scaled_int), jit(_round_scaled_columns)
    over_rows, over_columns = jit(_largest), jit(_largest_of_columns)

    def largest(u: Any) -> Any:
        found = np.zeros(u.shape[1], np.uint32)
        if u.shape[2] == 1:
            over_columns(u[:, :, 0], found)
        else:
            over_rows(u, found)
        return found

    def round_scaled_int(x: Any, scales: Any, zeros: Any, limits: Any, out: Any) -> None:
        low, high = np.float32(limits[0]), np.float32(limits[1])
        if x.shape[2] == 1:
            columns(x[:, :, 0], scales, zeros, low, high, out[:, :, 0])
        else:
            rows(x, scales, zeros, low, high, out)

    return Kernels(
        jit(_round_float), jit(_draw_float), largest, jit(_round_scaled_float), round_scaled_int,
        jit(_round_log),
    )  # fmt: skip
