"""The chain of candidates, from safe to bold, fixed before certification cases are read."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from justenough.core.subject import Variant
from justenough.search.program import Noise, Program

Array = NDArray[Any]
STEP_DB = 3.0
MAX_VARIANTS = 6
MAX_RUNGS = 24


@dataclass(frozen=True)
class Proposal:
    """A variant that the program proposes: cheapest within its noise.

    Attributes:
        cost: Predicted cost, in the objective's unit per call.
        noise: Predicted noise power, in squared units of the score.
    """

    variant: Variant
    cost: float
    noise: float


def pareto_chain(
    program: Program,
    noise: Noise,
    *,
    most: int = MAX_VARIANTS,
    pins: Mapping[str, str] = {},
    careful: float = np.inf,
) -> list[Proposal]:
    """Return the cheapest variant for each of a row of noise budgets, boldest first.

    Budgets fall from the noise of the unconstrained optimum until nothing is cheaper than
    picking nothing: by 3 dB, or faster where `careful` would not be reached.

    Args:
        program: Of a family.
        noise: Noise power by (site, choice), in squared units of the score.
        most: Variants to propose.
        pins: Choice by site that is settled.
        careful: Noise power that one of the last budgets should come down to.
    """
    out: list[Proposal] = []
    budget, step = np.inf, STEP_DB
    while len(out) < most:
        found = _proposed(program, noise, budget, pins)
        if found is None:
            break
        if not out and 0 < careful < found.noise and most > 1:
            step = max(step, 10 * np.log10(found.noise / careful) / (most - 1))
        if all(found.variant.picks != p.variant.picks for p in out):
            out.append(found)
        if found.noise <= 0:
            break
        budget = found.noise * 10 ** (-step / 10)
    return out


def between(
    program: Program,
    noise: Noise,
    low: float,
    high: float,
    *,
    most: int,
    pins: Mapping[str, str] = {},
) -> list[Proposal]:
    """Return the cheapest variants for `most` budgets between two noise powers, boldest first."""
    out: list[Proposal] = []
    for budget in np.geomspace(high, low, most + 2)[1:-1] if 0 < low < high else ():
        found = _proposed(program, noise, float(budget), pins)
        if found is not None and all(found.variant.picks != p.variant.picks for p in out):
            out.append(found)
    return out


def _proposed(
    program: Program, noise: Noise, budget: float, pins: Mapping[str, str]
) -> Proposal | None:
    """The cheapest variant within a budget, if it is cheaper than picking nothing."""
    found = program.solve(noise, budget, pins=pins)
    if found is None or not found[0].picks or found[1] >= program.base:
        return None
    variant, cost = found
    return Proposal(variant, cost, sum(noise.get(p, 0.0) for p in variant.picks))


@dataclass(frozen=True)
class Measured:
    """What the search cases say of a built variant.

    Attributes:
        name: Key of the variant.
        seconds: Measured seconds per case.
        kept: (n,) signed margin by which it keeps the reference's decision, or None
            where the contract has no margin.
        margin: (n,) margin that its own gate reads, or None.
        noise: Mean squared change of the score.
        gate_s: Seconds per case that looking at its margins takes, deferred or not.
    """

    name: str
    seconds: float
    kept: Array | None
    margin: Array | None
    noise: float
    gate_s: float = 0.0


@dataclass(frozen=True)
class Rung:
    """One candidate: a variant, alone or with a threshold below which rows are deferred.

    Attributes:
        threshold: In the margin's unit; None means no cascade.
        deferral: Predicted share of rows that the exact stage answers.
        risk: Predicted share of rows changed; it only ranks.
        seconds: Predicted seconds per case.
        middle: A second variant, which answers deferred rows first; None with two stages.
        middle_threshold: Margin of its own up to which it passes rows on.
        passed: Predicted share of rows that the first stage passes on.
    """

    variant: str
    threshold: float | None
    deferral: float
    risk: float
    seconds: float
    middle: str | None = None
    middle_threshold: float | None = None
    passed: float = 0.0


@dataclass(frozen=True)
class DeferralCost:
    """Seconds of the exact stage for K rows of one call: `fixed` + `per_row` K.

    Attributes:
        batch: Rows of a call.
        gate: Seconds per case that looking at the margins takes, deferred or not.
    """

    fixed: float
    per_row: float
    batch: int
    gate: float = 0.0

    def per_case(self, deferral: float) -> float:
        """Expected seconds per case when rows are deferred independently."""
        some = 1 - (1 - deferral) ** self.batch
        return self.gate + some * self.fixed / self.batch + deferral * self.per_row


def predicted_risk(reference: Array, kept: Array, threshold: float) -> float:
    """Share of rows that change and are not deferred, were errors and margins independent.

    Every error seen on the search rows, with either sign, is laid on every margin of the
    reference: an empirical convolution, for the errors have far heavier tails than a normal
    law, which predicts far too few changes.

    Args:
        reference: (n,) signed margins of the reference.
        kept: (n,) signed margins of the candidate for the same decisions.
        threshold: Margin up to which rows are deferred, in the margins' unit.
    """
    error = np.sort(np.abs(reference - kept))
    over = len(error) - np.searchsorted(error, reference + threshold, side="right")
    return float(over.mean() / len(error) / 2)


def deferral_for(reference: Array, measured: Measured, target: float) -> float:
    """Share of rows to defer so that the predicted risk falls to `target`."""
    assert measured.kept is not None and measured.margin is not None
    if not np.isfinite(measured.kept).all():
        return 1.0
    for threshold in thresholds(reference, measured.kept)[::-1]:
        if predicted_risk(reference, measured.kept, threshold) <= target:
            return float((measured.margin <= threshold).mean())
    return 1.0


def thresholds(reference: Array, kept: Array) -> Array:
    """Thresholds to try, falling: from four times the largest error seen to a 1/64 of it."""
    largest = float(np.abs(reference - kept).max())
    return (4 * largest * 2.0 ** (-np.arange(0, 8.25, 0.25))).astype(np.float32)


@dataclass(frozen=True)
class Middle:
    """A variant that may answer deferred rows before the exact stage does, and what that costs."""

    measured: Measured
    cost: DeferralCost


def rungs(
    reference: Array | None,
    measured: Sequence[Measured],
    reference_s: float,
    cost: DeferralCost,
    middles: Sequence[Middle] = (),
    worst: float = np.inf,
) -> list[Rung]:
    """Candidates worth certifying, safest first, each cheaper than all before it.

    A candidate that is not cheaper than a safer one is dropped, and so is one that is not
    cheaper than the reference. A variant that answers a search row with no number is no
    candidate at all. Thresholds come from the search rows alone.

    Args:
        reference: (n,) signed margins of the reference; None without a margin, where every
            candidate is a plain variant.
        measured: What the search rows say of each built variant.
        reference_s: Seconds per case of the reference.
        cost: Seconds of the exact stage.
        middles: Variants that may stand between the first stage and the exact one.
        worst: Predicted risk above which nothing is worth a try; predictions err, so that it
            should be well above what the contract allows.
    """
    found: list[tuple[tuple[float, float], Rung]] = []
    for m in measured:
        if not np.isfinite(m.noise) or (m.kept is not None and not np.isfinite(m.kept).all()):
            continue
        if reference is None or m.kept is None or m.margin is None:
            found.append(((m.noise, 0.0), Rung(m.name, None, 0.0, m.noise, m.seconds)))
            continue
        plain = predicted_risk(reference, m.kept, 0.0)
        found.append(((plain, 0.0), Rung(m.name, None, 0.0, plain, m.seconds)))
        largest = float(np.abs(reference - m.kept).max()) or 1.0
        for rung in _cascades(reference, m, cost, middles):
            assert rung.threshold is not None
            found.append(((rung.risk, -rung.threshold / largest), rung))
    found.sort(key=lambda f: f[0])
    found = [f for f in found if f[1].risk <= worst] or found[:1]
    chain = _falling([r for _, r in found], reference_s)
    # A variant costs a pass over the certification cases: it has to be worth one. Without a
    # margin no threshold of another one takes its place between safe and bold: all stay.
    cascades = [] if reference is None else measured
    for m in sorted(cascades, key=lambda m: sum(_uses(r, m.name) for r in chain)):
        without = _falling([r for _, r in found if not _uses(r, m.name)], reference_s)
        if without and _no_worse(without, chain):
            chain = without
            found = [f for f in found if not _uses(f[1], m.name)]
    return _thinned(chain)


def _uses(rung: Rung, name: str) -> bool:
    return name in (rung.variant, rung.middle)


def _cascades(
    reference: Array, m: Measured, cost: DeferralCost, middles: Sequence[Middle]
) -> Iterator[Rung]:
    """Cascades of `m` with the exact stage, and with a middle one between them."""
    assert m.kept is not None and m.margin is not None
    between = [_steps_of(reference, b) for b in middles if b.measured.name != m.name]
    for t in thresholds(reference, m.kept):
        risk = predicted_risk(reference, m.kept, float(t))
        passed = m.margin <= t
        share = float(passed.mean())
        yield Rung(m.name, float(t), share, risk, m.seconds + m.gate_s + cost.per_case(share))
        for middle, steps in between:
            for t2, risk2, again in steps:
                both = float((passed & again).mean())
                spent = m.seconds + m.gate_s + middle.cost.per_case(share) + cost.per_case(both)
                yield Rung(
                    m.name, float(t), both, risk + risk2, spent,
                    middle.measured.name, t2, share,
                )  # fmt: skip


def _steps_of(reference: Array, middle: Middle) -> tuple[Middle, list[tuple[float, float, Array]]]:
    """Thresholds of a middle stage, with its risk on all rows and the rows that it passes on.

    The rows that reach it are those with small margins, where nearly all of its changes are,
    so its risk on all rows stands for its risk on them.
    """
    m = middle.measured
    if m.kept is None or m.margin is None or not np.isfinite(m.kept).all():
        return middle, []
    steps = thresholds(reference, m.kept)[::4]
    return middle, [
        (float(t), predicted_risk(reference, m.kept, float(t)), m.margin <= t) for t in steps
    ]


def _falling(order: Sequence[Rung], reference_s: float) -> list[Rung]:
    """The rungs that are cheaper than the reference and all safer rungs before them."""
    out: list[Rung] = []
    best = reference_s
    for rung in order:
        # A plain variant needs no file and no pass of its own: it may win by any margin.
        if rung.seconds < best * (1.0 if rung.threshold is None else 0.995):
            out.append(rung)
            best = rung.seconds
    return out


def _no_worse(chain: list[Rung], other: list[Rung]) -> bool:
    """Whether for each rung of `other`, `chain` has one as safe within 2 % of its cost."""
    return all(
        any(r.risk <= o.risk and r.seconds <= 1.02 * o.seconds for r in chain) for o in other
    )


def _thinned(chain: list[Rung]) -> list[Rung]:
    if len(chain) <= MAX_RUNGS:
        return chain
    pick = np.unique(np.linspace(0, len(chain) - 1, MAX_RUNGS).astype(int))
    return [chain[i] for i in pick]
