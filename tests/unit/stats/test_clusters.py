import numpy as np
import pytest
from numpy.typing import NDArray

from justenough.stats.bounded import mean_lower, mean_upper
from justenough.stats.clusters import (
    row_mean_lower,
    row_mean_upper,
    unit_failure_lower,
    unit_failure_upper,
    unit_mean_lower,
    unit_mean_upper,
    unit_sums,
)
from justenough.stats.concentration import (
    bernstein_lower,
    bernstein_upper,
    hoeffding_bentkus_lower,
    hoeffding_bentkus_upper,
)
from justenough.stats.proportion import clopper_pearson_lower, clopper_pearson_upper

RNG = np.random.default_rng(0)
LOSSES: NDArray[np.float64] = (RNG.random(300) < 0.1) * RNG.random(300)
UNITS = RNG.integers(0, 80, 300)


def test_sums_are_those_of_a_loop() -> None:
    found = unit_sums(LOSSES, UNITS)
    ids = np.unique(UNITS)
    assert found.sums == pytest.approx([LOSSES[u == UNITS].sum() for u in ids])
    assert found.sizes.tolist() == [(u == UNITS).sum() for u in ids]
    assert found.failed.tolist() == [bool((LOSSES[u == UNITS] > 0).any()) for u in ids]


def test_each_bound_is_that_of_the_unit_values() -> None:
    means = np.array([LOSSES[u == UNITS].mean() for u in np.unique(UNITS)])
    failed = int(sum((LOSSES[u == UNITS] > 0).any() for u in np.unique(UNITS)))
    for name, upper, lower in (
        ("betting", mean_upper, mean_lower),
        ("bernstein", bernstein_upper, bernstein_lower),
        ("hoeffding_bentkus", hoeffding_bentkus_upper, hoeffding_bentkus_lower),
    ):
        found = unit_mean_upper(LOSSES, UNITS, alpha=0.1, bound=name)  # type: ignore[arg-type]
        assert found == pytest.approx(upper(means, alpha=0.1), abs=1e-12)
        found = unit_mean_lower(LOSSES, UNITS, alpha=0.1, bound=name)  # type: ignore[arg-type]
        assert found == pytest.approx(lower(means, alpha=0.1), abs=1e-12)
    g = len(means)
    assert unit_failure_upper(LOSSES, UNITS, alpha=0.1) == clopper_pearson_upper(
        failed, g, alpha=0.1
    )
    assert unit_failure_lower(LOSSES, UNITS, alpha=0.1) == clopper_pearson_lower(
        failed, g, alpha=0.1
    )


def test_units_of_one_row_are_rows() -> None:
    ids = np.array([f"row {i}" for i in range(300)])
    plain_up, plain_low = mean_upper(LOSSES, alpha=0.05), mean_lower(LOSSES, alpha=0.05)
    assert unit_mean_upper(LOSSES, ids, alpha=0.05) == plain_up
    assert row_mean_upper(LOSSES, ids, largest=1, alpha=0.05) == pytest.approx(plain_up, abs=1e-9)
    assert row_mean_lower(LOSSES, ids, largest=1, alpha=0.05) == pytest.approx(plain_low, abs=1e-9)


def test_units_of_one_size_have_one_mean() -> None:
    units = np.repeat(np.arange(60), 5)
    assert row_mean_upper(LOSSES, units, largest=5, alpha=0.05) == pytest.approx(
        unit_mean_upper(LOSSES, units, alpha=0.05), abs=1e-9
    )


def test_the_three_means_differ_where_large_units_fail() -> None:
    """One large unit of ten fails whole: 1 of 10 units, but 91 of 100 rows."""
    units = np.concatenate([np.zeros(91), np.arange(1, 10)])
    losses = (units == 0).astype(np.float64)
    assert unit_mean_upper(losses, units, alpha=0.05) < 0.6
    assert unit_failure_upper(losses, units, alpha=0.05) < 0.4
    assert row_mean_upper(losses, units, largest=100, alpha=0.05) > 0.91
    assert row_mean_lower(losses, units, largest=100, alpha=0.05) < 0.1


def test_a_single_unit_shows_next_to_nothing() -> None:
    losses, units = np.zeros(1000), np.zeros(1000)
    assert unit_mean_upper(losses, units, alpha=0.05) >= 0.95
    assert unit_failure_upper(losses, units, alpha=0.05) == pytest.approx(0.95)
    assert row_mean_upper(losses, units, largest=1000, alpha=0.05) >= 0.95


def test_a_larger_largest_costs() -> None:
    units = np.repeat(np.arange(60), 5)
    found = [row_mean_upper(LOSSES, units, largest=b, alpha=0.05) for b in (5, 10, 40)]
    assert found == sorted(found)
    assert found[0] < found[-1]


def test_order_and_names_of_units_do_not_matter() -> None:
    order = np.random.default_rng(1).permutation(300)
    names = np.array([f"u{u:03d}" for u in UNITS])
    assert row_mean_upper(LOSSES[order], names[order], largest=20, alpha=0.05) == pytest.approx(
        row_mean_upper(LOSSES, UNITS, largest=20, alpha=0.05), abs=1e-9
    )
