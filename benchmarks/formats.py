"""How fast arrays are rounded, beside copying them: `python -m benchmarks.formats`.

Copying (numpy.copyto into an array that is there already) and every format and route take turns
in one process, so a change of the machine's speed meets all alike; seconds of the processor
stand beside those of the wall, for other programs take only the latter. Prints a table and
writes benchmarks/formats.json, from which docs/formats.md has its ratios.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from justenough.compiled import has_numba
from justenough.formats import kernels
from justenough.formats.blocks import MXFP4, MXFP6_E2M3, MXFP6_E3M2, MXFP8_E4M3, MXFP8_E5M2, NVFP4
from justenough.formats.floats import (
    BF16,
    FP4_E2M1,
    FP6_E2M3,
    FP6_E3M2,
    FP8_E4M3,
    FP8_E5M2,
    FP16,
)
from justenough.formats.format import Format
from justenough.formats.integers import IntFormat
from justenough.formats.logarithmic import LNS8, LNS16
from justenough.subjects.processor import cpu_flags, processor

Floats = NDArray[np.float32]
RESULTS = Path("benchmarks/formats.json")
# Bytes that must be read and written for each value; a copy moves 8. A scale for the tensor
# needs all of it before the first value can be rounded, so it is read twice.
COPY, TWICE = 8, 12


def formats() -> dict[str, tuple[Format, int]]:
    """Formats by name, with the bytes that cannot be avoided for each value."""
    once: list[Format] = [
        FP16, BF16, FP8_E4M3, FP8_E5M2, FP6_E3M2, FP6_E2M3, FP4_E2M1, LNS16, LNS8,
        MXFP8_E4M3, MXFP8_E5M2, MXFP6_E3M2, MXFP6_E2M3, MXFP4,
    ]  # fmt: skip
    named: dict[str, tuple[Format, int]] = {f.name: (f, COPY) for f in once}
    named["nvfp4"] = (NVFP4, TWICE)
    for bits in (8, 4, 2):
        named[f"int{bits} tensor"] = (IntFormat(bits), TWICE)
    named["int8 rows"] = (IntFormat(8, axis=0), COPY)
    named["int8 columns"] = (IntFormat(8, axis=1), TWICE)
    named["int4 block 32"] = (IntFormat(4, block=32), COPY)
    named["uint4 block 32"] = (IntFormat(4, block=32, symmetric=False), COPY)
    return named


def copied(out: Floats, x: Floats, threads: int) -> None:
    """Copy in `threads` equal parts, side by side."""
    parts = list(zip(np.array_split(out, threads), np.array_split(x, threads), strict=True))
    if threads == 1:
        np.copyto(out, x)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda p: np.copyto(*p), parts))


def rounded(form: Format, route: kernels.Route, x: Floats, out: Floats, threads: int) -> None:
    """Round on one route."""
    with kernels.only(route):
        form.round(x, out=out, threads=threads)


def raced(
    sides: dict[str, Callable[[], object]], passes: int
) -> dict[str, list[tuple[float, float]]]:
    """Seconds by the wall and of the processor; all take turns, a first pass does not count."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for number in range(passes + 1):
        for name, side in sides.items():
            start, used = time.perf_counter(), time.process_time()
            side()
            if number:
                taken[name].append((time.perf_counter() - start, time.process_time() - used))
    return taken


def measured(n: int, threads: int, passes: int, routes: list[kernels.Route]) -> dict[str, Any]:
    """Median seconds, spread and ratios to copying for all formats."""
    rng = np.random.default_rng(0)
    columns = 4096 if n >= 4096 else n
    x = rng.standard_normal(n // columns * columns, dtype=np.float32).reshape(-1, columns)
    out = np.zeros_like(x)
    sides: dict[str, Callable[[], object]] = {"copy": lambda: copied(out, x, threads)}
    known = formats()
    for name, (form, _) in known.items():
        for route in routes:
            sides[f"{name}|{route}"] = lambda f=form, r=route: rounded(f, r, x, out, threads)
    if threads == 1:
        half = np.zeros(x.shape, np.float16)

        def cast() -> None:
            np.copyto(half, x, casting="same_kind")
            np.copyto(out, half)

        sides["fp16|numpy casts"] = cast
    taken = raced(sides, passes)
    copy, copy_cpu = np.median(taken["copy"], axis=0)
    rows = {}
    for side, pairs in taken.items():
        wall, cpu = np.median(pairs, axis=0)
        floor = known.get(side.split("|")[0], (None, COPY))[1]
        low, high = np.quantile([w for w, _ in pairs], (0.1, 0.9))
        rows[side] = {
            "seconds": float(wall),
            "low": float(low),
            "high": float(high),
            "cpu_seconds": float(cpu),
            "of_copy": float(copy / wall),
            "of_copy_cpu": float(copy_cpu / cpu),
            "of_floor": float(copy * floor / COPY / wall),
        }
    return {"values": x.size, "threads": threads, "passes": passes, "rows": rows}


def table(result: dict[str, Any]) -> str:
    """The result as lines of text."""
    copy = result["rows"]["copy"]
    rate = COPY * result["values"] / copy["seconds"] / 1e9
    lines = [
        f"{result['values']:,} float32, {result['threads']} threads, {result['passes']} passes; "
        f"copy {copy['seconds'] * 1e3:.1f} ms, {rate:.1f} GB/s read and written",
        f"{'format':<28}{'ms':>8}  {'10 % to 90 %':>16}{'of copy':>9}"
        f"{'by cpu':>9}{'of floor':>10}",
    ]
    for name, r in result["rows"].items():
        span = f"{r['low'] * 1e3:.1f} to {r['high'] * 1e3:.1f}"
        lines.append(
            f"{name.replace('|', ', '):<28}{r['seconds'] * 1e3:8.1f}  {span:>16}"
            f"{r['of_copy']:9.1%}{r['of_copy_cpu']:9.1%}{r['of_floor']:10.1%}"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure with each number of threads, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--values", type=int, default=10**8)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--passes", type=int, default=7)
    args = parser.parse_args()
    routes: list[kernels.Route] = ["fast", "plain"] if has_numba() else ["plain"]
    results = []
    for threads in args.threads:
        results.append(measured(args.values, threads, args.passes, routes))
        print(table(results[-1]), flush=True)
    written = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "cpu_flags": cpu_flags(),
            "system": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
            "numpy": version("numpy"),
            "numba": version("numba") if find_spec("numba") else None,
        },
        "formats": results,
    }
    RESULTS.write_text(json.dumps(written, indent=1) + "\n", "utf8")


if __name__ == "__main__":
    main()
