"""Local choices beside fp32 and static int8: seconds, bytes and noise, layer by layer and whole.

Every file is timed in turn with fp32 on the same rows, with pinned threads. Writes
benchmarks/local_choices.json and prints its tables. Run as
`python -m benchmarks.local_choices`; the text model is made when it is not there yet.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from justenough.core.cases import load_cases
from justenough.core.subject import Site
from justenough.deploy.environment import runtime
from justenough.subjects import measure
from justenough.subjects.local_choices import LOCAL, apply_local
from justenough.subjects.onnx_model import OnnxModel, find_sites, load_proto
from justenough.subjects.prepare import prepare
from justenough.subjects.quantize import with_outputs, write_variant
from justenough.subjects.sessions import session

Array = NDArray[Any]
RESULTS = Path("benchmarks/local_choices.json")
CHOICES = (
    "fp16", "fp16-weight", "bf16-weight", "int8-dynamic",
    "int8-weight-b32", "int8-weight", "int4-weight", "int4-weight-b64", "int4-weight-b128",
    "int2-weight-b32", "int2-weight", "int2-weight-b128",
)  # fmt: skip
# The same files without leave to round activations: what that leave is worth.
EXACT_INPUTS = ("int8-weight", "int4-weight", "int2-weight")
LAYERS = ((384, 384), (384, 1536), (1024, 4096), (60000, 1024))
ROWS = (1, 8, 32 * 128)
MOST_PRODUCTS = 2e10
MEMORY_LAYER = (60000, 1024)
# Of a layer as large as this only the usual blocks are made: rounding it takes its time.
LARGE = 10**7
FEEDS, LEAST_PASSES, MOST_PASSES, SECONDS = 8, 5, 100, 10.0


@dataclass(frozen=True)
class Row:
    """A file beside fp32.

    Attributes:
        choice: What its sites take; `int8 static` has Q/DQ pairs and calibrated ranges.
        seconds_ratio: Its time over that of fp32, median of passes; `low` and `high` the 10 %
            and 90 %.
        bytes_ratio: Of the files.
        noise_db: Power of the exact result over that of the change.
        changed: Share of decisions that differ; None where nothing is decided.
    """

    choice: str
    seconds_ratio: float
    low: float
    high: float
    bytes_ratio: float
    noise_db: float
    changed: float | None


def layer(k: int, n: int, rng: np.random.Generator) -> onnx.ModelProto:
    """One MatMul with weights of variance 1 / k."""
    kind = onnx.TensorProto.FLOAT
    weight = rng.standard_normal((k, n), np.float32) / np.float32(k**0.5)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "product")],
        "layer",
        [helper.make_tensor_value_info("x", kind, ["n", k])],
        [helper.make_tensor_value_info("y", kind, ["n", n])],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def files(
    model: onnx.ModelProto, sites: Sequence[Site], rows: Mapping[str, Array], folder: Path
) -> dict[str, Path]:
    """fp32, every local choice at all sites that hold a weight, and static int8."""
    held = [s for s in sites if s.size]
    out = {"fp32": folder / "fp32.onnx"}
    onnx.save(model, str(out["fp32"]))
    large = max(s.size for s in held) > LARGE
    for choice in [c.name for c in LOCAL] if large else CHOICES:
        made = apply_local(model, sites, {s.name: choice for s in held})
        out[choice] = folder / f"{choice}.onnx"
        onnx.save(made, str(out[choice]))
        if choice in EXACT_INPUTS and not large:
            for node in made.graph.node:
                if node.op_type == "MatMulNBits":
                    level = next(a for a in node.attribute if a.name == "accuracy_level")
                    level.i = 0
            name = f"{choice} (level 0)"
            out[name] = folder / f"{name}.onnx"
            onnx.save(made, str(out[name]))
    ranges = measure.calibrate(model, sites, rows, batch=8, threads=1).ranges
    out["int8 static"] = folder / "static.onnx"
    write_variant(model, sites, measure.all_int8(held), ranges, out["int8 static"])
    return out


def decibels(exact: Array, got: Array) -> float:
    """Power of `exact` over that of the change, in dB."""
    change = float(((got.astype(np.float64) - exact) ** 2).mean())
    return float(10 * np.log10(float((exact.astype(np.float64) ** 2).mean()) / max(change, 1e-30)))


def answers(path: Path, rows: Mapping[str, Array], batch: int) -> dict[str, Array]:
    """Outputs of a file."""
    return OnnxModel(path, 1, batch).run(rows)


def paired(
    made: Mapping[str, Path], rows: Mapping[str, Array], *, batch: int, threads: int
) -> dict[str, tuple[float, float, float]]:
    """Seconds over those of fp32 in the same pass: median, 10 % and 90 % of the passes."""
    feeds = list(measure.batches(rows, batch))[:FEEDS]
    live = {name: session(path, threads=threads) for name, path in made.items()}
    for s in live.values():
        s.run(None, feeds[0])
    passes: list[list[float]] = []
    start = time.perf_counter()
    while len(passes) < LEAST_PASSES or (
        time.perf_counter() - start < SECONDS and len(passes) < MOST_PASSES
    ):
        spent = dict.fromkeys(live, 0.0)
        for feed in feeds:
            for name, s in live.items():
                begin = time.perf_counter()
                s.run(None, feed)
                spent[name] += time.perf_counter() - begin
        passes.append([spent[name] / spent["fp32"] for name in live])
    middle, low, high = np.quantile(np.array(passes), [0.5, 0.1, 0.9], axis=0)
    return {name: (float(middle[k]), float(low[k]), float(high[k])) for k, name in enumerate(live)}


def raced(
    made: Mapping[str, Path],
    rows: Mapping[str, Array],
    heard: str,
    decided: str | None,
    *,
    batch: int,
) -> dict[int, list[Row]]:
    """By threads: times, and output `heard` and argmax of `decided` beside those of fp32."""
    exact = answers(made["fp32"], rows, batch)
    size = made["fp32"].stat().st_size
    noise, changed = {}, {}
    for name, path in made.items():
        got = answers(path, rows, batch)
        noise[name] = decibels(exact[heard], got[heard])
        if decided is not None:
            flips = got[decided].argmax(1) != exact[decided].argmax(1)
            changed[name] = float(flips.mean())
    return {
        threads: [
            Row(n, *t, made[n].stat().st_size / size, noise[n], changed.get(n))
            for n, t in paired(made, rows, batch=batch, threads=threads).items()
            if n != "fp32"
        ]
        for threads in (1, 2)
    }


def layers(shapes: Iterable[tuple[int, int]]) -> dict[str, list[dict[str, Any]]]:
    """Single products on gaussian rows."""
    out = {}
    for k, n in shapes:
        rng = np.random.default_rng(0)
        model = layer(k, n, rng)
        sites = find_sites(model)
        with tempfile.TemporaryDirectory() as folder:
            few = {"x": rng.standard_normal((64, k), np.float32)}
            made = files(model, sites, few, Path(folder))
            for rows in ROWS:
                if rows * k * n > MOST_PRODUCTS:
                    continue
                x = {"x": rng.standard_normal((rows if rows > 64 else 64, k), np.float32)}
                for threads, got in raced(made, x, "y", None, batch=rows).items():
                    key = f"{k}x{n}, {rows} rows, {threads} threads"
                    out[key] = [asdict(r) for r in got]
                    show(key, got)
    return out


def text(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The whole text model: noise of its embedding and changed decisions."""
    if not (folder / "cases.npz").is_file():
        from benchmarks.text_model import build

        build(folder)
    model = prepare(load_proto(folder / "model.onnx"))
    head = next(n for n in model.graph.node if "logits" in n.output)
    heard = head.input[0]
    model = with_outputs(model, [heard])
    rows = measure.rows_of(load_cases(folder / "cases.npz", ("ids", "mask")).inputs, 256)
    sites = find_sites(model)
    out = {}
    with tempfile.TemporaryDirectory() as place:
        made = files(model, sites, measure.rows_of(rows, 128), Path(place))
        for batch in (1, 8):
            for threads, got in raced(made, rows, heard, "logits", batch=batch).items():
                key = f"MiniLM-L6, batch {batch}, {threads} threads"
                out[key] = [asdict(r) for r in got]
                show(key, got)
    return out


