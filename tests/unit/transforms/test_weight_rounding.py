from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnxruntime.quantization.quant_utils import QuantType, quantize_data

from justenough.errors import InputError
from justenough.transforms.adaround import adaround, rectified_sigmoid
from justenough.transforms.descent import descend
from justenough.transforms.gptq import damped, gptq, gptq_codes
from justenough.transforms.rounding import (
    Grid,
    block_grid,
    channel_grid,
    check_layer,
    output_error,
)

Array = NDArray[Any]


def layer(width: int = 96, out: int = 24, rank: int = 10) -> tuple[Array, Array, Array]:
    """Weight, inputs and Gram matrix of a layer after a Relu, its inputs correlated."""
    rng = np.random.default_rng(3)
    mix = rng.normal(size=(width, rank)) / rank**0.5
    x = rng.normal(size=(8 * width, rank)) @ mix.T + 0.2 * rng.normal(size=(8 * width, width))
    x = np.maximum(x, 0)
    w = rng.normal(size=(out, width)) * np.exp(rng.normal(size=(out, 1)))
    return w, x, x.T @ x / len(x)


W, X, G = layer()


def test_channel_scales_are_those_of_the_quantizer() -> None:
    rng = np.random.default_rng(0)
    w = rng.normal(size=(50, 31)).astype(np.float32)
    w[7] = 0
    w[8] = 1e-44
    grid = channel_grid(w)
    for row, scale, codes in zip(w, grid.scale.ravel(), grid.nearest(w), strict=True):
        _, want, data = quantize_data(row, QuantType.QInt8.tensor_type, True)
        assert scale == want
        np.testing.assert_array_equal(codes, data)


def test_output_error_is_that_of_the_outputs() -> None:
    other = W + 0.1
    assert output_error(W, other, G) == pytest.approx(
        ((X @ (other - W).T) ** 2).sum(1).mean(), rel=1e-9
    )


@pytest.mark.parametrize("bits", [4, 8])
def test_learned_rounding_beats_nearest_where_inputs_are_correlated(bits: int) -> None:
    grid = channel_grid(W, bits=bits)

    def error(codes: Array) -> float:
        assert np.array_equal(codes, np.rint(codes))
        assert grid.low <= codes.min() and codes.max() <= grid.high
        return output_error(W, grid.values(codes), G)

    nearest = error(grid.nearest(W))
    down = error(descend(W, G, grid))
    across = gptq_codes(W, G, grid)
    assert down < 0.6 * nearest
    assert error(across) < 0.5 * nearest
    assert error(descend(W, G, grid, codes=across)) <= error(across)
    assert error(adaround(W, G, grid, steps=500)) < 0.5 * nearest


def test_adaround_moves_a_weight_by_less_than_a_step() -> None:
    grid = channel_grid(W, bits=4)
    codes = adaround(W, G, grid, steps=50)
    assert np.abs(grid.values(codes) - W).max() <= (1 + 1e-6) * grid.scale.max()
    assert (np.abs(grid.values(codes) - W) <= (1 + 1e-6) * grid.scale).all()


