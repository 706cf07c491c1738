"""One step of `make bench-compress` in a process of its own: `python -m` this STEP FOLDER.

FOLDER holds bench.json and settings.json, and a folder for each contender. Steps: `reference`
answers all cases that nobody calibrates on; `make NAME` runs a contender; `judge NAME` judges
what it left on the certification cases and times it; `splits` repeats the choice and the
certificate of ours over random splits. Each leaves a JSON file beside what it made.
"""

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.compress_models import Bench
from justenough.core.cases import Split, split
from justenough.subjects.onnx_model import OnnxModel

Array = NDArray[Any]
LEAST_FEEDS, MOST_FEEDS = 4, 128
# A file that slow is not judged: whether its decisions hold is of no use to anybody.
HOPELESS = 0.5


@dataclass(frozen=True)
class Settings:
    """How a run measures; the same for all contenders.

    Attributes:
        threads: Thread counts to time with; the first one is what is deployed.
        batches: Rows of a call to time, besides the model's own.
        seconds: Wall time for timing one file at one batch and thread count, at least.
        pass_s: Seconds of the reference that one pass over the timed rows takes.
        splits: Random splits.
        pythons: Python of a tool with an environment of its own, by name.
    """

    threads: tuple[int, ...]
    batches: tuple[int, ...]
    seconds: float
    pass_s: float
    splits: int
    pythons: Mapping[str, str]

    @staticmethod
    def read(path: Path) -> "Settings":
        """What the driver wrote."""
        held: dict[str, Any] = json.loads(path.read_text("utf8"))
        return Settings(
            tuple(held["threads"]), tuple(held["batches"]), held["seconds"], held["pass_s"],
            held["splits"], held["pythons"],
        )  # fmt: skip


def reference(bench: Bench, parts: Split, folder: Path, settings: Settings) -> dict[str, Any]:
    """Answer the search and the certification cases; seconds, and the answers in files."""
    model = OnnxModel(bench.path, settings.threads[0], bench.batch)
    spent = 0.0
    for name, part in (("search", parts.search), ("certification", parts.certification)):
        start = time.perf_counter()
        got = model.run(part.cases.inputs)
        spent += time.perf_counter() - start
        with (folder / f"{name}.npz").open("wb") as f:
            np.savez(f, allow_pickle=False, **got)
    return {
        "seconds": spent,
        "parts": {
            k: (p.cases.n, p.cases.n_units)
            for k, p in (
                ("calibration", parts.calibration), ("search", parts.search),
                ("certification", parts.certification),
            )
        },
    }  # fmt: skip


def make(
    bench: Bench, parts: Split, folder: Path, settings: Settings, name: str
) -> dict[str, Any]:
    """Run a contender: its file, and what it took."""
    from benchmarks.compress_peers import MAKERS, Task

    task = Task.of(bench, parts, folder, settings.pythons)
    task.count.write()
    message, file = "", None
    try:
        file = MAKERS[name](task)
    except Exception as e:  # whatever the tool raises is what a user of it would meet
        message = f"{type(e).__name__}: {str(e).strip().splitlines()[0] if str(e).strip() else ''}"
    task.count.write()
    held: dict[str, Any] = json.loads(task.count.path.read_text("utf8"))
    return {
        **held,
        "outcome": "failed" if file is None else "done",
        "message": message[:300],
        "file": None if file is None else str(file.relative_to(folder)),
    }


