"""The posterior of weights on the simplex without a Markov chain, and what it predicts."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln, logsumexp, stdtr

from justenough.errors import InputError
from justenough.stats.checks import finite_matrix
from justenough.stats.convergence import pareto_k
from justenough.stats.posterior import Posterior
from justenough.stats.simplex import SimplexModel, mode

_Array = NDArray[np.float64]

_T = tuple[_Array, _Array, float]  # centre, lower root of the scale matrix, degrees of freedom
_FEWEST = 1000.0


def exact(model: SimplexModel, draws: int = 80_000, *, rng: np.random.Generator) -> Posterior:
    """Return independent draws with importance shares: the posterior itself, up to Monte Carlo.

    In terms of beta = s w, Q is a quadratic form, so without Dirichlet prior and constraint the
    posterior of beta is a multivariate t with n - k degrees of freedom (Zellner 1986). Six tenths
    of the proposals come from it, those with a negative coefficient dropped; three tenths from a
    t with 5 degrees of freedom around the mode in unconstrained coordinates, which is the better
    one close to the border; one tenth from the Dirichlet prior with q from a t cut to q > 0. The
    shares are taken against the mixture of all three (Hesterberg 1995, Technometrics 37(2)). The
    prior's part bounds every ratio, so errors are of order 1 / sqrt(ess); `Posterior.mean_error`
    states them.

    Args:
        model: The model.
        draws: Number of proposals, at least 10000.
        rng: Source of randomness.

    Returns:
        One chain with the proposals inside the simplex.

    Raises:
        InputError: If fewer than 10000 draws are asked for, no mode is found, or ESS is below
            1000.

    >>> from justenough.stats.simplex import summary
    >>> rng = np.random.default_rng(0)
    >>> x = rng.random((1000, 4))
    >>> m = summary(x, x @ [0.1, 0.6, 0.2, 0.1] + 0.1 * rng.standard_normal(1000))
    >>> found = exact(SimplexModel(m, np.full(4, 2.0)), rng=rng)
    >>> found.mean.round(2).tolist(), found.sd.round(3).tolist(), found.ess > 60_000
    ([0.1, 0.59, 0.2, 0.11], [0.01, 0.012, 0.009, 0.01], True)
    """
    if draws < 10_000:
        raise InputError(f"{draws} draws; at least 10000 are needed to judge importance ratios")
    centre, hessian = mode(model)
    middle = centre, np.linalg.cholesky(np.linalg.inv(hessian)), 5.0
    plain = _t_of_coefficients(model)
    third, tenth = int(0.3 * draws), int(0.1 * draws)
    beta = _t_draws(plain, draws - third - tenth, rng)
    w, q = model.weights(_t_draws(middle, third, rng))
    parts = beta[(beta > 0.0).all(axis=1)], _scaled(model, w, q), _from_prior(model, tenth, rng)
    beta = np.maximum(np.concatenate(parts), 1e-300)
    theta = model.unconstrained(beta / beta.sum(axis=1, keepdims=True), _slope(model, beta))
    # dbeta = sqrt(k) (product of beta) dtheta, the volume of isometric log-ratios
    volume = 0.5 * math.log(model.k) + np.log(beta).sum(axis=1)
    log_ratio = _log_target(model, beta) - logsumexp(
        [
            math.log(1.0 - (third + tenth) / draws) + _log_t(plain, beta),
            math.log(third / draws) + _log_t(middle, theta) - volume,
            math.log(tenth / draws) + _log_from_prior(model, beta),
        ],
        axis=0,
    )
    shares = np.exp(log_ratio - logsumexp(log_ratio))
    ess = float(1.0 / (shares @ shares))
    if ess < _FEWEST:
        raise InputError(
            f"{draws} proposals are worth {ess:.0f} draws from the posterior, fewer than "
            f"{_FEWEST:.0f}; ask for more draws, or use nuts"
        )
    s = beta.sum(axis=1)
    w = beta / s[:, None]
    return Posterior(
        "exact", w[None], _slope(model, beta)[None], shares[None], ess, pareto_k(log_ratio)
    )


def predictive(
    model: SimplexModel, posterior: Posterior, x: ArrayLike, *, rng: np.random.Generator
) -> _Array:
    """Return draws of y at new rows, all parameters uncertain, shape (draws, m).

    As many as the posterior has draws, at most 20000, resampled by their shares. Given w and q,
    (sd(y) / sigma)**2 is gamma with shape n / 2 and rate n Q / 2, and b is normal.

    Args:
        model: The model.
        posterior: Of that model.
        x: New signals, shape (m, k).
        rng: Source of randomness.

    Raises:
        InputError: If x is not finite or does not have k columns.

    >>> from justenough.stats.simplex import Summary
    >>> rng = np.random.default_rng(0)
    >>> c = np.array([[1.0, 0.0, 0.6], [0.0, 1.0, 0.5], [0.6, 0.5, 1.0]])
    >>> model = SimplexModel(Summary(500, np.zeros(3), c), np.ones(2))
    >>> y = predictive(model, exact(model, rng=rng), [[1.0, 1.0]], rng=rng)
    >>> y.shape, round(float(y.mean()), 1), round(float(y.std()), 1)
    ((20000, 1), 1.1, 0.6)
    """
    rows = finite_matrix("x", x)
    if rows.shape[1] != model.k:
        raise InputError(f"x has {rows.shape[1]} columns; the model has {model.k} weights")
    shares = posterior.shares.ravel()
    taken = rng.choice(len(shares), min(len(shares), 20_000), p=shares / shares.sum())
    w, q = posterior.draws.reshape(-1, model.k)[taken], posterior.slope.ravel()[taken]
    m, n = model.summary, model.summary.n
    quadratic = 1.0 - 2.0 * model.correlation(w) * q + q * q / model.shrinkage
    sd_y = math.sqrt(m.covariance[-1, -1])
    sigma = sd_y / np.sqrt(rng.gamma(0.5 * n, 1.0, len(taken)) / (0.5 * n * quadratic))
    s = q * sd_y / np.sqrt(((w @ m.covariance[:-1, :-1]) * w).sum(axis=1))
    b = m.mean[-1] - s * (w @ m.mean[:-1]) + sigma / math.sqrt(n) * rng.standard_normal(len(taken))
    noise = rng.standard_normal((len(taken), len(rows)))
    y: _Array = b[:, None] + s[:, None] * (w @ rows.T) + sigma[:, None] * noise
    return y


def _slope(model: SimplexModel, beta: _Array) -> _Array:
    c = model.summary.covariance
    found: _Array = np.sqrt(((beta @ c[:-1, :-1]) * beta).sum(axis=1) / c[-1, -1])
    return found


def _scaled(model: SimplexModel, w: _Array, q: _Array) -> _Array:
    """Coefficients beta = s w of weights (m, k) and slopes q (m,)."""
    found: _Array = w * (q / _slope(model, w))[:, None]
    return found


def _t_of_coefficients(model: SimplexModel) -> _T:
    """The t of beta without Dirichlet prior and constraint."""
    c, cov = model.shrinkage, model.summary.covariance
    signals, with_y, variance = cov[:-1, :-1], cov[-1, :-1], cov[-1, -1]
    least_squares = np.linalg.solve(signals, with_y)
    left = 1.0 - c * float(with_y @ least_squares) / variance
    df = model.summary.n - model.k
    scale = left / df * c * variance * np.linalg.inv(signals)
    centre = np.asarray(c * least_squares, np.float64)
    return centre, np.asarray(np.linalg.cholesky(scale), np.float64), float(df)


def _t_draws(t: _T, count: int, rng: np.random.Generator) -> _Array:
    centre, root, df = t
    normal = rng.standard_normal((count, len(centre))) @ root.T
    found: _Array = centre + normal * np.sqrt(df / rng.chisquare(df, count))[:, None]
    return found


def _log_t(t: _T, at: _Array) -> _Array:
    centre, root, df = t
    away = np.linalg.solve(root, (at - centre).T)
    k = len(centre)
    constant = gammaln(0.5 * (df + k)) - gammaln(0.5 * df) - 0.5 * k * math.log(df * math.pi)
    constant -= np.log(np.diag(root)).sum()
    found: _Array = constant - 0.5 * (df + k) * np.log1p((away * away).sum(axis=0) / df)
    return found


def _cut_t(model: SimplexModel, w: _Array) -> tuple[_Array, _Array, float]:
    """Location and scale of the t of q given w where r > 0, and its d.o.f.

    Where r is negative it is taken for 0: q then still has half of its mass above 0, and its
    density is nowhere far below the posterior's.
    """
    c, df = model.shrinkage, model.summary.n - 1.0
    r = np.maximum(model.correlation(w), 0.0)
    return c * r, np.sqrt(c * (1.0 - c * r * r) / df), df


def _from_prior(model: SimplexModel, count: int, rng: np.random.Generator) -> _Array:
    # A weight of exactly 0, which alpha far below 1 can give, has no logarithm.
    w = np.maximum(rng.dirichlet(model.alpha, count), 1e-300)
    location, scale, df = _cut_t(model, w)
    q = np.full(count, -1.0)
    while (redo := q <= 0.0).any():
        q[redo] = location[redo] + scale[redo] * rng.standard_t(df, int(redo.sum()))
    return _scaled(model, w, q)


def _log_from_prior(model: SimplexModel, beta: _Array) -> _Array:
    w = beta / beta.sum(axis=1, keepdims=True)
    location, scale, df = _cut_t(model, w)
    t = (_slope(model, beta) - location) / scale
    constant = gammaln(0.5 * (df + 1)) - gammaln(0.5 * df) - 0.5 * math.log(df * math.pi)
    density = constant - np.log(scale) - 0.5 * (df + 1.0) * np.log1p(t * t / df)
    found: _Array = _log_dirichlet(model, beta) + density - np.log(stdtr(df, location / scale))
    return found


def _log_dirichlet(model: SimplexModel, beta: _Array) -> _Array:
    """Of w = beta / s, as a density of (beta) where dq is left: times dw dq / dbeta."""
    s, alpha = beta.sum(axis=1), model.alpha
    constant = gammaln(alpha.sum()) - gammaln(alpha).sum()
    prior = constant + np.log(beta / s[:, None]) @ (alpha - 1.0)
    # dbeta = s**(k-1) dw ds and dq = ds q / s
    found: _Array = prior + np.log(_slope(model, beta)) - model.k * np.log(s)
    return found


def _log_target(model: SimplexModel, beta: _Array) -> _Array:
    q = _slope(model, beta)
    r = model.correlation(beta)
    quadratic = 1.0 - 2.0 * r * q + q * q / model.shrinkage
    found: _Array = _log_dirichlet(model, beta) - 0.5 * model.summary.n * np.log(quadratic)
    return found
