"""How fast counts on a graphics card are changed, scanned and counted, beside its own copying.

`python -m benchmarks.cuda_counts` prints a table, and `--json FILE` writes it. A time is of the
wall, from a synchronised start to a synchronised end, what the host does included: median of the
passes, and the least and the largest. Bytes are those that must move: a copy reads and writes
each count, a scan and a histogram read it. Counts of the first, the last and some other blocks
are compared with rows of the graph.
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from justenough.assemblies.counts import Step
from justenough.assemblies.cuda import CudaCounts, card
from justenough.assemblies.graph import ImpliedGraph

NONE = np.empty(0, np.int64)


def timed(work: Callable[[], object], undo: Callable[[], object], passes: int) -> list[float]:
    """Seconds of each pass after one that is not counted; `undo` is not timed."""
    import cupy

    seconds = []
    for _ in range(passes + 1):
        cupy.cuda.runtime.deviceSynchronize()
        begin = time.perf_counter()
        work()
        cupy.cuda.runtime.deviceSynchronize()
        seconds.append(time.perf_counter() - begin)
        undo()
    return seconds[1:]


def agree(counts: CudaCounts, graph: ImpliedGraph, rows: Any, pieces: int) -> bool:
    """Whether the counts of some blocks are the sums of so many rows of the graph."""
    size = 1 << graph.block_bits
    chosen = np.random.default_rng(0).integers(0, graph.blocks, pieces)
    for block in {0, graph.blocks - 1, *chosen.tolist()}:
        begin, end = block * size, min((block + 1) * size, graph.n)
        want = np.zeros(end - begin, np.int64)
        for source in rows:
            want[graph.block(int(source), block) - begin] += 1
        if not np.array_equal(want, counts.take(np.arange(begin, end))):
            return False
    return True


class Size:
    """Measures one size; `rows` is what the table says of it."""

    def __init__(self, n: int, p: float, k: int, kind: str, passes: int):
        self.counts, self.graph = CudaCounts(n, kind), ImpliedGraph(n, p, seed=1)
        self.said = {"n": n, "p": p, "k": k, "kind": kind, "passes": passes}
        self.rows: list[dict[str, Any]] = []
        self.k, self.passes = k, passes

    def time(
        self, name: str, work: Callable[[], object], undo: Callable[[], object] = lambda: None
    ) -> dict[str, Any]:
        """Take the times, print them and keep them."""
        seconds = timed(work, undo, self.passes)
        row = {**self.said, "work": name, "median": median(seconds)}
        row |= {"least": min(seconds), "most": max(seconds)}
        spread = f"{1e3 * row['least']:.3f} to {1e3 * row['most']:.3f}"
        head = f"{row['n']:.0e} {row['kind']:6} {name:32}"
        print(f"{head} {1e3 * row['median']:9.3f} ms ({spread})", flush=True)
        self.rows.append(row)
        return row

    def rate(self, row: dict[str, Any], name: str, amount: int) -> None:
        """Print and keep an amount and how much of it that is in a second."""
        row |= {name: amount, f"{name}_per_second": amount / row["median"]}
        print(f"{'':20}{amount:.4g} {name}, {amount / row['median'] / 1e9:.1f} G a second")

    def change(self, name: str, there: Step) -> dict[str, Any]:
        """Time a step; the opposite step follows each time."""
        back = Step(there.graph, there.removed, there.added)
        change = self.counts.change
        return self.time(name, lambda: change([there]), lambda: change([back]))

    def edges(self) -> int:
        """Return the sum of the counts."""
        tally = self.counts.histogram()
        return int((tally * np.arange(len(tally))).sum())

    def compare(self, rows: Any) -> None:
        """Print whether counts are those of the graph."""
        print(f"{'':20}equal to rows of the graph: {agree(self.counts, self.graph, rows, 6)}")

    def measure(self) -> None:
        """Measure all."""
        import cupy

        counts, graph, k = self.counts, self.graph, self.k
        old, new = np.arange(k), np.arange(k, 2 * k)
        other = cupy.empty_like(counts.values)
        row = self.time("copy", partial(cupy.copyto, other, counts.values))
        self.rate(row, "bytes", 2 * counts.nbytes)
        del other
        row = self.change(f"add {k} rows", Step(graph, old, NONE))
        counts.change([Step(graph, old, NONE)])
        self.compare(old)
        made = self.edges()
        self.rate(row, "edges", made)
        row = self.change(f"remove {k} rows and add {k}", Step(graph, new, old))
        counts.change([Step(graph, new, old)])
        self.compare(new)
        self.rate(row, "edges", made + self.edges())
        self.rate(self.time("histogram", counts.histogram), "bytes", counts.nbytes)
        tail = counts.histogram()[::-1].cumsum()[::-1]
        bound = int((tail > 10**4).sum())
        row = self.time(
            f"scan for {bound}: {int(tail[bound])} found", lambda: counts.at_least(bound, 10**6)
        )
        self.rate(row, "bytes", counts.nbytes)
        usual = counts.sparse
        for few in (1, 2, 4, 8, 16, 32):
            step = Step(graph, np.arange(3 * k, 3 * k + few), NONE)
            for name, counts.sparse in (("all counts", 0.0), ("touched counts", np.inf)):
                self.change(f"add {few} rows, {name}", step)
        counts.sparse = usual
        winners = np.random.default_rng(1).integers(0, counts.n, k)
        self.time(f"edges among {k} and {k}", lambda: counts.among(graph, winners, winners))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=float, nargs="+", default=[1e9, 1e10])
    parser.add_argument("--p", type=float, default=0.001)
    parser.add_argument("--k", type=int, default=1000)
    parser.add_argument("--kind", default="uint8")
    parser.add_argument("--passes", type=int, default=7)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    said = card()
    print(said or "no graphics card that CuPy can use is here")
    if said is None:
        return
    rows: list[dict[str, Any]] = []
    for n in args.n:
        size = Size(int(n), args.p, args.k, args.kind, args.passes)
        size.measure()
        rows += size.rows
        del size
    if args.json:
        args.json.write_text(json.dumps({"card": said, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
