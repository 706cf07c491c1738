"""Every cascade: sure rows are the fast model's, deferred rows the exact model's, bit for bit."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort  # type: ignore[import-untyped,unused-ignore]
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper as nh
from onnx.parser import parse_model

from justenough.core.gate import Gate
from justenough.deploy.cascade import DEFERRED, THRESHOLDS, write_cascade
from justenough.deploy.runner import CascadeRunner

Array = NDArray[Any]
RNG = np.random.default_rng(7)
W = RNG.normal(size=(6, 5)).astype(np.float32)
X = RNG.normal(size=(24, 6)).astype(np.float32)
VALUES = np.array([0, -0.0, 1, 1.25, 3, np.nan, np.inf, -np.inf, 1e-40], np.float32)
ODD = RNG.choice(VALUES, (400, 6))
LABELS = Gate("y")


@dataclass(frozen=True)
class Pair:
    """Two models in ONNX text, `COARSE` standing for what only the fast one does."""

    body: str
    gate: Gate = LABELS
    head: str = "float[N,6] x"
    tail: str = "float[N,5] y"
    inputs: Mapping[str, Array] | None = None
    weights: Mapping[str, Array] | None = None
    functions: str = ""
    opsets: str = '"": 17'
    fixed: bool = False

    def write(self, folder: Path) -> tuple[Path, Path, Path]:
        """Write fast, exact and cascade."""
        for name, coarse in ("fast", "Round"), ("exact", "Identity"):
            model = parse_model(
                f"<ir_version: 8, opset_import: [{self.opsets}]> g ({self.head}) => ({self.tail}) "
                f"{{ {self.body} }} {self.functions}".replace("COARSE", coarse)
            )
            for w, value in (self.weights or {"w": W}).items():
                model.graph.initializer.append(nh.from_array(value, w))
            onnx.checker.check_model(model)
            onnx.save(model, folder / f"{name}.onnx")
        fast, exact, out = (folder / f"{n}.onnx" for n in ("fast", "exact", "cascade"))
        write_cascade(fast, exact, self.gate, out)
        return fast, exact, out


OPTIONS = ort.SessionOptions()
OPTIONS.intra_op_num_threads, OPTIONS.log_severity_level = 1, 3


def session(path: Path) -> ort.InferenceSession:
    return ort.InferenceSession(path, OPTIONS, providers=["CPUExecutionProvider"])


def noted(of: ort.InferenceSession) -> dict[str, str]:
    return dict(of.get_modelmeta().custom_metadata_map)


def same(a: Array, b: Array) -> bool:
    if a.dtype == object:
        return bool(a.tolist() == b.tolist())
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def hold(
    paths: tuple[Path, Path, Path],
    gate: Gate,
    inputs: Mapping[str, Array],
    fixed: bool = False,
    threshold: str = "threshold",
) -> set[str]:
    """Check the laws at thresholds that defer nothing, ties, some and all; return which."""
    fast, exact, cascade = (session(p) for p in paths)
    takes = [i.name for i in fast.get_inputs()]
    names = [o.name for o in exact.get_outputs() if o.name != noted(exact).get(DEFERRED)]
    flag = noted(cascade)[DEFERRED]
    assert threshold in noted(cascade)[THRESHOLDS].split(",")
    runner = CascadeRunner.load(paths[0], paths[1], gate, session_options=OPTIONS)
    every = [o.name for o in fast.get_outputs()]
    cheap = dict(zip(every, fast.run(every, {n: inputs[n] for n in takes}), strict=True))
    with np.errstate(invalid="ignore"):
        margins = np.sort(gate.margin(cheap))
    finite = margins[np.isfinite(margins)]
    ties = [] if not len(finite) else [float(finite[0]), float(finite[len(finite) // 2])]
    seen = set()
    for t in (-1.0, *ties, np.inf, None):
        feed = dict(inputs) if t is None else {**inputs, threshold: np.array(t, np.float32)}
        got = dict(
            zip([o.name for o in cascade.get_outputs()], cascade.run(None, feed), strict=True)
        )
        now = gate if t is None else replace(gate, threshold=t)
        with np.errstate(invalid="ignore"):
            mask = now.deferred(cheap)
        assert same(got[flag], mask)
        want = {n: cheap[n].copy() for n in names}
        if mask.any():
            rows = slice(None) if fixed else mask
            asked = {n: x[rows] if x.ndim else x for n, x in inputs.items()}
            for n, answer in zip(names, exact.run(names, asked), strict=True):
                want[n][mask] = answer[mask] if fixed else answer
        answers, deferred = runner.run(inputs, threshold=t)
        assert same(deferred, mask)
        assert set(answers) == set(names) == set(got) - {flag}
        for n in names:
            assert same(got[n], want[n]), (t, n)
            assert same(answers[n], want[n]), (t, n)
        seen |= {"none"} if not mask.any() else {"all"} if mask.all() else {"some"}
    return seen


LINEAR = "z = MatMul(x, w) y = COARSE(z)"
WIDE = {"x": RNG.normal(size=(10, 5, 4, 3)).astype(np.float32)}
IMAGE = ("float[N,5,4,3] x", "float[N,5,4,3] y")
IDS = {"ids": RNG.integers(0, 50, (9, 4)), "mask": RNG.integers(0, 2, (9, 4))}
TABLES = {"table": RNG.normal(size=(50, 3)).astype(np.float32)}
BRANCHES = """
    z = MatMul(x, w) m = ReduceMax<keepdims=0>(z) zero = Constant<value_float=0.0>()
    c = Greater(m, zero)
    v = If (c) <
        then_branch = a () => (float[N,5] p) { q = COARSE(z) p = Add(q, w0) },
        else_branch = b () => (float[N,5] p2) {
            p2 = If (c) <
                then_branch = a1 () => (float[N,5] p3) { p3 = Neg(z) },
                else_branch = b1 () => (float[N,5] p4) { p4 = COARSE(z) }
            >
        }
    >
    y = Identity(v)
