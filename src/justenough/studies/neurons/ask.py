"""What a run is to do, from what was typed; all that can be refused is refused here, at once."""

from dataclasses import dataclass
from itertools import pairwise
from math import isfinite, sqrt
from typing import Any, Literal

from scipy.stats import binom

from justenough.assemblies import arithmetic
from justenough.assemblies.circuit import MOST_NEURONS, Area, Circuit, Fibre, Stimulus
from justenough.assemblies.cuda import card
from justenough.assemblies.exact import MOST_TIED
from justenough.errors import InputError

MOST_AREAS = 100
STIMULUS = "stimulus"
# The largest count that an array of counts can have.
_MOST_COUNT = 65_535
Tier = Literal["exact", "lazy"]


@dataclass(frozen=True)
class Asked:
    """One run: areas in a chain; the first hears a stimulus, each other the one before it.

    Attributes:
        areas: Neurons of each.
        k: How many fire at once in each, and in the stimulus.
        p: Probability of a synapse.
        beta: Plasticity.
        rounds: How many.
        tier: Every neuron (exact), or those that fired or nearly did, and others drawn by the law
            of the random graph when they first fire (lazy).
        ties: Who wins among equals, of the exact tier; the lazy one draws.
        seed: Of all that is random.
        threads: How many; results do not depend on it. None: all cores.
        device: Where the counts are; results do not depend on it.
    """

    areas: tuple[int, ...]
    k: int
    p: float
    beta: float
    rounds: int
    tier: Tier
    ties: Literal["random", "lowest"]
    seed: int
    threads: int | None
    device: Literal["cpu", "cuda"]

    @property
    def circuit(self) -> Circuit:
        """What is simulated; InputError for what no circuit can be."""
        areas = tuple(
            Area(f"area{i}", n, self.k, self.beta) for i, n in enumerate(self.areas, start=1)
        )
        own = [Fibre(a.name, a.name) for a in areas]
        onward = [Fibre(a.name, b.name) for a, b in pairwise(areas)]
        return Circuit(self.p, areas, (Stimulus(STIMULUS, self.k),), (*own, *onward))

    @property
    def settings(self) -> dict[str, Any]:
        """All that results depend on, for JSON."""
        ties = {"ties": self.ties} if self.tier == "exact" else {}
        return {
            "areas": list(self.areas), "k": self.k, "p": self.p, "beta": self.beta,
            "rounds": self.rounds, "tier": self.tier, **ties, "seed": self.seed,
        }  # fmt: skip

    def inputs(self, number: int) -> dict[str, list[str]]:
        """Who hears whom in a round, from 0: an area joins when the one before it has fired."""
        names = [a.name for a in self.circuit.areas][: number + 1]
        return {
            name: [names[i - 1] if i else STIMULUS, *([name] if number > i else [])]
            for i, name in enumerate(names)
        }


def ask(typed: dict[str, str], **chosen: Any) -> Asked:
    """What was asked for.

    Args:
        typed: Areas, k, p, beta, rounds, seed, and threads or an empty text, as text.
        chosen: The other attributes of `Asked`; `ties` may be None.

    Raises:
        InputError: A number that is none or is out of range, numbers that cannot go together, or
            a device that is not here.
    """
    tier, ties, device = chosen["tier"], chosen["ties"], chosen["device"]
    if tier == "lazy" and (ties is not None or device != "cpu"):
        raise InputError("--ties and --device go with --tier exact; leave them out")
    sizes = typed["areas"].split(",")
    if len(sizes) > MOST_AREAS:
        raise InputError(f"--areas names {len(sizes)} areas; give at most {MOST_AREAS}")
    asked = Asked(
        areas=tuple(_whole("--areas", size, 1, MOST_NEURONS) for size in sizes),
        k=_whole("--k", typed["k"], 1, MOST_NEURONS),
        p=_number("--p", typed["p"]),
        beta=_number("--beta", typed["beta"]),
        rounds=_whole("--rounds", typed["rounds"], 1, 2**16 - 2),
        tier=tier,
        ties=ties or "random",
        seed=_whole("--seed", typed["seed"], 0, 2**64 - 1),
        threads=_whole("--threads", typed["threads"], 1, 1024) if typed["threads"] else None,
        device=device,
    )
    _check(asked)
    return asked


def _check(asked: Asked) -> None:
    """Refuse what would fail in a later round."""
    circuit = asked.circuit
    if asked.p == 1:
        raise InputError("--p 1 joins every neuron with every other, so that all tie; give less")
    heard = 2 * asked.k
    arithmetic.weights(asked.beta, asked.rounds - 1, heard)
    mean = heard * circuit.p
    if mean + 10 * sqrt(mean) > _MOST_COUNT:
        raise InputError(
            f"a neuron hears about {mean:.0f} synapses, and counts end at {_MOST_COUNT}; give a "
            "smaller --k or --p"
        )
    if asked.tier == "exact":
        for n in asked.areas:
            _check_ties(n, asked)
    if asked.device == "cuda" and card() is None:
        raise InputError(
            "--device cuda needs a graphics card and the extra `cuda`; use --device cpu"
        )


def _check_ties(n: int, asked: Asked) -> None:
    """Refuse an area of which too many neurons would tie for a place in its first round."""
    law = binom(asked.k, asked.p)
    # So many synapses, or more, half of k neurons have at most: the k-th has fewer.
    clearly = int(law.isf(min(1.0, asked.k / (2 * n)))) + 1
    tied = n * float(law.sf(clearly - 2))
    if tied > 1.01 * MOST_TIED:
        raise InputError(
            f"more than {MOST_TIED:,} of {n:,} neurons would tie for {asked.k:,} places in the "
            "first round; give a larger --k or --p, or --tier lazy"
        )


def _number(name: str, text: str, such: str = "0.001") -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not isfinite(value):
        raise InputError(f"{name} is {text!r}; give a number, such as {such}")
    return value


def _whole(name: str, text: str, least: int, most: int) -> int:
    """A whole number, such as 1000 or 1e9."""
    try:
        value = int(text)
    except ValueError:
        size = _number(name, text, "1000")
        if size != size // 1:
            raise InputError(f"{name} is {text!r}; give a whole number") from None
        value = int(size)
    if not least <= value <= most:
        raise InputError(f"{name} is {text!r}; give {least:,} to {most:,}")
    return value
