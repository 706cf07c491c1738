"""What a search makes small: seconds here, seconds elsewhere, bytes, or joules."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from justenough.core.subject import Variant
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

    def program(self, choices: Mapping[str, Sequence[str]], weights: Mapping[str, int]) -> Program:
        """The program of this objective, whose costs add over sites.

        Args:
            choices: Open at each site, without the reference's own.
            weights: Number of weights of each site.
        """
        picks = [(s, c) for s, open_here in choices.items() for c in open_here]
        if self.goal.minimise == "bytes":
            change = {(s, c): weights[s] * (CHOICES[c].weight_bits - 32) / 8 for s, c in picks}
            return additive_program(change, self.reference)
        base = self._counted({})
        return additive_program({(s, c): self._counted({s: c}) - base for s, c in picks}, base)

    def _counted(self, picks: Mapping[str, str]) -> float:
        target = USUAL if self.goal.target == THIS_MACHINE else self.goal.target
        known = {a.name for a in self.layers}
        held = {s: c for s, c in picks.items() if s in known and c != "fp32"}
        found = estimate(self.layers, held, profile(target), batch=self.batch)
        if self.goal.minimise == "energy-estimate":
            return found.joule / self.batch
        return found.seconds / self.batch
