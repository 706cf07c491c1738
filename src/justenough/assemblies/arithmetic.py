"""How the inputs of neurons are added up: whole numbers, which every machine adds alike."""

from dataclasses import dataclass
from decimal import Decimal, localcontext
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from justenough.assemblies.counts import Ids
from justenough.assemblies.learned import Learned
from justenough.errors import InputError

PLACES = 9
_ROOM = 62
_DIGITS = 60


@dataclass(frozen=True)
class Heard:
    """What the neurons of an area that ever fired hear in one round.

    Attributes:
        beta: Plasticity of the area.
        ever: How many they are.
        rounds: Plastic rounds so far: no exponent is larger.
        terms: How many synapses a neuron may have from all that fires, at most.
        stimuli: For each stimulus: synapses to each neuron, and their exponent; int64 (ever,).
        fibres: For each area that fires: its synapses, and which of their sources fire.
    """

    beta: float
    ever: int
    rounds: int
    terms: int
    stimuli: tuple[tuple[Ids, Ids], ...]
    fibres: tuple[tuple[Learned, Ids], ...]


class Arithmetic(Protocol):
    """Inputs of neurons, in numbers of some kind that can be compared."""

    def inputs(self, heard: Heard) -> NDArray[Any]:
        """Input of each neuron that ever fired, (ever,)."""

    def unweighted(self, counts: Ids, heard: Heard) -> NDArray[Any]:
        """Inputs of neurons that never fired, by their numbers of synapses; never decreasing."""


@dataclass(frozen=True)
class WholeNumbers:
    """Weights (1 + beta)^m in fixed point, added as 64-bit integers: in any order the same sum.

    Attributes:
        threads: How many; without it, the cores that this process may use.
    """

    threads: int | None = None

    def inputs(self, heard: Heard) -> NDArray[Any]:
        """Input of each neuron that ever fired, int64 (ever,)."""
        table = weights(heard.beta, heard.rounds, heard.terms)
        total = np.zeros(heard.ever, np.int64)
        for counts, exponents in heard.stimuli:
            total += counts * table[exponents]
        for learned, active in heard.fibres:
            learned.add_inputs(active, table, total, self.threads)
        return total

    def unweighted(self, counts: Ids, heard: Heard) -> NDArray[Any]:
        """Inputs of neurons that never fired, int64."""
        one = weights(heard.beta, heard.rounds, heard.terms)[0]
        scaled: Ids = counts * one
        return scaled


def weights(beta: float, largest: int, terms: int) -> Ids:
    """Fixed-point weights (1+beta)^m for m = 0 to `largest`, int64.

    A weight of 1 is 10^9, or the largest power of ten below with which a sum of `terms` weights
    fits in 62 bits; each weight is rounded to the nearest whole number. A power of ten, since
    beta is a short decimal: 5 weights of 1.2 then are 6 weights of 1, as they should be, where
    binary places would break the tie, always for the same side.

    Raises:
        InputError: A sum of `terms` of them would not fit in 64 bits with a weight of 1 as 1.

    >>> weights(1.0, 2, 10) / 10**PLACES
    array([1., 2., 4.])
    """
    top = float(largest) * float(np.log2(1 + beta)) + float(np.log2(max(terms, 1)))
    places = min(PLACES, int(np.floor((_ROOM - top) * np.log10(2))))
    if places < 0 or largest >= 2**16 - 1:
        raise InputError(
            f"weights of (1+{beta})^{largest} do not fit in 64 bits; give fewer plastic rounds "
            "or a smaller beta"
        )
    return _powers(beta, places, -(-(largest + 1) // 64) * 64)[: largest + 1]


@lru_cache(maxsize=64)
def _powers(beta: float, places: int, number: int) -> Ids:
    """Rounded (1+beta)^m * 10^places; in decimals, since machines differ in powers of floats."""
    with localcontext() as context:
        context.prec = _DIGITS
        # The shortest decimal that is this float: 0.2 is meant, and not what is stored for it.
        power, step = Decimal(10) ** places, 1 + Decimal(repr(beta))
        table = np.empty(number, np.int64)
        for m in range(number):
            # What is beyond 64 bits fills up the table, and is not read.
            table[m] = min(int(power.to_integral_value()), 2**63 - 1)
            power = min(power * step, Decimal(2) ** 64)
    table.flags.writeable = False
    return table
