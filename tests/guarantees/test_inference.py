"""The promises of the e-process, closed forms, clusters, procedures for many and tests of pairs.

Exact sums wherever a sum exists; drawn elsewhere, with 3.1 Monte Carlo standard errors allowed.
"""

import math
from collections.abc import Callable, Iterator
from itertools import product

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray
from scipy.stats import betabinom, binom, multinomial, norm

from justenough.stats.bounded import mean_lower, mean_upper
from justenough.stats.clusters import (
    row_mean_lower,
    row_mean_upper,
    unit_mean_upper,
)
from justenough.stats.concentration import (
    bernstein_lower,
    bernstein_upper,
    hoeffding_bentkus_lower,
    hoeffding_bentkus_p,
    hoeffding_bentkus_upper,
)
from justenough.stats.delong import delong_test
from justenough.stats.eprocess import FailureProcess
from justenough.stats.learn_then_test import learn_then_test
from justenough.stats.multiplicity import (
    Rejections,
    benjamini_hochberg,
    fixed_sequence,
    graphical,
    holm,
)
from justenough.stats.power import (
    eprocess_course,
    most_failures,
    proportion_power,
    simulated_power,
)
from justenough.stats.power_paired import mcnemar_power, tost_proportions_power

ALPHA = 0.05
Vector = NDArray[np.float64]
TRUTHS = (0.001, 0.01, 0.1, 0.5, 0.9, 0.99)


def _allowed(runs: int) -> float:
    return ALPHA + 3.1 * math.sqrt(ALPHA * (1 - ALPHA) / runs)


# Means of values in [0, 1]: exact

UPPER = [mean_upper, bernstein_upper, hoeffding_bentkus_upper]
LOWER = [mean_lower, bernstein_lower, hoeffding_bentkus_lower]


def _tables(n: int, kinds: int) -> Iterator[tuple[int, ...]]:
    """All ways of n units to be of so many kinds."""
    if kinds == 1:
        yield (n,)
        return
    for first in range(n + 1):
        for rest in _tables(n - first, kinds - 1):
            yield (first, *rest)


@pytest.mark.parametrize("alpha", [0.2, 0.05, 0.01])
@pytest.mark.parametrize("n", [2, 12, 40])
def test_bounds_on_coins_hold(n: int, alpha: float) -> None:
    x = [np.repeat([1.0, 0.0], [k, n - k]) for k in range(n + 1)]
    for upper, lower in zip(UPPER, LOWER, strict=True):
        high = np.array([upper(v, alpha=alpha) for v in x])
        low = np.array([lower(v, alpha=alpha) for v in x])
        for truth in TRUTHS:
            mass = binom.pmf(np.arange(n + 1), n, truth)
            assert mass[high < truth].sum() <= alpha + 1e-12
            assert mass[low > truth].sum() <= alpha + 1e-12


@pytest.mark.parametrize("bound", ["betting", "bernstein", "hoeffding_bentkus", "clopper_pearson"])
@pytest.mark.parametrize("n", [100, 1000, 10000])
def test_bounds_on_many_coins_hold(bound: str, n: int) -> None:
    for alpha, truth in product((0.1, 0.05, 0.001), (0.0005, 0.005, 0.05, 0.5, 0.95)):
        wrong = proportion_power(bound, n, truth, at_most=truth, alpha=alpha)  # type: ignore[arg-type]
        assert wrong <= alpha + 1e-12


@pytest.mark.parametrize("weights", [(0.9, 0.08, 0.02), (0.2, 0.6, 0.2), (0.5, 0.0, 0.5)])
def test_bounds_on_three_values_hold(weights: tuple[float, float, float]) -> None:
    """Losses 0, 0.3 and 1, all samples of 10."""
    nodes, n = np.array([0.0, 0.3, 1.0]), 10
    truth = float(nodes @ weights)
    tables = np.array(list(_tables(n, 3)))
    mass = multinomial.pmf(tables, n, weights)
    samples = [np.repeat(nodes, t) for t in tables]
    for upper, lower in zip(UPPER, LOWER, strict=True):
        for alpha in (0.2, 0.05):
            high = np.array([upper(x, alpha=alpha) for x in samples])
            low = np.array([lower(x, alpha=alpha) for x in samples])
            assert mass[high < truth - 1e-12].sum() <= alpha
            assert mass[low > truth + 1e-12].sum() <= alpha
    p = np.array([hoeffding_bentkus_p(x, at_most=truth) for x in samples])
    for level in np.concatenate([p[p < 1], [0.05, 0.2]]):
        assert mass[p <= level].sum() <= level * (1 + 1e-9)


