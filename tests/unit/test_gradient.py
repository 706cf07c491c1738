"""Sensitivity by gradients: the interpreter against ONNX Runtime, the noise against real files."""

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402, N812
from torch import Tensor, nn  # noqa: E402

from justenough.core.gate import Gate  # noqa: E402
from justenough.core.subject import Site, Variant  # noqa: E402
from justenough.errors import InputError  # noqa: E402
from justenough.subjects import gradient, quantize  # noqa: E402
from justenough.subjects.gradient import site_noise  # noqa: E402
from justenough.subjects.onnx_model import find_sites  # noqa: E402
from justenough.subjects.prepare import prepare  # noqa: E402
from justenough.subjects.sessions import session  # noqa: E402
from justenough.subjects.torch_graph import UnsupportedOperator, torch_graph  # noqa: E402
from justenough.transforms.rounding import NARROW_TOP  # noqa: E402

Array = NDArray[Any]
Inputs = dict[str, Array]


class ConvNet(nn.Module):
    """Batch norms, a depthwise and a residual block with SiLU, pooling, uneven padding."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU())
        self.deep = nn.Sequential(
            nn.Conv2d(12, 12, 3, padding=1, groups=12), nn.BatchNorm2d(12), nn.SiLU(),
            nn.Conv2d(12, 12, 1), nn.BatchNorm2d(12),
        )  # fmt: skip
        self.down = nn.Sequential(
            nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(12, 20, 3, 2), nn.BatchNorm2d(20), nn.ReLU6(),
            nn.MaxPool2d(3, 2, 1), nn.Conv2d(20, 20, 3, padding=1, bias=False), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(20, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.stem(x), 2)
        x = torch.relu(x + self.deep(x))
        return self.head(F.adaptive_avg_pool2d(self.down(x), 1).flatten(1))  # type: ignore[no-any-return]


class Layer(nn.Module):
    """Attention with a mask, then a GELU layer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.n1, self.n2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        b, t, w = x.shape
        h = self.n1(x)
        q, k, v = (
            f(h).view(b, t, self.heads, w // self.heads).transpose(1, 2)
            for f in (self.q, self.k, self.v)
        )
        score = q @ k.transpose(-1, -2) / (w // self.heads) ** 0.5 + bias
        mixed = (torch.softmax(score, -1) @ v).transpose(1, 2).reshape(b, t, w)
        x = x + self.o(mixed)
        return x + self.down(F.gelu(self.up(self.n2(x))))  # type: ignore[no-any-return]


class Transformer(nn.Module):
    """Two layers over token numbers and a mask of those that count."""

    def __init__(self, width: int = 24, length: int = 12) -> None:
        super().__init__()
        self.token, self.place = nn.Embedding(20, width), nn.Embedding(length, width)
        self.layers = nn.ModuleList(Layer(width, 3) for _ in range(2))
        self.head = nn.Linear(width, 4)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.token(ids) + self.place(torch.arange(ids.shape[1]))
        bias = torch.where(mask[:, None, None, :] > 0, 0.0, -1e4)
        for layer in self.layers:
            x = layer(x, bias)
        seen = mask.to(x.dtype)[..., None]
        return self.head((x * seen).sum(1) / seen.sum(1))  # type: ignore[no-any-return]


def waves(n: int, seed: int) -> tuple[Inputs, Array]:
    """Gratings of five directions in noise."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 5, n)
    angle = label * np.pi / 5 + rng.normal(0, 0.1, n)
    y, x = np.mgrid[:20, :20]
    wave = np.cos(angle)[:, None, None] * x + np.sin(angle)[:, None, None] * y
    image = np.sin(wave + rng.uniform(0, 6, n)[:, None, None]) * rng.uniform(0.3, 1, (n, 1, 1))
    return {"x": (image + rng.normal(0, 0.5, image.shape))[:, None].astype(np.float32)}, label


def words(n: int, seed: int) -> tuple[Inputs, Array]:
    """Tokens of four groups; the answer is the group that occurs most among those that count."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 20, (n, 12))
    length = rng.integers(6, 13, n)
    mask = (np.arange(12) < length[:, None]).astype(np.int64)
    counts = np.stack([((ids // 5 == g) & (mask > 0)).sum(1) for g in range(4)], 1)
    return {"ids": ids, "mask": mask}, (counts + np.arange(4) * 0.1).argmax(1)


class Recurrent(nn.Module):
    """Attention over (time, rows, width): the rows are not the first axis."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(3, 16), nn.Linear(16, 3)
        self.attend = nn.MultiheadAttention(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.first(x.transpose(0, 1)))
        h = h + self.attend(h, h, h, need_weights=False)[0]
        return self.head(h.mean(0))  # type: ignore[no-any-return]


class Table(nn.Module):
    """A net of a table, with a batch norm that cannot be folded."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.BatchNorm1d(7), nn.Linear(7, 24), nn.ReLU(), nn.LayerNorm(24), nn.Linear(24, 16),
            nn.Tanh(), nn.Linear(16, 3), nn.Softmax(-1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)  # type: ignore[no-any-return]


class Tangled(nn.Module):
    """Shared weights, a tensor read twice, followers of every kind, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.twice = nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 3, padding=1)
        self.join, self.last = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 4, 1, bias=False)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = self.twice(torch.relu(self.twice(self.first(x))))
        w = torch.relu(z) + z
        u = F.hardtanh(self.join(torch.cat([w, F.avg_pool2d(z, 3, 1, 1)], 1)))
        u = F.interpolate(F.max_pool2d(u, 2), scale_factor=2)
        return self.head(F.avg_pool2d(torch.relu(self.last(u)), 20).flatten(1)), z


def numbers(*shape: int) -> Callable[[int, int], tuple[Inputs, Array]]:
    def draw(n: int, seed: int) -> tuple[Inputs, Array]:
        rng = np.random.default_rng(seed)
        return {"x": rng.normal(size=(n, *shape)).astype(np.float32)}, rng.integers(0, 3, n)

    return draw


def export(net: nn.Module, inputs: Inputs, path: Path) -> onnx.ModelProto:
    net.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net, tuple(torch.from_numpy(v[:2]) for v in inputs.values()), str(path),
            dynamo=False, opset_version=17, input_names=list(inputs), output_names=["y"],
            dynamic_axes={k: {0: "rows"} for k in (*inputs, "y")},
        )  # fmt: skip
    return prepare(onnx.load(str(path)))


def train(net: nn.Module, inputs: Inputs, label: Array, steps: int) -> None:
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(net.parameters(), 3e-3)
    data, target = [torch.from_numpy(v) for v in inputs.values()], torch.from_numpy(label)
    net.train()
    for _ in range(steps):
        at = torch.randint(0, len(target), (64,))
        optimizer.zero_grad()
        loss = F.cross_entropy(net(*(d[at] for d in data)), target[at])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


Draw = Callable[[int, int], tuple[Inputs, Array]]
CASES: dict[str, tuple[Callable[[], nn.Module], Draw, int]] = {
    "conv": (ConvNet, waves, 40),
    "transformer": (Transformer, words, 250),
    "table": (Table, numbers(7), 0),
    "recurrent": (Recurrent, numbers(4, 3), 0),
    "tangled": (Tangled, waves, 0),
}
Make = Callable[[str], onnx.ModelProto]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # waiting threads of other processes make two slower than one
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> Make:
    @cache
    def make(name: str) -> onnx.ModelProto:
        build, draw, steps = CASES[name]
        torch.manual_seed(0)
        net = build()
        inputs, label = draw(2000, 0)
        train(net, inputs, label, steps)
        return export(net, inputs, tmp_path_factory.mktemp(name) / "net.onnx")

    return make


def run(model: onnx.ModelProto, inputs: Inputs, path: Path) -> dict[str, Array]:
    onnx.save(model, str(path))
    s = session(path)
    return dict(zip((o.name for o in s.get_outputs()), s.run(None, inputs), strict=True))


def interpreted(model: onnx.ModelProto, inputs: Inputs) -> dict[str, Array]:
    out = torch_graph(model).run({k: torch.from_numpy(v.copy()) for k, v in inputs.items()})
    return {k: v.numpy() for k, v in out.items()}


def check_same(model: onnx.ModelProto, inputs: Inputs, path: Path) -> None:
    want, got = run(model, inputs, path), interpreted(model, inputs)
    for name, w in want.items():
        assert got[name].dtype == w.dtype
        assert got[name].shape == w.shape
        np.testing.assert_allclose(got[name], w, rtol=1e-4, atol=1e-5 * np.abs(w).max(initial=1))


@pytest.mark.parametrize("name", CASES)
def test_exported_nets_answer_as_in_onnxruntime(name: str, nets: Make, tmp_path: Path) -> None:
    check_same(nets(name), CASES[name][1](33, 1)[0], tmp_path / "net.onnx")


def f32(*shape: int) -> Array:
    return np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)


def i64(*values: int) -> Array:
    return np.array(values, np.int64)


IMAGE, ROWS = f32(2, 4, 9, 7), f32(2, 5, 6)
HALF = np.array(0.5, np.float32)
TRUTH = f32(2, 5, 6) > 0
NONE = np.zeros(0, np.float32)
SIZES, ENDS = i64(2, 4, 18, 14), i64(1, 0, 2, 1)
OPERATORS: list[tuple[str, list[Array], dict[str, Any]]] = [
    ("Conv", [f32(2, 4, 9), f32(6, 2, 3), f32(6)], {"group": 2, "pads": [1, 0]}),
    ("Conv", [IMAGE, f32(6, 4, 3, 3)], {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ("Conv", [IMAGE, f32(6, 4, 2, 2)], {"auto_pad": "SAME_LOWER"}),
    ("Conv", [f32(1, 2, 5, 6, 7), f32(3, 2, 3, 3, 3)], {"pads": [0, 1, 2, 0, 1, 2]}),
    ("Conv", [IMAGE, f32(6, 4, 3, 3)], {"pads": [1, 2, 0, 1], "dilations": [2, 1]}),
    ("ConvTranspose", [IMAGE, f32(4, 3, 3, 3), f32(3)], {"strides": [2, 2], "pads": [1] * 4}),
    ("Gemm", [f32(3, 5), f32(4, 3), f32(4)], {"transA": 1, "transB": 1, "beta": 2.0}),
    ("Gemm", [f32(5, 3), f32(3, 4)], {"alpha": 0.5}),
    ("MatMul", [f32(2, 1, 3, 4), f32(5, 4, 6)], {}),
    ("Einsum", [f32(2, 3), f32(3, 4)], {"equation": "ij,jk->ik"}),
    *((op, [ROWS * 3], {}) for op in (
        "Elu", "Softplus", "Gelu", "com.microsoft.Gelu", "HardSwish", "LogSoftmax", "Abs", "Sin",
        "ReduceMean", "Transpose", "Dropout", "Identity", "IsNaN", "Floor", "Ceil", "Round", "Cos",
    )),
    *((op, [IMAGE[:, :, :1]], {}) for op in ("GlobalAveragePool", "GlobalMaxPool", "Squeeze")),
    *(("Clip", [ROWS, low, HALF], {}) for low in (-HALF, NONE)),
    *(("Pad", [IMAGE, ENDS, NONE, i64(2, 3)], {"mode": m}) for m in ("edge", "reflect")),
    ("LeakyRelu", [ROWS], {"alpha": 0.2}), ("PRelu", [IMAGE, f32(4, 1, 1)], {}),
    ("Gelu", [ROWS], {"approximate": "tanh"}),
    ("com.microsoft.QuickGelu", [ROWS], {"alpha": 1.5}),
    ("com.microsoft.SkipLayerNormalization", [ROWS, ROWS * 2, f32(6), f32(6), f32(6) * 2], {}),
    ("HardSigmoid", [ROWS], {"alpha": 0.3}),
    ("Softmax", [ROWS], {"axis": 1}),
    ("LayerNormalization", [ROWS, f32(5, 6), f32(5, 6)], {"axis": 1}),
    ("BatchNormalization", [IMAGE, f32(4), f32(4), f32(4), f32(4) ** 2], {"epsilon": 1e-3}),
    ("GroupNormalization", [IMAGE, f32(4), f32(4)], {"num_groups": 2}),
    ("InstanceNormalization", [IMAGE, f32(4), f32(4)], {}),
    ("Pow", [np.abs(ROWS), HALF], {}), ("Div", [i64(7, -7, 8), i64(2, 2, 3)], {}),
    *((op, [ROWS, HALF, ROWS[:1]], {}) for op in ("Min", "Max", "Sum")),
    *((op, [np.abs(ROWS) + 1], {}) for op in ("Sqrt", "Reciprocal", "Neg", "Log", "Exp", "Erf")),
    *((op, [ROWS, f32(5, 1)], {}) for op in ("Add", "Sub", "Mul", "Div")),
    *((op, [ROWS, HALF], {}) for op in ("Less", "LessOrEqual", "Greater", "GreaterOrEqual")),
    *((op, [TRUTH, TRUTH[:1]], {}) for op in ("And", "Or", "Equal")),
    *((f"Reduce{r}", [ROWS, i64(1, -1)], {"keepdims": 0}) for r in ("Mean", "Sum", "Max", "Min")),
    ("ReduceL2", [ROWS, i64(1)], {}),
    ("ReduceSum", [ROWS], {"noop_with_empty_axes": 1}),
    ("AveragePool", [IMAGE], {"kernel_shape": [3, 3], "pads": [1] * 4, "strides": [2, 2]}),
    ("AveragePool", [IMAGE], {"kernel_shape": [3, 2], "auto_pad": "SAME_UPPER"}),
    *(("AveragePool", [IMAGE], {"kernel_shape": [2, 2], "pads": [0, 0, 1, 1],
                                "count_include_pad": k}) for k in (0, 1)),
    ("AveragePool", [IMAGE], {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
    ("MaxPool", [IMAGE], {"kernel_shape": [3, 3], "pads": [0, 0, 1, 1], "strides": [2, 2]}),
    ("MaxPool", [IMAGE], {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
    ("MaxPool", [IMAGE[..., 0]], {"kernel_shape": [3], "dilations": [2], "pads": [1, 1]}),
    ("Concat", [ROWS, ROWS[:, :2]], {"axis": 1}), ("Trilu", [ROWS, np.array(1)], {"upper": 0}),
    ("Split", [ROWS, i64(1, 4)], {"axis": 1}), ("Split", [ROWS], {"axis": 2, "num_outputs": 2}),
    ("Slice", [ROWS, i64(-1, 1), i64(-(2**62), 2**62), i64(1, 2), i64(-2, 1)], {}),
    ("Gather", [ROWS, np.array([[0, -1], [2, 1]])], {"axis": 1}),
    ("Gather", [ROWS, np.array(-2)], {"axis": 2}),
    ("Reshape", [ROWS, i64(0, 3, -1)], {}), ("Flatten", [IMAGE], {"axis": 2}),
    ("Transpose", [ROWS], {"perm": [2, 0, 1]}),
    ("Squeeze", [ROWS[:1, :, :1], i64(0, -1)], {}), ("Unsqueeze", [ROWS, i64(0, -1)], {}),
    ("Expand", [ROWS[:, :1], i64(3, 1, 5, 1)], {}),
    ("Tile", [ROWS, i64(2, 1, 3)], {}), ("Shape", [ROWS], {"start": 1}),
    ("ConstantOfShape", [i64(2, 3)], {"value": numpy_helper.from_array(i64(7))}),
    ("Constant", [], {"value_floats": [1.0, 2.0]}),
    ("Cast", [ROWS * 3], {"to": TensorProto.INT64}),
    ("Where", [TRUTH, ROWS, HALF], {}), ("Not", [TRUTH], {}), ("Sign", [ROWS], {}),
    ("Range", [np.array(1), np.array(9), np.array(2)], {}),
    ("Pad", [IMAGE, i64(0, 1, 2, -1, 0, 0, 1, 2), HALF], {}),
    ("Resize", [IMAGE, NONE, np.array([1, 1, 2, 3], np.float32)], {"mode": "nearest"}),
    ("Resize", [IMAGE, NONE, NONE, SIZES], {"mode": "linear"}),
    ("Resize", [IMAGE, NONE, NONE, SIZES - 5 * (SIZES > 9)],
     {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}),
    ("Resize", [IMAGE, NONE, NONE, SIZES],
     {"mode": "linear", "coordinate_transformation_mode": "align_corners"}),
    ("CumSum", [ROWS, np.array(1)], {"exclusive": 1, "reverse": 1}),
    ("ArgMax", [ROWS], {"axis": -1, "keepdims": 0}),
]  # fmt: skip


def one_node(op: str, inputs: list[Array], attributes: dict[str, Any]) -> onnx.ModelProto:
    """A graph of one node; what it reads after the first input is constant."""
    domain, _, op = op.rpartition(".")
    names = ["" if v.size == 0 else f"i{k}" for k, v in enumerate(inputs)]
    outputs = [f"o{k}" for k in range(2 if op == "Split" else 1)]
    if op == "SkipLayerNormalization":
        outputs = ["o0", "", "", "o3"]
    graph = helper.make_graph(
        [helper.make_node(op, names, outputs, name="it", domain=domain, **attributes)],
        "one",
        [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
            for n, v in zip(names[:1], inputs, strict=False)
        ],
        [helper.make_empty_tensor_value_info(o) for o in outputs if o],
        [numpy_helper.from_array(v, n) for n, v in zip(names, inputs, strict=True) if n][1:],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


@pytest.mark.parametrize("case", OPERATORS, ids=lambda c: str(c[0]))
def test_operator_as_in_onnxruntime(
    case: tuple[str, list[Array], dict[str, Any]], tmp_path: Path
) -> None:
    inputs = {"i0": case[1][0]} if case[1] else {}
    check_same(one_node(*case), inputs, tmp_path / "one.onnx")


def test_unknown_operator_and_form_are_named() -> None:
    with pytest.raises(UnsupportedOperator, match=r"'NonZero' of node 'it'.*one at a time"):
        torch_graph(one_node("NonZero", [ROWS], {}))
    cubic = one_node("Resize", [IMAGE, NONE, NONE, SIZES], {"mode": "cubic"})
    with pytest.raises(UnsupportedOperator, match=r"'Resize' of node 'it'.*mode cubic"):
        interpreted(cubic, {"i0": IMAGE})


def calibrate(
    model: onnx.ModelProto, sites: tuple[Site, ...], inputs: Inputs, path: Path
) -> quantize.Ranges:
    tensors = quantize.observed_tensors(model, sites)
    seen = run(quantize.with_outputs(model, tensors), inputs, path)
    values = {t: {**inputs, **seen}[t] for t in tensors}
    return quantize.find_ranges(
        {t: (float(v.min()), float(v.max()), v) for t, v in values.items()}
    )


@pytest.mark.parametrize("name", ["conv", "transformer", "table", "recurrent", "tangled"])
def test_rounds_what_the_written_file_rounds(name: str, nets: Make, tmp_path: Path) -> None:
    model, inputs = nets(name), CASES[name][1](64, 2)[0]
    sites = find_sites(model)
    ranges = calibrate(model, sites, inputs, tmp_path / "seen.onnx")
    plan = gradient._Plan(model, torch_graph(model), ranges.table["minmax"], NARROW_TOP)
    for site in sites:
        path = tmp_path / "site.onnx"
        quantize.write_variant(model, sites, Variant.of({site.name: "int8"}), ranges, path)
        written = onnx.load(str(path)).graph
        constants = {i.name: numpy_helper.to_array(i) for i in written.initializer}
        want = {
            n.input[0]: tuple(constants[t].item() for t in n.input[1:])
            for n in written.node
            if n.op_type == "QuantizeLinear"
        }
        got = {t: (g.scale, g.zero) for t, g in plan.island(site).grids.items()}
        assert got == want, site.name


def measured(
    model: onnx.ModelProto, sites: tuple[Site, ...], ranges: quantize.Ranges, inputs: Inputs,
    gate: Gate | None, folder: Path,
) -> dict[str, float]:  # fmt: skip
    """The same by a real file for each site."""
    out, ref = {}, run(model, inputs, folder / "ref.onnx")
    for site in sites:
        path = folder / "site.onnx"
        variant = Variant.of({site.name: "int8"}, "minmax-narrow")  # exact on any processor
        quantize.write_variant(model, sites, variant, ranges, path)
        y = {"y": session(path).run(["y"], inputs)[0]}
        change = gate.signed(ref, y) - gate.margin(ref) if gate else y["y"] - ref["y"]
        out[site.name] = float((change.reshape(len(change), -1) ** 2).sum(1).mean())
    return out


def noise(
    model: onnx.ModelProto, ranges: Mapping[str, tuple[float, float]], inputs: Inputs,
    gate: Gate | None, output: str = "y", **sizes: Any,
) -> gradient.SiteNoise:  # fmt: skip
    where = (model, find_sites(model), ranges, inputs, gate, output)
    return site_noise(*where, top=NARROW_TOP, **sizes, rng=np.random.default_rng(0))


def agreement(predicted: dict[str, float], real: dict[str, float]) -> tuple[float, float]:
    p, r = (np.array([d[s] for s in real]) for d in (predicted, real))
    return float(np.corrcoef(np.log(p), np.log(r))[0, 1]), float(np.median(p / r))


CUT = Gate("y", kind="cut", cut=0.3)
GATES = [Gate("y"), Gate("y", k=2), replace(CUT, column=1), CUT, None]


@pytest.mark.parametrize("gate", GATES, ids=["top1", "top2", "column", "cut", "power"])
@pytest.mark.parametrize("name", ["conv", "transformer"])
def test_noise_is_that_of_the_real_files(
    name: str, gate: Gate | None, nets: Make, tmp_path: Path
) -> None:
    model, draw = nets(name), CASES[name][1]
    sites, inputs = find_sites(model), draw(768, 3)[0]
    ranges = calibrate(model, sites, draw(256, 2)[0], tmp_path / "seen.onnx")
    got = noise(model, ranges.table["minmax"], inputs, gate, batch=64)
    real = measured(model, sites, ranges, inputs, gate, tmp_path)
    log_correlation, ratio = agreement(got.power, real)
    assert log_correlation >= 0.98
    assert 0.6 <= ratio <= 1.6
    assert got.rows_passed == 768 * (3 if gate else 6)


@pytest.mark.parametrize("name", ["tangled", "recurrent"])
def test_odd_graphs_and_rows_off_the_first_axis(name: str, nets: Make, tmp_path: Path) -> None:
    model, inputs = nets(name), CASES[name][1](48, 3)[0]
    sites = find_sites(model)
    ranges = calibrate(model, sites, inputs, tmp_path / "seen.onnx")
    got = noise(model, ranges.table["minmax"], inputs, None, probes=12)
    real = measured(model, sites, ranges, inputs, None, tmp_path)
    assert got.power == pytest.approx(real, rel=0.5)


@pytest.mark.parametrize(("name", "passed"), [("conv", 36), ("recurrent", 120)])
def test_any_batch_gives_the_same(name: str, passed: int, nets: Make, tmp_path: Path) -> None:
    free, inputs = nets(name), CASES[name][1](10, 3)[0]
    fixed = copy.deepcopy(free)
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    ranges = calibrate(free, find_sites(free), inputs, tmp_path / "seen.onnx").table["minmax"]
    three = noise(free, ranges, inputs, Gate("y"), batch=3)
    single = noise(free, ranges, inputs, Gate("y"), batch=1)
    four = noise(fixed, ranges, inputs, Gate("y"), batch=16)
    assert three.power == pytest.approx(single.power, rel=1e-3)
    assert four.power == pytest.approx(single.power, rel=1e-3)
    assert (three.rows_passed, four.rows_passed) == (30, passed)


def test_probes_estimate_the_squared_error(nets: Make) -> None:
    model, inputs = nets("table"), numbers(7)(40, 1)[0]
    wide = dict.fromkeys(quantize.observed_tensors(model, find_sites(model)), (-8.0, 8.0))
    columns = [Gate("y", kind="cut", column=c, cut=-1) for c in range(3)]
    want = sum(noise(model, wide, inputs, g).power["/net/net.4/Gemm"] for g in columns)
    got = noise(model, wide, inputs, None, probes=200).power["/net/net.4/Gemm"]
    assert got == pytest.approx(want, rel=0.05)


def test_what_cannot_be_measured_is_said(nets: Make) -> None:
    model, inputs = nets("table"), numbers(7)(5, 1)[0]
    assert set(noise(model, {}, inputs, Gate("y", k=3)).power.values()) == {0.0}
    with pytest.raises(InputError, match="0 rows"):
        noise(model, {}, {"x": inputs["x"][:0]}, None)
    with pytest.raises(InputError, match="no output 'z'; the model has: y"):
        noise(model, {}, inputs, None, "z")
    with pytest.raises(InputError, match=r"'o0' holds torch.int64; a gradient needs floats"):
        noise(one_node("ArgMax", [ROWS], {}), {}, {"i0": ROWS}, None, "o0")
