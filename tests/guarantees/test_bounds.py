"""The promise of every bound: wrong at most alpha of the time.

Exact sums where a sum exists. Elsewhere seeded simulation; a true rate of alpha = 0.05 shows more
than `_allowed(runs)` with probability about 1e-3.
"""

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom, norm

from justenough.stats.auc import auc_drop_interval
from justenough.stats.bounded import mean_lower, mean_upper
from justenough.stats.influence import Spread
from justenough.stats.proportion import clopper_pearson_lower, clopper_pearson_upper
from justenough.stats.ranks import spearman_interval
from justenough.stats.ratio import log_ratio_interval

ALPHA = 0.05
Vector = NDArray[np.float64]
Interval = tuple[float, float, float]


def _allowed(runs: int) -> float:
    """Alpha and 3.1 Monte Carlo standard errors."""
    return ALPHA + 3.1 * math.sqrt(ALPHA * (1 - ALPHA) / runs)


def _wrong(draw: Callable[[], Interval], truth: float, runs: int) -> tuple[float, float]:
    found = np.array([draw()[1:] for _ in range(runs)])
    return float((found[:, 0] > truth).mean()), float((found[:, 1] < truth).mean())


# Exact sums


@pytest.mark.parametrize("n", [1, 20, 200, 2000])
@pytest.mark.parametrize("alpha", [0.05, 0.01])
@pytest.mark.parametrize("truth", [0.01, 0.5, 0.95, 0.995, 0.9999])
def test_clopper_pearson_is_wrong_at_most_alpha_of_the_time(
    n: int, alpha: float, truth: float
) -> None:
    k = np.flatnonzero(binom.pmf(np.arange(n + 1), n, truth) > 1e-14)
    mass = binom.pmf(k, n, truth)
    low = np.array([clopper_pearson_lower(int(i), n, alpha=alpha) for i in k])
    high = np.array([clopper_pearson_upper(int(i), n, alpha=alpha) for i in k])
    assert mass[low > truth].sum() <= alpha + 1e-12
    assert mass[high < truth].sum() <= alpha + 1e-12


@pytest.mark.parametrize("n", [1, 5, 50, 300])
@pytest.mark.parametrize("alpha", [0.2, 0.05, 0.01])
@pytest.mark.parametrize("truth", [0.001, 0.01, 0.1, 0.5, 0.9, 0.99])
def test_betting_on_coins_is_wrong_at_most_alpha_of_the_time(
    n: int, alpha: float, truth: float
) -> None:
    k = np.arange(n + 1)
    mass = binom.pmf(k, n, truth)
    # The bound grows with k, so the wrong ones are those below the first right one.
    first, last = 0, n + 1
    while first < last:
        middle = (first + last) // 2
        x = np.repeat([1.0, 0.0], [middle, n - middle]) if middle <= n else np.ones(n)
        wrong = middle <= n and mean_upper(x, alpha=alpha) < truth
        first, last = (middle + 1, last) if wrong else (first, middle)
    assert mass[:first].sum() <= alpha + 1e-12


@pytest.mark.parametrize("alpha", [0.2, 0.1, 0.05, 0.01, 0.001])
@pytest.mark.parametrize("g", [30, 1000])
def test_imaginary_units_cover_rare_failures(alpha: float, g: int) -> None:
    """Failures of full size, Poisson many: the normal bound alone is wrong up to 100 % here."""
    quantile = float(norm.isf(alpha))
    k = np.arange(g + 1)
    rate = k / g
    high = [p + Spread(p * (1 - p) / (g - 1), quantile).reach((1 - p) / g) for p in rate.tolist()]
    for truth in np.geomspace(0.1 / g, 0.5, 60):
        wrong = binom.pmf(k, g, truth)[np.array(high) < truth].sum()
        # The largest on a grid of 2000 truths is 1.001 alpha, at alpha = 0.2.
        assert wrong <= 1.01 * alpha


# Means of bounded losses


def _two_point(rng: np.random.Generator, n: int) -> tuple[Vector, float]:
    return 0.5 + 0.5 * rng.choice([-1.0, 0.0, 1.0], n, p=[0.01, 0.97, 0.02]), 0.505


