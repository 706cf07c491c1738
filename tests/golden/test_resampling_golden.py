"""Numbers of the literature and of SciPy."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from justenough.stats.bootstrap import acceleration, bca_bounds, from_resamples, resample
from justenough.stats.kendall import kendall_influence, kendall_interval
from justenough.stats.moments import moments, unit_totals
from justenough.stats.permutation import (
    Alternative,
    pearson_permutation_test,
    spearman_permutation_test,
)
from justenough.stats.ranks import rank_influence

Array = NDArray[np.float64]

# Efron & Tibshirani 1993, An Introduction to the Bootstrap, table 3.1: LSAT and GPA of 15 law
# schools.
LSAT = [576, 635, 558, 578, 666, 580, 555, 661, 651, 605, 653, 575, 545, 572, 594]
GPA = [3.39, 3.30, 2.81, 3.03, 3.44, 3.07, 3.00, 3.43, 3.36, 3.13, 3.12, 2.74, 2.76, 2.88, 2.96]
LAW: Array = np.column_stack([LSAT, GPA]).astype(np.float64)


def test_law_schools_correlation() -> None:
    """.776: Efron & Tibshirani 1993, section 3.1."""
    assert moments(LAW).correlations([1.0])[0] == pytest.approx(0.776, abs=5e-4)


def test_law_schools_infinitesimal_jackknife() -> None:
    """.124: Efron 1982, The Jackknife, the Bootstrap and Other Resampling Plans, chapter 6."""
    influences = unit_totals(LAW).influences([1.0])
    assert math.sqrt(float((influences**2).sum())) == pytest.approx(0.124, abs=5e-4)


def test_law_schools_bootstrap() -> None:
    """Standard error .132 from 3200 resamples: Efron & Tibshirani 1993, table 6.1."""
    sample = unit_totals(LAW)
    found = from_resamples(sample, [1.0], resample(sample, 20_000, np.random.default_rng(0)))
    # Monte Carlo error of the book's number, and of ours less: about 0.133 / sqrt(2 * 3200).
    assert found.replicates.std() == pytest.approx(0.132, abs=3 * 0.133 / math.sqrt(6400))


# Hollander & Wolfe 1973, Nonparametric Statistical Methods, p. 185: lightness of canned tuna and
# its rating, as in the example of R's cor.test
LIGHTNESS = np.array([44.4, 45.9, 41.9, 53.3, 44.7, 44.1, 50.7, 45.2, 60.1])
RATING = np.array([2.6, 3.1, 2.5, 5.0, 3.6, 4.0, 5.2, 2.8, 3.8])


def test_ranks_of_tuna_are_rs() -> None:
    """R's cor.test: tau 0.4444444, rho 0.6."""
    assert kendall_influence(LIGHTNESS, RATING)[0] == pytest.approx(0.4444444, abs=5e-8)
    assert rank_influence(LIGHTNESS, RATING)[0] == pytest.approx(0.6, abs=1e-12)


def test_permutation_of_tuna_is_rs() -> None:
    """R's cor.test(method="spearman"), exact over all 9! orders: p = 0.0968, two-sided."""
    found = spearman_permutation_test(
        LIGHTNESS, RATING, permutations=200_000, rng=np.random.default_rng(0)
    )
    assert found.p_value == pytest.approx(0.0968, abs=3 * math.sqrt(0.0968 * 0.9032 / 200_000))


def _law_bca(rng: np.random.Generator) -> tuple[float, float]:
    sample = unit_totals(LAW)
    resampled = resample(sample, 40_000, rng)
    found = from_resamples(sample, [1.0], resampled)
    low, high = bca_bounds(
        found.estimates, found.replicates, _jackknife_acceleration(), alpha=0.05
    )
    return float(low[0]), float(high[0])


def _jackknife_acceleration() -> Array:
    rows = [np.delete(LAW, i, axis=0) for i in range(len(LAW))]
    left_out = np.array([moments(some).correlations([1.0])[0] for some in rows])
    return acceleration((left_out.mean() - left_out)[:, None])


