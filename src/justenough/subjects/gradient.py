"""How much int8 at each site changes the answers, from gradients: all sites in one go.

To first order a rounding error d of a tensor changes a score by <gradient, d>. A few backward
passes therefore say for every site at once what would take a real int8 file for each of them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor

from justenough.core.gate import Gate
from justenough.core.subject import INT8, Site
from justenough.errors import InputError
from justenough.subjects import quantize
from justenough.subjects.gradient_weights import Stored, stored
from justenough.subjects.onnx_model import types_of
from justenough.subjects.torch_graph import Node, TorchGraph, torch_graph
from justenough.transforms.rounding import TOP, channel_grid

Array = NDArray[Any]
Range = tuple[float, float]
# int8 followers that write on the grid of their input, as ONNX Runtime's quantizer has it.
SAME_GRID = frozenset(
    {"AveragePool", "Flatten", "MaxPool", "Reshape", "Resize", "Squeeze", "Transpose", "Unsqueeze"}
)
ABSORBED = ("Relu", "Clip")


@dataclass(frozen=True)
class SiteNoise:
    """What int8 at each site alone adds to the score, and what it took to know.

    Attributes:
        power: By site name, the mean over rows of the squared change of the score, in the
            squared unit of the output.
        rows_passed: Rows times passes through the net: forward, each backward, and one more
            forward for the rounded weights.
        local: The same as `power` for each local choice that was asked for, by choice and site.
    """

    power: dict[str, float]
    rows_passed: int
    local: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Grid:
    """A uint8 grid: scale (float32 value) and zero point."""

    scale: float
    zero: int

    @staticmethod
    def of(low: float, high: float) -> "_Grid":
        low, high = float(np.float32(min(low, 0.0))), float(np.float32(max(high, 0.0)))
        scale = (high - low) / 255
        if scale < np.finfo(np.float32).tiny:
            return _Grid(1.0, 0)
        return _Grid(float(np.float32(scale)), round(-low / scale))

    def round(self, x: Tensor) -> Tensor:
        whole = torch.round(x / self.scale).clamp_(-self.zero, 255 - self.zero)
        return whole.mul_(self.scale)


@dataclass(frozen=True)
class _Island:
    """The part of the graph that int8 at one site changes.

    Attributes:
        inputs: Activations rounded before the site's nodes read them.
        weights: Rounded weights by name.
        nodes: The site's nodes, other readers of its weights and int8 followers, in order.
        followers: Names of those among `nodes` that only pass int8 data on.
        grids: For the tensors that are rounded.
    """

    inputs: tuple[str, ...]
    weights: Mapping[str, Tensor]
    nodes: tuple[Node, ...]
    followers: frozenset[str]
    grids: Mapping[str, _Grid]

    @property
    def changed(self) -> set[str]:
        """Tensors at which `errors` may report one."""
        return {*self.inputs, *(n.outputs[0] for n in self.nodes)}

    @property
    def needed(self) -> set[str]:
        """Tensors that `errors` reads."""
        return self.changed | {t for n in self.nodes for t in n.inputs if t}

    def errors(self, values: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        """Tensors and the errors (of their shape) that the site makes there.

        An error counts where it arises: a follower adds only what it rounds anew, since the
        data that it passes on are on a grid already.
        """
        for t in self.inputs:  # a Q/DQ pair stands before all readers of t, not just before ours
            yield t, self.grids[t].round(values[t]) - values[t]
        rounded = {**values, **self.weights}
        moved = dict(values)
        for node in self.nodes:
            t = node.outputs[0]
            if node.name in self.followers:
                before = after = node.apply(moved)[0]
            else:
                before = after = values[t]
                if not self.weights.keys().isdisjoint(node.inputs):
                    after = node.apply(rounded)[0]
            if t in self.grids:
                after = self.grids[t].round(after)
            moved[t] = after
            if after is not before:
                yield t, after - before


class _Plan:
    """Finds the islands of a prepared model the way `quantize.write_variant` writes them."""

    def __init__(
        self, model: onnx.ModelProto, graph: TorchGraph, ranges: Mapping[str, Range], top: int
    ) -> None:
        self.model, self.graph, self.top = model, graph, top
        types = types_of(model)
        self.ranges = {t: r for t, r in ranges.items() if types.get(t) == onnx.TensorProto.FLOAT}
        self.initializers = {i.name: i for i in model.graph.initializer}
        self.made = {t: n for n in graph.nodes for t in n.outputs}
        self.readers: dict[str, list[Node]] = {}
        for n in graph.nodes:
            for t in n.inputs:
                self.readers.setdefault(t, []).append(n)

    def island(self, site: Site) -> _Island:
        chosen = set(site.nodes)
        followers = quantize.followers(self.model, chosen)
        int8 = chosen | followers
        weights: dict[str, Tensor] = {}
        inputs: dict[str, None] = {}
        for node in self.graph.nodes:
            if node.name not in chosen:
                continue
            for t in node.inputs[:2]:
                if t in self.initializers:
                    weights[t] = self._weight(t, node)
                else:
                    inputs[t] = None
        nodes = tuple(
            n
            for n in self.graph.nodes
            if n.name in int8 or not weights.keys().isdisjoint(n.inputs)
        )
        grids = self._grids(nodes, inputs, int8)
        inside = {n.outputs[0] for n in nodes}
        before = tuple(t for t in inputs if t in grids and t not in inside)
        return _Island(before, weights, nodes, frozenset(followers), grids)

    def _weight(self, name: str, node: Node) -> Tensor:
        w = np.asarray(numpy_helper.to_array(self.initializers[name]), np.float32)
        # Per output channel; ONNX Runtime takes axis 1 for a MatMul whatever its weight's rank.
        axis = 0 if node.op == "Conv" or node.attributes.get("transB") else 1
        rows = np.moveaxis(w, axis, 0).reshape(w.shape[axis], -1) if w.ndim > 1 else w[None]
        if not np.isfinite(rows).all():
            raise InputError(f"weight {name!r} has values that are not finite")
        grid = channel_grid(rows, top=self.top)
        rounded = grid.values(grid.nearest(rows)).astype(np.float32)
        if w.ndim <= 1:
            return torch.from_numpy(rounded[0])
        shape = (w.shape[axis], *np.delete(w.shape, axis))
        return torch.from_numpy(np.ascontiguousarray(np.moveaxis(rounded.reshape(shape), 0, axis)))

    def _grids(
        self, nodes: Sequence[Node], inputs: Mapping[str, None], int8: set[str]
    ) -> dict[str, _Grid]:
        known = {t: _Grid.of(*self.ranges[t]) for t in inputs if t in self.ranges}
        for node in nodes:
            t = node.outputs[0]
            if node.name not in int8 or t not in self.ranges:
                continue
            same = known.get(node.inputs[0]) if node.op in SAME_GRID else None
            known[t] = same or _Grid.of(*self.ranges[t])
        return {t: grid for t, grid in known.items() if self._rounded(t, int8)}

    def _rounded(self, t: str, int8: set[str]) -> bool:
        """Whether `t`, which has a range, is rounded.

        Graph outputs are not, nor a product (with the Relu behind it) that nothing int8 reads.
        """
        if t in self.graph.outputs or self._absorbed(t, int8):
            return False
        source = self.made.get(t)
        while source is not None and source.inputs and self._absorbed(source.inputs[0], int8):
            source = self.made.get(source.inputs[0])
        product = source is not None and source.op in quantize.FLOAT_OUTPUT
        return not product or any(n.name in int8 for n in self.readers.get(t, ()))

    def _absorbed(self, t: str, int8: set[str]) -> bool:
        """Whether the only reader of `t` is a Relu or Clip that its rounding takes over."""
        readers = self.readers.get(t, ())
        return (
            len(readers) == 1
            and readers[0].op in ABSORBED
            and readers[0].name in int8
            and readers[0].inputs[0] == t
            and readers[0].outputs[0] in self.ranges
            and t in self.made
            and t not in self.graph.outputs
        )


def site_noise(  # noqa: PLR0913  (a measurement has this many sides)
    model: onnx.ModelProto,
    sites: Sequence[Site],
    ranges: Mapping[str, Range],
    inputs: Mapping[str, Array],
    gate: Gate | None,
    output: str,
    *,
    choices: Mapping[str, Sequence[str]] = {},
    top: int = TOP,
    batch: int = 16,
    probes: int = 4,
    threads: int | None = None,
    rng: np.random.Generator,
) -> SiteNoise:
    """Mean squared change of the score by int8 at each site alone, to first order.

    Local choices cost little more: the change by a weight's error is its product with the
    gradient of the weight, which is the same for all of them.

    With a gate the score is its margin for the reference's own decision: one backward pass.
    Without one, `probes` random signs v on the values of `output` are the scores: with d the
    change of the output of a row, E[(v d)^2] = |d|^2, so the result is the expected squared
    error of a row, summed over its values (Hutchinson 1990, doi:10.1080/03610919008812866).

    Args:
        model: Prepared float model with its weights.
        sites: Sites of that model.
        ranges: Calibrated (low, high) of the tensors that may be rounded.
        inputs: Arrays by input name, each (n, ...), a row per case.
        gate: Whose margin is the score; its threshold does not matter.
        output: Name of the float output that is scored where there is no gate.
        choices: Local choices by site whose noise is wanted too, all of them open there.
        top: Largest code of an int8 weight.
        batch: Rows held at once; a batch size fixed in the graph overrides it.
        probes: Backward passes for each batch without a gate.
        threads: Threads to use; None leaves PyTorch's setting.
        rng: Draws the signs.

    Raises:
        UnsupportedOperator: The graph does not run in PyTorch; measure sites one at a time.
        InputError: There are no rows, or the scored output is missing or holds no floats.
    """
    rows = len(next(iter(inputs.values()), ()))
    if rows == 0:
        raise InputError("there are 0 rows to measure on; give at least 1, better 256")
    if threads is not None:
        torch.set_num_threads(threads)
    graph = torch_graph(model)
    scored = gate.output if gate else output
    if scored not in graph.outputs:
        raise InputError(f"no output {scored!r}; the model has: {', '.join(graph.outputs)}")
    plan = _Plan(model, graph, ranges, top)
    passes = _Passes(
        graph,
        {s.name: plan.island(s) for s in sites},
        {
            s.name: stored(graph, plan.initializers, s, choices[s.name])
            for s in sites
            if choices.get(s.name)
        },
        scored, gate, probes, rng,
    )  # fmt: skip
    fixed = _fixed_batch(model)
    mixed = max(fixed, min(batch, rows)) > 1 and passes.mix_rows(inputs, fixed or 2)
    step = 1 if mixed else fixed or batch
    total: dict[tuple[str, str], float] = {}
    passed = 0
    for start in range(0, rows, step):
        n = min(step, rows - start)
        at = np.minimum(np.arange(start, start + (fixed or n)), start + n - 1)
        for pick, power in passes.power({k: v[at] for k, v in inputs.items()}, n, mixed).items():
            total[pick] = total.get(pick, 0.0) + power
        passed += len(at) * (2 + (1 if gate else probes))
    by_choice: dict[str, dict[str, float]] = {}
    for (site, choice), power in total.items():
        by_choice.setdefault(choice, {})[site] = power / rows
    return SiteNoise(by_choice.pop(INT8.name, {}), passed, by_choice)


def _fixed_batch(model: onnx.ModelProto) -> int:
    """Rows that the graph insists on; 0 where any number will do."""
    constants = {i.name for i in model.graph.initializer}
    shapes = [i.type.tensor_type.shape.dim for i in model.graph.input if i.name not in constants]
    return max((shape[0].dim_value for shape in shapes if shape), default=0)


@dataclass(frozen=True)
class _Passes:
    """Forward and backward passes over a few rows at a time.

    Attributes:
        graph: The model.
        islands: What int8 changes, by site name.
        stored: What local choices change, by site name.
        scored: Name of the output that is scored.
        gate: Its margin is the score; without it `probes` random sums of the output are.
        probes: Number of those sums.
        rng: Draws their signs.
    """

    graph: TorchGraph
    islands: Mapping[str, _Island]
    stored: Mapping[str, Stored]
    scored: str
    gate: Gate | None
    probes: int
    rng: np.random.Generator

    @property
    def _parts(self) -> list[_Island | Stored]:
        return [*self.islands.values(), *self.stored.values()]

    @property
    def _changed(self) -> set[str]:
        """Tensors whose gradients are read."""
        return {t for x in self._parts for t in x.changed}

    def mix_rows(self, inputs: Mapping[str, Array], size: int) -> bool:
        """Whether some tensor is not the rows' own parts one after another along axis 0.

        Looks whether the first of `size` parts stays the same when the other rows change.
        """
        rows = np.minimum(np.arange(size), len(next(iter(inputs.values()))) - 1)
        names = self._changed
        names |= {n.inputs[0] for x in self.stored.values() if x.product for n in x.nodes}
        one, two = (
            self.graph.run({k: _tensor(v[at]) for k, v in inputs.items()}, keep=names)
            for at in (rows, 0 * rows)
        )
        for t in names:
            if t not in one or one[t].ndim == 0 or len(one[t]) % size:
                return True
            a, b = (x[t][: len(x[t]) // size] for x in (one, two))
            near = 1e-4 * float(a.abs().max()) if a.numel() else 0.0
            if a.shape != b.shape or not torch.allclose(a, b, rtol=1e-3, atol=near):
                return True
        return not rows.any() and size > 1

    def power(
        self, part: Mapping[str, Array], n: int, mixed: bool
    ) -> dict[tuple[str, str], float]:
        """By site and choice, the squared change summed over the first `n` rows of `part`.

        Where tensors mix rows, n is 1 and only the score of the first row is differentiated:
        whatever the gradient then reaches belongs to that row.
        """
        needed = {t for x in self._parts for t in x.needed}
        inputs = {k: _tensor(v) for k, v in part.items()}
        values = self.graph.run(inputs, keep=needed, watch=True)
        gradients = self._gradients(values, n)
        values = {t: x.detach() for t, x in values.items()}
        rows = 1 if mixed else len(next(iter(inputs.values())))
        out = {}
        with torch.no_grad():
            for name, island in self.islands.items():
                change = torch.zeros(len(gradients), n)
                for t, error in island.errors(values):
                    for k, gradient in enumerate(gradients):
                        if gradient.get(t) is not None:
                            product = gradient[t] * error
                            change[k] += product.reshape(rows, -1).sum(1)[:n]
                power = float(change.double().square().sum()) / max(len(gradients), 1)
                out[name, INT8.name] = power
            for name, site in self.stored.items():
                power_of = torch.zeros(len(site.choices), dtype=torch.float64)
                for gradient in gradients:
                    found = site.changes(values, gradient, rows)[:, :n]
                    power_of += found.double().square().sum(1) / len(gradients)
                out |= {(name, c): p for c, p in zip(site.choices, power_of.tolist(), strict=True)}
        return out

    def _gradients(self, values: Mapping[str, Tensor], n: int) -> list[dict[str, Tensor]]:
        """For each score, its gradients by tensor name."""
        y = values[self.scored]
        if not y.is_floating_point():
            raise InputError(f"output {self.scored!r} holds {y.dtype}; a gradient needs floats")
        names = [t for t in self._changed if values[t].requires_grad]
        scores = self._scores(y) if y.requires_grad else []
        out = []
        for k, score in enumerate(scores):
            more = k + 1 < len(scores)
            found = torch.autograd.grad(
                score[:n].sum(), [values[t] for t in names], retain_graph=more, allow_unused=True
            )
            out.append({t: g for t, g in zip(names, found, strict=True) if g is not None})
        return out

    def _scores(self, y: Tensor) -> list[Tensor]:
        """Scores (rows,) of an output (rows, ...): the gate's margin or random sums."""
        gate = self.gate
        if gate is None:
            signs = (self.rng.choice((-1.0, 1.0), y.shape) for _ in range(self.probes))
            return [(y * torch.from_numpy(v).to(y)).reshape(len(y), -1).sum(1) for v in signs]
        if gate.kind == "cut":
            score = y if gate.column is None else y[:, gate.column]
            margin = (score - gate.cut).abs()
        else:
            y = y.movedim(gate.axis, -1)
            if y.shape[-1] <= gate.k:
                return []
            top = y.topk(gate.k + 1, dim=-1).values
            margin = top[..., -2] - top[..., -1]
        return [margin.reshape(len(y), -1).min(1).values]


def _tensor(x: Array) -> Tensor:
    return torch.from_numpy(np.array(x))  # a copy PyTorch may own
