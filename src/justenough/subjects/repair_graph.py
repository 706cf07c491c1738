"""A prepared graph as its linear layers: what feeds them, where their constants are, how to edit.

Nothing here changes a graph that was given: an `Edit` works on a copy.
"""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from justenough.subjects.onnx_model import SITE_OPS

Array = NDArray[Any]
Reader = tuple[onnx.NodeProto, int]
NESTED = -1  # slot of a tensor that is read from inside an If or Loop body


@dataclass(frozen=True)
class Wiring:
    """Who makes and who reads each tensor of a graph, and which tensors are constants."""

    graph: onnx.GraphProto

    @cached_property
    def made(self) -> dict[str, onnx.NodeProto]:
        """Node by the name of each of its outputs."""
        return {t: n for n in self.graph.node for t in n.output if t}

    @cached_property
    def readers(self) -> dict[str, list[Reader]]:
        """Nodes and input slots that read each tensor, bodies of If and Loop included."""
        out: dict[str, list[Reader]] = {}
        for node in self.graph.node:
            for slot, t in enumerate(node.input):
                out.setdefault(t, []).append((node, slot))
            for t in _nested_reads(node):
                out.setdefault(t, []).append((node, NESTED))
        return out

    @cached_property
    def outputs(self) -> set[str]:
        """Names of the graph's outputs."""
        return {o.name for o in self.graph.output}

    @cached_property
    def constants(self) -> dict[str, onnx.TensorProto]:
        """Float32 initializers by name, without those that a caller may override."""
        given = {i.name for i in self.graph.input}
        return {
            i.name: i
            for i in self.graph.initializer
            if i.name not in given and i.data_type == onnx.TensorProto.FLOAT
        }

    def only_reader(self, tensor: str) -> Reader | None:
        """The one node and slot that reads `tensor`, or None if it is seen anywhere else."""
        readers = self.readers.get(tensor, [])
        if len(readers) != 1 or tensor in self.outputs or readers[0][1] == NESTED:
            return None
        return readers[0]


def _nested_reads(node: onnx.NodeProto) -> set[str]:
    out: set[str] = set()
    for a in node.attribute:
        for g in (*((a.g,) if a.HasField("g") else ()), *a.graphs):
            for n in g.node:
                out |= set(n.input) | _nested_reads(n)
            out |= {o.name for o in g.output}
    return out


