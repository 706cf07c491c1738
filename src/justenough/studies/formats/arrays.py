"""Claims of the neuron document on the bytes of arrays, indices, structs and neurons."""

import ctypes

import numpy as np
from scipy import sparse

from justenough.formats.floats import FP16
from justenough.formats.packing import pack, unpack
from justenough.ledger import Measured
from justenough.studies.formats.sizes import near


def fp16_array() -> Measured:
    """Bytes of an array in FP32 over those in FP16.

    Rule: 2, exactly: reproduced; else refuted.
    """
    coded = FP16.packed_bytes(FP16.encode(np.zeros(1000, np.float32)))
    ratio = np.zeros(1000, np.float32).nbytes / len(coded)
    return Measured(
        ratio, "x", None, None, "reproduced" if ratio == 2 else "refuted",
        f"1000 numbers take 4000 bytes in FP32 and {len(coded)} in FP16.",
    )  # fmt: skip


def uint16_indices() -> Measured:
    """Bytes of indices in 32 bits over those in 16, with a base for each block of 65,536 neurons.

    Sorted indices of 20 blocks, 1 to 100 in each; a base and a count are 16 bits each.

    Rule: half the bytes without bases and every index of 1e9 neurons comes back, reproduced; half
    the bytes within 5 % only from some number of indices in a block on, only then; else refuted.
    """
    last = np.array([10**9 - 1])
    alone = bool((last.astype(np.uint16) == last).all())
    ratios = {m: _block_ratio(20, m) for m in range(1, 101)}
    enough = [m for m, r in ratios.items() if near(r, 2, 0.05)]
    verdict = "refuted"
    if alone:
        verdict = "reproduced"
    elif enough:
        verdict = (
            "holds only when there are at most 65,536 neurons, or at least "
            f"{min(enough)} indices share each block of as many and its base"
        )
    return Measured(
        ratios[1], "x", ratios[1], ratios[100], verdict,
        f"16 bits alone name 65,536 neurons. With a base for each block: {ratios[1]:.2f}x for one "
        f"index in a block, {ratios[10]:.2f}x for 10, {ratios[100]:.2f}x for 100; all come back.",
    )  # fmt: skip


def _block_ratio(blocks: int, each: int) -> float:
    """Bytes of uint32 over those of uint16 with bases, after a check that indices come back."""
    rng = np.random.default_rng(each)
    inside = np.sort(rng.choice(2**16, (blocks, each)), axis=1)
    index = (np.arange(blocks)[:, None] * 2**16 + inside).ravel()
    low = (index % 2**16).astype(np.uint16)
    base, count = (x.astype(np.uint16) for x in np.unique(index >> 16, return_counts=True))
    assert (np.repeat(base.astype(np.int64) << 16, count) + low == index).all()
    stored = low.nbytes + base.nbytes + count.nbytes
    return float(index.astype(np.uint32).nbytes / stored)


def local_indices() -> Measured:
    """Bytes of 32-bit indices over 8-bit offsets, with 32 bits behind an escape for far ones.

    A graph of 20,000 neurons with 50 connections each, from none to all of them local.

    Rule: four times smaller within 5 % for uniformly random connections, reproduced; only from
    some share of local connections on, only then; else refuted.
    """
    shares = [0.0, 0.5, 0.9, *(k / 1000 for k in range(950, 1001))]
    ratios = {s: _offset_ratio(s) for s in shares}
    kept = [s for s, r in ratios.items() if near(r, 4, 0.05)]
    random = _offset_ratio(None)
    verdict = "reproduced" if near(random, 4, 0.05) else "refuted"
    if verdict == "refuted" and kept:
        verdict = (
            f"holds only when at least {min(kept):.1%} of the connections lie within 127 places"
        )
    return Measured(
        random, "x", random, max(ratios.values()), verdict,
        f"Uniformly random connections {random:.2f}x, half of them local {ratios[0.5]:.2f}x, all "
        f"{ratios[1.0]:.2f}x; all indices come back.",
    )  # fmt: skip