def ours(bench: Bench, folder: Path, settings: Settings, batch: int) -> dict[str, Any]:
    """One `compress` from scratch: its file, and what it took."""
    from justenough.road import compress

    out, last = folder / "run", [""]

    def progress(stage: str, done: float) -> None:
        if stage != last[0]:
            last[0] = stage
            print(f"{time.strftime('%X')} {stage}", flush=True)

    cases = bench.load()
    start = time.perf_counter()
    found = compress(
        bench.path, cases, bench.contract, out, batch=batch, threads=settings.threads[0],
        progress=progress,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    s = found.summary
    spent = s.get("spent", {"steps": {}, "rows": {}, "inferences": 0})
    certifying = sum(
        t for step, t in spent["steps"].items()
        if step.startswith(("certification/", "certificate/", "race/deployed"))
    )  # fmt: skip
    file = next((p for p in (out / "cascade.toml", out / "model.onnx") if p.is_file()), None)
    search = s.get("search", {})
    kept = ("changed", "noise", "speedup", "low", "high", "bytes", "runtime", "form")
    return {
        "outcome": "done",
        "message": s["reason"],
        "file": None if file is None else str(file.relative_to(folder)),
        "seconds": seconds,
        "certifying_s": certifying,
        "inferences": spent["inferences"],
        "rows": spent["rows"],
        "steps": spent["steps"],
        "verdict": s["verdict"],
        "result": {k: v for k, v in (s["result"] or {}).items() if k != "sites"},
        "searched": {k: search.get(k) for k in ("families", "searched", "notes")},
        "calibrations": search.get("calibrations"),
        "sensitivity": search.get("sensitivity", {}).get("method"),
        "variants": {n: {k: v[k] for k in kept} for n, v in search.get("variants", {}).items()},
        "rungs": s.get("plan", {}).get("rungs", []),
        "certified": [
            {"variant": c["variant"], "threshold": c["threshold"], "verdict": c["verdict"]}
            for c in s.get("steps", [])
        ],
    }


def judge(
    bench: Bench, parts: Split, folder: Path, settings: Settings, at: Path
) -> dict[str, Any]:
    """Certify a contender's file on fresh cases and time it beside the reference."""
    from justenough.core.certificate import evidence_json
    from justenough.deploy.certify import certify, deployed_bytes
    from justenough.errors import JustEnoughError

    with np.load(folder / "reference" / "certification.npz", allow_pickle=False) as z:
        exact = {k: z[k] for k in z.files}
    told = json.loads((folder / "reference" / "result.json").read_text("utf8"))
    rows = sum(told["parts"][k][0] for k in ("search", "certification"))
    try:
        timed = races(bench, parts, at, settings, told["seconds"] / rows)
        if max(r["speedup"] for r in timed.values()) < HOPELESS:
            return {"verdict": "SLOW", "message": "", "bytes": deployed_bytes(at), "races": timed}
        got = certify(
            bench.path, at, parts.certification, bench.contract, batch=bench.batch,
            threads=settings.threads[0], reference_outputs=exact,
        )  # fmt: skip
    except JustEnoughError as e:
        return {"verdict": "FAILED", "message": str(e)[:300]}
    return {
        "verdict": got.verdict.value,
        "evidence": [evidence_json(e) for e in got.evidence],
        "bytes": deployed_bytes(at),
        "races": timed,
    }


def races(
    bench: Bench, parts: Split, at: Path, settings: Settings, row_s: float
) -> dict[str, Any]:
    """The file beside the reference at each batch and thread count, on fresh rows in order."""
    from justenough.deploy.clock import race

    found = {}
    inputs = parts.certification.cases.inputs
    for threads in settings.threads:
        for batch in dict.fromkeys((*settings.batches, bench.batch)):
            feeds = int(settings.pass_s / max(row_s * batch, 1e-6))
            timed = race(
                bench.path, {"file": at}, inputs, batch=batch, threads=threads,
                seconds=settings.seconds, passes=min(max(feeds, LEAST_FEEDS), MOST_FEEDS),
            )  # fmt: skip
            found[f"b{batch}t{threads}"] = asdict(timed["file"])
    return found


def main() -> None:
    """Run one step."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("step", choices=("reference", "make", "judge", "splits"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--name", default="reference")
    given = parser.parse_args()
    folder, name = given.folder, given.name
    bench = Bench.read(folder / "bench.json")
    settings = Settings.read(folder / "settings.json")
    here, out = folder / name, "result.json"
    if given.step == "make" and name.startswith("ours"):
        batch = int(name.partition("-b")[2] or bench.batch)
        body = ours(bench, here, settings, batch)
    elif given.step == "splits":
        from benchmarks.compress_splits import repeat

        body, out = repeat(bench, here, settings.splits, settings.threads[0]), "splits.json"
    else:
        parts = split(bench.load())
        if given.step == "reference":
            body = reference(bench, parts, here, settings)
        elif given.step == "make":
            body = make(bench, parts, here, settings, name)
        else:
            made = json.loads((here / "result.json").read_text("utf8"))
            body, out = judge(bench, parts, folder, settings, here / made["file"]), "judged.json"
    part = here / ("part-" + out)
    part.write_text(json.dumps(body, indent=1, default=_plain) + "\n", "utf8")
    part.replace(here / out)


def _plain(value: object) -> object:
    return value.item() if isinstance(value, np.generic) else str(value)


if __name__ == "__main__":
    main()
