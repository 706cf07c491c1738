"""`make bench-compress`: which tool makes a model fastest and keeps its decisions, in one run.

For each model every tool gets the same calibration and search rows; what came out is judged by
the same contract on certification cases that none of them saw, and timed beside fp32 in ONNX
Runtime, both sides in turn with pinned threads. Every tool runs in a process of its own, under a
time limit. Results are written after each one: a run that was stopped goes on where it was.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import table
from benchmarks.compress_models import Bench, Given, benches
from benchmarks.compress_peers import BF16, IN_BF16, MAKERS
from justenough.deploy.certify import deployed_bytes
from justenough.deploy.environment import runtime

CONTENDERS = (
    "ours", "openvino", "openvino-bf16", "nncf", "nncf-bf16", "ort", "ort-channel", "ort-reduced",
    "ort-dynamic", "aimet", "inc", "control-onnx", "control-openvino", "control-openvino-bf16",
)  # fmt: skip
AT_BATCH_1 = ("chest-efficientnet", "skin-efficientnet")
JUDGE_CAP_S = 3600.0
WATCH_S = 0.5


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        code: Its exit code; None when it was stopped at its limit.
        seconds: Wall clock, imports included.
        peak_bytes: Most memory that it and its children held at one time.
    """

    code: int | None
    seconds: float
    peak_bytes: int


def watched(command: Sequence[str], log: Path, cap_s: float) -> Ended:
    """Run a command under a time limit, its words in `log`, its memory watched.

    Memory is the high-water mark of the process itself, or what it and its children held at one
    time where that was more (proportional set sizes, twice a second). Linux only; 0 elsewhere.
    """
    start = time.perf_counter()
    surroundings = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "NNCF_CI": "1",  # NNCF sends usage statistics unless this is set
    }
    peak, told = 0, 2**27
    with log.open("ab", buffering=0) as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=out, env=surroundings, start_new_session=True
        )
        try:
            while process.poll() is None:
                peak = max(peak, held_bytes(process.pid))
                if peak > 1.1 * told:  # beside what it says, so that one sees which stage it was
                    told = peak
                    out.write(f"{time.strftime('%X')} {peak / 2**20:.0f} MiB\n".encode())
                if time.perf_counter() - start > cap_s:
                    return Ended(None, time.perf_counter() - start, peak)
                time.sleep(WATCH_S)
        finally:
            if process.poll() is None:  # its own session, so that its children end with it
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    return Ended(process.returncode, time.perf_counter() - start, peak)


def held_bytes(pid: int) -> int:
    """Memory of a process so far, or of it and its children now where that is more."""
    family = list(_family(pid))
    most = _kib(pid, "status", "VmHWM:")
    if len(family) > 1:
        most = max(most, sum(_kib(p, "smaps_rollup", "Pss:") for p in family))
    return most * 1024


def _family(pid: int) -> Iterator[int]:
    yield pid
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from _family(int(child))
    except OSError:  # it has ended meanwhile
        return


def _kib(pid: int, file: str, field: str) -> int:
    try:
        text = Path(f"/proc/{pid}/{file}").read_text()
    except OSError:
        return 0
    found = [line for line in text.splitlines() if line.startswith(field)]
    return int(found[0].split()[1]) if found else 0


