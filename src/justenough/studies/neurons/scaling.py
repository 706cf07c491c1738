"""Claims on whole steps: formats and algorithms on and off, at growing n.

A step sums the inputs from the k neurons that fired and finds the k largest sums. Of the four
ways, formats off is FP32 sums, 32-bit indices and FP32 weights; on is one byte a sum, 16-bit
indices in blocks and no weights, for neurons that never fired have only weights of 1. Algorithms
off sums all rows anew and sorts all sums; on, the rows of neurons that started or stopped firing
change the sums that are there, and one pass with the threshold of the step before finds the k
largest. A tenth of those that fire changes in a step (k = 1000, p = 0.001, stored rows). All four
give the same sums, and each step ends where the next one, which goes back, begins.

Loops run on one core and top-k on all; ratios are of processor seconds, speeds of the wall clock.
"""

import time
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from justenough.assemblies.circuit import Area, Circuit, Fibre, Stimulus
from justenough.assemblies.exact import ExactBrain
from justenough.assemblies.graph import ImpliedGraph
from justenough.assemblies.topk import topk
from justenough.ledger import Measured
from justenough.studies.neurons.connections import bit_ratios
from justenough.studies.neurons.dense import LARGE, bits_of, log_ratios, normal, over
from justenough.studies.neurons.edges import edge_loops
from justenough.studies.neurons.loops import reads, updates
from justenough.studies.neurons.timing import Ratio, judged, near_an_end, ratio, within

K, P, CHANGED = 1000, 1e-3, 100
BITS = 16
ONE, LESS = np.uint8(1), np.uint8(255)  # counts wrap, so that 255 takes one away
SIZES = (10**6, 10**7, 10**8)
# Bytes a second of one card's memory, by the data sheet of a fast one (NVIDIA B200); not measured.
CARD = 8e12
Array = NDArray[Any]


class Rows(NamedTuple):
    """Rows of some sources: 32-bit indices with FP32 weights, and 16-bit indices in blocks."""

    target: Array
    weight: NDArray[np.float32]
    local: Array
    number: Array


class Ways(NamedTuple):
    """Calls of one step each; the two with changed rows go to and fro."""

    neither: Callable[[], Any]
    formats: Callable[[], Any]
    algorithms: Callable[[], Any]
    both: Callable[[], Any]


def _rows(graph: ImpliedGraph, sources: range) -> Rows:
    found = [graph.row(s).astype(np.int32) for s in sources]
    blocks = (graph.n - 1 >> BITS) + 1
    number = np.stack([np.bincount(r >> BITS, minlength=blocks) for r in found], axis=1)
    # Where the part of each row in each block begins: blocks one after another, rows within.
    start = np.cumsum(number).reshape(number.shape) - number
    local = np.empty(number.sum(), np.uint16)
    for s, row in enumerate(found):
        before = np.cumsum(number[:, s]) - number[:, s]
        places = np.repeat(start[:, s] - before, number[:, s]) + np.arange(len(row))
        local[places] = row & ((1 << BITS) - 1)
    index = np.concatenate(found)
    return Rows(index, np.ones(len(index), np.float32), local, number.astype(np.uint16))


def ways(n: int) -> Ways:
    """The four ways at n neurons; all are run once, and their sums compared.

    >>> counts = ways(100_000)
    >>> len(counts.both())
    1000
    """
    graph, loops = ImpliedGraph(n, P, seed=1), edge_loops()
    fired = _rows(graph, range(K))
    gone, come = _rows(graph, range(CHANGED)), _rows(graph, range(K, K + CHANGED))
    sums, kept = np.zeros(n, np.float32), np.zeros(n, np.float32)
    counts, held = np.zeros(n, np.uint8), np.zeros(n, np.uint8)
    loops["add"](fired.target, fired.weight, kept)
    loops["step in blocks"](BITS, fired.local, fired.number, ONE, held)
    guess = topk(held, K).threshold
    state = {"algorithms": True, "both": True}

    def neither() -> Array:
        sums[:] = 0
        loops["add"](fired.target, fired.weight, sums)
        return np.argsort(sums)[-K:].copy()

    def formats() -> Array:
        counts[:] = 0
        loops["step in blocks"](BITS, fired.local, fired.number, ONE, counts)
        return np.argsort(counts)[-K:].copy()

    def turned(way: str) -> tuple[Rows, Rows]:
        state[way] = not state[way]
        return (come, gone) if state[way] else (gone, come)

    def algorithms() -> Array:
        out, new = turned("algorithms")
        loops["add"](out.target, -out.weight, kept)
        loops["add"](new.target, new.weight, kept)
        return topk(kept, K, guess).indices

    def both() -> Array:
        out, new = turned("both")
        loops["step in blocks"](BITS, out.local, out.number, LESS, held)
        loops["step in blocks"](BITS, new.local, new.number, ONE, held)
        return topk(held, K, guess).indices

    algorithms()
    both()  # and back
    found: list[Array] = [neither(), formats(), algorithms(), both()]
    arrays: list[Array] = [sums, counts, kept, held]
    for f, values in zip(found, arrays, strict=True):
        assert np.array_equal(values, sums)
        assert values[f].min() == guess
    return Ways(neither, formats, algorithms, both)


