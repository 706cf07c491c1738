"""The No-U-Turn sampler against the exact posterior."""

import sys

import numpy as np
import pytest

from justenough.errors import InputError
from justenough.stats.nuts import nuts
from justenough.stats.posterior import discrepancy
from justenough.stats.simplex import SimplexModel, Summary, summary
from justenough.stats.simplex_posterior import exact


def model(n: int) -> SimplexModel:
    rng = np.random.default_rng(0)
    x = rng.random((n, 4))
    y = x @ [0.1, 0.6, 0.2, 0.1] + 0.1 * rng.standard_normal(n)
    return SimplexModel(summary(x, y), np.full(4, 2.0))


@pytest.mark.slow
def test_chains_agree_with_the_exact_posterior_and_repeat() -> None:
    pytest.importorskip("blackjax", reason="needs the stats extra")
    for n in (30, 20_000):
        m = model(n)
        found = nuts(m, 5000, rng=np.random.default_rng(1))
        off = discrepancy(found, exact(m, 200_000, rng=np.random.default_rng(2)))
        assert max(off.mean, off.sd) < 5 / np.sqrt(found.ess)
        assert off.ends < 12 / np.sqrt(found.ess)
        assert found.r_hat is not None
        assert found.r_hat < 1.01
        assert found.ess > 4000
        assert found.divergences < 5
        assert found.draws.shape == (4, 5000, 4)
        np.testing.assert_allclose(found.draws.sum(axis=-1), 1.0)
    again = nuts(m, 5000, rng=np.random.default_rng(1))
    np.testing.assert_array_equal(found.draws, again.draws)


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    m = SimplexModel(Summary(50, np.zeros(3), np.eye(3) + 0.1), np.ones(2))
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="chains is 1; at least 2 are needed"):
        nuts(m, rng=rng, chains=1)
    with pytest.raises(InputError, match="warmup is 5; at least 100 are needed"):
        nuts(m, rng=rng, warmup=5)
    monkeypatch.setitem(sys.modules, "jax", None)
    with pytest.raises(
        InputError, match=r"jax is not installed; pip install 'justenough\[stats\]"
    ):
        nuts(m, rng=rng)
