from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort  # type: ignore[import-untyped,unused-ignore]
import pytest
from numpy.typing import NDArray
from onnx import helper as oh
from onnx import numpy_helper as nh
from onnx.parser import parse_model

from justenough.core.gate import Gate
from justenough.deploy import cascade
from justenough.deploy.cascade import DEFERRED, THRESHOLDS, write_cascade
from justenough.deploy.runner import CascadeRunner
from justenough.errors import InputError

Array = NDArray[Any]
X: Array = np.array([[0.2, 0.1], [3, 0], [1, 1]], np.float32)
FACE = "(float[N,2] x) => (float[N,2] y)"


def write(
    path: Path,
    body: str,
    face: str = FACE,
    opsets: str = '"": 17',
    weights: Mapping[str, Array] | None = None,
) -> Path:
    model = parse_model(f"<ir_version: 8, opset_import: [{opsets}]> g {face} {{ {body} }}")
    for name, value in (weights or {}).items():
        model.graph.initializer.append(nh.from_array(value, name))
    onnx.save(model, path)
    return path


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    fast = write(tmp_path / "fast.onnx", "y = Round(x)")
    return fast, write(tmp_path / "exact.onnx", "y = Identity(x)")


def run(path: Path, inputs: Mapping[str, Array]) -> list[Array]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    answers: list[Array] = session.run(None, dict(inputs))
    return answers