@cache
def ratios(n: int) -> dict[str, Ratio]:
    """Each way over another at n, by what is switched on."""
    w, passes = ways(n), 5 if n < 10**8 else 3
    found = {"both": ratio(w.neither, w.both, passes, warm=False)}
    if n < 10**8:
        found["formats"] = ratio(w.neither, w.formats, passes, warm=False)
        found["algorithms"] = ratio(w.neither, w.algorithms, passes, warm=False)
        found["algorithms after formats"] = ratio(w.formats, w.both, passes, warm=False)
    return found


@cache
def exact_tier(n: int) -> tuple[float, float]:
    """Steps a second of the exact tier as an assembly forms, 10 rounds, and its bytes a neuron."""
    area, stimulus = Area("a", n, K, 0.1), Stimulus("s", K)
    brain = ExactBrain(Circuit(P, (area,), (stimulus,), (Fibre("a", "a"),)), seed=1)
    brain.fire({"a": ["s"]})
    start = time.perf_counter()
    for _ in range(10):
        brain.fire({"a": ["s", "a"]})
    return 10 / (time.perf_counter() - start), sum(brain.nbytes.values()) / n


def _speeds(n: int) -> str:
    r = ratios(n)["both"]
    return f"n = {n:.0e}: {1 / r.wall[0]:.3g} to {1 / r.wall[1]:.3g} steps a second, {r}"


def _row(n: int, before: float, after: float) -> Measured:
    """One row of the document's table: both speeds and their ratio.

    Rule: ratio and both speeds within a tenth, reproduced; else refuted.
    """
    at = min(n, SIZES[-1])
    r = ratios(at)["both"]
    slower = n / at  # seconds grow as n does
    speeds = [1 / (slower * t) for t in r.wall]
    kept = (
        within(r.value, after / before, after / before)
        and within(speeds[0], before, before)
        and within(speeds[1], after, after)
    )
    scaled = f", from {at:.0e} in proportion" if slower > 1 else ""
    tier = exact_tier(at)[0] / slower
    return Measured(
        r.value, "x", r.low, r.high, "reproduced" if kept else "refuted",
        f"{speeds[0]:.3g} to {speeds[1]:.3g} steps a second at {n:.0e} neurons{scaled}, {r}"
        f"{near_an_end(r, after / before, after / before)}; the exact tier, which learns and "
        f"stores no rows, {tier:.3g} steps a second.",
    )  # fmt: skip


def speed_1m() -> Measured:
    """Steps a second at 1e6, neither over both. Rule: 9, 10,000 and 90,000 within a tenth."""
    return _row(10**6, 1e4, 9e4)


def speed_10m() -> Measured:
    """Steps a second at 1e7, neither over both. Rule: 9, 1,000 and 9,000 within a tenth."""
    return _row(10**7, 1e3, 9e3)


def speed_100m() -> Measured:
    """Steps a second at 1e8, neither over both. Rule: 9, 100 and 900 within a tenth."""
    return _row(10**8, 100, 900)


def speed_1b() -> Measured:
    """Steps a second at 1e9, in proportion from 1e8. Rule: 9, 10 and 90 within a tenth."""
    return _row(10**9, 10, 90)


