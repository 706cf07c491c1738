from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper as nh
from onnx.external_data_helper import set_external_data
from onnx.parser import parse_model

from justenough.core.cases import Cases
from justenough.errors import InputError
from justenough.subjects.onnx_model import (
    OnnxModel,
    file_sha256,
    find_sites,
    load_proto,
    shapes_of,
)
from justenough.subjects.sessions import first_line

Array = NDArray[Any]
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(
        body: str = "y = Relu(x)",
        face: str = "(float[n,2] x) => (float[n,2] y)",
        name: str = "m.onnx",
        **weights: Array,
    ) -> Path:
        model = parse_model(f'<ir_version: 8, opset_import: ["": 17]> g {face} {{ {body} }}')
        model.graph.initializer.extend(nh.from_array(v, k) for k, v in weights.items())
        onnx.save(model, tmp_path / name)
        return tmp_path / name

    return write


ROWS: Array = np.arange(14, dtype=np.float32).reshape(7, 2) - 5


def test_runs_in_batches_whatever_their_size(write: Write) -> None:
    path = write()
    for batch in (1, 3, 7, 50):
        got = OnnxModel(path, batch=batch).run({"x": ROWS})
        np.testing.assert_array_equal(got["y"], np.maximum(ROWS, 0))


def test_fixed_batch_is_filled_up(write: Write) -> None:
    model = OnnxModel(write(face="(float[4,2] x) => (float[4,2] y)"), batch=99)
    assert model.fixed_batch == 4
    for n in (1, 4, 7):
        got = model.run({"x": ROWS[:n]})["y"]
        np.testing.assert_array_equal(got, np.maximum(ROWS[:n], 0))


def test_defaults_that_may_be_overridden_are_no_inputs(write: Write) -> None:
    face = "(float[n,2] x, float[1] bias) => (float[n,2] y)"
    model = OnnxModel(write("y = Add(x, bias)", face, bias=np.array([1], np.float32)))
    assert model.input_names == ("x",)
    np.testing.assert_array_equal(model.run({"x": ROWS})["y"], ROWS + 1)


@pytest.mark.parametrize(("field", "value"), [("batch", 0), ("threads", 0), ("threads", 10**6)])
def test_numbers_that_make_no_sense(write: Write, field: str, value: int) -> None:
    with pytest.raises(InputError, match=f"{field}={value} "):
        OnnxModel(write(), **{field: value})  # type: ignore[arg-type]


def test_cases_take_the_models_type_only_where_nothing_is_lost(write: Write) -> None:
    floats = OnnxModel(write())
    given: Array
    bad: Array
    for given in (ROWS.astype(np.float64), ROWS.astype(np.float16), ROWS.astype(">f4")):
        assert floats.check_cases(Cases({"x": given})).inputs["x"].dtype == np.dtype("=f4")
    whole = OnnxModel(write("y = Abs(x)", "(int64[n,2] x) => (int64[n,2] y)", "i.onnx"))
    for given in (
        np.array([[1, 2]], np.int32),
        np.array([[1, 2]], np.uint8),
        np.array([[True, False]]),
    ):
        assert whole.check_cases(Cases({"x": given})).inputs["x"].dtype == np.int64
    bytes_in = OnnxModel(write("y = Identity(x)", "(uint8[n,2] x) => (uint8[n,2] y)", "u.onnx"))
    assert (
        bytes_in.check_cases(Cases({"x": np.array([[0, 255]], np.int64)})).inputs["x"].dtype
        == np.uint8
    )
    for model, bad in (
        (floats, np.array([[1, 2]], np.int64)),
        (floats, np.array([[1e300, 0]], np.float64)),
        (whole, np.array([[1, 2]], np.float32)),
        (bytes_in, np.array([[0, 256]], np.int64)),
        (bytes_in, np.array([[0, -1]], np.int64)),
    ):
        with pytest.raises(InputError, match=rf"input 'x' takes \w+, the cases give {bad.dtype}"):
            model.check_cases(Cases({"x": bad}))


