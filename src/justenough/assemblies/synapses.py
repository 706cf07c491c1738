"""The synapses onto one area, kept by their source, so that a round reads those that fire."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from justenough.assemblies.circuit import Slots
from justenough.assemblies.saved import unfit, whole, within
from justenough.compiled import has_numba, jit

Ids = npt.NDArray[np.int32]
# Synapses in a chunk; a source's synapses are a chain of chunks, all full but the last one.
CHUNK = 32
# Bits of an exponent, next to the target: in a word of 32 bits, and of 64 if that is too small.
NARROW, _WIDE = 12, 16


class _Lists(NamedTuple):
    """Chains of chunks: `length` counts a source's synapses, `spare` chunks are in use."""

    synapse: npt.NDArray[Any]
    bits: int
    after: Ids
    head: Ids
    tail: Ids
    length: Ids
    spare: Slots


class _Loops(NamedTuple):
    join: Callable[..., int]
    scatter: Callable[..., None]
    total: Callable[..., None]
    grow: Callable[..., None]


def _join(lists: Any, sources: Any, targets: Any, start: Any) -> Any:
    for i in range(start, sources.size):
        source = sources[i]
        place = lists.length[source] % CHUNK
        if place == 0:
            chunk = lists.spare[0]
            if chunk == lists.after.size:
                return i
            lists.spare[0] = chunk + 1
            if lists.length[source] == 0:
                lists.head[source] = chunk
            else:
                lists.after[lists.tail[source]] = chunk
            lists.tail[source] = chunk
        lists.synapse[lists.tail[source] * CHUNK + place] = np.int64(targets[i]) << lists.bits
        lists.length[source] += 1
    return sources.size


def _scatter(lists: Any, first: Any, numbers: Any, targets: Any, rng: Any) -> None:
    mark = np.zeros(targets, np.int32)
    chunk = lists.spare[0]
    for i in range(numbers.size):
        begin, number = chunk * CHUNK, numbers[i]
        # Floyd's algorithm: a uniform subset of so many of the targets.
        for j in range(targets - number, targets):
            t = int(rng.random() * (j + 1))
            if mark[t] == i + 1:
                t = j
            mark[t] = i + 1
            lists.synapse[begin + j - (targets - number)] = t << lists.bits
        chunks = (number + CHUNK - 1) // CHUNK
        lists.head[first + i], lists.length[first + i] = chunk, number
        for c in range(chunk, chunk + chunks):
            lists.after[c] = c + 1
            lists.tail[first + i] = c
        chunk += chunks
    lists.spare[0] = chunk


def _total(lists: Any, sources: Any, table: Any, out: Any) -> None:
    mask = (1 << lists.bits) - 1
    for source in sources:
        left, chunk = lists.length[source], lists.head[source]
        while left > 0:
            begin = chunk * CHUNK
            for at in range(begin, begin + min(left, CHUNK)):
                synapse = np.int64(lists.synapse[at])
                out[synapse >> lists.bits] += table[synapse & mask]
            left -= CHUNK
            chunk = lists.after[chunk]


def _grow(lists: Any, sources: Any, won: Any) -> None:
    for source in sources:
        left, chunk = lists.length[source], lists.head[source]
        while left > 0:
            begin = chunk * CHUNK
            for at in range(begin, begin + min(left, CHUNK)):
                if won[np.int64(lists.synapse[at]) >> lists.bits]:
                    lists.synapse[at] += 1
            left -= CHUNK
            chunk = lists.after[chunk]


@lru_cache
def _loops() -> _Loops:
    """Compiled, or as they are where Numba is not installed: same results, far slower."""
    loops = (_join, _scatter, _total, _grow)
    return _Loops(*(jit(f) for f in loops) if has_numba() else loops)


