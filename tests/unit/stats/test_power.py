"""Exact powers against the tests themselves, one sample after the other or added up."""

from typing import get_args

import numpy as np
import pytest
from scipy.stats import binom, multinomial

from justenough.stats.bounded import mean_upper
from justenough.stats.concentration import bernstein_upper, hoeffding_bentkus_upper
from justenough.stats.delong import delong_test
from justenough.stats.eprocess import FailureProcess
from justenough.stats.paired import EquivalenceMethod, mcnemar, tost_means, tost_proportions
from justenough.stats.power import (
    ProportionBound,
    eprocess_course,
    most_failures,
    proportion_power,
    simulated_power,
    smallest_n,
    units_for_power,
)
from justenough.stats.power_paired import (
    Binormal,
    auc_drop_power,
    delong_power,
    mcnemar_power,
    tost_means_power,
    tost_proportions_power,
)
from justenough.stats.proportion import clopper_pearson_upper, units_needed


def _bound(bound: str, k: int, n: int) -> float:
    x = np.repeat([1.0, 0.0], [k, n - k])
    if bound == "clopper_pearson":
        return clopper_pearson_upper(k, n, alpha=0.05)
    of = {"betting": mean_upper, "bernstein": bernstein_upper}.get(bound, hoeffding_bentkus_upper)
    return of(x, alpha=0.05)


@pytest.mark.parametrize("bound", get_args(ProportionBound))
@pytest.mark.parametrize("n", [2, 40, 300, 2000])
@pytest.mark.parametrize("at_most", [0.02, 0.3, 0.9])
def test_most_failures_are_those_of_the_bound(
    bound: ProportionBound, n: int, at_most: float
) -> None:
    most = most_failures(bound, n, at_most=at_most, alpha=0.05)
    assert most == -1 or _bound(bound, most, n) <= at_most + 1e-12
    assert most == n or _bound(bound, most + 1, n) > at_most - 1e-12


def test_power_is_the_binomial_sum() -> None:
    k = np.arange(201)
    shown = np.array([_bound("clopper_pearson", int(i), 200) <= 0.05 for i in k])
    wanted = float(binom.pmf(k, 200, 0.02)[shown].sum())
    found = proportion_power("clopper_pearson", 200, 0.02, at_most=0.05, alpha=0.05)
    assert found == pytest.approx(wanted, rel=1e-12)
    assert proportion_power("clopper_pearson", 20, 0.0, at_most=0.05, alpha=0.05) == 0.0


@pytest.mark.parametrize("bound", get_args(ProportionBound))
def test_units_for_power_give_it(bound: ProportionBound) -> None:
    for q, wanted in ((0.0, 0.8), (0.01, 0.8), (0.02, 0.95)):
        n = units_for_power(bound, wanted, q, at_most=0.05, alpha=0.05)
        assert proportion_power(bound, n, q, at_most=0.05, alpha=0.05) >= wanted
        assert proportion_power(bound, n - 1, q, at_most=0.05, alpha=0.05) < wanted


def test_units_for_power_are_the_fewest() -> None:
    n = units_for_power("clopper_pearson", 0.8, 0.01, at_most=0.05, alpha=0.05)
    for fewer in range(1, n):
        assert proportion_power("clopper_pearson", fewer, 0.01, at_most=0.05, alpha=0.05) < 0.8
    for at_most in (0.05, 0.005, 0.001):
        assert units_for_power(
            "clopper_pearson", 0.9, 0.0, at_most=at_most, alpha=0.05
        ) == units_needed(0, at_least=1 - at_most, alpha=0.05)


@pytest.mark.slow
def test_course_is_that_of_the_process() -> None:
    """The same looks, 400 processes one by one; four standard errors."""
    rng, runs = np.random.default_rng(0), 200
    course = eprocess_course(0.03, p0=0.05, alpha=0.1, every=50, most=600)
    held = broken = units = 0
    for _ in range(runs):
        process = FailureProcess(p0=0.05, alpha=0.1)
        while process.decision == "undecided" and process.n < 600:
            process = process.extended(50, int(rng.binomial(50, 0.03)))
        held, broken = held + (process.decision == "held"), broken + (process.decision == "broken")
        units += process.n
    for found, wanted in ((held / runs, course.held), (broken / runs, course.broken)):
        assert abs(found - wanted) <= 4 * np.sqrt(max(wanted * (1 - wanted), 1e-3) / runs)
    assert units / runs == pytest.approx(course.mean_units, rel=0.06)


def test_course_with_one_look_is_a_binomial_sum() -> None:
    course = eprocess_course(0.02, p0=0.05, alpha=0.05, every=100, most=100)
    decisions = [FailureProcess(p0=0.05, alpha=0.05).extended(100, k).decision for k in range(101)]
    mass = binom.pmf(np.arange(101), 100, 0.02)
    assert course.held == pytest.approx(mass[np.array(decisions) == "held"].sum(), abs=1e-12)
    assert course.broken == pytest.approx(mass[np.array(decisions) == "broken"].sum(), abs=1e-12)
    assert course.mean_units == pytest.approx(100)


