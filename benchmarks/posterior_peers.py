"""The same work by other libraries, for benchmarks.posterior.

All samplers get the same density in the same coordinates, whitened by the Laplace approximation.
"""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from justenough.stats.convergence import ess_bulk, ess_tail, r_hat
from justenough.stats.nuts import nuts
from justenough.stats.posterior import Posterior
from justenough.stats.simplex import SimplexModel, contrasts, correlation, mode

Array = NDArray[np.float64]
WARMUP = 1000
ACCEPTANCE = 0.9


def blackjax(model: SimplexModel, draws: int) -> Posterior:
    """Ours."""
    return nuts(model, draws, rng=np.random.default_rng(0), warmup=WARMUP)


def _whitened(model: SimplexModel) -> tuple[Any, ...]:
    centre, hessian = mode(model)
    c = model.summary.covariance
    with_y = c[-1, :-1] / np.sqrt(c[-1, -1])
    root = np.linalg.cholesky(np.linalg.inv(hessian))
    signals = np.ascontiguousarray(c[:-1, :-1])
    n, shrinkage = float(model.summary.n), model.shrinkage
    return centre, root, signals, with_y, model.alpha, contrasts(model.k), n, shrinkage


def _posterior(name: str, model: SimplexModel, at: Array, diverged: int) -> Posterior:
    centre, root = _whitened(model)[:2]
    w, q = model.weights(centre + at @ root.T)
    columns = [w[..., j] for j in range(model.k)]
    ess = min(min(ess_bulk(c), ess_tail(c)) for c in columns)
    shares = np.full(q.shape, 1.0 / q.size)
    worst = max(r_hat(c) for c in columns)
    return Posterior(name, w, q, shares, ess, r_hat=worst, divergences=diverged)


def numpyro(model: SimplexModel, draws: int) -> Posterior:
    """NumPyro, chains vectorised."""
    import jax
    import jax.numpy as jnp
    from numpyro.infer import MCMC, NUTS

    jax.config.update("jax_enable_x64", True)
    centre, root, signals, with_y, alpha, helmert, n, c = _whitened(model)

    def potential(at: Any) -> Any:
        theta = centre + root @ at
        log_w = jax.nn.log_softmax(helmert @ theta[:-1])
        w, q = jnp.exp(log_w), jnp.exp(theta[-1])
        r = w @ with_y / jnp.sqrt(w @ signals @ w)
        return 0.5 * n * jnp.log(1 - 2 * r * q + q * q / c) - alpha @ log_w - theta[-1]

    chains = MCMC(
        NUTS(potential_fn=potential, target_accept_prob=ACCEPTANCE),
        num_warmup=WARMUP,
        num_samples=draws,
        num_chains=4,
        chain_method="vectorized",
        progress_bar=False,
    )
    start = jnp.array(2.0 * np.random.default_rng(0).standard_normal((4, model.k)))
    chains.run(jax.random.PRNGKey(0), init_params=start, extra_fields=("diverging",))
    at = np.asarray(chains.get_samples(group_by_chain=True))
    return _posterior("numpyro", model, at, int(chains.get_extra_fields()["diverging"].sum()))


def nutpie(model: SimplexModel, draws: int) -> Posterior:
    """Nutpie on a density compiled by Numba, two cores."""
    import numba
    import nutpie
    from nutpie.compiled_pyfunc import from_pyfunc

    given, k = _whitened(model), model.k

    @numba.njit
    def density(at, centre, root, signals, with_y, alpha, helmert, n, c):  # type: ignore[no-untyped-def]  # noqa: PLR0913
        theta = centre + root @ at
        eta = helmert @ theta[:-1]
        eta = eta - eta.max()
        log_w = eta - np.log(np.exp(eta).sum())
        w, q = np.exp(log_w), np.exp(theta[-1])
        composite = signals @ w
        variance = composite @ w
        r = (w @ with_y) / np.sqrt(variance)
        quadratic = 1 - 2 * r * q + q * q / c
        by_w = (n * q / quadratic) * (with_y / np.sqrt(variance) - (r / variance) * composite)
        by_eta = w * (by_w - w @ by_w) + alpha - alpha.sum() * w
        gradient = np.empty(len(at))
        gradient[:-1] = helmert.T @ by_eta
        gradient[-1] = 1 + n * q * (r - q / c) / quadratic
        return alpha @ log_w - 0.5 * n * np.log(quadratic) + theta[-1], root.T @ gradient

    compiled = from_pyfunc(
        k,
        lambda: lambda at: density(at, *given),
        lambda seed, other, chain: lambda at: {"at": at},
        [np.dtype("float64")],
        [(k,)],
        ["at"],
        make_initial_point_fn=lambda seed: 2.0 * np.random.default_rng(seed).standard_normal(k),
    )
    trace = nutpie.sample(
        compiled,
        draws=draws,
        tune=WARMUP,
        chains=4,
        cores=2,
        seed=1,
        progress_bar=False,
        save_warmup=False,
        target_accept=ACCEPTANCE,
    )
    diverged = int(trace.sample_stats.diverging.values.sum())
    return _posterior("nutpie", model, trace.posterior["at"].values, diverged)


