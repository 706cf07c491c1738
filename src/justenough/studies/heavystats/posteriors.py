"""The posterior of the weights: exactly, by a Markov chain, and by approximations."""

import time
from collections.abc import Callable

import numpy as np

from justenough.stats.nuts import nuts
from justenough.stats.posterior import Posterior, discrepancy
from justenough.stats.simplex import SimplexModel, Summary
from justenough.stats.simplex_posterior import exact
from justenough.stats.variational import laplace, pathfinder, variational
from justenough.stats.weights import exact_weights
from justenough.studies.heavystats.work import Said, Work, everything, value

# Uniform on the simplex: no weighting is preferred before the data.
ALPHA = np.ones(4)
DRAWS, CHAINS = 20_000, 4


def posterior(work: Work) -> Said:
    """Exact draws, and the No-U-Turn sampler as the check on them."""
    model, effect = modelled(work)
    reference = exact(model, 80_000, rng=np.random.default_rng([0, *work_key(work)]))
    work.tick(0.1)
    said = [_said(reference, reference, 0.0)]
    said[0]["seconds"] = _timed(lambda: exact(model, 80_000, rng=work.rng))[1]
    chains, seconds = _timed(lambda: nuts(model, DRAWS, rng=work.rng, chains=CHAINS))
    said.append(_said(chains, reference, seconds))
    return {
        "rows": work.source.conversations,
        "design_effect": effect,
        "effective_rows": model.summary.n,
        "methods": said,
        "interval_alpha": 0.05,
    }


def approximations(work: Work) -> Said:
    """Laplace, mean field, full rank and Pathfinder, each against the exact posterior."""
    model, _ = modelled(work)
    reference = exact(model, 80_000, rng=np.random.default_rng([0, *work_key(work)]))
    ways: list[Callable[[], Posterior]] = [
        lambda: laplace(model, rng=work.rng),
        lambda: variational(model, full_rank=False, rng=work.rng),
        lambda: variational(model, full_rank=True, rng=work.rng),
        lambda: pathfinder(model, rng=work.rng),
    ]
    said = []
    for k, way in enumerate(ways):
        found, seconds = _timed(way)
        said.append(_said(found, reference, seconds))
        work.tick((k + 1) / len(ways))
    return {"methods": said}


def work_key(work: Work) -> tuple[int, ...]:
    """The exact draws are the same in both analyses, so that all are compared with the same."""
    return (work.source.conversations, 4)


def modelled(work: Work) -> tuple[SimplexModel, float]:
    """The model of all turns, counted as so many independent ones as they are worth.

    Turns of a conversation resemble each other. The variance of the best correlation over
    conversations, divided by what independent normal turns would have, (1 - r^2)^2 / (n - 1),
    is the design effect (Kish 1965); the likelihood gets n divided by it.
    """
    m = everything(work)
    best = exact_weights(m.covariance)
    independent = (1 - best.correlation**2) / np.sqrt(m.rows - 1)
    effect = float((m.standard_errors(best.weights)[0] / independent) ** 2)
    effective = max(int(m.rows / max(effect, 1.0)), 30)
    return SimplexModel(Summary(effective, m.mean, m.covariance), ALPHA), effect


def _timed(way: Callable[[], Posterior]) -> tuple[Posterior, float]:
    start = time.perf_counter()
    return way(), time.perf_counter() - start


def _said(found: Posterior, reference: Posterior, seconds: float) -> Said:
    apart = discrepancy(found, reference)
    unit = float(np.max(found.mean_error / found.sd) + np.max(reference.mean_error / reference.sd))
    # An end of a 95 % interval has about 2.7 times the Monte Carlo error of the mean.
    ends = found.interval(0.05)
    return {
        "method": found.method,
        "mean": [value(m, e) for m, e in zip(found.mean, found.mean_error, strict=True)],
        "sd": [value(s, e) for s, e in zip(found.sd, found.mean_error, strict=True)],
        "low": [value(x, 2.7 * e) for x, e in zip(ends[:, 0], found.mean_error, strict=True)],
        "high": [value(x, 2.7 * e) for x, e in zip(ends[:, 1], found.mean_error, strict=True)],
        "ess": value(found.ess, 0.1 * found.ess),
        "pareto_k": None if found.pareto_k is None else value(found.pareto_k, 0.1),
        "r_hat": None if found.r_hat is None else value(found.r_hat, 0.002),
        "divergences": found.divergences,
        "error": {
            "mean": value(apart.mean, unit),
            "sd": value(apart.sd, unit),
            "ends": value(apart.ends, 2.7 * unit),
        },
        "seconds": seconds,
    }
