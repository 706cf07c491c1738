"""Weights on the simplex whose composite correlates most with y: exactly, and by search.

Everything here works on the covariance of (X, y), so that the number of rows costs nothing. The
searches are here to be measured against the exact answer, which takes less time than any.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import nnls

from justenough.errors import InputError
from justenough.stats.checks import finite_matrix, installed
from justenough.stats.simplex import checked_covariance, contrasts, correlation

_Array = NDArray[np.float64]


@dataclass(frozen=True)
class Found:
    """Weights, and how they were come by.

    Attributes:
        weights: On the simplex, shape (k,).
        correlation: Of X @ weights with y.
        best: Best correlation up to each generation, shape (generations,); one entry where there
            are no generations.
        evaluations: Number of weights that were tried.
    """

    weights: _Array
    correlation: float
    best: _Array
    evaluations: int


def exact_weights(covariance: ArrayLike) -> Found:
    """Return the weights on the simplex with the largest correlation, by one NNLS.

    Write V for the covariance of X, v for that with y, and a vector of coefficients >= 0 as t w
    with t >= 0 and w on the simplex. Then the least-squares loss without its constant is
    t**2 w'Vw / 2 - t w'v, whose smallest value over t is -max(w'v, 0)**2 / (2 w'Vw) =
    -var(y) max(r(w), 0)**2 / 2. So the direction of the non-negative least-squares solution has
    the largest r(w), if any w has r(w) > 0. Otherwise every entry of v is <= 0; minimising
    -w'v / sqrt(w'Vw) is maximising the convex function sqrt(w'Vw) over a slice where w'v is
    fixed, and so one signal alone is best.

    Args:
        covariance: Of k >= 2 signals and, last, y, shape (k + 1, k + 1).

    Raises:
        InputError: If it is no such covariance, or a signal is constant or depends on others.

    >>> found = exact_weights([[1, 0, 0.6], [0, 1, 0.2], [0.6, 0.2, 1]])
    >>> found.weights.round(6).tolist(), round(found.correlation, 6)
    ([0.75, 0.25], 0.632456)
    """
    c = checked_covariance(covariance)
    scale = np.sqrt(np.diag(c))
    # on correlations, so that no unit makes the system ill-conditioned
    r = c / np.outer(scale, scale)
    if r[-1, :-1].max() <= 0.0:
        w = np.zeros(len(c) - 1)
        w[r[-1, :-1].argmax()] = 1.0
    else:
        root = np.linalg.cholesky(r[:-1, :-1])
        w = nnls(root.T, np.linalg.solve(root, r[:-1, -1]))[0] / scale[:-1]
        w /= w.sum()
    best = float(correlation(c, w))
    return Found(w, best, np.array([best]), 1)


def grid() -> _Array:
    """Return the 169 weightings of four signals that the study compares, shape (169, 4).

    Decay is 0, 1/36, ..., 12/36 and surprise 0, 1/18, ..., 12/18; what is left is shared equally
    by relevance and habituation.

    >>> grid().shape, grid()[18].round(3).tolist()
    ((169, 4), [0.028, 0.278, 0.347, 0.347])
    """
    decay, surprise = np.mgrid[0:13, 0:13].reshape(2, -1) / np.array([[36.0], [18.0]])
    rest = np.maximum(0.5 * (1.0 - decay - surprise), 0.0)  # rounding can bring -1e-17
    return np.column_stack([decay, surprise, rest, rest])


def best_of(covariance: ArrayLike, candidates: ArrayLike) -> Found:
    """Return the best of given weights.

    Args:
        covariance: Of k signals and, last, y, shape (k + 1, k + 1).
        candidates: On the simplex, shape (m, k).

    Raises:
        InputError: If the covariance is none, or candidates are not on the simplex.

    >>> best_of(np.eye(5) + 0.1, grid()).evaluations
    169
    """
    c = checked_covariance(covariance)
    w = finite_matrix("candidates", candidates)
    if w.shape[1] != len(c) - 1:
        raise InputError(f"candidates have {w.shape[1]} weights; there are {len(c) - 1} signals")
    if w.min() < 0.0 or np.abs(w.sum(axis=1) - 1.0).max() > 1e-9:
        raise InputError("candidates are not all on the simplex; weights are >= 0 and sum to 1")
    found = correlation(c, w)
    at = int(found.argmax())
    return Found(w[at], float(found[at]), np.array([found[at]]), len(w))


def genetic_weights(
    covariance: ArrayLike,
    *,
    rng: np.random.Generator,
    population: int = 1000,
    generations: int = 500,
    mutation: float = 0.1,
) -> Found:
    """Return the best weights that a genetic algorithm finds.

    Each generation keeps its better half (elitism) and replaces the other by offspring: parents
    win tournaments of three, a child lies between two of them, each of its weights is moved by a
    normal step of 0.1 with probability `mutation`, and it is brought back to the simplex by the
    absolute value and a division by the sum. The first generation is uniform weights divided by
    their sum.

    Args:
        covariance: Of k signals and, last, y, shape (k + 1, k + 1).
        rng: Source of randomness.
        population: Even and at least 4.
        generations: At least 1.
        mutation: In [0, 1].

    Raises:
        InputError: If an argument is outside what is said here.

    >>> c = [[1, 0, 0.6], [0, 1, 0.2], [0.6, 0.2, 1]]
    >>> found = genetic_weights(c, rng=np.random.default_rng(0), generations=50)
    >>> exact_weights(c).correlation - found.correlation < 1e-4
    True
    """
    c = checked_covariance(covariance)
    return evolved(
        partial(correlation, c), len(c) - 1,
        rng=rng, population=population, generations=generations, mutation=mutation,
    )  # fmt: skip


def evolved(
    fitness_of: Callable[[_Array], _Array],
    k: int,
    *,
    rng: np.random.Generator,
    population: int = 1000,
    generations: int = 500,
    mutation: float = 0.1,
) -> Found:
    """Return the weights that the algorithm of `genetic_weights` finds for any fitness.

    Args:
        fitness_of: Fitness, shape (m,), of weights of shape (m, k); more is better.
        k: Number of weights, at least 2.
        rng: Source of randomness.
        population: Even and at least 4.
        generations: At least 1.
        mutation: In [0, 1].

    Returns:
        With the fitness in place of the correlation.

    Raises:
        InputError: If an argument is outside what is said here.

    >>> found = evolved(lambda w: -np.abs(w[:, 0] - 0.7), 2, rng=np.random.default_rng(0))
    >>> found.weights.round(3).tolist()
    [0.7, 0.3]
    """
    if k < 2:
        raise InputError(f"k is {k}; there must be at least 2 weights")
    if population < 4 or population % 2:
        raise InputError(f"population is {population}; it must be even and at least 4")
    if generations < 1:
        raise InputError(f"generations is {generations}; it must be at least 1")
    if not 0.0 <= mutation <= 1.0:
        raise InputError(f"mutation is {mutation}; it must lie in [0, 1]")
    half = population // 2
    living = rng.random((population, k))
    living /= living.sum(axis=1, keepdims=True)
    fitness = fitness_of(living)
    best = np.empty(generations)
    for g in range(generations):
        rivals = rng.integers(0, population, (half, 3))
        winners = rivals[np.arange(half), fitness[rivals].argmax(axis=1)]
        parents, share = living[winners], rng.random((half, 1))
        children = share * parents + (1.0 - share) * parents[rng.permutation(half)]
        moved = rng.random((half, k)) < mutation
        children = np.abs(children + 0.1 * moved * rng.standard_normal((half, k)))
        children /= children.sum(axis=1, keepdims=True)
        elite = np.argpartition(fitness, half)[half:]
        living = np.concatenate([living[elite], children])
        fitness = np.concatenate([fitness[elite], fitness_of(children)])
        best[g] = fitness.max()
    at = int(fitness.argmax())
    return Found(living[at], float(fitness[at]), best, population + half * generations)


def cma_weights(
    covariance: ArrayLike, *, rng: np.random.Generator, evaluations: int = 2000
) -> Found:
    """Return the best weights that CMA-ES (Hansen & Ostermeier 2001) finds; needs the extra stats.

    It searches isometric log-ratios, where the simplex has no border; an optimum with a weight of
    0 is approached and not reached.

    Args:
        covariance: Of k signals and, last, y, shape (k + 1, k + 1).
        rng: Source of randomness.
        evaluations: At most about so many weights are tried, at least 100.

    Raises:
        InputError: If the covariance is none, there are fewer than 3 signals or 100 evaluations,
            or cma is not installed.

    >>> cma_weights(np.eye(4), rng=np.random.default_rng(0), evaluations=5)
    Traceback (most recent call last):
    justenough.errors.InputError: evaluations is 5; it must be at least 100
    """
    c = checked_covariance(covariance)
    if evaluations < 100:
        raise InputError(f"evaluations is {evaluations}; it must be at least 100")
    if len(c) < 4:
        raise InputError("2 signals leave one unknown, and CMA-ES needs 2; use exact_weights")
    cma = installed("cma", "stats")
    helmert = contrasts(len(c) - 1)
    options = {
        "verbose": -9,
        "maxfevals": evaluations,
        "seed": int(rng.integers(1, 2**31)),
        "tolfun": 1e-15,
        "tolfunhist": 1e-15,
    }
    search = cma.CMAEvolutionStrategy(np.zeros(len(c) - 2), 0.5, options)
    best: list[float] = []
    top = np.full(len(c) - 1, 1.0 / (len(c) - 1))
    while not search.stop():
        asked = search.ask()
        eta = np.clip(np.asarray(asked) @ helmert.T, -300.0, 300.0)
        w = np.exp(eta - eta.max(axis=1, keepdims=True))
        w /= w.sum(axis=1, keepdims=True)
        found = correlation(c, w)
        search.tell(asked, (-found).tolist())
        at = int(found.argmax())
        if not best or found[at] > best[-1]:
            top = w[at]
        best.append(max(float(found[at]), best[-1] if best else -1.0))
    return Found(top, best[-1], np.array(best), int(search.result.evaluations))
