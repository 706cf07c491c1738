"""Losses of pairs, on examples small enough to do by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from justenough.core import metrics
from justenough.core.contract import Clause, Contract, parse_clause
from justenough.core.judge import Paired, judge_clause, unit_losses
from justenough.core.metrics import lost_from_top
from justenough.errors import InputError

NAN, INF = math.nan, math.inf


def test_a_cut_decides_yes_above_it() -> None:
    reference = np.array([[0.5], [0.6], [0.4], [0.9]])
    candidate = np.array([[0.6], [0.5], [0.3], [NAN]])
    assert metrics.cut_changed(reference, candidate, 0.5).tolist() == [1, 1, 0, 1]
    many = np.array([[0.0, 1.0], [1.0, 1.0]])
    assert metrics.cut_changed(many, many[:, ::-1], 0.5).tolist() == [1, 0]


def test_argmax_takes_the_first_of_equals() -> None:
    reference = np.array([[1.0, 1.0, 0.0], [0.0, 2.0, 1.0], [0.0, 2.0, 1.0]])
    candidate = np.array([[1.0, 1.0, 1.0], [0.0, 1.0, 1.0], [2.0, 2.0, 1.0]])
    assert metrics.argmax_changed(reference, candidate, 1).tolist() == [0, 0, 1]
    lost = np.array([[0.0, INF, 1.0]])
    assert metrics.argmax_changed(reference[1:2], lost, 1).tolist() == [1]


def test_argmax_of_a_map_changes_with_any_place() -> None:
    reference = np.zeros((2, 3, 4))
    reference[:, 0] = 1
    candidate = reference.copy()
    candidate[1, 2, 3] = 2
    assert metrics.argmax_changed(reference, candidate, 1).tolist() == [0, 1]


def test_top_k_looks_at_the_set_and_counts_ties_at_its_edge() -> None:
    reference = np.tile([4.0, 3.0, 2.0, 1.0], (5, 1))
    candidate = np.array(
        [[3, 4, 2, 1], [4, 2, 3, 1], [4, 2, 2, 1], [4, 3, NAN, 1], [9, 8, 7, 6]], float
    )
    assert metrics.top_k_changed(reference, candidate, 2, 1).tolist() == [0, 1, 1, 1, 0]
    tied = np.array([[4.0, 2.0, 2.0, 1.0]])
    assert metrics.top_k_changed(tied, tied, 2, 1).tolist() == [0]
    assert metrics.top_k_changed(tied, tied + 1, 2, 1).tolist() == [1]


@pytest.mark.parametrize("k", [3, 4])
def test_top_k_needs_more_than_k(k: int) -> None:
    with pytest.raises(InputError, match=rf"top_k_stability\({k}\) needs more than k values"):
        metrics.top_k_changed(np.zeros((2, 3)), np.zeros((2, 3)), k, 1)


def test_moved_by_eps_or_more() -> None:
    reference = np.array([0.0, 0.0, 0.0, 1e9])
    candidate = np.array([0.99, 1.0, NAN, 1e9 + 1.5])
    assert metrics.moved(reference, candidate, 1.0).tolist() == [0, 1, 1, 1]
    near = np.array([1.0, -2.0, 0.0, 0.0, 5.0])
    far = np.array([1.09, -2.3, 0.0, 1e-30, INF])
    assert metrics.moved_relatively(near, far, 0.1).tolist() == [0, 1, 0, 1, 1]


def test_losses_of_units() -> None:
    losses, units = np.array([0.0, 1.0, 0.5, 0.0]), np.array([0, 0, 1, 1])
    assert metrics.per_unit(losses, units, "any").tolist() == [1, 0.5]
    assert metrics.per_unit(losses, units, "mean").tolist() == [0.5, 0.25]
    assert np.isnan(metrics.largest_of_unit(np.array([1.0, NAN]), np.array([0, 0])))[0]


def test_signal_is_centred_or_not() -> None:
    reference = np.array([[101.0, 0.0], [99.0, 0.0]])
    assert metrics.signal_power(reference, centred=True).tolist() == [1, 1]
    assert metrics.signal_power(reference, centred=False).tolist() == [10201, 9801]
    assert metrics.noise_power(reference, reference + np.array([[1, 2], [0, 3]])).tolist() == [
        5,
        9,
    ]


def _lost(reference: list[float], candidate: list[float], k: int, units: list[int]) -> list[float]:
    pairs = Paired(
        {"y": np.array(reference)}, {"y": np.array(candidate)}, np.array(units, dtype=np.intp)
    )
    return [float(x) for x in unit_losses(Clause("top_k_overlap", 0.9, k=k), pairs)]


def test_top_k_overlap_shares_ties() -> None:
    rows = list(range(6))
    reference = [6.0, 5, 4, 3, 2, 1]
    assert _lost(reference, reference, 2, rows) == [0, 0]
    assert _lost(reference, [6.0, 4, 5, 3, 2, 1], 2, rows) == [0, 1]
    # Three tie for two places: each is in with probability 2/3.
    assert _lost(reference, [9.0, 9, 9, 0, 0, 0], 2, rows) == pytest.approx([1 / 3, 1 / 3])
    # One is above, two tie for the other place.
    assert _lost(reference, [9.0, 8, 8, 0, 0, 0], 2, rows) == [0, 0.5]
    # The reference ties as well: the candidate that keeps its tie loses nothing,
    tied = [6.0, 5, 5, 3, 2, 1]
    assert _lost(tied, tied, 2, rows) == [0, 0, 0]
    # and one that breaks it loses what the other had.
    assert _lost(tied, [6.0, 5, 4, 3, 2, 1], 2, rows) == [0, 0, 1]
    assert _lost(reference, [NAN, 5, 4, 3, 2, 1], 2, rows) == [1, 0]


def test_top_k_overlap_of_a_group_is_that_of_its_worst_row() -> None:
    reference = [6.0, 5, 4, 3, 2, 1]
    assert _lost(reference, [6.0, 0, 4, 3, 2, 1], 2, [0, 0, 1, 1, 2, 2]) == [1]
    with pytest.raises(InputError, match=r"top_k_overlap\(6\) needs more than 6 cases, there are"):
        _lost(reference, reference, 6, list(range(6)))


@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_what_a_list_loses_is_counted(seed: int, noise: float) -> None:
    rng = np.random.default_rng(seed)
    ref = rng.permutation(40)[None] / 40
    cand = ref + noise * rng.permutation(40)[None] / 41
    top, other = (set(np.argsort(-y[0])[:10].tolist()) for y in (ref, cand))
    lost = lost_from_top(ref, cand, 10, 1)
    assert lost == pytest.approx([1 - len(top & other) / 10])


@given(st.integers(0, 2**32 - 1))
def test_a_tie_loses_what_a_coin_would_lose(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ref = rng.permutation(30)[None].astype(float)
    cand = np.floor(ref / 4)
    inside = np.argsort(-ref[0])[:10]
    found = []
    for _ in range(400):
        order = np.lexsort((rng.random(30), -cand[0]))
        found.append(1 - len(set(inside.tolist()) & set(order[:10].tolist())) / 10)
    assert lost_from_top(ref, cand, 10, 1)[0] == pytest.approx(np.mean(found), abs=0.03)


def test_a_list_without_numbers_is_lost() -> None:
    ref = np.arange(60.0).reshape(2, 30)
    cand = ref.copy()
    cand[1, 0] = np.nan
    assert lost_from_top(ref, cand, 10, 1).tolist() == [0.0, 1.0]


def test_lists_along_another_axis_are_the_same() -> None:
    rng = np.random.default_rng(0)
    ref, cand = rng.normal(size=(2, 5, 20, 3))
    apart = [lost_from_top(ref[..., j], cand[..., j], 4, 1) for j in range(3)]
    np.testing.assert_allclose(lost_from_top(ref, cand, 4, 1), np.mean(apart, 0))


def test_a_clause_about_lists_is_about_the_mean_share() -> None:
    """Groups as units: each the mean of its cases, or its worst case."""
    ref = np.tile(np.arange(30.0), (4, 1))
    cand = ref.copy()
    cand[0, 19] = 40  # one of ten lost in the first case of the first group
    pairs = Paired({"y": ref}, {"y": cand}, np.array([0, 0, 1, 1]))
    for per, lost in (("mean", 0.05), ("any", 0.1)):
        clause = parse_clause(f"top_k_overlap(10, axis=1, per={per}) >= 0.9")
        assert unit_losses(clause, pairs).tolist() == pytest.approx([lost, 0.0])
        assert parse_clause(clause.text) == clause
        got = judge_clause(clause, pairs, 0.05)
        assert got.estimate == pytest.approx(1 - lost / 2)
        assert "betting" in got.method and got.unit == "mean share of each case's top"
    contract = Contract((parse_clause("top_k_overlap(10, axis=1) >= 0.9"),))
    assert contract.scaled(0.1) == contract and contract.gate({"y": ref}) is None
    for wrong in ("top_k_overlap(30, axis=1) >= 0.9", "top_k_overlap(3, axis=2) >= 0.9"):
        with pytest.raises(InputError, match=r"k=30 of 30 values|axis=2 is not a class axis"):
            Contract((parse_clause(wrong),)).check({"y": ref})
