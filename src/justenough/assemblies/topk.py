"""The k largest values of an array in one pass, exact, with a stated rule for ties.

A threshold is guessed: carried over from the step before, or a high order statistic of evenly
spaced values. One pass then collects all values at or above it. If there are at least k and not
too many, the k largest are among them, whatever the guess was; otherwise the k-th value is
computed outright. So the answer never depends on the guess, only the time does (a Las Vegas
algorithm; sampling as in Floyd & Rivest 1975, CACM 18(3)). With Numba the pass is compiled, and
so is the count of keys that gives the k-th value outright; without it NumPy gives the same.
"""

from collections.abc import Iterator
from math import sqrt
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from justenough.assemblies.scan import BINS, BLOCK, bits, key_of, loops, value_of
from justenough.compiled import pays, spread
from justenough.errors import InputError

KINDS = (np.float32, np.float16, np.uint8, np.uint16)
# A chunk stays in cache between the tests that are made on it.
_CHUNK = 1 << 18
# Maxima of so many columns at once: a vector operation, and few columns have a value to collect.
_COLUMNS = 1 << 11
_SAMPLE = 1 << 18
# Ties at the guess, and a guess that is low, may add so many candidates.
_SPARE = 1 << 16
_NAN = "a value is NaN, which has no place in an order; remove it first"


class Top(NamedTuple):
    """The k largest values.

    Attributes:
        indices: int64, (k,): larger values first, of equal values the smaller index first.
        threshold: The smallest of them; a good guess for an array that changed little.
    """

    indices: NDArray[np.int64]
    threshold: float


def topk(
    values: NDArray[Any], k: int, threshold: float | None = None, threads: int | None = None
) -> Top:
    """Return where the k largest values are: larger first, then smaller index.

    Args:
        values: Shape (n,), float32, float16, uint8 or uint16, without NaN.
        k: How many, 1 to n.
        threshold: Guess of the k-th largest value; it changes the time, never the answer.
        threads: How many; without it, the cores that this process may use.

    Raises:
        InputError: A NaN, another type or shape, or k out of range.

    >>> topk(np.array([3, 9, 9, 1, 3], np.uint8), 3)
    Top(indices=array([1, 2, 0]), threshold=3.0)
    """
    if values.ndim != 1 or values.dtype not in KINDS:
        raise InputError(
            f"values are {values.dtype} of shape {values.shape}; "
            "give float32, float16, uint8 or uint16 of shape (n,)"
        )
    n = len(values)
    if not isinstance(k, int | np.integer) or not 1 <= k <= n:
        raise InputError(f"k={k}; give 1 to n={n}")
    if threshold is not None and np.isnan(threshold):
        raise InputError("the threshold is NaN; give a number or leave it out")
    most = 16 * k + _SPARE
    for guess in _guesses(values, k, threshold):
        found = _at_least(values, _in_type(guess, values.dtype), most, threads)
        if found is not None and len(found) >= k:
            return _best(values, found, k)
    return _best(values, _known(values, _kth(values, k, threads), k, threads), k)


def _guesses(values: NDArray[Any], k: int, threshold: float | None) -> Iterator[float]:
    """The threshold that was given, then one from a sample."""
    if threshold is not None:
        yield float(threshold)
    sampled = _sampled(values, k)
    if sampled is not None:
        yield sampled


