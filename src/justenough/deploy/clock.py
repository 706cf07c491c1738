"""Times a deployed file beside its reference: interleaved, pinned threads, no spinning."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from justenough.core.rows import Column
from justenough.core.subject import ONNXRUNTIME, Runtime
from justenough.deploy.deployment import Deployment
from justenough.subjects.measure import batches
from justenough.subjects.sessions import open_session

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


Call = Callable[[dict[str, Array]], object]


def opened(path: Path, runtime: Runtime = ONNXRUNTIME, *, threads: int) -> Call:
    """A deployed file ready to be called with a batch: a model in its runtime, or a cascade."""
    if path.suffix == ".toml":
        found = Deployment(path, threads, 2**31)
        return found.answer
    run = open_session(path, runtime, threads=threads)
    return lambda feed: run.run(None, feed)


def feeds_of(inputs: Mapping[str, Column], batch: int, passes: int) -> list[dict[str, Array]]:
    """`passes` batches of the rows, evenly spaced over them."""
    n = len(next(iter(inputs.values())))
    starts = np.unique(np.linspace(0, max(n // batch - 1, 0), passes).astype(int)) * batch
    cut = ({k: v[i : i + batch] for k, v in inputs.items()} for i in starts)
    return [next(batches(feed, batch)) for feed in cut]


def race(  # noqa: PLR0913 - keywords with defaults
    reference: Path,
    candidates: Mapping[str, Path],
    inputs: Mapping[str, Column],
    *,
    batch: int,
    threads: int,
    seconds: float = 3.0,
    passes: int = 8,
    runtimes: Mapping[str, Runtime] = {},
) -> dict[str, Race]:
    """Time deployed files, each beside the reference: `duel` with one after the other.

    Args:
        reference: The ONNX file that the others are compared with, in ONNX Runtime.
        candidates: Files that should be faster, by name.
        inputs: Rows to run, (n, ...) each.
        batch: Rows of a call.
        threads: Threads of each session.
        seconds: Wall time to spend on each, at least three passes whatever it says.
        passes: Batches of the rows to use, evenly spaced over them.
        runtimes: What runs a candidate, where it is not ONNX Runtime.
    """
    feeds = feeds_of(inputs, batch, passes)
    exact = opened(reference, threads=threads)
    return {
        name: duel(
            exact, opened(path, runtimes.get(name, ONNXRUNTIME), threads=threads), feeds,
            threads=threads, seconds=seconds,
        )
        for name, path in candidates.items()
    }  # fmt: skip


def duel(
    reference: Call,
    candidate: Call,
    feeds: Sequence[dict[str, Array]],
    *,
    threads: int,
    seconds: float = 3.0,
) -> Race:
    """Time a deployed file beside the reference on the same rows, batch by batch in turn.

    Only the two are alive: a session that waits still holds memory, and its threads can spin.
    The rows should be real ones in their natural order: how often a cascade defers is part of
    its time.

    Args:
        reference: Answers a batch.
        candidate: Answers a batch, faster.
        feeds: Batches of equal size.
        threads: Threads that both were opened with.
        seconds: Wall time to spend, at least three passes whatever it says.
    """
    for call in (reference, candidate):
        call(feeds[0])
    totals: list[tuple[float, float]] = []
    start = time.perf_counter()
    while len(totals) < 3 or (time.perf_counter() - start < seconds and len(totals) < 50):
        spent = [0.0, 0.0]
        for feed in feeds:
            for k, call in enumerate((reference, candidate)):
                begin = time.perf_counter()
                call(feed)
                spent[k] += time.perf_counter() - begin
        totals.append((spent[0], spent[1]))
    taken = np.array(totals)
    batch = len(next(iter(feeds[0].values())))
    rows = batch * len(feeds)
    median = np.median(taken, axis=0) / rows
    low, high = np.quantile(taken[:, 0] / taken[:, 1], [0.1, 0.9])
    return Race(
        float(median[0]), float(median[1]), float(median[0] / median[1]), float(low), float(high),
        len(totals), rows, threads, batch,
    )  # fmt: skip


def call_cost(
    call: Call, inputs: Mapping[str, Column], *, sizes: Sequence[int]
) -> list[tuple[int, float]]:
    """Median seconds of one call for each number of rows in `sizes`, as (rows, seconds)."""
    out = []
    for rows in sizes:
        feed = next(batches(inputs, rows))
        call(feed)
        times: list[float] = []
        while len(times) < 3 or (len(times) < 7 and sum(times) < 1.0):
            begin = time.perf_counter()
            call(feed)
            times.append(time.perf_counter() - begin)
        out.append((rows, float(np.median(times))))
    return out
