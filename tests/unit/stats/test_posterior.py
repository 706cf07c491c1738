"""Summaries of weighted draws, and the distance between two posteriors."""

import numpy as np
import pytest
from scipy.stats import beta

from justenough.errors import InputError
from justenough.stats.posterior import Posterior, discrepancy


def drawn(n: int, seed: int = 0, *, weighted: bool = False) -> Posterior:
    """Dirichlet(4, 2) draws; weighted ones come from Dirichlet(1, 1) with importance shares."""
    rng = np.random.default_rng(seed)
    if not weighted:
        w = rng.dirichlet([4.0, 2.0], n)
        return Posterior("d", w[None], np.ones((1, n)), np.full((1, n), 1 / n), n, r_hat=1.0)
    w = rng.dirichlet([1.0, 1.0], n)
    shares = w[:, 0] ** 3 * w[:, 1]
    shares /= shares.sum()
    return Posterior("i", w[None], np.ones((1, n)), shares[None], float(1 / (shares @ shares)))


@pytest.mark.parametrize("weighted", [False, True])
def test_summaries_are_those_of_the_beta_distribution(weighted: bool) -> None:
    p = drawn(200_000, weighted=weighted)
    law = beta(4, 2)
    assert p.mean[0] == pytest.approx(law.mean(), abs=4 * p.mean_error[0])
    assert p.sd[0] == pytest.approx(law.std(), rel=0.01)
    np.testing.assert_allclose(p.interval(0.1)[0], law.ppf([0.05, 0.95]), atol=0.005)
    np.testing.assert_allclose(p.interval(0.1)[1], 1 - law.ppf([0.95, 0.05]), atol=0.005)


@pytest.mark.parametrize("weighted", [False, True])
def test_hdi_is_the_shortest_interval(weighted: bool) -> None:
    p = drawn(400_000, weighted=weighted)
    law = beta(4, 2)
    start = np.linspace(0, 0.1 - 1e-9, 2001)
    ends = np.stack([law.ppf(start), law.ppf(start + 0.9)])
    best = ends[:, (ends[1] - ends[0]).argmin()]
    np.testing.assert_allclose(p.hdi(0.1)[0], best, atol=0.02)
    width = p.hdi(0.1)[0, 1] - p.hdi(0.1)[0, 0]
    assert width == pytest.approx(best[1] - best[0], rel=0.01)
    assert width <= p.interval(0.1)[0, 1] - p.interval(0.1)[0, 0]


def test_monte_carlo_error_is_the_spread_of_the_mean() -> None:
    for weighted in (False, True):
        means = [drawn(2000, seed, weighted=weighted).mean[0] for seed in range(300)]
        said = drawn(2000, weighted=weighted).mean_error[0]
        assert said == pytest.approx(np.std(means), rel=0.15)


def test_discrepancy_is_in_standard_deviations_of_the_reference() -> None:
    p = drawn(100_000)
    moved = Posterior("m", p.draws + np.array([0.1, -0.1]), p.slope, p.shares, p.ess, r_hat=1.0)
    found = discrepancy(moved, p)
    assert found.mean == pytest.approx(0.1 / p.sd[0])
    assert found.sd == pytest.approx(0.0, abs=1e-9)
    assert found.ends == pytest.approx(0.1 / p.sd[0])
    three = Posterior("3", np.full((1, 9, 3), 1 / 3), np.ones((1, 9)), np.full((1, 9), 1 / 9), 9)
    with pytest.raises(InputError, match="3 weights against 2"):
        discrepancy(three, p)


def test_intervals_need_a_probability() -> None:
    for ask in (drawn(100).interval, drawn(100).hdi):
        with pytest.raises(InputError, match=r"alpha is 1\.5"):
            ask(1.5)
