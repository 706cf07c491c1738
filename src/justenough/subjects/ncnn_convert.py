"""From ONNX to ncnn with pnnx, and a check that the result answers as the ONNX file does.

pnnx tracks the batch axis by rules of thumb and says little when they fail, so a conversion is
worth something only after its answers have been compared.
"""

import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import numpy as np
import onnx
from numpy.typing import NDArray

from justenough.errors import InputError
from justenough.subjects.ncnn_files import GRAPH, MOST_AXES, Note, Port, digest
from justenough.subjects.ncnn_session import answers_apart, unknown_layers, versions
from justenough.subjects.onnx_model import NUMPY_TYPES, file_sha256, initializer_names, load_proto
from justenough.subjects.sessions import first_line, session

Array = NDArray[Any]
AGREES_DB = 40.0  # weights kept in fp16 alone cost more than half of float32's decibels
CHECKED_ROWS = 2
SECONDS = 600.0
_FLOAT = onnx.TensorProto.FLOAT
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_LOG = re.compile(r"\[[IWEF]:onnxruntime")  # pnnx folds constants with a talkative runtime
_TELLING = ("not supported", "unsupported", "unknown", "error", "fail", "terminate", "what():")


def convert(
    model_path: Path,
    out: Path,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    *,
    weights: Literal["fp32", "fp16"] = "fp32",
    timeout_s: float = SECONDS,
) -> Path:
    """Convert an ONNX file for one row at a time, and compare two rows with ONNX Runtime.

    Args:
        model_path: ONNX file, float inputs or such as are cast to float before anything else.
        out: Folder for the network; made if need be.
        input_shapes: Shapes of one row by input name, without the batch axis, where the file
            leaves sizes free.
        weights: How they are stored; fp16 halves the file and rounds them.
        timeout_s: Seconds that pnnx may take.

    Returns:
        The `.param` file in `out`; weights and note lie beside it.

    Raises:
        InputError: A shape is not known, a type or an operator is not one of ncnn's, pnnx
            fails, or the result answers otherwise than the ONNX file.
    """
    model = load_proto(model_path)
    fixed = one_row(model, input_shapes or {}, model_path.name)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        rows = _rows(fixed)
        expected = _reference(fixed, rows, scratch / "reference.onnx", model_path.name)
        kinds = {v.name: v.type.tensor_type.elem_type for v in fixed.graph.input}
        without_casts(fixed, model_path.name)
        graph = _pnnx(fixed, scratch, model_path.name, weights, timeout_s)
        trim(graph)
        _name_unknown(graph, model_path.name)
        note = Note(
            tuple(
                Port(n, f"in{k}", _type_name(kinds[n]), rows[n].shape[1:])
                for k, n in enumerate(rows)
            ),
            tuple(
                Port(n, f"out{k}", "tensor(float)", v.shape[1:])
                for k, (n, v) in enumerate(expected.items())
            ),
            digest(graph),
            digest(graph.with_suffix(".bin")),
            file_sha256(model_path),
            weights,
            f"pnnx {versions()['pnnx']}",
        )
        graph.with_suffix(".json").write_text(note.text())
        _compare(answers_apart(graph, rows, timeout_s=timeout_s), expected, model_path.name)
        return _publish(graph, out)


