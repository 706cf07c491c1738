"""Rooflines: the least time and energy of a network on hardware that is not here. Estimates.

A node takes at least as long as its multiply-adds, its bytes, and its launch each take alone
(Williams, Waterman & Patterson 2009, CACM 52(4)). Nothing here was measured on the hardware:
real kernels reach a part of it. Use it to rank choices and to see what bounds them.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from justenough.cost.hardware import CHOICES, Hardware, form, nearest
from justenough.errors import InputError

Bound = Literal["arithmetic", "bandwidth", "launch"]

# Horowitz 2014, "Computing's energy problem (and what we can do about it)", ISSCC, figure 1.1.9:
# 45 nm, 0.9 V. Joule a multiply-add: the product, then the sum in what it is summed in, float32
# (0.9 pJ) for the floating formats and int32 (0.1 pJ) for int8. bf16 and tf32 are not in the
# figure: they count as fp16, whose significand is as long as tf32's and longer than bf16's.
MULTIPLY_ADD_JOULE: Mapping[str, float] = MappingProxyType(
    {
        "fp32": 3.7e-12 + 0.9e-12,
        "tf32": 1.1e-12 + 0.9e-12,
        "fp16": 1.1e-12 + 0.9e-12,
        "bf16": 1.1e-12 + 0.9e-12,
        "int8": 0.2e-12 + 0.1e-12,
    }
)
# The same figure: 1.3 to 2.6 nJ for 64 bits of DRAM. The low end, so that arithmetic counts for
# as much as it can.
DRAM_JOULE_PER_BYTE = 1.3e-9 / 8


@dataclass(frozen=True)
class Work:
    """What one call of a node computes and moves.

    Attributes:
        operations: Multiply-adds.
        weight_bytes: Bytes of weights, read once a call.
        activation_bytes: Bytes of values read and written.

    Raises:
        InputError: A number below zero or not finite.
    """

    operations: float
    weight_bytes: float
    activation_bytes: float

    def __post_init__(self) -> None:
        for name in ("operations", "weight_bytes", "activation_bytes"):
            _check(name, getattr(self, name))

    @property
    def bytes(self) -> float:
        """All bytes moved, each once."""
        return self.weight_bytes + self.activation_bytes


@dataclass(frozen=True)
class Layer:
    """A node or site, in numbers that no choice changes.

    Attributes:
        name: Its name.
        operations: Multiply-adds a case; 0 for a node that only moves values, None if unknown.
        weights: Weights held.
        activations: Values read and written a case, None if unknown.
        launches: Kernels that it takes.

    Raises:
        InputError: A number below zero or not finite.
    """

    name: str
    operations: float | None
    weights: float = 0
    activations: float | None = None
    launches: int = 1

    def __post_init__(self) -> None:
        for name in ("operations", "weights", "activations", "launches"):
            value = getattr(self, name)
            if value is not None:
                _check(f"{name} of {self.name!r}", value)

    def work(self, choice: str, batch: int = 1) -> Work:
        """What a call with `batch` cases computes and moves in `choice`; the unknown as nothing.

        >>> Layer("fc", 1e6, 1e6, 2e3).work("int8-weight", batch=8)
        Work(operations=8000000.0, weight_bytes=1000000.0, activation_bytes=64000.0)
        """
        stored = form(choice)
        return Work(
            batch * (self.operations or 0),
            self.weights * stored.weight_bits / 8,
            batch * (self.activations or 0) * stored.activation_bits / 8,
        )


@dataclass(frozen=True)
class Estimate:
    """Least time and energy of a call. An estimate: nothing was measured on the hardware.

    Attributes:
        seconds: Least time of a call, all its cases together.
        bound: What takes that time; of a network, what takes most of it.
        joule: Energy of arithmetic and memory by one table for all hardware (45 nm). Only
            ratios of it mean anything: it ranks choices and predicts no meter.
        hardware: Name of the profile.
        seconds_by_bound: The time of each node, summed by what bounds it.
        left_out: What is not in it, because it was not known.
        fits: Whether the weights and the largest node's values fit in the memory.
    """

    seconds: float
    bound: Bound
    joule: float
    hardware: str
    seconds_by_bound: tuple[tuple[Bound, float], ...]
    left_out: tuple[str, ...] = ()
    fits: bool = True

    @property
    def measured(self) -> bool:
        """Always False."""
        return False

    def __str__(self) -> str:
        said = f"estimate for {self.hardware}: {1e3 * self.seconds:.3g} ms, bound by {self.bound}"
        said += "" if self.fits else "; does not fit in its memory"
        return said + (f"; without {', '.join(self.left_out)}" if self.left_out else "")


def seconds(work: Work, arithmetic: str, hardware: Hardware, *, launches: int = 1) -> Estimate:
    """Least time of `work` computed in `arithmetic` on `hardware`.

    The longest of arithmetic, memory and launches, as if they overlapped fully.

    Raises:
        InputError: The hardware has no such arithmetic, or its energy is not known.

    >>> from justenough.cost.hardware import profile
    >>> print(seconds(Work(1e9, 4e6, 4e6), "fp32", profile("rx580")))
    estimate for rx580: 0.324 ms, bound by arithmetic
    """
    times: dict[Bound, float] = {
        "arithmetic": work.operations / hardware.rate(arithmetic),
        "bandwidth": work.bytes / hardware.bandwidth_bytes_s,
        "launch": launches * hardware.launch_s,
    }
    bound = max(times, key=lambda b: times[b])
    return Estimate(
        times[bound],
        bound,
        energy_joule(work, arithmetic),
        hardware.name,
        ((bound, times[bound]),),
        fits=work.bytes <= hardware.memory_bytes,
    )


def energy_joule(work: Work, arithmetic: str) -> float:
    """Energy of `work` by the figures of Horowitz 2014: a ratio to rank by, no measurement.

    Every byte counts as read from DRAM once; caches, instructions, clocks and leakage, which
    take most of a processor's power, are not in it.

    Raises:
        InputError: No energy is known for `arithmetic`.

    >>> work = Work(1e9, 0, 0)
    >>> round(energy_joule(work, "fp32") / energy_joule(work, "int8"), 1)
    15.3
    """
    if arithmetic not in MULTIPLY_ADD_JOULE:
        known = nearest(arithmetic, MULTIPLY_ADD_JOULE)
        raise InputError(f"no energy is known for {arithmetic!r} arithmetic" + known)
    return work.operations * MULTIPLY_ADD_JOULE[arithmetic] + work.bytes * DRAM_JOULE_PER_BYTE


def estimate(
    layers: Sequence[Layer], picks: Mapping[str, str], hardware: Hardware, *, batch: int = 1
) -> Estimate:
    """Least time and energy of a network: its nodes one after another.

    Args:
        layers: All nodes that run, sites and others. Nodes that a runtime fuses are one layer.
            A layer of which nothing is known is left out, and the estimate says so.
        picks: Choice by layer name; float32 where there is none.
        hardware: A profile.
        batch: Cases of a call.

    Raises:
        InputError: No layers, two of one name, a pick for none of them, an unknown choice, or
            a batch below 1.

    >>> from justenough.cost.hardware import profile
    >>> net = [Layer("conv", 1e9, 1e4, 1e6), Layer("nms", None)]
    >>> print(estimate(net, {"conv": "int8"}, profile("h100"), batch=32))
    estimate for h100: 0.0323 ms, bound by arithmetic; without nms
    """
    _check_network(layers, picks, batch)
    by_bound: dict[Bound, float] = defaultdict(float)
    joule = stored = most_moved = 0.0
    left_out: list[str] = []
    for layer in layers:
        if layer.operations is None and layer.activations is None:
            left_out.append(layer.name)
            continue
        for part, known in (("operations", layer.operations), ("values", layer.activations)):
            if known is None:
                left_out.append(f"{part} of {layer.name}")
        choice = picks.get(layer.name, "fp32")
        work = layer.work(choice, batch)
        node = seconds(work, hardware.arithmetic(choice), hardware, launches=layer.launches)
        by_bound[node.bound] += node.seconds
        joule += node.joule
        stored += work.weight_bytes
        most_moved = max(most_moved, work.activation_bytes)
    if not by_bound:
        raise InputError(
            "nothing is known of any layer; give operations or activations of one at least"
        )
    ranked = tuple(sorted(by_bound.items(), key=lambda pair: -pair[1]))
    return Estimate(
        math.fsum(s for _, s in ranked),
        ranked[0][0],
        joule,
        hardware.name,
        ranked,
        tuple(left_out),
        fits=stored + most_moved <= hardware.memory_bytes,
    )


def speedup(exact: Estimate, variant: Estimate) -> float:
    """How many times faster `variant` would be than `exact`, both estimated in the same way.

    Raises:
        InputError: Estimates for different hardware, or with different parts left out, or of
            nothing.
    """
    if variant.seconds <= 0:
        raise InputError(f"an {variant} is of no work; nothing compares with it")
    if exact.hardware != variant.hardware or exact.left_out != variant.left_out:
        raise InputError(
            f"an {exact} and an {variant} do not compare; estimate both for one hardware with "
            "the same layers"
        )
    return exact.seconds / variant.seconds


def _check(name: str, value: float) -> None:
    if not (math.isfinite(value) and value >= 0):
        raise InputError(f"{name} is {value}; it must be 0 or more and finite")


def _check_network(layers: Sequence[Layer], picks: Mapping[str, str], batch: int) -> None:
    if batch < 1:
        raise InputError(f"batch is {batch}; it must be 1 or more")
    names = Counter(layer.name for layer in layers)
    if not names:
        raise InputError("no layers; give one at least")
    name, times = names.most_common(1)[0]
    if times > 1:
        raise InputError(f"{times} layers are called {name!r}; names must differ")
    for site, choice in picks.items():
        if site not in names:
            raise InputError(f"no layer {site!r} for choice {choice!r}" + nearest(site, names))
        if choice not in CHOICES:
            raise InputError(f"layer {site!r} has no choice {choice!r}" + nearest(choice, CHOICES))
