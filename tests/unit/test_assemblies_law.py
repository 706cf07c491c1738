"""The lazy tier against the random graph itself, written out as a matrix."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest
from scipy.stats import ks_2samp

from justenough.assemblies.circuit import Area, Brain, Circuit, Fibre, Slots, Stimulus
from justenough.assemblies.lazy import LazyBrain, weights
from justenough.assemblies.operations import merge, project
from justenough.assemblies.reference import ReferenceBrain

Tier = Callable[[Circuit, int], Brain]
Run = Callable[[Tier, int, int, float, float, int], list[int]]
SEEDS = 60
ROUNDS = 12


class DenseBrain:
    """A small circuit with every synapse in a matrix; ties at random, in each round anew."""

    def __init__(self, circuit: Circuit, seed: int):
        rng = np.random.default_rng(seed)
        n = {a.name: a.n for a in circuit.areas}
        pairs = [(f.source, f.target, n[f.source]) for f in circuit.fibres]
        pairs += [(s.name, a.name, s.k) for s in circuit.stimuli for a in circuit.areas]
        self.exists = {(s, t): rng.random((m, n[t])) < circuit.p for s, t, m in pairs}
        self.exponent = {x: np.zeros(e.shape, np.int16) for x, e in self.exists.items()}
        self.last = {s.name: np.arange(s.k) for s in circuit.stimuli}
        self.fired = {a.name: np.zeros(a.n, bool) for a in circuit.areas}
        self.circuit, self.rng, self.rounds = circuit, rng, 0

    def fire(self, inputs: Mapping[str, Sequence[str]], plastic: bool = True) -> None:
        best = {t: self._best(self.circuit.area(t), sources) for t, sources in inputs.items()}
        for target, sources in inputs.items():
            self.fired[target][best[target]] = True
            for source in sources if plastic else ():
                self.exponent[source, target][np.ix_(self.last[source], best[target])] += 1
        self.last.update(best)
        self.rounds += 1

    def _best(self, area: Area, sources: Sequence[str]) -> Slots:
        total = np.zeros(area.n, np.int64)
        table = weights(area.beta, self.rounds, 1000)
        for source in sources:
            rows, at = self.last[source], (source, area.name)
            total += (self.exists[at][rows] * table[self.exponent[at][rows]]).sum(0)
        order: Slots = np.lexsort((self.rng.random(area.n), -total))
        return order[: area.k]

    def winners(self, area: str) -> Slots:
        return np.sort(self.last[area])

    def activate(self, area: str, winners: Slots) -> None:
        self.last[area] = winners

    def support(self, area: str) -> int:
        return int(self.fired[area].sum())


def projected(tier: Tier, n: int, k: int, p: float, beta: float, seed: int) -> list[int]:
    circuit = Circuit(p, (Area("a", n, k, beta),), (Stimulus("s", k),), (Fibre("a", "a"),))
    return list(project(tier(circuit, seed), "s", "a", ROUNDS).support)


def merged(tier: Tier, n: int, k: int, p: float, beta: float, seed: int) -> list[int]:
    """Support of the merge's area in each round, then of one of the areas merged."""
    both = [(a, b) for a in "abc" for b in "abc" if {a, b} != {"a", "b"}]
    circuit = Circuit(
        p,
        tuple(Area(x, n, k, beta) for x in "abc"),
        (Stimulus("s", k), Stimulus("t", k)),
        tuple(Fibre(*pair) for pair in both),
    )
    brain = tier(circuit, seed)
    trace = merge(brain, ("s", "t"), ("a", "b"), "c", ROUNDS)
    return [*trace.support, brain.support("a")]


def sample(run: Run, tier: Tier, n: int, k: int, p: float, beta: float) -> Slots:
    return np.array([run(tier, n, k, p, beta, seed) for seed in range(SEEDS)])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("operation", "n", "p", "beta"),
    [
        (projected, 2000, 0.2, 0.05),
        (projected, 2000, 0.02, 0.05),
        (projected, 2000, 0.02, 0.2),
        (merged, 1000, 0.2, 0.1),
        (merged, 1000, 0.03, 0.1),
    ],
)
def test_support_has_the_law_of_the_random_graph(
    operation: Run, n: int, p: float, beta: float
) -> None:
    """No round's law differs at 1 in 100, and the mean at the end is within 6 %."""
    dense = sample(operation, DenseBrain, n, 50, p, beta)
    lazy = sample(operation, LazyBrain, n, 50, p, beta)
    for at in (1, 2, 4, -2, -1):
        assert ks_2samp(dense[:, at], lazy[:, at]).pvalue > 0.01, at
    assert lazy[:, -1].mean() == pytest.approx(dense[:, -1].mean(), rel=0.06)


@pytest.mark.slow
def test_the_same_test_sees_the_bias_of_the_authors_method() -> None:
    dense = sample(projected, DenseBrain, 2000, 50, 0.02, 0.2)
    other = sample(projected, ReferenceBrain, 2000, 50, 0.02, 0.2)
    assert ks_2samp(dense[:, -1], other[:, -1]).pvalue < 1e-4
