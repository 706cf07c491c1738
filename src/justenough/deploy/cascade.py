"""Writes a cascade as one ONNX file: the fast model answers, the exact one answers the unsure."""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto
from onnx import helper as oh
from onnx import numpy_helper as nh

from justenough.core.gate import Gate
from justenough.errors import InputError

THRESHOLDS = "justenough.thresholds"
DEFERRED = "justenough.deferred"
_MIN_OPSET = 13  # axes as inputs: earlier forms would need a second writer
_MAX_FILE_BYTES = 2**31 - 2**24  # protobuf ends at 2 GiB; the rest of the graph needs room
_MIN_SHARED_BYTES = 64


def write_cascade(
    fast: Path, exact: Path, gate: Gate, out: Path, *, metadata: Mapping[str, str] = {}
) -> None:
    r"""Join two ONNX models into one: rows that the gate finds unsure are answered again.

    The file has the reference's inputs and outputs, and two more: the scalar input `threshold`
    (default `gate.threshold`; may be overridden on every run) and the output `deferred`, bool
    (n,). Where a name is taken it becomes `threshold_2`; the file's metadata name both. Deferred
    rows equal, bit for bit, what the exact model answers on those rows as one batch; the others
    equal the fast model's. With nothing deferred the exact model does not run. A cascade may be
    a stage of another one, and all its thresholds stay inputs. After Wang et al. 2017,
    "IDK Cascades", arXiv 1706.00885.

    Args:
        fast: File of the cheap model: all outputs of the reference, no further inputs.
        exact: File of the reference. Cases are along axis 0 of every input and output; an input
            without axes belongs to all of them. With a fixed batch it runs on the whole batch.
        gate: Margin and threshold. The axis of `top_k`, where its size is not in the file,
            must hold more than `gate.k` values.
        out: File to write; weights above 2 GiB go to `<out>.data` beside it.
        metadata: Further entries for the file's metadata.

    Raises:
        InputError: The models do not fit together, or the gate does not fit the fast one.

    >>> from onnx.parser import parse_model
    >>> head = '<ir_version: 8, opset_import: ["": 17]> g (float[n,2] x) => (float[n,2] y) '
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name, op in ("fast", "Round"), ("exact", "Identity"):
    ...     onnx.save(parse_model(head + "{ y = %s(x) }" % op), folder / name)
    >>> write_cascade(folder / "fast", folder / "exact", Gate("y"), folder / "cascade")
    >>> [o.name for o in onnx.load(folder / "cascade").graph.output]
    ['y', 'deferred']
    """
    cheap, reference = _read(fast), _read(exact)
    _align_opsets(cheap, reference)
    face = _face(cheap, reference, gate)
    _merge_functions(cheap, reference)
    shared = _shareable(cheap.graph, reference.graph)
    outside = {name: name for name in _inputs(cheap.graph)}
    _rename(cheap.graph, outside | face.fast_thresholds, face.prefix("fast"))
    visible = {name: face.prefix("fast") + twin for name, twin in shared.items()}
    visible |= face.exact_thresholds | ({n: n for n in face.inputs} if face.whole_batch else {})
    _rename(reference.graph, visible, face.prefix("exact"))
    _join(cheap, reference.graph, gate, face)
    own = {THRESHOLDS: ",".join(face.thresholds), DEFERRED: face.deferred}
    del cheap.metadata_props[:]
    oh.set_model_props(cheap, {**metadata, **own})
    _save(cheap, out)


@dataclass(frozen=True)
class _Face:
    """What the cascade shows outside; `whole_batch`: the exact model's batch is fixed."""

    inputs: dict[str, ValueInfoProto]
    outputs: dict[str, ValueInfoProto]
    whole_batch: bool
    width: int | None
    threshold: str
    deferred: str
    fast_thresholds: dict[str, str]
    exact_thresholds: dict[str, str]

    @property
    def thresholds(self) -> list[str]:
        """Names of all thresholds, the first stage's first."""
        return [*self.fast_thresholds.values(), self.threshold, *self.exact_thresholds.values()]

    def prefix(self, part: str) -> str:
        """Return a prefix that no outside name starts with."""
        names = (*self.inputs, *self.outputs, *self.thresholds, self.deferred)
        while any(n.startswith(part + "/") for n in names):
            part += "_"
        return part + "/"


