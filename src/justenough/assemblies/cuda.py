"""Counts in the memory of an NVIDIA graphics card (extra `cuda`), bit for bit those of the host.

The loops are in `cuda.cu`, which CuPy compiles for the card at first use. All is done in whole
numbers, and the order of atomic steps does not matter to a sum, so a run gives the same bits here
and in `HostCounts`. Winners are chosen on the host, by the same code for both.
"""

import importlib.util
import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from justenough.assemblies.counts import Ids, Step
from justenough.assemblies.graph import LARGEST_SOURCE, ImpliedGraph, checked_ids
from justenough.assemblies.philox import ROUNDS, WEYL
from justenough.errors import InputError

TILE = 1 << 16  # counts that a group of threads holds in the card's shared memory
LARGEST_TABLE = 252  # points of a row in a block for which a warp has room
# Threads in a group for each byte of a count, and bytes for each of them with which points that
# share a target are found.
_THREADS, _FILTER = 256, 128
_DRAWS = 3  # of words by one lane for one row in one block, at most
_ROWS = 1 << 16  # in one launch
_ROOM = 1 << 20  # for neurons that are found, to begin with
_ANY = (16, 4, 3)  # blocks, lanes and draws, where they do not matter: those of p = 0.001
_KEYS = ((0, WEYL[0]), (32, WEYL[1]))
_LAW = np.dtype([("table", "<u8"), ("keys", "<u4", 2 * ROUNDS), ("size", "<i4"), ("tag", "<u4")])


@lru_cache
def card() -> str | None:
    """The graphics card and its memory in words; None without CuPy or a card that will do.

    A card of compute capability 8 (2020) or later will do: older ones have too little shared
    memory.
    """
    if importlib.util.find_spec("cupy") is None:
        return None
    import cupy

    try:
        if not cupy.cuda.runtime.getDeviceCount():
            return None
        device = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.runtime.getDevice())
        total = cupy.cuda.runtime.memGetInfo()[1]
    except cupy.cuda.runtime.CUDARuntimeError:
        return None
    name = device["name"].decode()
    return f"{name}, {total / 2**30:.0f} GiB" if device["major"] >= 8 else None


def lanes(graph: ImpliedGraph) -> tuple[int, int]:
    """How many of a warp's 32 lanes share a row in a block, and how often each draws 8 places.

    All but a few rows must fit; those that do not are done by the whole warp, one after another.

    >>> lanes(ImpliedGraph(10**6, 0.001, seed=1))
    (4, 3)
    """
    mean = -math.log1p(-graph.p) * 2**graph.block_bits
    needed = (mean + 2.5 * math.sqrt(mean) + 4) / 8
    shapes = [
        (2 ** max(0, math.ceil(math.log2(needed / draws))), draws)
        for draws in range(1, _DRAWS + 1)
    ]
    return min(shapes, key=lambda shape: (shape[0] * shape[1], -shape[0]))


