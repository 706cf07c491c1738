"""A set of whole numbers below n, one bit each: the neurons that ever fired."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from justenough.errors import InputError


class BitSet:
    """A set of the numbers 0..n-1 in ceil(n / 8) bytes.

    Attributes:
        n: Numbers it may hold are below n.
        bytes: Bit i % 8 of byte i // 8 says whether i is in, uint8.

    >>> fired = BitSet(100)
    >>> fired.add([3, 99, 3])
    >>> fired.holds([2, 3, 99]).tolist(), len(fired)
    ([False, True, True], 2)
    """

    def __init__(self, n: int) -> None:
        if n < 0:
            raise InputError(f"n={n}; give 0 or more")
        self.n = n
        self.bytes = np.zeros(-(-n // 8), np.uint8)

    def __len__(self) -> int:
        """How many numbers are in."""
        return int(np.bitwise_count(self.bytes).sum(dtype=np.int64))

    def add(self, ids: ArrayLike) -> None:
        """Put numbers in; those that are in stay.

        Raises:
            InputError: A number is not in 0..n-1.
        """
        places, bits = self._at(ids)
        np.bitwise_or.at(self.bytes, places, bits)

    def holds(self, ids: ArrayLike) -> NDArray[np.bool_]:
        """Return for each number whether it is in; shape kept.

        Raises:
            InputError: A number is not in 0..n-1.
        """
        places, bits = self._at(ids)
        held: NDArray[np.bool_] = (self.bytes[places] & bits) != 0
        return held

    def members(self) -> NDArray[np.int64]:
        """Return the numbers that are in, increasing."""
        used = np.flatnonzero(self.bytes)
        bits = np.unpackbits(self.bytes[used, None], axis=1, bitorder="little")
        row, bit = np.nonzero(bits)
        return used[row] * 8 + bit

    def _at(self, ids: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        array = np.asarray(ids)
        if array.size == 0:
            array = array.astype(np.int64)
        if array.dtype.kind not in "iu":
            raise InputError(f"the set holds whole numbers, not {array.dtype}")
        if array.size and not (int(array.min()) >= 0 and int(array.max()) < self.n):
            raise InputError(f"numbers from {array.min()} to {array.max()}; the set has {self.n}")
        whole = array.astype(np.int64)
        return whole >> 3, np.left_shift(np.uint8(1), (whole & 7).astype(np.uint8))
