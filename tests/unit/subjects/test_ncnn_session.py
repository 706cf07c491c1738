import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from test_ncnn_files import NOTE, PORT, RELU, written

from justenough.errors import InputError
from justenough.subjects import ncnn_session
from justenough.subjects.ncnn_files import Note, Port
from justenough.subjects.ncnn_session import (
    NcnnSession,
    answers_apart,
    open_ncnn,
    unknown_layers,
    versions,
    vulkan_devices,
)

pytest.importorskip("ncnn", reason="needs the vulkan extra")

Array = NDArray[Any]
TWO = (
    "7767517\n4 6\nInput i 0 1 in0\nInput j 0 1 in1\nBinaryOp a 2 1 in0 in1 s 0=0\n"
    "Split p 1 2 s out1 t\n"
).replace("4 6", "5 6") + "TanH t 1 1 t out0\n"
DENSE = "7767517\n2 2\nInput i 0 1 in0\nInnerProduct d 1 1 in0 out0 0=3 1=0 2=12\n"
WEIGHTS = np.random.default_rng(3).standard_normal((3, 4)).astype(np.float32)


def ported(inputs: dict[str, tuple[int, ...]], outputs: dict[str, tuple[int, ...]]) -> Note:
    return replace(
        NOTE,
        inputs=tuple(replace(PORT, name=n, blob=f"in{k}", row=s)
                     for k, (n, s) in enumerate(inputs.items())),
        outputs=tuple(replace(PORT, name=n, blob=f"out{k}", row=s)
                      for k, (n, s) in enumerate(outputs.items())),
    )  # fmt: skip


def relu(folder: Path, row: tuple[int, ...] = (2, 3)) -> NcnnSession:
    return open_ncnn(written(folder, note=ported({"x": row}, {"y": row})))


def dense(folder: Path, weights: Array = WEIGHTS) -> Path:
    held = b"\0" * 4 + weights.tobytes()  # four zero bytes say float32
    return written(folder, DENSE, ported({"x": (4,)}, {"y": (3,)}), held)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_every_shape_of_row_comes_back_in_order(tmp_path: Path, data: st.DataObject) -> None:
    row = data.draw(hnp.array_shapes(min_dims=0, max_dims=4, max_side=7))
    kind = data.draw(st.sampled_from(["<f4", "<f8", ">f4", "u1", "i8", "?"]))
    x = np.random.default_rng(7).normal(0, 9, (data.draw(st.integers(0, 3)), *row)).astype(kind)
    x.setflags(write=data.draw(st.booleans()))
    before = x.copy()
    (y,) = relu(tmp_path, row).run(None, {"x": x})
    assert (y.dtype.name, y.shape) == ("float32", x.shape)
    np.testing.assert_array_equal(y, np.maximum(x.astype(np.float32), 0))
    np.testing.assert_array_equal(x, before)


def test_rows_of_any_stride(tmp_path: Path) -> None:
    x = np.arange(48.0).reshape(4, 3, 4)[::2, :, ::2].transpose(0, 2, 1) - 20
    np.testing.assert_array_equal(relu(tmp_path).run(None, {"x": x})[0], np.maximum(x, 0))


def test_weights_give_what_numpy_gives(tmp_path: Path) -> None:
    x = np.random.default_rng(4).standard_normal((5, 4)).astype(np.float32)
    (y,) = open_ncnn(dense(tmp_path)).run(None, {"x": x})
    np.testing.assert_allclose(y, x @ WEIGHTS.T, rtol=1e-5, atol=1e-6)


def test_answers_do_not_change_with_the_next_call(tmp_path: Path) -> None:
    session = relu(tmp_path)
    (first,) = session.run(None, {"x": np.ones((1, 2, 3))})
    session.run(None, {"x": np.full((1, 2, 3), 5)})
    assert first.max() == 1


@pytest.fixture
def two(tmp_path: Path) -> NcnnSession:
    note = ported({"a": (3,), "b": (3,)}, {"tanh": (3,), "sum": (3,)})
    return open_ncnn(written(tmp_path, TWO, note))


def test_looks_like_a_session_of_onnx_runtime(two: NcnnSession) -> None:
    assert [(i.name, i.shape, i.type) for i in two.get_inputs()] == [
        ("a", ("n", 3), "tensor(float)"), ("b", ("n", 3), "tensor(float)"),
    ]  # fmt: skip
    assert [o.name for o in two.get_outputs()] == ["tanh", "sum"]
    assert not two.get_overridable_initializers()


