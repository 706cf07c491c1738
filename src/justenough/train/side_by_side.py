"""Small networks of equal shape that train side by side, as one batch of matrix products.

The loss is minus Pearson's correlation of the output, a sigmoid, with y, over all training rows at
each step. The gradient is written by hand, without autograd, and all parameters stand in one
vector, so that a step of Adam is a few operations however many networks there are.
"""

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

_Array = NDArray[Any]

CHECK = 10
"""Steps between two looks at the validation rows."""
_GAIN = 1e-5
_BETA = (0.9, 0.999)


@dataclass(frozen=True)
class Architecture:
    """What one network is, and how it trains.

    Attributes:
        hidden: Widths of the hidden layers.
        dropout: Share of hidden units left out at each step.
        rate: Learning rate of Adam.
        activation: One of relu, tanh, elu.
    """

    hidden: tuple[int, ...]
    dropout: float
    rate: float
    activation: str


@dataclass(frozen=True)
class Data:
    """Tensors for all networks, of the type of their parameters.

    Attributes:
        x: Training signals, shape (n, k).
        y: With mean 0 and norm 1, shape (n,).
        x_validation: Validation signals on the same scale, shape (m, k).
        y_validation: With mean 0 and norm 1, shape (m,).
    """

    x: Any
    y: Any
    x_validation: Any
    y_validation: Any


@dataclass
class Batch:
    """Networks that train side by side; they differ in dropout and rate, and stand by dropout.

    Attributes:
        members: All of them.
        layers: Rows and columns of the weights of each layer.
        active: Indices of the members that still train.
        state: Parameters of the active ones and Adam's two moments, layer by layer, shape
            (3, size).
        best: Each member's parameters where its validation correlation was best, shape
            (members, size of one).
        validation: Best validation correlation of each member.
        since: Step of that.
        epochs: Steps that each member was trained for.
        steps: Steps that the active ones were trained for.
    """

    members: list[Architecture]
    layers: list[tuple[int, int]]
    active: _Array
    state: Any
    best: Any
    validation: _Array
    since: _Array
    epochs: _Array
    steps: int = 0


def untrained(members: list[Architecture], inputs: int, rng: np.random.Generator) -> Batch:
    """Return a batch with first weights as PyTorch's linear layers have them.

    Args:
        members: Of equal layers and activation, by dropout.
        inputs: Number of signals.
        rng: Source of the weights.

    >>> members = [Architecture((8,), dropout, 0.01, "relu") for dropout in (0.0, 0.1)]
    >>> untrained(members, 4, np.random.default_rng(0)).best.shape  # 4 x 8 + 8 + 8 x 1 + 1
    torch.Size([2, 49])
    """
    count = len(members)
    layers = list(itertools.pairwise((inputs, *members[0].hidden, 1)))
    parts = []
    for rows, columns in layers:
        reach = rows**-0.5
        parts.append(rng.uniform(-reach, reach, (count, rows * columns)))
        parts.append(rng.uniform(-reach, reach, (count, columns)))
    each = torch.from_numpy(np.concatenate(parts, axis=1).astype(np.float32))
    state = torch.zeros(3, each.numel())
    state[0] = _by_layer(each, layers)
    return Batch(
        members, layers, np.arange(count), state, each, np.full(count, -1.0),
        np.zeros(count, np.int64), np.zeros(count, np.int64),
    )  # fmt: skip


def _views(vector: Any, layers: list[tuple[int, int]], count: int) -> list[tuple[Any, Any]]:
    """Weights (count, rows, columns) and biases (count, 1, columns) of each layer."""
    out, at = [], 0
    for rows, columns in layers:
        middle, end = at + count * rows * columns, at + count * (rows + 1) * columns
        weights = vector[at:middle].view(count, rows, columns)
        out.append((weights, vector[middle:end].view(count, 1, columns)))
        at = end
    return out


def _by_member(vector: Any, layers: list[tuple[int, int]], count: int) -> Any:
    """From layer by layer to (count, size of one network)."""
    views = itertools.chain.from_iterable(_views(vector, layers, count))
    return torch.cat([v.reshape(count, -1) for v in views], dim=1)


def _by_layer(each: Any, layers: list[tuple[int, int]]) -> Any:
    parts, at = [], 0
    for rows, columns in layers:
        for size in (rows * columns, columns):
            parts.append(each[:, at : at + size].reshape(-1))
            at += size
    return torch.cat(parts)


