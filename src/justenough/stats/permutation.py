"""Permutation tests of a correlation, whose p-values hold at any sample size."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from justenough.compiled import spread
from justenough.errors import InputError
from justenough.stats.checks import checked_count, finite_vector, same_length, varying
from justenough.stats.counter import LARGEST_BOUND, below, new_key, starts, words
from justenough.stats.fast import kernels
from justenough.stats.totals import is_tensor

_Vector = NDArray[np.float64]
Alternative = Literal["two-sided", "greater", "less"]
# Values that the plain route shuffles at once, and permutations between two calls of tick.
_VALUES = 1 << 22
_BATCH = 8192


@dataclass(frozen=True, eq=False)
class PermutationTest:
    """What a permutation test found.

    Attributes:
        statistic: The correlation of the sample.
        p_value: Without any association it is at most p with probability at most p.
        exceedances: Permutations as extreme as the sample or more.
        permutations: Permutations that were drawn.
        rows: Number of rows, n.
        null: Correlation of each of them, in order, shape (permutations,).
    """

    statistic: float
    p_value: float
    exceedances: int
    permutations: int
    rows: int
    null: _Vector

    @property
    def standard_error(self) -> float:
        """Monte Carlo standard error of the p-value, for a number of permutations fixed before."""
        return math.sqrt(self.p_value * (1.0 - self.p_value) / self.permutations)

    @property
    def effect_size(self) -> float:
        """The correlation in standard deviations of all its permutations, 1 / sqrt(n - 1) each."""
        return self.statistic * math.sqrt(self.rows - 1)


def pearson_permutation_test(
    x: Any,
    y: Any,
    *,
    permutations: int,
    rng: np.random.Generator,
    alternative: Alternative = "two-sided",
    stop_after: int | None = None,
    tick: Callable[[int, int], None] | None = None,
) -> PermutationTest:
    """Return the permutation test of Pearson's correlation against no association.

    Rows must be exchangeable where there is none: independent, or averaged over each unit first.
    y is shuffled (Fisher-Yates; Knuth 1997, The Art of Computer Programming, volume 2, algorithm
    P) against x; p = (k + 1) / (B + 1) for k of B permutations at least as extreme, which is
    valid for every B (Phipson & Smyth 2010, Stat Appl Genet Mol Biol 9(1)). With `stop_after` = h
    the test stops at the h-th exceedance, number L, with p = h / L (Besag & Clifford 1991,
    Biometrika 78(2)), valid as well. Correlations that differ only by rounding count as equal.

    The shuffles follow from one key that `rng` gives and are the same on any number of threads,
    with and without Numba, though without it far slower. They are drawn on the processor, also
    for tensors: a shuffle is one chain of dependent swaps, and n numbers are quickly copied.

    Args:
        x: Array or tensor, shape (n,), n >= 3.
        y: Shape (n,).
        permutations: Number of permutations, B.
        rng: Gives one key of 64 bits.
        alternative: "greater" for a positive association, "less" for a negative one, "two-sided"
            for the absolute correlation.
        stop_after: Exceedances to stop at; without it, all permutations are drawn.
        tick: Called with permutations drawn and wanted; what it raises stops the test.

    Returns:
        The test, with its null distribution, 8 bytes a permutation.

    Raises:
        InputError: For constant or not finite values, fewer than 3 rows, lengths that differ, an
            unknown alternative, or numbers below 1.

    >>> x = np.arange(20.0)
    >>> found = pearson_permutation_test(
    ...     x, x**2, permutations=999, rng=np.random.default_rng(0), alternative="greater")
    >>> found.p_value, found.exceedances
    (0.001, 0)
    """
    first, second = _vector("x", x), _vector("y", y)
    n = same_length(x=first, y=second)
    if not 3 <= n <= LARGEST_BOUND:
        raise InputError(f"n is {n}; a permutation test needs 3 to {LARGEST_BOUND} rows")
    if alternative not in ("two-sided", "greater", "less"):
        raise InputError(f"alternative is {alternative!r}; take two-sided, greater or less")
    checked_count("permutations", permutations, 1)
    h = permutations + 1 if stop_after is None else checked_count("stop_after", stop_after, 1)
    a, b = _normed("x", first), _normed("y", second)
    observed = float(a @ b)
    key, done, hits = new_key(rng), 0, 0
    null = np.empty(permutations)
    # With a stop in view small batches, growing, so that little is drawn in vain.
    size = _BATCH if stop_after is None else min(_BATCH, 4 * h + 16)
    while done < permutations and hits < h:
        last = min(done + size, permutations)
        null[done:last] = shuffled_dots(key, done, last, a, b)
        extreme = np.flatnonzero(_as_extreme(null[done:last], observed, n, alternative))
        if hits + len(extreme) >= h:
            last = done + int(extreme[h - hits - 1]) + 1
            extreme = extreme[: h - hits]
        done, hits, size = last, hits + len(extreme), min(_BATCH, 2 * size)
        if tick:
            tick(done, permutations)
    p = h / done if hits == h else (hits + 1) / (done + 1)
    return PermutationTest(min(1.0, max(-1.0, observed)), p, hits, done, n, null[:done].copy())


def spearman_permutation_test(
    x: Any,
    y: Any,
    *,
    permutations: int,
    rng: np.random.Generator,
    alternative: Alternative = "two-sided",
    stop_after: int | None = None,
    tick: Callable[[int, int], None] | None = None,
) -> PermutationTest:
    """Return the permutation test of Spearman's correlation: Pearson's of midranks.

    Arguments, result and errors as for `pearson_permutation_test`.

    >>> x = np.arange(20.0)
    >>> found = spearman_permutation_test(
    ...     x, -np.exp(x), permutations=99, rng=np.random.default_rng(0))
    >>> round(found.statistic, 12)
    -1.0
    """
    first, second = _vector("x", x), _vector("y", y)
    return pearson_permutation_test(
        rankdata(first),
        rankdata(second),
        permutations=permutations,
        rng=rng,
        alternative=alternative,
        stop_after=stop_after,
        tick=tick,
    )


def shuffled_dots(key: int, first: int, last: int, x: _Vector, y: _Vector) -> _Vector:
    """Return the inner products of x with the shuffles of y number first..last-1.

    Args:
        key: 64 bits.
        first: Number of the first shuffle.
        last: Past the last.
        x: Shape (n,), n >= 1.
        y: Shape (n,).

    Returns:
        Shape (last - first,).

    >>> shuffled_dots(1, 0, 2, np.ones(5), np.arange(5.0))
    array([10., 10.])
    """
    out = np.empty(last - first)
    loops = kernels(len(out) * len(x))
    if loops:
        spread(
            lambda part: loops.shuffled_dots(
                np.uint64(key), np.uint64(first + part.start), x, y, np.empty(len(x)), out[part]
            ),
            len(out),
        )
        return out
    step = max(1, _VALUES // len(x))
    for i in range(0, len(out), step):
        j = min(i + step, len(out))
        out[i:j] = _plain(starts(key, first + i, first + j), x, y)
    return out


def _plain(begin: NDArray[np.int64], x: _Vector, y: _Vector) -> _Vector:
    """The compiled loop in NumPy: each step for all shuffles at once, the same sums in order."""
    n, rows = len(x), np.arange(len(begin))
    shuffled = np.repeat(y[:, None], len(begin), axis=1)  # places first: a step reads one row
    sums = np.zeros((2, len(begin)))
    drawn = below(begin, words(begin, n - 1), np.arange(n, 1, -1)).T.copy()
    for place, j in enumerate(drawn):
        i = n - 1 - place
        sums[place % 2] += x[i] * shuffled[j, rows]
        shuffled[j, rows] = shuffled[i]
    total: _Vector = (sums[0] + sums[1]) + x[0] * shuffled[0]
    return total


def _as_extreme(
    null: _Vector, observed: float, n: int, alternative: Alternative
) -> NDArray[np.bool_]:
    """Whether each is as extreme as the sample; rounding, at most n ulps of 1, decides nothing."""
    slack = max(1e-12, n * np.finfo(np.float64).eps)
    if alternative == "greater":
        return null >= observed - slack
    if alternative == "less":
        return null <= observed + slack
    return np.abs(null) >= abs(observed) - slack


def _vector(name: str, values: Any) -> _Vector:
    return finite_vector(name, values.detach().cpu().numpy() if is_tensor(values) else values)


def _normed(name: str, values: _Vector) -> _Vector:
    """Centred, with a sum of squares of 1."""
    centred = varying(name, values, "a constant has no correlation") / np.abs(values).max()
    centred -= centred.mean()
    normed: _Vector = centred / math.sqrt(float(centred @ centred))
    return normed
