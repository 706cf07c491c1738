"""What calibration rows say about the inputs of linear layers, in one streaming pass.

Kept are Gram matrices, means and largest values, never the activations themselves.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from justenough.subjects.measure import Inputs, batches, scratch
from justenough.subjects.quantize import with_outputs
from justenough.subjects.repair_graph import Linear, Window
from justenough.subjects.sessions import session

Array = NDArray[Any]
Range = tuple[float, float]
# Dot products sampled per layer, and more where a row is long: a Gram matrix of fewer samples
# than it has rows is singular, and rounding would fit the sample.
SAMPLES = 8192
SAMPLES_PER_INPUT = 4
GRAM_BYTES = 2**29


@dataclass(frozen=True, eq=False)
class LayerInput:
    """What one layer reads, over sampled output positions.

    Attributes:
        gram: (groups, in, in), E[x x^T].
        mean: (groups, in), E[x].
        rounded_mean: (groups, in), E[x'] with x' rounded to the range given, else E[x].
        peak: (channels,) max|x| over all values.
    """

    gram: Array
    mean: Array
    rounded_mean: Array
    peak: Array


Key = tuple[str, int, Window | None]


@dataclass(frozen=True, eq=False)
class Feed:
    """Calibration rows and how they are run.

    Attributes:
        inputs: Rows by input name, (n, ...) each.
        batch: Rows of a call.
        threads: Threads of a session.
    """

    inputs: Inputs
    batch: int
    threads: int = 1

    def run(
        self, model: onnx.ModelProto, tensors: Sequence[str]
    ) -> Iterator[tuple[int, dict[str, Array]]]:
        """Values of `tensors` batch by batch, each with the number of batches there are."""
        n = len(next(iter(self.inputs.values())))
        parts = max(n // self.batch, 1)
        with scratch(with_outputs(model, tensors)) as path:
            live = session(path, threads=self.threads)
            for rows in batches(self.inputs, self.batch):
                yield parts, dict(zip(tensors, live.run(list(tensors), rows), strict=True))


def key_of(linear: Linear) -> Key:
    """Layers of one key read the same vectors."""
    return linear.source, linear.groups, linear.window


def layer_inputs(
    model: onnx.ModelProto,
    linears: Iterable[Linear],
    feed: Feed,
    ranges: Mapping[str, Range] | None = None,
) -> Iterator[tuple[Key, LayerInput]]:
    """What layers read on calibration rows, a few layers at a time so that memory is bounded.

    Args:
        model: Prepared graph.
        linears: Layers of it.
        feed: Calibration rows.
        ranges: (low, high) by tensor, to say what rounding to 256 levels does to the mean.

    Yields:
        The key of the layers that read it, and the statistics.
    """
    by_key = {key_of(linear): linear for linear in linears}
    for chosen in _portions(list(by_key.values())):
        sums = {key_of(x): _Sums(x, (ranges or {}).get(x.source)) for x in chosen}
        tensors = sorted({x.source for x in chosen})
        rng = np.random.default_rng(0)
        for parts, values in feed.run(model, tensors):
            for one in sums.values():
                one.add(values[one.linear.source], parts, rng)
        for key in list(sums):
            yield key, sums.pop(key).result()


def _portions(linears: Sequence[Linear]) -> Iterator[list[Linear]]:
    """Layers in order, together while their Gram matrices fit in `GRAM_BYTES`."""
    portion: list[Linear] = []
    held = 0
    for linear in linears:
        size = 8 * linear.groups * _width(linear) ** 2
        if portion and held + size > GRAM_BYTES:
            yield portion
            portion, held = [], 0
        portion.append(linear)
        held += size
    if portion:
        yield portion


def _width(linear: Linear) -> int:
    """Length of one dot product."""
    if linear.across:
        return linear.shape[0]
    return int(np.prod(linear.shape[1:], dtype=np.int64))


class _Sums:
    """Running sums of one layer's input."""

    def __init__(self, linear: Linear, limits: Range | None) -> None:
        self.linear, self.limits, self.count = linear, limits, 0
        width, groups = _width(linear), linear.groups
        self.gram = np.zeros((groups, width, width))
        self.mean, self.rounded = np.zeros((groups, width)), np.zeros((groups, width))
        self.peak = np.zeros(linear.inputs)

    def add(self, x: Array, parts: int, rng: np.random.Generator) -> None:
        """Take in one batch of `parts`."""
        axis = self.linear.channel_axis % x.ndim
        others = tuple(i for i in range(x.ndim) if i != axis)
        self.peak = np.maximum(self.peak, np.abs(x).max(others, initial=0.0))
        wanted = max(SAMPLES, SAMPLES_PER_INPUT * self.gram.shape[-1])
        v = sample(x, self.linear, -(-wanted // parts), rng)
        flat = np.ascontiguousarray(v.transpose(1, 2, 0))
        self.gram += flat @ flat.transpose(0, 2, 1)
        self.mean += flat.sum(-1, dtype=np.float64)
        if self.limits is not None:
            flat = on_grid(flat, self.limits)
        self.rounded += flat.sum(-1, dtype=np.float64)
        self.count += len(v)

    def result(self) -> LayerInput:
        """Means over all that was taken in."""
        n = max(self.count, 1)
        return LayerInput(self.gram / n, self.mean / n, self.rounded / n, self.peak)


def on_grid(x: Array, limits: Range) -> Array:
    """`x` rounded to the 256 levels from low to high, as ONNX Runtime's quantizer has them."""
    low, high = min(limits[0], 0.0), max(limits[1], 0.0)
    scale = (high - low) / 255
    if scale < np.finfo(np.float32).tiny:
        scale, zero = 1.0, 0
    else:
        zero = round(-low / scale)
    return np.asarray(np.clip(np.rint(x / scale), -zero, 255 - zero) * scale, x.dtype)


def sample(x: Array, linear: Linear, at_most: int, rng: np.random.Generator) -> Array:
    """Vectors (samples, groups, in) that the layer multiplies with its rows, at random places.

    Args:
        x: Its input (n, ...).
        linear: The layer.
        at_most: Samples to take; all of them where there are fewer.
        rng: Picks the places.
    """
    if linear.window is None:
        rows = x.reshape(-1, x.shape[-1])
        pick = _pick(len(rows), at_most, rng)
        return np.asarray(rows[pick][:, None, :])
    view = _windows(x, linear.window)
    spatial = len(linear.window.kernel)
    places = (len(x), *view.shape[2 : 2 + spatial])
    at = np.unravel_index(_pick(int(np.prod(places)), at_most, rng), places)
    where: Any = (at[0], slice(None), *at[1:])
    picked = view[where]
    return np.asarray(picked.reshape(len(picked), linear.groups, -1))


def _pick(n: int, at_most: int, rng: np.random.Generator) -> Array:
    # With replacement: as good a sample, and no permutation of millions of places.
    return np.arange(n) if n <= at_most else np.sort(rng.integers(0, n, at_most))


def _windows(x: Array, window: Window) -> Array:
    """View (n, channels, *places, *kernel) of `x` (n, channels, *space), zeros around it."""
    spatial = len(window.kernel)
    reach = [(k - 1) * d + 1 for k, d in zip(window.kernel, window.dilations, strict=True)]
    pads = _pads(x.shape[2:], reach, window)
    padded = np.pad(x, [(0, 0), (0, 0), *pads])
    axes = tuple(range(2, 2 + spatial))
    view = sliding_window_view(padded, reach, axes)
    steps = (*window.strides, *window.dilations)
    where: Any = (slice(None), slice(None), *(slice(None, None, s) for s in steps))
    return np.asarray(view[where])


def _pads(space: Sequence[int], reach: Sequence[int], window: Window) -> list[tuple[int, int]]:
    if not isinstance(window.pads, str):
        half = len(reach)
        return list(zip(window.pads[:half], window.pads[half:], strict=True))
    out = []
    for size, r, stride in zip(space, reach, window.strides, strict=True):
        total = max((-(-size // stride) - 1) * stride + r - size, 0)
        small, large = total // 2, total - total // 2
        out.append((small, large) if window.pads == "SAME_UPPER" else (large, small))
    return out