@dataclass(frozen=True)
class Searched:
    """What a search of weights came to."""

    correlation: float
    evaluations: int


def pymoo_weights(covariance: Array, generations: int) -> Searched:
    """Pymoo's genetic algorithm with a population of 1000, on the covariance."""
    from pymoo.algorithms.soo.nonconvex.ga import GA
    from pymoo.core.problem import Problem
    from pymoo.optimize import minimize

    class Weights(Problem):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(n_var=len(covariance) - 1, n_obj=1, xl=0.0, xu=1.0)

        def _evaluate(self, x: Array, out: dict[str, Any], *_: Any, **__: Any) -> None:
            out["F"] = -correlation(covariance, np.maximum(x, 1e-12))

    found = minimize(Weights(), GA(pop_size=1000), ("n_gen", generations), seed=1)
    best = float(correlation(covariance, np.maximum(found.X, 1e-12)))
    return Searched(best, int(found.algorithm.evaluator.n_eval))


def tensorly_tucker(x: Array, ranks: tuple[int, ...], tolerance: float) -> float:
    """Relative error of TensorLy's Tucker decomposition; the residual is part of its time."""
    import tensorly
    from tensorly.decomposition import tucker

    found = tucker(tensorly.tensor(x), rank=list(ranks), n_iter_max=100, tol=tolerance)
    return float(np.linalg.norm(x - tensorly.tucker_to_tensor(found)) / np.linalg.norm(x))


def tensorly_parafac(x: Array, rank: int) -> float:
    """Relative error of TensorLy's CP decomposition; the residual is part of its time."""
    import tensorly
    from tensorly.decomposition import parafac

    found = parafac(tensorly.tensor(x), rank=rank, n_iter_max=500, tol=1e-8, init="svd")
    return float(np.linalg.norm(x - tensorly.cp_to_tensor(found)) / np.linalg.norm(x))


def sequential_networks(rows: Any) -> tuple[float, float, int]:
    """Seconds (wall, processor) for 252 networks of 1000 steps, one after the other in PyTorch.

    Extrapolated from the slope between 10 and 60 steps of one network for each layers, activation
    and dropout at one rate; PyTorch's modules, autograd and Adam as they come.
    """
    import torch

    from justenough.train.importance_nets import architectures

    x = torch.from_numpy(((rows.x - rows.x.mean(0)) / rows.x.std(0)).astype(np.float32))
    y = torch.from_numpy((rows.y - rows.y.mean()).astype(np.float32))
    act = {"relu": torch.nn.ReLU, "tanh": torch.nn.Tanh, "elu": torch.nn.ELU}

    def train(member: Any, steps: int) -> None:
        layers: list[Any] = []
        size = x.shape[1]
        for width in member.hidden:
            layers += [torch.nn.Linear(size, width), act[member.activation]()]
            layers += [torch.nn.Dropout(member.dropout)]
            size = width
        network = torch.nn.Sequential(*layers, torch.nn.Linear(size, 1), torch.nn.Sigmoid())
        optimizer = torch.optim.Adam(network.parameters(), lr=member.rate)
        for _ in range(steps):
            p = network(x)[:, 0]
            away = p - p.mean()
            loss = -(away @ y) / (away.norm() * y.norm())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    asked = [a for a in architectures() if a.rate == 0.01]
    spent = []
    for steps in (10, 10, 60):  # the first is to warm up
        began = time.perf_counter(), time.process_time()
        for member in asked:
            train(member, steps)
        spent.append((time.perf_counter() - began[0], time.process_time() - began[1]))
    slope = (np.array(spent[2]) - np.array(spent[1])) / 50
    wall, cpu = 3 * 1000 * slope
    return float(wall), float(cpu), 60