@dataclass
class Synapses:
    """Synapses between sources and targets, both numbered from 0, with integer exponents.

    Args:
        rng: Source of randomness.
    """

    rng: np.random.Generator
    sources: int = 0
    rounds: int = 0
    # A synapse is its target and, in the lowest bits, its exponent.
    _bits: int = NARROW
    _synapse: npt.NDArray[Any] = field(default_factory=lambda: np.zeros(0, np.uint32))
    _after: Ids = field(default_factory=lambda: np.zeros(0, np.int32))
    # Three rows of columns for the sources: first chunk, last chunk, number of synapses.
    _chains: Ids = field(default_factory=lambda: np.zeros((3, 0), np.int32))
    _spare: Slots = field(default_factory=lambda: np.zeros(1, np.int64))

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return self._synapse.nbytes + self._after.nbytes + self._chains.nbytes

    @property
    def size(self) -> int:
        """Number of synapses."""
        return int(self._chains[2].sum())

    def check(self, targets: int, rounds: int) -> None:
        """Refuse, of what was saved, all that would lead a compiled loop astray.

        Args:
            targets: How many there are.
            rounds: Plastic rounds so far.

        Raises:
            InputError: No run leaves such synapses.
        """
        held = vars(self)
        sources = whole(held, "sources", np.iinfo(np.int32).max)
        largest, bits = whole(held, "rounds", rounds), whole(held, "_bits", _WIDE)
        if bits not in (NARROW, _WIDE) or largest >= 1 << bits:
            raise unfit(f"{bits} bits hold no exponent of {largest} rounds")
        chunks = within(held, "_after", np.int32, (None,)).size
        kind = np.uint32 if bits == NARROW else np.uint64
        within(held, "_synapse", kind, (chunks * CHUNK,))
        within(held, "_spare", np.int64, (1,), chunks)
        chains = within(held, "_chains", np.int32, (3, None), np.iinfo(np.int32).max)
        if sources > chains.shape[1] or chains[:, sources:].any():
            raise unfit(f"there are other chains than those of {sources} sources")
        owner, number = self._walked()
        used = np.arange(CHUNK) < number[:, None]
        synapse = self._synapse[: owner.size * CHUNK].reshape(-1, CHUNK)[used]
        target, exponent = synapse >> bits, synapse & ((1 << bits) - 1)
        if target.size and (int(target.max()) >= targets or int(exponent.max()) > largest):
            raise unfit("a synapse leads to no neuron, or has grown too often")
        pairs = np.repeat(owner, number) * targets + target.astype(np.int64)
        if np.unique(pairs).size < pairs.size:
            raise unfit("a synapse is there twice")

    def _walked(self) -> tuple[Slots, Slots]:
        """Source and number of synapses of each chunk, from all chains at once."""
        head, tail, length = self._chains[:, : self.sources].astype(np.int64)
        owner, number = np.full(int(self._spare[0]), -1), np.zeros(int(self._spare[0]), np.int64)
        if (-(-length // CHUNK)).sum() != owner.size:
            raise unfit("synapses take other chunks than are in use")
        source = np.flatnonzero(length)
        chunk, left = head[source], length[source]
        while source.size:
            if chunk.min() < 0 or chunk.max() >= owner.size:
                raise unfit("a chain of synapses leads to no chunk")
            owner[chunk], number[chunk] = source, np.minimum(left, CHUNK)
            more = left > CHUNK
            if (tail[source] != chunk)[~more].any():
                raise unfit("a chain of synapses ends elsewhere")
            source, chunk, left = source[more], self._after[chunk[more]], left[more] - CHUNK
        # As many steps as chunks, so that one without an owner means another with two.
        if (owner < 0).any():
            raise unfit("two chains of synapses share a chunk")
        return owner, number

    def new_sources(self, count: int, targets: int, p: float) -> None:
        """Add sources; each has a synapse to each of the `targets` with chance `p`."""
        self._fit(targets)
        first, self.sources = self.sources, self.sources + count
        if self.sources > self._chains.shape[1]:
            more = self.sources + self.sources // 4 - self._chains.shape[1]
            self._chains = np.hstack([self._chains, np.zeros((3, more), np.int32)])
        numbers = self.rng.binomial(targets, p, count)
        self._reserve(int((-(-numbers // CHUNK)).sum()))
        _loops().scatter(self._lists(), first, numbers, targets, self.rng)

    def join(self, sources: Ids, targets: Ids) -> None:
        """Add synapses, of exponent 0, that are not there yet."""
        self._fit(int(targets.max(initial=0)) + 1)
        done = _loops().join(self._lists(), sources, targets, 0)
        while done < sources.size:
            self._reserve(1 + (sources.size - done) // CHUNK)
            done = _loops().join(self._lists(), sources, targets, done)

    def total(self, sources: Ids, table: Slots, out: Slots) -> None:
        """Add the weights of the synapses from `sources` to their targets' places in `out`."""
        _loops().total(self._lists(), sources, table, out)

    def grow(self, sources: Ids, won: npt.NDArray[np.bool_]) -> None:
        """Add 1 to the exponents of the synapses from `sources` to targets that won."""
        self.rounds += 1
        self._fit(0)
        _loops().grow(self._lists(), sources, won)

    def _lists(self) -> _Lists:
        head, tail, length = self._chains
        return _Lists(self._synapse, self._bits, self._after, head, tail, length, self._spare)

    def _fit(self, targets: int) -> None:
        """Widen the words once targets or exponents would outgrow them."""
        if self._bits == _WIDE:
            return
        if targets > 1 << (32 - NARROW) or self.rounds >= 1 << NARROW:
            wide = self._synapse.astype(np.uint64)
            exponent = wide & np.uint64((1 << NARROW) - 1)
            self._synapse = (wide >> np.uint64(NARROW) << np.uint64(_WIDE)) | exponent
            self._bits = _WIDE

    def _reserve(self, chunks: int) -> None:
        need = int(self._spare[0]) + chunks
        if need > self._after.size:
            room = need + need // 8
            # In place: the old and the new array are never there at once.
            self._synapse.resize(room * CHUNK, refcheck=False)
            self._after.resize(room, refcheck=False)
