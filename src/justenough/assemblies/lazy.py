"""The lazy tier: only neurons that ever fired are kept, so that cost does not depend on n.

What is exact. A neuron that never fired has only weights of 1, so its input is a number of
synapses. The number from a stimulus is drawn once, Binomial(k, p), and stays. The number from
an area's last winners changes only by rows that leave or enter: new sources bring a binomial
number, and losers at the cap, with their counts, are there again in the next round. Numbers of
neurons are integers drawn by conditional binomials from the top count downwards; no normal
approximation is made. The synapses of a first-time winner are a uniform subset, of the size of
its count, of the rows counted.

What is approximate. Given its counts, a never-fired neuron is taken to be joined to any subset
of the last winners, and any subset of the other neurons that ever fired, with equal chance.
That is the law of the random graph without the knowledge that the neuron lost each earlier
round; the exact law would need a count for each firing history among the sources. It is
exact for a stimulus and in the first two rounds of an area; once winners no longer change,
nothing is drawn.
If counts fall in more than `unfired.MOST_CLASSES` classes, those of the source heard least
recently are given up, and drawn afresh when it is heard again.

Ties at the cap are broken at random among equals, afresh in each round. Weights are integer
exponents of 1 + beta; inputs are sums of fixed-point integers with `FRACTION_BITS` binary
places, so that winners do not depend on the order of summation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from justenough.assemblies.circuit import Area, Circuit, Fibre, Slots, Stimulus
from justenough.assemblies.packed import pack, unpack
from justenough.assemblies.saved import Arrays, unfit
from justenough.assemblies.unfired import Unfired, _Rows
from justenough.errors import InputError

FRACTION_BITS = 20
_Exponents = npt.NDArray[np.uint16]


def weights(beta: float, largest: int, terms: int) -> Slots:
    """Fixed-point weights (1+beta)^m for m = 0 to `largest`, int64.

    Raises:
        InputError: A sum of `terms` of them would not fit in 64 bits.

    >>> weights(1.0, 2, 10) / 2**FRACTION_BITS
    array([1., 2., 4.])
    """
    top = float(largest) * float(np.log2(1 + beta)) + float(np.log2(max(terms, 1)))
    if top + FRACTION_BITS >= 62 or largest >= 2**16 - 1:
        raise InputError(
            f"weights of (1+{beta})^{largest} do not fit in 64 bits; give fewer plastic rounds "
            "or a smaller beta"
        )
    table: Slots = np.rint((1 + beta) ** np.arange(largest + 1.0) * 2**FRACTION_BITS).astype(
        np.int64
    )
    return table


@dataclass
class _Synapses:
    """Synapses between neurons that ever fired: three columns that grow by doubling."""

    source: npt.NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    target: npt.NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    exponent: _Exponents = field(default_factory=lambda: np.empty(0, np.uint16))
    used: int = 0
    # Of the last look-up: synapses there were, sources that fired, and what was found.
    known: tuple[int, Slots, Slots] = (0, np.empty(0, np.int64), np.empty(0, np.int64))

    def add(self, source: Slots, target: Slots) -> None:
        end = self.used + source.size
        if end > self.source.size:
            room = 2 * end
            for name in ("source", "target", "exponent"):
                old = getattr(self, name)
                new = np.zeros(room, old.dtype)
                new[: self.used] = old[: self.used]
                setattr(self, name, new)
        self.source[self.used : end], self.target[self.used : end] = source, target
        self.used = end

    def heard(self, winners: Slots, ever: int) -> Slots:
        """Positions of the synapses from `winners`, of `ever` sources; kept while they hold."""
        used, last, at = self.known
        if used != self.used or not np.array_equal(last, winners):
            active = np.zeros(ever, bool)
            active[winners] = True
            at = np.flatnonzero(active[self.source[: self.used]])
            self.known = self.used, winners, at
        return at


@dataclass
class _AreaState:
    area: Area
    unfired: Unfired
    winners: Slots = field(default_factory=lambda: np.empty(0, np.int64))
    ever: int = 0
    # For each stimulus heard: its synapses to each neuron that ever fired, and their exponent.
    stimuli: dict[str, tuple[Slots, _Exponents]] = field(default_factory=dict)


# All that a brain is made of, and that a saved one may hold.
_PARTS = (Area, Circuit, Fibre, Stimulus, Unfired, _Rows, _AreaState, _Synapses)


class LazyBrain:
    """A circuit simulated at a cost that does not depend on the number of neurons.

    Neurons of an area are numbered in the order in which they first fire.

    Args:
        circuit: What is simulated.
        seed: The same seed gives the same winners.

    >>> from justenough.assemblies.circuit import Area, Circuit, Fibre, Stimulus
    >>> a, s = Area("a", 10**9, 50, 0.1), Stimulus("s", 50)
    >>> brain = LazyBrain(Circuit(0.1, (a,), (s,), (Fibre("a", "a"),)), seed=1)
    >>> brain.fire({"a": ["s"]})
    >>> brain.fire({"a": ["s", "a"]})
    >>> brain.winners("a").size
    50
    """

    def __init__(self, circuit: Circuit, seed: int = 0):
        self._circuit = circuit
        self._rng = np.random.default_rng(seed)
        self._areas = {
            a.name: _AreaState(a, Unfired(a.n, circuit.p, self._rng)) for a in circuit.areas
        }
        self._synapses = {(f.source, f.target): _Synapses() for f in circuit.fibres}
        self._stimuli = {s.name: s.k for s in circuit.stimuli}
        self._rounds = 0

    @property
    def circuit(self) -> Circuit:
        """What is simulated."""
        return self._circuit

    @property
    def nbytes(self) -> dict[str, int]:
        """Bytes by what takes them: synapses, neurons that ever fired, classes of the others."""
        areas, fibres = self._areas.values(), self._synapses.values()
        return {
            "synapses": sum(s.source.nbytes + s.target.nbytes + s.exponent.nbytes for s in fibres),
            "neurons that fired": sum(
                a.nbytes + b.nbytes for state in areas for a, b in state.stimuli.values()
            ),
            "classes": sum(a.unfired.table.nbytes + a.unfired.number.nbytes for a in areas),
        }

    def saved(self) -> dict[str, npt.NDArray[np.generic]]:
        """All that a run goes on from, by name."""
        return pack(vars(self))

    def restore(self, saved: Arrays) -> None:
        """Become the brain whose `saved` this is; what follows is then bit for bit the same.

        Raises:
            InputError: It is not the state of a brain of this circuit.
        """
        found = unpack(saved, _PARTS, self._rng)
        if not isinstance(found, dict) or found.keys() != vars(self).keys():
            raise unfit("parts are missing")
        if found["_circuit"] != self._circuit:
            raise unfit("its circuit is another")
        vars(self).update(found)

    def winners(self, area: str) -> Slots:
        """Neurons that fired last, sorted."""
        return self._areas[self._circuit.area(area).name].winners.copy()

    def support(self, area: str) -> int:
        """How many neurons ever fired."""
        return self._areas[self._circuit.area(area).name].ever

    def activate(self, area: str, winners: Slots) -> None:
        """Make these neurons the last winners; InputError for one that never fired."""
        state = self._areas[self._circuit.area(area).name]
        chosen = np.unique(winners)
        if chosen.size and not (chosen[0] >= 0 and chosen[-1] < state.ever):
            raise InputError(f"area {area}: give neurons that ever fired, 0 to {state.ever - 1}")
        state.winners = chosen.astype(np.int64)

    def fire(self, inputs: Mapping[str, Sequence[str]], plastic: bool = True) -> None:
        """One round: each area in `inputs` fires on the sources named.

        Raises:
            InputError: A source that the circuit lacks, an area that never fired named as a
                source, or weights that outgrow 64 bits.
        """
        self._circuit.check(inputs)
        for sources in inputs.values():
            for source in sources:
                if source in self._areas and not self._areas[source].winners.size:
                    raise InputError(f"area {source} has no winners yet; let it fire first")
        before = {name: state.ever for name, state in self._areas.items()}
        fired = {t: self._target(t, s, plastic, before) for t, s in inputs.items()}
        for target, winners in fired.items():
            self._areas[target].winners = winners
        for source in inputs:
            self._new_sources(source, before)
        self._rounds += plastic

    def _target(
        self, target: str, sources: Sequence[str], plastic: bool, before: dict[str, int]
    ) -> Slots:
        state = self._areas[target]
        for source in sources:
            if source in self._stimuli:
                self._hear_stimulus(state, source)
            else:
                winners = self._areas[source].winners
                state.unfired.hear_area(source, winners, before[source])
            state.unfired.forget(sources)
        heard = self._heard(target, sources)
        terms = sum(self._stimuli.get(s, 0) or self._areas[s].winners.size for s in sources)
        table = weights(state.area.beta, self._rounds, terms)
        old, classes = self._cap(state, self._inputs(state, sources, heard, table), sources)
        new = self._admit(state, classes, before)
        winners = np.sort(np.concatenate([old, new]))
        if plastic and state.area.beta:
            self._grow(state, sources, winners)
        return winners

    def _hear_stimulus(self, state: _AreaState, name: str) -> None:
        k = self._stimuli[name]
        state.unfired.hear_stimulus(name, k)
        if name not in state.stimuli:
            counts = self._rng.binomial(k, self._circuit.p, state.ever)
            state.stimuli[name] = counts, np.zeros(state.ever, np.uint16)

    def _heard(self, target: str, sources: Sequence[str]) -> dict[str, Slots]:
        found = {}
        for source in sources:
            if source in self._areas:
                state = self._areas[source]
                found[source] = self._synapses[source, target].heard(state.winners, state.ever)
        return found

    def _inputs(
        self, state: _AreaState, sources: Sequence[str], heard: dict[str, Slots], table: Slots
    ) -> Slots:
        """Fixed-point input of each neuron that ever fired, int64 of shape (ever,)."""
        total = np.zeros(state.ever, np.int64)
        for source in sources:
            if source in self._stimuli:
                counts, exponents = state.stimuli[source]
                total += counts * table[exponents]
            else:
                s, at = self._synapses[source, state.area.name], heard[source]
                np.add.at(total, s.target[at], table[s.exponent[at]])
        return total

    def _cap(self, state: _AreaState, own: Slots, sources: Sequence[str]) -> tuple[Slots, Slots]:
        """The k largest: neurons that fired before, and a class for each first-time winner."""
        k, unfired = state.area.k, state.unfired
        level = unfired.level(sources) << FRACTION_BITS
        # The k-th largest of those that fired before bounds the cap from below: few remain.
        least = int(np.partition(own, -k)[-k]) if own.size >= k else 0
        mine, classes = np.flatnonzero(own >= least), np.flatnonzero(level >= least)
        values = np.concatenate([own[mine], level[classes]])
        number = np.concatenate([np.ones(mine.size, np.int64), unfired.number[classes]])
        order = np.argsort(-values, kind="stable")
        cut = values[order[np.searchsorted(np.cumsum(number[order]), k)]]
        above, equal = np.flatnonzero(values > cut), np.flatnonzero(values == cut)
        places = k - int(number[above].sum())
        ends = np.cumsum(number[equal])
        drawn = self._rng.choice(int(ends[-1]), places, replace=False, shuffle=False)
        tied = equal[np.searchsorted(ends, drawn, "right")]
        chosen = np.concatenate([np.repeat(above, number[above]), tied])
        first = chosen >= mine.size
        return mine[chosen[~first]], classes[chosen[first] - mine.size]

    def _admit(self, state: _AreaState, classes: Slots, before: dict[str, int]) -> Slots:
        """Make first-time winners of never-fired neurons, with synapses from what fired."""
        unfired, name = state.unfired, state.area.name
        counts = unfired.take(classes)
        new = np.arange(state.ever, state.ever + classes.size)
        state.ever += classes.size
        for stimulus, (old, exponents) in state.stimuli.items():
            if stimulus in unfired.columns:
                more = counts[:, unfired.columns.index(stimulus)].astype(np.int64)
            else:
                more = self._rng.binomial(self._stimuli[stimulus], self._circuit.p, new.size)
            zeros = np.zeros(new.size, np.uint16)
            state.stimuli[stimulus] = np.append(old, more), np.append(exponents, zeros)
        for (source, target), synapses in self._synapses.items():
            if target == name and new.size:
                for pool, number in self._pools(unfired, source, counts, before[source]):
                    synapses.add(*self._subsets(pool, number, new))
        return new

    def _pools(
        self, unfired: Unfired, source: str, counts: npt.NDArray[np.int32], ever: int
    ) -> list[tuple[Slots, Slots]]:
        """Source neurons, and how many of them each first-time winner hears."""
        rows, columns, p = unfired.rows.get(source), unfired.columns, self._circuit.p
        seen = rows.seen if rows else np.empty(0, np.int64)
        known = rows.known if rows else 0
        rest = np.setdiff1d(np.arange(known), seen)
        late = np.arange(known, ever)
        pools = []
        for pool, column in ((seen, source), (rest, source + "~"), (late, "")):
            if column in columns:
                number = counts[:, columns.index(column)].astype(np.int64)
            else:
                number = self._rng.binomial(pool.size, p, len(counts))
            pools.append((pool, number))
        return pools

    def _subsets(self, pool: Slots, number: Slots, new: Slots) -> tuple[Slots, Slots]:
        """A uniform subset of `pool` of each size in `number`; sources and targets."""
        picked = [
            pool[self._rng.choice(pool.size, int(m), replace=False, shuffle=False)]
            for m in number
            if m
        ]
        return np.concatenate([np.empty(0, np.int64), *picked]), np.repeat(new, number)

    def _new_sources(self, source: str, before: dict[str, int]) -> None:
        """Synapses from first-time winners: rows that nobody has heard, drawn as they are."""
        new = np.arange(before[source], self._areas[source].ever)
        for (start, target), synapses in self._synapses.items():
            ever = self._areas[target].ever
            if start == source and new.size and ever:
                number = self._rng.binomial(ever, self._circuit.p, new.size)
                targets, sources = self._subsets(np.arange(ever), number, new)
                synapses.add(sources, targets)

    def _grow(self, state: _AreaState, sources: Sequence[str], winners: Slots) -> None:
        """Hebbian growth: synapses from what fired to the winners gain one exponent."""
        won = np.zeros(state.ever, bool)
        won[winners] = True
        for source, at in self._heard(state.area.name, sources).items():
            synapses = self._synapses[source, state.area.name]
            synapses.exponent[at[won[synapses.target[at]]]] += np.uint16(1)
        for source in sources:
            if source in state.stimuli:
                state.stimuli[source][1][winners] += np.uint16(1)
