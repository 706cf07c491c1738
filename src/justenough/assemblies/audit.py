"""Whether a source of edges is the random graph G(n, p) that it claims to be.

Generators that hash source and target together can have the right density and still be far
from independent edges: whole columns repeat, or neurons share far too many inputs. Each check
compares one statistic with its law under independent edges, and together they are a test at
level alpha (Bonferroni).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, binomtest, chi2, chisquare

from justenough.errors import InputError


@dataclass(frozen=True)
class Check:
    """One statistic beside what independent edges give.

    Attributes:
        name: What is looked at.
        observed: The statistic.
        expected: Its mean under independent edges.
        p_value: Chance of a statistic at least as far off.
    """

    name: str
    observed: float
    expected: float
    p_value: float


@dataclass(frozen=True)
class Audit:
    """What the checks found.

    Attributes:
        checks: In a fixed order.
        alpha: Chance that a truly random graph fails.
    """

    checks: tuple[Check, ...]
    alpha: float

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the checks that speak against independent edges."""
        level = self.alpha / len(self.checks)
        return tuple(c.name for c in self.checks if not c.p_value >= level)

    @property
    def passed(self) -> bool:
        """Whether nothing speaks against independent edges."""
        return not self.failed


def audit(
    row: Callable[[int], NDArray[np.int64]],
    sources: int,
    targets: int,
    p: float,
    rng: np.random.Generator,
    alpha: float = 1e-3,
) -> Audit:
    """Audit the edges from sources 0..s-1 to targets 0..t-1; s*t bytes of memory.

    Args:
        row: Called with a source; the targets that it has an edge to, each once. Ids of t and
            more are left out.
        sources: s, at least 100.
        targets: t, at least 100.
        p: Probability of an edge that is claimed.
        rng: Pairs up the targets.
        alpha: Chance that a truly random graph fails.

    Raises:
        InputError: A number is out of range, or a row names a target twice.

    >>> from justenough.assemblies.graph import ImpliedGraph
    >>> graph = ImpliedGraph(2000, 0.05, seed=1)
    >>> audit(graph.row, 500, 2000, 0.05, np.random.default_rng(0)).passed
    True
    """
    if min(sources, targets) < 100:
        raise InputError(f"{sources} sources and {targets} targets; give at least 100 of each")
    if not 0 < p < 1 or not 0 < alpha < 1:
        raise InputError(f"p={p} and alpha={alpha}; both are above 0 and below 1")
    edges = np.zeros((sources, targets), np.bool_)
    for j in range(sources):
        ids = np.asarray(row(j))
        ids = ids[ids < targets]
        edges[j, ids] = True
        if np.count_nonzero(edges[j]) != len(ids):
            raise InputError(f"row {j} names a target twice, or one below 0")
    inward, outward = edges.sum(0), edges.sum(1)
    checks = (
        _density(edges, p),
        _in_degree(inward, sources, p),
        _dispersion("in-degree variance", inward, sources, p),
        _dispersion("out-degree variance", outward, targets, p),
        *_shared(edges, p, rng),
        _equal_columns(edges, p),
        _reciprocity(edges, p),
    )
    return Audit(checks, alpha)


def _density(edges: NDArray[np.bool_], p: float) -> Check:
    number = int(np.count_nonzero(edges))
    return Check("edges", number, edges.size * p, binomtest(number, edges.size, p).pvalue)


def _in_degree(degrees: NDArray[Any], sources: int, p: float) -> Check:
    """Pearson's chi-square against Binomial(s, p), neighbouring degrees joined up to 5."""
    expected = binom.pmf(np.arange(sources + 1), sources, p) * len(degrees)
    observed = np.bincount(degrees, minlength=sources + 1)
    joined: list[tuple[float, int]] = []
    mass, seen = 0.0, 0
    for e, o in zip(expected, observed, strict=True):
        mass, seen = mass + float(e), seen + int(o)
        if mass >= 5:
            joined.append((mass, seen))
            mass, seen = 0.0, 0
    if joined:
        joined[-1] = (joined[-1][0] + mass, joined[-1][1] + seen)
    if len(joined) < 2:
        return Check("in-degree chi-square", 0.0, 0.0, 1.0)
    want, got = (np.array(x) for x in zip(*joined, strict=True))
    found = chisquare(got, want * got.sum() / want.sum())
    return Check("in-degree chi-square", float(found.statistic), len(got) - 1.0, found.pvalue)


def _dispersion(name: str, degrees: NDArray[Any], trials: int, p: float) -> Check:
    """The mean squared deviation over the variance v of Binomial(trials, p).

    Compared with the chi-square law of the same mean and variance; the variance is exact, as
    the fourth central moment of a binomial is v (1 + 3 v - 6 p (1 - p)).
    """
    variance = trials * p * (1 - p)
    ratio = float(np.mean((degrees - trials * p) ** 2) / variance)
    fourth = variance * (1 + 3 * variance - 6 * p * (1 - p))
    freedom = 2 * len(degrees) / (fourth / variance**2 - 1)
    upper, lower = chi2.sf(ratio * freedom, freedom), chi2.cdf(ratio * freedom, freedom)
    return Check(name, ratio, 1.0, float(min(1.0, 2 * min(upper, lower))))


def _shared(edges: NDArray[np.bool_], p: float, rng: np.random.Generator) -> tuple[Check, Check]:
    """Common in-neighbours of disjoint pairs of targets: independent Binomial(s, p**2)."""
    sources, targets = edges.shape
    mixed = rng.permutation(targets)
    half = targets // 2
    first, second = mixed[:half], mixed[half : 2 * half]
    shared = np.zeros(half, np.int64)
    for j in range(sources):
        shared += edges[j, first] & edges[j, second]
    total = int(shared.sum())
    mean = Check(
        "common in-neighbours, mean",
        total / half,
        sources * p**2,
        binomtest(total, sources * half, p**2).pvalue,
    )
    squares = _dispersion("common in-neighbours, variance", shared, sources, p**2)
    return mean, squares


def _equal_columns(edges: NDArray[np.bool_], p: float) -> Check:
    """Pairs of targets with the same sources; Markov's inequality bounds their chance."""
    sources, targets = edges.shape
    packed = np.ascontiguousarray(np.packbits(edges, axis=0).T)
    _, times = np.unique(packed, axis=0, return_counts=True)
    pairs = targets * (targets - 1) / 2 * (p**2 + (1 - p) ** 2) ** sources
    equal = int((times * (times - 1) // 2).sum())
    chance = min(1.0, pairs / equal) if equal else 1.0
    return Check("pairs of equal columns", equal, pairs, chance)


def _reciprocity(edges: NDArray[np.bool_], p: float) -> Check:
    """Pairs of neurons with edges both ways: Binomial(pairs, p**2)."""
    size = min(edges.shape)
    square = edges[:size, :size]
    both = int(np.count_nonzero(np.triu(square & square.T, 1)))
    pairs = size * (size - 1) // 2
    return Check("edges both ways", both, pairs * p**2, binomtest(both, pairs, p**2).pvalue)
