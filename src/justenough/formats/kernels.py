"""What the two routes of rounding, NumPy and Numba, both offer, and who takes which."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from justenough.compiled import has_numba, pays
from justenough.errors import InputError
from justenough.formats.format import Bits, Floats

Route = Literal["plain", "fast"]
SIGN = np.uint32(0x80000000)
MAGNITUDE = np.uint32(0x7FFFFFFF)
INFINITY = np.uint32(0x7F800000)
NAN = np.uint32(0x7FC00000)
_forced: ContextVar[Route | None] = ContextVar("_forced", default=None)


class FloatGrid(NamedTuple):
    """A narrow float format in the terms of float32 bit patterns without their sign.

    Attributes:
        shift: Mantissa bits that are dropped, 23 - mantissa_bits.
        low: Pattern of the smallest normal number; 0 when float32's own subnormals do.
        magic: 2**shift times the smallest normal number; adding and subtracting it rounds a
            smaller number to the subnormal step, as float32 addition rounds to nearest even.
        step: The subnormal step, in float64 as it may be a subnormal float32.
        top: Pattern of the largest finite number.
        over: Pattern that stands for anything above `top`.
    """

    shift: np.uint32
    low: np.uint32
    magic: np.float32
    step: np.float64
    top: np.uint32
    over: np.uint32


class LogGrid(NamedTuple):
    """A logarithmic format: where one octave of mantissas is cut, and the values between.

    Attributes:
        fraction: Bits behind the binary point of the logarithm.
        largest: Largest logarithm, in steps of 2**-fraction.
        half: Pattern of half the smallest value; up to it everything is 0.
        cuts: Mantissas (23-bit integers) from which on the next logarithm is nearer, and a last
            one that none reaches, shape (2**fraction + 1,).
        first: Cuts at or below the first mantissa of each of 2**(fraction + 1) equal parts.
        mantissas: Float32 mantissa of 2**(k / 2**fraction), shape (2**fraction,).
    """

    fraction: np.int32
    largest: np.int32
    half: np.uint32
    cuts: NDArray[np.int32]
    first: NDArray[np.int32]
    mantissas: NDArray[np.int32]


@dataclass(frozen=True)
class Kernels:
    """One route. Arrays are contiguous; (outer, groups, inner) has one scale for each group.

    Attributes:
        round_float: (bits, out bits, grid) -> NaNs met. Nearest, ties to even.
        draw_float: (bits, noise, out bits, grid) -> NaNs met. Up with probability equal to the
            fraction of the step, of which `noise`, uniform uint32, decides.
        largest: bits (outer, groups, inner) -> largest pattern of |x| of each group, (groups,).
        round_scaled_float: (x, scales, out, grid); x / scale is rounded and scaled back.
        round_scaled_int: (x, scales, zeros, (lowest, highest), out); the same for integers.
        round_log: (bits, out bits, grid) -> NaNs met.
    """

    round_float: Callable[[Bits, Bits, FloatGrid], int]
    draw_float: Callable[[Bits, Bits, Bits, FloatGrid], int]
    largest: Callable[[Bits], Bits]
    round_scaled_float: Callable[[Floats, Floats, Floats, FloatGrid], None]
    round_scaled_int: Callable[[Floats, Floats, Floats, tuple[float, float], Floats], None]
    round_log: Callable[[Bits, Bits, LogGrid], int]


def kernels(size: int) -> Kernels:
    """The route for an array of `size` values: Numba's where it is installed and pays."""
    route = _forced.get()
    if route == "fast" or (route is None and pays(size)):
        from justenough.formats import fast

        return fast.compiled()
    from justenough.formats import plain

    return plain.PLAIN


@contextmanager
def only(route: Route) -> Iterator[None]:
    """Take one route for all sizes within the block; both give the same bits.

    Raises:
        InputError: The fast route is asked for and Numba is not installed.
    """
    if route == "fast" and not has_numba():
        raise InputError("numba is not installed; take the plain route or install numba")
    token = _forced.set(route)
    try:
        yield
    finally:
        _forced.reset(token)
