from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper as nh
from onnx.parser import parse_model

from justenough.errors import InputError
from justenough.subjects.onnx_model import OnnxModel
from justenough.subjects.prepare import MICROSOFT, fuse_activations, prepare

Array = NDArray[Any]
FACE = "(float[n,8] x) => (float[n,8] y)"
W: Array = np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)
CONSTANTS: Mapping[str, Array] = {
    "w": W,
    "half": np.array(0.5, np.float32),
    "one": np.array(1, np.float32),
    "two": np.array(2, np.float32),
    "root": np.array(2**0.5, np.float32),
    "inverse": np.array(2**-0.5, np.float32),
}


def graph(body: str, face: str = FACE) -> onnx.ModelProto:
    model = parse_model(f'<ir_version: 8, opset_import: ["": 17]> g {face} {{ {body} }}')
    model.graph.initializer.extend(
        nh.from_array(np.asarray(v), k) for k, v in CONSTANTS.items() if k in body
    )
    return model


def ops(model: onnx.ModelProto) -> list[str]:
    return [n.op_type for n in model.graph.node]


SILU = "s = Sigmoid(h) \n y = Mul({})"
GELUS = [
    "d = Div(h, root) \n e = Erf(d) \n p = Add(e, one) \n m = Mul(h, p) \n y = Mul(m, half)",
    "d = Mul(h, inverse) \n e = Erf(d) \n p = Add(one, e) \n m = Mul(half, h) \n y = Mul(m, p)",
    "d = Div(h, root) \n e = Erf(d) \n p = Add(e, one) \n m = Mul(p, half) \n y = Mul(h, m)",
]


@pytest.mark.parametrize(
    ("body", "op"),
    [
        (SILU.format("h, s"), "QuickGelu"),
        (SILU.format("s, h"), "QuickGelu"),
        *((body, "Gelu") for body in GELUS),
    ],
)
def test_activations_become_one_node_and_answer_the_same(
    body: str, op: str, tmp_path: Path
) -> None:
    model = graph(f"h = MatMul(x, w) \n {body}")
    prepared = prepare(model)
    assert ops(prepared) == ["MatMul", op]
    assert prepared.graph.node[1].domain == MICROSOFT
    onnx.save(model, tmp_path / "a.onnx")
    onnx.save(prepared, tmp_path / "b.onnx")
    x = np.random.default_rng(1).normal(size=(5, 8)).astype(np.float32)
    a, b = (OnnxModel(tmp_path / f"{k}.onnx").run({"x": x})["y"] for k in "ab")
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "body",
    [
        "s = Sigmoid(x) \n y = Mul(h, s)",
        "d = Div(h, two) \n e = Erf(d) \n p = Add(e, one) \n m = Mul(h, p) \n y = Mul(m, half)",
        "d = Div(h, root) \n e = Erf(d) \n p = Add(e, two) \n m = Mul(h, p) \n y = Mul(m, half)",
        "d = Div(h, root) \n e = Erf(d) \n p = Add(e, one) \n m = Mul(h, p) \n y = Mul(m, two)",
        "d = Div(h, root) \n e = Erf(d) \n p = Add(e, one) \n m = Mul(x, p) \n y = Mul(m, half)",
        "d = Div(h, root) \n e = Erf(d) \n p = Add(e, one) \n y = Mul(h, p)",
    ],
)
def test_what_only_looks_like_it_stays(body: str) -> None:
    assert fuse_activations(graph(f"h = MatMul(x, w) \n {body}")) == 0


def test_what_others_read_stays() -> None:
    face = "(float[n,8] x) => (float[n,8] y, float[n,8] s)"
    shown = graph("h = MatMul(x, w) \n s = Sigmoid(h) \n y = Mul(h, s)", face)
    assert fuse_activations(shown) == 0
    face = "(float[n,8] x) => (float[n,8] y, float[n,8] z)"
    used = graph("h = MatMul(x, w) \n s = Sigmoid(h) \n y = Mul(h, s) \n z = Neg(s)", face)
    assert fuse_activations(used) == 0


def test_folds_names_and_shapes() -> None:
    model = graph("c = Add(w, one) \n h = MatMul(x, c) \n y = MatMul(h, w)")
    prepared = prepare(model)
    assert ops(prepared) == ["MatMul", "MatMul"]
    names = [n.name for n in prepared.graph.node]
    assert all(names) and len(set(names)) == 2
    assert [v.name for v in prepared.graph.value_info] == [prepared.graph.node[0].output[0]]
    assert [i.name for i in prepared.graph.input] == ["x"]
    assert [o.name for o in prepared.graph.output] == ["y"]


def test_the_given_model_is_not_changed() -> None:
    model = graph(f"h = MatMul(x, w) \n {GELUS[0]}")
    before = model.SerializeToString(deterministic=True)
    prepare(model)
    assert model.SerializeToString(deterministic=True) == before


def test_what_the_runtime_cannot_load() -> None:
    model = graph("y = Relu(x)")
    model.graph.node[0].domain = "org.nowhere"
    model.opset_import.append(onnx.helper.make_opsetid("org.nowhere", 1))
    with pytest.raises(InputError, match=r"cannot load the model: .*org\.nowhere"):
        prepare(model)
