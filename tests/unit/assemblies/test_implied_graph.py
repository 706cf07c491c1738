from collections.abc import Callable
from decimal import Decimal, localcontext
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom, chisquare

from justenough.assemblies import graph as module
from justenough.assemblies.graph import ImpliedGraph, accumulate
from justenough.assemblies.philox import philox4x32
from justenough.compiled import has_numba
from justenough.errors import InputError

# n, p; blocks that are cut, single targets, every kind of block size.
SIZES = [(70_001, 1e-3), (5_000, 0.01), (1_001, 0.05), (300, 0.5), (130, 0.97), (1, 0.3)]
SOURCES = [0, 1, 17, 2**31, 2**32 + 5, 2**48 - 1]


@pytest.fixture(params=["compiled", "plain"])
def route(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "plain":
        monkeypatch.setattr(module, "compiled", lambda: None)
    elif not has_numba():
        pytest.skip("Numba is not installed")


def oracle(graph: ImpliedGraph, source: int) -> set[int]:
    """The row as the documentation says it, one point at a time, in Python's integers."""
    thresholds = [int(t) for t in graph.law[0]]
    bits, row = graph.block_bits, set()
    for block in range(-(-graph.n // 2**bits)):
        stream: list[int] = []
        for t in range(len(thresholds) // 8 + 2):
            tagged = source >> 32 | graph.tag << 16
            key = (graph.seed % 2**32, graph.seed // 2**32)
            w = philox4x32((t, block, source % 2**32, tagged), key)
            stream += [w[0] + w[1] * 2**32, w[2] + w[3] * 2**32]
        for i in range(sum(t <= stream[0] for t in thresholds)):
            lane = stream[1 + i // 4] // 2 ** (16 * (i % 4)) % 2**16
            row.add(block * 2**bits + lane // 2 ** (16 - bits))
    return {i for i in row if i < graph.n}


@pytest.mark.parametrize(("n", "p"), SIZES)
def test_rows_are_the_oracles(n: int, p: float) -> None:
    graph = ImpliedGraph(n, p, seed=2**64 - 12345, tag=9)
    for source in SOURCES:
        row = graph.row(source)
        assert row.tolist() == sorted(oracle(graph, source))
        blocks = [graph.block(source, b) for b in range(graph.blocks)]
        assert np.concatenate(blocks).tolist() == row.tolist()
        for target in {0, n // 2, n - 1, *row[:3].tolist()}:
            assert graph.has_edge(source, target) == (target in row)


@pytest.mark.usefixtures("route")
@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize(("n", "p"), SIZES)
def test_counts_are_sums_of_the_oracles_rows(n: int, p: float, threads: int) -> None:
    graph = ImpliedGraph(n, p, seed=3)
    dense = np.zeros((len(SOURCES), n), np.int64)
    for a, source in enumerate(SOURCES):
        dense[a, sorted(oracle(graph, source))] = 1
    for dtype in (np.uint8, np.uint16):
        counts = np.zeros(n, dtype)
        accumulate(counts, SOURCES[:4], [], graph, threads)
        assert (counts == dense[:4].sum(0)).all()
        accumulate(counts, SOURCES[4:], SOURCES[1:3], graph, threads)
        assert (counts == dense[[0, 3, 4, 5]].sum(0)).all()
        accumulate(counts, [], [SOURCES[q] for q in (0, 3, 4, 5)], graph, threads)
        assert not counts.any()


@pytest.mark.usefixtures("route")
@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize(("n", "p"), SIZES)
def test_edges_among_are_the_oracles(n: int, p: float, threads: int) -> None:
    graph = ImpliedGraph(n, p, seed=4)
    targets = np.random.default_rng(1).integers(0, n, 150)
    rows = [oracle(graph, s) for s in SOURCES]
    targets[: min(20, len(rows[0]))] = sorted(rows[0])[:20]
    bits = graph.edges_among(SOURCES, targets, threads)
    assert bits.shape == (len(SOURCES), 3)
    for a, row in enumerate(rows):
        got = [bool(int(bits[a, k // 64]) >> (k % 64) & 1) for k in range(150)]
        assert got == [int(i) in row for i in targets]
        assert int(bits[a, 2]) >> 22 == 0


@pytest.mark.usefixtures("route")
def test_many_rows_over_one_block() -> None:
    """More rows than the marks of one byte, and one source twice."""
    graph = ImpliedGraph(2_000, 0.01, seed=8)
    sources = [*range(700), 5, 5]
    want = np.zeros(2_000, np.int64)
    for s in sources:
        want[graph.row(s)] += 1
    counts = np.zeros(2_000, np.uint16)
    accumulate(counts, sources, [], graph, 2)
    assert (counts == want).all()


@pytest.mark.usefixtures("route")
@pytest.mark.parametrize(("added", "removed"), [(range(300), []), ([1], [2])])
def test_a_count_that_would_wrap_is_refused_and_nothing_changes(
    added: range | list[int], removed: list[int]
) -> None:
    graph = ImpliedGraph(500, 0.9, seed=1)
    counts = np.zeros(500, np.uint8)
    if not removed:
        accumulate(counts, [7, 8], [], graph)
    before = counts.copy()
    with pytest.raises(InputError, match="leave the range of uint8"):
        accumulate(counts, added, removed, graph, 2)
    assert (counts == before).all()


def test_the_highest_count_is_allowed() -> None:
    graph = ImpliedGraph(64, 0.5, seed=1)
    most = np.full(64, 255, np.uint8)
    most[graph.row(3)] -= 1
    accumulate(most, [3], [], graph)
    assert (most == 255).all()
    accumulate(most, [3], [3], graph)
    assert (most == 255).all()


@pytest.mark.skipif(not has_numba(), reason="the plain route takes long")
@pytest.mark.parametrize(("n", "p", "rows"), [(3_000_000, 1e-3, 900), (500_000, 0.05, 150)])
def test_in_degrees_are_binomial(n: int, p: float, rows: int) -> None:
    counts = np.zeros(n, np.uint8)
    accumulate(counts, np.arange(rows) + 2**33, [], ImpliedGraph(n, p, seed=21))
    seen = np.bincount(counts, minlength=rows + 1)
    want = binom.pmf(np.arange(rows + 1), rows, p) * n
    top = int(np.flatnonzero(want >= 10).max())
    low = int(np.flatnonzero(want >= 10).min())

    def joined(x: NDArray[np.float64]) -> list[float]:
        return [x[: low + 1].sum(), *x[low + 1 : top], x[top:].sum()]

    assert chisquare(joined(seen.astype(float)), joined(want)).pvalue > 1e-3


def test_ten_billion_targets() -> None:
    graph = ImpliedGraph(10**10, 1e-3, seed=1)
    last = graph.block(10**10 - 1, graph.blocks - 1)
    assert last.max() < 10**10
    assert last.min() >= 10**10 - 2**16
    assert all(graph.has_edge(10**10 - 1, int(i)) for i in last)
    bits = graph.edges_among([10**10 - 1], last)
    assert int(np.bitwise_count(bits).sum()) == len(last)


@pytest.mark.parametrize("p", [1e-12, 1e-5, 1e-3, 0.01, 0.05, 0.5, 0.99])
def test_the_number_of_points_is_poisson_to_56_bits(p: float) -> None:
    """Total variation against the law in 200 digits, what is cut off at the top included."""
    bits, thresholds, guide = module._tables(p)
    edges = [0, *(int(t) for t in thresholds), 2**64]
    with localcontext() as context:
        context.prec = 200
        empty = 1 - Decimal(p)
        mean = -empty.ln() * 2**bits
        term, left, apart = empty ** (2**bits), Decimal(1), Decimal(0)
        for c, (a, b) in enumerate(pairwise(edges)):
            apart += abs(Decimal(b - a) / 2**64 - term)
            left -= term
            term *= mean / (c + 1)
        assert (apart + left) / 2 < Decimal(2) ** -56
    assert np.isclose(float(mean), -np.log1p(-p) * 2**bits)
    assert float(mean) < 97
    assert len(thresholds) < 256
    for start in range(256):
        assert guide[start] == sum(int(t) <= start << 56 for t in thresholds)


def test_other_seeds_and_tags_are_other_graphs() -> None:
    def row(seed: int, tag: int, source: int) -> tuple[int, ...]:
        return tuple(ImpliedGraph(5_000, 0.01, seed, tag).row(source).tolist())

    asked = [(1, 0, 0), (2, 0, 0), (1, 1, 0), (1, 0, 1), (1 + 2**32, 0, 0), (1, 0, 2**32)]
    assert len({row(*a) for a in asked}) == len(asked)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ImpliedGraph(10, 0.0, 1), "p=0.0"),
        (lambda: ImpliedGraph(10, 1.0, 1), "p=1.0"),
        (lambda: ImpliedGraph(10, float("nan"), 1), "p=nan"),
        (lambda: ImpliedGraph(0, 0.1, 1), "n=0"),
        (lambda: ImpliedGraph(10, 0.1, -1), "seed=-1"),
        (lambda: ImpliedGraph(10, 0.1, 1, 2**16), "tag=65536"),
        (lambda: ImpliedGraph(10, 0.1, 1).row(2**48), "sources reach"),
        (lambda: ImpliedGraph(10, 0.1, 1).has_edge(1, 10), "targets reach"),
        (lambda: ImpliedGraph(10, 0.1, 1).block(1, 1), "blocks reach"),
        (lambda: ImpliedGraph(10, 0.1, 1).edges_among([0.5], [1]), "whole numbers"),
        (lambda: accumulate(np.zeros(9, np.uint8), [], [], ImpliedGraph(10, 0.1, 1)), "shape"),
        (lambda: accumulate(np.zeros(10, int), [], [], ImpliedGraph(10, 0.1, 1)), "int64"),
        (
            lambda: accumulate(np.zeros(10, np.uint8), [-1], [], ImpliedGraph(10, 0.1, 1)),
            "sources reach",
        ),
    ],
)
def test_bad_input_is_refused(make: Callable[[], object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        make()


def test_nothing_to_do_is_done() -> None:
    graph = ImpliedGraph(10, 0.1, 1)
    counts: NDArray[np.uint8] = np.zeros(10, np.uint8)
    accumulate(counts, [], [], graph)
    assert not counts.any()
    assert graph.edges_among([], []).shape == (0, 0)
