from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from justenough.assemblies.audit import Audit, audit
from justenough.assemblies.graph import ImpliedGraph
from justenough.errors import InputError

SOURCES, TARGETS = 600, 6000
Row = Callable[[int], NDArray[np.int64]]


def of(row: Row, p: float, seed: int = 0) -> Audit:
    return audit(row, SOURCES, TARGETS, p, np.random.default_rng(seed))


def hashed(p: float, h: Callable[[int, NDArray[np.uint64]], NDArray[np.uint64]]) -> Row:
    """Edges where 24 bits of a hash lie below p, as two published simulators had it."""
    targets = np.arange(TARGETS, dtype=np.uint64)
    return lambda j: np.flatnonzero((h(j, targets) & np.uint64(0xFFFFFF)) < int(p * 2**24))


def xor(j: int, targets: NDArray[np.uint64]) -> NDArray[np.uint64]:
    return np.uint64(j * 2654435761) ^ (targets * np.uint64(2246822519)) ^ np.uint64(42)


def fnv(j: int, targets: NDArray[np.uint64]) -> NDArray[np.uint64]:
    prime, low = 0x01000193, 0xFFFFFFFF
    return ((np.uint64((42 ^ j) * prime & low) ^ targets) * np.uint64(prime)) & np.uint64(low)


@pytest.mark.parametrize("p", [0.002, 0.01, 1 / 16, 0.4])
@pytest.mark.parametrize("seed", [1, 2])
def test_the_implied_graph_passes(p: float, seed: int) -> None:
    found = of(ImpliedGraph(TARGETS, p, seed).row, p, seed)
    assert found.passed, found


@pytest.mark.parametrize("p", [0.01, 0.05, 1 / 16])
@pytest.mark.parametrize("h", [xor, fnv])
def test_two_published_hashes_fail(
    p: float, h: Callable[[int, NDArray[np.uint64]], NDArray[np.uint64]]
) -> None:
    found = of(hashed(p, h), p)
    assert ("edges" in found.failed) == (h is fnv), "the first has the right density"
    assert any("common in-neighbours" in name for name in found.failed), found


def test_a_random_graph_fails_as_rarely_as_promised() -> None:
    """NumPy's generator, 60 graphs, alpha 0.05: 10 or more have chance 0.0003 at most."""
    failed = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        edges = rng.random((150, 800)) < 0.05
        rows = [np.flatnonzero(e) for e in edges]
        failed += not audit(rows.__getitem__, 150, 800, 0.05, rng, alpha=0.05).passed
    assert failed < 10


def spoiled(kind: str) -> Row:
    rng = np.random.default_rng(5)
    edges = rng.random((SOURCES, TARGETS)) < 0.05
    if kind == "equal":
        edges[:, 1] = edges[:, 0]
    if kind == "symmetric":
        square = edges[:, :SOURCES]
        edges[:, :SOURCES] = np.triu(square) | np.triu(square).T
    if kind == "dense":
        edges |= rng.random(edges.shape) < 0.002
    if kind == "uneven":
        edges &= rng.random(TARGETS) < np.where(np.arange(TARGETS) % 2, 1, 0.8)
    return lambda j: np.flatnonzero(edges[j])


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        ("equal", "pairs of equal columns"),
        ("symmetric", "edges both ways"),
        ("dense", "edges"),
        ("uneven", "in-degree chi-square"),
    ],
)
def test_each_fault_is_named(kind: str, named: str) -> None:
    assert named in of(spoiled(kind), 0.05).failed


@pytest.mark.parametrize(
    ("row", "sources", "p", "said"),
    [
        (lambda j: np.array([1, 1]), 100, 0.1, "names a target twice"),
        (lambda j: np.array([1]), 99, 0.1, "at least 100"),
        (lambda j: np.array([1]), 100, 1.0, "p=1.0"),
    ],
)
def test_bad_input_is_refused(row: Row, sources: int, p: float, said: str) -> None:
    with pytest.raises(InputError, match=said):
        audit(row, sources, 100, p, np.random.default_rng(0))
