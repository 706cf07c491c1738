"""Moving scale between a tensor's channels and the weights that read them: exact in float."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from justenough.errors import InputError

Array = NDArray[Any]
# Scales further apart than this would take float32 out of its comfortable range.
MOST = 1e4
TINY = float(np.finfo(np.float32).tiny)


def equalising_scales(made: Array, read: Array) -> Array:
    """Scales s that make the ranges of two layers equal, channel by channel.

    Dividing channel i of the first layer by s_i and multiplying the weights that read it by
    s_i keeps f = W2 relu(W1 x + b1), because relu(s x) = s relu(x) for s > 0. With
    s_i = sqrt(r1_i r2_i) / r2_i both ranges become sqrt(r1_i r2_i) (Nagel et al. 2019,
    arXiv:1906.04721, eq. 11).

    Args:
        made: (channels,) ranges max|.| of the first layer, weights or activations, 0 or more.
        read: (channels,) ranges max|.| of the weights that read each channel.

    Returns:
        (channels,) scales above 0; 1 where a range is 0 or subnormal in float32, for such a
        channel carries nothing.

    Raises:
        InputError: Lengths differ, or a range is negative or not finite.

    >>> equalising_scales(np.array([8.0, 1.0, 0.0]), np.array([2.0, 4.0, 3.0])).tolist()
    [2.0, 0.5, 1.0]
    """
    return smoothing_scales(made, read, alpha=0.5)


def smoothing_scales(activation: Array, weight: Array, *, alpha: float = 0.5) -> Array:
    """SmoothQuant's scales: s_j = max|X_j|^alpha / max|W_j|^(1 - alpha).

    X_j is divided by s_j and the weights that read it are multiplied by s_j, so that outliers
    of activations become larger weights (Xiao et al. 2022, arXiv:2211.10438, eq. 4).

    Args:
        activation: (channels,) max|X_j| over calibration rows.
        weight: (channels,) max|W_j| over the outputs that read channel j.
        alpha: 0 leaves the activations as they are up to the weights' scale, 1 makes their
            ranges equal.

    Returns:
        (channels,) scales above 0; 1 where a range is 0 or subnormal in float32.

    Raises:
        InputError: Lengths differ, a range is negative or not finite, or alpha is not in 0..1.

    >>> smoothing_scales(np.array([100.0, 1.0]), np.array([1.0, 1.0])).tolist()
    [10.0, 1.0]
    """
    if not 0 <= alpha <= 1:
        raise InputError(f"alpha={alpha} is outside 0..1; 0.5 is usual")
    a, w = np.asarray(activation, np.float64), np.asarray(weight, np.float64)
    if a.ndim != 1 or a.shape != w.shape:
        raise InputError(
            f"the ranges have shapes {a.shape} and {w.shape}; give one number a channel for each"
        )
    both = np.concatenate([a, w])
    if not np.isfinite(both).all() or (both < 0).any():
        raise InputError("a range is negative or not finite; give max|.| of finite values")
    alive = np.minimum(a, w) > TINY
    s = np.ones_like(a)
    s[alive] = a[alive] ** alpha / w[alive] ** (1 - alpha)
    if alive.any():
        middle = float(np.exp(np.mean(np.log(s[alive]))))
        s[alive] = np.clip(s[alive], middle / MOST, middle * MOST)
    return s
