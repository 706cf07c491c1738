"""The contenders of `make bench-compress`, each run as its documentation has it.

A contender gets the calibration rows and the search rows of a model and leaves one file behind:
an ONNX file for ONNX Runtime, or a `cascade.toml` of one stage where OpenVINO is to run it, so
that whoever judges and times the file treats all of them alike.
"""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.compress_models import Bench
from justenough.core.cases import Cases, Split
from justenough.core.contract import Clause
from justenough.core.judge import Paired, row_losses, unit_losses
from justenough.core.subject import Runtime
from justenough.deploy.deployment import write_deployment
from justenough.subjects.measure import rows_of

Array = NDArray[Any]
Inputs = Mapping[str, Array]
CALIBRATION_ROWS = 300  # NNCF's own default; the same rows for everybody
VALIDATION_BATCH = 32
OPENVINO, BF16 = Runtime("openvino"), Runtime("openvino", "bf16")
FOREIGN = Path(__file__).with_name("compress_foreign.py")


@dataclass
class Count:
    """Rows that went through any model so far, in a file so that a stopped run has said it.

    Attributes:
        path: The file.
        calibration: Rows run to set ranges.
        search: Rows run to judge variants.
        sessions: Variants that were loaded to be judged.
        agreement: The metric as the tool last saw it on all search rows.
    """

    path: Path
    start: float = field(default_factory=time.perf_counter)
    calibration: int = 0
    search: int = 0
    sessions: int = 0
    agreement: float | None = None

    def write(self) -> None:
        """Replace the file at once, so that whoever reads it reads all of it."""
        body = {
            "seconds": time.perf_counter() - self.start,
            "inferences": self.calibration + self.search,
            "sessions": self.sessions,
            "agreement": self.agreement,
        }
        fresh = self.path.with_suffix(".new")
        fresh.write_text(json.dumps(body), "utf8")
        fresh.replace(self.path)


@dataclass(frozen=True, eq=False)
class Task:
    """What a contender is given.

    Attributes:
        bench: Model and contract.
        calibration: At most `CALIBRATION_ROWS` rows by input, evenly spaced.
        search: The search cases.
        folder: Where to write.
        count: Told about every row.
        pythons: Python of a tool with an environment of its own, by name.
    """

    bench: Bench
    calibration: Inputs
    search: Cases
    folder: Path
    count: Count
    pythons: Mapping[str, str]

    @staticmethod
    def of(bench: Bench, parts: Split, folder: Path, pythons: Mapping[str, str]) -> "Task":
        """The task of a split; the rows are in memory before the clock starts."""
        rows = rows_of(parts.calibration.cases.inputs, CALIBRATION_ROWS)
        calibration = {k: np.asarray(v) for k, v in rows.items()}
        found = parts.search.cases
        search = Cases(
            {k: np.asarray(v) for k, v in found.inputs.items()}, found.labels, found.groups
        )
        return Task(bench, calibration, search, folder, Count(folder / "progress.json"), pythons)

    def calibration_rows(self, batch: int = 1) -> Iterator[dict[str, Array]]:
        """The calibration rows, counted."""
        for piece in pieces(self.calibration, batch):
            self.count.calibration += len(next(iter(piece.values())))
            yield piece


Maker = Callable[[Task], Path]


def pieces(inputs: Inputs, size: int) -> Iterator[dict[str, Array]]:
    """Rows of inputs by name, `size` at a time, with the short rest."""
    for i in range(0, len(next(iter(inputs.values()))), size):
        yield {k: v[i : i + size] for k, v in inputs.items()}


def deployed(xml: Path, runtime: Runtime, task: Task) -> Path:
    """A `cascade.toml` of one stage: a file and the runtime that is to run it."""
    from justenough.subjects.onnx_model import OnnxModel

    names = OnnxModel(task.bench.path).output_names
    return write_deployment([(xml, runtime, None)], names, task.folder / "deployed", {})


def ort_static(task: Task, **settings: Any) -> Path:
    """ONNX Runtime's `quant_pre_process` and `quantize_static` in the QDQ format."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rows = task.calibration_rows(VALIDATION_BATCH)

        def get_next(self) -> dict[str, Array] | None:
            return next(self.rows, None)

    out = task.folder / "model.onnx"
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(task.bench.model, str(prepared))
        quantize_static(
            str(prepared), str(out), Reader(), quant_format=QuantFormat.QDQ, **settings
        )
    return out


def ort_dynamic(task: Task) -> Path:
    """ONNX Runtime's `quantize_dynamic` at its defaults, after `quant_pre_process`."""
    from onnxruntime.quantization import quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    out = task.folder / "model.onnx"
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(task.bench.model, str(prepared))
        quantize_dynamic(str(prepared), str(out))
    return out


def openvino_alone(task: Task, runtime: Runtime) -> Path:
    """The model itself in OpenVINO."""
    return deployed(task.bench.path, runtime, task)


def nncf_quantize(task: Task) -> Path:
    """`nncf.quantize` for OpenVINO at its defaults."""
    import nncf
    import openvino as ov

    rows = list(pieces(task.calibration, 1))
    made = nncf.quantize(
        ov.Core().read_model(task.bench.model),
        nncf.Dataset(rows, _counted(task)),
        model_type=_model_type(task),
    )
    xml = task.folder / "made.xml"
    ov.save_model(made, str(xml), compress_to_fp16=False)
    return deployed(xml, OPENVINO, task)


