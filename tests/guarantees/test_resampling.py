"""How often the intervals of resampling and of ranks miss, by seeded simulation.

`correlation_misses`, `kendall_misses` and `overlap_misses` return what was counted, with its
Monte Carlo error, for the tests here and for whoever writes it on a page.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom, multivariate_normal, norm

from justenough.stats.bootstrap import bootstrap_by_moments, bootstrap_correlations
from justenough.stats.kendall import kendall_interval
from justenough.stats.moments import moments
from justenough.stats.permutation import pearson_permutation_test
from justenough.stats.ranks import top_overlap_interval

ALPHA = 0.05
Vector = NDArray[np.float64]
Kind = Literal["percentile", "bca", "studentised", "moments"]
Truth = Literal["normal", "lognormal", "t5"]
KINDS: tuple[Kind, ...] = ("percentile", "bca", "studentised")
HEAVY: tuple[Truth, ...] = ("t5", "lognormal")


@dataclass(frozen=True)
class Misses:
    """How often each bound was on the wrong side of the truth, alpha wanted.

    Attributes:
        method: Which interval.
        truth: Which population, in words.
        units: Independent units of a sample.
        runs: Samples drawn.
        low: Share of samples whose lower bound exceeds the truth.
        high: Share of samples whose upper bound falls short of it.
    """

    method: str
    truth: str
    units: int
    runs: int
    low: float
    high: float

    @property
    def monte_carlo_error(self) -> float:
        """Standard error of a share whose true value is alpha."""
        return math.sqrt(ALPHA * (1 - ALPHA) / self.runs)

    @property
    def allowed(self) -> float:
        """What a true rate of alpha exceeds with probability about 1e-3."""
        return ALPHA + 3.1 * self.monte_carlo_error


def correlation_misses(
    kind: Kind, truth: Truth, r: float, units: int, runs: int, size: int = 1
) -> Misses:
    """Misses of a bootstrap interval of Pearson's correlation; `size` rows share a unit."""
    rng = np.random.default_rng([units, runs, size])
    ids = None if size == 1 else np.repeat(np.arange(units), size)
    target = _target(truth, r)
    low = high = 0
    for _ in range(runs):
        rows = _rows(rng, truth, r, units, size)
        if kind == "moments":
            found = bootstrap_by_moments(moments(rows, ids), [1.0], replicates=1200, rng=rng)
            lower, upper = found.percentile(alpha=ALPHA)
        else:
            found = bootstrap_correlations(
                rows, [1.0], replicates=1200, rng=rng, units=ids, studentised=kind == "studentised"
            )
            lower, upper = getattr(found, kind)(alpha=ALPHA)
        low += lower[0] > target
        high += upper[0] < target
    words = f"{truth}, correlation {target:.3g}" + (f", {size} rows a unit" if size > 1 else "")
    return Misses(kind, words, units, runs, low / runs, high / runs)


def kendall_misses(r: float, units: int, runs: int, size: int = 1, step: float = 0.0) -> Misses:
    """Misses of `kendall_interval` for normal scores of correlation r, rounded to `step`."""
    rng = np.random.default_rng([units, runs, size])
    ids = np.repeat(np.arange(units), size)
    target = _tau(r, step)

    def interval() -> tuple[float, float, float]:
        x, y = _rounded(_rows(rng, "normal", r, units, size), step).T
        return kendall_interval(x, y, ids, alpha=ALPHA)

    words = f"normal, r {r:g}, tau-b {target:.3g}" + (f", {size} rows a unit" if size > 1 else "")
    return _counted("kendall", words, interval, target, units, runs)


def overlap_misses(r: float, units: int, k: int, runs: int, size: int = 1) -> Misses:
    """Misses of `top_overlap_interval` for normal scores of correlation r."""
    rng = np.random.default_rng([units, k, runs, size])
    ids, n = np.repeat(np.arange(units), size), units * size
    cut = float(norm.isf(k / n))
    above = multivariate_normal([0, 0], [[1, r], [r, 1]]).cdf([-cut, -cut])
    target = float(above) / (k / n)

    def interval() -> tuple[float, float, float]:
        x, y = _rows(rng, "normal", r, units, size).T
        return top_overlap_interval(x, y, ids, k=k, alpha=ALPHA)

    words = f"normal, r {r:g}, top {k} of {n}, overlap {target:.3g}"
    return _counted("top-k overlap", words, interval, target, units, runs)


