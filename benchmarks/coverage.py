"""How often each bound is wrong, as the tables of docs/coverage.md.

`python -m benchmarks.coverage` writes the page; tests/golden/test_coverage_page.py compares it.
Exact sums where a sum exists; elsewhere seeded draws, with their Monte Carlo error on the page.
"""

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray
from scipy.stats import betabinom, binom, norm

from justenough.stats.auc import auc_drop_interval
from justenough.stats.bounded import mean_upper
from justenough.stats.clusters import row_mean_upper
from justenough.stats.concentration import bernstein_upper, hoeffding_bentkus_upper
from justenough.stats.delong import delong_test
from justenough.stats.eprocess import anytime_units_needed
from justenough.stats.learn_then_test import learn_then_test, risk_p_values
from justenough.stats.multiplicity import benjamini_hochberg, fixed_sequence, holm
from justenough.stats.paired import EquivalenceMethod
from justenough.stats.power import (
    ProportionBound,
    eprocess_course,
    most_failures,
    proportion_power,
    simulated_power,
    units_for_power,
)
from justenough.stats.power_paired import mcnemar_power, tost_proportions_power
from justenough.stats.proportion import units_needed

PAGE = Path(__file__).parents[1] / "docs" / "coverage.md"
ALPHA, LIMIT = 0.05, 0.005
BOUNDS = get_args(ProportionBound)
NAMES = {
    "clopper_pearson": "Clopper-Pearson",
    "betting": "betting",
    "bernstein": "Bernstein",
    "hoeffding_bentkus": "Hoeffding-Bentkus",
}
Vector = NDArray[np.float64]
Draw = Callable[[np.random.Generator], tuple[Vector, Vector, float]]


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A table in Markdown."""
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(str(c) for c in line)} |" for line in lines)


def percent(share: float) -> str:
    """A share in percent, to a tenth."""
    return f"{100 * share:.1f}"


def counted(shown: Callable[[np.random.Generator], bool], runs: int, seed: int) -> str:
    """How often, in percent, with its Monte Carlo standard error."""
    found = simulated_power(shown, runs=runs, rng=np.random.default_rng(seed))
    return f"{percent(found.estimate)} ± {percent(found.standard_error)}"


def proportions() -> str:
    """Chance that an upper bound on failures lies below the truth: exact."""
    rows = []
    for truth in (0.0005, 0.005, 0.05, 0.5, 0.95):
        for n in (100, 1000):
            # The bound is at most the truth exactly if the truth would be called shown.
            wrong = [proportion_power(b, n, truth, at_most=truth, alpha=ALPHA) for b in BOUNDS]
            rows.append([truth, n, *map(percent, wrong)])
    return table(["truth", "n", *(NAMES[b] for b in BOUNDS)], rows)


def shown_with_nothing_lost() -> str:
    """Units needed to show a limit where nothing fails: exact."""
    rows = []
    for limit in (0.05, 0.01, 0.005, 0.001):
        fixed = [units_for_power(b, 0.5, 0.0, at_most=limit, alpha=ALPHA) for b in BOUNDS]
        assert fixed[0] == units_needed(0, at_least=1 - limit, alpha=ALPHA)
        anytime = anytime_units_needed(0, at_most=limit, alpha=ALPHA)
        rows.append([limit, *fixed, anytime, f"{100 * (anytime / fixed[0] - 1):.0f} %"])
    return table(["limit", *(NAMES[b] for b in BOUNDS), "e-process", "its price"], rows)


def power() -> str:
    """Units for a chance of 80 % to show the limit, and how an e-process ends: exact."""
    rows = []
    for q in (0.0, 0.0005, 0.001, 0.002, 0.01, 0.02):
        fixed = [
            units_for_power(b, 0.8, q, at_most=LIMIT, alpha=ALPHA) if q < LIMIT else "never"
            for b in BOUNDS
        ]
        course = eprocess_course(q, p0=LIMIT, alpha=ALPHA, every=10, most=10000)
        rows.append(
            [q, *fixed, percent(course.held), percent(course.broken), round(course.mean_units)]
        )
    head = [*(NAMES[b] for b in BOUNDS), "e-process held, %", "broken, %", "its mean units"]
    return table(["failures", *head], rows)


def small(rng: np.random.Generator, n: int) -> Vector:
    """Many small losses, few large ones; mean 0.05 / 10.05."""
    return rng.beta(0.05, 10.0, n)


def cluster_means(rng: np.random.Generator, n: int) -> Vector:
    """Means of units of ten rows; mean 0.1."""
    return rng.binomial(10, rng.beta(0.1, 0.9, n)) / 10.0


def rare(rng: np.random.Generator, n: int) -> Vector:
    """0.3, and 1 in a hundredth; mean 0.307."""
    return np.where(rng.random(n) < 0.01, 1.0, 0.3)


def means() -> str:
    """Chance that an upper bound on a mean lies below it: drawn; and the mean bound."""
    cases = ((small, 0.05 / 10.05), (cluster_means, 0.1), (rare, 0.307))
    bounds = (mean_upper, bernstein_upper, hoeffding_bentkus_upper)
    rows = []
    for draw, truth in cases:
        for n in (100, 1000):
            rng, runs = np.random.default_rng(n), 300
            found = np.array(
                [[b(x, alpha=ALPHA) for b in bounds] for x in (draw(rng, n) for _ in range(runs))]
            )
            wrong = (found < truth).mean(axis=0)
            cells = [
                f"{percent(w)} ({m:.4f})" for w, m in zip(wrong, found.mean(axis=0), strict=True)
            ]
            rows.append([f"{draw.__name__.replace('_', ' ')}, mean {truth:.4f}", n, *cells])
    return table(["losses", "n", "betting", "Bernstein", "Hoeffding-Bentkus"], rows)


def peeking() -> str:
    """Chance of ever showing a limit that is exactly met: exact."""
    rows = []
    for p0 in (0.005, 0.05):
        for every, most in ((10, 5000), (100, 5000), (100, 20000), (1000, 20000)):
            course = eprocess_course(p0, p0=p0, alpha=ALPHA, every=every, most=most)
            looks = peeked(p0, every, most)
            rows.append([p0, every, most, *map(percent, (looks, course.held, course.broken))])
    head = ["limit = truth", "look every", "up to", "Clopper-Pearson at every look"]
    return table([*head, "e-process, held", "e-process, broken"], rows)


def peeked(p0: float, every: int, most: int) -> float:
    """Chance that Clopper and Pearson's bound shows p0 at one look at least, p being p0."""
    chances, shown = np.array([1.0]), 0.0
    step = binom.pmf(np.arange(every + 1), every, p0)
    step = step[: int(np.flatnonzero(step > 1e-18).max()) + 1]
    for n in range(every, most + 1, every):
        chances = np.convolve(chances, step)
        enough = most_failures("clopper_pearson", n, at_most=p0, alpha=ALPHA)
        shown += float(chances[: enough + 1].sum())
        chances[: enough + 1] = 0.0
        chances = chances[: int(np.flatnonzero(chances > 1e-18).max()) + 1]
    return shown


