"""The gate of a cascade: which rows are too unsure for the cheap stage."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Gate:
    """A margin on one output; rows whose margin is at most `threshold` are deferred.

    Attributes:
        output: Name of the output that the margin is read from.
        kind: `top_k`: k-th largest minus (k+1)-th largest value along `axis` (k = 1 is the
            classification margin; k = number of values has no rest, so nothing is unsure);
            `cut`: distance of a score from `cut`.
        axis: Class axis of a `top_k` output; further axes take the smallest margin of a row.
        column: For `cut`, the column of an (n, columns) output that holds the score; None
            takes every value and the smallest distance of a row.
        threshold: In the output's unit. A margin that ties with it is deferred, and so is
            one that is not a number: unsure is unsure.

    >>> gate = Gate("y", threshold=0.5)
    >>> gate.deferred({"y": np.float32([[0, 2], [1, 1.25], [1, 1.5]])})
    array([False,  True,  True])
    """

    output: str
    kind: Literal["top_k", "cut"] = "top_k"
    k: int = 1
    axis: int = 1
    cut: float = 0.0
    column: int | None = None
    threshold: float = 0.0

    def margin(self, outputs: Mapping[str, Array]) -> NDArray[np.float32]:
        """Per row (n,), how far the decision is from changing, in the output's unit."""
        y = np.asarray(outputs[self.output], np.float32)
        if self.kind == "cut":
            score = y if self.column is None else y[:, self.column]
            return _row_min(np.abs(score - np.float32(self.cut)))
        y = np.moveaxis(y, self.axis, -1)
        if y.shape[-1] <= self.k:
            return np.full(len(y), np.inf, np.float32)
        top = np.partition(y, (-self.k - 1, -self.k), axis=-1)
        gap = top[..., -self.k] - top[..., -self.k - 1]
        return _row_min(np.where(np.isnan(y).any(-1), np.float32(np.nan), gap))

    def signed(self, reference: Mapping[str, Array], outputs: Mapping[str, Array]) -> Array:
        """Per row (n,), the margin by which `outputs` keep the decision of `reference`.

        Negative where the decision has changed; equal to `margin` where it has not.
        """
        ref, out = (np.asarray(o[self.output], np.float32) for o in (reference, outputs))
        if self.kind == "cut":
            if self.column is not None:
                ref, out = ref[:, self.column], out[:, self.column]
            side = np.where(ref > self.cut, 1, -1).astype(np.float32)
            return _row_min(side * (out - np.float32(self.cut)))
        ref, out = np.moveaxis(ref, self.axis, -1), np.moveaxis(out, self.axis, -1)
        if ref.shape[-1] <= self.k:
            return np.full(len(ref), np.inf, np.float32)
        order = np.argsort(-ref, axis=-1, kind="stable")
        ranked = np.take_along_axis(out, order, -1)
        return _row_min(ranked[..., : self.k].min(-1) - ranked[..., self.k :].max(-1))

    def deferred(self, outputs: Mapping[str, Array]) -> NDArray[np.bool_]:
        """Per row (n,), whether the exact stage has to answer it."""
        return ~(self.margin(outputs) > np.float32(self.threshold))


def _row_min(x: Array) -> NDArray[np.float32]:
    return np.asarray(x.reshape(len(x), -1).min(1), np.float32)