_RESIDENT = """
import sys
from justenough.subjects.sessions import session
def resident(key):
    text = open("/proc/self/status").read()
    return int(text.split(key + ":")[1].split()[0]) * 1024
before = resident("VmRSS")
s = session(sys.argv[1])
print(resident("VmRSS") - before, resident("VmHWM") - before)
"""


def memory() -> dict[str, dict[str, int]]:
    """Bytes of one large layer: its file, and what a process grows by when it loads it."""
    rng = np.random.default_rng(0)
    model = layer(*MEMORY_LAYER, rng)
    out = {}
    with tempfile.TemporaryDirectory() as folder:
        few = {"x": rng.standard_normal((16, MEMORY_LAYER[0]), np.float32)}
        for name, path in files(model, find_sites(model), few, Path(folder)).items():
            got = subprocess.run(
                [sys.executable, "-c", _RESIDENT, str(path)],
                capture_output=True, text=True, check=True,
            ).stdout.split()  # fmt: skip
            out[name] = {
                "file": path.stat().st_size, "resident": int(got[0]), "peak": int(got[1])
            }  # fmt: skip
            mib = " ".join(f"{k} {v / 2**20:7.0f} MiB" for k, v in out[name].items())
            print(f"  {name:24} {mib}", flush=True)
    return out


def show(title: str, rows: Sequence[Row]) -> None:
    """Print one table."""
    print(f"\n{title}\n  {'choice':24} {'seconds':>22} {'bytes':>6} {'dB':>6} {'changed':>8}")
    for r in rows:
        spread = f"{r.seconds_ratio:.2f} [{r.low:.2f} - {r.high:.2f}]"
        changed = "" if r.changed is None else f"{100 * r.changed:.1f} %"
        print(f"  {r.choice:24} {spread:>22} {r.bytes_ratio:6.3f} {r.noise_db:6.1f} {changed:>8}")
    sys.stdout.flush()


def main() -> None:
    """Measure everything and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("build/bench/text"))
    parser.add_argument("--only", choices=("layers", "text", "memory"))
    args = parser.parse_args()
    known = json.loads(RESULTS.read_text("utf8")) if RESULTS.is_file() else {}
    if args.only in (None, "text"):
        known["text"] = text(args.folder)
    if args.only in (None, "memory"):
        known["memory"] = memory()
    if args.only in (None, "layers"):
        known["layers"] = layers(LAYERS)
    known["date"] = datetime.now(UTC).date().isoformat()
    known["machine"] = runtime(threads=1, batch=8)
    RESULTS.write_text(json.dumps(known, indent=1) + "\n", "utf8")


if __name__ == "__main__":
    main()
