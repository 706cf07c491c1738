"""Machines that need not be here: what their processors compute and move at best, with sources.

Every number has a line in `sources`: a document, what was measured, or the words `from memory,
not verified`. docs/hardware.md shows the same table.
"""

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any

from justenough.errors import InputError

THIS_MACHINE = "this-machine"


@dataclass(frozen=True)
class Form:
    """How a choice stores numbers, and the arithmetic that can compute it.

    Attributes:
        weight_bits: Stored bits of a weight, without the scales.
        activation_bits: Bits of each value that a node reads or writes.
        arithmetic: Formats that give the choice's result, its own one first. Hardware without
            the first takes the next: values of 8 or 16 bits are converted and computed wider.
    """

    weight_bits: int
    activation_bits: int
    arithmetic: tuple[str, ...]


CHOICES: Mapping[str, Form] = MappingProxyType(
    {
        "fp32": Form(32, 32, ("fp32",)),
        "bf16": Form(16, 16, ("bf16", "fp32")),
        "fp16": Form(16, 16, ("fp16", "fp32")),
        "int8": Form(8, 8, ("int8", "fp32")),
        # Ranges are found while running: values arrive and leave as float32.
        "int8-dynamic": Form(8, 32, ("int8", "fp32")),
        # Weight-only: unpacked beside the products, which stay float32.
        "fp16-weight": Form(16, 32, ("fp32",)),
        "bf16-weight": Form(16, 32, ("fp32",)),
        "int8-weight": Form(8, 32, ("fp32",)),
        "int4-weight": Form(4, 32, ("fp32",)),
        "int4-weight-b128": Form(4, 32, ("fp32",)),
        "int2-weight": Form(2, 32, ("fp32",)),
    }
)


@dataclass(frozen=True)
class Rate:
    """Multiply-adds a second at best, as units x lanes x clock.

    Attributes:
        units: Cores, compute units or multiprocessors.
        lanes: Multiply-adds of a unit in one clock.
        clock_hz: Highest clock that the units keep together, or the boost clock.

    >>> round(2 * Rate(36, 64, 1.34e9).per_s / 1e12, 2)  # TFLOP/s of an RX 580
    6.17
    """

    units: int
    lanes: float
    clock_hz: float

    @property
    def per_s(self) -> float:
        """Multiply-adds a second; twice that in operations a second, as vendors count."""
        return self.units * self.lanes * self.clock_hz


@dataclass(frozen=True)
class Hardware:
    """What a machine computes and moves at best.

    Attributes:
        name: Target name, as on the command line.
        description: The product that the numbers are of.
        peak: Rate of each arithmetic that the hardware has. A format that it can only store
            is not here.
        bandwidth_bytes_s: Main memory, or the card's own.
        memory_bytes: Its size.
        launch_s: Shortest time between two kernels, or two nodes.
        supports: Choices that each runtime of this package runs there, by runtime.
        sources: For each number, each runtime and each absence, where it is from.
    """

    name: str
    description: str
    peak: Mapping[str, Rate]
    bandwidth_bytes_s: float
    memory_bytes: float
    launch_s: float
    supports: Mapping[str, tuple[str, ...]]
    sources: Mapping[str, str]

    def rate(self, arithmetic: str) -> float:
        """Multiply-adds a second in `arithmetic`.

        Raises:
            InputError: The hardware has no such arithmetic.
        """
        if arithmetic not in self.peak:
            raise InputError(
                f"{self.name} has no {arithmetic!r} arithmetic" + nearest(arithmetic, self.peak)
            )
        return self.peak[arithmetic].per_s

    def arithmetic(self, choice: str) -> str:
        """The format that `choice` is computed in here: the fastest of those that can.

        >>> profile("rx580").arithmetic("int8"), profile("h100").arithmetic("int8")
        ('fp32', 'int8')

        Raises:
            InputError: No such choice.
        """
        open_here = [a for a in form(choice).arithmetic if a in self.peak]
        return max(open_here, key=self.rate)

    def ridge(self, arithmetic: str) -> float:
        """Multiply-adds per byte at which arithmetic and memory take equally long.

        Below it a node is bound by memory, above by arithmetic (Williams, Waterman &
        Patterson 2009, CACM 52(4), figure 1).
        """
        return self.rate(arithmetic) / self.bandwidth_bytes_s

    def limited_to(self, units: int, *, clock_hz: float | None = None) -> "Hardware":
        """The same hardware with `units` busy, such as two cores of six; memory is unchanged.

        Raises:
            InputError: Fewer than one unit, or more than any arithmetic has.
        """
        most = max(r.units for r in self.peak.values())
        if not 1 <= units <= most:
            raise InputError(f"{units} units of {self.name}; it has 1 to {most}")
        peak = {
            name: replace(r, units=min(units, r.units), clock_hz=clock_hz or r.clock_hz)
            for name, r in self.peak.items()
        }
        return replace(self, name=f"{self.name}, {units} of {most} units", peak=peak)


def form(choice: str) -> Form:
    """How `choice` is stored and computed.

    Raises:
        InputError: No such choice; the message names the known ones.
    """
    if choice not in CHOICES:
        raise InputError(f"no choice {choice!r}" + nearest(choice, CHOICES))
    return CHOICES[choice]


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of an error sentence: the nearest known word, and all of them."""
    words = list(known)
    near = difflib.get_close_matches(word.lower(), words, 1, 0.5)
    return (f"; did you mean {near[0]!r}?" if near else "") + f" (known: {', '.join(words)})"


@cache
def profiles() -> Mapping[str, Hardware]:
    """All profiles by name, in the order of the table."""
    text = resources.files("justenough.cost").joinpath("hardware.toml").read_text("utf-8")
    return MappingProxyType({name: _hardware(name, t) for name, t in tomllib.loads(text).items()})


def profile(name: str) -> Hardware:
    """The profile called `name`.

    Raises:
        InputError: No such profile, or `this-machine`, which is measured and has none.
    """
    if name == THIS_MACHINE:
        raise InputError(
            f"target {name!r} is measured and has no profile; "
            f"those that have one: {', '.join(profiles())}"
        )
    if name not in profiles():
        raise InputError(f"no target {name!r}" + nearest(name, (THIS_MACHINE, *profiles())))
    return profiles()[name]


def _hardware(name: str, table: Mapping[str, Any]) -> Hardware:
    peak = {
        a: Rate(r["units"], float(r["lanes"]), r["clock_ghz"] * 1e9)
        for a, r in table["peak"].items()
    }
    return Hardware(
        name=name,
        description=table["description"],
        peak=MappingProxyType(peak),
        bandwidth_bytes_s=table["bandwidth_gb_s"] * 1e9,
        memory_bytes=float(table["memory_gib"] * 2**30),
        launch_s=table["launch_us"] * 1e-6,
        supports=MappingProxyType({r: tuple(c) for r, c in table["supports"].items()}),
        sources=MappingProxyType(dict(table["sources"])),
    )