def test_futility_saves_units_and_costs_nothing() -> None:
    plain = eprocess_course(0.01, p0=0.01, alpha=0.05, every=20, most=1000)
    stopped = eprocess_course(0.01, p0=0.01, alpha=0.05, every=20, most=1000, futility=True)
    assert stopped.held == pytest.approx(plain.held, abs=1e-12)
    assert stopped.mean_units < 0.8 * plain.mean_units


def _brute(n: int, lost: float, gained: float) -> list[tuple[int, int, float]]:
    return [
        (a, b, float(multinomial.pmf([a, b, n - a - b], n, [lost, gained, 1 - lost - gained])))
        for a in range(n + 1)
        for b in range(n + 1 - a)
    ]


@pytest.mark.parametrize(("lost", "gained"), [(0.2, 0.1), (0.0, 0.3), (0.05, 0.0), (0.4, 0.6)])
def test_mcnemar_power_is_the_sum_over_all_tables(lost: float, gained: float) -> None:
    for alternative in ("two-sided", "greater", "less"):
        wanted = 0.0
        for a, b, p in _brute(16, lost, gained):
            wanted += p * (mcnemar(a, b, alternative=alternative) <= 0.05)
        found = mcnemar_power(16, lost, gained, alpha=0.05, alternative=alternative)
        assert found == pytest.approx(wanted, abs=1e-10)
    assert mcnemar_power(16, 0.0, 0.0, alpha=0.05) == 0.0


@pytest.mark.parametrize("method", ["clopper_pearson", "score"])
def test_tost_power_is_the_sum_over_all_tables(method: EquivalenceMethod) -> None:
    for lost, gained in ((0.02, 0.02), (0.1, 0.0), (0.0, 0.0)):
        wanted = 0.0
        for a, b, p in _brute(20, lost, gained):
            if p > 1e-14:
                found = tost_proportions(a, b, 20, margin=0.2, alpha=0.05, method=method)
                wanted += p * found.shown
        power = tost_proportions_power(20, lost, gained, margin=0.2, alpha=0.05, method=method)
        assert power == pytest.approx(wanted, abs=1e-10)


@pytest.mark.parametrize(
    ("n", "difference", "margin"), [(2, 0.0, 4.0), (8, 0.2, 1.0), (40, 0.5, 0.5), (40, -0.1, 0.5)]
)
def test_tost_of_means_power_is_counted_too(n: int, difference: float, margin: float) -> None:
    rng = np.random.default_rng(1)
    counted = simulated_power(
        lambda rng: tost_means(rng.normal(difference, 1.0, n), margin=margin, alpha=0.05).shown,
        runs=2000,
        rng=rng,
    )
    found = tost_means_power(n, difference, 1.0, margin=margin, alpha=0.05)
    assert abs(found - counted.estimate) <= 4 * counted.standard_error


def test_level_of_tost_of_means_at_its_margin() -> None:
    assert tost_means_power(50, 0.5, 1.0, margin=0.5, alpha=0.05) == pytest.approx(0.05, abs=1e-6)
    assert tost_means_power(2, 0.0, 1.0, margin=1e-6, alpha=0.05) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("rows", [(60, 90), (200, 40)])
def test_delong_power_is_counted_too(rows: tuple[int, int]) -> None:
    scores = Binormal(0.85, 0.75, 0.5)
    labels = np.arange(sum(rows)) < rows[0]
    rng, root = np.random.default_rng(2), np.sqrt(2.0)
    shift = root * np.array([1.0364333894937898, 0.6744897501960817])  # qnorm(c(0.85, 0.75)) of R

    def shown(rng: np.random.Generator) -> bool:
        x = rng.standard_normal(len(labels))
        y = 0.5 * x + np.sqrt(0.75) * rng.standard_normal(len(labels))
        a, b = x + shift[0] * labels, y + shift[1] * labels
        return delong_test(labels, a, b, alpha=0.05).p_value <= 0.05

    counted = simulated_power(shown, runs=600, rng=rng)
    found = delong_power(scores, *rows, alpha=0.05)
    # The formula holds in the limit: two points beside the Monte Carlo error.
    assert abs(found - counted.estimate) <= 0.02 + 3 * counted.standard_error


def test_delong_level() -> None:
    assert delong_power(Binormal(0.8, 0.8, 0.3), 50, 50, alpha=0.05) == pytest.approx(0.05)


def test_auc_drop_power_grows_with_rows() -> None:
    scores, rng = Binormal(0.9, 0.895, 0.99), np.random.default_rng(3)
    few, many = (
        auc_drop_power(scores, rows, at_most=0.03, alpha=0.05, runs=40, rng=rng).estimate
        for rows in ((100, 100), (1500, 1500))
    )
    assert few < 0.3 < 0.9 < many


def test_smallest_n_for_pairs() -> None:
    n = smallest_n(lambda n: mcnemar_power(n, 0.06, 0.01, alpha=0.05), 0.8, least=5)
    assert mcnemar_power(n, 0.06, 0.01, alpha=0.05) >= 0.8
    assert mcnemar_power(n - 1, 0.06, 0.01, alpha=0.05) < 0.8


def test_simulation_is_never_certain() -> None:
    found = simulated_power(lambda rng: True, runs=10, rng=np.random.default_rng(0))
    assert found.estimate == 1.0
    assert found.standard_error > 0.05
