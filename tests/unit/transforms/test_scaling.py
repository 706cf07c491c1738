from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from justenough.errors import InputError
from justenough.transforms.bias import bias_shift, relu_mean
from justenough.transforms.rounding import channel_grid
from justenough.transforms.scaling import equalising_scales, smoothing_scales

Array = NDArray[Any]


def int8(x: Array) -> Array:
    scale = np.abs(x).max() / 127
    return np.asarray(np.rint(x / scale) * scale)


def test_equalising_makes_ranges_equal_and_keeps_the_function() -> None:
    rng = np.random.default_rng(0)
    first = rng.normal(size=(12, 6)) * np.exp(3 * rng.normal(size=(12, 1)))
    second, x = rng.normal(size=(4, 12)), rng.normal(size=(50, 6))
    bias = rng.normal(size=12)
    s = equalising_scales(np.abs(first).max(1), np.abs(second).max(0))
    new_first, new_second = first / s[:, None], second * s
    np.testing.assert_allclose(np.abs(new_first).max(1), np.abs(new_second).max(0))
    before = np.maximum(x @ first.T + bias, 0) @ second.T
    after = np.maximum(x @ new_first.T + bias / s, 0) @ new_second.T
    np.testing.assert_allclose(after, before, rtol=1e-9, atol=1e-9 * np.abs(before).max())


def test_smoothing_lowers_int8_error_where_channels_have_outliers() -> None:
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(400, 64)), rng.normal(size=(32, 64)) / 8
    x[:, [3, 40]] *= 60
    s = smoothing_scales(np.abs(x).max(0), np.abs(w).max(0), alpha=0.5)
    np.testing.assert_allclose((x / s) @ (w * s).T, x @ w.T)

    def error(x: Array, w: Array) -> float:
        grid = channel_grid(w)
        return float(((int8(x) @ grid.values(grid.nearest(w)).T - x @ w.T) ** 2).mean())

    assert error(x / s, w * s) < 0.2 * error(x, w)


def test_alpha_moves_the_range() -> None:
    x, w = np.array([100.0, 1.0]), np.array([0.5, 2.0])
    np.testing.assert_allclose(x / smoothing_scales(x, w, alpha=1), 1)
    np.testing.assert_allclose(w * smoothing_scales(x, w, alpha=0), 1)
    half = smoothing_scales(x, w)
    np.testing.assert_allclose(x / half, w * half)


def test_dead_channels_are_left_alone() -> None:
    s = smoothing_scales(np.array([0.0, 2.0, 3.0]), np.array([1.0, 0.0, 3.0]))
    assert s.tolist() == [1.0, 1.0, 1.0]
    assert smoothing_scales(np.zeros(2), np.zeros(2)).tolist() == [1.0, 1.0]


def test_scales_stay_within_reason() -> None:
    s = smoothing_scales(np.array([1e30, 1e-30, 1.0]), np.ones(3), alpha=1.0)
    assert s.max() / s.min() <= 1e8 * 1.001


def test_what_is_wrong_with_ranges_is_said() -> None:
    with pytest.raises(InputError, match=r"alpha=2 is outside 0\.\.1; 0\.5 is usual"):
        smoothing_scales(np.ones(2), np.ones(2), alpha=2)
    with pytest.raises(InputError, match=r"have shapes \(2,\) and \(3,\); give one number"):
        equalising_scales(np.ones(2), np.ones(3))
    for bad in (-1.0, np.nan, np.inf):
        with pytest.raises(InputError, match="a range is negative or not finite"):
            equalising_scales(np.array([bad]), np.ones(1))


def test_bias_correction_removes_the_mean_shift() -> None:
    rng = np.random.default_rng(0)
    x = np.maximum(rng.normal(1, 1, size=(3000, 20)), 0)
    w = rng.normal(size=(7, 20))
    grid = channel_grid(w, bits=3)
    low = grid.values(grid.nearest(w))
    rounded_x = np.clip(np.rint(x * 5) / 5, 0, 2)
    change = rounded_x @ low.T - x @ w.T
    shift = bias_shift(w, low, x.mean(0), rounded_x.mean(0))
    assert np.abs(change.mean(0)).min() > 0.01
    np.testing.assert_allclose((change - shift).mean(0), 0, atol=1e-12)
    only_weights = bias_shift(w, low, x.mean(0))
    np.testing.assert_allclose(only_weights, (x @ (low - w).T).mean(0))


def test_bias_shift_of_groups() -> None:
    w = np.arange(12.0).reshape(2, 3, 2)
    mean = np.array([[1.0, 2.0], [3.0, 4.0]])
    np.testing.assert_allclose(bias_shift(w, w + 1, mean), [[3.0, 3.0, 3.0], [7.0, 7.0, 7.0]])


def test_mean_behind_a_relu_without_data() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=400_000)
    for mean, std in ((0.0, 1.0), (-1.5, 0.7), (2.0, 3.0)):
        want = np.maximum(mean + std * z, 0).mean()
        assert relu_mean(np.array(mean), np.array(std)) == pytest.approx(want, abs=0.02)