def test_outside(pair: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    write_cascade(*pair, Gate("y", threshold=0.5), out, metadata={"author": "me"})
    model = onnx.load(out)
    assert [i.name for i in model.graph.input] == ["x", "threshold"]
    assert [o.name for o in model.graph.output] == ["y", "deferred"]
    assert model.graph.output[0] == onnx.load(pair[1]).graph.output[0]
    assert model.graph.output[1].type.tensor_type.shape.dim[0].dim_param == "N"
    notes = {p.key: p.value for p in model.metadata_props}
    assert notes == {"author": "me", THRESHOLDS: "threshold", DEFERRED: "deferred"}
    y, deferred = run(out, {"x": X})
    assert deferred.tolist() == [True, False, True]
    np.testing.assert_array_equal(y, X)
    assert not run(out, {"x": X, "threshold": np.array(-1, np.float32)})[1].any()


def test_no_rows_at_all(pair: tuple[Path, Path], tmp_path: Path) -> None:
    write_cascade(*pair, Gate("y"), tmp_path / "out.onnx")
    y, deferred = run(tmp_path / "out.onnx", {"x": X[:0]})
    assert (y.shape, deferred.shape) == ((0, 2), (0,))


def test_the_exact_model_may_take_more_and_the_fast_one_give_more(tmp_path: Path) -> None:
    fast = write(
        tmp_path / "fast.onnx", "y = Round(x) sure = Abs(x)", FACE[:-1] + ", float[N,2] sure)"
    )
    exact = write(
        tmp_path / "exact.onnx", "y = Add(x, z)", FACE.replace(")", ", float[N,2] z)", 1)
    )
    gate = Gate("sure", threshold=0.5)
    write_cascade(fast, exact, gate, tmp_path / "out.onnx")
    y, deferred = run(tmp_path / "out.onnx", {"x": X, "z": 10 * X})
    np.testing.assert_array_equal(y, np.where(deferred[:, None], X + 10 * X, X.round()))
    answers, also = CascadeRunner.load(fast, exact, gate).run({"x": X, "z": 10 * X})
    np.testing.assert_array_equal(answers["y"], y)
    assert set(answers) == {"y"}
    assert also.tolist() == deferred.tolist()


def test_inner_names_may_look_like_ours(tmp_path: Path) -> None:
    paths = [tmp_path / n for n in ("fast.onnx", "exact.onnx", "out.onnx")]
    for path, op in zip(paths, ("Round", "Identity"), strict=False):
        nodes = [
            oh.make_node("Neg", ["exact/x"], ["fast/y"], name="gate/If"),
            oh.make_node("Neg", ["fast/y"], ["else/z"]),
            oh.make_node(op, ["else/z"], ["gate/y"], name="gate/If_"),
        ]
        ends = [oh.make_tensor_value_info(n, 1, ["N", 2]) for n in ("exact/x", "gate/y")]
        graph = oh.make_graph(nodes, "g", ends[:1], ends[1:])
        onnx.save(oh.make_model(graph, opset_imports=[oh.make_opsetid("", 17)]), path)
    write_cascade(paths[0], paths[1], Gate("gate/y", threshold=0.5), paths[2])
    np.testing.assert_array_equal(run(paths[2], {"exact/x": X})[0], X)


def test_equal_tables_are_stored_once(tmp_path: Path) -> None:
    table = np.random.default_rng(0).normal(size=(500, 20)).astype(np.float32)
    face = "(int64[N,3] ids) => (float[N,20] y)"
    ways = {"fast": "r = Round(s)", "exact": "r = Identity(s)"}
    body = "e = Gather(table, ids) s = ReduceSum<keepdims=0>(e, one) {} y = Add(r, bias)"
    weights = {"table": table, "one": np.array([1]), "bias": table[0]}
    for name, way in ways.items():
        write(tmp_path / name, body.format(way), face, weights=weights)
    write_cascade(tmp_path / "fast", tmp_path / "exact", Gate("y"), tmp_path / "out")
    assert table.nbytes < (tmp_path / "out").stat().st_size < 1.2 * table.nbytes
    ids = np.random.default_rng(1).integers(0, 500, (8, 3))
    y, deferred = run(tmp_path / "out", {"ids": ids, "threshold": np.array(np.inf, np.float32)})
    assert deferred.all()
    np.testing.assert_array_equal(y, run(tmp_path / "exact", {"ids": ids})[0])


def test_heavy_weights_go_beside_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cascade, "_MAX_FILE_BYTES", 0)
    w = np.random.default_rng(0).normal(size=(2, 2000)).astype(np.float32)
    tail, face = "s = MatMul(z, v) y = Identity(s)", FACE
    weights = {"w": w, "v": w.T.copy()}
    fast = write(tmp_path / "fast", "a = Round(x) z = MatMul(a, w) " + tail, face, weights=weights)
    exact = write(tmp_path / "exact", "z = MatMul(x, w) " + tail, face, weights=weights)
    (tmp_path / "a").mkdir()
    write_cascade(fast, exact, Gate("y", threshold=np.inf), tmp_path / "a" / "out")
    assert {p.name for p in (tmp_path / "a").iterdir()} == {"out", "out.data"}
    assert (tmp_path / "a" / "out").stat().st_size < w.nbytes
    moved = (tmp_path / "a").rename(tmp_path / "b")
    np.testing.assert_array_equal(run(moved / "out", {"x": X})[0], run(exact, {"x": X})[0])
    write_cascade(moved / "out", exact, Gate("y"), tmp_path / "again")


