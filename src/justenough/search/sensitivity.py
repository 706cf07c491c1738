"""How much each choice at each site alone changes the score."""

import importlib.util
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from justenough.core.subject import INT8, ONNXRUNTIME, Site, Variant
from justenough.errors import InputError
from justenough.search.program import Noise
from justenough.search.workbench import Array, Workbench
from justenough.search.workers import Failed, Job
from justenough.subjects import measure
from justenough.subjects.quantize import top_code, write_variant

SENSITIVITY_ROWS = 256
SENSITIVITY_S = 20.0
GRADIENT_BYTES = 2**28
# Every local choice at every site takes a file of its own where there are no gradients.
LOCAL_ROWS = 32
SWEPT_AT_ONCE = 16
Choices = Mapping[str, Sequence[str]]


def sensitivity(bench: Workbench, calibration: str, choices: Choices) -> dict[str, Any]:
    """Noise power of each site in int8 and in local choices, and how it was measured.

    Args:
        bench: What is searched.
        calibration: Whose ranges int8 has.
        choices: Local choices by site.
    """

    def run() -> dict[str, Any]:
        per_row = bench.store.get("reference/seconds") or 0.0
        most = int(np.clip(SENSITIVITY_S / max(8 * per_row, 1e-9), 64, SENSITIVITY_ROWS))
        rows = measure.rows_of(bench.search.cases.inputs, most)
        n = len(next(iter(rows.values())))
        found = _by_gradients(bench, calibration, rows, choices)
        if isinstance(found, str):
            found = {**_by_files(bench, calibration, rows, choices),
                     "method": "single-site sessions" + found}  # fmt: skip
        bench.spent("sensitivity", found.pop("passed"))
        return {**found, "rows": n}

    got: dict[str, Any] = bench.store.once("sensitivity", run)
    return got


def noise_of(found: Mapping[str, Any]) -> Noise:
    """Noise power by site and choice, from what `sensitivity` gives."""
    by_choice = {INT8.name: found["noise"], **found.get("local", {})}
    return {(s, c): power for c, at in by_choice.items() for s, power in at.items()}


def _by_files(
    bench: Workbench, calibration: str, rows: Mapping[str, Array], choices: Choices
) -> dict[str, Any]:
    """Mean squared changes of the score when one site alone takes a choice.

    Each is a real file in the real runtime: a gated graph would break its fusions and run
    slower than the graph that it stands for.
    """
    few = measure.rows_of(rows, LOCAL_ROWS)
    picks = [(s, c) for s, cs in choices.items() for c in cs]
    total = len(bench.sites) + len(picks)
    out: dict[tuple[str, str], float] = {}
    for given, on in (([(s.name, INT8.name) for s in bench.sites], rows), (picks, few)):
        exact = bench.raw_score(bench.reference.run(on))
        bench.workers.share(*on.values())
        for pick, got in _swept(bench, calibration, given, on):
            change = (bench.raw_score(got) - exact).reshape(len(exact), -1)
            out[pick] = float((change**2).sum(1).mean())
            bench.progress("sensitivity", len(out) / total)
    local: dict[str, dict[str, float]] = {}
    for site, choice in picks:
        local.setdefault(choice, {})[site] = out[site, choice]
    n, m = (len(next(iter(r.values()))) for r in (rows, few))
    return {
        "noise": {s.name: out[s.name, INT8.name] for s in bench.sites},
        "local": local,
        "passed": n * (len(bench.sites) + 1) + m * (len(picks) + 1),
    }


def _swept(
    bench: Workbench,
    calibration: str,
    picks: Sequence[tuple[str, str]],
    rows: Mapping[str, Array],
) -> Iterator[tuple[tuple[str, str], Mapping[str, Array]]]:
    """Outputs on `rows` of a file for each pick alone."""
    for start in range(0, len(picks), SWEPT_AT_ONCE):
        jobs: list[Job] = []
        chosen = picks[start : start + SWEPT_AT_ONCE]
        with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
            for k, (site, choice) in enumerate(chosen):
                path = Path(folder) / f"{k}.onnx"
                variant = Variant.of({site: choice}, calibration)
                write_variant(bench.model, bench.sites, variant, bench.calibrated.ranges, path)
                jobs.append(bench.job(str(k), path, ONNXRUNTIME, rows))
        for name, got in bench.workers.map(jobs):
            site, choice = chosen[int(name)]
            if isinstance(got, Failed):
                raise InputError(f"site {site!r} in {choice} {got.kind}: {got.message}")
            yield (site, choice), got


def _by_gradients(
    bench: Workbench, calibration: str, rows: Mapping[str, Array], choices: Choices
) -> dict[str, Any] | str:
    """Gradients where torch is present and knows every operator; else why not."""
    if importlib.util.find_spec("torch") is None:
        return ""
    from justenough.subjects.gradient import site_noise
    from justenough.subjects.torch_graph import UnsupportedOperator

    output = bench.gate.output if bench.gate else bench.contract.clauses[0].output
    start = time.perf_counter()
    # A graph keeps about six copies of its values: those of a pass both ways, and errors.
    held = 6 * sum(bench.calibrated.sizes.values())
    try:
        found = site_noise(
            bench.model, bench.sites, bench.calibrated.ranges.of(calibration), rows, bench.gate,
            output or bench.reference.output_names[0], choices=choices, top=top_code(calibration),
            batch=measure.rows_within(held, GRADIENT_BYTES, 16), threads=os.cpu_count() or 1,
            rng=np.random.default_rng(0),
        )  # fmt: skip
    except (UnsupportedOperator, InputError) as e:  # the latter: an output without floats
        return f" ({e})"
    spent = time.perf_counter() - start
    per_row = bench.store.get("reference/seconds")
    passed = spent / per_row if per_row else found.rows_passed
    return {
        "noise": dict(found.power),
        "local": found.local,
        "method": "gradients",
        "passed": passed,
    }


def eight_bits(noise: Noise, sites: Sequence[Site]) -> float:
    """Noise power with the least noisy choice of 8 bits at every site."""
    least: dict[str, float] = {}
    for (site, choice), power in noise.items():
        if choice.startswith("int8"):
            least[site] = min(power, least.get(site, np.inf))
    return sum(least.get(s.name, 0.0) for s in sites)
