"""Int8 variants of an ONNX model: which nodes, which ranges, which file.

Static QDQ written by ONNX Runtime's own quantizer: weights int8, symmetric, per channel;
activations uint8, asymmetric, per tensor (Jacob et al. 2018, arXiv:1712.05877).
"""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
from onnxruntime.quantization.onnx_model import ONNXModel
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from justenough.core.subject import FP32, INT8, Site, Variant
from justenough.errors import InputError
from justenough.subjects.local_choices import apply_local
from justenough.subjects.onnx_model import SITE_OPS, initializer_names, types_of
from justenough.transforms.gptq import BlockCodes
from justenough.transforms.rounding import NARROW_TOP, TOP

Array = NDArray[Any]
CALIBRATIONS = ("minmax", "percentile", "mse")
# Behind the name of a calibration: int8 weights keep to half of what they could hold, so that
# two products fit where a processor adds them in 16 bits.
NARROW = "-narrow"
PERCENTILE = 99.99
# Nodes that go int8 when everything that feeds them is: they then run on int8 data and save
# the conversions. Activations such as SiLU, GELU, Sigmoid stay float but in the form `whole`.
FOLLOWERS = frozenset(
    {"Relu", "Clip", "Add", "Concat", "MaxPool", "AveragePool", "GlobalAveragePool", "Flatten",
     "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Resize"}
)  # fmt: skip
# What the form `whole` runs in int8 as well. Each alone is slower so than in float, but where one
# follows the other no conversion is left between them.
ACTIVATIONS = frozenset({"LeakyRelu", "Mul", "Sigmoid"})
SIGMOID_RANGE = (0.0, 1.0)
FLOAT_OUTPUT = ("MatMul", "Gemm")


@dataclass(frozen=True)
class Ranges:
    """Calibrated ranges (low, high) by calibration and tensor name, in the tensors' units."""

    table: Mapping[str, Mapping[str, tuple[float, float]]]

    def to_arrays(self) -> dict[str, Array]:
        """Arrays for the run store: names, and a (2, tensors) array for each calibration."""
        names = sorted(next(iter(self.table.values())))
        out: dict[str, Array] = {"names": np.array(names)}
        for method, by_name in self.table.items():
            out[method] = np.array([by_name[n] for n in names], np.float64).reshape(-1, 2)
        return out

    def of(self, calibration: str) -> Mapping[str, tuple[float, float]]:
        """Ranges by tensor under a calibration, narrow or not.

        Raises:
            InputError: There is no such calibration.
        """
        found = self.table.get(calibration.removesuffix(NARROW))
        if found is None:
            raise InputError(
                f"unknown calibration {calibration!r}; it is one of {', '.join(self.table)}, "
                f"or one of them with {NARROW!r} behind it"
            )
        return found

    @staticmethod
    def from_arrays(arrays: Mapping[str, Array]) -> "Ranges":
        """The inverse of `to_arrays`."""
        names = arrays["names"].tolist()
        return Ranges(
            {
                m: {n: (float(lo), float(hi)) for n, (lo, hi) in zip(names, a, strict=True)}
                for m, a in arrays.items()
                if m != "names"
            }
        )


def top_code(calibration: str) -> int:
    """Largest code of an int8 weight under a calibration.

    >>> top_code("minmax"), top_code("minmax-narrow")
    (127, 64)
    """
    return NARROW_TOP if calibration.endswith(NARROW) else TOP


def int8_nodes(model: onnx.ModelProto, sites: Iterable[Site], variant: Variant) -> set[str]:
    """Names of the nodes that run in int8 under `variant`: its sites and their followers."""
    picked = set(variant.sites("int8"))
    chosen = {n for s in sites if s.name in picked for n in s.nodes}
    return chosen | followers(model, chosen, variant.form)


def followers(model: onnx.ModelProto, chosen: set[str], form: str = "full") -> set[str]:
    """Nodes of `FOLLOWERS` all of whose data come from `chosen` nodes or other followers."""
    kinds = FOLLOWERS | ACTIVATIONS if form == "whole" else FOLLOWERS
    constants, types = initializer_names(model.graph), types_of(model)
    made: dict[str, str] = {}
    out: set[str] = set()
    for node in model.graph.node:
        made.update(dict.fromkeys(node.output, node.name))
        if node.op_type not in kinds or node.domain not in ("", "ai.onnx"):
            continue
        floats = [t for t in node.input if t and types.get(t) in (None, onnx.TensorProto.FLOAT)]
        # A bias added to a MatMul stays float: the runtime fuses it into the int8 product.
        data = [t for t in floats if t not in constants]
        biased = node.op_type == "Add" and len(data) < len(floats)
        if data and not biased and all(made.get(t) in chosen | out for t in data):
            out.add(node.name)
    return out - _left_float(model, chosen, out)