def test_outputs_by_name_and_inputs_in_any_order(two: NcnnSession) -> None:
    a = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
    b = np.array([[9, 8, 7], [-4, -5, 6]], np.float32)
    both = two.run(None, {"b": b, "a": a})
    np.testing.assert_array_equal(both[1], a + b)
    np.testing.assert_allclose(both[0], np.tanh(a + b), atol=1e-5)
    (only,) = two.run(["sum"], {"a": a, "b": b})
    np.testing.assert_array_equal(only, a + b)


def test_threads_share_a_session(two: NcnnSession) -> None:
    feeds = [{k: np.full((4, 3), i, np.float32) for k in "ab"} for i in range(40)]
    with ThreadPoolExecutor(4) as pool:
        sums = list(pool.map(lambda f: two.run(["sum"], f)[0], feeds))
    for i, got in enumerate(sums):
        np.testing.assert_array_equal(got, np.full((4, 3), 2 * i))


@pytest.mark.parametrize(
    ("feed", "said"),
    [
        ({"a": (2, 3)}, r"got inputs \['a'\]; the network takes \['a', 'b'\]"),
        ({"a": (2, 3), "b": (2, 3), "c": (2, 3)}, "got inputs"),
        (
            {"a": (2, 3), "b": (2, 4)},
            r"'b' takes numbers of shape \['any', 3\], got float64 \(2, ",
        ),
        ({"a": (2, 3), "b": ()}, r"got float64 \(\)"),
        ({"a": (2, 3), "b": (1, 3)}, r"inputs have \[2, 1\] rows; each needs as many"),
    ],
)
def test_rows_that_do_not_fit(two: NcnnSession, feed: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        two.run(None, {k: np.zeros(s) for k, s in feed.items()})


def test_what_a_session_does_not_have(two: NcnnSession) -> None:
    feed: dict[str, Array] = {k: np.zeros((1, 3)) for k in "ab"}
    with pytest.raises(InputError, match="no output 'max'; it has: tanh, sum"):
        two.run(["max"], feed)
    with pytest.raises(InputError, match="got complex128"):
        two.run(None, {**feed, "a": np.zeros((1, 3), complex)})


def test_an_output_of_another_size_than_the_note_says(tmp_path: Path) -> None:
    path = written(tmp_path, note=ported({"x": (2, 3)}, {"y": (2, 2)}))
    with pytest.raises(InputError, match=r"output 'y' \(code 0, 6 values where \[2, 2\] are due"):
        open_ncnn(path).run(None, {"x": np.zeros((1, 2, 3))})


def test_fp32_leaves_nothing_narrow_on(tmp_path: Path) -> None:
    session = relu(tmp_path)
    assert (session.in_force, session.device) == ((), "cpu")
    narrow = [k for k in dir(session.net.opt) if k.startswith(("use_fp16", "use_bf16"))]
    assert len(narrow) >= 5
    assert not any(getattr(session.net.opt, k) for k in narrow)
    assert not session.net.opt.use_vulkan_compute


@pytest.mark.parametrize(("precision", "bits"), [("fp16", 11), ("bf16", 8)])
def test_narrow_arithmetic_rounds_and_no_more_than_that(
    tmp_path: Path, precision: str, bits: int
) -> None:
    x = np.random.default_rng(4).random((50, 4)).astype(np.float32)
    session = open_ncnn(dense(tmp_path, np.abs(WEIGHTS)), precision=precision)
    exact = x @ np.abs(WEIGHTS).T
    error = np.abs(session.run(None, {"x": x})[0] / exact - 1).max()
    assert session.in_force
    assert 0 < error < 2.0**-bits * 3


def test_a_layer_that_ncnn_does_not_have(tmp_path: Path) -> None:
    assert unknown_layers(["Split", "pnnx.Expression", "ReLU", "Det"]) == [
        "Det",
        "pnnx.Expression",
    ]
    with pytest.raises(InputError, match=r"^ncnn [0-9.]+ has no layer pnnx.Expression$"):
        open_ncnn(written(tmp_path, RELU.replace("ReLU", "pnnx.Expression")))


def test_weights_that_end_early_are_not_run(tmp_path: Path) -> None:
    path = dense(tmp_path, WEIGHTS[:2])
    with pytest.raises(InputError, match=r"^ncnn [0-9.]+ cannot load model.ncnn.param$"):
        open_ncnn(path)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"device": "cuda"}, "ncnn has no 'fp32' on 'cuda'; it has fp32, fp16, bf16 on cpu and"),
        ({"precision": "int8"}, "ncnn has no 'int8' on 'cpu'"),
        ({"threads": 0}, "threads=0 must be 1 or more"),
    ],
)
def test_what_ncnn_does_not_offer(tmp_path: Path, asked: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        open_ncnn(written(tmp_path), **asked)


def test_a_precision_that_the_device_switches_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ncnn_session.SWITCHES, "fp16", ())
    with pytest.raises(InputError, match="the cpu device has nothing of fp16 for ncnn; use fp32"):
        open_ncnn(written(tmp_path), precision="fp16")


