"""Which simulator may stand for the exact one: ordered on some seeds, judged on others.

A seed is one random graph and the independent unit. Candidates are ordered on the search seeds,
safest first, and judged in that order on the certification seeds, each at alpha, up to the first
that does not hold (`fixed_sequence`): the chance that any is granted wrongly is at most alpha.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from justenough.core.contract import Clause, Contract, parse_clause
from justenough.core.evidence import Evidence, Verdict, overall
from justenough.core.judge import Paired, units_for
from justenough.core.subject import Outputs
from justenough.deploy.certify import fixed_sequence
from justenough.errors import InputError
from justenough.stats.proportion import units_needed

METRICS = ("within_tolerance", "relative_within")
SPARE = 1  # seeds that may fail, of as many as are run without being told how many
MOST_SEEDS = 100_000
# 0.15, since two graphs differ by more than 0.1 now and then: no tier could be shown to keep that.
KEEP = (
    "relative_within(0.15, output=support) >= 0.9",
    "within_tolerance(3, output=settled) >= 0.9",
    "within_tolerance(0.05, output=completion) >= 0.9",
)
IDENTITY = ("winners", "free_overlap", "ids")


@dataclass(frozen=True)
class Searched:
    """What the search seeds say of a candidate.

    Attributes:
        risk: Root mean square of its differences from the exact tier in units of a clause's
            tolerance, that of the clause where it is largest.
        seconds: Median of a run.
        faster: Whether it was faster than the exact tier in a sign test over seeds.
    """

    risk: float
    seconds: float
    faster: bool


@dataclass(frozen=True)
class Decision:
    """What the certification seeds say.

    Attributes:
        steps: Candidates that were judged, in their order, each with its evidence.
        chosen: The fastest of those that hold; None where none does.
    """

    steps: tuple[tuple[str, tuple[Evidence, ...]], ...]
    chosen: str | None


def default_contract() -> Contract:
    """What is kept where nothing is said: support, settling and completion on most graphs."""
    return Contract(tuple(map(parse_clause, KEEP)))


def check(contract: Contract, outputs: Sequence[str]) -> None:
    """Refuse clauses that this subject cannot be asked.

    Raises:
        InputError: Another metric, an output that is missing or unknown, or the identity of
            winners in a free run, which not even two floating-point formats share.
    """
    for c in contract.clauses:
        if c.output in IDENTITY:
            raise InputError(
                f"output={c.output} asks which neurons win in a free run, which is chaotic while "
                "an assembly forms: float32 and float64 already end with other winners (the "
                f"study measures how many); keep one of {', '.join(outputs)}"
            )
        if c.metric not in METRICS:
            raise InputError(f"{c.metric} does not fit a simulator; give {' or '.join(METRICS)}")
        if c.output is None:
            raise InputError(f"say what {c.metric} is about: output={' or '.join(outputs)}")
        c.values(dict.fromkeys(outputs, np.zeros(1)))


def seeds_for(contract: Contract, spare: int = SPARE) -> int:
    """Seeds with which every clause can be shown although `spare` of them fail.

    >>> seeds_for(default_contract(), 0), seeds_for(default_contract())
    (29, 46)
    """
    most = 1
    for c in contract.clauses:
        if units_for(c, contract.alpha) is None or not 0 < c.bound < 1:
            raise InputError(f"no number of seeds shows {c.text}; give a bound below 1")
        most = max(most, units_needed(spare, at_least=c.bound, alpha=contract.alpha))
    if most > MOST_SEEDS:
        raise InputError(f"the contract takes {most:,} seeds; give lower bounds or --seeds")
    return most


def risk(contract: Contract, reference: Outputs, candidate: Outputs) -> float:
    """How much of its tolerance a candidate uses, root mean square over seeds, worst clause."""
    return max(float(np.sqrt((_used(c, reference, candidate) ** 2).mean()))
               for c in contract.clauses)  # fmt: skip


def _used(clause: Clause, reference: Outputs, candidate: Outputs) -> NDArray[np.float64]:
    ref, cand = clause.values(reference), clause.values(candidate)
    room = np.full(len(ref), clause.eps or 0.0)
    if clause.metric == "relative_within":
        room = np.maximum(room * np.abs(ref), np.finfo(np.float64).tiny)
    used: NDArray[np.float64] = np.abs(ref - cand) / room
    return used


def ordered(found: Mapping[str, Searched]) -> list[str]:
    """Candidates to certify, safest first; those that no safer one beats in time.

    >>> ordered({"a": Searched(0.2, 3, True), "b": Searched(0.5, 4, True),
    ...          "c": Searched(0.9, 1, True), "d": Searched(0.1, 9, False)})
    ['a', 'c']
    """
    order: list[str] = []
    for name in sorted((k for k in found if found[k].faster), key=lambda k: found[k].risk):
        if all(found[name].seconds < found[safer].seconds for safer in order):
            order.append(name)
    return order


def decide(
    contract: Contract, order: Sequence[str], found: Mapping[str, Searched],
    pairs: Callable[[str], Paired],
) -> Decision:  # fmt: skip
    """Judge the candidates in their order; the fastest of those that hold is chosen.

    Args:
        contract: Clauses and alpha.
        order: From `ordered`, fixed before the certification seeds are run.
        found: What the search seeds say of each.
        pairs: Outputs of the exact tier and of a candidate on the certification seeds.
    """
    steps = fixed_sequence(contract, order, pairs)
    held = [name for name, e in steps if overall(e) is Verdict.HELD]
    return Decision(tuple(steps), min(held, key=lambda k: found[k].seconds, default=None))
