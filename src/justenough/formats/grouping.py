"""Which values of an array share a scale."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from justenough.errors import InputError


@dataclass(frozen=True)
class Grouping:
    """One group for the tensor, one for each index of an axis, or blocks along the last axis.

    Arrays are seen as (outer, groups, inner), a copy with zeros behind ragged rows of blocks.

    Attributes:
        axis: Axis whose every index is a group.
        block: So many neighbours along the last axis are a group.
    """

    axis: int | None = None
    block: int | None = None

    def shape(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        """(outer, groups, inner) of an array of that shape, with what is added to its rows.

        Raises:
            InputError: There is no such axis.
        """
        if self.block is not None:
            last = shape[-1] if shape else 1
            rows = math.prod(shape[:-1])
            return 1, rows * -(-last // self.block), self.block
        if self.axis is None:
            return 1, 1, math.prod(shape)
        if not -len(shape) <= self.axis < len(shape):
            raise InputError(f"axis={self.axis} of an array of shape {shape}; it has {len(shape)}")
        k = self.axis % len(shape)
        return math.prod(shape[:k]), shape[k], math.prod(shape[k + 1 :])

    def groups(self, shape: tuple[int, ...]) -> int:
        """Scales that an array of that shape has."""
        return self.shape(shape)[1]

    def ragged(self, shape: tuple[int, ...]) -> bool:
        """Whether rows must be filled up to whole blocks."""
        return self.block is not None and bool((shape[-1] if shape else 1) % self.block)

    def split(self, x: NDArray[Any]) -> NDArray[Any]:
        """`x` as (outer, groups, inner): a view of a contiguous array unless ragged."""
        if self.ragged(x.shape):
            assert self.block is not None
            rows = x.reshape(-1, x.shape[-1] if x.ndim else 1)
            x = np.pad(rows, ((0, 0), (0, -rows.shape[1] % self.block)))
            return x.reshape(1, -1, self.block)
        return x.reshape(self.shape(x.shape))

    def join(self, x3: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        """Take back what `split` did to an array of that shape."""
        if self.ragged(shape):
            last = shape[-1] if shape else 1
            rows = math.prod(shape[:-1])
            return np.ascontiguousarray(x3.reshape(rows, -1)[:, :last]).reshape(shape)
        return x3.reshape(shape)


def cut(shape: tuple[int, ...]) -> int:
    """The axis along which (outer, groups, inner) falls into contiguous parts: the first > 1."""
    return next((k for k, n in enumerate(shape) if n > 1), len(shape) - 1)
