"""Posteriors, weights, factors and networks beside their peers: `python -m benchmarks.posterior`.

Needs blackjax, numpyro, nutpie, pandas, cma, pymoo, tensorly and torch; what is missing is left
out and said. Samplers run in processes of their own, import and compilation included. Prints
tables and writes benchmarks/posterior.json.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import posterior_peers as peers
from justenough.stats.factors import cp, hooi, st_hosvd
from justenough.stats.posterior import Posterior, discrepancy
from justenough.stats.simplex import SimplexModel, summary
from justenough.stats.simplex_posterior import exact
from justenough.stats.variational import laplace, pathfinder, variational
from justenough.stats.weights import best_of, cma_weights, exact_weights, genetic_weights, grid
from justenough.subjects.processor import processor

RESULTS = Path("benchmarks/posterior.json")
PACKAGES = (
    "numpy", "scipy", "jax", "blackjax", "numpyro", "nutpie", "numba", "cma", "pymoo", "tensorly",
    "torch",
)  # fmt: skip
WEIGHTS = [0.1, 0.6, 0.2, 0.1]


def model(n: int) -> SimplexModel:
    """Uniform signals, weights 0.1, 0.6, 0.2, 0.1, noise 0.1, Dirichlet(2, 2, 2, 2)."""
    rng = np.random.default_rng(0)
    x = rng.random((n, 4))
    y = x @ WEIGHTS + 0.1 * rng.standard_normal(n)
    return SimplexModel(summary(x, y), np.full(4, 2.0))


def timed(call: Callable[[], Any], passes: int = 1) -> tuple[Any, float, float]:
    """Result of the last pass, median seconds by the wall, median seconds of the processor."""
    taken = []
    for _ in range(passes):
        wall, cpu = time.perf_counter(), time.process_time()
        result = call()
        taken.append((time.perf_counter() - wall, time.process_time() - cpu))
    return result, *(float(v) for v in np.median(taken, axis=0))


def one_sampler(name: str, n: int, draws: int) -> None:
    """In a process of its own: sample, print one line of JSON."""
    began = time.perf_counter(), time.process_time()
    found: Posterior = getattr(peers, name)(model(n), draws)
    wall, cpu = time.perf_counter() - began[0], time.process_time() - began[1]
    # only ours keeps what it compiled for the next data of the same shape
    again = timed(lambda: peers.blackjax(model(n), draws))[1] if name == "blackjax" else None
    reference = exact(model(n), 400_000, rng=np.random.default_rng(1))
    print(json.dumps(_row(found, reference, wall, cpu, again)))


def samplers(draws: int, passes: int, sizes: tuple[int, ...] = (50, 50_000)) -> dict[str, Any]:
    """NUTS by three libraries, 4 chains, warm-up 1000, compilation and import included."""
    out: dict[str, Any] = {}
    for n in sizes:
        runs: dict[str, list[dict[str, Any]]] = {}
        for _ in range(passes):
            for name in ("blackjax", "numpyro", "nutpie"):
                if not find_spec(name):
                    continue
                ask = [sys.executable, "-m", "benchmarks.posterior", "--sampler", name]
                ask += ["--rows", str(n), "--draws", str(draws)]
                got = subprocess.run(ask, capture_output=True, text=True, check=True)
                runs.setdefault(name, []).append(json.loads(got.stdout.splitlines()[-1]))
        out[f"n={n}"] = {
            name: sorted(rows, key=lambda r: r["seconds"])[len(rows) // 2]
            for name, rows in runs.items()
        }
    return out


def approximations(n: int, passes: int) -> dict[str, Any]:
    """Every way to the posterior that needs no chain, against 4 million exact proposals."""
    m, rng = model(n), np.random.default_rng(2)
    reference = exact(m, 4_000_000, rng=np.random.default_rng(1))
    ways: dict[str, Callable[[], Posterior]] = {
        "exact": lambda: exact(m, rng=rng),
        "laplace": lambda: laplace(m, rng=rng),
        "mean_field": lambda: variational(m, full_rank=False, rng=rng),
        "full_rank": lambda: variational(m, full_rank=True, rng=rng),
        "pathfinder": lambda: pathfinder(m, rng=rng),
    }
    rows = {}
    for name, way in ways.items():
        found, wall, cpu = timed(way, passes)
        rows[name] = _row(found, reference, wall, cpu, None)
    return rows


def weights(passes: int) -> dict[str, Any]:
    """Searches of weights, all on the covariance of 100,000 rows; gap to the exact optimum."""
    rng = np.random.default_rng(0)
    mixing = np.array([[1, 0.3, 0, 0.2], [0, 1, 0.4, 0], [0.1, 0, 1, 0.5], [0, 0.2, 0, 1]])
    x = rng.random((100_000, 4)) @ mixing
    y = x @ [0.1, 0.7, 0.2, -0.05] + 0.3 * rng.standard_normal(len(x))
    (m, wall, cpu) = timed(lambda: summary(x, y), passes)
    c = m.covariance
    top = exact_weights(c).correlation
    ways: dict[str, Callable[[], Any]] = {
        "NNLS": lambda: exact_weights(c),
        "grid of 169": lambda: best_of(c, grid()),
        "genetic, 1000 x 500": lambda: genetic_weights(c, rng=rng),
    }
    if find_spec("cma"):
        ways["CMA-ES"] = lambda: cma_weights(c, rng=rng)
    if find_spec("pymoo"):
        ways["pymoo genetic, 1000 x 500"] = lambda: peers.pymoo_weights(c, 500)
    out: dict[str, Any] = {"covariance": {"seconds": wall, "cpu_seconds": cpu}}
    for name, way in ways.items():
        found, wall, cpu = timed(way, 1 if "pymoo" in name else passes)
        out[name] = {
            "seconds": wall,
            "cpu_seconds": cpu,
            "gap": top - found.correlation,
            "evaluations": found.evaluations,
        }
    return out


def factors(passes: int) -> dict[str, Any]:
    """Tucker and CP of 1000 x 50 x 4 x 3 with three factors and noise, beside TensorLy."""
    rng = np.random.default_rng(0)
    made = [rng.random((n, 3)) for n in (1000, 50, 4, 3)]
    x = np.einsum("ar,br,cr,dr->abcd", *made) + 0.1 * rng.standard_normal((1000, 50, 4, 3))
    ranks = (10, 5, 3, 2)
    ways: dict[str, Callable[[], float]] = {
        "ST-HOSVD": lambda: st_hosvd(x, ranks).error,
        "HOOI, to 1e-8": lambda: hooi(x, ranks).error,
        "HOOI, to 1e-5": lambda: hooi(x, ranks, tolerance=1e-5).error,
        "CP of rank 3, 10 starts": lambda: cp(x, 3, rng=rng).error,
    }
    if find_spec("tensorly"):
        ways["TensorLy tucker, to 1e-5"] = lambda: peers.tensorly_tucker(x, ranks, 1e-5)
        ways["TensorLy tucker, to 1e-8"] = lambda: peers.tensorly_tucker(x, ranks, 1e-8)
        ways["TensorLy parafac of rank 3, 1 start"] = lambda: peers.tensorly_parafac(x, 3)
    out = {}
    for name, way in ways.items():
        error, wall, cpu = timed(way, passes)
        out[name] = {"seconds": wall, "cpu_seconds": cpu, "error": error}
    return out


def networks() -> dict[str, Any]:
    """252 networks, 2048 rows: batched for 1000 steps, and one after the other, extrapolated."""
    from justenough.train.importance_nets import Recipe, Rows, search

    rng = np.random.default_rng(0)
    parts = []
    for _ in range(3):
        x = rng.random((2048, 4))
        parts.append(Rows(x, x @ WEIGHTS + 0.1 * rng.standard_normal(2048)))
    train, validation, test = parts
    recipes = {
        "batched, 1000 steps": Recipe(1000, 0),
        "batched, patience 100": Recipe(1000, 100),
        "batched, successive halving": Recipe(1000, 0, halving=True),
    }
    out: dict[str, Any] = {}
    for name, recipe in recipes.items():
        found, wall, cpu = timed(
            lambda r=recipe: search(train, validation, test, r, rng=np.random.default_rng(1))
        )
        out[name] = {
            "seconds": wall,
            "cpu_seconds": cpu,
            "steps": sum(c.epochs for c in found.table),
            "winner": str(found.winner.architecture),
            "test": found.test,
            "linear": found.linear,
            "gain_interval": found.gain_interval,
        }
    wall, cpu, steps = peers.sequential_networks(train)
    out["one after the other (extrapolated)"] = {
        "seconds": wall,
        "cpu_seconds": cpu,
        "measured_steps_each": steps,
    }
    return out


def _row(
    found: Posterior, reference: Posterior, wall: float, cpu: float, again: float | None
) -> dict[str, Any]:
    off = discrepancy(found, reference)
    return {
        "seconds": wall,
        "cpu_seconds": cpu,
        "again_seconds": again,
        "ess": found.ess,
        "r_hat": found.r_hat,
        "pareto_k": found.pareto_k,
        "divergences": found.divergences,
        "mean_error_sd": off.mean,
        "sd_error": off.sd,
        "end_error_sd": off.ends,
    }


def table(title: str, rows: dict[str, Any]) -> str:
    """Rows as lines of text; columns are those that any row has."""
    names = list(dict.fromkeys(k for r in rows.values() for k in r if k != "winner"))
    lines = [title, f"{'':<38}" + "".join(f"{n:>20}" for n in names)]
    for name, row in rows.items():
        cells = [row.get(n) for n in names]
        text = "".join(f"{c:>20.4g}" if isinstance(c, int | float) else f"{'':>20}" for c in cells)
        lines.append(f"{name:<38}{text}")
    return "\n".join(lines)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sampler", choices=("blackjax", "numpyro", "nutpie"))
    parser.add_argument("--rows", type=int, default=50)
    parser.add_argument("--draws", type=int, default=20_000)
    parser.add_argument("--passes", type=int, default=3)
    args = parser.parse_args()
    if args.sampler:
        one_sampler(args.sampler, args.rows, args.draws)
        return
    results: dict[str, Any] = {
        "samplers": samplers(args.draws, args.passes),
        "approximations": {f"n={n}": approximations(n, args.passes) for n in (50, 1000, 50_000)},
        "weights": weights(args.passes),
        "factors": factors(args.passes),
    }
    if find_spec("torch"):
        results["networks"] = networks()
    for title in ("samplers", "approximations"):
        for n, rows in results[title].items():
            print(table(f"{title}, {n}", rows), flush=True)
    for title in ("weights", "factors", "networks"):
        if title in results:
            print(table(title, results[title]), flush=True)
    written = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "versions": {name: _version(name) for name in PACKAGES},
        },
        **results,
    }
    RESULTS.write_text(json.dumps(written, indent=1) + "\n", "utf8")


if __name__ == "__main__":
    main()
