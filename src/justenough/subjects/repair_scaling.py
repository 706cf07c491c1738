"""Repairs that keep the function exactly: channel scale moved from activations into weights.

A scale can be taken out of a channel where whatever makes it has a constant per channel (the
rows of a linear layer, the gain of a normalisation) and only linear layers read it. Between
the two, operators with f(s x) = s f(x) for s > 0 may stand.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from justenough.core.subject import INT8, Site, Variant
from justenough.subjects.onnx_model import shapes_of
from justenough.subjects.repair_graph import Edit, Linear, Wiring, linear_nodes
from justenough.subjects.repair_statistics import Feed, layer_inputs
from justenough.transforms.scaling import equalising_scales, smoothing_scales

Array = NDArray[Any]
# f(s x) = s f(x) for s > 0, each channel on its own.
HOMOGENEOUS = frozenset(
    {"Relu", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool",
     "Identity"}
)  # fmt: skip
FLATTENING = frozenset({"Flatten", "Reshape", "Squeeze"})
PASSES = 20


@dataclass(frozen=True)
class Joint:
    """A tensor whose channels can be rescaled without any other change.

    Attributes:
        tensor: What the layers read.
        maker: The layer behind it, or None where a normalisation makes it.
        readers: The layers that read it, and nothing else does.
        takers: Node, input slot and axis of each constant that is divided by the scale.
    """

    tensor: str
    maker: Linear | None
    readers: tuple[Linear, ...]
    takers: tuple[tuple[str, int, int], ...]


def joints(model: onnx.ModelProto) -> list[Joint]:
    """The tensors of a prepared graph that can be rescaled, in graph order."""
    linears = linear_nodes(model)
    wiring, shapes = Wiring(model.graph), shapes_of(model)
    out = []
    for tensor in dict.fromkeys(x.source for x in linears.values()):
        nodes = wiring.readers[tensor]
        readers = tuple(linears[n.name] for n, slot in nodes if slot == 0 and n.name in linears)
        alone = all(len(wiring.readers[x.weight]) == 1 for x in readers)
        if len(readers) != len(nodes) or tensor in wiring.outputs or not alone:
            continue
        axes = {x.channel_axis for x in readers}
        walk = _Walk(linears, wiring, shapes, readers[0].inputs)
        if len(axes) == 1 and walk.up(tensor, axes.pop()):
            out.append(Joint(tensor, walk.maker, readers, tuple(walk.takers)))
    return out


class _Walk:
    """The way up from a tensor to the constants that can take its scale."""

    def __init__(
        self,
        linears: Mapping[str, Linear],
        wiring: Wiring,
        shapes: Mapping[str, tuple[int, ...]],
        channels: int,
    ) -> None:
        self.linears, self.wiring, self.shapes = linears, wiring, shapes
        self.channels = channels
        self.takers: list[tuple[str, int, int]] = []
        self.maker: Linear | None = None

    def up(self, tensor: str, axis: int) -> bool:
        """Whether the scale of `tensor` along `axis` (from the end) can be taken."""
        node = self.wiring.made.get(tensor)
        if node is None:
            return False
        if node.name in self.linears:
            return self._linear(node, axis)
        if node.op_type in ("LayerNormalization", "BatchNormalization"):
            return self._normalised(node, axis)
        if node.op_type in ("Add", "Mul"):
            return self._by_constant(node, axis)
        if node.op_type in HOMOGENEOUS:
            return self._below(node.input[0], axis)
        if node.op_type in FLATTENING:
            # (n, channels, 1, 1) to (n, channels) keeps the channels apart.
            shape = self.shapes.get(node.input[0], ())
            if axis == -1 and shape[1:2] == (self.channels,) and set(shape[2:]) <= {1}:
                return self._below(node.input[0], 1 - len(shape))
        return False

    def _below(self, tensor: str, axis: int) -> bool:
        return self.wiring.only_reader(tensor) is not None and self.up(tensor, axis)

    def _linear(self, node: onnx.NodeProto, axis: int) -> bool:
        linear = self.linears[node.name]
        alone = len(self.wiring.readers[linear.weight]) == 1
        if linear.channel_axis != axis or linear.outputs != self.channels or not alone:
            return False
        if len(node.input) > 2 and node.input[2]:
            if linear.bias is None:
                return False
            self.takers.append((node.name, 2, -1))
        self.takers.append((node.name, 1, linear.out_axis))
        self.maker = linear
        return True

    def _normalised(self, node: onnx.NodeProto, axis: int) -> bool:
        """Gain and bias of a LayerNormalization or BatchNormalization take the scale."""
        given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "LayerNormalization":
            right = axis == -1 and given.get("axis", -1) in (-1, self._rank(node) - 1)
        else:
            right = axis == 1 - self._rank(node) and not given.get("training_mode", 0)
        slots = [k for k in (1, 2) if k < len(node.input) and node.input[k]]
        if not right or not all(self._vector(node.input[k], -1) for k in slots):
            return False
        self.takers += [(node.name, k, -1) for k in slots]
        return True

    def _rank(self, node: onnx.NodeProto) -> int:
        return len(self.shapes.get(node.input[0], ())) or -1

    def _by_constant(self, node: onnx.NodeProto, axis: int) -> bool:
        """A constant per channel: a factor takes the scale, a summand lets it pass."""
        for slot in (0, 1):
            if self._vector(node.input[slot], axis):
                self.takers.append((node.name, slot, axis))
                return node.op_type == "Mul" or self._below(node.input[1 - slot], axis)
        return False

    def _vector(self, tensor: str, axis: int) -> bool:
        """Whether `tensor` is a constant with one value per channel along `axis`."""
        held = self.wiring.constants.get(tensor)
        if held is None or len(held.dims) < -axis:
            return False
        return bool(held.dims[axis] == self.channels == int(np.prod(held.dims)))


def equalised(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with the weight ranges of neighbouring layers made equal, channel by channel.

    Cross-layer equalisation (Nagel et al. 2019, arXiv:1906.04721, sec. 4.1), repeated over
    all pairs until nothing moves: a layer, operators with f(s x) = s f(x) such as Relu, and
    the layers that alone read it; depthwise chains included. The function stays as it is up
    to float32 rounding. Ranges must be calibrated again.
    """
    edit = Edit(model)
    pairs = [j for j in joints(model) if j.maker is not None]
    for _ in range(PASSES):
        moved = 0.0
        for joint in pairs:
            assert joint.maker is not None
            made = _range_of_rows(joint.maker, edit.weight(joint.maker))
            s = equalising_scales(made, _read_ranges(edit, joint.readers))
            _rescale(edit, joint, s)
            moved = max(moved, float(np.abs(np.log(s)).max(initial=0.0)))
        if moved < 0.01:
            break
    return edit.model