def test_a_failed_write_leaves_the_old_file(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.onnx"
    out.write_bytes(b"old")

    def full(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(onnx, "save_model", full)
    with pytest.raises(OSError, match="disk full"):
        write_cascade(*pair, Gate("y"), out)
    assert out.read_bytes() == b"old"
    assert {p.name for p in tmp_path.iterdir()} == {"fast.onnx", "exact.onnx", "out.onnx"}


def test_opsets_meet_where_nothing_changed(tmp_path: Path) -> None:
    fast = write(tmp_path / "fast", "y = Round(x)", opsets='"": 13')
    exact = write(tmp_path / "exact", "y = Softmax(x)", opsets='"": 17')
    write_cascade(fast, exact, Gate("y"), tmp_path / "out")
    assert {o.domain: o.version for o in onnx.load(tmp_path / "out").opset_import} == {"": 17}


BAD: dict[str, tuple[dict[str, Any], dict[str, Any], Gate, str]] = {
    "opsets": (
        {"body": "y = ReduceMax<axes=[1]>(x)", "opsets": '"": 17'},
        {"body": "y = Identity(x)", "opsets": '"": 18'},
        Gate("y"),
        "between them changed: ReduceMax; export both with the same opset",
    ),
    "old opset": ({"opsets": '"": 11'}, {}, Gate("y"), "has opset 11; a cascade needs 13"),
    "gate": ({}, {}, Gate("z"), "fast model has no output 'z'; it has: y"),
    "axis": ({}, {}, Gate("y", axis=2), "output 'y' has 2 axes; axis is 2"),
    "input": ({"face": FACE.replace(" x", " z"), "body": "y = Neg(z)"}, {}, Gate("y"), "no input"),
    "output": (
        {"face": FACE.replace(" y", " z"), "body": "z = Neg(x)"},
        {},
        Gate("z"),
        "the fast model has no output 'y'; it has: z",
    ),
    "type": (
        {"face": FACE.replace("2] y", "2] y").replace("float[N,2] y", "int64[N,2] y")}
        | {"body": "y = Cast<to=7>(x)"},
        {},
        Gate("y"),
        "output 'y' is FLOAT in one model and INT64 in the other",
    ),
    "shape": (
        {"face": FACE.replace("N,2] x", "N,3] x")},
        {},
        Gate("y"),
        r"sizes \[0, 2\] in the exact model and \[0, 3\]",
    ),
    "scalar": (
        {"face": "(float[N,2] x) => (float y)", "body": "y = ReduceSum<keepdims=0>(x)"},
        {"face": "(float[N,2] x) => (float y)", "body": "y = ReduceSum<keepdims=0>(x)"},
        Gate("y", "cut"),
        "output 'y' is a scalar",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_models_that_do_not_fit(name: str, tmp_path: Path) -> None:
    fast, exact, gate, message = BAD[name]
    paths = [
        write(tmp_path / n, **({"body": "y = Identity(x)"} | spec))
        for n, spec in (("fast", fast), ("exact", exact))
    ]
    with pytest.raises(InputError, match=message):
        write_cascade(paths[0], paths[1], gate, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_model(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"no model")
    with pytest.raises(InputError, match="is not an ONNX model"):
        write_cascade(tmp_path / "x", tmp_path / "x", Gate("y"), tmp_path / "out")


Stage = Callable[[Mapping[str, Array]], dict[str, Array]]


def test_runner_calls_the_exact_stage_only_for_deferred_rows() -> None:
    seen: list[Array] = []

    def exact(inputs: Mapping[str, Array]) -> dict[str, Array]:
        seen.append(inputs["x"])
        return {"y": inputs["x"]}

    runner = CascadeRunner(lambda i: {"y": i["x"].round()}, exact, Gate("y", threshold=0.5))
    answers, deferred = runner.run({"x": X})
    assert deferred.tolist() == [True, False, True]
    np.testing.assert_array_equal(seen[0], X[[0, 2]])
    np.testing.assert_array_equal(answers["y"], X)
    assert not runner.run({"x": X}, threshold=-1)[1].any()
    assert len(seen) == 1


def test_runner_leaves_the_stage_its_memory() -> None:
    kept = np.zeros((3, 2), np.float32)
    runner = CascadeRunner(lambda i: {"y": kept}, lambda i: {"y": i["x"]}, Gate("y"))
    np.testing.assert_array_equal(runner({"x": X})["y"], X)
    assert not kept.any()


@pytest.mark.parametrize("stage", ["fast", "exact"])
def test_runner_names_a_missing_output(stage: str) -> None:
    good: Stage = lambda i: {"y": i["x"] * 0}  # noqa: E731
    poor: Stage = lambda i: {"z": i["x"]}  # noqa: E731
    stages = (poor, good) if stage == "fast" else (good, poor)
    with pytest.raises(InputError, match=f"the {stage} stage gave no output 'y'; it gave: z"):
        CascadeRunner(*stages, Gate("y")).run({"x": X})
