"""How far the lazy tier's supports are from those of the random graph: means over many seeds.

`python -m benchmarks.lazy_law` compares the lazy tier with the exact one, as it is and with what
it may forget cut down: `MOST_ROUNDS` to few rounds, and `MOST_TIED` to as many neurons as fire.
The last comparison is of the exact tier in binary fractions with itself as it is, in decimals:
five synapses of 1.2 tie with six of 1, and in units of 2^-20 they lose.
"""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from justenough.assemblies import unfired
from justenough.assemblies.arithmetic import Heard, WholeNumbers
from justenough.assemblies.circuit import Area, Brain, Circuit, Fibre, Stimulus
from justenough.assemblies.exact import ExactBrain
from justenough.assemblies.lazy import LazyBrain
from justenough.assemblies.operations import complete, merge, project

Case = tuple[int, int, float, float]
Tier = Callable[[Circuit, int], Brain]
Run = Callable[[Tier, Case, int], list[float]]

_UNIT = 1 << 20


class Binary(WholeNumbers):
    """Weights in units of 2^-20."""

    def inputs(self, heard: Heard) -> npt.NDArray[np.int64]:
        """Input of each neuron that ever fired."""
        table = np.rint((1 + heard.beta) ** np.arange(heard.rounds + 1.0) * _UNIT).astype(np.int64)
        total = np.zeros(heard.ever, np.int64)
        for counts, exponents in heard.stimuli:
            total += counts * table[exponents]
        for learned, active in heard.fibres:
            learned.add_inputs(active, table, total, 1)
        return total

    def unweighted(self, counts: npt.NDArray[np.int64], heard: Heard) -> npt.NDArray[np.int64]:
        """Inputs of neurons that never fired."""
        return counts * _UNIT


def circuit(case: Case, areas: str, stimuli: str) -> Circuit:
    """All areas joined, but for a and b."""
    n, k, p, beta = case
    return Circuit(
        p,
        tuple(Area(x, n, k, beta) for x in areas),
        tuple(Stimulus(x, k) for x in stimuli),
        tuple(Fibre(x, y) for x in areas for y in areas if {x, y} != {"a", "b"}),
    )


def projected(tier: Tier, case: Case, seed: int) -> list[float]:
    """Support, the round that settled, and what a half brings back."""
    brain = tier(circuit(case, "a", "s"), seed)
    trace = project(brain, "s", "a", 15)
    return [trace.support[-1], trace.settled() or 15, complete(brain, "a", 0.5, 5, seed)]


def merged(tier: Tier, case: Case, seed: int) -> list[float]:
    """Support of the merge and of an area merged."""
    brain = tier(circuit(case, "abc", "st"), seed)
    return [merge(brain, ("s", "t"), ("a", "b"), "c", 15).support[-1], brain.support("a")]


def taught(tier: Tier, case: Case, seed: int) -> list[float]:
    """Supports of two areas after eight stimuli, each twice: some two hundred rounds."""
    brain = tier(circuit(case, "ac", "stuvwxyz"), seed)
    for stimulus in "stuvwxyz" * 2:
        brain.fire({"a": [stimulus]})
        brain.fire({"a": [stimulus, "a"], "c": ["a"]})
        for _ in range(8):
            brain.fire({"a": [stimulus, "a", "c"], "c": ["a", "c"]})
    return [brain.support("a"), brain.support("c")]


@contextmanager
def limits(rounds: int, tied: tuple[int, int]) -> Iterator[None]:
    """Other limits of what is remembered."""
    before = unfired.MOST_ROUNDS, unfired.MOST_TIED, unfired.TIMES_K
    unfired.MOST_ROUNDS, unfired.MOST_TIED, unfired.TIMES_K = rounds, *tied
    yield
    unfired.MOST_ROUNDS, unfired.MOST_TIED, unfired.TIMES_K = before


def sample(run: Run, tier: Tier, case: Case, seeds: int) -> npt.NDArray[np.float64]:
    """Measures by seed."""
    return np.array([run(tier, case, seed) for seed in range(5000, 5000 + seeds)])


def show(name: str, one: npt.NDArray[np.float64], truth: npt.NDArray[np.float64]) -> None:
    """Differences of means in percent, with their standard errors."""
    mean = truth.mean(0)
    off = 100 * (one.mean(0) / mean - 1)
    error = 100 * np.sqrt(one.var(0) / len(one) + truth.var(0) / len(truth)) / mean
    parts = [f"{o:+.2f} +- {e:.2f} %" for o, e in zip(off, error, strict=True)]
    print(f"  {name}: {', '.join(parts)}", flush=True)


CASES: tuple[tuple[Run, Case], ...] = (
    (projected, (2000, 50, 0.02, 0.2)),
    (projected, (2000, 50, 0.2, 0.05)),
    (projected, (20_000, 100, 0.01, 0.1)),
    (projected, (20_000, 100, 0.1, 0.1)),
    (merged, (1000, 50, 0.03, 0.1)),
    (merged, (20_000, 100, 0.05, 0.1)),
    (taught, (5000, 50, 0.05, 0.1)),
)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=300)
    parser.add_argument("--only", type=int, nargs="*", default=range(len(CASES)))
    args = parser.parse_args()
    for at in args.only:
        run, case = CASES[at]
        truth = sample(run, lambda c, s: ExactBrain(c, s, threads=1), case, args.seeds)
        print(f"{run.__name__} n={case[0]} k={case[1]} p={case[2]} beta={case[3]},", end=" ")
        print(f"{args.seeds} seeds, exact means {np.round(truth.mean(0), 3).tolist()}")
        show("lazy", sample(run, LazyBrain, case, args.seeds), truth)
        for most in (1, 4, 16):
            with limits(most, (4096, 8)):
                show(f"{most} rounds", sample(run, LazyBrain, case, args.seeds), truth)
        with limits(unfired.MOST_ROUNDS, (1, 1)):
            show("k tied", sample(run, LazyBrain, case, args.seeds), truth)
    run, case = CASES[0]
    truth = sample(run, ExactBrain, case, args.seeds)
    other = sample(run, lambda c, s: ExactBrain(c, s, arithmetic=Binary()), case, args.seeds)
    show("exact tier in binary fractions, against decimals as it is", other, truth)


if __name__ == "__main__":
    main()