def advance(batch: Batch, data: Data, until: int, patience: int, rng: np.random.Generator) -> None:
    """Train the active networks on, up to step `until`, in place.

    Args:
        batch: The networks.
        data: Rows.
        until: Step to stop at.
        patience: A network stops that many steps after its last gain on the validation rows; 0
            never.
        rng: Source of dropout.

    >>> rng = np.random.default_rng(0)
    >>> x = rng.random((100, 2))
    >>> y = x[:, 0] - x[:, 0].mean()
    >>> both = [torch.from_numpy(v.astype(np.float32)) for v in (x, y / np.linalg.norm(y))]
    >>> batch = untrained([Architecture((8,), 0.0, 0.01, "tanh")], 2, rng)
    >>> advance(batch, Data(*both, *both), 200, 0, rng)
    >>> bool(batch.validation[0] > 0.99)
    True
    """
    step = None
    while batch.steps < until and len(batch.active):
        active = [batch.members[i] for i in batch.active]
        if step is None or step.members != active:
            step = _Step(active, batch.layers, data, batch.state)
        for _ in range(min(CHECK, until - batch.steps)):
            batch.steps += 1
            step.take(batch.steps, rng)
        found = _correlations(step, data)
        batch.epochs[batch.active] = batch.steps
        gained = found > batch.validation[batch.active] + _GAIN
        if gained.any():
            each = _by_member(batch.state[0], batch.layers, len(active))
            who = batch.active[gained]
            batch.best[torch.from_numpy(who)] = each[torch.from_numpy(gained)]
            batch.validation[who] = found[gained]
            batch.since[who] = batch.steps
        if patience:
            keep(batch, batch.steps - batch.since[batch.active] < patience)


def keep(batch: Batch, which: _Array) -> None:
    """Let only those of the active networks train on for which `which` is true.

    >>> members = [Architecture((), dropout, 0.01, "relu") for dropout in (0.0, 0.1)]
    >>> batch = untrained(members, 4, np.random.default_rng(0))
    >>> keep(batch, np.array([False, True]))
    >>> batch.active.tolist(), tuple(batch.state.shape)
    ([1], (3, 5))
    """
    if which.all():
        return
    mask = torch.from_numpy(which)
    rows = [
        _by_layer(_by_member(part, batch.layers, len(which))[mask], batch.layers)
        for part in batch.state
    ]
    batch.active, batch.state = batch.active[which], torch.stack(rows)


def answers(batch: Batch, member: int, x: _Array) -> _Array:
    """Outputs, shape (n,), of one member with its best parameters for signals (n, k).

    >>> batch = untrained([Architecture((), 0.0, 0.01, "relu")], 2, np.random.default_rng(0))
    >>> batch.best.zero_().shape, answers(batch, 0, np.ones((3, 2))).tolist()
    (torch.Size([1, 3]), [0.5, 0.5, 0.5])
    """
    vector = _by_layer(batch.best[member : member + 1], batch.layers)
    rows = torch.from_numpy(x.astype(np.float32))
    activation = batch.members[member].activation
    found = _forward(_views(vector, batch.layers, 1), rows, activation)[0]
    out: _Array = found.double().numpy()
    return out