def smoothed(
    model: onnx.ModelProto,
    sites: Iterable[Site],
    variant: Variant,
    feed: Feed,
    *,
    alpha: float = 0.5,
    insert: bool = False,
) -> onnx.ModelProto:
    """A copy with outlier channels of activations moved into the weights that read them.

    SmoothQuant (Xiao et al. 2022, arXiv:2211.10438, eq. 4) at the inputs of the int8 sites of
    `variant`. The layer, normalisation or constant factor that makes a channel takes the
    scale, which costs nothing. The function stays as it is up to float32 rounding. Ranges must
    be calibrated again.

    Args:
        model: Prepared graph.
        sites: Its sites.
        variant: Says which sites go int8.
        feed: Calibration rows.
        alpha: 0 to 1; how much of the range moves into the weights.
        insert: Put a multiplication before layers where nothing else can take the scale,
            which takes time whenever the model runs.
    """
    picked = set(variant.sites(INT8.name))
    chosen = {n for s in sites if s.name in picked for n in s.nodes}
    linears = linear_nodes(model)
    found = [j for j in joints(model) if any(r.node in chosen for r in j.readers)]
    free = {j.tensor for j in found}
    alone = Wiring(model.graph).readers
    others: dict[str, list[Linear]] = {}
    for linear in linears.values():
        wants = insert and linear.node in chosen and linear.source not in free
        if wants and len(alone[linear.weight]) == 1:
            others.setdefault(linear.source, []).append(linear)
    wanted = [j.readers[0] for j in found] + [x[0] for x in others.values()]
    peaks = {key[0]: got.peak for key, got in layer_inputs(model, wanted, feed)}
    edit = Edit(model)
    for joint in found:
        ranges = _read_ranges(edit, joint.readers)
        _rescale(edit, joint, smoothing_scales(peaks[joint.tensor], ranges, alpha=alpha))
    for tensor, readers in others.items():
        s = smoothing_scales(peaks[tensor], _read_ranges(edit, readers), alpha=alpha)
        _insert(edit, tensor, readers, s)
    return edit.model


def _range_of_rows(linear: Linear, weight: Array) -> Array:
    others = tuple(i for i in range(weight.ndim) if i != linear.out_axis)
    return np.asarray(np.abs(weight).max(others, initial=0.0))


def _read_ranges(edit: Edit, readers: Iterable[Linear]) -> Array:
    return np.asarray(np.max([r.input_ranges(edit.weight(r)) for r in readers], 0))


def _rescale(edit: Edit, joint: Joint, s: Array) -> None:
    for node, slot, axis in joint.takers:
        value = edit.constant(node, slot)
        assert value is not None
        shape = [1] * value.ndim
        shape[axis] = -1
        edit.put(node, slot, value / s.reshape(shape))
    for reader in joint.readers:
        edit.replace(reader.weight, reader.scaled_inputs(edit.weight(reader), s))


def _insert(edit: Edit, tensor: str, readers: Iterable[Linear], s: Array) -> None:
    """Divide `tensor` by `s` in a node of its own, for `readers` only."""
    readers = tuple(readers)
    shape = (len(s), *(1,) * (-1 - readers[0].channel_axis))
    factor = edit.add(f"{tensor}/smoothing", (1 / s).reshape(shape))
    made = edit.free_name(f"{tensor}/smoothed")
    node = onnx.helper.make_node("Mul", [tensor, factor], [made], name=made)
    graph = edit.model.graph
    names = {r.node for r in readers}
    first = next(k for k, n in enumerate(graph.node) if n.name in names)
    for n in graph.node:
        if n.name in names:
            n.input[0] = made
    graph.node.insert(first, node)
    for info in (*graph.value_info, *graph.input):
        if info.name == tensor:
            new = graph.value_info.add()
            new.CopyFrom(info)
            new.name = made
            break
    for reader in readers:
        edit.replace(reader.weight, reader.scaled_inputs(edit.weight(reader), s))