class _Draft:
    """Nodes and constants in the making, with names of their own."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def add(self, op: str, *inputs: str, out: str = "", **attributes: Any) -> str:
        """Append a node with one output and return the output's name."""
        name = f"{self.prefix}{op}_{len(self.nodes)}"
        self.nodes.append(oh.make_node(op, inputs, [out or name], name=name, **attributes))
        return out or name

    def constant(self, value: NDArray[Any]) -> str:
        name = f"{self.prefix}constant_{len(self.constants)}"
        self.constants.append(nh.from_array(value, name))
        return name

    def ints(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))


def _read(path: Path) -> ModelProto:
    try:
        model = onnx.load(path)
    except DecodeError as error:
        raise InputError(f"{path} is not an ONNX model ({error}); export it again") from error
    for named in chain(model.opset_import, _nodes(model.graph.node)):
        named.domain = "" if named.domain == "ai.onnx" else named.domain
    version = _opsets(model).get("", 0)
    if version < _MIN_OPSET:
        raise InputError(
            f"{path} has opset {version}; a cascade needs {_MIN_OPSET} or later: export it "
            "again, or convert it with onnx.version_converter.convert_version"
        )
    return model


def _opsets(model: ModelProto) -> dict[str, int]:
    return {o.domain: o.version for o in model.opset_import}


def _align_opsets(cheap: ModelProto, reference: ModelProto) -> None:
    """Give both models the later opset of each domain; no operator may change by that."""
    domains = _opsets(cheap) | _opsets(reference)
    wanted = {d: max(_opsets(m).get(d, 0) for m in (cheap, reference)) for d in domains}
    for model in (cheap, reference):
        have = _opsets(model)
        changed = {
            f"{node.domain}::{node.op_type}".removeprefix("::")
            for node in _nodes(model.graph.node)
            if _since(node, have.get(node.domain, 0)) != _since(node, wanted.get(node.domain, 0))
        }
        if changed:
            raise InputError(
                f"the two models have opsets {have} and {wanted}, and between them changed: "
                f"{', '.join(sorted(changed))}; export both with the same opset, or convert one "
                "with onnx.version_converter.convert_version and certify again"
            )
        del model.opset_import[:]
        model.opset_import.extend(oh.make_opsetid(d, v) for d, v in wanted.items())


def _since(node: NodeProto, version: int) -> int:
    """Return the version that defined this operator as it is in `version` of its domain."""
    try:
        return int(onnx.defs.get_schema(node.op_type, version, node.domain).since_version)
    except onnx.defs.SchemaError:
        return version  # nothing known about it, so every version may differ


def _face(cheap: ModelProto, reference: ModelProto, gate: Gate) -> _Face:
    """Check that the two models answer the same question and name what is new."""
    given, inputs = _inputs(cheap.graph), _inputs(reference.graph)
    answers = {o.name: o for o in cheap.graph.output}
    inner = {p.key: p.value for p in reference.metadata_props}.get(DEFERRED)
    outputs = {o.name: o for o in reference.graph.output if o.name != inner}
    if gate.output not in answers:
        raise InputError(
            f"the fast model has no output {gate.output!r}; it has: {', '.join(answers)}"
        )
    _demand("input", given, inputs, "exact")
    _demand("output", outputs, answers, "fast")
    merged = {name: _merged(v, given.get(name, v)) for name, v in inputs.items()}
    fresh = _fresh_names({*inputs, *outputs})
    return _Face(
        merged,
        {name: _merged(v, v) for name, v in outputs.items()},
        any(size for value in inputs.values() for size in _dims(value)[:1]),
        _width(answers[gate.output], outputs.get(gate.output), gate),
        # The stages' own thresholds come first: who overrides them by name keeps doing so.
        fast_thresholds={t: fresh("threshold") for t in _thresholds(cheap)},
        exact_thresholds={t: fresh("threshold") for t in _thresholds(reference)},
        threshold=fresh("threshold"),
        deferred=fresh("deferred"),
    )


def _inputs(graph: GraphProto) -> dict[str, ValueInfoProto]:
    constants = {t.name for t in graph.initializer}
    return {v.name: v for v in graph.input if v.name not in constants}


def _thresholds(model: ModelProto) -> list[str]:
    listed = {p.key: p.value for p in model.metadata_props}.get(THRESHOLDS, "").split(",")
    return [t.name for t in model.graph.initializer if t.name in listed]


def _fresh_names(taken: set[str]) -> Callable[[str], str]:
    def fresh(name: str) -> str:
        tries = chain([name], (f"{name}_{i}" for i in count(2)))
        taken.add(free := next(t for t in tries if t not in taken))
        return free

    return fresh


