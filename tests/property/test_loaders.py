"""Whatever the bytes are, the loaders give what they hold or raise InputError, nothing else."""

import io
import json
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays, scalar_dtypes
from onnx import TensorProto, helper, numpy_helper

from justenough.core.cases import Cases, load_cases, split
from justenough.core.certificate import contract_in, read_certificate
from justenough.core.contract import METRICS, Clause, load_contract, parse_clause
from justenough.errors import InputError
from justenough.subjects.images import load_images
from justenough.subjects.onnx_model import OnnxModel, load_proto
from justenough.subjects.prepare import prepare

calm = settings(max_examples=150, deadline=5000, suppress_health_check=[HealthCheck.too_slow])


def model_bytes() -> bytes:
    """A small valid model that has a bit of everything: an If, a constant, two inputs."""
    branch = helper.make_graph(
        [helper.make_node("Identity", ["h"], ["t"])],
        "then",
        [],
        [helper.make_tensor_value_info("t", TensorProto.FLOAT, None)],
    )
    w = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node(
                "Constant", [], ["yes"], value=numpy_helper.from_array(np.array(True))
            ),
            helper.make_node("Gemm", ["x", "w"], ["g"], "fc", alpha=1.5),
            helper.make_node("Add", ["g", "z"], ["h"]),
            helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch),
        ],
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4]),
            helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", 3]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(w, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"author": "nobody"})
    return bytes(model.SerializeToString())


def npz_bytes(compressed: bool) -> bytes:
    buffer = io.BytesIO()
    save: Any = np.savez_compressed if compressed else np.savez
    rng = np.random.default_rng(0)
    save(
        buffer,
        x=rng.normal(size=(20, 3)),
        labels=rng.integers(0, 2, 20),
        groups=np.array([f"p{k}" for k in range(20)]),
    )
    return buffer.getvalue()


def npy_bytes() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.arange(12.0).reshape(4, 3))
    return buffer.getvalue()


MODEL, NPY = model_bytes(), npy_bytes()
NPZ = [npz_bytes(False), npz_bytes(True)]


@st.composite
def damaged(draw: st.DrawFn, whole: Sequence[bytes]) -> bytes:
    """A valid file with some bytes changed, taken out or put in, or cut short."""
    data = bytearray(draw(st.sampled_from(whole)))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        kind = draw(st.sampled_from(["change", "remove", "insert", "repeat"]))
        if kind == "change" and data:
            data[at] = draw(st.integers(0, 255))
        elif kind == "remove":
            del data[at : at + draw(st.integers(1, 40))]
        elif kind == "insert":
            data[at:at] = draw(st.binary(max_size=20))
        else:
            data[at:at] = data[at : at + 30]
    if draw(st.booleans()):
        del data[draw(st.integers(0, len(data))) :]
    return bytes(data)


def opened(data: bytes, name: str, load: Callable[[Path], object]) -> object:
    """What `load` gives for a file of these bytes; None when it refuses them as it should."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        with suppress(InputError):
            return load(path)
    return None


def as_model(path: Path) -> onnx.ModelProto:
    """Load it, make the session, and prepare it, as every verb does."""
    model = load_proto(path)
    subject = OnnxModel(path)
    assert subject.sha256 and subject.input_names and subject.output_names
    return prepare(model)


@calm
@given(damaged([MODEL]))
@example(MODEL)
@example(b"")
def test_models(data: bytes) -> None:
    opened(data, "m.onnx", as_model)


def test_the_undamaged_files_load() -> None:
    assert isinstance(opened(MODEL, "m.onnx", as_model), onnx.ModelProto)
    for data in NPZ:
        assert isinstance(opened(data, "c.npz", lambda p: load_cases(p, ["x"])), Cases)
    assert isinstance(opened(NPY, "c.npy", lambda p: load_cases(p, ["x"])), Cases)


def as_cases(path: Path) -> Cases:
    """Load and split, as `compress` does: the keys must be usable too."""
    cases = load_cases(path, ["x"])
    assert cases.n > 0
    assert len(cases.fingerprint) == 64
    with suppress(InputError):
        split(cases)
    return cases


@calm
@given(damaged(NPZ))
def test_cases_in_a_damaged_archive(data: bytes) -> None:
    opened(data, "c.npz", as_cases)


@calm
@given(damaged([NPY]))
def test_cases_in_a_damaged_array(data: bytes) -> None:
    opened(data, "c.npy", as_cases)


@calm
@given(st.binary(max_size=300), st.sampled_from(["c.npy", "c.npz", "c.txt", "c"]))
def test_cases_in_any_bytes(data: bytes, name: str) -> None:
    opened(data, name, as_cases)


def test_sizes_that_a_header_only_claims() -> None:
    """A few bytes may not make the program take the machine's memory."""
    for shape in ("(100000000000, 1000)", "(4000000000,)", "(99999999999999999999,)", "(-3,)"):
        header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117)
        data = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + header.encode() + b"\n"
        assert opened(data + bytes(64), "c.npy", as_cases) is None
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as z:
            z.writestr("x.npy", data + bytes(64))
        assert opened(buffer.getvalue(), "c.npz", as_cases) is None


