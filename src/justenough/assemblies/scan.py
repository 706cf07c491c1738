"""One pass over values, for Numba to compile: those that reach a bound, and counts of values.

Values are compared as whole numbers of their own width, their keys, which vector instructions
take a maximum of: a float's bits as a signed number, with the lower bits of negative ones turned
round, moved so that -inf has key 0. Then NaN, and nothing else, is above +inf. Of a block only
the maximum is looked at, unless it reaches the bound. Arguments are untyped on purpose: Numba
specialises on what it is given.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from justenough.compiled import jit

BLOCK = 256
_DIGITS = 16
BINS = 1 << _DIGITS
_MASK = np.uint32(BINS - 1)
_LOW16, _LAST16, _MOVE16 = np.uint16(0x7FFF), np.int16(15), np.uint16(0x7C01)
_LOW32, _LAST32, _MOVE32 = np.uint32(0x7FFFFFFF), np.int32(31), np.uint32(0x7F800001)


class Scan(NamedTuple):
    """Compiled loops over bits (n,), as `bits` gives them, of one type of values.

    Attributes:
        collect: (bits, bound, out (m,)); writes where keys reach the bound, increasing, and
            returns (bits looked at, places written). A block that does not fit is left.
        tally: (bits, shift, high, counts (BINS,)); adds, for each key whose part above
            shift + 16 bits is `high`, one to the count of the 16 bits below that.
    """

    collect: Callable[..., tuple[int, int]]
    tally: Callable[..., None]


def bits(values: NDArray[Any]) -> NDArray[Any]:
    """The values (n,) as unsigned numbers of their width, without a copy."""
    return values.view(f"u{values.dtype.itemsize}")


def key_of(value: float, dtype: Any) -> Any:
    """The key of the smallest number of a type that is at least `value`.

    >>> int(key_of(2.5, np.dtype(np.uint8))), int(key_of(-np.inf, np.dtype(np.float16)))
    (3, 0)
    """
    if dtype.kind == "u":
        return dtype.type(np.ceil(value))
    with np.errstate(over="ignore"):
        near = dtype.type(value)
    if float(near) < value:
        near = np.nextafter(near, dtype.type(np.inf))
    # Both zeros are equal, and the key of -0 is the smaller one.
    number = int(bits(np.array([near if near else -0.0], dtype))[0])
    width, move = 8 * dtype.itemsize, int(_MOVE16 if dtype.itemsize == 2 else _MOVE32)
    if number >> (width - 1):
        number ^= (1 << (width - 1)) - 1
    return np.dtype(f"u{dtype.itemsize}").type((number + move) % (1 << width))


def value_of(key: int, dtype: Any) -> float:
    """The value that has a key; NaN for a key above that of +inf."""
    if dtype.kind == "u":
        return float(key)
    width, move = 8 * dtype.itemsize, int(_MOVE16 if dtype.itemsize == 2 else _MOVE32)
    number = (key - move) % (1 << width)
    if number >> (width - 1):
        number ^= (1 << (width - 1)) - 1
    return float(np.array([number], f"u{dtype.itemsize}").view(dtype)[0])


def _whole(x: Any) -> Any:
    return x


def _half(x: Any) -> Any:
    turned = np.uint16(np.int16(x) >> _LAST16) & _LOW16
    return np.uint16(np.uint16(x ^ turned) + _MOVE16)


def _single(x: Any) -> Any:
    turned = np.uint32(np.int32(x) >> _LAST32) & _LOW32
    return np.uint32(np.uint32(x ^ turned) + _MOVE32)


def _collector(key: Callable[[Any], Any]) -> Callable[..., Any]:
    def collect(bits: Any, bound: Any, out: Any) -> Any:
        number = 0
        # Slices, because a vector loop needs indices that are known not to be negative.
        for begin in range(0, bits.size, BLOCK):
            block = bits[begin : begin + BLOCK]
            top = bound - bound
            for i in range(block.size):
                top = max(top, key(block[i]))
            if top < bound:
                continue
            if number + block.size > out.size:
                return begin, number
            for i in range(block.size):
                if key(block[i]) >= bound:
                    out[number] = begin + i
                    number += 1
        return bits.size, number

    return jit(collect)


def _tallier(key: Callable[[Any], Any]) -> Callable[..., Any]:
    def tally(bits: Any, shift: Any, high: Any, counts: Any) -> None:
        for i in range(bits.size):
            above = np.uint32(key(bits[i])) >> shift
            if above >> np.uint32(_DIGITS) == high:
                counts[above & _MASK] += 1

    return jit(tally)


@lru_cache
def loops(kind: str) -> Scan:
    """The compiled loops for values of a type, named as NumPy names it; Numba is needed."""
    from numba.extending import register_jitable

    key = register_jitable({"float16": _half, "float32": _single}.get(kind, _whole))
    return Scan(_collector(key), _tallier(key))
