"""What weights stored in fewer bits do to the answers, from gradients: every choice in one go.

The change by a weight's error is its product with the gradient of the weight, which is the
same for all choices.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from justenough.core.subject import Site
from justenough.subjects.local_choices import FORMS, LINEAR, block_of, rounded_weight
from justenough.subjects.torch_graph import Node, TorchGraph

# Values of weight gradients (rows, weights) held at once.
GRADIENTS_AT_ONCE = 1 << 24


@dataclass(frozen=True)
class Stored:
    """What local choices at one site change: its weight, and what it reads in 8 bits.

    Attributes:
        nodes: The site's nodes, in order.
        weight: Name of the weight that they share.
        product: Whether each is x @ W, or W turned, on rows of x.
        choices: Names.
        errors: (choices, *shape of the weight) what each adds to it, over its `peaks`; in 16
            bits, for all of them together are many times the model.
        peaks: (choices,).
    """

    nodes: tuple[Node, ...]
    weight: str
    product: bool
    choices: tuple[str, ...]
    errors: Tensor
    peaks: Tensor

    @property
    def changed(self) -> set[str]:
        """Tensors whose gradients `changes` reads."""
        return {n.outputs[0] for n in self.nodes}

    @property
    def needed(self) -> set[str]:
        """Tensors that `changes` reads."""
        return self.changed | {t for n in self.nodes for t in n.inputs if t}

    def changes(
        self, values: Mapping[str, Tensor], gradient: Mapping[str, Tensor], rows: int
    ) -> Tensor:
        """Changes of the scores (choices, rows) to first order."""
        out = torch.zeros(len(self.choices), rows)
        for node in self.nodes:
            g = gradient.get(node.outputs[0])
            if g is not None:
                out += (self._product if self.product else self._any)(node, values, g, rows)
        return out

    def _product(self, node: Node, values: Mapping[str, Tensor], g: Tensor, rows: int) -> Tensor:
        """By the gradient of the weight, which one product gives for all choices at once."""
        w = values[self.weight]
        turned = bool(node.attributes.get("transB"))
        x = values[node.inputs[0]].reshape(rows, -1, w.shape[1 if turned else 0])
        g = g.reshape(rows, -1, w.shape[0 if turned else 1])
        left, right = (g, x) if turned else (x, g)
        errors = self.errors.float().reshape(len(self.choices), -1)
        step = max(GRADIENTS_AT_ONCE // max(w.numel(), 1), 1)
        parts = [
            torch.bmm(left[i : i + step].mT, right[i : i + step]).flatten(1)
            for i in range(0, rows, step)
        ]
        out = torch.cat([errors @ p.T for p in parts], 1) * self.peaks[:, None]
        eight = [k for k, c in enumerate(self.choices) if FORMS[c].integer]
        if eight:  # what these read is rounded to 8 bits, whatever the weight has
            back = g @ (w if turned else w.T)
            for k in eight:
                error = _rounded_rows(x, self.choices[k]) - x
                out[k] += (error * back).reshape(rows, -1).sum(1)
        return out * float(node.attributes.get("alpha", 1.0))

    def _any(self, node: Node, values: Mapping[str, Tensor], g: Tensor, rows: int) -> Tensor:
        """By computing the node once for each choice."""
        out = []
        for error, peak in zip(self.errors, self.peaks, strict=True):
            moved = {**values, self.weight: values[self.weight] + error.float() * peak}
            change = node.apply(moved)[0] - values[node.outputs[0]]
            out.append((g * change).reshape(rows, -1).sum(1))
        return torch.stack(out)


def _rounded_rows(x: Tensor, choice: str) -> Tensor:
    """What (rows, positions, in) becomes before a product under an integer choice.

    In blocks each has a scale of its own; dynamic int8 has one range for all of a row's
    positions, which is what it has in calls of one row.
    """
    if FORMS[choice].way == "dynamic":
        flat = x.flatten(1)
        low, high = flat.amin(1).clamp(max=0), flat.amax(1).clamp(min=0)
        scale = ((high - low) / 255).clamp_min(1e-30)[:, None, None]
        zero = torch.round(-low[:, None, None] / scale)
        return ((torch.round(x / scale) + zero).clamp(0, 255) - zero) * scale
    width = x.shape[-1]
    block = block_of(choice, width)
    parts = torch.nn.functional.pad(x, (0, -width % block)).unflatten(-1, (-1, block))
    scale = (parts.abs().amax(-1, keepdim=True) / 127).clamp_min(1e-30)
    return (torch.round(parts / scale) * scale).flatten(-2)[..., :width]


def stored(
    graph: TorchGraph,
    initializers: Mapping[str, onnx.TensorProto],
    site: Site,
    choices: Sequence[str],
) -> Stored:
    """What `choices`, all open at `site`, do to its weight."""
    nodes = tuple(n for n in graph.nodes if n.name in site.nodes)
    first = nodes[0]
    held = first.inputs[1:2] if first.op == "Conv" else first.inputs[:2]
    name = next(t for t in held if t in initializers)
    w = np.asarray(numpy_helper.to_array(initializers[name]), np.float32)
    product = (
        first.op in LINEAR
        and w.ndim == 2
        and all(n.inputs[1] == name and not n.attributes.get("transA") for n in nodes)
    )
    turned = first.op != "Conv" and not first.attributes.get("transB")
    rows = w.reshape(len(w), -1) if first.op == "Conv" else w.T if turned else w
    rows = np.ascontiguousarray(rows)
    errors, peaks = [], []
    for choice in choices:
        error = rounded_weight(rows, choice, first.op) - rows
        peak = float(np.abs(error).max(initial=0.0)) or 1.0
        error = (error.T if turned else error).reshape(w.shape) / np.float32(peak)
        errors.append(torch.from_numpy(np.ascontiguousarray(error)).half())
        peaks.append(peak)
    return Stored(nodes, name, product, tuple(choices), torch.stack(errors), torch.tensor(peaks))
