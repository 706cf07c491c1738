"""The nodes that stand for a Conv, MatMul or Gemm under a local choice."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from justenough.formats.floats import BF16
from justenough.formats.packing import pack
from justenough.subjects.prepare import MICROSOFT
from justenough.transforms.gptq import BlockCodes

Array = NDArray[Any]
Nodes = Sequence[onnx.NodeProto]
Replaced = dict[str, list[onnx.NodeProto]]
FLOAT, FLOAT16 = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
# Lets MatMulNBits round activations to int8: it is then faster, and without it 8- and 2-bit
# weights are widened in every call.
ACCURACY_LEVEL = 4


def attribute(node: onnx.NodeProto, name: str, default: float) -> float:
    """A number among the attributes of `node`."""
    for a in node.attribute:
        if a.name == name:
            return float(helper.get_attribute_value(a))
    return default


def transposed(node: onnx.NodeProto) -> bool:
    """Whether the weight of a MatMul or Gemm lies as (out, in)."""
    return node.op_type == "Gemm" and bool(attribute(node, "transB", 0))


def rows_of_weight(node: onnx.NodeProto, weight: onnx.TensorProto) -> Array:
    """The weight of a node as (out, in), or (out channels, all that each holds) of a Conv."""
    value = numpy_helper.to_array(weight)
    if node.op_type == "Conv":
        return value.reshape(len(value), -1)
    return value if transposed(node) else np.ascontiguousarray(value.T)


def read_in(graph: onnx.GraphProto) -> set[str]:
    """Tensors that nodes read, those inside the bodies of If and Loop included."""
    out = {t for n in graph.node for t in n.input}
    for a in (a for n in graph.node for a in n.attribute):
        for g in (*((a.g,) if a.HasField("g") else ()), *a.graphs):
            out |= read_in(g) | {o.name for o in g.output}
    return out


@dataclass(frozen=True)
class Writer:
    """Adds constants and nodes under names that nothing else has.

    Attributes:
        graph: Where constants go.
        taken: Names in use; grows.
    """

    graph: onnx.GraphProto
    taken: set[str]

    def name(self, stem: str) -> str:
        """A new name that begins with `stem`."""
        out, k = stem, 1
        while out in self.taken:
            out, k = f"{stem}_{k}", k + 1
        self.taken.add(out)
        return out

    def constant(self, value: Array, stem: str, kind: int | None = None) -> str:
        """Add a constant; of element type `kind` where NumPy has no such type."""
        tensor = numpy_helper.from_array(np.ascontiguousarray(value), self.name(stem))
        if kind is not None:
            tensor.data_type = kind
        self.graph.initializer.append(tensor)
        return str(tensor.name)

    def node(self, op: str, inputs: Sequence[str], stem: str, **attributes: Any) -> onnx.NodeProto:
        """A new node with one output, both under a name that begins with `stem`."""
        name = self.name(stem)
        return helper.make_node(op, inputs, [name], name, **attributes)


def stored_narrow(nodes: Nodes, weight: onnx.TensorProto, choice: str, write: Writer) -> Replaced:
    """Keep the weight in 16 bits behind a Cast, which the runtime folds when it loads the file."""
    stem = f"{weight.name}/{choice}"
    wide = write.node("Cast", [_narrow(weight, choice, write)], f"{stem}/wide", to=FLOAT)
    return _reading(nodes, weight, [wide])


def computed_narrow(
    nodes: Nodes, weight: onnx.TensorProto, choice: str, write: Writer
) -> Replaced:
    """Compute in fp16 between conversions of everything that goes in and out."""
    stored = _narrow(weight, choice, write)
    out: Replaced = {}
    for n in nodes:
        casts = {
            t: write.node("Cast", [t], f"{n.name}/{choice}", to=FLOAT16)
            for t in dict.fromkeys(n.input)
            if t not in ("", weight.name)
        }
        names = {t: c.output[0] for t, c in casts.items()} | {"": "", weight.name: stored}
        half = _with(n, [names[t] for t in n.input])
        half.output[0] = write.name(f"{n.name}/{choice}/y")
        wide = helper.make_node(
            "Cast", list(half.output), list(n.output), half.output[0], to=FLOAT
        )
        out[n.name] = [*casts.values(), half, wide]
    return out


def _narrow(weight: onnx.TensorProto, choice: str, write: Writer) -> str:
    value, stem = numpy_helper.to_array(weight), f"{weight.name}/{choice}"
    if choice.startswith("bf16"):
        return write.constant(BF16.encode(value).codes, stem, onnx.TensorProto.BFLOAT16)
    return write.constant(value.astype(np.float16), stem)


def _with(node: onnx.NodeProto, inputs: Sequence[str]) -> onnx.NodeProto:
    out = copy.deepcopy(node)
    out.input[:] = inputs
    return out


def _reading(nodes: Nodes, weight: onnx.TensorProto, made: Sequence[onnx.NodeProto]) -> Replaced:
    """The nodes with what the last of `made` gives as their weight."""
    name, out = made[-1].output[0], Replaced()
    for n in nodes:
        changed = _with(n, [name if t == weight.name else t for t in n.input])
        out[n.name] = [*(() if out else made), changed]
    return out


def widened_codes(
    nodes: Nodes, weight: onnx.TensorProto, codes: BlockCodes, choice: str, write: Writer
) -> Replaced:
    """Keep a Conv's weight as int8 behind Cast and Mul, which the runtime folds at load.

    A DequantizeLinear it would keep, and compute in every call.
    """
    dims, stem = tuple(weight.dims), f"{weight.name}/{choice}"
    each = (dims[0], *(1 for _ in dims[1:]))
    c = write.constant(_centred(codes).reshape(dims), f"{stem}/codes")
    s = write.constant(codes.scales.reshape(each), f"{stem}/scale")
    cast = write.node("Cast", [c], f"{stem}/float", to=FLOAT)
    wide = write.node("Mul", [cast.output[0], s], f"{stem}/wide")
    return _reading(nodes, weight, [cast, wide])


def dynamic_int8(
    nodes: Nodes, weight: onnx.TensorProto, codes: BlockCodes, choice: str, write: Writer
) -> Replaced:
    """The pattern of dynamic quantization that ONNX Runtime fuses into one or two kernels."""
    stem, alpha = f"{weight.name}/{choice}", np.float32(attribute(nodes[0], "alpha", 1.0))
    c = write.constant(_centred(codes).T, f"{stem}/codes")
    s = write.constant(codes.scales[:, 0] * alpha, f"{stem}/scale")
    out: Replaced = {}
    for n in nodes:
        x = [write.name(f"{n.name}/x_{part}") for part in ("codes", "scale", "zero")]
        quantize = helper.make_node("DynamicQuantizeLinear", [n.input[0]], x, x[0])
        total = write.name(f"{n.name}/total")
        product = helper.make_node("MatMulInteger", [x[0], c, x[2]], [total], n.name)
        wide = write.node("Cast", [total], f"{n.name}/wide", to=FLOAT)
        scale = write.node("Mul", [x[1], s], f"{n.name}/scale")
        y = helper.make_node(
            "Mul",
            [wide.output[0], scale.output[0]],
            list(n.output),
            write.name(f"{n.name}/scaled"),
        )
        out[n.name] = _plus_bias(n, [quantize, product, wide, scale, y], write)
    return out


def _centred(codes: BlockCodes) -> NDArray[np.int8]:
    return (codes.codes.astype(np.int16) - 128).astype(np.int8)


def block_codes(
    nodes: Nodes,
    weight: onnx.TensorProto,
    codes: BlockCodes,
    choice: str,
    write: Writer,
    *,
    bits: int,
    block: int,
) -> Replaced:
    """A MatMulNBits for each node, on the same constants."""
    stem, alpha = f"{weight.name}/{choice}", np.float32(attribute(nodes[0], "alpha", 1.0))
    out_width, width = codes.codes.shape
    zeros = codes.zero_points
    padded = np.repeat(zeros, block, 1)  # what fills the last block stands for 0
    padded[:, :width] = codes.codes
    blob = pack(padded, bits).reshape(out_width, zeros.shape[1], -1)
    # The zeros of every output begin a byte of their own.
    even = np.pad(zeros, ((0, 0), (0, -zeros.shape[1] % (8 // bits))))
    constants = [
        write.constant(blob, f"{stem}/codes"),
        write.constant(codes.scales * alpha, f"{stem}/scale"),
        write.constant(pack(even, bits).reshape(out_width, -1), f"{stem}/zero"),
    ]
    out: Replaced = {}
    for n in nodes:
        product = helper.make_node(
            "MatMulNBits",
            [n.input[0], *constants],
            list(n.output),
            n.name,
            domain=MICROSOFT,
            K=width,
            N=out_width,
            bits=bits,
            block_size=block,
            accuracy_level=ACCURACY_LEVEL,
        )
        out[n.name] = _plus_bias(n, [product], write)
    return out


def _plus_bias(
    node: onnx.NodeProto, product: Sequence[onnx.NodeProto], write: Writer
) -> list[onnx.NodeProto]:
    """Add beta * C behind the product that stands for a Gemm."""
    out, beta = list(product), attribute(node, "beta", 1.0)
    if node.op_type != "Gemm" or len(node.input) < 3 or not node.input[2] or beta == 0:
        return out
    bias = node.input[2]
    out[-1].output[0] = write.name(f"{node.name}/product")
    inputs = [out[-1].output[0], bias]
    if beta != 1:
        factor = write.constant(np.array(beta, np.float32), f"{node.name}/beta")
        out.append(write.node("Mul", [bias, factor], f"{node.name}/bias"))
        inputs[1] = out[-1].output[0]
    out.append(helper.make_node("Add", inputs, list(node.output), write.name(f"{node.name}/y")))
    return out
