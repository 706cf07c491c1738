"""Moments in one pass over the rows, from which correlations for any weights come out later."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from justenough.errors import InputError
from justenough.stats.checks import checked_units, group_index
from justenough.stats.fast import Kernels, kernels
from justenough.stats.totals import (
    block_totals,
    checked_weights,
    correlations,
    gradients,
    is_tensor,
    local,
    shift,
)

_Array = NDArray[np.float64]
# Values of a block that are worked on at once: the totals of single rows are then 2 MB.
_VALUES = 1 << 16
_TENSOR_VALUES = 1 << 24
_PILOT = 256


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over independent units of their totals, and of products of two totals.

    A unit is a row, or all rows of one group. Its totals are those of `justenough.stats.totals`:
    rows, sums of d columns, sums of products of two columns. With rows for units, `cross` holds
    every co-moment up to order 4 (70 of order 4 for d = 5); with groups, the same summed within
    groups, as cluster-robust standard errors need it (Liang & Zeger 1986, equation 8).

    Attributes:
        origin: Point that the totals are about, shape (d,).
        units: Number of units.
        totals: Sum over units, shape (q,), q = 1 + d + d(d+1)/2.
        cross: Sum over units of the outer product of a unit's totals, shape (q, q).
    """

    origin: _Array
    units: int
    totals: _Array
    cross: _Array

    @property
    def rows(self) -> int:
        """Number of rows, n."""
        return round(float(self.totals[0]))

    @property
    def mean(self) -> _Array:
        """Mean of each column, shape (d,)."""
        mean: _Array = self.origin + self.totals[1 : 1 + len(self.origin)] / self.totals[0]
        return mean

    @property
    def covariance(self) -> _Array:
        """Covariance of the columns, divisor n, shape (d, d)."""
        d = len(self.origin)
        j, k = np.triu_indices(d)
        matrix = np.empty((d, d))
        matrix[j, k] = matrix[k, j] = self.centred().totals[1 + d :] / self.totals[0]
        return matrix

    def about(self, origin: _Array) -> "Moments":
        """Return the same moments with totals about another origin, shape (d,).

        Pébay 2008, Sandia report SAND2008-6212: exact algebra, all orders at once.
        """
        matrix = shift(len(self.origin), self.origin - origin)
        return Moments(origin, self.units, matrix @ self.totals, matrix @ self.cross @ matrix.T)

    def centred(self) -> "Moments":
        """Return the same moments with totals about the mean, where the sums of columns are 0."""
        found = self.about(self.mean)
        found.totals[1 : 1 + len(self.origin)] = 0.0  # what rounding left
        return found

    def merged(self, other: "Moments") -> "Moments":
        """Return the moments of both samples together, whose units are different ones.

        Chan, Golub & LeVeque 1983 (Am Stat 37(3)): both are moved to the common mean and added.

        Raises:
            InputError: If their columns differ in number.

        >>> rows = np.arange(12.0).reshape(4, 3) ** 2
        >>> both = moments(rows[:2]).merged(moments(rows[2:]))
        >>> np.allclose(both.covariance, moments(rows).covariance, rtol=1e-12)
        True
        """
        d = len(self.origin)
        if len(other.origin) != d:
            raise InputError(f"one has {d} columns and the other {len(other.origin)}")
        share = other.totals[0] / (self.totals[0] + other.totals[0])
        origin = self.mean + share * (other.mean - self.mean)
        here, there = self.about(origin), other.about(origin)
        units = self.units + other.units
        return Moments(origin, units, here.totals + there.totals, here.cross + there.cross)

    def comoment(self, *columns: int) -> float:
        """Return the central co-moment of 1 to 4 columns, divisor n, repeats allowed.

        Raises:
            InputError: For other than 1 to 4 columns, one that there is not, or units of several
                rows, where orders 3 and 4 are not of single rows.

        >>> rows = np.array([[0.0, 1.0], [1.0, 3.0], [5.0, 2.0]])
        >>> moments(rows).comoment(0, 0, 0, 0)
        32.666666666666664
        """
        d = len(self.origin)
        if not 1 <= len(columns) <= 4 or not all(0 <= c < d for c in columns):
            raise InputError(f"columns is {columns}; give 1 to 4 of 0..{d - 1}")
        if len(columns) > 2 and self.units != self.rows:
            got = f"{self.units} units of {self.rows} rows"
            raise InputError(f"{got}; orders 3 and 4 are kept only where each row is a unit")
        centred = self.centred()
        first, second = _place(columns[:2], d), _place(columns[2:], d)
        return (
            float(centred.cross[first, second] / self.totals[0])
            if second
            else float(centred.totals[first] / self.totals[0])
        )

    def correlations(self, weights: ArrayLike) -> _Array:
        """Return Pearson's correlation of each weighted sum of columns with the last column.

        Args:
            weights: Shape (m, d - 1), or (d - 1,) for one; any sign and scale.

        Returns:
            Shape (m,).

        Raises:
            InputError: For weights of another shape, not finite or all 0, or a constant sum.

        >>> rng = np.random.default_rng(0)
        >>> rows = rng.standard_normal((100, 3))
        >>> found = moments(rows).correlations([0.3, 0.7])[0]
        >>> bool(np.isclose(found, np.corrcoef(rows[:, :2] @ [0.3, 0.7], rows[:, 2])[0, 1]))
        True
        """
        checked = checked_weights(weights, len(self.origin))
        found: _Array = correlations(self.centred().totals[None], checked)[0]
        return found

    def standard_errors(self, weights: ArrayLike) -> _Array:
        """Return the standard errors of `correlations`, from influences summed within units.

        The infinitesimal jackknife (Efron 1982, The Jackknife, the Bootstrap and Other Resampling
        Plans, chapter 6) with the factor g / (g - 1); no normal distribution is assumed.

        Args:
            weights: As for `correlations`.

        Returns:
            Shape (m,).

        Raises:
            InputError: As `correlations`, and for fewer than 30 units.

        >>> rng = np.random.default_rng(0)
        >>> found = moments(rng.standard_normal((10_000, 2))).standard_errors([1.0])
        >>> bool(abs(found * 100 - 1) < 0.1)
        True
        """
        checked_units(self.units)
        checked = checked_weights(weights, len(self.origin))
        centred = self.centred()
        slope = gradients(centred.totals[None], checked)[0]
        variance = np.einsum("mq,qr,mr->m", slope, centred.cross, slope)
        found: _Array = np.sqrt(np.maximum(variance, 0.0) * self.units / (self.units - 1))
        return found

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return what `numpy.savez` takes by name and `moments_from` takes back.

        >>> found = moments(np.arange(8.0).reshape(4, 2))
        >>> moments_from(found.arrays()).covariance.tolist() == found.covariance.tolist()
        True
        """
        return {
            "origin": self.origin,
            "units": np.array(self.units),
            "totals": self.totals,
            "cross": self.cross,
        }


def moments_from(arrays: Mapping[str, NDArray[Any]]) -> Moments:
    """Return the moments that `Moments.arrays` wrote, such as from `numpy.load`.

    Raises:
        InputError: If an array is missing, of another shape or not finite.

    >>> moments_from({})
    Traceback (most recent call last):
    justenough.errors.InputError: moments need the arrays origin, units, totals, cross; got none
    """
    names = ("origin", "units", "totals", "cross")
    if not set(names) <= set(arrays):
        got = ", ".join(sorted(arrays)) or "none"
        raise InputError(f"moments need the arrays {', '.join(names)}; got {got}")
    origin, units, totals, cross = (np.asarray(arrays[name], np.float64) for name in names)
    q = 1 + origin.size + origin.size * (origin.size + 1) // 2
    shapes = (origin.ndim, units.shape, totals.shape, cross.shape)
    if shapes != (1, (), (q,), (q, q)) or origin.size < 1:
        got = ", ".join(f"{name} {np.shape(arrays[name])}" for name in names)
        raise InputError(f"{got}; moments of d columns need (d,), (), (q,) and (q, q)")
    if not all(np.isfinite(a).all() for a in (origin, units, totals, cross)):
        raise InputError("moments hold values that are not finite; every value must be")
    return Moments(origin, int(units), totals, cross)


@dataclass(frozen=True, eq=False)
class UnitTotals:
    """The totals of each unit of a sample, about the sample's mean.

    Attributes:
        origin: Mean of each column, shape (d,).
        totals: Array, or a tensor where the rows were one, float64, shape (g, q).
    """

    origin: _Array
    totals: Any

    def moments(self) -> Moments:
        """Return their sums and products."""
        found = Moments(
            self.origin,
            len(self.totals),
            local(self.totals.sum(0)),
            local(self.totals.T @ self.totals),
        )
        found.totals[1 : 1 + len(self.origin)] = 0.0
        return found

    def influences(self, weights: ArrayLike) -> _Array:
        """Return the influence of each unit on each correlation, over n; columns sum to 0.

        Args:
            weights: Shape (m, d - 1), or (d - 1,) for one.

        Returns:
            Shape (g, m).

        Raises:
            InputError: As `Moments.correlations`.
        """
        checked = checked_weights(weights, len(self.origin))
        slope = gradients(self.moments().totals[None], checked)[0]
        found: _Array = local(self.totals) @ slope.T
        return found


def unit_totals(rows: Any, units: ArrayLike | None = None) -> UnitTotals:
    """Return the totals of each unit; 8 q bytes each (168 for five columns).

    Args:
        rows: Array or tensor, finite, shape (n, d), the outcome last; or (c, t, d) for c units of
            t rows each.
        units: Id of the unit of each row for (n, d), any order, shape (n,); without it each row
            is a unit.

    Raises:
        InputError: For rows that are not finite, of another shape or fewer than two units, or
            units of another shape.

    >>> unit_totals(np.arange(6.0).reshape(3, 2)).totals.shape
    (3, 6)
    >>> unit_totals(np.arange(6.0).reshape(3, 2), ["a", "b", "a"]).totals[:, 0]
    array([2., 1.])
    """
    block = checked_block(rows)
    d = block.shape[-1]
    origin = _mean(block.reshape(-1, d))
    if units is None:
        g = len(block)
    elif len(block.shape) == 2:
        index, g = group_index(units, len(block))
    else:
        raise InputError(f"rows has shape {tuple(block.shape)}; with units it must be (n, d)")
    if g < 2:
        raise InputError("1 unit; a spread needs at least 2")
    if units is None:
        each = block if len(block.shape) == 3 else block[:, None, :]
        return UnitTotals(origin, block_totals(each, origin, kernels(_size(block))))
    summed = np.zeros((g, 1 + d + d * (d + 1) // 2))
    for first in range(0, len(block), _VALUES):
        # Products of a chunk of rows, then added to their units, so that memory stays bounded.
        part = local(block_totals(block[first : first + _VALUES, None, :], origin))
        here = index[first : first + _VALUES]
        for column in range(summed.shape[1]):
            summed[:, column] += np.bincount(here, part[:, column], g)
    return UnitTotals(
        origin,
        block.new_tensor(summed, dtype=block.double().dtype) if is_tensor(block) else summed,
    )


def moments(rows: Any, units: ArrayLike | None = None) -> Moments:
    """Return the moments of a sample, in chunks of bounded memory where rows are units.

    Args:
        rows: Array or tensor (float32 or float64, anywhere), finite, shape (n, d), the outcome
            last; or (c, t, d) for c units of t rows each.
        units: Id of the unit of each row for (n, d), any order; a unit must be whole in one call.

    Raises:
        InputError: For rows that are not finite or of another shape, or units that do not fit.

    >>> found = moments(np.array([[1.0, 2.0], [3.0, 5.0], [8.0, 8.0]]))
    >>> found.rows, found.mean
    (3, array([4., 5.]))
    """
    if units is not None:
        return unit_totals(rows, units).moments()
    block = checked_block(rows)
    if len(block.shape) == 2:
        block = block[:, None, :]
    return block_moments(block, kernels(_size(block)))


def block_moments(block: Any, loops: Kernels | None) -> Moments:
    """Moments of a checked block (c, t, d), each unit a slice of its first axis."""
    origin = pilot_mean(block)
    d = len(origin)
    q = 1 + d + d * (d + 1) // 2
    sums, cross = np.zeros(q), np.zeros((q, q))
    for part in slices(block):
        totals = block_totals(part, origin, loops)
        sums += local(totals.sum(0))
        cross += local(totals.T @ totals)
    return Moments(origin, len(block), sums, cross).centred()


def slices(block: Any) -> Iterator[Any]:
    """Slices of a block (c, t, d) whose totals fit a cache, or a part of a tensor's device."""
    values = _TENSOR_VALUES if is_tensor(block) else _VALUES
    step = max(1, values // max(block.shape[1] * block.shape[2], 8 * block.shape[2]))
    for first in range(0, len(block), step):
        yield block[first : first + step]


def pilot_mean(block: Any) -> _Array:
    """Mean of a few of the rows, spread over the block: near enough to keep the digits."""
    some = block[:: max(1, len(block) // _PILOT)]
    return _mean(some.reshape(-1, block.shape[2]))


def checked_block(rows: Any) -> Any:
    """`rows` as a float array or tensor of two or three axes, none of them empty."""
    if is_tensor(rows):
        block = rows if rows.is_floating_point() else rows.double()
    else:
        try:
            block = np.asarray(rows)
            block = block if block.dtype in (np.float32, np.float64) else block.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise InputError("rows holds values that are not numbers") from error
    shape = tuple(block.shape)
    if len(shape) not in (2, 3) or 0 in shape or shape[-1] < 2:
        raise InputError(f"rows has shape {shape}; it must be (n, d) or (c, t, d) with d >= 2")
    return block


def _mean(rows: Any) -> _Array:
    if is_tensor(rows):
        return local(rows.double().mean(0))
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is said by the totals
        mean: _Array = rows.mean(0, np.float64)
    return mean


def _size(block: Any) -> int:
    return int(np.prod(tuple(block.shape)))


def _place(columns: tuple[int, ...], d: int) -> int:
    """Where the product of 0, 1 or 2 columns stands among the totals."""
    if len(columns) < 2:
        return 1 + columns[0] if columns else 0
    j, k = sorted(columns)
    return 1 + d + j * d - j * (j - 1) // 2 + (k - j)
