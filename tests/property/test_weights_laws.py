"""Laws of weights and tensor factors, for whatever data."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from justenough.stats.factors import cp, hooi, st_hosvd
from justenough.stats.simplex import SimplexModel, correlation, summary
from justenough.stats.weights import best_of, exact_weights, genetic_weights

Array = NDArray[np.float64]

SEEDS = st.integers(0, 2**32 - 1)


def rows(seed: int, k: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((3 * k + 5, k)) * 10.0 ** rng.uniform(-3, 3, k)
    return x, x @ rng.standard_normal(k) + rng.standard_normal(len(x))


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(2, 7))
def test_no_weights_correlate_more_than_the_exact_ones(seed: int, k: int) -> None:
    c = summary(*rows(seed, k)).covariance
    rng = np.random.default_rng(seed)
    found = exact_weights(c)
    tried = np.concatenate([rng.dirichlet(np.full(k, a), 100) for a in (0.1, 1.0)] + [np.eye(k)])
    assert best_of(c, tried).correlation <= found.correlation + 1e-9
    searched = genetic_weights(c, rng=rng, population=40, generations=20)
    assert searched.correlation <= found.correlation + 1e-9
    near = np.abs(found.weights + 1e-3 * rng.standard_normal((50, k)))
    assert correlation(c, near).max() <= found.correlation + 1e-9


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(2, 7))
def test_the_order_of_the_signals_does_not_matter(seed: int, k: int) -> None:
    x, y = rows(seed, k)
    order = np.random.default_rng(seed).permutation(k)
    one, two = (exact_weights(summary(a, y).covariance) for a in (x, x[:, order]))
    np.testing.assert_allclose(one.correlation, two.correlation, rtol=1e-7, atol=1e-9)
    model, turned = (SimplexModel(summary(a, y), np.ones(k)) for a in (x, x[:, order]))
    w = np.random.default_rng(seed).dirichlet(np.full(k, 2.0), 5)
    theta = model.unconstrained(w, np.full(5, 0.4))
    same = turned.unconstrained(w[:, order], np.full(5, 0.4))
    np.testing.assert_allclose(
        model.log_posterior(theta), turned.log_posterior(same), rtol=1e-7, atol=1e-7
    )


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.lists(st.integers(1, 6), min_size=3, max_size=4))
def test_more_factors_never_explain_less(seed: int, shape: list[int]) -> None:
    x = np.random.default_rng(seed).standard_normal(shape)
    whole = st_hosvd(x, tuple(shape))
    assert whole.error < 1e-6
    smaller = tuple(max(1, n - 1) for n in shape)
    one = (1,) * len(shape)
    best = hooi(x, smaller)
    assert whole.error <= best.error + 1e-7
    assert best.error <= hooi(x, one).error + 1e-7
    component = cp(x, 1, rng=np.random.default_rng(seed))
    # a Tucker model of rank 1 in each mode is a component; either may end in a local optimum
    assert component.error <= 1.0
    assert component.error >= whole.error - 1e-7