def _demand(
    what: str, some: Mapping[str, ValueInfoProto], pool: Mapping[str, ValueInfoProto], owner: str
) -> None:
    for name, value in some.items():
        if name not in pool:
            raise InputError(
                f"the {owner} model has no {what} {name!r}; it has: {', '.join(pool)}"
            )
        kinds = [v.type.tensor_type.elem_type for v in (value, pool[name])]
        if 0 in kinds or kinds[0] != kinds[1]:
            words = [TensorProto.DataType.Name(k) if k else "no tensor" for k in kinds]
            raise InputError(
                f"{what} {name!r} is {words[0]} in one model and {words[1]} in the other; "
                "a cascade needs tensors of one type"
            )
        if what == "output" and _scalar(value):
            raise InputError(f"output {name!r} is a scalar; a cascade needs one row per case")


def _dims(value: ValueInfoProto) -> list[int]:
    """Fixed sizes of a tensor's axes, 0 where an axis is free."""
    return [d.dim_value for d in value.type.tensor_type.shape.dim]


def _scalar(value: ValueInfoProto) -> bool:
    """Whether the value is one number for all rows."""
    return value.type.tensor_type.HasField("shape") and not _dims(value)


def _merged(reference: ValueInfoProto, cheap: ValueInfoProto) -> ValueInfoProto:
    """Take the reference's input, narrowed to sizes that the fast model fixes."""
    merged = ValueInfoProto()
    merged.CopyFrom(reference)
    a, b = _dims(reference), _dims(cheap)
    clash = any(x and y and x != y for x, y in zip(a, b, strict=False))
    if a and b and (clash or len(a) != len(b)):
        raise InputError(
            f"input {reference.name!r} has sizes {a} in the exact model and {b} in the fast one "
            "(0: free); export both with the same shape"
        )
    for into, size in zip(merged.type.tensor_type.shape.dim, b, strict=False):
        if size:
            into.dim_value = size
    return merged


def _width(cheap: ValueInfoProto, reference: ValueInfoProto | None, gate: Gate) -> int | None:
    """Return the number of values that `top_k` chooses from, where the file tells."""
    if gate.kind != "top_k":
        return None
    for value in (cheap, reference):
        dims = _dims(value) if value is not None else []
        if dims and not -len(dims) <= gate.axis < len(dims):
            raise InputError(f"output {gate.output!r} has {len(dims)} axes; axis is {gate.axis}")
        if dims and dims[gate.axis]:
            return dims[gate.axis]
    return None


def _merge_functions(cheap: ModelProto, reference: ModelProto) -> None:
    """Move the exact model's functions over, renamed if any differs from its namesake."""
    both = (cheap.functions, reference.functions)
    ours, theirs = ({(f.domain, f.name, f.overload): f for f in fs} for fs in both)
    fresh = _fresh_names({name for _, name, _ in (*ours, *theirs)})
    differ = any(ours.get(key, f) != f for key, f in theirs.items())
    renamed = {key: fresh(key[1]) for key in theirs if differ}  # all: they may call each other
    bodies = chain(reference.graph.node, *(f.node for f in reference.functions))
    for node in _nodes([*bodies]):
        node.op_type = renamed.get((node.domain, node.op_type, node.overload), node.op_type)
    for key, f in theirs.items():
        f.name = renamed.get(key, f.name)
        if renamed or key not in ours:
            cheap.functions.append(f)
    cheap.ir_version = max(cheap.ir_version, reference.ir_version, 7)


def _shareable(cheap: GraphProto, exact: GraphProto) -> dict[str, str]:
    """Map initializers of the exact model to those of the fast model with the same content.

    Only tables that nothing but Gather reads: ONNX Runtime's NCHWc layout and its fusions want
    their weights in the graph at hand. With convolution weights in the outer scope the branch
    was slower and not bit-equal to the model on its own.
    """
    readers: dict[str, set[tuple[str, int]]] = {}
    for node in _nodes(exact.node):
        for at, name in enumerate(node.input):
            readers.setdefault(name, set()).add((node.op_type, at))
    for graph in (exact, *_bodies(exact.node)):
        for value in graph.output:
            readers.setdefault(value.name, set()).add(("output", 0))
    tables = [t for t in exact.initializer if readers.get(t.name) == {("Gather", 0)}]
    twins = {c: t.name for t in cheap.initializer if (c := _content(t))} if tables else {}
    return {t.name: twins[c] for t in tables if (c := _content(t)) in twins}


def _content(tensor: TensorProto) -> tuple[int, tuple[int, ...], bytes] | None:
    data = b"" if tensor.data_type == TensorProto.STRING else nh.to_array(tensor).tobytes()
    return (tensor.data_type, tuple(tensor.dims), data) if len(data) >= _MIN_SHARED_BYTES else None


