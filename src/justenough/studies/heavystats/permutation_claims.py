"""Claims on the permutation test: what p says, what its effect size is, what it assumes."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from justenough.ledger import Measured
from justenough.stats.permutation import pearson_permutation_test
from justenough.studies.heavystats.montecarlo_claims import share_interval

Array = NDArray[np.float64]
PERMUTATIONS = 100_000
FEW = 999
LEVEL = 0.05


def _pairs(n: int, rho: float, rng: np.random.Generator) -> tuple[Array, Array]:
    """Normal rows with correlation rho."""
    x = rng.standard_normal(n)
    return x, rho * x + math.sqrt(1 - rho * rho) * rng.standard_normal(n)


def _p(x: Array, y: Array, rng: np.random.Generator, permutations: int = FEW) -> float:
    """One-sided p-value, as the document's code asks."""
    return pearson_permutation_test(
        x, y, permutations=permutations, rng=rng, alternative="greater"
    ).p_value


def permutation_confidence() -> Measured:
    """Share of real effects among results with p from 0.04 to 0.05, where 1 - p is about 0.955.

    3,000 tests of 50 rows each without an effect and 3,000 with a correlation of 0.3, 999
    permutations; mixed so that 10, 50 or 90 % of effects are real. The value is for 10 %.

    Rule: reproduced if the share is within 0.02 of 1 - p in all mixtures, refuted if in none,
    else only in those.
    """
    runs, rng = 3_000, np.random.default_rng(0)
    inside = []
    for rho in (0.0, 0.3):
        p = np.array([_p(*_pairs(50, rho, rng), rng) for _ in range(runs)])
        inside.append(int(((p >= 0.04) & (p <= 0.05)).sum()))
    ends = [share_interval(k, runs) for k in inside]
    shares, lows, highs = [], [], []
    for real in (0.1, 0.5, 0.9):
        odds = real / (1 - real)
        shares.append(1 / (1 + inside[0] / (odds * inside[1])))
        lows.append(1 / (1 + ends[0][1] / (odds * ends[1][0])))
        highs.append(1 / (1 + ends[0][0] / (odds * ends[1][1])))
    near = [abs(s - 0.955) <= 0.02 for s in shares]
    verdict = "reproduced" if all(near) else "refuted"
    if any(near) and not all(near):
        kept = [f"{v} %" for v, ok in zip((10, 50, 90), near, strict=True) if ok]
        verdict = f"holds only when {' or '.join(kept)} of the effects tested are real"
    return Measured(
        shares[0], "", lows[0], highs[0], verdict,
        f"of results with p about 0.045, {shares[0]:.2f}, {shares[1]:.2f} and {shares[2]:.2f} are "
        "real where 10, 50 and 90 % of all effects tested are; 1 - p is 0.955.",
    )  # fmt: skip


def permutation_p() -> Measured:
    """Permutation p of an observed correlation, 100,000 permutations, 100 to 10,000 rows.

    Rows are normal with true correlation 0.02 to 0.6. The value is the largest p-value, for the
    smallest effect and fewest rows among them.

    Rule: reproduced if p < 0.001 everywhere, refuted if nowhere, else only where r sqrt(n - 1)
    is above 3.09, the normal quantile, if that tells both apart (within 0.1 of it either way).
    """
    rng = np.random.default_rng(0)
    found = []
    for n in (100, 1_000, 10_000):
        for rho in (0.02, 0.05, 0.1, 0.3, 0.6):
            test = pearson_permutation_test(
                *_pairs(n, rho, rng), permutations=PERMUTATIONS, rng=rng, alternative="greater"
            )
            found.append((test.effect_size, test.p_value))
    below = [p < 0.001 for _, p in found]
    clear = [
        abs(z - 3.09) <= 0.1 or (z > 3.09) == ok for (z, _), ok in zip(found, below, strict=True)
    ]
    verdict = "reproduced" if all(below) else "refuted"
    if any(below) and not all(below) and all(clear):
        verdict = "holds only when r sqrt(n - 1) is above 3.09, r being what n rows show"
    ps = [p for _, p in found]
    return Measured(
        max(ps), "", min(ps), max(ps), verdict,
        f"p is below 0.001 in {sum(below)} of {len(found)} settings; the smallest that "
        f"{PERMUTATIONS:,} permutations can give is {1 / (PERMUTATIONS + 1):.3g}.",
    )  # fmt: skip


