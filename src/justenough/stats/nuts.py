"""The posterior of weights on the simplex by the No-U-Turn sampler of BlackJAX.

Needs the extra `stats`. `exact` gives the same posterior without a chain; this is the check on it
and the way out where its importance ratios are too uneven.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from justenough.errors import InputError
from justenough.stats.checks import installed
from justenough.stats.convergence import ess_bulk, ess_tail, r_hat
from justenough.stats.posterior import Posterior
from justenough.stats.simplex import SimplexModel, contrasts, mode

_Array = NDArray[np.float64]

_ACCEPTANCE = 0.9


def nuts(
    model: SimplexModel,
    draws: int = 20_000,
    *,
    rng: np.random.Generator,
    chains: int = 4,
    warmup: int = 1000,
) -> Posterior:
    """Return chains of the No-U-Turn sampler (Hoffman & Gelman 2014, JMLR 15).

    The Laplace approximation gives the metric, so warm-up adapts the step size alone, by dual
    averaging to an acceptance of 0.9; chains start at points of twice its spread. The first call
    in a process compiles for some seconds; later ones with the same sizes do not.

    Args:
        model: The model.
        draws: Draws of each chain after warm-up, at least 100.
        rng: Source of randomness.
        chains: Number of chains, at least 2.
        warmup: Draws thrown away, at least 100.

    Raises:
        InputError: For too few draws, chains or warm-up, if no mode is found, or if BlackJAX is
            not installed.

    >>> from justenough.stats.simplex import Summary
    >>> c = np.array([[1.0, 0.0, 0.6], [0.0, 1.0, 0.5], [0.6, 0.5, 1.0]])
    >>> model = SimplexModel(Summary(500, np.zeros(3), c), np.ones(2))
    >>> nuts(model, draws=10, rng=np.random.default_rng(0))
    Traceback (most recent call last):
    justenough.errors.InputError: draws is 10; at least 100 are needed
    """
    for name, value, least in (
        ("draws", draws, 100),
        ("chains", chains, 2),
        ("warmup", warmup, 100),
    ):
        if value < least:
            raise InputError(f"{name} is {value}; at least {least} are needed")
    jax = installed("jax", "stats")
    centre, hessian = mode(model)
    root = np.linalg.cholesky(np.linalg.inv(hessian))
    start = 2.0 * rng.standard_normal((chains, model.k))
    seed = int(rng.integers(2**63))
    m = model.summary
    scale = np.sqrt(m.covariance[-1, -1])
    data = (
        centre, root, m.covariance[:-1, :-1], m.covariance[-1, :-1] / scale, model.alpha,
        float(m.n), model.shrinkage,
    )  # fmt: skip
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.PRNGKey(seed), chains)
        at, divergent = _compiled(model.k, draws, warmup)(keys, start, data)
        found, diverged = np.asarray(at), int(divergent.sum())
    w, q = model.weights(centre + found @ root.T)
    columns = [w[..., j] for j in range(model.k)]
    return Posterior(
        "nuts",
        w,
        q,
        np.full((chains, draws), 1.0 / (chains * draws)),
        min(min(ess_bulk(c), ess_tail(c)) for c in columns),
        r_hat=max(r_hat(c) for c in columns),
        divergences=diverged,
    )


@lru_cache(maxsize=8)
def _compiled(k: int, draws: int, warmup: int) -> Any:
    """One scan over warm-up and draws, so that the kernel is compiled once, for all data."""
    jax, blackjax = installed("jax", "stats"), installed("blackjax", "stats")
    step_size = installed("blackjax.adaptation.step_size", "stats")
    jnp = jax.numpy
    helmert = contrasts(k)
    begin, adapt, _ = step_size.dual_averaging_adaptation(_ACCEPTANCE)
    kernel = blackjax.nuts.build_kernel()

    def chain(key: Any, start: Any, data: Any) -> Any:
        centre, root, signals, with_y, alpha, n, c = data

        def log_density(at: Any) -> Any:
            # `SimplexModel.value_and_gradient` in JAX; a test holds them together
            theta = centre + root @ at
            log_w = jax.nn.log_softmax(helmert @ theta[:-1])
            w, q = jnp.exp(log_w), jnp.exp(theta[-1])
            r = w @ with_y / jnp.sqrt(w @ signals @ w)
            return alpha @ log_w - 0.5 * n * jnp.log(1 - 2 * r * q + q * q / c) + theta[-1]

        def step(carry: Any, given: Any) -> Any:
            state, tuning = carry
            number, chance = given
            warm = number < warmup
            size = jnp.exp(jnp.where(warm, tuning.log_step_size, tuning.log_step_size_avg))
            state, info = kernel(chance, state, log_density, size, jnp.ones(k))
            tuned = adapt(tuning, info.acceptance_rate)
            tuning = jax.tree.map(lambda a, b: jnp.where(warm, a, b), tuned, tuning)
            return (state, tuning), (state.position, info.is_divergent)

        total = warmup + draws
        numbers = jnp.arange(total), jax.random.split(key, total)
        first = blackjax.nuts.init(start, log_density), begin(0.5)
        _, (at, divergent) = jax.lax.scan(step, first, numbers)
        return at[warmup:], divergent[warmup:]

    return jax.jit(jax.vmap(chain, in_axes=(0, 0, None)))