def _bodies(nodes: Iterable[NodeProto]) -> Iterator[GraphProto]:
    """Yield every graph nested in the nodes, at any depth."""
    for node in nodes:
        for a in node.attribute:
            for body in (*([a.g] if a.HasField("g") else []), *a.graphs):
                yield body
                yield from _bodies(body.node)


def _nodes(nodes: Sequence[NodeProto]) -> Iterator[NodeProto]:
    """Yield the nodes and every node nested in them."""
    return chain(nodes, *(body.node for body in _bodies(nodes)))


def _rename(graph: GraphProto, given: Mapping[str, str], prefix: str) -> None:
    """Rename every value, nested graphs included: as given, otherwise by prefix.

    One rule for all depths keeps references to outer scopes whole.
    """

    def new(name: str) -> str:
        return given.get(name, prefix + name) if name else name

    for g in (graph, *_bodies(graph.node)):
        for value in chain(g.input, g.output, g.value_info):
            value.name = new(value.name)
            # Rows of the exact branch are the deferred ones: `N` there is another number.
            for dim in value.type.tensor_type.shape.dim:
                if dim.dim_param:
                    dim.dim_param = prefix + dim.dim_param
        for tensor in chain(g.initializer, (s.values for s in g.sparse_initializer)):
            tensor.name = new(tensor.name)
        for note in g.quantization_annotation:
            note.tensor_name = new(note.tensor_name)
            for entry in note.quant_parameter_tensor_names:
                entry.value = new(entry.value)
        for node in g.node:
            node.name = prefix + node.name if node.name else ""
            node.input[:] = [new(n) for n in node.input]
            node.output[:] = [new(n) for n in node.output]


def _join(cheap: ModelProto, exact: GraphProto, gate: Gate, face: _Face) -> None:
    """Turn the fast model, in place, into the cascade."""
    graph = cheap.graph
    draft = _Draft(face.prefix("gate"))
    # Few nodes matter: each costs about 3 us, and they run whether or not anything is deferred.
    unsure = _unsure(draft, gate, face.prefix("fast") + gate.output, face)
    flags = draft.add("Flatten", draft.add("Cast", unsure, to=TensorProto.INT32), axis=1)
    rows = draft.add("ReduceSum", flags, draft.ints(1), keepdims=0)
    draft.add("Cast", rows, to=TensorProto.BOOL, out=face.deferred)
    total = draft.add("ReduceSum", rows, draft.ints(0), keepdims=0)
    some = draft.add("Cast", total, to=TensorProto.BOOL)
    graph.node.extend(draft.nodes)
    graph.initializer.extend(draft.constants)
    graph.initializer.append(nh.from_array(np.array(gate.threshold, np.float32), face.threshold))
    kept = set(face.exact_thresholds.values())
    graph.initializer.extend(t for t in exact.initializer if t.name in kept)
    node = graph.node.add(op_type="If", name=draft.prefix + "If", input=[some])
    node.output.extend(face.outputs)
    for name in ("then_branch", "else_branch"):
        node.attribute.add(name=name, type=AttributeProto.GRAPH).g.name = name
    _answer_again(node.attribute[0].g, exact, face)
    _keep(node.attribute[1].g, face)
    _show(graph, face)


def _show(graph: GraphProto, face: _Face) -> None:
    """Declare inputs and outputs."""
    row = next((v.type.tensor_type.shape.dim[0] for v in face.inputs.values() if _dims(v)), None)
    deferred = oh.make_tensor_value_info(face.deferred, TensorProto.BOOL, [None])
    if row is not None:
        deferred.type.tensor_type.shape.dim[0].CopyFrom(row)
    del graph.input[:]
    graph.input.extend(face.inputs.values())
    for name in face.thresholds:
        graph.input.append(oh.make_tensor_value_info(name, TensorProto.FLOAT, []))
    del graph.output[:]
    graph.output.extend([*face.outputs.values(), deferred])
    graph.name = "cascade"


