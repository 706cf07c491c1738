"""Simulators run on seeds: each run is kept when it has ended, and none is made twice."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from justenough.assemblies import subject
from justenough.assemblies.subject import EXACT, OUTPUTS, TAUGHT, Problem, Run
from justenough.compiled import usable_cores
from justenough.core.judge import Paired
from justenough.core.store import Store
from justenough.core.subject import Variant
from justenough.errors import InputError

REFERENCE = "exact"
# What may be chosen, since it is timed as it is; `exact` stands beside each in time.
CANDIDATES: Mapping[str, Variant] = {
    "lazy": subject.simulator(sampler="lazy"),
    "authors": subject.simulator(sampler="normal"),
    "top-k 0.95": subject.simulator(topk="0.95"),
    "uint16": subject.simulator(counts="uint16"),
    "lowest": subject.simulator(ties="lowest"),
}
# Emulated on the exact tier, so that their time says nothing; and another graph of the same law.
FORMATS: Mapping[str, Variant] = {
    "fp64": subject.simulator(weights="fp64", sums="fp64"),
    "fp32": subject.simulator(weights="fp32", sums="fp32"),
    "fp16": subject.simulator(weights="fp16", sums="fp32"),
    "bf16": subject.simulator(weights="bf16", sums="fp32"),
    "bf16 stochastic": subject.simulator(weights="bf16 stochastic", sums="fp32"),
    "lns12": subject.simulator(weights="lns12", sums="fp32"),
    "bf16 sums": subject.simulator(weights="bf16", sums="bf16"),
}
OTHERS: Mapping[str, Variant] = {"redrawn": subject.simulator(edges=subject.OTHER_SEED)}
HASHES: Mapping[str, Variant] = {
    "xor": subject.simulator(edges="xor"),
    "fnv": subject.simulator(edges="fnv"),
}
VARIANTS: Mapping[str, Variant] = {REFERENCE: EXACT, **CANDIDATES, **FORMATS, **OTHERS, **HASHES}
WITH_STATE = tuple(k for k, v in VARIANTS.items() if subject.has_exact_state(v) and k != REFERENCE)
# From so many neurons on, runs share out threads rather than seeds: memory, and little to gain.
_LARGE = 10**7
_SPAN = 2_000_000
MOST_SEED = 100_000
Array = NDArray[np.float64]
Progress = Callable[[str, float], None]


@dataclass
class Bench:
    """Runs of all simulators on one problem.

    Attributes:
        problem: What is simulated.
        seed: Search seeds are even, certification seeds odd; another seed shares none of them.
        store: Where runs are kept.
        progress: Called with a stage and the share of it that is done.
        failed: Why a simulator cannot be run, by name.
    """

    problem: Problem
    seed: int
    store: Store
    progress: Progress
    failed: dict[str, str] = field(default_factory=dict)

    def search_seeds(self, number: int) -> list[int]:
        """The first seeds to order and time on."""
        return [_SPAN * self.seed + 2 * i for i in range(number)]

    def certification_seeds(self, number: int) -> list[int]:
        """The first seeds to judge on."""
        return [s + 1 for s in self.search_seeds(number)]

    def timed(self, names: Sequence[str], number: int) -> None:
        """Run simulators on the search seeds one after another, so that times can be compared."""
        seeds = self.search_seeds(number)
        if any(self._missing(name, s) for name in names for s in seeds):
            for name in names:  # code is loaded and compiled before any clock runs
                self._try(name, -1, partial(subject.run, VARIANTS[name], _small(), 0))
        for i, seed in enumerate(seeds):
            # Each goes first once in a while: caches and clocks favour no side.
            for name in np.roll(np.array(names, object), i):
                self.progress("timing", i / len(seeds))
                if self._missing(name, seed):
                    self._try(name, seed, partial(self._run, name, seed, None))

    def judged(self, names: Iterable[str], number: int, stage: str, taught: int = 0) -> None:
        """Run simulators on the first certification seeds, several at once where they are small.

        Args:
            names: Of the simulators.
            number: Of seeds.
            stage: For the progress.
            taught: On so many seeds the exact tier also says who would win in other arithmetics.
        """
        few = self.problem.n <= _LARGE
        threads = 1 if few else None
        jobs: list[tuple[str, int, Callable[[], Any]]] = []
        for i, seed in enumerate(self.certification_seeds(number)):
            for name in names:
                if not self._missing(name, seed):
                    continue
                if name == REFERENCE and i < taught:
                    jobs.append((name, seed, partial(self._teach, seed, threads)))
                else:
                    jobs.append((name, seed, partial(self._run, name, seed, threads)))
        workers = usable_cores() if few else 1
        with ThreadPoolExecutor(workers) as pool:
            waiting: dict[Future[Any], tuple[str, int]] = {}
            done, left = 0, list(reversed(jobs))
            while left or waiting:
                while left and len(waiting) < workers:
                    name, seed, job = left.pop()
                    if name not in self.failed:
                        waiting[pool.submit(job)] = name, seed
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    name, seed = waiting.pop(future)
                    self._try(name, seed, future.result)
                    done += 1
                    self.progress(stage, done / max(len(jobs), 1))

    def _run(self, name: str, seed: int, threads: int | None) -> tuple[Run, dict[str, float]]:
        return subject.run(VARIANTS[name], self.problem, seed, threads), {}

    def _teach(self, seed: int, threads: int | None) -> tuple[Run, dict[str, float]]:
        variants = [VARIANTS[name] for name in WITH_STATE]
        found, kept = subject.taught(self.problem, seed, variants, threads)
        return found, dict(zip(WITH_STATE, kept, strict=True))

    def _try(self, name: str, seed: int, job: Callable[[], Any]) -> None:
        """Keep what a job gives; a simulator that refuses is left out, but for the exact one."""
        try:
            got = job()
        except InputError as e:
            if name == REFERENCE:
                raise
            self.failed.setdefault(name, str(e))
            return
        if seed >= 0:
            found, kept = got
            said = {"outputs": dict(found.outputs), "bytes": dict(found.bytes), "taught": kept}
            self.store.put(_step(name, seed), {**said, "seconds": found.seconds},
                           {"winners": found.winners})  # fmt: skip

    def _missing(self, name: str, seed: int) -> bool:
        return name not in self.failed and self.store.get(_step(name, seed)) is None

    def has(self, name: str, seeds: Sequence[int]) -> bool:
        """Whether a simulator was run on all of these seeds."""
        return name not in self.failed and not any(self._missing(name, s) for s in seeds)

    def said(self, name: str, seed: int) -> dict[str, Any]:
        """What was kept of a run."""
        found: dict[str, Any] = self.store.get(_step(name, seed))
        return found

    def winners(self, name: str, seed: int) -> NDArray[np.int64]:
        """Ids of the assembly of a run."""
        return np.asarray(self.store.arrays(_step(name, seed))["winners"], np.int64)

    def outputs(self, name: str, seeds: Sequence[int]) -> dict[str, Array]:
        """Outputs by name, each (seeds,)."""
        if name in self.failed:  # not a number is never within a tolerance
            return {key: np.full(len(seeds), np.nan) for key in OUTPUTS}
        runs = [self.said(name, s)["outputs"] for s in seeds]
        return {key: np.array([r[key] for r in runs]) for key in OUTPUTS}

    def kept(self, name: str, seeds: Sequence[int]) -> Array | None:
        """`winner_overlap` of a variant on each seed; None where it was not asked on all."""
        found = [self.said(REFERENCE, s)["taught"].get(name) for s in seeds]
        return None if None in found else np.array(found, np.float64)

    def pairs(self, name: str, seeds: Sequence[int]) -> Paired:
        """Outputs of the exact tier and of a simulator, with `winner_overlap` where it exists."""
        ref, cand = self.outputs(REFERENCE, seeds), self.outputs(name, seeds)
        overlap = self.kept(name, seeds)
        if overlap is not None:
            ref, cand = {**ref, TAUGHT: np.ones(len(seeds))}, {**cand, TAUGHT: overlap}
        return Paired(ref, cand, np.arange(len(seeds)))


def _step(name: str, seed: int) -> str:
    return f"{name}/{seed}"


def _small() -> Problem:
    return Problem(20_000, 40, 0.05, 0.05, 3)
