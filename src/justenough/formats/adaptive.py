"""Two formats in one array: the large values in the wider one, the rest in the narrower."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from justenough.errors import InputError
from justenough.formats.format import (
    Coded,
    Floats,
    Format,
    Shape,
    as_floats,
    count_of,
    room_for,
    shape_of,
)
from justenough.formats.kernels import MAGNITUDE
from justenough.formats.packing import packed_size
from justenough.formats.snr import snr_db

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Spent:
    """What an adaptive format took for an array.

    Attributes:
        bits_per_value: Stored bits, with the flags and all scales, over the number of values.
        wide_share: Part of the values in the wider format.
        cut: Smallest magnitude there, in the array's unit; infinity where there is none.
        snr_db: Power of the array over that of the error, in dB.
    """

    bits_per_value: float
    wide_share: float
    cut: float
    snr_db: float


@dataclass(frozen=True)
class AdaptiveFormat:
    """The values of largest magnitude in `wide`, the others in `narrow`, and a bit to say which.

    Both formats see their own values as one vector in C order, so a scale found in the data
    follows only them: without the large values the narrow scale is finer. (Outliers kept apart
    in a wider format: Dettmers et al. 2024, "SpQR", arXiv:2306.03078.)

    Attributes:
        wide: Format of the large values.
        narrow: Format of the rest.
        share: Part of the values that is wide, in [0, 1], rounded up to whole values; of equal
            magnitudes the first are wide.
        cut: Or the magnitude from which on values are wide, in the array's unit.

    Raises:
        InputError: Both or none of `share` and `cut` are given, or one is out of range.

    >>> from justenough.formats.floats import BF16
    >>> from justenough.formats.integers import IntFormat
    >>> AdaptiveFormat(BF16, IntFormat(4), share=0.2).round(np.float32([100, 7, 3.2, -1, 0]))
    array([100.,   7.,   3.,  -1.,   0.], dtype=float32)
    """

    wide: Format
    narrow: Format
    share: float | None = None
    cut: float | None = None

    def __post_init__(self) -> None:
        if (self.share is None) == (self.cut is None):
            raise InputError(f"share={self.share} and cut={self.cut}; give one of them")
        if self.share is not None and not 0 <= self.share <= 1:
            raise InputError(f"share={self.share} is outside [0, 1]; give a part of the values")
        if self.cut is not None and not self.cut >= 0:
            raise InputError(f"cut={self.cut}; give a magnitude, 0 or more")

    @property
    def name(self) -> str:
        """Both names."""
        return f"{self.wide.name}+{self.narrow.name}"

    @property
    def bits(self) -> int:
        """Bits of the longest code with its flag; `spent` says what values take on average."""
        return 1 + max(self.wide.bits, self.narrow.bits)

    def round(
        self,
        x: Floats,
        *,
        rng: np.random.Generator | None = None,
        out: Floats | None = None,
        threads: int = 1,
    ) -> Floats:
        """Round each value in its format; `rng` serves the wide values first.

        Args:
            x: Any shape, any unit; float32, or a type that float32 holds exactly.
            rng: Draws neighbours; None rounds to nearest.
            out: Where the result goes, contiguous float32 of that shape; may be `x` itself.
            threads: Threads that the two formats may use.

        Raises:
            InputError: What one of the formats refuses.
        """
        x = as_floats(x)
        out = room_for(x, out)
        large = self._large(x)
        wide = self.wide.round(x[large], rng=rng, threads=threads)
        narrow = self.narrow.round(x[~large], rng=rng, threads=threads)
        out[large], out[~large] = wide, narrow
        return out

    def encode(self, x: Floats, *, rng: np.random.Generator | None = None) -> Coded:
        """Round `x`; codes are the flags (1 is wide), parts the wide and the narrow vector."""
        x = as_floats(x)
        large = self._large(x)
        parts = (self.wide.encode(x[large], rng=rng), self.narrow.encode(x[~large], rng=rng))
        return Coded(large.astype(np.uint8), parts=parts)

    def decode(self, coded: Coded) -> Floats:
        """Return the values of codes, in their shape."""
        large = coded.codes.astype(bool)
        values = np.empty(large.shape, np.float32)
        values[large] = self.wide.decode(coded.parts[0])
        values[~large] = self.narrow.decode(coded.parts[1])
        return values

    def packed_bytes(self, coded: Coded) -> bytes:
        """Store the flags, eight to a byte, then the wide part, then the narrow one."""
        flags = np.packbits(coded.codes.ravel(), bitorder="little").tobytes()
        wide, narrow = coded.parts
        return flags + self.wide.packed_bytes(wide) + self.narrow.packed_bytes(narrow)

    def from_bytes(self, data: bytes, shape: Shape) -> Coded:
        """Read what `packed_bytes` stored.

        Raises:
            InputError: `data` is not as long as its flags say.
        """
        n = count_of(shape)
        end = packed_size(n, 1)
        if len(data) < end:
            raise InputError(f"got {len(data)} bytes; the flags of {n} values take {end}")
        flags = np.unpackbits(np.frombuffer(data[:end], np.uint8), bitorder="little")[:n]
        wide = int(flags.sum())
        middle = end + self.wide.bytes_of(wide)
        parts = (
            self.wide.from_bytes(data[end:middle], wide),
            self.narrow.from_bytes(data[middle:], n - wide),
        )
        return Coded(flags.reshape(shape_of(shape)), parts=parts)

    def bytes_of(self, shape: Shape) -> int:
        """Bytes that an array of that shape takes, with flags and scales.

        Raises:
            InputError: With a `cut` that depends on the values.
        """
        if self.share is None:
            raise InputError("how many values reach the cut depends on the data; ask spent(x)")
        n = count_of(shape)
        wide = math.ceil(self.share * n)
        return packed_size(n, 1) + self.wide.bytes_of(wide) + self.narrow.bytes_of(n - wide)

    def spent(self, x: Floats, *, rng: np.random.Generator | None = None) -> Spent:
        """Say what `x` takes on average and how far it is off.

        Raises:
            InputError: `x` is empty, or what one of the formats refuses.
        """
        if not np.size(x):
            raise InputError("x has no values; give at least 1")
        coded = self.encode(x, rng=rng)
        large = coded.codes.astype(bool)
        stored = len(self.packed_bytes(coded))
        return Spent(
            bits_per_value=8 * stored / large.size,
            wide_share=float(large.mean()),
            cut=float(np.abs(np.asarray(x)[large]).min(initial=np.inf)),
            snr_db=snr_db(x, self.decode(coded)),
        )

    def _large(self, x: Floats) -> Mask:
        """Which values are wide; a NaN is larger than all."""
        a = x.view(np.uint32) & MAGNITUDE
        if self.share is None:
            assert self.cut is not None
            large: Mask = ~(np.abs(x) < np.float64(self.cut))
            return large
        count = math.ceil(self.share * x.size)
        if count == 0:
            return np.zeros(x.shape, bool)
        flat = a.reshape(-1)
        least = np.partition(flat, flat.size - count)[flat.size - count]
        large = flat > least
        ties = np.flatnonzero(flat == least)[: count - int(large.sum())]
        large[ties] = True
        return large.reshape(x.shape)