@dataclass(frozen=True)
class Run:
    """One run of the benchmark.

    Attributes:
        folder: Where each model has a folder, with one for each contender in it.
        results: JSON file, rewritten after every step.
        cap_s: Seconds that a contender may take.
        settings: As `compress_worker.Settings` reads them.
        contenders: Names, in order.
    """

    folder: Path
    results: Path
    cap_s: float
    settings: dict[str, Any]
    contenders: tuple[str, ...]

    def worker(self, step: str, name: str, bench: Bench, cap_s: float) -> Ended:
        """One step in a process of its own."""
        here = self.folder / bench.name
        command = [sys.executable, "-m", "benchmarks.compress_worker", step, str(here)]
        return watched([*command, "--name", name], here / name / f"{step}.log", cap_s)

    def contender(self, bench: Bench, name: str) -> dict[str, Any]:
        """What a contender took and left; from its folder when it has run before."""
        here = self.folder / bench.name / name
        known = here / "result.json"
        if not known.is_file():
            shutil.rmtree(here, ignore_errors=True)
            here.mkdir(parents=True)
            if name in IN_BF16:
                _same_in_bf16(here.parent / IN_BF16[name], here)
            else:
                self._make(bench, name, here)
        row: dict[str, Any] = json.loads(known.read_text("utf8"))
        if row["file"] is None:
            return row
        judged = here / "judged.json"
        if not judged.is_file():
            ended = self.worker("judge", name, bench, JUDGE_CAP_S)
            if not judged.is_file():
                why = "took too long" if ended.code is None else _last_line(here / "judge.log")
                _write(judged, {"verdict": "FAILED", "message": why})
        return {**row, "judged": json.loads(judged.read_text("utf8"))}

    def _make(self, bench: Bench, name: str, here: Path) -> None:
        ended = self.worker("make", name, bench, self.cap_s)
        known, progress = here / "result.json", here / "progress.json"
        if known.is_file():
            body = json.loads(known.read_text("utf8"))
        else:
            body = json.loads(progress.read_text("utf8")) if progress.is_file() else {}
            body |= {"file": None, "outcome": "capped" if ended.code is None else "failed"}
            body["message"] = "" if ended.code is None else _last_line(here / "make.log")
            body["seconds"] = ended.seconds
        _write(known, {**body, "process_s": ended.seconds, "peak_bytes": ended.peak_bytes})

    def reference(self, bench: Bench) -> dict[str, Any]:
        """The reference's own run over the search and the certification cases."""
        here = self.folder / bench.name / "reference"
        known = here / "result.json"
        if not known.is_file():
            here.mkdir(parents=True, exist_ok=True)
            ended = self.worker("reference", "reference", bench, JUDGE_CAP_S)
            if not known.is_file():
                raise SystemExit(f"{bench.name}: {_last_line(here / 'reference.log')}")
            body = json.loads(known.read_text("utf8"))
            _write(known, {**body, "peak_bytes": ended.peak_bytes})
        found: dict[str, Any] = json.loads(known.read_text("utf8"))
        return found

    def splits(self, bench: Bench) -> dict[str, Any] | None:
        """Ours over random splits; None where it could not be repeated."""
        here = self.folder / bench.name / "ours"
        known = here / "splits.json"
        if not known.is_file() and self.settings["splits"] and (here / "run").is_dir():
            self.worker("splits", "ours", bench, JUDGE_CAP_S)
        if not known.is_file():
            return None
        found: dict[str, Any] = json.loads(known.read_text("utf8"))
        return found

    def model(self, bench: Bench) -> Iterator[dict[str, Any]]:
        """All contenders on one model; what is known so far after each."""
        here = self.folder / bench.name
        here.mkdir(parents=True, exist_ok=True)
        bench.write(here / "bench.json")
        (here / "settings.json").write_text(json.dumps(self.settings), "utf8")
        reference = self.reference(bench)
        body: dict[str, Any] = {
            "title": bench.title,
            "contract": list(bench.keep),
            "batch": bench.batch,
            "bytes": deployed_bytes(bench.path),
            "parts": reference["parts"],
            "reference": reference,
            "rows": {},
        }
        names = [n for n in self.contenders if n not in IN_BF16 or IN_BF16[n] in self.contenders]
        if "ours" in names and bench.name in AT_BATCH_1:
            names.insert(1, "ours-b1")
        for name in names:
            row = self.contender(bench, name)
            body["rows"][name] = row
            _say(bench, name, row)
            if name == "ours":
                body["splits"] = self.splits(bench)
            yield body


def _same_in_bf16(other: Path, here: Path) -> None:
    """A contender that is another one's file, told to compute in bfloat16 what is not int8."""
    from justenough.deploy.deployment import Deployment, write_deployment

    body: dict[str, Any] = json.loads((other / "result.json").read_text("utf8"))
    if body["file"] is not None:
        found = Deployment(other / body["file"])
        stage = other / "deployed" / found.stages[0].file
        out = write_deployment([(stage, BF16, None)], found.output_names, here / "deployed", {})
        body["file"] = str(out.relative_to(here))
    _write(here / "result.json", body)


