"""The claim that lower precision loses nothing: winners of an assembly, by format of the weights.

A random graph of 1,000 neurons, 50 of which fire, p = 0.1, is projected from a stimulus for 20
rounds. Weights are rounded to the format after each growth by 1 + beta. Each format is asked
which neurons would win, given those that fired in float64 (teacher-forced), so that one changed
winner does not change all that follows.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from justenough.formats.floats import BF16, FP16
from justenough.ledger import Measured

N, K, P, ROUNDS, SEEDS = 1000, 50, 0.1, 20, 10
BETAS = (0.1, 0.01, 0.002, 0.0003)
Array = NDArray[np.float64]


def _int8(w: Array) -> Array:
    """Rounded to 256 levels from 0 to 8, 1/32 apart."""
    return np.minimum(np.rint(w * 32), 255) / 32


FORMATS: dict[str, tuple[Callable[[Array], Array], float]] = {
    # A format, and half of its step at 1, relative: less growth than that is rounded away.
    "FP32": (lambda w: w.astype(np.float32).astype(float), 2.0**-24),
    "FP16": (lambda w: FP16.round(w.astype(np.float32)).astype(float), 2.0**-11),
    "BF16": (lambda w: BF16.round(w.astype(np.float32)).astype(float), 2.0**-8),
    "INT8": (_int8, 2.0**-6),
}


def _winners(inputs: Array) -> NDArray[np.int64]:
    order = np.lexsort((np.arange(N), -inputs))[:K]
    return np.sort(order)


def overlaps(beta: float, seed: int) -> dict[str, float]:
    """Mean share of winners that each format names as float64 does, over rounds.

    >>> found = overlaps(0.1, 0)
    >>> found["FP32"] > 0.9
    True
    """
    rng = np.random.default_rng(seed)
    start = (rng.random((N, N + K)) < P).astype(float)
    held = {name: start.copy() for name in ("float64", *FORMATS)}
    fired: NDArray[np.int64] = np.empty(0, np.int64)
    same: dict[str, list[float]] = {name: [] for name in FORMATS}
    for _ in range(ROUNDS):
        sources = np.concatenate([fired, np.arange(N, N + K)])
        won = {name: _winners(w[:, sources].sum(axis=1)) for name, w in held.items()}
        fired = won.pop("float64")
        for name, other in won.items():
            same[name].append(float(np.isin(other, fired).mean()))
        grown = np.ix_(fired, sources)
        for name, w in held.items():
            w[grown] *= 1 + beta
            if name in FORMATS:
                w[grown] = FORMATS[name][0](w[grown])
    return {name: float(np.mean(s)) for name, s in same.items()}


@cache
def _losses() -> dict[tuple[str, float], Array]:
    found = {b: [overlaps(b, s) for s in range(SEEDS)] for b in BETAS}
    return {
        (name, b): 100 * (1 - np.array([f[name] for f in runs]))
        for b, runs in found.items()
        for name in FORMATS
    }


def lower_precision() -> Measured:
    """Winners lost by weights of fewer bits, in points, over four rates of growth and 10 seeds.

    Rule: reproduced if no format loses a point beyond what FP32 loses; only where growth is above
    half of the format's step, if all that lose less than a point there and the others do not;
    else only where growth is at least eight times that, if that tells them apart; else refuted.
    The value is BF16 at beta = 0.002.
    """
    losses = {key: float(v.mean()) for key, v in _losses().items()}
    extra = {(f, b): v - losses["FP32", b] for (f, b), v in losses.items()}
    bad = {key for key, v in extra.items() if v >= 1}
    verdict = "reproduced" if not bad else "refuted"
    for times, words in ((1, "half"), (2, "one"), (8, "four"), (16, "eight")):
        if bad and bad == {(f, b) for f, b in extra if b < times * FORMATS[f][1]}:
            step = "half a step" if times == 1 else f"{words} step" + "s" * (times > 2)
            verdict = f"holds only when weights grow by more than {step} of the format a round"
            break
    value = _losses()["BF16", 0.002]
    table: dict[str, Any] = {
        f: ", ".join(f"{losses[f, b]:.2f} at {b:g}" for b in BETAS) for f in FORMATS
    }
    return Measured(
        float(value.mean()), "points", float(value.min()), float(value.max()), verdict,
        "winners lost, in points, by beta: " + "; ".join(f"{f} {t}" for f, t in table.items())
        + ".",
    )  # fmt: skip
