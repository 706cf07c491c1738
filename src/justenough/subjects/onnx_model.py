"""ONNX models as subjects: loading without trust, sites, shapes, running in ONNX Runtime."""

import collections
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from justenough.core.cases import Cases
from justenough.core.rows import Column, converted
from justenough.core.subject import ONNXRUNTIME, Runtime, Site
from justenough.errors import InputError
from justenough.subjects.ncnn_files import files_of, ncnn_sha256
from justenough.subjects.sessions import Session, first_line, open_session

Array = NDArray[Any]
SITE_OPS = ("Conv", "MatMul", "Gemm")
OLDEST_OPSET = 13
MOST_THREADS = 1024


def load_proto(path: Path | str) -> onnx.ModelProto:
    """Read an untrusted ONNX file with its weights, refusing whatever leaves its folder.

    Raises:
        InputError: Missing, unreadable, truncated or not ONNX; external data outside the
            model's folder; an operator set before 13; a graph that is not valid ONNX.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no model file at {str(path)!r}; give an .onnx file")
    try:
        model = onnx.load(str(path), format="protobuf", load_external_data=False)
    except (DecodeError, OSError, ValueError) as e:
        raise InputError(
            f"{path.name} is not an ONNX file or is cut short ({type(e).__name__}); "
            "export the model again"
        ) from e
    if not model.graph.node or not model.graph.output:
        raise InputError(f"{path.name} holds no graph; it is empty, cut short or not ONNX")
    _load_weights(model, path)
    opset = opset_of(model)
    if opset < OLDEST_OPSET:
        raise InputError(
            f"{path.name} uses ONNX opset {opset}; opset {OLDEST_OPSET} or later is needed "
            "(onnx.version_converter.convert_version can raise it)"
        )
    if opset > onnx.defs.onnx_opset_version():
        raise InputError(
            f"{path.name} uses ONNX opset {opset}; onnx {onnx.__version__} knows up to "
            f"{onnx.defs.onnx_opset_version()}: export with an earlier one or install a newer onnx"
        )
    try:
        onnx.checker.check_model(model if model.ByteSize() < 2**31 - 1 else str(path))
    except (onnx.checker.ValidationError, ValueError) as e:
        raise InputError(f"{path.name} is not valid ONNX: {first_line(e)}") from e
    return model


def opset_of(model: onnx.ModelProto) -> int:
    """Version of the default operator set that `model` imports; 0 when it imports none."""
    return max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)


def _tensors(part: onnx.ModelProto | onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every tensor stored anywhere in a model or a graph."""
    if isinstance(part, onnx.ModelProto):
        yield from _tensors(part.graph)
        nodes = [n for f in part.functions for n in f.node]
    else:
        yield from part.initializer
        yield from _parts_of(part.sparse_initializer)
        nodes = list(part.node)
    for a in (a for n in nodes for a in n.attribute):
        yield from (*((a.t,) if a.HasField("t") else ()), *a.tensors)
        sparse = (a.sparse_tensor,) if a.HasField("sparse_tensor") else ()
        yield from _parts_of((*sparse, *a.sparse_tensors))
        for g in (*((a.g,) if a.HasField("g") else ()), *a.graphs):
            yield from _tensors(g)


def _parts_of(sparse: Iterable[onnx.SparseTensorProto]) -> Iterator[onnx.TensorProto]:
    for s in sparse:
        yield from (s.values, s.indices)


def _load_weights(model: onnx.ModelProto, path: Path) -> None:
    for tensor in _tensors(model):
        if not uses_external_data(tensor):
            continue
        try:
            _load_external(tensor, path)
        except InputError:
            raise
        except (OSError, ValueError, onnx.checker.ValidationError) as e:
            where = {x.key: x.value for x in tensor.external_data}
            raise InputError(
                f"{path.name} keeps weights at {where}, which cannot be read: {first_line(e)}"
            ) from e


def _load_external(tensor: onnx.TensorProto, path: Path) -> None:
    folder = path.parent.resolve()
    info = ExternalDataInfo(tensor)
    where = PurePosixPath(info.location)
    target = (folder / where).resolve()
    if where.is_absolute() or ".." in where.parts or folder not in target.parents:
        raise InputError(
            f"{path.name} keeps weights at {info.location!r}, outside its own folder; "
            "move them beside the model"
        )
    if not target.is_file():
        raise InputError(f"{path.name} needs the weights file {info.location!r} beside it")
    onnx.external_data_helper.load_external_data_for_tensor(tensor, str(folder))
    del tensor.external_data[:]
    tensor.data_location = onnx.TensorProto.DEFAULT


def weights_beside(path: Path) -> tuple[Path, ...]:
    """Files beside a model file that it cannot run without, in name order.

    An ONNX file names them itself: exporters write `model.onnx.data`, `model.onnx_data` and
    names of their own.
    """
    if path.suffix == ".param":
        return files_of(path)[1:]
    if path.suffix == ".xml":
        bare = path.with_suffix(".bin")
        return (bare,) if bare.is_file() else ()
    model = onnx.load(str(path), format="protobuf", load_external_data=False)
    names = {ExternalDataInfo(t).location for t in _tensors(model) if uses_external_data(t)}
    return tuple(path.parent / n for n in sorted(names))


