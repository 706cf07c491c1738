"""Operations of the Assembly Calculus on any tier of the simulator, and their measures.

Papadimitriou et al. 2020, doi:10.1073/pnas.2001893117. Sequences: Dabagia, Papadimitriou and
Vempala, "Computation with sequences of assemblies in a model of the brain", 2023.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from justenough.assemblies.circuit import Brain, Slots
from justenough.errors import InputError


@dataclass(frozen=True)
class Trace:
    """Rounds of one area: the winners of each, and how many neurons had ever fired after it."""

    area: str
    winners: tuple[Slots, ...]
    support: tuple[int, ...]

    def stability(self) -> tuple[float, ...]:
        """Overlap of the winners of each round with those of the round before."""
        pairs = zip(self.winners, self.winners[1:], strict=False)
        return tuple(overlap(a, b) for a, b in pairs)

    def settled(self) -> int | None:
        """First round, from 1, after which the winners did not change; None if they still do.

        >>> a, b = np.array([1, 2]), np.array([2, 3])
        >>> Trace("x", (a, b, b), (2, 3, 3)).settled()
        2
        """
        same = [x == 1.0 for x in self.stability()]
        if not same or not same[-1]:
            return None
        return len(same) - next((i for i, s in enumerate(same[::-1]) if not s), len(same)) + 1


def overlap(one: Slots, other: Slots) -> float:
    """Part of the neurons of `one` that are in `other`, 0 to 1.

    Raises:
        InputError: `one` is empty.

    >>> overlap(np.array([1, 2, 3, 4]), np.array([3, 4, 5, 6]))
    0.5
    """
    if not one.size:
        raise InputError("no winners to compare; let the area fire first")
    return float(np.isin(one, other).mean())


class _Recorder:
    def __init__(self, brain: Brain, area: str):
        self.brain, self.area = brain, area
        self.winners: list[Slots] = []
        self.support: list[int] = []

    def note(self) -> None:
        self.winners.append(self.brain.winners(self.area))
        self.support.append(self.brain.support(self.area))

    def trace(self) -> Trace:
        return Trace(self.area, tuple(self.winners), tuple(self.support))


def project(
    brain: Brain, source: str, area: str, rounds: int, plastic: bool = True, recurrent: bool = True
) -> Trace:
    """Fire `area` on a stimulus or on another area's assembly until an assembly forms.

    The first round hears the source alone; later ones, if `recurrent`, the area too.

    Raises:
        InputError: `rounds` is below 1, or the circuit has no such input.
    """
    _check(rounds)
    record = _Recorder(brain, area)
    for _ in range(rounds):
        own = [area] if recurrent and record.winners else []
        brain.fire({area: [source, *own]}, plastic)
        record.note()
    return record.trace()


def reciprocal_project(
    brain: Brain, stimulus: str, area: str, other: str, rounds: int, plastic: bool = True
) -> Trace:
    """Project the assembly of `area`, held by `stimulus`, to `other` and back; trace of `other`.

    Raises:
        InputError: As `project`.
    """
    _check(rounds)
    record = _Recorder(brain, other)
    for _ in range(rounds):
        if record.winners:
            inputs = {area: [stimulus, area, other], other: [area, other]}
        else:
            inputs = {area: [stimulus, area], other: [area]}
        brain.fire(inputs, plastic)
        record.note()
    return record.trace()


def associate(
    brain: Brain, stimuli: tuple[str, str], areas: tuple[str, str], target: str, rounds: int
) -> Trace:
    """Fire two assemblies into `target` together, so that their images there come to overlap.

    Both areas must have fired. The first round does not hear `target` itself, so that neither of
    its two assemblies has the start.

    Raises:
        InputError: As `project`.
    """
    _check(rounds)
    record = _Recorder(brain, target)
    for _ in range(rounds):
        own = {area: [s, area] for s, area in zip(stimuli, areas, strict=True)}
        back = [target] if record.winners else []
        brain.fire({**own, target: [*areas, *back]})
        record.note()
    return record.trace()


def merge(
    brain: Brain, stimuli: tuple[str, str], areas: tuple[str, str], target: str, rounds: int
) -> Trace:
    """Make one assembly in `target` of two, with strong synapses both ways; trace of `target`.

    Raises:
        InputError: As `project`.
    """
    _check(rounds)
    record = _Recorder(brain, target)
    pairs = tuple(zip(stimuli, areas, strict=True))
    brain.fire({area: [s] for s, area in pairs})
    for _ in range(rounds):
        back = [target] if record.winners else []
        own = {area: [s, area, *back] for s, area in pairs}
        brain.fire({**own, target: [*areas, *back]})
        record.note()
    return record.trace()


def complete(
    brain: Brain, area: str, part: float, rounds: int, seed: int = 0, plastic: bool = True
) -> float:
    """Fire a random `part` of the last winners and let the area fire on itself.

    Returns:
        Overlap of the assembly, as it was, with the last round's winners.

    Raises:
        InputError: `part` is not above 0 and at most 1, `rounds` below 1, or no winners yet.
    """
    _check(rounds)
    if not 0 < part <= 1:
        raise InputError(f"part={part}; give more than 0 and at most 1")
    whole = brain.winners(area)
    if not whole.size:
        raise InputError(f"area {area} has no winners yet; let it fire first")
    some = np.random.default_rng(seed).choice(whole, max(1, int(whole.size * part)), replace=False)
    brain.activate(area, np.sort(some))
    for _ in range(rounds):
        brain.fire({area: [area]}, plastic)
    return overlap(whole, brain.winners(area))


def learn_sequence(
    brain: Brain, stimuli: Sequence[str], area: str, repeats: int
) -> tuple[Slots, ...]:
    """Present stimuli one after another, `repeats` times; the last winners for each of them.

    Each presentation is one round that also hears the winners of the stimulus before, so that
    synapses from each assembly to the next one grow; each pass starts from rest.

    Raises:
        InputError: `repeats` is below 1, or no stimuli.
    """
    _check(repeats)
    if not stimuli:
        raise InputError("no stimuli; give at least one")
    found: list[Slots] = []
    for _ in range(repeats):
        found = []
        for stimulus in stimuli:
            brain.fire({area: [stimulus, area] if found else [stimulus]})
            found.append(brain.winners(area))
    return tuple(found)


def recall_sequence(brain: Brain, stimulus: str, area: str, length: int) -> tuple[Slots, ...]:
    """Winners after one presentation of the first stimulus and then of nothing, unchanged weights.

    Raises:
        InputError: `length` is below 1.
    """
    _check(length)
    brain.fire({area: [stimulus]}, plastic=False)
    found = [brain.winners(area)]
    for _ in range(length - 1):
        brain.fire({area: [area]}, plastic=False)
        found.append(brain.winners(area))
    return tuple(found)


def _check(rounds: int) -> None:
    if rounds < 1:
        raise InputError(f"{rounds} rounds; give at least 1")
