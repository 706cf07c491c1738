from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper as nh
from onnx.parser import parse_model

from justenough.core.subject import Site, Variant
from justenough.errors import InputError
from justenough.subjects.measure import all_int8, calibrate
from justenough.subjects.onnx_model import OnnxModel, find_sites
from justenough.subjects.prepare import prepare
from justenough.subjects.quantize import Ranges, write_variant
from justenough.subjects.repair_graph import linear_nodes
from justenough.subjects.repair_scaling import equalised, joints, smoothed
from justenough.subjects.repair_statistics import Feed
from justenough.subjects.repairs import (
    FREE,
    bias_corrected,
    block_codes,
    last_layers,
    mean_corrected,
    repair,
    repaired,
    round_rows,
    rounded,
)
from justenough.transforms.rounding import block_grid, channel_grid

Array = NDArray[Any]
FILE = "model.onnx"


def normal(*shape: int, seed: int = 0) -> Array:
    return np.asarray(np.random.default_rng(seed).normal(size=shape))


def built(inputs: str, outputs: str, body: str, **weights: Array) -> onnx.ModelProto:
    made = parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> g ({inputs}) => ({outputs}) {{ {body} }}'
    )
    for name, value in weights.items():
        made.graph.initializer.append(nh.from_array(np.asarray(value, np.float32), name))
    for node in made.graph.node:
        node.name = node.output[0]
    return prepare(made)


def small_net() -> onnx.ModelProto:
    """Convolution, depthwise, 1x1, pooled to a linear layer, with uneven channels."""
    body = """
        a = Conv <kernel_shape = [3,3], pads = [1,1,1,1]> (x, w1, b1)
        a2 = Relu(a)
        d = Conv <kernel_shape = [3,3], group = 12> (a2, w2)
        d2 = LeakyRelu(d)
        p = Conv <kernel_shape = [1,1]> (d2, w3, b3)
        p2 = Relu(p)
        g = GlobalAveragePool(p2)
        f = Flatten(g)
        y = Gemm <transB = 1> (f, w4, b4)
    """
    rng = np.random.default_rng(1)

    def w(*shape: int, spread: float = 0.0) -> Array:
        fan = float(np.prod(shape[1:])) ** -0.5
        uneven = np.exp(spread * rng.normal(size=(shape[0], *(1,) * (len(shape) - 1))))
        return np.asarray(rng.normal(0, fan, shape) * uneven)

    weights = {
        "w1": w(12, 3, 3, 3, spread=1.5), "b1": rng.normal(size=12),
        "w2": w(12, 1, 3, 3, spread=1), "w3": w(10, 12, 1, 1, spread=1),
        "b3": rng.normal(size=10), "w4": w(4, 10), "b4": rng.normal(size=4),
    }  # fmt: skip
    return built("float[n,3,8,8] x", "float[n,4] y", body, **weights)


NET = small_net()
SITES = find_sites(NET)
FULL = all_int8(SITES)
# Smooth pictures with a mean, so that inputs of a product are correlated.
ROWS: Array = np.cumsum(0.05 + 0.4 * normal(192, 3, 8, 8), -1).astype(np.float32)
FEED = Feed({"x": ROWS[:96]}, 32)
RANGES = calibrate(NET, SITES, FEED.inputs, batch=32, threads=1).ranges


def answer(model: onnx.ModelProto | Path, x: Array, folder: Path) -> Array:
    path = model if isinstance(model, Path) else folder / FILE
    if not isinstance(model, Path):
        onnx.save(model, path)
    return OnnxModel(path).run({"x": x})["y"].astype(np.float64)


def int8_error(
    model: onnx.ModelProto, sites: tuple[Site, ...], ranges: Ranges, x: Array, folder: Path
) -> Array:
    """Change of the answers (n, k) when all of `model` runs in int8."""
    write_variant(model, sites, all_int8(sites), ranges, folder / "int8.onnx")
    return answer(folder / "int8.onnx", x, folder) - answer(model, x, folder)


