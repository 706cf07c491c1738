"""R-hat, ESS and Pareto k where the answer is known, and against ArviZ where it is installed."""

import numpy as np
import pytest
from numpy.typing import NDArray

from justenough.errors import InputError
from justenough.stats.convergence import ess_bulk, ess_tail, pareto_k, psis, r_hat

Array = NDArray[np.float64]


def autoregressive(rho: float, chains: int, n: int, seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    out = np.empty((chains, n))
    out[:, 0] = rng.standard_normal(chains)
    for i in range(1, n):
        noise = rng.standard_normal(chains)
        out[:, i] = rho * out[:, i - 1] + np.sqrt(1 - rho * rho) * noise
    return out


@pytest.mark.parametrize("rho", [-0.3, 0.0, 0.5, 0.9])
def test_ess_of_an_autoregression(rho: float) -> None:
    # its variance factor is (1 + rho) / (1 - rho)
    found = ess_bulk(autoregressive(rho, 4, 10_000))
    assert found == pytest.approx(40_000 * (1 - rho) / (1 + rho), rel=0.1)


def test_r_hat_sees_a_shift_and_a_spread() -> None:
    rng = np.random.default_rng(0)
    good = rng.standard_normal((4, 1000))
    shifted, wide, trend = good.copy(), good.copy(), good + np.linspace(0, 3, 1000)
    shifted[0] += 1.0
    wide[0] *= 4.0
    assert r_hat(good) < 1.01
    assert min(r_hat(shifted), r_hat(wide), r_hat(trend)) > 1.03
    stuck = np.repeat(np.arange(4.0), 100).reshape(4, 100)
    assert r_hat(stuck) > 1e6


def test_pareto_k_of_pareto_ratios() -> None:
    for k in (0.3, 0.7, 1.2):
        ks = [pareto_k(k * np.random.default_rng(s).exponential(size=5000)) for s in range(20)]
        assert np.mean(ks) == pytest.approx(k, abs=0.08)


def test_smoothing_lowers_the_error_of_heavy_ratios() -> None:
    raw, smooth = [], []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        x = rng.standard_normal(1000)  # proposal N(0, 1), target N(0, 1.5**2)
        logs = 0.5 * x * x * (1 - 1 / 2.25)
        shares = psis(logs)[0]
        plain = np.exp(logs) / np.exp(logs).sum()
        smooth.append(shares @ x**2)
        raw.append(plain @ x**2)
    assert np.std(smooth) < np.std(raw)
    assert shares.sum() == pytest.approx(1.0)


def test_ratios_without_a_tail() -> None:
    shares, k = psis(np.zeros(1000))
    assert k == -np.inf
    np.testing.assert_allclose(shares, 1e-3)
    far = np.full(1000, -2000.0)
    far[7] = 0.0
    assert psis(far)[1] == np.inf


def test_refusals() -> None:
    with pytest.raises(InputError, match=r"draws has shape \(4, 7\)"):
        r_hat(np.zeros((4, 7)))
    with pytest.raises(InputError, match="every draw is 2"):
        ess_bulk(np.full((4, 20), 2.0))
    with pytest.raises(InputError, match="draws is nan in row 0, column 0; every value"):
        ess_tail(np.full((4, 20), np.nan))
    with pytest.raises(InputError, match="24 ratios; the tail needs at least 25"):
        pareto_k(np.zeros(24))
    with pytest.raises(InputError, match="log_ratios is -inf in row 0"):
        pareto_k(np.full(30, -np.inf))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("rho", [-0.3, 0.0, 0.6, 0.95])
@pytest.mark.parametrize("n", [40, 401, 2000])
def test_arviz_agrees(rho: float, n: int) -> None:
    arviz = pytest.importorskip("arviz", reason="an oracle that is not needed otherwise")
    draws = autoregressive(rho, 4, n, seed=n) ** 3
    assert r_hat(draws) == pytest.approx(float(arviz.rhat(draws)), rel=1e-9)
    assert ess_bulk(draws) == pytest.approx(float(arviz.ess(draws)), rel=1e-6)
    assert ess_tail(draws) == pytest.approx(float(arviz.ess(draws, method="tail")), rel=1e-6)
    logs = draws.ravel() / 3
    expected, k = arviz.psislw(logs.copy())
    shares, found = psis(logs)
    assert found == pytest.approx(float(k), abs=1e-9)
    np.testing.assert_allclose(shares, np.exp(expected), rtol=1e-6)