def _left_float(model: onnx.ModelProto, chosen: set[str], candidates: set[str]) -> set[str]:
    """Relu and Clip nodes among the candidates whose result stays float.

    The quantizer drops such a node because the Q/DQ pair behind it clips, but that pair is
    taken out again at graph outputs and behind products that nothing int8 reads.
    """
    outputs = {o.name for o in model.graph.output}
    made = {t: n for n in model.graph.node for t in n.output}
    read_in_int8: set[str] = set()
    out: set[str] = set()
    for node in reversed(model.graph.node):
        source = node
        while source.op_type in ("Relu", "Clip") and source.input[0] in made:
            source = made[source.input[0]]
        ends = node.output[0] in outputs
        floats = source.op_type in FLOAT_OUTPUT and node.output[0] not in read_in_int8
        if node.name in candidates and node.op_type in ("Relu", "Clip") and (ends or floats):
            out.add(node.name)
        elif node.name in chosen | candidates:
            read_in_int8.update(node.input)
    return out


def has_activations(model: onnx.ModelProto, sites: Iterable[Site]) -> bool:
    """Whether the form `whole` runs anything in int8 that `full` does not."""
    chosen = {n for s in sites for n in s.nodes}
    split = unfused(model)
    return followers(split, chosen, "whole") != followers(split, chosen)


def observed_tensors(model: onnx.ModelProto, sites: Iterable[Site]) -> list[str]:
    """Float tensors that may get a Q/DQ pair: inputs and outputs of sites and followers."""
    split = unfused(model)
    picks = {s.name: "int8" for s in sites}
    everything = int8_nodes(split, sites, Variant.of(picks, form="whole"))
    constants, types = initializer_names(model.graph), types_of(model)
    there = {t for n in model.graph.node for t in n.output} | {i.name for i in model.graph.input}
    out: dict[str, None] = {}
    for node in split.graph.node:
        if node.name in everything:
            for t in (*node.input, *node.output):
                if t in there - constants and types.get(t) in (None, onnx.TensorProto.FLOAT):
                    out[t] = None
    return list(out)


def unfused(model: onnx.ModelProto, only: set[str] | None = None) -> onnx.ModelProto:
    """A copy of a prepared model with SiLU as Sigmoid and Mul, which int8 kernels are for.

    The Mul keeps the node's name and its result the tensor's.

    Args:
        model: Prepared graph.
        only: Names of the nodes; all where None.
    """
    out = copy.deepcopy(model)
    nodes: list[onnx.NodeProto] = []
    for n in out.graph.node:
        alpha = next((a.f for a in n.attribute if a.name == "alpha"), 1.702)
        if n.op_type != "QuickGelu" or alpha != 1.0 or (only is not None and n.name not in only):
            nodes.append(n)
            continue
        gate, x = f"{n.output[0]}/sigmoid", n.input[0]
        nodes.append(onnx.helper.make_node("Sigmoid", [x], [gate], f"{n.name}/sigmoid"))
        nodes.append(onnx.helper.make_node("Mul", [x, gate], list(n.output), n.name))
        info = onnx.helper.make_tensor_value_info(gate, onnx.TensorProto.FLOAT, None)
        out.graph.value_info.append(info)
    del out.graph.node[:]
    out.graph.node.extend(nodes)
    return out


def with_outputs(model: onnx.ModelProto, tensors: Iterable[str]) -> onnx.ModelProto:
    """A copy of `model` that also gives out `tensors`."""
    out = copy.deepcopy(model)
    known = {o.name for o in out.graph.output}
    infos = {v.name: v for v in (*model.graph.value_info, *model.graph.input)}
    for t in tensors:
        if t in known:
            continue
        float_info = onnx.helper.make_tensor_value_info(t, onnx.TensorProto.FLOAT, None)
        out.graph.output.append(infos.get(t, float_info))
    return out


def find_ranges(samples: Mapping[str, tuple[float, float, Array]]) -> Ranges:
    """Ranges by each calibration from (lowest, highest, sampled values) of each tensor.

    `minmax` covers all that was seen; `percentile` the central 99.99 %; `mse` the clipping
    of the min-max range that rounds the sample with the least squared error.
    """
    table: dict[str, dict[str, tuple[float, float]]] = {m: {} for m in CALIBRATIONS}
    for name, (low, high, values) in samples.items():
        low, high = min(low, 0.0), max(high, 0.0)
        tail = (100 - PERCENTILE) / 2
        lo, hi = np.percentile(values, [tail, 100 - tail])
        table["minmax"][name] = (low, high)
        table["percentile"][name] = (max(min(float(lo), 0.0), low), min(max(float(hi), 0.0), high))
        table["mse"][name] = least_error_range(low, high, values)
    return Ranges(table)


