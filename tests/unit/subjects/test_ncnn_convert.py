import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper as nh
from onnx.parser import parse_model

from justenough.core.cases import Cases
from justenough.errors import InputError
from justenough.subjects import ncnn_convert
from justenough.subjects.ncnn_convert import convert, one_row, trim, without_casts
from justenough.subjects.ncnn_files import Note, check_graph
from justenough.subjects.ncnn_session import open_ncnn
from justenough.subjects.onnx_model import OnnxModel, file_sha256
from justenough.subjects.sessions import session

pytest.importorskip("ncnn", reason="needs the vulkan extra")
pytest.importorskip("pnnx", reason="needs the vulkan extra")

Array = NDArray[Any]
Write = Callable[..., Path]
RNG = np.random.default_rng(11)
# Bytes in, a residual block, and numbers without a shape of their own out, as the demo has.
NETWORK = """
    f = Cast<to=1>(views)
    a = Conv<pads=[1,1,1,1]>(f, w0, b0)
    r = Relu(a)
    c = Conv<pads=[1,1,1,1]>(r, w1)
    s = Add(r, c)
    g = GlobalAveragePool(s)
    q = Flatten(g)
    logits = Gemm<transB=1>(q, w2)
    risk = Gather<axis=1>(logits, k)
    p = Softmax<axis=1>(logits)
"""
FACE = "(uint8[n,3,9,7] views) => (float[n,4] p, float[n] risk)"
WEIGHTS = {
    "w0": RNG.normal(0, 0.02, (8, 3, 3, 3)).astype(np.float32),
    "b0": RNG.normal(0, 1, 8).astype(np.float32),
    "w1": RNG.normal(0, 0.2, (8, 8, 3, 3)).astype(np.float32),
    "w2": RNG.normal(0, 1, (4, 8)).astype(np.float32),
    "k": np.array(2),
}


