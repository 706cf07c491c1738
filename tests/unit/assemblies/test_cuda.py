"""Counts on a graphics card are those of the host, bit for bit; one is needed for most of it."""

from typing import Any

import numpy as np
import pytest

from justenough.assemblies.circuit import Area, Circuit, Fibre, Stimulus
from justenough.assemblies.counts import HostCounts, Step
from justenough.assemblies.cuda import LARGEST_TABLE, TILE, CudaCounts, card, lanes
from justenough.assemblies.exact import ExactBrain
from justenough.assemblies.graph import ImpliedGraph
from justenough.errors import InputError

on_card = pytest.mark.skipif(card() is None, reason="no graphics card that CuPy can use is here")
NONE = np.empty(0, np.int64)
DENSITIES = [1e-5, 0.0005, 0.001, 0.01, 0.05, 0.3, 0.9]
# Without Numba the host is slow where edges are many.
SIZES = [(n, p) for n in (1, 255, 5000) for p in DENSITIES]
SIZES += [(n, p) for n in (TILE - 1, TILE, TILE + 1, 300_007) for p in DENSITIES if p < 0.1]
SIZES += [(TILE + 1, 0.3)]
EVERY_P = [*np.logspace(-9, -0.001, 400), *(1 - np.logspace(-15, -3, 40))]


def test_a_row_in_a_block_fits_in_a_warp() -> None:
    sizes = [len(ImpliedGraph(1, float(p), seed=0).law[0]) for p in EVERY_P]
    assert max(sizes) <= LARGEST_TABLE
    # Lane 0 holds the head word and 4 points, each other lane 8.
    assert LARGEST_TABLE <= 8 * 32 - 4


def test_lanes_have_room_for_nearly_every_row() -> None:
    for p in EVERY_P:
        graph = ImpliedGraph(1, float(p), seed=0)
        wide, draws = lanes(graph)
        assert 32 % wide == 0
        room = min(8 * wide * draws - 4, len(graph.law[0]) - 1)
        beyond = 2.0**64 - float(graph.law[0][room])
        assert beyond < 0.02 * 2.0**64


@pytest.mark.parametrize(("n", "kind"), [(0, np.uint8), (10, np.int16), (10, np.float32)])
def test_what_cannot_be_counted_is_refused(n: int, kind: Any) -> None:
    with pytest.raises(InputError, match="give at least 1 neuron and uint8 or uint16"):
        CudaCounts(n, kind)


@pytest.mark.skipif(card() is not None, reason="a graphics card is here")
def test_without_a_card_it_says_what_would_do() -> None:
    with pytest.raises(InputError, match="install the extra `cuda`, or count in HostCounts"):
        CudaCounts(10, np.uint8)


@on_card
def test_the_card_is_named() -> None:
    said = card()
    assert said is not None
    assert said.endswith("GiB")


def pair(n: int, kind: Any, sparse: float) -> tuple[HostCounts, CudaCounts]:
    there = CudaCounts(n, kind)
    there.sparse = sparse
    return HostCounts(n, kind), there


def same(here: HostCounts, there: CudaCounts) -> bool:
    values = there.values.get()
    return bool((values[: there.n] == here.values).all() and not values[there.n :].any())


@on_card
@pytest.mark.parametrize("sparse", [0.0, np.inf], ids=["tiles", "touched"])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize(("n", "p"), SIZES)
def test_rows_come_and_go_as_on_the_host(n: int, p: float, kind: Any, sparse: float) -> None:
    here, there = pair(n, kind, sparse)
    for seed in (1, 2**63 + 5):
        graph, other = ImpliedGraph(n, p, seed, tag=3), ImpliedGraph(n, p / 2, seed)
        far = np.arange(2**47, 2**47 + 7)
        steps = [Step(graph, np.arange(20), NONE), Step(other, far, NONE)]
        again = [Step(graph, np.array([50, 50, 2**40]), np.arange(3)), Step(other, NONE, far[2:])]
        for step in (steps, again):
            here.change(step)
            there.change(step)
            assert same(here, there)
    assert (here.histogram() == there.histogram()).all()
    ids = np.random.default_rng(0).integers(0, n, 100)
    assert (here.take(ids) == there.take(ids)).all()
    for bound in (-1, 0, 1, 2, 5, 10, 255, 256, 70_000):
        for most in (0, 1, 1000, n):
            a, b = here.at_least(bound, most), there.at_least(bound, most)
            assert (a is None) == (b is None)
            assert a is None or b is None or (a.tolist() == b.tolist() and a.dtype == b.dtype)
    there.clear()
    assert not there.values.any()