# The e-process: exact


@pytest.mark.parametrize("p0", [0.001, 0.005, 0.05, 0.3, 0.9])
@pytest.mark.parametrize(("every", "most"), [(1, 400), (10, 2000), (100, 5000)])
def test_eprocess_is_wrong_at_most_alpha_of_the_time(p0: float, every: int, most: int) -> None:
    for alpha in (0.2, 0.05, 0.01):
        at = eprocess_course(p0, p0=p0, alpha=alpha, every=every, most=most)
        assert at.held <= alpha
        assert at.broken <= alpha
        beyond = eprocess_course(1.1 * p0, p0=p0, alpha=alpha, every=every, most=most)
        assert beyond.held <= at.held + 1e-12
        within = eprocess_course(0.9 * p0, p0=p0, alpha=alpha, every=every, most=most)
        assert within.broken <= at.broken + 1e-12


def test_confidence_sequence_covers_at_all_looks_together() -> None:
    """All paths of 45 trials with a look after each, through `FailureProcess` itself."""
    n = 45
    ends = np.array(
        [
            [
                (p.lower, p.upper)
                for k in range(m + 1)
                for p in [FailureProcess(p0=0.5, alpha=0.1).extended(m, k)]
            ]
            + [(0.0, 1.0)] * (n - m)
            for m in range(1, n + 1)
        ]
    )
    for truth in (0.01, 0.1, 0.35, 0.5, 0.8, 0.99):
        for outside in (ends[:, :, 0] > truth, ends[:, :, 1] < truth):
            chances, wrong = np.array([1.0]), 0.0
            for m in range(1, n + 1):
                chances = np.convolve(chances, [1 - truth, truth])
                over = outside[m - 1, : m + 1]
                wrong += chances[over].sum()
                chances[over] = 0.0
            assert wrong <= 0.1


def test_peeking_breaks_clopper_pearson_and_not_the_eprocess() -> None:
    p0, every, most = 0.005, 100, 20000
    chances, fooled = np.array([1.0]), 0.0
    for n in range(every, most + 1, every):
        chances = np.convolve(chances, binom.pmf(np.arange(10), every, p0))
        enough = most_failures("clopper_pearson", n, at_most=p0, alpha=ALPHA)
        fooled += chances[: enough + 1].sum()
        chances[: enough + 1] = 0.0
    assert 0.25 < fooled < 0.27
    assert eprocess_course(p0, p0=p0, alpha=ALPHA, every=every, most=most).held < 0.035


# Clusters


@pytest.mark.parametrize(
    "chances",
    [
        (0.6, 0.0, 0.3, 0.0, 0.1),
        (0.3, 0.02, 0.6, 0.06, 0.02),
        (0.1, 0.4, 0.1, 0.0, 0.4),
        (0.0, 0.9, 0.1, 0.0, 0.0),
    ],
)
@pytest.mark.parametrize("alpha", [0.2, 0.05])
def test_row_mean_bounds_hold(chances: tuple[float, ...], alpha: float) -> None:
    """Units of 1 or 4 rows that lose none, some or all: every sample of 6 units, exactly."""
    sizes, sums, g = np.array([1, 1, 4, 4, 4]), np.array([0, 1, 0, 3, 4]), 6
    truth = float(sums @ chances) / float(sizes @ chances)
    tables = np.array(list(_tables(g, 5)))
    mass = multinomial.pmf(tables, g, chances)
    low = high = 0.0
    for t, p in zip(tables[mass > 0], mass[mass > 0], strict=True):
        kind = np.repeat(np.arange(5), t)
        units = np.repeat(np.arange(g), sizes[kind])
        losses = np.concatenate([np.arange(sizes[k]) < sums[k] for k in kind])
        high += p * (row_mean_upper(losses, units, largest=4, alpha=alpha) < truth - 1e-12)
        low += p * (row_mean_lower(losses, units, largest=4, alpha=alpha) > truth + 1e-12)
    assert high <= alpha
    assert low <= alpha


