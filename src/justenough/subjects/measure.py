"""What a model measures about itself: ranges, noise of its sites, seconds of its nodes."""

import json
import re
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from justenough.core.rows import Column
from justenough.core.subject import INT8, Site, Variant
from justenough.cost.roofline import Layer
from justenough.cost.table import CostTable, Edge, Local, Unit
from justenough.subjects.local_choices import apply_local
from justenough.subjects.onnx_model import initializer_names, shapes_of
from justenough.subjects.quantize import (
    FLOAT_OUTPUT,
    Ranges,
    find_ranges,
    int8_nodes,
    observed_tensors,
    unfused,
    with_outputs,
    write_variant,
)
from justenough.subjects.sessions import session

Array = NDArray[Any]
Inputs = Mapping[str, Column]
SAMPLED_PER_ROW = 256
# More rows a call are no faster here, and all their values are held at once.
CALIBRATION_BYTES = 2**25
PROFILED_RUNS = 12
# A profile ends after so many seconds, one of a local choice sooner, and not before so many runs.
PROFILED_S, LOCAL_S, LEAST_RUNS = 3.0, 1.0, 5


@dataclass(frozen=True)
class Calibration:
    """Ranges of the tensors that may be rounded, and their values per row.

    Attributes:
        ranges: By calibration and tensor.
        sizes: Values of each tensor per case.
    """

    ranges: Ranges
    sizes: Mapping[str, float]


