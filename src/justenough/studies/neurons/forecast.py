"""How long a run will take, from a fraction of a second of its own work on this machine."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

import numpy as np

from justenough.assemblies.circuit import Area
from justenough.assemblies.counts import Counts, Step
from justenough.assemblies.exact import count_type
from justenough.assemblies.graph import ImpliedGraph
from justenough.assemblies.lazy import LazyBrain
from justenough.assemblies.memory import likely_support
from justenough.studies.neurons.ask import Asked
from justenough.studies.neurons.brains import maker

# Edges, bytes and synapses looked up, at least and at most, in a slice that is timed.
_EDGES, _SLICE, _SOURCES, _TARGETS = 5_000_000, 1 << 24, 128, 512
# Rows that come or go in a round in which winners change, in units of k; a guess.
_PART = 0.75
# Of the lazy tier: rounds, and seconds after which no other one is begun.
_ROUNDS, _SECONDS = 6, 2.0


@dataclass(frozen=True)
class Forecast:
    """A guess of times.

    Attributes:
        changing_s: Of a round in which winners change.
        settled_s: Of a round in which they do not.
        changing: Guessed number of rounds in which they change.
        rounds: All rounds that are left.
    """

    changing_s: float
    settled_s: float
    changing: int
    rounds: int

    @property
    def total_s(self) -> float:
        """Of all that are left."""
        return self.changing * self.changing_s + (self.rounds - self.changing) * self.settled_s


def forecast(asked: Asked, done: int = 0) -> Forecast:
    """Time the parts of a round on this machine, and guess how often each comes.

    How often winners change is a guess from the plasticity, the areas of a chain one after the
    other; so many of them as `_PART` says are taken to change in such a round.

    Args:
        asked: What is to be simulated.
        done: Rounds that are behind.
    """
    changing = asked.rounds
    if asked.beta:
        changing = min(asked.rounds, ceil(1.3 / asked.beta) + 2 * (len(asked.areas) - 1))
    once, settled = _lazy(asked) if asked.tier == "lazy" else _exact(asked, changing)
    return Forecast(once, settled, max(0, changing - done), asked.rounds - done)


def _exact(asked: Asked, changing: int) -> tuple[float, float]:
    once = settled = 0.0
    circuit = asked.circuit
    for index, area in enumerate(circuit.areas):
        rate = _rates(asked, area, index)
        ever = likely_support(circuit, area, asked.rounds)
        first = (ever - asked.k) / changing
        blocks = area.n / rate.block
        # Of each round: edges of rows that come or go, two passes over the counts, and the
        # synapses between those that fire for the first time and all that ever fired.
        looked = (ever + asked.k) * min(first, blocks) + first * min(ever, blocks)
        once += _PART * asked.k * area.n * asked.p / rate.edges + 2 * area.n / rate.bytes
        once += looked / rate.blocks
        # The synapses from the winners, each with its histories, one after the other.
        settled += 2e-8 * asked.k * ever * asked.p + 1e-3
    return once + settled, settled


@dataclass(frozen=True)
class _Rates:
    """Edges, bytes and blocks of edges a second; neurons in a block."""

    edges: float
    bytes: float
    blocks: float
    block: int


def _rates(asked: Asked, area: Area, index: int) -> _Rates:
    """From a slice of the area's own graph: its first neurons, and some of the rows."""
    n = min(area.n, _SLICE)
    tag = index * (len(asked.areas) + 1)
    graph, none = ImpliedGraph(n, asked.p, asked.seed, tag), np.empty(0, np.int64)
    whole = ImpliedGraph(area.n, asked.p, asked.seed, tag)
    counts: Counts = maker(asked)(n, count_type(asked.circuit, area))
    rows = np.arange(max(1, min(asked.k, ceil(_EDGES / (n * asked.p)))))
    sources = np.arange(min(asked.k, _SOURCES))
    targets = np.linspace(0, area.n - 1, min(area.n, _TARGETS)).astype(np.int64)

    def change() -> None:
        counts.clear()
        counts.change([Step(graph, rows, none)])

    added = _timed(change)
    scanned = _timed(lambda: counts.at_least(counts.largest, asked.k))
    looked = _timed(lambda: counts.among(whole, sources, targets))
    pairs = len(sources) * len(np.unique(targets >> whole.block_bits))
    return _Rates(
        len(rows) * n * asked.p / added, counts.nbytes / scanned, pairs / looked,
        2**whole.block_bits,
    )  # fmt: skip


def _timed(work: Callable[[], object]) -> float:
    """Seconds of `work`, the second time: the first one compiles and warms up."""
    work()
    start = time.perf_counter()
    work()
    return max(time.perf_counter() - start, 1e-7)


def _lazy(asked: Asked) -> tuple[float, float]:
    """A round of the run itself, and one of a copy that settles at once."""
    times = [_rounds(asked, beta) for beta in (asked.beta, 1.0)]
    # Every area fires in the last of these rounds, or is as dear as those that did.
    share = len(asked.areas) / min(len(asked.areas), _ROUNDS)
    return max(times[0]) * share, min(times[1]) * share


def _rounds(asked: Asked, beta: float) -> list[float]:
    circuit = asked.circuit
    areas = tuple(Area(a.name, a.n, a.k, beta) for a in circuit.areas)
    brain = LazyBrain(type(circuit)(circuit.p, areas, circuit.stimuli, circuit.fibres), asked.seed)
    found: list[float] = []
    while len(found) < _ROUNDS and sum(found) < _SECONDS:
        start = time.perf_counter()
        brain.fire(asked.inputs(len(found)))
        found.append(time.perf_counter() - start)
    return found[1:] or found
