import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import kendalltau

from justenough.errors import InputError
from justenough.stats.kendall import kendall_influence, kendall_interval, row_concordance
from justenough.stats.ranks import overlap_influence, top_overlap_interval, top_weights

Vector = NDArray[np.float64]
ROWS = np.arange(100.0)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=2, max_size=60))
def test_concordance_by_counting_equals_all_pairs(pairs: list[tuple[int, int]]) -> None:
    x, y = np.array(pairs, np.float64).T
    s, apart_x, apart_y = row_concordance(x, y)
    dx, dy = np.sign(x[:, None] - x), np.sign(y[:, None] - y)
    assert s.tolist() == (dx * dy).sum(1).tolist()
    assert apart_x.tolist() == np.abs(dx).sum(1).tolist()
    assert apart_y.tolist() == np.abs(dy).sum(1).tolist()


def test_kendall_influence_is_the_derivative() -> None:
    """By a row's weight; also where ties make shares of tied pairs move."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 6, 80).astype(np.float64)
    y = x + rng.integers(0, 6, 80)
    sx, sy = np.sign(x[:, None] - x), np.sign(y[:, None] - y)

    def tau(w: Vector) -> float:
        pairs = np.outer(w, w)
        norm = math.sqrt((pairs * sx * sx).sum() * (pairs * sy * sy).sum())
        return float((pairs * sx * sy).sum() / norm)

    estimate, influence, _ = kendall_influence(x, y)
    assert math.isclose(estimate, tau(np.ones(80)))
    for row in range(0, 80, 7):
        up, down = np.ones(80), np.ones(80)
        up[row] += 1e-5
        down[row] -= 1e-5
        assert math.isclose((tau(up) - tau(down)) / 2e-5 * 80, influence[row], abs_tol=1e-6)


def test_kendall_units_are_summed() -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal(60)
    y = x + rng.standard_normal(60)
    one = kendall_interval(x, y, np.arange(60), alpha=0.05)
    copies = kendall_interval(
        np.repeat(x, 4), np.repeat(y, 4), np.repeat(np.arange(60), 4), alpha=0.05
    )
    assert math.isclose(one[0], kendalltau(x, y).statistic)
    assert np.allclose(copies, one, atol=0.01)  # four copies say no more than one


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_kendall_of_equal_and_reversed_ranks(sign: float) -> None:
    tied = np.floor(ROWS / 7)
    for scores in (ROWS, tied):
        estimate, lower, upper = kendall_interval(
            scores, sign * scores, np.arange(100), alpha=0.05
        )
        assert estimate == sign
        assert (upper == 1.0) if sign > 0 else (lower == -1.0)
        assert -1.0 <= lower <= estimate <= upper <= 1.0
        assert lower < upper


def test_overlap_influence_is_what_a_resample_shows() -> None:
    rng = np.random.default_rng(2)
    x = rng.standard_normal(2000)
    y = x + 0.5 * rng.standard_normal(2000)
    for scores in (y, np.round(y, 1)):
        share, influence = overlap_influence(x, scores, 200)
        assert math.isclose(share, top_weights(x, 200) @ top_weights(scores, 200) / 200)
        assert abs(influence.mean()) < 1e-12
        error = math.sqrt(float((influence**2).sum())) / 2000
        rows = rng.integers(0, 2000, (800, 2000))
        drawn = [overlap_influence(x[r], scores[r], 200)[0] for r in rows]
        assert abs(error / np.std(drawn) - 1) < 0.15


def test_overlap_of_the_longer_end_follows_from_the_shorter() -> None:
    rng = np.random.default_rng(3)
    x = np.round(rng.standard_normal(400), 1)
    y = x + rng.standard_normal(400)
    share, lower, upper = top_overlap_interval(x, y, np.arange(400), k=350, alpha=0.05)
    assert math.isclose(share, top_weights(x, 350) @ top_weights(y, 350) / 350)
    assert lower < share < upper
    assert lower >= 300 / 350 - 1e-12  # two sets of 350 out of 400 share 300 at least


def test_all_tied_scores_share_what_chance_gives() -> None:
    x = np.arange(200.0)
    share, lower, upper = top_overlap_interval(x, np.ones(200), np.arange(200), k=50, alpha=0.05)
    assert math.isclose(share, 0.25)
    assert lower < 0.25 < upper


@pytest.mark.parametrize("bound", [kendall_interval, top_overlap_interval])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"x": ROWS[:-1]}, "lengths differ: x 99, y 100"),
        ({"y": np.where(ROWS == 3, np.inf, ROWS)}, "y is inf in row 3"),
        ({"units": np.arange(100) // 10}, "10 independent units; this bound needs at least 30"),
        ({"units": np.arange(99)}, r"units has shape \(99,\)"),
        ({"alpha": 1.0}, "alpha is 1.0"),
    ],
)
def test_bad_input_is_said(
    bound: Callable[..., object], change: dict[str, object], said: str
) -> None:
    given: dict[str, object] = {"x": ROWS, "y": ROWS, "units": np.arange(100), "alpha": 0.05}
    given |= {"k": 40} if bound is top_overlap_interval else {}
    given |= change
    with pytest.raises(InputError, match=said):
        bound(given.pop("x"), given.pop("y"), given.pop("units"), **given)


def test_what_only_one_of_them_refuses() -> None:
    units = np.arange(100)
    with pytest.raises(InputError, match="y is 5 in every row; a constant has no ranking"):
        kendall_interval(ROWS, np.full(100, 5.0), units, alpha=0.05)
    for k in (0, 100):
        with pytest.raises(InputError, match=rf"k is {k}; with 100 rows it must lie in 1..99"):
            top_overlap_interval(ROWS, ROWS, units, k=k, alpha=0.05)
    for k in (29, 71):
        with pytest.raises(InputError, match="29 units hold the 29 places at one end"):
            top_overlap_interval(ROWS, ROWS, units, k=k, alpha=0.05)
