"""The mean that rounding adds to a layer's output, to be taken from its bias."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

Array = NDArray[Any]


def bias_shift(
    weight: Array, rounded: Array, mean: Array, rounded_mean: Array | None = None
) -> Array:
    """E[W' x'] - E[W x] of each output, in the output's unit: subtract it from the bias.

    Without `rounded_mean` only the weights are rounded and the shift is (W' - W) E[x] (Nagel
    et al. 2019, arXiv:1906.04721, sec. 4.2); with it the mean that rounding and clipping the
    input adds is taken away as well.

    Args:
        weight: (..., out, in).
        rounded: Weights after rounding, like `weight`.
        mean: (..., in), E[x] over calibration rows.
        rounded_mean: (..., in), E[x'] of the rounded input; None is `mean`.

    >>> bias_shift(np.array([[1.0, 0.5]]), np.array([[1.0, 0.0]]), np.array([5.0, 2.0])).tolist()
    [-1.0]
    """
    after = mean if rounded_mean is None else rounded_mean
    shift = np.asarray(rounded, np.float64) @ after[..., None] - weight @ mean[..., None]
    return np.asarray(shift[..., 0])


def relu_mean(mean: Array, std: Array) -> Array:
    """E[max(z, 0)] of normal z: what a batch norm says of its Relu's output without data.

    std phi(-mean/std) + mean (1 - Phi(-mean/std)) (Nagel et al. 2019, arXiv:1906.04721,
    sec. 4.2.1), with shift and scale of the batch norm as mean and standard deviation.

    Args:
        mean: Any shape.
        std: Like `mean`, 0 or more.

    >>> relu_mean(np.array([0.0, 5.0, -2.0]), np.array([1.0, 0.0, 0.0])).round(4).tolist()
    [0.3989, 5.0, 0.0]
    """
    mean, std = np.asarray(mean, np.float64), np.asarray(std, np.float64)
    t = mean / np.where(std > 0, std, 1.0)
    smooth = std * norm.pdf(t) + mean * norm.cdf(t)
    return np.asarray(np.where(std > 0, smooth, np.maximum(mean, 0.0)))