def least_error_range(low: float, high: float, values: Array) -> tuple[float, float]:
    """The range within (low, high) that rounds `values` to 256 levels with least squared error."""
    best = (np.inf, low, high)
    for shrink in (1.0, 0.92, 0.85, 0.78, 0.7, 0.6, 0.5, 0.4, 0.3):
        lo, hi = low * shrink, high * shrink
        scale = max((hi - lo) / 255, 1e-12)
        zero = round(-lo / scale)
        rounded = (np.clip(np.rint(values / scale) + zero, 0, 255) - zero) * scale
        best = min(best, (float(((rounded - values) ** 2).sum()), lo, hi))
    return best[1], best[2]


def write_variant(
    model: onnx.ModelProto,
    sites: Iterable[Site],
    variant: Variant,
    ranges: Ranges,
    path: Path,
    rounding: Mapping[str, BlockCodes] | None = None,
) -> None:
    """Write `variant` of a prepared model as an ONNX file.

    The form `inputs` rounds what chosen sites read and nothing else, for OpenVINO. The last
    output stays float: 256 levels of a score tie, and ties defer cases for nothing. Local
    choices come first, so that static int8 sees their nodes as what they are: floats outside.

    Args:
        model: Prepared graph.
        sites: Its sites.
        variant: Choices, calibration and form.
        ranges: Calibrated ranges of `model`.
        path: Where to.
        rounding: Codes of weights by site, as `apply_local` takes them.
    """
    sites = tuple(sites)
    local = {s: c for s, c in variant.picks if c not in (FP32.name, INT8.name)}
    if local:
        model = apply_local(model, sites, local, rounding)
    extra: dict[str, Any] = {}
    if variant.form == "whole":
        model = unfused(model, int8_nodes(unfused(model), sites, variant))
    if variant.form == "inputs":
        picked = set(variant.sites("int8"))
        nodes = {n for s in sites if s.name in picked for n in s.nodes}
        extra["OpTypesToExcludeOutputQuantization"] = list(SITE_OPS)
    else:
        nodes = int8_nodes(model, sites, variant)
    limits = {
        t: TensorData(lowest=np.float32(lo), highest=np.float32(hi))
        for t, (lo, hi) in ranges.of(variant.calibration).items()
    }
    gates = (n for n in model.graph.node if n.op_type == "Sigmoid" and n.name in nodes)
    low, high = map(np.float32, SIGMOID_RANGE)
    limits |= {n.output[0]: TensorData(lowest=low, highest=high) for n in gates}
    quantizer = QDQQuantizer(
        model if local or variant.form == "whole" else copy.deepcopy(model),
        per_channel=True,
        reduce_range=top_code(variant.calibration) == NARROW_TOP,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, limits),
        nodes_to_quantize=sorted(nodes),
        nodes_to_exclude=[],
        op_types_to_quantize=sorted({n.op_type for n in model.graph.node if n.name in nodes}),
        extra_options=extra,
    )
    out = ONNXModel(quantizer.quantize_model())
    out.topological_sort()
    _keep_float(out.model, nodes)
    save_model(out.model, path)


def save_model(model: onnx.ModelProto, path: Path) -> None:
    """Write `model`, its weights apart where one file cannot hold them."""
    large = model.ByteSize() > 2**31 - 2**20
    onnx.save(model, str(path), save_as_external_data=large, location=path.name + ".data")


def _read_by(nodes: Iterable[onnx.NodeProto]) -> set[str]:
    """Tensors that nodes read, those read from inside If and Loop bodies included."""
    out: set[str] = set()
    for n in nodes:
        out.update(n.input)
        for a in n.attribute:
            for g in (*((a.g,) if a.HasField("g") else ()), *a.graphs):
                out |= _read_by(g.node) | {o.name for o in g.output}
    return out


def _keep_float(model: onnx.ModelProto, nodes: set[str]) -> None:
    """Take out Q/DQ pairs at graph outputs, and behind products that nothing int8 reads."""
    graph = model.graph
    outputs = {o.name for o in graph.output}
    made = {t: n for n in graph.node for t in n.output}
    uses: dict[str, list[onnx.NodeProto]] = {}
    for n in graph.node:
        for t in n.input:
            uses.setdefault(t, []).append(n)
    dropped: set[str] = set()
    for dq in graph.node:
        q = made.get(dq.input[0]) if dq.op_type == "DequantizeLinear" else None
        source = made.get(q.input[0]) if q is not None else None
        if q is None or source is None or len(uses[q.output[0]]) != 1:
            continue
        ends = dq.output[0] in outputs
        floats = source.op_type in FLOAT_OUTPUT and not any(
            u.name in nodes for u in uses.get(dq.output[0], [])
        )
        if not (ends or floats) or len(uses[q.input[0]]) != 1 or q.input[0] in outputs:
            continue
        slot = list(source.output).index(q.input[0])
        source.output[slot] = dq.output[0]
        dropped |= {q.output[0], dq.name}
    kept = [n for n in graph.node if n.name not in dropped and not set(n.output) & dropped]
    del graph.node[:]
    graph.node.extend(kept)
    read = _read_by(kept) | outputs
    constants = [i for i in graph.initializer if i.name in read]
    del graph.initializer[:]
    graph.initializer.extend(constants)