@contextmanager
def scratch(model: onnx.ModelProto, name: str = "model.onnx") -> Iterator[Path]:
    """A file of `model` that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        large = model.ByteSize() > 2**31 - 2**20
        onnx.save(model, str(path), save_as_external_data=large, location="weights.bin")
        yield path


def batches(inputs: Inputs, size: int) -> Iterator[dict[str, Array]]:
    """Rows of `inputs` in order, `size` at a time, a short rest left out.

    Fewer rows than `size` are repeated to fill one batch: a graph may have its batch fixed.
    """
    n = len(next(iter(inputs.values())))
    if n < size:
        yield {k: np.asarray(v[np.arange(size) % n]) for k, v in inputs.items()}
    for i in range(0, n - size + 1, size):
        yield {k: v[i : i + size] for k, v in inputs.items()}


def rows_of(inputs: Inputs, at_most: int) -> dict[str, Array]:
    """At most `at_most` rows, evenly spaced over all of them."""
    n = len(next(iter(inputs.values())))
    pick = np.unique(np.linspace(0, n - 1, min(n, at_most)).astype(np.intp))
    return {k: v[pick] for k, v in inputs.items()}


def fixed_batch(model: onnx.ModelProto) -> bool:
    """Whether the batch size of `model` is baked in."""
    held = initializer_names(model.graph)
    shapes = [i.type.tensor_type.shape.dim for i in model.graph.input if i.name not in held]
    return any(d[0].HasField("dim_value") for d in shapes if d)


def rows_within(values_per_row: float, most_bytes: float, most: int) -> int:
    """Rows whose float32 values fit into `most_bytes`, 1 to `most`.

    >>> rows_within(1000, 8000, 32), rows_within(1e9, 8000, 32)
    (2, 1)
    """
    return int(min(max(most_bytes / (4 * max(values_per_row, 1.0)), 1), most))


def _calls(
    inputs: Inputs, batch: int, fixed: bool, sizes: Mapping[str, float]
) -> Iterator[dict[str, Array]]:
    """Calls that hold no more values than they may, once one row has said how many it has."""
    if fixed:
        yield from batches(inputs, batch)
        return
    n, start = len(next(iter(inputs.values()))), 0
    while start < n:
        step = rows_within(sum(sizes.values()), CALIBRATION_BYTES, batch) if sizes else 1
        yield {k: np.asarray(v[start : start + step]) for k, v in inputs.items()}
        start += step


def calibrate(
    model: onnx.ModelProto, sites: Sequence[Site], inputs: Inputs, *, batch: int, threads: int
) -> Calibration:
    """Ranges of every tensor that may be rounded, from one pass over `inputs`.

    All calibrations come from the same pass: extremes over every value, quantiles and
    squared errors over a random sample of each batch, the same each time.
    """
    tensors = observed_tensors(model, sites)
    low: dict[str, float] = defaultdict(lambda: np.inf)
    high: dict[str, float] = defaultdict(lambda: -np.inf)
    kept: dict[str, list[Array]] = defaultdict(list)
    sizes: dict[str, float] = {}
    rng = np.random.default_rng(0)
    with scratch(with_outputs(model, tensors)) as path:
        run = session(path, threads=threads)
        for rows in _calls(inputs, batch, fixed_batch(model), sizes):
            values = run.run(tensors, dict(rows))
            n = len(next(iter(rows.values())))
            for name, value in zip(tensors, values, strict=True):
                low[name] = min(low[name], float(value.min(initial=0)))
                high[name] = max(high[name], float(value.max(initial=0)))
                flat = value.ravel()
                # At random: an even stride can fall on the same pixel of every image.
                kept[name].append(flat[rng.integers(0, max(len(flat), 1), n * SAMPLED_PER_ROW)])
                sizes[name] = value.size / max(n, 1)
            del values, value, flat  # before the next call makes its own
    samples = {t: (low[t], high[t], np.concatenate(kept.pop(t))) for t in tensors}
    return Calibration(find_ranges(samples), sizes)


@dataclass(frozen=True)
class Profile:
    """Median kernel seconds per call, by node of the graph as written, and the rest."""

    by_node: Mapping[str, float]
    conversions: float
    total: float


_CONVERSION = ("QuantizeLinear", "DequantizeLinear", "ReorderInput", "ReorderOutput", "Transpose")
_SUFFIX = re.compile(r"(_nchwc|_token_\d+|/duplicated|/\w+Fusion/?)$")


def profile(
    path: Path,
    nodes: Mapping[str, str],
    inputs: Inputs,
    *,
    threads: int,
    seconds: float = np.inf,
) -> Profile:
    """Median kernel times of the file at `path`.

    Args:
        path: ONNX file.
        inputs: One batch.
        threads: Threads of the session.
        nodes: Node name of every node name and output tensor name of the graph as written:
            the runtime names a fused kernel after one or the other.
        seconds: Time after which no further run begins.
    """
    with tempfile.TemporaryDirectory() as folder:
        o = ort.SessionOptions()
        o.intra_op_num_threads, o.inter_op_num_threads, o.log_severity_level = threads, 1, 4
        o.enable_profiling, o.profile_file_prefix = True, str(Path(folder) / "profile")
        run = ort.InferenceSession(str(path), o, providers=["CPUExecutionProvider"])
        runs, start = 0, time.perf_counter()
        while runs < PROFILED_RUNS and (
            runs < LEAST_RUNS or time.perf_counter() - start < seconds
        ):
            run.run(None, dict(inputs))
            runs += 1
        events = json.loads(Path(run.end_profiling()).read_text())
    seen: dict[str, list[float]] = defaultdict(list)
    ops: dict[str, str] = {}
    for e in events:
        if e.get("cat") == "Node" and e["name"].endswith("_kernel_time"):
            name = e["name"].removesuffix("_kernel_time")
            seen[name].append(e["dur"] * 1e-6)
            ops[name] = e["args"]["op_name"]
    by_node: dict[str, float] = defaultdict(float)
    conversions = 0.0
    for name, times in seen.items():
        # Every kernel runs once a call; the first calls warm up.
        each = float(np.median(times[2:] or times)) * round(len(times) / runs)
        plain = name
        while plain not in nodes and _SUFFIX.search(plain):
            plain = _SUFFIX.sub("", plain)
        if plain in nodes:
            by_node[nodes[plain]] += each
        elif ops[name] in _CONVERSION:
            conversions += each
        else:
            by_node[name] += each
    return Profile(dict(by_node), conversions, sum(by_node.values()) + conversions)


def cost_table(
    model: onnx.ModelProto,
    sites: Sequence[Site],
    calibration: Calibration,
    inputs: Inputs,
    *,
    threads: int,
    local: Mapping[str, Sequence[str]] = {},
    form: str = "full",
) -> CostTable:
    """Profile the model in float32, in int8, and with every other site in int8.

    The third file tells what converting a value costs here, reorders included. Each local
    choice has a file of its own, with every site in it that is asked for.

    Args:
        model: Prepared graph.
        sites: Its sites.
        calibration: Ranges and sizes of its tensors.
        inputs: One batch, of the size to optimise for.
        threads: Threads to optimise for.
        local: Sites by local choice, all open there, whose costs are wanted too.
        form: `full` or `whole`.
    """
    model = unfused(model) if form == "whole" else model
    names = {n.name: n.name for n in model.graph.node}
    nodes = {**{t: n.name for n in model.graph.node for t in n.output}, **names}
    files = {"fp32": (), "int8": tuple(sites), "mixed": tuple(sites[1::2])}
    got: dict[str, Profile] = {}
    with tempfile.TemporaryDirectory() as folder:
        for key, chosen in files.items():
            path = Path(folder) / f"{key}.onnx"
            if key == "fp32":
                onnx.save(model, str(path))
            else:
                write_variant(model, sites, all_int8(chosen, form), calibration.ranges, path)
            got[key] = profile(path, nodes, inputs, threads=threads, seconds=PROFILED_S)
    changes = [
        Local(site, choice, change)
        for choice, at_sites in local.items()
        for site, change in _local_changes(
            model, [s for s in sites if s.name in at_sites], choice, got["fp32"], inputs, threads
        ).items()
    ]
    edges = tensor_edges(model, sites, form)
    rows = len(next(iter(inputs.values())))
    values = {e.tensor: rows * calibration.sizes.get(e.tensor, 0.0) for e in edges}
    mixed = int8_nodes(model, sites, all_int8(files["mixed"], form))
    crossed = sum(values[e.tensor] * e.crossings(mixed) for e in edges)
    convert_s = got["mixed"].conversions / crossed if crossed else 0.0
    units = _units(model, sites, got["fp32"].by_node, got["int8"].by_node, form)
    at = {u.name: k for k, u in enumerate(units)}
    table = tuple(
        Edge(
            None if e.producer is None else at.get(e.producer),
            tuple(at.get(c, -1) for c in e.consumers),
            convert_s * values[e.tensor],
            convert_s * values[e.tensor],
            e.pinned_float,
        )
        for e in edges
    )
    return CostTable(units, table, got["fp32"].total, tuple(changes))


def _local_changes(
    model: onnx.ModelProto,
    sites: Sequence[Site],
    choice: str,
    exact: Profile,
    inputs: Inputs,
    threads: int,
) -> dict[str, float]:
    """Seconds per call that `choice` adds to each of `sites`."""
    written = apply_local(model, sites, {s.name: choice for s in sites})
    owner = owners(model, written)
    nodes = {**owner, **{t: owner[n.name] for n in written.graph.node for t in n.output}}
    with scratch(written) as path:
        got = profile(path, nodes, inputs, threads=threads, seconds=LOCAL_S)
    readers = {t: n for n in model.graph.node for t in n.input}
    made = {n.name: n.output[0] for n in model.graph.node}
    out = {}
    for site in sites:
        out[site.name] = sum(got.by_node.get(n, 0.0) - exact.by_node.get(n, 0.0)
                             for n in site.nodes)  # fmt: skip
        for name in site.nodes:
            # What was part of the product's kernel in float32, such as a bias, may be on its own.
            after = readers.get(made[name])
            while after is not None and after.name not in exact.by_node:
                out[site.name] += got.by_node.get(after.name, 0.0)
                after = readers.get(after.output[0])
    return out


def owners(model: onnx.ModelProto, written: onnx.ModelProto) -> dict[str, str]:
    """For each node that `apply_local` wrote, the node of `model` for which it stands.

    What stands for a node comes in its place, and ends with what makes its result.
    """
    made = {t: n.name for n in model.graph.node for t in n.output if t}
    out: dict[str, str] = {}
    waiting: list[str] = []
    for node in written.graph.node:
        waiting.append(node.name)
        whose = next((made[t] for t in node.output if t in made), None)
        if whose is not None:
            out |= dict.fromkeys(waiting, whose)
            waiting = []
    return out


def all_int8(sites: Sequence[Site], form: str = "full") -> Variant:
    """The variant that has every one of `sites` in int8."""
    return Variant.of({s.name: INT8.name for s in sites}, form=form)


def _units(
    model: onnx.ModelProto,
    sites: Sequence[Site],
    fp32: Mapping[str, float],
    int8: Mapping[str, float],
    form: str,
) -> tuple[Unit, ...]:
    """Nodes that can run in int8, in graph order, with what each costs both ways."""
    everything = int8_nodes(model, sites, all_int8(sites, form))
    site_of = {n: s.name for s in sites for n in s.nodes}
    constants = initializer_names(model.graph)
    made = {t: n.name for n in model.graph.node for t in n.output}
    order = [n for n in model.graph.node if n.name in everything]
    at = {n.name: k for k, n in enumerate(order)}
    return tuple(
        Unit(
            n.name,
            site_of.get(n.name),
            ()
            if n.name in site_of
            else tuple(at[made[t]] for t in n.input if t in made and made[t] in at),
            fp32.get(n.name, 0.0),
            int8.get(n.name, 0.0),
        )
        for n in order
        if n.name in site_of or any(t not in constants for t in n.input)
    )


@dataclass(frozen=True)
class TensorEdge:
    """A tensor that may be rounded: who makes it and who reads it, by node name."""

    tensor: str
    producer: str | None
    consumers: tuple[str, ...]
    pinned_float: bool

    def crossings(self, int8: set[str]) -> int:
        """How often its values are converted when the nodes in `int8` run in int8."""
        writes = self.producer in int8 and not self.pinned_float
        if not writes and not any(c in int8 for c in self.consumers):
            return 0
        return (not writes) + sum(c not in int8 for c in self.consumers)


def tensor_edges(
    model: onnx.ModelProto, sites: Sequence[Site], form: str = "full"
) -> list[TensorEdge]:
    """The tensors next to nodes that can run in int8."""
    everything = int8_nodes(model, sites, all_int8(sites, form))
    constants = initializer_names(model.graph)
    made = {t: n for n in model.graph.node for t in n.output}
    readers: dict[str, list[str]] = defaultdict(list)
    for n in model.graph.node:
        for t in n.input:
            readers[t].append(n.name)
    outputs = {o.name for o in model.graph.output}
    edges = []
    for tensor in observed_tensors(model, sites):
        if tensor in constants:
            continue
        producer = made.get(tensor)
        name = producer.name if producer is not None else None
        pinned = producer is not None and (
            tensor in outputs
            or (
                producer.op_type in FLOAT_OUTPUT
                and not any(r in everything for r in readers[tensor])
            )
        )
        edges.append(TensorEdge(tensor, name, tuple(readers[tensor]), pinned))
    return edges


def layers_of(model: onnx.ModelProto, sites: Sequence[Site]) -> list[Layer]:
    """Sites and the other nodes in numbers, for estimates; a Relu is part of what it follows."""
    shapes, held = shapes_of(model), initializer_names(model.graph)

    def values(node: onnx.NodeProto) -> float:
        moved = [t for t in (*node.input, *node.output) if t and t not in held]
        return float(sum(np.prod([d for d in shapes.get(t, ()) if d > 0]) for t in moved))

    nodes = {n.name: n for n in model.graph.node}
    out = [
        Layer(s.name, s.operations or None, s.size, sum(values(nodes[n]) for n in s.nodes))
        for s in sites
    ]
    taken = {n for s in sites for n in s.nodes}
    return out + [
        Layer(n.name, 0, 0, values(n))
        for n in model.graph.node
        if n.name not in taken and n.op_type not in ("Relu", "Constant")
    ]


def seconds_by_site(
    model: onnx.ModelProto, sites: Sequence[Site], got: Profile
) -> dict[str, float]:
    """Seconds per call of each site; a kernel fused with what follows carries its name."""
    readers = {t: n for n in model.graph.node for t in n.input}
    by_name = {n.name: n for n in model.graph.node}
    out = {}
    for site in sites:
        seconds = 0.0
        for name in site.nodes:
            node: onnx.NodeProto | None = by_name[name]
            for _ in range(3):
                if node is None or node.name in got.by_node:
                    break
                node = readers.get(node.output[0])
            seconds += got.by_node.get(node.name, 0.0) if node is not None else 0.0
        out[site.name] = seconds
    return out
