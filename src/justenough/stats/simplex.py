"""Weights on the simplex that predict y: the model that every method here shares.

The model, for signals X of shape (n, k):

    y = b + s X w + sigma e,   e standard normal,   w ~ Dirichlet(alpha)
    tau = s sd(X w) / sigma ~ half-normal(snr),     p(b, log sigma) flat

tau is the ratio of signal to noise, sd(X w) that of the rows at hand (divisor n). Weights are
judged by the correlation r(w) of X w with y, which knows neither location nor scale, so the prior
must not know them either: b and sigma get the invariant prior of a location-scale family and s is
measured in units of sigma. It is Zellner's g-prior with g = n snr**2 on the one slope, cut to
s > 0; snr = 1 is the unit-information prior (Kass & Wasserman 1995). With b and sigma integrated
out and q = s sd(X w) / sd(y), the slope of standardised y on standardised X w,

    p(w, q | y)  is proportional to  Dirichlet(w) Q**(-n/2),
    Q = 1 - 2 r(w) q + q**2 / c,   c = n snr**2 / (1 + n snr**2).

Rows enter through r(w) alone, that is through n and the covariance of (X, y).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import logsumexp

from justenough.errors import InputError
from justenough.stats.checks import finite_matrix, finite_vector, same_length

_Array = NDArray[np.float64]


@dataclass(frozen=True)
class Summary:
    """All that the posterior needs to know of the rows.

    Attributes:
        n: Number of independent rows; the effective number where rows resemble each other.
        mean: Of the k signals and, last, of y, shape (k + 1,).
        covariance: Of the same, divisor n, shape (k + 1, k + 1).
    """

    n: int
    mean: _Array
    covariance: _Array

    def __post_init__(self) -> None:
        checked_covariance(self.covariance)
        k = len(self.covariance) - 1
        if np.shape(self.mean) != (k + 1,) or not np.isfinite(self.mean).all():
            raise InputError(
                f"mean has shape {np.shape(self.mean)}; it must hold {k + 1} finite numbers"
            )
        if self.n < k + 3:
            raise InputError(f"{self.n} rows for {k} signals; at least {k + 3} are needed")


def summary(x: ArrayLike, y: ArrayLike) -> Summary:
    """Return number, means and covariance of independent rows.

    Args:
        x: Signals, shape (n, k), k >= 2, n >= k + 3.
        y: What they should predict, shape (n,).

    Raises:
        InputError: For values that are not finite, a constant or linearly dependent column, too
            few rows or lengths that differ.

    >>> rng = np.random.default_rng(0)
    >>> x = rng.random((1000, 4))
    >>> summary(x, x @ [0.1, 0.6, 0.2, 0.1] + 0.1 * rng.standard_normal(1000)).n
    1000
    """
    signals, outcome = finite_matrix("x", x), finite_vector("y", y)
    n = same_length(x=signals, y=outcome)
    table = np.column_stack([signals, outcome])
    mean = table.mean(axis=0)
    away = table - mean
    return Summary(n, mean, away.T @ away / n)


def checked_covariance(covariance: ArrayLike) -> _Array:
    """Return the covariance of k >= 2 signals and, last, y, shape (k + 1, k + 1).

    Raises:
        InputError: If it is not square, finite, symmetric, or has a constant or dependent signal.

    >>> checked_covariance(np.eye(3)).shape
    (3, 3)
    """
    c = finite_matrix("covariance", covariance)
    if c.shape[0] != c.shape[1] or len(c) < 3:
        raise InputError(f"covariance has shape {c.shape}; it must be (k + 1, k + 1) with k >= 2")
    if not np.allclose(c, c.T, rtol=1e-9, atol=0.0):
        raise InputError("covariance is not symmetric; give that of the signals and, last, y")
    variance = np.diag(c)
    if variance.min() <= 0.0:
        at = int(variance.argmin())
        name = "y" if at == len(c) - 1 else f"signal {at}"
        raise InputError(f"{name} has variance {variance[at]:g}; it must vary")
    scale = np.sqrt(variance)
    correlation = c / np.outer(scale, scale)
    if np.linalg.eigvalsh(correlation[:-1, :-1])[0] < 1e-12:
        raise InputError("signals depend on each other linearly; leave one of them out")
    if np.linalg.eigvalsh(correlation)[0] < -1e-9:
        raise InputError("covariance has a negative eigenvalue; no data have such a covariance")
    return c


@dataclass(frozen=True)
class SimplexModel:
    """The model of this module for given rows.

    Attributes:
        summary: Of the rows.
        alpha: Concentrations of the Dirichlet prior, shape (k,).
        snr: Scale of the half-normal prior of tau.
    """

    summary: Summary
    alpha: _Array
    snr: float = 1.0

    def __post_init__(self) -> None:
        alpha = finite_vector("alpha", self.alpha)
        if alpha.shape != (self.k,) or alpha.min() <= 0.0:
            raise InputError(
                f"alpha is {alpha.tolist()}; it must be {self.k} numbers above 0, one per signal"
            )
        object.__setattr__(self, "alpha", alpha)
        if not 0.0 < self.snr < math.inf:
            raise InputError(f"snr is {self.snr}; it must be a finite number above 0")

    @property
    def k(self) -> int:
        """Number of weights."""
        return len(self.summary.mean) - 1

    @property
    def shrinkage(self) -> float:
        """The number c of the module's head."""
        g = self.summary.n * self.snr**2
        return g / (1.0 + g)

    def correlation(self, w: _Array) -> _Array:
        """Correlation of X w with y for weights of shape (..., k)."""
        return correlation(self.summary.covariance, w)

    def weights(self, theta: _Array) -> tuple[_Array, _Array]:
        """Weights (..., k) and slopes q (...) at unconstrained points (..., k).

        The first k - 1 coordinates are isometric log-ratios (Egozcue et al. 2003), the last is
        log q.
        """
        eta = theta[..., :-1] @ contrasts(self.k).T
        w = np.exp(eta - eta.max(axis=-1, keepdims=True))
        return w / w.sum(axis=-1, keepdims=True), np.exp(theta[..., -1])

    def unconstrained(self, w: _Array, q: _Array) -> _Array:
        """The inverse of `weights`; weights and slopes must be above 0."""
        return np.concatenate([np.log(w) @ contrasts(self.k), np.log(q)[..., None]], axis=-1)

    def log_posterior(self, theta: _Array) -> _Array:
        """Log posterior density at unconstrained points (..., k), up to a constant.

        The Jacobian of the log-ratios is the product of the weights, so alpha takes the place of
        alpha - 1.
        """
        return self.value_and_gradient(theta)[0]

    def value_and_gradient(self, theta: _Array) -> tuple[_Array, _Array]:
        """Log posterior density (...) and its gradient (..., k) at points (..., k)."""
        c, n = self.shrinkage, self.summary.n
        signals = self.summary.covariance[:-1, :-1]
        log_w = _log_softmax(theta[..., :-1] @ contrasts(self.k).T)
        w, log_q = np.exp(log_w), theta[..., -1]
        # Q is exp(2 over) times the quadratic below: a line search may ask for any q
        over = np.maximum(log_q, 0.0)
        u, v = np.exp(log_q - over), np.exp(-over)
        composite = w @ signals
        variance = (composite * w).sum(axis=-1)
        with_y = self.summary.covariance[-1, :-1] / math.sqrt(self.summary.covariance[-1, -1])
        r = w @ with_y / np.sqrt(variance)
        quadratic = v * v - 2.0 * r * u * v + u * u / c
        value = log_w @ self.alpha - n * (over + 0.5 * np.log(quadratic)) + log_q
        by_r = (n * u * v / quadratic)[..., None]
        by_w = by_r * (
            with_y / np.sqrt(variance)[..., None] - (r / variance)[..., None] * composite
        )
        by_eta = w * (by_w - (w * by_w).sum(axis=-1, keepdims=True))
        by_eta = by_eta + self.alpha - self.alpha.sum() * w
        by_q = 1.0 + n * u * (r * v - u / c) / quadratic
        return value, np.concatenate([by_eta @ contrasts(self.k), by_q[..., None]], axis=-1)


