"""Weights: the exact answer against brute force, the searches against the exact answer."""

import sys

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize

from justenough.errors import InputError
from justenough.stats.simplex import correlation
from justenough.stats.weights import best_of, cma_weights, exact_weights, genetic_weights, grid

Array = NDArray[np.float64]


def covariance(seed: int, k: int = 4, push: float = 0.0) -> Array:
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((60, k + 1)) @ rng.standard_normal((k + 1, k + 1))
    rows[:, -1] += push * rows[:, :-1].sum(axis=1)
    c: Array = np.cov(rows.T)
    return c


def simplex_grid(steps: int) -> Array:
    a, b, c = np.meshgrid(*[np.arange(steps + 1)] * 3, indexing="ij")
    d = steps - a - b - c
    return np.stack([v[d >= 0] for v in (a, b, c, d)], axis=1) / steps


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("push", [-3.0, 0.0, 1.0])
def test_nothing_on_a_fine_grid_or_by_slsqp_is_better(seed: int, push: float) -> None:
    c = covariance(seed, push=push)
    found = exact_weights(c)
    assert found.weights.min() >= 0.0
    assert found.weights.sum() == pytest.approx(1.0)
    assert found.correlation == pytest.approx(float(correlation(c, found.weights)))
    tried = simplex_grid(30)
    values = correlation(c, tried)
    assert values.max() <= found.correlation + 1e-12
    refined = minimize(
        lambda w: -float(correlation(c, w)),
        tried[values.argmax()],
        method="SLSQP",
        bounds=[(0.0, 1.0)] * 4,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1.0},
    )
    assert -refined.fun <= found.correlation + 1e-9
    assert -refined.fun >= found.correlation - 1e-3


def test_where_nothing_correlates_one_signal_alone_is_best() -> None:
    c = np.eye(4) + 0.2
    c[-1, :-1] = c[:-1, -1] = [-0.5, -0.3, -0.4]
    found = exact_weights(c)
    np.testing.assert_array_equal(found.weights, [0.0, 1.0, 0.0])
    assert best_of(c, np.random.default_rng(0).dirichlet(np.ones(3), 10_000)).correlation < (
        found.correlation
    )


def test_units_of_the_signals_do_not_spoil_it() -> None:
    c = covariance(3, push=1.0)
    unit = np.array([1e-6, 1.0, 1e6, 1.0, 1e3])
    scaled = exact_weights(c * np.outer(unit, unit))
    assert scaled.correlation == pytest.approx(exact_weights(c).correlation, rel=1e-9)


def test_the_grid_is_the_169_weightings() -> None:
    w = grid()
    assert w.shape == (169, 4)
    np.testing.assert_allclose(w.sum(axis=1), 1.0)
    assert w.min() == 0.0
    np.testing.assert_allclose(w.max(axis=0)[:2], [1 / 3, 2 / 3])
    assert len(np.unique(w.round(9), axis=0)) == 169
    np.testing.assert_array_equal(w[:, 2], w[:, 3])


def test_the_genetic_algorithm_comes_close_and_never_falls() -> None:
    c = covariance(5, push=1.0)
    top = exact_weights(c).correlation
    found = genetic_weights(c, rng=np.random.default_rng(0))
    assert -1e-12 <= top - found.correlation < 1e-4
    assert (np.diff(found.best) >= 0.0).all()
    assert len(found.best) == 500
    assert found.evaluations == 1000 + 500 * 500
    again = genetic_weights(c, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(found.weights, again.weights)


def test_cma_reaches_the_optimum() -> None:
    pytest.importorskip("cma", reason="needs the stats extra")
    for seed in (5, 6):
        c = covariance(seed, push=1.0)
        found = cma_weights(c, rng=np.random.default_rng(0))
        assert abs(exact_weights(c).correlation - found.correlation) < 1e-8
        assert (np.diff(found.best) >= 0.0).all()
        assert found.correlation == pytest.approx(float(correlation(c, found.weights)))


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    c, rng = covariance(0), np.random.default_rng(0)
    with pytest.raises(InputError, match="population is 7; it must be even and at least 4"):
        genetic_weights(c, rng=rng, population=7)
    with pytest.raises(InputError, match="generations is 0; it must be at least 1"):
        genetic_weights(c, rng=rng, generations=0)
    with pytest.raises(InputError, match=r"mutation is 1.5; it must lie in \[0, 1\]"):
        genetic_weights(c, rng=rng, mutation=1.5)
    with pytest.raises(InputError, match="candidates have 3 weights; there are 4 signals"):
        best_of(c, np.full((2, 3), 1 / 3))
    with pytest.raises(InputError, match="candidates are not all on the simplex"):
        best_of(c, np.full((2, 4), 1 / 3))
    with pytest.raises(InputError, match="evaluations is 9; it must be at least 100"):
        cma_weights(c, rng=rng, evaluations=9)
    with pytest.raises(InputError, match="2 signals leave one unknown"):
        cma_weights(covariance(0, 2), rng=rng)
    with pytest.raises(InputError, match=r"covariance has shape \(4, 3\)"):
        exact_weights(np.ones((4, 3)))
    monkeypatch.setitem(sys.modules, "cma", None)
    with pytest.raises(InputError, match="cma is not installed"):
        cma_weights(c, rng=rng)
