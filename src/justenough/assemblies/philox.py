"""Philox4x32-10: random words that are a function of a counter and a key, with no state.

Salmon, Moraes, Dror & Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3", SC'11: ten rounds
of a bijection of the 128-bit counter, so distinct counters give distinct outputs. Here for one
counter in Python's integers, the oracle, and for arrays of counters; `assemblies.kernels` has
the same in compiled loops. The other counter generator of the package, SplitMix64, is
`stats.counter.mixed`.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
_LOW = 0xFFFFFFFF

Counter = tuple[int, int, int, int]


def philox4x32(counter: Counter, key: tuple[int, int]) -> Counter:
    """Return the four words of 32 bits at one counter.

    Args:
        counter: Four words of 32 bits.
        key: Two words of 32 bits.

    >>> [hex(w) for w in philox4x32((0, 0, 0, 0), (0, 0))]
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    a, b, c, d = counter
    for r in range(ROUNDS):
        left, right = a * MULTIPLIERS[0], c * MULTIPLIERS[1]
        keys = [(k + r * w) & _LOW for k, w in zip(key, WEYL, strict=True)]
        a, b, c, d = (
            (right >> 32) ^ b ^ keys[0],
            right & _LOW,
            (left >> 32) ^ d ^ keys[1],
            left & _LOW,
        )
    return a, b, c, d


def words(counter: tuple[Any, Any, Any, Any], key: tuple[int, int]) -> NDArray[np.uint64]:
    """Return the outputs at many counters as words of 64 bits, the first half lowest.

    Args:
        counter: Four arrays or numbers that broadcast to one shape s, each word below 2**32.
        key: Two words of 32 bits.

    Returns:
        Shape (*s, 2), uint64: words 0 and 1 of Philox in the first, 2 and 3 in the second.

    >>> hex(words((0, 0, 0, np.arange(2)), (0, 0))[0, 0])
    '0xe169c58d6627e8d5'
    """
    a, b, c, d = np.broadcast_arrays(*(np.asarray(x, np.uint64) for x in counter))
    low, half = np.uint64(_LOW), np.uint64(32)
    first, second = (np.uint64(m) for m in MULTIPLIERS)
    for r in range(ROUNDS):
        keys = [np.uint64((k + r * w) & _LOW) for k, w in zip(key, WEYL, strict=True)]
        left, right = a * first, c * second
        a, b = (right >> half) ^ b ^ keys[0], right & low
        c, d = (left >> half) ^ d ^ keys[1], left & low
    return np.stack([a | (b << half), c | (d << half)], axis=-1)
