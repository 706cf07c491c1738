"""What every number grid can do, and what an encoded array is made of."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from justenough.errors import InputError

Floats = NDArray[np.float32]
Bits = NDArray[np.uint32]
Shape = int | Sequence[int]


@dataclass(frozen=True, eq=False)
class Coded:
    """An array as integer codes, with what the codes share.

    Attributes:
        codes: Unsigned integers, one a value, in the array's shape. A value that takes fewer bits
            than its integer type stands in the low bits; `packed_bytes` stores it in its bits.
        scales: What codes share, in the order in which it is stored: scales, then zero points
            of integers or the tensor's scale of blocks.
        parts: Arrays coded on their own, of formats that mix others.
    """

    codes: NDArray[Any]
    scales: tuple[NDArray[Any], ...] = ()
    parts: tuple["Coded", ...] = ()


class Format(Protocol):
    """A grid of numbers. `rng` None rounds to nearest, ties to even; otherwise stochastically."""

    @property
    def name(self) -> str:
        """The field's own word."""

    @property
    def bits(self) -> int:
        """Bits of one code, without what codes share."""

    def encode(self, x: Floats, *, rng: np.random.Generator | None = None) -> Coded:
        """Round `x` and return its codes."""

    def decode(self, coded: Coded) -> Floats:
        """Return the values of codes, in their shape."""

    def round(
        self,
        x: Floats,
        *,
        rng: np.random.Generator | None = None,
        out: Floats | None = None,
        threads: int = 1,
    ) -> Floats:
        """Return what decode(encode(x)) returns, bit for bit, without making the codes."""

    def packed_bytes(self, coded: Coded) -> bytes:
        """Store codes without gaps, then all that they share."""

    def from_bytes(self, data: bytes, shape: Shape) -> Coded:
        """Read what `packed_bytes` stored of an array of that shape."""

    def bytes_of(self, shape: Shape) -> int:
        """Bytes that an array of that shape takes (an int is a vector), with all scales."""


def as_floats(x: NDArray[Any]) -> Floats:
    """Return `x` as contiguous float32, without rounding it.

    Raises:
        InputError: A float32 cannot hold every value of that type; rounding twice is not
            rounding once, so the caller must choose the first rounding.
    """
    x = np.asarray(x)
    if not np.can_cast(x.dtype, np.float32, "safe"):
        raise InputError(f"x holds {x.dtype}; cast it to float32 first")
    return np.asarray(x, np.float32, order="C")


def room_for(x: Floats, out: Floats | None) -> Floats:
    """Return `out` when the rounded `x` fits in it, or a new array when it is None.

    Raises:
        InputError: `out` has another shape or type, or is not contiguous.
    """
    if out is None:
        return np.empty(x.shape, np.float32)
    if out.shape != x.shape or out.dtype != np.float32 or not out.flags.c_contiguous:
        raise InputError(
            f"out is {out.dtype} of shape {out.shape}; give contiguous float32 of shape {x.shape}"
        )
    return out


def shape_of(shape: Shape) -> tuple[int, ...]:
    """Return a shape as a tuple; an int is a vector."""
    return (shape,) if isinstance(shape, int) else tuple(shape)


def count_of(shape: Shape) -> int:
    """Values in an array of that shape."""
    return math.prod(shape_of(shape))


def refuse_nan(count: int, name: str) -> None:
    """Say that a format has no code for the `count` NaNs that were met.

    Raises:
        InputError: `count` is not 0.
    """
    if count:
        raise InputError(f"x has {count} NaN and {name} has no code for it; mask them first")


def refuse_non_finite(x: Floats) -> None:
    """Say how many values no scale can reach.

    Raises:
        InputError: `x` has NaN or infinities.
    """
    bad = x.size - int(np.isfinite(x).sum())
    if bad:
        raise InputError(f"x (shape {x.shape}) has {bad} non-finite values; clip or mask them")


def checked_length(data: bytes, due: int, name: str, shape: Shape) -> NDArray[np.uint8]:
    """Return stored bytes as an array when there are as many as are due.

    Raises:
        InputError: There are fewer or more.
    """
    if len(data) != due:
        raise InputError(f"got {len(data)} bytes; {name} of shape {shape_of(shape)} takes {due}")
    return np.frombuffer(data, np.uint8)
