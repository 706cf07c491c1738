"""A `cascade.toml` answers as one file holding all of its stages would, bit for bit."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import numpy_helper as nh
from onnx.parser import parse_model

from justenough.core.gate import Gate
from justenough.core.subject import ONNXRUNTIME
from justenough.deploy.cascade import write_cascade
from justenough.deploy.deployment import Deployment, load, write_deployment
from justenough.subjects.onnx_model import OnnxModel

Array = NDArray[Any]
RNG = np.random.default_rng(3)
X = RNG.normal(size=(70, 24)).astype(np.float32)
FIRST, SECOND = RNG.normal(size=(24, 33)), RNG.normal(size=(33, 5))
COARSE = {"fast": 2.0, "middle": 16.0, "exact": 2.0**20}
GATES = {
    "labels": Gate("y"),
    "second place": Gate("y", k=2),
    "cut": Gate("y", "cut", column=1, cut=0.3),
    "row minimum": Gate("y", "cut"),
}


def models(folder: Path, rows: str = "N") -> tuple[Path, Path, Path]:
    """Three networks that differ in how finely their weights are stored."""
    out = []
    for name, steps in COARSE.items():
        made = parse_model(
            f'<ir_version: 8, opset_import: ["": 17]> g (float[{rows},24] x) '
            f"=> (float[{rows},5] y, int64[{rows}] label) {{ a = MatMul(x, w) b = Relu(a) "
            "y = MatMul(b, v) label = ArgMax<axis=1, keepdims=0>(y) }"
        )
        for w, value in (("w", FIRST), ("v", SECOND)):
            coarse = (np.round(value * steps) / steps).astype(np.float32)
            made.graph.initializer.append(nh.from_array(coarse, w))
        onnx.save(made, folder / f"{name}.onnx")
        out.append(folder / f"{name}.onnx")
    return out[0], out[1], out[2]


def one_file(paths: Sequence[Path], gates: Sequence[Gate], folder: Path) -> Path:
    """The stages nested by `write_cascade`."""
    last = paths[-1]
    for k in range(len(gates) - 1, -1, -1):
        write_cascade(paths[k], last, gates[k], folder / f"nested-{k}.onnx")
        last = folder / f"nested-{k}.onnx"
    return last


def deployed(paths: Sequence[Path], gates: Sequence[Gate], folder: Path) -> Path:
    parts = [(p, ONNXRUNTIME, g) for p, g in zip(paths, [*gates, None], strict=True)]
    return write_deployment(parts, ["y", "label"], folder, {})


def margins(path: Path, gate: Gate) -> Array:
    return np.sort(gate.margin(OnnxModel(path).run({"x": X})))


def agree(toml: Path, nested: Path, batch: int) -> tuple[float, Array]:
    """Both answer with the same bytes; the share deferred, and the answers."""
    got, want = load(toml, 1, batch).run({"x": X}), OnnxModel(nested, 1, batch).run({"x": X})
    assert set(got) == {"y", "label", "deferred"}
    for name in ("y", "label", "deferred"):
        assert got[name].dtype == want[name].dtype and got[name].shape == want[name].shape
        assert got[name].tobytes() == want[name].tobytes(), name
    return float(got["deferred"].mean()), got["y"]


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    return models(tmp_path_factory.mktemp("free"))


@pytest.mark.parametrize("name", GATES)
@given(at=st.integers(0, 69), batch=st.sampled_from([1, 8, 32]))
@settings(max_examples=12, deadline=None)
def test_two_stages(
    paths: tuple[Path, Path, Path],
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    at: int,
    batch: int,
) -> None:
    """At the margin of row `at` exactly: a tie is deferred by both."""
    folder = tmp_path_factory.mktemp("two")
    gate = replace(GATES[name], threshold=float(margins(paths[0], GATES[name])[at]))
    two = (paths[0], paths[2])
    share, y = agree(deployed(two, [gate], folder / "out"), one_file(two, [gate], folder), batch)
    assert share == pytest.approx((at + 1) / len(X))
    cheap = OnnxModel(paths[0], 1, batch).run({"x": X})
    sure = ~gate.deferred(cheap)
    assert y[sure].tobytes() == cheap["y"][sure].tobytes()


@given(at=st.tuples(st.integers(0, 69), st.integers(0, 69)), batch=st.sampled_from([1, 8, 32]))
@settings(max_examples=15, deadline=None)
def test_three_stages(
    paths: tuple[Path, Path, Path],
    tmp_path_factory: pytest.TempPathFactory,
    at: tuple[int, int],
    batch: int,
) -> None:
    folder = tmp_path_factory.mktemp("three")
    gates = [
        Gate("y", threshold=float(margins(p, Gate("y"))[k]))
        for p, k in zip(paths, at, strict=False)
    ]
    toml, nested = deployed(paths, gates, folder / "out"), one_file(paths, gates, folder)
    _, y = agree(toml, nested, batch)
    answers = [OnnxModel(p, 1, batch).run({"x": X}) for p in paths]
    first = gates[0].deferred(answers[0])
    second = first & gates[1].deferred(answers[1])
    np.testing.assert_array_equal(y[~first], answers[0]["y"][~first])
    np.testing.assert_allclose(y[first & ~second], answers[1]["y"][first & ~second], rtol=1e-4)
    np.testing.assert_allclose(y[second], answers[2]["y"][second], rtol=1e-4)


@pytest.mark.parametrize("rows", ["1", "8", "32"])
@pytest.mark.parametrize("stages", [2, 3])
def test_fixed_batches_are_filled_up(tmp_path: Path, rows: str, stages: int) -> None:
    fixed = models(tmp_path, rows)
    few = fixed if stages == 3 else (fixed[0], fixed[2])
    gates = [Gate("y", threshold=1.0)] * (stages - 1)
    toml, nested = deployed(few, gates, tmp_path / "out"), one_file(few, gates, tmp_path)
    found = load(toml, 1, 5)
    assert isinstance(found, Deployment) and found.fixed_batch == int(rows)
    share, _ = agree(toml, nested, 5)
    assert 0 < share < 1


def test_stages_of_different_batches_stand_together(
    paths: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    """What one file could not hold: a fixed batch in one stage and a free one in the other."""
    fixed = models(tmp_path, "8")
    gate = Gate("y", threshold=1.0)
    cheap = OnnxModel(paths[0]).run({"x": X})
    rows = gate.deferred(cheap)
    for few in ((fixed[0], paths[2]), (paths[0], fixed[2])):
        folder = tmp_path / few[0].parent.name
        got = load(deployed(few, [gate], folder)).run({"x": X})
        np.testing.assert_array_equal(got["deferred"], rows)
        exact = OnnxModel(few[1]).run({"x": X})["y"]
        np.testing.assert_allclose(got["y"][rows], exact[rows], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(got["y"][~rows], cheap["y"][~rows], rtol=1e-4, atol=1e-4)
