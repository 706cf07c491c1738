"""How good decisions are where labels say so: accuracy and AUC."""

import contextlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from justenough.core.contract import Clause
from justenough.core.judge import correct, positive
from justenough.core.subject import Outputs
from justenough.errors import InputError
from justenough.stats.auc import auc

Array = NDArray[Any]


def quality(clause: Clause, outputs: Outputs, labels: Array) -> dict[str, float]:
    """Accuracy, and AUC for a single score, of the clause's decision on labelled rows.

    Args:
        clause: Says which output decides, and how.
        outputs: Arrays by name, each (n, ...).
        labels: (n,) classes, or 0 and 1 for a score; negative means no label.
    """
    keep = labels.astype(np.int64) >= 0
    if not keep.any():
        return {}
    rows = {k: v[keep] for k, v in outputs.items()}
    truth = labels[keep].astype(np.int64)
    out = {"rows": float(keep.sum())}
    with contextlib.suppress(InputError):
        out["accuracy"] = float(correct(clause, rows, truth).mean())
        if clause.is_score(rows):
            out["auc"] = float(auc(positive(clause, truth), clause.score(rows)))
    return out
