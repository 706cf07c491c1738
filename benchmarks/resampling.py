"""How fast resampling is beside other ways: `python -m benchmarks.resampling`.

All sides of one comparison take turns in one process, after a pass that does not count; each
row is the median, with the fastest and the slowest. What is too slow to run whole is run smaller
and scaled, and the table says so. Prints a table and writes benchmarks/resampling.json. BLAS
keeps to the number of threads given, if threadpoolctl is installed or OPENBLAS_NUM_THREADS
is set alike.
"""

import argparse
import importlib.util
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from justenough import compiled
from justenough.stats.bootstrap import bootstrap_by_moments, bootstrap_correlations
from justenough.stats.kendall import kendall_interval
from justenough.stats.moments import moments
from justenough.stats.permutation import pearson_permutation_test
from justenough.stats.ranks import top_overlap_interval
from justenough.stats.stream import stream_moments
from justenough.subjects.processor import cpu_flags, processor

Array = NDArray[np.float64]
RESULTS = Path("benchmarks/resampling.json")
TRUE = np.array([0.1, 0.6, 0.2, 0.1])


@dataclass(frozen=True)
class Row:
    """One side of a comparison: seconds by the wall, for the work named, scaled where it says."""

    work: str
    side: str
    seconds: float
    fastest: float
    slowest: float
    cpu_seconds: float
    scaled_by: float = 1.0


