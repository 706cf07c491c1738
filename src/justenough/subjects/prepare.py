"""Makes a reference graph ready for quantization: folded, named, shaped, activations fused."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

from justenough.errors import InputError
from justenough.subjects.sessions import first_line

MICROSOFT = "com.microsoft"


def prepare(model: onnx.ModelProto) -> onnx.ModelProto:
    """Fold constants and batch norms, name every node, infer shapes, fuse SiLU and GELU.

    ONNX Runtime's basic optimizations, applied offline, so that Q/DQ pairs land on the graph
    that will run. SiLU and GELU become one node each before any Q/DQ pair can split their
    pattern: split, they run slower in int8 than the fused kernel does in float.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, folded = Path(folder) / "source.onnx", Path(folder) / "folded.onnx"
        onnx.save(model, str(source), save_as_external_data=model.ByteSize() > 2**31 - 2**20)
        o = ort.SessionOptions()
        o.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        o.optimized_model_filepath = str(folded)
        o.log_severity_level = 4
        if model.ByteSize() > 2**31 - 2**20:
            o.add_session_config_entry(
                "session.optimized_model_external_initializers_file_name", "folded.bin"
            )
        try:
            ort.InferenceSession(str(source), o, providers=["CPUExecutionProvider"])
        except Exception as e:  # ONNX Runtime raises a type of its own for every failure kind
            raise InputError(
                f"ONNX Runtime {ort.__version__} cannot load the model: {first_line(e)}"
            ) from e
        out = onnx.load(str(folded))
    _drop_unused_domains(out)
    _name_nodes(out)
    # Before fusing: shape inference does not know the fused nodes.
    if out.ByteSize() < 2**31 - 1:
        out = onnx.shape_inference.infer_shapes(out)
        _declare_types(out)
    fuse_activations(out)
    return out


def _declare_types(model: onnx.ModelProto) -> None:
    """Declare tensors behind operators of other domains, as ONNX Runtime types them.

    ONNX infers nothing behind such an operator, and the quantizer skips what has no type.
    """
    known = {v.name for v in (*model.graph.value_info, *model.graph.input, *model.graph.output)}
    missing = [t for n in model.graph.node for t in n.output if t and t not in known]
    if not missing:
        return
    asked = onnx.ModelProto()
    asked.CopyFrom(model)
    for t in missing:
        asked.graph.output.add().name = t
    o = ort.SessionOptions()
    o.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    o.log_severity_level = 4
    told = ort.InferenceSession(asked.SerializeToString(), o, providers=["CPUExecutionProvider"])
    types = {t.name: t.type for t in told.get_outputs()}
    for t in missing:
        if types[t] == "tensor(float)":
            info = helper.make_tensor_value_info(t, onnx.TensorProto.FLOAT, None)
            model.graph.value_info.append(info)


