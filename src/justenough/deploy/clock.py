"""Times deployed files side by side: interleaved, pinned threads, no spinning."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from justenough.subjects.measure import batches
from justenough.subjects.onnx_model import session

Array = NDArray[Any]


@dataclass(frozen=True)
class Race:
    """A file timed beside the reference in one run on the same batches.

    Attributes:
        reference_s, candidate_s: Median seconds per case.
        speedup: Ratio of the medians; `low` and `high` its 10 % and 90 % over repeats.
        repeats: Passes over the batches; `rows` of one pass.
        threads, batch: As run.
    """

    reference_s: float
    candidate_s: float
    speedup: float
    low: float
    high: float
    repeats: int
    rows: int
    threads: int
    batch: int


def race(
    reference: Path,
    candidates: Mapping[str, Path],
    inputs: Mapping[str, Array],
    *,
    batch: int,
    threads: int,
    seconds: float = 3.0,
    passes: int = 8,
) -> dict[str, Race]:
    """Time ONNX files beside a reference on the same rows, batch by batch in turn.

    The rows should be real ones in their natural order: how often a cascade defers is part
    of its time.

    Args:
        reference: The file that the others are compared with.
        candidates: Files that should be faster, by name.
        inputs: Rows to run, (n, ...) each.
        batch: Rows of a call.
        threads: Threads of each session.
        seconds: Wall time to spend, at least three passes whatever it says.
        passes: Batches of the rows to use, evenly spaced over them.
    """
    feeds = list(batches(inputs, batch))
    feeds = [feeds[i] for i in np.unique(np.linspace(0, len(feeds) - 1, passes).astype(int))]
    live = [session(p, threads=threads) for p in (reference, *candidates.values())]
    for s in live:
        s.run(None, feeds[0])
    totals: list[list[float]] = []
    start = time.perf_counter()
    while len(totals) < 3 or (time.perf_counter() - start < seconds and len(totals) < 50):
        spent = [0.0] * len(live)
        for feed in feeds:
            for k, s in enumerate(live):
                begin = time.perf_counter()
                s.run(None, feed)
                spent[k] += time.perf_counter() - begin
        totals.append(spent)
    taken = np.array(totals)
    rows = batch * len(feeds)
    median = np.median(taken, axis=0) / rows
    out = {}
    for k, name in enumerate(candidates, 1):
        low, high = np.quantile(taken[:, 0] / taken[:, k], [0.1, 0.9])
        speedup = median[0] / median[k]
        out[name] = Race(
            float(median[0]), float(median[k]), float(speedup), float(low), float(high),
            len(totals), rows, threads, batch,
        )  # fmt: skip
    return out


def call_cost(
    path: Path, inputs: Mapping[str, Array], *, batch: int, threads: int
) -> list[tuple[int, float]]:
    """Median seconds of one call for 1, 2, 4, ... `batch` rows, as (rows, seconds).

    A graph whose batch is fixed is called with that one only.
    """
    run = session(path, threads=threads)
    fixed = any(isinstance(size, int) for i in run.get_inputs() for size in i.shape[:1])
    out = []
    rows = batch if fixed else 1
    while rows <= batch:
        feed = next(batches(inputs, rows))
        run.run(None, feed)
        times = []
        for _ in range(5):
            begin = time.perf_counter()
            run.run(None, feed)
            times.append(time.perf_counter() - begin)
        out.append((rows, float(np.median(times))))
        rows *= 2
    return out
