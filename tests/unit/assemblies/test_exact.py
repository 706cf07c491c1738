"""The exact tier gives the winners of a dense simulation of the same graph, bit for bit."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import dense
import numpy as np
import pytest

from justenough.assemblies import counts, exact, graph, learned
from justenough.assemblies import operations as op
from justenough.assemblies.arithmetic import WholeNumbers, weights
from justenough.assemblies.circuit import Area, Brain, Circuit, Fibre, Stimulus
from justenough.assemblies.counts import HostCounts, Ids, Step
from justenough.assemblies.exact import ExactBrain, Ties, count_type
from justenough.errors import InputError

Winners = list[Ids]
Run = Callable[[Brain], Winners]


def one_area(
    n: int = 400, k: int = 20, p: float = 0.05, beta: float = 0.1, stimuli: int = 1
) -> Circuit:
    names = "stuv"[:stimuli]
    return Circuit(
        p,
        (Area("a", n, k, beta),),
        tuple(Stimulus(name, k) for name in names),
        (Fibre("a", "a"),),
    )


def three_areas(n: int = 400, k: int = 20, p: float = 0.05, beta: float = 0.1) -> Circuit:
    return Circuit(
        p,
        tuple(Area(x, n - 10 * i, k + i, beta) for i, x in enumerate("abc")),
        (Stimulus("s", k), Stimulus("t", k + 3)),
        tuple(Fibre(x, y) for x in "abc" for y in "abc" if {x, y} != {"a", "b"}),
    )


def projected(brain: Brain) -> Winners:
    return [*op.project(brain, "s", "a", 10).winners]


def unchanging(brain: Brain) -> Winners:
    first = op.project(brain, "s", "a", 3, plastic=False)
    return [*first.winners, *op.project(brain, "s", "a", 4).winners]


def completed(brain: Brain) -> Winners:
    op.project(brain, "s", "a", 8)
    overlap = op.complete(brain, "a", 0.5, 3, seed=4)
    return [np.array([round(overlap * 1e6)]), brain.winners("a")]


def sequence(brain: Brain) -> Winners:
    learnt = op.learn_sequence(brain, "stuv", "a", 3)
    return [*learnt, *op.recall_sequence(brain, "s", "a", 4)]


def reciprocal(brain: Brain) -> Winners:
    op.project(brain, "s", "a", 3)
    return [*op.reciprocal_project(brain, "s", "a", "c", 6).winners, brain.winners("a")]


def associated(brain: Brain) -> Winners:
    for stimulus, area in (("s", "a"), ("t", "b")):
        op.project(brain, stimulus, area, 5)
        op.project(brain, area, "c", 5)
    trace = op.associate(brain, ("s", "t"), ("a", "b"), "c", 4)
    return [*trace.winners, brain.winners("a"), brain.winners("b")]


def merged(brain: Brain) -> Winners:
    for stimulus, area in (("s", "a"), ("t", "b")):
        op.project(brain, stimulus, area, 4)
    trace = op.merge(brain, ("s", "t"), ("a", "b"), "c", 6)
    return [*trace.winners, brain.winners("a"), brain.winners("b")]


OPERATIONS: dict[Run, Callable[..., Circuit]] = {
    projected: one_area,
    unchanging: one_area,
    completed: one_area,
    sequence: lambda **size: one_area(stimuli=4, **size),
    reciprocal: three_areas,
    associated: three_areas,
    merged: three_areas,
}


def assert_same(
    run: Run, circuit: Circuit, seed: int, ties: Ties = "random", **options: Any
) -> None:
    ours, theirs = (
        ExactBrain(circuit, seed, ties, **options),
        dense.DenseBrain(circuit, seed, ties),
    )
    for mine, his in zip(run(ours), run(theirs), strict=True):
        np.testing.assert_array_equal(mine, his)
    for area in circuit.areas:
        assert ours.support(area.name) == theirs.support(area.name)


@pytest.mark.parametrize("run", OPERATIONS, ids=lambda run: str(run.__name__))
@pytest.mark.parametrize("ties", ["random", "lowest"])
def test_winners_are_those_of_a_dense_simulation(run: Run, ties: Ties) -> None:
    assert_same(run, OPERATIONS[run](), 1, ties)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("run", OPERATIONS, ids=lambda run: str(run.__name__))
def test_winners_are_those_of_a_dense_simulation_on_twenty_graphs(run: Run) -> None:
    for seed in range(20):
        n, k, p = [(600, 24, 0.05), (900, 30, 0.02), (300, 10, 0.2), (400, 15, 0.004)][seed % 4]
        assert_same(run, OPERATIONS[run](n=n, k=k, p=p, beta=0.05 + 0.01 * seed), seed)


@pytest.mark.slow
@pytest.mark.parametrize(
    "run", [projected, sequence, completed], ids=lambda run: str(run.__name__)
)
def test_winners_are_those_of_a_dense_simulation_of_five_thousand(run: Run) -> None:
    for seed in range(20):
        assert_same(run, OPERATIONS[run](n=5000, k=70, p=0.01), seed)


@pytest.mark.parametrize("run", [projected, merged], ids=lambda run: str(run.__name__))
@pytest.mark.parametrize("threads", [1, 2, 4])
def test_threads_do_not_matter(run: Run, threads: int) -> None:
    assert_same(run, OPERATIONS[run](n=700, p=0.02), 5, threads=threads)


def test_without_numba_the_winners_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (counts, graph, learned):
        monkeypatch.setattr(module, "compiled", lambda: None)
    assert_same(sequence, one_area(n=300, stimuli=4), 2)


@pytest.mark.parametrize("p", [1e-4, 0.9])
def test_ties_of_nearly_all_are_broken_alike(p: float) -> None:
    # With p = 1e-4 nearly every neuron hears nothing, with 0.9 nearly everything.
    for ties in ("random", "lowest"):
        assert_same(projected, one_area(p=p, n=300, k=30), 3, ties)


@pytest.mark.parametrize("k", [1, 300])
def test_smallest_and_largest_cap(k: int) -> None:
    assert_same(projected, one_area(n=300, k=k), 3)


def test_counts_that_outgrow_a_byte_are_widened() -> None:
    circuit = one_area(n=400, k=330, p=0.5)
    made: list[Any] = []

    def make(n: int, kind: Any) -> HostCounts:
        made.append(kind)
        return HostCounts(n, np.uint8 if len(made) == 1 else kind)

    assert_same(projected, circuit, 1, make=make)
    assert made == [np.uint16, np.uint8, np.uint16]


def test_types_of_counts() -> None:
    small, large = one_area(k=20, p=0.05), one_area(n=10_000, k=5000, p=0.05)
    assert count_type(small, small.areas[0]) is np.uint8
    assert count_type(large, large.areas[0]) is np.uint16


class Interrupted(HostCounts):
    """Breaks off in the middle of one change, as Ctrl-C may."""

    when = 4

    def change(self, steps: Sequence[Step]) -> None:
        self.when -= 1
        if self.when == 0:
            super().change([step._replace(removed=step.removed[:0]) for step in steps])
            raise KeyboardInterrupt
        super().change(steps)


def test_a_change_that_was_broken_off_is_made_again() -> None:
    circuit = one_area()
    brain = ExactBrain(circuit, 1, make=Interrupted)
    whole = projected(ExactBrain(circuit, 1))
    found: list[Ids] = []
    while len(found) < len(whole):
        try:
            brain.fire({"a": ["s", "a"] if found else ["s"]})
        except KeyboardInterrupt:
            continue
        found.append(brain.winners("a"))
    np.testing.assert_array_equal(found, whole)


def test_who_would_win_is_who_wins_and_changes_nothing() -> None:
    brain, other = ExactBrain(one_area(), 1), ExactBrain(one_area(), 1)
    for r in range(6):
        inputs = {"a": ["s", "a"] if r else ["s"]}
        would = brain.would_win(inputs, WholeNumbers())
        brain.fire(inputs)
        other.fire(inputs)
        np.testing.assert_array_equal(would["a"], brain.winners("a"))
        np.testing.assert_array_equal(brain.winners("a"), other.winners("a"))


def test_a_settled_round_makes_no_pass_over_the_counts() -> None:
    passes: list[int] = []

    class Counting(HostCounts):
        def at_least(self, bound: int, most: int) -> Ids | None:
            passes.append(bound)
            return super().at_least(bound, most)

    brain = ExactBrain(one_area(n=3000, beta=0.2), 1, make=Counting)
    trace = op.project(brain, "s", "a", 20)
    settled = trace.settled()
    assert settled is not None and settled < 18
    made = len(passes)
    op.project(brain, "s", "a", 1)  # the rows of the area leave,
    brain.fire({"a": ["s", "a"]})  # and join again
    assert len(passes) > made
    made = len(passes)
    for _ in range(5):
        brain.fire({"a": ["s", "a"]})
    assert len(passes) == made


def test_rounds_that_are_alike_share_a_bit() -> None:
    brain = ExactBrain(one_area(beta=0.2), 1)
    op.project(brain, "s", "a", 60)
    synapses = brain._learned["a", "a"]
    assert synapses.rounds == 59
    assert synapses.times.sum() == 59
    assert synapses.sent.shape[1] == 1
    assert synapses.times.max() > 40


def test_refusals() -> None:
    brain = ExactBrain(one_area(), 1)
    with pytest.raises(InputError, match="has no winners yet"):
        brain.fire({"a": ["a"]})
    brain.fire({"a": ["s"]})
    never = np.setdiff1d(np.arange(400), brain.winners("a"))[:3]
    with pytest.raises(InputError, match="3 of these never fired"):
        brain.activate("a", never)
    with pytest.raises(InputError, match="probability of an edge is above 0 and below 1"):
        ExactBrain(one_area(p=1.0))
    with pytest.raises(InputError, match="seed=-1"):
        ExactBrain(one_area(), -1)


@pytest.mark.parametrize(("beta", "m"), [(0.05, 4), (0.1, 9), (0.2, 9), (0.25, 4)])
def test_weights_of_short_decimals_are_what_they_are(beta: float, m: int) -> None:
    # (1 + beta)^m has so many decimal places at most; ties between such sums are kept.
    table = weights(beta, m, 1000)
    exact = [Fraction(str(1 + beta)) ** e * 10**9 for e in range(m + 1)]
    assert table.tolist() == exact
    assert 5 * weights(0.2, 1, 10)[1] == 6 * weights(0.2, 1, 10)[0]


def test_weights_that_outgrow_64_bits_lose_fraction_first_and_are_then_refused() -> None:
    assert weights(1.0, 20, 1000)[0] == 10**9
    assert weights(1.0, 45, 1000)[0] == 100
    with pytest.raises(InputError, match="give fewer plastic rounds or a smaller beta"):
        weights(1.0, 60, 1000)


def test_counts_that_do_not_fit_are_refused_before_they_are_made() -> None:
    areas = tuple(Area(f"a{i}", 10**10, 1000, 0.1) for i in range(1000))
    with pytest.raises(InputError, match=r"take 10,000.0 GB, and .* GB are free.*lazy tier"):
        ExactBrain(Circuit(0.001, areas))
    # Where else they live, and what is free there, is for `make` to know.
    made = ExactBrain(Circuit(0.001, areas[:2]), make=lambda n, kind: HostCounts(n // 10**8, kind))
    assert made.nbytes["counts"] == 200


def test_a_limit_on_the_process_is_heard() -> None:
    pytest.importorskip("resource")
    script = """