@on_card
@pytest.mark.parametrize("sparse", [0.0, np.inf], ids=["tiles", "touched"])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_count_that_leaves_its_type_is_refused_and_undone(kind: Any, sparse: float) -> None:
    n = 3 * TILE + 77
    here, there = pair(n, kind, sparse)
    graph, other = ImpliedGraph(n, 0.01, seed=4), ImpliedGraph(n, 0.3, seed=5)
    here.values[:] = np.random.default_rng(0).choice([4, here.largest - 4], n)
    there.values[:n] = there._cupy.asarray(here.values)
    few = Step(other, np.arange(4), NONE)
    for bad in (
        [Step(graph, np.repeat(7, 5), NONE)],
        [Step(graph, NONE, np.repeat(7, 5))],
        [few, Step(graph, np.repeat(7, 300), NONE)],
        [Step(graph, np.repeat(8, 9), np.array([3])), few],
        [few, Step(other, NONE, np.repeat(6, 9)), Step(other, np.arange(6, 8), NONE)],
    ):
        for counts in (here, there):
            with pytest.raises(InputError, match="would leave the range of uint"):
                counts.change(bad)
        assert same(here, there)
    good = [few, Step(other, NONE, np.arange(4))]
    here.change(good)
    there.change(good)
    assert same(here, there)


@on_card
def test_exactly_the_largest_count_is_kept() -> None:
    here, there = pair(1000, np.uint8, 0.0)
    graph = ImpliedGraph(1000, 0.5, seed=1)
    full = [Step(graph, np.repeat(3, 255), NONE)]
    here.change(full)
    there.change(full)
    assert int(here.values.max()) == 255
    assert same(here, there)
    there.change([Step(graph, NONE, np.repeat(3, 255))])
    assert not there.values.any()


@on_card
@pytest.mark.parametrize("p", DENSITIES)
def test_edges_among_are_those_of_the_graph(p: float) -> None:
    n = 5_000_000
    graph = ImpliedGraph(n, p, seed=9, tag=2)
    rng = np.random.default_rng(1)
    held = graph.row(2**44 + 1)
    some = np.concatenate([rng.permutation(held)[:150], rng.integers(0, n, 45), [n - 1, 0]])
    sources = np.array([2**44 + 1, 0, 5, 5])
    counts = CudaCounts(10, np.uint8)
    for targets in (some, NONE):
        got = counts.among(graph, sources, targets)
        want = graph.edges_among(sources, targets)
        assert got.shape == want.shape
        assert (got == want).all()
    assert counts.among(graph, NONE, some).shape == (0, -(-len(some) // 64))


@on_card
def test_the_exact_tier_has_the_same_winners() -> None:
    areas = (Area("a", 100_000, 100, 0.1), Area("b", 70_000, 80, 0.1))
    fibres = (Fibre("a", "a"), Fibre("a", "b"), Fibre("b", "a"))
    circuit = Circuit(0.01, areas, (Stimulus("s", 100),), fibres)
    here, there = ExactBrain(circuit, seed=5), ExactBrain(circuit, seed=5, make=CudaCounts)
    fired = [{"a": ["s"]}, {"a": ["s", "a"]}, {"a": ["s", "a"], "b": ["a"]}, {"a": ["a", "b"]}]
    for sources in fired:
        for brain in (here, there):
            brain.fire(sources)
        for area in "ab":
            assert here.winners(area).tolist() == there.winners(area).tolist()


@on_card
def test_counts_that_outgrow_a_byte_are_widened_on_the_card() -> None:
    circuit = Circuit(0.5, (Area("a", 1000, 800, 0.1),), (Stimulus("s", 800),), ())
    made: list[Any] = []

    def make(n: int, kind: Any) -> CudaCounts:
        made.append(kind)
        return CudaCounts(n, np.uint8 if len(made) == 1 else kind)

    here, there = ExactBrain(circuit, seed=5), ExactBrain(circuit, seed=5, make=make)
    for brain in (here, there):
        brain.fire({"a": ["s"]})
    assert here.winners("a").tolist() == there.winners("a").tolist()
    assert made == [np.uint16, np.uint8, np.uint16]


@on_card
def test_what_does_not_fit_is_refused() -> None:
    counts = CudaCounts(100, np.uint8)
    with pytest.raises(InputError, match="a graph has 99 targets; give one of 100"):
        counts.change([Step(ImpliedGraph(99, 0.1, seed=1), NONE, NONE)])
    with pytest.raises(InputError, match="below 100 only"):
        counts.take(np.array([100]))
    with pytest.raises(InputError, match="count fewer neurons, or in HostCounts"):
        CudaCounts(10**13, np.uint16)