def speed_10b() -> Measured:
    """Steps a second at 1e10, in proportion from 1e8. Rule: 9, 1 and 9 within a tenth."""
    return _row(10**10, 1, 9)


def _billion(found: Ratio, claimed: float, steps: float, bytes_a_neuron: float) -> Measured:
    """A gain and the speed at a billion neurons that it is to give.

    Reproduced if the gain is within a tenth and a card's memory could move the bytes that such a
    step reads; refuted if not.
    """
    most = CARD / (bytes_a_neuron * 1e9)
    kept = within(found.value, claimed, claimed) and steps <= most
    return Measured(
        found.value, "x", found.low, found.high, "reproduced" if kept else "refuted",
        f"a gain of {found} where {claimed:g} is claimed{near_an_end(found, claimed, claimed)}; "
        f"reading {bytes_a_neuron:g} bytes a neuron once a step allows at most {most:,.0f} steps "
        f"a second of the claimed {steps:,.0f} at {CARD / 1e12:g} TB/s.",
    )  # fmt: skip


def current_1b() -> Measured:
    """Steps a second of neither at 1e9, in proportion from 1e8, and the most that memory allows.

    Rule: 1,000 within a tenth, and allowed by reading 4 bytes a neuron once, reproduced; else
    refuted.
    """
    r = ratios(SIZES[-1])["both"]
    speed, most = 1 / (10 * r.wall[0]), CARD / 4e9
    verdict = "reproduced" if within(speed, 1000, 1000) and most >= 1000 else "refuted"
    return Measured(
        speed, "steps/s", None, None, verdict,
        f"{speed:.3g} steps a second here at 1e9, from 1e8 in proportion; reading one FP32 sum of "
        f"each neuron once allows {most:,.0f} steps a second at {CARD / 1e12:g} TB/s, writing "
        f"and sorting them less; the document's own table says 10.",
    )  # fmt: skip


def quantized_1b() -> Measured:
    """Formats alone, at 1e7, against 10 and 10,000 steps a second.

    Rule: the gain within a tenth, and a speed that a card's memory allows: reproduced; else
    refuted.
    """
    return _billion(ratios(10**7)["formats"], 10, 1e4, 1)


def algorithms_1b() -> Measured:
    """Algorithms on top of formats, at 1e7, against 15 and 150,000.

    Rule: the gain within a tenth, and a speed that a card's memory allows: reproduced; else
    refuted.
    """
    return _billion(ratios(10**7)["algorithms after formats"], 15, 1.5e5, 1)


def combined_1b() -> Measured:
    """Both, at 1e8, against 90 and 900,000 steps a second.

    Rule: the gain within a tenth, and a speed that a card's memory allows: reproduced; else
    refuted.
    """
    return _billion(ratios(SIZES[-1])["both"], 90, 9e5, 1)


def conclusion() -> Measured:
    """Both, at 1e8, against 90 and 90,000 steps a second.

    Rule: the gain within a tenth, and a speed that a card's memory allows: reproduced; else
    refuted.
    """
    return _billion(ratios(SIZES[-1])["both"], 90, 9e4, 1)


def combined_total() -> Measured:
    """Both, at 1e8, against 90.

    Rule: 90 within a tenth, reproduced; else refuted.
    """
    said = "; ".join(_speeds(n) for n in SIZES)
    return judged(ratios(SIZES[-1])["both"], 90, 90, f"neither over both at {said}")


def phase_one() -> Measured:
    """Formats alone (low precision sums, 16-bit indices, in order), at 1e7.

    Rule: within 2 to 4, reproduced; else refuted.
    """
    found = ratios(10**7)
    return judged(
        found["formats"], 2, 4,
        f"formats {found['formats']}, at 1e6 {ratios(10**6)['formats']}; both ways sort",
    )  # fmt: skip


def phase_two() -> Measured:
    """Algorithms on top of formats: top-k, changed rows alone; at 1e7.

    Rule: within 4 to 8, reproduced; else refuted.
    """
    found = ratios(10**7)["algorithms after formats"]
    return judged(found, 4, 8, f"algorithms on top of formats {found}")


