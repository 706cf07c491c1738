import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from justenough.errors import InputError
from justenough.stats.auc import auc, auc_drop_interval
from justenough.stats.bounded import mean_lower, mean_upper
from justenough.stats.proportion import (
    clopper_pearson_lower,
    clopper_pearson_upper,
    units_needed,
)
from justenough.stats.ranks import best_spearman_lower, spearman_interval, top_weights
from justenough.stats.ratio import log_ratio_interval

ROWS = np.arange(40.0)
UNITS = np.arange(40)
HALF = ROWS >= 20


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, math.nan])
@pytest.mark.parametrize(
    "bound",
    [
        lambda alpha: clopper_pearson_lower(1, 2, alpha=alpha),
        lambda alpha: clopper_pearson_upper(1, 2, alpha=alpha),
        lambda alpha: units_needed(0, at_least=0.5, alpha=alpha),
        lambda alpha: mean_upper(np.zeros(2), alpha=alpha),
        lambda alpha: mean_lower(np.zeros(2), alpha=alpha),
        lambda alpha: spearman_interval(ROWS, ROWS, UNITS, alpha=alpha),
        lambda alpha: best_spearman_lower(40, alpha=alpha),
        lambda alpha: auc_drop_interval(HALF, ROWS, ROWS, UNITS, alpha=alpha),
        lambda alpha: log_ratio_interval(ROWS, ROWS, alpha=alpha),
    ],
)
def test_alpha_is_checked_everywhere(bound: Callable[[float], object], alpha: float) -> None:
    with pytest.raises(InputError, match=r"alpha is .*; it must lie strictly between 0 and 1"):
        bound(alpha)


@pytest.mark.parametrize(("successes", "n"), [(-1, 5), (6, 5)])
@pytest.mark.parametrize("bound", [clopper_pearson_lower, clopper_pearson_upper])
def test_successes_lie_in_0_to_n(bound: Callable[..., float], successes: int, n: int) -> None:
    with pytest.raises(
        InputError, match=rf"successes is {successes}; it must be a whole number, in 0..5"
    ):
        bound(successes, n, alpha=0.05)


def test_a_proportion_needs_a_trial() -> None:
    for call in (clopper_pearson_lower, clopper_pearson_upper):
        with pytest.raises(InputError, match="n is 0; it must be a whole number, 1 or more"):
            call(0, 0, alpha=0.05)


def test_units_needed_says_what_it_cannot_do() -> None:
    with pytest.raises(InputError, match=r"at_least is 1\.0; a sample can only show"):
        units_needed(0, at_least=1.0, alpha=0.05)
    with pytest.raises(InputError, match="failures is -1; it must be a whole number, 0 or more"):
        units_needed(-1, at_least=0.9, alpha=0.05)
    with pytest.raises(InputError, match=r"more than 1e\+15 units needed"):
        units_needed(0, at_least=1 - 1e-16, alpha=0.05)
    assert units_needed(0, at_least=0.01, alpha=0.05) == 1


def test_bounded_values_must_be_bounded() -> None:
    with pytest.raises(InputError, match=r"x runs from 0 to 1.5; scale it to \[0, 1\] first"):
        mean_upper([0.0, 1.5], alpha=0.05)
    with pytest.raises(InputError, match="x is nan in row 1; every value must be finite"):
        mean_lower([0.0, math.nan], alpha=0.05)
    with pytest.raises(InputError, match=r"x has shape \(0,\); it must be \(n,\) with n >= 1"):
        mean_upper([], alpha=0.05)
    with pytest.raises(InputError, match="x holds values that are not numbers"):
        mean_upper(["a"], alpha=0.05)


def test_extreme_means_stay_in_the_unit_interval() -> None:
    assert mean_upper(np.ones(5), alpha=0.05) == 1.0
    assert mean_lower(np.zeros(5), alpha=0.05) == 0.0
    assert 0.0 < mean_lower(np.ones(50), alpha=0.05) < 1.0


def test_a_tiny_alpha_is_no_loss_of_digits() -> None:
    assert clopper_pearson_upper(0, 10, alpha=1e-30) < 1.0
    assert 0.0 < mean_upper(np.zeros(1000), alpha=1e-30) < 0.1


def test_many_distinct_values_are_condensed_on_the_safe_side() -> None:
    """More than 4096 distinct values share nodes; the bound may only grow, and hardly does."""
    few = np.random.default_rng(1).beta(0.2, 20.0, 4000)
    exact = mean_upper(np.repeat(few, 2), alpha=0.05)
    condensed = mean_upper(np.concatenate([few, few + 1e-13]), alpha=0.05)
    assert exact <= condensed <= exact * (1 + 1e-4)


