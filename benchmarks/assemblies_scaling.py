"""How memory and time of the simulator's tiers grow with the number of neurons.

`python -m benchmarks.assemblies_scaling -o FILE` runs each size in a process of its own: one area
with a stimulus and synapses within, `ROUNDS` rounds of projection and then settled ones. Beside it
stand a copy of as many bytes and one pass over the counts, measured in the same process.
`--device cuda` holds the counts on a graphics card. Timings of rounds are single ones of the wall,
since a round cannot be repeated; settled rounds, passes and copies are medians.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from justenough.assemblies.circuit import Area, Circuit, Fibre, Stimulus
from justenough.assemblies.counts import Counts, HostCounts, Step
from justenough.assemblies.exact import ExactBrain
from justenough.assemblies.lazy import LazyBrain
from justenough.assemblies.operations import overlap
from justenough.compiled import usable_cores
from justenough.subjects import processor

ROUNDS, SETTLED, REPEATS = 25, 25, 7
# n, k, p, beta: a dense row to settle in few rounds, and the same k and p at every size.
SIZES = [(10**e, 1000, 0.001, 0.1) for e in (6, 7, 8)] + [
    (10**9, 1000, 0.001, 0.1),
    (10**9, 1000, 0.001, 0.25),
    (10**10, 1000, 0.001, 0.25),
]
# A card changes winners fast enough for these.
ON_A_CARD = [(10**10, 1000, 0.001, 0.1), (10**9, 10**4, 0.001, 0.1), (10**10, 10**4, 0.001, 0.1)]
LAZY = [(10**e, 1000, 0.01, 0.05) for e in (6, 7, 8, 9, 10)] + [(10**9, 10**4, 0.001, 0.1)]


def spread_of(seconds: list[float]) -> dict[str, float]:
    """Median, least and most."""
    return {"median": float(np.median(seconds)), "least": min(seconds), "most": max(seconds)}


def timed(work: Callable[[], object], repeats: int = REPEATS) -> dict[str, float]:
    """Median, least and most seconds of the wall."""
    found = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        found.append(time.perf_counter() - begin)
    return spread_of(found)


def simulate(tier: str, size: list[float], device: str, threads: int | None) -> dict[str, Any]:
    """Run one size; what it took and what came out."""
    n, k, p, beta = int(size[0]), int(size[1]), size[2], size[3]
    circuit = Circuit(p, (Area("a", n, k, beta),), (Stimulus("s", k),), (Fibre("a", "a"),))
    warm_up(device, threads)
    before = resident()
    brain: Any = (
        ExactBrain(circuit, 1, threads=threads, make=maker(device, threads))
        if tier == "exact"
        else LazyBrain(circuit, 1)
    )
    seconds, support, kept = [], [], []
    last = None
    for r in range(ROUNDS + SETTLED):
        begin = time.perf_counter()
        brain.fire({"a": ["s", "a"] if r else ["s"]})
        seconds.append(time.perf_counter() - begin)
        winners = brain.winners("a")
        support.append(brain.support("a"))
        kept.append(0.0 if last is None else overlap(winners, last))
        last = winners
    settled = [s for s, same in zip(seconds, kept, strict=True) if same == 1.0][1:]
    found: dict[str, Any] = {
        "tier": tier, "device": device, "n": n, "k": k, "p": p, "beta": beta,
        "seconds": seconds, "support": support, "overlap": kept,
        "settled": spread_of(settled) if settled else None,
        "rounds_a_second": ROUNDS / sum(seconds[:ROUNDS]),
        "peak_rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "rss_before": before,
    }  # fmt: skip
    if tier == "exact":
        found["bytes"] = brain.nbytes
        found |= floors(brain, n, device)
    return found


def warm_up(device: str, threads: int | None) -> None:
    """Load the compiled loops, which takes half a second and is not what is measured."""
    circuit = Circuit(0.1, (Area("a", 2000, 20, 0.1),), (Stimulus("s", 20),), (Fibre("a", "a"),))
    for brain in (ExactBrain(circuit, make=maker(device, threads)), LazyBrain(circuit)):
        for sources in (["s"], ["s", "a"], ["s", "a"]):
            brain.fire({"a": sources})


def floors(brain: ExactBrain, n: int, device: str) -> dict[str, Any]:
    """One pass over the counts, all rows of an area changed, and a copy; seconds."""
    counts = brain._areas["a"].counts
    bound = counts.largest
    found: dict[str, Any] = {"pass": timed(lambda: counts.at_least(bound, 1))}
    area, graph = brain.circuit.areas[0], brain._graphs["a", "a"]
    mine = brain.winners("a")
    others = np.setdiff1d(np.arange(2 * area.k), mine)[: area.k]
    begin = time.perf_counter()
    counts.change([Step(graph, others, mine)])
    found["all_change"] = time.perf_counter() - begin
    if device == "cuda":
        import cupy

        def copied() -> None:
            cupy.copyto(target, source)
            cupy.cuda.Device().synchronize()

        half = min(n, 8 * 10**9) // 2
        source, target = cupy.ones(half, cupy.uint8), cupy.ones(half, cupy.uint8)
        copied()
        found["copy_bytes"], found["copy"] = 2 * half, timed(copied)
    else:
        half = min(n, 10**9) // 2
        here, there = np.ones(half, np.uint8), np.ones(half, np.uint8)
        found["copy_bytes"] = 2 * half
        found["copy"] = timed(lambda: np.copyto(there, here))
    return found


def maker(device: str, threads: int | None) -> Callable[[int, Any], Counts]:
    """Where counts live."""
    if device == "cuda":
        from justenough.assemblies.cuda import CudaCounts

        return CudaCounts
    return lambda n, kind: HostCounts(n, kind, threads)


def machine(device: str) -> dict[str, Any]:
    """What it was measured on."""
    found: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        **processor.machine(),
        "load": os.getloadavg()[0],
        "versions": processor.versions(("numpy", "scipy", "numba")),
    }
    if device == "cuda":
        from justenough.assemblies.cuda import card

        found["card"] = card()
        found["versions"]["cupy"] = version("cupy-cuda13x")
    return found


def resident() -> int:
    """Bytes of memory that this process holds now."""
    return int(Path("/proc/self/statm").read_text("utf8").split()[1]) * resource.getpagesize()


def main() -> None:
    """Measure each size in its own process; write and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--out", type=Path)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int)
    parser.add_argument("--tier", choices=["exact", "lazy"])
    parser.add_argument("--largest", type=float, default=1e10)
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(simulate(asked.one[0], asked.one[1], asked.device, asked.threads)))
        return
    results = []
    exact = SIZES + (ON_A_CARD if asked.device == "cuda" else [])
    for tier, sizes in (("exact", exact), ("lazy", LAZY)):
        for size in sizes if asked.tier in (None, tier) else []:
            if size[0] > asked.largest:
                continue
            call = [sys.executable, "-m", "benchmarks.assemblies_scaling", "--device"]
            call += [asked.device, "--one", json.dumps([tier, size])]
            # The lazy tier is held against goals for one core.
            threads = 1 if tier == "lazy" else asked.threads or usable_cores()
            call += ["--threads", str(threads)]
            done = subprocess.run(call, check=False, capture_output=True, text=True)
            if done.returncode:
                print(
                    f"{tier} n={size[0]:.0e}: {done.stderr.strip().splitlines()[-1]}", flush=True
                )
                continue
            one = json.loads(done.stdout) | {"threads": threads}
            results.append(one)
            settled = one["settled"]["median"] if one["settled"] else float("nan")
            print(
                f"{tier} n={size[0]:.0e} k={size[1]} p={size[2]} beta={size[3]}: "
                f"{sum(one['seconds'][:ROUNDS]):.2f} s for {ROUNDS} rounds, longest "
                f"{max(one['seconds']):.3f} s, settled {1e3 * settled:.3f} ms, "
                f"support {one['support'][-1]}, peak {one['peak_rss'] / 1e6:.0f} MB",
                flush=True,
            )
            if asked.out:
                whole = {"machine": machine(asked.device), "runs": results}
                asked.out.write_text(json.dumps(whole, indent=1) + "\n", "utf8")


if __name__ == "__main__":
    main()
