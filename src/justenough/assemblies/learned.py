"""Synapses among neurons that ever fired, and how often each one has grown.

No weight is stored. A synapse gains a factor 1 + beta in each plastic round in which its source
fired and its target won, so its exponent is the number of rounds in which both did: the bits
that the history of the source and that of the target have in common. Rounds that were alike, same
sources and same winners, share a bit, and how often they came is counted beside it.
"""

from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from justenough.assemblies.counts import Counts, Ids
from justenough.assemblies.graph import ImpliedGraph
from justenough.assemblies.kernels import compiled
from justenough.assemblies.saved import Arrays, only_first_bits, unfit, within
from justenough.compiled import spread

Words = NDArray[np.uint64]
# From so many words or synapses on, threads save more than it takes to start them.
_LONG = 1 << 18
# Bytes of a digest of a round.
_KEY = 32


class Learned:
    """One fibre's synapses from neurons that ever fired to neurons that ever fired.

    Attributes:
        edges: Bit i % 64 of word i // 64 in row a: whether source a reaches target i.
        sent: Rounds in which each source fired, one bit each, (sources, words).
        heard: Rounds in which each target won on it, (targets, words).
        times: How often the round of each bit came, int64 (64 * words,).
    """

    def __init__(self, graph: ImpliedGraph):
        self.graph = graph
        self.sources = self.targets = self.rounds = 0
        self.edges: Words = np.zeros((0, 0), np.uint64)
        self.sent: Words = np.zeros((0, 1), np.uint64)
        self.heard: Words = np.zeros((0, 1), np.uint64)
        self.times: Ids = np.zeros(64, np.int64)
        self._bits: dict[bytes, int] = {}
        # What `_pairs` returned last, and for which sources and sizes.
        self._kept: tuple[Ids, tuple[int, int], list[NDArray[np.int32]]] = np.arange(0), (0, 0), []

    @property
    def nbytes(self) -> int:
        """Bytes that the synapses and the histories take."""
        arrays = (self.edges, self.sent, self.heard, self.times)
        return sum(array.nbytes for array in arrays)

    def saved(self, name: str) -> dict[str, NDArray[Any]]:
        """All that it is, without spare room; `name` begins each array's name."""
        columns, words = -(-self.targets // 64), max(1, -(-len(self._bits) // 64))
        return {
            f"{name}~edges": self.edges[: self.sources, :columns],
            f"{name}~sent": self.sent[: self.sources, :words],
            f"{name}~heard": self.heard[: self.targets, :words],
            f"{name}~times": self.times[: 64 * words],
            f"{name}~rounds": np.frombuffer(b"".join(self._bits), np.uint8).reshape(-1, _KEY),
        }

    def restore(self, saved: Arrays, name: str, shape: tuple[int, int], rounds: int) -> None:
        """Become what `saved` gave, of so many sources and targets after so many rounds.

        Raises:
            InputError: It cannot have been so.
        """
        sources, targets = shape
        keys = within(saved, f"{name}~rounds", np.uint8, (None, _KEY))
        words, columns = max(1, -(-len(keys) // 64)), -(-targets // 64)
        self.edges = within(saved, f"{name}~edges", np.uint64, (sources, columns))
        self.sent = within(saved, f"{name}~sent", np.uint64, (sources, words))
        self.heard = within(saved, f"{name}~heard", np.uint64, (targets, words))
        self.times = within(saved, f"{name}~times", np.int64, (64 * words,), rounds)
        self._bits = {key.tobytes(): bit for bit, key in enumerate(keys)}
        self._kept = np.arange(0), (0, 0), []
        self.sources, self.targets, self.rounds = sources, targets, int(self.times.sum())
        # A bit that no neuron or round has would be an index beyond the arrays.
        mine = only_first_bits(self.edges, targets) and all(
            only_first_bits(history, len(keys)) if len(keys) else not history.any()
            for history in (self.sent, self.heard)
        )
        if not mine or self.rounds > rounds or len(self._bits) < len(keys):
            raise unfit(f"{name} has synapses or rounds that it cannot have")

    def extend(self, counts: Counts, sources: Ids, targets: Ids) -> None:
        """Look up synapses of those that fired for the first time; all ids, in order of slots."""
        s, t = self.sources, self.targets
        self.edges = _room(self.edges, len(sources), -(-len(targets) // 64))
        self.sent = _room(self.sent, len(sources), self.sent.shape[1])
        self.heard = _room(self.heard, len(targets), self.heard.shape[1])
        if len(targets) > t:
            # From a whole word on, so that its words can be put in place as they are.
            word = t // 64
            found = counts.among(self.graph, sources[:s], targets[64 * word :])
            self.edges[:s, word : word + found.shape[1]] = found
        if len(sources) > s:
            found = counts.among(self.graph, sources[s:], targets)
            self.edges[s : len(sources), : found.shape[1]] = found
        self.sources, self.targets = len(sources), len(targets)

    def grow(self, sources: Ids, targets: Ids) -> None:
        """Synapses from these sources to these winners gain one exponent; slots, sorted."""
        self.rounds += 1
        key = blake2b(sources.tobytes() + b"/" + targets.tobytes(), digest_size=_KEY).digest()
        bit = self._bits.setdefault(key, len(self._bits))
        word, one = bit // 64, np.uint64(1) << np.uint64(bit % 64)
        if word == self.sent.shape[1]:
            self.sent = _room(self.sent, len(self.sent), 2 * word)
            self.heard = _room(self.heard, len(self.heard), 2 * word)
            self.times = np.concatenate([self.times, np.zeros_like(self.times)])
        self.sent[sources, word] |= one
        self.heard[targets, word] |= one
        self.times[bit] += 1

    def add_inputs(self, active: Ids, table: Ids, total: Ids, threads: int | None) -> None:
        """Add to `total`, int64 (targets,), the weights of the synapses from `active`."""
        loops = compiled()
        if loops is None:
            _, target, exponent = self.synapses(active)
            np.add.at(total, target, table[exponent])
            return
        parts = self._pairs(active, threads)
        words = -(-len(self._bits) // 64)
        often = self.times[: 64 * words] > 1
        rounds = np.packbits(often, bitorder="little").view(np.uint64), self.times

        def work(part: slice) -> None:
            for pairs in parts[part]:
                loops.inputs(pairs, (self.sent, self.heard), rounds, table, total)

        # Parts share out targets, so none adds to what another adds to.
        spread(work, len(parts), threads if sum(map(len, parts)) > _LONG else 1)

    def _pairs(self, active: Ids, threads: int | None) -> list[NDArray[np.int32]]:
        """Slots of source and target of each synapse from `active`, by parts of the targets.

        They are kept: in a settled area the next round asks for the same.
        """
        columns = -(-self.targets // 64)
        kept, size, parts = self._kept
        if size == (self.sources, self.targets) and np.array_equal(kept, active):
            return parts
        loops = compiled()

        def work(part: slice) -> NDArray[np.int32]:
            number = int(np.bitwise_count(self.edges[active, part]).sum(dtype=np.int64))
            pairs = np.empty((number, 2), np.int32)
            if loops is not None:
                loops.pairs(self.edges, active, part.start, part.stop, pairs)
            return pairs

        parts = spread(work, columns, threads if columns * active.size > _LONG else 1)
        self._kept = active, (self.sources, self.targets), parts
        return parts

    def synapses(self, active: Ids) -> tuple[Ids, Ids, Ids]:
        """Synapses from `active`: place of the source in it, slot of the target, exponent."""
        columns = -(-self.targets // 64)
        rows = np.ascontiguousarray(self.edges[active, :columns])
        bits = np.unpackbits(rows.view(np.uint8), axis=1, bitorder="little")
        source, target = np.nonzero(bits.view(np.bool_))
        exponent = np.zeros(source.size, np.int64)
        for word in range(-(-len(self._bits) // 64)):
            both = self.sent[active[source], word] & self.heard[target, word]
            exponent += np.bitwise_count(both)
            for bit in np.flatnonzero(self.times[64 * word : 64 * word + 64] > 1):
                more = self.times[64 * word + bit] - 1
                exponent += (both >> np.uint64(bit) & np.uint64(1)).astype(np.int64) * more
        return source, target, exponent


def _room(array: Words, rows: int, columns: int) -> Words:
    """The array with room for so many rows and columns: doubled where it was too small."""
    have = array.shape
    if rows <= have[0] and columns <= have[1]:
        return array
    shape = [
        old if new <= old else max(new, 2 * old)
        for old, new in zip(have, (rows, columns), strict=True)
    ]
    larger = np.zeros(shape, array.dtype)
    larger[: have[0], : have[1]] = array
    return larger
