"""Kinds of models: each walks the whole road and its deployed file answers as it was judged."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from small_world import (
    CLASSES,
    FEATURES,
    Array,
    Cli,
    Ran,
    blobs,
    fitted,
    hidden_weights,
    mlp,
    network,
)

from justenough.subjects.onnx_model import OnnxModel, find_sites, load_proto
from justenough.subjects.prepare import prepare

F32, I64 = TensorProto.FLOAT, TensorProto.INT64
STABLE = ("--keep", "decision_stability >= 0.9")


def walk(
    cli: Cli,
    folder: Path,
    model: onnx.ModelProto,
    arrays: Mapping[str, Array],
    *options: object,
) -> Ran:
    """`compress` the model on the arrays; nothing but a verdict may come of it."""
    onnx.save(model, str(folder / "model.onnx"))
    save: Any = np.savez
    save(folder / "cases.npz", **arrays)
    args = (folder / "model.onnx", "--cases", folder / "cases.npz", "-o", folder / "out")
    got = cli("compress", *args, *options)
    assert got.code in (0, 1, 3) and got.err == "", (got.out, got.err)
    assert (folder / "out" / "report.html").is_file()
    if got.code == 0:
        answers_like_the_reference(folder, arrays)
    return got


def answers_like_the_reference(folder: Path, arrays: Mapping[str, Array]) -> None:
    """Decisions of the deployed file are those of the model but for few, at least 0.9 of them."""
    inputs = {k: v for k, v in arrays.items() if k not in ("labels", "groups")}
    reference = OnnxModel(folder / "model.onnx").run(inputs)
    deployed = OnnxModel(folder / "out" / "model.onnx").run(inputs)
    assert set(reference) <= set(deployed)
    body = json.loads((folder / "out" / "certificate.json").read_text())
    name = body["clauses"][0]["output"] or next(iter(reference))
    same = reference[name].argmax(1) == deployed[name].argmax(1)
    assert same.reshape(len(same), -1).all(1).mean() >= 0.9


def rows(n: int = 300) -> dict[str, Array]:
    x, labels = blobs(np.random.default_rng(3), n)
    return {"x": x, "labels": labels}


def sites(model: onnx.ModelProto) -> list[str]:
    """Operator and number of nodes of each site of the prepared model."""
    return [f"{s.op} {len(s.nodes)}" for s in find_sites(prepare(model))]


NEWEST = min(onnx.defs.onnx_opset_version(), 23)


@pytest.mark.slow
@pytest.mark.parametrize("opset", [13, 15, 17, 18, 20, 21, NEWEST])
def test_opsets(opset: int, cli: Cli, tmp_path: Path) -> None:
    got = walk(cli, tmp_path, mlp(opset=opset, hidden=64), rows(), *STABLE)
    assert "Plain int8:" in got.out


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 8])
def test_fixed_batch(batch: int, cli: Cli, tmp_path: Path) -> None:
    got = walk(cli, tmp_path, mlp(batch=batch), rows(307), *STABLE)
    assert "Plain int8:" in got.out
    assert cli("inspect", tmp_path / "model.onnx", "--cases", tmp_path / "cases.npz").code == 0


@pytest.mark.slow
def test_fewer_cases_than_the_fixed_batch(cli: Cli, tmp_path: Path) -> None:
    model = mlp(batch=64, hidden=64)
    got = walk(cli, tmp_path, model, rows(120), "--keep", "decision_stability >= 0.8")
    assert "Plain int8:" in got.out
    np.savez(tmp_path / "few.npz", x=rows(5)["x"])
    assert cli("inspect", tmp_path / "model.onnx", "--cases", tmp_path / "few.npz").code == 0


@pytest.mark.slow
def test_several_inputs_of_several_types(cli: Cli, tmp_path: Path) -> None:
    """Float features, int64 tokens looked up in a table, and uint8 pixels."""
    rng = np.random.default_rng(0)
    n = 300
    x, labels = blobs(rng, n)
    tokens = rng.integers(0, 50, (n, 3))
    pixels = rng.integers(0, 256, (n, 16)).astype(np.uint8)
    table = rng.normal(0, 0.2, (50, 16)).astype(np.float32)
    w = hidden_weights((FEATURES + 48 + 16, 128), 4)
    joined = np.concatenate([x, table[tokens].reshape(n, -1), pixels / np.float32(255)], 1)
    readout = fitted(np.maximum(joined @ w, 0), labels)
    nodes = [
        helper.make_node("Gather", ["table", "tokens"], ["looked"]),
        helper.make_node("Flatten", ["looked"], ["flat"]),
        helper.make_node("Cast", ["pixels"], ["bright"], to=F32),
        helper.make_node("Div", ["bright", "full"], ["scaled"]),
        helper.make_node("Concat", ["x", "flat", "scaled"], ["all"], axis=1),
        helper.make_node("Gemm", ["all", "w"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "readout"], ["logits"]),
    ]
    faces: dict[str, tuple[int, Any]] = {"x": (F32, ["n", FEATURES]), "tokens": (I64, ["n", 3])}
    model = network(
        nodes,
        {**faces, "pixels": (TensorProto.UINT8, ["n", 16])},
        {"logits": (F32, ["n", CLASSES])},
        {"table": table, "w": w, "readout": readout, "full": np.array([255], np.float32)},
    )
    given = {"x": x, "tokens": tokens, "pixels": pixels, "labels": labels}
    got = walk(cli, tmp_path, model, given, *STABLE)
    assert sites(model) == ["Gemm 1", "Gemm 1"]
    assert "Plain int8:" in got.out


def convolutional(dims: int) -> onnx.ModelProto:
    """Two convolutions with SiLU and GELU between, pooled, and a readout."""
    kernel, shape = [3] * dims, ["n", 3, *[12] * dims]
    rng = np.random.default_rng(1)
    weights = {
        "k1": rng.normal(0, 0.4, (16, 3, *kernel)).astype(np.float32),
        "b1": rng.normal(0, 0.1, 16).astype(np.float32),
        "k2": rng.normal(0, 0.15, (16, 16, *kernel)).astype(np.float32),
        "w": rng.normal(0, 1, (16, CLASSES)).astype(np.float32),
        "b": np.zeros(CLASSES, np.float32),
        "root": np.array(np.sqrt(2), np.float32),
        "one": np.array(1, np.float32),
        "half": np.array(0.5, np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "k1", "b1"], ["c1"], "conv1", pads=[1] * 2 * dims),
        helper.make_node("Sigmoid", ["c1"], ["s"]),
        helper.make_node("Mul", ["c1", "s"], ["silu"]),
        helper.make_node("Conv", ["silu", "k2"], ["c2"], "conv2", pads=[1] * 2 * dims),
        helper.make_node("Div", ["c2", "root"], ["d"]),
        helper.make_node("Erf", ["d"], ["e"]),
        helper.make_node("Add", ["e", "one"], ["p"]),
        helper.make_node("Mul", ["c2", "p"], ["m"]),
        helper.make_node("Mul", ["m", "half"], ["gelu"]),
        helper.make_node("GlobalAveragePool", ["gelu"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w", "b"], ["logits"], "readout"),
    ]
    return network(nodes, {"x": (F32, shape)}, {"logits": (F32, ["n", CLASSES])}, weights)


@pytest.mark.slow
@pytest.mark.parametrize("dims", [1, 2])
def test_convolutions_with_silu_and_gelu(dims: int, cli: Cli, tmp_path: Path) -> None:
    model = convolutional(dims)
    prepared = prepare(model)
    ops = [n.op_type for n in prepared.graph.node]
    assert ops.count("QuickGelu") == ops.count("Gelu") == 1
    assert not {"Sigmoid", "Erf"} & set(ops)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(250, 3, *[12] * dims)) * rng.uniform(0.2, 3, (250, 3, *[1] * dims))
    given = {"x": x.astype(np.float32)}
    onnx.save(model, str(tmp_path / "a.onnx"))
    onnx.save(prepared, str(tmp_path / "b.onnx"))
    a, b = (OnnxModel(tmp_path / f"{k}.onnx").run(given)["logits"] for k in "ab")
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    got = walk(cli, tmp_path, model, given, *STABLE)
    assert "Plain int8:" in got.out
    assert cli("inspect", tmp_path / "model.onnx", "--cases", tmp_path / "cases.npz").code == 0


@pytest.mark.slow
def test_tied_weights_are_one_site(cli: Cli, tmp_path: Path) -> None:
    """One matrix used twice is stored once, so both uses change together."""
    data = rows()
    w = hidden_weights((FEATURES, FEATURES), 8)
    middle = np.maximum(np.maximum(data["x"] @ w, 0) @ w, 0)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], "first"),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "w"], ["c"], "again"),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("MatMul", ["d", "r"], ["logits"], "readout"),
    ]
    model = network(
        nodes,
        {"x": (F32, ["n", FEATURES])},
        {"logits": (F32, ["n", CLASSES])},
        {"w": w, "r": fitted(middle, data["labels"])},
    )
    assert sites(model) == ["MatMul 2", "MatMul 1"]
    assert "Plain int8:" in walk(cli, tmp_path, model, data, *STABLE).out


def two_headed(data: Mapping[str, Array]) -> onnx.ModelProto:
    """A model with logits, and a norm of the input that no site touches."""
    w = hidden_weights((FEATURES, 256), 5)
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "o"], ["logits"]),
        helper.make_node("ReduceL2", ["x"], ["norm"], axes=[1], keepdims=1),
    ]
    return network(
        nodes,
        {"x": (F32, ["n", FEATURES])},
        {"logits": (F32, ["n", CLASSES]), "norm": (F32, ["n", 1])},
        {"w": w, "o": fitted(np.maximum(data["x"] @ w, 0), data["labels"])},
    )


@pytest.mark.slow
def test_two_outputs(cli: Cli, tmp_path: Path) -> None:
    data = rows()
    model = two_headed(data)
    onnx.save(model, str(tmp_path / "model.onnx"))
    np.savez(tmp_path / "cases.npz", x=data["x"])
    args = ("compress", tmp_path / "model.onnx", "--cases", tmp_path / "cases.npz", "-o")
    got = cli(*args, tmp_path / "no", *STABLE)
    assert got.code == 2 and "['logits', 'norm']" in got.err and "output=NAME" in got.err
    keep = ("--keep", "decision_stability(output=logits) >= 0.9")
    walk(cli, tmp_path, model, data, *keep, "--keep", "within_tolerance(1, output=norm) >= 0.9")


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_output_that_no_site_touches(cli: Cli, tmp_path: Path) -> None:
    """Nothing that can be made cheaper changes the judged output: no noise anywhere."""
    data = rows()
    keep = ("--keep", "within_tolerance(0.1, output=norm) >= 0.9")
    walk(cli, tmp_path, two_headed(data), data, *keep)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_other_float_types(kind: int, cli: Cli, tmp_path: Path) -> None:
    """What does not run in float32 stays as it is, and that is the answer."""
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    data = rows()
    w = hidden_weights((FEATURES, CLASSES), 5).astype(dtype)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["logits"])]
    model = network(
        nodes, {"x": (kind, ["n", FEATURES])}, {"logits": (kind, ["n", CLASSES])}, {"w": w}
    )
    got = walk(cli, tmp_path, model, data, *STABLE)
    # The runtime has no half precision on a CPU: what prepare gives back is float32 there.
    if kind == TensorProto.DOUBLE:
        assert got.code == 1
        assert "the model has no site to make cheaper" in got.out


@pytest.mark.slow
def test_one_array_and_a_single_score(cli: Cli, tmp_path: Path) -> None:
    x, labels = blobs(np.random.default_rng(3), 300)
    w = hidden_weights((FEATURES, 256), 5)
    hidden = np.maximum(x @ w, 0)
    found = np.linalg.lstsq(hidden, np.where(labels > 1, 1.0, -1.0), rcond=1e-3)[0]
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "o"], ["score"]),
    ]
    model = network(
        nodes,
        {"x": (F32, ["n", FEATURES])},
        {"score": (F32, ["n", 1])},
        {"w": w, "o": found[:, None].astype(np.float32)},
    )
    onnx.save(model, str(tmp_path / "model.onnx"))
    np.save(tmp_path / "cases.npy", x)
    args = (tmp_path / "model.onnx", "--cases", tmp_path / "cases.npy", *STABLE)
    got = cli("compress", *args, "-o", tmp_path / "out")
    assert got.code in (0, 1, 3) and got.err == "", got.err


@pytest.mark.slow
def test_folder_of_images(cli: Cli, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    for k, name in enumerate(("cat", "dog")):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for i in range(60):
            pixels = rng.integers(0, 120, (10, 14, 3)) + np.eye(3, dtype=int)[k] * 100
            picture = image.fromarray(pixels.astype(np.uint8))
            picture.save(tmp_path / "pets" / name / f"owner{i}__{name}.png")
    rng = np.random.default_rng(1)
    weights = {
        "k": rng.normal(0, 0.4, (8, 3, 3, 3)).astype(np.float32),
        "w": rng.normal(0, 1, (8, 2)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["image", "k"], ["c"]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w"], ["logits"]),
    ]
    shape = ["n", 3, 8, 8]
    model = network(nodes, {"image": (F32, shape)}, {"logits": (F32, ["n", 2])}, weights)
    onnx.save(model, str(tmp_path / "model.onnx"))
    args = ("compress", tmp_path / "model.onnx", "--cases", tmp_path / "pets", "-o")
    keep = ("--keep", "decision_stability >= 0.8", "--mean", "0.5", "--std", "0.2,0.3,0.4")
    assert "--image 224x224" in cli(*args, tmp_path / "no", *keep).err
    wrong = cli(*args, tmp_path / "no", *keep, "--image", "9x9")
    assert wrong.code == 2 and "['any', 3, 8, 8]" in wrong.err
    got = cli(*args, tmp_path / "out", *keep, "--image", "8x8")
    assert got.code in (0, 1, 3) and got.err == "", got.err
    assert "groups with nothing changed" in got.out


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_transformer_from_torch(cli: Cli, tmp_path: Path) -> None:
    """Token and type ids as int64, attention, layer norms, GELU, a pooled readout."""
    torch = pytest.importorskip("torch")
    nn = torch.nn
    torch.manual_seed(0)

    class Tiny(nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.words, self.kinds = nn.Embedding(100, 32), nn.Embedding(2, 32)
            self.queries, self.keys = nn.Linear(32, 32), nn.Linear(32, 32)
            self.values, self.norm = nn.Linear(32, 32), nn.LayerNorm(32)
            self.up, self.down = nn.Linear(32, 128), nn.Linear(128, 32)
            self.readout = nn.Linear(32, 4)

        def forward(self, input_ids: Any, token_type_ids: Any) -> Any:
            x = self.words(input_ids) + self.kinds(token_type_ids)
            scores = self.queries(x) @ self.keys(x).transpose(1, 2) / 32**0.5
            x = self.norm(x + scores.softmax(-1) @ self.values(x))
            x = x + self.down(nn.functional.gelu(self.up(x)))
            return self.readout(x.mean(1))

    rng = np.random.default_rng(0)
    given = {
        "input_ids": rng.integers(0, 100, (300, 12)),
        "token_type_ids": rng.integers(0, 2, (300, 12)),
    }
    names: Sequence[str] = list(given)
    few = tuple(torch.from_numpy(v[:2]) for v in given.values())
    torch.onnx.export(
        Tiny().eval(), few, str(tmp_path / "torch.onnx"), input_names=names,
        output_names=["logits"], dynamic_axes={n: {0: "n"} for n in (*names, "logits")},
        opset_version=17, dynamo=False,
    )  # fmt: skip
    model = load_proto(tmp_path / "torch.onnx")
    prepared = prepare(model)
    assert [n.op_type for n in prepared.graph.node].count("Gelu") == 1
    assert len(find_sites(prepared)) >= 6
    got = walk(cli, tmp_path, model, given, "--keep", "decision_stability >= 0.9")
    assert "Plain int8:" in got.out
