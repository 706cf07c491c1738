"""What a search makes small: seconds here, seconds elsewhere, bytes, or joules."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from justenough.core.subject import Runtime, Variant
from justenough.cost.hardware import CHOICES, profile
from justenough.cost.roofline import Layer, estimate
from justenough.search.chain import DeferralCost
from justenough.search.goal import THIS_MACHINE, Goal
from justenough.search.program import Program, additive_program

USUAL = "cpu-avx512-vnni"


@dataclass(frozen=True)
class Objective:
    """An estimated or counted cost of variants, per case; measured seconds need none of it.

    Attributes:
        goal: What is asked for.
        layers: Sites and the other nodes of the network, in numbers.
        batch: Rows of a call.
        reference_bytes: Of the reference's file.
    """

    goal: Goal
    layers: Sequence[Layer]
    batch: int
    reference_bytes: int

    @property
    def estimated(self) -> bool:
        """Whether its numbers come from counting and not from a clock or a file."""
        return self.goal.minimise == "energy-estimate" or self.goal.target != THIS_MACHINE

    @property
    def unit(self) -> str:
        """What one unit of cost is."""
        return {"bytes": "bytes", "energy-estimate": "J"}.get(self.goal.minimise, "s")

    def of(self, variant: Variant, stored_bytes: int) -> float:
        """Cost per case of a variant whose file has `stored_bytes`."""
        if self.goal.minimise == "bytes":
            return float(stored_bytes)
        usual = variant.runtime.precision
        return self._counted({a.name: usual for a in self.layers} | dict(variant.picks))

    def runs(self, runtime: Runtime) -> tuple[str, ...]:
        """Choices that the target computes, by its profile; all known ones on this machine."""
        if self.goal.target == THIS_MACHINE:
            return tuple(CHOICES)
        return profile(self.goal.target).supports.get(str(runtime), tuple(CHOICES))

    @property
    def reference(self) -> float:
        """Cost per case of the reference."""
        return self.of(Variant(), self.reference_bytes)

    @property
    def exact(self) -> DeferralCost:
        """What the exact stage costs: its whole file for bytes, else by the rows it answers."""
        if self.goal.minimise == "bytes":
            return DeferralCost(0.0, 0.0, self.batch, self.reference)
        return DeferralCost(0.0, self.reference, self.batch)

    def program(
        self, choices: Mapping[str, Sequence[str]], stored: Callable[[str, str], int]
    ) -> Program:
        """The program of this objective, whose costs add over sites.

        A choice that costs no less than the exact one is only there where it is pinned.

        Args:
            choices: Open at each site, without the reference's own.
            stored: Bytes of a site's weight under a choice.
        """
        pins = dict(self.goal.pins)
        picks = [(s, c) for s, open_here in choices.items() for c in open_here]
        if self.goal.minimise == "bytes":
            base = self.reference
            change = {(s, c): float(stored(s, c) - stored(s, "fp32")) for s, c in picks}
        else:
            base = self._counted({})
            change = {(s, c): self._counted({s: c}) - base for s, c in picks}
        kept = {(s, c): x for (s, c), x in change.items() if x < 0 or pins.get(s) == c}
        return additive_program(kept, base)

    def _counted(self, picks: Mapping[str, str]) -> float:
        target = USUAL if self.goal.target == THIS_MACHINE else self.goal.target
        known = {a.name for a in self.layers}
        held = {s: c for s, c in picks.items() if s in known and c != "fp32"}
        found = estimate(self.layers, held, profile(target), batch=self.batch)
        if self.goal.minimise == "energy-estimate":
            return found.joule / self.batch
        return found.seconds / self.batch
