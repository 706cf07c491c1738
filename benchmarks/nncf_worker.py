"""The process that runs NNCF for `benchmarks.peers.nncf_accuracy_control`.

Reads job.json, calibration.npz and search.npz from a folder; keeps progress.json there up to
date, so that a run that is stopped has said what it did; leaves model.onnx when done.
"""

import json
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nncf
import numpy as np
import onnx
from numpy.typing import NDArray

from benchmarks.peers import Inputs, Job, decide

Array = NDArray[Any]


@dataclass
class Progress:
    """Counts so far, written after every change that cost something."""

    path: Path
    start: float = field(default_factory=time.perf_counter)
    calibration: int = 0
    search: int = 0
    sessions: int = 0
    agreement: float | None = None

    def write(self) -> None:
        """Replace the file at once, so that whoever reads it reads all of it."""
        counts = {
            "seconds": time.perf_counter() - self.start,
            "calibration": self.calibration,
            "search": self.search,
            "sessions": self.sessions,
            "agreement": self.agreement,
        }
        fresh = self.path.with_suffix(".new")
        fresh.write_text(json.dumps(counts), "utf8")
        fresh.replace(self.path)


def read_inputs(path: Path) -> dict[str, Array]:
    """Inputs by name, each (n, ...)."""
    with np.load(path, allow_pickle=False) as z:
        return {name: z[name] for name in z.files}


def quantize(
    job: Job, calibration: Inputs, search: Inputs, units: Array, progress: Progress
) -> onnx.ModelProto:
    """Run NNCF, whose metric is the share of units with no changed row, and return its model."""
    reference = decide(job.model, search, job.decision, job.threads, job.batch)
    progress.search += len(reference)
    progress.sessions += 1

    def calibration_row(k: int) -> dict[str, Array]:
        progress.calibration += 1
        return {name: value[k : k + 1] for name, value in calibration.items()}

    def search_row(k: int) -> dict[str, Array]:
        progress.search += 1
        return {name: value[k : k + 1] for name, value in search.items()}

    def validate(model: onnx.ModelProto, items: Iterable[int]) -> tuple[float, list[float]]:
        rows = list(items)
        given = {name: value[rows] for name, value in search.items()}
        made = decide(model.SerializeToString(), given, job.decision, job.threads, job.batch)
        same = (made == reference[rows]).astype(float)
        progress.search += len(rows)
        progress.sessions += 1
        owner = np.unique(units[rows], return_inverse=True)[1]
        kept = float((np.bincount(owner, 1 - same) == 0).mean())
        if len(rows) == len(reference):
            progress.agreement = kept
        progress.write()
        return kept, same.tolist()

    made: onnx.ModelProto = nncf.quantize_with_accuracy_control(
        onnx.load(job.model),
        calibration_dataset=nncf.Dataset(
            range(len(next(iter(calibration.values())))), calibration_row
        ),
        validation_dataset=nncf.Dataset(range(len(reference)), search_row),
        validation_fn=validate,
        max_drop=job.max_drop,
        drop_type=nncf.DropType.ABSOLUTE,
        model_type=nncf.ModelType.TRANSFORMER if job.transformer else None,
    )
    return made


def main(folder: Path) -> None:
    """Do the job in `folder`."""
    job = Job.read(folder)
    calibration, search = (read_inputs(folder / f"{k}.npz") for k in ("calibration", "search"))
    units = read_inputs(folder / "units.npz")["units"]
    progress = Progress(folder / "progress.json")
    progress.write()
    made = quantize(job, calibration, search, units, progress)
    onnx.save(made, str(folder / "model.onnx"))
    progress.write()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
