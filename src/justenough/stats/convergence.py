"""Whether draws may be believed: R-hat and ESS of chains, the Pareto k of importance ratios.

All as in Vehtari, Gelman, Simpson, Carpenter & Buerkner 2021 (Bayesian Analysis 16(2)) and
Vehtari, Simpson, Gelman, Yao & Gabry 2024 (JMLR 25).
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.fft import irfft, next_fast_len, rfft
from scipy.special import ndtri
from scipy.stats import rankdata

from justenough.errors import InputError
from justenough.stats.checks import all_finite, finite_vector, numbers

_Array = NDArray[np.float64]


def r_hat(draws: ArrayLike) -> float:
    """Return rank-normalised split R-hat, the larger of that of location and of spread.

    Values up to 1.01 are taken for mixed. Where no chain moves it is huge or infinite.

    Args:
        draws: Of one quantity, shape (chains, n), n >= 8.

    Raises:
        InputError: For another shape, values that are not finite or all alike.

    >>> rng = np.random.default_rng(0)
    >>> r_hat(rng.standard_normal((4, 1000))) < 1.01, r_hat(np.arange(40).reshape(4, 10)) > 2
    (True, True)
    """
    halves = _split(_checked(draws))
    folded = np.abs(halves - np.median(halves))
    return max(_plain_r_hat(_normalised(halves)), _plain_r_hat(_normalised(folded)))


def ess_bulk(draws: ArrayLike) -> float:
    """Return the effective sample size for the centre of the distribution.

    Of rank-normalised split chains; Args and Raises as `r_hat`.

    >>> rng = np.random.default_rng(0)
    >>> 3500 < ess_bulk(rng.standard_normal((4, 1000))) < 4500
    True
    """
    return _ess(_normalised(_split(_checked(draws))))


def ess_tail(draws: ArrayLike) -> float:
    """Return the smaller effective sample size of the 5 % and 95 % quantiles.

    Args and Raises as `r_hat`.

    >>> rng = np.random.default_rng(0)
    >>> 3000 < ess_tail(rng.standard_normal((4, 1000))) < 4500
    True
    """
    chains = _checked(draws)
    low, high = np.quantile(chains, (0.05, 0.95))
    return min(_ess(_split((chains <= cut).astype(np.float64))) for cut in (low, high))


def psis(log_ratios: ArrayLike) -> tuple[_Array, float]:
    """Return Pareto-smoothed shares of importance ratios, and the shape k of their tail.

    The largest min(n / 5, 3 sqrt(n)) ratios are fitted by Zhang & Stephens 2009 (Technometrics
    51(3)) with the weakly informative prior of Vehtari et al. 2024, appendix C, and replaced by
    the quantiles of the fit, none above the largest ratio seen.

    Args:
        log_ratios: Of target to proposal, up to a constant, shape (n,), n >= 25.

    Returns:
        Shares, shape (n,), summing to 1; k. Below 0.5 the variance is finite; above 0.7
        estimates from these ratios are not to be trusted. Minus infinity where the largest
        ratios are all alike.

    Raises:
        InputError: For fewer than 25 values or values that are not finite.

    >>> rng = np.random.default_rng(0)
    >>> heavy = rng.exponential(0.9, 10_000)  # exp of it is Pareto with shape 0.9
    >>> abs(psis(heavy)[1] - 0.9) < 0.15
    True
    """
    logs = finite_vector("log_ratios", log_ratios)
    if len(logs) < 25:
        raise InputError(f"{len(logs)} ratios; the tail needs at least 25")
    count = int(np.ceil(min(0.2 * len(logs), 3.0 * np.sqrt(len(logs)))))
    order = np.argsort(logs)
    ratios = np.exp(logs - logs.max())
    tail = order[-count:]
    # a threshold of 0 would take underflow for a tail
    threshold = max(float(ratios[order[-count - 1]]), 1e-300)
    excess = ratios[tail] - threshold
    if excess[0] < 0.0 or excess[-1] - excess[0] <= 1e-12 * excess[-1]:
        return ratios / ratios.sum(), -np.inf if excess[0] >= 0.0 else np.inf
    k, scale = _generalised_pareto(excess)
    middle = (np.arange(count) + 0.5) / count
    quantiles = -np.log1p(-middle) if k == 0.0 else np.expm1(-k * np.log1p(-middle)) / k
    ratios[tail] = np.minimum(threshold + scale * quantiles, 1.0)
    return ratios / ratios.sum(), k


def pareto_k(log_ratios: ArrayLike) -> float:
    """Return the shape k that `psis` finds; same argument and errors.

    >>> round(pareto_k(np.log(np.arange(1.0, 1001.0))), 1)  # bounded ratios
    -0.8
    """
    return psis(log_ratios)[1]


def _generalised_pareto(excess: _Array) -> tuple[float, float]:
    """Zhang & Stephens's k and scale from sorted values above 0; k pulled a little to 0.5."""
    n = len(excess)
    points = 30 + int(np.sqrt(n))
    quartile = max(float(excess[int(n / 4 + 0.5) - 1]), 1e-300)
    b = 1.0 - np.sqrt(points / (np.arange(1, points + 1) - 0.5))
    b = b / (3.0 * quartile) + 1.0 / excess[-1]
    k = np.log1p(-b[:, None] * excess).mean(axis=1)
    fit = n * (np.log(-b / k) - k - 1.0)
    weight = np.exp(fit - fit.max())
    best = float(b @ weight / weight.sum())
    found = float(np.log1p(-best * excess).mean())
    return (found * n + 0.5 * 10.0) / (n + 10.0), -found / best


