"""Uniform whole numbers by a counter: number i of stream b is known without the ones before it.

SplitMix64 (Steele, Lea & Flood 2014, OOPSLA): its state only counts up, so any number
can be had directly. Stream b starts at a mixed multiple of the key, one word gives two numbers
of 32 bits, and a number below a bound is a multiply and a shift with rejection (Lemire 2019, ACM
TOMACS 29(1), algorithm 5), so every value is exactly as likely as any other. What is drawn
depends on key, stream and place alone: not on threads, chunks, route or device.

Here in signed 64-bit arithmetic that wraps, which NumPy arrays and PyTorch tensors share;
`justenough.stats.fast` has the same numbers in compiled loops.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

GOLDEN = 0x9E3779B97F4A7C15
FIRST_FACTOR, SECOND_FACTOR = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
LARGEST_BOUND = 2**31 - 1
_LOW = 0xFFFFFFFF


def new_key(rng: np.random.Generator) -> int:
    """Return a key of 64 bits.

    >>> new_key(np.random.default_rng(0)) == new_key(np.random.default_rng(0))
    True
    """
    return int(rng.integers(0, 2**64, dtype=np.uint64))


def starts(key: int, first: int, last: int) -> NDArray[np.int64]:
    """Return where the streams first..last-1 start, shape (last - first,).

    >>> starts(7, 0, 3)[1] == starts(7, 1, 2)[0]
    np.True_
    """
    return np.asarray(mixed(np.arange(first, last) * _signed(GOLDEN) + _signed(key)))


def words(begin: Any, count: int) -> Any:
    """Return the first numbers of 32 bits of each stream.

    Args:
        begin: Starts of the streams, int64 array or tensor, shape (b,).
        count: How many of each, k.

    Returns:
        Whole numbers in [0, 2**32), int64, shape (b, k).

    >>> words(starts(7, 0, 3), 5).shape
    (3, 5)
    """
    pairs = (count + 1) // 2
    steps = np.arange(1, pairs + 1) * _signed(GOLDEN)
    if not isinstance(begin, np.ndarray):
        steps = begin.new_tensor(steps)
    z = mixed(begin[:, None] + steps[None, :])
    shape = (len(begin), pairs, 2)
    out = np.empty(shape, np.int64) if isinstance(begin, np.ndarray) else begin.new_empty(shape)
    out[:, :, 0] = z & _LOW
    out[:, :, 1] = (z >> 32) & _LOW
    return out.reshape(len(begin), 2 * pairs)[:, :count]


def below(begin: Any, numbers: Any, bounds: Any) -> Any:
    """Return numbers of 32 bits as whole numbers below their bounds, each equally likely.

    Args:
        begin: Starts of the streams, int64, shape (b,).
        numbers: The first k of each stream, from `words`, shape (b, k).
        bounds: In 1..2**31 - 1, int64 of the same kind, shape (k,).

    Returns:
        Int64, shape (b, k).

    >>> begin = starts(7, 0, 2)
    >>> sorted(set(below(begin, words(begin, 100), np.full(100, 3)).ravel().tolist()))
    [0, 1, 2]
    """
    wide = numbers * bounds
    too_low = 2**32 % bounds
    rejected = (wide & _LOW) < too_low
    attempt = 1
    while bool(rejected.any()):
        places = rejected.nonzero()
        row, column = places if isinstance(places, tuple) else places.T
        again = mixed(mixed(begin[row] + attempt) + (column + 1) * _signed(GOLDEN))
        wide[row, column] = ((again >> 32) & _LOW) * bounds[column]
        rejected = (wide & _LOW) < too_low
        attempt += 1
    return wide >> 32


def mixed(z: Any) -> Any:
    """SplitMix64's output function on int64 that stands for uint64; shape kept.

    >>> int(mixed(np.array([_signed(GOLDEN)]))[0]) % 2**64 == 0xE220A8397B1DCDAF
    True
    """
    z = (z ^ ((z >> 30) & (2**34 - 1))) * _signed(FIRST_FACTOR)
    z = (z ^ ((z >> 27) & (2**37 - 1))) * _signed(SECOND_FACTOR)
    return z ^ ((z >> 31) & (2**33 - 1))


def _signed(word: int) -> int:
    return word - 2**64 if word >= 2**63 else word