def phase_three() -> Measured:
    """One pass over sums of one byte, over the same in AdaptiveFloat, and the other two parts.

    Of phase 3, bits for connections and logarithms are measured by themselves; neither touches
    the n sums of a step, which AdaptiveFloat does.

    Rule: within 8 to 20, reproduced; else refuted. The value is the pass, by which a step is
    slower at least.
    """
    n = 10**7
    counts = np.random.default_rng(0).poisson(1, n).astype(np.uint8)
    tagged = np.zeros((n, 2), np.uint64)
    tagged[:, 1] = counts.astype(np.float16).view(np.uint16)
    largest, adaptive = reads()["largest"], updates()["adaptive top"]
    assert adaptive(tagged[:, 0], tagged[:, 1]) == largest(counts)
    found = ratio(lambda: largest(counts), lambda: adaptive(tagged[:, 0], tagged[:, 1]), 5)
    return judged(
        found, 8, 20, f"a pass over n sums, one byte over AdaptiveFloat: {found}; bits for "
        f"connections at 1 %: {bit_ratios()['rows added, density 0.01']}; growth as logarithms "
        f"of 32 bits: {log_ratios()['growth']}",
    )  # fmt: skip


@cache
def _passes() -> dict[str, Ratio]:
    """FP32 over one byte, and over the document's mixed types, in passes over 20 million."""
    a, x = normal(LARGE), normal(LARGE, 1)
    counts = np.random.default_rng(0).poisson(3, LARGE).astype(np.uint8)
    half = bits_of(a)
    update, largest = updates(), reads()["largest"]
    index, short = np.zeros(LARGE, np.int32), np.zeros(LARGE, np.int16)

    def single() -> None:
        over(update["fp32"], a, x)()
        over(largest, index)()

    def mixed() -> None:
        over(update["mixed"], half, x)()
        over(largest, short)()

    return {
        "one byte": ratio(over(largest, a.view(np.int32)), over(largest, counts)),
        "mixed": ratio(single, mixed),
    }


def combined_bandwidth() -> Measured:
    """Neurons a second in a pass for the k largest, one byte over FP32.

    Rule: 10 within a tenth, reproduced; else refuted.
    """
    found = _passes()["one byte"]
    return judged(found, 10, 10, f"neurons a second, one byte over FP32: {found}")


def mixed_bandwidth() -> Measured:
    """Neurons a second in an update and a pass over indices, mixed types over 32 bits.

    FP16 activations, FP32 candidates and 16-bit indices, over 32 bits for all three.

    Rule: 2.5 within a tenth, reproduced; else refuted.
    """
    found = _passes()["mixed"]
    return judged(found, 2.5, 2.5, f"neurons a second, mixed types over 32 bits: {found}")


def algorithms_first() -> Measured:
    """The gain of algorithms over the gain of formats, each alone, at 1e6 and 1e7.

    Rule: above 1 at both sizes, reproduced; else refuted. The value is at 1e7.
    """
    found = [ratios(n) for n in SIZES[:2]]
    more = [f["algorithms"].value / f["formats"].value for f in found]
    said = "; ".join(
        f"n = {n:.0e}: algorithms {f['algorithms']}, formats {f['formats']}"
        for n, f in zip(SIZES, found, strict=False)
    )
    verdict = "reproduced" if min(more) > 1 else "refuted"
    return Measured(more[1], "x", min(more), max(more), verdict, f"{said}.")


def combined_factors() -> Measured:
    """Operations and bytes of a step, neither over both, counted for 1e9 neurons.

    A row has p n connections. Neither adds k p n and compares n log2(n) times; both change
    2 x 100 rows and compare n times. Bytes: an edge 8 and a sum read and written 8, against 2 and
    2; sums written anew 4, none; a merge sort 12 a move, against one byte read.

    Rule: 15 and 6 within a tenth, reproduced; else refuted. The value is the operations.
    """
    deep, all_rows, some = np.log2(1e9), K * P, 2 * CHANGED * P
    operations = (all_rows + deep) / (some + 1)
    moved = (16 * all_rows + 4 + 12 * deep) / (4 * some + 1)
    kept = within(operations, 15, 15) and within(moved, 6, 6)
    return Measured(
        float(operations), "x", None, None, "reproduced" if kept else "refuted",
        f"{operations:.1f}x by operations, {moved:.0f}x by bytes, for 1e9 neurons.",
    )  # fmt: skip
