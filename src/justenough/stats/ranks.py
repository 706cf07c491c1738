"""Agreement of two rankings, and who is on top, with ties taken as ties."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import kendalltau, rankdata
from scipy.stats import t as student

from justenough.errors import InputError
from justenough.stats.checks import (
    FEWEST_UNITS,
    checked_alpha,
    checked_units,
    finite_vector,
    paired_scores,
    varying,
)
from justenough.stats.influence import Spread, cautious_bounds, unit_spread

_Vector = NDArray[np.float64]


def spearman_interval(
    x: ArrayLike, y: ArrayLike, units: ArrayLike, *, alpha: float
) -> tuple[float, float, float]:
    """Return Spearman's correlation of two scores, and a lower and an upper bound.

    The correlation of midranks. Its standard error comes from its influence function (Croux &
    Dehon 2010, Stat Methods Appl 19, equation 8, here with midranks and the variance of the ranks
    for ties), summed within units; bounds as `influence.cautious_bounds`. A unit that was not seen
    moves the correlation by up to 3 (1 + rho) times its share of the rows downwards, or
    3 (1 - rho) upwards. So g units show at best about 1 - 22 / g at
    alpha = 0.05, even where all ranks agree: one failure in g / 3 may well have been missed, and
    a top score that overflows to the bottom costs six times its share. The estimate is the
    plain one; its bias (Moran 1948, Biometrika 35) goes into the bound on the side it endangers.

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
    >>> estimate, lower, upper = spearman_interval(x, x**3, np.arange(1000), alpha=0.05)
    >>> estimate, round(lower, 3), upper
    (1.0, 0.978, 1.0)
    """
    x, y, index, g = paired_scores(x, y, units, alpha)
    for name, scores in (("x", x), ("y", y)):
        varying(name, scores, "a constant has no ranking")
    estimate, influence = rank_influence(x, y)
    worst = 3.0 * float(np.bincount(index).max()) / len(x)
    # A sample's correlation is nearer to 0 by 3 (rho - tau) / n: near 1 that exceeds its error.
    bias = (float(kendalltau(x, y).statistic) - estimate) * worst
    spread = unit_spread(influence, index, g, alpha)
    return estimate, *cautious_bounds(estimate, spread, worst, bias=bias)


def best_spearman_lower(g: int, *, alpha: float) -> float:
    """Return the lower bound that `g` units of one size show at best, with all ranks equal.

    `spearman_interval` at rho = 1.

    Raises:
        InputError: For alpha outside (0, 1) or fewer than 30 units.

    >>> round(best_spearman_lower(3000, alpha=0.05), 4)
    0.9927
    """
    checked_alpha(alpha)
    quantile = float(student.isf(alpha, checked_units(g) - 1))
    return max(-1.0, 1.0 - Spread(0.0, quantile).reach(6.0 / g))


def top_overlap_interval(
    x: ArrayLike, y: ArrayLike, units: ArrayLike, *, k: int, alpha: float
) -> tuple[float, float, float]:
    """Return the share of the top k that two scores have in common, and two bounds for it.

    The share of the top k / n of the population of x that is in the top k / n of y too; ties at
    a threshold are broken at random (`top_weights`) and the expected share is taken. Its influence
    function has the row's own part and that of both thresholds, which rows on top push up:
    (u v - q share - (u - q) E[v | x at its threshold] - (v - q) E[u | y at its]) / q with weights
    u, v and q = k / n; van der Vaart 1998, Asymptotic Statistics, section 21.1, by the chain rule.
    The two expectations are means over the sqrt(k (1 - q)) rows on either side, about as far as
    a sample's threshold strays. Influences are summed within units; Student's t with one degree
    fewer than units on top, and room for a unit that was not seen (`Spread.reach`), which moves
    the share by up to the places that it holds. Where k is more than half of n, all this is done
    for the n - k at the bottom, as what the tops share follows from what the bottoms do. O(n).

    Args:
        x: Scores of the reference, shape (n,), high is top.
        y: Scores of the candidate, shape (n,).
        units: Id of the independent unit of each row, shape (n,).
        k: How many are on top, 1..n - 1.
        alpha: Allowed probability that one bound is wrong, in (0, 1); both at once: 2 alpha.

    Returns:
        Estimate, lower bound, upper bound, each in [0, 1].

    Raises:
        InputError: For fewer than 30 units on top (or at the bottom) of x or of y, k outside
            1..n - 1, a score that is not finite, lengths that differ, or alpha outside (0, 1).

    >>> x = np.arange(1000.0)
    >>> estimate, lower, upper = top_overlap_interval(x, x**3, np.arange(1000), k=100, alpha=0.05)
    >>> estimate, round(lower, 3), upper
    (1.0, 0.963, 1.0)
    """
    x, y, index, _ = paired_scores(x, y, units, alpha)
    n = len(x)
    if not 1 <= k < n:
        raise InputError(f"k is {k}; with {n} rows it must lie in 1..{n - 1}")
    if 2 * k > n:
        found = _overlap_interval(-x, -y, index, n - k, alpha)
        share, down, up = ((2 * k - n + (n - k) * part) / k for part in found)
        return share, down, up
    return _overlap_interval(x, y, index, k, alpha)


def _overlap_interval(
    x: _Vector, y: _Vector, index: NDArray[np.intp], k: int, alpha: float
) -> tuple[float, float, float]:
    u, v = top_places(x, k), top_places(y, k)
    held = [np.bincount(index, places) for places in (u, v)]
    on_top = min(int(np.count_nonzero(places)) for places in held)
    if on_top < FEWEST_UNITS:
        got = f"{on_top} units hold the {k} places at one end"
        raise InputError(f"{got}; this bound needs at least {FEWEST_UNITS}, and so a longer end")
    share, influence = overlap_influence(x, y, k)
    g = len(held[0])
    spread = unit_spread(influence, index, g, alpha)
    spread = Spread(spread.variance, float(student.isf(alpha, on_top - 1)))
    largest = max(float(places.max()) for places in held) / k
    down = share - spread.reach(share * largest)
    up = share + spread.reach((1.0 - share) * largest)
    return share, max(down, 0.0), min(up, 1.0)


def overlap_influence(x: _Vector, y: _Vector, k: int) -> tuple[float, _Vector]:
    """Return the share of the top k in common and the influence of each row on it.

    As `top_overlap_interval` describes.

    Args:
        x: Finite scores, shape (n,).
        y: Finite scores, shape (n,).
        k: In 1..n - 1.

    >>> overlap_influence(np.arange(6.0), np.array([0.0, 1, 2, 3, 5, 4]), 2)[0]
    1.0
    """
    n = len(x)
    u, v, q = top_places(x, k), top_places(y, k), k / n
    share = min(1.0, float(u @ v) / k)
    on_x, on_y = _at_threshold(x, v, k), _at_threshold(y, u, k)
    return share, (u * v - q * share - (u - q) * on_x - (v - q) * on_y) / q


def _at_threshold(scores: _Vector, weights: _Vector, k: int) -> float:
    """Mean weight of the rows next to the k-th largest score, and of all that tie with them."""
    n = len(scores)
    reach = max(2, math.ceil(math.sqrt(k * (1.0 - k / n))))
    low, high = max(n - k - reach, 0), min(n - k + reach - 1, n - 1)
    ordered = np.partition(scores, (low, high))
    return float(weights[(scores >= ordered[low]) & (scores <= ordered[high])].mean())


def top_weights(scores: ArrayLike, k: int) -> _Vector:
    """Return the probability that each row is among the `k` largest, ties broken at random.

    Rows above the k-th largest score get 1, rows below it 0, rows equal to it share what is left.

    Args:
        scores: Shape (n,).
        k: How many are on top, 1..n.

    Returns:
        Probabilities, shape (n,), with sum k.

    Raises:
        InputError: For k outside 1..n or scores that are not finite.

    >>> top_weights([3.0, 1.0, 1.0, 0.0], 2)
    array([1. , 0.5, 0.5, 0. ])
    """
    scores = finite_vector("scores", scores)
    if not 1 <= k <= len(scores):
        raise InputError(f"k is {k}; with {len(scores)} rows it must lie in 1..{len(scores)}")
    return top_places(scores, k)


def top_places(scores: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """`top_weights` along the last axis of finite scores (..., n), k in 1..n."""
    threshold = np.partition(scores, -k, axis=-1)[..., -k, None]
    above, equal = scores > threshold, scores == threshold
    left = (k - above.sum(-1, keepdims=True)) / equal.sum(-1, keepdims=True)
    return np.where(above, 1.0, np.where(equal, left, 0.0))


def rank_influence(x: _Vector, y: _Vector) -> tuple[float, _Vector]:
    """Return the correlation of midranks and the influence of each row on it.

    Croux & Dehon 2010, equation 8, with the variance of the ranks kept, as ties change it.

    Args:
        x: Finite scores that are not constant, shape (n,).
        y: Finite scores that are not constant, shape (n,).

    >>> rank_influence(np.array([1.0, 2.0, 3.0]), np.array([5.0, 6.0, 7.0]))
    (1.0, array([0., 0., 0.]))
    """
    n = len(x)
    u, v = ((rankdata(scores) - 0.5 * (n + 1)) / n for scores in (x, y))
    if np.array_equal(u, v) or np.array_equal(u, -v):
        return (1.0 if np.array_equal(u, v) else -1.0), np.zeros(n)
    var_u, var_v = float(u @ u) / n, float(v @ v) / n
    scale = math.sqrt(var_u * var_v)
    covariance = float(u @ v) / n
    rho = min(1.0, max(-1.0, covariance / scale))
    # Each moment of ranks moves with a row's own product and with the ranks it pushes up.
    on_covariance = u * v + _pushed(x, v) + _pushed(y, u)
    on_u, on_v = u * u + 2.0 * _pushed(x, u), v * v + 2.0 * _pushed(y, v)
    influence = on_covariance / scale - 0.5 * rho * (on_u / var_u + on_v / var_v)
    return rho, influence - influence.mean()


def _pushed(scores: _Vector, weights: _Vector) -> _Vector:
    """Mean weight of the rows above each row, ties counted half."""
    _, group = np.unique(scores, return_inverse=True)
    totals = np.bincount(group.reshape(-1), weights)
    above = np.cumsum(totals[::-1])[::-1] - 0.5 * totals
    pushed: _Vector = above[group.reshape(-1)] / len(scores)
    return pushed
