import io
from collections.abc import Callable, Iterator
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from justenough.errors import InputError
from justenough.stats import fast
from justenough.stats.moments import (
    Moments,
    moments,
    moments_from,
    unit_totals,
)
from justenough.stats.stream import stream_moments
from justenough.stats.totals import block_totals, checked_weights, correlations

Array = NDArray[np.float64]
WEIGHTS = np.random.default_rng(7).dirichlet(np.ones(4), 13)


def sample(n: int, mean: float = 0.0) -> Array:
    rng = np.random.default_rng(n)
    rows: Array = rng.standard_normal((n, 5)) ** 3 @ rng.standard_normal((5, 5)) + mean
    return rows


def two_pass(rows: Array, weights: Array) -> tuple[Array, Array]:
    """Correlations and their standard errors row by row, centred first."""
    found = []
    for w in weights:
        p, y = rows[:, :-1] @ w, rows[:, -1]
        p, y = p - p.mean(), y - y.mean()
        p, y = p / p.std(), y / y.std()
        r = float((p * y).mean())
        influence = p * y - 0.5 * r * (p * p + y * y)
        found.append((r, np.sqrt((influence**2).sum() / (len(rows) - 1) / len(rows))))
    return np.array([f[0] for f in found]), np.array([f[1] for f in found])


