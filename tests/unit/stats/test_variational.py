"""Approximations against the exact posterior: close where they should be, and honest where not."""

import numpy as np
import pytest
from numpy.typing import NDArray

from justenough.errors import InputError
from justenough.stats.posterior import Posterior, discrepancy
from justenough.stats.simplex import SimplexModel, Summary, mode, summary
from justenough.stats.simplex_posterior import exact
from justenough.stats.variational import laplace, pathfinder, variational

Array = NDArray[np.float64]


def model(n: int, weights: list[float]) -> SimplexModel:
    rng = np.random.default_rng(0)
    x = rng.random((n, len(weights)))
    y = x @ weights + 0.1 * rng.standard_normal(n)
    return SimplexModel(summary(x, y), np.full(len(weights), 2.0))


@pytest.fixture(scope="module")
def many() -> tuple[SimplexModel, Posterior]:
    m = model(50_000, [0.1, 0.6, 0.2, 0.1])
    return m, exact(m, 200_000, rng=np.random.default_rng(0))


@pytest.fixture(scope="module")
def few() -> tuple[SimplexModel, Posterior]:
    m = model(50, [0.1, 0.6, 0.2, 0.1])
    return m, exact(m, 200_000, rng=np.random.default_rng(0))


Pair = tuple[SimplexModel, Posterior]


def test_the_mode_has_no_slope_and_is_a_maximum(few: Pair) -> None:
    at, hessian = mode(few[0])
    assert np.abs(few[0].value_and_gradient(at)[1]).max() < 1e-6
    assert np.linalg.eigvalsh(hessian)[0] > 0
    near = at + 0.01 * np.random.default_rng(0).standard_normal((50, 4))
    assert (few[0].log_posterior(near) < few[0].log_posterior(at)).all()


def test_all_but_mean_field_are_right_with_many_rows(many: Pair) -> None:
    m, reference = many
    rng = np.random.default_rng(1)
    close = [
        laplace(m, rng=rng),
        variational(m, full_rank=True, rng=rng),
        pathfinder(m, rng=rng),
    ]
    for found in close:
        off = discrepancy(found, reference)
        assert max(off.mean, off.sd, off.ends) < 0.08, found.method
        assert found.pareto_k is not None
        assert found.pareto_k < 0.7, found.method


def test_mean_field_is_too_narrow_and_says_so(many: Pair) -> None:
    m, reference = many
    found = variational(m, full_rank=False, rng=np.random.default_rng(1))
    own = m.unconstrained(found.draws[0], found.slope[0]).std(axis=0)
    right = m.unconstrained(reference.draws[0], reference.slope[0]).std(axis=0)
    assert (own < 1.01 * right).all()
    assert own.min() < 0.9 * right[own.argmin()]
    assert discrepancy(found, reference).mean < 0.1
    assert found.pareto_k is not None
    assert found.pareto_k > 0.5


def test_with_few_rows_full_rank_beats_laplace_and_pathfinder_both(few: Pair) -> None:
    m, reference = few
    rng = np.random.default_rng(1)
    far = discrepancy(laplace(m, rng=rng), reference)
    near = discrepancy(variational(m, full_rank=True, rng=rng), reference)
    nearest = discrepancy(pathfinder(m, rng=rng), reference)
    assert near.mean < 0.3 * far.mean
    assert nearest.ends < near.ends < far.ends


def test_full_rank_finds_the_best_normal_distribution(few: Pair) -> None:
    """No normal distribution near the one found has a larger ELBO, on draws of its own."""
    m = few[0]
    found = variational(m, 20_000, full_rank=True, rng=np.random.default_rng(1), fixed=4096)
    theta = m.unconstrained(found.draws[0], found.slope[0])
    centre, covariance = theta.mean(axis=0), np.cov(theta.T)
    noise = np.random.default_rng(2).standard_normal((50_000, 4))

    def elbo(at: Array, spread: Array) -> float:
        root = np.linalg.cholesky(spread)
        return float(m.log_posterior(at + noise @ root.T).mean() + np.log(np.diag(root)).sum())

    best = elbo(centre, covariance)
    for j in range(4):
        move = 0.2 * np.sqrt(covariance[j, j]) * np.eye(4)[j]
        assert max(elbo(centre + move, covariance), elbo(centre - move, covariance)) < best
        stretch = np.diag(1 + 0.2 * np.eye(4)[j])
        assert elbo(centre, stretch @ covariance @ stretch) < best


def test_the_same_seed_gives_the_same_answer(few: Pair) -> None:
    for method in (laplace, pathfinder):
        one, two = (method(few[0], 2000, rng=np.random.default_rng(4)) for _ in range(2))
        np.testing.assert_array_equal(one.draws, two.draws)
    one, two = (
        variational(few[0], 2000, full_rank=True, rng=np.random.default_rng(4)) for _ in range(2)
    )
    np.testing.assert_array_equal(one.draws, two.draws)


def test_refusals() -> None:
    m = SimplexModel(Summary(50, np.zeros(3), np.eye(3) + 0.1), np.ones(2))
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="999 draws; at least 1000 are needed"):
        laplace(m, 999, rng=rng)
    with pytest.raises(InputError, match="999 draws; at least 1000 are needed"):
        pathfinder(m, 999, rng=rng)
    with pytest.raises(InputError, match="0 paths; at least 1 is needed"):
        pathfinder(m, rng=rng, paths=0)
    with pytest.raises(InputError, match="8 fixed draws; the objective needs at least 64"):
        variational(m, full_rank=True, rng=rng, fixed=8)