def test_equalising_keeps_the_function_and_makes_ranges_equal(tmp_path: Path) -> None:
    before = NET.SerializeToString(deterministic=True)
    new = equalised(NET)
    assert NET.SerializeToString(deterministic=True) == before
    assert [j.tensor for j in joints(NET)] == ["a2", "d2", "f"]
    want = answer(NET, ROWS, tmp_path)
    np.testing.assert_allclose(answer(new, ROWS, tmp_path), want, atol=1e-4 * np.abs(want).max())
    stored = {i.name: nh.to_array(i) for i in new.graph.initializer}
    layers = linear_nodes(new)
    for maker, reader in (("a", "d"), ("d", "p"), ("p", "y")):
        made = np.abs(layers[maker].rows(stored[layers[maker].weight])).max(-1).ravel()
        read = layers[reader].input_ranges(stored[layers[reader].weight])
        np.testing.assert_allclose(made, read, rtol=0.05)
    assert find_sites(new) == SITES


BLOCKED = {
    "a gate": "a = MatMul(x, u)  s = Sigmoid(a)  y = MatMul(s, v)",
    "a clip at six": "a = MatMul(x, u)  s = Clip(a, low, high)  y = MatMul(s, v)",
    "a residual": "a = MatMul(x, u)  s = Relu(a)  b = MatMul(s, v)  y = Add(b, s)",
    "an output": "a = MatMul(x, u)  y = Relu(a)  z = MatMul(y, v)",
    "an input": "s = Relu(x)  y = MatMul(s, v)",
    "a shared weight": "a = MatMul(x, u)  s = Relu(a)  y = MatMul(s, u)",
    "a full summand": "a = MatMul(x, u)  s = Add(a, v)  y = MatMul(s, w)",
    "another axis": "a = MatMul(x, u)  s = Transpose(a)  y = MatMul(s, v)",
}


@pytest.mark.parametrize("why", BLOCKED)
def test_scales_stay_where_something_else_would_see_them(why: str) -> None:
    given = {k: normal(6, 6, seed=ord(k)) for k in "uvw"}
    more = {"low": np.array(0.0), "high": np.array(6.0)}
    outputs = "float[6,6] y, float[6,6] z" if "z =" in BLOCKED[why] else "float[6,6] y"
    model = built("float[6,6] x", outputs, BLOCKED[why], **given, **more)
    assert joints(model) == []
    assert equalised(model) == model
    sites = find_sites(model)
    x = normal(6, 6).astype(np.float32)
    assert smoothed(model, sites, all_int8(sites), Feed({"x": x}, 6)) == model


NORMALISED = {
    "layer": (
        "float[n,5,16] x",
        "t = LayerNormalization <axis = -1> (x, gain, shift)  y = MatMul(t, v)",
    ),
    "parts": (
        "float[n,5,16] x",
        """m = ReduceMean <axes = [-1]> (x)  c = Sub(x, m)  q = Mul(c, c)
        var = ReduceMean <axes = [-1]> (q)  e = Add(var, eps)  s = Sqrt(e)  r = Div(c, s)
        h = Mul(r, gain)  t = Add(shift, h)  y = MatMul(t, v)""",
    ),
    "batch": (
        "float[n,16,5] x",
        """b = BatchNormalization (x, gain, shift, zeros, ones)  t = Relu(b)
        y = Conv <kernel_shape = [1]> (t, k)""",
    ),
    "layer before it": (
        "float[n,5,16] x",
        "p = MatMul(x, u)  a = Add(p, shift)  t = Relu(a)  y = MatMul(t, v)",
    ),
    "three readers": (
        "float[n,5,16] x",
        """t = LayerNormalization <axis = -1> (x, gain, shift)
        q = MatMul(t, v)  k2 = MatMul(t, v2)  o = MatMul(t, v3)  z = Add(q, k2)  y = Add(z, o)""",
    ),
}


