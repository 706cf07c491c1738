"""The lazy tier: only neurons that fired or nearly did are kept, at a cost that n does not enter.

A neuron that never fired has only weights of 1, so its input is a number of synapses, and it is
like all others that lost the same rounds. So in each round the neurons that reach the cap for
the first time are drawn: numbers of neurons by level from the binomial law of the random graph,
by one multinomial from the top level downwards, without a normal approximation; for each its
synapses, a uniform subset of what fires and each of the other sources with chance p; and it is
kept if these would have lost every earlier round. Neurons that tie with the cap and do not fire
are kept with all their synapses. This is the law of the random graph, with three exceptions:

- The part of all neurons that lost every earlier round enters a level's chance. Its estimate is
  that of this run: neurons left over neurons in all, which is off by about 1/sqrt(n).
- Where more than `unfired.MOST_TIED` neurons, and 8k, tie with the cap, as at small kp,
  those that lose keep their law and not their number.
- Of more than `unfired.MOST_ROUNDS` different rounds, those heard longest ago are forgotten.

Ties at the cap are broken at random among equals, afresh in each round. Weights are integer
exponents of 1 + beta; inputs are sums of whole numbers (`arithmetic.weights`), so that winners
do not depend on the order of summation. Everything runs on one thread.

Loops are compiled by Numba (extra `assemblies`). Without it they run as they are, with the same
winners, far slower.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from justenough.assemblies.arithmetic import weights
from justenough.assemblies.circuit import Area, Circuit, Fibre, Slots, Stimulus
from justenough.assemblies.packed import pack, unpack
from justenough.assemblies.saved import Arrays, unfit, whole, within
from justenough.assemblies.synapses import Ids, Synapses
from justenough.assemblies.unfired import Found, Heard, Unfired
from justenough.errors import InputError

_Exponents = npt.NDArray[np.uint16]


@dataclass
class _AreaState:
    """An area. Slots are neurons that are known, rows those that fired; others are a law.

    `slot` says where a neuron that fired is, `row` which one a slot is, or -1.
    """

    area: Area
    unfired: Unfired
    synapses: Synapses
    winners: Slots = field(default_factory=lambda: np.empty(0, np.int64))
    slot: Slots = field(default_factory=lambda: np.empty(0, np.int64))
    row: Slots = field(default_factory=lambda: np.empty(0, np.int64))
    # For each stimulus heard: its number, its synapses to each slot, and their exponent.
    stimuli: dict[str, tuple[int, Ids, _Exponents]] = field(default_factory=dict)
    # For each area that sends synapses: the source of `synapses` that each of its rows is.
    lines: dict[str, Ids] = field(default_factory=dict)


def _check_neurons(state: _AreaState) -> None:
    """Refuse neurons, of what was saved, that are not numbered as they are by a run."""
    held = vars(state)
    row = within(held, "row", np.int64, (None,))
    slot = within(held, "slot", np.int64, (None,), row.size - 1)
    winners = within(held, "winners", np.int64, (None,), slot.size - 1)
    rows = np.full(row.size, -1)
    rows[slot] = np.arange(slot.size)
    if not np.array_equal(row, rows) or np.unique(slot).size < slot.size:
        raise unfit("neurons are mixed up")
    if (np.diff(winners) <= 0).any():
        raise unfit("a neuron fires twice")


# All that a brain is made of, and that a saved one may hold.
_PARTS = (Area, Circuit, Fibre, Stimulus, Unfired, _AreaState, Synapses)


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
        self._rng = rng = np.random.default_rng(seed)
        self._areas = {
            a.name: _AreaState(a, Unfired(a.n, circuit.p, rng), Synapses(rng))
            for a in circuit.areas
        }
        for fibre in circuit.fibres:
            self._areas[fibre.target].lines[fibre.source] = np.empty(0, np.int32)
        self._stimuli = {s.name: s.k for s in circuit.stimuli}
        self._rounds = 0

    @property
    def circuit(self) -> Circuit:
        """What is simulated."""
        return self._circuit

    @property
    def nbytes(self) -> dict[str, int]:
        """Bytes by what takes them: synapses, neurons that are known, and rounds lost."""
        areas = self._areas.values()
        known = 0
        for state in areas:
            known += state.winners.nbytes + state.slot.nbytes + state.row.nbytes
            known += sum(lines.nbytes for lines in state.lines.values())
            known += sum(a.nbytes + b.nbytes for _, a, b in state.stimuli.values())
        return {
            "synapses": sum(state.synapses.nbytes for state in areas),
            "neurons that fired": known,
            "rounds lost": sum(state.unfired.nbytes for state in areas),
        }

    def saved(self) -> dict[str, npt.NDArray[np.generic]]:
        """All that a run goes on from, by name."""
        return pack(vars(self))

    def restore(self, saved: Arrays) -> None:
        """Become the brain whose `saved` this is; what follows is then bit for bit the same.

        Raises:
            InputError: It is not the state of a brain of this circuit; this one is as it was.
        """
        rng = np.random.default_rng()
        found = unpack(saved, _PARTS, rng)
        if not isinstance(found, dict) or found.keys() != vars(self).keys():
            raise unfit("parts are missing")
        try:
            self._check(found, rng)
        except InputError:
            raise
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as e:
            # A part is of another kind than it should be.
            raise unfit(f"{type(e).__name__}: {e}") from e
        vars(self).update(found)

    def _check(self, found: dict[str, Any], rng: np.random.Generator) -> None:
        """Refuse all that no run of this circuit leaves, since compiled loops check nothing."""
        if found["_circuit"] != self._circuit or found["_stimuli"] != self._stimuli:
            raise unfit("its circuit is another")
        rounds, areas = whole(found, "_rounds", 2**16 - 1), found["_areas"]
        # With an even increment PCG64 may give one number for ever.
        if found["_rng"] is not rng or rng.bit_generator.state["state"]["inc"] % 2 == 0:
            raise unfit("its random generator is none")
        if list(areas) != list(self._areas) or {type(a) for a in areas.values()} != {_AreaState}:
            raise unfit("its areas are others")
        for name, state in areas.items():
            if state.unfired.rng is not rng or state.synapses.rng is not rng:
                raise unfit("it has several random generators")
            if state.area != self._circuit.area(name):
                raise unfit("its circuit is another")
            state.area = self._circuit.area(name)
            _check_neurons(state)
        for name, state in areas.items():
            ever = {f.source: areas[f.source].slot.size for f in self._circuit.fibres
                    if f.target == name}  # fmt: skip
            self._check_sources(state, ever, rounds)
        found |= {"_circuit": self._circuit, "_stimuli": self._stimuli}

    def _check_sources(self, state: _AreaState, ever: Mapping[str, int], rounds: int) -> None:
        known = state.row.size
        state.synapses.check(known, rounds)
        if state.lines.keys() != ever.keys():
            raise unfit("its fibres are others")
        lines = [within(state.lines, source, np.int32, (size,)) for source, size in ever.items()]
        joined = np.sort(np.concatenate([np.empty(0, np.int32), *lines]))
        if not np.array_equal(joined, np.arange(state.synapses.sources)):
            raise unfit("sources of synapses are mixed up")
        sizes = [0] * len(state.stimuli)
        for name, (number, *arrays) in state.stimuli.items():
            size = self._stimuli[name]
            sizes[whole({name: number}, name, len(sizes) - 1)] = size
            counts, exponents = arrays
            within({name: counts}, name, np.int32, (known,), size)
            within({name: exponents}, name, np.uint16, (known,), state.synapses.rounds)
        area, p = state.area, self._circuit.p
        state.unfired.check(area.n, p, known, sizes, state.synapses.sources)

    def winners(self, area: str) -> Slots:
        """Neurons that fired last, sorted."""
        return self._areas[self._circuit.area(area).name].winners.copy()

    def support(self, area: str) -> int:
        """How many neurons ever fired."""
        return self._areas[self._circuit.area(area).name].slot.size

    def activate(self, area: str, winners: Slots) -> None:
        """Make these neurons the last winners; InputError for one that never fired."""
        state = self._areas[self._circuit.area(area).name]
        chosen, ever = np.unique(winners), state.slot.size
        if chosen.size and not (chosen[0] >= 0 and chosen[-1] < ever):
            raise InputError(f"area {area}: give neurons that ever fired, 0 to {ever - 1}")
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
        # Refused before anything is drawn or has grown.
        for target, sources in inputs.items():
            sizes = [self._stimuli.get(s) or self._areas[s].winners.size for s in sources]
            weights(self._areas[target].area.beta, self._rounds, sum(sizes))
        fired = {t: self._target(self._areas[t], s, plastic) for t, s in inputs.items()}
        for target, slots in fired.items():
            self._fired(self._areas[target], slots)
        self._rounds += plastic

    def _target(self, state: _AreaState, sources: Sequence[str], plastic: bool) -> Slots:
        """Slots of the winners."""
        heard = self._heard(state, sources)
        table = weights(state.area.beta, self._rounds, heard.size)
        own = np.zeros(state.row.size, np.int64)
        for source in sources:
            if source in state.stimuli:
                _, counts, exponents = state.stimuli[source]
                own += counts * table[exponents]
        state.synapses.total(heard.lines, table, own)
        slots = self._cap(state, own, heard, int(table[0]))
        if plastic and state.area.beta:
            won = np.zeros(state.row.size, bool)
            won[slots] = True
            state.synapses.grow(heard.lines, won)
            for source in sources:
                if source in state.stimuli:
                    state.stimuli[source][2][slots] += np.uint16(1)
        return slots

    def _heard(self, state: _AreaState, sources: Sequence[str]) -> Heard:
        stimuli = [s for s in sources if s in self._stimuli]
        for name in stimuli:
            if name not in state.stimuli:
                number, slots = state.unfired.new_stimulus(self._stimuli[name]), state.row.size
                counts = self._rng.binomial(self._stimuli[name], self._circuit.p, slots)
                exponents = np.zeros(slots, np.uint16)
                state.stimuli[name] = number, counts.astype(np.int32), exponents
        areas = [s for s in sources if s in self._areas]
        lines = [np.empty(0, np.int32)]
        lines += [state.lines[s][self._areas[s].winners] for s in areas]
        numbers = tuple(state.stimuli[s][0] for s in stimuli)
        return Heard(numbers, tuple(self._stimuli[s] for s in stimuli), np.concatenate(lines))

    def _cap(self, state: _AreaState, own: Slots, heard: Heard, one: int) -> Slots:
        """Slots of the k largest; first-time winners and those that tie with them get slots."""
        k = state.area.k
        # The k-th largest of the neurons known bounds the cap from below: few remain.
        least = int(np.partition(own, -k)[-k]) if own.size >= k else 0
        mine = np.flatnonzero(own >= least)
        found = state.unfired.draw(heard, np.sort(own[mine]) / one, k)
        values = np.concatenate([own[mine], found.level * one])
        cut = int(np.partition(values, -k)[-k])
        drawn = int((found.level == found.bound).sum())
        equal, keep = np.flatnonzero(values == cut), 0.0
        above = np.flatnonzero(values > cut)
        places = k - above.size
        if found.tied > drawn:
            old, new = equal[equal < mine.size], equal[equal >= mine.size]
            # So many tie that each place goes to one of them nearly independently.
            first = int(self._rng.binomial(places, found.tied / (found.tied + old.size)))
            first = max(first, places - old.size)
            keep = 1 - first / found.tied
            tied = np.concatenate([self._some(old, places - first), new[:first]])
            used = np.concatenate([above, tied])
        else:
            tied, used = self._some(equal, places), np.arange(values.size)
        chosen = np.concatenate([above, tied])
        state.unfired.lost(heard, found.bound, keep)
        slot = np.full(values.size, -1)
        slot[: mine.size] = mine
        slot[np.sort(used[used >= mine.size])] = self._admit(state, found, used - mine.size)
        return np.sort(slot[chosen])

    def _some(self, values: Slots, number: int) -> Slots:
        """A uniform subset."""
        some: Slots = self._rng.choice(values, number, replace=False, shuffle=False)
        return some

    def _admit(self, state: _AreaState, found: Found, used: Slots) -> Slots:
        """Give a slot to those of the neurons found that are to be known from now on."""
        used = np.sort(used[used >= 0])
        new = np.arange(state.row.size, state.row.size + used.size)
        state.row = np.append(state.row, np.full(used.size, -1))
        state.unfired.number -= used.size
        for name, (number, counts, exponents) in state.stimuli.items():
            more = np.append(counts, found.stimuli[used, number])
            zeros = np.zeros(used.size, np.uint16)
            state.stimuli[name] = number, more, np.append(exponents, zeros)
        slots = np.full(found.level.size, -1, np.int32)
        slots[used] = new
        targets = np.repeat(slots, found.joined)
        state.synapses.join(found.lines[targets >= 0], targets[targets >= 0])
        return new

    def _fired(self, state: _AreaState, slots: Slots) -> None:
        """Note the winners; those that fire first become sources, of rows nobody has heard."""
        new, ever = slots[state.row[slots] < 0], state.slot.size
        state.row[new] = np.arange(ever, ever + new.size)
        state.slot = np.append(state.slot, new)
        state.winners = np.sort(state.row[slots])
        for target in self._areas.values() if new.size else ():
            if state.area.name in target.lines:
                lines = target.unfired.new_lines(new.size)
                target.lines[state.area.name] = np.append(target.lines[state.area.name], lines)
                target.synapses.new_sources(new.size, target.row.size, self._circuit.p)