import resource
from justenough.assemblies.circuit import Area, Circuit
from justenough.assemblies.exact import ExactBrain
from justenough.errors import InputError
resource.setrlimit(resource.RLIMIT_AS, (4 * 10**9, 4 * 10**9))
ExactBrain(Circuit(0.001, (Area("a", 10**6, 1000, 0.1),)))
try:
    ExactBrain(Circuit(0.001, (Area("a", 4 * 10**9, 1000, 0.1),)))
except InputError as e:
    print(e)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "counts of 4,000,000,000 neurons take 4.0 GB" in done.stdout, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("k", "p", "beta"), [(1000, 0.01, 0.1), (1000, 0.001, 0.25)])
def test_support_keeps_to_the_theorem(k: int, p: float, beta: float) -> None:
    # Dabagia, Papadimitriou and Vempala 2022, theorem on projection, r = 1.
    n = 10**6
    root = np.sqrt(2 * np.log(n / k))
    threshold = ((np.sqrt(2) - 1) * root + np.sqrt(6)) / (np.sqrt(k * p) + root)
    bound = k / (1 - np.exp(-((beta / threshold) ** 2)))
    trace = op.project(ExactBrain(one_area(n=n, k=k, p=p, beta=beta), 2), "s", "a", 40)
    assert trace.support[-1] <= bound
    # No first-time winners after O(log k) rounds.
    assert trace.support[int(5 * np.log(k))] == trace.support[-1]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_recall_and_overlap_keep_to_the_theorem(seed: int) -> None:
    # The same paper: a stimulus brings its assembly back but for exp(-k p r) of it, and the
    # assemblies of two stimuli that share nothing share no more than chance would have it.
    n, k, p = 10**6, 1000, 0.01
    circuit = one_area(n=n, k=k, p=p, beta=0.1, stimuli=2)
    brain = ExactBrain(circuit, seed)
    one = op.project(brain, "s", "a", 25).winners[-1]
    other = op.project(brain, "t", "a", 25).winners[-1]
    brain.fire({"a": ["s"]}, plastic=False)
    assert op.overlap(one, brain.winners("a")) >= 1 - np.exp(-k * p)
    # Poisson with mean k^2 / n = 1.
    assert np.intersect1d(one, other).size <= 8


def test_counts_that_would_outgrow_the_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    # A wrong type to begin with, since counts that really outgrow theirs are as good as never met.
    monkeypatch.setattr(exact, "count_type", lambda *_: np.uint8)
    brain = ExactBrain(one_area(n=400, k=330, p=0.9), 1)
    monkeypatch.setattr(exact, "free_bytes", lambda: 399)
    with pytest.raises(InputError, match="outgrow a byte, and two take"):
        brain.fire({"a": ["s"]})