def outlier_weights() -> dict[str, Array]:
    rng = np.random.default_rng(2)
    gain = np.exp(0.2 * rng.normal(size=16))
    gain[[3, 9]] = 60
    # What reads the outliers is small, as in trained nets: their scale buys nothing.
    v, v2, v3 = rng.normal(size=(3, 16, 16)) / 4 / (gain / gain.min())[:, None]
    return {
        "gain": gain, "shift": gain * rng.normal(size=16), "v": v, "v2": v2, "v3": v3,
        "k": v.T[..., None], "u": rng.normal(size=(16, 16)) / 4 * gain,
        "zeros": np.zeros(16), "ones": np.ones(16), "eps": np.array([1e-5]),
    }  # fmt: skip


@pytest.mark.parametrize("kind", NORMALISED)
def test_smoothing_keeps_the_function_and_lowers_int8_noise(kind: str, tmp_path: Path) -> None:
    given, body = NORMALISED[kind]
    used = {k: v for k, v in outlier_weights().items() if k in body.replace("(", " ")}
    model = built(given, "float[n,a,b] y", body, **used)
    shape = (64, 16, 5) if kind == "batch" else (64, 5, 16)
    x = np.random.default_rng(4).normal(size=shape).astype(np.float32)
    sites, feed = find_sites(model), Feed({"x": x[:32]}, 16)
    variant = Variant.of({s.name: "int8" for s in sites if s.name != "p"})
    new = smoothed(model, sites, variant, feed)
    assert [n.op_type for n in new.graph.node] == [n.op_type for n in model.graph.node]
    want = answer(model, x, tmp_path)
    np.testing.assert_allclose(answer(new, x, tmp_path), want, atol=1e-4 * np.abs(want).max())
    noise = []
    for m in (model, new):
        ranges = calibrate(m, sites, feed.inputs, batch=16, threads=1).ranges
        write_variant(m, sites, variant, ranges, tmp_path / "v.onnx")
        noise.append(((answer(tmp_path / "v.onnx", x, tmp_path) - want) ** 2).mean())
    assert noise[1] < 0.35 * noise[0]


def test_a_multiplication_is_inserted_only_when_asked_for(tmp_path: Path) -> None:
    """The residual reads the normalised tensor too, so the gain cannot take the scale."""
    body = """
        t = LayerNormalization <axis = -1> (x, gain, shift)
        q = MatMul(t, v)  k2 = MatMul(t, v2)  z = Add(q, k2)  h = Mul(t, eps)  y = Add(z, h)
    """
    used = {k: v for k, v in outlier_weights().items() if k in ("gain", "shift", "v", "v2", "eps")}
    model = built("float[n,5,16] x", "float[n,5,16] y", body, **used)
    x = np.random.default_rng(4).normal(size=(64, 5, 16)).astype(np.float32)
    sites, feed = find_sites(model), Feed({"x": x[:32]}, 16)
    assert smoothed(model, sites, all_int8(sites), feed) == model
    new = smoothed(model, sites, all_int8(sites), feed, insert=True)
    onnx.checker.check_model(new)
    assert [n.op_type for n in new.graph.node].count("Mul") == 2, "one for both readers"
    assert [s.name for s in find_sites(new)] == [s.name for s in sites]
    want = answer(model, x, tmp_path)
    np.testing.assert_allclose(answer(new, x, tmp_path), want, atol=1e-4 * np.abs(want).max())
    noise = []
    for m in (model, new):
        ranges = calibrate(m, sites, feed.inputs, batch=16, threads=1).ranges
        noise.append((int8_error(m, sites, ranges, x, tmp_path) ** 2).mean())
    assert noise[1] < 0.35 * noise[0]
    ranges = calibrate(model, sites, feed.inputs, batch=16, threads=1).ranges
    by_name, found = repair("smoothed_inserted", model, sites, all_int8(sites), ranges, feed)
    assert len(by_name.graph.node) == len(new.graph.node)
    assert "t/smoothed" in found.table["minmax"]
    only = Variant.of({sites[0].name: "int8"})
    part = smoothed(model, sites, only, feed, insert=True)
    reading = [n.name for n in part.graph.node if n.input[0] == "t/smoothed"]
    assert reading == [sites[0].name]