"""
PAIRS = {
    "labels": Pair(LINEAR, Gate("y", threshold=0.5)),
    "odd numbers": Pair("y = COARSE(x)", tail="float[N,6] y", inputs={"x": ODD}),
    "odd numbers, k = 2": Pair(
        "y = COARSE(x)", Gate("y", k=2), tail="float[N,6] y", inputs={"x": ODD}
    ),
    "odd numbers, cut": Pair(
        "y = COARSE(x)", Gate("y", "cut", cut=1.0), tail="float[N,6] y", inputs={"x": ODD}
    ),
    "odd pixels": Pair(
        "y = COARSE(x)", LABELS, *IMAGE, inputs={"x": ODD.reshape(-1)[:2400].reshape(40, 5, 4, 3)}
    ),
    "second place": Pair(LINEAR, Gate("y", k=2, threshold=0.25)),
    "last axis": Pair(LINEAR, Gate("y", axis=-1, k=4)),
    "nothing left over": Pair(LINEAR, Gate("y", k=5)),
    "free width": Pair(LINEAR, tail="float[N,C] y"),
    "pixels": Pair("y = COARSE(x)", LABELS, *IMAGE, inputs=WIDE),
    "pixels, classes last": Pair("y = COARSE(x)", Gate("y", axis=3, k=2), *IMAGE, inputs=WIDE),
    "cut, column": Pair(LINEAR, Gate("y", "cut", column=1, cut=0.3)),
    "cut, row minimum": Pair(LINEAR, Gate("y", "cut", cut=0.1)),
    "cut, image": Pair("y = COARSE(x)", Gate("y", "cut", column=-1), *IMAGE, inputs=WIDE),
    "score": Pair(
        "z = MatMul(x, w) r = COARSE(z) y = ReduceSum<keepdims=0>(r, one)",
        Gate("y", "cut", cut=1.0),
        tail="float[N] y",
        weights={"w": W, "one": np.array([1])},
    ),
    "double": Pair("z = MatMul(x, w) r = COARSE(z) y = Cast<to=11>(r)", tail="double[N,5] y"),
    "half": Pair("z = MatMul(x, w) r = COARSE(z) y = Cast<to=10>(r)", tail="float16[N,5] y"),
    "counts": Pair(
        "z = MatMul(x, w) r = COARSE(z) s = Add(r, r) y = Cast<to=7>(s)", tail="int64[N,5] y"
    ),
    "many outputs": Pair(
        LINEAR + "a = ArgMax<axis=1,keepdims=0>(y) b = Greater(y, z) s = Cast<to=8>(y)",
        tail="float[N,5] y, int64[N] a, bool[N,5] b, string[N,5] s, float[N,5] z",
    ),
    "bytes in": Pair(
        "f = Cast<to=1>(x) z = MatMul(f, w) y = COARSE(z)",
        head="uint8[N,6] x",
        inputs={"x": RNG.integers(0, 4, (11, 6)).astype(np.uint8)},
    ),
    "one row": Pair(LINEAR, inputs={"x": X[:1]}),
    "fixed batch 1": Pair(
        LINEAR, head="float[1,6] x", tail="float[1,5] y", inputs={"x": X[:1]}, fixed=True
    ),
    "fixed batch 4": Pair(
        LINEAR + " s = ReduceMean<keepdims=1>(z) v = Add(y, s)",
        head="float[4,6] x",
        tail="float[4,5] y, float[4,5] v",
        inputs={"x": X[:4]},
        fixed=True,
    ),
    "scalar input": Pair(
        "z = MatMul(x, w) s = Mul(z, heat) y = COARSE(s)",
        head="float[N,6] x, float heat",
        inputs={"x": X, "heat": np.array(1.5, np.float32)},
    ),
    "two inputs": Pair(
        "e = Gather(table, ids) m = Cast<to=1>(mask) u = Unsqueeze(m, last) p = Mul(e, u)"
        "s = ReduceSum<keepdims=0>(p, one) y = COARSE(s)",
        head="int64[N,4] ids, int64[N,4] mask",
        tail="float[N,3] y",
        inputs=IDS,
        weights={**TABLES, "last": np.array([-1]), "one": np.array([1])},
    ),
    "taken names": Pair(
        "deferred_2 = MatMul(threshold, w) then = COARSE(deferred_2) deferred = Neg(then)",
        Gate("deferred"),
        head="float[N,6] threshold",
        tail="float[N,5] deferred",
        inputs={"threshold": X},
    ),
    "branches in the source": Pair(
        BRANCHES, weights={"w": W, "w0": np.array([0.5], np.float32)}, inputs={"x": X[:8]}
    ),
    "other domain": Pair(
        "z = MatMul(x, w) g = com.microsoft.Gelu(z) y = COARSE(g)",
        opsets='"": 17, "com.microsoft": 1',
    ),
    "functions": Pair(
        "z = MatMul(x, w) y = own.Outer(z)",
        opsets='"": 17, "own": 1',
        functions='<domain: "own", opset_import: ["": 17, "own": 1]> Outer (a) => (b) '
        '{ b = own.Inner(a) } <domain: "own", opset_import: ["": 17]> Inner (a) => (b) '
        "{ b = COARSE(a) }",
    ),
    "opset 13": Pair(LINEAR, opsets='"": 13'),
    "opset 21": Pair(LINEAR, opsets='"": 21'),
}


@pytest.mark.parametrize("name", PAIRS)
def test_rows_come_from_the_right_model(name: str, tmp_path: Path) -> None:
    pair = PAIRS[name]
    threshold = "threshold_2" if name == "taken names" else "threshold"
    hold(pair.write(tmp_path), pair.gate, pair.inputs or {"x": X}, pair.fixed, threshold)


def test_the_thresholds_tried_defer_none_some_and_all(tmp_path: Path) -> None:
    assert hold(PAIRS["labels"].write(tmp_path), LABELS, {"x": X}) == {"none", "some", "all"}


@pytest.mark.parametrize("inner_first", [False, True])
def test_cascades_nest(tmp_path: Path, inner_first: bool) -> None:
    fast, exact, _ = PAIRS["labels"].write(tmp_path)
    both, whole = tmp_path / "both.onnx", tmp_path / "whole.onnx"
    write_cascade(fast, exact, Gate("y", threshold=0.4), both)
    pair = (both, exact) if inner_first else (fast, both)
    write_cascade(*pair, Gate("y", threshold=0.8), whole)
    assert noted(session(whole))[THRESHOLDS] == (
        "threshold,threshold_2" if inner_first else "threshold_2,threshold"
    )
    assert noted(session(whole))[DEFERRED] == "deferred"
    outer = CascadeRunner.load(*pair, Gate("y", threshold=0.8), session_options=OPTIONS)
    hold((*pair, whole), Gate("y", threshold=0.8), {"x": X}, threshold="threshold_2")
    inner = CascadeRunner.load(fast, exact, Gate("y", threshold=0.4), session_options=OPTIONS)
    nested = replace(outer, fast=inner) if inner_first else replace(outer, exact=inner)
    got = session(whole).run(["y"], {"x": X})[0]
    assert same(got, nested({"x": X})["y"])
    never = np.array(-1, np.float32)
    off = {"x": X, "threshold": never, "threshold_2": never}
    assert same(session(whole).run(["y"], off)[0], session(fast).run(["y"], {"x": X})[0])


def trained(kind: str, folder: Path) -> tuple[Path, Path, dict[str, Array]]:
    """Train and quantise a small net; return fast and exact files and fresh cases."""
    torch = pytest.importorskip("torch")
    nn, rng = torch.nn, np.random.default_rng(3)
    torch.manual_seed(3)
    torch.set_num_threads(1)

    class Reader(nn.Module):  # type: ignore[misc,name-defined,unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            self.words, self.head = nn.Embedding(200, 32), nn.Linear(32, 3)
            self.q, self.k, self.v = (nn.Linear(32, 32) for _ in range(3))
            self.norm, self.up, self.down = nn.LayerNorm(32), nn.Linear(32, 64), nn.Linear(64, 32)

        def forward(self, ids: Any, mask: Any) -> Any:
            x = self.words(ids)
            scores = self.q(x) @ self.k(x).transpose(-1, -2) / 32**0.5
            scores = scores - 1e4 * (1 - mask[:, None].float())
            x = self.norm(x + scores.softmax(-1) @ self.v(x))
            x = x + self.down(nn.functional.gelu(self.up(x)))
            return self.head(x.mean(1)), x

    def block(a: int, b: int) -> list[Any]:
        return [nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU()]

    if kind == "conv":
        net = nn.Sequential(
            *block(3, 16), *block(16, 32), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 3)
        )
        cases: dict[str, Array] = {"x": rng.normal(size=(96, 3, 12, 12)).astype(np.float32)}
        labels = cases["x"].mean((2, 3)).argmax(1)
    else:
        net = Reader()
        cases = {"ids": rng.integers(0, 200, (96, 7)), "mask": rng.integers(0, 2, (96, 7))}
        cases["mask"][:, 0] = 1
        labels = cases["ids"].sum(1) % 3
    tensors = [torch.from_numpy(v) for v in cases.values()]
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(12):
        out = net(*tensors)
        logits = out[0] if isinstance(out, tuple) else out
        optimizer.zero_grad()
        nn.functional.cross_entropy(logits, torch.from_numpy(labels)).backward()
        optimizer.step()
    outs = ["y"] if kind == "conv" else ["y", "hidden"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net.eval(),
            tuple(tensors),
            folder / "exact.onnx",
            input_names=[*cases],
            output_names=outs,
            dynamo=False,
            opset_version=17,
            dynamic_axes={n: {0: "N"} for n in (*cases, *outs)},
        )
    return quantised(folder / "exact.onnx", cases), folder / "exact.onnx", cases


def quantised(exact: Path, cases: dict[str, Array]) -> Path:
    quantization = pytest.importorskip("onnxruntime.quantization")

    class Rows(quantization.CalibrationDataReader):  # type: ignore[misc,name-defined,unused-ignore]
        def __init__(self) -> None:
            self.left = [cases]

        def get_next(self) -> dict[str, Array] | None:
            return self.left.pop() if self.left else None

    last = [n.name for n in onnx.load(exact).graph.node if n.op_type == "Gemm"]
    quantization.quantize_static(
        exact,
        exact.with_name("fast.onnx"),
        Rows(),
        per_channel=True,
        op_types_to_quantize=["Conv", "MatMul", "Gemm"],
        nodes_to_exclude=last,
    )
    return exact.with_name("fast.onnx")


@pytest.mark.parametrize("kind", ["conv", "reader"])
def test_quantised_nets(kind: str, tmp_path: Path) -> None:
    fast, exact, cases = trained(kind, tmp_path)
    out, gate = tmp_path / "cascade.onnx", Gate("y", threshold=0.3)
    write_cascade(fast, exact, gate, out)
    assert hold((fast, exact, out), gate, cases) == {"none", "some", "all"}
    one = {n: v[:1] for n, v in cases.items()}
    assert hold((fast, exact, out), gate, one) == {"none", "all"}
    if kind == "reader":
        both = fast.stat().st_size + exact.stat().st_size
        assert out.stat().st_size < both - 200 * 32 * 4 + 8000, "one word table, not two"


def test_a_model_paired_with_itself_stays_itself(tmp_path: Path) -> None:
    """Convolution weights in an outer scope would be computed by other kernels."""
    _, exact, cases = trained("conv", tmp_path)
    out, gate = tmp_path / "cascade.onnx", Gate("y", threshold=np.inf)
    write_cascade(exact, exact, gate, out)
    got, deferred = session(out).run(None, cases)
    assert deferred.all()
    assert same(got, session(exact).run(["y"], cases)[0])
