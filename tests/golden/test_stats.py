"""Numbers computed elsewhere."""

import numpy as np
import pytest
from scipy.stats import beta, binomtest, spearmanr

from justenough.stats.auc import auc, auc_drop_interval, drop_influence
from justenough.stats.bounded import mean_upper
from justenough.stats.influence import unit_spread
from justenough.stats.proportion import (
    clopper_pearson_lower,
    clopper_pearson_upper,
    units_needed,
)
from justenough.stats.ranks import rank_influence, spearman_interval

metrics = pytest.importorskip("sklearn.metrics")


@pytest.mark.parametrize(("k", "n"), [(0, 10), (3, 10), (10, 10), (2990, 3000), (1, 100000)])
@pytest.mark.parametrize("alpha", [0.05, 0.001])
def test_clopper_pearson_is_scipys(k: int, n: int, alpha: float) -> None:
    """scipy.stats.binomtest solves for the tail sums; the beta quantile must agree."""
    low = binomtest(k, n, alternative="greater").proportion_ci(1 - alpha, "exact").low
    high = binomtest(k, n, alternative="less").proportion_ci(1 - alpha, "exact").high
    assert clopper_pearson_lower(k, n, alpha=alpha) == pytest.approx(low, rel=1e-8)
    assert clopper_pearson_upper(k, n, alpha=alpha) == pytest.approx(high, rel=1e-8)


def test_clopper_pearson_is_rs() -> None:
    """The example of R's binom.test: Mendel's 682 of 925 plants, two ends of 2.5 %."""
    assert clopper_pearson_lower(682, 925, alpha=0.025) == pytest.approx(0.7076683, abs=5e-8)
    assert clopper_pearson_upper(682, 925, alpha=0.025) == pytest.approx(0.7654066, abs=5e-8)


def test_clopper_pearson_keeps_its_digits_near_0() -> None:
    """For no success the upper bound is 1 - alpha**(1/n), here by series."""
    assert clopper_pearson_upper(0, 10**15, alpha=0.05) == pytest.approx(
        2.995732273553991e-15, rel=1e-9
    )


NEEDED = {
    0.95: [59, 93, 124, 153, 208, 336, 577],
    0.98: [149, 236, 313, 386, 523, 845, 1449],
    0.99: [299, 473, 628, 773, 1049, 1693, 2902],
    0.995: [598, 947, 1258, 1549, 2100, 3389, 5808],
    0.999: [2995, 4742, 6294, 7752, 10511, 16959, 29058],
    0.9999: [29956, 47437, 62956, 77535, 105128, 169619, 290616],
}


@pytest.mark.parametrize("at_least", NEEDED)
def test_units_needed_for_0_to_20_failures(at_least: float) -> None:
    """Found with scipy.stats.binomtest and statsmodels.proportion_confint(method="beta")."""
    failures = (0, 1, 2, 3, 5, 10, 20)
    assert [units_needed(k, at_least=at_least, alpha=0.05) for k in failures] == NEEDED[at_least]


def test_one_certain_bet_is_clopper_pearson() -> None:
    """With no loss at all the bound may not beat 1 - alpha**(1/n), and stays within half more."""
    for n in (10, 300, 3000):
        best = float(beta.ppf(0.95, 1, n))
        assert best <= mean_upper(np.zeros(n), alpha=0.05) <= 1.55 * best


@pytest.mark.parametrize("levels", [3, 10, 10**9])
def test_spearman_estimate_is_scipys(levels: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, levels, 200)
    y = x + rng.integers(0, levels, 200)
    estimate = spearman_interval(x, y, np.arange(200), alpha=0.05)[0]
    assert estimate == pytest.approx(spearmanr(x, y).statistic, abs=1e-12)


@pytest.mark.parametrize("levels", [4, 10**9])
def test_auc_is_sklearns(levels: int) -> None:
    rng = np.random.default_rng(1)
    labels, scores = rng.random(300) < 0.2, rng.integers(0, levels, 300)
    scores = scores + levels // 4 * labels
    assert auc(labels, scores) == pytest.approx(metrics.roc_auc_score(labels, scores), abs=1e-12)


def test_auc_variance_is_delongs() -> None:
    """Equations 3-6 of DeLong 1988 written out pair by pair, with their m - 1 and n - 1."""
    rng = np.random.default_rng(2)
    m, n = 400, 700
    labels = np.arange(m + n) < m
    scores = [rng.integers(0, 50, m + n) + 12.0 * labels for _ in range(2)]
    v10, v01 = [], []
    for s in scores:
        pair = (s[:m, None] > s[None, m:]) + 0.5 * (s[:m, None] == s[None, m:])
        v10.append(pair.mean(1))
        v01.append(pair.mean(0))
    variance = np.var(v10[0] - v10[1], ddof=1) / m + np.var(v01[0] - v01[1], ddof=1) / n
    drop, influence, _ = drop_influence(labels, scores[0], scores[1])
    assert drop == pytest.approx(v10[0].mean() - v10[1].mean(), abs=1e-12)
    spread = unit_spread(influence, np.arange(m + n), m + n, 0.05)
    assert spread.variance == pytest.approx(variance, rel=3e-3)  # g / (g - 1) for each class
    interval = auc_drop_interval(labels, scores[0], scores[1], np.arange(m + n), alpha=0.05)
    assert interval[0] == drop


def test_spearman_variance_is_the_jackknifes() -> None:
    """Delete one unit at a time: Efron & Stein 1981; scipy computes each correlation."""
    rng = np.random.default_rng(3)
    for levels in (5, 10**9):
        x = rng.integers(0, levels, 600).astype(np.float64)
        y = x + rng.integers(0, levels, 600)
        units = np.repeat(np.arange(200), 3)
        _, influence = rank_influence(x, y)
        left = [spearmanr(x[units != u], y[units != u]).statistic for u in range(200)]
        jackknife = 199**2 / 200 * np.var(left, ddof=1)
        spread = unit_spread(influence, units, 200, 0.05)
        assert spread.variance == pytest.approx(jackknife, rel=0.03)
