"""Learned rounding by coordinate descent on the layer's output error."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from justenough.transforms.rounding import Grid, check_layer

Array = NDArray[Any]
COLUMNS = 64
SWEEPS = 8


def descend(
    weight: Array,
    gram: Array,
    grid: Grid,
    *,
    codes: Array | None = None,
    fixed: Array | None = None,
    sweeps: int = SWEEPS,
) -> Array:
    """Codes that no single change can improve: min over codes of trace(D G D^T).

    Cyclic coordinate descent on the quadratic integer program that AdaRound relaxes (Nagel et
    al. 2020, arXiv:2004.10568, sec. 3.2; the descent as in QuantEase, Behdin et al. 2023,
    arXiv:2309.01885). With D = W' - W, the best value of column j given all others is
    W_j + D_j - (D G)_j / G_jj, rounded to the grid. The error never rises, so starting from
    rounding to nearest the result is never worse than it; uncorrelated inputs leave nearest
    codes as they are. Columns go in blocks, so that most of the work is matrix products.

    Args:
        weight: (..., out, in), finite; leading axes are layers of their own (convolution groups).
        gram: (..., in, in), symmetric; a column of zeros is left at its start.
        grid: Grid of the codes.
        codes: Start (..., out, in); None starts from the nearest codes.
        fixed: True where a code must not change.
        sweeps: At most so many passes over all columns.

    Returns:
        Codes (..., out, in), whole numbers in float64.

    Raises:
        InputError: Shapes do not match, or something is not finite.

    >>> w, gram = np.array([[0.4, 0.4]]), np.array([[1.0, 0.9], [0.9, 1.0]])
    >>> descend(w, gram, Grid(np.ones((1, 1)), -7, 7)).tolist()
    [[1.0, 0.0]]
    """
    check_layer(weight, gram)
    weight = np.asarray(weight, np.float64)
    start = grid.nearest(weight) if codes is None else np.asarray(codes, np.float64)
    state = _State(
        _columns(weight),
        np.asarray(gram, np.float64),
        _columns(np.broadcast_to(grid.scale, weight.shape)),
        _columns(np.broadcast_to(grid.zero, weight.shape)),
        None if fixed is None else _columns(np.broadcast_to(fixed, weight.shape), bool),
        _columns(start),
    )
    for _ in range(sweeps):
        changes = 0
        for begin in range(0, weight.shape[-1], COLUMNS):
            changes += state.improve(begin, grid)
        if not changes:
            break
    return np.ascontiguousarray(np.swapaxes(state.codes, -1, -2))


def _columns(a: Array, kind: type = np.float64) -> Array:
    """(..., out, in) as a copy (..., in, out): a column at a time is read and written."""
    return np.array(np.swapaxes(a, -1, -2), kind, order="C")


class _State:
    """Codes, their error (..., in, out) and its product with the Gram matrix."""

    def __init__(
        self,
        weight: Array,
        gram: Array,
        scale: Array,
        zero: Array,
        fixed: Array | None,
        codes: Array,
    ) -> None:
        self.weight, self.gram, self.scale, self.zero = weight, gram, scale, zero
        self.fixed, self.codes = fixed, codes
        diagonal = np.diagonal(gram, axis1=-2, axis2=-1)
        self.inverse = 1 / np.where(diagonal > 0, diagonal, np.inf)
        self.error = scale * (codes - zero) - weight
        self.slope = gram @ self.error

    def improve(self, begin: int, grid: Grid) -> int:
        """Give each of the columns from `begin` its best codes in turn; how many moved."""
        here = slice(begin, begin + COLUMNS)
        old = self.error[..., here, :].copy()
        local, held = self.slope[..., here, :].copy(), self.gram[..., here, here]
        changes = 0
        for k in range(old.shape[-2]):
            j = begin + k
            scale, zero, was = self.scale[..., j, :], self.zero[..., j, :], self.codes[..., j, :]
            aim = self.weight[..., j, :] + self.error[..., j, :]
            aim -= local[..., k, :] * self.inverse[..., j, None]
            code = np.clip(np.rint(aim / scale) + zero, grid.low, grid.high)
            if self.fixed is not None:
                code = np.where(self.fixed[..., j, :], was, code)
            step = scale * (code - was)
            if not step.any():
                continue
            changes += 1
            self.codes[..., j, :] = code
            self.error[..., j, :] += step
            # What is behind column k is not read again before the whole slope is brought up.
            local[..., k + 1 :, :] += held[..., k + 1 :, k, None] * step[..., None, :]
        if changes:
            self.slope += self.gram[..., :, here] @ (self.error[..., here, :] - old)
        return changes