def one_row(
    model: onnx.ModelProto, shapes: Mapping[str, Sequence[int]], name: str
) -> onnx.ModelProto:
    """A copy of `model` whose every input has batch 1 and a known shape.

    Raises:
        InputError: A size is free and `shapes` does not give it, or gives another than the
            file; an input without a batch axis, or with more axes than ncnn holds.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    stored = initializer_names(copy.graph)
    fed = [i for i in copy.graph.input if i.name not in stored]
    del copy.graph.input[:]
    copy.graph.input.extend(fed)
    del copy.graph.value_info[:]  # they speak of other batches
    for o in copy.graph.output:
        o.type.tensor_type.ClearField("shape")
    unknown = sorted(set(shapes) - {i.name for i in fed})
    if unknown:
        raise InputError(f"{name} has no input {unknown[0]!r}; it has: {_listed(fed)}")
    for i in copy.graph.input:
        dims = i.type.tensor_type.shape.dim
        row = _row_shape(i, shapes.get(i.name), name)
        for d, size in zip(dims, (1, *row), strict=True):
            d.dim_value = size
    return copy


def _listed(inputs: Sequence[onnx.ValueInfoProto]) -> str:
    return ", ".join(i.name for i in inputs)


def _row_shape(i: onnx.ValueInfoProto, given: Sequence[int] | None, name: str) -> tuple[int, ...]:
    held = [d.dim_value if d.HasField("dim_value") else None for d in i.type.tensor_type.shape.dim]
    if not 1 <= len(held) <= 1 + MOST_AXES:
        raise InputError(
            f"input {i.name!r} of {name} has {len(held)} axes; ncnn takes 1 to {1 + MOST_AXES}, "
            "the batch among them"
        )
    row = held[1:] if given is None else list(given)
    fits = len(row) == len(held) - 1 and all(
        h in (None, r) for h, r in zip(held[1:], row, strict=False)
    )
    if not fits or not all(isinstance(r, int) and r > 0 for r in row):
        shape = ["any" if h is None else h for h in held[1:]]
        raise InputError(
            f"a row of input {i.name!r} of {name} has shape {shape}, given {given}; ncnn needs "
            "each size fixed: pass them in input_shapes"
        )
    return tuple(r for r in row if r is not None)


def without_casts(model: onnx.ModelProto, name: str) -> None:
    """Take away casts of inputs to float32, in place: the session casts rows instead.

    Raises:
        InputError: An input is not float32 and something other than such a cast reads it.
    """
    for i in model.graph.input:
        if i.type.tensor_type.elem_type == _FLOAT:
            continue
        readers = [n for n in model.graph.node if i.name in n.input]
        casts = [n for n in readers if n.op_type == "Cast" and _to(n) == _FLOAT]
        if len(casts) < len(readers) or not readers:
            kind = _type_name(i.type.tensor_type.elem_type)
            raise InputError(
                f"input {i.name!r} of {name} is {kind} and is read by "
                f"{', '.join(sorted({n.op_type for n in readers if n not in casts})) or 'nothing'}"
                "; ncnn takes float32, and others only where a Cast to it comes first"
            )
        made = {n.output[0] for n in casts}
        for n in casts:
            model.graph.node.remove(n)
        for n in model.graph.node:
            for k, read in enumerate(n.input):
                n.input[k] = i.name if read in made else read
        i.type.tensor_type.elem_type = _FLOAT


def _to(cast: onnx.NodeProto) -> int:
    return next(int(a.i) for a in cast.attribute if a.name == "to")


def _type_name(kind: int) -> str:
    want = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind))
    return next((k for k, v in NUMPY_TYPES.items() if np.dtype(v) == want), f"tensor({want})")


def _rows(model: onnx.ModelProto) -> dict[str, Array]:
    """Two rows of random pixels: [0, 1) for floats, 0 to 255 where the type has room."""
    rng = np.random.default_rng(0)
    out = {}
    for i in model.graph.input:
        kind = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(i.type.tensor_type.elem_type))
        sizes = [d.dim_value for d in i.type.tensor_type.shape.dim]
        value = rng.random((CHECKED_ROWS, *sizes[1:]))
        if kind.kind in "iu":
            value *= min(np.iinfo(kind).max, 255)
        out[i.name] = np.round(value).astype(kind) if kind.kind == "b" else value.astype(kind)
    return out


def _reference(
    model: onnx.ModelProto, rows: Mapping[str, Array], path: Path, name: str
) -> dict[str, Array]:
    """What ONNX Runtime answers to each row."""
    try:
        onnx.save(model, str(path))
    except ValueError as e:  # protobuf's limit of 2 GiB, which pnnx could not read either
        raise InputError(f"{name} is larger than 2 GiB; pnnx reads smaller ones") from e
    live = session(path)
    try:
        parts = [
            live.run(None, {k: v[i : i + 1] for k, v in rows.items()}) for i in range(CHECKED_ROWS)
        ]
    except Exception as e:  # ONNX Runtime raises a type of its own for every failure kind
        raise InputError(f"{name} fails on one row at a time: {first_line(e)}") from e
    out = {}
    for k, o in enumerate(model.graph.output):
        values = [p[k] for p in parts]
        if any(v.dtype != np.float32 or v.shape[:1] != (1,) for v in values):
            raise InputError(
                f"output {o.name!r} of {name} is {values[0].dtype} {values[0].shape} for one row; "
                "ncnn answers float32 with a row per case: export the model without it"
            )
        out[o.name] = np.concatenate(values)
    return out


def _pnnx(model: onnx.ModelProto, folder: Path, name: str, weights: str, timeout_s: float) -> Path:
    """Run the converter on `model` in `folder`; the `.param` file."""
    program = _program()
    onnx.save(model, str(folder / "model.onnx"))
    shapes = ",".join(
        f"[{','.join(str(d.dim_value) for d in i.type.tensor_type.shape.dim)}]f32"
        for i in model.graph.input
    )
    words = ["model.onnx", f"inputshape={shapes}", f"fp16={int(weights == 'fp16')}"]
    try:
        ended = subprocess.run(
            [str(program), *words], cwd=folder, capture_output=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired as e:
        raise InputError(f"pnnx took more than {timeout_s:g} s on {name}") from e
    except OSError as e:
        raise InputError(f"pnnx cannot be started ({e.strerror}); install pnnx again") from e
    graph = folder / GRAPH
    if ended.returncode != 0 or not graph.is_file() or not graph.with_suffix(".bin").is_file():
        said = (ended.stderr + b"\n" + ended.stdout).decode(errors="replace")
        raise InputError(f"pnnx cannot convert {name}: {_why(ended.returncode, said)}")
    return graph


def _program() -> Path:
    """The converter itself, not the console script that starts it: it must end when told to."""
    spec = find_spec("pnnx")
    if spec is None or spec.origin is None:
        raise InputError("pnnx is not installed; install justenough[vulkan] to convert for ncnn")
    return Path(spec.origin).with_name("pnnx.exe" if os.name == "nt" else "pnnx")


def _why(code: int, said: str) -> str:
    plain = (_COLOUR.sub("", x).strip() for x in said.splitlines())
    lines = [x for x in plain if x and not _LOG.search(x)]
    telling = [x for x in lines if any(t in x.lower() for t in _TELLING)]
    end = f"it crashed ({signal.Signals(-code).name})" if code < 0 else f"exit code {code}"
    return f"{end}; {telling[0][:200]}" if telling else end


def trim(graph: Path) -> None:
    """Take away the last reshapes of a `.param` file, in place.

    A row's shape is in the note and a reshape moves no value; pnnx writes some that ncnn
    cannot run, such as that of (n, 1) to (n,), where nothing is left of a row.
    """
    magic, _, *lines = graph.read_text().splitlines()
    layers = [x.split() for x in lines if x.strip()]
    while last := _last_reshape(layers):
        layers.remove(last)
        for words in layers:
            end = 4 + int(words[2]) + int(words[3])
            words[4:end] = [last[5] if w == last[4] else w for w in words[4:end]]
    blobs = sum(int(words[3]) for words in layers)
    text = [magic, f"{len(layers)} {blobs}", *(" ".join(words) for words in layers), ""]
    graph.write_text("\n".join(text))


def _last_reshape(layers: Sequence[list[str]]) -> list[str] | None:
    """A reshape whose answer no layer reads, if it does not reshape an input."""
    read = {blob for w in layers for blob in w[4 : 4 + int(w[2])]}
    fed = {w[4] for w in layers if w[0] == "Input"}
    return next(
        (
            w
            for w in layers
            if w[0] == "Reshape" and w[2:4] == ["1", "1"] and w[5] not in read and w[4] not in fed
        ),
        None,
    )


def _name_unknown(graph: Path, name: str) -> None:
    kinds = [x.split()[0] for x in graph.read_text().splitlines()[2:] if x.strip()]
    left = unknown_layers(kinds)
    if left:
        raise InputError(f"ncnn has no layer for {', '.join(left)} of {name}; keep it in ONNX")


def _compare(got: Mapping[str, Array], expected: Mapping[str, Array], name: str) -> None:
    for key, want in expected.items():
        finite = np.isfinite(want)
        same = np.array_equal(finite, np.isfinite(got[key]))
        noise = np.sum(np.square(np.where(finite, got[key] - want, 0), dtype=float))
        power = np.sum(np.square(np.where(finite, want, 0), dtype=float))
        if not same or noise > power * 10 ** (-AGREES_DB / 10):
            snr = 10 * np.log10(power / noise) if same and power else -np.inf
            raise InputError(
                f"pnnx converts {name} into something else: output {key!r} has {snr:.1f} dB of "
                f"signal to noise beside ONNX Runtime, less than {AGREES_DB:g}; keep it in ONNX"
            )


def _publish(graph: Path, out: Path) -> Path:
    """Move the three files into `out`, the note last: without it there is no network."""
    out.mkdir(parents=True, exist_ok=True)
    for suffix in (".param", ".bin", ".json"):
        target = (out / GRAPH).with_suffix(suffix)
        part = target.with_name(f"{target.name}.{uuid4().hex}.part")
        try:
            part.write_bytes(graph.with_suffix(suffix).read_bytes())
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    return out / GRAPH