def _offset_ratio(local: float | None) -> float:
    """Bytes of int32 over those of offsets with escapes, after a check that indices come back."""
    n, k = 20_000, 50
    rng = np.random.default_rng(0)
    source = np.repeat(np.arange(n), k)
    target = rng.integers(0, n, n * k)
    if local is not None:
        beside = np.clip(source + rng.integers(-127, 128, n * k), 0, n - 1)
        target = np.where(rng.random(n * k) < local, beside, target)
    offset = target - source
    far = np.abs(offset) > 127
    codes = np.where(far, -128, offset).astype(np.int8)
    escaped = target[far].astype(np.int32)
    back = source + codes
    back[codes == -128] = escaped
    assert (back == target).all()
    return float(4 * n * k / (codes.nbytes + escaped.nbytes))


def bits_per_connection() -> Measured:
    """Connections held by 8 bytes, possible ones and those that exist at a density of 1 %.

    Rule: 64 of those that exist, reproduced; 64 possible ones that come back, only then; else
    refuted.
    """
    rng = np.random.default_rng(0)
    mask = (rng.random((2000, 6400)) < 0.01).astype(np.uint8)
    data = pack(mask, 1)
    back = bool((unpack(data, 1, mask.size).reshape(mask.shape) == mask).all())
    possible, existing = 8 * mask.size / data.nbytes, 8 * int(mask.sum()) / data.nbytes
    verdict = "refuted"
    if back and possible == 64:
        verdict = "holds only when possible connections are counted, not those that exist"
    if back and near(existing, 64, 0.05):
        verdict = "reproduced"
    csr = sparse.csr_matrix(mask)
    places = csr.indices.nbytes + csr.indptr.nbytes
    return Measured(
        possible, "per 8 bytes", None, None, verdict,
        f"{possible:g} possible connections in 8 bytes; of those that exist at 1 % "
        f"{existing:.2f}, or {64 / existing:.0f} bits each, where 32-bit CSR takes "
        f"{8 * places / mask.sum():.1f}.",
    )  # fmt: skip


class _Value(ctypes.Union):
    _fields_ = (("fp16", ctypes.c_uint16), ("fp32", ctypes.c_float), ("fp64", ctypes.c_double))


class _AdaptiveFloat(ctypes.Structure):
    _fields_ = (("precision", ctypes.c_uint8), ("value", _Value))


class _LnsFloat(ctypes.Structure):
    _fields_ = (("exponent", ctypes.c_int16), ("mantissa", ctypes.c_uint16))


class _PackedActivations(ctypes.Structure):
    _fields_ = (("vals", ctypes.c_uint16 * 4),)


def adaptive_struct() -> Measured:
    """Memory that AdaptiveFloat saves over a float, as declared, and at best with its tag.

    Rule: 30 to 50 % as declared, reproduced; as a byte of tag and the bytes in use, only then;
    else refuted.
    """
    declared = 1 - ctypes.sizeof(_AdaptiveFloat) / 4
    best = 1 - (1 + 2) / 4
    verdict = "reproduced" if 0.3 <= declared <= 0.5 else "refuted"
    if verdict == "refuted" and 0.3 <= best <= 0.5:
        verdict = "holds only when values are stored at their own length"
    return Measured(
        100 * declared, "%", None, None, verdict,
        f"As declared it takes {ctypes.sizeof(_AdaptiveFloat)} bytes where a float takes 4; its "
        f"tag and the bytes in use save {best:.0%} at best, when every value is FP16.",
    )  # fmt: skip


def lns_struct() -> Measured:
    """Memory that LNSFloat saves over a float.

    Rule: 50 % within a point, reproduced; else refuted.
    """
    saved = 1 - ctypes.sizeof(_LnsFloat) / ctypes.sizeof(ctypes.c_float)
    return Measured(
        100 * saved, "%", None, None, "reproduced" if near(saved + 1, 1.5, 0.01) else "refuted",
        f"LNSFloat takes {ctypes.sizeof(_LnsFloat)} bytes, as a float does.",
    )  # fmt: skip