@pytest.fixture
def probes() -> Iterator[None]:
    ncnn_session._probed.cache_clear()
    yield
    ncnn_session._probed.cache_clear()


@pytest.mark.usefixtures("probes")
@pytest.mark.parametrize("code", ["import os; os.abort()", "print('?')", "print()", "print(", ""])
def test_a_driver_that_breaks_is_no_device(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ncnn_session, "_PROBE", code)
    assert vulkan_devices() == []


@pytest.mark.usefixtures("probes")
def test_a_driver_that_hangs_is_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ncnn_session, "_PROBE", "import time; time.sleep(99)")
    monkeypatch.setattr(ncnn_session, "PROBE_SECONDS", 0.2)
    assert vulkan_devices() == []


@pytest.mark.usefixtures("probes")
def test_no_driver_no_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VK_DRIVER_FILES", "VK_ICD_FILENAMES"):
        monkeypatch.setenv(name, str(tmp_path / "none.json"))
    assert vulkan_devices() == []
    with pytest.raises(InputError, match="no Vulkan device is found; install its driver, or"):
        open_ncnn(written(tmp_path), device="vulkan")


def test_without_the_package(monkeypatch: pytest.MonkeyPatch, probes: None) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert vulkan_devices() == []
    assert versions() == {}
    ncnn_session._ncnn.cache_clear()
    with pytest.raises(InputError, match=r"install justenough\[vulkan\] to use it"):
        unknown_layers(["ReLU"])


def test_versions_and_a_clean_environment() -> None:
    assert set(versions()) <= {"ncnn", "pnnx"}
    assert versions()["ncnn"]
    before = dict(os.environ)
    ncnn_session._ncnn.cache_clear()
    unknown_layers(["ReLU"])
    assert dict(os.environ) == before


def test_another_process_gives_the_same_answers(tmp_path: Path) -> None:
    note = replace(ported({"file": (3,), "b": (3,)}, {"a/b": (3,), "sum": (3,)}), weights="fp16")
    path = written(tmp_path, TWO, note)
    feed = {"b": np.array([[1, 2, 3]], np.float32), "file": np.full((1, 3), 4, np.float32)}
    got = answers_apart(path, feed)
    assert list(got) == ["a/b", "sum"]
    for here, there in zip(open_ncnn(path).run(None, feed), got.values(), strict=True):
        np.testing.assert_array_equal(here, there)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import os; os.abort()", r"^ncnn crashed on model.ncnn.param \(exit code -6\)$"),
        ("", r"^ncnn crashed on model.ncnn.param \(exit code 0\)$"),
        ("import time; time.sleep(99)", "^ncnn took more than 1 s on model.ncnn.param$"),
    ],
)
def test_another_process_that_dies(
    tmp_path: Path, code: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ncnn_session, "_ANSWER", code)
    with pytest.raises(InputError, match=said):
        answers_apart(written(tmp_path), {"x": np.zeros((1, 2, 3))}, timeout_s=1)


def test_another_process_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^input 'x' takes numbers of shape \['any', 2, 3\]"):
        answers_apart(written(tmp_path), {"x": np.zeros((1, 2, 4))})


def test_ports_are_those_of_the_note(tmp_path: Path) -> None:
    assert relu(tmp_path).get_inputs() == (Port("x", "in0", "tensor(float)", (2, 3)),)
    assert sys.modules["ncnn"] is ncnn_session._ncnn()
