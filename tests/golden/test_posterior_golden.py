"""Frozen numbers of other programs and of the literature for posteriors and tensor factors."""

import math

import numpy as np
import pytest
from scipy.integrate import quad

from justenough.stats.convergence import ess_bulk, ess_tail, psis, r_hat
from justenough.stats.factors import cp, hooi
from justenough.stats.simplex import SimplexModel, summary


def test_diagnostics_are_arvizs() -> None:
    """ArviZ 0.23.4: rhat, ess(method="bulk"), ess(method="tail")."""
    i = np.arange(200.0)
    draws = np.sin(np.outer([1.0, 1.3, 1.7, 2.1], i * i)) + np.array([[0.0], [0.0], [0.1], [0.3]])
    assert r_hat(draws) == pytest.approx(1.0292187485256166, rel=1e-9)
    assert ess_bulk(draws) == pytest.approx(154.0248919486714, rel=1e-7)
    assert ess_tail(draws) == pytest.approx(35.79736821841328, rel=1e-7)


def test_smoothed_ratios_are_arvizs() -> None:
    """ArviZ 0.23.4: psislw of quantiles of a Pareto distribution with shape 0.8."""
    shares, k = psis(-0.8 * np.log((np.arange(1000) + 0.5) / 1000))
    assert k == pytest.approx(0.7574598327160104, rel=1e-9)
    assert shares.max() == pytest.approx(0.09256405479578693, rel=1e-9)


def test_tensor_errors_are_tensorlys() -> None:
    """TensorLy 0.10.0: tucker to the end; parafac, the best of 10 random starts."""
    a, b, c = np.meshgrid(np.arange(6.0), np.arange(5.0), np.arange(4.0), indexing="ij")
    x = 1 / (1 + a + b * b + a * c) + 0.1 * np.sin(7 * a + 3 * b * c)
    assert hooi(x, (2, 2, 2), tolerance=1e-14).error == pytest.approx(0.17521027906989, abs=1e-9)
    found = cp(x, 2, rng=np.random.default_rng(0), tolerance=1e-12, sweeps=5000)
    assert found.error == pytest.approx(0.17521027906990, abs=1e-7)


@pytest.mark.parametrize("snr", [0.5, 1.0, 3.0])
def test_marginal_likelihoods_are_those_of_the_g_prior(snr: float) -> None:
    """Liang, Paulo, Molina, Clyde & Berger 2008 (JASA 103), equation 6, with p = 1.

    (1 + g)**((n - 2) / 2) / (1 + g (1 - r**2))**((n - 1) / 2) is the Bayes factor of one
    regressor against none; with so clear a slope, cutting it to s > 0 doubles both alike.
    """
    rng = np.random.default_rng(0)
    x = rng.random((60, 3))
    y = x @ [0.5, 0.3, 0.2] + 0.1 * rng.standard_normal(60)
    model = SimplexModel(summary(x, y), np.ones(3), snr)
    found, expected = [], []
    for w in np.array([[0.5, 0.3, 0.2], [0.2, 0.3, 0.5], [0.4, 0.4, 0.2]]):
        theta = model.unconstrained(w, np.array(1.0))

        def density(log_q: float, at: np.ndarray = theta, w: np.ndarray = w) -> float:
            point = np.append(at[:-1], log_q)
            # without the Dirichlet prior's Jacobian, the product of the weights
            return math.exp(float(model.log_posterior(point)) - math.log(w.prod()) - 60)

        found.append(math.log(quad(density, -6, 3, limit=400, points=[-0.5, 0.0])[0]))
        g, r = 60 * snr**2, float(model.correlation(w))
        expected.append(29 * math.log1p(g) - 29.5 * math.log1p(g * (1 - r * r)))
    np.testing.assert_allclose(np.diff(found), np.diff(expected), rtol=1e-6)
