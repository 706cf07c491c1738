"""Claims on sparse attention that counting pairs decides."""

import math

import numpy as np
from numpy.typing import NDArray

from justenough.ledger import Measured


def attention_mask(length: int, key_residues: int, rows: bool) -> NDArray[np.bool_]:
    """Pairs attended to: 32 neighbours each side, and key residues spread evenly.

    Args:
        length: Residues.
        key_residues: Residues that all attend to.
        rows: Whether these attend to all, too.

    Returns:
        Shape (length, length), true where the row attends to the column.
    """
    at = np.arange(length)
    mask: NDArray[np.bool_] = np.abs(at[:, None] - at) <= 32
    keys = at[:: max(length // key_residues, 1)][:key_residues] if key_residues else at[:0]
    mask[:, keys] = True
    if rows:
        mask[keys] = True
    return mask


def attention_sparsity() -> Measured:
    """Share of pairs that the document's pattern leaves out at 1000 residues.

    Rule: 97 to 98 % with 32 neighbours each side and 10 % key residues, random samples left out
    as they only add pairs: reproduced; with neighbours alone, only then; else refuted.
    """
    share = {
        name: 100 * (1 - float(attention_mask(1000, keys, rows).mean()))
        for name, keys, rows in (
            ("neighbours", 0, False),
            ("keys", 100, False),
            ("both", 100, True),
        )
    }
    verdict = "reproduced" if 97 <= share["keys"] <= 98 else "refuted"
    if verdict == "refuted" and 97 <= share["neighbours"] <= 98:
        verdict = "holds only when there are no key residues"
    return Measured(
        share["keys"], "%", share["both"], share["neighbours"], verdict,
        f"Neighbours alone leave out {share['neighbours']:.1f} %, with key residues that all "
        f"attend to {share['keys']:.1f} %, with key residues that attend to all too "
        f"{share['both']:.1f} %.",
    )  # fmt: skip


def attention_growth() -> Measured:
    """Exponent of the pairs attended to from 2000 to 8000 residues.

    Rule: an exponent up to 1.1 with 10 % key residues, reproduced; with 100 of them, only then;
    else refuted.
    """

    def slope(keys_at: dict[int, int]) -> float:
        low, high = (int(attention_mask(n, k, False).sum()) for n, k in keys_at.items())
        return math.log(high / low) / math.log(4)

    tenth, fixed = slope({2000: 200, 8000: 800}), slope({2000: 100, 8000: 100})
    verdict = "reproduced" if tenth <= 1.1 else "refuted"
    if tenth > 1.1 >= fixed:
        verdict = "holds only when the number of key residues does not grow with the length"
    return Measured(
        tenth, "exponent", min(tenth, fixed), max(tenth, fixed), verdict,
        f"Exponent {tenth:.2f} with 10 % key residues, {fixed:.2f} with 100 at every length.",
    )  # fmt: skip


def attention_memory() -> Measured:
    """Memory of the pairs attended to against all pairs, at 1000 residues.

    Rule: 33 times less within 10 %, for the pattern of 32 neighbours and 10 % key residues, no
    indices and no random samples counted: reproduced; else refuted.
    """
    kept = float(attention_mask(1000, 100, False).mean())
    indexed = 4 / (kept * 8)
    return Measured(
        1 / kept, "x", None, None, "reproduced" if 29.7 <= 1 / kept <= 36.3 else "refuted",
        f"The pattern keeps {kept:.1%} of the pairs: {1 / kept:.1f} times less without indices, "
        f"{indexed:.1f} times with a 32-bit index beside each FP32 score. All pairs of 16 heads "
        f"take {16 * 4e6 / 1e6:.0f} MB in FP32; 256 MB is 256 bytes for a pair, though scores do "
        "not grow with the width.",
    )  # fmt: skip
