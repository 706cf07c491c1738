"""Claims of medicine, genomics and chemistry on bytes and counts, with all bytes counted."""

import math

import numpy as np
from scipy import sparse

from justenough.formats.floats import FP16
from justenough.formats.integers import IntFormat
from justenough.formats.packing import pack
from justenough.ledger import Measured

GB = 1e9
CARD_GB = 8.0  # memory of the card that the documents are about


def near(value: float, claimed: float, share: float) -> bool:
    """Whether a value lies within a share of what is claimed."""
    return abs(value / claimed - 1) <= share


def embedding_memory() -> Measured:
    """Bytes of 1000 embeddings of 256 numbers, in FP32 and in INT8 with a scale for each.

    Rule: 1 MB, 256 kB and a ratio of 4, each within 5 %, reproduced; else refuted.
    """
    shape = (1000, 256)
    fp32, int8 = 4 * math.prod(shape), IntFormat(8, axis=0).bytes_of(shape)
    right = [near(fp32, 1e6, 0.05), near(int8, 256e3, 0.05), near(fp32 / int8, 4, 0.05)]
    return Measured(
        fp32 / int8, "x", None, None, "reproduced" if all(right) else "refuted",
        f"{fp32:,} bytes in FP32, {int8:,} in INT8 with a float32 scale for each drug.",
    )  # fmt: skip


def pair_count() -> Measured:
    """Pairs among 1000 drugs.

    Rule: within 1 % of 500,000, reproduced; else refuted.
    """
    pairs = math.comb(1000, 2)
    verdict = "reproduced" if near(pairs, 500_000, 0.01) else "refuted"
    return Measured(
        pairs, "pairs", None, None, verdict, f"N (N - 1) / 2 = {pairs:,} for N = 1000."
    )


def volume_memory() -> Measured:
    """Voxels and bytes of a volume of 512 x 512 x 200.

    Rule: 50 M voxels, 200 and 100 MB, each within 5 %, reproduced; else refuted.
    """
    n = 512 * 512 * 200
    right = [near(n, 50e6, 0.05), near(4 * n, 200e6, 0.05), near(FP16.bytes_of(n), 100e6, 0.05)]
    return Measured(
        4 * n / 1e6, "MB", None, None, "reproduced" if all(right) else "refuted",
        f"{n:,} voxels, {4 * n / 1e6:.1f} MB in FP32, {FP16.bytes_of(n) / 1e6:.1f} MB in FP16.",
    )  # fmt: skip


def docking_hours() -> Measured:
    """Hours of 500,000 dockings at 100, 50 and 25 ms, and full screens a day.

    Rule: rounded to one decimal they are 13.9, 6.9 and 3.5 h and 1.7 and 6.9 a day, reproduced;
    else refuted.
    """
    hours = [500_000 * ms / 1000 / 3600 for ms in (100, 50, 25)]
    got = [*hours, 24 / hours[0], 24 / hours[2]]
    same = [round(g, 1) for g in got] == [13.9, 6.9, 3.5, 1.7, 6.9]
    return Measured(
        hours[0], "h", None, None, "reproduced" if same else "refuted",
        f"{', '.join(f'{h:.2f}' for h in hours)} h; {got[3]:.2f} and {got[4]:.2f} screens a day.",
    )  # fmt: skip


def cohort_memory() -> Measured:
    """Bytes of 100,000 genomes of 5 million variants, beside the card that the document is about.

    Rule: 2 TB and 500 GB within 1 %, and 500 GB fits the card of 8 GB where 2 TB does not:
    reproduced; the sizes alone: only as sizes; else refuted.
    """
    n = 100_000 * 5_000_000
    fp32, int8 = 4 * n / GB, IntFormat(8).bytes_of(n) / GB
    sized = near(fp32, 2000, 0.01) and near(int8, 500, 0.01)
    verdict = "refuted"
    if sized:
        verdict = "reproduced" if int8 <= CARD_GB < fp32 else (
            "holds only when sizes are meant: neither fits the card of 8 GB that it is about"
        )  # fmt: skip
    return Measured(
        int8, "GB", None, None, verdict,
        f"{fp32:,.0f} GB in FP32 and {int8:,.0f} GB in INT8, which is {int8 / CARD_GB:.1f} times "
        f"the card's {CARD_GB:g} GB; genotypes in 2 bits take {n / 4 / GB:,.0f} GB.",
    )  # fmt: skip


