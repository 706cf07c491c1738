"""Approximate posteriors of weights on the simplex: Laplace, variational, Pathfinder.

All are normal distributions in the unconstrained coordinates of `SimplexModel`, carried back to
the simplex. What they are worth is said by the Pareto k of their importance ratios, the largest
over several sets of draws, because a single k is noisy, and by `discrepancy` from the exact
posterior.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from justenough.errors import InputError
from justenough.stats.convergence import pareto_k, psis
from justenough.stats.posterior import Posterior
from justenough.stats.simplex import SimplexModel, mode, negative

_Array = NDArray[np.float64]

_SETS = 5
_HISTORY = 6
_CURVATURE = 1e12


def laplace(model: SimplexModel, draws: int = 80_000, *, rng: np.random.Generator) -> Posterior:
    """Return the normal distribution at the mode (Tierney & Kadane 1986).

    Args:
        model: The model.
        draws: Number of draws, at least 1000.
        rng: Source of randomness.

    Raises:
        InputError: For fewer than 1000 draws, or if no mode is found.

    >>> from justenough.stats.simplex import Summary
    >>> c = np.array([[1.0, 0.0, 0.6], [0.0, 1.0, 0.5], [0.6, 0.5, 1.0]])
    >>> model = SimplexModel(Summary(500, np.zeros(3), c), np.ones(2))
    >>> laplace(model, rng=np.random.default_rng(0)).mean.round(2).tolist()
    [0.55, 0.45]
    """
    centre, hessian = mode(model)
    return _normal("laplace", model, centre, _root(hessian), draws, rng)


def variational(
    model: SimplexModel,
    draws: int = 80_000,
    *,
    full_rank: bool,
    rng: np.random.Generator,
    fixed: int = 512,
) -> Posterior:
    """Return the normal distribution closest to the posterior, in the sense of KL(q || p).

    ADVI's objective (Kucukelbir et al. 2017, JMLR 18) over a fixed set of draws, so that it is
    a function that L-BFGS can minimise to the end (Giordano, Ingram & Broderick 2024, JMLR 25):
    no learning rate, no stopping rule. The draws come in pairs of opposite sign and have exactly
    unit covariance. Started from the Laplace approximation.

    Args:
        model: The model.
        draws: Number of draws from the result, at least 1000.
        full_rank: Any covariance; otherwise a diagonal one, mean field.
        rng: Source of randomness.
        fixed: Number of fixed draws in the objective, at least 64.

    Raises:
        InputError: For too few draws, or if no mode is found.

    >>> from justenough.stats.simplex import Summary
    >>> c = np.array([[1.0, 0.0, 0.6], [0.0, 1.0, 0.5], [0.6, 0.5, 1.0]])
    >>> model = SimplexModel(Summary(500, np.zeros(3), c), np.ones(2))
    >>> found = variational(model, full_rank=True, rng=np.random.default_rng(0))
    >>> found.mean.round(2).tolist()
    [0.55, 0.45]
    """
    if fixed < 64:
        raise InputError(f"{fixed} fixed draws; the objective needs at least 64")
    k = model.k
    centre, hessian = mode(model)
    unit = _root(hessian) if full_rank else np.diag(1.0 / np.sqrt(np.diag(hessian)))
    noise = _opposite_pairs(fixed, k, rng)
    lower = np.tril_indices(k, -1) if full_rank else (np.arange(0), np.arange(0))

    def objective(at: _Array) -> tuple[float, _Array]:
        scale = np.diag(np.exp(at[k : 2 * k]))
        scale[lower] = at[2 * k :]
        value, gradient = model.value_and_gradient(centre + (at[:k] + noise @ scale.T) @ unit.T)
        by_point = gradient @ unit
        by_scale = by_point.T @ noise / len(noise)
        by_log = np.diag(by_scale) * np.diag(scale) + 1.0
        whole = np.concatenate([by_point.mean(axis=0), by_log, by_scale[lower]])
        return -float(value.mean() + at[k : 2 * k].sum()), -whole

    start = np.zeros(2 * k + len(lower[0]))
    options = {"maxiter": 2000, "ftol": 1e-14, "gtol": 1e-8}
    at = minimize(objective, start, jac=True, method="L-BFGS-B", options=options).x
    scale = np.diag(np.exp(at[k : 2 * k]))
    scale[lower] = at[2 * k :]
    name = "full_rank" if full_rank else "mean_field"
    return _normal(name, model, centre + unit @ at[:k], unit @ scale, draws, rng)


def pathfinder(
    model: SimplexModel, draws: int = 80_000, *, rng: np.random.Generator, paths: int = 8
) -> Posterior:
    """Return draws of multi-path Pathfinder (Zhang, Carpenter, Gelman & Vehtari 2022, JMLR 23).

    Each path is a run of L-BFGS from a point uniform in (-2, 2); of the normal approximations
    along it, whose covariances are the inverse Hessians that L-BFGS builds (algorithm 3), the one
    with the largest ELBO is taken. The draws of all paths are weighted by their Pareto-smoothed
    importance ratios (algorithm 2, without the resampling that would only add noise).

    Args:
        model: The model.
        draws: Number of draws over all paths, at least 1000.
        rng: Source of randomness.
        paths: Number of paths.

    Raises:
        InputError: For fewer than 1000 draws, fewer than 1 path, or where every path fails.

    >>> from justenough.stats.simplex import Summary
    >>> c = np.array([[1.0, 0.0, 0.6], [0.0, 1.0, 0.5], [0.6, 0.5, 1.0]])
    >>> model = SimplexModel(Summary(500, np.zeros(3), c), np.ones(2))
    >>> pathfinder(model, rng=np.random.default_rng(0)).mean.round(2).tolist()
    [0.55, 0.45]
    """
    if paths < 1:
        raise InputError(f"{paths} paths; at least 1 is needed")
    _checked_draws(draws)
    found = [fit for _ in range(paths) if (fit := _path(model, rng)) is not None]
    if not found:
        raise InputError(f"none of {paths} paths gave a normal approximation; use exact")
    each = -(-draws // len(found))

    def sample() -> tuple[_Array, _Array]:
        parts = [_affine(centre, root, each, rng) for centre, root in found]
        theta = np.concatenate([p[0] for p in parts])
        return theta, model.log_posterior(theta) - np.concatenate([p[1] for p in parts])

    worst = max(pareto_k(sample()[1]) for _ in range(_SETS - 1))
    theta, log_ratios = sample()
    shares, k = psis(log_ratios)
    w, q = model.weights(theta)
    ess = float(1.0 / (shares @ shares))
    return Posterior("pathfinder", w[None], q[None], shares[None], ess, max(worst, k))


def _path(model: SimplexModel, rng: np.random.Generator) -> tuple[_Array, _Array] | None:
    """Centre and root of the best normal approximation along one run of L-BFGS."""
    points = [rng.uniform(-2.0, 2.0, model.k)]
    minimize(
        negative,
        points[0],
        args=(model,),
        jac=True,
        method="L-BFGS-B",
        callback=lambda at: points.append(at.copy()),
        options={"maxcor": _HISTORY, "maxiter": 1000, "ftol": 1e-13},
    )
    at = np.array(points)
    gradient = -model.value_and_gradient(at)[1]
    best: tuple[_Array, _Array] | None = None
    best_elbo = -math.inf
    diagonal = np.ones(model.k)
    pairs: list[tuple[_Array, _Array]] = []
    for i in range(1, len(at)):
        s, z = at[i] - at[i - 1], gradient[i] - gradient[i - 1]
        if s @ z > 0.0 and z @ z < _CURVATURE * (s @ z):
            diagonal = _diagonal(diagonal, s, z)
            pairs = [*pairs[1 - _HISTORY :], (s, z)]
        inverse = _inverse_hessian(diagonal, pairs)
        if np.linalg.eigvalsh(inverse)[0] <= 0.0:
            continue
        centre: _Array = at[i] - inverse @ gradient[i]
        root = np.asarray(np.linalg.cholesky(inverse), np.float64)
        theta, log_density = _affine(centre, root, 128, rng)
        if np.abs(theta).max() > 100.0:
            continue
        elbo = float((model.log_posterior(theta) - log_density).mean())
        if elbo > best_elbo:
            best, best_elbo = (centre, root), elbo
    return best


def _diagonal(diagonal: _Array, s: _Array, z: _Array) -> _Array:
    """Gilbert & Lemarechal 1989, as in Pathfinder's algorithm 3."""
    a, b, c = z @ (diagonal * z), z @ s, s @ (s / diagonal)
    found: _Array = 1.0 / (a / (b * diagonal) + z * z / b - a * s * s / (b * c * diagonal**2))
    return found


