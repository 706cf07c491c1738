"""The chance that a comparison of two models on the same cases shows what it asks.

For the number of cases that gives a wanted chance, hand any of these to
`justenough.stats.power.smallest_n`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.special import ndtr, ndtri
from scipy.stats import binom, chi, multivariate_normal
from scipy.stats import t as student

from justenough.errors import InputError
from justenough.stats.auc import auc_drop_interval
from justenough.stats.checks import FEWEST_UNITS, checked_alpha, checked_count, checked_share
from justenough.stats.kendall import kendall_interval
from justenough.stats.paired import Alternative, EquivalenceMethod, equivalent
from justenough.stats.power import Simulated, simulated_power
from justenough.stats.ranks import spearman_interval, top_overlap_interval

_NEGLIGIBLE = 1e-13
_Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Binormal:
    """Two scores that are normal with variance 1 in each class.

    Attributes:
        reference: AUC of the reference, in (0, 1).
        candidate: AUC of the candidate, in (0, 1).
        correlation: Of the two scores within each class, in (-1, 1).
    """

    reference: float
    candidate: float
    correlation: float

    def __post_init__(self) -> None:
        checked_share("reference", self.reference)
        checked_share("candidate", self.candidate)
        _checked_correlation("correlation", self.correlation)


def mcnemar_power(
    n: int, lost: float, gained: float, *, alpha: float, alternative: Alternative = "two-sided"
) -> float:
    """Return the chance that `paired.mcnemar` gives a p-value of alpha or less.

    Exact: summed over the number of cases that distinguish the two, and how they fall. (Sums leave
    out chances of 1e-13 and less.)

    Args:
        n: Number of independent cases, at least 1.
        lost: True chance that the reference alone is right.
        gained: True chance that the candidate alone is right; lost + gained at most 1.
        alpha: Level of the test, in (0, 1).
        alternative: As for `paired.mcnemar`.

    Raises:
        InputError: For an argument outside these ranges.

    >>> round(mcnemar_power(1000, 0.02, 0.005, alpha=0.05), 4)
    0.8331
    """
    checked_alpha(alpha)
    level = 0.5 * alpha if alternative == "two-sided" else alpha

    def shown(a: NDArray[np.int_], b: NDArray[np.int_]) -> NDArray[np.bool_]:
        more, fewer = binom.sf(a - 1, a + b, 0.5) <= level, binom.cdf(a, a + b, 0.5) <= level
        found: NDArray[np.bool_] = {"greater": more, "less": fewer, "two-sided": more | fewer}[
            alternative
        ]
        return found

    if alternative not in ("two-sided", "greater", "less"):
        raise InputError(f"alternative is {alternative!r}; it must be two-sided, greater or less")
    return _chance(shown, n, lost, gained)


def tost_proportions_power(
    n: int,
    lost: float,
    gained: float,
    *,
    margin: float,
    alpha: float,
    method: EquivalenceMethod = "clopper_pearson",
) -> float:
    """Return the chance that `paired.tost_proportions` shows equivalence.

    Exact, as `mcnemar_power`. With lost - gained = margin it is the test's true level there.

    Args:
        n: As for `mcnemar_power`.
        lost: As for `mcnemar_power`.
        gained: As for `mcnemar_power`.
        margin: Largest difference that does not matter, in (0, 1).
        alpha: Level of the test, in (0, 1).
        method: "clopper_pearson" or "score".

    Raises:
        InputError: For an argument outside these ranges.

    >>> round(tost_proportions_power(1000, 0.005, 0.005, margin=0.02, alpha=0.05), 4)
    0.9954
    """
    checked_share("margin", margin)
    checked_alpha(alpha)

    def shown(a: NDArray[np.int_], b: NDArray[np.int_]) -> NDArray[np.bool_]:
        return equivalent(a, b, n, margin=margin, alpha=alpha, method=method)

    return _chance(shown, n, lost, gained)


def tost_means_power(
    n: int, difference: float, sd: float, *, margin: float, alpha: float
) -> float:
    """Return the chance that `paired.tost_means` shows equivalence, for normal differences.

    Exact: for a given sample standard deviation the mean must fall into an interval; integrated
    over its chi distribution (Owen 1965; Phillips 1990, J. Pharmacokinet. Biopharm. 18(2)).

    Args:
        n: Number of independent pairs, at least 2.
        difference: True mean difference.
        sd: True standard deviation of the differences, > 0, in the same unit.
        margin: Largest mean difference that does not matter, > 0, in the same unit.
        alpha: Level of the test, in (0, 1).

    Raises:
        InputError: For an argument outside these ranges.

    >>> round(tost_means_power(30, 0.0, 1.0, margin=0.6, alpha=0.05), 4)
    0.882
    """
    checked_count("n", n, 2)
    checked_alpha(alpha)
    for name, value in (("sd", sd), ("margin", margin)):
        if not (value > 0.0 and math.isfinite(value)):
            raise InputError(f"{name} is {value}; it must be a positive number")
    if not math.isfinite(difference):
        raise InputError(f"difference is {difference}; it must be a number")
    return equivalence_power(difference, sd / math.sqrt(n), n - 1, margin, alpha)


def equivalence_power(
    difference: float, standard_error: float, df: int, margin: float, alpha: float
) -> float:
    """Power of two one-sided t tests for an estimate with that standard error, unchecked.

    >>> bound, sd = math.log(1.25), math.sqrt(math.log(1 + 0.25**2))  # CV 25 %, 24 in a crossover
    >>> round(equivalence_power(math.log(0.95), sd * math.sqrt(2 / 24), 22, bound, 0.05), 7)
    0.7391155
    """
    quantile = float(student.isf(alpha, df))

    def density(s: float) -> float:
        # s is the sample's standard error over the true one
        room = margin / standard_error - quantile * s
        off = difference / standard_error
        inside = ndtr(room - off) - ndtr(-room - off)
        return float(inside * chi.pdf(s * math.sqrt(df), df) * math.sqrt(df))

    most = margin / standard_error / quantile if quantile > 0.0 else math.inf
    spread = 10.0 / math.sqrt(2.0 * df)
    low, high = max(0.0, 1.0 - spread), min(most, 1.0 + spread)
    return float(quad(density, low, high, epsabs=1e-12, limit=200)[0]) if high > low else 0.0


def spearman_power(
    n: int, rho: float, *, at_least: float, alpha: float, runs: int, rng: np.random.Generator
) -> Simulated:
    """Return the chance that `ranks.spearman_interval` shows a correlation of `at_least`.

    Counted over samples of normal scores with that rank correlation, each row a unit.

    Args:
        n: Number of rows, at least 30.
        rho: True rank correlation, in (-1, 1).
        at_least: Rank correlation to be shown, in (-1, 1).
        alpha: Level, in (0, 1).
        runs: Number of samples, at least 1.
        rng: Where all randomness comes from.

    Raises:
        InputError: For an argument outside these ranges.

    >>> rng = np.random.default_rng(0)
    >>> spearman_power(1000, 0.995, at_least=0.95, alpha=0.05, runs=20, rng=rng).estimate
    1.0
    """
    checked_alpha(alpha)
    _checked_correlation("at_least", at_least)
    r = 2.0 * math.sin(math.pi * _checked_correlation("rho", rho) / 6.0)  # Pearson 1907
    bound = partial(spearman_interval, alpha=alpha)
    return _power_for_normal_scores(bound, n, r, at_least, runs, rng)


def kendall_power(
    n: int, tau: float, *, at_least: float, alpha: float, runs: int, rng: np.random.Generator
) -> Simulated:
    """Return the chance that `kendall.kendall_interval` shows a correlation of `at_least`.

    Counted over samples of normal scores with that tau, each row a unit.

    Args:
        n: Number of rows, at least 30.
        tau: True value of Kendall's tau, in (-1, 1).
        at_least: Value to be shown, in (-1, 1).
        alpha: Level, in (0, 1).
        runs: Number of samples, at least 1.
        rng: Where all randomness comes from.

    Raises:
        InputError: For an argument outside these ranges.

    >>> rng = np.random.default_rng(0)
    >>> kendall_power(1000, 0.95, at_least=0.9, alpha=0.05, runs=20, rng=rng).estimate
    1.0
    """
    checked_alpha(alpha)
    _checked_correlation("at_least", at_least)
    r = math.sin(0.5 * math.pi * _checked_correlation("tau", tau))  # Greiner 1909
    bound = partial(kendall_interval, alpha=alpha)
    return _power_for_normal_scores(bound, n, r, at_least, runs, rng)


def top_overlap_power(
    rows: tuple[int, int],
    r: float,
    *,
    at_least: float,
    alpha: float,
    runs: int,
    rng: np.random.Generator,
) -> Simulated:
    """Return the chance that `ranks.top_overlap_interval` shows an overlap of `at_least`.

    Counted over samples of normal scores with Pearson's correlation r, each row a unit.

    Args:
        rows: Number of rows, n >= 30, and how many of them are on top, k.
        r: True correlation, in (-1, 1).
        at_least: Share of the top k to be shown, in (0, 1).
        alpha: Level, in (0, 1).
        runs: Number of samples, at least 1.
        rng: Where all randomness comes from.

    Raises:
        InputError: For an argument outside these ranges.

    >>> rng = np.random.default_rng(0)
    >>> top_overlap_power((2000, 200), 0.9999, at_least=0.9, alpha=0.05, runs=20, rng=rng).estimate
    1.0
    """
    checked_alpha(alpha)
    checked_share("at_least", at_least)
    bound = partial(top_overlap_interval, k=rows[1], alpha=alpha)
    return _power_for_normal_scores(
        bound, rows[0], _checked_correlation("r", r), at_least, runs, rng
    )


def delong_power(scores: Binormal, positives: int, negatives: int, *, alpha: float) -> float:
    """Return the chance that `delong.delong_test` gives a p-value of alpha or less.

    By the normal formula, with the variance of the structural components under the binormal model:
    E(Phi(a) Phi(b)) for correlated normal scores is a bivariate normal probability. In the
    limit of many rows; at 20 rows a class it is a few points off.

    Args:
        scores: The two scores' areas and correlation.
        positives: Number of positive rows, at least 2.
        negatives: Number of negative rows, at least 2.
        alpha: Level of the two-sided test, in (0, 1).

    Raises:
        InputError: For an argument outside these ranges.

    >>> round(delong_power(Binormal(0.85, 0.80, 0.6), 200, 300, alpha=0.05), 3)
    0.803
    """
    checked_alpha(alpha)
    checked_count("positives", positives, 2)
    checked_count("negatives", negatives, 2)
    a, b = (float(ndtri(area)) for area in (scores.reference, scores.candidate))
    variance = (
        _covariance(a, a, 1.0)
        + _covariance(b, b, 1.0)
        - 2.0 * _covariance(a, b, scores.correlation)
    )
    error = math.sqrt(variance * (1.0 / positives + 1.0 / negatives))
    shift, quantile = (scores.reference - scores.candidate) / error, -float(ndtri(0.5 * alpha))
    return float(ndtr(shift - quantile) + ndtr(-shift - quantile))


def auc_drop_power(
    scores: Binormal,
    rows: tuple[int, int],
    *,
    at_most: float,
    alpha: float,
    runs: int,
    rng: np.random.Generator,
) -> Simulated:
    """Return the chance that `auc.auc_drop_interval` shows a drop of `at_most`.

    Counted over samples from the binormal model, each row a unit.

    Args:
        scores: The two scores' areas and correlation.
        rows: Number of positive and of negative rows, at least 1 each and 30 together.
        at_most: Drop to be shown, in (0, 1).
        alpha: Level, in (0, 1).
        runs: Number of samples, at least 1.
        rng: Where all randomness comes from.

    Raises:
        InputError: For an argument outside these ranges.

    >>> rng = np.random.default_rng(0)
    >>> scores = Binormal(0.90, 0.899, 0.999)
    >>> auc_drop_power(scores, (500, 500), at_most=0.03, alpha=0.05, runs=20, rng=rng).estimate
    1.0
    """
    checked_alpha(alpha)
    checked_share("at_most", at_most)
    positives, negatives = (checked_count("rows", count, 1) for count in rows)
    n = positives + negatives
    labels, units = np.arange(n) < positives, np.arange(n)
    root = math.sqrt(2.0)

    def shown(rng: np.random.Generator) -> bool:
        x, y = _normal_scores(n, scores.correlation, rng)
        x = x + root * float(ndtri(scores.reference)) * labels
        y = y + root * float(ndtri(scores.candidate)) * labels
        return auc_drop_interval(labels, x, y, units, alpha=alpha)[2] <= at_most

    return simulated_power(shown, runs=runs, rng=rng)


def _power_for_normal_scores(
    interval: Callable[[_Vector, _Vector, NDArray[np.int_]], tuple[float, float, float]],
    n: int,
    r: float,
    at_least: float,
    runs: int,
    rng: np.random.Generator,
) -> Simulated:
    checked_count("n", n, FEWEST_UNITS)
    units = np.arange(n)

    def shown(rng: np.random.Generator) -> bool:
        return interval(*_normal_scores(n, r, rng), units)[1] >= at_least

    return simulated_power(shown, runs=runs, rng=rng)


def _normal_scores(n: int, r: float, rng: np.random.Generator) -> tuple[_Vector, _Vector]:
    """Two normal scores with variance 1 and correlation r, shape (n,) each."""
    x = rng.standard_normal(n)
    return x, r * x + math.sqrt(1.0 - r * r) * rng.standard_normal(n)


def _checked_correlation(name: str, value: float) -> float:
    if not -1.0 < value < 1.0:
        raise InputError(f"{name} is {value}; it must lie within (-1, 1)")
    return value


def _covariance(a: float, b: float, correlation: float) -> float:
    """Covariance of two components; a and b are the normal quantiles of the areas."""
    r = 0.5 * correlation
    both = multivariate_normal.cdf([a, b], cov=[[1.0, r], [r, 1.0]])
    return float(both) - float(ndtr(a) * ndtr(b))


def _chance(
    shown: Callable[[NDArray[np.int_], NDArray[np.int_]], NDArray[np.bool_]],
    n: int,
    lost: float,
    gained: float,
) -> float:
    """Chance of what `shown` says of the numbers lost and gained among n independent cases."""
    checked_count("n", n, 1)
    either = lost + gained
    if not (lost >= 0.0 and gained >= 0.0 and either <= 1.0):
        raise InputError(
            f"lost is {lost} and gained {gained}; chances of separate events must be 0 or more "
            "and sum to 1 at most"
        )
    if either == 0.0:
        return float(shown(np.array([0]), np.array([0]))[0])
    total = 0.0
    for m in range(*_range(n, either)):
        a = np.arange(*_range(m, lost / either))
        mass = binom.pmf(m, n, either) * binom.pmf(a, m, lost / either)
        total += float(mass[shown(a, m - a)].sum())
    return total


def _range(n: int, p: float) -> tuple[int, int]:
    low, high = binom.ppf(_NEGLIGIBLE, n, p), binom.isf(_NEGLIGIBLE, n, p)
    return max(int(low), 0), min(int(high), n) + 1
