"""The first analysis: all conversations in one pass, then any weights without another."""

import math
from typing import Any

import numpy as np
from scipy.stats import norm

from justenough.stats.checks import FEWEST_UNITS
from justenough.stats.moments import Moments
from justenough.stats.multiplicity import holm
from justenough.stats.simplex import correlation
from justenough.stats.totals import checked_weights, gradients
from justenough.stats.weights import exact_weights, grid
from justenough.studies.heavystats.work import HOPED, Array, Said, Work, prefixes
from justenough.studies.heavystats.world import World

ALPHA = 0.05
POWERS = (0.8, 0.95)


def montecarlo(work: Work) -> Said:
    """Correlation of each of the 169 weightings with importance, and what can be told apart."""
    parts = prefixes(work)
    all_of_it, weights = parts[-1], grid()
    r, errors = all_of_it.correlations(weights), all_of_it.standard_errors(weights)
    best = int(r.argmax())
    exact = _exact(work, weights)
    found: Said = {
        "conversations": all_of_it.units,
        "turns": all_of_it.rows,
        "weights": weights.tolist(),
        "r": r.tolist(),
        "standard_error": errors.tolist(),
        "best": best,
        "optimum": _optimum(all_of_it),
        "hoped": _one(all_of_it, HOPED),
        "equal": _one(all_of_it, np.full(4, 0.25)),
        "told_apart": told_apart(all_of_it, weights, best),
        "convergence": [
            {"conversations": m.units, **_one(m, weights[best])} for m in parts if m.units >= 30
        ],
    }
    if exact is not None:
        found["exact_r"] = exact.tolist()
        found["largest_error"] = float(np.abs(r - exact).max())
        found["largest_error_in_se"] = float((np.abs(r - exact) / errors).max())
    return found


def _exact(work: Work, weights: Array) -> Array | None:
    """What the generator is built to give; nothing of the kind is known of a table."""
    if not isinstance(work.source, World):
        return None
    return np.asarray(correlation(work.source.covariance(), weights))


def _optimum(m: Moments) -> Said:
    found = exact_weights(m.covariance)
    return {"weights": found.weights.tolist(), "r": found.correlation}


def _one(m: Moments, weights: Array) -> Said:
    return {
        "r": float(m.correlations(weights)[0]),
        "standard_error": float(m.standard_errors(weights)[0]),
    }


def told_apart(m: Moments, weights: Array, best: int) -> Said:
    """Which weightings are shown to be worse than the best, and what it takes to show it.

    Every difference from the best is tested (one-sided, by its influence-function standard
    error, which knows that both come from the same turns) and all are corrected together by
    Holm. The best was chosen on the same data, so a p-value among the first few says less than it
    seems to; those far away are not touched by that.
    """
    slope = gradients(m.centred().totals[None], checked_weights(weights, 5))[0]
    away = slope[best] - slope
    factor = m.units / (m.units - 1)
    error = np.sqrt(
        factor * np.maximum(np.einsum("mq,qr,mr->m", away, m.centred().cross, away), 0)
    )
    r = m.correlations(weights)
    others = np.delete(np.arange(len(weights)), best)
    gap = (r[best] - r)[others]
    error = np.maximum(error[others], 1e-300)
    p = norm.sf(gap / error)
    rejected = holm(p, alpha=ALPHA).rejected
    nearest = int(others[gap.argmin()])
    effect = math.atanh(float(r[best])) - math.atanh(float(m.correlations(np.full(4, 0.25))[0]))
    return {
        "worse": int(rejected.sum()),
        "others": len(others),
        "nearest": nearest,
        "nearest_gap": float(gap.min()),
        "cohen_q_against_equal": effect,
        "needed": [_needed(gap, error, m.units, power) for power in POWERS],
    }


def _needed(gap: Array, error: Array, units: int, power: float) -> dict[str, Any]:
    """Conversations that show the nearest, and half of the others, with the given power."""
    each = error**2 * units
    reach = float(norm.isf(ALPHA) + norm.ppf(power))
    needed = np.ceil(each * (reach / np.maximum(gap, 1e-300)) ** 2)
    needed = np.maximum(needed, FEWEST_UNITS)  # below that the formula does not hold
    return {
        "power": power,
        "nearest": float(needed[gap.argmin()]),
        "median": float(np.median(needed)),
    }
