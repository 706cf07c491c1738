"""Rows that stay where they are until they are asked for: cases may be larger than memory."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, SupportsIndex

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
BLOCK_BYTES = 2**24
IN_MEMORY_BYTES = 2**27


class Source(Protocol):
    """What rows are read from: a file, a folder of images, or an array."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of all rows, (n, ...)."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a value."""

    def __getitem__(self, rows: NDArray[np.intp], /) -> Array:
        """The rows at `rows` (k,), each 0 to n - 1, as an array (k, ...) in memory."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Chosen rows of a source: sliced and indexed like an array, read when they are.

    Only the first axis can be indexed. Slices and index arrays give real arrays; `take` and
    `astype` give rows again, and read nothing. NumPy functions see one whole array, in memory.

    Attributes:
        source: Where the rows are.
        index: (n,) rows of the source, in order.
        dtype: Type to give them in.

    >>> rows = Rows.of(np.arange(12).reshape(6, 2)).take(np.array([5, 0, 3]))
    >>> len(rows), rows.shape, rows[1:].tolist()
    (3, (3, 2), [[0, 1], [6, 7]])
    """

    source: Source
    index: NDArray[np.intp]
    dtype: np.dtype[Any]

    @staticmethod
    def of(source: Source) -> "Rows":
        """All rows of `source`, in its own type."""
        return Rows(source, np.arange(source.shape[0]), source.dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape (n, ...)."""
        return (len(self.index), *self.source.shape[1:])

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.source.shape)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, rows: SupportsIndex | slice | Array) -> Array:
        picked = self.index[rows]
        found = np.asarray(self.source[np.atleast_1d(picked)])
        with np.errstate(all="ignore"):  # what does not fit is counted by `not_finite`
            found = found.astype(self.dtype, copy=False)
        return found if np.ndim(picked) else np.asarray(found[0])

    def take(self, rows: Array) -> "Rows":
        """The rows at `rows`, an index or mask array; nothing is read."""
        out = Rows(self.source, self.index[rows], self.dtype)
        if self.__dict__.get("not_finite") == 0:  # known of all, so known of some
            out.__dict__["not_finite"] = 0
        return out

    def astype(self, dtype: np.dtype[Any] | type) -> "Rows":
        """The same rows in another type; nothing is read."""
        return Rows(self.source, self.index, np.dtype(dtype))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return self[:].astype(dtype or self.dtype, copy=False)

    @cached_property
    def not_finite(self) -> int:
        """Number of NaN and infinite values, counted once."""
        return sum(b.size - int(np.count_nonzero(np.isfinite(b))) for b in blocks(self))


Column = Array | Rows


def row_bytes(value: Source | Column) -> int:
    """Bytes of one row."""
    return math.prod(value.shape[1:]) * value.dtype.itemsize


def blocks(value: Column) -> Iterator[Array]:
    """All rows of `value` in order, some at a time, at most BLOCK_BYTES or a single row."""
    for (block,) in blocks_of((value,)):
        yield block


def blocks_of(values: tuple[Column, ...]) -> Iterator[tuple[Array, ...]]:
    """Like `blocks`, for columns of the same length side by side."""
    step = max(1, BLOCK_BYTES // max(sum(row_bytes(v) for v in values), 1))
    for i in range(0, len(values[0]), step):
        yield tuple(np.asarray(v[i : i + step]) for v in values)


def take(value: Column, rows: Array) -> Column:
    """The rows of `value` at `rows`, an index or mask array; of rows on disk none is read."""
    if isinstance(value, np.memmap):
        value = Rows.of(value)
    return value.take(rows) if isinstance(value, Rows) else value[rows]


def not_finite(value: Column) -> int:
    """Number of NaN and infinite values."""
    if value.dtype.kind != "f":
        return 0
    if isinstance(value, Rows):
        return value.not_finite
    return sum(b.size - int(np.count_nonzero(np.isfinite(b))) for b in blocks(value))


def converted(value: Column, dtype: np.dtype[Any] | type) -> Column | None:
    """`value` in another type, or None where that could change what was meant.

    Floats go to floats as long as they stay finite, integers and booleans to integers and
    booleans of the same value; nothing else does. Rows on disk stay there.

    >>> converted(np.array([1, 300]), np.uint8) is None
    True
    """
    want = np.dtype(dtype)
    if value.dtype == want:
        return value
    with np.errstate(all="ignore"):
        out = value.astype(want)
    if value.dtype.kind == want.kind == "f":
        return None if not_finite(out) else out
    if want.kind == "f" or value.dtype.kind not in "iub":
        return None
    same = all(np.array_equal(a, b) for a, b in blocks_of((value, out)))
    return out if same else None