def selection() -> str:
    """Twenty candidates on the same 3000 cases: drawn."""
    n, runs = 3000, 4000
    mixed = np.concatenate([np.linspace(0.0005, 0.004, 12), np.linspace(0.0051, 0.03, 8)])
    worlds = (
        ("all 20 at the limit, independent", np.full(20, LIMIT), False),
        ("all 20 at the limit, failing together", np.full(20, LIMIT), True),
        ("12 safe, then 8 beyond", mixed, False),
    )
    procedures = (
        ("each by itself", None),
        ("fixed sequence", fixed_sequence),
        ("Holm", holm),
        ("Benjamini-Hochberg", benjamini_hochberg),
    )
    rows = []
    for name, rates, together in worlds:
        rng = np.random.default_rng(20)
        p = np.array([_p_values(rng, n, rates, together=together) for _ in range(runs)])
        for said, procedure in procedures:
            named = p <= ALPHA
            if procedure is not None:
                named = np.array([procedure(row, alpha=ALPHA).rejected for row in p])
            false = named[:, rates >= LIMIT].any(axis=1).mean()
            safe = rates < LIMIT
            valid = (
                f"{named[:, safe].sum(axis=1).mean():.1f} of {safe.sum()}" if safe.any() else ""
            )
            error = percent(math.sqrt(max(false * (1 - false), 1 / runs) / runs))
            rows.append([name, said, f"{percent(false)} ± {error}", valid])
    return table(["candidates", "procedure", "any named falsely, %", "safe ones named"], rows)