def card_variants() -> Measured:
    """Genomes of 5 million variants, or variants of 100,000 genomes, that fit in 8 GB.

    Rule: 1,600 in FP32 and 6,400 in INT8, within 10 %, for one of the two: reproduced; else
    refuted.
    """
    fits = {
        "genomes": (CARD_GB * GB / (4 * 5e6), CARD_GB * GB / 5e6),
        "variants": (CARD_GB * GB / (4 * 1e5), CARD_GB * GB / 1e5),
    }
    right = any(near(a, 1600, 0.1) and near(b, 6400, 0.1) for a, b in fits.values())
    each = "; ".join(f"{a:,.0f} {k} in FP32, {b:,.0f} in INT8" for k, (a, b) in fits.items())
    return Measured(
        fits["genomes"][0], "genomes", None, None, "reproduced" if right else "refuted",
        f"In 8 GB: {each}.",
    )  # fmt: skip


def layer_parameters() -> Measured:
    """Weights of a layer of 600,000 inputs and 1024 outputs, dense and at 90 % sparsity.

    Rule: 614 M, 61 M and a ratio of 10, each within 1 %, reproduced; else refuted.
    """
    dense = 600_000 * 1024
    kept = round(0.1 * dense)
    right = [near(dense, 614e6, 0.01), near(kept, 61e6, 0.01), near(dense / kept, 10, 0.01)]
    return Measured(
        dense / 1e6, "million", None, None, "reproduced" if all(right) else "refuted",
        f"{dense:,} weights, {kept:,} at 90 % sparsity, biases left out.",
    )  # fmt: skip


def layer_memory() -> Measured:
    """Bytes of that layer at 90 % sparsity, with what says where its weights are.

    A hundredth of its inputs is built as CSR, COO and values with a bit mask; bytes are scaled up.

    Rule: dense within 5 % of 2.4 GB, else refuted; ten times smaller within 5 % in one of the
    forms, reproduced; only for the values alone, only then.
    """
    inputs, outputs = 6_000, 1024
    rng = np.random.default_rng(0)
    layer = sparse.random(
        outputs, inputs, 0.1, "csr", np.float32, rng, lambda n: rng.random(n) + 1
    )
    coo = layer.tocoo()
    dense = 4 * inputs * outputs
    stored = {
        "CSR": layer.data.nbytes + layer.indices.nbytes + layer.indptr.nbytes,
        "COO": coo.data.nbytes + coo.row.nbytes + coo.col.nbytes,
        "values and a bit mask": layer.data.nbytes
        + pack((layer.toarray() != 0).astype(np.uint8), 1).nbytes,
    }
    ratios = {k: dense / v for k, v in stored.items()}
    verdict = "refuted"
    if near(100 * dense, 2.4e9, 0.05):
        verdict = "holds only when the places of the weights that are kept are not counted"
        if any(near(r, 10, 0.05) for r in ratios.values()):
            verdict = "reproduced"
    entropy = -0.1 * math.log2(0.1) - 0.9 * math.log2(0.9)
    bound = 32 / (0.1 * 32 + entropy)
    each = ", ".join(
        f"{100 * v / 1e6:.0f} MB ({ratios[k]:.1f}x) as {k}" for k, v in stored.items()
    )
    return Measured(
        ratios["CSR"], "x", min(ratios.values()), max(ratios.values()), verdict,
        f"{100 * dense / GB:.2f} GB dense; at 90 % sparsity {100 * layer.data.nbytes / 1e6:.0f} "
        f"MB of values alone, {each}. No lossless code of random places exceeds {bound:.1f}x on "
        "average.",
    )  # fmt: skip


def alignment_format() -> Measured:
    """Whether integers sum match scores of reads exactly.

    10,000 pairs of 150 bases of which 98 % are copied, match 1 and mismatch -4.

    Rule: one narrower type that is exact for all pairs refutes that FP32 is required; else
    reproduced.
    """
    rng = np.random.default_rng(0)
    a = rng.integers(0, 4, (10_000, 150))
    b = np.where(rng.random(a.shape) < 0.02, rng.integers(0, 4, a.shape), a)
    terms = np.where(a == b, 1, -4)
    exact = terms.sum(axis=1)
    types = (np.float32, np.int16, np.int8)
    same = {
        t.__name__: float((terms.astype(t).sum(axis=1, dtype=t) == exact).mean()) for t in types
    }
    verdict = "refuted" if same["int16"] == 1 else "reproduced"
    each = ", ".join(f"{k} {v:.1%}" for k, v in same.items())
    return Measured(
        100 * same["int16"], "%", None, None, verdict,
        f"Scores summed exactly: {each}. int16 holds scores up to 32,767, int8 up to 127.",
    )  # fmt: skip
