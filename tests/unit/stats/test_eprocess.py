import dataclasses
import json
import math
from itertools import pairwise

import pytest
from scipy.special import logsumexp
from scipy.stats import binom

from justenough.stats.eprocess import (
    _CLOSENESS,
    _WEIGHTS,
    FailureProcess,
    anytime_units_needed,
    log_evidence,
)
from justenough.stats.proportion import clopper_pearson_upper, units_needed


def test_evidence_is_the_mixture_of_likelihood_ratios() -> None:
    """Each alternative written out as two binomial likelihoods."""
    for k, n, p0 in ((0, 50, 0.1), (3, 200, 0.03), (7, 9, 0.9), (40, 40, 0.5)):
        odds = (1 - _CLOSENESS) * p0 / (1 - p0)
        q = odds / (1 + odds)
        ratios = binom.logpmf(k, n, q) - binom.logpmf(k, n, p0)
        wanted = logsumexp(ratios, b=_WEIGHTS)
        assert log_evidence(k, n, p0) == pytest.approx(float(wanted), abs=1e-9)


def test_weights_sum_to_one() -> None:
    assert _WEIGHTS.sum() == pytest.approx(1.0, abs=1e-15)
    assert len(_WEIGHTS) == len(_CLOSENESS)


@pytest.mark.parametrize("p0", [0.001, 0.3, 0.99])
def test_one_trial_at_p0_is_a_fair_game(p0: float) -> None:
    """Expectation of E after one more trial is E at p0, and less for p > p0."""
    for k, n in ((0, 0), (2, 30), (30, 30)):
        now = log_evidence(k, n, p0)
        fail, pass_ = (math.exp(log_evidence(k + f, n + 1, p0) - now) for f in (1, 0))
        assert p0 * fail + (1 - p0) * pass_ == pytest.approx(1.0, abs=1e-9)
        more = 0.5 * (1 + p0)
        assert more * fail + (1 - more) * pass_ <= 1.0 + 1e-12


def test_bounds_are_where_the_evidence_reaches_its_goal() -> None:
    process = FailureProcess(p0=0.05, alpha=0.01).extended(400, 11)
    goal = -math.log(0.01)
    assert log_evidence(11, 400, process.upper) == pytest.approx(goal, abs=1e-6)
    assert log_evidence(389, 400, 1 - process.lower) == pytest.approx(goal, abs=1e-6)
    assert process.lower < 11 / 400 < process.upper
    assert process.upper > clopper_pearson_upper(11, 400, alpha=0.01)


def test_bounds_only_tighten_and_ends_are_open() -> None:
    start = FailureProcess(p0=0.5, alpha=0.05)
    assert (start.lower, start.upper, start.decision) == (0.0, 1.0, "undecided")
    all_failed, none = start.extended(3, 3), start.extended(3, 0)
    assert (all_failed.upper, none.lower) == (1.0, 0.0)
    then = none.extended(3, 3)
    assert (then.upper, then.lower) == (none.upper, max(0.0, then.lower))


def test_decisions() -> None:
    start = FailureProcess(p0=0.01, alpha=0.05)
    assert start.extended(353, 0).decision == "undecided"
    assert start.extended(354, 0).decision == "held"
    assert start.extended(100, 9).decision == "broken"
    held = start.extended(354, 0)
    assert held.extended(100, 5).decision == "held"  # shown once is shown
    assert held.can_still_hold(354)
    # Shown both ways, as happens with probability alpha at most: nothing is believed.
    assert held.extended(100, 60).decision == "undecided"


def test_futility_is_exact() -> None:
    process = FailureProcess(p0=0.01, alpha=0.05).extended(100, 2)
    n = anytime_units_needed(2, at_most=0.01, alpha=0.05)
    assert not process.can_still_hold(n - 1)
    assert process.can_still_hold(n)
    assert process.extended(n - 100, 0).decision == "held"
    assert process.extended(n - 101, 0).decision == "undecided"


def test_state_survives_json() -> None:
    process = FailureProcess(p0=0.005, alpha=0.05).extended(700, 2)
    again = FailureProcess(**json.loads(json.dumps(dataclasses.asdict(process))))
    assert again == process
    assert again.extended(500, 0) == process.extended(500, 0)


@pytest.mark.parametrize(
    ("at_most", "price"), [(0.05, 70), (0.01, 354), (0.005, 710), (0.001, 3555)]
)
def test_the_price_is_a_fifth_more(at_most: float, price: int) -> None:
    fixed = units_needed(0, at_least=1 - at_most, alpha=0.05)
    assert anytime_units_needed(0, at_most=at_most, alpha=0.05) == price
    assert 1.15 < price / fixed < 1.2


def test_the_sequence_shrinks_with_n() -> None:
    """Relative width of the upper bound at a rate of 10 %, looked at once."""
    widths = [
        FailureProcess(p0=0.5, alpha=0.05).extended(n, n // 10).upper / 0.1 - 1
        for n in (10**3, 10**4, 10**5, 10**6, 10**7)
    ]
    assert all(a > b for a, b in pairwise(widths))
    assert widths[-1] < 0.005