def _counted(
    method: str,
    words: str,
    interval: Callable[[], tuple[float, float, float]],
    target: float,
    units: int,
    runs: int,
) -> Misses:
    bounds = np.array([interval()[1:] for _ in range(runs)])
    low, high = (bounds[:, 0] > target).mean(), (bounds[:, 1] < target).mean()
    return Misses(method, words, units, runs, float(low), float(high))


def _rows(rng: np.random.Generator, truth: Truth, r: float, units: int, size: int) -> Vector:
    """Shape (units * size, 2); rows of a unit share half of their variance."""
    own = rng.standard_normal((units * size, 2))
    if size > 1:
        shared = np.repeat(rng.standard_normal((units, 2)), size, axis=0)
        own = math.sqrt(0.5) * (own + shared)
    own[:, 1] = r * own[:, 0] + math.sqrt(1 - r * r) * own[:, 1]
    if truth == "lognormal":
        return np.exp(0.5 * own)
    if truth == "t5":
        return own / np.sqrt(np.repeat(rng.chisquare(5, units) / 5, size))[:, None]
    return own


def _target(truth: Truth, r: float) -> float:
    if truth == "lognormal":
        return math.expm1(0.25 * r) / math.expm1(0.25)
    return r


def _rounded(rows: Vector, step: float) -> Vector:
    return rows if step == 0.0 else np.round(rows / step) * step


def _tau(r: float, step: float) -> float:
    """Greiner 1909: 2 asin(r) / pi; with rounding, tau-b from the table of all cells."""
    if step == 0.0:
        return 2 / math.pi * math.asin(r)
    edges = np.concatenate(([-9.0], np.arange(-8, 8) * step + step / 2, [9.0]))
    joint = multivariate_normal([0, 0], [[1, r], [r, 1]])
    below = np.array([[joint.cdf([a, b]) for b in edges] for a in edges])
    cells = np.diff(np.diff(below, axis=0), axis=1)
    less = np.cumsum(np.cumsum(cells, 0), 1)
    less = np.pad(less, ((1, 0), (1, 0)))[:-1, :-1]  # both strictly less
    flipped = np.cumsum(np.cumsum(cells[:, ::-1], 0), 1)
    flipped = np.pad(flipped, ((1, 0), (1, 0)))[:-1, :-1][:, ::-1]  # less in one, more in other
    s = 2 * float((cells * (less - flipped)).sum())
    apart = [1 - float((cells.sum(axis) ** 2).sum()) for axis in (0, 1)]
    return s / math.sqrt(apart[0] * apart[1])


# Pearson's correlation, by the bootstrap. Asymptotic: no interval here is exact, so it is said how
# far from alpha it was seen to be, and that it comes near with more units.


@pytest.mark.coverage_study
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["percentile", "bca", "studentised", "moments"])
@pytest.mark.parametrize("r", [0.0, 0.5, 0.9])
def test_bootstrap_intervals_hold_for_normal_rows(kind: Kind, r: float) -> None:
    found = correlation_misses(kind, "normal", r, 100, 400)
    assert max(found.low, found.high) <= found.allowed


@pytest.mark.coverage_study
@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "truth", "units"),
    [
        *((kind, truth, 200) for kind in KINDS for truth in HEAVY),
        ("moments", "lognormal", 3000),  # with the tails of t5 single samples are refused
    ],
)
@pytest.mark.parametrize("r", [0.0, 0.9])
def test_bootstrap_intervals_miss_at_most_twice_alpha_in_heavy_tails(
    kind: Kind, truth: Truth, units: int, r: float
) -> None:
    found = correlation_misses(kind, truth, r, units, 300)
    twice = 2 * ALPHA
    # What a true rate of 2 alpha exceeds with probability about 1e-3.
    assert max(found.low, found.high) <= twice + 3.1 * math.sqrt(twice * (1 - twice) / 300)


@pytest.mark.coverage_study
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["percentile", "bca", "studentised", "moments"])
def test_bootstrap_intervals_hold_where_rows_share_a_unit(kind: Kind) -> None:
    found = correlation_misses(kind, "normal", 0.5, 100, 300, size=5)
    assert max(found.low, found.high) <= found.allowed


