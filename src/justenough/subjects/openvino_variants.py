"""Int8 variants for OpenVINO: NNCF's placement with chosen sites put back, and its profile."""

import errno
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from justenough.core.subject import Site
from justenough.errors import InputError
from justenough.subjects.openvino_session import open_openvino, read_model

Array = NDArray[Any]
PRODUCTS = ("Convolution", "GroupConvolution", "MatMul")
BARE = "/WithoutBiases"
SMOOTHED = "/nncf_smooth_quant"
PROFILED_S = 2.0


def write_excluding(
    quantized: Path,
    model: Path,
    sites: Iterable[Site],
    int8: Iterable[str],
    ranges: Mapping[str, tuple[float, float]],
    out: Path,
) -> None:
    """Write NNCF's model with our ranges, and every site but those in `int8` put back to float.

    A site gets its own weights and bias back, for NNCF rounds the one and shifts the other,
    and what it reads without the scales that SmoothQuant moved into its weights; the rounding
    of values that only such sites write or read is taken out. One run of NNCF so serves every
    choice of sites.

    Args:
        quantized: IR that NNCF wrote for all of the model.
        model: The ONNX file that it was made from.
        sites: Sites of that model.
        int8: Names of the sites that stay int8.
        ranges: Calibrated (low, high) by name of the node or input that makes a value; where
            one is missing, NNCF's stays. All of NNCF's stay where it moved scales into weights:
            most roundings then are of scaled values, and ours beside them gain nothing.
        out: `.xml` file to write.
    """
    chosen = set(int8)
    graph, exact = read_model(quantized), read_model(model)
    nodes = {o.get_friendly_name(): o for o in graph.get_ops()}
    floats = {o.get_friendly_name(): o for o in exact.get_ops()}
    names = {n for s in sites if s.name not in chosen for n in s.nodes}
    for name in names:
        for node in (name, name + BARE):
            if node in nodes and node in floats:
                _restore(nodes[node], floats[node])
    quantized_products = {
        o.get_friendly_name()
        for o in graph.get_ops()
        if o.get_type_name() in PRODUCTS and o.get_friendly_name().removesuffix(BARE) not in names
    }
    _drop_idle(graph, quantized_products)
    if not any(name.endswith(SMOOTHED) for name in nodes):
        _set_ranges(graph, ranges)
    graph.validate_nodes_and_infer_types()
    part = out.with_name("part-" + out.name)
    save_ir(graph, part)
    part.with_suffix(".bin").replace(out.with_suffix(".bin"))
    part.replace(out)


def save_ir(graph: ov.Model, path: Path) -> None:
    """Write an IR; OpenVINO calls a disk that is full an error of its stream."""
    try:
        ov.save_model(graph, str(path), compress_to_fp16=False)
    except RuntimeError as e:
        if "iostream" in str(e):
            raise OSError(errno.ENOSPC, "the disk is full", str(path)) from e
        raise


def _restore(node: Any, exact: Any) -> None:
    """Give a node the constants that its float twin has."""
    for port, twin in zip(node.inputs(), exact.inputs(), strict=True):
        source = twin.get_source_output().get_node()
        if source.get_type_name() == "Constant":
            held = ov.opset13.constant(np.array(source.data))
            port.replace_source_output(held.output(0))
        else:
            port.replace_source_output(_unrounded(port.get_source_output()))


def _unrounded(value: Any) -> Any:
    """The value before NNCF rounded it, and before it moved scales from it into weights."""
    node = value.get_node()
    if node.get_type_name() == "FakeQuantize":
        return _unrounded(node.input_value(0))
    if node.get_friendly_name().endswith(SMOOTHED):
        return node.input_value(0)
    return value


def _drop_idle(graph: ov.Model, products: set[str]) -> None:
    """Take out activation roundings that no int8 product reads at once, or wrote and others read.

    A rounding in front of an Add or a Concat pays only where an int8 product made the value.
    """
    for node in graph.get_ordered_ops():
        if node.get_type_name() != "FakeQuantize":
            continue
        if node.input_value(0).get_node().get_type_name() == "Constant":
            continue
        if _reads(node, products) or _made_by(node, products):
            continue
        source = node.input_value(0)
        for port in list(node.output(0).get_target_inputs()):
            port.replace_source_output(source)


def _set_ranges(graph: ov.Model, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Give activation roundings calibrated ranges, symmetric where values have both signs."""
    for node in graph.get_ops():
        if node.get_type_name() != "FakeQuantize":
            continue
        source = node.input_value(0).get_node().get_friendly_name().removesuffix(BARE)
        if source not in ranges:
            continue
        low, high = min(ranges[source][0], 0.0), max(ranges[source][1], 1e-12)
        if low < 0:
            high = max(high, -low)
            low = -high * 128 / 127
        for k, limit in ((1, low), (2, high), (3, low), (4, high)):
            shape = np.array(node.input_value(k).get_shape(), int)
            held = ov.opset13.constant(np.full(shape, limit, np.float32))
            node.input(k).replace_source_output(held.output(0))


def _reads(node: Any, products: set[str]) -> bool:
    """Whether a product in `products` reads the node's values before they are rounded again."""
    for port in node.output(0).get_target_inputs():
        reader = port.get_node()
        kind = reader.get_type_name()
        if kind in PRODUCTS:
            if reader.get_friendly_name() in products:
                return True
        elif (
            kind not in ("FakeQuantize", "Result")
            and _one_output(reader)
            and _reads(reader, products)
        ):
            return True
    return False


def _made_by(node: Any, products: set[str]) -> bool:
    """Whether the node's values come from a product in `products`, not rounded in between."""
    for value in node.input_values():
        source = value.get_node()
        kind = source.get_type_name()
        if kind in PRODUCTS:
            if source.get_friendly_name() in products:
                return True
        elif kind not in ("FakeQuantize", "Constant", "Parameter") and _made_by(source, products):
            return True
    return False


def _one_output(node: Any) -> bool:
    return int(node.get_output_size()) == 1


def seconds_by_site(
    path: Path, sites: Sequence[Site], inputs: Mapping[str, Array], *, threads: int, precision: str
) -> dict[str, float]:
    """Median seconds per call of each site in OpenVINO; 0 where it ran inside another node.

    Args:
        path: ONNX file or IR with the sites' names.
        sites: Sites to look for.
        inputs: One batch.
        threads: Threads of the session.
        precision: As for `open_openvino`.
    """
    session = open_openvino(path, threads=threads, precision=precision, profile=True)
    seen: list[dict[str, float]] = []
    for _ in range(12):
        session.run(None, dict(inputs))
        seen.append(session.seconds_by_node())
        if len(seen) > 3 and sum(sum(s.values()) for s in seen) > PROFILED_S:
            break
    if not seen[-1]:
        raise InputError(f"OpenVINO gave no times for {path.name}")
    names = {n: s.name for s in sites for node in s.nodes for n in (node, node + BARE)}
    out = dict.fromkeys((s.name for s in sites), 0.0)
    for node in seen[-1]:
        if node in names:
            out[names[node]] += float(np.median([s.get(node, 0.0) for s in seen[1:]]))
    return out
