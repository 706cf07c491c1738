"""An approximate top-k in place of the exact one: the largest of each bucket, then the k largest.

As JAX's `approx_max_k` (Chern et al. 2022, arXiv:2206.14286): values are dealt into L buckets by
their place modulo L, each bucket keeps its largest, and the k largest of those win. One of the
true k is lost where a larger one shares its bucket; of randomly placed ones at least
(1 - 1/L)^(k-1) are kept on average.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from justenough.assemblies.arithmetic import Arithmetic, Heard
from justenough.assemblies.circuit import Circuit
from justenough.assemblies.counts import Ids
from justenough.assemblies.exact import ExactBrain
from justenough.errors import InputError


def buckets(k: int, recall: float) -> int:
    """Fewest buckets whose expected recall of the top k is at least `recall`.

    >>> buckets(1000, 0.95)
    19477
    """
    if k < 2 or not 0 < recall < 1:
        raise InputError(f"k={k}, recall={recall}; give k of 2 or more, and recall within 0 and 1")
    return math.ceil(1 / -math.expm1(math.log(recall) / (k - 1)))


class SampledBrain(ExactBrain):
    """The exact tier with an approximate top-k, made as on a card: over all n inputs each round.

    Args:
        circuit: What is simulated.
        seed: Of the graph.
        recall: Expected share of the true k that is found.
        threads: How many.

    Raises:
        InputError: A recall outside (0, 1), or an area with fewer neurons than twice the buckets.
    """

    def __init__(
        self, circuit: Circuit, seed: int = 0, recall: float = 0.95, threads: int | None = None
    ):
        super().__init__(circuit, seed, threads=threads)
        self._buckets = {a.name: buckets(a.k, recall) for a in circuit.areas}
        for area in circuit.areas:
            if area.n < 2 * self._buckets[area.name]:
                raise InputError(
                    f"area {area.name}: recall {recall} of k={area.k} takes "
                    f"{self._buckets[area.name]} buckets, too many for n={area.n}; give a lower "
                    "recall or more neurons"
                )

    def would_win(
        self, inputs: Mapping[str, Sequence[str]], arithmetic: Arithmetic
    ) -> dict[str, Ids]:
        """Refused: an approximate top-k has no exact state to start from."""
        raise InputError("the sampled tier is no teacher; use ExactBrain")

    def _cap(self, state: Any, arithmetic: Arithmetic, heard: Heard) -> tuple[Ids, Ids]:
        n, k, width = state.area.n, state.area.k, self._buckets[state.area.name]
        levels = arithmetic.unweighted(np.arange(state.counts.largest + 1), heard)
        values = levels[state.counts.take(np.arange(n))]
        values[state.ids] = arithmetic.inputs(heard)
        table = np.full(-(-n // width) * width, values.min(), values.dtype)
        table[:n] = values
        table = table.reshape(-1, width)
        best = table.argmax(0)
        tops = table[best, np.arange(width)]
        ids = best * width + np.arange(width)
        cut = np.partition(tops, -k)[-k]
        above, equal = np.flatnonzero(tops > cut), np.flatnonzero(tops == cut)
        first = np.argsort(self._priority(state, ids[equal]))[: k - len(above)]
        won = ids[np.concatenate([above, equal[first]])]
        slots = state.slots(won)
        return np.sort(slots[slots >= 0]), np.sort(won[slots < 0])
