"""A curve keeps its word for whichever point the reader picks, and so do cascades of three stages.

The worlds and the road are those of `test_selection.py`; a curve judges every point at its share
of alpha instead of one after the other.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from test_selection import (
    ALLOWED,
    ALONE,
    ALPHA,
    BOUNDARY,
    CALLS,
    CLUSTERS,
    Drawn,
    World,
    _allowance,
    _confident,
    _held,
    _plan,
    _print,
)

from justenough.core.contract import Contract
from justenough.measured import CURVE_POINTS
from justenough.search.chain import DeferralCost, Measured, Middle, Rung, rungs

pytestmark = [pytest.mark.slow, pytest.mark.coverage_study]
# At alpha / 6 one changed unit of 700 may still hold 0.99; 299 could never show it.
ENOUGH = 700


def _points(contract: Contract, search: Drawn) -> list[Rung]:
    """What measured._rungs keeps of a plan for a curve."""
    order = _plan(contract, search)
    pick = np.unique(np.linspace(0, len(order) - 1, min(len(order), CURVE_POINTS)).astype(int))
    return [order[i] for i in pick]


def _all_at(alpha: float, contract: Contract, points: Sequence[Rung], fresh: Drawn) -> list[Rung]:
    """Every point judged for itself at `alpha`: those that held."""
    each = replace(contract, alpha=alpha)
    return [p for p in points if _held(each, [p], fresh)]


@dataclass(frozen=True)
class Curve:
    """Shares of runs with a false point, and of those where the fastest that held is false."""

    any_false: float
    picked_false: float
    naive: float
    held: float
    points: float


def _play(world: World, seed: int, *, searches: int, certifications: int, units: int) -> Curve:
    rng = np.random.default_rng(seed)
    contract = Contract((world.clause,), ALPHA)
    any_false = picked = naive = held = drawn = 0
    for _ in range(searches):
        points = _points(contract, world.draw(rng, 100))
        drawn += len(points)
        false = {p: world.rate(p) > world.allowed - 1e-12 for p in points}
        for _ in range(certifications):
            fresh = world.draw(rng, units)
            kept = _all_at(ALPHA / len(points), contract, points, fresh)
            loose = _all_at(ALPHA, contract, points, fresh)
            held += bool(kept)
            any_false += any(false[p] for p in kept)
            picked += bool(kept) and false[min(kept, key=lambda p: p.seconds)]
            naive += bool(loose) and false[min(loose, key=lambda p: p.seconds)]
    n = searches * certifications
    return Curve(any_false / n, picked / n, naive / n, held / n, drawn / searches)


@pytest.mark.parametrize(
    "name",
    [
        "own flips, alone",
        "six variants, alone",
        "six variants, groups, icc 0.3",
        "groups, icc 0.3, any",
        "bold rungs break it, alone",
    ],
)
def test_no_point_of_a_curve_is_false_more_often_than_alpha(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("justenough.stats.bounded.mean_lower", lambda *_, **__: 0.0)
    runs = 30 * 20
    got = _play(BOUNDARY[name](), len(name), searches=30, certifications=20, units=ENOUGH)
    _print(name, got)
    assert 1 < got.points <= CURVE_POINTS
    assert got.picked_false <= got.any_false <= _allowance(runs)


def test_each_point_at_alpha_and_then_the_best_breaks_the_promise() -> None:
    """Six variants with failures of their own, all exactly at the limit."""
    got = _play(BOUNDARY["six variants, alone"](), 3, searches=20, certifications=30, units=ENOUGH)
    _print("naive curve", got)
    assert got.points > 5
    assert got.any_false <= _allowance(600)
    assert got.naive > _allowance(600) + 0.05


def test_a_curve_still_shows_what_is_well_within_the_limit() -> None:
    world = _confident(3, shared=True, icc=0, sizes=ALONE, per="any", rate=0.0015, allowed=0.02)
    got = _play(world, 4, searches=10, certifications=20, units=ENOUGH)
    _print("power of a curve", got)
    assert got.held >= 0.9 and got.any_false == 0.0


# Three stages


def _three(contract: Contract, search: Drawn) -> list[Rung]:
    """A plan whose deferred rows may be answered by any of the other variants first."""
    exact = {"y": search.reference}
    gate = contract.gate(exact)
    assert gate is not None
    margins = gate.signed(exact, exact)
    measured = []
    for k, (name, scores) in enumerate(search.variants.items()):
        answers = {"y": scores}
        noise = float(((scores - search.reference) ** 2).mean())
        seconds = 0.6 - 0.08 * k
        measured.append(
            Measured(name, seconds, gate.signed(exact, answers), gate.margin(answers), noise)
        )
    middles = [
        Middle(m, DeferralCost(0.0, 0.1 + 0.02 * k, CALLS.batch)) for k, m in enumerate(measured)
    ]
    return rungs(margins, measured, 1.0, DeferralCost(0.01, 2.0, CALLS.batch), middles)


THREE: dict[str, Callable[[], World]] = {
    "alone": lambda: _confident(
        5, shared=False, icc=0, sizes=ALONE, per="any", rate=ALLOWED
    ),
    "groups": lambda: _confident(
        4, shared=False, icc=0.3, sizes=CLUSTERS, per="any", rate=ALLOWED
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", THREE)
def test_three_stages_chosen_among_many_are_false_at_most_alpha_of_the_time(name: str) -> None:
    """Flips that no margin catches, at the limit in every stage: all that holds is false.

    A middle stage answers rows that the exact one would have, so that a rung of three stages
    changes as much as its first stage alone, and more.
    """
    world, rng = THREE[name](), np.random.default_rng(31)
    contract = Contract((world.clause,), ALPHA)
    searches, certifications = 30, 30
    false = free = planned = middle = 0
    for _ in range(searches):
        plan = _three(contract, world.draw(rng, 150))
        between = [r for r in plan if r.middle is not None]
        planned += len(plan)
        middle += len(between)
        for k in range(certifications):
            fresh = world.draw(rng, 299)
            false += bool(_held(contract, plan, fresh))
            if k < 10:
                free += bool(_all_at(ALPHA, contract, plan, fresh))
    runs = searches * certifications
    _print("three stages", name, false / runs, free / (10 * searches), planned / searches,
           middle / planned)  # fmt: skip
    assert middle >= searches, "three stages were hardly ever worth a try"
    assert false / runs <= _allowance(runs)
    assert free / (10 * searches) > false / runs


def test_a_middle_stage_changes_what_only_it_answered() -> None:
    """Rows pass both gates, or are answered where they stop: on all rows that are drawn."""
    world, rng = THREE["alone"](), np.random.default_rng(32)
    contract = Contract((world.clause,), ALPHA)
    drawn = world.draw(rng, 4000)
    gate = contract.gate({"y": drawn.reference})
    assert gate is not None
    first, second = drawn.variants["v0"], drawn.variants["v1"]
    passed = gate.margin({"y": first}) <= 1.0
    again = passed & (gate.margin({"y": second}) <= 0.2)
    want = np.where(passed[:, None], second, first)
    want = np.where(again[:, None], drawn.reference, want)
    wrong = (want > 0) != (drawn.reference > 0)
    alone = (first > 0) != (drawn.reference > 0)
    assert wrong[~passed].sum() == alone[~passed].sum()
    assert wrong.mean() >= alone[~passed].sum() / len(wrong) and not wrong[again].any()
    rung = Rung("v0", 1.0, 0.0, 0.0, 0.5, "v1", 0.2, 0.0)
    broken = replace(contract.clauses[0], bound=1 - 0.5 * float(wrong.mean()))
    loose = replace(contract.clauses[0], bound=1 - 2.5 * float(wrong.mean()))
    assert not _held(Contract((broken,), ALPHA), [rung], drawn)
    assert _held(Contract((loose,), ALPHA), [rung], drawn)
