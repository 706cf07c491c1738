"""What one analysis takes: `python -m justenough.studies.heavystats.cost NAME`, by itself.

At the document's sizes: 1,000,000 conversations of 50 turns, 169 weightings, 10,000 resamples,
100,000 shuffles, 4 chains of 20,000 draws, 252 networks. Prints seconds and peak memory as JSON.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from justenough.core.store import Store
from justenough.errors import InputError
from justenough.studies.heavystats.work import Work
from justenough.studies.heavystats.world import World

CONVERSATIONS = 1_000_000


@dataclass(frozen=True)
class Cost:
    """What an analysis took.

    Attributes:
        seconds: Wall clock of the analysis; what it reads of another one is there already.
        peak_bytes: Most memory that the process held, Python and libraries included.
        left_bytes: What it left on disk.
    """

    seconds: float
    peak_bytes: int
    left_bytes: int


@cache
def cost(name: str) -> Cost:
    """Run an analysis in a process of its own; once in a process, however often it is asked."""
    command = [sys.executable, "-m", __name__, name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise InputError(f"analysis {name!r} failed: {last[:300]}")
    return Cost(**json.loads(done.stdout))


def main(name: str) -> None:
    """Run one analysis and print what it took."""
    from justenough.studies.heavystats.analyses import ANALYSES
    from justenough.studies.heavystats.work import everything

    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "run.sqlite", {"study": "heavystats"})
        work = Work(World(CONVERSATIONS), np.random.default_rng(0), store, lambda _: None)
        if name in ("posterior", "variational", "search"):
            everything(work)  # the pass is what Monte Carlo takes
        start = time.perf_counter()
        ANALYSES[name](work)
        seconds = time.perf_counter() - start
        store.close()
        left = sum(p.stat().st_size for p in Path(folder).rglob("*") if p.is_file())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    sys.stdout.write(json.dumps({"seconds": seconds, "peak_bytes": peak, "left_bytes": left}))


if __name__ == "__main__":
    main(sys.argv[1])
