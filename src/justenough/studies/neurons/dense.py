"""Claims on arrays of one number a neuron: low precision, rounding, packing, order of access.

Each is switched on and off in a loop over n neurons, on all cores. Large is 20 million, 80 MB in
FP32, beyond the caches; small is 100,000, within them.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from justenough.assemblies.topk import topk
from justenough.compiled import spread
from justenough.ledger import Measured
from justenough.studies.neurons.loops import logarithms, reads, two_passes, updates
from justenough.studies.neurons.timing import Ratio, judged, near_an_end, ratio, within

LARGE, SMALL = 20_000_000, 100_000
Array = NDArray[Any]
Loop = Callable[..., Any]


def over(loop: Loop, *arrays: Array, also: tuple[Any, ...] = (), times: int = 1) -> Loop:
    """A call that runs a loop over parts of arrays, a part on each core."""

    def part(s: slice) -> None:
        for _ in range(times):
            loop(*(a[s] for a in arrays), *also)

    return partial(spread, part, len(arrays[0]))


def normal(n: int, seed: int = 0) -> NDArray[np.float32]:
    """Normal numbers, float32 (n,)."""
    return np.random.default_rng(seed).standard_normal(n, dtype=np.float32)


def bits_of(x: NDArray[np.float32]) -> NDArray[np.uint16]:
    """FP16 of an array, as bits."""
    return x.astype(np.float16).view(np.uint16)


@cache
def fp16_update(n: int) -> Ratio:
    """FP32 over FP16 in a <- decay a + x, both in order."""
    a, x = normal(n), normal(n, 1)
    loops, times = updates(), max(1, LARGE // n // 4)
    return ratio(
        over(loops["fp32"], a.copy(), x, times=times),
        over(loops["fp16"], bits_of(a), bits_of(x), times=times),
    )


@cache
def fp16_scan() -> Ratio:
    """FP32 over FP16 in the k largest, with the threshold of the step before."""
    a = normal(LARGE)
    half = a.astype(np.float16)
    k = 10_000
    single, other = topk(a, k).threshold, topk(half, k).threshold
    return ratio(lambda: topk(a, k, single), lambda: topk(half, k, other))


@cache
def fp16_gather() -> Ratio:
    """FP32 over FP16 at places in no order."""
    a = normal(LARGE)
    places = np.random.default_rng(2).integers(0, LARGE, 2_000_000)
    at = reads()["at"]
    single, half = a.view(np.int32), a.astype(np.float16).view(np.int16)
    return ratio(
        lambda: spread(lambda s: at(single, places[s]), len(places)),
        lambda: spread(lambda s: at(half, places[s]), len(places)),
    )


def fp16_speed() -> Measured:
    """FP16 over FP32 in the passes of a step: the update, the k largest, reads in no order.

    Rule: all three within 1.5 to 2, reproduced; the passes in order alone, only there; else
    refuted. The value is the update.
    """
    found = [fp16_update(LARGE), fp16_scan(), fp16_gather()]
    kept = [within(r.value, 1.5, 2) for r in found]
    condition = "neurons beyond the caches are read in order" if all(kept[:2]) else ""
    if kept[0] and not kept[1]:
        condition = "neurons beyond the caches are updated in order, which top-k does not do"
    if all(kept):
        return judged(found[0], 1.5, 2, "the update, top-k and reads in no order agree")
    got = judged(found[0], 1e9, 1e9, "", condition)
    small = fp16_update(SMALL)
    said = (
        f"FP32 over FP16: update {found[0]}, top-k {found[1]}, places in no order {found[2]}; the "
        f"update of {SMALL:,} neurons, in cache, {small}{near_an_end(found[0], 1.5, 2)}."
    )
    return Measured(got.value, got.unit, got.low, got.high, got.verdict, said)


def fp16_bandwidth() -> Measured:
    """Values a second of FP16 over FP32 in the update of 20 million neurons.

    Rule: 2 within a tenth, reproduced; else refuted.
    """
    found = fp16_update(LARGE)
    return judged(found, 2, 2, f"updates a second, FP16 over FP32: {found}")


def temporal_speed() -> Measured:
    """FP16 over FP32 temporaries between two passes whose other arrays are FP32.

    Rule: within 1.3 to 1.6, reproduced; else refuted.
    """
    a, x, out = normal(LARGE), normal(LARGE, 1), np.zeros(LARGE, np.float32)
    single, half = np.zeros(LARGE, np.float32), np.zeros(LARGE, np.uint16)
    loops = two_passes()

    def with_single() -> None:
        over(loops["first"], a, x, single)()
        over(loops["second"], single, out)()

    def with_half() -> None:
        over(loops["first half"], a, x, half)()
        over(loops["second half"], half, out)()

    found = ratio(with_single, with_half)
    fused = ratio(with_single, over(loops["both"], a, x, out))
    return judged(
        found, 1.3, 1.6, f"two passes with FP32 over FP16 between them: {found}; both passes in "
        f"one, with no temporary at all: {fused}",
    )  # fmt: skip


@cache
def random_rounding() -> tuple[Ratio, Ratio]:
    """FP32 over FP16 rounded at random, and FP16 rounded to nearest over that."""
    a, x = normal(LARGE), normal(LARGE, 1)
    half, h = bits_of(a), bits_of(x)
    loops = updates()
    dice = over(loops["random"], half, h, also=(np.uint32(7),))
    return (
        ratio(over(loops["fp32"], a, x), dice),
        ratio(over(loops["fp16"], half.copy(), h), dice),
    )


def stochastic_speed() -> Measured:
    """FP32 over FP16 with stochastic rounding to its own steps, the random draw included.

    Rule: within 1.5 to 2, reproduced; else refuted.
    """
    found, nearest = random_rounding()
    return judged(
        found, 1.5, 2, f"FP32 over FP16 with stochastic rounding: {found}; rounding to nearest "
        f"over it: {nearest}, so that what gains is FP16, not the rounding",
    )  # fmt: skip


def stochastic_total() -> Measured:
    """The same ratio, against a total gain of 1.8.

    Rule: 1.8 within a tenth, reproduced; else refuted.
    """
    found, _ = random_rounding()
    return judged(found, 1.8, 1.8, f"FP32 over FP16 with stochastic rounding: {found}")


def stochastic_factors() -> Measured:
    """Operations and bytes of one update, FP32 over FP16 with stochastic rounding.

    Counted in the loops of this study: FP32 takes 2 operations and 12 bytes; FP16 2 more to
    widen, 1 to narrow, 8 to draw and add the random bits, and half the bytes.

    Rule: 1.5 and 1.2 within a tenth, reproduced; else refuted. The value is the operations.
    """
    operations, moved = 2 / (2 + 3 + 8), 12 / 6
    kept = within(operations, 1.5, 1.5) and within(moved, 1.2, 1.2)
    return Measured(
        operations, "x", None, None, "reproduced" if kept else "refuted",
        f"{operations:.2f}x by operations, 13 for 2; {moved:.1f}x by bytes, 6 for 12.",
    )  # fmt: skip


@cache
def log_ratios() -> dict[str, Ratio]:
    """FP32 over logarithms as whole numbers of 32 bits: products, growth and dot products."""
    n = LARGE // 2
    rng = np.random.default_rng(0)
    a, b, c, d = (np.exp2(rng.uniform(-2, 2, n)).astype(np.float32) for _ in range(4))
    logs = [np.rint(np.log2(v) * 65536).astype(np.int32) for v in (a, b, c, d)]
    table = np.exp2(np.arange(4096) / 4096).astype(np.float32)
    loops, out, whole = logarithms(), np.empty(n, np.float32), np.empty(n, np.int32)
    tiny = np.zeros(n, np.uint8)
    small = slice(0, SMALL)
    grow = over(loops["grow"], a.copy(), also=(np.float32(1.0001),))
    return {
        "products": ratio(
            over(loops["product"], a, b, c, d, out), over(loops["sum"], *logs, whole)
        ),
        "products in cache": ratio(
            over(loops["product"], *(v[small] for v in (a, b, c, d, out)), times=40),
            over(loops["sum"], *(v[small] for v in (*logs, whole)), times=40),
        ),
        "growth": ratio(grow, over(loops["add"], logs[0].copy(), also=(np.int32(9),))),
        "growth, one byte": ratio(grow, over(loops["add"], tiny, also=(np.uint8(1),))),
        "dot products": ratio(
            over(loops["dot"], a, b),
            over(loops["dot of logs"], logs[0], logs[1], also=(table,)),
        ),
    }


def _log_words() -> str:
    return "; ".join(f"{name} {found}" for name, found in log_ratios().items())


def lns_speed() -> Measured:
    """FP32 over logarithms of 16 + 16 bits in products of four numbers.

    Rule: within 2 to 4, reproduced; else refuted.
    """
    return judged(
        log_ratios()["products"], 2, 4, f"FP32 over logarithms in 32 bits: {_log_words()}"
    )


def lns_plan() -> Measured:
    """FP32 over logarithms of 32 bits in a simulator's growth of weights and sums of inputs.

    Rule: the larger one 4 within a tenth, reproduced; else refuted.
    """
    found = log_ratios()
    best = max(found["growth"], found["dot products"], key=lambda r: r.value)
    return judged(best, 4, 4, f"FP32 over logarithms: {_log_words()}")


@cache
def adaptive_ratio() -> tuple[Ratio, Ratio]:
    """FP32 over AdaptiveFloat in the update: all of one precision, and mixed ones."""
    n = LARGE // 2
    x = normal(n, 1)
    kinds = np.random.default_rng(3).choice([0, 1, 2], n, p=[0.5, 0.4, 0.1])
    loops = updates()
    single = over(loops["fp32"], normal(n), x)

    def side(kind: Array) -> Loop:
        tagged = np.zeros((n, 2), np.uint64)  # 16 bytes each, as the struct is laid out
        tagged[:, 0] = kind
        a = normal(n)
        forms: list[Array] = [bits_of(a), a.view(np.uint32), a.astype(float).view(np.uint64)]
        for code, bits in enumerate(forms):
            tagged[kind == code, 1] = bits[kind == code]
        return over(loops["adaptive"], tagged[:, 0], tagged[:, 1], x)

    return ratio(single, side(np.zeros(n, np.int64)), 5), ratio(single, side(kinds), 5)


def adaptive_speed() -> Measured:
    """FP32 over AdaptiveFloat, read, updated and written, all of it FP16 by its tag.

    Rule: within 1.2 to 1.8, reproduced; else refuted.
    """
    one, mixed = adaptive_ratio()
    return judged(one, 1.2, 1.8, f"FP32 over AdaptiveFloat: all FP16 {one}, mixed {mixed}")


def adaptive_plan() -> Measured:
    """The same, against 2.

    Rule: 2 within a tenth, reproduced; else refuted.
    """
    one, mixed = adaptive_ratio()
    return judged(one, 2, 2, f"FP32 over AdaptiveFloat: all FP16 {one}, mixed {mixed}")


def packed_speed() -> Measured:
    """FP32 over packed FP16 in the update and in a maximum; the value is the larger one.

    Rule: within 3 to 4, reproduced; else refuted.
    """
    a = normal(LARGE)
    largest = reads()["largest"]
    top = ratio(over(largest, a.view(np.int32)), over(largest, bits_of(a).view(np.int16)))
    update = fp16_update(LARGE)
    best = max(top, update, key=lambda r: r.value)
    return judged(best, 3, 4, f"FP32 over packed FP16: update {update}, maximum {top}")


def streaming_speed() -> Measured:
    """Plain over streaming stores in a copy of 400 MB.

    A copy of 64 kB at a time writes through the cache; for one of 400 MB at once the C library
    takes non-temporal stores, where they pay by its own table. Both on one core.

    Rule: within 1.5 to 2, reproduced; else refuted.
    """
    a = np.tile(normal(LARGE), 5)
    b, piece = np.zeros_like(a), 16_384

    def pieces() -> None:
        for k in range(0, len(a), piece):
            np.copyto(b[k : k + piece], a[k : k + piece])

    found = ratio(pieces, lambda: np.copyto(b, a))
    return judged(found, 1.5, 2, f"plain stores over streaming ones: {found}")


def coalescing() -> Measured:
    """Values read some places apart over values in order, per value, and in no order.

    Rule: 2 within a tenth when every 16th value is read, one of each line of the cache,
    reproduced; only for other distances, only for those; else refuted.
    """
    n = 4_000_000
    x = normal(16 * n).view(np.int32)
    loops = reads()
    plain = over(loops["largest"], x[:n])
    apart = {s: ratio(over(loops["largest"], x[: s * n : s]), plain) for s in (2, 4, 8, 16)}
    places = np.random.default_rng(4).integers(0, x.size, n)
    scattered = ratio(lambda: spread(lambda s: loops["at"](x, places[s]), n), plain, 3)
    kept = [s for s, r in apart.items() if within(r.value, 2, 2)]
    condition = "every other value is read" if kept == [2] else ""
    return judged(
        apart[16], 2, 2, "values apart over values in order, by distance: "
        + ", ".join(f"{s}: {r}" for s, r in apart.items()) + f"; in no order: {scattered}",
        condition,
    )  # fmt: skip