def _inverse_hessian(diagonal: _Array, pairs: list[tuple[_Array, _Array]]) -> _Array:
    inverse = np.diag(diagonal)
    for s, z in pairs:
        turn = np.eye(len(s)) - np.outer(z, s) / (s @ z)
        inverse = turn.T @ inverse @ turn + np.outer(s, s) / (s @ z)
    return inverse


def _root(hessian: _Array) -> _Array:
    """Lower triangular root of the inverse of a Hessian."""
    return np.linalg.cholesky(np.linalg.inv(hessian))


def _opposite_pairs(count: int, k: int, rng: np.random.Generator) -> _Array:
    half = rng.standard_normal((count // 2, k))
    noise = np.concatenate([half, -half])
    whitening = np.linalg.inv(np.linalg.cholesky(noise.T @ noise / len(noise)))
    return noise @ whitening.T


def _affine(
    centre: _Array, root: _Array, count: int, rng: np.random.Generator
) -> tuple[_Array, _Array]:
    """Normal draws (count, k) and their log densities (count,)."""
    noise = rng.standard_normal((count, len(centre)))
    constant = 0.5 * len(centre) * math.log(2.0 * math.pi) + np.log(np.abs(np.diag(root))).sum()
    return centre + noise @ root.T, -0.5 * (noise * noise).sum(axis=1) - constant


def _checked_draws(draws: int) -> None:
    if draws < 1000:
        raise InputError(f"{draws} draws; at least 1000 are needed")


def _normal(
    name: str,
    model: SimplexModel,
    centre: _Array,
    root: _Array,
    draws: int,
    rng: np.random.Generator,
) -> Posterior:
    _checked_draws(draws)
    ks = []
    for _ in range(_SETS):
        theta, log_density = _affine(centre, root, draws, rng)
        ks.append(pareto_k(model.log_posterior(theta) - log_density))
    w, q = model.weights(theta)
    shares = np.full((1, draws), 1.0 / draws)
    return Posterior(name, w[None], q[None], shares, float(draws), max(ks))
