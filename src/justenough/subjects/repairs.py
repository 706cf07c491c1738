"""Repairs of quantization error: edits of the float graph, before the quantizer sees it.

Each takes a prepared model and gives back another, so that `write_variant` stays the only
writer of int8 files. None is a good thing as such: `repaired` keeps what lowers the noise that
is measured.
"""

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from justenough.core.subject import INT8, Site, Variant
from justenough.errors import InputError
from justenough.subjects.measure import calibrate
from justenough.subjects.quantize import Ranges, top_code, write_variant
from justenough.subjects.repair_graph import Edit, Linear, Wiring, linear_nodes, of_sites
from justenough.subjects.repair_scaling import equalised, smoothed
from justenough.subjects.repair_statistics import Feed, Key, LayerInput, key_of, layer_inputs
from justenough.transforms.adaround import adaround
from justenough.transforms.bias import bias_shift
from justenough.transforms.descent import descend
from justenough.transforms.gptq import BlockCodes, damped, gptq, gptq_codes
from justenough.transforms.rounding import TOP, channel_grid

Array = NDArray[Any]
Rounding = Literal["gptq", "adaround"]
# In the order in which they are tried: what moves ranges first, what mends the rest last.
REPAIRS = (
    "equalised", "smoothed", "smoothed_inserted", "rounded", "bias_corrected", "mean_corrected",
)  # fmt: skip
# Those that add no node, and so no time when the model runs.
FREE = tuple(name for name in REPAIRS if name != "smoothed_inserted")
INSERTED_ALPHA = 0.75
STEPS = 500
# GPTQ leaves little to improve.
SWEEPS = {"gptq": 2, "adaround": 8}


def chosen_layers(model: onnx.ModelProto, sites: Iterable[Site], variant: Variant) -> list[Linear]:
    """The linear layers of `model` that run in int8 under `variant` and can be repaired."""
    picked = set(variant.sites(INT8.name))
    return of_sites(linear_nodes(model), [n for s in sites if s.name in picked for n in s.nodes])


def rounded(
    model: onnx.ModelProto,
    sites: Iterable[Site],
    variant: Variant,
    feed: Feed,
    *,
    method: Rounding = "gptq",
) -> onnx.ModelProto:
    """A copy whose int8 weights are on the quantizer's grid already, rounded for their inputs.

    The largest weight of each output channel stays as it is, so that the quantizer finds the
    same scale, and rounding to nearest gives the codes chosen here. `gptq` is GPTQ, `adaround`
    the annealed relaxation; after either the codes are improved one by one (`descend`).

    Args:
        model: Prepared graph.
        sites: Its sites.
        variant: Says which sites go int8.
        feed: Calibration rows.
        method: How codes are found.

    Raises:
        InputError: An unknown method.
    """
    if method not in ("gptq", "adaround"):
        raise InputError(f"unknown rounding {method!r}; known: gptq, adaround")
    edit, top = Edit(model), top_code(variant.calibration)
    for linear, gram in weight_grams(model, chosen_layers(model, sites, variant), feed):
        rows = round_rows(linear.rows(edit.weight(linear)), gram, method, top)
        edit.replace(linear.weight, linear.stored(rows))
    return edit.model


def block_codes(
    model: onnx.ModelProto,
    layers: Iterable[Linear],
    feed: Feed,
    *,
    bits: int,
    block: int,
    symmetric: bool = False,
) -> Iterator[tuple[str, BlockCodes]]:
    """By name of a weight (in, out) of a product, its codes in blocks of a row, by GPTQ.

    Args:
        model: Prepared graph.
        layers: Layers of it (`linear_nodes`); convolutions are passed over.
        feed: Calibration rows.
        bits: 2 to 8.
        block: Inputs that share a scale.
        symmetric: Keep zero points at 2**(bits-1).

    Yields:
        The name, and codes (out, in) as `transforms.gptq.gptq` gives them.
    """
    edit = Edit(model)
    for linear, gram in weight_grams(model, [x for x in layers if x.window is None], feed):
        rows = linear.rows(edit.weight(linear))[0]
        if np.isfinite(rows).all() and np.isfinite(gram).all():
            yield linear.weight, gptq(rows, gram[0], bits, block, symmetric=symmetric)


def weight_grams(
    model: onnx.ModelProto, layers: Iterable[Linear], feed: Feed
) -> Iterator[tuple[Linear, Array]]:
    """For each weight, a layer that has it and the Gram matrix (groups, in, in) of its inputs.

    A weight that several nodes use gets the sum over the inputs of all of them.
    """
    by_weight: dict[str, list[Linear]] = {}
    for linear in layers:
        by_weight.setdefault(linear.weight, []).append(linear)
    missing = {name: {key_of(x) for x in linears} for name, linears in by_weight.items()}
    grams: dict[str, Array] = {}
    everything = [x for linears in by_weight.values() for x in linears]
    for key, got in layer_inputs(model, everything, feed):
        for name in [n for n, keys in missing.items() if key in keys]:
            grams[name] = grams[name] + got.gram if name in grams else got.gram
            missing[name].discard(key)
            if not missing[name]:
                yield by_weight[name][0], grams.pop(name)