def nncf_control(task: Task, backend: str) -> Path:
    """`nncf.quantize_with_accuracy_control` with the contract's own metric.

    The metric is what the contract's first clause judges, on all search rows, so that the
    reference scores 1; `max_drop` is what the contract allows, absolute. Everything else is at
    its defaults. A value per row comes with the metric, and rows are validated in batches,
    which NNCF itself would not do.
    """
    import nncf
    import onnx
    import openvino as ov

    path = task.bench.model
    model = onnx.load(path) if backend == "onnx" else ov.Core().read_model(path)
    answer = _answer_onnx if backend == "onnx" else _answer_openvino
    clause = task.bench.contract.clauses[0]
    made = nncf.quantize_with_accuracy_control(
        model,
        calibration_dataset=nncf.Dataset(list(pieces(task.calibration, 1)), _counted(task)),
        validation_dataset=nncf.Dataset(range(task.search.n)),
        validation_fn=_metric(task, clause, answer),
        max_drop=1 - clause.bound if clause.kind.at_least else clause.bound,
        drop_type=nncf.DropType.ABSOLUTE,
        model_type=_model_type(task),
    )
    if backend == "onnx":
        out = task.folder / "model.onnx"
        onnx.save(made, str(out))
        return out
    xml = task.folder / "made.xml"
    ov.save_model(made, str(xml), compress_to_fp16=False)
    return deployed(xml, OPENVINO, task)


def _model_type(task: Task) -> Any:
    import nncf

    return nncf.ModelType.TRANSFORMER if task.bench.transformer else None


def _counted(task: Task) -> Callable[[dict[str, Array]], dict[str, Array]]:
    def row(given: dict[str, Array]) -> dict[str, Array]:
        task.count.calibration += 1
        return given

    return row


Answer = Callable[[Any, Iterable[dict[str, Array]]], dict[str, Array]]


def _metric(
    task: Task, clause: Clause, answer: Answer
) -> Callable[[Any, Iterable[int]], tuple[float, list[float]]]:
    """The function that NNCF validates a model with: the metric, and a value for each row."""
    from justenough.subjects.onnx_model import OnnxModel

    exact = OnnxModel(task.bench.path).run(task.search.inputs)
    task.count.search += task.search.n
    count, units = task.count, task.search.units

    def validate(model: Any, items: Iterable[int]) -> tuple[float, list[float]]:
        rows = np.fromiter(items, np.intp)
        given = {k: np.asarray(v[rows]) for k, v in task.search.inputs.items()}
        got = answer(model, pieces(given, VALIDATION_BATCH))
        count.search += len(rows)
        count.sessions += 1
        reference = {k: v[rows] for k, v in exact.items()}
        owner = np.unique(units[rows], return_inverse=True)[1]
        pairs = Paired(reference, {k: got[k] for k in reference}, owner)
        kept = 1 - float(unit_losses(clause, pairs).mean())
        if len(rows) == task.search.n:
            count.agreement = kept
        count.write()
        return kept, (1 - row_losses(clause, pairs)).tolist()

    return validate


def _answer_onnx(model: Any, feeds: Iterable[dict[str, Array]]) -> dict[str, Array]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = os.cpu_count() or 1, 4
    data = model if isinstance(model, str | bytes) else model.SerializeToString()
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    found = [session.run(names, feed) for feed in feeds]
    return {n: np.concatenate([f[k] for f in found]) for k, n in enumerate(names)}


def _answer_openvino(model: Any, feeds: Iterable[dict[str, Array]]) -> dict[str, Array]:
    request = model.create_infer_request()
    names = [o.get_node().get_friendly_name().split("/sink_port")[0] for o in model.outputs]
    parts: list[list[Array]] = []
    for feed in feeds:
        request.infer(feed)
        parts.append([request.get_output_tensor(k).data.copy() for k in range(len(names))])
    return {n: np.concatenate([p[k] for p in parts]) for k, n in enumerate(names)}


def foreign(task: Task, tool: str) -> Path:
    """A tool in an environment of its own: `benchmarks/compress_foreign.py` run by its Python.

    Raises:
        RuntimeError: No such Python was given, or the tool failed; its last line.
    """
    python = task.pythons.get(tool)
    if not python:
        raise RuntimeError(f"left out: no Python that has it was given (--{tool}-python)")
    rows, out = task.folder / "rows.npz", task.folder / "model.onnx"
    with rows.open("wb") as f:
        np.savez(f, allow_pickle=False, **task.calibration)
    try:
        ended = subprocess.run(
            [python, str(FOREIGN), tool, task.bench.model, str(rows), str(out)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    finally:
        rows.unlink()
    print(ended.stdout, ended.stderr, flush=True)
    if ended.returncode or not out.is_file():
        said = [s for s in ended.stderr.splitlines() if s.strip()]
        raise RuntimeError(said[-1][:300] if said else f"it ended with {ended.returncode}")
    task.count.calibration += len(next(iter(task.calibration.values())))
    return out


MAKERS: Mapping[str, Maker] = {
    "openvino": lambda t: openvino_alone(t, OPENVINO),
    "openvino-bf16": lambda t: openvino_alone(t, BF16),
    "ort": ort_static,
    "ort-channel": lambda t: ort_static(t, per_channel=True),
    "ort-reduced": lambda t: ort_static(t, per_channel=True, reduce_range=True),
    "ort-dynamic": ort_dynamic,
    "nncf": nncf_quantize,
    "aimet": lambda t: foreign(t, "aimet"),
    "inc": lambda t: foreign(t, "inc"),
    "control-onnx": lambda t: nncf_control(t, "onnx"),
    "control-openvino": lambda t: nncf_control(t, "openvino"),
}
# The file of one contender with OpenVINO told to compute in bfloat16 what is not int8.
IN_BF16 = {"nncf-bf16": "nncf", "control-openvino-bf16": "control-openvino"}
