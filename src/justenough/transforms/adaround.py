"""AdaRound: whether each weight goes up or down, by a relaxation that is annealed to whole codes.

The objective is a quadratic form in the Gram matrix of the inputs, so that no data are read
inside the loop.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from justenough.errors import InputError
from justenough.transforms.rounding import Grid, check_layer

Array = NDArray[Any]
# Stretch of the rectified sigmoid and annealing of the regulariser, as published.
ZETA, GAMMA = 1.1, -0.1
BETAS = (20.0, 2.0)
WARM = 0.2


def rectified_sigmoid(v: Array) -> Array:
    """clip(sigmoid(v) (zeta - gamma) + gamma, 0, 1), zeta = 1.1, gamma = -0.1.

    Louizos et al. 2018, arXiv:1712.01312; Nagel et al. 2020, arXiv:2004.10568, sec. 3.3. It
    reaches 0 and 1 at finite v.

    >>> rectified_sigmoid(np.array([-9.0, 0.0, 9.0])).round(4).tolist()
    [0.0, 0.5, 1.0]
    """
    return np.asarray(np.clip(expit(v) * (ZETA - GAMMA) + GAMMA, 0.0, 1.0))


def adaround(
    weight: Array,
    gram: Array,
    grid: Grid,
    *,
    fixed: Array | None = None,
    steps: int = 1000,
    rate: float = 0.05,
    pressure: float = 0.5,
) -> Array:
    """Codes floor(w / s) or one more, by minimising the relaxed output error with Adam.

    Minimises E(V) + pressure sum(1 - |2 h(V) - 1|^beta) over V, where the relaxed weight is
    s (floor(w / s) + h(V)), E is its output error divided by s^2 and by the mean square of an
    input, and beta falls from 20 to 2 after a fifth of the steps without pressure (Nagel et
    al. 2020, arXiv:2004.10568, sec. 3.3). Starts at h(V) = the fraction of w / s.

    Args:
        weight: (..., out, in), finite.
        gram: (..., in, in), E[x x^T].
        grid: Grid of the codes.
        fixed: True where the nearest code must be kept.
        steps: Adam steps, each one product of `weight` and `gram`.
        rate: Step size of Adam.
        pressure: Weight of the regulariser.

    Returns:
        Codes (..., out, in), whole numbers in float64.

    Raises:
        InputError: Shapes do not match, something is not finite, or `steps` is not positive.

    >>> w, gram = np.array([[0.4, 0.45]]), np.array([[1.0, 0.9], [0.9, 1.0]])
    >>> float(adaround(w, gram, Grid(np.ones((1, 1)), -7, 7)).sum())  # nearest gives 0
    1.0
    """
    check_layer(weight, gram)
    if steps < 1:
        raise InputError(f"steps={steps} must be 1 or more; 1000 is usual")
    g = np.asarray(gram, np.float64)
    mean = np.diagonal(g, axis1=-2, axis2=-1).mean(-1)[..., None, None]
    g = (g / np.where(mean > 0, mean, 1.0)).astype(np.float32)
    scale = np.abs(np.asarray(grid.scale, np.float64))
    u = np.asarray(weight, np.float64) / np.asarray(grid.scale) + grid.zero
    whole = np.clip(np.floor(u), grid.low, grid.high)
    # A block may hold scales of several sizes: errors of a row are kept in one unit.
    unit = scale / scale.mean(-1, keepdims=True)
    part = np.clip(u - whole, 0.0, 1.0)
    stuck = np.zeros(u.shape, bool) if fixed is None else fixed
    h = _anneal(part.astype(np.float32), unit.astype(np.float32), g, steps, rate, pressure)
    codes = np.where(stuck, grid.nearest(np.asarray(weight)), whole + (h >= 0.5))
    return np.asarray(np.clip(codes, grid.low, grid.high))


def _anneal(
    part: Array, unit: Array, gram: Array, steps: int, rate: float, pressure: float
) -> Array:
    """Adam on V; returns h(V) in [0, 1], as `part` (..., out, in)."""
    inside = (np.clip(part, 1e-4, 1 - 1e-4) - GAMMA) / (ZETA - GAMMA)
    v = np.log(inside / (1 - inside))
    first, second = np.zeros_like(v), np.zeros_like(v)
    for t in range(1, steps + 1):
        sigma = expit(v)
        h = np.clip(sigma * (ZETA - GAMMA) + GAMMA, 0.0, 1.0)
        slope = 2 * unit * (((h - part) * unit) @ gram)
        done = (t / steps - WARM) / (1 - WARM)
        if done > 0:
            beta = BETAS[1] + 0.5 * (BETAS[0] - BETAS[1]) * (1 + np.cos(np.pi * done))
            off = 2 * h - 1
            slope -= pressure * 2 * beta * np.sign(off) * np.abs(off) ** (beta - 1)
        slope *= (ZETA - GAMMA) * sigma * (1 - sigma) * ((h > 0) & (h < 1))
        first = 0.9 * first + 0.1 * slope
        second = 0.999 * second + 0.001 * slope**2
        step = first / (1 - 0.9**t) / (np.sqrt(second / (1 - 0.999**t)) + 1e-8)
        v -= (rate * step).astype(v.dtype)
    return rectified_sigmoid(v)