def round_rows(rows: Array, gram: Array, method: Rounding, top: int = TOP) -> Array:
    """Rows (..., out, in) on the int8 grid of each, in float32, with its scale kept exactly.

    Args:
        rows: Weights, finite; a layer that is not is given back unchanged.
        gram: (..., in, in), E[x x^T] of the inputs.
        method: How codes are found.
        top: Largest code.
    """
    rows = np.asarray(rows, np.float32)
    if not (np.isfinite(rows).all() and np.isfinite(gram).all()):
        return rows
    grid = channel_grid(rows, top=top)
    peak = np.abs(rows).max(-1, keepdims=True, initial=0.0)
    pinned = np.abs(rows) == peak
    if method == "gptq":
        codes = gptq_codes(rows, gram, grid, fixed=pinned)
    else:
        codes = adaround(rows, gram, grid, fixed=pinned, steps=STEPS)
    codes = descend(rows, damped(gram), grid, codes=codes, fixed=pinned, sweeps=SWEEPS[method])
    on_grid = np.clip(grid.values(codes).astype(np.float32), -peak, peak)
    return np.asarray(np.where(pinned, rows, on_grid))


def bias_corrected(
    model: onnx.ModelProto,
    sites: Iterable[Site],
    variant: Variant,
    ranges: Ranges,
    feed: Feed,
) -> onnx.ModelProto:
    """A copy whose biases make up for the mean error that int8 adds at each site.

    The error is that of the site's own rounded weights and rounded input (Nagel et al. 2019,
    arXiv:1906.04721, sec. 4.2, with means measured on calibration rows). A Conv or Gemm without
    a bias gets one; a MatMul is corrected in the constant that is added to it, or not at all.

    Args:
        model: Prepared graph.
        sites: Its sites.
        variant: Says which sites go int8, and the calibration.
        ranges: Calibrated ranges of `model`.
        feed: Calibration rows.
    """
    limits = ranges.of(variant.calibration)
    edit = Edit(model)
    layers = [x for x in chosen_layers(model, sites, variant) if x.bias is not None]
    by_key: dict[Key, list[Linear]] = {}
    for linear in layers:
        by_key.setdefault(key_of(linear), []).append(linear)
    found = layer_inputs(model, layers, feed, limits)
    for key, got in found:
        for linear in by_key[key]:
            top = top_code(variant.calibration)
            shift = _shift(linear.rows(edit.weight(linear)), got, top)
            assert linear.bias is not None
            node, slot = linear.bias
            old = edit.constant(node, slot)
            if np.isfinite(shift).all():
                edit.put(node, slot, (0.0 if old is None else old) - shift)
    return edit.model


def _shift(rows: Array, got: LayerInput, top: int) -> Array:
    grid = channel_grid(rows, top=top)
    return bias_shift(rows, grid.values(grid.nearest(rows)), got.mean, got.rounded_mean).reshape(
        -1
    )


def mean_corrected(
    model: onnx.ModelProto,
    sites: Iterable[Site],
    variant: Variant,
    ranges: Ranges,
    feed: Feed,
) -> onnx.ModelProto:
    """A copy whose last layers make up for the mean error of the whole variant.

    The file of `variant` is written and run beside the model on calibration rows, and what it
    adds on average to the outputs of layers with no other layer behind them is taken from
    their biases, be they int8 or not. Unlike `bias_corrected` this sees what rounding does
    between the sites, and it corrects nothing twice.

    Args:
        model: Prepared graph.
        sites: Its sites.
        variant: The variant to correct.
        ranges: Calibrated ranges of `model`.
        feed: Calibration rows.
    """
    last = [x for x in last_layers(model) if x.bias is not None]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "variant.onnx"
        write_variant(model, sites, variant, ranges, path)
        written = onnx.load(str(path))
    found = [_bias_outputs(m, last) for m in (model, written)]
    last = [x for x in last if all(x.node in f for f in found)]
    edit = Edit(model)
    if not last:
        return edit.model
    axes = [x.channel_axis for x in last]
    exact, got = (
        _channel_means(m, [f[x.node] for x in last], axes, feed)
        for m, f in zip((model, written), found, strict=True)
    )
    for linear, wanted, seen in zip(last, exact, got, strict=True):
        assert linear.bias is not None
        old = edit.constant(*linear.bias)
        if np.isfinite(seen - wanted).all():
            edit.put(*linear.bias, (0.0 if old is None else old) - (seen - wanted))
    return edit.model


