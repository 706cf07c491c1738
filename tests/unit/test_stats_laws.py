"""Laws of the bounds that hold for every sample."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from justenough.stats.auc import auc, auc_drop_interval
from justenough.stats.bounded import mean_lower, mean_upper
from justenough.stats.proportion import (
    clopper_pearson_lower,
    clopper_pearson_upper,
    units_needed,
)
from justenough.stats.ranks import spearman_interval, top_weights
from justenough.stats.ratio import log_ratio_interval

ALPHAS = st.floats(1e-4, 0.49)
UNIT_INTERVAL = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=40)


def _scores(seed: int, n: int, levels: int) -> NDArray[np.float64]:
    return np.random.default_rng(seed).integers(0, levels, n).astype(np.float64)


@given(st.integers(1, 5000), st.data(), ALPHAS)
def test_clopper_pearson_encloses_and_mirrors(n: int, data: st.DataObject, alpha: float) -> None:
    k = data.draw(st.integers(0, n))
    lower = clopper_pearson_lower(k, n, alpha=alpha)
    upper = clopper_pearson_upper(k, n, alpha=alpha)
    assert 0.0 <= lower <= k / n <= upper <= 1.0
    assert upper == pytest.approx(1.0 - clopper_pearson_lower(n - k, n, alpha=alpha), abs=1e-12)


@given(st.integers(0, 30), st.floats(0.01, 0.9999), ALPHAS)
def test_units_needed_is_the_smallest(failures: int, at_least: float, alpha: float) -> None:
    n = units_needed(failures, at_least=at_least, alpha=alpha)
    assert clopper_pearson_lower(n - failures, n, alpha=alpha) >= at_least
    if n > failures + 1:
        assert clopper_pearson_lower(n - 1 - failures, n - 1, alpha=alpha) < at_least


@settings(deadline=None, max_examples=60)
@given(UNIT_INTERVAL, ALPHAS)
def test_betting_bounds_enclose_and_forget_order(values: list[float], alpha: float) -> None:
    x = np.array(values)
    upper, lower = mean_upper(x, alpha=alpha), mean_lower(x, alpha=alpha)
    assert 0.0 <= lower <= x.mean() + 1e-12
    assert x.mean() - 1e-12 <= upper <= 1.0
    assert mean_upper(x[::-1].copy(), alpha=alpha) == pytest.approx(upper, abs=1e-12)
    assert mean_upper(np.minimum(1.0, x + 0.1), alpha=alpha) >= upper - 1e-12
    assert mean_upper(x, alpha=alpha / 2) >= upper - 1e-12


@settings(deadline=None)
@given(st.integers(0, 999), st.sampled_from([2, 5, 10**6]), ALPHAS)
def test_spearman_sees_only_ranks(seed: int, levels: int, alpha: float) -> None:
    x, y = _scores(seed, 60, levels), _scores(seed + 1000, 60, levels)
    units = np.arange(60) // 2
    estimate, lower, upper = spearman_interval(x, y, units, alpha=alpha)
    assert -1.0 <= lower <= estimate <= upper <= 1.0
    assert spearman_interval(x**3, 2 * y + 1, units, alpha=alpha) == (estimate, lower, upper)
    swapped = spearman_interval(y, x, units, alpha=alpha)
    assert swapped == pytest.approx((estimate, lower, upper), abs=1e-9)
    turned = spearman_interval(x, -y, units, alpha=alpha)
    assert turned == pytest.approx((-estimate, -upper, -lower), abs=1e-9)


@given(st.integers(0, 999), st.integers(1, 30), st.integers(1, 9))
def test_top_weights_are_a_share_of_k(seed: int, k: int, levels: int) -> None:
    scores = _scores(seed, 30, levels)
    weights = top_weights(scores, k)
    assert weights.sum() == pytest.approx(k)
    assert ((weights >= 0) & (weights <= 1)).all()
    order = np.argsort(scores)
    assert (np.diff(weights[order]) >= 0).all()


@settings(deadline=None)
@given(st.integers(0, 999), st.sampled_from([3, 10**6]), ALPHAS)
def test_auc_drop_is_a_difference_of_aucs(seed: int, levels: int, alpha: float) -> None:
    labels, units = np.arange(60) % 3 == 0, np.arange(60) // 2
    x, y = _scores(seed, 60, levels), _scores(seed + 1000, 60, levels)
    drop, lower, upper = auc_drop_interval(labels, x, y, units, alpha=alpha)
    assert drop == pytest.approx(auc(labels, x) - auc(labels, y), abs=1e-12)
    assert -1.0 <= lower <= drop <= upper <= 1.0
    back = auc_drop_interval(labels, y, x, units, alpha=alpha)
    assert back == pytest.approx((-drop, -upper, -lower), abs=1e-9)
    assert auc(~labels, -x) == pytest.approx(auc(labels, x), abs=1e-12)


@given(st.integers(0, 999), st.floats(1e-6, 1e6), ALPHAS)
def test_a_log_ratio_turns_over_and_scales(seed: int, factor: float, alpha: float) -> None:
    top, bottom = np.random.default_rng(seed).lognormal(0.0, 1.0, (2, 40))
    estimate, lower, upper = log_ratio_interval(top, bottom, alpha=alpha)
    assert lower <= estimate <= upper
    over = log_ratio_interval(bottom, top, alpha=alpha)
    assert over == pytest.approx((-estimate, -upper, -lower), abs=1e-9)
    scaled = log_ratio_interval(factor * top, bottom, alpha=alpha)
    moved = tuple(b + np.log(factor) for b in (estimate, lower, upper))
    assert scaled == pytest.approx(moved, abs=1e-8)