def contrasts(k: int) -> _Array:
    """Orthonormal contrasts (Helmert), shape (k, k - 1): columns orthogonal to a constant.

    >>> contrasts(2).round(3).ravel().tolist()
    [0.707, -0.707]
    """
    h = np.zeros((k, k - 1))
    for j in range(1, k):
        h[:j, j - 1] = 1.0 / math.sqrt(j * (j + 1))
        h[j, j - 1] = -j / math.sqrt(j * (j + 1))
    return h


def correlation(covariance: _Array, w: _Array) -> _Array:
    """Return the correlation of X w with y, shape (...).

    Args:
        covariance: Of k signals and, last, y, shape (k + 1, k + 1).
        w: Weights, shape (..., k), not all 0.

    >>> float(correlation(np.array([[1.0, 0.0, 0.6], [0.0, 1.0, 0.0], [0.6, 0.0, 1.0]]),
    ...                   np.array([1.0, 0.0])))
    0.6
    """
    variance = ((w @ covariance[:-1, :-1]) * w).sum(axis=-1)
    found: _Array = w @ covariance[-1, :-1] / np.sqrt(variance * covariance[-1, -1])
    return found


def mode(model: SimplexModel) -> tuple[_Array, _Array]:
    """Return the mode in unconstrained coordinates and the Hessian of -log posterior there.

    Args:
        model: The model.

    Returns:
        Mode, shape (k,); positive definite Hessian, shape (k, k).

    Raises:
        InputError: If no mode is found.

    >>> rng = np.random.default_rng(0)
    >>> x = rng.random((1000, 4))
    >>> m = summary(x, x @ [0.1, 0.6, 0.2, 0.1] + 0.1 * rng.standard_normal(1000))
    >>> model = SimplexModel(m, np.full(4, 2.0))
    >>> model.weights(mode(model)[0])[0].round(2).tolist()
    [0.11, 0.59, 0.2, 0.11]
    """
    start = np.zeros(model.k)
    start[-1] = math.log(0.5)
    at: _Array = minimize(negative, start, args=(model,), jac=True, method="BFGS").x
    for _ in range(20):
        gradient, hessian = model.value_and_gradient(at)[1], _hessian(model, at)
        if np.linalg.eigvalsh(hessian)[0] <= 0.0:
            break
        step = np.linalg.solve(hessian, gradient)
        at = at + step
        if float(step @ gradient) < 1e-16:
            return at, hessian
    raise InputError("no mode was found in unconstrained coordinates; use more rows")


def negative(at: _Array, model: SimplexModel) -> tuple[float, _Array]:
    """Return minus the log posterior and its gradient at one point, as SciPy's minimisers ask.

    >>> c = np.array([[1.0, 0.0, 0.6], [0.0, 1.0, 0.5], [0.6, 0.5, 1.0]])
    >>> model = SimplexModel(Summary(500, np.zeros(3), c), np.ones(2))
    >>> bool(np.abs(negative(mode(model)[0], model)[1]).max() < 1e-6)
    True
    """
    value, gradient = model.value_and_gradient(at)
    return -float(value), -gradient


def _hessian(model: SimplexModel, at: _Array) -> _Array:
    """Of -log posterior, by central differences of the gradient."""
    step = 1e-5
    moves = step * np.eye(model.k)
    ahead = model.value_and_gradient(at + moves)[1]
    behind = model.value_and_gradient(at - moves)[1]
    found = (behind - ahead) / (2.0 * step)
    return 0.5 * (found + found.T)


def _log_softmax(eta: _Array) -> _Array:
    found: _Array = eta - logsumexp(eta, axis=-1, keepdims=True)
    return found
