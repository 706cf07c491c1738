"""Logarithmic numbers: a sign and a fixed-point logarithm; products are sums."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from justenough.compiled import spread
from justenough.errors import InputError
from justenough.formats import packing
from justenough.formats.format import (
    Coded,
    Floats,
    Shape,
    as_floats,
    checked_length,
    count_of,
    refuse_nan,
    room_for,
    shape_of,
)
from justenough.formats.kernels import MAGNITUDE, SIGN, LogGrid, kernels

# Largest errors of `LogFormat.add` in log2 of the result, before it is rounded to the grid.
ADD_ERROR = math.log2(1.5) - 0.5
SUBTRACT_ERROR = 2 - 1 / math.log(2)
_GUARD = 12
_DRAWN = 1 << 16
Logs = NDArray[np.int64]


@dataclass(frozen=True)
class LogFormat:
    """Numbers +-2**(k / 2**fraction_bits) with an integer k, and signed zeros.

    Nearest is nearest in the logarithm: the ratio of result to value is within
    2**(+-2**-(fraction_bits + 1)); no float32 lies on a tie. What is above `largest`, and an
    infinity, becomes `largest`; up to half of `smallest` becomes 0. NaN is refused. A decoded
    value is the float32 nearest to the power (Coleman et al. 2000, "Arithmetic on the European
    Logarithmic Microprocessor", doi:10.1109/12.863040, describes the system).

    Attributes:
        integer_bits: Bits of k / 2**fraction_bits before the point with its sign, 2 to 7.
        fraction_bits: Bits behind the point, 1 to 12; with the sign of the number 16 in all.

    Raises:
        InputError: The widths cannot be had.

    >>> LogFormat(4, 1).round(np.float32([1.1, 1.5, -3.0, 0.0]))
    array([ 1.       ,  1.4142135, -2.828427 ,  0.       ], dtype=float32)
    """

    integer_bits: int
    fraction_bits: int

    def __post_init__(self) -> None:
        if not (2 <= self.integer_bits <= 7 and 1 <= self.fraction_bits <= 12) or self.bits > 16:
            raise InputError(
                f"{self.integer_bits} integer and {self.fraction_bits} fraction bits; give 2 to 7 "
                "and 1 to 12, at most 15 together"
            )

    @property
    def name(self) -> str:
        """`lns` and the bits of a code."""
        return f"lns{self.bits}"

    @property
    def bits(self) -> int:
        """Bits of one code: sign, then the logarithm; its most negative pattern is 0."""
        return 1 + self.integer_bits + self.fraction_bits

    @property
    def highest(self) -> int:
        """Largest k; the smallest is its negative."""
        return int(2 ** (self.integer_bits + self.fraction_bits - 1)) - 1

    @property
    def largest(self) -> float:
        """Largest number."""
        return float(self._values(np.array(self.highest)))

    @property
    def smallest(self) -> float:
        """Smallest positive number."""
        return float(self._values(np.array(-self.highest)))

    def round(
        self,
        x: Floats,
        *,
        rng: np.random.Generator | None = None,
        out: Floats | None = None,
        threads: int = 1,
    ) -> Floats:
        """Round to the number with the nearest logarithm, or stochastically.

        Stochastic: one of the two neighbours with the chances that make the mean of the values
        (not of the logarithms) `x`, within 2**-32 of their distance.

        Args:
            x: Any shape, any unit; float32, or a type that float32 holds exactly.
            rng: Draws the neighbours; None rounds to nearest.
            out: Where the result goes, contiguous float32 of that shape; may be `x` itself.
            threads: Threads to use; stochastic rounding takes one.

        Raises:
            InputError: `x` or `out` has a type or shape that does not do, or there is NaN (`out`
                may have been written to).
        """
        x = as_floats(x)
        out = room_for(x, out)
        u, v = x.reshape(-1).view(np.uint32), out.reshape(-1).view(np.uint32)
        route, grid = kernels(x.size), log_grid(self)
        if rng is not None:
            refuse_nan(int(np.isnan(x).sum()), self.name)
            for i in range(0, u.size, _DRAWN):
                v[i : i + _DRAWN] = self._drawn(u[i : i + _DRAWN], rng)
            return out
        nans = sum(spread(lambda s: route.round_log(u[s], v[s], grid), u.size, threads))
        refuse_nan(nans, self.name)
        return out

    def encode(self, x: Floats, *, rng: np.random.Generator | None = None) -> Coded:
        """Round `x` and return codes of its shape: the sign on top of a two's complement k."""
        u = self.round(x, rng=rng).view(np.uint32)
        return self._coded(u >> np.uint32(31), self._logs(u & MAGNITUDE))

    def decode(self, coded: Coded) -> Floats:
        """Return the float32 nearest to the power that each code stands for."""
        sign, k = self._taken_apart(coded)
        values = self._values(k)
        return np.where(sign, -values, values)

    def multiply(self, a: Coded, b: Coded) -> Coded:
        """Product of codes of the same shape: exact, unless it saturates or becomes 0."""
        (sign, k), (other, j) = self._taken_apart(a), self._taken_apart(b)
        zero = (k == self._zero) | (j == self._zero)
        return self._coded(sign ^ other, self._settled(np.where(zero, self._zero, k + j)))

    def add(self, a: Coded, b: Coded) -> Coded:
        """Sum of codes of the same shape, by shifts and additions alone: no table.

        With d >= 0 the difference of the logarithms, whole part n and fraction f, the larger
        logarithm grows by log2(1 +- 2**-d). Here 2**-d is taken as 2**-n (1 - f/2) and log2 as
        linear between powers of two (Mitchell 1962, doi:10.1109/TEC.1962.5219391). Before the
        result is rounded to the grid, its log2 is too small by at most `ADD_ERROR` where signs
        agree and by at most `SUBTRACT_ERROR` where they differ, and never too large; a sum
        of opposites is 0.
        """
        (sign, k), (other, j) = self._taken_apart(a), self._taken_apart(b)
        swap = j > k
        k, j = np.where(swap, j, k), np.where(swap, k, j)
        sign, minus = np.where(swap, other, sign), sign ^ other
        one = 1 << self.fraction_bits + _GUARD
        d = k - j
        part = (d & (1 << self.fraction_bits) - 1) << _GUARD
        power = (2 * one - part) >> np.minimum((d >> self.fraction_bits) + 1, 62)
        grown = (k << _GUARD) + np.where(minus == 1, _log2(one - power, one), power)
        total = (grown + (1 << _GUARD - 1)) >> _GUARD
        total = np.where(j == self._zero, k, self._settled(total))
        gone = (minus == 1) & (d == 0) | (k == self._zero)
        return self._coded(np.where(gone, 0, sign), np.where(gone, self._zero, total))

    def packed_bytes(self, coded: Coded) -> bytes:
        """Store codes without gaps."""
        return packing.pack(coded.codes, self.bits).tobytes()

    def from_bytes(self, data: bytes, shape: Shape) -> Coded:
        """Read what `packed_bytes` stored.

        Raises:
            InputError: `data` is not as long as `bytes_of(shape)`.
        """
        raw = checked_length(data, self.bytes_of(shape), self.name, shape)
        return Coded(packing.unpack(raw, self.bits, count_of(shape)).reshape(shape_of(shape)))

    def bytes_of(self, shape: Shape) -> int:
        """Bytes that an array of that shape takes."""
        return packing.packed_size(count_of(shape), self.bits)

    @property
    def _zero(self) -> int:
        return -self.highest - 1

    def _values(self, k: NDArray[Any]) -> Floats:
        grid = log_grid(self)
        within = np.maximum(k, -self.highest).astype(np.int32)
        mantissa = grid.mantissas[within & np.int32((1 << self.fraction_bits) - 1)]
        bits = (((within >> self.fraction_bits) + 127) << 23) | mantissa
        return np.where(k == self._zero, 0, bits).astype(np.int32).view(np.float32)

    def _logs(self, a: NDArray[np.uint32]) -> Logs:
        """The k of patterns that are on the grid."""
        k = np.searchsorted(log_grid(self).mantissas, (a & np.uint32(0x7FFFFF)).astype(np.int32))
        exponent = (a >> np.uint32(23)).astype(np.int64) - 127
        return np.where(a == 0, self._zero, (exponent << self.fraction_bits) + k)

    def _drawn(self, u: NDArray[np.uint32], rng: np.random.Generator) -> NDArray[np.uint32]:
        near = np.empty_like(u)
        a = u & MAGNITUDE
        kernels(u.size).round_log(a, near, log_grid(self))
        k = self._logs(near)
        k = np.where(self._values(k) > a.view(np.float32), k - 1, k)
        k = np.where(a.view(np.float32) < self.smallest, self._zero, k)
        low = self._values(k).astype(np.float64)
        high = self._values(np.minimum(k + 1, self.highest)).astype(np.float64)
        step = np.where(high > low, high - low, 1.0)
        share = np.minimum(a.view(np.float32), self.largest) - low
        up = rng.integers(0, 2**32, u.size, np.uint32) * 2.0**-32 < share / step
        return np.where(up, high, low).astype(np.float32).view(np.uint32) | (u & SIGN)

    def _settled(self, k: Logs) -> Logs:
        """Saturate above; below half the smallest number it is 0."""
        gone = k <= -self.highest - (1 << self.fraction_bits)
        return np.where(gone | (k == self._zero), self._zero, k.clip(-self.highest, self.highest))

    def _coded(self, sign: NDArray[Any], k: Logs) -> Coded:
        width = self.bits - 1
        code = (sign.astype(np.int64) << width) | (k & (1 << width) - 1)
        return Coded(code.astype(np.uint8 if self.bits <= 8 else np.uint16))

    def _taken_apart(self, coded: Coded) -> tuple[Logs, Logs]:
        code, top = coded.codes.astype(np.int64), 1 << self.bits - 2
        return code >> self.bits - 1, ((code & 2 * top - 1) ^ top) - top


def _log2(y: Logs, one: int) -> Logs:
    """Mitchell's log2 of y / one for 0 < y <= one, in fixed point with the same `one`."""
    whole = np.frexp(np.maximum(y, 1).astype(np.float64))[1].astype(np.int64) - 1  # leading bit
    point = one.bit_length() - 1
    fraction = (y << point - whole) - one
    return ((whole - point) << point) + fraction


@lru_cache
def log_grid(form: LogFormat) -> LogGrid:
    """What the kernels need to know of a format."""
    n = 1 << form.fraction_bits
    exact = np.exp2((np.arange(n) + 0.5) / n) - 1
    cuts = np.append(np.ceil(exact * 2**23), 2**23).astype(np.int32)
    first = np.searchsorted(cuts, np.arange(2 * n) << (22 - form.fraction_bits), side="right")
    powers = np.exp2(np.arange(n) / n).astype(np.float32)
    mantissas = (powers.view(np.uint32) & np.uint32(0x7FFFFF)).astype(np.int32)
    smallest = np.exp2(np.float64(-form.highest % n / n)).astype(np.float32)
    half = np.ldexp(smallest, -form.highest // n - 1).astype(np.float32)
    return LogGrid(
        np.int32(form.fraction_bits), np.int32(form.highest), half.view(np.uint32), cuts,
        first.astype(np.int32), mantissas,
    )  # fmt: skip


LNS8 = LogFormat(4, 3)
LNS16 = LogFormat(7, 8)