def _drop_unused_domains(model: onnx.ModelProto) -> None:
    used = {n.domain for n in model.graph.node} | {"", "ai.onnx", MICROSOFT}
    nested = any(a.HasField("g") or a.graphs for n in model.graph.node for a in n.attribute)
    if nested:
        return
    keep = [o for o in model.opset_import if o.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(keep)


def _name_nodes(model: onnx.ModelProto) -> None:
    seen: set[str] = set()
    for i, node in enumerate(model.graph.node):
        if not node.name or node.name in seen:
            node.name = f"{node.op_type}_{i}"
        seen.add(node.name)


def fuse_activations(model: onnx.ModelProto) -> int:
    """Replace x * sigmoid(x) and the erf form of GELU by ONNX Runtime's fused nodes.

    Returns how many were replaced.
    """
    graph = model.graph
    made = {o: n for n in graph.node for o in n.output}
    uses: dict[str, list[onnx.NodeProto]] = {}
    for n in graph.node:
        for t in n.input:
            uses.setdefault(t, []).append(n)
    kept = {o.name for o in graph.output}
    scalars = _scalars(graph)
    replaced: dict[str, onnx.NodeProto] = {}
    dropped: set[str] = set()
    for node in graph.node:
        found = _silu(node, made) or _gelu(node, made, scalars)
        if not found:
            continue
        op, x, inner = found
        outputs = {o for n in inner for o in n.output}
        last = {o for n in (node, *inner) for o in n.output}
        if outputs & kept or any(u.output[0] not in last for o in outputs for u in uses[o]):
            continue
        fused = helper.make_node(op, [x], [node.output[0]], name=node.name, domain=MICROSOFT)
        if op == "QuickGelu":
            fused.attribute.append(helper.make_attribute("alpha", 1.0))
        replaced[node.output[0]] = fused
        dropped |= outputs
    nodes = [replaced.get(n.output[0], n) for n in graph.node if n.output[0] not in dropped]
    del graph.node[:]
    graph.node.extend(nodes)
    if replaced and not any(o.domain == MICROSOFT for o in model.opset_import):
        model.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
    return len(replaced)


Made = Mapping[str, onnx.NodeProto]
Found = tuple[str, str, list[onnx.NodeProto]]


def _scalars(graph: onnx.GraphProto) -> dict[str, float]:
    out = {}
    for i in graph.initializer:
        if int(np.prod(i.dims)) == 1 and i.data_type == onnx.TensorProto.FLOAT:
            out[i.name] = float(numpy_helper.to_array(i).reshape(()))
    return out


def _silu(node: onnx.NodeProto, made: Made) -> Found | None:
    if node.op_type != "Mul":
        return None
    for x, gate in (tuple(node.input), tuple(reversed(node.input))):
        inner = made.get(gate)
        if inner is not None and inner.op_type == "Sigmoid" and inner.input[0] == x:
            return "QuickGelu", x, [inner]
    return None


def _gelu(node: onnx.NodeProto, made: Made, scalars: Mapping[str, float]) -> Found | None:
    """Match the products of x, 0.5 and 1 + erf(x / sqrt 2), in any order."""
    if node.op_type != "Mul":
        return None
    factors, inner = _factors(node, made, scalars)
    if not np.isclose(factors.pop("", 1.0), 0.5, rtol=1e-4):
        return None
    for add in list(factors):
        plus = made.get(add)
        if plus is None or plus.op_type != "Add" or len(factors) != 2:
            continue
        x = next(f for f in factors if f != add)
        one = [t for t in plus.input if np.isclose(scalars.get(t, 0), 1, rtol=1e-4)]
        erf = [made[t] for t in plus.input if t in made and made[t].op_type == "Erf"]
        if len(one) == 1 and len(erf) == 1:
            scale = _scaled_by(erf[0].input[0], x, made, scalars)
            if scale is not None and np.isclose(scale[0], 2**-0.5, rtol=1e-4):
                return "Gelu", x, [*inner, plus, erf[0], scale[1]]
    return None


def _factors(
    node: onnx.NodeProto, made: Made, scalars: Mapping[str, float]
) -> tuple[dict[str, float], list[onnx.NodeProto]]:
    """Tensors multiplied into `node`, with the constant under the empty name."""
    factors: dict[str, float] = {"": 1.0}
    inner: list[onnx.NodeProto] = []
    for t in node.input:
        below = made.get(t)
        if t in scalars:
            factors[""] *= scalars[t]
        elif below is not None and below.op_type == "Mul" and not inner:
            inner.append(below)
            for s in below.input:
                if s in scalars:
                    factors[""] *= scalars[s]
                else:
                    factors[s] = 1.0
        else:
            factors[t] = 1.0
    return factors, inner


def _scaled_by(
    t: str, x: str, made: Made, scalars: Mapping[str, float]
) -> tuple[float, onnx.NodeProto] | None:
    node = made.get(t)
    if node is None or node.op_type not in ("Mul", "Div") or x not in node.input:
        return None
    other = [s for s in node.input if s != x]
    if len(other) != 1 or other[0] not in scalars:
        return None
    s = scalars[other[0]]
    return (s if node.op_type == "Mul" else 1 / s), node