def last_layers(model: onnx.ModelProto) -> list[Linear]:
    """The linear layers of `model` behind which there is no other, in graph order."""
    linears, behind = linear_nodes(model), Wiring(model.graph).readers
    ahead: dict[str, bool] = {}
    for node in reversed(model.graph.node):
        readers = [n for t in node.output for n, _ in behind.get(t, [])]
        ahead[node.name] = any(n.name in linears or ahead[n.name] for n in readers)
    return [x for name, x in linears.items() if not ahead[name]]


def _bias_outputs(model: onnx.ModelProto, layers: Iterable[Linear]) -> dict[str, str]:
    """By layer, the tensor that has its bias in it; written models may call it otherwise."""
    made = {n.name: n.output[0] for n in model.graph.node}
    return {x.node: made[x.bias[0]] for x in layers if x.bias and x.bias[0] in made}


def _channel_means(
    model: onnx.ModelProto,
    tensors: Sequence[str],
    axes: Sequence[int],
    feed: Feed,
) -> list[Array]:
    sums: list[Any] = [0.0] * len(tensors)
    count = 0
    for _, values in feed.run(model, tensors):
        for k, (tensor, axis) in enumerate(zip(tensors, axes, strict=True)):
            flat = np.moveaxis(values[tensor], axis, -1)
            sums[k] = sums[k] + flat.reshape(-1, flat.shape[-1]).mean(0, dtype=np.float64)
        count += 1
    return [s / count for s in sums]


@dataclass(frozen=True, eq=False)
class Step:
    """One repair that was tried.

    Attributes:
        name: One of `REPAIRS`.
        noise: Noise measured with it, and with all that was kept before it.
        before: Noise without it.
        kept: Whether it lowered the noise.
        seconds: What making it took, the measuring left out.
        model: The best model so far.
        ranges: Its ranges.
    """

    name: str
    noise: float
    before: float
    kept: bool
    seconds: float
    model: onnx.ModelProto
    ranges: Ranges


def repaired(
    model: onnx.ModelProto,
    sites: Sequence[Site],
    variant: Variant,
    ranges: Ranges,
    feed: Feed,
    noise: Callable[[onnx.ModelProto, Ranges], float],
    names: Sequence[str] = FREE,
) -> Iterator[Step]:
    """Try repairs one after the other, each on top of those that were kept before it.

    A repair is kept only where the noise that `noise` measures falls. May be stopped after any
    step: each holds the best model so far. Names of nodes and sites stay as they were.

    Args:
        model: Prepared graph.
        sites: Its sites.
        variant: Says which sites go int8, and the calibration.
        ranges: Calibrated ranges of `model`.
        feed: Calibration rows, not those that `noise` measures on.
        noise: Noise of the score of `variant` of a prepared model with its ranges.
        names: Repairs to try, in order; `smoothed_inserted` adds nodes, and whether its time is
            worth it is the caller's to measure.

    Raises:
        InputError: An unknown repair.
    """
    unknown = [n for n in names if n not in REPAIRS]
    if unknown:
        raise InputError(f"unknown repair {unknown[0]!r}; known: {', '.join(REPAIRS)}")
    best = noise(model, ranges)
    for name in names:
        start = time.perf_counter()
        tried, new = repair(name, model, sites, variant, ranges, feed)
        seconds = time.perf_counter() - start
        if tried == model:
            continue
        got = noise(tried, new)
        kept, before = got < best, best
        if kept:
            model, ranges, best = tried, new, got
        yield Step(name, got, before, kept, seconds, model, ranges)


def repair(
    name: str,
    model: onnx.ModelProto,
    sites: Sequence[Site],
    variant: Variant,
    ranges: Ranges,
    feed: Feed,
) -> tuple[onnx.ModelProto, Ranges]:
    """One repair of `REPAIRS`, with the ranges that go with the model it gives.

    Scaling moves ranges, and they are calibrated again; rounding and biases keep them.
    """
    where = (sites, variant)
    if name == "rounded":
        return rounded(model, *where, feed), ranges
    for rule in (bias_corrected, mean_corrected):
        if name == rule.__name__:
            return rule(model, *where, ranges, feed), ranges
    if name == "equalised":
        new = equalised(model)
    elif name == "smoothed":
        new = smoothed(model, *where, feed)
    elif name == "smoothed_inserted":
        new = smoothed(model, *where, feed, alpha=INSERTED_ALPHA, insert=True)
    else:
        raise InputError(f"unknown repair {name!r}; known: {', '.join(REPAIRS)}")
    if new == model:
        return new, ranges
    return new, calibrate(new, sites, feed.inputs, batch=feed.batch, threads=feed.threads).ranges