def file_sha256(path: Path) -> str:
    """SHA-256 of a model file and of the weights beside it, in name order."""
    if path.suffix == ".param":
        return ncnn_sha256(path)
    h = hashlib.sha256(path.read_bytes())
    for file in weights_beside(path):
        with file.open("rb") as f:
            while block := f.read(1 << 20):
                h.update(block)
    return h.hexdigest()


def file_bytes(path: Path) -> int:
    """Bytes of a model file with the weights beside it."""
    return sum(p.stat().st_size for p in (path, *weights_beside(path)))


@dataclass(frozen=True)
class OnnxModel:
    """A model file in a runtime; each input and output has a row per case.

    Attributes:
        path: The file, read once and never written.
        threads: Threads that one session uses.
        batch: Rows of one call; a model with a fixed batch overrides it.
        runtime: What runs it.
        at_once: Calls side by side; 0 for as many as there are cores for.
    """

    path: Path
    threads: int = 1
    batch: int = 32
    runtime: Runtime = ONNXRUNTIME
    at_once: int = 0

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise InputError(f"batch={self.batch} must be 1 or more")
        if not 1 <= self.threads <= MOST_THREADS:
            raise InputError(f"threads={self.threads} is outside 1 to {MOST_THREADS}")

    @property
    def name(self) -> str:
        """File name."""
        return self.path.name

    @cached_property
    def sha256(self) -> str:
        """Digest of the file with its external weights."""
        return file_sha256(self.path)

    @cached_property
    def session(self) -> Session:
        """The live session; made when first needed."""
        return open_session(self.path, self.runtime, threads=self.threads)

    @cached_property
    def _optional(self) -> frozenset[str]:
        return frozenset(i.name for i in self.session.get_overridable_initializers())

    @property
    def input_names(self) -> tuple[str, ...]:
        """Inputs that must be given; overridable defaults such as a threshold are not."""
        return tuple(i.name for i in self.session.get_inputs() if i.name not in self._optional)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Outputs in the order of the graph."""
        return tuple(o.name for o in self.session.get_outputs())

    @cached_property
    def fixed_batch(self) -> int | None:
        """The batch size baked into the graph, or None when it is free."""
        sizes = {
            i.shape[0] for i in self.session.get_inputs() if i.shape and i.name in self.input_names
        }
        fixed = {s for s in sizes if isinstance(s, int)}
        return max(fixed) if fixed else None

    def run(self, inputs: Mapping[str, Column]) -> dict[str, Array]:
        """Answer `inputs` (n, ...) in batches; a last short batch of a fixed one is padded.

        Batches run side by side, each with the threads of one session, so that the answers
        are those of one call after the other and idle cores help.
        """
        step = self.fixed_batch or self.batch
        n = len(next(iter(inputs.values())))
        side_by_side = self.at_once or max(1, (os.cpu_count() or 1) // self.threads)
        self.session  # noqa: B018 - made once, before the workers share it

        def answer(i: int) -> list[Array]:  # cut here: rows may be read from disk
            return self._answer({k: v[i : i + step] for k, v in inputs.items()})

        if side_by_side == 1 or n <= step:
            parts = [answer(i) for i in range(0, n, step)]
        else:
            with ThreadPoolExecutor(side_by_side) as pool:
                parts = list(pool.map(answer, range(0, n, step)))
        return {
            name: np.concatenate([p[k] for p in parts]) for k, name in enumerate(self.output_names)
        }

    def _answer(self, rows: dict[str, Array]) -> list[Array]:
        short = 0
        if self.fixed_batch:
            short = self.fixed_batch - len(next(iter(rows.values())))
        if not short:
            return self._call(rows)
        padded = {k: np.concatenate([v, np.repeat(v[-1:], short, 0)]) for k, v in rows.items()}
        return [o[: len(o) - short] for o in self._call(padded)]

    def _call(self, rows: Mapping[str, Array]) -> list[Array]:
        n = len(next(iter(rows.values())))
        try:
            out = self.session.run(None, dict(rows))
        except Exception as e:  # every runtime raises types of its own
            raise InputError(f"{self.name} fails on the cases: {first_line(e)}") from e
        for name, value in zip(self.output_names, out, strict=True):
            if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiub":
                raise InputError(
                    f"output {name!r} of {self.name} is not a numeric tensor; export the model "
                    "without it"
                )
            if value.ndim == 0 or len(value) != n:
                raise InputError(
                    f"output {name!r} of {self.name} has shape {value.shape} for {n} cases; "
                    "each output needs one row per case at axis 0"
                )
        return out

    def check_cases(self, cases: Cases) -> Cases:
        """`cases` with each input in the model's own type; every misfit is named.

        Floats are only widened or narrowed between float types and integers only where no
        value changes: a model must see what the user meant.
        """
        for i in self.session.get_inputs():
            if i.name in self._optional:
                continue
            value = cases.inputs[i.name]
            want = [s if isinstance(s, int) else None for s in i.shape]
            got = list(value.shape)
            bad = len(want) != len(got) or any(
                w is not None and k > 0 and w != g
                for k, (w, g) in enumerate(zip(want, got, strict=False))
            )
            if bad:
                shape = [s if isinstance(s, int) else "any" for s in ["any", *i.shape[1:]]]
                raise InputError(
                    f"input {i.name!r} of {self.name} takes shape {shape} (rows first), "
                    f"the cases give {got}"
                )
        held = {
            i.name: _cast(cases.inputs[i.name], i.type, i.name)
            for i in self.session.get_inputs()
            if i.name not in self._optional
        }
        if len(held) == len(cases.inputs) and all(held[k] is v for k, v in cases.inputs.items()):
            return cases  # it knows its digests already
        return Cases(held, cases.labels, cases.groups)


NUMPY_TYPES = {
    "tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8, "tensor(int8)": np.int8, "tensor(uint16)": np.uint16,
    "tensor(int16)": np.int16, "tensor(int32)": np.int32, "tensor(int64)": np.int64,
    "tensor(uint32)": np.uint32, "tensor(uint64)": np.uint64, "tensor(bool)": np.bool_,
}  # fmt: skip


def _cast(value: Column, onnx_type: str, name: str) -> Column:
    if onnx_type not in NUMPY_TYPES:
        raise InputError(f"input {name!r} has type {onnx_type}, which cases cannot hold")
    want = np.dtype(NUMPY_TYPES[onnx_type])
    out = converted(value, want)
    if out is None:
        raise InputError(
            f"input {name!r} takes {want}, the cases give {value.dtype}; convert them to {want}"
        )
    return out


def initializer_names(graph: onnx.GraphProto) -> set[str]:
    """Names of the constants stored in `graph`."""
    return {i.name for i in graph.initializer}


def find_sites(model: onnx.ModelProto) -> tuple[Site, ...]:
    """Sites of a prepared model: its float32 Conv, MatMul and Gemm nodes.

    Nodes that share a weight form one site, for the weight can be stored only once.
    Nodes inside If and Loop bodies stay exact, and so does a Conv without a fixed weight.
    """
    shapes, types = shapes_of(model), types_of(model)
    weights = {i.name: int(np.prod(i.dims)) for i in model.graph.initializer}
    by_weight: dict[str, list[onnx.NodeProto]] = collections.defaultdict(list)
    for node in model.graph.node:
        if node.op_type not in SITE_OPS or node.domain not in ("", "ai.onnx"):
            continue
        if node.op_type != "MatMul" and node.input[1] not in weights:
            continue
        if any(types.get(t) not in (None, onnx.TensorProto.FLOAT) for t in node.input):
            continue
        held = [t for t in node.input[:2] if t in weights]
        by_weight[held[0] if held else f"\0{node.name}"].append(node)
    return tuple(
        Site(
            nodes[0].name,
            nodes[0].op_type,
            tuple(n.name for n in nodes),
            weights.get(weight, 0),
            sum(_multiply_adds(n, shapes, weights) for n in nodes),
        )
        for weight, nodes in by_weight.items()
    )


def _value_infos(graph: onnx.GraphProto) -> Iterable[onnx.ValueInfoProto]:
    return (*graph.input, *graph.value_info, *graph.output)


def shapes_of(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Inferred shapes by tensor name; an unknown or batch extent reads 0."""
    out = {
        v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim)
        for v in _value_infos(model.graph)
    }
    out.update({i.name: tuple(i.dims) for i in model.graph.initializer})
    return out


def types_of(model: onnx.ModelProto) -> dict[str, int]:
    """Element types by tensor name, as `onnx.TensorProto` numbers."""
    out = {v.name: v.type.tensor_type.elem_type for v in _value_infos(model.graph)}
    out.update({i.name: i.data_type for i in model.graph.initializer})
    return out


def _multiply_adds(
    node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]], weights: Mapping[str, int]
) -> int:
    """Multiply-adds per case: output positions times the length of each dot product."""
    out = shapes.get(node.output[0], ())
    positions = int(np.prod([d for d in out[1:] if d > 0], dtype=np.int64)) if out else 0
    if node.op_type == "Conv":
        return positions * int(np.prod(shapes.get(node.input[1], (0, 0))[1:], dtype=np.int64))
    left, right = (shapes.get(t, ()) for t in node.input[:2])
    if not out and len(right) == 2:
        positions = right[-1]  # of unknown shape: a row per case, as in a tabular network
    inner = left[-1] if left and left[-1] else right[-2] if len(right) > 1 else 0
    return positions * inner