@pytest.mark.parametrize("method", ["gptq", "adaround"])
def test_the_quantizer_writes_the_codes_that_were_chosen(method: Any, tmp_path: Path) -> None:
    new = rounded(NET, SITES, FULL, FEED, method=method)
    write_variant(NET, SITES, FULL, RANGES, tmp_path / "before.onnx")
    write_variant(new, SITES, FULL, RANGES, tmp_path / "after.onnx")
    before, after = (
        {i.name: nh.to_array(i) for i in onnx.load(tmp_path / f).graph.initializer}
        for f in ("before.onnx", "after.onnx")
    )
    stored = {i.name: nh.to_array(i) for i in new.graph.initializer}
    first = {i.name: nh.to_array(i) for i in NET.graph.initializer}
    moved = 0
    for linear in linear_nodes(new).values():
        name = linear.weight
        np.testing.assert_array_equal(after[f"{name}_scale"], before[f"{name}_scale"])
        shape = [1] * len(linear.shape)
        shape[linear.out_axis] = -1
        scale = after[f"{name}_scale"].reshape(shape)
        codes = after[f"{name}_quantized"]
        np.testing.assert_allclose(codes * scale, stored[name], rtol=1e-6, atol=0)
        off = np.abs(stored[name] - first[name]) / scale
        assert np.median(off) < 1
        moved += int((codes != before[f"{name}_quantized"]).sum())
    assert moved > 0
    exact = answer(NET, ROWS[96:], tmp_path)

    def noise(model: onnx.ModelProto) -> float:
        return float(((answer(model, ROWS[96:], tmp_path) - exact) ** 2).mean())

    assert noise(new) < 0.6 * noise(nearest(NET)), "on rows that were not used"


def nearest(model: onnx.ModelProto) -> onnx.ModelProto:
    out = onnx.ModelProto()
    out.CopyFrom(model)
    for linear in linear_nodes(model).values():
        held = next(i for i in out.graph.initializer if i.name == linear.weight)
        rows = linear.rows(nh.to_array(held))
        grid = channel_grid(rows)
        on_grid = linear.stored(grid.values(grid.nearest(rows)).astype(np.float32))
        held.CopyFrom(nh.from_array(on_grid, held.name))
    return out


def test_only_picked_sites_are_rounded() -> None:
    new = rounded(NET, SITES, Variant.of({"p": "int8"}), FEED)
    old = {i.name: i for i in NET.graph.initializer}
    changed = {i.name for i in new.graph.initializer if i != old[i.name]}
    assert changed == {linear_nodes(NET)["p"].weight}
    assert rounded(NET, SITES, Variant(), FEED) == NET


def test_a_weight_that_two_nodes_use_is_rounded_for_both(tmp_path: Path) -> None:
    body = "a = MatMul(x, u)  s = Tanh(a)  y = MatMul(s, u)"
    model = built("float[n,12] x", "float[n,12] y", body, u=normal(12, 12))
    x = (normal(200, 3) @ normal(3, 12, seed=1)).astype(np.float32)
    (site,) = find_sites(model)
    new = rounded(model, [site], all_int8([site]), Feed({"x": x}, 50))
    exact = answer(model, x, tmp_path)
    errors = [((answer(m, x, tmp_path) - exact) ** 2).mean() for m in (new, nearest(model))]
    assert errors[0] < 0.8 * errors[1]


