"""A random directed graph that is implied by a seed: nothing of it is stored.

G(n, p): every edge source -> target is there with probability p, independently of the others.
Targets are cut into blocks of 2**b. Into the block of one source falls a Poisson number of
points with mean 2**b * -ln(1 - p), each on a uniform target; an edge is a target with at
least one point. Splitting a Poisson number over equally likely cells gives independent Poisson
numbers (Kingman 1993, "Poisson Processes", section 2.4), and a cell stays empty with
probability exp(ln(1 - p)) = 1 - p: the law is that of independent edges, with no logarithm per
edge and no rejection. The words come from Philox at (draw, block, source, tag) under the seed.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from justenough.assemblies.kernels import compiled
from justenough.assemblies.philox import words
from justenough.compiled import spread
from justenough.errors import InputError

LARGEST_SOURCE = 2**48
LARGEST_BLOCK_BITS = 16
# Mean number of points in a block, at most: their words cost far more than their number.
_POINTS = 96
_DIGITS = 60
_BLOCKS_AT_ONCE = 4096

Law = tuple[NDArray[np.uint64], NDArray[np.uint16], np.uint64, np.uint64, int]


@dataclass(frozen=True)
class ImpliedGraph:
    """The graph of sources 0, 1, ... to targets 0..n-1.

    Attributes:
        n: Number of targets. Sources need no number: any id below 2**48 has its row.
        p: Probability of an edge, above 0 and below 1.
        seed: Key of 64 bits; another seed is another graph.
        tag: Which of the graphs of this seed, below 2**16, for several areas and fibres.

    Raises:
        InputError: A value is out of its range.

    >>> graph = ImpliedGraph(1000, 0.01, seed=1)
    >>> row = graph.row(7)
    >>> all(graph.has_edge(7, int(i)) for i in row)
    True
    """

    n: int
    p: float
    seed: int
    tag: int = 0
    law: Law = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 < self.p < 1:
            raise InputError(f"p={self.p}; the probability of an edge is above 0 and below 1")
        bits, thresholds, guide = _tables(float(self.p))
        # A counter has 32 bits for the block.
        for name, low, top in (("n", 1, 2 ** (32 + bits)), ("seed", 0, 2**64), ("tag", 0, 2**16)):
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or not low <= value < top:
                raise InputError(f"{name}={value}; give a whole number from {low} to {top - 1}")
        law = (thresholds, guide, np.uint64(self.seed), np.uint64(self.tag << 16), bits)
        object.__setattr__(self, "law", law)

    @property
    def block_bits(self) -> int:
        """Binary logarithm of the number of targets in a block."""
        return self.law[4]

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return (self.n - 1 >> self.block_bits) + 1

    def row(self, source: int) -> NDArray[np.int64]:
        """Return the targets of one source, increasing.

        Raises:
            InputError: The source is out of range.
        """
        source = int(checked_ids([source], LARGEST_SOURCE, "sources")[0])
        return np.concatenate(list(self._pieces(source)))

    def block(self, source: int, block: int) -> NDArray[np.int64]:
        """Return the targets of one source that lie in one block, increasing.

        Raises:
            InputError: The source or the block is out of range.
        """
        source = int(checked_ids([source], LARGEST_SOURCE, "sources")[0])
        block = int(checked_ids([block], self.blocks, "blocks")[0])
        return self._of_blocks(source, np.array([block]))

    def has_edge(self, source: int, target: int) -> bool:
        """Whether the edge source -> target is there.

        Raises:
            InputError: An id is out of range.
        """
        target = int(checked_ids([target], self.n, "targets")[0])
        return target in self.block(source, target >> self.block_bits)

    def edges_among(
        self, sources: ArrayLike, targets: ArrayLike, threads: int | None = None
    ) -> NDArray[np.uint64]:
        """Return which edges are there, one bit each.

        Args:
            sources: Ids, shape (s,).
            targets: Ids, shape (t,), in any order.
            threads: How many; without it, the cores that this process may use.

        Returns:
            Shape (s, ceil(t / 64)): bit k % 64 of word k // 64 in row a is the edge
            sources[a] -> targets[k].

        Raises:
            InputError: An id is out of range.

        >>> graph = ImpliedGraph(100, 0.5, seed=1)
        >>> bits = graph.edges_among([3], [10, 11, 12])
        >>> bool(bits[0, 0] >> 2 & 1) == graph.has_edge(3, 12)
        True
        """
        rows = checked_ids(sources, LARGEST_SOURCE, "sources").astype(np.uint64)
        columns = checked_ids(targets, self.n, "targets")
        places = np.argsort(columns, kind="stable")
        ordered = columns[places]
        out = np.zeros((len(rows), -(-len(columns) // 64)), np.uint64)
        loops = compiled()

        def work(part: slice) -> None:
            if loops is not None:
                loops.among(rows[part], ordered, places, self.law, out[part])
                return
            for a in range(part.start, part.stop):
                held = places[np.isin(ordered, self.row(int(rows[a])))]
                one = np.uint64(1) << (held % 64).astype(np.uint64)
                np.bitwise_or.at(out[a], held // 64, one)

        spread(work, len(rows), threads)
        return out

    def _pieces(self, source: int) -> Iterator[NDArray[np.int64]]:
        for first in range(0, self.blocks, _BLOCKS_AT_ONCE):
            last = min(first + _BLOCKS_AT_ONCE, self.blocks)
            yield self._of_blocks(source, np.arange(first, last))

    def _of_blocks(self, source: int, blocks: NDArray[np.int64]) -> NDArray[np.int64]:
        thresholds, _, key, tag, bits = self.law
        halves = (int(key) & 0xFFFFFFFF, int(key) >> 32)
        rest = (source & 0xFFFFFFFF, source >> 32 | int(tag))
        head = words((0, blocks, *rest), halves)
        number = np.searchsorted(thresholds, head[:, 0], side="right")
        draws = np.arange(1, (int(number.max()) + 3) // 8 + 1)
        more = words((draws[None, :], blocks[:, None], *rest), halves)
        lanes = np.concatenate([head[:, 1:], more.reshape(len(blocks), -1)], axis=1)
        shifts = np.arange(0, 64, 16, dtype=np.uint64)
        fine = (lanes[:, :, None] >> shifts) & np.uint64(0xFFFF)
        places = (fine >> np.uint64(16 - bits)).astype(np.int64).reshape(len(blocks), -1)
        ids = (places + (blocks << bits)[:, None])[np.arange(places.shape[1]) < number[:, None]]
        return np.unique(ids[ids < self.n])


def accumulate(
    counts: NDArray[Any],
    added: ArrayLike,
    removed: ArrayLike,
    graph: ImpliedGraph,
    threads: int | None = None,
) -> None:
    """Add the rows of some sources to the counts of the targets, and take others away, in place.

    Afterwards counts[i] has grown by the number of edges added[...] -> i, less the number of
    edges removed[...] -> i. All rows go over one block before the next, which stays in cache.

    Args:
        counts: Shape (n,), uint8 or uint16.
        added: Sources whose rows are added, shape (a,); one named twice counts twice.
        removed: Sources whose rows are taken away, shape (r,).
        graph: The edges.
        threads: How many; without it, the cores that this process may use.

    Raises:
        InputError: A count would leave the range of its type, or an argument does not fit; the
            counts are then what they were.

    >>> counts, graph = np.zeros(100, np.uint8), ImpliedGraph(100, 0.1, seed=1)
    >>> accumulate(counts, [4, 5], [], graph)
    >>> int(counts.sum()) == len(graph.row(4)) + len(graph.row(5))
    True
    """
    fits = counts.dtype in (np.uint8, np.uint16) and counts.shape == (graph.n,)
    if not fits or not counts.flags.writeable:
        raise InputError(
            f"counts are {counts.dtype} of shape {counts.shape}; "
            f"give uint8 or uint16 of shape ({graph.n},) that can be written"
        )
    gone = checked_ids(removed, LARGEST_SOURCE, "sources").astype(np.uint64)
    come = checked_ids(added, LARGEST_SOURCE, "sources").astype(np.uint64)
    bad = _stepped(counts, gone, come, graph, threads)
    if bad:
        # Steps wrap, so the opposite steps give back every count, also those that wrapped.
        _stepped(counts, come, gone, graph, threads)
        raise InputError(
            f"{bad} steps would leave the range of {counts.dtype}, 0 to "
            f"{np.iinfo(counts.dtype).max}: count in a wider type, or remove only what was added"
        )


def _stepped(
    counts: NDArray[Any],
    gone: NDArray[np.uint64],
    come: NDArray[np.uint64],
    graph: ImpliedGraph,
    threads: int | None,
) -> int:
    """Take rows away, then add others, modulo the type; how many steps left its range."""
    loops = compiled()
    top = int(np.iinfo(counts.dtype).max)
    if loops is not None:
        rows = np.concatenate([gone, come])

        def work(part: slice) -> int:
            return loops.accumulate(counts, part.start, part.stop, rows, len(gone), graph.law, top)

        return sum(spread(work, graph.blocks, threads))
    bad = 0
    for sources, sign, end in ((gone, -1, 0), (come, 1, top)):
        step = np.array(sign).astype(counts.dtype)
        for source in sources:
            row = graph.row(int(source))
            bad += int((counts[row] == end).sum())
            counts[row] += step
    return bad


@lru_cache(maxsize=64)
def _tables(p: float) -> tuple[int, NDArray[np.uint64], NDArray[np.uint16]]:
    """Block size and the distribution of the number of points, in units of 2**-64.

    The number is how many thresholds are at most a word of 64 bits. A threshold is
    floor(2**64 * P(number <= c)), from 60 decimal digits, so no two machines differ. There are
    fewer than 256, each off by less than 2**-64, so the law of the number is within 2**-56 of
    the Poisson law in total variation.
    """
    with localcontext() as context:
        context.prec = _DIGITS
        empty = 1 - Decimal(p)
        rate = -empty.ln()
        bits = LARGEST_BLOCK_BITS
        while bits and rate * 2**bits > _POINTS:
            bits -= 1
        mean = rate * 2**bits
        term = empty ** (2**bits)
        below = Decimal(0)
        found: list[int] = []
        while True:
            below += term
            threshold = int(below * 2**64)
            # What is left of the tail is below 2**-64: the last number takes it.
            if threshold >= 2**64 - 1 or (len(found) > mean and term < Decimal(2) ** -80):
                break
            found.append(threshold)
            term = term * mean / len(found)
    thresholds = np.array(found, np.uint64)
    starts = np.arange(256, dtype=np.uint64) << np.uint64(56)
    guide = np.searchsorted(thresholds, starts, side="right").astype(np.uint16)
    thresholds.flags.writeable = guide.flags.writeable = False
    return bits, thresholds, guide


def checked_ids(ids: ArrayLike, below: int, what: str) -> NDArray[np.int64]:
    """The ids as int64 (k,), refused unless whole and in 0..below-1."""
    array = np.asarray(ids)
    if array.size == 0:
        return np.empty(0, np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise InputError(f"{what} are {array.dtype} of shape {array.shape}; give whole numbers")
    if int(array.min()) < 0 or int(array.max()) >= below:
        raise InputError(f"{what} reach from {array.min()} to {array.max()}; below {below} only")
    return array.astype(np.int64)