@dataclass(frozen=True)
class Window:
    """The positions that a convolution looks at, one number per spatial axis.

    Attributes:
        pads: Zeros before each axis and then after each, or an automatic rule by name.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...] | str


@dataclass(frozen=True)
class Linear:
    """A Conv, Gemm or MatMul node with a constant weight, as y = W x for each output position.

    Attributes:
        node: Its name.
        source: The tensor it reads.
        output: The tensor it makes.
        weight: Name of its weight.
        shape: Shape of the weight as stored.
        groups: Groups of a convolution, else 1.
        across: True where the weight is stored (in, out).
        window: Positions of a convolution, else None.
        bias: Node and input slot of its bias, given or free; None where no bias can be put.
    """

    node: str
    source: str
    output: str
    weight: str
    shape: tuple[int, ...]
    groups: int
    across: bool
    window: Window | None
    bias: tuple[str, int] | None

    @property
    def channel_axis(self) -> int:
        """Axis of the channels of its input and of its output, counted from the end."""
        return -1 if self.window is None else -1 - len(self.window.kernel)

    @property
    def out_axis(self) -> int:
        """Axis of the stored weight that runs over the output channels."""
        return 1 if self.across else 0

    @property
    def inputs(self) -> int:
        """Channels of its input."""
        return self.shape[0] if self.across else self.shape[1] * self.groups

    @property
    def outputs(self) -> int:
        """Channels of its output."""
        return self.shape[self.out_axis]

    def rows(self, weight: Array) -> Array:
        """The stored weight as (groups, out / groups, in): a row for each dot product."""
        matrix = weight.T if self.across else weight.reshape(self.outputs, -1)
        return matrix.reshape(self.groups, self.outputs // self.groups, -1)

    def stored(self, rows: Array) -> Array:
        """The inverse of `rows`."""
        matrix = rows.reshape(self.outputs, -1)
        return np.ascontiguousarray(matrix.T if self.across else matrix.reshape(self.shape))

    def input_ranges(self, weight: Array) -> Array:
        """(channels,) max|.| of the weights that read each input channel."""
        if self.across:
            return np.asarray(np.abs(weight).max(1, initial=0.0))
        grouped = np.abs(weight).reshape(self.groups, -1, self.shape[1], int(self._patch))
        return np.asarray(grouped.max((1, 3), initial=0.0).reshape(-1))

    def scaled_inputs(self, weight: Array, by: Array) -> Array:
        """The stored weight with what reads input channel i multiplied by `by[i]`."""
        if self.across:
            return np.asarray(weight * by[:, None])
        grouped = weight.reshape(self.groups, -1, self.shape[1], int(self._patch))
        scaled = grouped * by.reshape(self.groups, 1, self.shape[1], 1)
        return np.asarray(scaled.reshape(self.shape))

    @property
    def _patch(self) -> int:
        return int(np.prod(self.shape[2:], dtype=np.int64))


def linear_nodes(model: onnx.ModelProto) -> dict[str, Linear]:
    """The linear layers of a prepared graph by node name.

    Left out: weights of other ranks than a layer's own, weights that other operators read,
    transposed or scaled Gemm; such nodes stay as they are.
    """
    wiring = Wiring(model.graph)
    found = {}
    for node in model.graph.node:
        if node.op_type in SITE_OPS and node.domain in ("", "ai.onnx") and len(node.input) > 1:
            linear = _linear(node, wiring)
            if linear is not None:
                found[node.name] = linear
    shared: dict[str, int] = {}
    for linear in found.values():
        shared[linear.weight] = shared.get(linear.weight, 0) + 1
    return {
        name: linear
        for name, linear in found.items()
        if shared[linear.weight] == len(wiring.readers[linear.weight])
        and linear.weight not in wiring.outputs
    }


def _linear(node: onnx.NodeProto, wiring: Wiring) -> Linear | None:
    weight = wiring.constants.get(node.input[1])
    if weight is None or node.input[0] in wiring.constants:
        return None
    shape = tuple(weight.dims)
    given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    groups, across, window = 1, True, None
    if node.op_type == "Conv":
        if len(shape) < 3:
            return None
        groups, across, window = given.get("group", 1), False, _window(shape[2:], given)
    elif len(shape) != 2:
        return None
    elif node.op_type == "Gemm":
        if given.get("transA", 0) or given.get("alpha", 1.0) != 1 or given.get("beta", 1.0) != 1:
            return None
        across = not given.get("transB", 0)
    if 0 in shape:
        return None
    plain = Linear(
        node.name, node.input[0], node.output[0], weight.name, shape, groups, across, window, None
    )
    return replace(plain, bias=_bias(node, plain.outputs, wiring))


def _window(kernel: tuple[int, ...], given: Mapping[str, Any]) -> Window:
    ones = (1,) * len(kernel)
    rule = given.get("auto_pad", b"NOTSET").decode()
    pads = tuple(given.get("pads", (0,) * 2 * len(kernel)))
    return Window(
        kernel,
        tuple(given.get("strides", ones)),
        tuple(given.get("dilations", ones)),
        {"NOTSET": pads, "VALID": (0,) * 2 * len(kernel)}.get(rule, rule),
    )


def _bias(node: onnx.NodeProto, size: int, wiring: Wiring) -> tuple[str, int] | None:
    """Where a bias (size,) is or can be put: an input of the node, or of the Add behind it."""
    if node.op_type != "MatMul":
        if len(node.input) < 3 or not node.input[2]:
            return node.name, 2
        held = wiring.constants.get(node.input[2])
        return (node.name, 2) if held is not None and tuple(held.dims) == (size,) else None
    reader = wiring.only_reader(node.output[0])
    if reader is None or reader[0].op_type != "Add":
        return None
    slot = 1 - reader[1]
    held = wiring.constants.get(reader[0].input[slot])
    return (reader[0].name, slot) if held is not None and tuple(held.dims) == (size,) else None


class Edit:
    """A copy of a model in which constants are replaced."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = copy.deepcopy(model)
        self.wiring = Wiring(self.model.graph)
        self._node = {n.name: n for n in self.model.graph.node}
        self._stored = {i.name: i for i in self.model.graph.initializer}
        self._names = {*self._stored, *self.wiring.readers, *self.wiring.made}

    def constant(self, node: str, slot: int) -> Array | None:
        """The float32 constant at an input of a node, or None where there is none."""
        inputs = self._node[node].input
        held = self._stored.get(inputs[slot]) if slot < len(inputs) else None
        return None if held is None else numpy_helper.to_array(held)

    def weight(self, linear: Linear) -> Array:
        """The weight of a layer, as stored."""
        return numpy_helper.to_array(self._stored[linear.weight])

    def replace(self, name: str, value: Array) -> None:
        """Store `value` as the constant `name`, for all that read it."""
        new = numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name)
        self._stored[name].CopyFrom(new)

    def put(self, node: str, slot: int, value: Array) -> None:
        """Give one input of a node a constant of its own, whoever else reads the old one."""
        inputs = self._node[node].input
        name = inputs[slot] if slot < len(inputs) else ""
        if name and len(self.wiring.readers[name]) == 1 and name not in self.wiring.outputs:
            self.replace(name, value)
            return
        new = self.add(f"{node}/{slot}", value)
        inputs.extend([""] * (slot + 1 - len(inputs)))
        inputs[slot] = new
        self.wiring.readers[new] = [(self._node[node], slot)]
        if name:
            left = [r for r in self.wiring.readers[name] if r != (self._node[node], slot)]
            self.wiring.readers[name] = left

    def add(self, name: str, value: Array) -> str:
        """Store a new constant under `name` or the next free one like it, and say which."""
        name = self.free_name(name)
        new = numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name)
        self.model.graph.initializer.append(new)
        self._stored[name] = self.model.graph.initializer[-1]
        return name

    def free_name(self, name: str) -> str:
        """`name`, with a number behind it where the graph has one of that name."""
        free, k = name, 1
        while free in self._names:
            free, k = f"{name}_{k}", k + 1
        self._names.add(free)
        return free


def of_sites(linears: Mapping[str, Linear], nodes: Iterable[str]) -> list[Linear]:
    """The layers among `nodes`, in order."""
    return [linears[n] for n in nodes if n in linears]
