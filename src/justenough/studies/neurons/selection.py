"""Claims on top-k: hierarchical selection against a full sort, by time, counts and memory.

Hierarchical is as the document writes it: the 10,000 largest of all, 1,000 of these, k of those.
Its first level is `justenough.assemblies.topk`, without a threshold from the step before.
"""

import time
import tracemalloc
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from justenough.assemblies.topk import topk
from justenough.compiled import spread
from justenough.ledger import Measured
from justenough.studies.neurons.dense import normal
from justenough.studies.neurons.loops import made
from justenough.studies.neurons.timing import Ratio, judged, ratio, within

K = 100
LEVELS = (10_000, 1_000, K)
SORTED = 10_000_000


def hierarchical(values: NDArray[np.float32], threads: int | None = None) -> NDArray[np.int64]:
    """Indices of the k largest, by three levels, the largest first."""
    kept = topk(values, LEVELS[0], threads=threads).indices
    for k in LEVELS[1:]:
        kept = kept[np.sort(topk(values[kept], k).indices)]
    return kept


def by_sort(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """Indices of the k largest, by a full sort, the largest first."""
    return np.argsort(values)[::-1][:K]


@cache
def over_sort() -> dict[str, Ratio]:
    """Ways to find the k largest of 10 million, over the hierarchical one."""
    values = normal(SORTED)
    assert np.array_equal(values[hierarchical(values)], values[by_sort(values)])
    guess = topk(values, K).threshold

    def ours() -> object:
        return hierarchical(values)

    return {
        "full sort": ratio(lambda: by_sort(values), ours, 5),
        "partition": ratio(lambda: np.argpartition(values, SORTED - K), ours, 5),
        "threshold of the step before": ratio(lambda: topk(values, K, guess), ours, 5),
    }


def _words() -> str:
    return "over hierarchical top-k: " + "; ".join(f"{k} {r}" for k, r in over_sort().items())


def topk_speed() -> Measured:
    """Full sort over hierarchical top-k of 10 million, k = 100, winners checked to be the same.

    Rule: within 5 to 10, reproduced; else refuted.
    """
    return judged(over_sort()["full sort"], 5, 10, _words())


def topk_total() -> Measured:
    """The same against 12.

    Rule: 12 within a tenth, reproduced; else refuted.
    """
    return judged(over_sort()["full sort"], 12, 12, _words())


def _slope(way: Callable[[NDArray[np.float32]], object], sizes: tuple[int, ...]) -> float:
    """Slope of log seconds over log n, the least of 3 processor times each."""
    taken = []
    for n in sizes:
        values, times = normal(n), []
        way(values)
        for _ in range(3):
            start = time.process_time()
            way(values)
            times.append(time.process_time() - start)
        taken.append(min(times))
    return float(np.polyfit(np.log(sizes), np.log(taken), 1)[0])


@cache
def _read_by_topk(n: int) -> float:
    """Values that the first level reads, for each of n: all, its sample, its candidates."""
    values = normal(n)
    sample = len(values[:: max(1, n // (1 << 18))])
    found = topk(values, LEVELS[0])
    candidates = int((values >= found.threshold).sum())
    return (n + sample + candidates + LEVELS[0] + LEVELS[1]) / n


@cache
def _counted_sort(n: int) -> tuple[float, float]:
    """Comparisons and bytes moved, for each value, of a merge sort of indices."""

    def run(values: Any, order: Any, spare: Any) -> Any:
        compared = moved = 0
        width = 1
        while width < values.size:
            for low in range(0, values.size, 2 * width):
                middle, high = min(low + width, values.size), min(low + 2 * width, values.size)
                i, j = low, middle
                for t in range(low, high):
                    left = i < middle
                    if i < middle and j < high:
                        compared += 1
                        left = values[order[i]] >= values[order[j]]
                    spare[t] = order[i] if left else order[j]
                    i, j = i + left, j + (not left)
                    moved += 1
            order[:] = spare
            width *= 2
        return compared, moved

    values, order = normal(n), np.arange(n)
    compared, moved = made(run)(values, order, np.zeros(n, np.int64))
    assert np.array_equal(values[order], np.sort(values)[::-1])
    return float(compared) / n, 12 * float(moved) / n


def topk_complexity() -> Measured:
    """Growth with n of time, of values read and of comparisons.

    Rule: reproduced if hierarchical top-k reads at most 1.5 times as many values as there are
    at 1e7, where a sort compares more than log2(n) / 2 times a value; else refuted. The value is
    the slope of log time over log n, which caches move as well.
    """
    slope = _slope(hierarchical, (4_000_000, 16_000_000, 64_000_000))
    other = _slope(by_sort, (500_000, 1_000_000, 2_000_000))
    read = [_read_by_topk(n) for n in (10**6, 10**7)]
    compared = [_counted_sort(n)[0] for n in (10**5, 10**6)]
    linear = read[1] <= 1.5 and compared[1] > np.log2(10**6) / 2
    return Measured(
        slope, "", None, None, "reproduced" if linear else "refuted",
        f"time grows as n^{slope:.2f} from 4 to 64 million, a sort's as n^{other:.2f} from half a "
        f"million to 2 million; {read[0]:.3f} and {read[1]:.3f} "
        f"reads a value at 1e6 and 1e7; a merge sort compares {compared[0]:.1f} and "
        f"{compared[1]:.1f} times a value at 1e5 and 1e6.",
    )  # fmt: skip


def topk_factors() -> Measured:
    """Comparisons and bytes of a merge sort over those of hierarchical top-k, for 1 million.

    Rule: 8 and 1.5 within a tenth, reproduced; else refuted. The value is the comparisons.
    """
    n = 10**6
    compared, moved = _counted_sort(n)
    read = _read_by_topk(n)
    operations, bytes_ = compared / read, moved / (4 * read)
    kept = within(operations, 8, 8) and within(bytes_, 1.5, 1.5)
    return Measured(
        operations, "x", None, None, "reproduced" if kept else "refuted",
        f"{operations:.1f}x by comparisons, {bytes_:.1f}x by bytes, for 1 million values.",
    )  # fmt: skip


def peak_bytes(call: Callable[[], object]) -> int:
    """Most bytes that a call allocates at once, on top of what there was."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def topk_memory() -> Measured:
    """Peak bytes beyond the values, full sort and hierarchical top-k, 1 and 10 million.

    Rule: a saving of 90 % within 5 points at 10 million, reproduced; more, at every larger n,
    is refuted as more than claimed; less, refuted.
    """
    saved, said = [], []
    for n in (10**6, 10**7):
        values = normal(n)
        hierarchical(values)
        # On one core, so that the peak does not depend on which of two buffers is there first.
        sort, ours = (
            peak_bytes(call)
            for call in (partial(by_sort, values), partial(hierarchical, values, 1))
        )
        saved.append(100 * (1 - ours / sort))
        said.append(f"{n:,} values: {sort / 1e6:.1f} and {ours / 1e6:.1f} MB")
    kept = abs(saved[-1] - 90) <= 5
    return Measured(
        saved[-1], "%", min(saved), max(saved), "reproduced" if kept else "refuted",
        f"{'; '.join(said)}, which does not grow with n, so that a larger n saves more.",
    )  # fmt: skip


def streaming_memory() -> Measured:
    """Peak bytes of ten steps, update then top-k, of whole arrays and of pieces in a stream.

    Rule: a saving of 20 % within 5 points, reproduced; else refuted.
    """
    n, piece = 4_000_000, 65_536
    a, x = normal(n), normal(n, 1)
    topk(a, K)

    def stepped(width: int) -> None:
        held = np.zeros(n, np.float32)  # activations of the next step
        for _ in range(10):

            def part(s: slice) -> None:
                for b in range(s.start, s.stop, width):
                    e = min(b + width, s.stop)
                    np.multiply(a[b:e], np.float32(0.9), out=held[b:e])
                    np.add(held[b:e], x[b:e], out=held[b:e])

            spread(part, n, 1)
            topk(held, K)

    whole, stream = peak_bytes(lambda: stepped(n)), peak_bytes(lambda: stepped(piece))
    saved = 100 * (1 - stream / whole)
    return Measured(
        saved, "%", None, None, "reproduced" if abs(saved - 20) <= 5 else "refuted",
        f"{whole / 1e6:.1f} MB at the peak of whole passes, {stream / 1e6:.1f} MB of a stream: "
        "the order of access changes no array.",
    )  # fmt: skip