def _p_values(
    rng: np.random.Generator, n: int, rates: Vector, *, together: bool
) -> NDArray[np.float64]:
    if together:  # half of each one's failures are those of one hard case in a thousand
        hard = rng.binomial(n, rates[0] / 2)
        failures = hard + rng.binomial(n - hard, rates / 2 / (1 - rates / 2))
    else:
        failures = rng.binomial(n, rates)
    p: NDArray[np.float64] = binom.cdf(failures, n, LIMIT)
    return p


def learning() -> str:
    """Learn then test on fractional losses of 20 thresholds: drawn."""
    runs, n, limit = 400, 1000, 0.05
    rates = 0.005 * np.arange(1, 21)
    safe = rates < limit - 1e-9
    rows = []
    for name, procedure in (("fixed sequence", fixed_sequence), ("Holm", holm)):
        rng = np.random.default_rng(21)
        false, valid = 0, 0
        for _ in range(runs):
            ease = rng.random((n, 1))  # a case is lost where it is easier than the threshold
            losses = np.clip(1.0 - 0.5 * ease / rates, 0.0, 1.0)  # mean: the rate
            named = learn_then_test(
                losses, at_most=limit, alpha=ALPHA, procedure=procedure
            ).rejected
            false += bool(named[~safe].any())
            valid += int(named[safe].sum())
        rows.append([name, percent(false / runs), f"{valid / runs:.1f} of {safe.sum()}"])
    return table(["procedure", "any named falsely, %", "safe ones named"], rows)


def clusters() -> str:
    """Forty units of fifty rows, five percent of rows failing: row by row and by units."""
    g, size, runs = 40, 50, 300
    rows = []
    for rate in (0.005, 0.05):
        for icc in (0.0, 0.1, 0.3):
            law = (
                binom(size, rate)
                if icc == 0.0
                else betabinom(size, rate * (1 - icc) / icc, (1 - rate) * (1 - icc) / icc)
            )
            pmf = law.pmf(np.arange(size + 1))
            total = np.array([1.0])
            for _ in range(g):
                total = np.convolve(total, pmf)
            enough = most_failures("clopper_pearson", g * size, at_most=rate, alpha=ALPHA)
            naive = float(total[: enough + 1].sum())
            share = 1.0 - float(pmf[0])  # of units with any failure
            units = proportion_power("clopper_pearson", g, share, at_most=share, alpha=ALPHA)

            def wrong(rng: np.random.Generator, law: object = law, rate: float = rate) -> bool:
                failures = law.rvs(g, random_state=rng)  # type: ignore[attr-defined]
                return mean_upper(failures / size, alpha=ALPHA) < rate

            drawn = counted(wrong, runs, 30)
            rows.append([rate, icc, *map(percent, (naive, units)), drawn])
    head = ["failing rows", "ICC", "rows as if independent", "units with any failure"]
    return table([*head, "mean over units, betting"], rows)