def test_codes_in_blocks_for_weights_alone(tmp_path: Path) -> None:
    """On correlated inputs four bits by GPTQ err less than four bits to nearest."""
    body = "a = MatMul(x, u)  s = Relu(a)  y = Gemm <transB = 1> (s, v)"
    weights = {"u": normal(48, 40), "v": normal(6, 40, seed=1)}
    model = built("float[n,48] x", "float[n,6] y", body, **weights)
    x = (normal(400, 6) @ normal(6, 48, seed=2)).astype(np.float32)
    layers, feed = linear_nodes(model), Feed({"x": x[:300]}, 100)
    got = dict(block_codes(model, layers.values(), feed, bits=4, block=16))
    assert got["u"].codes.shape == (40, 48) and got["v"].codes.shape == (6, 40)
    errors = []
    for by_gptq in (True, False):
        new = onnx.ModelProto()
        new.CopyFrom(model)
        for held in new.graph.initializer:
            rows = nh.to_array(held).T if held.name == "u" else nh.to_array(held)
            grid = block_grid(rows, bits=4, block=16)
            values = got[held.name].values(16) if by_gptq else grid.values(grid.nearest(rows))
            stored = values.T if held.name == "u" else values
            held.CopyFrom(nh.from_array(np.ascontiguousarray(stored, np.float32), held.name))
        change = answer(new, x[300:], tmp_path) - answer(model, x[300:], tmp_path)
        errors.append((change**2).mean())
    assert errors[0] < 0.5 * errors[1]
    assert not dict(block_codes(NET, [linear_nodes(NET)["a"]], FEED, bits=4, block=16))


def test_layers_that_hold_no_number_are_left_alone() -> None:
    rows, gram = np.ones((1, 2, 3), np.float32), np.eye(3)[None]
    bad = np.where(np.eye(3)[None] > 0, np.inf, 0.0)
    np.testing.assert_array_equal(round_rows(rows, bad, "gptq"), rows)
    rows[0, 0, 0] = np.nan
    np.testing.assert_array_equal(round_rows(rows, gram, "gptq"), rows)
    zero = np.zeros((1, 2, 3), np.float32)
    np.testing.assert_array_equal(round_rows(zero, gram, "gptq"), zero)


def test_unknown_methods() -> None:
    with pytest.raises(InputError, match="unknown rounding 'up'; known: gptq, adaround"):
        rounded(NET, SITES, FULL, FEED, method="up")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="unknown repair 'glue'; known: equalised, smoothed, "):
        repair("glue", NET, SITES, FULL, RANGES, FEED)
    with pytest.raises(InputError, match="unknown repair 'glue'; known: equalised, smoothed, "):
        list(repaired(NET, SITES, FULL, RANGES, FEED, lambda m, r: 1.0, ("glue",)))


def coarse(low: float, high: float) -> Ranges:
    """Ranges that clip what the Conv reads, so that int8 has a mean error to correct."""
    return Ranges({"minmax": {**RANGES.table["minmax"], "x": (low, high)}})


def test_bias_correction_takes_the_mean_error_of_a_site(tmp_path: Path) -> None:
    body = "a = Conv <kernel_shape = [3,3]> (x, w)  y = GlobalAveragePool(a)"
    w = normal(5, 3, 3, 3) + 0.3
    model = built("float[n,3,8,8] x", "float[n,5,1,1] y", body, w=w)
    sites, variant = find_sites(model), Variant.of({"a": "int8"}, "minmax-narrow")
    found = calibrate(model, sites, FEED.inputs, batch=32, threads=1).ranges.table["minmax"]
    ranges = Ranges({"minmax": {**found, "x": (-0.5, 0.8)}})
    new = bias_corrected(model, sites, variant, ranges, FEED)
    assert len(model.graph.node[0].input) == 2 and len(new.graph.node[0].input) == 3
    exact = answer(model, ROWS[:96], tmp_path)
    shift = []
    for m in (model, new):
        write_variant(m, sites, variant, ranges, tmp_path / "v.onnx")
        got = answer(tmp_path / "v.onnx", ROWS[:96], tmp_path)
        shift.append(np.abs((got - exact).mean(0)).max())
    assert shift[0] > 0.1
    assert shift[1] < 0.1 * shift[0]


