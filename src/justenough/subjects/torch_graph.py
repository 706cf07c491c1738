"""A small interpreter of ONNX graphs in PyTorch, so that gradients can be taken."""

import functools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F  # noqa: N812  (the name that every PyTorch reader knows)
from onnx import helper, numpy_helper
from torch import Tensor

from justenough.errors import JustEnoughError


class UnsupportedOperator(JustEnoughError):  # noqa: N818
    """The graph holds an operator, or a form of one, that has no translation to PyTorch."""


Attributes = Mapping[str, Any]
Operation = Callable[[list[Any], Attributes], Any]  # inputs, None where left out -> output(s)
DTYPES = {
    np.dtype(n): getattr(torch, n)
    for n in ("float16", "float32", "float64", "uint8", "int8", "int16", "int32", "int64", "bool")
}


@dataclass(frozen=True)
class Node:
    """One operation of a graph: its names, its attributes and what computes it."""

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Attributes
    operation: Operation

    def apply(self, values: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Outputs of the node, given the tensors that it reads, by name.

        Raises:
            UnsupportedOperator: An attribute has no translation, or PyTorch refuses the inputs.
        """
        try:
            out = self.operation([values[t] if t else None for t in self.inputs], self.attributes)
        except (TypeError, ValueError, RuntimeError, NotImplementedError, LookupError) as e:
            why = (str(e).strip() or type(e).__name__).splitlines()[0][:200]
            raise UnsupportedOperator(
                f"operator {self.op!r} of node {self.name!r} does not run in PyTorch: {why}"
            ) from e
        return tuple(out) if isinstance(out, list | tuple) else (out,)


@dataclass(frozen=True)
class TorchGraph:
    """An ONNX graph whose nodes run in PyTorch, differentiably.

    Attributes:
        nodes: In the order in which they run.
        constants: Initializers by name; nothing writes them.
        outputs: Names of the graph's outputs.
    """

    nodes: tuple[Node, ...]
    constants: Mapping[str, Tensor]
    outputs: tuple[str, ...]

    def run(
        self, inputs: Mapping[str, Tensor], *, keep: Collection[str] = (), watch: bool = False
    ) -> dict[str, Tensor]:
        """Run on `inputs` by name and return outputs and the tensors named in `keep`.

        With `watch`, the float tensors of `keep` take part in the gradient even where nothing
        before them does: behind integer inputs a graph has no other place to start from.
        Tensors that nobody reads any more are let go.

        Raises:
            UnsupportedOperator: A node does not run in PyTorch.
        """
        kept = {*keep, *self.outputs}
        last = {t: i for i, node in enumerate(self.nodes) for t in node.inputs}
        values: dict[str, Tensor] = dict(self.constants)

        def put(name: str, value: Tensor) -> None:
            watched = watch and name in keep and value.is_floating_point()
            start = watched and not value.requires_grad
            values[name] = value.detach().requires_grad_() if start else value

        for name, value in inputs.items():
            put(name, value)
        with torch.set_grad_enabled(watch):
            for i, node in enumerate(self.nodes):
                for name, value in zip(node.outputs, node.apply(values), strict=False):
                    put(name, value)
                for t in {*node.inputs, *node.outputs} - kept:
                    if last.get(t, -1) <= i and t not in self.constants:
                        values.pop(t, None)
        return {t: values[t] for t in kept if t in values}


def torch_graph(model: onnx.ModelProto) -> TorchGraph:
    """Translate `model`, whose weights are loaded, into a graph that PyTorch runs.

    Raises:
        UnsupportedOperator: Names the first operator that has no translation.
    """
    nodes = tuple(_node(n) for n in model.graph.node)
    constants = {i.name: _tensor(i) for i in model.graph.initializer}
    return TorchGraph(nodes, constants, tuple(o.name for o in model.graph.output))


def _node(node: onnx.NodeProto) -> Node:
    table = {"": OPERATIONS, "ai.onnx": OPERATIONS, "com.microsoft": CONTRIBUTED}
    operation = table.get(node.domain, {}).get(node.op_type)
    if operation is None:
        op = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        raise UnsupportedOperator(
            f"operator {op!r} of node {node.name!r} has no translation to PyTorch; "
            "measure its sites one at a time in ONNX Runtime"
        )
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    attributes = {k: v.decode() if isinstance(v, bytes) else v for k, v in attributes.items()}
    attributes["outputs"] = len(node.output)
    return Node(
        node.name, node.op_type, tuple(node.input), tuple(node.output), attributes, operation
    )


def _tensor(proto: onnx.TensorProto) -> Tensor:
    return torch.from_numpy(np.array(numpy_helper.to_array(proto)))  # a copy PyTorch may own


def _at(x: Sequence[Any], i: int) -> Any:
    return x[i] if len(x) > i else None


def _listed(x: list[Any], a: Attributes, name: str, i: int) -> list[int] | None:
    """An integer list that older operator sets keep as attribute, newer ones as input `i`."""
    given = _at(x, i)
    if given is not None:
        return [int(v) for v in given.reshape(-1).tolist()]
    return list(a[name]) if name in a else None


# -- windows: convolution and pooling --------------------------------------------------------


def _pads(a: Attributes, size: Sequence[int], kernel: Sequence[int]) -> list[tuple[int, int]]:
    """Begin and end padding of each spatial axis."""
    d = len(kernel)
    auto = a.get("auto_pad", "NOTSET")
    if auto == "NOTSET":
        flat = a.get("pads", [0] * (2 * d))
        return [(flat[i], flat[i + d]) for i in range(d)]
    if auto == "VALID":
        return [(0, 0)] * d
    out = []
    for n, k, s, r in zip(size, kernel, *_steps(a, d), strict=True):
        total = max((-(-n // s) - 1) * s + (k - 1) * r + 1 - n, 0)
        small = total // 2
        out.append((small, total - small) if auto == "SAME_UPPER" else (total - small, small))
    return out


def _steps(a: Attributes, d: int) -> tuple[list[int], list[int]]:
    return a.get("strides", [1] * d), a.get("dilations", [1] * d)


def _padded(x: Tensor, pads: list[tuple[int, int]], value: float) -> Tensor:
    flat = [p for pair in reversed(pads) for p in pair]
    return F.pad(x, flat, value=value) if any(flat) else x


def _conv(x: list[Any], a: Attributes) -> Any:
    w = x[1]
    d = w.ndim - 2
    strides, dilations = _steps(a, d)
    pads = _pads(a, x[0].shape[2:], w.shape[2:])
    even = all(b == e for b, e in pads)
    data = x[0] if even else _padded(x[0], pads, 0.0)
    conv: Any = (F.conv1d, F.conv2d, F.conv3d)[d - 1]
    pad = [b for b, _ in pads] if even else 0
    return conv(data, w, _at(x, 2), strides, pad, dilations, a.get("group", 1))


def _conv_transpose(x: list[Any], a: Attributes) -> Any:
    w = x[1]
    d = w.ndim - 2
    strides, dilations = _steps(a, d)
    pads = _pads(a, x[0].shape[2:], w.shape[2:])
    automatic = "output_shape" in a or a.get("auto_pad", "NOTSET") != "NOTSET"
    if automatic or any(b != e for b, e in pads):
        raise NotImplementedError("uneven or automatic padding")
    conv: Any = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[d - 1]
    pad, extra = [b for b, _ in pads], a.get("output_padding", [0] * d)
    return conv(x[0], w, _at(x, 2), strides, pad, extra, a.get("group", 1), dilations)


def _max_pool(x: list[Any], a: Attributes) -> Any:
    if a["outputs"] > 1:
        raise NotImplementedError("the indices output")
    kernel = a["kernel_shape"]
    strides, dilations = _steps(a, len(kernel))
    pads = _pads(a, x[0].shape[2:], kernel)
    native = all(b == e <= k // 2 for (b, e), k in zip(pads, kernel, strict=True))
    data = x[0] if native else _padded(x[0], pads, -math.inf)
    pool: Any = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[len(kernel) - 1]
    pad = [b for b, _ in pads] if native else 0
    return pool(data, kernel, strides, pad, dilations, bool(a.get("ceil_mode", 0)))


def _average_pool(x: list[Any], a: Attributes) -> Any:
    kernel = a["kernel_shape"]
    strides, dilations = _steps(a, len(kernel))
    if any(r != 1 for r in dilations):
        raise NotImplementedError("dilations")
    pads = _pads(a, x[0].shape[2:], kernel)
    counted, ceil = bool(a.get("count_include_pad", 0)), bool(a.get("ceil_mode", 0))
    pool: Any = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[len(kernel) - 1]
    if all(b == e <= k // 2 for (b, e), k in zip(pads, kernel, strict=True)):
        return pool(x[0], kernel, strides, [b for b, _ in pads], ceil, counted)
    if ceil:
        raise NotImplementedError("ceil_mode with uneven padding")
    out = pool(_padded(x[0], pads, 0.0), kernel, strides)
    inside = _padded(torch.ones_like(x[0]), pads, float(counted))
    return out / pool(inside, kernel, strides)


def _resize(x: list[Any], a: Attributes) -> Any:
    data = x[0]
    sizes, scales = _at(x, 3), _at(x, 2)
    if sizes is not None and sizes.numel():
        size = [int(v) for v in sizes.tolist()]
    else:
        size = [math.floor(n * s) for n, s in zip(data.shape, scales.tolist(), strict=True)]
    if tuple(size[:2]) != tuple(data.shape[:2]) or a.get("antialias") or "axes" in a:
        raise NotImplementedError("resizing of batch or channels, antialias or axes")
    where = a.get("coordinate_transformation_mode", "half_pixel")
    mode, rounding = a.get("mode", "nearest"), a.get("nearest_mode", "round_prefer_floor")
    whole = all(n % m == 0 for n, m in zip(size[2:], data.shape[2:], strict=True))
    if mode == "nearest" and (whole or (where, rounding) == ("asymmetric", "floor")):
        return F.interpolate(data, size[2:], mode="nearest")
    if mode == "linear" and where in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        linear = ("linear", "bilinear", "trilinear")[data.ndim - 3]
        return F.interpolate(data, size[2:], mode=linear, align_corners=where == "align_corners")
    raise NotImplementedError(f"mode {mode}, {where}, {rounding}")


# -- products and normalizations -------------------------------------------------------------


def _gemm(x: list[Any], a: Attributes) -> Any:
    left = x[0].T if a.get("transA") else x[0]
    right = x[1].T if a.get("transB") else x[1]
    out = left @ right if a.get("alpha", 1.0) == 1.0 else left @ right * a["alpha"]
    return out if _at(x, 2) is None else out + x[2] * a.get("beta", 1.0)


def _layer_norm(x: list[Any], a: Attributes) -> Any:
    if a["outputs"] > 1:
        raise NotImplementedError("the mean output")
    shape = x[0].shape[a.get("axis", -1) % x[0].ndim :]
    return F.layer_norm(x[0], shape, x[1], _at(x, 2), a.get("epsilon", 1e-5))


def _skip_layer_norm(x: list[Any], a: Attributes) -> list[Any]:
    total = x[0] + x[1] + (0.0 if _at(x, 4) is None else x[4])
    shape = x[2].shape
    out = F.layer_norm(total, shape, x[2], _at(x, 3), a.get("epsilon", 1e-12))
    return [out, None, None, total][: a["outputs"]]


def _batch_norm(x: list[Any], a: Attributes) -> Any:
    if a.get("training_mode"):
        raise NotImplementedError("training mode")
    return F.batch_norm(x[0], x[3], x[4], x[1], x[2], eps=a.get("epsilon", 1e-5))


def _group_norm(x: list[Any], a: Attributes) -> Any:
    groups, channels = a["num_groups"], x[0].shape[1]
    # Operator set 18 holds one scale for a group, 21 one for a channel.
    scale, bias = (p.repeat_interleave(channels // len(p)) for p in x[1:3])
    return F.group_norm(x[0], groups, scale, bias, a.get("epsilon", 1e-5))


def _instance_norm(x: list[Any], a: Attributes) -> Any:
    return F.instance_norm(x[0], weight=x[1], bias=x[2], eps=a.get("epsilon", 1e-5))


# -- reductions and shapes -------------------------------------------------------------------


def _reduce(reduce: Callable[..., Tensor]) -> Operation:
    def apply(x: list[Any], a: Attributes) -> Tensor:
        axes = _listed(x, a, "axes", 1)
        if not axes:
            axes = [] if a.get("noop_with_empty_axes") else list(range(x[0].ndim))
        return reduce(x[0], dim=axes, keepdim=bool(a.get("keepdims", 1))) if axes else x[0]

    return apply


def _split(x: list[Any], a: Attributes) -> list[Tensor]:
    axis = a.get("axis", 0)
    sizes = _listed(x, a, "split", 1)
    if sizes is None:
        sizes = -(-x[0].shape[axis] // a["outputs"])
    return list(torch.split(x[0], sizes, axis))


def _slice(x: list[Any], a: Attributes) -> Any:
    out: Tensor = x[0]
    starts, ends = (_listed(x, a, n, i) or [] for i, n in ((1, "starts"), (2, "ends")))
    axes = _listed(x, a, "axes", 3) or list(range(len(starts)))
    steps = _listed(x, a, "steps", 4) or [1] * len(starts)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        picked = range(*slice(start, end, step).indices(out.shape[axis]))
        if step == 1:
            out = out.narrow(axis, picked.start, len(picked))
        else:
            out = out.index_select(axis, torch.tensor(list(picked), dtype=torch.int64))
    return out


def _gather(x: list[Any], a: Attributes) -> Any:
    data, at = x[0], x[1].long()
    axis = a.get("axis", 0) % data.ndim
    at = torch.where(at < 0, at + data.shape[axis], at)
    picked = data.index_select(axis, at.reshape(-1))
    return picked.reshape(data.shape[:axis] + at.shape + data.shape[axis + 1 :])


def _reshape(x: list[Any], a: Attributes) -> Any:
    want = x[1].tolist()
    if not a.get("allowzero"):
        want = [x[0].shape[i] if n == 0 else n for i, n in enumerate(want)]
    return x[0].reshape(want)


def _flatten(x: list[Any], a: Attributes) -> Any:
    axis = a.get("axis", 1)
    axis = axis + x[0].ndim if axis < 0 else axis
    return x[0].reshape(math.prod(x[0].shape[:axis]), -1)


def _squeeze(x: list[Any], a: Attributes) -> Any:
    axes = _listed(x, a, "axes", 1)
    return x[0].squeeze() if axes is None else x[0].squeeze(axes)


def _unsqueeze(x: list[Any], a: Attributes) -> Any:
    axes = _listed(x, a, "axes", 1) or []
    places = sorted(i % (x[0].ndim + len(axes)) for i in axes)
    return functools.reduce(torch.unsqueeze, places, x[0])


def _pad(x: list[Any], a: Attributes) -> Any:
    data: Tensor = x[0]
    flat = _listed(x, a, "pads", 1) or []
    axes = _listed(x, a, "axes", 3) or list(range(data.ndim))
    pairs = [(0, 0)] * data.ndim
    for i, axis in enumerate(axes):
        pairs[axis] = (flat[i], flat[i + len(axes)])
    mode: str = a.get("mode", "constant")
    if mode == "constant":
        return _padded(data, pairs, 0 if _at(x, 2) is None else x[2].item())
    if any(p != (0, 0) for p in pairs[:2]):
        raise NotImplementedError(f"mode {mode} on batch or channels")
    ends = [p for pair in reversed(pairs[2:]) for p in pair]
    return F.pad(data, ends, "replicate" if mode == "edge" else mode)


def _constant(x: list[Any], a: Attributes) -> Any:
    if "value" in a:
        return _tensor(a["value"])
    for name, dtype in (("value_float", torch.float32), ("value_int", torch.int64)):
        if name in a or name + "s" in a:
            return torch.tensor(a.get(name, a.get(name + "s")), dtype=dtype)
    raise NotImplementedError("a constant that is no number")


def _constant_of_shape(x: list[Any], a: Attributes) -> Any:
    value = _tensor(a["value"]) if "value" in a else torch.zeros(1)
    return value.reshape(()).expand(x[0].tolist()).clone()


def _cumsum(x: list[Any], a: Attributes) -> Any:
    axis = int(x[1])
    data = x[0].flip(axis) if a.get("reverse") else x[0]
    out: Tensor = data.cumsum(axis)
    out = out - data if a.get("exclusive") else out
    return out.flip(axis) if a.get("reverse") else out


def _div(x: list[Any], a: Attributes) -> Any:
    return torch.div(*x, rounding_mode=None if x[0].is_floating_point() else "trunc")


def _clip(x: list[Any], a: Attributes) -> Any:
    return torch.clamp(x[0], _at(x, 1), _at(x, 2)) if len(x) > 1 else x[0]


def _expand(x: list[Any], a: Attributes) -> Any:
    want = x[1].tolist()
    shape = [1] * (len(want) - x[0].ndim) + list(x[0].shape)
    want = [1] * (len(shape) - len(want)) + want
    return x[0].expand([max(n, w) if w else 0 for n, w in zip(shape, want, strict=True)])


def _range(x: list[Any], a: Attributes) -> Any:
    return torch.arange(*(v.item() for v in x), dtype=x[0].dtype)


def _trilu(x: list[Any], a: Attributes) -> Any:
    keep = torch.triu if a.get("upper", 1) else torch.tril
    return keep(x[0], 0 if _at(x, 1) is None else int(x[1]))


def _each(f: Callable[..., Any]) -> Operation:
    """An operator without attributes, input by input."""
    return lambda x, a: f(*x)


# Operators that are one function of PyTorch.
PLAIN = """
MatMul=matmul Relu=relu Sigmoid=sigmoid Tanh=tanh Erf=erf Sqrt=sqrt Reciprocal=reciprocal Neg=neg
Abs=abs Exp=exp Log=log Floor=floor Ceil=ceil Round=round Sign=sign Sin=sin Cos=cos IsNaN=isnan
Add=add Sub=sub Mul=mul Where=where Equal=eq Less=lt LessOrEqual=le Greater=gt GreaterOrEqual=ge
Not=logical_not And=logical_and Or=logical_or
"""

OPERATIONS: dict[str, Operation] = {
    **{op: _each(getattr(torch, f)) for op, f in (pair.split("=") for pair in PLAIN.split())},
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "Einsum": lambda x, a: torch.einsum(a["equation"], *x),
    "LeakyRelu": lambda x, a: F.leaky_relu(x[0], a.get("alpha", 0.01)),
    "PRelu": lambda x, a: torch.where(x[0] < 0, x[0] * x[1], x[0]),
    "Elu": lambda x, a: F.elu(x[0], a.get("alpha", 1.0)),
    "Softplus": _each(lambda x: torch.logaddexp(x, torch.zeros_like(x))),
    "Clip": _clip,
    "Gelu": lambda x, a: F.gelu(x[0], approximate=a.get("approximate", "none")),
    "HardSigmoid": lambda x, a: (a.get("alpha", 0.2) * x[0] + a.get("beta", 0.5)).clamp(0, 1),
    "HardSwish": _each(F.hardswish),
    "Softmax": lambda x, a: torch.softmax(x[0], a.get("axis", -1)),
    "LogSoftmax": lambda x, a: torch.log_softmax(x[0], a.get("axis", -1)),
    "LayerNormalization": _layer_norm,
    "BatchNormalization": _batch_norm,
    "GroupNormalization": _group_norm,
    "InstanceNormalization": _instance_norm,
    "Div": _div,
    "Pow": _each(lambda x, power: torch.pow(x, power).to(x.dtype)),
    "Min": _each(lambda *x: functools.reduce(torch.minimum, x)),
    "Max": _each(lambda *x: functools.reduce(torch.maximum, x)),
    "Sum": _each(lambda *x: functools.reduce(torch.add, x)),
    "ReduceMean": _reduce(torch.mean),
    "ReduceSum": _reduce(torch.sum),
    "ReduceMax": _reduce(torch.amax),
    "ReduceMin": _reduce(torch.amin),
    "ReduceL2": _reduce(torch.linalg.vector_norm),
    "GlobalAveragePool": _each(lambda x: x.mean(tuple(range(2, x.ndim)), keepdim=True)),
    "GlobalMaxPool": _each(lambda x: x.amax(tuple(range(2, x.ndim)), keepdim=True)),
    "AveragePool": _average_pool,
    "MaxPool": _max_pool,
    "Concat": lambda x, a: torch.cat(x, a["axis"]),
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Transpose": lambda x, a: x[0].permute(a.get("perm", tuple(range(x[0].ndim))[::-1])),
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Expand": _expand,
    "Tile": _each(lambda x, times: x.repeat(times.tolist())),
    "Shape": lambda x, a: torch.tensor(x[0].shape[a.get("start", 0) : a.get("end")]),
    "ConstantOfShape": _constant_of_shape,
    "Constant": _constant,
    "Cast": lambda x, a: x[0].to(DTYPES[helper.tensor_dtype_to_np_dtype(a["to"])]),
    "Identity": _each(lambda x: x),
    "Dropout": lambda x, a: x[0],
    "Range": _range,
    "Pad": _pad,
    "Resize": _resize,
    "CumSum": _cumsum,
    "ArgMax": lambda x, a: x[0].argmax(a.get("axis", 0), keepdim=bool(a.get("keepdims", 1))),
    "Trilu": _trilu,
}

CONTRIBUTED: dict[str, Operation] = {
    "Gelu": _each(F.gelu),
    "QuickGelu": lambda x, a: x[0] * torch.sigmoid(a.get("alpha", 1.702) * x[0]),
    "SkipLayerNormalization": _skip_layer_norm,
}
