"""Other tools that make an ONNX model int8, run as their users would run them.

Each function takes the same model, calibration rows and decision, and says what file came
out, in what time and after how many inferences. Whether the file is any good is for the
caller to measure, on cases that neither tool has seen.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

Array = NDArray[Any]
Inputs = Mapping[str, Array]
Outcome = Literal["done", "capped", "failed"]
CALIBRATION_ROWS = 256
CAP_S = 900.0
BATCH = 32


@dataclass(frozen=True)
class Decision:
    """What is decided from the outputs of a model, a decision per row.

    Attributes:
        output: Name of the output that decides.
        cut: A score above it decides yes; None takes the largest along axis 1.

    >>> Decision("score", cut=0.0)({"score": np.array([-1.0, 2.0])})
    array([0, 1])
    >>> Decision("logits")({"logits": np.array([[1.0, 3.0, 2.0]])})
    array([1])
    """

    output: str
    cut: float | None = None

    def __call__(self, outputs: Mapping[str, Array]) -> NDArray[np.int64]:
        """Decisions (n,) from outputs by name, each (n, ...)."""
        value = outputs[self.output]
        picked = value.argmax(1) if self.cut is None else value > self.cut
        return np.asarray(picked, np.int64)


@dataclass(frozen=True, eq=False)
class Task:
    """A model to make cheaper, and the rows that may be seen while doing so.

    Attributes:
        model: The fp32 ONNX file.
        decision: What must stay the same.
        calibration: Inputs by name, each (n, ...), that set ranges.
        search: Inputs by name, each (m, ...), on which decisions are compared.
        units: (m,) index of the independent unit of each search row.
        calibration_rows: How many calibration rows are used, from the first on.
    """

    model: Path
    decision: Decision
    calibration: Inputs
    search: Inputs
    units: Array
    calibration_rows: int = CALIBRATION_ROWS

    @property
    def calibration_used(self) -> dict[str, Array]:
        """The calibration rows that are used."""
        return {name: value[: self.calibration_rows] for name, value in self.calibration.items()}


@dataclass(frozen=True)
class Inferences:
    """Rows that went through any model before the file was there.

    Attributes:
        calibration: Rows run to set ranges. Exact.
        search: Rows run to judge variants: validating, and ranking operations by the metric.
            Exact: every one of them passes through the function that counts.
        sessions: Variants that were loaded to be judged. Exact.
    """

    calibration: int = 0
    search: int = 0
    sessions: int = 0

    @property
    def total(self) -> int:
        """Rows through any model."""
        return self.calibration + self.search


@dataclass(frozen=True)
class PeerResult:
    """What a tool made of a model, and what it took.

    Attributes:
        peer: Name and version of the tool.
        outcome: `done`, `capped` (stopped at the time limit) or `failed`.
        model: The file it made; None unless done.
        seconds: Wall clock, from reading the model to writing the file, or to the stop. The
            rows are in memory before the clock starts; importing the tool is not counted.
        inferences: What it ran.
        agreement: Share of search units decided like the reference, as the tool measured it on
            its last variant; None where it did not look.
        quantized: Operations that were int8 at first; None where it did not say.
        reverted: Operations that went back to float; None where it did not say.
        message: Why it failed, else empty.
    """

    peer: str
    outcome: Outcome
    model: Path | None
    seconds: float
    inferences: Inferences
    agreement: float | None = None
    quantized: int | None = None
    reverted: int | None = None
    message: str = ""


def rows_of(inputs: Inputs) -> int:
    """Number of rows (n) of inputs by name, each (n, ...)."""
    return len(next(iter(inputs.values())))


def batches(inputs: Inputs, batch: int) -> Iterator[dict[str, Array]]:
    """Inputs by name, each (n, ...), in pieces of at most `batch` rows."""
    for start in range(0, rows_of(inputs), batch):
        yield {name: value[start : start + batch] for name, value in inputs.items()}


def cpu_session(model: str | bytes, threads: int) -> ort.InferenceSession:
    """A CPU session of a file or of a serialized model, silent, with pinned threads."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 4
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def decide(
    model: str | bytes, inputs: Inputs, decision: Decision, threads: int, batch: int = BATCH
) -> NDArray[np.int64]:
    """Decisions (n,) of a model, a path or its serialized bytes, on inputs by name."""
    session = cpu_session(model, threads)
    return np.concatenate(
        [
            decision({decision.output: np.asarray(session.run([decision.output], piece)[0])})
            for piece in batches(inputs, batch)
        ]
    )


class CountingReader(CalibrationDataReader):  # type: ignore[misc]
    """Hands rows to ONNX Runtime's calibrator and counts them."""

    def __init__(self, inputs: Inputs, batch: int) -> None:
        self.rows = 0
        self._pieces = batches(inputs, batch)

    def get_next(self) -> dict[str, Array] | None:
        """The next piece, or None at the end."""
        piece = next(self._pieces, None)
        self.rows += 0 if piece is None else rows_of(piece)
        return piece