def test_a_product_without_a_bias_is_left_as_it_is() -> None:
    body = "a = MatMul(x, u)  b = Add(a, c)  s = Relu(b)  y = MatMul(s, v)"
    given = {"u": normal(6, 6), "v": normal(6, 6, seed=1), "c": np.zeros(6)}
    model = built("float[n,6] x", "float[n,6] y", body, **given)
    x = (normal(64, 6, seed=2) + 1).astype(np.float32)
    sites, feed = find_sites(model), Feed({"x": x}, 32)
    ranges = calibrate(model, sites, feed.inputs, batch=32, threads=1).ranges
    new = bias_corrected(model, sites, all_int8(sites), ranges, feed)
    old = {i.name: i for i in model.graph.initializer}
    assert {i.name for i in new.graph.initializer if i != old[i.name]} == {"c"}
    assert mean_corrected(model, sites, all_int8(sites), ranges, feed) == model


def test_mean_correction_takes_the_mean_error_of_the_answers(tmp_path: Path) -> None:
    assert [x.node for x in last_layers(NET)] == ["y"]
    for variant in (FULL, Variant.of({"a": "int8"})):
        ranges = coarse(-1.0, 2.0)
        new = mean_corrected(NET, SITES, variant, ranges, FEED)
        exact = answer(NET, ROWS[:96], tmp_path)
        shift = []
        for m in (NET, new):
            write_variant(m, SITES, variant, ranges, tmp_path / "v.onnx")
            got = answer(tmp_path / "v.onnx", ROWS[:96], tmp_path)
            shift.append(np.abs((got - exact).mean(0)).max())
        assert shift[0] > 0.01
        assert shift[1] < 0.05 * shift[0]
    assert mean_corrected(NET, SITES, Variant(), RANGES, FEED).graph.node == NET.graph.node


def measured_noise(folder: Path, x: Array) -> Callable[[onnx.ModelProto, Ranges], float]:
    exact = answer(NET, x, folder)

    def noise(model: onnx.ModelProto, ranges: Ranges) -> float:
        write_variant(model, SITES, FULL, ranges, folder / "v.onnx")
        return float(((answer(folder / "v.onnx", x, folder) - exact) ** 2).mean())

    return noise


def test_a_repair_is_kept_only_where_it_lowers_the_noise(tmp_path: Path) -> None:
    noise = measured_noise(tmp_path, ROWS[96:])
    steps = list(repaired(NET, SITES, FULL, RANGES, FEED, noise))
    assert [s.name for s in steps] == list(FREE)
    best = noise(NET, RANGES)
    for s in steps:
        assert s.before == best
        assert s.kept == (s.noise < best)
        best = min(best, s.noise)
        assert noise(s.model, s.ranges) == pytest.approx(best, rel=1e-6)
        assert find_sites(s.model) == SITES
        assert s.seconds > 0
    assert any(s.kept for s in steps)
    assert best < 0.9 * steps[0].before


def test_what_does_not_help_is_not_kept() -> None:
    falling = iter([1.0, 2.0, 1.0, 0.5, 0.7, 0.4])
    steps = list(repaired(NET, SITES, FULL, RANGES, FEED, lambda m, r: next(falling)))
    assert [s.kept for s in steps] == [False, False, True, False, True]
    assert steps[1].model is NET and steps[1].ranges is RANGES
    assert steps[3].model is steps[2].model


def test_a_repair_that_changes_nothing_is_not_measured() -> None:
    body = "a = MatMul(x, u)  y = Sigmoid(a)"
    model = built("float[n,6] x", "float[n,6] y", body, u=np.eye(6))
    sites, x = find_sites(model), normal(8, 6).astype(np.float32)
    ranges = calibrate(model, sites, {"x": x}, batch=8, threads=1).ranges
    once = iter([1.0])
    names = ("equalised", "smoothed")
    steps = repaired(
        model, sites, all_int8(sites), ranges, Feed({"x": x}, 8), lambda m, r: next(once), names
    )
    assert list(steps) == []
