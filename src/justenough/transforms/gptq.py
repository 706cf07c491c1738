"""GPTQ: rounding column by column, later columns making up for the error of earlier ones."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack

from justenough.errors import InputError
from justenough.transforms.descent import descend
from justenough.transforms.rounding import Grid, block_grid, check_layer

Array = NDArray[Any]
COLUMNS = 64
DAMPING = 0.01


@dataclass(frozen=True, eq=False)
class BlockCodes:
    """Weights as codes with a scale and a zero point for each block of a row.

    Attributes:
        codes: (out, in) uint8, 0 to 2**bits - 1.
        scales: (out, blocks) float32; weight = scale * (code - zero point).
        zero_points: (out, blocks) uint8.
    """

    codes: Array
    scales: Array
    zero_points: Array

    def values(self, block: int) -> Array:
        """The weights (out, in), float32, that blocks of `block` codes stand for."""
        width = self.codes.shape[1]
        s, z = (np.repeat(a, block, 1)[:, :width] for a in (self.scales, self.zero_points))
        out: Array = s * (self.codes.astype(np.float32) - z.astype(np.float32))
        return out


def gptq(
    weight: Array,
    hessian: Array,
    bits: int = 4,
    block: int = 32,
    *,
    symmetric: bool = False,
    damping: float = DAMPING,
    sweeps: int = 4,
) -> BlockCodes:
    """Codes, scales and zero points of a weight in blocks, by GPTQ and then descent.

    Frantar et al. 2022, arXiv:2210.17323, algorithm 1, on the grid of `block_grid`; then the
    codes are improved one at a time by `descend` on the same objective.

    Args:
        weight: (out, in), finite.
        hessian: (in, in), 2 X X^T over rows of the input, or any multiple: only ratios count.
        bits: 2 to 8.
        block: Weights of a row that share a scale.
        symmetric: Keep zero points at 2**(bits-1).
        damping: Share of the mean diagonal that is added to it.
        sweeps: At most so many passes of the descent; 0 is plain GPTQ.

    Raises:
        InputError: Shapes do not match, something is not finite, or a size is out of range.

    >>> got = gptq(np.array([[0.0, 1.0, 2.0, 3.0]]), np.eye(4), bits=2, block=4)
    >>> got.codes.tolist(), got.scales.tolist(), got.zero_points.tolist()
    ([[0, 1, 2, 3]], [[1.0]], [[0]])
    """
    check_layer(weight, hessian)
    h = np.asarray(hessian, np.float64)
    grid = block_grid(
        weight, bits=bits, block=block, symmetric=symmetric, importance=np.diagonal(h)
    )
    codes = gptq_codes(weight, h, grid, damping=damping)
    if sweeps:
        codes = descend(weight, damped(h, damping), grid, codes=codes, sweeps=sweeps)
    zero = np.asarray(grid.zero)
    return BlockCodes(
        codes.astype(np.uint8), grid.scale[:, ::block], zero[:, ::block].astype(np.uint8)
    )


def gptq_codes(
    weight: Array,
    hessian: Array,
    grid: Grid,
    *,
    fixed: Array | None = None,
    damping: float = DAMPING,
) -> Array:
    """Codes on a given grid by GPTQ (Frantar et al. 2022, arXiv:2210.17323, algorithm 1).

    With U the upper Cholesky factor of the inverse of the damped Hessian, column j is rounded
    and its error e = (w_j - q_j) / U_jj is taken from the columns after it: W_k -= e U_jk.
    Columns with the largest diagonal go first, and in blocks, so that most of the work is
    matrix products. A diagonal Hessian gives the nearest codes.

    Args:
        weight: (..., out, in), finite; leading axes are layers of their own.
        hessian: (..., in, in), symmetric.
        grid: Grid of the codes.
        fixed: True where the nearest code must be kept; what it costs is still made up for.
        damping: Share of the mean diagonal that is added to it.

    Returns:
        Codes (..., out, in), whole numbers in float64.

    Raises:
        InputError: Shapes do not match, or something is not finite.
    """
    check_layer(weight, hessian)
    h = damped(np.asarray(hessian, np.float64), damping)
    diagonal = np.diagonal(h, axis1=-2, axis2=-1)
    order = np.argsort(-diagonal, axis=-1, kind="stable")
    h = np.take_along_axis(np.take_along_axis(h, order[..., None], -2), order[..., None, :], -1)
    upper = _inverse_factor(h)

    def arranged(a: Array | int) -> Array:
        """As (..., in, out) in that order: a column at a time is read and written."""
        whole = np.swapaxes(np.broadcast_to(a, weight.shape), -1, -2)
        return np.take_along_axis(whole, np.broadcast_to(order[..., None], whole.shape), -2)

    w = np.array(arranged(np.asarray(weight, np.float64)), order="C")
    scale, zero = arranged(np.asarray(grid.scale, np.float64)), arranged(grid.zero)
    held = None if fixed is None else (arranged(fixed), arranged(grid.nearest(weight)))
    codes = np.empty_like(w)
    for begin in range(0, w.shape[-2], COLUMNS):
        end = min(begin + COLUMNS, w.shape[-2])
        errors = np.empty((*w.shape[:-2], end - begin, w.shape[-1]))
        for j in range(begin, end):
            now, s, z = w[..., j, :], scale[..., j, :], zero[..., j, :]
            code = np.clip(np.rint(now / s) + z, grid.low, grid.high)
            if held is not None:
                code = np.where(held[0][..., j, :], held[1][..., j, :], code)
            codes[..., j, :] = code
            error = (now - s * (code - z)) / upper[..., j, j, None]
            w[..., j + 1 : end, :] -= upper[..., j, j + 1 : end, None] * error[..., None, :]
            errors[..., j - begin, :] = error
        w[..., end:, :] -= np.swapaxes(upper[..., begin:end, end:], -1, -2) @ errors
    back = np.broadcast_to(np.argsort(order, axis=-1)[..., None], codes.shape)
    return np.ascontiguousarray(np.swapaxes(np.take_along_axis(codes, back, -2), -1, -2))


def damped(hessian: Array, damping: float = DAMPING) -> Array:
    """`hessian` (..., in, in) plus `damping` times its mean diagonal on the diagonal.

    Inputs that never fire get the mean itself, so that the result can be inverted.

    >>> damped(np.diag([3.0, 0.0]), 0.01).round(3).tolist()
    [[3.015, 0.0], [0.0, 1.515]]
    """
    if not damping > 0:
        raise InputError(f"damping={damping} must be above 0; 0.01 is usual")
    diagonal = np.diagonal(hessian, axis1=-2, axis2=-1)
    mean = diagonal.mean(-1, keepdims=True)
    mean = np.where(mean > 0, mean, 1.0)
    more = damping * mean + np.where(diagonal > 0, 0.0, mean)
    return np.asarray(hessian + more[..., None] * np.eye(hessian.shape[-1]))


def _inverse_factor(h: Array) -> Array:
    """Upper U with U^T U = inverse of h (..., in, in), which is positive definite."""
    flat = h.reshape(-1, *h.shape[-2:])
    out = np.empty_like(flat)
    for k, one in enumerate(flat):
        # With h = P L L^T P reversed in order, the inverse of L reversed is the factor sought.
        lower = np.linalg.cholesky(one[::-1, ::-1])
        inverse, _ = lapack.dtrtri(lower, lower=1)
        out[k] = inverse[::-1, ::-1]
    return out.reshape(h.shape)
