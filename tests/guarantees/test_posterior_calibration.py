"""Posterior intervals cover as often as they say, for weights drawn from the prior.

Simulation-based calibration (Talts et al. 2018): with w and tau from their priors, any b and
sigma, the posterior probability below the true weight is uniform. Exact for the exact route; the
thresholds leave each test a chance of about 1e-3 to fail where nothing is wrong.
"""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom, chi2

from justenough.stats.simplex import SimplexModel, summary
from justenough.stats.simplex_posterior import exact, predictive
from justenough.stats.variational import variational

Array = NDArray[np.float64]


def simulated(n: int, alpha: Array, snr: float, rng: np.random.Generator) -> tuple[Array, Array]:
    """Model with rows drawn from it, and the weights that made them."""
    x = rng.random((n, len(alpha))) + 0.5 * rng.random((n, 1))
    w = rng.dirichlet(alpha)
    composite = x @ w
    z = (composite - composite.mean()) / composite.std()
    y = 20.0 + 7.0 * (abs(snr * rng.standard_normal()) * z + rng.standard_normal(n))
    return np.column_stack([x, y]), w


@pytest.mark.slow
@pytest.mark.coverage_study
@pytest.mark.parametrize(
    ("n", "concentration", "snr"), [(12, 2.0, 1.0), (60, 1.0, 1.0), (300, 3.0, 2.0)]
)
def test_exact_posteriors_are_calibrated(n: int, concentration: float, snr: float) -> None:
    rng, runs = np.random.default_rng(n), 300
    alpha = np.full(4, concentration)
    below, inside = np.empty((runs, 4)), np.empty((runs, 4))
    for i in range(runs):
        rows, w = simulated(n, alpha, snr, rng)
        model = SimplexModel(summary(rows[:, :-1], rows[:, -1]), alpha, snr)
        found = exact(model, 20_000, rng=rng)
        below[i] = (found.shares[0][:, None] * (found.draws[0] < w)).sum(axis=0)
        ends = found.interval(0.1)
        inside[i] = (ends[:, 0] <= w) & (w <= ends[:, 1])
    least, most = binom.ppf([1e-4, 1 - 1e-4], runs, 0.9)
    assert (inside.sum(axis=0) >= least).all()
    assert (inside.sum(axis=0) <= most).all()
    for j in range(4):
        counts = np.histogram(below[:, j], 10, (0.0, 1.0))[0]
        assert ((counts - runs / 10) ** 2).sum() / (runs / 10) < chi2.isf(2.5e-4, 9)


@pytest.mark.slow
@pytest.mark.coverage_study
def test_predictive_intervals_cover_new_rows() -> None:
    rng, runs, hits = np.random.default_rng(0), 400, 0
    alpha = np.full(3, 2.0)
    for _ in range(runs):
        rows, _ = simulated(16, alpha, 1.0, rng)
        rest, new = rows[:-1], rows[-1]
        # the prior's unit is the spread of all rows, so the last one is not quite from the model
        model = SimplexModel(summary(rest[:, :-1], rest[:, -1]), alpha)
        drawn = predictive(model, exact(model, 10_000, rng=rng), new[None, :-1], rng=rng)[:, 0]
        low, high = np.quantile(drawn, [0.1, 0.9])
        hits += low <= new[-1] <= high
    least, most = binom.ppf([5e-4, 1 - 5e-4], runs, 0.8)
    assert least <= hits <= most


@pytest.mark.slow
@pytest.mark.coverage_study
def test_mean_field_is_seen_not_to_cover() -> None:
    """The same check has the power to find a method that is wrong: its 90 % intervals."""
    rng, runs, inside = np.random.default_rng(0), 150, 0
    alpha = np.full(4, 2.0)
    for _ in range(runs):
        rows, w = simulated(3000, alpha, 2.0, rng)
        model = SimplexModel(summary(rows[:, :-1], rows[:, -1]), alpha, 2.0)
        ends = variational(model, 2000, full_rank=False, rng=rng).interval(0.1)
        inside += int(((ends[:, 0] <= w) & (w <= ends[:, 1])).sum())
    assert inside < binom.ppf(1e-3, 4 * runs, 0.9)
