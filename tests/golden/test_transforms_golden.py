"""Transforms against slow oracles: the exact updates, and every choice of up and down."""

from itertools import product
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from justenough.transforms.adaround import adaround
from justenough.transforms.descent import descend
from justenough.transforms.gptq import damped, gptq_codes
from justenough.transforms.rounding import Grid, channel_grid, output_error

Array = NDArray[Any]


def oracle(row: Array, h: Array, scale: float, top: int) -> list[float]:
    """Optimal Brain Quantization of one row in the order of falling diagonal.

    Each step solves for the columns that are left with the inverse of their own Hessian
    (Frantar et al. 2022, arXiv:2210.17323, eq. 2), which GPTQ's Cholesky factor stands for.
    """
    left = np.argsort(-np.diagonal(h), kind="stable").tolist()
    w, codes = row.astype(np.float64).copy(), [0.0] * len(row)
    while left:
        inverse = np.linalg.inv(h[np.ix_(left, left)])
        j = left[0]
        codes[j] = float(np.clip(np.rint(w[j] / scale), -top, top))
        w[left] -= (w[j] - scale * codes[j]) / inverse[0, 0] * inverse[0]
        left = left[1:]
    return codes


@pytest.mark.parametrize("width", [5, 90])
def test_gptq_does_the_exact_updates(width: int) -> None:
    rng = np.random.default_rng(width)
    x = rng.normal(size=(3 * width, width)) @ rng.normal(size=(width, width))
    h, w = 2 * x.T @ x, rng.normal(size=(6, width))
    grid = channel_grid(w, bits=3)
    got = gptq_codes(w, h, grid, damping=0.01)
    for row, scale, codes in zip(w, grid.scale.ravel(), got, strict=True):
        assert codes.tolist() == oracle(row, damped(h, 0.01), float(scale), 3)


def test_up_or_down_against_every_choice() -> None:
    """Ten weights: all 1024 roundings are tried, as in AdaRound's own motivation (sec. 3)."""
    rng = np.random.default_rng(0)
    ratios: dict[str, list[float]] = {"nearest": [], "descend": [], "gptq": [], "adaround": []}
    for _ in range(20):
        x = np.maximum(rng.normal(size=(200, 3)) @ rng.normal(size=(3, 10)) + 0.5, 0)
        g = x.T @ x / len(x) + 1e-3 * np.eye(10)
        w = rng.uniform(-7, 7, size=(1, 10))
        grid = Grid(np.ones((1, 1)), -8, 8)
        choices = np.floor(w) + np.array(list(product((0, 1), repeat=10)))
        best = min(output_error(w, c[None], g) for c in choices)
        start = gptq_codes(w, g, grid)
        found = {
            "nearest": grid.nearest(w),
            "descend": descend(w, g, grid),
            "gptq": descend(w, g, grid, codes=start),
            "adaround": adaround(w, g, grid),
        }
        for name, codes in found.items():
            ratios[name].append(output_error(w, codes, g) / best)
    middle = {name: float(np.median(r)) for name, r in ratios.items()}
    assert min(ratios["adaround"]) >= 1 - 1e-9, "it only goes up or down"
    assert middle["adaround"] < 2 < 5 < middle["nearest"]
    assert middle["gptq"] < middle["nearest"] / 2
    assert middle["descend"] < middle["nearest"] / 2