def _unsure(draft: _Draft, gate: Gate, output: str, face: _Face) -> str:
    """Say, per margin, whether it is at most the threshold or not a number.

    `Gate.margin` takes the row's minimum; comparing first and joining afterwards is the same
    decision, and no runtime's minimum has to carry NaN.
    """
    y = draft.add("Cast", output, to=TensorProto.FLOAT)
    infinity = draft.constant(np.array(np.inf, np.float32))
    if gate.kind == "cut":
        if gate.column is not None:
            y = draft.add("Gather", y, draft.ints(gate.column), axis=1)
        cut = draft.constant(np.array(gate.cut, np.float32))
        margin = draft.add("Abs", draft.add("Sub", y, cut))
        return draft.add("Not", draft.add("Greater", margin, face.threshold))
    if face.width is not None and face.width <= gate.k:
        rows = draft.add("Slice", draft.add("Shape", y), draft.ints(0), draft.ints(1))
        margin = draft.add("Expand", infinity, rows)
        return draft.add("Not", draft.add("Greater", margin, face.threshold))
    # NumPy sorts NaN above infinity and TopK sorts it anywhere: count it instead.
    nan = draft.add("IsNaN", y)
    axis, size = draft.ints(gate.axis), draft.ints(gate.k + 1)
    top, last, rest = (f"{draft.prefix}{part}" for part in ("top", "last", "rest"))
    numbers = draft.add("Where", nan, infinity, y)
    draft.nodes.append(oh.make_node("TopK", [numbers, size], [top, top + "_at"], axis=gate.axis))
    sizes, parts = [gate.k - 1, 1, 1], [top + "_before", last, rest]
    first = int(gate.k == 1)  # nothing comes before
    sizes_at = draft.ints(*sizes[first:])
    draft.nodes.append(oh.make_node("Split", [top, sizes_at], parts[first:], axis=gate.axis))
    sure = draft.add("Greater", draft.add("Sub", last, rest), face.threshold)
    nans = draft.add("ReduceSum", draft.add("Cast", nan, to=TensorProto.INT32), axis)
    few = draft.add("Less", nans, draft.constant(np.array(1, np.int32)))
    return draft.add("Not", draft.add("And", sure, few))


def _answer_again(body: GraphProto, exact: GraphProto, face: _Face) -> None:
    """Fill the branch that runs the exact model and replaces the deferred rows."""
    draft, inner = _Draft(face.prefix("then")), face.prefix("exact")
    picked = draft.add("NonZero", face.deferred)
    index = draft.add("Squeeze", picked, draft.ints(0))
    if not face.whole_batch:
        for name, value in face.inputs.items():
            if _scalar(value):
                draft.add("Identity", name, out=inner + name)
            else:
                draft.add("Gather", name, index, out=inner + name)
    body.node.extend(draft.nodes)
    body.node.extend(exact.node)
    done = len(draft.nodes)
    column = draft.add("Transpose", picked, perm=[1, 0])
    for name, value in face.outputs.items():
        answer = inner + name
        if face.whole_batch:
            answer = draft.add("Gather", answer, index)
        _give(body, value, draft.add("ScatterND", face.prefix("fast") + name, column, answer))
    body.node.extend(draft.nodes[done:])
    body.initializer.extend(draft.constants)
    body.initializer.extend(t for t in exact.initializer if t.name.startswith(inner))
    body.sparse_initializer.extend(exact.sparse_initializer)
    # Former inputs and outputs too: without their shapes SkipLayerNormalization was not fused.
    former = [v for v in exact.input if v.name.startswith(inner)]
    body.value_info.extend([*exact.value_info, *former, *exact.output])
    body.quantization_annotation.extend(exact.quantization_annotation)


def _keep(body: GraphProto, face: _Face) -> None:
    """Fill the branch that lets the fast model's answers stand."""
    draft = _Draft(face.prefix("else"))
    for name, value in face.outputs.items():
        _give(body, value, draft.add("Identity", face.prefix("fast") + name))
    body.node.extend(draft.nodes)


def _give(body: GraphProto, like: ValueInfoProto, name: str) -> None:
    kind = like.type.tensor_type.elem_type
    body.output.append(oh.make_tensor_value_info(name, kind, None))


def _save(model: ModelProto, out: Path) -> None:
    """Write beside `out` first, so that `out` is never half a model."""
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        draft, weights = Path(folder) / out.name, f"{out.name}.data"
        if _weights_bytes(model) > _MAX_FILE_BYTES:
            onnx.save_model(model, draft, save_as_external_data=True, location=weights)
        else:
            onnx.save_model(model, draft)
        onnx.checker.check_model(str(draft))
        if (Path(folder) / weights).exists():
            (Path(folder) / weights).replace(out.with_name(weights))
        draft.replace(out)


def _weights_bytes(model: ModelProto) -> int:
    graphs = [model.graph, *_bodies(model.graph.node)]
    constants = (a.t for g in graphs for n in g.node for a in n.attribute if a.HasField("t"))
    return sum(t.ByteSize() for t in chain(*(g.initializer for g in graphs), constants))
