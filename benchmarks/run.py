"""`make bench`: justenough beside other tools, in one run on this machine.

Two trained models with real cases, one contract each, fixed before the run. Every tool gets
the same calibration and search rows; what came out is judged on certification cases that
none of them saw, and timed beside fp32 with pinned threads. Writes benchmarks/results.json
and docs/benchmarks.md.
"""

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import table
from benchmarks.peers import Decision, Task, nncf_accuracy_control, onnxruntime_static
from justenough.core.cases import Cases, Split, load_cases, split
from justenough.core.contract import Contract, parse_clause
from justenough.core.gate import Gate
from justenough.core.judge import judge
from justenough.core.subject import INT8
from justenough.deploy.cascade import write_cascade
from justenough.deploy.certify import deployed_bytes, paired
from justenough.deploy.clock import race
from justenough.deploy.environment import runtime
from justenough.road import compress
from justenough.subjects.onnx_model import OnnxModel

Array = NDArray[Any]
RESULTS = Path("benchmarks/results.json")


@dataclass(frozen=True)
class Bench:
    """A model, its cases and the contract, fixed before the run."""

    name: str
    title: str
    model: Path
    cases: Cases
    contract: Contract
    decision: Decision
    transformer: bool


def benches(folder: Path) -> list[Bench]:
    """The models of the benchmark; the text model is made when it is not there yet."""
    from justenough.studies.nodules import data
    from justenough.studies.nodules.study import CONTRACT, MODEL

    text = folder / "text"
    if not (text / "cases.npz").is_file():
        from benchmarks.text_model import build

        text.mkdir(parents=True, exist_ok=True)
        build(text)
    return [
        Bench(
            "nodules",
            "residual CNN, 0.7 M weights, 8 views of 64x64 (the demo)",
            MODEL,
            data.cases(data.load(folder / "nodules")),
            CONTRACT,
            Decision("malignancy", 0.0),
            False,
        ),
        Bench(
            "text",
            "MiniLM-L6 with a linear head, 22.6 M weights, 64 tokens",
            text / "model.onnx",
            load_cases(text / "cases.npz", ("ids", "mask")),
            Contract((parse_clause("decision_stability >= 0.98"),)),
            Decision("logits"),
            True,
        ),
    ]


def judged(bench: Bench, parts: Split, exact: Mapping[str, Array], file: Path) -> dict[str, Any]:
    """Judge and time a file on cases that no tool saw."""
    cases = parts.certification.cases
    got = OnnxModel(file).run(cases.inputs)
    evidence = judge(bench.contract, paired(exact, got, cases))[0]
    y, z = (bench.decision(o) for o in (exact, got))
    out: dict[str, Any] = {
        "bytes": deployed_bytes(file),
        "rows_changed": int((y != z).sum()),
        "rows": cases.n,
        "evidence": asdict(evidence),
    }
    for batch, threads in ((1, 1), (32, 1), (32, 2)):
        timed = race(
            bench.model, {"file": file}, parts.search.cases.inputs, batch=batch,
            threads=threads, seconds=6.0, passes=8 if batch > 1 else 64,
        )  # fmt: skip
        out[f"b{batch}t{threads}"] = asdict(timed["file"])
    return out


def ours(bench: Bench, folder: Path) -> tuple[dict[str, Any], Path | None]:
    """One `compress` from scratch: what it took and the file it made."""
    out = folder / "ours"
    start = time.perf_counter()
    result = compress(bench.model, bench.cases, bench.contract, out)
    seconds = time.perf_counter() - start
    summary = result.summary
    taken = {
        "peer": f"justenough {summary['justenough']}",
        "outcome": "done",
        "seconds": seconds,
        "inferences": summary["spent"]["inferences"],
        "verdict": summary["verdict"],
        "reason": summary["reason"],
        "result": summary["result"],
        "sensitivity": summary["search"]["sensitivity"]["method"],
        "calibrations": summary["search"]["calibrations"],
        "spent": summary["spent"],
    }
    file = out / "model.onnx"
    return taken, file if file.is_file() else None


