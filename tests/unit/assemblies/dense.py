"""A dense simulator of the same graph, in the plainest way: the exact tier must give its winners.

Every synapse is stored, its weight is looked up with fractions, and every input is computed.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from justenough.assemblies.circuit import Area, Circuit
from justenough.assemblies.counts import Ids
from justenough.assemblies.exact import Ties
from justenough.assemblies.graph import ImpliedGraph

_MASK = 2**64 - 1


def splitmix(z: int) -> int:
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


class DenseBrain:
    def __init__(self, circuit: Circuit, seed: int = 0, ties: Ties = "random"):
        self.circuit, self.seed, self.ties = circuit, seed, ties
        sizes = {s.name: s.k for s in circuit.stimuli} | {a.name: a.n for a in circuit.areas}
        self.graph: dict[tuple[str, str], np.ndarray[Any, Any]] = {}
        self.grown: dict[tuple[str, str], np.ndarray[Any, Any]] = {}
        for t, area in enumerate(circuit.areas):
            for s, (name, size) in enumerate(sizes.items()):
                graph = ImpliedGraph(area.n, circuit.p, seed, t * len(sizes) + s)
                dense = np.zeros((size, area.n), bool)
                for source in range(size):
                    dense[source, graph.row(source)] = True
                self.graph[name, area.name] = dense
                self.grown[name, area.name] = np.zeros((size, area.n), np.int64)
        self.fires = {s.name: np.arange(s.k) for s in circuit.stimuli}
        self.fires |= {a.name: np.arange(0) for a in circuit.areas}
        self.ever: dict[str, set[int]] = {a.name: set() for a in circuit.areas}
        self.rounds = self.fired = 0

    def winners(self, area: str) -> Ids:
        return self.fires[area]

    def support(self, area: str) -> int:
        return len(self.ever[area])

    def activate(self, area: str, winners: Ids) -> None:
        self.fires[area] = np.sort(winners)

    def fire(self, inputs: Mapping[str, Sequence[str]], plastic: bool = True) -> None:
        found = {}
        for t, area in enumerate(self.circuit.areas):
            if area.name in inputs:
                found[area.name] = self.best(area, t, self.total(area, inputs[area.name]))
        for name, winners in found.items():
            if plastic and self.circuit.area(name).beta:
                for source in inputs[name]:
                    self.grown[source, name][np.ix_(self.fires[source], winners)] += 1
        for name, winners in found.items():
            self.fires[name] = winners
            self.ever[name] |= set(winners.tolist())
        self.rounds += plastic
        self.fired += 1

    def total(self, area: Area, sources: Sequence[str]) -> Ids:
        terms = sum(len(self.fires[s]) for s in sources)
        growth = 1 + Fraction(str(area.beta))
        places = 9
        while terms * growth**self.rounds * 10**places > 2**62:
            places -= 1
        table = np.array([round(growth**m * 10**places) for m in range(self.rounds + 1)])
        total = np.zeros(area.n, np.int64)
        for s in sources:
            rows = self.fires[s]
            total += (self.graph[s, area.name][rows] * table[self.grown[s, area.name][rows]]).sum(
                0
            )
        return total

    def best(self, area: Area, t: int, total: Ids) -> Ids:
        def priority(i: int) -> int:
            if self.ties == "lowest":
                return i
            key = splitmix((t + splitmix((self.fired + splitmix(self.seed)) & _MASK)) & _MASK)
            z = splitmix(splitmix((i + key) & _MASK))
            return z - 2**64 if z >= 2**63 else z

        order = sorted(range(area.n), key=lambda i: (-total[i], priority(i)))
        return np.sort(np.array(order[: area.k]))
