"""Claims on pharmacokinetics: rates, half-lives and concentrations in fewer bits.

One compartment: C(t) = D / V exp(-k t), half-life ln 2 / k. Two compartments: the terminal
half-life ln 2 / beta, beta the smaller root of s**2 - (k10 + k12 + k21) s + k10 k21 (Gibaldi &
Perrier 1982, Pharmacokinetics, chapter 2).
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from justenough.formats.floats import BF16, FP16
from justenough.formats.format import Floats
from justenough.formats.integers import IntFormat
from justenough.ledger import Measured
from justenough.studies.formats.rounding import worst_fp16_error

TOLERANCE = 1 / 6
SEEDS = 20
DRUGS = 2000
Vector = NDArray[np.float64]
Rounding = Callable[[Floats], Floats]
ROUNDINGS: dict[str, Rounding] = {
    "FP32": lambda x: x,
    "FP16": FP16.round,
    "BF16": BF16.round,
    "INT8": IntFormat(8).round,
    "unsigned INT8": IntFormat(8, symmetric=False).round,
}


def half_life_tolerance() -> Measured:
    """Relative tolerance that one hour of a half-life of six is.

    Rule: within half a point of 17 %, reproduced; else refuted.
    """
    share = 100 / 6
    return Measured(
        share, "%", None, None, "reproduced" if abs(share - 17) <= 0.5 else "refuted",
        f"1 h / 6 h = {share:.2f} %.",
    )  # fmt: skip


def fp16_relative() -> Measured:
    """Largest relative error of rounding once to FP16, by magnitude.

    Rule: at most 0.1 % for every magnitude from 1e-7 to 65504, reproduced; nowhere, refuted; else
    only for the magnitudes found.
    """
    worst = {e: worst_fp16_error(e) / 2.0**e for e in range(-24, 16)}
    kept = [e for e, error in worst.items() if error <= 0.001]
    verdict = "reproduced" if len(kept) == len(worst) else "refuted"
    if 0 < len(kept) < len(worst):
        verdict = f"holds only when the number lies between {2.0 ** min(kept):.1e} and 65504"
    return Measured(
        100 * worst[0], "%", None, None, verdict,
        f"Rounding to nearest is off by at most {worst[0]:.4%} in the normal range, whose step is "
        f"{2 * worst[0]:.4%} (machine epsilon); by {worst[-17]:.2%} near 1e-5 and "
        f"{worst[-20]:.1%} near 1e-6. C(t) computed operation by operation in FP16 is off by up "
        f"to {_computed_error():.2%} within ten half-lives.",
    )  # fmt: skip


def _computed_error() -> float:
    """Largest relative error of 10 exp(-k t), every operation rounded to FP16."""
    k = (math.log(2) / np.geomspace(1, 24, 200))[:, None]
    t = np.linspace(0, 10, 101) * math.log(2) / k
    k16, t16 = (FP16.round(x.astype(np.float32)) for x in (k, t))
    fraction = FP16.round(np.exp(-FP16.round(k16 * t16)))
    got = FP16.round(np.float32(10) * fraction).astype(np.float64)
    exact = 10 * np.exp(-k * t)
    return float(np.abs(got / exact - 1).max())


def int8_relative() -> Measured:
    """Steps of INT8 relative to the largest value, and errors relative to the value itself.

    Rule: errors relative to the value itself at most 0.8 % down to a thirtieth of the largest,
    reproduced; only the steps relative to the largest value between 0.35 and 0.85 %, only then;
    else refuted.
    """
    x = np.geomspace(1 / 30, 1, 20_001).astype(np.float32)
    forms = {"signed": IntFormat(8), "unsigned": IntFormat(8, symmetric=False)}
    steps = {"signed": 100 / 127, "unsigned": 100 / 255}
    own = {k: float(100 * np.abs(f.round(x) / x - 1).max()) for k, f in forms.items()}
    full = {k: float(100 * 2 * np.abs(f.round(x) - x).max()) for k, f in forms.items()}
    verdict = "reproduced" if max(own.values()) <= 0.8 else "refuted"
    if max(own.values()) > 0.8 and all(0.35 <= s <= 0.85 for s in full.values()):
        verdict = "holds only when it is the step relative to the largest value, not to each value"
    return Measured(
        own["signed"], "%", own["unsigned"], own["signed"], verdict,
        f"Steps are {steps['unsigned']:.2f} % (unsigned) and {steps['signed']:.2f} % (signed) of "
        f"the largest value; of a value between a thirtieth of it and itself the error is up to "
        f"{own['unsigned']:.1f} % and {own['signed']:.1f} %.",
    )  # fmt: skip


def half_life_formats() -> Measured:
    """Half-lives off by more than a sixth when PK numbers are rounded, and when integrated.

    2000 drugs with lognormal half-lives (median 6 h, a factor of 3 for one standard deviation),
    20 seeds: rates rounded over all drugs, of one compartment and of two, or eight concentrations
    of each drug rounded and a line fitted to their logarithms; and 6 h by Euler steps.

    Rule: FP16 is sufficient when no half-life from rounded numbers is off by more than a sixth;
    INT8 is marginal when 1 to 50 % from rates are. Both, and FP16 still sufficient when it
    integrates in steps down to 0.001 h: reproduced. Both, but not when integrating: only when
    rounded once. Else refuted.
    """
    seeds = range(SEEDS)
    off = {name: [_stored_off(form, s) for s in seeds] for name, form in ROUNDINGS.items()}
    two = {name: float(np.mean([_two_off(f, s) for s in seeds])) for name, f in ROUNDINGS.items()}
    fitted = {"FP16": [_fitted_off(FP16.round, s) for s in seeds]}
    fitted["INT8"] = [_fitted_off(IntFormat(8, axis=0).round, s) for s in seeds]
    logged = float(np.mean([_logged_off(s) for s in seeds]))
    steps = {dt: _integrated(FP16.round, dt) for dt in (1.0, 0.1, 0.01, 0.001)}
    exact = {dt: _integrated(lambda x: x, dt) for dt in steps}
    stored = max(off["FP16"]) == max(fitted["FP16"]) == two["FP16"] == 0
    marginal = 0.01 <= float(np.mean(off["INT8"])) <= 0.5
    moves = all(abs(t / exact[dt] - 1) <= TOLERANCE for dt, t in steps.items())
    verdict = "reproduced" if stored and marginal and moves else "refuted"
    if stored and marginal and not moves:
        verdict = (
            "holds only when rates or concentrations are rounded once, not at every short step of "
            "an integration"
        )
    share = 100 * float(np.mean(off["INT8"]))
    one = ", ".join(f"{k} {np.mean(v):.2%}" for k, v in off.items())
    both = ", ".join(f"{k} {v:.2%}" for k, v in two.items())
    walked = ", ".join(f"{_hours(t)} at steps of {dt:g} h" for dt, t in steps.items())
    return Measured(
        share, "%", 100 * min(off["INT8"]), 100 * max(off["INT8"]), verdict,
        f"Half-lives off by more than a sixth, one compartment: {one} (INT8 of log k "
        f"{logged:.2%}); terminal, two compartments: {both}; fitted to rounded concentrations: "
        f"FP16 {np.mean(fitted['FP16']):.2%}, INT8 {np.mean(fitted['INT8']):.2%}. A half-life of "
        f"6 h integrated in FP16 comes out as {walked}.",
    )  # fmt: skip


def _hours(t: float) -> str:
    return f"{t:.2f} h" if math.isfinite(t) else "never"


def _rates(seed: int) -> Vector:
    rng = np.random.default_rng(seed)
    half_life = 6 * np.exp(math.log(3) * rng.standard_normal(DRUGS))
    return math.log(2) / half_life


def _share_off(exact: Vector, got: Vector) -> float:
    """Share of rates whose half-life is off by more than a sixth; a rate of 0 never halves."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(got > 0, exact / got, np.inf)
    return float((np.abs(ratio - 1) > TOLERANCE).mean())


