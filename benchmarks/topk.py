"""How fast the k largest of n values are found beside other ways: `python -m benchmarks.topk`.

All sides of one table take turns in one process, on as many threads, after a pass that does not
count; a row is the median with the fastest and the slowest. argsort runs on a tenth of the values;
its seconds are scaled by n log n, its memory by n. Memory is how far the peak of the process rises
above what it holds, on Linux. The bandwidth of a copy counts bytes read and written, that of a
pass over values the bytes read, which are all it moves. Prints tables and writes
benchmarks/topk.json.
"""

import argparse
import importlib.util
import json
import math
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from justenough import compiled
from justenough.assemblies.topk import topk
from justenough.subjects.processor import cpu_flags, processor

RESULTS = Path("benchmarks/topk.json")
Array = NDArray[Any]
COPIES = ("copy, np.copyto", "copy, on all threads")
CARRIED = "topk, threshold carried over"


@dataclass(frozen=True)
class Row:
    """One side: seconds by the wall, and peak bytes on top of the values, scaled where it says.

    Attributes:
        ratio: Its seconds over those of topk without a threshold, the median over passes.
        ratio_low: The least over passes.
        ratio_high: The largest.
    """

    values: str
    side: str
    seconds: float
    fastest: float
    slowest: float
    extra_bytes: float | None
    ratio: float
    ratio_low: float
    ratio_high: float
    scaled_by: float = 1.0


def taken_by(call: Callable[[], object]) -> tuple[float, float | None]:
    """Seconds of a call, and how far the peak of resident memory rose above what was held."""
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if reset.exists():
        held = _status(status, "VmRSS")
        reset.write_text("5", "ascii")
    start = time.perf_counter()
    call()
    seconds = time.perf_counter() - start
    return seconds, max(0.0, _status(status, "VmHWM") - held) if reset.exists() else None


def _status(path: Path, key: str) -> float:
    line = next(t for t in path.read_text("ascii").splitlines() if t.startswith(key))
    return 1024.0 * float(line.split()[1])


def numpy_alone(call: Callable[[], object]) -> object:
    """Run a call without compiled loops."""
    before, compiled.FAST_FROM = compiled.FAST_FROM, 1 << 62
    try:
        return call()
    finally:
        compiled.FAST_FROM = before


