"""Kendall's rank correlation with ties, and bounds for it over independent units."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from justenough.stats.checks import paired_scores, varying
from justenough.stats.influence import cautious_bounds, unit_spread

_Vector = NDArray[np.float64]
_Ranks = NDArray[np.int64]


def kendall_interval(
    x: ArrayLike, y: ArrayLike, units: ArrayLike, *, alpha: float
) -> tuple[float, float, float]:
    """Return Kendall's tau-b of two scores, and a lower and an upper bound.

    Its standard error comes from its influence function (Croux & Dehon 2010, Stat Methods Appl
    19, section 2; here for tau-b, a ratio of pair means, with the shares of tied pairs moving
    too), summed within units; bounds as `influence.cautious_bounds`. A unit that was not seen
    moves tau-b by up to 2 (1 + tau) times its share of the rows downwards, or 2 (1 - tau) upwards,
    and by more with ties, whose pairs tau-b leaves out. O(n log n).

    Args:
        x: Scores of the reference, shape (n,).
        y: Scores of the candidate, shape (n,).
        units: Id of the independent unit of each row, shape (n,).
        alpha: Allowed probability that one bound is wrong, in (0, 1); both at once: 2 alpha.

    Returns:
        Estimate, lower bound, upper bound, each in [-1, 1].

    Raises:
        InputError: For fewer than 30 units, a constant or not finite score, lengths that differ,
            or alpha outside (0, 1).

    >>> x = np.arange(1000.0)
    >>> estimate, lower, upper = kendall_interval(x, x**3, np.arange(1000), alpha=0.05)
    >>> estimate, round(lower, 3), upper
    (1.0, 0.985, 1.0)
    """
    x, y, index, g = paired_scores(x, y, units, alpha)
    for name, scores in (("x", x), ("y", y)):
        varying(name, scores, "a constant has no ranking")
    estimate, influence, tied = kendall_influence(x, y)
    worst = 2.0 * tied * float(np.bincount(index).max()) / len(x)
    spread = unit_spread(influence, index, g, alpha)
    return estimate, *cautious_bounds(estimate, spread, worst)


def kendall_influence(x: _Vector, y: _Vector) -> tuple[float, _Vector, float]:
    """Return tau-b, the influence of each row on it, and how much ties enlarge the largest.

    tau-b = s / sqrt(p q): s is the mean over pairs of sign(dx) sign(dy), p and q the shares of
    pairs not tied in x and in y. With the same means over the pairs of one row the influence is
    2 (s_i / sqrt(p q) - tau (p_i / p + q_i / q) / 2), at most 2 (1 + tau) (1/p + 1/q) / 2 in size.

    Args:
        x: Finite scores that are not constant, shape (n,).
        y: Finite scores that are not constant, shape (n,).

    Returns:
        Estimate; influences with mean 0, shape (n,); (1/p + 1/q) / 2.

    >>> kendall_influence(np.array([1.0, 2.0, 3.0]), np.array([4.0, 5.0, 6.0]))
    (1.0, array([0., 0., 0.]), 1.5)
    """
    s, apart_x, apart_y = row_concordance(x, y)
    n = len(x)
    p, q = (float(apart.sum()) / (n * n) for apart in (apart_x, apart_y))
    # In whole numbers as far as possible: equal rankings must give exactly 1.
    total, pairs = int(s.sum()), (int(apart_x.sum()), int(apart_y.sum()))
    tau = total / pairs[0] if pairs[0] == pairs[1] else total / math.sqrt(pairs[0] * pairs[1])
    scaled = s / n / math.sqrt(p * q) - 0.5 * tau * (apart_x / (n * p) + apart_y / (n * q))
    influence = 2.0 * (scaled - scaled.mean())
    return tau, influence, 0.5 * (1.0 / p + 1.0 / q)


def row_concordance(x: _Vector, y: _Vector) -> tuple[_Ranks, _Ranks, _Ranks]:
    """Return for each row its concordant less discordant rows, and those not tied in x and in y.

    By counting the rows below in both scores (`_below_in_both`) and counting ties; O(n log n).

    Args:
        x: Finite scores, shape (n,).
        y: Finite scores, shape (n,).

    Returns:
        Three of shape (n,), whole numbers.

    >>> row_concordance(np.array([1.0, 2.0, 2.0]), np.array([1.0, 2.0, 3.0]))
    (array([2, 1, 1]), array([2, 1, 1]), array([2, 2, 2]))
    """
    n = len(x)
    u, v = (np.unique(scores, return_inverse=True)[1].reshape(n) for scores in (x, y))
    less_x, equal_x = _less_and_equal(u)
    less_y, equal_y = _less_and_equal(v)
    # Within ties of one score: how many are below in the other, and how many equal in both.
    pair = np.unique(u * (int(v.max()) + 1) + v, return_inverse=True)[1].reshape(n)
    before, equal_both = _less_and_equal(pair)
    tied_x_less_y = before - less_x
    swapped = np.unique(v * (int(u.max()) + 1) + u, return_inverse=True)[1].reshape(n)
    less_x_tied_y = _less_and_equal(swapped)[0] - less_y
    both_less = _below_in_both(u, v)
    less_x_more_y = less_x - both_less - less_x_tied_y
    more_x_less_y = less_y - both_less - tied_x_less_y
    more_x_tied_y = equal_y - less_x_tied_y - equal_both
    both_more = n - less_x - equal_x - more_x_less_y - more_x_tied_y
    s = both_less + both_more - less_x_more_y - more_x_less_y
    return s, n - equal_x, n - equal_y


def _less_and_equal(ranks: _Ranks) -> tuple[_Ranks, _Ranks]:
    """How many rows are less than each, and equal to it, itself too, by ranks 0, 1, 2, ..."""
    sizes = np.bincount(ranks)
    return (np.cumsum(sizes) - sizes)[ranks], sizes[ranks]


def _below_in_both(u: _Ranks, v: _Ranks) -> _Ranks:
    """How many rows are less than each row in u and in v.

    In order of u, and of equal u the largest v first, it is how many before have a smaller v. By
    the bits of v from the top, as in a wavelet matrix (Claude, Navarro & Ordóñez 2015, Inf Syst
    47): rows that agree in all higher bits stand together in order, and a row with a 1 passes
    those with a 0 before it.
    """
    n = len(u)
    order = np.lexsort((-v, u))
    values, rows = v[order], order
    found = np.zeros(n, np.int64)
    places = np.arange(n)
    for bit in range(int(v.max()).bit_length() - 1, -1, -1):
        # Rows stand sorted by the bits above this one, each block of equals in order of u.
        above = values >> (bit + 1)
        starts = np.flatnonzero(np.concatenate(([True], above[1:] != above[:-1])))
        block = np.zeros(n, np.int64)
        block[starts] = starts
        block = np.maximum.accumulate(block)
        one = (values >> bit) & 1 == 1
        zeros = np.concatenate(([0], np.cumsum(~one)))
        found[rows[one]] += (zeros[places] - zeros[block])[one]
        # A stable move of each block's zeros before its ones.
        before = zeros[places] - zeros[block]
        ends = np.concatenate((starts[1:], [n]))
        zeros_in = (zeros[ends] - zeros[starts])[np.searchsorted(starts, block)]
        target = block + np.where(one, zeros_in + (places - block - before), before)
        moved_values, moved_rows = np.empty_like(values), np.empty_like(rows)
        moved_values[target], moved_rows[target] = values, rows
        values, rows = moved_values, moved_rows
    return found