def test_law_schools_bca_is_scipys() -> None:
    """scipy.stats.bootstrap(method="BCa") takes its acceleration from the jackknife."""
    theirs = stats.bootstrap(
        (LAW[:, 0], LAW[:, 1]),
        lambda x, y, axis: stats.pearsonr(x, y, axis=axis).statistic,
        paired=True,
        vectorized=True,
        n_resamples=20_000,
        confidence_level=0.9,
        method="BCa",
        rng=np.random.default_rng(1),
    ).confidence_interval
    low, high = _law_bca(np.random.default_rng(0))
    # Standard error of an end: sqrt(a (1 - a) / 20 000) over the density there, below 0.006.
    assert low == pytest.approx(theirs.low, abs=0.02)
    assert high == pytest.approx(theirs.high, abs=0.005)


@pytest.mark.parametrize("kind", ["percentile", "bca"])
def test_intervals_are_scipys(kind: str) -> None:
    """scipy.stats.bootstrap at n = 200: percentile and BCa."""
    rng = np.random.default_rng(4)
    rows = np.exp(rng.standard_normal((200, 2)) @ np.array([[1.0, 0.5], [0.0, 0.8]]))
    theirs = stats.bootstrap(
        (rows[:, 0], rows[:, 1]),
        lambda x, y, axis: stats.pearsonr(x, y, axis=axis).statistic,
        paired=True,
        vectorized=True,
        n_resamples=8000,
        confidence_level=0.9,
        method="percentile" if kind == "percentile" else "BCa",
        rng=rng,
    )
    sample = unit_totals(rows)
    ours = from_resamples(sample, [1.0], resample(sample, 20_000, rng))
    low, high = getattr(ours, kind)(alpha=0.05)
    # Four Monte Carlo standard errors of a 5 % quantile of 8000, for a normal: 0.106 of the sd.
    # The heavy tails need the rest, and let the accelerations of influence and jackknife differ.
    slack = 0.25 * float(theirs.standard_error)
    assert low[0] == pytest.approx(theirs.confidence_interval.low, abs=slack)
    assert high[0] == pytest.approx(theirs.confidence_interval.high, abs=slack)
    assert ours.replicates.std() == pytest.approx(theirs.standard_error, rel=0.05)


@pytest.mark.parametrize("alternative", ["greater", "less"])
def test_permutation_p_is_scipys(alternative: Alternative) -> None:
    """scipy.stats.permutation_test with pairings, on law schools whose GPAs are moved by four."""
    x, y = LAW[:, 0], np.roll(LAW[:, 1], 4)
    theirs = stats.permutation_test(
        (x,),
        lambda given, axis: stats.pearsonr(given, y[None], axis=axis).statistic,
        permutation_type="pairings",
        vectorized=True,
        n_resamples=4000,
        alternative=alternative,
        rng=np.random.default_rng(0),
    )
    ours = pearson_permutation_test(
        x, y, permutations=40_000, rng=np.random.default_rng(1), alternative=alternative
    )
    assert ours.statistic == pytest.approx(theirs.statistic)
    p = float(theirs.pvalue)
    assert ours.p_value == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / 4000))


@pytest.mark.parametrize("levels", [2, 5, 10**6])
@pytest.mark.parametrize("n", [40, 3000])
def test_tau_b_is_scipys(levels: int, n: int) -> None:
    rng = np.random.default_rng(levels)
    x = rng.integers(0, levels, n).astype(np.float64)
    y = x + rng.integers(0, levels, n)
    expected = stats.kendalltau(x, y).statistic
    assert kendall_influence(x, y)[0] == pytest.approx(expected, abs=1e-14)
    assert kendall_interval(x, y, np.arange(n), alpha=0.1)[0] == pytest.approx(expected, abs=1e-14)


def test_kendalls_error_for_normal_scores() -> None:
    """Asymptotic variance 4 (1/9 - (2/pi)^2 asin(r/2)^2) / n: Croux & Dehon 2010."""
    rng, r, n = np.random.default_rng(0), 0.6, 50_000
    x = rng.standard_normal(n)
    y = r * x + math.sqrt(1 - r * r) * rng.standard_normal(n)
    influence = kendall_influence(x, y)[1]
    expected = 4 * (1 / 9 - (2 / math.pi * math.asin(r / 2)) ** 2)
    assert float((influence**2).mean()) == pytest.approx(expected, rel=0.03)
