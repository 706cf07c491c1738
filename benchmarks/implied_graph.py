"""How fast implied edges are counted and the largest of many values found.

`python -m benchmarks.implied_graph` prints seconds of the wall and of the processor, for other
programs take only the former. Top-k stands beside numpy.argpartition on the same values.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np

from justenough.assemblies.graph import ImpliedGraph, accumulate
from justenough.assemblies.topk import topk


def best(work: Callable[[], object], passes: int) -> tuple[float, float]:
    """Least seconds of the wall, and of the processor, over so many passes."""
    wall, processor = [], []
    for _ in range(passes):
        begin, busy = time.perf_counter(), time.process_time()
        work()
        wall.append(time.perf_counter() - begin)
        processor.append(time.process_time() - busy)
    return min(wall), min(processor)


def edges(n: int, p: float, rows: int, threads: int, passes: int) -> None:
    """Count the edges of `rows` rows; print millions a second."""
    graph, counts = ImpliedGraph(n, p, seed=1), np.zeros(n, np.uint8)
    accumulate(counts, [0], [], graph)

    def work() -> None:
        counts[:] = 0
        accumulate(counts, np.arange(rows), [], graph, threads)

    wall, busy = best(work, passes)
    made = int(counts.sum(dtype=np.int64)) / 1e6
    print(f"n={n:.0e} p={p} threads={threads}: {made:.0f} M edges, ", end="")
    print(f"{made / wall:.0f} M/s, {made / busy:.0f} M a second of the processor", flush=True)


def largest(n: int, k: int, passes: int) -> None:
    """Find the k largest of n float32; print seconds beside argpartition's."""
    values = np.random.default_rng(0).standard_normal(n, dtype=np.float32)
    guess = topk(values, k).threshold
    routes: dict[str, Callable[[], object]] = {
        "sampled threshold": lambda: topk(values, k),
        "carried threshold": lambda: topk(values, k, guess),
        "numpy.argpartition": lambda: np.argpartition(values, n - k),
    }
    for name, work in routes.items():
        wall, busy = best(work, passes)
        print(f"top {k} of {n:.0e} float32, {name}: {wall:.4f} s, processor {busy:.4f} s")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=10**8)
    parser.add_argument("--passes", type=int, default=3)
    args = parser.parse_args()
    for threads in (1, 2):
        edges(args.n, 1e-3, 1000, threads, args.passes)
        edges(args.n // 10, 1e-2, 1000, threads, args.passes)
    largest(args.n, 10**4, args.passes)


if __name__ == "__main__":
    main()
