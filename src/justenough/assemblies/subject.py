"""The simulator as a subject: where it can be made cheaper, and what it answers.

A case is a seed: one random graph, on which a stimulus is projected to an area and half of the
assembly is then completed. The answers are numbers of that run:

- `support`: neurons that ever fired, after the last round of the projection;
- `settled`: the round after which the winners do not change; rounds + 1 if they still do;
- `completion`: overlap of the assembly with what fires 5 rounds after half of it was fired;
- `winner_overlap`: share of the winners that would also win in the variant's arithmetic, one
  round from the exact state, mean over the rounds; only of variants on the same graph.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from justenough.assemblies.arithmetic import Arithmetic, WholeNumbers
from justenough.assemblies.circuit import Area, Brain, Circuit, Fibre, Stimulus
from justenough.assemblies.counts import HostCounts, Ids
from justenough.assemblies.exact import ExactBrain, Ties
from justenough.assemblies.formats import WEIGHTS, OneRound, Rounded
from justenough.assemblies.hashed import SCHEMES, HashedCounts
from justenough.assemblies.lazy import LazyBrain
from justenough.assemblies.operations import Trace, complete, overlap
from justenough.assemblies.reference import ReferenceBrain
from justenough.assemblies.sampled import SampledBrain
from justenough.core.subject import Choice, Site, Variant
from justenough.errors import InputError

AREA, STIMULUS = "a", "s"
PART, COMPLETION_ROUNDS = 0.5, 5
OUTPUTS = ("support", "settled", "completion")
TAUGHT = "winner_overlap"
STOCHASTIC = " stochastic"
OTHER_SEED = "philox, other seed"
_REDRAWN = 1 << 40
_LAZY: Mapping[str, Callable[[Circuit, int], Brain]] = {
    "lazy": LazyBrain,
    "normal": ReferenceBrain,
}


def _site(name: str, **choices: int) -> Site:
    given = tuple(Choice(c.replace("_", " "), bits) for c, bits in choices.items())
    return Site(name, "assembly", (), 0, 0, given)


# The exact choice of each site first; bits of what the site stores for a neuron or a synapse.
SITES = (
    _site("counts", uint8=8, uint16=16),
    Site("weights", "assembly", (), 0, 0, (
        *(Choice(name, bits) for name, bits in WEIGHTS.items()),
        *(Choice(n + STOCHASTIC, WEIGHTS[n]) for n in ("fp16", "bf16", "lns12")),
    )),
    _site("sums", int64=64, fp64=64, fp32=32, fp16=16, bf16=16),
    _site("sampler", graph=0, lazy=0, normal=0),
    Site("topk", "assembly", (), 0, 0, tuple(Choice(c, 0) for c in ("exact", "0.95", "0.99"))),
    Site("edges", "assembly", (), 0, 0, tuple(
        Choice(c, 0) for c in ("philox", *SCHEMES, OTHER_SEED)
    )),
    _site("ties", random=0, lowest=0),
)  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """What is simulated: a stimulus of k neurons projected to one area with itself as a source.

    Attributes:
        n: Neurons of the area.
        k: Winners, and neurons of the stimulus.
        p: Probability of a synapse.
        beta: Plasticity.
        rounds: Of the projection.

    Raises:
        InputError: A number that no circuit has, p = 1, or fewer than 2 rounds.
    """

    n: int
    k: int
    p: float
    beta: float
    rounds: int

    def __post_init__(self) -> None:
        if self.rounds < 2 or self.rounds > 10_000:
            raise InputError(f"rounds={self.rounds}; give 2 to 10000")
        if not 0 < self.p < 1:
            raise InputError(f"p={self.p}; give a probability above 0 and below 1")
        if 2 * self.k > self.n:
            raise InputError(f"k={self.k} of n={self.n} neurons; give a k of at most half of n")
        _ = self.circuit

    @property
    def circuit(self) -> Circuit:
        """The circuit, with the area `a` and the stimulus `s`."""
        area = Area(AREA, self.n, self.k, self.beta)
        return Circuit(self.p, (area,), (Stimulus(STIMULUS, self.k),), (Fibre(AREA, AREA),))


@dataclass(frozen=True)
class Run:
    """One run of one simulator.

    Attributes:
        outputs: `OUTPUTS` by name; `winner_overlap` is not among them.
        winners: Ids of the assembly after the projection, (k,).
        bytes: What the simulator holds at the end, by array.
        seconds: Wall clock of projection and completion, with the making of the simulator.
    """

    outputs: Mapping[str, float]
    winners: Ids
    bytes: Mapping[str, int]
    seconds: float


def simulator(**picks: str) -> Variant:
    """A variant by its choices; every site that is not named takes the exact one.

    Raises:
        InputError: No such site or choice, or choices that cannot go together.

    >>> simulator(weights="bf16", sums="fp32").at("counts")
    'uint8'
    >>> simulator(weights="bf16", sums="int64")
    Traceback (most recent call last):
    justenough.errors.InputError: weights in bf16 are not added as int64; give sums=fp32 or another
    """
    known = {site.name: site for site in SITES}
    for name, choice in picks.items():
        if name not in known:
            raise InputError(f"no site {name!r}; there are {', '.join(known)}")
        known[name].choice(choice)
    # Every site is written down: a variant reads "fp32" where nothing is.
    chosen = {name: picks.get(name, site.choices[0].name) for name, site in known.items()}
    if (chosen["sums"] == "int64") != (chosen["weights"] == "exponents") and (
        chosen["weights"] != "exponents"
    ):
        raise InputError(
            f"weights in {chosen['weights']} are not added as int64; give sums=fp32 or another"
        )
    apart = [
        name
        for name in ("sampler", "topk", "edges")
        if chosen[name] != known[name].choices[0].name
    ]
    others = [n for n, s in known.items() if n not in apart and chosen[n] != s.choices[0].name]
    if len(apart) > 1 or (apart and others):
        raise InputError(
            f"{apart[0]}={chosen[apart[0]]} goes with the exact choice of all other sites; leave "
            f"out {', '.join([*apart[1:], *others])}"
        )
    return Variant(tuple(sorted(chosen.items())))


EXACT = simulator()


def arithmetic_of(variant: Variant, threads: int | None = None) -> Arithmetic:
    """How a variant adds up inputs."""
    weights, sums = variant.at("weights"), variant.at("sums")
    if sums == "int64":
        return WholeNumbers(threads)
    return Rounded(weights.removesuffix(STOCHASTIC), sums, weights.endswith(STOCHASTIC))


def has_exact_state(variant: Variant) -> bool:
    """Whether `winner_overlap` exists: the variant differs by its arithmetic or counts alone."""
    same = ("sampler", "topk", "edges", "ties")
    return all(variant.at(site) == EXACT.at(site) for site in same)


def brain_of(
    variant: Variant, problem: Problem, seed: int, threads: int | None = None
) -> ExactBrain | Brain:
    """The simulator of a variant, before its first round.

    Raises:
        InputError: The variant cannot simulate a problem of this size.
    """
    circuit = problem.circuit
    if variant.at("sampler") in _LAZY:
        return _LAZY[variant.at("sampler")](circuit, seed)
    if variant.at("topk") != "exact":
        return SampledBrain(circuit, seed, float(variant.at("topk")), threads)
    edges = variant.at("edges")
    make: Any = None
    if edges in SCHEMES:
        make = lambda n, _: HashedCounts(n, edges)  # noqa: E731
    elif variant.at("counts") == "uint16":
        make = lambda n, _: HostCounts(n, np.uint16, threads)  # noqa: E731
    return ExactBrain(
        circuit, seed + _REDRAWN * (edges == OTHER_SEED), cast(Ties, variant.at("ties")), threads,
        make, arithmetic_of(variant, threads),
    )  # fmt: skip


def run(variant: Variant, problem: Problem, seed: int, threads: int | None = None) -> Run:
    """Project and complete on one random graph.

    Raises:
        InputError: As `brain_of`.
    """
    return _run(variant, problem, seed, threads, lambda *_: None)


def taught(
    problem: Problem, seed: int, variants: Sequence[Variant], threads: int | None = None
) -> tuple[Run, tuple[float, ...]]:
    """Run the exact tier, and the `winner_overlap` of each of these variants with it.

    Raises:
        InputError: A variant without the exact state.
    """
    if not all(map(has_exact_state, variants)):
        raise InputError("a variant has not the graph, top-k and ties of the exact tier")
    arithmetics = [arithmetic_of(v, threads) for v in variants]
    kept = np.zeros(len(variants))

    def watch(brain: Any, sources: list[str]) -> None:
        exact = brain.would_win({AREA: sources}, brain.arithmetic)[AREA]
        this = OneRound()
        for i, form in enumerate(arithmetics):
            arithmetic = this.of(form) if isinstance(form, Rounded) else form
            kept[i] += overlap(exact, brain.would_win({AREA: sources}, arithmetic)[AREA])

    found = _run(EXACT, problem, seed, threads, watch)
    return found, tuple((kept / problem.rounds).tolist())


def _run(
    variant: Variant,
    problem: Problem,
    seed: int,
    threads: int | None,
    watch: Callable[[Any, list[str]], None],
) -> Run:
    start = time.perf_counter()
    brain = brain_of(variant, problem, seed, threads)
    winners: list[Ids] = []
    for _ in range(problem.rounds):
        sources = [STIMULUS, AREA] if winners else [STIMULUS]
        watch(brain, sources)
        brain.fire({AREA: sources})
        winners.append(brain.winners(AREA))
    support = brain.support(AREA)
    settled = Trace(AREA, tuple(winners), (support,) * problem.rounds).settled()
    completion = complete(brain, AREA, PART, COMPLETION_ROUNDS, seed)
    seconds = time.perf_counter() - start
    outputs = {
        "support": float(support),
        "settled": float(problem.rounds + 1 if settled is None else settled),
        "completion": completion,
    }
    return Run(outputs, winners[-1], held_bytes(brain, variant), seconds)


def held_bytes(brain: Any, variant: Variant) -> dict[str, int]:
    """Bytes that a simulator holds, by what takes them.

    Weights in a format that is only emulated are counted as if they were stored: one for each
    synapse on a neuron that ever fired.
    """
    if isinstance(brain, LazyBrain):
        return brain.nbytes
    if not isinstance(brain, ExactBrain):
        return {"arrays": _arrays(brain, set())}
    bits = WEIGHTS[variant.at("weights").removesuffix(STOCHASTIC)]
    stored = {"weights": -(-brain.synapses * bits // 8)} if bits else {}
    return {**brain.nbytes, **stored}


def _arrays(held: Any, seen: set[int]) -> int:
    """Bytes of all arrays that an object of this package holds."""
    if id(held) in seen:
        return 0
    seen.add(id(held))
    if isinstance(held, np.ndarray):
        return held.nbytes
    if isinstance(held, dict):
        return sum(_arrays(v, seen) for v in held.values())
    if isinstance(held, list | tuple):
        return sum(_arrays(v, seen) for v in held)
    if type(held).__module__.startswith("justenough."):
        names = vars(held) if hasattr(held, "__dict__") else {}
        return sum(_arrays(v, seen) for v in names.values())
    return 0