def _stored_off(form: Rounding, seed: int) -> float:
    k = _rates(seed)
    return _share_off(k, form(k.astype(np.float32)).astype(np.float64))


def _logged_off(seed: int) -> float:
    k = _rates(seed)
    logs = IntFormat(8, symmetric=False).round(np.log(k).astype(np.float32))
    return _share_off(k, np.exp(logs.astype(np.float64)))


def _fitted_off(form: Rounding, seed: int) -> float:
    """Share off when concentrations at 0.5, 1, ... 4 half-lives are rounded, and a line fitted."""
    k = _rates(seed)[:, None]
    t = np.arange(1, 9) * 0.5 * math.log(2) / k
    logs = np.log(form((10 * np.exp(-k * t)).astype(np.float32)).astype(np.float64))
    t = t - t.mean(axis=1, keepdims=True)
    slope = -(t * logs).sum(axis=1) / (t**2).sum(axis=1)
    return _share_off(k[:, 0], slope)


def _two_off(form: Rounding, seed: int) -> float:
    """Share of terminal half-lives that are off, k10, k12 and k21 each rounded over all drugs."""
    rng = np.random.default_rng(1000 + seed)
    k10, k12 = _rates(seed), 0.5 * np.exp(0.7 * rng.standard_normal(DRUGS))
    k21 = 0.3 * np.exp(0.7 * rng.standard_normal(DRUGS))
    rounded = [form(k.astype(np.float32)).astype(np.float64) for k in (k10, k12, k21)]
    return _share_off(_beta(k10, k12, k21), _beta(*rounded))


def _beta(k10: Vector, k12: Vector, k21: Vector) -> Vector:
    total = k10 + k12 + k21
    # The smaller root without the cancellation of total - sqrt(...).
    larger = 0.5 * (total + np.sqrt(np.maximum(total**2 - 4 * k10 * k21, 0)))
    return np.divide(k10 * k21, larger, out=np.zeros_like(total), where=larger > 0)


def _integrated(form: Rounding, dt: float) -> float:
    """Hours until a concentration has halved by Euler steps, each operation rounded; up to 24."""
    fraction = form(np.array([math.log(2) / 6 * dt], np.float32))
    c = np.array([10.0], np.float32)
    for step in range(1, round(24 / dt) + 1):
        after = form(c - form(fraction * c))
        if after[0] == c[0]:
            return math.inf
        if after[0] <= 5:
            return step * dt
        c = after
    return math.inf
