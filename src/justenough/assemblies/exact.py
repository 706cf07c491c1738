"""The exact tier: every neuron of a random graph that a seed implies, and no stored edge.

A neuron that never fired has only weights of 1, so its input is a number of synapses, one byte
each for the area: `counts`, changed by the rows of the neurons that start or stop firing. Neurons
that ever fired are few; their inputs are sums of weights, from the synapses among them
(`learned`). The k-th largest of these is a bound that never-fired winners have to reach, so
that one pass over the counts finds them all, and none is made while the counts are what they
were and the bound has not fallen.

Ties at the cap are broken by a random number of the round, the area and the neuron, afresh in
each round; or, with `ties="lowest"`, the smaller number of the neuron wins.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from justenough.assemblies.arithmetic import Arithmetic, Heard, WholeNumbers
from justenough.assemblies.circuit import Area, Circuit
from justenough.assemblies.counts import Counts, HostCounts, Ids, Step
from justenough.assemblies.free import free_bytes
from justenough.assemblies.graph import ImpliedGraph
from justenough.assemblies.learned import Learned
from justenough.assemblies.saved import Arrays, unfit, within
from justenough.errors import InputError
from justenough.stats.counter import mixed

Ties = Literal["random", "lowest"]
# So many neurons are looked at one by one; more of them at the cap means that most hear nothing.
_FEW, MOST_TIED = 1 << 16, 1 << 24
_ROWS = 256


@dataclass
class _AreaState:
    area: Area
    index: int
    counts: Counts
    ids: Ids = field(default_factory=lambda: np.empty(0, np.int64))
    winners: Ids = field(default_factory=lambda: np.empty(0, np.int64))
    # Whose rows are in the counts, by source; None after a change that was broken off.
    rows: dict[str, Ids] | None = field(default_factory=dict)
    # Bound of the last pass over the counts, the neurons at or above it, and their counts.
    reached: tuple[int, Ids, Ids] | None = None
    # For each stimulus heard: synapses to each neuron that ever fired, and their exponent.
    stimuli: dict[str, tuple[Ids, Ids]] = field(default_factory=dict)

    def slots(self, ids: Ids) -> Ids:
        """Slots of neurons that ever fired; -1 for one that did not."""
        order = np.argsort(self.ids)
        place = np.searchsorted(self.ids, ids, sorter=order)
        found = order[np.minimum(place, len(order) - 1)] if len(order) else np.zeros_like(ids)
        known = self.ids[found] == ids if len(order) else np.zeros(len(ids), bool)
        return np.where(known, found, -1)


class ExactBrain:
    """A circuit on the random graph that `seed` implies, simulated without approximation.

    Neurons are numbered 0 to n - 1.

    Args:
        circuit: What is simulated; p below 1.
        seed: Of the graph, 0 to 2^64 - 1; ties at the cap are broken by it as well.
        ties: Who wins among equals.
        threads: How many; without it, the cores that this process may use.
        make: Where counts live: called with n and a type; `cuda.CudaCounts` for a graphics card.
        arithmetic: Of the inputs.

    Raises:
        InputError: p = 1, a seed out of range, or too little memory for counts on this machine.

    >>> from justenough.assemblies.circuit import Area, Circuit, Fibre, Stimulus
    >>> a, s = Area("a", 10_000, 50, 0.1), Stimulus("s", 50)
    >>> brain = ExactBrain(Circuit(0.1, (a,), (s,), (Fibre("a", "a"),)), seed=1)
    >>> brain.fire({"a": ["s"]})
    >>> brain.fire({"a": ["s", "a"]})
    >>> brain.winners("a").size
    50
    """

    def __init__(
        self,
        circuit: Circuit,
        seed: int = 0,
        ties: Ties = "random",
        threads: int | None = None,
        make: Callable[[int, Any], Counts] | None = None,
        arithmetic: Arithmetic | None = None,
    ):
        if make is None:
            _check_memory(circuit)
        self._circuit, self._seed, self._ties = circuit, seed, ties
        self._on_host = make is None
        self._make = make or (lambda n, kind: HostCounts(n, kind, threads))
        self.arithmetic = arithmetic or WholeNumbers(threads)
        self._stimuli = {s.name: s.k for s in circuit.stimuli}
        names = [*self._stimuli, *(a.name for a in circuit.areas)]
        self._graphs = {
            (source, area.name): ImpliedGraph(area.n, circuit.p, seed, t * len(names) + s)
            for t, area in enumerate(circuit.areas)
            for s, source in enumerate(names)
        }
        self._areas = {
            a.name: _AreaState(a, t, self._make(a.n, count_type(circuit, a)))
            for t, a in enumerate(circuit.areas)
        }
        self._learned = {
            (f.source, f.target): Learned(self._graphs[f.source, f.target]) for f in circuit.fibres
        }
        self._fired = self._rounds = 0
        self._whole = True

    @property
    def circuit(self) -> Circuit:
        """What is simulated."""
        return self._circuit

    @property
    def nbytes(self) -> dict[str, int]:
        """Bytes by what takes them: counts, synapses, neurons that ever fired."""
        areas = self._areas.values()
        return {
            "counts": sum(state.counts.nbytes for state in areas),
            "synapses": sum(learned.nbytes for learned in self._learned.values()),
            "neurons that fired": sum(
                state.ids.nbytes + sum(a.nbytes + b.nbytes for a, b in state.stimuli.values())
                for state in areas
            ),
        }

    @property
    def synapses(self) -> int:
        """Number of synapses on neurons that ever fired, from stimuli and from such neurons."""
        from_stimuli = (c for s in self._areas.values() for c, _ in s.stimuli.values())
        among = sum(int(np.bitwise_count(f.edges).sum()) for f in self._learned.values())
        return among + sum(int(counts.sum()) for counts in from_stimuli)

    def winners(self, area: str) -> Ids:
        """Neurons that fired last, sorted."""
        state = self._areas[self._circuit.area(area).name]
        return np.sort(state.ids[state.winners])

    def support(self, area: str) -> int:
        """How many neurons ever fired."""
        return len(self._areas[self._circuit.area(area).name].ids)

    def activate(self, area: str, winners: Ids) -> None:
        """Make these neurons the last winners; InputError for one that never fired."""
        state = self._areas[self._circuit.area(area).name]
        slots = state.slots(np.unique(np.asarray(winners, np.int64)))
        if (slots < 0).any():
            raise InputError(f"area {area}: {int((slots < 0).sum())} of these never fired")
        state.winners = np.sort(slots)

    def saved(self) -> dict[str, NDArray[Any]]:
        """All that a run goes on from, by name; counts are not in it, the graph gives them again.

        Raises:
            InputError: A round was broken off half done.
        """
        self._check_whole()
        found = {"clock": np.array([self._fired, self._rounds])}
        for name, state in self._areas.items():
            found |= {f"{name}~ids": state.ids, f"{name}~winners": state.winners}
            for stimulus, (counts, exponents) in state.stimuli.items():
                found[f"{name}~{stimulus}~counts"] = counts
                found[f"{name}~{stimulus}~exponents"] = exponents
        for (source, target), learned in self._learned.items():
            found |= learned.saved(f"{source}~{target}")
        return found

    def restore(self, saved: Arrays) -> None:
        """Become the brain whose `saved` this is; what follows is then bit for bit the same.

        Threads, `make` and `arithmetic` may differ. The first round makes the counts again.

        Raises:
            InputError: It is not the state of a brain of this circuit, of which nothing is left.
        """
        self._whole = False
        clock = within(saved, "clock", np.int64, (2,), 2**62)
        self._fired, self._rounds = (int(value) for value in clock)
        for name, state in self._areas.items():
            state.ids = within(saved, f"{name}~ids", np.int64, (None,), state.area.n - 1)
            ever = len(state.ids)
            state.winners = within(saved, f"{name}~winners", np.int64, (None,), ever - 1)
            if len(np.unique(state.ids)) < ever or (np.diff(state.winners) <= 0).any():
                raise unfit(f"area {name} has a neuron twice")
            state.rows = state.reached = None
            state.stimuli = {
                stimulus: (
                    within(saved, f"{name}~{stimulus}~counts", np.int64, (ever,), k),
                    within(saved, f"{name}~{stimulus}~exponents", np.int64, (ever,), clock[1]),
                )
                for stimulus, k in self._stimuli.items()
                if f"{name}~{stimulus}~counts" in saved
            }
        for (source, target), learned in self._learned.items():
            shape = len(self._areas[source].ids), len(self._areas[target].ids)
            learned.restore(saved, f"{source}~{target}", shape, self._rounds)
        self._whole = True

    def fire(self, inputs: Mapping[str, Sequence[str]], plastic: bool = True) -> None:
        """One round: each area in `inputs` fires on the sources named.

        Raises:
            InputError: A source that the circuit lacks, an area that never fired named as a
                source, weights that outgrow 64 bits, or counts that outgrow 16.
        """
        chosen = self._chosen(inputs, self.arithmetic)
        self._whole = False
        before = {name: state.winners for name, state in self._areas.items()}
        for target, (slots, new) in chosen.items():
            state = self._areas[target]
            first = len(state.ids)
            state.ids = np.concatenate([state.ids, new])
            state.winners = np.concatenate([slots, np.arange(first, len(state.ids))])
        for (source, target), learned in self._learned.items():
            if source in chosen or target in chosen:
                state = self._areas[target]
                learned.extend(state.counts, self._areas[source].ids, state.ids)
        for target, sources in inputs.items():
            self._know(self._areas[target])
            if plastic and self._areas[target].area.beta:
                self._grow(target, sources, before)
        self._fired += 1
        self._rounds += plastic
        self._whole = True

    def would_win(
        self, inputs: Mapping[str, Sequence[str]], arithmetic: Arithmetic
    ) -> dict[str, Ids]:
        """Who would win this round in another arithmetic, from the state as it is; ids, sorted.

        Raises:
            InputError: As `fire`.
        """
        return {
            target: np.sort(np.concatenate([self._areas[target].ids[slots], new]))
            for target, (slots, new) in self._chosen(inputs, arithmetic).items()
        }

    def _check_whole(self) -> None:
        if not self._whole:
            raise InputError("a round was broken off half done; go on from a checkpoint")

    def _chosen(
        self, inputs: Mapping[str, Sequence[str]], arithmetic: Arithmetic
    ) -> dict[str, tuple[Ids, Ids]]:
        """Winners of each target: slots of those that fired before, ids of those that did not."""
        self._check_whole()
        self._circuit.check(inputs)
        for sources in inputs.values():
            for source in sources:
                if source in self._areas and not self._areas[source].winners.size:
                    raise InputError(f"area {source} has no winners yet; let it fire first")
        found = {}
        for target, sources in inputs.items():
            state = self._areas[target]
            self._listen(state, sources)
            heard = self._heard(state, sources)
            found[target] = self._cap(state, arithmetic, heard)
        return found

    def _listen(self, state: _AreaState, sources: Sequence[str]) -> None:
        """Bring the counts to the rows of what fires now."""
        wanted = {
            s: np.arange(self._stimuli[s]) if s in self._stimuli else self.winners(s)
            for s in sources
        }
        none = np.empty(0, np.int64)
        have = state.rows or {}
        if have.keys() == wanted.keys() and all(
            np.array_equal(have[s], rows) for s, rows in wanted.items()
        ):
            return
        steps = [
            Step(
                self._graphs[s, state.area.name],
                np.setdiff1d(wanted.get(s, none), have.get(s, none), assume_unique=True),
                np.setdiff1d(have.get(s, none), wanted.get(s, none), assume_unique=True),
            )
            for s in sorted({*wanted, *have})
        ]
        changed = sum(len(step.added) + len(step.removed) for step in steps)
        anew = state.rows is None or changed > sum(map(len, wanted.values()))
        state.rows = state.reached = None
        if anew:
            steps = [Step(self._graphs[s, state.area.name], w, none) for s, w in wanted.items()]
            state.counts.clear()
        try:
            state.counts.change(steps)
        except InputError:
            if state.counts.largest > 255:
                raise
            more, free = state.counts.nbytes, free_bytes()
            if self._on_host and more > free:
                raise InputError(
                    f"counts of area {state.area.name} outgrow a byte, and two take "
                    f"{more / 1e9:,.1f} GB more where {free / 1e9:,.1f} GB are free; give a "
                    "smaller p or k, or use LazyBrain (the lazy tier)"
                ) from None
            # The old counts go first: there may be no room for both.
            state.counts = self._make(1, np.uint8)
            state.counts = self._make(state.area.n, np.uint16)
            state.counts.change(
                [Step(self._graphs[s, state.area.name], w, none) for s, w in wanted.items()]
            )
        state.rows = wanted

    def _heard(self, state: _AreaState, sources: Sequence[str]) -> Heard:
        areas = [s for s in sources if s in self._areas]
        stimuli = [s for s in sources if s in self._stimuli]
        for stimulus in stimuli:
            state.stimuli.setdefault(stimulus, (state.ids[:0], state.ids[:0]))
        self._know(state)
        terms = sum(self._stimuli[s] for s in stimuli)
        return Heard(
            state.area.beta,
            len(state.ids),
            self._rounds,
            terms + sum(self._areas[s].winners.size for s in areas),
            tuple(state.stimuli[s] for s in stimuli),
            tuple((self._learned[s, state.area.name], self._areas[s].winners) for s in areas),
        )

    def _know(self, state: _AreaState) -> None:
        """Count the synapses of each stimulus heard with neurons that it did not know yet."""
        for stimulus, (counts, exponents) in state.stimuli.items():
            new = state.ids[len(counts) :]
            if not new.size:
                continue
            graph = self._graphs[stimulus, state.area.name]
            more = np.zeros(-(-len(new) // 64) * 64, np.int64)
            for begin in range(0, self._stimuli[stimulus], _ROWS):
                rows = np.arange(begin, min(begin + _ROWS, self._stimuli[stimulus]))
                found = state.counts.among(graph, rows, new)
                bits = np.unpackbits(found.view(np.uint8), axis=1, bitorder="little")
                more += bits.sum(0, dtype=np.int64)
            zeros = np.zeros(len(new), np.int64)
            state.stimuli[stimulus] = (
                np.concatenate([counts, more[: len(new)]]),
                np.concatenate([exponents, zeros]),
            )

    def _cap(self, state: _AreaState, arithmetic: Arithmetic, heard: Heard) -> tuple[Ids, Ids]:
        """The k with the largest inputs: slots of old winners, ids of first-time winners."""
        k = state.area.k
        own = arithmetic.inputs(heard)
        levels = arithmetic.unweighted(np.arange(state.counts.largest + 1), heard)
        bound = 0
        if own.size >= k:
            least = np.partition(own, -k)[-k]
            bound = int(np.searchsorted(levels, least))
            mine = np.flatnonzero(own >= least)
        else:
            mine = np.arange(own.size)
        fresh, counts = self._fresh(state, bound, own.size >= k)
        values = np.concatenate([own[mine], levels[counts]])
        cut = np.partition(values, -k)[-k]
        above, equal = np.flatnonzero(values > cut), np.flatnonzero(values == cut)
        names = np.concatenate([state.ids[mine], fresh])
        first = np.argsort(self._priority(state, names[equal]))[: k - len(above)]
        won = np.concatenate([above, equal[first]])
        return np.sort(mine[won[won < mine.size]]), np.sort(
            fresh[won[won >= mine.size] - mine.size]
        )

    def _fresh(self, state: _AreaState, bound: int, bounded: bool) -> tuple[Ids, Ids]:
        """Neurons that never fired and might win, and their counts, all of `bound` or more."""
        if state.reached is None or not bounded or bound < state.reached[0]:
            bound, found = self._pass(state, bound, bounded)
            state.reached = bound, found, state.counts.take(found)
        _, found, counts = state.reached
        # Mostly the bound has risen above all of them since.
        might = np.flatnonzero(counts >= bound)
        might = might[~np.isin(found[might], state.ids)] if might.size else might
        return found[might], counts[might]

    def _pass(self, state: _AreaState, bound: int, bounded: bool) -> tuple[int, Ids]:
        """One pass over the counts, or three where the bound says little."""
        area, counts = state.area, state.counts
        if bounded and bound > counts.largest:
            return bound, np.empty(0, np.int64)
        found = counts.at_least(bound, max(_FEW, 64 * area.k)) if bounded else None
        if found is None:
            # So many of the highest counts that k of them have never fired.
            reach = np.cumsum(counts.histogram()[::-1])
            enough = min(area.k + len(state.ids), area.n)
            bound = max(bound, len(reach) - 1 - int(np.searchsorted(reach, enough)))
            found = counts.at_least(bound, MOST_TIED)
        if found is None:
            raise InputError(
                f"area {area.name}: more than {MOST_TIED} neurons tie for a place, with "
                f"{bound} synapses each; give a larger p or k"
            )
        return bound, found

    def _priority(self, state: _AreaState, ids: Ids) -> NDArray[Any]:
        """An order among equals: smaller wins; no two neurons have the same."""
        if self._ties == "lowest":
            return ids
        start = np.array([self._seed, self._fired, state.index], np.uint64).view(np.int64)
        key = mixed(start[2:] + mixed(start[1:2] + mixed(start[:1])))
        order: Ids = mixed(mixed(ids + key))
        return order

    def _grow(self, target: str, sources: Sequence[str], before: Mapping[str, Ids]) -> None:
        state = self._areas[target]
        for source in sources:
            if source in self._stimuli:
                state.stimuli[source][1][state.winners] += 1
            else:
                self._learned[source, target].grow(before[source], state.winners)


def _check_memory(circuit: Circuit) -> None:
    """Refuse counts that do not fit: a system that promises them would end the process later."""
    needed = sum(a.n * np.dtype(count_type(circuit, a)).itemsize for a in circuit.areas)
    free = free_bytes()
    if needed > free:
        raise InputError(
            f"counts of {sum(a.n for a in circuit.areas):,} neurons take {needed / 1e9:,.1f} GB, "
            f"and {free / 1e9:,.1f} GB are free; give fewer neurons, or use LazyBrain (the lazy "
            "tier), whose cost does not depend on their number"
        )


def count_type(circuit: Circuit, area: Area) -> Any:
    """uint8 where a count above 255 is as good as impossible, uint16 elsewhere.

    Should a count leave uint8 all the same, it is widened.

    >>> count_type(Circuit(0.01, (Area("a", 10**9, 1000, 0.1),)), Area("a", 10**9, 1000, 0.1))
    <class 'numpy.uint8'>
    """
    fed = {f.source for f in circuit.fibres if f.target == area.name}
    rows = sum(a.k for a in circuit.areas if a.name in fed) + sum(s.k for s in circuit.stimuli)
    mean = rows * circuit.p
    # A binomial or Poisson count exceeds its mean by 10 standard deviations and 30 almost never.
    return np.uint8 if mean + 10 * mean**0.5 + 30 < 255 else np.uint16
