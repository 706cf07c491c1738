from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.stats import chisquare

from justenough.stats import fast
from justenough.stats.counter import GOLDEN, below, mixed, starts, words


def test_words_are_splitmix64s() -> None:
    """First outputs of SplitMix64 from state 1234567, as in its authors' C program."""
    known = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    state = np.array([1234567 + k * GOLDEN for k in (1, 2, 3)], object) % 2**64
    signed = np.array([s - 2**64 if s >= 2**63 else s for s in state], np.int64)
    assert [int(z) % 2**64 for z in mixed(signed)] == known


@pytest.mark.parametrize("bound", [1, 2, 6, 1000])
def test_every_value_is_equally_likely(bound: int) -> None:
    begin = starts(1, 0, 200)
    drawn = below(begin, words(begin, 500), np.full(500, bound))
    counts = np.bincount(drawn.ravel(), minlength=bound)
    assert len(counts) == bound
    assert bound == 1 or chisquare(counts).pvalue > 1e-4


def test_rejected_numbers_are_drawn_again() -> None:
    """A quarter of the numbers is rejected at 3/4 of 2**31; thirds must be equally likely."""
    begin, bound = starts(2, 0, 100), 3 * 2**29
    drawn = below(begin, words(begin, 300), np.full(300, bound))
    assert drawn.min() >= 0
    assert drawn.max() < bound
    assert chisquare(np.bincount(drawn.ravel() // 2**29)).pvalue > 1e-4
    # Without rejection some values had twice the chance of others: by the remainder of three.
    assert chisquare(np.bincount(drawn.ravel() % 3)).pvalue > 1e-4


def test_compiled_rejection_is_the_plain_one() -> None:
    numba = pytest.importorskip("numba")
    assert fast.compiled() is not None
    one = numba.njit(fast._below)
    begin, bound = starts(3, 0, 4), 3 * 2**29
    numbers = words(begin, 64)
    plain = below(begin, numbers, np.full(64, bound))
    for row in range(4):
        for place in range(64):
            given = (numbers[row, place], bound, begin[row], place)
            assert int(one(*(np.uint64(int(v) % 2**64) for v in given))) == plain[row, place]


def test_tensors_hold_the_same_numbers(tensor: Callable[[Any], Any]) -> None:
    begin, bounds = starts(3, 0, 5), np.full(33, 3 * 2**29)
    plain = below(begin, words(begin, 33), bounds)
    given = tensor(begin)
    found = below(given, words(given, 33), tensor(bounds))
    assert np.array_equal(plain, found.cpu().numpy())