def run_bench(bench: Bench, folder: Path, cap_s: float) -> dict[str, Any]:
    """All tools on one model."""
    print(f"{bench.name}: {bench.cases.n} rows, {bench.cases.n_units} units", flush=True)
    parts = split(OnnxModel(bench.model).check_cases(bench.cases))
    clause = bench.contract.clauses[0]
    task = Task(
        bench.model, bench.decision, parts.calibration.cases.inputs,
        parts.search.cases.inputs, parts.search.cases.units,
    )  # fmt: skip
    exact = OnnxModel(bench.model).run(parts.certification.cases.inputs)
    rows: dict[str, Any] = {}
    rows["ours"], file = ours(bench, folder)
    files = {"ours": file}
    for name, result in (
        ("ort", onnxruntime_static(task, folder / "ort.onnx")),
        (
            "nncf",
            nncf_accuracy_control(
                task, folder / "nncf.onnx", bound=clause.bound, transformer=bench.transformer,
                cap_s=cap_s,
            ),
        ),
    ):  # fmt: skip
        files[name] = result.model
        rows[name] = {
            **{k: v for k, v in asdict(result).items() if k != "model"},
            "inferences": result.inferences.total,
        }
        print(f"  {name}: {result.outcome} in {result.seconds:.0f} s", flush=True)
    for name, path in files.items():
        if path is not None:
            rows[name]["judged"] = judged(bench, parts, exact, path)
            speed = rows[name]["judged"]["b32t1"]["speedup"]
            print(f"  {name}: {speed:.2f}x at batch 32, 1 thread", flush=True)
    return {
        "title": bench.title,
        "contract": clause.text,
        "bytes": deployed_bytes(bench.model),
        "parts": {
            k: (getattr(parts, k).cases.n, getattr(parts, k).cases.n_units)
            for k in ("calibration", "search", "certification")
        },
        "tools": rows,
    }


def overhead(bench: Bench, folder: Path) -> dict[str, Any]:
    """What the gate of a cascade costs when it defers nothing: the file against int8 alone."""
    from justenough.core.subject import Variant
    from justenough.subjects import measure
    from justenough.subjects.onnx_model import find_sites, load_proto
    from justenough.subjects.prepare import prepare
    from justenough.subjects.quantize import write_variant

    parts = split(OnnxModel(bench.model).check_cases(bench.cases))
    model = prepare(load_proto(bench.model))
    sites = find_sites(model)
    rows = measure.rows_of(parts.calibration.cases.inputs, 256)
    ranges = measure.calibrate(model, sites, rows, batch=32, threads=1).ranges
    fast, whole = folder / "fast.onnx", folder / "whole.onnx"
    write_variant(model, sites, Variant.of({s.name: INT8.name for s in sites}), ranges, fast)
    gate = Gate(bench.decision.output, "cut" if bench.decision.cut is not None else "top_k",
                cut=bench.decision.cut or 0.0, threshold=-1.0)  # fmt: skip
    write_cascade(fast, bench.model, gate, whole)
    out = {}
    for batch in (1, 32):
        timed = race(
            fast, {"whole": whole}, parts.search.cases.inputs, batch=batch, threads=1,
            seconds=10.0, passes=8 if batch > 1 else 128,
        )  # fmt: skip
        out[f"b{batch}t1"] = asdict(timed["whole"])
    return out


def main() -> None:
    """Run everything and write the results and the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("build/bench"))
    parser.add_argument("--cap", type=float, default=900.0, help="Seconds that NNCF may take.")
    parser.add_argument("--only", help="One model by name; the others keep their last results.")
    args = parser.parse_args()
    known: dict[str, Any] = {}
    if args.only and RESULTS.is_file():
        known = json.loads(RESULTS.read_text("utf8"))["models"]
    args.folder.mkdir(parents=True, exist_ok=True)
    for bench in benches(args.folder):
        if args.only in (None, bench.name):
            folder = Path(tempfile.mkdtemp(dir=args.folder))
            known[bench.name] = run_bench(bench, folder, args.cap)
            known[bench.name]["overhead"] = overhead(bench, folder)
            shutil.rmtree(folder)
    results = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": runtime(threads=1, batch=32),
        "models": known,
    }
    RESULTS.write_text(json.dumps(results, indent=1, default=_plain) + "\n", "utf8")
    page = table.whole_page(Path("benchmarks/compress.json"), RESULTS)
    Path("docs/benchmarks.md").write_text(page, "utf8")


def _plain(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    return str(value)


if __name__ == "__main__":
    main()
