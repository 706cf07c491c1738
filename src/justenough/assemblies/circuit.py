"""What a simulator of the Assembly Calculus is told, and what every tier of it can do.

Papadimitriou, Vempala, Mitropolsky, Collins and Maass, "Brain computation by assemblies of
neurons", PNAS 117 (2020), doi:10.1073/pnas.2001893117: brain areas of n neurons of which the k
with the largest input fire, random synapses with probability p, Hebbian growth by 1+beta.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from justenough.errors import InputError

Slots = npt.NDArray[np.int64]
MOST_NEURONS = 10**10


@dataclass(frozen=True)
class Stimulus:
    """A fixed set of `k` neurons outside every area, which fire all together."""

    name: str
    k: int


@dataclass(frozen=True)
class Area:
    """A brain area: `n` neurons, of which the `k` with the largest input fire.

    `beta` is the plasticity: a synapse whose source fired just before its target is multiplied
    by 1 + beta.
    """

    name: str
    n: int
    k: int
    beta: float


@dataclass(frozen=True)
class Fibre:
    """Random synapses from the area `source` to the area `target`; the same one: recurrent."""

    source: str
    target: str


@dataclass(frozen=True)
class Circuit:
    """Areas, stimuli and fibres; each stimulus reaches every area.

    Args:
        p: Probability of a synapse, above 0 and at most 1.
        areas: At least one.
        stimuli: Sets of neurons that can be made to fire.
        fibres: Connections between areas, and within one.

    Raises:
        InputError: A number out of range, a name used twice, or a fibre to no area.

    >>> Circuit(0.01, (Area("a", 10, 20, 0.1),))
    Traceback (most recent call last):
    ...
    justenough.errors.InputError: area a: k=20 of n=10 neurons cannot fire; give 1 <= k <= n
    """

    p: float
    areas: tuple[Area, ...]
    stimuli: tuple[Stimulus, ...] = ()
    fibres: tuple[Fibre, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.p <= 1:
            raise InputError(f"p={self.p}; give a probability above 0 and at most 1")
        for area in self.areas:
            _check(area)
        for stimulus in self.stimuli:
            if stimulus.k < 1:
                raise InputError(f"stimulus {stimulus.name}: k={stimulus.k}; give at least 1")
        names = [a.name for a in self.areas] + [s.name for s in self.stimuli]
        if len(set(names)) < len(names) or not self.areas:
            raise InputError(f"names {names}; give at least one area, and each name once")
        if not all(name and not set("~+") & set(name) for name in names):
            raise InputError(f"names {names}; give each at least one letter, and no ~ or +")
        known = {a.name for a in self.areas}
        for fibre in self.fibres:
            if not {fibre.source, fibre.target} <= known:
                raise InputError(f"fibre {fibre.source} to {fibre.target}: both must be areas")
        if len(set(self.fibres)) < len(self.fibres):
            raise InputError("a fibre is given twice; give each once")

    def area(self, name: str) -> Area:
        """The area of that name; InputError without one."""
        for area in self.areas:
            if area.name == name:
                return area
        raise InputError(f"no area {name}; there are {[a.name for a in self.areas]}")

    def check(self, inputs: Mapping[str, Sequence[str]]) -> None:
        """Refuse `inputs` (sources of each target area) that this circuit does not have."""
        stimuli = {s.name for s in self.stimuli}
        for target, sources in inputs.items():
            self.area(target)
            if not sources:
                raise InputError(f"area {target}: no sources; give at least one")
            if len(set(sources)) < len(sources):
                raise InputError(f"area {target}: a source is named twice in {list(sources)}")
            for source in sources:
                if source not in stimuli and Fibre(source, target) not in self.fibres:
                    raise InputError(f"area {target} has no input from {source}")


def _check(area: Area) -> None:
    if not 1 <= area.n <= MOST_NEURONS:
        raise InputError(f"area {area.name}: n={area.n}; give 1 to {MOST_NEURONS:.0e} neurons")
    if not 1 <= area.k <= area.n:
        raise InputError(
            f"area {area.name}: k={area.k} of n={area.n} neurons cannot fire; give 1 <= k <= n"
        )
    if not 0 <= area.beta <= 1:
        raise InputError(f"area {area.name}: beta={area.beta}; give 0 to 1")


class Brain(Protocol):
    """What a tier of the simulator does; `operations` needs no more."""

    @property
    def circuit(self) -> Circuit:
        """What is simulated."""

    def fire(self, inputs: Mapping[str, Sequence[str]], plastic: bool = True) -> None:
        """One round: each area in `inputs` fires on the sources named; the others keep still.

        All areas see their sources as they were before the round.
        """

    def winners(self, area: str) -> Slots:
        """Neurons of `area` that fired last, sorted, int64 of shape (k,) or (0,)."""

    def activate(self, area: str, winners: Slots) -> None:
        """Make exactly these neurons, which must have fired before, the last winners."""

    def support(self, area: str) -> int:
        """How many neurons of `area` ever fired."""