def onnxruntime_static(task: Task, out: Path, *, batch: int = BATCH) -> PeerResult:
    """ONNX Runtime's static quantization of everything, as its documentation has it.

    `quant_pre_process`, then `quantize_static` with QDQ, per-channel weights and MinMax; the
    rest is left at its defaults (int8 activations, int8 weights, all operator types). It
    looks at no decision, so that it has no agreement to tell. In this process, on all cores.

    Args:
        task: The model and its rows; the search rows are not looked at.
        out: The file to write.
        batch: Rows of one call of the calibrator.
    """
    reader = CountingReader(task.calibration_used, batch)
    start = time.perf_counter()
    outcome: Outcome = "done"
    message = ""
    try:
        with tempfile.TemporaryDirectory() as folder:
            prepared = Path(folder) / "prepared.onnx"
            quant_pre_process(str(task.model), str(prepared))
            quantize_static(
                str(prepared),
                str(out),
                reader,
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                calibrate_method=CalibrationMethod.MinMax,
            )
    except Exception as e:  # whatever the tool raises is what a user of it would meet
        outcome, message = "failed", f"{type(e).__name__}: {e}"
    return PeerResult(
        peer=f"onnxruntime {ort.__version__} quantize_static",
        outcome=outcome,
        model=out if outcome == "done" else None,
        seconds=time.perf_counter() - start,
        inferences=Inferences(calibration=reader.rows),
        message=message,
    )


@dataclass(frozen=True)
class Job:
    """What the process that runs NNCF is told.

    Attributes:
        model: Path of the fp32 file.
        decision: What must stay the same.
        max_drop: Largest share of search rows decided otherwise.
        transformer: Whether to tell NNCF that the model is a transformer, as it asks to.
        threads: Threads of the sessions that validate; NNCF's own use all cores.
        batch: Rows of one call when validating.
    """

    model: str
    decision: Decision
    max_drop: float
    transformer: bool
    threads: int
    batch: int = BATCH

    @staticmethod
    def read(folder: Path) -> "Job":
        """The job written into `folder`."""
        told: dict[str, Any] = json.loads((folder / "job.json").read_text("utf8"))
        return Job(**{**told, "decision": Decision(**told["decision"])})

    def write(self, folder: Path) -> None:
        """Write the job into `folder`."""
        (folder / "job.json").write_text(json.dumps(asdict(self)), "utf8")


def nncf_accuracy_control(
    task: Task,
    out: Path,
    *,
    bound: float,
    transformer: bool = False,
    threads: int = 1,
    cap_s: float = CAP_S,
) -> PeerResult:
    """NNCF's accuracy-controlled quantization on its ONNX back-end.

    `nncf.quantize_with_accuracy_control` with the contract's own metric, the share of units
    none of whose decisions differ from the fp32 model's, so that the fp32 model scores 1 and
    `max_drop` is 1 - `bound`, absolute. Everything else is at its defaults; the metric gives a
    value per row, so that validating needs no second pass, and rows are validated in batches,
    which NNCF itself would not do.
    Operations are ranked by the metric: its other way, by error of the outputs, does not
    exist for ONNX. A process of its own runs it, and is ended after `cap_s` seconds.

    Not counted as inferences: the bias correction's runs of single layers on one averaged
    row each.

    Args:
        task: The model and its rows; all search rows are validated on.
        out: The file to write.
        bound: Share of decisions that must stay, as in the contract.
        transformer: Whether to pass `ModelType.TRANSFORMER`.
        threads: Threads of the sessions that validate.
        cap_s: Seconds after which it is stopped, imports included.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = str(task.model.resolve())
        Job(model, task.decision, 1 - bound, transformer, threads).write(folder)
        np.savez(folder / "calibration.npz", allow_pickle=False, **task.calibration_used)
        np.savez(folder / "search.npz", allow_pickle=False, **task.search)
        np.savez(folder / "units.npz", allow_pickle=False, units=task.units)
        outcome = _run_worker(folder, cap_s)
        state = _read_json(folder / "progress.json")
        log = (folder / "log.txt").read_text("utf8", errors="replace")
        if outcome == "done":
            out.write_bytes((folder / "model.onnx").read_bytes())
    quantized, reverted = _reverted(log, outcome)
    return PeerResult(
        peer=f"nncf {version('nncf')} quantize_with_accuracy_control",
        outcome=outcome,
        model=out if outcome == "done" else None,
        seconds=cap_s if outcome == "capped" else state.get("seconds", 0.0),
        inferences=Inferences(
            state.get("calibration", 0), state.get("search", 0), state.get("sessions", 0)
        ),
        agreement=state.get("agreement"),
        quantized=quantized,
        reverted=reverted,
        message=(log.strip().splitlines() or [""])[-1] if outcome == "failed" else "",
    )


def _run_worker(folder: Path, cap_s: float) -> Outcome:
    """Run the worker on `folder`; what it says goes to log.txt there."""
    root = str(Path(__file__).resolve().parent.parent)
    surroundings = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([root, *filter(None, sys.path)]),
        "NNCF_CI": "1",  # NNCF sends usage statistics unless this is set
    }
    command = [sys.executable, "-m", "benchmarks.nncf_worker", str(folder)]
    with (folder / "log.txt").open("w") as log:
        try:
            ended = subprocess.run(
                command, stdout=log, stderr=log, env=surroundings, timeout=cap_s, check=False
            )
        except subprocess.TimeoutExpired:
            return "capped"
    return "done" if ended.returncode == 0 else "failed"


def _reverted(log: str, outcome: Outcome) -> tuple[int | None, int | None]:
    """How many operations were int8 at first, and how many of them went back to float.

    NNCF counts the first only when the first variant does not do, and the second only when
    something is left in int8 at the end.
    """
    quantized = _number(r"Total number of quantized operations in the model: (\d+)", log)
    reverted = _number(r"(\d+) out of \d+ were reverted", log)
    if outcome == "done" and reverted is None:
        reverted = quantized or 0
    return quantized, reverted


def _read_json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    found: dict[str, Any] = json.loads(path.read_text("utf8"))
    return found


def _number(pattern: str, text: str) -> int | None:
    found = re.findall(pattern, text)
    return int(found[-1]) if found else None