def unequal_units() -> str:
    """Units of 1 to 20 rows whose large ones fail more often: drawn."""
    rows, runs = [], 300
    sizes = np.array([1, 2, 5, 20])
    shares, rates = np.array([0.4, 0.3, 0.2, 0.1]), np.array([0.01, 0.02, 0.05, 0.15])
    truth = float((shares * sizes * rates).sum() / (shares * sizes).sum())
    for g in (50, 200, 1000):
        found = []
        rng = np.random.default_rng(g)
        for _ in range(runs):
            kind = rng.choice(4, g, p=shares)
            failures = rng.binomial(sizes[kind], rng.beta(rates[kind] * 4, (1 - rates[kind]) * 4))
            units = np.repeat(np.arange(g), sizes[kind])
            within = np.arange(len(units)) - np.repeat(
                np.cumsum(sizes[kind]) - sizes[kind], sizes[kind]
            )
            losses = (within < failures[units]).astype(np.float64)
            found.append(
                (
                    row_mean_upper(losses, units, largest=20, alpha=ALPHA),
                    mean_upper(failures / sizes[kind], alpha=ALPHA),
                    mean_upper(losses, alpha=ALPHA),
                )
            )
        bounds = np.array(found)
        wrong = (bounds < truth).mean(axis=0)
        rows.append(
            [
                g,
                *(
                    f"{percent(w)} ({m:.3f})"
                    for w, m in zip(wrong, bounds.mean(axis=0), strict=True)
                ),
            ]
        )
    head = ["units", "row_mean_upper", "unit means (another question)", "rows as if independent"]
    return f"Mean over rows {truth:.4f}.\n\n" + table(head, rows)


def pairs() -> str:
    """True level of the tests of pairs: exact."""
    rows = []
    for n in (50, 300, 2000):
        for margin in (0.02, 0.05):
            for gained in (0.0, 0.01, 0.1):
                lost = gained + margin
                mcnemar = mcnemar_power(n, (gained + lost) / 2, (gained + lost) / 2, alpha=ALPHA)
                methods: tuple[EquivalenceMethod, ...] = ("score", "clopper_pearson")
                tost = [
                    tost_proportions_power(
                        n, lost, gained, margin=margin, alpha=ALPHA, method=method
                    )
                    for method in methods
                ]
                rows.append(
                    [n, f"{gained + lost:g}", percent(mcnemar), margin, *map(percent, tost)]
                )
    head = ["n", "discordant", "McNemar", "margin", "TOST by score", "by Clopper-Pearson"]
    return table(head, rows)


def areas() -> str:
    """Chance that the drop's upper bound lies below it, each at 5 %: drawn."""
    rows, runs = [], 400
    for n, positives, name in (
        (200, 100, "noise"), (1000, 100, "noise"), (300, 20, "rare"), (1000, 500, "rare"),
    ):  # fmt: skip
        labels = np.arange(n) < positives

        def draw(
            rng: np.random.Generator, labels: NDArray[np.bool_] = labels, name: str = name
        ) -> tuple[Vector, Vector, float]:
            size, count = len(labels), int(labels.sum())
            if name == "noise":
                x = rng.standard_normal(size) + 1.5 * labels
                y = x + 0.5 * rng.standard_normal(size)
                truth = norm.cdf(1.5 / math.sqrt(2)) - norm.cdf(1.5 / math.sqrt(2.5))
                return x, y, float(truth)
            x = rng.standard_normal(size) + 4.0 * labels
            lost = labels & (rng.random(size) < 2.9 / count)
            return x, np.where(lost, -50.0, x), 2.9 / count * float(norm.cdf(4 / math.sqrt(2)))

        rng = np.random.default_rng(n)
        wrong = np.zeros(2)
        for _ in range(runs):
            x, y, truth = draw(rng)
            unchanged = np.array_equal(x, y)  # no variance at all: DeLong's promises nothing lost
            upper = 0.0 if unchanged else delong_test(labels, x, y, alpha=2 * ALPHA).upper
            ours = auc_drop_interval(labels, x, y, np.arange(n), alpha=ALPHA)[2]
            wrong += np.array([upper < truth, ours < truth])
        said = "noise on every score" if name == "noise" else "2.9 of the positives expected lost"
        rows.append([said, positives, n - positives, *map(percent, wrong / runs)])
    head = ["candidate", "positive rows", "negative", "DeLong", "auc_drop_interval"]
    return table(head, rows)