@pytest.mark.parametrize("bits", [3, 8])
def test_white_inputs_leave_the_nearest_codes(bits: int) -> None:
    grid = channel_grid(W, bits=bits)
    white = np.diag(np.linspace(0.5, 2, W.shape[1]))
    nearest = grid.nearest(W)
    np.testing.assert_array_equal(descend(W, white, grid), nearest)
    np.testing.assert_array_equal(gptq_codes(W, white, grid), nearest)
    changed = adaround(W, white, grid, steps=300) != nearest
    # Only weights that lie halfway between two codes may go either way.
    u = W / grid.scale
    assert np.abs(np.abs(u - np.rint(u))[changed] - 0.5).max(initial=0) < 0.02


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("bits", "block"), [(4, 32), (2, 16), (8, 96), (4, 40)])
def test_blocks(bits: int, block: int, symmetric: bool) -> None:
    got = gptq(W, 2 * len(X) * G, bits, block, symmetric=symmetric)
    blocks = -(-W.shape[1] // block)
    assert got.codes.shape == W.shape and got.codes.dtype == np.uint8
    assert got.codes.max() < 2**bits
    assert got.scales.shape == got.zero_points.shape == (len(W), blocks)
    assert got.scales.dtype == np.float32 and got.zero_points.dtype == np.uint8
    grid = block_grid(W, bits=bits, block=block, symmetric=symmetric)
    plain = output_error(W, grid.values(grid.nearest(W)), G)
    plainest = gptq(W, G, bits, block, symmetric=symmetric, sweeps=0)
    assert output_error(W, got.values(block), G) < 0.6 * plain
    assert output_error(W, plainest.values(block), G) < 0.75 * plain
    if symmetric:
        assert (got.zero_points == 2 ** (bits - 1)).all()


def test_only_ratios_of_the_hessian_count() -> None:
    one, many = gptq(W, G), gptq(W, 1000 * G)
    np.testing.assert_array_equal(one.codes, many.codes)


def test_clipping_helps_a_block_with_an_outlier() -> None:
    rng = np.random.default_rng(1)
    w = np.clip(rng.normal(size=(1, 32)), -1, 1)
    w[0, 0] = 3.0
    grid = block_grid(w, bits=2, block=32)
    step = (3.0 - w.min()) / 3
    full = Grid(np.full((1, 1), step), 0, 3, np.rint(-w.min() / step))
    clipped = ((grid.values(grid.nearest(w)) - w) ** 2).sum()
    assert clipped < ((full.values(full.nearest(w)) - w) ** 2).sum()
    # An input of great weight has its weight kept.
    heavy = np.ones(32)
    heavy[0] = 1e4
    kept = block_grid(w, bits=2, block=32, importance=heavy)
    off = (abs(g.values(g.nearest(w))[0, 0] - 3.0) for g in (kept, grid))
    assert next(off) < 0.4 < 1 < next(off)


def test_fixed_codes_stay() -> None:
    grid = channel_grid(W, bits=4)
    nearest, fixed = grid.nearest(W), np.zeros(W.shape, bool)
    fixed[:, ::3] = True
    for codes in (
        descend(W, G, grid, fixed=fixed),
        gptq_codes(W, G, grid, fixed=fixed),
        adaround(W, G, grid, fixed=fixed, steps=100),
    ):
        np.testing.assert_array_equal(codes[fixed], nearest[fixed])
        assert (codes != nearest).any()


def test_groups_are_layers_of_their_own() -> None:
    w, g = W.reshape(4, 6, 96)[..., :9], np.stack([G[k : k + 9, k : k + 9] for k in range(4)])
    grid = channel_grid(w, bits=4)
    for rule in (descend, gptq_codes):
        whole = rule(w, g, grid)
        for k in range(4):
            alone = rule(w[k], g[k], channel_grid(w[k], bits=4))
            np.testing.assert_array_equal(whole[k], alone)


def test_inputs_that_never_fire() -> None:
    """A column of zeros: its weights change nothing, and nothing divides by it."""
    g = np.array(G)
    g[5], g[:, 5] = 0, 0
    grid = channel_grid(W, bits=4)
    np.testing.assert_array_equal(descend(W, g, grid)[:, 5], grid.nearest(W)[:, 5])
    assert np.isfinite(gptq_codes(W, g, grid)).all()
    nothing = np.zeros_like(G)
    for codes in (gptq_codes(W, nothing, grid), descend(W, nothing, grid)):
        np.testing.assert_array_equal(codes, grid.nearest(W))
    assert np.isfinite(adaround(W, nothing, grid, steps=5)).all()


def test_rectified_sigmoid_reaches_both_ends() -> None:
    h = rectified_sigmoid(np.linspace(-4, 4, 81))
    assert h[0] == 0 and h[-1] == 1 and (np.diff(h) >= 0).all()


@pytest.mark.parametrize("rule", [descend, gptq_codes, adaround])
def test_what_does_not_fit_is_named(rule: Any) -> None:
    grid = channel_grid(W)
    with pytest.raises(InputError, match=r"\(24, 96\) needs a Gram matrix of shape \(96, 96\)"):
        rule(W, G[:5, :5], grid)
    bad = np.array(W)
    bad[0, 0] = np.nan
    with pytest.raises(InputError, match="is not finite; leave this layer as it is"):
        rule(bad, G, grid)


def test_sizes_out_of_range() -> None:
    with pytest.raises(InputError, match=r"bits=9 is outside 2\.\.8"):
        channel_grid(W, bits=9)
    with pytest.raises(InputError, match=r"bits=1 is outside 2\.\.8"):
        block_grid(W, bits=1, block=32)
    with pytest.raises(InputError, match="block=0 must be 1 or more weights; 32 is usual"):
        gptq(W, G, 4, 0)
    with pytest.raises(InputError, match=r"damping=0 must be above 0; 0\.01 is usual"):
        damped(G, 0)
    with pytest.raises(InputError, match="steps=0 must be 1 or more; 1000 is usual"):
        adaround(W, G, channel_grid(W), steps=0)
    check_layer(W, G)