def packed_struct() -> Measured:
    """Memory that PackedActivations saves, over floats and over an array of FP16.

    Rule: 50 % over both, reproduced; over floats alone, only then; else refuted.
    """
    packed = ctypes.sizeof(_PackedActivations)
    over_fp32, over_fp16 = 1 - packed / 16, 1 - packed / FP16.bytes_of(4)
    verdict = "refuted"
    if over_fp32 == 0.5:
        verdict = "holds only when it is compared with FP32: over an FP16 array it saves nothing"
        verdict = "reproduced" if over_fp16 == 0.5 else verdict
    return Measured(
        100 * over_fp32, "%", None, None, verdict,
        f"Four values take {packed} bytes, 16 as floats and {FP16.bytes_of(4)} as FP16.",
    )  # fmt: skip


def temporary_arrays() -> Measured:
    """Memory that FP16 temporaries save, alone and with FP32 results of the same length.

    Rule: 25 % of the temporaries, reproduced; of both together, only then; else refuted.
    """
    n = 1_000_000
    alone = 1 - FP16.bytes_of(n) / (4 * n)
    together = 1 - (FP16.bytes_of(n) + 4 * n) / (8 * n)
    verdict = "reproduced" if alone == 0.25 else "refuted"
    if alone != 0.25 and together == 0.25:
        verdict = "holds only when as many FP32 results as temporaries are counted with them"
    return Measured(
        100 * alone, "%", None, None, verdict,
        f"Temporaries alone {alone:.0%}, with as many results {together:.0%}.",
    )  # fmt: skip


PARTS = {"activations": 4.0, "weights": 4.0, "indices": 4.0, "generator states": 48.0}
QUANTIZED = {
    "FP16 and 16-bit indices": {"activations": 2.0, "weights": 2.0, "indices": 2.0},
    "with 8/16-bit indices": {"activations": 2.0, "weights": 2.0, "indices": 1.5},
    "with bit-packed connectivity": {"activations": 2.0, "weights": 2.0, "indices": 0.125},
}  # bytes for each neuron, as the document gives them


def neuron_table() -> Measured:
    """Bytes for each neuron by the document's own parts, at 1e6 to 1e9 neurons.

    Rule: 60 bytes before and 9 after quantization, within 5 %, from the parts as they are listed,
    reproduced; 9 or fewer only once the generator states are left out, only then; else refuted.
    """
    before = sum(PARTS.values())
    after = {k: sum({**PARTS, **v}.values()) for k, v in QUANTIZED.items()}
    without = {k: v - PARTS["generator states"] for k, v in after.items()}
    verdict = "refuted"
    if near(before, 60, 0.05):
        if any(near(v, 9, 0.05) for v in after.values()):
            verdict = "reproduced"
        elif max(without.values()) <= 9:
            verdict = (
                "holds only when the generator states, 48 of the 60 bytes, are dropped, which "
                "none of the formats does"
            )
    saved = {k: 100 * (1 - v / before) for k, v in after.items()}
    rows = ", ".join(f"{n:.0e} {n * before / 1e9:g} GB" for n in (1e6, 1e7, 1e8, 1e9))
    return Measured(
        max(saved.values()), "%", min(saved.values()), max(saved.values()), verdict,
        f"{before:g} bytes a neuron ({rows}). Formats as listed leave "
        f"{', '.join(f'{v:g} bytes {k}' for k, v in after.items())}; without the generator states "
        f"{min(without.values()):g} to {max(without.values()):g}.",
    )  # fmt: skip


def neuron_ids() -> Measured:
    """Whether the listed index types can name 1e10 neurons.

    Rule: 600 GB by the document's parts, and its 32-bit indices name all: reproduced; else
    refuted.
    """
    n = 10**10
    total = n * sum(PARTS.values()) / 1e9
    named = 2**32
    right = near(total, 600, 0.01) and named >= n
    wide = total + n * 4 / 1e9
    return Measured(
        100 * named / n, "%", None, None, "reproduced" if right else "refuted",
        f"The parts sum to {total:g} GB, but 32-bit indices name {named:,} neurons, "
        f"{named / n:.0%} of them; with 64-bit indices it is {wide:g} GB.",
    )  # fmt: skip
