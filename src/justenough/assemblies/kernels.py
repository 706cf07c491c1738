"""Loops over the edges of an implied graph, for Numba to compile.

Whole numbers only, so every machine and every number of threads gives the same bits. A block's
words are W[0], W[1], ...: Philox at the counter (t, block, source) gives W[2t] and W[2t + 1].
W[0] says how many points fall into the block, lane i % 4 (of 16 bits) of W[1 + i // 4] where
point i falls. Arguments are untyped on purpose: Numba specialises on what it is given.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from justenough.assemblies.philox import MULTIPLIERS, ROUNDS, WEYL
from justenough.compiled import has_numba, jit

_M0, _M1 = (np.uint64(m) for m in MULTIPLIERS)
_W0, _W1 = (np.uint64(w) for w in WEYL)
_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
_LANE, _TOP, _SIX = np.uint64(0xFFFF), np.uint64(56), np.uint64(6)
_ONE, _SIXTY_THREE = np.uint64(1), np.uint64(63)
_STRIDE = 512
_TWO, _FOUR = np.uint64(2), np.uint64(4)
_TWOS, _FOURS, _EIGHTS, _BYTES = (np.uint64((2**64 - 1) // d) for d in (3, 5, 17, 255))


class Kernels(NamedTuple):
    """Compiled loops; `law` is (thresholds, guide, key, tag, bits) of the graph.

    Attributes:
        accumulate: (counts (n,), first block, last, rows, number of them that are removed, law,
            limit); the removed come first; returns how many steps left 0..limit.
        among: (sources, targets in order of their blocks, their places, law, out (s, w)).
        reached: (counts, first, last, bound, found); returns how many counts are at least
            `bound`, and no more than one above the room in `found`, which holds their places.
        histogram: (counts, first, last, total); adds to `total` how many have each count.
        pairs: (edges, active, first word, last, found (pairs, 2)); sources and targets of the
            synapses from `active`, for which there is room.
        inputs: (pairs, (sent, heard), (heavy, times), table, total); adds the weights; see
            `learned.Learned`; `heavy` marks the bits of rounds that came more than once.
    """

    accumulate: Callable[..., int]
    among: Callable[..., None]
    reached: Callable[..., int]
    histogram: Callable[..., None]
    pairs: Callable[..., None]
    inputs: Callable[..., None]


def _words(first: Any, last: Any, block: Any, source: Any, law: Any, out: Any) -> None:
    key, tag = law[2], law[3]
    for t in range(first, last):
        a, b = np.uint64(t), np.uint64(block)
        c, d = source & _LOW, (source >> _HALF) | tag
        k, q = key & _LOW, key >> _HALF
        for _ in range(ROUNDS):
            left, right = a * _M0, c * _M1
            a, b = (right >> _HALF) ^ b ^ k, right & _LOW
            c, d = (left >> _HALF) ^ d ^ q, left & _LOW
            k, q = (k + _W0) & _LOW, (q + _W1) & _LOW
        out[2 * t] = a | (b << _HALF)
        out[2 * t + 1] = c | (d << _HALF)


def _points(block: Any, source: Any, law: Any, out: Any) -> Any:
    _words(0, 1, block, source, law, out)
    thresholds, u = law[0], out[0]
    m = np.int64(law[1][u >> _TOP])
    while m < thresholds.size and u >= thresholds[m]:
        m += 1
    # Words 1 .. (m + 3) // 4 are read; two come from each counter.
    _words(1, (m + 3) // 8 + 1, block, source, law, out)
    return m


def _place(i: Any, words: Any, law: Any) -> Any:
    lane = (words[1 + (i >> 2)] >> np.uint64((i & 3) << 4)) & _LANE
    return np.int64(lane >> np.uint64(16 - law[4]))


def _accumulate(
    counts: Any, first: Any, last: Any, rows: Any, removed: Any, law: Any, limit: Any
) -> Any:
    size = 1 << law[4]
    words = np.empty(law[0].size // 4 + 8, np.uint64)
    seen = np.zeros(size, np.uint8)
    bad = 0
    for block in range(first, last):
        here = counts[block * size : min((block + 1) * size, counts.size)]
        length, mark = here.size, 0
        seen[:] = 0
        for q in range(rows.size):
            mark += 1
            if mark == 256:
                seen[:] = 0
                mark = 1
            step, end = (-1, 0) if q < removed else (1, limit)
            m = _points(block, rows[q], law, words)
            for i in range(m):
                place = _place(i, words, law)
                # Several points on one target are one edge; the last block is cut at n.
                if place < length and seen[place] != mark:
                    seen[place] = mark
                    old = np.int64(here[place])
                    bad += old == end
                    here[place] = old + step
    return bad


def _among(sources: Any, targets: Any, places: Any, law: Any, out: Any) -> None:
    bits = law[4]
    size = 1 << bits
    words = np.empty(law[0].size // 4 + 8, np.uint64)
    seen = np.zeros(size, np.int64)
    mark = 0
    for s in range(sources.size):
        block = -1
        for t in range(targets.size):
            target = targets[t]
            if target >> bits != block:
                block = target >> bits
                mark += 1
                m = _points(block, sources[s], law, words)
                for i in range(m):
                    seen[_place(i, words, law)] = mark
            if seen[target & (size - 1)] == mark:
                place = np.uint64(places[t])
                out[s, place >> _SIX] |= _ONE << (place & _SIXTY_THREE)


def _reached(counts: Any, first: Any, last: Any, bound: Any, found: Any) -> Any:
    number = 0
    for begin in range(first, last, _STRIDE):
        chunk = counts[begin : min(begin + _STRIDE, last)]
        # A largest value is a vector operation; few chunks have anything to collect.
        top = chunk[0]
        for value in chunk:
            top = max(top, value)
        if top < bound:
            continue
        for i in range(chunk.size):
            if chunk[i] >= bound:
                if number == found.size:
                    return number + 1
                found[number] = begin + i
                number += 1
    return number


def _histogram(counts: Any, first: Any, last: Any, total: Any) -> None:
    # Two tables, since equal neighbours would wait for each other.
    other = np.zeros_like(total)
    for i in range(first, last - 1, 2):
        total[counts[i]] += 1
        other[counts[i + 1]] += 1
    if (last - first) % 2:
        total[counts[last - 1]] += 1
    total += other


def _ones(x: Any) -> Any:
    # Sums of 1, 2, 4 bits side by side, then of all bytes by one product (Knuth 7.1.3).
    x = x - ((x >> _ONE) & _TWOS)
    x = (x & _FOURS) + ((x >> _TWO) & _FOURS)
    x = (x + (x >> _FOUR)) & _EIGHTS
    return np.int64((x * _BYTES) >> _TOP)


def _exponent(sent: Any, a: Any, heard: Any, i: Any, heavy: Any, times: Any) -> Any:
    total = 0
    for word in range(heavy.size):
        both = sent[a, word] & heard[i, word]
        total += _ones(both)
        both &= heavy[word]
        while both:
            total += times[64 * word + _ones((both & (~both + _ONE)) - _ONE)] - 1
            both &= both - _ONE
    return total


def _pairs(edges: Any, active: Any, first: Any, last: Any, found: Any) -> None:
    number = 0
    for a in active:
        for word in range(first, last):
            left = edges[a, word]
            while left:
                found[number, 0] = a
                found[number, 1] = 64 * word + _ones((left & (~left + _ONE)) - _ONE)
                left &= left - _ONE
                number += 1


def _inputs(pairs: Any, histories: Any, rounds: Any, table: Any, total: Any) -> None:
    sent, heard = histories
    heavy, times = rounds
    # Places of rows, not views of them: a view of each would take longer than what is done.
    for q in range(len(pairs)):
        a, i = pairs[q, 0], pairs[q, 1]
        total[i] += table[_exponent(sent, a, heard, i, heavy, times)]


@lru_cache
def compiled() -> Kernels | None:
    """The compiled loops; None where Numba is not installed."""
    if not has_numba():
        return None
    from numba.extending import register_jitable

    for called in (_words, _points, _place, _ones, _exponent):
        register_jitable(called)
    loops = (_accumulate, _among, _reached, _histogram, _pairs, _inputs)
    return Kernels(*(jit(loop) for loop in loops))