def _small(rng: np.random.Generator, n: int) -> tuple[Vector, float]:
    return rng.beta(0.05, 10.0, n), 0.05 / 10.05


def _cluster_means(rng: np.random.Generator, n: int) -> tuple[Vector, float]:
    return rng.binomial(10, rng.beta(0.1, 0.9, n)) / 10.0, 0.1


def _mixed(rng: np.random.Generator, n: int) -> tuple[Vector, float]:
    """Means differ from row to row."""
    means = np.linspace(0.0, 0.02, n)
    return (rng.random(n) < means).astype(np.float64), float(means.mean())


@pytest.mark.coverage_study
@pytest.mark.parametrize("draw", [_two_point, _small, _cluster_means, _mixed])
@pytest.mark.parametrize("n", [30, 400])
def test_betting_bounds_hold(
    draw: Callable[[np.random.Generator, int], tuple[Vector, float]], n: int
) -> None:
    rng, runs = np.random.default_rng(7), 120
    low = high = 0
    for _ in range(runs):
        x, truth = draw(rng, n)
        low += mean_lower(x, alpha=ALPHA) > truth
        high += mean_upper(x, alpha=ALPHA) < truth
    # Markov's inequality leaves room: no allowance for simulation is needed.
    assert low / runs <= ALPHA
    assert high / runs <= ALPHA


# Spearman's correlation


@pytest.mark.coverage_study
@pytest.mark.parametrize("r", [-0.9999, 0.0, 0.9, 0.99, 0.9999])
@pytest.mark.parametrize("n", [30, 100, 1000])
def test_spearman_bounds_hold_for_normal_scores(r: float, n: int) -> None:
    rng = np.random.default_rng(n)

    def draw() -> Interval:
        x = rng.standard_normal(n)
        y = r * x + math.sqrt(1 - r * r) * rng.standard_normal(n)
        return spearman_interval(x, y, np.arange(n), alpha=ALPHA)

    truth = 6 / math.pi * math.asin(r / 2)
    assert max(_wrong(draw, truth, 400)) <= _allowed(400)


@pytest.mark.coverage_study
@pytest.mark.parametrize("icc", [0.1, 0.8])
@pytest.mark.parametrize(("r", "g", "size"), [(0.0, 40, 20), (0.99, 40, 20), (0.9999, 300, 5)])
def test_spearman_bounds_hold_for_clusters(icc: float, r: float, g: int, size: int) -> None:
    rng, units = np.random.default_rng(3), np.repeat(np.arange(g), size)

    def noise() -> Vector:
        own = rng.standard_normal(g * size)
        shared: Vector = rng.standard_normal(g)[units]
        return math.sqrt(icc) * shared + math.sqrt(1 - icc) * own

    def draw() -> Interval:
        x = noise()
        return spearman_interval(x, r * x + math.sqrt(1 - r * r) * noise(), units, alpha=ALPHA)

    truth = 6 / math.pi * math.asin(r / 2)
    assert max(_wrong(draw, truth, 250)) <= _allowed(250)


@pytest.mark.coverage_study
@pytest.mark.parametrize("n", [60, 1000])
@pytest.mark.parametrize("failures", [1.0, 2.9, 3.7, 6.0, 10.0])
def test_spearman_bounds_hold_where_top_scores_overflow(n: int, failures: float) -> None:
    """All ranks agree but for a top share, which falls to the bottom and is often not seen."""
    rng, p = np.random.default_rng(4), failures / n

    def draw() -> Interval:
        x = rng.random(n)
        return spearman_interval(x, np.where(x > 1 - p, x - 2, x), np.arange(n), alpha=ALPHA)

    assert max(_wrong(draw, 1 - 6 * p * (1 - p), 400)) <= _allowed(400)


@pytest.mark.coverage_study
def test_spearman_bounds_hold_for_ties() -> None:
    rng = np.random.default_rng(5)

    def scores(n: int) -> tuple[Vector, Vector]:
        x = rng.integers(0, 4, n).astype(np.float64)
        return x, np.where(rng.random(n) < 0.9, x, 3.0 - x)

    # Four equal classes, reversed in a tenth of the rows: 0.9 - 0.1.
    def draw() -> Interval:
        return spearman_interval(*scores(200), np.arange(200), alpha=ALPHA)

    assert max(_wrong(draw, 0.8, 500)) <= _allowed(500)


