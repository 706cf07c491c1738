"""Bounds for the mean of independent values in [0, 1]: what a bettor's capital rules out."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from justenough.stats.bisection import upper_end
from justenough.stats.checks import checked_alpha, unit_interval

_NODES = 4096
_STEP = 1.3


def mean_upper(x: ArrayLike, *, alpha: float) -> float:
    """Upper bound on a mean that holds with probability >= 1 - alpha, at every n.

    Waudby-Smith & Ramdas 2024, JRSS-B 86(1), "Estimating means of bounded random variables by
    betting": were the mean m, the capital K(m) = sum over j of w_j times prod over i of
    (1 + c_j (m - x_i) / (1 - m)) would have expectation at most 1, so by Markov's inequality it
    reaches 1/alpha with probability at most alpha. The bets c_j in (0, 1] and their weights w_j
    are fixed by n and alpha alone. K does not depend on the order of the values and grows with m:
    the bound is where it reaches 1/alpha. The values need not be identically distributed: by the
    inequality of arithmetic and geometric means it holds for the average of their means.

    Args:
        x: Independent values in [0, 1], shape (n,), n >= 1; clustered rows must be averaged first.
        alpha: Allowed probability that the bound is below the truth, in (0, 1).

    Returns:
        The bound, in [mean of x, 1].

    Raises:
        InputError: For values outside [0, 1] or not finite, an empty x, or alpha outside (0, 1).

    >>> round(mean_upper(np.zeros(1000), alpha=0.05), 4)
    0.0044
    """
    checked_alpha(alpha)
    return counted_upper(*_condensed(unit_interval("x", x)), alpha=alpha)


def mean_lower(x: ArrayLike, *, alpha: float) -> float:
    """Lower bound on a mean that holds with probability >= 1 - alpha, at every n.

    The mirror image of `mean_upper`, with the same arguments, errors and source.

    >>> round(mean_lower(np.ones(1000), alpha=0.05), 4)
    0.9956
    """
    checked_alpha(alpha)
    return 1.0 - counted_upper(*_condensed(1.0 - unit_interval("x", x)), alpha=alpha)


def counted_upper(
    nodes: NDArray[np.float64], counts: NDArray[np.float64], *, alpha: float
) -> float:
    """`mean_upper` of values given as distinct values and how often each occurs.

    Args:
        nodes: Distinct values in [0, 1], shape (k,).
        counts: Number of each, > 0, shape (k,).
        alpha: As for `mean_upper`.

    >>> round(counted_upper(np.array([0.0]), np.array([1000.0]), alpha=0.05), 4)
    0.0044
    """
    bets, log_weights = wagers(round(float(counts.sum())), alpha)
    goal = -math.log(alpha)

    def reached(m: float) -> bool:
        return log_capital((1.0 - nodes) / (1.0 - m), counts, bets, log_weights) >= goal

    # Concavity of the logarithm: at the sample's mean no bet has won anything.
    return upper_end(reached, float(np.clip(counts @ nodes / counts.sum(), 0.0, 1.0)))


def log_capital(
    growth: NDArray[np.float64],
    counts: NDArray[np.float64],
    bets: NDArray[np.float64],
    log_weights: NDArray[np.float64],
) -> float:
    """Return log sum over j of w_j times prod over i of (1 - c_j + c_j growth_i) ** count_i.

    The capital of `mean_upper`, where growth is (1 - x) / (1 - m): 1 + c (m - x) / (1 - m) is
    (1 - c) + c growth, a sum of terms >= 0.

    Args:
        growth: What a bet of everything is multiplied by, >= 0, shape (k,).
        counts: How often, > 0, shape (k,).
        bets: Shape (j,), in (0, 1].
        log_weights: Logarithms of weights that sum to 1, shape (j,).
    """
    with np.errstate(divide="ignore"):
        capital = np.log((1.0 - bets)[:, None] + bets[:, None] * growth) @ counts
    return log_sum(capital + log_weights)


def log_sum(logs: NDArray[np.float64]) -> float:
    """Return the logarithm of the sum of exp(logs), of which one at least is finite.

    SciPy's logsumexp checks so much that bisection with it takes ten times longer.

    >>> log_sum(np.array([-1000.0, -np.inf]))
    -1000.0
    """
    largest = float(logs.max())
    return largest + math.log(float(np.exp(logs - largest).sum()))


def wagers(n: int, alpha: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the bets of `mean_upper` and the logarithms of their weights, both shape (j,).

    Fixed by n and alpha alone. The weights prefer large bets, because most losses met here are
    nearly all 0.
    """
    bets = _bets(n, alpha)
    return bets, 0.5 * np.log(bets) - log_sum(0.5 * np.log(bets))


def _bets(n: int, alpha: float) -> NDArray[np.float64]:
    """Bets from the best one for a coin of variance 1/4 up to everything, each 1.3 times more.

    The best bet against a distance d is d / variance, and d is about
    sqrt(2 log(1/alpha) variance / n) when the bound is reached (section 3.3 of the paper), so
    everything smaller than the first can only be worse.
    """
    smallest = min(0.5, math.sqrt(2.0 * math.log(1.0 / alpha) / n) / 2.0)
    count = math.ceil(math.log(1.0 / smallest) / math.log(_STEP)) + 1
    return np.geomspace(smallest, 1.0, count)


def _condensed(
    values: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distinct values and their counts; where there are many, at most 4096 nodes.

    A value between two nodes is split over both so that its mean stays. The chord of a concave
    function lies below it, so the capital can only fall: the bound stays valid.
    """
    found = np.unique(values, return_counts=True)
    nodes, counts = found[0].astype(np.float64), found[1].astype(np.float64)
    if len(nodes) <= _NODES:
        return nodes, counts
    by_rank = np.linspace(0, len(nodes) - 1, _NODES // 2).astype(np.intp)
    by_value = np.searchsorted(nodes, np.linspace(nodes[0], nodes[-1], _NODES // 2))
    kept = nodes[np.unique(np.concatenate([by_rank, by_value]))]
    right = np.clip(np.searchsorted(kept, nodes), 1, len(kept) - 1)
    share = (nodes - kept[right - 1]) / (kept[right] - kept[right - 1])
    weights = np.zeros(len(kept))
    weights += np.bincount(right, counts * share, len(kept))
    weights += np.bincount(right - 1, counts * (1.0 - share), len(kept))
    return kept[weights > 0.0], weights[weights > 0.0]
