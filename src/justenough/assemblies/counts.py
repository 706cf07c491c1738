"""One small count for each neuron of an area: how many synapses it has from what fires now."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from justenough.assemblies.graph import ImpliedGraph, accumulate
from justenough.assemblies.kernels import compiled
from justenough.compiled import spread
from justenough.errors import InputError

Ids = NDArray[np.int64]
_CHUNK = 1 << 20


class Step(NamedTuple):
    """Rows of one graph that join the counts, and rows that leave them."""

    graph: ImpliedGraph
    added: Ids
    removed: Ids


class Counts(Protocol):
    """Counts of n neurons, on a processor or on a graphics card; both give the same bits."""

    @property
    def nbytes(self) -> int:
        """Bytes that the counts take."""

    @property
    def largest(self) -> int:
        """The largest count that the type holds."""

    def change(self, steps: Sequence[Step]) -> None:
        """Add and remove rows; InputError, and nothing changed, where a count leaves the type."""

    def clear(self) -> None:
        """Set every count to 0."""

    def at_least(self, bound: int, most: int) -> Ids | None:
        """Neurons whose count is at least `bound`, increasing; None for more than `most`."""

    def histogram(self) -> Ids:
        """How many neurons have each count, int64 (largest + 1,)."""

    def take(self, ids: Ids) -> Ids:
        """Counts of some neurons, int64."""

    def among(self, graph: ImpliedGraph, sources: Ids, targets: Ids) -> NDArray[np.uint64]:
        """As `ImpliedGraph.edges_among`."""


class HostCounts:
    """Counts in this machine's memory.

    Args:
        n: Number of neurons.
        kind: uint8 or uint16.
        threads: How many; without it, the cores that this process may use.

    >>> graph = ImpliedGraph(100, 0.1, seed=1)
    >>> counts = HostCounts(100, np.uint8)
    >>> counts.change([Step(graph, np.arange(3), np.arange(0))])
    >>> bool((counts.take(graph.row(1)) >= 1).all())
    True
    """

    def __init__(self, n: int, kind: Any, threads: int | None = None):
        self.values: NDArray[Any] = np.zeros(n, kind)
        self.threads = threads

    @property
    def nbytes(self) -> int:
        """Bytes that the counts take."""
        return self.values.nbytes

    @property
    def largest(self) -> int:
        """The largest count that the type holds."""
        return int(np.iinfo(self.values.dtype).max)

    def change(self, steps: Sequence[Step]) -> None:
        """Add and remove rows, all or nothing.

        Raises:
            InputError: A count would leave its type.
        """
        for done, step in enumerate(steps):
            try:
                accumulate(self.values, step.added, step.removed, step.graph, self.threads)
            except InputError:
                for graph, added, removed in reversed(steps[:done]):
                    accumulate(self.values, removed, added, graph, self.threads)
                raise

    def clear(self) -> None:
        """Set every count to 0."""
        self.values.fill(0)

    def at_least(self, bound: int, most: int) -> Ids | None:
        """Neurons whose count is at least `bound`, increasing; None for more than `most`."""
        loops = compiled()

        def work(part: slice) -> Ids | None:
            if loops is not None:
                found = np.empty(most + 1, np.int64)
                number = loops.reached(self.values, part.start, part.stop, bound, found)
                return found[:number] if number <= most else None
            pieces: list[Ids] = []
            for begin in range(part.start, part.stop, _CHUNK):
                chunk = self.values[begin : min(begin + _CHUNK, part.stop)]
                pieces.append(np.flatnonzero(chunk >= bound) + begin)
                if sum(map(len, pieces)) > most:
                    return None
            return np.concatenate(pieces)

        parts = spread(work, len(self.values), self.threads)
        kept = [part for part in parts if part is not None]
        whole = len(kept) == len(parts) and sum(map(len, kept)) <= most
        return np.concatenate(kept) if whole else None

    def histogram(self) -> Ids:
        """How many neurons have each count, int64 (largest + 1,)."""
        size = self.largest + 1
        loops = compiled()

        def work(part: slice) -> Ids:
            total = np.zeros(size, np.int64)
            if loops is not None:
                loops.histogram(self.values, part.start, part.stop, total)
                return total
            for begin in range(part.start, part.stop, _CHUNK):
                chunk = self.values[begin : min(begin + _CHUNK, part.stop)]
                total += np.bincount(chunk, minlength=size)
            return total

        parts: Ids = np.sum(spread(work, len(self.values), self.threads), axis=0)
        return parts

    def take(self, ids: Ids) -> Ids:
        """Counts of some neurons, int64."""
        held: Ids = self.values[ids].astype(np.int64)
        return held

    def among(self, graph: ImpliedGraph, sources: Ids, targets: Ids) -> NDArray[np.uint64]:
        """As `ImpliedGraph.edges_among`."""
        return graph.edges_among(sources, targets, self.threads)
