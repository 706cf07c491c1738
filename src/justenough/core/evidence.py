"""What fresh cases say about a clause."""

import enum
from dataclasses import dataclass


class Verdict(enum.StrEnum):
    """The three honest answers."""

    HELD = "HELD"
    BROKEN = "BROKEN"
    UNDECIDED = "UNDECIDED"

    @property
    def sentence(self) -> str:
        """What the verdict means."""
        return {
            Verdict.HELD: "holds with the stated confidence",
            Verdict.BROKEN: "fails with the stated confidence",
            Verdict.UNDECIDED: "too few cases to say; give more cases or a looser clause",
        }[self]

    @property
    def exit_code(self) -> int:
        """Exit code of the command line: 0 held, 1 broken, 3 undecided."""
        return {Verdict.HELD: 0, Verdict.BROKEN: 1, Verdict.UNDECIDED: 3}[self]


@dataclass(frozen=True)
class Evidence:
    """What the cases say about one clause.

    Attributes:
        clause: The clause as text.
        verdict: HELD, BROKEN or UNDECIDED.
        estimate: Sample value, in the clause's unit.
        limit: One-sided confidence limit on the side that the clause asks about.
        other_limit: One-sided confidence limit on the other side; it decides BROKEN.
        n: Independent units used.
        changed: Units with a loss, for clauses that count; else None.
        unit: Unit of estimate and limits.
        method: Name of the bound and its paper.
        note: Why nothing could be said, if so.
    """

    clause: str
    verdict: Verdict
    estimate: float
    limit: float
    other_limit: float
    n: int
    changed: int | None
    unit: str
    method: str
    note: str = ""


def overall(evidence: tuple[Evidence, ...]) -> Verdict:
    """All clauses must hold: broken if any is, held only if all are.

    Intersection-union test (Berger 1982): each clause at alpha needs no correction.
    """
    verdicts = {e.verdict for e in evidence}
    if Verdict.BROKEN in verdicts:
        return Verdict.BROKEN
    return Verdict.HELD if verdicts == {Verdict.HELD} else Verdict.UNDECIDED
