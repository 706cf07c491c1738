"""The chain: from safe to bold, each candidate cheaper than all before it."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from justenough.core.subject import Variant
from justenough.cost.table import CostTable, Unit
from justenough.search.chain import (
    MAX_RUNGS,
    DeferralCost,
    Measured,
    between,
    deferral_for,
    pareto_chain,
    predicted_risk,
    rungs,
    thresholds,
)
from justenough.search.program import additive_program, build_program

COST = DeferralCost(0.0, 1.0, 1)


def _measured(name: str, seconds: float, noise: float, seed: int = 0) -> Measured:
    rng = np.random.default_rng(seed)
    kept = MARGINS + noise * rng.standard_normal(len(MARGINS))
    return Measured(name, seconds, kept, np.abs(kept), noise**2)


MARGINS = np.abs(np.random.default_rng(5).standard_normal(300))


def test_predicted_risk_by_hand() -> None:
    reference, kept = np.array([1.0, 4.0]), np.array([3.0, 4.0])  # errors 2 and 0
    assert predicted_risk(reference, kept, 0.0) == 1 / 2 / 2 / 2
    assert predicted_risk(reference, kept, 1.0) == 0  # an error must exceed margin and threshold
    assert predicted_risk(reference, kept, 0.999) == 1 / 8


def test_thresholds_fall_from_four_times_the_largest_error() -> None:
    got = thresholds(np.array([1.0, 4.0]), np.array([3.0, 4.0]))
    assert (got[0], got[-1]) == (8.0, 8.0 / 2**8)
    assert got.dtype == np.float32
    assert (np.diff(got) < 0).all()


def test_risk_falls_with_the_threshold() -> None:
    m = _measured("v", 0.5, 0.3)
    assert m.kept is not None
    kept = m.kept
    risk = [predicted_risk(MARGINS, kept, float(t)) for t in thresholds(MARGINS, kept)]
    assert (np.diff(risk) >= 0).all()


def test_deferral_for_a_risk() -> None:
    m = _measured("v", 0.5, 0.3)
    shares = [deferral_for(MARGINS, m, target) for target in (1e-5, 1e-3, 1e-1)]
    assert shares[0] > shares[1] > shares[2] >= 0
    assert m.kept is not None
    lost = Measured("v", 0.5, np.where(MARGINS > 2, np.nan, m.kept), m.margin, 1.0)
    assert deferral_for(MARGINS, lost, 0.1) == 1.0


def test_cost_of_deferral() -> None:
    assert DeferralCost(0.0, 2.0, 8).per_case(0.25) == 0.5
    assert DeferralCost(8.0, 0.0, 8).per_case(1.0) == 1.0
    assert DeferralCost(8.0, 0.0, 2).per_case(0.5) == pytest.approx(0.75 * 8 / 2)
    assert DeferralCost(1.0, 1.0, 8).per_case(0.0) == 0.0


@given(
    st.lists(st.tuples(st.floats(0.05, 1.2), st.floats(1e-4, 1.0)), min_size=1, max_size=5),
    st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_rungs_go_from_safe_to_bold_and_get_cheaper(
    variants: list[tuple[float, float]], seed: int
) -> None:
    measured = [_measured(f"v{k}", s, e, seed) for k, (s, e) in enumerate(variants)]
    got = rungs(MARGINS, measured, 1.0, COST)
    assert len(got) <= MAX_RUNGS
    assert all(b.risk >= a.risk for a, b in pairwise(got))
    assert all(b.seconds < a.seconds for a, b in pairwise(got))
    assert all(r.seconds < 1.0 for r in got)
    cheapest = min(s for s, _ in variants)
    # A variant has to be worth 2 % of the cost, each of those left out.
    assert not got or got[-1].seconds <= cheapest * 1.02 ** len(variants) / 0.995


def test_rungs_without_a_margin_are_plain_and_ordered_by_noise() -> None:
    measured = [
        Measured("loud", 0.2, None, None, 9.0),
        Measured("quiet", 0.5, None, None, 1.0),
        Measured("dear", 1.0, None, None, 0.5),
        Measured("worse", 0.6, None, None, 2.0),
    ]
    got = rungs(None, measured, 1.0, COST)
    assert [(r.variant, r.threshold) for r in got] == [("quiet", None), ("loud", None)]


def test_a_variant_without_error_needs_no_threshold() -> None:
    same = Measured("same", 0.5, MARGINS, MARGINS, 0.0)
    first = rungs(MARGINS, [same], 1.0, COST)[0]
    assert (first.variant, first.threshold, first.risk) == ("same", None, 0.0)


def test_a_variant_that_answers_with_no_number_is_dropped() -> None:
    good = _measured("good", 0.5, 0.1)
    assert good.kept is not None
    lost = np.where(MARGINS > 2, np.nan, good.kept)
    bad = Measured("bad", 0.1, lost, lost, np.nan)
    assert {r.variant for r in rungs(MARGINS, [bad, good], 1.0, COST)} == {"good"}
    assert rungs(None, [Measured("bad", 0.1, None, None, np.nan)], 1.0, COST) == []


def test_a_long_chain_is_thinned_and_keeps_its_ends() -> None:
    margins = np.geomspace(0.01, 3, 300)
    kept = margins - np.where(np.arange(300) == 150, 0.75, 0.0)
    got = rungs(margins, [Measured("v", 0.05, kept, margins, 0.01)], 1.0, DeferralCost(0, 0.9, 1))
    assert len(got) == MAX_RUNGS
    assert got[0].threshold is not None
    assert got[0].threshold > 2
    assert got[-1].threshold is None


def test_a_variant_has_to_be_worth_its_pass_over_the_cases() -> None:
    twins = [_measured("one", 0.5, 0.1), _measured("two", 0.499, 0.1001)]
    assert len({r.variant for r in rungs(MARGINS, twins, 1.0, COST)}) == 1


def test_without_a_margin_nothing_takes_the_place_of_a_variant_in_the_middle() -> None:
    measured = [Measured(f"v{k}", 0.9 - 0.1 * k, None, None, float(k)) for k in range(6)]
    got = rungs(None, measured, 1.0, COST)
    assert [r.variant for r in got] == [f"v{k}" for k in range(6)]


def test_a_chain_of_proposals_gets_quieter_by_3_db() -> None:
    units = tuple(Unit(f"n{k}", f"s{k}", (), 2.0, 1.0) for k in range(8))
    noise = {(f"s{k}", "int8"): 4.0**k for k in range(8)}
    chain = pareto_chain(build_program(CostTable(units, (), 16.0)), noise)
    assert len(chain[0].variant.picks) == 8
    assert all(b.noise <= a.noise / 1.99 for a, b in pairwise(chain))
    assert all(b.cost >= a.cost for a, b in pairwise(chain))
    assert all(p.cost < 16.0 for p in chain)
    assert len({p.variant for p in chain}) == len(chain)


def test_no_proposal_where_nothing_is_faster() -> None:
    table = CostTable((Unit("n", "s", (), 1.0, 2.0),), (), 1.0)
    assert pareto_chain(build_program(table), {("s", "int8"): 1.0}) == []
    assert Variant.of({"s": "fp32"}).picks == ()


def test_budgets_reach_what_is_careful_however_noisy_the_first_is() -> None:
    sites = [f"s{k}" for k in range(12)]
    noise = {(s, c): p for s in sites for c, p in (("two", 1e4), ("four", 1e2), ("eight", 1.0))}
    change = {(s, c): -x for s in sites for c, x in (("two", 30), ("four", 28), ("eight", 24))}
    program = additive_program({k: float(v) for k, v in change.items()}, 32.0 * 12)
    usual = pareto_chain(program, noise, most=5)
    wide = pareto_chain(program, noise, most=5, careful=6.0)
    assert usual[0] == wide[0]
    assert usual[-1].noise > 20 * wide[-1].noise, "3 dB at a time do not get there"
    assert wide[-1].noise <= 12 * 1.01
    inside = between(program, noise, 12.0, 1200.0, most=3)
    assert [12 <= p.noise <= 1200 for p in inside] == [True] * 3
    assert all(b.noise < a.noise and b.cost > a.cost for a, b in pairwise(inside))
    assert between(program, noise, 12.0, 12.0, most=3) == []


def test_a_pinned_choice_without_noise_ends_the_chain() -> None:
    program = additive_program({("s", "int8"): -1.0, ("t", "int8"): -1.0}, 4.0)
    got = pareto_chain(program, {}, pins={"s": "int8"})
    assert [p.variant.picks for p in got] == [(("s", "int8"),)]
