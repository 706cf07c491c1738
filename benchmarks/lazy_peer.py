"""PyPI `neural-assemblies` on one circuit; run by a Python that has it (see `lazy_tier`)."""

import json
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path

from neural_assemblies.core import Brain

FORMING = 25


def resident() -> int:
    """Bytes of this process in memory; Linux only."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Make up to 25 rounds in the time allowed; print JSON."""
    n, k, p, beta, limit = (float(x) for x in sys.argv[1:])
    before = resident()
    brain = Brain(p=p, seed=1, engine="numpy_sparse")
    brain.add_stimulus("s", int(k))
    brain.add_area("a", int(n), int(k), beta)
    seconds: list[float] = []
    busy: list[float] = []
    while len(seconds) < FORMING and sum(seconds) < limit:
        begin, started = time.perf_counter(), time.process_time()
        brain.project({"s": ["a"]}, {"a": ["a"]} if seconds else {})
        seconds.append(time.perf_counter() - begin)
        busy.append(time.process_time() - started)
    run = {"seconds": seconds, "busy": busy, "support": int(brain.areas["a"].w)}
    made = {"version": version("neural-assemblies"), "runs": [run], "rss": resident() - before}
    print(json.dumps(made))


if __name__ == "__main__":
    main()
