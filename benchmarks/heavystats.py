"""The statistics of document 003 beside its own loops and other libraries: one run, one machine.

`python -m benchmarks.heavystats` needs benchmarks/requirements.txt. The document's loops
are run in part and scaled linearly, which the page says; ours at full size, the peers as each row
says. Then comes the whole study, with every result beside its exact answer. Writes
benchmarks/heavystats.json and the page docs/statistics-benchmarks.md.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import heavystats_naive as naive
from benchmarks import heavystats_table, posterior, resampling
from benchmarks.resampling import Row
from justenough import compiled
from justenough.stats.weights import grid
from justenough.studies.heavystats.world import World
from justenough.subjects.processor import cpu_flags, processor

RESULTS = Path("benchmarks/heavystats.json")
PACKAGES = (
    "numpy", "scipy", "numba", "arch", "jax", "blackjax", "numpyro", "nutpie", "cma", "pymoo",
    "tensorly", "torch", "threadpoolctl",
)  # fmt: skip
Found = dict[str, Any]


def ours_and_peers(passes: int) -> Found:
    """What benchmarks.resampling and benchmarks.posterior measure, in this run."""
    weights, threads = grid(), compiled.usable_cores()
    with resampling.pinned(threads):
        rows, errors = resampling.bootstraps(weights, passes)
        rows += resampling.peers(weights, passes)
        rows += resampling.permutations(passes)
    with resampling.pinned(1):  # blocks keep all cores busy by themselves
        rows += resampling.monte_carlo(weights, 1_000_000, passes)
    found: Found = {"resampling": _by_work(rows), "standard_errors": errors}
    found["samplers"] = posterior.samplers(20_000, passes, (50_000,))["n=50000"]
    found["approximations"] = posterior.approximations(50_000, passes)
    found["weights"] = posterior.weights(passes)
    found["factors"] = posterior.factors(passes)
    found["networks"] = posterior.networks()
    for part in ("samplers", "approximations", "weights", "factors", "networks"):
        for name, row in found[part].items():
            row["passes"] = 1 if part == "networks" or "pymoo" in name else passes
    return found


def _by_work(rows: list[Row]) -> Found:
    out: dict[str, Found] = {}
    for row in rows:
        out.setdefault(row.work, {})[row.side] = asdict(row)
    return out


def loops(passes: int) -> Found:
    """The document's own loops, in part and scaled, that are nowhere else."""
    rng = np.random.default_rng(0)
    rows = resampling.signals(100_000, rng)
    x, y = rows[:50_000, :4], rows[:50_000, :4] @ naive.TRUE
    y = y + 0.1 * rng.standard_normal(len(y))
    parts: dict[str, Callable[[], naive.Part]] = {
        "montecarlo": lambda: naive.monte_carlo(grid(), lambda n: World(n).block(0)),
        "posterior": lambda: naive.posterior(x, y),
        "variational": lambda: naive.variational(x, y),
        "search": lambda: naive.genetic(rows),
    }
    out = {}
    for name, make in parts.items():
        out[name] = naive.timed(make(), 1 if name == "posterior" else passes)
        print(f"loop {name}: {out[name]['seconds']:,.3g} s by {out[name]['ran']}", flush=True)
    return out


def study() -> Found:
    """Wall seconds of the whole study at the document's sizes, and its errors."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        command = [sys.executable, "-m", "justenough", "study", "heavystats", "-o", str(out)]
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        seconds = time.perf_counter() - start
        stages = json.loads((out / "results.json").read_text("utf8"))["stages"]
    took = {name: stage["seconds"] for name, stage in stages.items()}
    return {"seconds": seconds, "stages": took, "errors": errors(stages)}


def errors(stages: Mapping[str, Any]) -> Found:
    """How far each result of the study is from its exact answer."""
    methods = {m["method"]: m for s in ("posterior", "variational", "search")
               for m in stages[s]["methods"]}  # fmt: skip
    boot, null, net = (stages[k] for k in ("bootstrap", "permutation", "architectures"))
    tucker = {m["method"]: m["error"] for m in stages["factors"]["methods"]}
    return {
        "montecarlo": {
            "correlation": stages["montecarlo"]["largest_error"],
            "in_standard_errors": stages["montecarlo"]["largest_error_in_se"],
        },
        "posterior": {
            name: {k: v["value"] for k, v in methods[name]["error"].items()}
            for name in ("nuts", "laplace", "mean_field", "full_rank", "pathfinder")
        },
        "bootstrap": {
            "over_formula": [v["value"] for v in boot["ratio_to_formula"]],
            "moments_over_resampling": [v["value"] for v in boot["ratio_by_moments"]],
            "mc_error": boot["ratio_by_moments"][0]["mc_se"],
        },
        "permutation": {"null_sd_over_exact": null["null_sd"]["value"] / null["exact_null_sd"]},
        "search": {
            name: methods[name]["gap"]["value"] for name in ("grid of 169", "genetic", "CMA-ES")
        },
        "factors": {"st_hosvd": tucker["Tucker by ST-HOSVD"], "hooi": tucker["Tucker by HOOI"]},
        "architectures": {"test": net["test"]["value"], "linear": net["linear"],
                          "ceiling": net["ceiling"]},
    }  # fmt: skip


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--note", default="", help="what else ran meanwhile; the page says it")
    parser.add_argument("--page", type=Path, default=heavystats_table.PAGE)
    args = parser.parse_args()
    load = os.getloadavg()[0]
    written = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "cores_used": compiled.usable_cores(),
            "cpu_flags": cpu_flags(),
            "system": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
            "load_before": load,
            "note": args.note,
        },
        "versions": {name: version(name) for name in PACKAGES},
        "passes": args.passes,
        "loops": loops(args.passes),
        "study": study(),
        **ours_and_peers(args.passes),
    }
    RESULTS.write_text(json.dumps(written, indent=1) + "\n", "utf8")
    args.page.write_text(heavystats_table.page(written), "utf8")


if __name__ == "__main__":
    main()
