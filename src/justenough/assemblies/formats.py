"""Weights in number formats, as other simulators store them, on the state of the exact tier.

A synapse starts at 1 and is multiplied by 1 + beta each time it grows; the product is rounded to
the format, and the next growth starts from what was stored. All synapses that have grown equally
often then have the same weight, so a table over the exponent is the format exactly. With
stochastic rounding they differ: each goes its own way over the numbers of the format, by a hash
of the synapse and of how often it has grown, so that a run can be had again.

Sums are made one addition at a time, each rounded to the format of the sums, stimuli first, then
areas, in the order of their sources.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, localcontext
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from justenough.assemblies.arithmetic import Heard
from justenough.assemblies.counts import Ids
from justenough.errors import InputError
from justenough.formats.floats import BF16, FP16, FloatFormat, numbers_of
from justenough.formats.format import Coded
from justenough.formats.logarithmic import LogFormat
from justenough.stats.counter import GOLDEN, mixed

Floats64 = NDArray[np.float64]
LNS12 = LogFormat(7, 4)
# Bits of a stored weight. `exponents` are not stored: they follow from the history of firing.
WEIGHTS: Mapping[str, int] = {"exponents": 0, "fp64": 64, "fp32": 32, "fp16": 16, "bf16": 16,
                              "lns12": LNS12.bits}  # fmt: skip
SUMS = ("fp64", "fp32", "fp16", "bf16")
_SHORT: Mapping[str, FloatFormat | LogFormat] = {"fp16": FP16, "bf16": BF16, "lns12": LNS12}
_MANTISSA = {"fp64": 52, "fp32": 23, "fp16": 10, "bf16": 7}


@dataclass(frozen=True)
class Rounded:
    """Inputs from weights in one format and sums in another; an `Arithmetic`.

    Attributes:
        weights: A key of `WEIGHTS`; `exponents` takes the exact power, rounded to the sums alone.
        sums: One of `SUMS`.
        stochastic: Weights are rounded to one of their neighbours at random, so that each growth
            is right on average (Croci et al. 2022, doi:10.1098/rsos.211631); 16 bits or fewer.
        seed: Of the rounding.

    Raises:
        InputError: An unknown format, or stochastic rounding of a format that has none here.

    >>> Rounded("bf16", "int8")
    Traceback (most recent call last):
    justenough.errors.InputError: sums='int8'; give one of fp64, fp32, fp16, bf16
    """

    weights: str = "fp32"
    sums: str = "fp32"
    stochastic: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.weights not in WEIGHTS:
            raise InputError(f"weights={self.weights!r}; give one of {', '.join(WEIGHTS)}")
        if self.sums not in SUMS:
            raise InputError(f"sums={self.sums!r}; give one of {', '.join(SUMS)}")
        if self.stochastic and self.weights not in _SHORT:
            raise InputError(
                f"weights in {self.weights} are not rounded stochastically here; give one of "
                f"{', '.join(_SHORT)}"
            )

    def inputs(self, heard: Heard) -> NDArray[Any]:
        """Input of each neuron that ever fired, float64 (ever,)."""
        return self.added(heard, _synapses(heard, self.seed if self.stochastic else None))

    def added(self, heard: Heard, synapses: tuple[Ids, Ids, Ids]) -> Floats64:
        """Inputs from synapses that are listed already: target, exponent, key of each."""
        target, exponent, key = synapses
        if self.stochastic:
            weight = _walked(self.weights, heard.beta, exponent, key)
        else:
            weight = grown(self.weights, heard.beta, int(exponent.max(initial=0)))[exponent]
        return _summed(target, rounded(self.sums, weight), heard.ever, self.sums)

    def unweighted(self, counts: Ids, heard: Heard) -> NDArray[Any]:
        """Inputs of neurons that never fired, float64: ones, of which a format adds only so many.

        >>> Rounded("bf16", "bf16").unweighted(np.array([3, 255, 300]), None).tolist()
        [3.0, 255.0, 256.0]
        """
        # From 2^(bits of the mantissa + 1) on, adding 1 rounds back to what was there.
        most = 2 ** (_MANTISSA[self.sums] + 1)
        ones: Floats64 = np.minimum(counts, most).astype(np.float64)
        return ones


class OneRound:
    """Arithmetics of one round from one state, for which synapses are listed once."""

    def __init__(self) -> None:
        self._listed: tuple[Ids, Ids, Ids] | None = None

    def of(self, form: Rounded) -> "_Sharing":
        """An arithmetic with the inputs of `form`, for this round alone."""
        return _Sharing(form, self)

    def listed(self, heard: Heard) -> tuple[Ids, Ids, Ids]:
        """Target, exponent and key of each synapse."""
        if self._listed is None:
            self._listed = _synapses(heard, 0)
        return self._listed


@dataclass(frozen=True)
class _Sharing:
    form: Rounded
    round: OneRound

    def inputs(self, heard: Heard) -> NDArray[Any]:
        if self.form.seed:
            return self.form.inputs(heard)
        return self.form.added(heard, self.round.listed(heard))

    def unweighted(self, counts: Ids, heard: Heard) -> NDArray[Any]:
        return self.form.unweighted(counts, heard)


def rounded(name: str, values: Floats64) -> Floats64:
    """Values as a format holds them, float64; 16 bits and fewer by way of float32.

    >>> rounded("bf16", np.array([1.05])).tolist()
    [1.046875]
    """
    if name == "fp64":
        return values
    single = values.astype(np.float32)
    if name == "fp32":
        return single.astype(np.float64)
    return _SHORT[name].round(single).astype(np.float64)


def grown(name: str, beta: float, largest: int) -> Floats64:
    """Weight of a synapse that has grown 0, 1, ... `largest` times, (largest + 1,).

    >>> grown("bf16", 0.003, 3).tolist()  # below half a unit in the last place: it never grows
    [1.0, 1.0, 1.0, 1.0]
    """
    return _grown(name, beta, -(-(largest + 1) // 64) * 64)[: largest + 1]


@lru_cache(maxsize=64)
def _grown(name: str, beta: float, number: int) -> Floats64:
    table = np.ones(number)
    if name == "exponents":
        with localcontext() as context:
            context.prec = 60
            for m in range(1, number):
                table[m] = float((1 + Decimal(repr(beta))) ** m)
    else:
        factor = rounded("fp64" if name == "fp64" else "fp32", np.array([1 + beta]))
        with np.errstate(over="ignore"):
            for m in range(1, number):
                table[m] = rounded(name, table[m - 1] * factor)[0]
    table.flags.writeable = False
    return table


def _synapses(heard: Heard, seed: int | None) -> tuple[Ids, Ids, Ids]:
    """Target, exponent and (with a seed) key of each synapse from what fires, in their order."""
    targets, exponents, keys = [], [], []
    for place, (counts, exponent) in enumerate(heard.stimuli):
        target = np.repeat(np.arange(heard.ever), counts)
        targets.append(target)
        exponents.append(exponent[target])
        if seed is not None:
            source = np.arange(target.size) - np.repeat(np.cumsum(counts) - counts, counts)
            keys.append(_keys(seed, -1 - place, source, target))
    for learned, active in heard.fibres:
        source, target, exponent = learned.synapses(active)
        inside = target < heard.ever
        targets.append(target[inside])
        exponents.append(exponent[inside])
        if seed is not None:
            keys.append(_keys(seed, learned.graph.tag, active[source[inside]], target[inside]))
    none = np.empty(0, np.int64)
    found = (np.concatenate([none, *part]) for part in (targets, exponents, keys))
    target, exponent, key = found
    return target, exponent, key


def _keys(seed: int, tag: int, source: Ids, target: Ids) -> Ids:
    start = mixed(np.array([seed], np.int64))
    key: Ids = mixed(mixed(mixed(start + tag) + source) + target)
    return key


def _walked(name: str, beta: float, exponent: Ids, key: Ids) -> Floats64:
    """Weights after so many growths, each rounded down or up by its own number."""
    grid, below, chance = _steps(name, beta)
    at = np.full(exponent.size, int(np.searchsorted(grid, 1.0)))
    alive = np.flatnonzero(exponent > 0)
    step = 0
    while alive.size:
        shift = (step * GOLDEN + 2**63) % 2**64 - 2**63  # in the range of int64
        noise = (mixed(key[alive] + shift) >> 11) & (2**53 - 1)
        here = at[alive]
        at[alive] = below[here] + (noise * 2.0**-53 < chance[here])
        step += 1
        alive = alive[exponent[alive] > step]
    weights: Floats64 = grid[at]
    return weights


@lru_cache(maxsize=16)
def _steps(name: str, beta: float) -> tuple[Floats64, Ids, Floats64]:
    """Numbers of a format from 1 up; for each, the place below its growth, and the next's chance.

    The largest stays where it is.
    """
    form = _SHORT[name]
    if isinstance(form, FloatFormat):
        every = numbers_of(form)
    else:
        every = form.decode(Coded(np.arange(2 ** (form.bits - 1), dtype=np.uint16)))
    grid = np.unique(every[np.isfinite(every) & (every >= 1)]).astype(np.float64)
    product = grid * (1 + beta)
    below = np.searchsorted(grid, product, side="right") - 1
    above = np.minimum(below + 1, len(grid) - 1)
    gap = grid[above] - grid[below]
    chance = np.where(gap > 0, (product - grid[below]) / np.where(gap > 0, gap, 1.0), 0.0)
    return grid, below, chance


def _summed(target: Ids, weight: Floats64, ever: int, sums: str) -> Floats64:
    """Sums of each target's weights, one addition after the other in the order given."""
    if sums in ("fp64", "fp32"):
        total = np.zeros(ever, np.float32 if sums == "fp32" else np.float64)
        np.add.at(total, target, weight.astype(total.dtype))
        return total.astype(np.float64)
    order = np.argsort(target, kind="stable")
    number = np.bincount(target, minlength=ever)
    first = np.cumsum(number) - number
    ordered, result = weight[order], np.zeros(ever)
    for place in range(int(number.max(initial=0))):
        more = np.flatnonzero(number > place)
        result[more] = rounded(sums, result[more] + ordered[first[more] + place])
    return result