def raced(
    work: str, sides: dict[str, tuple[Callable[[], object], float]], passes: int
) -> list[Row]:
    """Run sides in turn; each has its call and the factor that its seconds are scaled by."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for number in range(passes + 1):
        for name, (call, _) in sides.items():
            start, used = time.perf_counter(), time.process_time()
            call()
            if number:
                taken[name].append((time.perf_counter() - start, time.process_time() - used))
    rows = []
    for name, pairs in taken.items():
        scale = sides[name][1]
        walls, cpus = (scale * np.array(column) for column in zip(*pairs, strict=True))
        rows.append(
            Row(work, name, float(np.median(walls)), float(walls.min()), float(walls.max()),
                float(np.median(cpus)), scale)
        )  # fmt: skip
        print(line(rows[-1]), flush=True)
    return rows


def line(row: Row) -> str:
    """One row of the table."""
    span = f"{row.fastest:.3g} to {row.slowest:.3g}"
    scaled = f"  (run at 1/{row.scaled_by:g}, scaled)" if row.scaled_by != 1.0 else ""
    return (
        f"{row.work:<44}{row.side:<34}{row.seconds:>9.3g} s {span:>18}"
        f"{row.cpu_seconds:>9.3g} cpu s{scaled}"
    )


def signals(n: int, rng: np.random.Generator) -> Array:
    """Four uniform signals and an outcome that is their weighted sum and noise, shape (n, 5)."""
    x = rng.random((n, 4))
    return np.column_stack([x, x @ TRUE + 0.3 * rng.standard_normal(n)])


def bootstraps(weights: Array, passes: int) -> tuple[list[Row], dict[str, float]]:
    """10,000 resamples, 169 weight vectors, n = 1e5."""
    n, b = 100_000, 10_000
    rows = signals(n, np.random.default_rng(0))
    kept: dict[str, Any] = {}

    def ours() -> None:
        kept["rows"] = bootstrap_correlations(
            rows, weights, replicates=b, rng=np.random.default_rng(1)
        )

    def by_moments() -> None:
        kept["moments"] = bootstrap_by_moments(
            moments(rows), weights, replicates=b, rng=np.random.default_rng(2)
        )

    def numpy_loop() -> None:
        rng = np.random.default_rng(3)
        for _ in range(4):
            some = rows[rng.integers(0, n, n)]
            for w in weights[:10]:
                np.corrcoef(some[:, :4] @ w, some[:, 4])

    work = f"bootstrap {b:,} x {len(weights)}, n = 1e5"
    found = raced(
        work,
        {
            "resampling": (ours, 1.0),
            "by moments": (by_moments, 1.0),
            "numpy loop": (numpy_loop, b / 4 * len(weights) / 10),
        },
        passes,
    )
    ratio = kept["moments"].replicates.std(0) / kept["rows"].replicates.std(0)
    noise = 1.0 / np.sqrt(b)
    said = {
        "moments_over_resampling_mean": float(ratio.mean()),
        "moments_over_resampling_min": float(ratio.min()),
        "moments_over_resampling_max": float(ratio.max()),
        "monte_carlo_error_of_one_ratio": float(noise),
    }
    print(f"{'':<44}standard errors, by moments over resampling: mean {ratio.mean():.4f}, "
          f"{ratio.min():.4f} to {ratio.max():.4f} (Monte Carlo error {noise:.3f})")  # fmt: skip
    return found, said


def peers(weights: Array, passes: int) -> list[Row]:
    """scipy.stats.bootstrap and arch, which know one statistic at a time, at n = 1e4."""
    n, b, run = 10_000, 10_000, 200
    rows = signals(n, np.random.default_rng(4))
    x, y = rows[:, :4] @ weights[0], rows[:, 4]
    scale = b / run * len(weights)

    def scipys() -> None:
        stats.bootstrap(
            (x, y), lambda a, c, axis: stats.pearsonr(a, c, axis=axis).statistic, paired=True,
            vectorized=True, n_resamples=run, method="percentile", batch=50,
            rng=np.random.default_rng(0),
        )  # fmt: skip

    sides: dict[str, tuple[Callable[[], object], float]] = {
        "resampling": (
            lambda: bootstrap_correlations(
                rows, weights, replicates=b, rng=np.random.default_rng(1)
            ).bca(alpha=0.025),
            1.0,
        ),
        "resampling, studentised": (
            lambda: bootstrap_correlations(
                rows, weights, replicates=b, rng=np.random.default_rng(1), studentised=True
            ).studentised(alpha=0.025),
            1.0,
        ),
        "scipy.stats.bootstrap": (scipys, scale),
    }
    if importlib.util.find_spec("arch"):
        from arch.bootstrap import IIDBootstrap

        def archs() -> None:
            IIDBootstrap(x, y, seed=1).conf_int(
                lambda a, c: np.corrcoef(a, c)[0, 1], run, method="percentile"
            )

        sides["arch IIDBootstrap"] = (archs, scale)
    return raced(f"bootstrap {b:,} x {len(weights)}, n = 1e4", sides, passes)


def permutations(passes: int) -> list[Row]:
    """100,000 permutations, n = 1e4."""
    n, b, run = 10_000, 100_000, 500
    rng = np.random.default_rng(5)
    x = rng.random(n)
    y = 0.02 * x + 0.3 * rng.standard_normal(n)

    def scipys() -> None:
        stats.permutation_test(
            (x,), lambda a, axis: stats.pearsonr(a, y[None], axis=axis).statistic, batch=20,
            permutation_type="pairings", n_resamples=run, vectorized=True,
            rng=np.random.default_rng(0),
        )  # fmt: skip

    def numpy_loop() -> None:
        own = np.random.default_rng(0)
        shuffled = y.copy()
        for _ in range(run):
            own.shuffle(shuffled)
            np.corrcoef(x, shuffled)

    def ours(count: int) -> object:
        return pearson_permutation_test(x, y, permutations=count, rng=np.random.default_rng(1))

    def plain() -> object:
        before, compiled.FAST_FROM = compiled.FAST_FROM, 1 << 62
        try:
            return ours(run)
        finally:
            compiled.FAST_FROM = before

    return raced(
        "permutation test 100,000, n = 1e4",
        {
            "ours, Numba": (partial(ours, b), 1.0),
            "ours, NumPy alone": (plain, b / run),
            "numpy shuffle and corrcoef": (numpy_loop, b / run),
            "scipy.stats.permutation_test": (scipys, b / run),
        },
        passes,
    )


def generator() -> Callable[[int, NDArray[np.float32]], None]:
    """Fill a block (c, t, 5) with four uniform signals and a noisy weighted sum, compiled."""
    import numba

    # What the loops call; as arguments of numba.njit, not decorators, for want of their types.
    golden, first, second = (
        np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
    )  # fmt: skip

    def word(s: Any) -> Any:
        z = (s ^ (s >> np.uint64(30))) * first
        z = (z ^ (z >> np.uint64(27))) * second
        return z ^ (z >> np.uint64(31))

    word = numba.njit(word)
    weights = tuple(np.float32(w) for w in TRUE)

    def fill(seed: Any, out: Any) -> None:
        s = word(np.uint64(seed) * golden)
        scale, half = np.float32(1 / 65536), np.float32(0.5)
        for c in range(out.shape[0]):
            for t in range(out.shape[1]):
                s += golden
                z = word(s)
                y = np.float32(0)
                for q in range(4):
                    v = np.float32((z >> np.uint64(16 * q)) & np.uint64(65535)) * scale - half
                    out[c, t, q] = v
                    y += weights[q] * v
                s += golden
                z = word(s)
                noise = np.float32(-2)  # sum of four uniforms: variance 1/3
                for q in range(4):
                    noise += np.float32((z >> np.uint64(16 * q)) & np.uint64(65535)) * scale
                out[c, t, 4] = y + np.float32(0.17320508) * noise

    made: Callable[[int, NDArray[np.float32]], None] = numba.njit(nogil=True)(fill)
    return made


def monte_carlo(weights: Array, conversations: int, passes: int) -> list[Row]:
    """Conversations of 50 turns, made in blocks by the threads that read them."""
    fill, size = generator(), 4000

    def block(number: int) -> NDArray[np.float32]:
        out = np.empty((size, 50, 5), np.float32)
        fill(number, out)
        return out

    def blocks() -> Iterator[Callable[[], NDArray[np.float32]]]:
        return (partial(block, k) for k in range(conversations // size))

    def pooled() -> Array:
        found = stream_moments(blocks())
        return np.stack([found.correlations(weights), found.standard_errors(weights)])

    def made_only() -> None:
        for _ in fast_map(blocks()):
            pass

    def fast_map(calls: Iterator[Callable[[], Any]]) -> Iterator[float]:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(compiled.usable_cores()) as pool:
            yield from pool.map(lambda call: float(call()[0, 0, 0]), calls)

    def numpy_loop() -> None:
        rows = block(0).astype(np.float64)
        y = rows[:, :, 4] - rows[:, :, 4].mean(1, keepdims=True)
        for w in weights:
            p = rows[:, :, :4] @ w
            p -= p.mean(1, keepdims=True)
            (p * y).sum(1) / np.sqrt((p * p).sum(1) * (y * y).sum(1))

    return raced(
        f"{conversations:,} conversations x 50 x 4 x {len(weights)}",
        {
            "made only": (made_only, 1.0),
            "made, pooled moments": (pooled, 1.0),
            "made, numpy loop over weights": (numpy_loop, conversations / size),
        },
        passes,
    )  # fmt: skip


def ranks(passes: int) -> list[Row]:
    """Intervals of rank statistics at n = 1e5."""
    n = 100_000
    rng = np.random.default_rng(6)
    x = rng.standard_normal(n)
    y, units = x + 0.1 * rng.standard_normal(n), np.arange(n)
    return raced(
        "ranks, n = 1e5",
        {
            "Kendall's tau-b with interval": (
                lambda: kendall_interval(x, y, units, alpha=0.05), 1.0
            ),
            "scipy.stats.kendalltau": (lambda: stats.kendalltau(x, y), 1.0),
            "top 1000 overlap with interval": (
                lambda: top_overlap_interval(x, y, units, k=1000, alpha=0.05), 1.0
            ),
        },
        passes,
    )  # fmt: skip


def pinned(threads: int) -> AbstractContextManager[object]:
    """BLAS on this many threads."""
    if importlib.util.find_spec("threadpoolctl") is None:
        return nullcontext()
    from threadpoolctl import threadpool_limits

    limits: AbstractContextManager[object] = threadpool_limits(threads)
    return limits


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--conversations", type=int, default=1_000_000)
    args = parser.parse_args()
    weights = np.random.default_rng(0).dirichlet(np.ones(4), 169)
    threads = compiled.usable_cores()
    with pinned(threads):
        rows, ratios = bootstraps(weights, args.passes)
        rows += peers(weights, args.passes)
        rows += permutations(args.passes)
        rows += ranks(args.passes)
    with pinned(1):  # blocks keep all cores busy by themselves
        rows += monte_carlo(weights, args.conversations, args.passes)
    written = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {
            "processor": processor(),
            "cores_used": threads,
            "cores": os.cpu_count(),
            "cpu_flags": cpu_flags(),
            "system": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
        },
        "versions": {
            name: version(name) if importlib.util.find_spec(name) else None
            for name in ("numpy", "scipy", "numba", "arch", "threadpoolctl")
        },
        "passes": args.passes,
        "standard_errors": ratios,
        "rows": [asdict(row) for row in rows],
    }
    RESULTS.write_text(json.dumps(written, indent=1) + "\n", "utf8")


if __name__ == "__main__":
    main()
