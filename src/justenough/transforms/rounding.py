"""Rounding a weight matrix to a grid, and what that costs the layer's output.

A layer computes y = W x for rows x of its input. Rounding W to W' moves the output by
(W' - W) x, whose mean square is trace((W' - W) G (W' - W)^T) with the Gram matrix
G = E[x x^T]: all that rounding needs to know about the data.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from justenough.errors import InputError

Array = NDArray[Any]
# Largest codes of an int8 weight: as it comes, and where two products must fit 16 bits
# (2 * 255 * 64 < 2**15; ONNX Runtime's `reduce_range`).
TOP, NARROW_TOP = 127, 64
SHRINKS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.5, 0.4)


@dataclass(frozen=True, eq=False)
class Grid:
    """The values that weights may take: scale * (code - zero), codes from low to high.

    Attributes:
        scale: Broadcasts to the weights (..., out, in); unit of the weights; negative is allowed.
        low: Smallest code.
        high: Largest code.
        zero: Code of the value 0; broadcasts like `scale`.
    """

    scale: Array
    low: int
    high: int
    zero: Array | int = 0

    def nearest(self, values: Array) -> Array:
        """Codes (float64, whole) of the grid points nearest to `values` (..., out, in)."""
        return np.asarray(
            np.clip(np.rint(values / self.scale) + self.zero, self.low, self.high), np.float64
        )

    def values(self, codes: Array) -> Array:
        """The weights (..., out, in), float64, that `codes` stand for."""
        return np.asarray(self.scale * (np.asarray(codes, np.float64) - self.zero))


def channel_grid(weight: Array, *, bits: int = 8, top: int | None = None) -> Grid:
    """The symmetric grid of each output channel: scale = max|row| / top.

    Scales are float32 as int8 files store them; a row of zeros gets the scale 1
    (Jacob et al. 2018, arXiv:1712.05877, eq. 1 with Z = 0).

    Args:
        weight: (..., out, in).
        bits: 2 to 8.
        top: Largest code; 2**(bits-1) - 1 unless given.

    >>> channel_grid(np.array([[-1.27, 0.3], [0.0, 0.0]])).scale.ravel().round(4)
    array([0.01, 1.  ], dtype=float32)
    """
    top = _top(bits) if top is None else top
    peak = np.abs(weight).max(-1, keepdims=True, initial=0.0).astype(np.float64)
    scale = np.where(peak / top < np.finfo(np.float32).tiny, 1.0, peak / top)
    return Grid(scale.astype(np.float32), -top, top)


def block_grid(
    weight: Array,
    *,
    bits: int,
    block: int,
    symmetric: bool = False,
    importance: Array | None = None,
) -> Grid:
    """A grid for each `block` weights of a row, clipped where that rounds them closer.

    Codes are 0 to 2**bits - 1. Asymmetric: scale and zero point span the block's values and
    0. Symmetric: the zero point is 2**(bits-1) and the value of largest size takes code 0, so
    that no code is lost; its scale may be negative. Among a few shrunken ranges the one with
    least squared error is taken, weighted by `importance`.

    Args:
        weight: (out, in).
        bits: 2 to 8.
        block: Weights that share a scale; the last block of a row may be shorter.
        symmetric: Keep the zero point in the middle.
        importance: (in,) mean square of each input; None weighs all alike.

    Returns:
        Grid with scale float32 and zero (out, in), constant within blocks.

    >>> w = np.array([[0.0, 1.0, 2.0, 3.0, -8.0, 7.0, 0.0, 1.0]])
    >>> grid = block_grid(w, bits=2, block=4)
    >>> grid.values(grid.nearest(w))[0, :4].tolist()
    [0.0, 1.0, 2.0, 3.0]
    """
    _top(bits)
    if block < 1:
        raise InputError(f"block={block} must be 1 or more weights; 32 is usual")
    out, width = weight.shape
    count = -(-width // block)
    pad = ((0, 0), (0, count * block - width))
    w = np.pad(np.asarray(weight, np.float64), pad).reshape(out, count, block)
    parts = np.ones(width) if importance is None else np.asarray(importance, np.float64)
    parts = np.pad(parts, pad[1]).reshape(count, block)
    best = np.full((out, count, 1), np.inf)
    scale, zero = np.ones_like(best), np.zeros_like(best)
    for shrink in SHRINKS:
        s, z = _block_scale(w, bits, symmetric, shrink)
        grid = Grid(s, 0, 2**bits - 1, z)
        error = ((grid.values(grid.nearest(w)) - w) ** 2 * parts).sum(-1, keepdims=True)
        better = error < best
        best, scale = np.where(better, error, best), np.where(better, s, scale)
        zero = np.where(better, z, zero)
    spread = (np.repeat(a[..., 0], block, 1)[:, :width] for a in (scale.astype(np.float32), zero))
    return Grid(next(spread), 0, 2**bits - 1, next(spread))


def _block_scale(w: Array, bits: int, symmetric: bool, shrink: float) -> tuple[Array, Array]:
    low, high = w.min(-1, keepdims=True), w.max(-1, keepdims=True)
    if symmetric:
        extreme = np.where(-low > high, low, high) * shrink
        scale = -extreme / 2 ** (bits - 1)
        zero = np.full_like(scale, 2 ** (bits - 1))
    else:
        low, high = np.minimum(low, 0) * shrink, np.maximum(high, 0) * shrink
        scale = (high - low) / (2**bits - 1)
        zero = np.zeros_like(scale)
    scale = np.where(np.abs(scale) < np.finfo(np.float32).tiny, 1.0, scale)
    scale = scale.astype(np.float32).astype(np.float64)
    return scale, zero if symmetric else np.rint(-low / scale)


def _top(bits: int) -> int:
    if not 2 <= bits <= 8:
        raise InputError(f"bits={bits} is outside 2..8; weights are rounded to 2 to 8 bits here")
    return int(2 ** (bits - 1) - 1)


def output_error(weight: Array, other: Array, gram: Array) -> float:
    """Mean squared change of the outputs, summed over them: trace(D G D^T), D = other - weight.

    Args:
        weight: (..., out, in).
        other: Like `weight`.
        gram: (..., in, in), E[x x^T] over rows x.

    >>> output_error(np.zeros((1, 2)), np.ones((1, 2)), np.array([[1.0, 0.5], [0.5, 1.0]]))
    3.0
    """
    d = np.asarray(other, np.float64) - weight
    return float(((d @ gram) * d).sum())


def check_layer(weight: Array, gram: Array) -> None:
    """Refuse a weight and a Gram matrix that do not belong together or hold no number.

    Raises:
        InputError: Shapes do not match, or something is not finite.
    """
    want = (*weight.shape[:-2], weight.shape[-1], weight.shape[-1])
    if gram.shape != want:
        raise InputError(
            f"a weight of shape {weight.shape} needs a Gram matrix of shape {want}; "
            f"got {gram.shape}"
        )
    if not (np.isfinite(weight).all() and np.isfinite(gram).all()):
        raise InputError("the weight or the Gram matrix is not finite; leave this layer as it is")