def test_intervals_need_30_units_and_rows_that_match() -> None:
    twice = np.repeat(np.arange(20), 2)
    with pytest.raises(InputError, match="20 independent units; this bound needs at least 30"):
        spearman_interval(ROWS, ROWS, twice, alpha=0.05)
    with pytest.raises(InputError, match="20 independent units"):
        auc_drop_interval(HALF, ROWS, ROWS, twice, alpha=0.05)
    with pytest.raises(InputError, match="20 independent units"):
        log_ratio_interval(ROWS[:20], ROWS[:20], alpha=0.05)
    with pytest.raises(InputError, match="lengths differ: x 40, y 39; every row needs one"):
        spearman_interval(ROWS, ROWS[1:], UNITS, alpha=0.05)
    with pytest.raises(InputError, match=r"units has shape \(39,\); it must be \(40,\)"):
        spearman_interval(ROWS, ROWS, UNITS[1:], alpha=0.05)


def test_a_constant_has_no_ranking() -> None:
    with pytest.raises(InputError, match="y is 1 in every row; a constant has no ranking"):
        spearman_interval(ROWS, np.ones(40), UNITS, alpha=0.05)


def test_equal_ranks_promise_no_more_than_the_units_can_show() -> None:
    estimate, lower, upper = spearman_interval(ROWS, np.exp(ROWS / 9), UNITS, alpha=0.05)
    assert (estimate, upper) == (1.0, 1.0)
    assert lower == pytest.approx(best_spearman_lower(40, alpha=0.05), abs=1e-12)
    estimate, lower, upper = spearman_interval(ROWS, -ROWS, UNITS, alpha=0.05)
    assert (estimate, lower) == (-1.0, -1.0)
    assert upper < 1.0


def test_units_may_have_any_ids() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 80))
    near = spearman_interval(x, y, np.repeat(UNITS, 2), alpha=0.05)
    assert near == spearman_interval(x, y, np.repeat(UNITS * 1000 - 7, 2), alpha=0.05)


def test_one_cluster_counts_once() -> None:
    """Rows repeated within units say nothing new; taken as units they would."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 40))
    once = spearman_interval(x, y, UNITS, alpha=0.05)
    again = spearman_interval(np.repeat(x, 9), np.repeat(y, 9), np.repeat(UNITS, 9), alpha=0.05)
    assert again == pytest.approx(once, abs=1e-9)


def test_top_weights_share_ties() -> None:
    assert top_weights([1, 1, 1, 1], 2).tolist() == [0.5] * 4
    assert top_weights([5, 1, 5, 5], 1).tolist() == pytest.approx([1 / 3, 0, 1 / 3, 1 / 3])
    assert top_weights([2, 1], 2).tolist() == [1.0, 1.0]
    for k in (0, 3):
        with pytest.raises(InputError, match=rf"k is {k}; with 2 rows it must lie in 1..2"):
            top_weights([2, 1], k)


def test_an_auc_needs_two_classes_of_labels() -> None:
    with pytest.raises(InputError, match="all 40 rows have one label; an AUC needs both classes"):
        auc(np.ones(40, bool), ROWS)
    with pytest.raises(InputError, match="all 40 rows have one label"):
        auc_drop_interval(np.zeros(40, bool), ROWS, ROWS, UNITS, alpha=0.05)
    with pytest.raises(InputError, match="labels holds values other than 0 and 1"):
        auc(ROWS, ROWS)
    with pytest.raises(InputError, match=r"labels has shape \(2, 20\); it must be \(n,\)"):
        auc(HALF.reshape(2, 20), ROWS)


def test_few_positives_show_little_even_unchanged() -> None:
    labels = np.arange(1000) < 5
    scores = np.where(labels, 2.0, 0.0) + np.linspace(0, 1, 1000)
    drop, lower, upper = auc_drop_interval(labels, scores, scores, np.arange(1000), alpha=0.05)
    assert drop == 0.0
    assert upper > 0.5
    assert lower == pytest.approx(-upper)


def test_zeros_in_a_ratio() -> None:
    zeros, ones = np.zeros(40), np.ones(40)
    assert log_ratio_interval(zeros, ones, alpha=0.05) == (-math.inf,) * 3
    assert log_ratio_interval(ones, zeros, alpha=0.05) == (math.inf,) * 3
    with pytest.raises(InputError, match="numerator and denominator are 0 in every unit"):
        log_ratio_interval(zeros, zeros, alpha=0.05)
    with pytest.raises(InputError, match="denominator is -1 in one unit; it must be 0 or more"):
        log_ratio_interval(ones, -ones, alpha=0.05)


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1.0, 1e300])
def test_a_ratio_bears_any_scale(scale: float) -> None:
    rng = np.random.default_rng(0)
    x: NDArray[np.float64] = rng.random(50)
    got = log_ratio_interval(x * scale, x[::-1].copy(), alpha=0.05)
    plain = log_ratio_interval(x, x[::-1].copy(), alpha=0.05)
    assert got == pytest.approx(tuple(p + math.log(scale) for p in plain), abs=1e-9)


def test_one_unit_with_all_the_noise_widens_the_bound() -> None:
    noise = np.full(100, 1e-4)
    even = log_ratio_interval(np.ones(100), noise, alpha=0.05)
    noise[3] = 1.0
    spiked = log_ratio_interval(np.ones(100), noise, alpha=0.05)
    assert spiked[0] - spiked[1] > 10 * (even[0] - even[1])