def _rows(rng: np.random.Generator, g: int, size: int, icc: float) -> NDArray[np.intp]:
    if icc == 0.0:
        return rng.binomial(size, 0.05, g)
    return rng.binomial(size, rng.beta(0.05 * (1 - icc) / icc, 0.95 * (1 - icc) / icc, g))


@pytest.mark.coverage_study
@pytest.mark.parametrize("icc", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("g", [20, 200])
def test_unit_mean_bound_holds_whatever_the_correlation(icc: float, g: int) -> None:
    units, size = np.repeat(np.arange(g), 10), 10

    def wrong(rng: np.random.Generator) -> bool:
        failures = _rows(rng, g, size, icc)
        losses = np.arange(size)[None] < failures[:, None]
        return unit_mean_upper(losses.ravel(), units, alpha=ALPHA) < 0.05

    runs = 100
    found = simulated_power(wrong, runs=runs, rng=np.random.default_rng(0))
    assert found.estimate <= _allowed(runs)


@pytest.mark.parametrize("icc", [0.0, 0.1, 0.3])
def test_rows_as_if_independent_break_and_units_hold(icc: float) -> None:
    """40 units of 50 rows at a rate of exactly the limit; exact sums of both."""
    g, size, rate = 40, 50, 0.005
    pmf = binom.pmf(np.arange(size + 1), size, rate)
    if icc > 0.0:
        shape = (1 - icc) / icc
        pmf = betabinom.pmf(np.arange(size + 1), size, rate * shape, (1 - rate) * shape)
    total = np.array([1.0])
    for _ in range(g):
        total = np.convolve(total, pmf)
    by_rows = total[: most_failures("clopper_pearson", g * size, at_most=rate, alpha=ALPHA) + 1]
    share = 1.0 - float(pmf[0])
    by_units = proportion_power("clopper_pearson", g, share, at_most=share, alpha=ALPHA)
    assert by_units <= ALPHA
    assert by_rows.sum() <= ALPHA if icc == 0.0 else by_rows.sum() > 0.25


# Many hypotheses: exact


def _gatekeeper(p: ArrayLike, *, alpha: float) -> Rejections:
    edges = np.array([[0.0, 0.5, 0.5], [0.8, 0.0, 0.2], [0.0, 1.0, 0.0]])
    return graphical(p, [0.5, 0.3, 0.2], edges, alpha=alpha)


@pytest.mark.parametrize("procedure", [fixed_sequence, holm, _gatekeeper])
@pytest.mark.parametrize("rates", [(0.3, 0.3, 0.3), (0.05, 0.3, 0.4), (0.3, 0.1, 0.3)])
def test_no_procedure_rejects_falsely_more_than_alpha(
    procedure: Callable[..., Rejections], rates: tuple[float, float, float]
) -> None:
    """Three candidates of 11 cases each, all 1728 outcomes."""
    n, limit, alpha = 11, 0.3, 0.2
    p = binom.cdf(np.arange(n + 1), n, limit)
    mass = [binom.pmf(np.arange(n + 1), n, r) for r in rates]
    null = np.array(rates) >= limit
    wrong = 0.0
    for a, b, c in product(range(n + 1), repeat=3):
        rejected = procedure([p[a], p[b], p[c]], alpha=alpha).rejected
        wrong += float(mass[0][a] * mass[1][b] * mass[2][c]) * bool(rejected[null].any())
    assert wrong <= alpha


@pytest.mark.parametrize("n", [1000, 3000])
def test_best_of_twenty(n: int) -> None:
    """Independent candidates all exactly at the limit: chances are powers of one binomial sum."""
    p = binom.cdf(np.arange(n + 1), n, 0.005)
    alone = binom.pmf(np.arange(n + 1), n, 0.005)

    def any_of_twenty(level: float) -> float:
        return 1.0 - (1.0 - float(alone[p <= level].sum())) ** 20

    assert any_of_twenty(ALPHA) > 0.4
    assert any_of_twenty(ALPHA / 20) <= ALPHA  # Holm rejects any only if its smallest does
    assert float(alone[p <= ALPHA].sum()) <= ALPHA  # the first of a fixed sequence


@pytest.mark.coverage_study
def test_benjamini_hochberg_keeps_the_false_discovery_rate() -> None:
    rng, runs = np.random.default_rng(0), 400
    share = []
    for _ in range(runs):
        p = np.concatenate([rng.random(15), rng.random(5) ** 8])
        rejected = benjamini_hochberg(p, alpha=0.1).rejected
        share.append(rejected[:15].sum() / max(rejected.sum(), 1))
    assert np.mean(share) <= 0.1 * 15 / 20 + 3.1 * np.std(share) / math.sqrt(runs)


@pytest.mark.coverage_study
@pytest.mark.parametrize("procedure", [fixed_sequence, holm])
def test_learn_then_test_names_falsely_at_most_alpha_of_the_time(
    procedure: Callable[..., Rejections],
) -> None:
    """Twenty thresholds on the same cases, ten of them at or beyond the limit."""
    rates = 0.02 * np.arange(1, 21)

    def wrong(rng: np.random.Generator) -> bool:
        losses = np.clip(1.0 - 0.5 * rng.random((100, 1)) / rates, 0.0, 1.0)
        found = learn_then_test(losses, at_most=0.2, alpha=ALPHA, procedure=procedure)
        return bool(found.rejected[rates > 0.2 - 1e-9].any())

    found = simulated_power(wrong, runs=400, rng=np.random.default_rng(0))
    assert found.estimate <= _allowed(400)


# Pairs


@pytest.mark.parametrize("n", [10, 60, 500])
@pytest.mark.parametrize("either", [0.02, 0.2, 0.9])
def test_mcnemar_is_wrong_at_most_alpha_of_the_time(n: int, either: float) -> None:
    for alpha in (0.2, 0.05):
        assert mcnemar_power(n, either / 2, either / 2, alpha=alpha) <= alpha
        for alternative in ("greater", "less"):
            level = mcnemar_power(n, either / 2, either / 2, alpha=alpha, alternative=alternative)
            assert level <= alpha


@pytest.mark.parametrize("n", [20, 100, 300, 1000])
@pytest.mark.parametrize("margin", [0.01, 0.02, 0.1, 0.4])
def test_exact_tost_is_wrong_at_most_alpha_of_the_time(n: int, margin: float) -> None:
    for gained in (0.0, 0.002, 0.02, 0.1):
        for lost, other in ((gained + margin, gained), (gained, gained + margin)):
            assert tost_proportions_power(n, lost, other, margin=margin, alpha=ALPHA) <= ALPHA


def test_score_tost_is_liberal_by_what_the_page_says() -> None:
    level = tost_proportions_power(300, 0.02, 0.0, margin=0.02, alpha=ALPHA, method="score")
    assert 0.059 < level < 0.061


@pytest.mark.slow
@pytest.mark.coverage_study
def test_delong_holds_for_many_rows_and_noise_everywhere() -> None:
    labels = np.arange(400) < 200
    truth = norm.cdf(1.5 / math.sqrt(2)) - norm.cdf(1.5 / math.sqrt(4))

    def wrong(rng: np.random.Generator) -> bool:
        x = rng.standard_normal(400) + 1.5 * labels
        found = delong_test(labels, x, x + rng.standard_normal(400), alpha=ALPHA)
        return not found.lower <= truth <= found.upper

    found = simulated_power(wrong, runs=500, rng=np.random.default_rng(0))
    # In the limit only: half a point more is allowed for.
    assert found.estimate <= _allowed(500) + 0.005