@pytest.mark.coverage_study
def test_rows_taken_for_units_are_found_out() -> None:
    """That the simulation can fail: with the units left out it does."""
    rng, wrong = np.random.default_rng(0), 0
    for _ in range(200):
        rows = _rows(rng, "normal", 0.5, 40, 20)
        found = bootstrap_by_moments(moments(rows), [1.0], replicates=400, rng=rng)
        lower, upper = found.percentile(alpha=ALPHA)
        wrong += not lower[0] <= 0.5 <= upper[0]
    assert wrong / 200 > 0.3  # 0.1 is wanted


# Ranks


@pytest.mark.coverage_study
@pytest.mark.parametrize("r", [-0.9999, 0.0, 0.6, 0.99, 0.9999])
@pytest.mark.parametrize("units", [30, 100, 1000])
def test_kendall_bounds_hold_for_normal_scores(r: float, units: int) -> None:
    found = kendall_misses(r, units, 300)
    assert max(found.low, found.high) <= found.allowed


@pytest.mark.coverage_study
@pytest.mark.parametrize("r", [0.6, 0.99])
@pytest.mark.parametrize("units", [30, 100, 1000])
def test_kendall_bounds_hold_with_ties(r: float, units: int) -> None:
    found = kendall_misses(r, units, 300, step=0.5)
    assert max(found.low, found.high) <= found.allowed


@pytest.mark.coverage_study
@pytest.mark.parametrize(("r", "units", "size"), [(0.6, 40, 20), (0.99, 40, 20), (0.9999, 100, 5)])
def test_kendall_bounds_hold_for_clusters(r: float, units: int, size: int) -> None:
    found = kendall_misses(r, units, 300, size)
    assert max(found.low, found.high) <= found.allowed


@pytest.mark.coverage_study
@pytest.mark.parametrize("r", [-0.5, 0.0, 0.5, 0.9, 0.99, 0.9999])
@pytest.mark.parametrize(
    ("units", "k", "size"),
    [(100, 30, 1), (300, 50, 1), (1000, 300, 1), (1000, 900, 1), (80, 500, 20), (300, 200, 5)],
)
def test_overlap_bounds_hold(r: float, units: int, k: int, size: int) -> None:
    found = overlap_misses(r, units, k, 400, size)
    assert max(found.low, found.high) <= found.allowed


@pytest.mark.coverage_study
@pytest.mark.parametrize("rare", [0.01, 0.05])
def test_overlap_bounds_hold_for_rare_failures(rare: float) -> None:
    """A candidate that equals the reference but for a few rows, which it puts at the bottom."""
    n, k, q, runs = 1000, 100, 0.1, 400
    rng = np.random.default_rng(int(1000 * rare))
    # The candidate's threshold lies where the reference has q / (1 - rare) above: lost are the
    # failures on top, and what moves up is not on top of the reference.
    target = 1.0 - rare

    def interval() -> tuple[float, float, float]:
        x = rng.standard_normal(n)
        y = np.where(rng.random(n) < rare, x - 100.0, x)
        return top_overlap_interval(x, y, np.arange(n), k=k, alpha=ALPHA)

    found = _counted("top-k overlap", f"{rare:.0%} fail, q {q}", interval, target, n, runs)
    assert max(found.low, found.high) <= found.allowed


# Permutations: exact for every n, so the sum is one of a binomial.


@pytest.mark.coverage_study
@pytest.mark.parametrize("stop_after", [None, 5])
@pytest.mark.parametrize("alternative", ["two-sided", "greater"])
def test_permutation_p_is_small_at_most_as_often_as_it_says(
    stop_after: int | None, alternative: Literal["two-sided", "greater"]
) -> None:
    rng, runs = np.random.default_rng(2), 1500
    p = np.empty(runs)
    for run in range(runs):
        x, y = rng.pareto(1.5, 9), np.round(rng.standard_cauchy(9))
        while y.min() == y.max():
            y = np.round(rng.standard_cauchy(9))
        p[run] = pearson_permutation_test(
            x, y, permutations=99, rng=rng, alternative=alternative, stop_after=stop_after
        ).p_value
    for level in (0.01, 0.05, 0.2, 0.5):
        small = int((p <= level + 1e-12).sum())
        assert binom.sf(small - 1, runs, level) > 1e-3
