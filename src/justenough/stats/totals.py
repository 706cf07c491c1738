"""Sufficient totals: what correlations of any weighted sum of columns with an outcome need.

For rows of d columns, the last of them the outcome, one unit's totals are q = 1 + d + d(d+1)/2
numbers: rows, sums of the columns, and sums of the products of two columns (j <= k, in the order
of `numpy.triu_indices`), all about an origin near the mean, which keeps the digits. A weighted
sum of columns has no products of its own: its variance and its covariance with the outcome are
quadratic and linear in the weights. So one pass over the rows serves every weight vector.

Arrays of NumPy and tensors of PyTorch are both taken; a tensor is worked on where it is.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from justenough.errors import InputError
from justenough.stats.checks import finite_matrix, numbers
from justenough.stats.fast import Kernels

_Array = NDArray[np.float64]
# A variance this small beside those of its columns is what rounding leaves of a constant.
_ROUNDING = 1e-13
_LARGEST = 1e150  # products of two totals stay finite


def is_tensor(values: object) -> bool:
    """Whether `values` is a tensor of PyTorch.

    >>> is_tensor(np.ones(2))
    False
    """
    return type(values).__module__.split(".")[0] == "torch"


def local(values: Any) -> _Array:
    """Return an array, or a tensor's values as an array of this process.

    >>> local(np.ones(2))
    array([1., 1.])
    """
    found: _Array = values.cpu().numpy() if is_tensor(values) else values
    return found


def columns_of(q: int) -> int:
    """Return d, the number of columns that have q totals.

    >>> columns_of(21)
    5
    """
    return int((np.sqrt(8.0 * q + 1.0) - 3.0) / 2.0 + 0.5)


def block_totals(block: Any, origin: _Array, loops: Kernels | None = None) -> Any:
    """Return the totals of each unit of a block in which every unit has the same number of rows.

    Args:
        block: Array or tensor of floats, shape (c, t, d): units, rows, columns.
        origin: Shape (d,).
        loops: Compiled loops for an array, where they pay.

    Returns:
        Float64, shape (c, q), of the kind of `block`.

    Raises:
        InputError: If a value is not finite, or so large that its 4th power is not.

    >>> block_totals(np.array([[[1.0, 2.0], [3.0, 4.0]]]), np.zeros(2))
    array([[ 2.,  4.,  6., 10., 14., 20.]])
    """
    c, _, d = block.shape
    q = 1 + d + d * (d + 1) // 2
    if is_tensor(block):
        wide = block.double()
        totals = wide.new_empty((c, q))
        _fill(totals, wide - wide.new_tensor(origin))
    else:
        totals = np.empty((c, q))
        with np.errstate(over="ignore", invalid="ignore"):  # said below, in words
            if loops:
                loops.totals(block, origin, totals)
            else:
                _fill(totals, block.astype(np.float64) - origin)
    if not max(float(totals.max()), -float(totals.min())) < _LARGEST:
        raise InputError("rows holds values that are not finite, or whose 4th powers are not")
    return totals


def _fill(totals: Any, centred: Any) -> None:
    d = centred.shape[2]
    totals[:, 0] = centred.shape[1]
    totals[:, 1 : 1 + d] = centred.sum(1)
    j, k = np.triu_indices(d)
    for place, (a, b) in enumerate(zip(j.tolist(), k.tolist(), strict=True)):
        totals[:, 1 + d + place] = (centred[:, :, a] * centred[:, :, b]).sum(1)


def shift(d: int, by: _Array) -> _Array:
    """Return the matrix that moves totals about an origin o to totals about o - `by`.

    Args:
        d: Number of columns.
        by: Shape (..., d).

    Returns:
        Shape (..., q, q); new totals = matrix @ old totals.

    >>> totals = block_totals(np.array([[[1.0, 2.0], [3.0, 5.0]]]), np.array([1.0, 1.0]))[0]
    >>> moved = shift(2, np.array([1.0, 1.0])) @ totals
    >>> np.array_equal(moved, block_totals(np.array([[[1.0, 2.0], [3.0, 5.0]]]), np.zeros(2))[0])
    True
    """
    j, k = np.triu_indices(d)
    q = 1 + d + len(j)
    matrix = np.zeros((*by.shape[:-1], q, q))
    matrix[..., np.arange(q), np.arange(q)] = 1.0
    matrix[..., 1 + np.arange(d), 0] = by
    products = 1 + d + np.arange(len(j))
    matrix[..., products, 0] = by[..., j] * by[..., k]
    matrix[..., products, 1 + j] += by[..., k]
    matrix[..., products, 1 + k] += by[..., j]
    return matrix


def checked_weights(weights: ArrayLike, d: int) -> _Array:
    """Return `weights` as a finite matrix of shape (m, d - 1) in which no row is all zeros.

    Raises:
        InputError: If they are not.

    >>> checked_weights([0.5, 0.5], 3)
    array([[0.5, 0.5]])
    """
    given = numbers("weights", weights)
    matrix = finite_matrix("weights", given[None] if given.ndim == 1 else given)
    if matrix.shape[1] != d - 1:
        got = f"weights has {matrix.shape[1]} columns; with {d} columns of data, the last of them"
        raise InputError(f"{got} the outcome, it must have {d - 1}")
    if not matrix.any(1).all():
        row = int(np.flatnonzero(~matrix.any(1))[0])
        raise InputError(f"weights is 0 throughout row {row}; a sum of nothing has no correlation")
    return matrix


def correlations(totals: _Array, weights: _Array) -> _Array:
    """Return the correlation of each weighted sum of columns with the outcome.

    Pearson's, with the variance of the sum w'Cw and its covariance with the outcome w'c, where C
    and c are the covariances that the totals give.

    Args:
        totals: About any origin, shape (b, q).
        weights: From `checked_weights`, shape (m, d - 1).

    Returns:
        Shape (b, m), each in [-1, 1].

    Raises:
        InputError: If an outcome or a weighted sum is constant.

    >>> rows = np.array([[1.0, 1.0, 3.0], [2.0, 0.0, 5.0], [4.0, 1.0, 9.0]])
    >>> totals = block_totals(rows[None], np.zeros(3))
    >>> correlations(totals, np.array([[1.0, 0.0]])).round(12)
    array([[1.]])
    """
    with_outcome, variance, outcome = _parts(totals, weights)
    variance *= outcome[:, None]
    np.sqrt(variance, out=variance)
    with_outcome /= variance
    return np.clip(with_outcome, -1.0, 1.0, out=with_outcome)


def gradients(totals: _Array, weights: _Array) -> _Array:
    """Return how each correlation moves with the totals, at totals about their own mean.

    The derivative of w'c / sqrt(w'Cw v) by the sums of products; by the number of rows and by the
    sums of columns it is 0 there. Times a unit's totals it is the unit's influence (Hampel 1974,
    JASA 69(346)) over n, and those sum to 0.

    Args:
        totals: Shape (b, q), with sums of 0.
        weights: From `checked_weights`, shape (m, d - 1).

    Returns:
        Shape (b, m, q).

    Raises:
        InputError: If an outcome or a weighted sum is constant.

    >>> totals = block_totals(np.array([[[1.0, 2.0], [-1.0, -1.0], [0.0, -1.0]]]), np.zeros(2))
    >>> gradients(totals, np.array([[1.0]])).shape
    (1, 1, 6)
    """
    d = columns_of(totals.shape[1])
    linear, quadratic = _forms(weights, d)
    with_outcome, variance, outcome = _parts(totals, weights)
    n = totals[:, :1]
    scale = 1.0 / np.sqrt(variance * outcome[:, None])
    rho = np.clip(with_outcome * scale, -1.0, 1.0)
    found = np.zeros((*rho.shape, totals.shape[1]))
    products = found[..., 1 + d :]
    products += (scale / n)[..., None] * linear.T
    products -= (0.5 * rho / (variance * n))[..., None] * quadratic.T
    products[..., -1] -= 0.5 * rho / (outcome[:, None] * n)
    return found


def _forms(weights: _Array, d: int) -> tuple[_Array, _Array]:
    """Coefficients of w'c and of w'Cw over the products of columns, shapes (p, m)."""
    j, k = np.triu_indices(d)
    linear, quadratic = np.zeros((2, len(j), len(weights)))
    last = d - 1
    for place, (a, b) in enumerate(zip(j.tolist(), k.tolist(), strict=True)):
        if b < last:
            quadratic[place] = weights[:, a] * weights[:, b] * (1.0 if a == b else 2.0)
        elif a < last:
            linear[place] = weights[:, a]
    return linear, quadratic


def _parts(totals: _Array, weights: _Array) -> tuple[_Array, _Array, _Array]:
    """Covariance with the outcome and variance of each sum, (b, m), variance of the outcome."""
    d = columns_of(totals.shape[1])
    j, k = np.triu_indices(d)
    linear, quadratic = _forms(weights, d)
    means = totals[:, 1 : 1 + d] / totals[:, :1]
    squares = totals[:, 1 + d :] / totals[:, :1]
    covariances = squares - means[:, j] * means[:, k]
    variance, outcome = covariances @ quadratic, covariances[:, -1].copy()
    own = np.flatnonzero(j == k)
    # Rounding is relative to what was summed, the squares about the origin.
    floor = _ROUNDING * (squares[:, own[:-1]] @ (weights * weights).T)
    if not (outcome > _ROUNDING * squares[:, -1]).all():
        place = int(np.flatnonzero(~(outcome > _ROUNDING * squares[:, -1]))[0])
        raise InputError(_constant(f"the outcome is constant in sample {place}", len(totals)))
    if not (variance > floor).all():
        place, row = np.argwhere(~(variance > floor))[0]
        got = f"the sum with weights of row {row} is constant in sample {place}"
        raise InputError(_constant(got, len(totals)))
    return covariances @ linear, variance, outcome


def _constant(got: str, samples: int) -> str:
    return f"{got} of {samples}; a correlation needs both to vary in every sample"