def test_shapes_that_do_not_fit_are_named(write: Write) -> None:
    model = OnnxModel(write())
    for bad in (ROWS[:, :1], ROWS[:, :, None], ROWS[:, 0]):
        with pytest.raises(InputError, match=r"input 'x' of m\.onnx takes shape \['any', 2\]"):
            model.check_cases(Cases({"x": bad}))


def test_errors_of_the_runtime_are_one_sentence(write: Write) -> None:
    body = "i = Cast<to = 7>(x) \n y = Gather<axis = 0>(table, i)"
    face = "(float[n,2] x) => (float[n,2] y)"
    model = OnnxModel(write(body, face, table=np.array([1, 2], np.float32)))
    with pytest.raises(InputError, match=r"^m\.onnx fails on the cases: .*indices") as e:
        model.run({"x": ROWS * 100})
    assert "\n" not in str(e.value) and "ONNXRuntimeError" not in str(e.value)


def test_sites(write: Write) -> None:
    w = np.ones((2, 2), np.float32)
    body = """
        a = MatMul(x, w)
        b = MatMul(a, w)
        c = MatMul(b, a)
        e = Cast<to = 11>(b)
        f = MatMul(e, d)
        y = Cast<to = 1>(f)
    """
    path = write(body, "(float[2,2] x) => (float[2,2] y)", w=w, d=w.astype(np.float64))
    model = load_proto(path)
    for node in model.graph.node:
        node.name = node.output[0]
    model = onnx.shape_inference.infer_shapes(model)
    found = {s.name: s for s in find_sites(model)}
    assert set(found) == {"a", "c"}, "a weight is one site; doubles are none"
    assert found["a"].nodes == ("a", "b") and found["a"].size == 4
    assert found["a"].operations == 2 * 2 * 2
    assert found["c"].size == 0
    assert shapes_of(model)["a"] == (2, 2)


def test_operations_of_a_convolution(write: Write) -> None:
    k = np.ones((8, 3, 5, 5), np.float32)
    path = write("y = Conv(x, k)", "(float[n,3,12,12] x) => (float[n,8,8,8] y)", k=k)
    (site,) = find_sites(load_proto(path))
    assert (site.op, site.size, site.operations) == ("Conv", 600, 8 * 8 * 8 * 75)


def test_hash_covers_the_weights_beside_the_file(write: Write, tmp_path: Path) -> None:
    path = write("y = MatMul(x, w)", w=np.eye(2, dtype=np.float32))
    model = onnx.load(path)
    set_external_data(model.graph.initializer[0], "w.bin")
    (tmp_path / "w.bin").write_bytes(np.eye(2, dtype=np.float32).tobytes())
    model.graph.initializer[0].ClearField("raw_data")
    path.write_bytes(model.SerializeToString())
    first = file_sha256(path)
    np.testing.assert_array_equal(nh.to_array(load_proto(path).graph.initializer[0]), np.eye(2))
    (tmp_path / "w.bin").write_bytes(bytes(16))
    assert file_sha256(path) != first


def test_weights_may_lie_deeper_but_not_outside(write: Write, tmp_path: Path) -> None:
    path = write("y = MatMul(x, w)", w=np.eye(2, dtype=np.float32))
    model = onnx.load(path)
    set_external_data(model.graph.initializer[0], "deep/w.bin")
    model.graph.initializer[0].ClearField("raw_data")
    path.write_bytes(model.SerializeToString())
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "w.bin").write_bytes(np.eye(2, dtype=np.float32).tobytes())
    assert load_proto(path)
    (tmp_path / "outside").mkdir()
    (tmp_path / "deep" / "w.bin").rename(tmp_path / "outside" / "w.bin")
    (tmp_path / "deep").rmdir()
    inner = tmp_path / "inner"
    inner.mkdir()
    path.rename(inner / "m.onnx")
    (inner / "deep").symlink_to(tmp_path / "outside")
    with pytest.raises(InputError, match="outside its own folder"):
        load_proto(inner / "m.onnx")


def test_first_line_leaves_out_the_noise() -> None:
    said = "[ONNXRuntimeError] : 1 : FAIL : Load model from /x/y.onnx failed: No op\nmore"
    assert first_line(RuntimeError(said)) == "No op"
    assert first_line(ValueError("")) == "ValueError"
    assert len(first_line(ValueError("a" * 999))) == 300
