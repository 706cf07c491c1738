"""The neurons study: what is counted against the ledger, and loops against plain NumPy."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from justenough.cli.claims import STUDIES, check_of
from justenough.compiled import has_numba
from justenough.errors import InputError
from justenough.ledger import Claim, read_claims
from justenough.studies.neurons import caches, claims, dense, timing
from justenough.studies.neurons.accuracy import overlaps
from justenough.studies.neurons.edges import matrix_loops
from justenough.studies.neurons.loops import DECAY, logarithms, narrow, two_passes, updates, wide
from justenough.studies.neurons.scaling import ways
from justenough.studies.neurons.selection import by_sort, hierarchical
from justenough.studies.neurons.timing import Ratio, judged, near_an_end, ratio

ROWS = read_claims(STUDIES / "neurons" / "claims.toml")
# Bytes, counts and misses: nothing in them is timed.
COUNTED = {
    "activations", "bit_cache", "bit_reduction", "bit_total", "block_factors", "combined_factors",
    "connections_local", "curand_state", "curand_total", "local_total", "mixed_memory",
    "packed_transactions", "sparse_factors", "stochastic_factors", "total",
}  # fmt: skip
SLOW = {
    "block_memory", "combined_cache", "combined_memory", "fp16_cache", "fp16_total", "indices",
    "int8_cache", "lower_precision", "mixed_cache", "scalability", "sparse_memory",
    "streaming_memory", "topk_factors", "topk_memory", "weights",
}  # fmt: skip
PARAMETERS = [
    pytest.param(c, id=c.id, marks=[pytest.mark.slow] if c.check in SLOW else [])
    for c in ROWS
    if c.check in COUNTED | SLOW
]
needs_numba = pytest.mark.skipif(not has_numba(), reason="Numba is not installed")


@needs_numba
@pytest.mark.parametrize("claim", PARAMETERS)
def test_a_count_is_what_the_ledger_says(claim: Claim) -> None:
    got = check_of(claim)()
    assert got.verdict == claim.verdict
    said, _, unit = claim.measured.partition(" ")
    assert unit == got.unit
    assert got.value == pytest.approx(float(said.replace(",", "")), rel=0.02, abs=0.01)
    if claim.low is not None:
        assert (got.low, got.high) == pytest.approx((claim.low, claim.high), rel=0.02)


def test_every_check_has_a_row_and_states_its_rule() -> None:
    assert sorted(c.check for c in ROWS if c.check) == sorted(claims.__all__)
    for name in claims.__all__:
        assert "Rule: " in (getattr(claims, name).__doc__ or ""), name
    assert [c.id for c in ROWS if not c.tested] == ["001-energy-10x"]


def found(value: float, low: float, high: float) -> Ratio:
    return Ratio(value, low, high, 1.0, 1.0, (1.0, 1.0))


@pytest.mark.parametrize(
    ("value", "low", "high", "verdict"),
    [
        (1.4, 1.5, 2, "refuted"),
        (1.6, 1.5, 2, "reproduced"),
        (2.1, 1.5, 2, "refuted"),
        (2.1, 2, 2, "reproduced"),
        (1.8, 2, 2, "refuted"),
    ],
)
def test_a_number_is_met_within_a_tenth_and_a_range_as_it_stands(
    value: float, low: float, high: float, verdict: str
) -> None:
    assert judged(found(value, value, value), low, high, "x").verdict == verdict


def test_a_condition_counts_only_where_the_claim_fails() -> None:
    assert judged(found(1.7, 1, 2), 1.5, 2, "x", "it rains").verdict == "reproduced"
    assert judged(found(9, 9, 9), 1.5, 2, "x", "it rains").verdict == "holds only when it rains"


def test_a_ratio_near_an_end_is_said_to_be() -> None:
    assert near_an_end(found(1.6, 1.55, 1.65), 1.5, 2) == "; near the claim's end at 1.5"
    assert near_an_end(found(1.75, 1.7, 1.8), 1.5, 2) == ""
    assert (
        near_an_end(found(2.1, 2, 2.3), 2, 2) == "; its spread crosses the tenth that is allowed"
    )
    assert near_an_end(found(2, 1.9, 2.1), 2, 2) == ""
    assert judged(found(1.95, 1.9, 2), 1.5, 2, "x").said == "x; near the claim's end at 2."


def test_a_ratio_is_without_over_with() -> None:
    calls: list[str] = []
    got = ratio(lambda: calls.append("a" * 9), lambda: calls.append("b"), passes=4)
    assert [c[0] for c in calls] == list("ababbaabba")
    assert got.low <= got.value <= got.high


@pytest.fixture
def arrays() -> Iterator[tuple[Any, Any]]:
    rng = np.random.default_rng(0)
    yield rng.standard_normal(1000, np.float32), rng.standard_normal(1000, np.float32)


@needs_numba
def test_half_precision_is_converted_as_numpy_does(arrays: tuple[Any, Any]) -> None:
    a, x = arrays
    h, y = a.astype(np.float16), x.astype(np.float16)
    exact = DECAY * h.astype(np.float32) + y.astype(np.float32)
    got = h.view(np.uint16).copy()
    updates()["fp16"](got, y.view(np.uint16))
    assert np.array_equal(got.view(np.float16), exact.astype(np.float16))
    assert [float(wide(b)) for b in h.view(np.uint16)[:9]] == h[:9].tolist()
    assert [int(narrow(v)) for v in a[:9]] == h.view(np.uint16)[:9].tolist()


@needs_numba
def test_stochastic_rounding_picks_a_neighbour_and_has_no_bias() -> None:
    n = 200_000
    a = np.full(n, 1.0, np.float16).view(np.uint16)
    x = np.full(n, 0.0009765625 / 4, np.float16).view(np.uint16)
    exact = 0.9375 + float(x.view(np.float16)[0])
    updates()["random"](a, x, np.uint32(3))
    got = a.view(np.float16).astype(float)
    below, above = np.unique(got)
    assert below < exact < above
    assert above - below == 2.0**-11
    # The mean of n picks is within 5 standard errors, at most half a step over sqrt(n) each.
    assert abs(got.mean() - exact) < 5 * 2.0**-12 / np.sqrt(n)


@needs_numba
def test_an_adaptive_float_holds_what_its_tag_says(arrays: tuple[Any, Any]) -> None:
    a, x = arrays
    kind = (np.arange(1000) % 3).astype(np.uint64)
    forms = [a.astype(np.float16).view(np.uint16), a.view(np.uint32), a.astype(float).view("u8")]
    value = np.choose(kind.astype(int), [f.astype(np.uint64) for f in forms])
    updates()["adaptive"](kind, value, x)
    exact = DECAY * a.astype(float) + x
    got = np.where(
        kind == 0,
        value.astype(np.uint16).view(np.float16).astype(float),
        np.where(kind == 1, value.astype(np.uint32).view(np.float32), value.view(float)),
    )
    assert np.allclose(got, exact, rtol=2e-3, atol=2e-3)
    assert np.allclose(got[kind > 0], exact[kind > 0], rtol=1e-6, atol=1e-6)


@needs_numba
def test_logarithms_multiply_and_sum(arrays: tuple[Any, Any]) -> None:
    a, b = (np.exp2(v / 4) for v in arrays)
    p, q = (np.rint(np.log2(v) * 65536).astype(np.int32) for v in (a, b))
    table = np.exp2(np.arange(4096) / 4096).astype(np.float32)
    loops = logarithms()
    assert loops["dot of logs"](p, q, table) == pytest.approx(loops["dot"](a, b), rel=1e-3)
    out, zero = np.zeros(1000, np.int32), np.zeros(1000, np.int32)
    loops["sum"](p, q, zero, zero, out)
    assert np.allclose(np.exp2(out / 65536), a * b, rtol=1e-4)


@needs_numba
def test_both_passes_in_one_give_the_same(arrays: tuple[Any, Any]) -> None:
    a, x = arrays
    loops, t, out, other = two_passes(), np.empty_like(a), np.empty_like(a), np.empty_like(a)
    loops["first"](a, x, t)
    loops["second"](t, out)
    loops["both"](a, x, other)
    assert np.array_equal(out, other)
    h = np.empty(1000, np.uint16)
    loops["first half"](a, x, h)
    loops["second half"](h, other)
    assert np.allclose(out, other, rtol=1e-3, atol=1e-3)


@needs_numba
def test_a_dense_row_is_summed_whole() -> None:
    matrix = np.random.default_rng(0).random((4, 64), np.float32)
    v, out = np.ones(64, np.float32), np.zeros(4, np.float32)
    matrix_loops()["dense"](matrix, v, out)
    assert np.allclose(out, matrix.sum(axis=1), rtol=1e-5)


@needs_numba
def test_the_simulated_cache_misses_as_theory_says() -> None:
    """At random, an array s times the cache misses 1 - 1 / s of its reads."""
    for size in (2, 8):
        expected = 1 - 1 / size
        assert caches.misses(32, size * caches.CACHE // 4, False) == pytest.approx(
            expected, abs=0.02
        )
    assert caches.misses(32, caches.CACHE // 8, False) < 0.01
    assert caches.misses(32, 10**9, True) == 1 / 16


@needs_numba
def test_all_four_ways_of_a_step_find_the_same() -> None:
    for steps in (ways(70_000), ways(65_536)):
        assert len(steps.neither()) == len(steps.both()) == 1000


def test_hierarchical_selection_finds_what_a_sort_finds() -> None:
    values = np.random.default_rng(0).permutation(20_000).astype(np.float32)
    assert hierarchical(values).tolist() == by_sort(values).tolist()


def test_growth_below_half_a_step_is_lost() -> None:
    slow = overlaps(0.002, 1)
    assert slow["FP16"] > slow["BF16"]
    assert overlaps(0.1, 1)["BF16"] > 0.98


def test_without_numba_the_loops_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "has_numba", lambda: False)
    with pytest.raises(InputError, match="install it"):
        timing.need_numba()
    assert dense.SMALL < dense.LARGE
