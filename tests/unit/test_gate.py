"""Margins, and which rows a threshold defers."""

import math

import numpy as np
import pytest

from justenough.core.gate import Gate

ROWS = {"y": np.array([[4.0, 3.0, 1.0], [0.0, 0.0, 5.0], [2.0, 2.0, 0.0]])}


def test_margins_of_the_top() -> None:
    assert Gate("y").margin(ROWS).tolist() == [1, 5, 0]
    assert Gate("y", k=2).margin(ROWS).tolist() == [2, 0, 2]
    assert Gate("y", k=3).margin(ROWS).tolist() == [math.inf] * 3


def test_margins_of_a_cut() -> None:
    y = {"y": np.array([[0.25, 3.0], [-1.0, 0.75]])}
    assert Gate("y", "cut", cut=0.5, column=0).margin(y).tolist() == [0.25, 1.5]
    assert Gate("y", "cut", cut=0.5).margin(y).tolist() == [0.25, 0.25]


def test_further_axes_take_the_smallest_margin() -> None:
    y = np.zeros((1, 3, 2))
    y[0, 0] = [5, 1]
    assert Gate("y").margin({"y": y}).tolist() == [1]
    assert Gate("y", axis=-1).margin({"y": y}).tolist() == [0]


@pytest.mark.parametrize(("threshold", "deferred"), [(0.0, 1), (0.999, 1), (1.0, 2), (9.0, 3)])
def test_a_tie_with_the_threshold_is_deferred(threshold: float, deferred: int) -> None:
    assert Gate("y", threshold=threshold).deferred(ROWS).sum() == deferred


def test_what_is_not_a_number_is_deferred() -> None:
    y = {"y": np.array([[math.nan, 1.0], [math.inf, 1.0], [3.0, 1.0]])}
    assert Gate("y").deferred(y).tolist() == [True, False, False]
    score = {"y": np.array([[math.nan], [1.0]])}
    assert Gate("y", "cut").deferred(score).tolist() == [True, False]


def test_signed_margins_say_how_far_the_decision_was_kept() -> None:
    reference = {"y": np.array([[3.0, 1.0], [3.0, 1.0], [1.0, 3.0]])}
    candidate = {"y": np.array([[2.5, 1.0], [1.0, 1.5], [1.0, 9.0]])}
    assert Gate("y").signed(reference, reference).tolist() == [2, 2, 2]
    assert Gate("y").signed(reference, candidate).tolist() == [1.5, -0.5, 8]
    score = {"y": np.array([[1.0], [-1.0], [0.0]])}
    moved = {"y": np.array([[0.5], [0.25], [-0.5]])}
    assert Gate("y", "cut").signed(score, moved).tolist() == [0.5, -0.25, 0.5]
    assert Gate("y", k=2).signed(reference, candidate).tolist() == [math.inf] * 3


def test_signed_equals_the_margin_where_nothing_changed() -> None:
    rng = np.random.default_rng(0)
    reference, candidate = ({"y": rng.standard_normal((200, 5))} for _ in range(2))
    for k in (1, 2, 4):
        gate = Gate("y", k=k)
        kept = gate.signed(reference, candidate)
        assert np.array_equal(kept[kept > 0], gate.margin(candidate)[kept > 0])