def permutation_effect() -> Measured:
    """Growth exponent in n of (observed - mean) / sd of the permutations, true correlation 0.3.

    100 to 1,000,000 rows, 1,000 permutations each (200 of the last). Cohen's d of the same data,
    2 r / sqrt(1 - r**2), does not grow; the formula of a correlation at fixed truth does by 1/2.

    Rule: equal to Cohen's d is within 10 % of it at all sizes, which reproduces; refuted if at
    none or if the exponent is within 0.05 of 1/2; else only at those sizes.
    """
    rng = np.random.default_rng(0)
    sizes = [10**k for k in range(2, 7)]
    effects, cohen = [], []
    for n in sizes:
        count = 200 if n == sizes[-1] else 1_000
        test = pearson_permutation_test(*_pairs(n, 0.3, rng), permutations=count, rng=rng)
        r = test.statistic
        effects.append(float((r - test.null.mean()) / test.null.std()))
        cohen.append(2 * r / math.sqrt(1 - r * r))
    exponent = float(np.polyfit(np.log(sizes), np.log(effects), 1)[0])
    near = [abs(e / d - 1) <= 0.1 for e, d in zip(effects, cohen, strict=True)]
    verdict = "refuted"
    if abs(exponent - 0.5) > 0.05 and any(near):
        kept = [n for n, ok in zip(sizes, near, strict=True) if ok]
        verdict = "reproduced" if all(near) else f"holds only when there are {kept} rows"
    return Measured(
        exponent, "", None, None, verdict,
        "the formula gives " + ", ".join(f"{e:.3g}" for e in effects)
        + f" for 1e2 to 1e6 rows where Cohen's d is {min(cohen):.2f} to {max(cohen):.2f}.",
    )  # fmt: skip


def _skewed(rng: np.random.Generator) -> tuple[Array, Array]:
    return rng.exponential(size=100), rng.exponential(size=100)


def _heavy(rng: np.random.Generator) -> tuple[Array, Array]:
    """Student's t with 2 degrees of freedom, which has no variance."""
    return rng.standard_t(2, 100), rng.standard_t(2, 100)


def _alike(rng: np.random.Generator) -> tuple[Array, Array]:
    """20 conversations of 5 turns; half of the variance is the conversation's."""
    x, y = (np.repeat(rng.standard_normal(20), 5) + rng.standard_normal(100) for _ in range(2))
    return x, y


def _spread(rng: np.random.Generator) -> tuple[Array, Array]:
    """Uncorrelated, but y varies more where x is far out."""
    x = rng.standard_normal(100)
    return x, x * rng.standard_normal(100)


SHAPES: dict[str, Callable[[np.random.Generator], tuple[Array, Array]]] = {
    "skewed": _skewed, "heavy tails": _heavy, "turns alike": _alike, "uncorrelated only": _spread,
}  # fmt: skip


def permutation_free() -> Measured:
    """Rejections at 5 % where there is no correlation, over 1,000 samples of 100 rows each.

    Independent skewed and heavy-tailed rows; turns of a conversation that are alike; rows that are
    uncorrelated and yet not independent. 999 permutations. The value is for turns that are alike.

    Rule: the nominal rate is kept if the lower end of the 95 % interval is at or below 5 %.
    Reproduced if all keep it, refuted if none, else only if those do whose rows are exchangeable,
    the first two.
    """
    runs, rng = 1_000, np.random.default_rng(0)
    rates = {}
    for name, draw in SHAPES.items():
        rates[name] = sum(_p(*draw(rng), rng) <= LEVEL for _ in range(runs))
    kept = [share_interval(k, runs)[0] <= LEVEL for k in rates.values()]
    verdict = "reproduced" if all(kept) else "refuted"
    if kept == [True, True, False, False]:
        verdict = (
            "holds only when rows are exchangeable: independent of each other, and importance "
            "independent of the signal, not just uncorrelated"
        )
    low, high = share_interval(rates["turns alike"], runs)
    return Measured(
        100 * rates["turns alike"] / runs, "%", 100 * low, 100 * high, verdict,
        "rejected at 5 %: " + ", ".join(f"{k} {v / runs:.1%}" for k, v in rates.items()) + ".",
    )  # fmt: skip
