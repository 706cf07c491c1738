"""The simulator that a run asks for, and the memory that it takes."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from numpy.typing import NDArray

from justenough.assemblies.circuit import Brain
from justenough.assemblies.counts import Counts, HostCounts
from justenough.assemblies.cuda import CudaCounts
from justenough.assemblies.exact import ExactBrain
from justenough.assemblies.free import free_bytes
from justenough.assemblies.lazy import LazyBrain
from justenough.assemblies.memory import exact_bytes, lazy_bytes
from justenough.errors import InputError
from justenough.report import words
from justenough.studies.neurons.ask import Asked

# The program itself, with its libraries and compiled loops.
PROGRAM_BYTES = 250_000_000


class Kept(Brain, Protocol):
    """A simulator that can be stopped and gone on with."""

    @property
    def nbytes(self) -> dict[str, int]:
        """Bytes by what takes them."""

    def saved(self) -> dict[str, NDArray[Any]]:
        """All that a run goes on from."""

    def restore(self, saved: Mapping[str, NDArray[Any]]) -> None:
        """Become the simulator whose `saved` this is."""


def maker(asked: Asked) -> Callable[[int, Any], Counts]:
    """What makes counts on the device asked for."""
    if asked.device == "cuda":
        return CudaCounts
    return lambda n, kind: HostCounts(n, kind, asked.threads)


def brain(asked: Asked) -> Kept:
    """The simulator, before its first round."""
    if asked.tier == "lazy":
        return LazyBrain(asked.circuit, asked.seed)
    return ExactBrain(asked.circuit, asked.seed, asked.ties, asked.threads, maker(asked))


def needed_bytes(asked: Asked, tier: str | None = None) -> dict[str, int]:
    """Bytes of this machine's memory by what takes them."""
    find = exact_bytes if (tier or asked.tier) == "exact" else lazy_bytes
    needed = find(asked.circuit, asked.rounds)
    if asked.device == "cuda":
        del needed["counts"]
    record = 8 * (asked.k + 3) * asked.rounds * len(asked.areas)
    return {**needed, "winners of all rounds": record, "program": PROGRAM_BYTES}


def check_memory(asked: Asked) -> tuple[dict[str, int], int]:
    """What the run takes, and what is free.

    Raises:
        InputError: It is too much; said with what would do.
    """
    needed, free = needed_bytes(asked), free_bytes()
    total = sum(needed.values())
    if total <= free:
        return needed, free
    would = "give fewer areas, fewer neurons or a smaller --k"
    if asked.tier == "exact":
        less = sum(needed_bytes(asked, "lazy").values())
        if less <= free:
            would = f"--tier lazy takes about {words.size(less)}"
    most = max(needed, key=needed.__getitem__)
    raise InputError(
        f"this run takes {words.size(total)} of memory, {words.size(needed[most])} of it for "
        f"{most}, and {words.size(free)} are free; {would}"
    )
