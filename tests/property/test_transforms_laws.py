from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from justenough.transforms.descent import descend
from justenough.transforms.gptq import gptq, gptq_codes
from justenough.transforms.rounding import block_grid, channel_grid, output_error
from justenough.transforms.scaling import equalising_scales, smoothing_scales

Array = NDArray[Any]
values = st.floats(-100, 100, width=32)
weights = arrays(np.float64, (3, 7), elements=values)
rows = arrays(np.float64, (9, 7), elements=values)
ranges = arrays(np.float64, 6, elements=st.floats(0, 1e6))


@settings(deadline=None)
@given(weights, rows, st.integers(2, 8))
def test_no_single_change_improves_what_descent_finds(w: Array, x: Array, bits: int) -> None:
    g, grid = x.T @ x, channel_grid(w, bits=bits)
    codes = descend(w, g, grid, sweeps=100)
    nearest = output_error(w, grid.values(grid.nearest(w)), g)
    found = output_error(w, grid.values(codes), g)
    slack = 1e-9 * (1 + np.abs(g).max() * float(grid.scale.max()) ** 2)
    assert found <= nearest + slack
    for j in range(7):
        for step in (-1, 1):
            other = np.array(codes)
            other[:, j] = np.clip(other[:, j] + step, grid.low, grid.high)
            for k in range(3):
                one, two = (grid.values(c)[k : k + 1] for c in (codes, other))
                mine, theirs = (output_error(w[k : k + 1], v, g) for v in (one, two))
                assert mine <= theirs + slack + 1e-6 * mine


@settings(deadline=None)
@given(weights, rows, st.integers(2, 8))
def test_a_weight_on_the_grid_stays_there(w: Array, x: Array, bits: int) -> None:
    grid = channel_grid(w, bits=bits)
    codes = grid.nearest(w)
    on_grid, g = grid.values(codes), x.T @ x
    np.testing.assert_array_equal(gptq_codes(on_grid, g, grid), codes)
    np.testing.assert_array_equal(descend(on_grid, g, grid), codes)


@settings(deadline=None)
@given(weights, rows, st.sampled_from([2, 4, 8]), st.integers(1, 9), st.booleans())
def test_block_codes_are_in_range_and_finite(
    w: Array, x: Array, bits: int, block: int, symmetric: bool
) -> None:
    got = gptq(w, x.T @ x, bits, block, symmetric=symmetric)
    assert got.codes.max() < 2**bits and got.zero_points.max() < 2**bits
    assert np.isfinite(got.values(block)).all()
    assert (got.scales != 0).all()


@given(weights, st.integers(2, 8), st.integers(1, 9))
def test_a_block_errs_by_a_share_of_its_range(w: Array, bits: int, block: int) -> None:
    """Clipping is chosen only where it lowers the sum of squares of the whole block."""
    grid = block_grid(w, bits=bits, block=block)
    error = grid.values(grid.nearest(w)) - w
    for start in range(0, 7, block):
        part = w[:, start : start + block]
        span = np.maximum(part.max(1), 0) - np.minimum(part.min(1), 0)
        worst = (error[:, start : start + block] ** 2).sum(1) ** 0.5
        # At the full range every value errs by half a step, and by one where zero was rounded.
        assert (worst <= part.shape[1] ** 0.5 * span / (2**bits - 1) * 1.001 + 1e-30).all()


@given(ranges, ranges, st.floats(0, 1))
def test_scales_are_positive_and_leave_dead_channels(a: Array, w: Array, alpha: float) -> None:
    s = smoothing_scales(a, w, alpha=alpha)
    assert (s > 0).all() and np.isfinite(s).all()
    assert (s[(a == 0) | (w == 0)] == 1).all()


@given(ranges, ranges)
def test_equalising_twice_changes_nothing_more(a: Array, w: Array) -> None:
    # Ranges so far apart that a scale would be held back are left out.
    a, w = (np.where(r < 1, 0, np.minimum(r, 1e3)) for r in (a, w))
    s = equalising_scales(a, w)
    again = equalising_scales(a / s, w * s)
    np.testing.assert_allclose(again, 1, rtol=1e-6)
    np.testing.assert_allclose((a / s) * (w * s), a * w, rtol=1e-9)