def made(body: str, face: str, **weights: Array) -> onnx.ModelProto:
    model = parse_model(f'<ir_version: 8, opset_import: ["": 17]> g {face} {{ {body} }}')
    model.graph.initializer.extend(nh.from_array(v, k) for k, v in weights.items())
    return model


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(
        body: str = "y = Relu(x)", face: str = "(float[n,2] x) => (float[n,2] y)", **weights: Array
    ) -> Path:
        onnx.save(made(body, face, **weights), tmp_path / "m.onnx")
        return tmp_path / "m.onnx"

    return write


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An ONNX file and what it was converted to."""
    folder = tmp_path_factory.mktemp("converted")
    onnx.save(made(NETWORK, FACE, **WEIGHTS), folder / "net.onnx")
    return folder / "net.onnx", convert(folder / "net.onnx", folder / "out" / "ncnn")


def snr_db(exact: Array, got: Array) -> float:
    with np.errstate(divide="ignore"):
        return float(10 * np.log10(np.sum(exact**2) / np.sum((exact - got) ** 2)))


def test_answers_as_onnx_runtime_does(converted: tuple[Path, Path]) -> None:
    source, graph = converted
    views = np.random.default_rng(1).integers(0, 256, (40, 3, 9, 7), np.uint8)
    expected = session(source).run(None, {"views": views})
    for threads in (1, 2):
        got = open_ncnn(graph.parent, threads=threads).run(None, {"views": views})
        for e, g in zip(expected, got, strict=True):
            assert e.shape == g.shape
            assert snr_db(e, g) > 100


def test_the_note_speaks_as_the_onnx_file_did(converted: tuple[Path, Path]) -> None:
    source, graph = converted
    live, was = open_ncnn(graph), session(source)
    for now, before in (
        (live.get_inputs(), was.get_inputs()), (live.get_outputs(), was.get_outputs()),
    ):  # fmt: skip
        assert [(p.name, list(p.shape), p.type) for p in now] == [
            (p.name, p.shape, p.type) for p in before
        ]
    note = Note.parse(graph.with_suffix(".json").read_text(), "note")
    assert (note.onnx_sha256, note.weights) == (file_sha256(source), "fp32")
    assert note.made_with.startswith("pnnx 20")
    assert sorted(f.name for f in graph.parent.iterdir()) == [
        "model.ncnn.bin", "model.ncnn.json", "model.ncnn.param",
    ]  # fmt: skip


def test_weights_are_float32_unless_asked(converted: tuple[Path, Path], tmp_path: Path) -> None:
    source, graph = converted
    narrow = convert(source, tmp_path, weights="fp16")
    sizes = [p.with_suffix(".bin").stat().st_size for p in (graph, narrow)]
    n_weights = sum(WEIGHTS[k].size for k in ("w0", "w1", "w2"))
    assert sizes[0] >= 4 * n_weights
    assert sizes[1] < sizes[0] * 0.6
    views = np.random.default_rng(1).integers(0, 256, (40, 3, 9, 7), np.uint8)
    exact, rounded = (open_ncnn(p).run(["p"], {"views": views})[0] for p in (graph, narrow))
    assert 45 < snr_db(exact, rounded) < 90


def test_a_converted_network_takes_cases(converted: tuple[Path, Path]) -> None:
    source, _ = converted
    views = np.random.default_rng(1).integers(0, 256, (3, 3, 9, 7), np.int64)
    assert OnnxModel(source).check_cases(Cases({"views": views})).inputs["views"].dtype == np.uint8


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "face", "weights"),
    [
        ("y = Mul(x, x)", "(float[n] x) => (float[n] y)", {}),
        ("y = Conv<pads=[1,1]>(x, w)", "(float[n,3,9] x) => (float[n,4,9] y)",
         {"w": WEIGHTS["w0"][:4, :, 0]}),
        ("y = Conv(x, w)", "(float[n,2,5,6,7] x) => (float[n,3,3,4,5] y)",
         {"w": RNG.normal(0, 1, (3, 2, 3, 3, 3)).astype(np.float32)}),
        ("a = Conv(x, w)\n y = Reshape(a, s)", "(float[n,3,7,5] x) => (float[n,120] y)",
         {"w": WEIGHTS["w0"], "s": np.array([0, -1])}),
        ("s = Gemm(x, w, b)\n y = Squeeze(s, one)", "(float[n,4] x) => (float[n] y)",
         {"w": WEIGHTS["w2"][:, :1], "b": WEIGHTS["b0"][:1], "one": np.array([1])}),
        ("y = Add(x, z)\n t = Tanh(y)",
         "(float[n,4] x, float[n,4] z) => (float[n,4] t, float[n,4] y)", {}),
        ("a = Transpose<perm=[0,2,1]>(x)\n y = MatMul(a, w)",
         "(float[n,4,6] x) => (float[n,6,8] y)", {"w": WEIGHTS["w2"]}),
    ],
)  # fmt: skip
def test_ranks_and_ends_of_many_kinds(
    write: Write, tmp_path: Path, body: str, face: str, weights: Mapping[str, Array]
) -> None:
    path = write(body, face, **weights)
    live = open_ncnn(convert(path, tmp_path / "out"))
    rng = np.random.default_rng(2)
    feed = {p.name: rng.normal(0, 2, (3, *p.row)).astype(np.float32) for p in live.get_inputs()}
    expected = session(path).run(None, feed)
    for e, g in zip(expected, live.run(None, feed), strict=True):
        np.testing.assert_allclose(g, e, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_a_network_that_torch_exports(tmp_path: Path) -> None:
    code = """
import sys, torch
from torch import nn
torch.manual_seed(0)
body = nn.Sequential(
    nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.SiLU(),
    nn.Conv2d(16, 16, 5, 1, 2, groups=16),
    nn.Hardswish(), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5),
).eval()
torch.onnx.export(body, (torch.randn(2, 3, 33, 31),), sys.argv[1], input_names=["x"],
    output_names=["y"], dynamic_axes={"x": {0: "n"}, "y": {0: "n"}}, dynamo=False)
