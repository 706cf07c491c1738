from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper as nh
from onnx.parser import parse_model

from justenough.subjects import repair_statistics
from justenough.subjects.onnx_model import OnnxModel
from justenough.subjects.prepare import prepare
from justenough.subjects.repair_graph import Edit, Wiring, linear_nodes
from justenough.subjects.repair_statistics import Feed, key_of, layer_inputs, on_grid

Array = NDArray[Any]


def built(inputs: str, outputs: str, body: str, **weights: Array) -> onnx.ModelProto:
    """A graph with `weights` as initializers; its nodes are named after what they make."""
    made = parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> g ({inputs}) => ({outputs}) {{ {body} }}'
    )
    for name, value in weights.items():
        made.graph.initializer.append(nh.from_array(np.asarray(value, np.float32), name))
    for node in made.graph.node:
        node.name = node.output[0]
    return made


def answers(model: onnx.ModelProto, inputs: dict[str, Array], folder: Path) -> dict[str, Array]:
    onnx.save(model, folder / "model.onnx")
    return OnnxModel(folder / "model.onnx").run(inputs)


CONVOLUTIONS = {
    "plain": ("x[n,4,9,8]", (6, 4, 3, 3), "kernel_shape=[3,3], pads=[1,0,2,1]"),
    "strided": ("x[n,4,9,8]", (6, 4, 3, 2), "kernel_shape=[3,2], strides=[2,3], pads=[1,1,1,1]"),
    "dilated": ("x[n,4,9,8]", (6, 4, 3, 2), "kernel_shape=[3,2], dilations=[2,3]"),
    "grouped": ("x[n,4,9,8]", (6, 2, 3, 3), "kernel_shape=[3,3], group=2"),
    "depthwise": ("x[n,4,9,8]", (8, 1, 3, 3), "kernel_shape=[3,3], group=4, pads=[1,1,1,1]"),
    "upper": ("x[n,4,9,8]", (6, 4, 4, 3), 'auto_pad="SAME_UPPER", strides=[2,3]'),
    "lower": ("x[n,4,9,8]", (6, 4, 4, 3), 'auto_pad="SAME_LOWER", strides=[2,3]'),
    "valid": ("x[n,4,9,8]", (6, 4, 3, 3), 'auto_pad="VALID"'),
    "one": ("x[n,4,9]", (6, 4, 3), "kernel_shape=[3], pads=[1,1]"),
    "three": ("x[n,2,5,4,6]", (3, 2, 2, 3, 2), "kernel_shape=[2,3,2], strides=[1,1,2]"),
}


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_what_a_convolution_reads_is_what_it_multiplies(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mean square of its outputs is trace(W G W^T), its mean output W E[x]."""
    given, shape, attributes = CONVOLUTIONS[kind]
    monkeypatch.setattr(repair_statistics, "SAMPLES", 10**9)
    rng = np.random.default_rng(0)
    w = rng.normal(size=shape).astype(np.float32)
    rank = ",".join(["n", *"abcd"[: len(shape) - 1]])
    body = f"y = Conv <{attributes}> (x, w)"
    model = built(f"float{given.removeprefix('x')} x", f"float[{rank}] y", body, w=w)
    size = [int(d) for d in given[:-1].split(",")[1:]]
    x = rng.normal(0.3, 1, size=(6, *size)).astype(np.float32)
    y = answers(model, {"x": x}, tmp_path)["y"].astype(np.float64)
    linear = linear_nodes(model)["y"]
    ((key, got),) = layer_inputs(model, [linear], Feed({"x": x}, 2))
    assert key == key_of(linear)
    rows = linear.rows(w).astype(np.float64)
    np.testing.assert_array_equal(linear.stored(linear.rows(w)), w)
    channels = np.moveaxis(y, 1, 0).reshape(len(w), -1)
    want = (channels**2).mean(1).reshape(linear.groups, -1)
    np.testing.assert_allclose(((rows @ got.gram) * rows).sum(-1), want, rtol=1e-4)
    mean = (rows @ got.mean[..., None])[..., 0].reshape(-1)
    np.testing.assert_allclose(mean, channels.mean(1), atol=1e-4)
    np.testing.assert_array_equal(got.rounded_mean, got.mean)
    peak = np.abs(x).max((0, *range(2, x.ndim)))
    np.testing.assert_allclose(got.peak, peak)


def test_products_and_where_their_biases_are(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    a, b, c = (rng.normal(size=s) for s in ((5, 7), (3, 7), (3, 4)))
    body = """
        p = MatMul(x, a)
        q = Add(bias, p)
        r = Gemm <transB = 1> (q, b)
        s = Gemm (r, c, vector)
        y = MatMul(s, d)
    """
    given = {"bias": np.ones(7), "vector": np.ones(4), "d": np.ones((4, 2))}
    model = built("float[n,5] x", "float[n,2] y", body, a=a, b=b, c=c, **given)
    found = linear_nodes(model)
    assert {k: v.bias for k, v in found.items()} == {
        "p": ("q", 0), "r": ("r", 2), "s": ("s", 2), "y": None,
    }  # fmt: skip
    np.testing.assert_array_equal(found["p"].rows(a)[0], a.T)
    np.testing.assert_array_equal(found["r"].rows(b)[0], b)
    assert [(v.inputs, v.outputs) for v in found.values()] == [(5, 7), (7, 3), (3, 4), (4, 2)]
    for name, w in (("p", a), ("r", b)):
        np.testing.assert_array_equal(found[name].stored(found[name].rows(w)), w)
        by = np.arange(1.0, found[name].inputs + 1)
        scaled = found[name].scaled_inputs(w, by)
        np.testing.assert_allclose(found[name].rows(scaled)[0], found[name].rows(w)[0] * by)
        ranges = np.abs(found[name].rows(w)[0]).max(0)
        np.testing.assert_array_equal(found[name].input_ranges(w), ranges)
    x = rng.normal(size=(40, 5)).astype(np.float32)
    got = dict(layer_inputs(model, found.values(), Feed({"x": x}, 20)))
    np.testing.assert_allclose(got[key_of(found["p"])].gram[0], x.T @ x / 40, atol=1e-5)


def test_groups_scale_their_own_channels() -> None:
    w = np.arange(1.0, 25).reshape(4, 3, 2, 1)
    model = built("float[n,6,5,5] x", "float[n,4,a,b] y", "y = Conv <group = 2> (x, w)", w=w)
    linear = linear_nodes(model)["y"]
    ranges = linear.input_ranges(w)
    assert ranges.tolist() == [8, 10, 12, 20, 22, 24]
    scaled = linear.scaled_inputs(w, 1 / ranges)
    np.testing.assert_allclose(linear.input_ranges(scaled), 1)


def test_what_is_no_plain_layer_is_left_out() -> None:
    body = """
        a = Gemm <transA = 1> (x, w)
        b = Gemm <alpha = 0.5> (x, w2)
        c = MatMul(x, w3)
        d = MatMul(w4, x)
        e = MatMul(x, x)
        f = MatMul(x, shared)
        g = Add(f, shared)
        h = Gemm (x, w5, full)
        i = MatMul(x, shown)
    """
    shape = (4, 4)
    names = ("w", "w2", "w4", "w5", "shared", "shown", "full")
    weights = {n: np.ones(shape) for n in names} | {"w3": np.ones((2, 4, 4))}
    outputs = ", ".join(f"float[4,4] {k}" for k in "abdeghi")
    model = built("float[4,4] x", f"{outputs}, float[2,4,4] c, float[4,4] shown", body, **weights)
    found = linear_nodes(model)
    assert set(found) == {"h"}
    assert found["h"].bias is None, "a bias for each row cannot be shifted by channel"


def test_weights_read_inside_a_branch_are_left_out() -> None:
    inner = "(v) { v = MatMul(x, w) }"
    body = f"""
        y = MatMul(x, w)
        z = If (k) <
            then_branch = then () => (float[n,4] {inner[1]}) {inner[4:]},
            else_branch = other () => (float[n,4] u) {{ u = Identity(x) }}
        >
    """
    model = built("float[n,4] x, bool k", "float[n,4] y, float[n,4] z", body, w=np.eye(4))
    assert linear_nodes(model) == {}
    assert [slot for _, slot in Wiring(model.graph).readers["w"]] == [1, -1]


def test_an_edit_gives_a_node_a_constant_of_its_own() -> None:
    body = "a = Gemm(x, w, b)  c = Gemm(a, v, b)  y = Add(c, w)"
    given = {"w": np.eye(3), "v": np.eye(3), "b": np.zeros(3)}
    model = built("float[3,3] x", "float[3,3] y", body, **given)
    before = model.SerializeToString()
    edit = Edit(model)
    edit.put("a", 2, np.ones(3))
    assert edit.model.graph.node[0].input[2] == "a/2"
    assert edit.model.graph.node[1].input[2] == "b"
    edit.put("c", 2, np.full(3, 2.0))
    assert edit.model.graph.node[1].input[2] == "b", "now it alone reads it"
    assert edit.constant("c", 2) is not None and edit.constant("y", 0) is None
    assert edit.add("a/2", np.ones(1)) == "a/2_1"
    assert model.SerializeToString() == before


def test_memory_is_bounded_by_taking_layers_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    body = "a = MatMul(x, u)  b = Relu(a)  y = MatMul(b, v)"
    weights = {"u": np.eye(6), "v": np.eye(6)}
    model = prepare(built("float[n,6] x", "float[n,6] y", body, **weights))
    x = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
    layers, feed = list(linear_nodes(model).values()), Feed({"x": x}, 10)
    whole = dict(layer_inputs(model, layers, feed))
    monkeypatch.setattr(repair_statistics, "GRAM_BYTES", 1)
    parts = dict(layer_inputs(model, layers, feed))
    assert parts.keys() == whole.keys() and len(parts) == 2
    for key, got in parts.items():
        np.testing.assert_array_equal(got.gram, whole[key].gram)


def test_large_inputs_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repair_statistics, "SAMPLES", 4000)
    model = built("float[n,6] x", "float[n,6] y", "y = MatMul(x, u)", u=np.eye(6))
    x = np.random.default_rng(0).normal(size=(40_000, 6)).astype(np.float32)
    ((_, got),) = layer_inputs(model, linear_nodes(model).values(), Feed({"x": x}, 20_000))
    np.testing.assert_allclose(got.gram[0], np.eye(6), atol=0.12)
    assert not np.array_equal(got.gram[0], x.T @ x / len(x))


def test_rounding_of_inputs_is_that_of_the_quantizer() -> None:
    x = np.array([-5, -1, 0, 0.3, 2, 9], np.float32)
    scale = np.float32(3 / 255)
    zero = round(1 / (3 / 255))
    want = (np.clip(np.rint(x / scale) + zero, 0, 255) - zero) * scale
    np.testing.assert_allclose(on_grid(x, (-1.0, 2.0)), want, rtol=1e-6)
    np.testing.assert_array_equal(on_grid(np.zeros(2), (0.0, 0.0)), [0, 0])
    assert on_grid(np.array([0.41]), (0.2, 1.0))[0] == pytest.approx(105 / 255)
