"""Claims on cache efficiency: lines that miss, counted by a simulated cache. Nothing is timed.

The cache holds 4 MiB in lines of 64 bytes, 16 ways, the least recently used line gives way; only
how many times its size an array is matters.
In order, values miss once a line, so that misses fall as bytes do. At random, over an array far
beyond the cache, each read misses whatever its width; in between lies every other ratio.
"""

from functools import cache
from typing import Any

import numpy as np

from justenough.ledger import Measured
from justenough.studies.neurons.loops import Loop, made
from justenough.studies.neurons.timing import within

LINE, WAYS, CACHE = 64, 16, 1 << 22
READS = 600_000
DOCUMENT = 10**9


@cache
def misses(bits: int, values: int, in_order: bool) -> float:
    """Lines missed per read, after as many reads that are not counted.

    Args:
        bits: Of one value.
        values: In the array.
        in_order: One after another from its beginning, again and again, or at random.
    """
    if in_order:
        # Whether the array fits is all that matters then.
        return 0.0 if bits * values <= 8 * CACHE else bits / (8 * LINE)
    place = np.random.default_rng(0).integers(0, values, 2 * READS)
    sets = CACHE // LINE // WAYS
    lines = place * bits // (8 * LINE)
    tags, ages = np.full((sets, WAYS), -1), np.zeros((sets, WAYS), np.int64)
    return float(_simulator()(lines, tags, ages, READS)) / READS


@cache
def _simulator() -> Loop:
    def run(lines: Any, tags: Any, ages: Any, start: Any) -> Any:
        missed = 0
        for t in range(lines.size):
            tag = lines[t]
            s = tag % tags.shape[0]
            oldest, hit = 0, -1
            for w in range(tags.shape[1]):
                if tags[s, w] == tag:
                    hit = w
                if ages[s, w] < ages[s, oldest]:
                    oldest = w
            if hit < 0:
                missed += t >= start
                hit = oldest
                tags[s, hit] = tag
            ages[s, hit] = t + 1
        return missed

    return made(run)


def gain(before: int, after: int, values: int, in_order: bool) -> float:
    """Misses at one width over misses at another; nothing over nothing is 1."""
    a, b = misses(before, values, in_order), misses(after, values, in_order)
    return 1.0 if a == b else a / max(b, 1 / READS)


def _judged(before: int, after: int, claimed: float) -> Measured:
    """At random and in order, at a billion neurons; only at some size of the array if not.

    At random a cache holds its size over the array's of all lines, so that the ratio of misses
    is (1 - 1 / s) / (1 - before / after / s) for an array s times the cache at the larger width.
    The size where that is the claim is simulated.
    """
    at_random, in_order = (gain(before, after, DOCUMENT, o) for o in (False, True))
    size = (claimed * before / after - 1) / (claimed - 1)
    there = gain(before, after, int(8 * size * CACHE / before), False)
    verdict = "refuted"
    if within(at_random, claimed, claimed) and within(in_order, claimed, claimed):
        verdict = "reproduced"
    elif within(in_order, claimed, claimed):
        verdict = "holds only when values are read in order"
    elif within(there, claimed, claimed):
        verdict = (
            "holds only when values are read at random from an array that takes, at the larger "
            f"width, about {size:.1f} times the cache"
        )
    return Measured(
        at_random, "x", min(at_random, in_order), max(at_random, in_order), verdict,
        f"a billion values: {at_random:.2f}x at random, {in_order:.2f}x in order; at random from "
        f"an array of {size:.1f} times the cache {there:.2f}x.",
    )  # fmt: skip


def fp16_cache() -> Measured:
    """Misses per value, 32 over 16 bits.

    Rule: 1.5 within a tenth at random and in order, reproduced; only in order or only at some
    sizes, only then; else refuted. The value is at random, for 1e9.
    """
    return _judged(32, 16, 1.5)


def int8_cache() -> Measured:
    """Misses per index, 32 over 8 bits.

    Rule: as for FP16, with 2.
    """
    return _judged(32, 8, 2)


def mixed_cache() -> Measured:
    """Misses per neuron, 128 over 80 bits, for activation, weight, candidate and index.

    Rule: as for FP16, with 1.8.
    """
    return _judged(128, 80, 1.8)


def combined_cache() -> Measured:
    """Misses per neuron, 60 bytes over the document's 9.

    Rule: as for FP16, with 5.
    """
    return _judged(480, 72, 5)


def bit_cache() -> Measured:
    """Misses per existing connection, lists of 32 bits over bits, in order, by density.

    Rule: 8 within a tenth at 1 %, reproduced; only at some density, only there; else refuted.
    The value is at 1 %.
    """
    found = {d: misses(32, DOCUMENT, True) * d / misses(1, DOCUMENT, True)
             for d in (0.01, 0.1, 0.25, 0.5, 1.0)}  # fmt: skip
    kept = [d for d, g in found.items() if within(g, 8, 8)]
    verdict = "refuted"
    if within(found[0.01], 8, 8):
        verdict = "reproduced"
    elif kept:
        verdict = f"holds only when {kept[0]:.0%} of the possible connections exist"
    return Measured(
        found[0.01], "x", found[0.01], found[1.0], verdict,
        "lists over bits by density: " + ", ".join(f"{d:g}: {g:.2f}x" for d, g in found.items())
        + ".",
    )  # fmt: skip


def packed_transactions() -> Measured:
    """Values for each line fetched, four FP16 in a struct over FP16 one by one, in order.

    Also sectors of 32 bytes that a group of 32 lanes reads at once on a graphics card: all bytes
    of each are used, whichever of the two it reads.

    Rule: 4 within a tenth, reproduced; else refuted.
    """
    lines = {name: misses(16, DOCUMENT, True) for name in ("one by one", "in fours")}
    found = lines["one by one"] / lines["in fours"]
    used = [32 * width * 2 / (32 * -(-32 * width * 2 // 32)) for width in (1, 4)]
    return Measured(
        found, "x", None, None, "reproduced" if within(found, 4, 4) else "refuted",
        f"{1 / lines['in fours']:.0f} values a line either way, as the bytes are the same; of the "
        f"sectors that 32 lanes read, {used[0]:.0%} and {used[1]:.0%} of the bytes are used.",
    )  # fmt: skip