any_array = arrays(
    dtype=scalar_dtypes(), shape=array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
)


@calm
@given(st.dictionaries(st.sampled_from(["x", "y", "labels", "groups"]), any_array, max_size=3))
def test_cases_of_any_arrays(held: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    save: Any = np.savez
    save(buffer, **held)
    opened(buffer.getvalue(), "c.npz", as_cases)


@calm
@given(st.dictionaries(st.text("ax./\\é", max_size=8), st.binary(max_size=40), max_size=2))
def test_cases_in_any_archive(members: dict[str, bytes]) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as z:
        for k, (name, data) in enumerate(members.items()):
            with suppress(UnicodeEncodeError):
                z.writestr(zipfile.ZipInfo(name + f".{k}" * k), data)
    opened(buffer.getvalue(), "c.npz", as_cases)


words = st.one_of(
    st.sampled_from(
        [*METRICS, "k", "eps", "per", "any", "mean", "cut", "column", "axis", "output"]
    ),
    st.sampled_from(["(", ")", ",", "=", ">=", "<=", ":", " ", "1e999", "nan", "-1", "0.9", "5"]),
    st.text(max_size=6),
)


@settings(max_examples=400)
@given(st.one_of(st.text(), st.lists(words, max_size=12).map("".join)))
def test_clauses_of_any_text(text: str) -> None:
    with suppress(InputError):
        clause = parse_clause(text)
        assert isinstance(clause, Clause)
        assert parse_clause(clause.text) == clause


@calm
@given(
    st.sampled_from(sorted(METRICS)),
    st.floats(0, 1),
    st.floats(1e-300, 1e300),
    st.integers(1, 10**6),
)
def test_a_clause_reads_back(metric: str, bound: float, eps: float, k: int) -> None:
    kind = METRICS[metric]
    inside = {"k": f"({k})", "eps": f"({eps!r} mm)", None: ""}[kind.argument]
    clause = parse_clause(f"{metric}{inside} {'>=' if kind.at_least else '<='} {bound!r}")
    assert parse_clause(clause.text) == clause
    assert clause.bound == bound


KEYS = st.sampled_from(["metric", "at_least", "at_most", "output", "per", "k", "eps", "cut", "x"])
toml_values = st.one_of(
    st.text("abc:._<>\\ ", max_size=8).map(lambda t: f"'{t}'"),
    st.sampled_from([f"'{m}'" for m in METRICS]),
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(["true", "[]", "{}", "[1]", "1979-05-27", "'any'", "9" * 400, "9" * 5000]),
)
clause_tables = st.dictionaries(KEYS, toml_values, max_size=4).map(
    lambda table: "[[keep]]\n" + "\n".join(f"{k} = {v}" for k, v in table.items())
)
heads = st.dictionaries(st.sampled_from(["alpha", "population", "keep", "x"]), toml_values)


@calm
@given(heads, st.lists(clause_tables, max_size=2))
def test_contracts_of_any_tables(head: dict[str, str], tables: list[str]) -> None:
    text = "\n".join([*(f"{k} = {v}" for k, v in head.items()), *tables])
    opened(text.encode(), "c.toml", load_contract)


@calm
@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(lambda t: t.encode("utf-8"))))
def test_contracts_of_any_bytes(data: bytes) -> None:
    opened(data, "c.toml", load_contract)


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
CERTIFICATE = {
    "format": "justenough certificate 1",
    "verdict": "HELD",
    "alpha": 0.05,
    "clauses": [{"clause": "snr_db >= 3"}],
    "reference": {},
    "candidate": {},
    "cases": {},
    "runtime": {},
}


@calm
@given(st.dictionaries(st.sampled_from(sorted(CERTIFICATE)), json_values, max_size=3))
def test_certificates_of_any_values(changed: dict[str, object]) -> None:
    body = json.dumps({**CERTIFICATE, **changed}).encode()
    opened(body, "c.json", lambda p: contract_in(read_certificate(p)))


@calm
@given(st.binary(max_size=200))
def test_certificates_of_any_bytes(data: bytes) -> None:
    opened(data, "c.json", read_certificate)


def png() -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.arange(300, dtype=np.uint8).reshape(10, 10, 3) % 255).save(buffer, "png")
    return buffer.getvalue()


@settings(calm, max_examples=60)
@given(damaged([png()]), st.sampled_from(["a.png", "a.gif", "a.tiff", "a.jpg"]))
def test_images(data: bytes, name: str) -> None:
    def load(path: Path) -> Cases:
        return load_images(path.parent.parent, "x", "4x4")

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "cat").mkdir()
        (Path(folder) / "cat" / name).write_bytes(data)
        with suppress(InputError):
            load(Path(folder) / "cat" / name)