class CudaCounts:
    """Counts in a graphics card's memory.

    Args:
        n: Number of neurons.
        kind: uint8 or uint16.

    Attributes:
        values: The counts, on the card, shape (n rounded up to a whole number of tiles,).
        sparse: Edges per neuron, for each step, up to which only the counts that have an edge
            are read and written; above it, all are.

    Raises:
        InputError: `n` or `kind` does not fit, no card is there, or it has too little memory.
    """

    def __init__(self, n: int, kind: Any):
        dtype = np.dtype(kind)
        if n < 1 or dtype not in (np.uint8, np.uint16):
            raise InputError(f"n={n} of {dtype}; give at least 1 neuron and uint8 or uint16")
        if card() is None:
            raise InputError(
                "no graphics card that CuPy can use is here; install the extra `cuda`, "
                "or count in HostCounts"
            )
        import cupy

        self.n, self.dtype, self.sparse = n, dtype, 0.01
        self._cupy = cupy
        self._tables: dict[float, Any] = {}
        held = -(-n // TILE) * TILE
        needed = held * dtype.itemsize
        cupy.get_default_memory_pool().free_all_blocks()
        free = cupy.cuda.runtime.memGetInfo()[0]
        if needed > free:
            raise InputError(
                f"{n} counts of {dtype} take {needed} bytes and the card has {free} free; "
                "count fewer neurons, or in HostCounts"
            )
        self.values = cupy.zeros(held, dtype)

    @property
    def nbytes(self) -> int:
        """Bytes that the counts take."""
        return int(self.values.nbytes)

    @property
    def largest(self) -> int:
        """The largest count that the type holds."""
        return int(np.iinfo(self.dtype).max)

    def change(self, steps: Sequence[Step]) -> None:
        """Add and remove rows, all or nothing.

        Raises:
            InputError: A count would leave its type, or a step does not fit.
        """
        for step in steps:
            if step.graph.n != self.n:
                raise InputError(f"a graph has {step.graph.n} targets; give one of {self.n}")
        rows = [
            [checked_ids(ids, LARGEST_SOURCE, "sources") for ids in (s.removed, s.added)]
            for s in steps
        ]
        left = self._cupy.zeros(1, np.int32)
        for step, (gone, come) in zip(steps, rows, strict=True):
            self._step(step.graph, gone, come, left)
        if left[0]:
            # Steps wrap, so the opposite steps give back every count, also those that wrapped.
            for step, (gone, come) in zip(steps, rows, strict=True):
                self._step(step.graph, come, gone, left)
            raise InputError(
                f"some steps would leave the range of {self.dtype}, 0 to {self.largest}: "
                "count in a wider type, or remove only what was added"
            )

    def clear(self) -> None:
        """Set every count to 0."""
        self.values.data.memset_async(0, self.values.nbytes)

    def at_least(self, bound: int, most: int) -> Ids | None:
        """Neurons whose count is at least `bound`, increasing; None for more than `most`."""
        if bound > self.largest:
            return np.empty(0, np.int64)
        room = min(most, _ROOM)
        limit = np.uint32(max(bound, 0))
        while True:
            found = self._cupy.empty(max(room, 1), np.int64)
            number = self._cupy.zeros(1, np.uint64)
            sizes = (np.uint64(self.n), limit, np.uint64(room), np.uint64(most))
            self._run("at_least", self.nbytes // 16, self.values, *sizes, number, found)
            held = int(number[0])
            if held > most:
                return None
            if held <= room:
                found = found[:held]
                found.sort()
                ids: Ids = self._cupy.asnumpy(found)
                return ids
            room = held

    def histogram(self) -> Ids:
        """How many neurons have each count, int64 (largest + 1,)."""
        total = self._cupy.zeros(self.largest + 1, np.int64)
        vectors = self.nbytes // 16
        self._run("histogram", vectors, self.values, np.uint64(vectors), total)
        held: Ids = self._cupy.asnumpy(total)
        held[0] -= len(self.values) - self.n
        return held

    def take(self, ids: Ids) -> Ids:
        """Counts of some neurons, int64.

        Raises:
            InputError: An id is out of range.
        """
        asked = self._cupy.asarray(checked_ids(ids, self.n, "neurons"))
        out = self._cupy.empty(len(asked), np.int64)
        self._run("take", len(asked), self.values, asked, np.uint64(len(asked)), out)
        held: Ids = self._cupy.asnumpy(out)
        return held

    def among(self, graph: ImpliedGraph, sources: Ids, targets: Ids) -> NDArray[np.uint64]:
        """As `ImpliedGraph.edges_among`."""
        rows = checked_ids(sources, LARGEST_SOURCE, "sources")
        columns = checked_ids(targets, graph.n, "targets")
        wide = -(-len(columns) // 64)
        out = self._cupy.zeros((len(rows), wide), np.uint64)
        if out.size:
            places = np.argsort(columns, kind="stable")
            ordered = columns[places]
            # Where the targets of each block begin, and where the last end.
            first = np.flatnonzero(np.diff(ordered >> graph.block_bits, prepend=-1, append=-1))
            blocks = len(first) - 1
            arrays = [self._cupy.asarray(a) for a in (rows, ordered, places, first)]
            sizes = [np.uint64(s) for s in (len(rows), blocks, wide)]
            args = (*arrays, *sizes, self._law(graph), out)
            self._run("among", 32 * len(rows) * blocks, *args, graph=graph)
        held: NDArray[np.uint64] = self._cupy.asnumpy(out)
        return held

    def _step(self, graph: ImpliedGraph, gone: Ids, come: Ids, left: Any) -> None:
        """Take rows away, then add others, modulo the type; `left` is set if a count leaves it."""
        if len(gone) + len(come) > _ROWS:
            for begin in range(0, len(gone), _ROWS):
                self._step(graph, gone[begin : begin + _ROWS], come[:0], left)
            for begin in range(0, len(come), _ROWS):
                self._step(graph, gone[:0], come[begin : begin + _ROWS], left)
            return
        rows = self._cupy.asarray(np.concatenate([gone, come]))
        size = self.dtype.itemsize
        threads = _THREADS * size
        beside = threads * _FILTER + 8 * (LARGEST_TABLE + 64)
        shared = beside + TILE * size
        most = self._cupy.cuda.Device().attributes["MaxSharedMemoryPerBlockOptin"]
        n, law = np.uint64(self.n), (self._law(graph), left)
        # Beside it a tile's kernel has two words of its own.
        if len(rows) * graph.p > self.sparse and shared + 16 <= most:
            kernel = _kernel("change_tiles", size, graph, shared)
            numbers = (np.uint32(len(gone)), np.uint32(len(rows)))
            args: tuple[Any, ...] = (self.values, n, rows, *numbers, *law)
            kernel((len(self.values) // TILE,), (threads,), args, shared_mem=shared)
            return
        kernel = _kernel("change_touched", size, graph, beside)
        groups = min(-(-graph.blocks * lanes(graph)[0] // threads), 1 << 20)
        for part, step in ((rows[: len(gone)], -1), (rows[len(gone) :], 1)):
            if len(part):
                number = np.uint64(len(part))
                args = (
                    self.values,
                    n,
                    np.uint64(graph.blocks),
                    part,
                    number,
                    np.int32(step),
                    *law,
                )
                kernel((groups, min(len(part), 1 << 15)), (threads,), args, shared_mem=beside)

    def _law(self, graph: ImpliedGraph) -> NDArray[Any]:
        """The graph's law as the kernels take it, its table on the card."""
        thresholds, guide, key, tag, _ = graph.law
        if graph.p not in self._tables:
            table = np.concatenate([thresholds, guide.view(np.uint64)])
            self._tables[graph.p] = self._cupy.asarray(table)
        halves = [(int(key) >> shift) + r * w for r in range(ROUNDS) for shift, w in _KEYS]
        keys = [half & 0xFFFFFFFF for half in halves]
        pointer = self._tables[graph.p].data.ptr
        return np.array((pointer, keys, len(thresholds), int(tag)), _LAW)

    def _run(self, name: str, work: int, *args: Any, graph: ImpliedGraph | None = None) -> None:
        """Launch a kernel whose threads stride over so much work."""
        if work:
            threads = 1024
            full = 2 * self._cupy.cuda.Device().attributes["MultiProcessorCount"]
            kernel = _kernel(name, self.dtype.itemsize, graph)
            kernel((min(-(-work // threads), full),), (threads,), args)


def _kernel(name: str, size: int, graph: ImpliedGraph | None, shared: int = 0) -> Any:
    """A kernel for counts of so many bytes, a graph, and so much shared memory of its group."""
    shape = (graph.block_bits, *lanes(graph)) if graph else _ANY
    kernel = _compiled(size, *shape).get_function(name)
    if shared:
        kernel.max_dynamic_shared_size_bytes = shared
    return kernel


@lru_cache
def _compiled(size: int, block: int, width: int, draws: int) -> Any:
    """The kernels for counts of so many bytes, blocks of 2**block targets, and `lanes`."""
    import cupy

    given = {
        "COUNT": {1: "unsigned char", 2: "unsigned short"}[size],
        "BLOCK": block,
        "WIDTH": width,
        "DRAWS": draws,
        "THREADS": _THREADS * size,
        "GROUPS": 2 // size,
        "FILTER": 8 * _FILTER,
    }
    options = ("--std=c++17", *(f"-D{name}={value}" for name, value in given.items()))
    return cupy.RawModule(code=Path(__file__).with_suffix(".cu").read_text(), options=options)