def sides_of(values: Array, k: int, few: bool) -> dict[str, tuple[Callable[[], object], float]]:
    """Every way, as a call and the factor that its seconds are scaled by."""
    n = len(values)
    tenth = np.ascontiguousarray(values[: n // 10])
    copy, guess = np.empty_like(values), topk(values, k).threshold
    larger = 10 * math.log(n) / math.log(n // 10)

    def copied(part: slice) -> None:
        np.copyto(copy[part], values[part])

    sides: dict[str, tuple[Callable[[], object], float]] = {
        COPIES[0]: (lambda: np.copyto(copy, values), 1.0),
        COPIES[1]: (lambda: compiled.spread(copied, n), 1.0),
        "topk": (lambda: topk(values, k), 1.0),
        CARRIED: (lambda: topk(values, k, guess), 1.0),
        "topk, NumPy alone": (lambda: numpy_alone(lambda: topk(values, k)), 1.0),
        "topk, carried over, NumPy alone": (
            lambda: numpy_alone(lambda: topk(values, k, guess)),
            1.0,
        ),
    }
    if few:
        return sides | {"np.argpartition": (lambda: np.argpartition(values, n - k), 1.0)}
    sides |= {
        "np.argsort": (lambda: np.argsort(tenth), larger),
        "np.partition": (lambda: np.partition(values, n - k), 1.0),
        "np.argpartition": (lambda: np.argpartition(values, n - k), 1.0),
    }
    if importlib.util.find_spec("torch"):
        import torch

        torch.set_num_threads(compiled.usable_cores())
        tensor = torch.from_numpy(values)
        sides["torch.topk"] = (partial(torch.topk, tensor, k), 1.0)
        sides["torch.kthvalue"] = (partial(torch.kthvalue, tensor, n - k + 1), 1.0)
    return sides


def raced(name: str, values: Array, k: int, passes: int, few: bool = False) -> list[Row]:
    """Run all ways in turn; memory is that of the last pass."""
    sides = sides_of(values, k, few)
    taken: dict[str, list[float]] = {side: [] for side in sides}
    extra: dict[str, float | None] = {}
    for number in range(passes + 1):
        for side, (call, scale) in list(sides.items()):
            try:
                seconds, extra[side] = taken_by(call)
            except RuntimeError as e:  # torch has not every operation for every type
                print(f"{name}, {side}: {e}", flush=True)
                del sides[side], taken[side]
                continue
            if number:
                taken[side].append(scale * seconds)
    ours = np.array(taken["topk"])
    rows = []
    for side, times in taken.items():
        t, scale, bytes_ = np.array(times), sides[side][1], extra[side]
        r = t / ours
        grown = None if bytes_ is None else bytes_ * (1.0 if scale == 1.0 else 10.0)
        rows.append(
            Row(name, side, float(np.median(t)), float(t.min()), float(t.max()), grown,
                float(np.median(r)), float(r.min()), float(r.max()), scale)
        )  # fmt: skip
        print(line(rows[-1]), flush=True)
    return rows


def line(row: Row) -> str:
    """One row of the table."""
    span = f"{row.fastest:.3g} to {row.slowest:.3g}"
    extra = "" if row.extra_bytes is None else f"{row.extra_bytes / 1e6:,.1f} MB"
    ratio = f"{row.ratio:.3g}x of topk ({row.ratio_low:.3g} to {row.ratio_high:.3g})"
    scaled = "  (run on a tenth, scaled)" if row.scaled_by != 1.0 else ""
    return (
        f"{row.values:<26}{row.side:<34}{row.seconds:>9.3g} s {span:>20}{extra:>14}  "
        f"{ratio}{scaled}"
    )


def bandwidth(rows: list[Row], item_bytes: int, n: int) -> dict[str, float]:
    """Bytes a second of topk with a carried threshold, of the fastest copy, and their ratio."""
    by = {row.side: row for row in rows}
    copy = max(2 * item_bytes * n / by[side].seconds for side in COPIES)
    read = item_bytes * n / by[CARRIED].seconds
    print(
        f"{rows[0].values:<26}carried over: {read / 1e9:.1f} GB/s read, {read / copy:.0%} of the "
        f"{copy / 1e9:.1f} GB/s that a copy reads and writes"
    )
    return {"read_bytes_per_s": read, "copy_bytes_per_s": copy, "share": read / copy}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=10**8)
    parser.add_argument("--k", type=int, default=10**4)
    parser.add_argument("--passes", type=int, default=5)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    normal = rng.standard_normal(args.n, dtype=np.float32)
    counts = rng.poisson(3, args.n).astype(np.uint8)
    rows: list[Row] = []
    passes_over: dict[str, dict[str, float]] = {}
    for name, values, few in (
        ("float32, normal", normal, False),
        ("float16, normal", normal.astype(np.float16), False),
        ("uint8, Poisson(3)", counts, False),
        ("uint8, Poisson(3) // 3", counts // 3, True),  # so many ties that values are counted
    ):
        found = raced(name, values, args.k, args.passes, few)
        passes_over[name] = bandwidth(found, values.itemsize, args.n)
        rows += found
    written = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {
            "processor": processor(),
            "cores_used": compiled.usable_cores(),
            "cores": os.cpu_count(),
            "cpu_flags": cpu_flags(),
            "system": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
        },
        "versions": {
            name: version(name) if importlib.util.find_spec(name) else None
            for name in ("numpy", "numba", "torch")
        },
        "n": args.n,
        "k": args.k,
        "passes": args.passes,
        "one_pass": passes_over,
        "rows": [asdict(row) for row in rows],
    }
    RESULTS.write_text(json.dumps(written, indent=1) + "\n", "utf8")


if __name__ == "__main__":
    main()
