"""Floating point of at most 16 bits: fp16, bf16, fp8, fp6, fp4."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from justenough.compiled import spread
from justenough.errors import InputError
from justenough.formats import packing
from justenough.formats.format import (
    Bits,
    Coded,
    Floats,
    Shape,
    as_floats,
    count_of,
    refuse_nan,
    room_for,
    shape_of,
)
from justenough.formats.kernels import INFINITY, MAGNITUDE, NAN, FloatGrid, kernels

# Noise is drawn for so many values at once: the same numbers whatever the route.
_DRAWN = 1 << 16


@dataclass(frozen=True)
class FloatFormat:
    """Sign, exponent and mantissa, with subnormals and signed zeros.

    A rounded value above `largest` overflows: with `overflow` "saturate" it becomes `largest`,
    and so does an infinity (OCP 8-bit Floating Point v1.0, saturating conversion; ONNX Cast with
    saturate=1); with "special" it becomes infinity, or NaN where there is no infinity. "Above" is
    after rounding: what would round to the next number, were there one, overflows. NaN stays
    NaN with its sign; where there is none, it is refused. Zeros keep their sign.

    Attributes:
        name: The field's own word.
        exponent_bits: 2 to 8.
        mantissa_bits: Stored bits, at least 1; with sign and exponent at most 16.
        bias: What is taken from the stored exponent.
        has_inf: The top exponent holds infinities and NaNs, as in IEEE 754.
        has_nan: There is a NaN: without infinities only the code with all bits set ("fn").
        overflow: "saturate" or "special".

    Raises:
        InputError: The widths, the range or the overflow cannot be had.

    >>> FP8_E4M3.round(np.float32([0.3, -17, 1000])).tolist()
    [0.3125, -16.0, 448.0]
    """

    name: str
    exponent_bits: int
    mantissa_bits: int
    bias: int
    has_inf: bool = False
    has_nan: bool = True
    overflow: Literal["saturate", "special"] = "saturate"

    def __post_init__(self) -> None:
        if not (2 <= self.exponent_bits <= 8 and self.mantissa_bits >= 1 and self.bits <= 16):
            raise InputError(
                f"{self.name} has {self.exponent_bits} exponent and {self.mantissa_bits} mantissa "
                "bits; give 2 to 8 and at least 1, with the sign 16 in all"
            )
        if not (1 - self.bias >= -126 and self.highest_exponent <= 127):
            raise InputError(f"{self.name} with bias {self.bias} does not fit in float32's range")
        if self.has_inf and not self.has_nan:
            raise InputError(f"{self.name} has infinities without NaN; give has_nan=True too")
        if self.overflow == "special" and not self.has_nan:
            raise InputError(f"{self.name} has nothing special to overflow to; let it saturate")

    @property
    def bits(self) -> int:
        """Bits of one code."""
        return 1 + self.exponent_bits + self.mantissa_bits

    @property
    def highest_exponent(self) -> int:
        """Exponent of the largest number (emax)."""
        return (1 << self.exponent_bits) - 1 - self.has_inf - self.bias

    @property
    def largest(self) -> float:
        """Largest finite number."""
        top = 2**self.mantissa_bits - 1 - (self.has_nan and not self.has_inf)
        return math.ldexp(1 + top / 2**self.mantissa_bits, self.highest_exponent)

    @property
    def smallest_normal(self) -> float:
        """Smallest number that has all its mantissa bits."""
        return math.ldexp(1.0, 1 - self.bias)

    @property
    def smallest(self) -> float:
        """Smallest positive number: the subnormal step."""
        return math.ldexp(self.smallest_normal, -self.mantissa_bits)

    @property
    def grid(self) -> FloatGrid:
        """What the kernels need to know."""
        low = np.float32(self.smallest_normal)
        top = np.float32(self.largest)
        shift = 23 - self.mantissa_bits
        over = top.view(np.uint32)
        if self.overflow == "special":
            over = INFINITY if self.has_inf else NAN
        return FloatGrid(
            np.uint32(shift),
            np.uint32(0) if self.bias == 127 else low.view(np.uint32),
            np.float32(math.ldexp(self.smallest_normal, shift)),
            np.float64(self.smallest),
            top.view(np.uint32),
            over,
        )

    def round(
        self,
        x: Floats,
        *,
        rng: np.random.Generator | None = None,
        out: Floats | None = None,
        threads: int = 1,
    ) -> Floats:
        """Round to the nearest number of the grid, ties to even, or stochastically.

        Stochastic: one of the two neighbours, the upper with probability equal to the part of the
        step below `x`, so that the mean is `x`; exact for normal numbers, within 2**-32 of a step
        for subnormal ones (Croci et al. 2022, doi:10.1098/rsos.211631).

        Args:
            x: Any shape, any unit; float32, or a type that float32 holds exactly.
            rng: Draws the neighbours; None rounds to nearest.
            out: Where the result goes, contiguous float32 of that shape; may be `x` itself.
            threads: Threads to use; stochastic rounding takes one, as `rng` is one stream.

        Raises:
            InputError: `x` or `out` has a type or shape that does not do, or there is NaN and the
                format has none (`out` may have been written to).
        """
        x = as_floats(x)
        out = room_for(x, out)
        u, v = x.reshape(-1).view(np.uint32), out.reshape(-1).view(np.uint32)
        route, grid = kernels(x.size), self.grid
        if rng is None:
            nans = sum(spread(lambda s: route.round_float(u[s], v[s], grid), u.size, threads))
        else:
            nans = 0
            for i in range(0, u.size, _DRAWN):
                part = u[i : i + _DRAWN]
                noise = rng.integers(0, 2**32, part.size, np.uint32)
                nans += route.draw_float(part, noise, v[i : i + _DRAWN], grid)
        if not self.has_nan:
            refuse_nan(nans, self.name)
        return out

    def encode(self, x: Floats, *, rng: np.random.Generator | None = None) -> Coded:
        """Round `x` and return codes of its shape: sign, exponent and mantissa from the top."""
        rounded = self.round(x, rng=rng)
        return Coded(self.codes_of(rounded))

    def codes_of(self, rounded: Floats) -> NDArray[Any]:
        """Codes of numbers that are on the grid already."""
        u = rounded.reshape(-1).view(np.uint32)
        a: Bits = u & MAGNITUDE
        rebias = np.uint32(127 - self.bias << self.mantissa_bits)
        code = (a >> self.grid.shift) - rebias
        small = a < np.float32(self.smallest_normal).view(np.uint32)
        code[small] = (a[small].view(np.float32) / self.smallest).astype(np.uint32)
        if self.has_nan:
            code[a > INFINITY] = self.nan_code
        if self.has_inf:
            code[a == INFINITY] = 2**self.exponent_bits - 1 << self.mantissa_bits
        code |= (u >> np.uint32(31)) << np.uint32(self.bits - 1)
        return code.astype(np.uint8 if self.bits <= 8 else np.uint16).reshape(rounded.shape)

    @property
    def nan_code(self) -> int:
        """Code of the positive quiet NaN."""
        top = (1 << self.bits - 1) - 1
        return top - ((1 << self.mantissa_bits - 1) - 1 if self.has_inf else 0)

    def decode(self, coded: Coded) -> Floats:
        """Return the numbers of codes; every code of a NaN becomes the quiet NaN of its sign."""
        return np.asarray(np.take(numbers_of(self), coded.codes), np.float32)

    def packed_bytes(self, coded: Coded) -> bytes:
        """Store codes without gaps."""
        return packing.pack(coded.codes, self.bits).tobytes()

    def from_bytes(self, data: bytes, shape: Shape) -> Coded:
        """Read what `packed_bytes` stored.

        Raises:
            InputError: `data` is not as long as `bytes_of(shape)`.
        """
        codes = packing.unpack(np.frombuffer(data, np.uint8), self.bits, count_of(shape))
        return Coded(codes.reshape(shape_of(shape)))

    def bytes_of(self, shape: Shape) -> int:
        """Bytes that an array of that shape takes."""
        return packing.packed_size(count_of(shape), self.bits)


@lru_cache
def numbers_of(form: FloatFormat) -> Floats:
    """The number of every code, shape (2**bits,)."""
    codes = np.arange(2 ** (form.bits - 1), dtype=np.uint32)
    exponent = (codes >> np.uint32(form.mantissa_bits)).astype(np.int32)
    mantissa = codes & np.uint32(2**form.mantissa_bits - 1)
    whole = mantissa + np.where(exponent > 0, 2.0**form.mantissa_bits, 0.0)
    numbers = np.ldexp(whole, np.maximum(exponent, 1) - form.bias - form.mantissa_bits)
    if form.has_inf:
        top = exponent == 2**form.exponent_bits - 1
        numbers[top] = np.where(mantissa[top] == 0, np.inf, np.nan)
    elif form.has_nan:
        numbers[-1] = np.nan
    positive = numbers.astype(np.float32)
    table = np.concatenate([positive, -positive])
    table.setflags(write=False)
    return table


FP16 = FloatFormat("fp16", 5, 10, 15, has_inf=True, overflow="special")
BF16 = FloatFormat("bf16", 8, 7, 127, has_inf=True, overflow="special")
FP8_E4M3 = FloatFormat("fp8_e4m3", 4, 3, 7)
FP8_E5M2 = FloatFormat("fp8_e5m2", 5, 2, 15, has_inf=True)
FP6_E3M2 = FloatFormat("fp6_e3m2", 3, 2, 3, has_nan=False)
FP6_E2M3 = FloatFormat("fp6_e2m3", 2, 3, 1, has_nan=False)
FP4_E2M1 = FloatFormat("fp4_e2m1", 2, 1, 1, has_nan=False)