def _sampled(values: NDArray[Any], k: int) -> float | None:
    """An order statistic of evenly spaced values that k values reach, almost surely."""
    n = len(values)
    step = max(1, n // _SAMPLE)
    sample = values[::step].astype(np.float32)
    share = len(sample) * k / n
    rank = int(share + 5 * sqrt(share) + 5)
    if rank >= len(sample):
        return None
    return float(np.partition(sample, len(sample) - rank)[len(sample) - rank])


def _in_type(guess: float, dtype: Any) -> float:
    """The guess as a number that the values are compared with exactly, whatever it is."""
    if dtype.kind == "u":
        return int(np.clip(np.ceil(guess), 0, np.iinfo(dtype).max))
    largest = float(np.finfo(np.float32).max)
    return float(np.float32(np.clip(guess, -largest, largest)))


def _at_least(
    values: NDArray[Any], bound: float, most: int, threads: int | None
) -> NDArray[np.int64] | None:
    """Indices of values >= bound, increasing; None where a thread found more than `most`."""
    if pays(len(values)):
        return _collected(values, bound, most, threads)

    def work(part: slice) -> list[NDArray[np.int64]] | None:
        found, number = [], 0
        for begin in range(part.start, part.stop, _CHUNK):
            chunk = _comparable(values[begin : min(begin + _CHUNK, part.stop)])
            width = len(chunk) if len(chunk) % _COLUMNS else _COLUMNS
            table = chunk.reshape(-1, width)
            tops = np.maximum.reduce(table, axis=0)
            if np.isnan(tops).any():
                raise InputError(_NAN)
            columns = np.flatnonzero(tops >= bound)
            row, column = np.nonzero(table[:, columns] >= bound)
            here = begin + row * width + columns[column]
            number += len(here)
            if number > most:
                return None
            found.append(here)
        return found

    parts = spread(work, len(values), threads)
    pieces = [piece for part in parts if part is not None for piece in part]
    if any(part is None for part in parts):
        return None
    return np.concatenate(pieces) if pieces else np.empty(0, np.int64)


def _collected(
    values: NDArray[Any], bound: float, most: int, threads: int | None
) -> NDArray[np.int64] | None:
    """What `_at_least` gives, by the compiled loop."""
    collect, key = loops(values.dtype.name).collect, key_of(bound, values.dtype)

    def work(part: slice) -> NDArray[np.int64] | None:
        here = values[part]
        out = np.empty(min(most, len(here)), np.int64)
        end, number = collect(bits(here), key, out)
        # NaN reaches every bound.
        if np.isnan(here[out[:number]]).any():
            raise InputError(_NAN)
        return out[:number] + part.start if end == len(here) else None

    parts = spread(work, len(values), threads)
    found = [part for part in parts if part is not None]
    return np.concatenate(found) if len(found) == len(parts) else None


def _known(values: NDArray[Any], kth: float, k: int, threads: int | None) -> NDArray[np.int64]:
    """Indices of all values above the k-th, and of the first k or more equal ones in each part."""
    if pays(len(values)):
        return _collected_known(values, kth, k, threads)

    def work(part: slice) -> list[NDArray[np.int64]]:
        found, equal = [], 0
        for begin in range(part.start, part.stop, _CHUNK):
            chunk = _comparable(values[begin : min(begin + _CHUNK, part.stop)])
            if _largest(chunk) < kth:
                continue
            if equal < k:
                ties = np.flatnonzero(chunk == kth)[: k - equal] + begin
                equal += len(ties)
                found.append(ties)
            found.append(np.flatnonzero(chunk > kth) + begin)
        return found

    parts = spread(work, len(values), threads)
    return np.concatenate([piece for part in parts for piece in part])


def _collected_known(
    values: NDArray[Any], kth: float, k: int, threads: int | None
) -> NDArray[np.int64]:
    """What `_known` gives, by the compiled loop: up to 2k values, then only those above."""
    collect, key = loops(values.dtype.name).collect, key_of(kth, values.dtype)
    # Fewer than k are above. 0 has two keys, as -0 equals it.
    above = int(key) + 1 + (kth == 0 and values.dtype.kind == "f")

    def work(part: slice) -> NDArray[np.int64]:
        here = bits(values[part])
        out = np.empty(min(2 * k + BLOCK, len(here)), np.int64)
        end, number = collect(here, key, out)
        found: NDArray[np.int64] = out[:number] + part.start
        if end == len(here) or above > np.iinfo(here.dtype).max:
            return found
        more = np.empty(min(k + BLOCK, len(here) - end), np.int64)
        _, number = collect(here[end:], here.dtype.type(above), more)
        return np.concatenate([found, more[:number] + (part.start + end)])

    return np.concatenate(spread(work, len(values), threads))


def _counted(values: NDArray[Any], k: int, threads: int | None) -> float:
    """The k-th largest value, from counts of 16 binary digits of the keys at a time."""
    scan, high = loops(values.dtype.name), 0
    for shift in range(max(0, 8 * values.dtype.itemsize - 16), -1, -16):

        def work(part: slice, shift: int = shift, high: int = high) -> NDArray[np.int64]:
            counts = np.zeros(BINS, np.int64)
            scan.tally(bits(values[part]), np.uint32(shift), np.uint32(high), counts)
            return counts

        reached = np.cumsum(np.sum(spread(work, len(values), threads), axis=0)[::-1])
        place = int(np.searchsorted(reached, k))
        k -= int(reached[place - 1]) if place else 0
        high = high << 16 | BINS - 1 - place
    return value_of(high, values.dtype)


def _kth(values: NDArray[Any], k: int, threads: int | None) -> float:
    """The k-th largest value: from counts, or by selection."""
    n = len(values)
    if pays(n):
        # NaN has the largest keys.
        if values.dtype.kind == "f" and np.isnan(_counted(values, 1, threads)):
            raise InputError(_NAN)
        return _counted(values, k, threads)
    if values.dtype.kind == "f":
        for begin in range(0, n, _CHUNK):
            _largest(values[begin : begin + _CHUNK])
        return float(np.partition(values, n - k)[n - k])
    histogram = np.zeros(int(np.iinfo(values.dtype).max) + 1, np.int64)
    for begin in range(0, n, 16 * _CHUNK):
        histogram += np.bincount(values[begin : begin + 16 * _CHUNK], minlength=len(histogram))
    reached = np.cumsum(histogram[::-1])
    return len(histogram) - 1 - int(np.searchsorted(reached, k))


def _best(values: NDArray[Any], found: NDArray[np.int64], k: int) -> Top:
    """The k largest of the candidates, which hold every value that can be among them."""
    held = values[found].astype(np.float32)
    kth = np.partition(held, len(held) - k)[len(held) - k]
    above, equal = found[held > kth], np.sort(found[held == kth])
    chosen = np.concatenate([above, equal[: k - len(above)]])
    order = np.lexsort((chosen, -values[chosen].astype(np.float32)))
    return Top(chosen[order], float(kth))


def _comparable(chunk: NDArray[Any]) -> NDArray[Any]:
    # NumPy compares float16 one by one; every float16 is a float32.
    return chunk.astype(np.float32) if chunk.dtype == np.float16 else chunk


def _largest(chunk: NDArray[Any]) -> float:
    """The largest value; it is NaN if any value is."""
    top = float(chunk.max())
    if np.isnan(top):
        raise InputError(_NAN)
    return top
