"""Loops of the resampling methods that Numba compiles, where it is installed.

The same numbers as the plain route, on any number of threads. Arguments are untyped on purpose:
Numba specialises on what it is given.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from justenough.compiled import has_numba, jit, pays
from justenough.stats.counter import FIRST_FACTOR, GOLDEN, SECOND_FACTOR

_GOLDEN, _FIRST, _SECOND = np.uint64(GOLDEN), np.uint64(FIRST_FACTOR), np.uint64(SECOND_FACTOR)
_LOW = np.uint64(0xFFFFFFFF)
_B1, _B27, _B30, _B31, _B32 = (np.uint64(k) for k in (1, 27, 30, 31, 32))


class Kernels(NamedTuple):
    """Compiled loops.

    Attributes:
        totals: (block (c, t, d), origin (d,), out (c, q)); see `totals.block_totals`.
        counts: (key, first stream, out (b, g) uint8 zeros); see `bootstrap.multinomial_counts`.
        shuffled_dots: (key, first stream, x, y, scratch, out (b,)); see `permutation`.
    """

    totals: Callable[..., None]
    counts: Callable[..., None]
    shuffled_dots: Callable[..., None]


def _mixed(z: Any) -> Any:
    z = (z ^ (z >> _B30)) * _FIRST
    z = (z ^ (z >> _B27)) * _SECOND
    return z ^ (z >> _B31)


def _totals(block: Any, origin: Any, out: Any) -> None:
    d = block.shape[2]
    row = np.empty(d)
    for c in range(block.shape[0]):
        out[c, :] = 0.0
        out[c, 0] = block.shape[1]
        for t in range(block.shape[1]):
            for j in range(d):
                row[j] = np.float64(block[c, t, j]) - origin[j]
            u = 1 + d
            for j in range(d):
                out[c, 1 + j] += row[j]
                for k in range(j, d):
                    out[c, u] += row[j] * row[k]
                    u += 1


def _below(number: Any, bound: Any, start: Any, place: Any) -> Any:
    wide = number * bound
    if (wide & _LOW) < bound:
        reject = (_B1 << _B32) % bound
        attempt = _B1
        while (wide & _LOW) < reject:
            again = _mixed(_mixed(start + attempt) + (place + _B1) * _GOLDEN)
            wide = (again >> _B32) * bound
            attempt += _B1
    return wide >> _B32


def _counts(key: Any, first: Any, out: Any) -> None:
    g = out.shape[1]
    bound = np.uint64(g)
    for b in range(out.shape[0]):
        start = _mixed(key + (first + np.uint64(b)) * _GOLDEN)
        z = start
        for i in range(0, g, 2):
            z += _GOLDEN
            word = _mixed(z)
            out[b, np.int64(_below(word & _LOW, bound, start, np.uint64(i)))] += np.uint8(1)
            if i + 1 < g:
                second = _below(word >> _B32, bound, start, np.uint64(i + 1))
                out[b, np.int64(second)] += np.uint8(1)


def _shuffled_dots(key: Any, first: Any, x: Any, y: Any, scratch: Any, out: Any) -> None:
    n = x.size
    for b in range(out.size):
        start = _mixed(key + (first + np.uint64(b)) * _GOLDEN)
        scratch[:] = y
        z = start
        even = odd = 0.0
        i = n - 1
        while i > 0:
            z += _GOLDEN
            word = _mixed(z)
            place = np.uint64(n - 1 - i)
            j = np.int64(_below(word & _LOW, np.uint64(i + 1), start, place))
            even += x[i] * scratch[j]
            scratch[j] = scratch[i]
            i -= 1
            if i > 0:
                j = np.int64(_below(word >> _B32, np.uint64(i + 1), start, place + _B1))
                odd += x[i] * scratch[j]
                scratch[j] = scratch[i]
                i -= 1
        out[b] = (even + odd) + x[0] * scratch[0]


@lru_cache
def compiled() -> Kernels | None:
    """The compiled loops; None where Numba is not installed."""
    if not has_numba():
        return None
    from numba.extending import register_jitable

    for called in (_mixed, _below):
        register_jitable(called)
    return Kernels(jit(_totals), jit(_counts), jit(_shuffled_dots))


def kernels(work: int) -> Kernels | None:
    """The compiled loops where `work`, values read or drawn, is worth loading them."""
    return compiled() if pays(work) else None