class _Step:
    """Steps of Adam for networks side by side, with the memory that they need."""

    def __init__(
        self, active: list[Architecture], layers: list[tuple[int, int]], data: Data, state: Any
    ) -> None:
        count, n = len(active), len(data.x)
        self.members = active
        self.activation = active[0].activation
        self.values, self.first, self.second = state
        self.parameters = _views(self.values, layers, count)
        self.gradient = torch.zeros_like(self.values)
        self.gradients = _views(self.gradient, layers, count)
        self.x = data.x.expand(count, *data.x.shape)
        self.y = data.y
        self.ones = torch.ones(count, 1, n, dtype=data.x.dtype)
        self.hidden = [
            torch.empty(count, n, columns, dtype=data.x.dtype) for _, columns in layers[:-1]
        ]
        self.back = [torch.empty_like(h) for h in self.hidden]
        rates = torch.tensor([a.rate for a in active])
        columns = [rates.repeat_interleave(r * c) for r, c in layers]
        self.rates = torch.cat(
            [v for w, (_, c) in zip(columns, layers, strict=True)
             for v in (w, rates.repeat_interleave(c))]
        )  # fmt: skip
        self.dropped = [
            (share, [i for i, a in enumerate(active) if a.dropout == share])
            for share in sorted({a.dropout for a in active} - {0.0})
        ]
        self.kept = (1.0 / (1.0 - torch.tensor([a.dropout for a in active]))).view(count, 1, 1)

    def take(self, number: int, rng: np.random.Generator) -> None:
        """One step; `number` counts from 1."""
        masks = self._forward(rng)
        self._backward(masks)
        g, m, v = self.gradient, self.first, self.second
        m.lerp_(g, 1.0 - _BETA[0])
        v.mul_(_BETA[1]).addcmul_(g, g, value=1.0 - _BETA[1])
        root = math.sqrt(1.0 - _BETA[1] ** number)
        scaled = (v.sqrt() / root).add_(1e-8)
        self.values.addcdiv_(m * self.rates, scaled, value=-1.0 / (1.0 - _BETA[0] ** number))

    def _forward(self, rng: np.random.Generator) -> list[list[Any]]:
        """Fill `hidden` and `output`; return the masks of each hidden layer."""
        masks, inner = [], self.x
        for j, (weights, bias) in enumerate(self.parameters[:-1]):
            z = torch.baddbmm(bias, inner, self._scaled(weights, j), out=self.hidden[j])
            _activate(z, self.activation)
            masks.append(self._drop(z, rng))
            inner = z
        weights, bias = self.parameters[-1]
        last = self._scaled(weights, len(self.hidden))
        self.output = torch.baddbmm(bias, inner, last).sigmoid_()
        return masks

    def _scaled(self, weights: Any, layer: int) -> Any:
        """Dropout keeps or zeroes; the factor 1 / (1 - share) sits in the weights that follow."""
        return weights * self.kept if layer and self.dropped else weights

    def _drop(self, z: Any, rng: np.random.Generator) -> list[Any]:
        """Zero units in place; networks of one batch share the numbers drawn, not the shares."""
        if not self.dropped:
            return []
        bits = torch.from_numpy(rng.integers(-(2**15), 2**15, z.shape[1:], dtype=np.int16))
        masks = []
        for share, who in self.dropped:
            mask = (bits >= round(share * 2**16) - 2**15).float()
            z[who[0] : who[-1] + 1].mul_(mask)
            masks.append(mask)
        return masks

    def _backward(self, masks: list[list[Any]]) -> None:
        p = self.output[..., 0]
        away = p - p.mean(dim=1, keepdim=True)
        norm = away.norm(dim=1, keepdim=True).clamp_(min=1e-12)
        unit = away / norm
        r = unit @ self.y
        g = ((r[:, None] * unit - self.y) / norm * p * (1.0 - p))[..., None]
        for j in range(len(self.parameters) - 1, -1, -1):
            weights = self.parameters[j][0]
            by_weights, by_bias = self.gradients[j]
            inner = self.hidden[j - 1] if j else self.x
            torch.bmm(inner.transpose(1, 2), g, out=by_weights)
            torch.bmm(self.ones, g, out=by_bias)
            if j == 0:
                break
            if self.dropped:
                by_weights.mul_(self.kept)
            before = self.back[j - 1]
            torch.bmm(g, self._scaled(weights, j).transpose(1, 2), out=before)
            _slope(before, self.hidden[j - 1], self.activation)
            if self.activation != "relu":  # whose slope is 0 at a unit that was left out
                for (_, who), mask in zip(self.dropped, masks[j - 1], strict=True):
                    before[who[0] : who[-1] + 1].mul_(mask)
            g = before


def _activate(z: Any, activation: str) -> None:
    if activation == "relu":
        z.relu_()
    elif activation == "tanh":
        z.tanh_()
    else:
        torch.nn.functional.elu_(z)


def _slope(g: Any, h: Any, activation: str) -> None:
    """Multiply a gradient in place by the activation's slope, known from its value."""
    aten = torch.ops.aten
    if activation == "relu":
        aten.threshold_backward.grad_input(g, h, 0, grad_input=g)
    elif activation == "tanh":
        aten.tanh_backward.grad_input(g, h, grad_input=g)
    else:
        aten.elu_backward.grad_input(g, 1.0, 1.0, 1.0, True, h, grad_input=g)


def _forward(parameters: list[tuple[Any, Any]], x: Any, activation: str) -> Any:
    """Outputs (networks, n) without dropout."""
    inner = x.expand(len(parameters[0][0]), *x.shape)
    for weights, bias in parameters[:-1]:
        inner = torch.baddbmm(bias, inner, weights)
        _activate(inner, activation)
    weights, bias = parameters[-1]
    return torch.baddbmm(bias, inner, weights).sigmoid_()[..., 0]


def _correlations(step: _Step, data: Data) -> _Array:
    p = _forward(step.parameters, data.x_validation, step.activation)
    away = p - p.mean(dim=1, keepdim=True)
    # one that answers the same to all rows correlates with nothing
    found = (away @ data.y_validation) / away.norm(dim=1).clamp_(min=1e-12)
    out: _Array = found.double().numpy()
    return out
