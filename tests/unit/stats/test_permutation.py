import math
from collections.abc import Callable
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from scipy.stats import chisquare, rankdata

from justenough import compiled
from justenough.errors import InputError
from justenough.stats import fast, permutation
from justenough.stats.counter import starts
from justenough.stats.permutation import (
    pearson_permutation_test,
    shuffled_dots,
    spearman_permutation_test,
)

X = np.array([1.0, 2.0, 4.0, 7.0, 7.0, 9.0])
Y = np.array([2.0, 1.0, 1.0, 5.0, 8.0, 6.0])


def rng(seed: int = 3) -> np.random.Generator:
    return np.random.default_rng(seed)


def exact_p(x: np.ndarray, y: np.ndarray, alternative: str) -> float:
    """Over all n! orders."""
    dots = np.array([x @ y[list(order)] for order in permutations(range(len(y)))])
    null, seen = dots - len(x) * x.mean() * y.mean(), x @ y - len(x) * x.mean() * y.mean()
    if alternative == "two-sided":
        null, seen = np.abs(null), abs(seen)
    if alternative == "less":
        null, seen = -null, -seen
    return float((null >= seen - 1e-9).mean())


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
def test_p_approaches_that_of_all_orders(alternative: permutation.Alternative) -> None:
    drawn = 20_000
    for test, x, y in (
        (pearson_permutation_test, X, Y),
        (spearman_permutation_test, rankdata(X), rankdata(Y)),
    ):
        found = test(X, Y, permutations=drawn, rng=rng(), alternative=alternative)
        p = exact_p(x, y, alternative)
        assert abs(found.p_value - p) < 4.0 * math.sqrt(p * (1 - p) / drawn) + 1e-4
        assert found.p_value == (found.exceedances + 1) / (drawn + 1)
        assert math.isclose(found.statistic, np.corrcoef(x, y)[0, 1])


def test_every_order_is_equally_likely() -> None:
    # Powers of ten tell the orders apart: a dot product spells the shuffle.
    dots = shuffled_dots(5, 0, 24_000, np.array([1.0, 10.0, 100.0, 1000.0]), np.arange(4.0))
    found, counts = np.unique(dots, return_counts=True)
    assert len(found) == 24
    assert chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize("n", [3, 4, 101])
def test_compiled_shuffles_are_the_plain_ones(n: int) -> None:
    loops = fast.compiled()
    if loops is None:
        pytest.skip("numba is not installed")
    x, y = rng().standard_normal((2, n))
    out = np.empty(50)
    loops.shuffled_dots(np.uint64(2**64 - 9), np.uint64(7), x, y, np.empty(n), out)
    assert np.array_equal(out, permutation._plain(starts(2**64 - 9, 7, 57), x, y))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_answer_does_not_depend_on_threads(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = rng().standard_normal((2, 300))
    expected = shuffled_dots(1, 0, 100, x, y)
    monkeypatch.setattr(compiled, "FAST_FROM", 0)
    monkeypatch.setattr(compiled, "usable_cores", lambda: threads)
    assert np.array_equal(shuffled_dots(1, 0, 100, x, y), expected)


def test_besag_and_clifford_stop_at_the_exceedance() -> None:
    x, y = rng(1).standard_normal((2, 50))
    whole = pearson_permutation_test(x, y, permutations=5000, rng=rng(2))
    stopped = pearson_permutation_test(x, y, permutations=5000, rng=rng(2), stop_after=10)
    observed = abs(whole.statistic) - 1e-12
    number = int(np.flatnonzero(np.abs(whole.null) >= observed)[9]) + 1
    assert (stopped.permutations, stopped.exceedances) == (number, 10)
    assert stopped.p_value == 10 / number
    assert np.array_equal(stopped.null, whole.null[:number])
    never = pearson_permutation_test(x, x + y, permutations=500, rng=rng(2), stop_after=10)
    assert (never.permutations, never.p_value) == (500, 1 / 501)


def test_ties_in_the_statistic_count_as_exceedances() -> None:
    x = np.repeat([0.0, 1.0], [15, 15])
    found = pearson_permutation_test(x, 1e9 + x / 3, permutations=300, rng=rng())
    assert found.exceedances == (np.abs(found.null) > 1 - 1e-9).sum()
    four = np.array([0.1, 0.1, 0.1, 0.7])
    found = pearson_permutation_test(
        four, four, permutations=4000, rng=rng(), alternative="greater"
    )
    assert abs(found.p_value - 0.25) < 0.03


def test_effect_size_is_in_standard_deviations_of_the_null() -> None:
    x = rng().standard_normal(400)
    y = x + rng(1).standard_normal(400)
    found = pearson_permutation_test(x, y, permutations=4000, rng=rng())
    assert abs(found.effect_size / (found.statistic / found.null.std()) - 1) < 0.05
    assert found.standard_error < 0.001


def test_tensors_are_taken(tensor: Callable[[Any], Any]) -> None:
    plain = pearson_permutation_test(X, Y, permutations=99, rng=rng())
    given = pearson_permutation_test(tensor(X), tensor(Y), permutations=99, rng=rng())
    assert given.p_value == plain.p_value
    assert np.array_equal(given.null, plain.null)


def test_tick_is_called_to_the_end() -> None:
    seen: list[tuple[int, int]] = []
    pearson_permutation_test(
        X, Y, permutations=20_000, rng=rng(), tick=lambda a, b: seen.append((a, b))
    )
    assert seen == [(8192, 20_000), (16_384, 20_000), (20_000, 20_000)]


@pytest.mark.parametrize("test", [pearson_permutation_test, spearman_permutation_test])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"x": X[:5]}, "lengths differ: x 5, y 6"),
        ({"x": np.ones(6)}, "x is .* in every row; a constant has no correlation"),
        ({"y": np.full(6, np.nan)}, "y is nan in row 0"),
        ({"x": X[:2], "y": Y[:2]}, "n is 2; a permutation test needs 3"),
        ({"permutations": 0}, "permutations is 0; it must be a whole number, 1 or more"),
        ({"stop_after": 0}, "stop_after is 0; it must be a whole number, 1 or more"),
        ({"alternative": "both"}, "alternative is 'both'; take two-sided, greater or less"),
    ],
)
def test_bad_input_is_said(
    test: Callable[..., object], change: dict[str, object], said: str
) -> None:
    given = {"x": X, "y": Y, "permutations": 9, "rng": rng()} | change
    with pytest.raises(InputError, match=said):
        test(given.pop("x"), given.pop("y"), **given)
