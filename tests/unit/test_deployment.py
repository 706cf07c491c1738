"""`cascade.toml` is untrusted: whatever it says is one sentence or an answer."""

import base64
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper as nh
from onnx.parser import parse_model

from justenough.core.cases import Cases, CertificationCases
from justenough.core.contract import Clause, Contract
from justenough.core.gate import Gate
from justenough.core.subject import ONNXRUNTIME, Runtime
from justenough.deploy import deployment
from justenough.deploy.certify import SEEN, certify, deployed_bytes, seen_mark
from justenough.deploy.deployment import Deployment, load, write_deployment
from justenough.errors import DataReuseError, InputError
from justenough.subjects.answering import answer, files_of
from justenough.subjects.onnx_model import OnnxModel, weights_beside

Array = NDArray[Any]
X: Array = np.array([[0.2, 0.1], [3, 0], [1, 1], [0.4, 2.4]], np.float32)
FACE = "(float[N,2] x) => (float[N,2] y)"
GATE = Gate("y", threshold=0.5)
GATED = '[[stage]]\nfile = "fast.onnx"\nruntime = "onnxruntime"\ngate = {gate}\n'
LAST = '[[stage]]\nfile = "exact.onnx"\nruntime = "onnxruntime"\n'
HEAD = 'format = "justenough cascade 1"\noutputs = ["y"]\n'
Told = Callable[[str], Path]


def model(
    path: Path, body: str, face: str = FACE, weights: dict[str, Array] | None = None
) -> Path:
    made = parse_model(f'<ir_version: 8, opset_import: ["": 17]> g {face} {{ {body} }}')
    for name, value in (weights or {}).items():
        made.graph.initializer.append(nh.from_array(value, name))
    onnx.save(made, path)
    return path


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    fast = model(tmp_path / "fast.onnx", "y = Round(x)")
    return fast, model(tmp_path / "exact.onnx", "y = Identity(x)")


@pytest.fixture
def told(pair: tuple[Path, Path], tmp_path: Path) -> Told:
    """Write a `cascade.toml` beside the two models."""

    def write(text: str) -> Path:
        path = tmp_path / "cascade.toml"
        path.write_text(text, encoding="utf-8", errors="surrogateescape")
        return path

    return write


def with_gate(inner: str) -> str:
    return HEAD + GATED.format(gate=f"{{ {inner} }}") + LAST


def refused(path: Path, *words: str) -> None:
    """One sentence that names what is wrong, on loading or on answering."""
    with pytest.raises(InputError) as e:
        load(path).run({"x": X})
    for word in words:
        assert word in str(e.value), (word, str(e.value))
    assert "\n\n" not in str(e.value)


def written(pair: tuple[Path, Path], folder: Path, gate: Gate = GATE) -> Path:
    parts = [(pair[0], ONNXRUNTIME, gate), (pair[1], ONNXRUNTIME, None)]
    return write_deployment(parts, ["y"], folder, {"justenough.plan": "p"})


# What is written is read again