def _say(bench: Bench, name: str, row: dict[str, Any]) -> None:
    """One line of progress."""
    words = [f"  {bench.name} {name}: {row['outcome']} in {row['seconds']:.0f} s"]
    if row["file"] is None:
        words.append(row["message"])
    judged = row.get("judged")
    if judged:
        words.append(judged["verdict"])
        if "races" in judged:
            words += [f"{k} {r['speedup']:.2f}x" for k, r in judged["races"].items()]
        else:
            words.append(judged["message"])
    print(", ".join(words), flush=True)


def _write(path: Path, body: dict[str, Any]) -> None:
    part = path.with_name("part-" + path.name)
    part.write_text(json.dumps(body, indent=1) + "\n", "utf8")
    part.replace(path)


def _last_line(log: Path) -> str:
    lines = log.read_text("utf8", errors="replace").strip().splitlines() if log.is_file() else []
    return (lines or ["it said nothing"])[-1][:300]


def options() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--folder", type=Path, default=Path("build/bench"))
    add("--results", type=Path, default=Path("benchmarks/compress.json"))
    add("--page", type=Path, help="Markdown file to write the whole page of benchmarks to.")
    add("--xray", type=Path, help="Tar of chest X-rays.")
    add("--skin", type=Path, help="Tar of skin lesions.")
    add("--skin-metadata", type=Path, help="Their table.")
    add("--skin-weights", type=Path, help="EfficientNet-B0 trained on them, as safetensors.")
    add("--aimet-python", default="", help="Python of an environment that has aimet-onnx.")
    add("--inc-python", default="", help="Python of one that has onnx-neural-compressor.")
    add("--cap", type=float, default=1800.0, help="Seconds that a contender may take.")
    add("--seconds", type=float, default=6.0, help="For timing one file at one batch.")
    add("--pass-seconds", type=float, default=3.0, help="Of fp32 for the rows that are timed.")
    add("--batches", type=int, nargs="+", default=[1, 8])
    add("--threads", type=int, nargs="+", default=[1])
    add("--splits", type=int, default=20)
    add("--only", nargs="+", help="Models by name.")
    add("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    add("--again", action="store_true", help="Forget what an earlier run found.")
    return parser


def main() -> None:
    """Run everything and write the results and the page."""
    # Ends as an interrupt does, so that no process of a contender is left behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
    args = options().parse_args()
    settings = {
        "threads": args.threads, "batches": args.batches, "seconds": args.seconds,
        "pass_s": args.pass_seconds, "splits": args.splits,
        "pythons": {"aimet": args.aimet_python, "inc": args.inc_python},
    }  # fmt: skip
    unknown = set(args.contenders) - {"ours", *MAKERS, *IN_BF16}
    assert not unknown, unknown
    run = Run(
        (args.folder / "compress").resolve(), args.results, args.cap, settings,
        tuple(n for n in CONTENDERS if n in args.contenders),
    )  # fmt: skip
    given = Given(
        args.folder.resolve(), args.xray, args.skin, args.skin_metadata, args.skin_weights
    )
    results: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": runtime(threads=args.threads[0], batch=0),
        "settings": {k: v for k, v in settings.items() if k != "pythons"} | {"cap_s": args.cap},
        "left_out": [],
        "models": {},
    }
    for bench in benches(given):
        if isinstance(bench, str):
            print(bench, flush=True)
            results["left_out"].append(bench)
            continue
        if args.only and bench.name not in args.only:
            continue
        if args.again:
            shutil.rmtree(run.folder / bench.name, ignore_errors=True)
        print(bench.name, flush=True)
        for body in run.model(bench):
            results["models"][bench.name] = body
            _write(args.results, results)
    if args.page:
        args.page.write_text(table.whole_page(args.results), "utf8")


if __name__ == "__main__":
    main()
