"""Losses of pairs, on examples small enough to do by hand."""

import math

import numpy as np
import pytest

from justenough.core import metrics
from justenough.core.contract import Clause
from justenough.core.judge import Paired, unit_losses
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