def page() -> str:
    """The whole page."""
    check_p = risk_p_values(np.zeros((100, 1)), at_most=0.05)[0]
    return f"""# Coverage: how often each bound is wrong

Written by `python -m benchmarks.coverage`; `tests/golden/test_coverage_page.py` computes it
again and compares. Every bound was asked for alpha = {ALPHA:g}, so one that keeps its word says
5.0 or less; cells are percent unless the head says otherwise. Exact cells are sums of
probabilities. Drawn cells come from seeded draws: at a true 5 % the Monte Carlo standard error
is 1.3 with 300 draws, 1.1 with 400 and 0.3 with 4000; after ± stands that of the cell.

What is proved at every n: Clopper-Pearson, betting, Bernstein, Hoeffding-Bentkus, the e-process,
all three cluster bounds, McNemar's exact test, TOST by Clopper-Pearson, the procedures for many.
What holds in the limit only: TOST by the score test, TOST of means for differences that are not
normal, DeLong's test. The bounds of `docs/statistics.md` for Spearman, AUC and SNR have their own
simulations in `tests/guarantees/test_bounds.py`.

## Proportions

Chance that an upper bound on the share of failures is at or below the truth. Exact.

{proportions()}

Units needed to show a limit when nothing fails. Exact. The price of an e-process is what looking
at any time costs against Clopper-Pearson at one n fixed beforehand.

{shown_with_nothing_lost()}

Units for a chance of 80 % to show at most {100 * LIMIT:g} % failures, by the true share. Exact.
The e-process looks after every 10 units and ends at 10,000; it needs no guess of the truth.

{power()}

## Means of losses between 0 and 1

Chance that an upper bound is below the mean; in brackets the mean of the bound. Drawn, 300 times.

{means()}

With no loss at all among 100, Hoeffding-Bentkus gives p = {check_p:.4f} for a limit of 0.05.

## Peeking

Chance that a limit which is exactly met (and so must not be shown) is shown at some look. Exact.

{peeking()}

## Selection among twenty

Twenty candidates on the same 3000 cases, limit {LIMIT:g}, exact binomial p-values; the order of
the fixed sequence is the order of the true shares. Drawn, 4000 times. Benjamini-Hochberg bounds
another quantity, the share of false ones among the named, and is here to show the difference.

{selection()}

Learn then test (Hoeffding-Bentkus) on 1000 cases: 20 thresholds with mean losses of 0.005, 0.01,
..., 0.1 on the same cases, losses between 0 and 1, limit 0.05. Drawn, 400 times.

{learning()}

## Clusters

40 units of 50 rows, failing with the given intra-class correlation (beta-binomial). The first two
columns are exact: the chance that a bound on the mean over rows is at or below the truth when
rows are counted as if independent; the same for the share of units with any failure, counted by
units. The third is drawn, 300 times.

{clusters()}

Units of 1, 2, 5 and 20 rows, of which the large ones fail more. Chance that the bound is below the
mean over rows; in brackets the mean of the bound. Drawn, 300 times. A bound on the mean of unit
means is no bound on the mean over rows: that is another number. `row_mean_upper` is told that no
unit has more than 20 rows.

{unequal_units()}

## Pairs

True level of McNemar's two-sided test at no difference, and of TOST at a difference of exactly the
margin. Exact. The score test exceeds 5.0 where few cases are discordant: that is why the other is
the default.

{pairs()}

## Areas under ROC curves

Chance that an upper bound on the drop is below it. Drawn, 400 times. DeLong's own interval, each
end at 5 %, beside the certificate's, which leaves room for failures that were not seen; where no
score changed at all DeLong's has no variance and is counted as promising that nothing is lost.

{areas()}
"""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf8")
