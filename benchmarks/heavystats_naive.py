"""The loops of document 003 as it writes them, on a processor, for benchmarks.heavystats.

Each does a small part of the work and says how much of the whole that is. What the document takes
for granted is filled in plainly: NumPy's corrcoef for a correlation, all rows in every likelihood.
Its loops over resamples and permutations are in benchmarks.resampling, its networks in
benchmarks.posterior_peers, and its decompositions are TensorLy's already.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
TRUE = np.array([0.1, 0.6, 0.2, 0.1])


@dataclass(frozen=True)
class Part:
    """A part of a loop.

    Attributes:
        ran: What was run.
        whole: What it is scaled to.
        factor: The whole over the part.
        call: Runs the part.
    """

    ran: str
    whole: str
    factor: float
    call: Callable[[], object]


def _correlation(rows: Array, w: Array) -> float:
    return float(np.corrcoef(rows[:, :4] @ w, rows[:, 4])[0, 1])


def monte_carlo(weights: Array, make: Callable[[int], Any]) -> Part:
    """For each configuration, for each conversation: make its importance and correlate."""
    few = 100

    def loop() -> Array:
        conversations = make(few)
        results = np.zeros((len(weights), few))
        for j, w in enumerate(weights):
            for i in range(few):
                results[j, i] = _correlation(conversations[i], w)
        return results

    return Part(f"{few} conversations", "1,000,000", 1_000_000 / few, loop)


def genetic(rows: Array) -> Part:
    """For each generation, for each of 1,000: correlate all rows; then the next generation."""
    population, generations = 1_000, 2

    def loop() -> float:
        rng = np.random.default_rng(0)
        living = rng.random((population, 4))
        living /= living.sum(axis=1, keepdims=True)
        half = population // 2
        for _ in range(generations):
            fitness = np.zeros(population)
            for i in range(population):
                fitness[i] = _correlation(rows, living[i])
            rivals = rng.integers(0, population, (half, 3))
            parents = living[rivals[np.arange(half), fitness[rivals].argmax(axis=1)]]
            share = rng.random((half, 1))
            children = share * parents + (1 - share) * parents[rng.permutation(half)]
            moved = rng.random((half, 4)) < 0.1
            children = np.abs(children + 0.1 * moved * rng.standard_normal((half, 4)))
            children /= children.sum(axis=1, keepdims=True)
            living = np.concatenate([living[np.argsort(fitness)[half:]], children])
        return float(fitness.max())

    return Part(f"{generations} generations", "500", 500 / generations, loop)


def posterior(x: Array, y: Array) -> Part:
    """The No-U-Turn sampler on the likelihood of all rows, in NumPyro; compilation included.

    Beta(2, 2) for three weights, the fourth 1 less their sum, noise 0.1. A quarter of the
    tuning and draws, so that tuning does what it does in the whole.
    """
    tune, draws = 250, 1_000

    def loop() -> object:
        import jax
        import jax.numpy as jnp
        import numpyro
        from numpyro import distributions as law
        from numpyro.infer import MCMC, NUTS, init_to_value

        jax.config.update("jax_enable_x64", True)
        signals, outcome = jnp.array(x), jnp.array(y)

        def model() -> None:
            w = [numpyro.sample(n, law.Beta(2, 2)) for n in ("decay", "surprise", "relevance")]
            predicted = signals @ jnp.stack([*w, 1 - sum(w)])
            numpyro.sample("importance", law.Normal(predicted, 0.1), obs=outcome)

        start = init_to_value(values={"decay": 0.3, "surprise": 0.3, "relevance": 0.3})
        chains = MCMC(
            NUTS(model, target_accept_prob=0.95, init_strategy=start),
            num_warmup=tune,
            num_samples=draws,
            num_chains=4,
            chain_method="vectorized",
            progress_bar=False,
        )
        chains.run(jax.random.PRNGKey(0))
        return {k: np.asarray(v) for k, v in chains.get_samples().items()}

    return Part(
        f"4 chains of {tune:,} + {draws:,}", "5,000 + 20,000", 25_000 / (tune + draws), loop
    )


def variational(x: Array, y: Array) -> Part:
    """Steps of Adam on one draw of the ELBO over all rows, independent normals, in PyTorch.

    The document's guide has no relevance and can leave (0, 1); here all three weights are logits.
    """
    steps = 200

    def loop() -> float:
        import torch

        torch.manual_seed(0)
        signals, outcome = (torch.from_numpy(v.astype(np.float32)) for v in (x, y))
        loc = torch.zeros(3, requires_grad=True)
        log_scale = torch.full((3,), -2.0, requires_grad=True)
        optimizer = torch.optim.Adam([loc, log_scale], lr=0.01)
        for _ in range(steps):
            z = loc + log_scale.exp() * torch.randn(3)
            w = torch.sigmoid(z)
            fourth = 1 - w.sum()
            predicted = signals @ torch.cat([w, fourth[None]])
            fit = -0.5 * ((outcome - predicted) / 0.1).square().sum()
            prior = (torch.log(w) + torch.log1p(-w)).sum() * 2.0  # with the Jacobian of the logits
            loss = -(fit + prior + log_scale.sum())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return float(loss.detach())

    return Part(f"{steps} steps", "10,000", 10_000 / steps, loop)


def timed(part: Part, passes: int) -> dict[str, Any]:
    """Seconds of the whole by the wall: median, fastest and slowest part, scaled."""
    taken = []
    for _ in range(passes):
        start = time.perf_counter()
        part.call()
        taken.append((time.perf_counter() - start) * part.factor)
    return {
        "seconds": float(np.median(taken)),
        "fastest": min(taken),
        "slowest": max(taken),
        "ran": part.ran,
        "whole": part.whole,
        "scaled_by": part.factor,
    }
