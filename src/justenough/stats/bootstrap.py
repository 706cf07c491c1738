"""The bootstrap of correlations for many weight vectors at once, over independent units.

A resample enters a correlation through its totals alone (`justenough.stats.totals`), and those
are counts times the units' totals: one matrix product serves all resamples and all weights.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri

from justenough.compiled import spread
from justenough.errors import InputError
from justenough.stats.checks import checked_alpha, checked_count, checked_units
from justenough.stats.counter import LARGEST_BOUND, below, new_key, starts, words
from justenough.stats.fast import Kernels, kernels
from justenough.stats.moments import Moments, UnitTotals, unit_totals
from justenough.stats.totals import (
    checked_weights,
    correlations,
    gradients,
    is_tensor,
    local,
    shift,
)

_Array = NDArray[np.float64]
Tick = Callable[[int, int], None]
"""Called with the number of replicates done and wanted; what it raises stops the work."""

CHUNK_BYTES = 1 << 26
"""Counts of a chunk of resamples take at most this (one resample at least); on a GPU 16 times."""
_TILE_BYTES = 1 << 22


@dataclass(frozen=True, eq=False)
class CorrelationBootstrap:
    """Correlations of m weighted sums with the outcome, and their bootstrap replicates.

    The intervals are asymptotic, and leave no room for rare rows that the sample does not hold.

    Attributes:
        estimates: Of the sample, shape (m,).
        standard_errors: From influences summed within units, shape (m,).
        replicates: Shape (b, m).
        accelerations: Efron's a, shape (m,); None where only moments were known.
        replicate_errors: Standard errors of each replicate, shape (b, m), where asked for.
    """

    estimates: _Array
    standard_errors: _Array
    replicates: _Array
    accelerations: _Array | None = None
    replicate_errors: _Array | None = None

    def percentile(self, *, alpha: float) -> tuple[_Array, _Array]:
        """Return lower and upper bounds: the alpha and 1 - alpha quantiles of the replicates.

        Efron & Tibshirani 1993, An Introduction to the Bootstrap, section 13.3.

        Args:
            alpha: Allowed probability that one bound is wrong, in (0, 1/2); both: 2 alpha.

        Returns:
            Two of shape (m,).

        Raises:
            InputError: For alpha outside (0, 1/2), or too few replicates to reach it.
        """
        self._checked(alpha)
        low, high = np.quantile(self.replicates, (alpha, 1.0 - alpha), axis=0)
        return low, high

    def bca(self, *, alpha: float) -> tuple[_Array, _Array]:
        """Return lower and upper bounds, bias-corrected and accelerated (BCa).

        Efron 1987 (JASA 82(397)), as in Efron & Tibshirani 1993, equations 14.10 and 14.14: z0
        from the share of replicates below the estimate, ties counted half, and a from the
        skewness of the influences (`acceleration`).

        Args:
            alpha: As for `percentile`.

        Returns:
            Two of shape (m,).

        Raises:
            InputError: As `percentile`; where there are no accelerations; where an adjusted
                quantile lies beyond the replicates, as with too few of them.
        """
        self._checked(alpha)
        if self.accelerations is None:
            raise InputError("there are no accelerations; BCa needs the units, not moments alone")
        return bca_bounds(self.estimates, self.replicates, self.accelerations, alpha=alpha)

    def studentised(self, *, alpha: float) -> tuple[_Array, _Array]:
        """Return lower and upper bounds of the bootstrap-t, on the scale of Fisher's z.

        Efron & Tibshirani 1993, section 12.5; Hall, Martin & Schucany 1989 (J Stat Comput Simul
        33(3)): without the transformation the bounds are wild. The error of each replicate is
        its own infinitesimal jackknife, divided by 1 - r**2 on that scale.

        Args:
            alpha: As for `percentile`.

        Returns:
            Two of shape (m,).

        Raises:
            InputError: As `percentile`; where there are no errors of the replicates; where a
                correlation is -1 or 1, which has no such scale.
        """
        self._checked(alpha)
        if self.replicate_errors is None:
            raise InputError("there are no errors of the replicates; ask for studentised=True")
        if max(np.abs(self.estimates).max(), np.abs(self.replicates).max()) >= 1.0:
            raise InputError("a correlation is -1 or 1; Fisher's z needs |r| < 1, take BCa")
        z, error = np.arctanh(self.estimates), self.standard_errors / (1.0 - self.estimates**2)
        errors = self.replicate_errors / (1.0 - self.replicates**2)
        if not (errors > 0.0).all():
            raise InputError("a replicate has standard error 0; studentising needs it above 0")
        t = np.quantile((np.arctanh(self.replicates) - z) / errors, (alpha, 1.0 - alpha), axis=0)
        return np.tanh(z - t[1] * error), np.tanh(z - t[0] * error)

    def _checked(self, alpha: float) -> None:
        if checked_alpha(alpha) >= 0.5:
            raise InputError(f"alpha is {alpha}; two bounds need it below 0.5")
        needed = math.ceil(1.0 / alpha)
        if len(self.replicates) < needed:
            got = f"{len(self.replicates)} replicates"
            raise InputError(f"{got}; alpha = {alpha:g} needs at least {needed}")


def bca_bounds(
    estimates: _Array, replicates: _Array, accelerations: _Array, *, alpha: float
) -> tuple[_Array, _Array]:
    """Return BCa bounds of any statistics from their replicates, as `CorrelationBootstrap.bca`.

    Args:
        estimates: Shape (m,).
        replicates: Shape (b, m).
        accelerations: Shape (m,), such as from `acceleration`.
        alpha: Allowed probability that one bound is wrong, in (0, 1/2).

    Returns:
        Two of shape (m,).

    Raises:
        InputError: Where all replicates lie on one side of the estimate, or an adjusted quantile
            lies beyond them.

    >>> spread = np.linspace(-1.0, 1.0, 2001)[:, None]
    >>> low, high = bca_bounds(np.zeros(1), spread, np.zeros(1), alpha=0.05)
    >>> low.round(3), high.round(3)
    (array([-0.9]), array([0.9]))
    """
    b = len(replicates)
    lower_than = (replicates < estimates).sum(0) + 0.5 * (replicates == estimates).sum(0)
    aside = (lower_than < 0.5) | (lower_than > b - 0.5)
    if aside.any():
        column = int(np.flatnonzero(aside)[0])
        raise InputError(f"all {b} replicates of statistic {column} lie on one side of it")
    z0 = ndtri(lower_than / b)
    ends = []
    for probability in (alpha, 1.0 - alpha):
        z = z0 + ndtri(probability)
        room = 1.0 - accelerations * z  # at 0 the transformation of the paper ends
        adjusted = ndtr(z0 + z / np.where(room > 0.0, room, np.nan))
        reached = np.minimum(adjusted, 1.0 - adjusted) * b >= 1.0
        if not reached.all():
            column = int(np.flatnonzero(~reached)[0])
            got = f"statistic {column} needs quantile {adjusted[column]:g} of {b} replicates"
            raise InputError(f"{got}; take more replicates, or a larger alpha")
        ends.append(
            np.array([np.quantile(r, q) for r, q in zip(replicates.T, adjusted, strict=True)])
        )
    return ends[0], ends[1]


def acceleration(influences: _Array) -> _Array:
    """Return Efron's acceleration a, a sixth of the skewness of the influences' sum.

    Efron & Tibshirani 1993, equation 14.15, there with the jackknife's influences.

    Args:
        influences: Of each unit on each statistic, with mean 0, shape (g, m).

    Returns:
        Shape (m,).

    Raises:
        InputError: If all influences on a statistic are 0.

    >>> acceleration(np.array([[-1.0], [-1.0], [2.0]])).round(4)
    array([0.068])
    """
    return _acceleration((influences**2).sum(0), (influences**3).sum(0))


def _acceleration(squares: _Array, cubes: _Array) -> _Array:
    if not (squares > 0.0).all():
        column = int(np.flatnonzero(~(squares > 0.0))[0])
        raise InputError(f"no unit has influence on statistic {column}; BCa needs a spread")
    return cubes / (6.0 * squares**1.5)


def bootstrap_correlations(
    rows: Any,
    weights: ArrayLike,
    *,
    replicates: int,
    rng: np.random.Generator,
    units: ArrayLike | None = None,
    studentised: bool = False,
    tick: Tick | None = None,
) -> CorrelationBootstrap:
    """Return bootstrap replicates of the correlation of each weighted sum with the outcome.

    Units are drawn with replacement, as many as there are, and all rows of a unit come with it.

    Args:
        rows: Array or tensor, shape (n, d), the outcome last; resampled where it is.
        weights: Shape (m, d - 1), or (d - 1,) for one.
        replicates: Number of resamples, b.
        rng: Gives one key, from which all resamples follow.
        units: Id of the independent unit of each row, shape (n,); without it, rows.
        studentised: Whether to find the standard error of each replicate too (about 12 times the
            arithmetic).
        tick: Called after each chunk of resamples.

    Returns:
        The replicates, 8 b m bytes, and what the intervals need.

    Raises:
        InputError: For fewer than 30 units, rows, weights or units that do not fit, or a resample
            in which the outcome or a sum is constant.

    >>> rng = np.random.default_rng(0)
    >>> rows = rng.standard_normal((200, 3))
    >>> found = bootstrap_correlations(rows, [1.0, 0.5], replicates=500, rng=rng)
    >>> low, high = found.percentile(alpha=0.05)
    >>> bool(low[0] < found.estimates[0] < high[0])
    True
    """
    sample = unit_totals(rows, units)
    checked_units(len(sample.totals))
    checked_weights(weights, len(sample.origin))
    found = resample(sample, replicates, rng, second_order=studentised, tick=tick)
    return from_resamples(sample, weights, found)


def resample(
    sample: UnitTotals,
    replicates: int,
    rng: np.random.Generator,
    *,
    first: int = 0,
    second_order: bool = False,
    tick: Tick | None = None,
) -> _Array:
    """Return the totals of resamples number `first` to `first + replicates - 1`.

    Their units are the same in any chunks, on any number of threads and device, with and without
    Numba: each resample has its own stream of a counter (`justenough.stats.counter`), whose key
    `rng` gives. So a run that was stopped goes on from what it has kept, with `rng` in the state
    it had at the start and `first` the number of resamples kept. Equal but for the
    rounding of sums. Memory: `CHUNK_BYTES` for counts, and what comes back.

    Args:
        sample: From `unit_totals`.
        replicates: How many, at least 1.
        rng: Gives one key of 64 bits.
        first: Number of the first one, at least 0.
        second_order: Whether to sum the products of two totals of a unit too, which standard
            errors of replicates need.
        tick: Called after each chunk.

    Returns:
        Shape (replicates, q), or (replicates, q + q(q+1)/2).

    Raises:
        InputError: For numbers below these, or 2**31 units or more.

    >>> sample = unit_totals(np.random.default_rng(0).standard_normal((50, 2)))
    >>> whole = resample(sample, 6, np.random.default_rng(1))
    >>> rest = resample(sample, 2, np.random.default_rng(1), first=4)
    >>> np.allclose(rest, whole[4:], rtol=1e-12, atol=1e-12)
    True
    """
    replicates, first = (
        checked_count("replicates", replicates, 1),
        checked_count("first", first, 0),
    )
    g, q = sample.totals.shape
    if g > LARGEST_BOUND:
        raise InputError(f"{g} units; resampling takes at most {LARGEST_BOUND}, use moments")
    key = new_key(rng)
    width = q + q * (q + 1) // 2 if second_order else q
    out = np.empty((replicates, width))
    loops = None if is_tensor(sample.totals) else kernels(replicates * g)
    bytes_each = g if loops else 64 * g  # eight working arrays of eight bytes on the plain route
    room = 16 * CHUNK_BYTES if is_tensor(sample.totals) and sample.totals.is_cuda else CHUNK_BYTES
    step = max(1, min(replicates, room // bytes_each))
    for done in range(0, replicates, step):
        last = min(done + step, replicates)
        counts = multinomial_counts(key, first + done, first + last, sample.totals, loops)
        out[done:last] = _weighted(counts, sample.totals, width)
        if tick:
            tick(last, replicates)
    return out


def from_resamples(
    sample: UnitTotals, weights: ArrayLike, resampled: _Array
) -> CorrelationBootstrap:
    """Return the bootstrap of correlations for any weights from what `resample` returned.

    Args:
        sample: From `unit_totals`.
        weights: Shape (m, d - 1), or (d - 1,) for one.
        resampled: All chunks of `resample`, concatenated, of either width.

    Raises:
        InputError: As `bootstrap_correlations`.

    >>> sample = unit_totals(np.random.default_rng(0).standard_normal((50, 2)))
    >>> resampled = resample(sample, 100, np.random.default_rng(1))
    >>> from_resamples(sample, [1.0], resampled).replicates.shape
    (100, 1)
    """
    d = len(sample.origin)
    checked = checked_weights(weights, d)
    q = 1 + d + d * (d + 1) // 2
    g = len(sample.totals)
    squares, cubes = np.zeros((2, len(checked)))
    slope = gradients(sample.moments().totals[None], checked)[0].T
    step = max(1, _TILE_BYTES // (8 * len(checked)))
    for first in range(0, g, step):
        influences = local(sample.totals[first : first + step]) @ slope
        squares += np.einsum("um,um->m", influences, influences)
        cubes += (influences * influences * influences).sum(0)
    errors = np.sqrt(_factor(g) * squares)
    replicates = correlations(resampled[:, :q], checked)
    own = _errors(resampled, checked, g) if resampled.shape[1] > q else None
    estimates = correlations(sample.moments().totals[None], checked)[0]
    return CorrelationBootstrap(estimates, errors, replicates, _acceleration(squares, cubes), own)


def bootstrap_by_moments(
    moments: Moments, weights: ArrayLike, *, replicates: int, rng: np.random.Generator
) -> CorrelationBootstrap:
    """Return replicates without resampling: normal draws of the totals, for any number of rows.

    The totals of a resample are a sum over g independent draws of a unit; by the central limit
    theorem they are normal with the covariance of those draws, and the correlations are then
    taken from them as from a resample. In place of b g draws, b q. What is lost is the skewness
    of the totals, of order 1 / sqrt(g): with light tails it does not show beyond some hundred
    units; with heavy ones it takes thousands, and where single rows hold much of a variance the
    sample is refused.

    Args:
        moments: Of the sample.
        weights: Shape (m, d - 1), or (d - 1,) for one.
        replicates: Number of draws, b.
        rng: Draws them.

    Returns:
        Replicates without accelerations and errors: for `percentile` only.

    Raises:
        InputError: For fewer than 30 units, weights that do not fit, or so few units that a draw
            has no positive variance.

    >>> rng = np.random.default_rng(0)
    >>> from justenough.stats.moments import moments
    >>> found = bootstrap_by_moments(
    ...     moments(rng.standard_normal((5000, 3))), [1.0, 0.5], replicates=4000, rng=rng)
    >>> bool(abs(found.replicates.std() / found.standard_errors[0] - 1.0) < 0.05)
    True
    """
    checked_units(moments.units)
    checked_count("replicates", replicates, 1)
    checked = checked_weights(weights, len(moments.origin))
    centred = moments.centred()
    covariance = centred.cross - np.outer(centred.totals, centred.totals) / moments.units
    # Scaled, as totals of order 0, 1 and 2 have different units; rows of equal units are constant.
    scale = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    scale[scale == 0.0] = 1.0
    values, vectors = np.linalg.eigh(covariance / np.outer(scale, scale))
    root = scale[:, None] * vectors * np.sqrt(np.maximum(values, 0.0))
    draws = centred.totals + rng.standard_normal((replicates, len(root))) @ root.T
    try:
        found = correlations(draws, checked)
    except InputError as error:
        got = f"{moments.units} units; a normal draw of their totals has no positive variance"
        raise InputError(f"{got}: resample the units instead") from error
    return CorrelationBootstrap(
        centred.correlations(checked), centred.standard_errors(checked), found
    )


def multinomial_counts(
    key: int, first: int, last: int, like: Any, loops: Kernels | None = None
) -> Any:
    """Return how often each unit is drawn in the resamples first..last-1.

    Args:
        key: 64 bits.
        first: Number of the first resample.
        last: Past the last.
        like: Array or tensor with one row for each of g units.
        loops: Compiled loops for an array, where they pay.

    Returns:
        Shape (last - first, g), rows with sum g; uint8 for an array, float64 for a tensor.

    >>> multinomial_counts(1, 0, 3, np.empty((40, 1))).sum(1)
    array([40, 40, 40], dtype=uint64)
    """
    g, b = len(like), last - first
    begin: Any = starts(key, first, last)
    bounds: Any = np.full(g, g)
    if is_tensor(like):
        whole = like.new_ones(1).long()
        begin, bounds = whole.new_tensor(begin), whole.new_tensor(bounds)
    elif loops:
        # More than 255 draws of one unit out of g > 255 have probability below 1e-500.
        counts = np.zeros((b, g), np.uint8)
        spread(
            lambda part: loops.counts(np.uint64(key), np.uint64(first + part.start), counts[part]),
            b,
        )
        return counts
    drawn = below(begin, words(begin, g), bounds)
    if is_tensor(like):
        found = like.new_zeros((b, g))
        return found.scatter_add_(1, drawn, like.new_ones((b, g)))
    flat = drawn + g * np.arange(b)[:, None]
    return np.bincount(flat.ravel(), minlength=b * g).reshape(b, g).astype(np.uint8)


def _weighted(counts: Any, totals: Any, width: int) -> _Array:
    """Counts times totals, and times products of two totals where the width has room for them."""
    g, q = totals.shape
    j, k = np.triu_indices(q)
    tensor = is_tensor(totals)
    step = g if tensor and width == q else max(1, _TILE_BYTES // (8 * max(len(counts), width)))
    out = totals.new_zeros((len(counts), width)) if tensor else np.zeros((len(counts), width))
    for first in range(0, g, step):
        part = totals[first : first + step]
        some = counts[:, first : first + step]
        some = some if tensor else some.astype(np.float64)
        out[:, :q] += some @ part
        if width > q:
            out[:, q:] += some @ (part[:, j] * part[:, k])
    return local(out)


def _errors(resampled: _Array, weights: _Array, g: int) -> _Array:
    """Standard error of each replicate, shape (b, m)."""
    d, width = 0, resampled.shape[1]
    while (q := 1 + d + d * (d + 1) // 2) + q * (q + 1) // 2 < width:
        d += 1
    j, k = np.triu_indices(q)
    found = np.empty((len(resampled), len(weights)))
    step = max(1, CHUNK_BYTES // (8 * (2 * len(weights) * q + 3 * q * q)))
    for first in range(0, len(resampled), step):
        part = resampled[first : first + step]
        totals = part[:, :q]
        # Influences are about the replicate's own mean: totals are moved there first.
        move = shift(d, -totals[:, 1 : 1 + d] / totals[:, :1])
        slope = gradients((move @ totals[:, :, None])[:, :, 0], weights) @ move
        cross = np.empty((len(part), q, q))
        cross[:, j, k] = cross[:, k, j] = part[:, q:]
        variance = ((slope @ cross) * slope).sum(2)
        found[first : first + step] = np.sqrt(np.maximum(variance, 0.0) * _factor(g))
    return found


def _factor(g: int) -> float:
    return g / (g - 1)