@pytest.mark.parametrize("mean", [0.0, 1e3, -1e6])
def test_one_pass_equals_two_passes(mean: float) -> None:
    rows = sample(20_000, mean)
    found = moments(rows)
    r, errors = two_pass(rows, WEIGHTS)
    assert np.allclose(found.correlations(WEIGHTS), r, rtol=1e-10, atol=1e-14)
    assert np.allclose(found.standard_errors(WEIGHTS), errors, rtol=1e-10)
    assert np.allclose(found.covariance, np.cov(rows.T, bias=True), rtol=1e-10)
    assert np.allclose(found.mean, rows.mean(0), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_every_comoment_up_to_order_4_equals_two_passes(order: int) -> None:
    rows = sample(3000, 100.0)
    centred, found = rows - rows.mean(0), moments(rows)
    scale = rows.std(0)
    for columns in combinations_with_replacement(range(5), order):
        expected = np.prod(centred[:, columns], 1).mean()
        size = np.prod(scale[list(columns)])
        assert abs(found.comoment(*columns) - expected) <= 1e-10 * max(size, abs(expected))


def test_merging_in_any_parts_gives_the_whole() -> None:
    rows = sample(1000, 50.0) + np.linspace(0, 1e4, 1000)[:, None]  # the mean drifts
    whole = moments(rows)
    left = moments(rows[:10])
    for first, last in ((10, 400), (400, 401), (401, 1000)):
        left = left.merged(moments(rows[first:last]))
    right = moments(rows[:10]).merged(moments(rows[10:400]).merged(moments(rows[400:])))
    for found in (left, right):
        assert found.rows == found.units == 1000
        assert np.allclose(found.correlations(WEIGHTS), whole.correlations(WEIGHTS), rtol=1e-10)
        assert np.allclose(
            found.standard_errors(WEIGHTS), whole.standard_errors(WEIGHTS), rtol=1e-9
        )


def test_units_in_any_order_sum_their_influences() -> None:
    rows, units = sample(600), np.random.default_rng(1).integers(0, 50, 600)
    r, influences = two_pass(rows, WEIGHTS)[0], unit_totals(rows).influences(WEIGHTS)
    by_hand = np.zeros((50, len(WEIGHTS)))
    np.add.at(by_hand, units, influences)
    found = moments(rows, units)
    assert found.units == 50
    assert found.rows == 600
    assert np.allclose(found.correlations(WEIGHTS), r)
    expected = np.sqrt(50 / 49 * (by_hand**2).sum(0))
    assert np.allclose(found.standard_errors(WEIGHTS), expected, rtol=1e-10)
    by_unit = unit_totals(rows, units).influences(WEIGHTS)
    assert np.allclose(by_unit, by_hand, rtol=0, atol=1e-14)


def test_blocks_of_units_equal_units_by_id() -> None:
    block = sample(600).reshape(50, 12, 5)
    by_id = moments(block.reshape(600, 5), np.repeat(np.arange(50), 12))
    by_block = moments(block)
    assert np.allclose(
        by_block.standard_errors(WEIGHTS), by_id.standard_errors(WEIGHTS), rtol=1e-12
    )


def test_arrays_go_through_a_file_without_pickle() -> None:
    found, file = moments(sample(100)), io.BytesIO()
    np.savez(file, allow_pickle=False, **found.arrays())
    file.seek(0)
    with np.load(file, allow_pickle=False) as arrays:
        back = moments_from(dict(arrays))
    assert back.units == 100
    assert np.array_equal(back.standard_errors(WEIGHTS), found.standard_errors(WEIGHTS))


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("called", [False, True])
def test_a_stream_of_float32_equals_its_rows_in_float64(threads: int, called: bool) -> None:
    rng = np.random.default_rng(3)
    block = (rng.standard_normal((70, 50, 5)) + 1e3).astype(np.float32)

    def blocks() -> Iterator[Any]:
        for first in range(0, 70, 16):
            part = block[first : first + 16]
            yield (lambda p=part: p) if called else part

    found = stream_moments(blocks(), threads=threads)
    r, _ = two_pass(block.reshape(-1, 5).astype(np.float64), WEIGHTS)
    assert np.allclose(found.correlations(WEIGHTS), r, rtol=1e-10, atol=1e-13)
    alone = stream_moments(blocks(), threads=1)
    assert np.array_equal(found.cross, alone.cross)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_compiled_loop_equals_the_plain_one(kind: Any) -> None:
    loops = fast.compiled()
    if loops is None:
        pytest.skip("numba is not installed")
    block = np.random.default_rng(0).standard_normal((30, 7, 4)).astype(kind)
    origin = np.array([0.1, 0.0, -3.0, 2.0])
    plain, compiled = block_totals(block, origin), block_totals(block, origin, loops)
    assert np.allclose(plain, compiled, rtol=1e-13, atol=1e-13)


def test_work_on_tensors_equals_arrays(tensor: Callable[[Any], Any]) -> None:
    rows, units = sample(500, 10.0), np.arange(500) // 5
    ways: list[Callable[[Any], Moments]] = [
        lambda x: moments(x),
        lambda x: moments(x, units),
        lambda x: moments(x.reshape(50, 10, 5)),
        lambda x: stream_moments([x[:100], x[100:]]),
    ]
    for made in ways:
        plain, found = made(rows), made(tensor(rows))
        assert np.allclose(plain.totals, found.totals, rtol=1e-9, atol=1e-9)
        assert np.allclose(
            plain.standard_errors(WEIGHTS), found.standard_errors(WEIGHTS), rtol=1e-11
        )
    narrow = moments(tensor(rows).float())
    assert np.allclose(
        narrow.correlations(WEIGHTS), moments(rows.astype(np.float32)).correlations(WEIGHTS)
    )


ROWS = sample(40)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: moments(ROWS[:, 0]), r"rows has shape \(40,\); it must be"),
        (lambda: moments(ROWS[:, :1]), r"rows has shape \(40, 1\); it must be"),
        (lambda: moments(ROWS[:0]), r"rows has shape \(0, 5\); it must be"),
        (lambda: moments([["a", "b"]]), "rows holds values that are not numbers"),
        (lambda: moments(np.where(ROWS > 3, np.nan, ROWS)), "rows holds values that are not fin"),
        (lambda: moments([[np.inf, 1.0], [-np.inf, 2.0]]), "rows holds values that are not fin"),
        (lambda: unit_totals([[np.inf, 1.0], [-np.inf, 2.0]]), "rows holds values that are not"),
        (lambda: moments(ROWS * 1e90), "or whose 4th powers are not"),
        (lambda: moments(ROWS, np.arange(39)), r"units has shape \(39,\); it must be \(40,\)"),
        (lambda: moments(ROWS, np.zeros(40)), "1 unit; a spread needs at least 2"),
        (lambda: unit_totals(ROWS[:1]), "1 unit; a spread needs at least 2"),
        (lambda: unit_totals(ROWS.reshape(4, 10, 5), np.arange(40)), "with units it must be"),
        (lambda: moments(ROWS).correlations([1.0]), "weights has 1 columns; with 5 columns"),
        (lambda: moments(ROWS).correlations([[0.0] * 4]), "weights is 0 throughout row 0"),
        (lambda: moments(ROWS).correlations([[np.inf] * 4]), "weights is inf in row 0, column 0"),
        (lambda: moments(ROWS).correlations(np.ones((1, 1, 4))), "weights has shape"),
        (lambda: moments(ROWS[:29]).standard_errors(WEIGHTS), "29 independent units"),
        (lambda: moments(ROWS).merged(moments(ROWS[:, :3])), "one has 5 columns and the other 3"),
        (lambda: moments(ROWS).comoment(), r"columns is \(\); give 1 to 4 of 0..4"),
        (lambda: moments(ROWS).comoment(5), r"columns is \(5,\); give 1 to 4 of 0..4"),
        (
            lambda: moments(ROWS.reshape(4, 10, 5)).comoment(0, 0, 0),
            "4 units of 40 rows; orders 3 and 4",
        ),
        (lambda: stream_moments([]), "no block was given"),
        (lambda: stream_moments([ROWS], threads=0), "threads is 0; it must be a whole number"),
    ],
)
def test_bad_input_is_said(call: Callable[[], object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        call()


@pytest.mark.parametrize("level", [0.0, 1.0, 1e8])
def test_constants_have_no_correlation(level: float) -> None:
    rows = np.column_stack(
        [np.full(50, level), ROWS[:, 0].repeat(2)[:50], ROWS[:, 1].repeat(2)[:50]]
    )
    found = moments(rows)
    assert np.isfinite(found.correlations([0.0, 1.0])).all()
    with pytest.raises(InputError, match="the sum with weights of row 1 is constant in sample 0"):
        found.correlations([[0.0, 1.0], [1.0, 0.0]])
    with pytest.raises(InputError, match="the outcome is constant"):
        moments(rows[:, [1, 2, 0]]).correlations([1.0, 0.0])


def test_a_difference_of_equal_columns_is_constant() -> None:
    rows = np.column_stack([ROWS[:, 0], ROWS[:, 0], ROWS[:, 1]])
    with pytest.raises(InputError, match="is constant"):
        moments(rows).correlations([1.0, -1.0])


@pytest.mark.parametrize(
    "change",
    [
        {"units": np.arange(2)},
        {"totals": np.ones(5)},
        {"cross": np.ones((3, 3))},
        {"origin": np.zeros((2, 2))},
    ],
)
def test_arrays_of_another_shape_are_refused(change: dict[str, Array]) -> None:
    with pytest.raises(InputError, match="moments of d columns need"):
        moments_from(moments(ROWS).arrays() | change)
    with pytest.raises(InputError, match="moments hold values that are not finite"):
        moments_from(moments(ROWS).arrays() | {"origin": np.full(5, np.nan)})


def test_totals_about_any_origin_give_the_same_correlations() -> None:
    found: Moments = moments(ROWS)
    far = found.about(found.mean + 10.0)
    weights = checked_weights(WEIGHTS, 5)
    assert np.allclose(correlations(far.totals[None], weights)[0], found.correlations(WEIGHTS))