def test_two_stages_answer_and_say_what_was_deferred(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    path = written(pair, tmp_path / "out")
    found = load(path)
    assert isinstance(found, Deployment)
    got = found.run({"x": X})
    assert got["deferred"].tolist() == [True, False, True, False]
    np.testing.assert_array_equal(got["y"], np.where(got["deferred"][:, None], X, X.round()))
    assert (found.name, found.input_names, found.output_names) == ("cascade.toml", ("x",), ("y",))
    assert [p.name for p in found.files] == ["cascade.toml", "stage-1.onnx", "stage-2.onnx"]
    assert found.stages[0].gate == GATE and found.stages[1].gate is None
    assert found.table["justenough.plan"] == "p"
    assert [s["file"] for s in found.described()] == ["stage-1.onnx", "stage-2.onnx"]
    assert {s["runtime"]["name"] for s in found.described()} == {"onnxruntime"}
    assert deployed_bytes(path) == sum(p.stat().st_size for p in path.parent.iterdir())


def test_one_stage_alone_defers_nothing(pair: tuple[Path, Path], tmp_path: Path) -> None:
    path = write_deployment([(pair[0], ONNXRUNTIME, None)], ["y"], tmp_path / "out", {})
    got = load(path).run({"x": X})
    np.testing.assert_array_equal(got["y"], X.round())
    assert not got["deferred"].any()


def test_a_file_used_twice_is_stored_once(pair: tuple[Path, Path], tmp_path: Path) -> None:
    parts = [(pair[0], ONNXRUNTIME, GATE), (pair[0], ONNXRUNTIME, None)]
    path = write_deployment(parts, ["y"], tmp_path / "out", {})
    assert {p.name for p in path.parent.iterdir()} == {"cascade.toml", "stage-1.onnx"}
    np.testing.assert_array_equal(load(path).run({"x": X})["y"], X.round())


def test_an_output_may_be_called_deferred(tmp_path: Path) -> None:
    face = "(float[N,2] x) => (float[N,2] deferred)"
    fast = model(tmp_path / "fast.onnx", "deferred = Round(x)", face)
    exact = model(tmp_path / "exact.onnx", "deferred = Identity(x)", face)
    parts = [(fast, ONNXRUNTIME, Gate("deferred", threshold=0.5)), (exact, ONNXRUNTIME, None)]
    got = load(write_deployment(parts, ["deferred"], tmp_path / "out", {})).run({"x": X})
    assert set(got) == {"deferred", "deferred_"}
    assert got["deferred"].dtype == np.float32 and got["deferred_"].dtype == bool


def test_a_reference_of_any_name_is_copied_as_a_model(tmp_path: Path) -> None:
    fast = model(tmp_path / "fast.onnx", "y = Round(x)")
    exact = model(tmp_path / "my.model", "y = Identity(x)")
    assert load(written((fast, exact), tmp_path / "out")).run({"x": X})["y"].shape == X.shape


def heavy(path: Path, location: str, seed: int = 0) -> Path:
    w = np.random.default_rng(seed).normal(size=(2, 700)).astype(np.float32)
    model(path, "a = MatMul(x, w) y = MatMul(a, v)", weights={"w": w, "v": w.T.copy()})
    onnx.save(onnx.load(path), path, save_as_external_data=True, location=location)
    return path


@pytest.mark.parametrize("location", ["exact.onnx.data", "exact.onnx_data", "weights.bin"])
def test_weights_apart_are_copied_and_counted(tmp_path: Path, location: str) -> None:
    fast = model(tmp_path / "fast.onnx", "y = Round(x)")
    exact = heavy(tmp_path / "exact.onnx", location)
    assert weights_beside(exact) == (tmp_path / location,)
    path = written((fast, exact), tmp_path / "out")
    moved = path.parent.rename(tmp_path / "moved") / "cascade.toml"
    found = load(moved)
    assert isinstance(found, Deployment)
    assert [p.name for p in found.files][1:] == [
        "stage-1.onnx", "stage-2.onnx", "stage-2.onnx.data",
    ]  # fmt: skip
    got = found.run({"x": X})
    want = OnnxModel(exact).run({"x": X})["y"]
    np.testing.assert_array_equal(got["y"][got["deferred"]], want[got["deferred"]])


def test_a_write_that_was_killed_is_written_again_to_the_byte(tmp_path: Path) -> None:
    fast = model(tmp_path / "fast.onnx", "y = Round(x)")
    exact = heavy(tmp_path / "exact.onnx", "exact.data")
    first = load(written((fast, exact), tmp_path / "out")).sha256
    (tmp_path / "out" / "cascade.toml").unlink()
    (tmp_path / "out" / "stage-2.onnx").unlink()
    assert load(written((fast, exact), tmp_path / "out")).sha256 == first


@pytest.mark.parametrize("location", ["m.onnx_data", "apart/w.bin"])
def test_a_job_brings_every_file_of_a_model(tmp_path: Path, location: str) -> None:
    (tmp_path / "apart").mkdir()
    path = heavy(tmp_path / "m.onnx", location)
    files = files_of(path)
    assert set(files) == {"m.onnx", location}
    want = OnnxModel(path).run({"x": X})
    path.unlink()
    got = answer(files, "m.onnx", ONNXRUNTIME, {"x": X}, 1, 2, 1)
    np.testing.assert_array_equal(got["y"], want["y"])


@pytest.mark.parametrize("name", ["../escape", "/tmp/escape", "a/../../escape"])
def test_a_job_writes_only_into_its_own_folder(name: str) -> None:
    with pytest.raises(InputError, match="outside its own folder"):
        answer({name: b"", "m.onnx": b""}, "m.onnx", ONNXRUNTIME, {"x": X}, 1, 2, 1)


def test_the_digest_changes_with_any_byte_of_any_file(tmp_path: Path) -> None:
    fast = model(tmp_path / "fast.onnx", "y = Round(x)")
    path = written((fast, heavy(tmp_path / "exact.onnx", "exact.data")), tmp_path / "out")
    first = Deployment(path)
    seen = {first.sha256}
    assert len(first.files) == 4
    for file in first.files:
        before = file.read_bytes()
        for at in (len(before) // 2, len(before) - 1):
            changed = bytearray(before)
            changed[at] ^= 0x20 if file.suffix == ".toml" else 1
            file.write_bytes(bytes(changed))
            try:
                seen.add(load(path).sha256)
            except InputError:  # no longer readable: no digest at all
                seen.add(f"{file.name} at {at}")
            file.write_bytes(before)
    assert len(seen) == 1 + 2 * 4
    assert Deployment(path).sha256 == first.sha256


def test_the_digest_covers_ir_with_its_weights(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    (tmp_path / "m.xml").write_bytes(b"graph")
    (tmp_path / "m.bin").write_bytes(b"weights")
    stages = [(tmp_path / "m.xml", Runtime("openvino"), None)]
    path = write_deployment(stages, ["y"], tmp_path / "out", {})
    assert {p.name for p in path.parent.iterdir()} == {
        "cascade.toml",
        "stage-1.xml",
        "stage-1.bin",
    }
    before = Deployment(path).sha256
    assert [p.name for p in Deployment(path).files] == [
        "cascade.toml",
        "stage-1.xml",
        "stage-1.bin",
    ]
    (path.parent / "stage-1.bin").write_bytes(b"weightz")
    assert Deployment(path).sha256 != before
    (path.parent / "stage-1.bin").unlink()
    refused(path, "stage-1.xml needs the weights file beside it")


# What a file may say wrongly


def test_a_sound_file_is_read(told: Told) -> None:
    got = load(told(with_gate('output = "y", threshold = 0.5'))).run({"x": X})
    assert got["deferred"].tolist() == [True, False, True, False]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "is no deployment"),
        ("format = 3\n" + LAST, "is no deployment"),
        ('format = "justenough cascade 2"\noutputs = ["y"]\n' + LAST, "is no deployment"),
        (HEAD, "is no deployment"),
        (HEAD + "stage = []", "is no deployment"),
        (HEAD + "stage = 3", "is no deployment"),
        (HEAD + "stage = [3]", "stage 1 is not a table"),
        ('format = "justenough cascade 1"\n' + LAST, "gives outputs as None"),
        (HEAD.replace('["y"]', "[]") + LAST, "gives outputs as []"),
        (HEAD.replace('["y"]', "[1]") + LAST, "gives outputs as [1]"),
        (HEAD.replace('["y"]', '"y"') + LAST, "gives outputs as 'y'"),
        (HEAD.replace('["y"]', '["z"]') + LAST, "exact.onnx has no output 'z'; it has: y"),
        (HEAD + '[[stage]]\nruntime = "onnxruntime"', "stage 1 needs a file and a runtime"),
        (HEAD + '[[stage]]\nfile = "exact.onnx"', "stage 1 needs a file and a runtime"),
        (HEAD + LAST.replace('"exact.onnx"', "3"), "stage 1 needs a file and a runtime"),
        (HEAD + LAST.replace('"onnxruntime"', "true"), "stage 1 needs a file and a runtime"),
        (HEAD + LAST.replace("exact", "gone"), "which is not a file beside it"),
        (HEAD + LAST.replace('"onnxruntime"', '"cuda"'), "'cuda' is no runtime"),
        (HEAD + LAST.replace('"onnxruntime"', '""'), "'' is no runtime"),
        (HEAD + LAST.replace('"onnxruntime"', '"onnxruntime fp8"'), "is no runtime"),
        (HEAD + LAST.replace('"onnxruntime"', '"onnxruntime bf16"'), "not in bf16"),
        (HEAD + LAST.replace('"onnxruntime"', '"onnxruntime vulkan"'), "no provider for 'vulkan'"),
        (HEAD + GATED.format(gate='{ output = "y" }'), "every stage but the last has a gate"),
        (HEAD + LAST + LAST, "every stage but the last has a gate"),
        (HEAD + LAST + 'gate = { output = "y" }', "every stage but the last has a gate"),
        ("a = ", "is not TOML"),
        ("a = " + "[" * 50_000, "is not TOML"),
        ("a = " + "9" * 5_000, "is not TOML"),
        ("\udcff\udcfe = 1", "is not TOML"),
        ("\x00", "is not TOML"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_one_sentence(told: Told, text: str, word: str) -> None:
    refused(told(text), "cascade.toml" if "stage" in word or "TOML" in word else "", word)


@pytest.mark.parametrize(
    ("inner", "word"),
    [
        ('kind = "top_k"', "it takes: axis, column, cut, k, kind, output, threshold"),
        ('output = 3', "it takes"),
        ('output = "y", depth = 3', "it takes"),
        ('output = "y", kind = "margin"', "of kind 'margin'; known: top_k, cut"),
        ('output = "y", kind = 3', "of kind 3"),
        ('output = "y", kind = []', "of kind []"),
        ('output = "y", threshold = nan', "finite"),
        ('output = "y", threshold = inf', "finite"),
        ('output = "y", threshold = -inf', "finite"),
        ('output = "y", threshold = 1e39', "finite"),
        ('output = "y", threshold = 1' + 400 * "0", "finite"),
        ('output = "y", threshold = true', "finite"),
        ('output = "y", threshold = "1"', "finite"),
        ('output = "y", cut = nan, kind = "cut"', "finite"),
        ('output = "y", k = true', "whole"),
        ('output = "y", k = 1.0', "whole"),
        ('output = "y", k = 0', "whole number from 1"),
        ('output = "y", k = -1', "whole number from 1"),
        ('output = "y", k = 99999999999999999999', "whole"),
        ('output = "y", axis = 1.5', "whole"),
        ('output = "y", axis = 99999999999999999999', "whole"),
        ('output = "y", axis = 7', "a gate that does not fit its stage's output"),
        ('output = "y", kind = "cut", column = 9', "a gate that does not fit its stage's output"),
        ('output = "y", kind = "cut", column = 0.0', "whole"),
        ('output = "z"', "gave no output 'z'"),
    ],
)  # fmt: skip
def test_a_wrong_gate_is_one_sentence(told: Told, inner: str, word: str) -> None:
    refused(told(with_gate(inner)), word)


@pytest.mark.parametrize("gate", ['"y"', "3", "true", "[]"])
def test_a_gate_is_a_table(told: Told, gate: str) -> None:
    refused(told(HEAD + GATED.format(gate=gate) + LAST), "it takes")


def test_all_classes_as_k_leave_nothing_unsure(told: Told) -> None:
    got = load(told(with_gate('output = "y", k = 2000000000, threshold = 9'))).run({"x": X})
    assert not got["deferred"].any()


@pytest.mark.parametrize(
    "name",
    ["../exact.onnx", "sub/exact.onnx", "/etc/passwd", "..", ".", "", "./exact.onnx", "a\\u0000b"],
)
def test_no_path_leaves_the_folder(told: Told, tmp_path: Path, name: str) -> None:
    (tmp_path / "sub").mkdir()
    for place in (tmp_path.parent, tmp_path / "sub"):
        model(place / "exact.onnx", "y = Identity(x)")
    text = HEAD + LAST.replace("exact.onnx", name)
    refused(told(text), "stage 1 names", "which is not a file beside it")


def test_no_link_leaves_the_folder(told: Told, tmp_path: Path) -> None:
    elsewhere = tmp_path.parent / f"{tmp_path.name}-elsewhere"
    elsewhere.mkdir()
    model(elsewhere / "exact.onnx", "y = Identity(x)")
    (tmp_path / "link.onnx").symlink_to(elsewhere / "exact.onnx")
    refused(told(HEAD + LAST.replace("exact", "link")), "which is not a file beside it")
    (tmp_path / "m.xml").write_bytes(b"")
    (tmp_path / "m.bin").symlink_to(elsewhere / "exact.onnx")
    text = HEAD + LAST.replace("exact.onnx", "m.xml").replace("onnxruntime", "openvino")
    refused(told(text), "m.xml needs the weights file beside it")


def test_weights_outside_are_refused_whatever_the_stage_is_called(
    told: Told, tmp_path: Path
) -> None:
    evil = heavy(tmp_path / "evil.onnx", "evil.data")
    made = onnx.load(evil, load_external_data=False)
    for tensor in made.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../evil.data"
    for name in ("evil.onnx", "evil.ort", "evil", "evil.ONNX", "evil.pb"):
        (tmp_path / name).write_bytes(made.SerializeToString())
        word = "outside its own folder" if name == "evil.onnx" else "a stage is a file of the kind"
        refused(told(HEAD + LAST.replace("exact.onnx", name)), word)


def test_a_folder_or_nothing_is_no_deployment(tmp_path: Path) -> None:
    refused(tmp_path / "cascade.toml", "no deployment at")
    (tmp_path / "folder.toml").mkdir()
    refused(tmp_path / "folder.toml", "no deployment at")
    refused(tmp_path / "gone.onnx", "no model file at")


def test_a_damaged_stage_is_one_sentence(told: Told, tmp_path: Path) -> None:
    (tmp_path / "exact.onnx").write_bytes(b"\x08\x07 not a model")
    refused(told(HEAD + LAST), "exact.onnx")


@pytest.mark.slow
def test_ten_megabytes_of_entries_are_read_or_refused_in_time(told: Told) -> None:
    start = time.perf_counter()
    many = "\n".join(f"k{k} = 1" for k in range(900_000))
    refused(told(many), "is no deployment")
    path = told(f'{SEEN} = "{"A" * 10_000_000}"\n'.replace(SEEN, f'"{SEEN}"') + HEAD + LAST)
    assert load(path).run({"x": X})["y"].shape == X.shape
    assert time.perf_counter() - start < 60


# Stages that do not fit one another


@pytest.mark.parametrize(
    ("body", "face", "word"),
    [
        ("y = Round(x)", "(float[N,2] x, float[N,2] more) => (float[N,2] y)", "takes ['more']"),
        ("z = Round(x)", "(float[N,2] x) => (float[N,2] z)", "has no output 'y'; it has: z"),
        ("y = Concat<axis=1>(x, x)", "(float[N,2] x) => (float[N,4] y)", "have to be alike"),
        ("y = Cast<to=7>(x)", "(float[N,2] x) => (int64[N,2] y)", "have to be alike"),
        ("y = ReduceMax<axes=[1], keepdims=0>(x)", "(float[N,2] x) => (float[N] y)", "alike"),
        ("y = ReduceMax<axes=[1]>(x)", "(float[N,2] x) => (float[N,1] y)", "have to be alike"),
    ],
)
def test_stages_that_differ_are_refused(
    pair: tuple[Path, Path], tmp_path: Path, body: str, face: str, word: str
) -> None:
    refused(written((model(pair[0], body, face), pair[1]), tmp_path / "out"), word)


def test_the_last_stage_may_take_more(tmp_path: Path) -> None:
    fast = model(tmp_path / "fast.onnx", "y = Round(x)")
    exact = model(
        tmp_path / "exact.onnx", "y = Add(x, z)", FACE.replace(")", ", float[N,2] z)", 1)
    )
    found = load(written((fast, exact), tmp_path / "out"))
    got = found.run({"x": X, "z": 10 * X})
    np.testing.assert_array_equal(
        got["y"], np.where(got["deferred"][:, None], X + 10 * X, X.round())
    )


# Certificates of deployments


def test_certify_refuses_rows_that_the_making_saw(pair: tuple[Path, Path], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    cases = Cases({"x": rng.normal(0, 9, (60, 2)).astype(np.float32)})
    part = [(pair[0], ONNXRUNTIME, GATE), (pair[1], ONNXRUNTIME, None)]
    path = write_deployment(part, ["y"], tmp_path / "out", seen_mark([cases.take(np.arange(20))]))
    contract = Contract((Clause("decision_stability", 0.5),))
    with pytest.raises(DataReuseError, match=r"20 of 60 cases were used to make cascade\.toml"):
        certify(pair[1], path, CertificationCases(cases), contract)
    got = certify(pair[1], path, CertificationCases(cases.take(np.arange(20, 60))), contract)
    assert got.candidate["file"] == "cascade.toml"
    assert got.candidate["sha256"] == Deployment(path).sha256
    assert got.candidate["bytes"] == sum(p.stat().st_size for p in path.parent.iterdir())
    assert len(got.candidate["stages"]) == 2


@pytest.mark.parametrize("mark", ["3", '"AAAA"', "[1]", "{}", '"ÿÿ"'])
def test_a_damaged_mark_is_refused(told: Told, pair: tuple[Path, Path], mark: str) -> None:
    path = told(f'"{SEEN}" = {mark}\n' + HEAD + LAST)
    cases = CertificationCases(Cases({"x": X}))
    with pytest.raises(InputError, match="damaged"):
        certify(pair[1], path, cases, Contract((Clause("decision_stability", 0.5),)))


def test_the_mark_of_many_rows_is_read(pair: tuple[Path, Path], told: Told) -> None:
    mark = base64.b64encode(np.arange(100_000, dtype="<u8").tobytes()).decode()
    path = told(f'"{SEEN}" = "{mark}"\n' + HEAD + LAST)
    cases = CertificationCases(Cases({"x": X}))
    certify(pair[1], path, cases, Contract((Clause("decision_stability", 0.5),)))


@pytest.mark.parametrize("value", ['a"b\\c', "\x7f\x01\t\n", "é😀\u2028\x85", "]]'''"])
def test_any_name_is_written_so_that_it_is_read(
    pair: tuple[Path, Path], tmp_path: Path, value: str
) -> None:
    part = [(pair[1], ONNXRUNTIME, None)]
    path = write_deployment(part, ["y"], tmp_path / "out", {value: value})
    assert Deployment(path).table[value] == value


def test_threads_and_batch_reach_every_stage(pair: tuple[Path, Path], tmp_path: Path) -> None:
    found = load(written(pair, tmp_path / "out"), 2, 3)
    assert isinstance(found, Deployment)
    assert {(m.threads, m.batch) for m in found.models} == {(2, 3)}
    with pytest.raises(InputError, match="batch=0"):
        load(found.path, 1, 0)
    assert found.name == deployment.NAME
