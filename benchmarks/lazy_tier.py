"""The lazy tier of the assembly simulator: rounds a second, bytes, and the authors' method.

`python -m benchmarks.lazy_tier` prints one row for each program and circuit: one area that hears
itself and one stimulus, on one core. Rounds 1 to 25, in which the assembly forms, and rounds 26
to 125 stand apart, each by the clock on the wall and by that of the processor, which other
programs slow down less. The authors' method (`reference.py`) makes as many of these rounds as it
can in `--limit` seconds, and PyPI `neural-assemblies` as many of the first 25, if `--peer` names a
Python that has it; `ratio` is their time over the lazy tier's for the same rounds of this run.

Bytes: `arrays` is what the simulator says it keeps, `peak` what Python allocated at most (by
tracemalloc, in a run of its own), `RSS` how much the process grew from after its imports, and
after a tiny circuit that loads the compiled loops, to the last round.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np

CIRCUITS = (
    # Small enough for the others to get somewhere.
    (10**5, 317, 0.05, 0.05),
    (10**6, 10**3, 0.01, 0.05),
    (10**9, 10**3, 0.01, 0.05),
    (10**9, 10**3, 0.01, 0.1),
    (10**9, 10**4, 0.001, 0.1),
)
FORMING, SETTLED = 25, 100
PEER = Path(__file__).with_name("lazy_peer.py")


def resident() -> int:
    """Bytes of this process in memory; Linux only."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def rounds(tier: Any, case: tuple[int, int, float, float], seed: int, limit: float) -> Any:
    """A brain after up to 125 rounds or `limit` seconds; wall and processor seconds of each."""
    from justenough.assemblies.circuit import Area, Circuit, Fibre, Stimulus

    n, k, p, beta = case
    circuit = Circuit(p, (Area("a", n, k, beta),), (Stimulus("s", k),), (Fibre("a", "a"),))
    brain, seconds, busy = tier(circuit, seed), [], []
    while len(seconds) < FORMING + SETTLED and sum(seconds) < limit:
        begin, started = time.perf_counter(), time.process_time()
        brain.fire({"a": ["s", "a"] if seconds else ["s"]})
        seconds.append(time.perf_counter() - begin)
        busy.append(time.process_time() - started)
    return brain, seconds, busy


def worker(program: str, case: tuple[int, int, float, float], seeds: int, limit: float) -> None:
    """Measure in this process; print JSON."""
    from justenough.assemblies.lazy import LazyBrain
    from justenough.assemblies.reference import ReferenceBrain

    tier = LazyBrain if program == "lazy" else ReferenceBrain
    rounds(tier, (10**6, 50, 0.1, 0.1), 0, 10.0)
    before, runs = resident(), []
    for seed in range(1, seeds + 1):
        brain, seconds, busy = rounds(tier, case, seed, limit)
        if seed == 1:
            grown, first = resident() - before, brain
        clocks = {
            "seconds": [round(x, 6) for x in seconds],
            "busy": [round(x, 6) for x in busy],
        }
        runs.append({**clocks, "support": brain.support("a")})
    found = {"program": program, "case": case, "runs": runs, "rss": grown}
    if program == "lazy":
        found["arrays"] = sum(first.nbytes.values())
        tracemalloc.start()
        rounds(tier, case, 1, limit)
        found["peak"] = tracemalloc.get_traced_memory()[1]
    print(json.dumps(found))


def measured(command: list[str], limit: float) -> dict[str, Any]:
    """What a worker printed, in a process of its own on one core."""
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    taskset = ["taskset", "-c", str(sorted(os.sched_getaffinity(0))[-1])]
    try:
        done = subprocess.run(
            [*taskset, *command],
            env={**os.environ, **dict.fromkeys(threads, "1")},
            capture_output=True,
            text=True,
            timeout=3 * limit + 60,
            check=True,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"no result in {3 * limit + 60:.0f} s"}
    except subprocess.CalledProcessError as error:
        return {"error": error.stderr.strip().splitlines()[-1]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def speed(found: dict[str, Any], clock: str, first: int, last: int) -> str:
    """Median, least and most rounds a second over these rounds, if all were made."""
    runs = [run[clock][first:last] for run in found["runs"]]
    if min(map(len, runs)) < last - first:
        return "not reached"
    each = [(last - first) / sum(run) for run in runs]
    return f"{np.median(each):.1f}/s ({min(each):.1f} to {max(each):.1f})"


def row(found: dict[str, Any], lazy: dict[str, Any]) -> str:
    """One line of the table."""
    if "error" in found:
        return f"  {found['program']}: {found['error']}"
    made = min(len(run["seconds"]) for run in found["runs"])
    parts = []
    for name, first, last in (("1-25", 0, FORMING), ("26-125", FORMING, FORMING + SETTLED)):
        wall, busy = (speed(found, clock, first, last) for clock in ("seconds", "busy"))
        parts.append(f"rounds {name}: {wall}, of the processor {busy}")
    if found is not lazy:
        mine = np.median([sum(run["seconds"][:made]) for run in lazy["runs"]])
        other = np.median([sum(run["seconds"][:made]) for run in found["runs"]])
        parts.append(f"first {made} rounds in {other:.2f} s, ratio {other / mine:.0f}")
    support = np.median([run["support"] for run in found["runs"]])
    parts.append(f"support {support:.0f} after {made}")
    sizes = [f"{x} {found[x.lower()] / 1e6:.1f} MB" for x in ("arrays", "peak", "RSS")
             if x.lower() in found]  # fmt: skip
    return f"  {found['program']}: " + ", ".join([*parts, *sizes])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--limit", type=float, default=20.0, help="seconds for other programs")
    parser.add_argument("--peer", help="a Python that has neural-assemblies")
    parser.add_argument("--json", type=Path, help="write all numbers here as well")
    parser.add_argument("--worker", nargs=5, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        program, n, k, p, beta = args.worker
        worker(program, (int(n), int(k), float(p), float(beta)), args.seeds, args.limit)
        return
    found = []
    for case in CIRCUITS:
        print("n={:.0e} k={:.0e} p={} beta={}".format(*case), flush=True)
        numbers, lazy = [str(x) for x in case], {}
        limits = ["--limit", str(args.limit), "--worker"]
        own = [sys.executable, "-m", "benchmarks.lazy_tier"]
        commands = {
            "lazy": [*own, "--seeds", str(args.seeds), *limits, "lazy", *numbers],
            "reference": [*own, "--seeds", "1", *limits, "reference", *numbers],
        }
        if args.peer:
            commands["neural-assemblies"] = [args.peer, str(PEER), *numbers, str(args.limit)]
        for program, command in commands.items():
            one = {"program": program, "case": case, **measured(command, args.limit)}
            lazy = lazy or one
            print(row(one, lazy), flush=True)
            found.append(one)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
