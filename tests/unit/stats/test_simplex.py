"""The posterior of two and four weights against quadrature and against brute force."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.special import stdtr

from justenough.errors import InputError
from justenough.stats.simplex import (
    SimplexModel,
    Summary,
    checked_covariance,
    contrasts,
    correlation,
    summary,
)
from justenough.stats.simplex_posterior import exact, predictive

Array = NDArray[np.float64]


def model(
    n: int, weights: list[float], noise: float, alpha: float = 2.0, seed: int = 0
) -> SimplexModel:
    rng = np.random.default_rng(seed)
    x = rng.random((n, len(weights))) + 0.3 * rng.random((n, 1))
    y = 3.0 + 2.0 * x @ weights + noise * rng.standard_normal(n)
    return SimplexModel(summary(x, y), np.full(len(weights), alpha))


def collapsed(m: SimplexModel, w: Array) -> Array:
    """Log marginal likelihood of weights, q integrated out by hand, up to a constant."""
    r, c, n = m.correlation(w), m.shrinkage, m.summary.n
    left = 1.0 - c * r * r
    tail = stdtr(n - 1, r * np.sqrt(c * (n - 1) / left))
    out: Array = -0.5 * (n - 1) * np.log(left) + np.log(tail)
    return out


@pytest.mark.parametrize(("n", "noise"), [(8, 0.5), (40, 1.0), (40, 10.0), (5000, 0.5)])
def test_two_weights_agree_with_quadrature(n: int, noise: float) -> None:
    m = model(n, [0.7, 0.3], noise)
    found = exact(m, 200_000, rng=np.random.default_rng(1))
    top = collapsed(m, np.stack([g := np.linspace(1e-6, 1 - 1e-6, 20_001), 1 - g], axis=1)).max()

    def density(a: float) -> float:
        w = np.array([a, 1.0 - a])
        return float(np.exp(collapsed(m, w) - top) * a * (1.0 - a))

    centre, width = found.mean[0], 12 * found.sd[0]
    ends = max(0.0, centre - width), min(1.0, centre + width)
    mass = quad(density, *ends, limit=200)[0]
    mean = quad(lambda a: a * density(a), *ends, limit=200)[0] / mass
    var = quad(lambda a: (a - mean) ** 2 * density(a), *ends, limit=200)[0] / mass
    assert abs(found.mean[0] - mean) < 4 * found.mean_error[0]
    assert found.sd[0] == pytest.approx(math.sqrt(var), rel=0.02)
    low, high = found.interval(0.1)[0]
    assert quad(density, ends[0], low, limit=200)[0] / mass == pytest.approx(0.05, abs=0.003)
    assert quad(density, high, ends[1], limit=200)[0] / mass == pytest.approx(0.05, abs=0.003)


@pytest.mark.parametrize("alpha", [0.7, 1.0, 3.0])
def test_four_weights_agree_with_draws_from_the_prior(alpha: float) -> None:
    m = model(30, [0.4, 0.3, 0.2, 0.1], 0.6, alpha)
    found = exact(m, 100_000, rng=np.random.default_rng(1))
    w = np.random.default_rng(2).dirichlet(m.alpha, 400_000)
    share = np.exp((logs := collapsed(m, w)) - logs.max())
    share /= share.sum()
    mean = share @ w
    error = np.sqrt(share**2 @ (w - mean) ** 2) + found.mean_error
    assert (np.abs(found.mean - mean) < 4 * error).all()
    np.testing.assert_allclose(found.sd, np.sqrt(share @ (w - mean) ** 2), rtol=0.03)


def test_gradient_is_the_slope() -> None:
    m = model(50, [0.5, 0.2, 0.2, 0.1], 0.3)
    points = np.random.default_rng(0).normal(0, 0.7, (20, 4))
    value, gradient = m.value_and_gradient(points)
    assert value.shape == (20,)
    for j in range(4):
        step = 1e-6 * np.eye(4)[j]
        slope = (m.log_posterior(points + step) - m.log_posterior(points - step)) / 2e-6
        np.testing.assert_allclose(gradient[:, j], slope, rtol=1e-6, atol=1e-6)


def test_far_points_do_not_overflow() -> None:
    m = model(50, [0.5, 0.2, 0.2, 0.1], 0.3)
    far = np.array([[0.0, 0, 0, 500], [0, 0, 0, -500], [900, 0, 0, 900], [0, -900, 0, -900]])
    value, gradient = m.value_and_gradient(far)
    assert np.isfinite(value).all()
    assert np.isfinite(gradient).all()
    # for large q the density falls as q**(1 - n)
    assert value[0] - m.log_posterior(np.array([0.0, 0, 0, 400])) == pytest.approx(-4900)


def test_transform_and_its_inverse() -> None:
    m = model(50, [0.5, 0.2, 0.2, 0.1], 0.3)
    rng = np.random.default_rng(0)
    w, q = rng.dirichlet(np.ones(4), 30), rng.random(30) + 0.1
    again, slope = m.weights(m.unconstrained(w, q))
    np.testing.assert_allclose(again, w, atol=1e-14)
    np.testing.assert_allclose(slope, q)
    h = contrasts(5)
    np.testing.assert_allclose(h.T @ h, np.eye(4), atol=1e-15)
    np.testing.assert_allclose(h.sum(axis=0), 0.0, atol=1e-15)


def test_location_and_scale_of_the_rows_do_not_matter() -> None:
    rng = np.random.default_rng(0)
    x = rng.random((200, 3))
    y = x @ [0.5, 0.3, 0.2] + 0.2 * rng.standard_normal(200)
    one = exact(SimplexModel(summary(x, y), np.ones(3)), rng=np.random.default_rng(1))
    two = exact(
        SimplexModel(summary(x + 7, 1e4 * y - 3), np.ones(3)), rng=np.random.default_rng(1)
    )
    np.testing.assert_allclose(one.mean, two.mean, rtol=1e-9)


def test_a_million_rows_and_a_perfect_fit() -> None:
    c = np.cov(np.random.default_rng(0).standard_normal((3, 1000)))
    for noise in (1.0, 0.0):
        w = np.array([0.6, 0.4])
        whole = np.zeros((3, 3))
        whole[:2, :2] = c[:2, :2]
        whole[:2, 2] = whole[2, :2] = c[:2, :2] @ w
        whole[2, 2] = w @ c[:2, :2] @ w + noise
        m = SimplexModel(Summary(10**6, np.zeros(3), whole), np.ones(2))
        found = exact(m, rng=np.random.default_rng(0))
        assert np.abs(found.mean - w).max() < 0.01
        assert found.sd.max() < 0.01


def test_predictive_has_the_noise_and_the_mean_of_the_rows() -> None:
    rng = np.random.default_rng(0)
    x = rng.random((40_000, 3))
    y = 5.0 + 3.0 * x @ [0.5, 0.3, 0.2] + 0.5 * rng.standard_normal(40_000)
    m = SimplexModel(summary(x, y), np.ones(3))
    new = np.array([[0.5, 0.5, 0.5], [1.0, 0.0, 0.0]])
    drawn = predictive(m, exact(m, rng=rng), new, rng=rng)
    assert drawn.shape == (20_000, 2)
    np.testing.assert_allclose(drawn.mean(axis=0), [6.5, 6.5], atol=0.03)
    np.testing.assert_allclose(drawn.std(axis=0), 0.5, atol=0.02)


def test_correlation_is_numpys() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.random((50, 3)), rng.random(50)
    w = rng.dirichlet(np.ones(3), 5)
    found = correlation(summary(x, y).covariance, w)
    expected = [np.corrcoef(x @ v, y)[0, 1] for v in w]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_what_cannot_be_used_is_refused() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.random((50, 4)), rng.random(50)
    constant, twice, hole = x.copy(), x.copy(), x.copy()
    constant[:, 1] = 3.0
    twice[:, 1] = 2 * twice[:, 2]
    hole[3, 2] = np.nan
    with pytest.raises(InputError, match="signal 1 has variance 0; it must vary"):
        summary(constant, y)
    with pytest.raises(InputError, match="y has variance 0; it must vary"):
        summary(x, np.zeros(50))
    with pytest.raises(InputError, match="signals depend on each other linearly"):
        summary(twice, y)
    with pytest.raises(InputError, match="x is nan in row 3, column 2"):
        summary(hole, y)
    with pytest.raises(InputError, match="lengths differ: x 50, y 49"):
        summary(x, y[:-1])
    with pytest.raises(InputError, match="6 rows for 4 signals; at least 7 are needed"):
        summary(x[:6], y[:6])
    with pytest.raises(InputError, match=r"x has shape \(50,\); it must be \(n, k\)"):
        summary(y, y)
    with pytest.raises(InputError, match="x holds values that are not numbers"):
        summary([["a", "b"]], [1.0])
    with pytest.raises(InputError, match=r"covariance has shape \(2, 2\)"):
        checked_covariance(np.eye(2))
    with pytest.raises(InputError, match="covariance is not symmetric"):
        checked_covariance(np.eye(3) + np.triu(np.ones((3, 3)), 1))
    with pytest.raises(InputError, match="negative eigenvalue"):
        checked_covariance(np.eye(3) + np.fliplr(np.diag([2.0, 0.0, 2.0])))
    with pytest.raises(InputError, match=r"mean has shape \(2,\); it must hold 3 finite numbers"):
        Summary(50, np.zeros(2), np.eye(3))


def test_a_model_that_makes_no_sense_is_refused() -> None:
    m = Summary(50, np.zeros(3), np.eye(3) + 0.1)
    with pytest.raises(InputError, match=r"alpha is \[1.0\]; it must be 2 numbers above 0"):
        SimplexModel(m, np.ones(1))
    with pytest.raises(InputError, match="it must be 2 numbers above 0"):
        SimplexModel(m, np.array([1.0, 0.0]))
    with pytest.raises(InputError, match="snr is 0; it must be a finite number above 0"):
        SimplexModel(m, np.ones(2), 0)
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="500 draws; at least 10000 are needed"):
        exact(SimplexModel(m, np.ones(2)), 500, rng=rng)
    found = exact(SimplexModel(m, np.ones(2)), rng=rng)
    with pytest.raises(InputError, match="x has 3 columns; the model has 2 weights"):
        predictive(SimplexModel(m, np.ones(2)), found, np.ones((2, 3)), rng=rng)


def test_proposals_that_are_worth_too_little_are_refused() -> None:
    # so small a concentration makes a spike at every corner of the simplex
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 4)) + rng.standard_normal((60, 1))
    y = x.mean(axis=1) + 0.5 * rng.standard_normal(60)
    m = SimplexModel(summary(x, y), np.full(4, 0.05))
    with pytest.raises(InputError, match=r"10000 proposals are worth \d+ draws .*use nuts"):
        exact(m, 10_000, rng=rng)
