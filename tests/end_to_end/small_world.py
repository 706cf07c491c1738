"""Small real models and cases, and processes that run the command line on them."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[Any]
ROOT = Path(__file__).parents[2]
FEATURES, HIDDEN, CLASSES = 64, 384, 4
SITES = ("first", "second", "readout")


@dataclass(frozen=True)
class Ran:
    """What one call of the command line did."""

    code: int
    out: str
    err: str


Cli = Callable[..., Ran]


def start(*args: object, **options: Any) -> "subprocess.Popen[str]":
    """Start `justenough ARGS` as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "justenough", *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), **options.pop("env", {})},
        **options,
    )


def process(*args: object, timeout: float = 120, **options: Any) -> Ran:
    """Run `justenough ARGS` as a process of its own to its end."""
    with start(*args, **options) as p:
        out, err = p.communicate(timeout=timeout)
    return Ran(p.returncode, out, err)


def refused(got: Ran, *words: str) -> None:
    """Bad input: exit code 2 and one sentence on stderr that names what is wrong."""
    assert got.code == 2, (got.out, got.err)
    assert got.err.startswith("justenough: ") and got.err.endswith("\n"), got.err
    assert got.err.count("\n") == 1, got.err
    assert "Traceback" not in got.out + got.err
    for word in words:
        assert word in got.err, (word, got.err)


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Every path under `folder` with its bytes; None for a folder."""
    return {
        str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None
        for p in sorted(folder.rglob("*"))
    }


def network(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, tuple[int, Any]],
    outputs: Mapping[str, tuple[int, Any]],
    weights: Mapping[str, Array],
    opset: int = 17,
) -> onnx.ModelProto:
    """A checked ONNX model; types are `onnx.TensorProto` numbers."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(k, t, s) for k, (t, s) in inputs.items()],
        [helper.make_tensor_value_info(k, t, s) for k, (t, s) in outputs.items()],
        [numpy_helper.from_array(v, k) for k, v in weights.items()],
    )
    ir = 10 if opset < 24 else 11
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)
    onnx.checker.check_model(model)
    return model


def blobs(rng: np.random.Generator, n: int, spread: float = 1.0) -> tuple[Array, Array]:
    """Points (n, FEATURES) float32 around one centre a class, and their classes (n,)."""
    centres = np.random.default_rng(7).normal(0, 0.5, (CLASSES, FEATURES))
    labels = rng.integers(0, CLASSES, n)
    x = centres[labels] + spread * rng.normal(0, 1, (n, FEATURES))
    return x.astype(np.float32), labels


def hidden_weights(shape: tuple[int, int], seed: int) -> Array:
    """Random weights that keep the variance of what they multiply."""
    w = np.random.default_rng(seed).normal(0, np.sqrt(2 / shape[0]), shape)
    return w.astype(np.float32)


def fitted(features: Array, labels: Array) -> Array:
    """Least-squares weights (features, classes) of a linear readout, trained on real classes."""
    found = np.linalg.lstsq(features, np.eye(CLASSES)[labels], rcond=1e-3)[0]
    return np.asarray(found, np.float32)


def mlp(opset: int = 17, batch: int | str = "n", hidden: int = HIDDEN) -> onnx.ModelProto:
    """Two random hidden layers and a readout fitted to the blobs: x (n, 64) to logits (n, 4)."""
    x, labels = blobs(np.random.default_rng(1), 800)
    w1, w2 = hidden_weights((FEATURES, hidden), 2), hidden_weights((hidden, hidden), 3)
    features = np.maximum(np.maximum(x @ w1, 0) @ w2, 0)
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"], "first"),
        helper.make_node("Relu", ["a"], ["b"], "relu1"),
        helper.make_node("MatMul", ["b", "w2"], ["c"], "second"),
        helper.make_node("Relu", ["c"], ["d"], "relu2"),
        helper.make_node("MatMul", ["d", "w3"], ["logits"], "readout"),
    ]
    return network(
        nodes,
        {"x": (TensorProto.FLOAT, [batch, FEATURES])},
        {"logits": (TensorProto.FLOAT, [batch, CLASSES])},
        {"w1": w1, "w2": w2, "w3": fitted(features, labels)},
        opset,
    )


def without_sites() -> onnx.ModelProto:
    """A model that has nothing to make cheaper."""
    nodes = [helper.make_node("Softmax", ["x"], ["y"])]
    shape = ["n", CLASSES]
    return network(nodes, {"x": (TensorProto.FLOAT, shape)}, {"y": (TensorProto.FLOAT, shape)}, {})


@dataclass(frozen=True)
class Given:
    """Files of a small model with cases."""

    folder: Path
    model: Path
    cases: Path

    @property
    def args(self) -> tuple[object, ...]:
        """The model and its cases as `compress` takes them."""
        return (self.model, "--cases", self.cases)


KEEP = ("--keep", "decision_stability >= 0.97")


@dataclass(frozen=True)
class Finished:
    """A run that has ended, and what it printed. Read only."""

    out: Path
    ran: Ran


def compress_refused(cli: Cli, tmp_path: Path, args: tuple[object, ...], *words: str) -> None:
    """Refused with these words, and the output folder was never made."""
    out = tmp_path / "out"
    refused(cli("compress", *args, "-o", out), *words)
    assert not out.exists()
