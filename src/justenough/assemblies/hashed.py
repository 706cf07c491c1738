"""Edges by a hash of source and target, as two published simulators make them: a baseline.

Neither is a random graph; `audit` names what is wrong. They are here so that a study can say what
that does to assemblies.

`xor`: 24 bits of source * 2654435761 ^ target * 2246822519 ^ seed lie below p. `fnv`: the two
ids go through two rounds of a 32-bit FNV hash, of which 24 bits lie below p.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from justenough.assemblies.counts import HostCounts, Ids, Step
from justenough.assemblies.graph import ImpliedGraph
from justenough.compiled import has_numba, jit
from justenough.errors import InputError
from justenough.stats.counter import mixed

SCHEMES = ("xor", "fnv")
_SOURCE, _TARGET, _PRIME = 2654435761, 2246822519, 0x01000193
_LOW, _FINE = 0xFFFFFFFF, np.uint32(0xFFFFFF)
_CHUNK = 1 << 14


class HashedCounts(HostCounts):
    """Counts of an area whose edges come from a hash; `graph` gives only p, seed and tag.

    In uint16, for the degrees of these graphs are far from those of a random one.

    Args:
        n: Number of neurons.
        scheme: `xor` or `fnv`.

    Raises:
        InputError: Another scheme, or 2^32 neurons or more, which these hashes cannot tell apart.
    """

    def __init__(self, n: int, scheme: str):
        if scheme not in SCHEMES or n >= 2**32:
            raise InputError(f"scheme={scheme!r} for {n} neurons; give {' or '.join(SCHEMES)}, "
                             "and fewer than 2^32 neurons")  # fmt: skip
        super().__init__(n, np.uint16, 1)
        self.scheme = scheme
        # What of the hash does not depend on the source, once for all rows.
        ids = np.arange(n, dtype=np.uint32)
        self._targets = ids * np.uint32(_TARGET) if scheme == "xor" else ids
        self._factor = np.uint32(1 if scheme == "xor" else _PRIME)

    def change(self, steps: Sequence[Step]) -> None:
        """Add and remove rows, of which there are fewer than 2^16 at a time."""
        for step in steps:
            for sources, sign in ((step.removed, -1), (step.added, 1)):
                keys = self._keys(step.graph, sources)
                self._add(keys, np.uint32(step.graph.p * 2**24), sign)

    def among(self, graph: ImpliedGraph, sources: Ids, targets: Ids) -> NDArray[np.uint64]:
        """As `ImpliedGraph.edges_among`, by the hash."""
        words = -(-len(targets) // 64)
        out = np.zeros((len(sources), words), np.uint64)
        known, limit = self._targets[targets], np.uint32(graph.p * 2**24)
        room = np.zeros(64 * words, np.uint8)
        for a, key in enumerate(self._keys(graph, sources)):
            room[: len(targets)] = self._hits(known, key, limit)
            out[a] = np.packbits(room, bitorder="little").view(np.uint64)
        return out

    def _add(self, keys: NDArray[np.uint32], limit: np.uint32, sign: int) -> None:
        loop = _compiled()
        if loop is not None:
            loop(self.values, self._targets, keys, self._factor, limit, np.uint16(sign % 2**16))
            return
        change = np.array(sign).astype(self.values.dtype)
        for key in keys:
            self.values[self._hits(self._targets, key, limit)] += change

    def _keys(self, graph: ImpliedGraph, sources: Ids) -> NDArray[np.uint32]:
        """What of the hash depends on each source, and on seed and tag."""
        word = np.array([(graph.seed + (graph.tag << 32)) % 2**64], np.uint64).view(np.int64)
        mixture = mixed(word)
        low = (sources * _SOURCE if self.scheme == "xor" else sources) ^ mixture
        key: NDArray[np.uint32] = (low & _LOW).astype(np.uint32)
        return key if self.scheme == "xor" else key * self._factor

    def _hits(
        self, targets: NDArray[np.uint32], key: np.uint32, limit: np.uint32
    ) -> NDArray[np.bool_]:
        hits: NDArray[np.bool_] = ((targets ^ key) * self._factor & _FINE) < limit
        return hits


def _count(counts: Any, targets: Any, keys: Any, factor: Any, limit: Any, change: Any) -> None:
    for begin in range(0, len(counts), _CHUNK):
        here, ids = counts[begin : begin + _CHUNK], targets[begin : begin + _CHUNK]
        for key in keys:
            # Plain places from 0 on, so that the compiler may use vectors.
            for i in range(len(here)):
                hit = np.uint32((ids[i] ^ key) * factor) & _FINE < limit
                here[i] += change if hit else np.uint16(0)


@lru_cache
def _compiled() -> Callable[..., None] | None:
    return jit(_count) if has_numba() else None