def _checked(draws: ArrayLike) -> _Array:
    chains = numbers("draws", draws)
    if chains.ndim != 2 or chains.shape[0] < 1 or chains.shape[1] < 8:
        raise InputError(f"draws has shape {chains.shape}; it must be (chains, n) with n >= 8")
    if all_finite("draws", chains).min() == chains.max():
        raise InputError(f"every draw is {chains[0, 0]:g}; a quantity that varies is needed")
    return chains


def _split(chains: _Array) -> _Array:
    half = chains.shape[1] // 2
    return np.concatenate([chains[:, :half], chains[:, -half:]])


def _normalised(chains: _Array) -> _Array:
    ranks = rankdata(chains, axis=None).reshape(chains.shape)
    found: _Array = ndtri((ranks - 0.375) / (chains.size + 0.25))
    return found


def _plain_r_hat(chains: _Array) -> float:
    n = chains.shape[1]
    within = chains.var(axis=1, ddof=1).mean()
    if within == 0.0:
        return np.inf
    between = n * chains.mean(axis=1).var(ddof=1)
    return float(np.sqrt((between / within + n - 1.0) / n))


def _ess(chains: _Array) -> float:
    """Geyer's initial monotone sequence over the mean autocovariance of all chains."""
    m, n = chains.shape
    away = chains - chains.mean(axis=1, keepdims=True)
    size = next_fast_len(2 * n)
    transformed = rfft(away, size, axis=1)
    covariance = irfft(np.abs(transformed) ** 2, size, axis=1)[:, :n] / n
    within = covariance[:, 0].mean() * n / (n - 1.0)
    if within == 0.0:
        return float(m * n)
    total = within * (n - 1.0) / n
    if m > 1:
        total += chains.mean(axis=1).var(ddof=1)
    rho = 1.0 - (within - covariance.mean(axis=0)) / total
    rho[0] = 1.0
    even = rho[: n // 2 * 2].reshape(-1, 2)
    pairs = even.sum(axis=1)
    last = (n - 1) // 2 - 1  # the lags after that rest on next to no products
    stop = np.flatnonzero(pairs[:last] < 0.0)
    kept = int(stop[0]) if len(stop) else last
    # of the pair where the sum ends the even lag counts, if it is positive
    rest = max(float(even[kept, 0]), 0.0)
    tau = -1.0 + 2.0 * np.minimum.accumulate(pairs[:kept]).sum() + rest
    tau = max(tau, 1.0 / np.log10(m * n))
    return float(m * n / tau)
