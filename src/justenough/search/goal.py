"""What a search is for: what to minimise, on what, within what time, with what settled."""

import re
from dataclasses import dataclass

from justenough.core.gate import Gate
from justenough.core.subject import RUNTIMES, Runtime, Variant
from justenough.cost.hardware import profile
from justenough.errors import DataReuseError, InputError
from justenough.search.workers import MOST_WORKERS

OBJECTIVES = ("latency", "bytes", "energy-estimate")
THIS_MACHINE = "this-machine"
_WORKERS = re.compile(r"[0-9]{1,4}|ray(://[\w.:\[\]-]+:\d{1,5})?", re.ASCII)
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class Given:
    """A variant to take as it is, with its cascade.

    Attributes:
        variant: Choices, runtime and how the file is made.
        gate: Which rows are deferred; None for no cascade.
        middle: A runtime that answers deferred rows before the exact model does, with the
            margin up to which it passes them on.
        edited: Whether its file is no longer what a run wrote.
        cases: Fingerprint of the cases that certified what the run wrote; empty if none did.
    """

    variant: Variant
    gate: Gate | None = None
    middle: tuple[Runtime, float] | None = None
    edited: bool = False
    cases: str = ""

    def check_fresh(self, fingerprint: str) -> None:
        """Refuse cases that certified the variant before it was edited.

        Raises:
            DataReuseError: They did: an edit made after their result was seen chose on them.
        """
        if self.edited and self.cases and self.cases == fingerprint:
            raise DataReuseError(
                "the variant was edited after these cases had certified it, so that they cannot "
                "certify the edit; give others with --certify-cases"
            )


@dataclass(frozen=True)
class Goal:
    """What a search is for.

    Attributes:
        minimise: `latency`, measured seconds per case; `bytes`, of everything deployed;
            `energy-estimate`, joules per case by counting.
        target: `this-machine`, or a hardware profile whose seconds are estimated.
        runtimes: Names of the runtimes that may be deployed, those not installed left out.
        pins: (site, choice) that are settled; a search leaves them alone.
        given: A variant to take as it is, with no search, such as an edited `variant.toml`.
        budget_s: Wall seconds after which no further candidate is measured; None for no end.
        curve: Certify every point between safe and bold at once, not only the best.
        workers: Where pieces of the search run: a number of processes, `ray`, `ray://...`.
    """

    minimise: str = "latency"
    target: str = THIS_MACHINE
    runtimes: tuple[str, ...] = ("onnxruntime", "openvino")
    pins: tuple[tuple[str, str], ...] = ()
    given: Given | None = None
    budget_s: float | None = None
    curve: bool = False
    workers: str = "1"

    def __post_init__(self) -> None:
        if self.minimise not in OBJECTIVES:
            raise InputError(
                f"cannot minimise {self.minimise!r}; it is one of {', '.join(OBJECTIVES)}"
            )
        unknown = [r for r in self.runtimes if r not in RUNTIMES]
        if unknown or not self.runtimes:
            raise InputError(
                f"runtimes {', '.join(self.runtimes) or 'none'}: known are {', '.join(RUNTIMES)}"
            )
        if self.target != THIS_MACHINE:
            profile(self.target)
        settled = [s for s, _ in self.pins]
        twice = next((s for s in settled if settled.count(s) > 1), None)
        if twice is not None:
            raise InputError(f"site {twice!r} is pinned twice; give one choice for it")
        # Said here, for workers are only opened when measuring has begun.
        found = _WORKERS.fullmatch(self.workers)
        if not found or (self.workers.isdigit() and not 1 <= int(self.workers) <= MOST_WORKERS):
            raise InputError(
                f"workers={self.workers!r} would have to be a number of processes from 1 to "
                f"{MOST_WORKERS}, ray or ray://HOST:PORT"
            )
        if self.budget_s is not None and not self.budget_s >= 0:
            raise InputError(f"a budget of {self.budget_s:g} s is no time; give 0 s or more")

    @property
    def identity(self) -> str:
        """What makes the results of two searches differ; their time and workers do not."""
        return repr((self.minimise, self.target, self.runtimes, self.pins, self.given, self.curve))


def seconds_in(text: str) -> float:
    """Seconds of a budget such as `90s`, `10m` or `1.5h`.

    >>> seconds_in("10m")
    600.0
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smh]?)\s*", text)
    if found is None:
        raise InputError(f"{text!r} is no time; give it as 90s, 10m or 1.5h")
    return float(found[1]) * _UNITS[found[2] or "s"]


def pin_in(text: str) -> tuple[str, str]:
    """Site and choice of a pin such as `/conv1/Conv=fp32`."""
    site, equals, choice = (part.strip() for part in text.rpartition("="))
    if not equals or not site or not choice:
        raise InputError(f"{text!r} is no pin; give it as SITE=CHOICE, such as /conv1/Conv=fp32")
    return site, choice
