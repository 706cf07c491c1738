"""Claims on rankings: what INT8 does to Spearman's correlation and to the top K.

Rounding to a level keeps the order up to ties, so both follow from how many scores share a level.
With shares p of n distinct scores, Spearman's correlation of midranks is the square root of
1 - (sum(p**3) - 1/n**2) / (1 - 1/n**2): the rank variance within a level is lost. With t scores
on the level of the K-th and u places left for them, ties broken at random, the expected overlap
is 1 - u (t - u) / (t K).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from justenough.formats.integers import IntFormat
from justenough.ledger import Measured
from justenough.stats.ranks import top_weights

Vector = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Vector]
SEEDS = 3
SIZES = (10_000, 100_000, 1_000_000)
TOP = 1000
# Shapes of scores: probabilities; z-scores; PHRED of uniform p-values; association statistics;
# qualities over one and over four decades.
GENOMIC: dict[str, Draw] = {
    "uniform": lambda rng, n: rng.random(n),
    "normal": lambda rng, n: rng.standard_normal(n),
    "exponential": lambda rng, n: rng.exponential(4.34, n),
    "chi-square, 1 df": lambda rng, n: rng.chisquare(1, n),
    "lognormal, sd 0.5": lambda rng, n: rng.lognormal(3.0, 0.5, n),
    "lognormal, sd 2": lambda rng, n: rng.lognormal(3.0, 2.0, n),
}
# Docking-like scores, larger is better.
AFFINITY: dict[str, Draw] = {
    "normal": lambda rng, n: -np.minimum(rng.normal(-6.5, 1.2, n), 0.0),
    "gamma": lambda rng, n: rng.gamma(20.0, 0.33, n),
    "uniform": lambda rng, n: rng.uniform(0, 12, n),
}


@dataclass(frozen=True)
class Top:
    """What INT8 did to the top K of one array of scores.

    Attributes:
        clipped: Range of the levels.
        overlap: Expected overlap, ties broken at random.
        worst: Overlap when ties are broken the worst way.
        tied: Scores on the level of the K-th.
        places: Places left for them.
    """

    clipped: str
    overlap: float
    worst: float
    tied: int
    places: int


RANGES: dict[str, Callable[[Vector], Vector]] = {
    "max": lambda x: x,
    "99.9 % quantile": lambda x: np.minimum(x, np.quantile(x, 0.999)),
    "99 % quantile": lambda x: np.minimum(x, np.quantile(x, 0.99)),
}


def quantized(x: Vector, clipped: str = "max") -> Vector:
    """Scores of shape (n,) on 256 levels from the smallest to the largest, or to a quantile."""
    values = RANGES[clipped](x).astype(np.float32)
    return IntFormat(8, symmetric=False).round(values).astype(np.float64)


def top(x: Vector, clipped: str, k: int) -> Top:
    """Compare the top `k` of scores of shape (n,) before and after INT8."""
    y = quantized(x, clipped)
    overlap = float((top_weights(x, k) * top_weights(y, k)).sum() / k)
    threshold = np.partition(y, -k)[-k]
    tied, above = int((y == threshold).sum()), int((y > threshold).sum())
    worst = (above + max(0, 2 * (k - above) - tied)) / k
    return Top(clipped, overlap, worst, tied, k - above)


def rho_and_shares(x: Vector) -> tuple[float, float]:
    """Spearman's correlation of scores and their INT8 levels, and the levels' cubed shares."""
    y = quantized(x)
    counts = np.unique(y, return_counts=True)[1]
    rho = np.corrcoef(rankdata(x), rankdata(y))[0, 1]
    return float(rho), float(((counts / len(x)) ** 3).sum())


def scores(draw: Draw, seed: int, n: int) -> Vector:
    """Scores of shape (n,) as a file of float32 holds them."""
    return draw(np.random.default_rng(seed), n).astype(np.float32).astype(np.float64)


def int8_spearman() -> Measured:
    """Spearman's correlation of scores and their INT8 codes, levels spread over all of the range.

    Six shapes of scores, n from 1e4 to 1e6, 3 seeds each.

    Rule: above 0.995 for every array, reproduced; for none, refuted; for just those whose cubed
    level shares sum to less than 1 - 0.995**2, only then.
    """
    found = {
        name: [rho_and_shares(scores(draw, s, n)) for n in SIZES for s in range(SEEDS)]
        for name, draw in GENOMIC.items()
    }
    every = [pair for pairs in found.values() for pair in pairs]
    limit = 1 - 0.995**2
    kept, predicted = [rho > 0.995 for rho, _ in every], [shares < limit for _, shares in every]
    verdict = "reproduced" if all(kept) else "refuted"
    if any(kept) and not all(kept) and kept == predicted:
        verdict = (
            "holds only when no level takes many scores: the cubes of the levels' shares of the "
            f"scores sum to less than {limit:.6f}"
        )
    each = "; ".join(f"{k} {min(v)[0]:.4f} to {max(v)[0]:.4f}" for k, v in found.items())
    return Measured(
        min(every)[0], "", min(every)[0], max(every)[0], verdict,
        f"Spearman's correlation by shape of the scores: {each}.",
    )  # fmt: skip


def int8_overlap() -> Measured:
    """Expected overlap of the top 1000 before and after INT8, ties broken at random.

    Shapes and sizes as for the correlation; levels up to the maximum, and up to the 99.9 % and
    99 % quantiles, above which scores tie.

    Rule: see `_overlap`, with at least 97 %.
    """
    found = [
        top(x, clipped, TOP)
        for draw in GENOMIC.values()
        for n in SIZES
        for seed in range(SEEDS)
        for x in [scores(draw, seed, n)]
        for clipped in RANGES
    ]
    return _overlap(found, 0.97, 0.99)


def screening_overlap() -> Measured:
    """Expected overlap of the top 1000 of a million docking-like scores, before and after INT8.

    Three shapes, three ranges of the levels, 3 seeds each.

    Rule: see `_overlap`, with at least 95 %.
    """
    found = [
        top(x, clipped, TOP)
        for draw in AFFINITY.values()
        for seed in range(SEEDS)
        for x in [scores(draw, seed, 1_000_000)]
        for clipped in RANGES
    ]
    return _overlap(found, 0.95, 0.98)


def _overlap(found: list[Top], low: float, high: float) -> Measured:
    """Rule: at least `low` in every case, reproduced; in none, refuted.

    Else, where overlap is at least `low` just when u (t - u) / t is at most 1 - `low` of K, for u
    places left and t scores on the level of the K-th: only then.
    """
    kept = [c.overlap >= low for c in found]
    predicted = [c.places * (c.tied - c.places) / c.tied <= (1 - low) * TOP for c in found]
    verdict = "reproduced" if all(kept) else "refuted"
    if any(kept) and not all(kept) and kept == predicted:
        verdict = (
            "holds only when few scores share the level of the K-th: with t there and u places "
            f"left for them, u (t - u) / t is at most {1 - low:.0%} of K"
        )
    overlaps = [c.overlap for c in found]
    within = float(np.mean([low <= o <= high for o in overlaps]))
    above = float(np.mean([o > high for o in overlaps]))
    ranges = dict.fromkeys(c.clipped for c in found)
    by_range = {r: [c.overlap for c in found if c.clipped == r] for r in ranges}
    each = "; ".join(f"{r} {min(o):.1%} to {max(o):.1%}" for r, o in by_range.items())
    return Measured(
        100 * float(np.median(overlaps)), "%", 100 * min(overlaps), 100 * max(overlaps), verdict,
        f"Of {len(found)} arrays {np.mean(kept):.0%} keep at least {low:.0%}: {within:.0%} up to "
        f"{high:.0%}, {above:.0%} more. By range of the levels: {each}. Ties broken the worst way "
        f"leave {min(c.worst for c in found):.0%} at least.",
    )  # fmt: skip


def spearman_formula() -> Measured:
    """The formula 1 - 6 sum(d**2) / (n (n**2 - 1)) against the correlation of midranks.

    Rule: equal within 1e-9 with and without ties, reproduced; without ties alone, only then; else
    refuted.
    """
    rng = np.random.default_rng(0)
    apart: dict[int, float] = {}
    for levels in (0, 256, 64, 16, 4, 2):
        x = rng.standard_normal(10_000)
        y = x + 0.3 * rng.standard_normal(10_000)
        if levels:
            y = np.floor(rankdata(y) * levels / 10_001)
        a, b = rankdata(x), rankdata(y)
        rho = float(np.corrcoef(a, b)[0, 1])
        n = float(len(a))
        apart[levels] = 1 - 6 * float(((a - b) ** 2).sum()) / (n * (n**2 - 1)) - rho
    same, tied = abs(apart[0]) < 1e-9, max(abs(v) for k, v in apart.items() if k)
    verdict = "refuted"
    if same:
        verdict = "reproduced" if tied < 1e-9 else "holds only when no two scores are equal"
    each = ", ".join(f"{v:+.1e} at {k} levels" for k, v in apart.items() if k)
    return Measured(
        tied, "", None, None, verdict,
        f"Without ties the two agree to {abs(apart[0]):.0e}; of 10,000 scores in levels that take "
        f"equally many the formula is off by {each}.",
    )  # fmt: skip


def ranking_argmax() -> Measured:
    """Whether a correlation above 0.99 keeps the largest of 100 scores the largest.

    Rule: one pair of scores with a correlation above 0.99 and another argmax refutes it.
    """
    n = 100
    x = np.arange(n, dtype=np.float64)
    place = next(k for k in range(n) if _moved(x, k) > 0.99)
    rho = _moved(x, place)
    return Measured(
        rho, "", None, None, "refuted" if place < n - 1 else "reproduced",
        f"The largest of {n} scores may fall to place {n - place} at a correlation of {rho:.4f}.",
    )  # fmt: skip


def _moved(x: Vector, place: int) -> float:
    """Spearman's correlation after the largest of sorted scores fell below that of `place`."""
    y = x.copy()
    y[-1] = x[place] - 0.5
    return float(np.corrcoef(rankdata(x), rankdata(y))[0, 1])


def predicted_rho(shares: float, n: int) -> float:
    """Spearman's correlation of n distinct scores and their levels, from the cubed shares.

    >>> predicted_rho(1 / 100**2, 100)
    1.0
    """
    return math.sqrt(max(0.0, 1 - (shares - 1 / n**2) / (1 - 1 / n**2)))