# Loss of AUC


@pytest.mark.coverage_study
@pytest.mark.parametrize(
    ("n", "share", "noise"), [(60, 0.5, 0.5), (200, 0.03, 0.3), (300, 0.5, 2.0)]
)
def test_auc_drop_bounds_hold_for_noisy_scores(n: int, share: float, noise: float) -> None:
    rng, labels = np.random.default_rng(n), np.arange(n) < share * n

    def draw() -> Interval:
        x = rng.standard_normal(n) + 1.5 * labels
        y = x + noise * rng.standard_normal(n)
        return auc_drop_interval(labels, x, y, np.arange(n), alpha=ALPHA)

    truth = norm.cdf(1.5 / math.sqrt(2)) - norm.cdf(1.5 / math.sqrt(2 + 2 * noise**2))
    assert max(_wrong(draw, truth, 300)) <= _allowed(300)


@pytest.mark.coverage_study
@pytest.mark.parametrize(("n", "positives"), [(300, 20), (1000, 500)])
@pytest.mark.parametrize("failures", [1.0, 2.9, 3.7, 6.0])
def test_auc_drop_bounds_hold_where_positives_are_lost(
    n: int, positives: int, failures: float
) -> None:
    """Few positives, of which a share falls to the bottom; the others keep their scores."""
    rng, labels = np.random.default_rng(6), np.arange(n) < positives

    def draw() -> Interval:
        x = rng.standard_normal(n) + 4.0 * labels
        y = np.where(labels & (rng.random(n) < failures / positives), -50.0, x)
        return auc_drop_interval(labels, x, y, np.arange(n), alpha=ALPHA)

    truth = failures / positives * float(norm.cdf(4 / math.sqrt(2)))
    assert max(_wrong(draw, truth, 300)) <= _allowed(300)


@pytest.mark.coverage_study
@pytest.mark.parametrize("icc", [0.2, 0.8])
def test_auc_drop_bounds_hold_for_clusters(icc: float) -> None:
    rng, units = np.random.default_rng(8), np.repeat(np.arange(40), 20)

    def noise() -> Vector:
        shared: Vector = rng.standard_normal(40)[units]
        return math.sqrt(icc) * shared + math.sqrt(1 - icc) * rng.standard_normal(800)

    def draw() -> Interval:
        labels, x = noise() > 0.5, noise()
        x = x + 1.5 * labels
        return auc_drop_interval(labels, x, x + noise(), units, alpha=ALPHA)

    truth = float(norm.cdf(1.5 / math.sqrt(2)) - norm.cdf(1.5 / 2))
    assert max(_wrong(draw, truth, 250)) <= _allowed(250)


# Signal over noise


def _lognormal(sigma: float) -> tuple[Callable[[np.random.Generator, int], Vector], float]:
    return lambda rng, g: np.exp(sigma * rng.standard_normal(g)), math.exp(sigma**2 / 2)


TAILS: dict[str, tuple[Callable[[np.random.Generator, int], Vector], float, list[int]]] = {
    "lognormal 1": (*_lognormal(1.0), [30, 300]),
    "lognormal 2": (*_lognormal(2.0), [30, 100, 300, 1000]),
    "lognormal 2.5": (*_lognormal(2.5), [300, 1000]),
    "pareto 2": (lambda rng, g: rng.pareto(2.0, g) + 1.0, 2.0, [30, 300, 1000]),
    "chi square": (lambda rng, g: rng.chisquare(1.0, g), 1.0, [30, 300]),
}


@pytest.mark.coverage_study
@pytest.mark.parametrize(
    ("tail", "g"), [(tail, g) for tail, (_, _, sizes) in TAILS.items() for g in sizes]
)
def test_log_ratio_bounds_hold_for_heavy_tails(tail: str, g: int) -> None:
    noise, mean, _ = TAILS[tail]
    rng = np.random.default_rng(g)

    def draw() -> Interval:
        return log_ratio_interval(rng.chisquare(8.0, g) / 8.0, noise(rng, g), alpha=ALPHA)

    lower, upper = _wrong(draw, -math.log(mean), 600)
    assert max(lower, upper) <= _allowed(600)