"""
    pytest.importorskip("torch", reason="exports with the torch extra")
    path = tmp_path / "torch.onnx"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code, str(path)], check=True)
    x = np.random.default_rng(1).standard_normal((20, 3, 33, 31)).astype(np.float32)
    (got,) = open_ncnn(convert(path, tmp_path / "out")).run(None, {"x": x})
    assert snr_db(session(path).run(None, {"x": x})[0], got) > 90


def test_free_sizes_are_asked_for(write: Write, tmp_path: Path) -> None:
    path = write("y = Relu(x)", "(float[n,2,k] x) => (float[n,2,k] y)")
    said = r"a row of input 'x' of m.onnx has shape \[2, 'any'\], given {}; ncnn needs each size"
    for shape in ((3, 4), (2,), (2, 0), (2, 4, 1)):
        with pytest.raises(InputError, match=said.format(r"\(.*\)")):
            convert(path, tmp_path / "out", {"x": shape})
    with pytest.raises(InputError, match=said.format("None")):
        convert(path, tmp_path / "out")
    with pytest.raises(InputError, match=r"m.onnx has no input 'z'; it has: x"):
        convert(path, tmp_path / "out", {"z": (2, 4)})
    live = open_ncnn(convert(path, tmp_path / "out", {"x": (2, 4)}))
    assert live.get_inputs()[0].shape == ("n", 2, 4)


@pytest.mark.parametrize("face", ["(float x) => (float y)", "(float[n,1,1,1,1,1] x) => (float y)"])
def test_inputs_of_too_few_or_too_many_axes(face: str) -> None:
    with pytest.raises(InputError, match=r"input 'x' of m has [06] axes; ncnn takes 1 to 5, the"):
        one_row(made("y = Relu(x)", face), {}, "m")


def test_one_row_fixes_batches_and_leaves_the_model_alone() -> None:
    model = made("y = Relu(x)", "(float[4,2] x) => (float[4,2] y)")
    before = model.SerializeToString()
    fixed = one_row(model, {}, "m")
    assert [d.dim_value for d in fixed.graph.input[0].type.tensor_type.shape.dim] == [1, 2]
    assert model.SerializeToString() == before


def test_casts_of_inputs_go_and_others_stay() -> None:
    model = made(
        "a = Cast<to=1>(x)\n b = Cast<to=1>(x)\n c = Add(a, b)\n d = Cast<to=6>(c)\n"
        "y = Cast<to=1>(d)",
        "(uint8[1,2] x) => (float[1,2] y)",
    )
    without_casts(model, "m")
    assert [n.op_type for n in model.graph.node] == ["Add", "Cast", "Cast"]
    assert list(model.graph.node[0].input) == ["x", "x"]
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT


@pytest.mark.parametrize(
    ("body", "reader"),
    [
        ("a = Cast<to=1>(x)\n b = Identity(x)\n c = Cast<to=1>(b)\n y = Add(a, c)", "Identity"),
        ("a = Cast<to=11>(x)\n y = Cast<to=1>(a)", "Cast"),
        ("y = Relu(z)", "nothing"),
    ],
)
def test_inputs_that_cannot_become_floats(body: str, reader: str) -> None:
    model = made(body, "(int64[1,2] x, float[1,2] z) => (float[1,2] y)")
    with pytest.raises(InputError, match=rf"'x' of m is tensor\(int64\) and is read by {reader};"):
        without_casts(model, "m")


@pytest.mark.parametrize(
    ("body", "face"),
    [
        ("y = ArgMax<axis=1>(x)", "(float[n,4] x) => (int64[n,1] y)"),
        ("y = ReduceMean<axes=[0], keepdims=0>(x)", "(float[n,4] x) => (float[4] y)"),
    ],
)
def test_outputs_that_ncnn_cannot_give(write: Write, tmp_path: Path, body: str, face: str) -> None:
    with pytest.raises(InputError, match=r"output 'y' of m.onnx is \w+ \(.*; ncnn answers float"):
        convert(write(body, face), tmp_path / "out")


def test_a_model_that_wants_its_batch(write: Write, tmp_path: Path) -> None:
    shape = np.array([4, 2])
    path = write("y = Reshape(x, s)", "(float[4,2] x) => (float[4,2] y)", s=shape)
    with pytest.raises(InputError, match=r"m.onnx fails on one row at a time: "):
        convert(path, tmp_path / "out")


def test_operators_that_are_left_over_are_named(write: Write, tmp_path: Path) -> None:
    path = write("y = Det(x)", "(float[n,3,3] x) => (float[n] y)")
    with pytest.raises(InputError, match=r"ncnn has no layer for Det of m.onnx; keep it in ONNX"):
        convert(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_answers_otherwise_is_refused(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        ncnn_convert, "answers_apart", lambda graph, rows, **_: {"y": rows["x"] * 1.02}
    )
    with pytest.raises(InputError, match=r"m.onnx into something else: output 'y' has 34.0 dB"):
        convert(write(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("want", "got", "fine"),
    [
        ([1.0, 2], [1.0, 2.01], True),
        ([0.0, 0], [0.0, 0], True),
        ([0.0, 0], [0.0, 1e-9], False),
        ([1.0, 2], [1.0, 2.1], False),
        ([np.nan, 2], [np.nan, 2], True),
        ([np.nan, 2], [1.0, 2], False),
        ([1.0, 2], [np.nan, 2], False),
        ([1.0, 2], [2.0, 1], False),
    ],
)
def test_what_counts_as_the_same_answer(want: list[float], got: list[float], fine: bool) -> None:
    arrays = ({"y": np.array(got)}, {"y": np.array(want)})
    if fine:
        ncnn_convert._compare(*arrays, "m")
    else:
        with pytest.raises(InputError, match="m into something else"):
            ncnn_convert._compare(*arrays, "m")


@pytest.mark.parametrize(
    ("code", "said", "why"),
    [
        (1, "reading\n\x1b[1msoftmax along batch axis is not supported\x1b[0m\nbye",
         "exit code 1; softmax along batch axis is not supported"),
        (-11, "2026 [W:onnxruntime:pnnx, x.cc:105] Unknown\npass_level1",
         "it crashed (SIGSEGV)"),
        (2, "", "exit code 2"),
    ],
)  # fmt: skip
def test_the_first_useful_line_of_what_pnnx_says(code: int, said: str, why: str) -> None:
    assert ncnn_convert._why(code, said) == why


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo open failed; exit 3", "pnnx cannot convert m.onnx: exit code 3; open failed"),
        ("exit 0", "pnnx cannot convert m.onnx: exit code 0"),
        ("kill -ABRT $$", r"pnnx cannot convert m.onnx: it crashed \(SIGABRT\)"),
        ("exec sleep 99", "pnnx took more than 0.5 s on m.onnx"),
        ("", r"pnnx cannot be started \(Exec format error\); install pnnx again"),
    ],
)
def test_a_converter_that_fails(
    write: Write, tmp_path: Path, script: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "pnnx"
    program.write_text(f"#!/bin/sh\n{script}\n" if script else "?")
    program.chmod(0o755)
    monkeypatch.setattr(ncnn_convert, "_program", lambda: program)
    with pytest.raises(InputError, match=f"^{said}$"):
        convert(write(), tmp_path / "out", timeout_s=0.5)
    assert not (tmp_path / "out").exists()


def test_without_the_converter(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ncnn_convert, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pnnx is not installed; install justenough\[vulkan\]"):
        convert(write(), tmp_path / "out")


HEAD = ["Input i 0 1 in0"]


@pytest.mark.parametrize(
    ("lines", "left"),
    [
        (["Split s 1 2 in0 a b 0=1", "Reshape r 1 1 a out0 0=1", "Reshape q 1 1 b out1"],
         ["Split s 1 2 in0 out0 out1 0=1"]),
        (["ReLU s 1 1 in0 a", "Reshape r 1 1 a b 0=1", "Reshape q 1 1 b out0"],
         ["ReLU s 1 1 in0 out0"]),
        (["Reshape r 1 1 in0 a 0=1", "ReLU s 1 1 a out0"],
         ["Reshape r 1 1 in0 a 0=1", "ReLU s 1 1 a out0"]),
        (["Reshape r 1 1 in0 out0 0=1"], ["Reshape r 1 1 in0 out0 0=1"]),
    ],
)  # fmt: skip
def test_last_reshapes_go(tmp_path: Path, lines: list[str], left: list[str]) -> None:
    path = tmp_path / "g.param"
    path.write_text("\n".join(["7767517", "0 0", *HEAD, *lines]))
    trim(path)
    magic, counts, *found = path.read_text().splitlines()
    assert found == HEAD + left
    assert len(check_graph(path.read_text(), "g")) == len(found)
    assert magic == "7767517"
    assert counts.split()[0] == str(len(found))
