"""Which repairs a variant keeps: those that lower its noise on rows that did not choose them."""

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from justenough.core.subject import Variant
from justenough.errors import InputError
from justenough.search.workbench import Array, Workbench, key
from justenough.search.workers import Failed
from justenough.subjects.mended import Mended
from justenough.subjects.repairs import FREE

ROWS = 512
# A repair has to lower the noise power by a tenth on the rows that confirm it.
CONFIRMED = 0.9


def mend(bench: Workbench, variant: Variant, budget_s: float) -> Variant | None:
    """`variant` with the repairs that lower its noise, or None where there are none.

    Each is tried on top of those that were kept. One half of the search rows says whether the
    noise falls, the other whether that is so: a repair that fits the first alone is not kept.
    What was found is recorded, and the file is the same again from the names of the repairs.

    Args:
        bench: What is searched.
        variant: Written by `write_variant`, without repairs.
        budget_s: Seconds after which no further repair begins, nor one that takes as long as
            the last one and would end after that.
    """

    def run() -> dict[str, Any]:
        start = time.perf_counter()
        known = bench.store.seconds().get(f"search/{key(variant)}", 0.0)
        if known * min(ROWS / bench.search.cases.n, 1.0) > budget_s / 3:
            return {"kept": [], "steps": [], "note": "no time for repairs"}
        bench.folder.mkdir(exist_ok=True)
        rows = _rows(bench)
        best = Mended(bench.model, bench.calibrated.ranges, {})
        now = _noise(bench, variant, best, rows)
        steps: list[dict[str, Any]] = []
        kept: list[str] = []
        last = time.perf_counter() - start
        for name in FREE:
            begin = time.perf_counter()
            if begin - start + last > budget_s:
                break
            bench.progress(f"repair: {name}", len(steps) / len(FREE))
            tried = best.repaired(name, bench.sites, variant, bench.feed)
            if tried is best:
                continue
            got = _noise(bench, variant, tried, rows)
            keep = got[0] < now[0] and got[1] < CONFIRMED * now[1]
            steps.append({"repair": name, "before": now, "noise": got, "kept": keep})
            if keep:
                best, now = tried, got
                kept.append(name)
            last = time.perf_counter() - begin
        if kept:
            bench.file(replace(variant, repairs=tuple(kept)), best)
        bench.spent(f"repairs/{key(variant)}", len(rows[0]) * (len(steps) + 1))
        return {"kept": kept, "steps": steps}

    found = bench.store.once(f"repairs/{key(variant)}", run)
    return replace(variant, repairs=tuple(found["kept"])) if found["kept"] else None


def _rows(bench: Workbench) -> tuple[Array, Array]:
    """Search rows to measure on, and for each whether it confirms; a group is all in one half."""
    cases = bench.search.cases
    pick = np.unique(np.linspace(0, cases.n - 1, min(cases.n, ROWS)).astype(np.intp))
    of = np.arange(len(pick))
    if cases.groups is not None:
        groups = np.unique(np.asarray(cases.groups)[pick], return_inverse=True)[1]
        of = groups if groups.max() > 0 else of
    return pick, of % 2 == 1


def _noise(
    bench: Workbench, variant: Variant, mended: Mended, rows: tuple[Array, Array]
) -> list[float]:
    """Mean squared change of the score on the rows that decide, and on those that confirm.

    Raises:
        InputError: The runtime failed or crashed.
    """
    pick, confirms = rows
    inputs = {k: v[pick] for k, v in bench.search.cases.inputs.items()}
    with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
        path = Path(folder) / "mended.onnx"
        mended.write(bench.sites, variant, path)
        job = bench.job("mended", path, variant.runtime, inputs)
    for _, got in bench.workers.map([job]):
        if isinstance(got, Failed):
            raise InputError(f"{variant.runtime} {got.kind}: {got.message}")
        change = bench.raw_score(got) - bench.raw_score(bench.outputs)[pick]
        power = (np.asarray(change, np.float64).reshape(len(pick), -1) ** 2).sum(1)
        return [
            float(power[half].mean()) if half.any() else np.inf for half in (~confirms, confirms)
        ]
    raise InputError("the workers gave no answer")
