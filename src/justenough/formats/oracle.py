"""The formats again, one value at a time in exact fractions: slow, for tests to compare with.

Nothing here shares code with the fast routes; only the formats' own numbers are read.
"""

import math
from fractions import Fraction
from functools import lru_cache

from justenough.formats.blocks import BlockFormat
from justenough.formats.floats import FloatFormat
from justenough.formats.logarithmic import LogFormat


def float_value(form: FloatFormat, code: int) -> Fraction | float:
    """What a code means: a fraction, or an infinity, NaN or -0.0 as a float."""
    sign = -1 if code >> form.bits - 1 else 1
    exponents, mantissas = 1 << form.exponent_bits, 1 << form.mantissa_bits
    exponent, mantissa = code >> form.mantissa_bits & exponents - 1, code & mantissas - 1
    if exponent == exponents - 1:
        if form.has_inf:
            return math.nan if mantissa else sign * math.inf
        if form.has_nan and mantissa == mantissas - 1:
            return math.nan
    if exponent > 0:
        return sign * (1 + Fraction(mantissa, mantissas)) * _power(exponent - form.bias)
    if mantissa == 0 and sign < 0:
        return -0.0
    return sign * Fraction(mantissa, mantissas) * _power(1 - form.bias)


def _power(exponent: int) -> Fraction:
    return Fraction(1 << exponent) if exponent >= 0 else Fraction(1, 1 << -exponent)


def _floor_log2(x: Fraction) -> int:
    floor = x.numerator.bit_length() - x.denominator.bit_length()
    return floor - (_power(floor) > x)


@lru_cache
def _positive(form: FloatFormat) -> list[Fraction]:
    """Finite numbers from 0 up; their place is their code."""
    values = (float_value(form, c) for c in range(2 ** (form.bits - 1)))
    return [v for v in values if isinstance(v, Fraction)]


def float_code(form: FloatFormat, x: float) -> int:
    """The code that `x` is rounded to: nearest, ties to the even code."""
    sign = 1 << form.bits - 1 if math.copysign(1, x) < 0 else 0
    finite = _positive(form)
    top = len(finite) - 1
    nan = (1 << form.bits - 1) - 1
    if form.has_inf:  # the quiet one
        nan = ((1 << form.exponent_bits + 1) - 1) << (form.mantissa_bits - 1)
    if math.isnan(x):
        return sign + nan
    over = top if form.overflow == "saturate" else (top + 1 if form.has_inf else nan)
    if math.isinf(x):
        return sign + over
    a = abs(Fraction(x))
    low, high = 0, top  # the code of the last number <= a
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if finite[middle] <= a else (low, middle - 1)
    # Behind the top the numbers go on for the sake of rounding.
    above = finite[low + 1] if low < top else 2 * finite[top] - finite[top - 1]
    double = 2 * a - finite[low] - above
    code = low + (double > 0 or (double == 0 and low % 2 == 1))
    return sign + (over if code > top else code)


def int_code(x: Fraction, scale: Fraction, low: int, high: int, zero: int = 0) -> int:
    """The integer in low..high that stands for `x`: nearest, ties to even."""
    return min(max(round(x / scale) + zero, low), high)


def block_codes(form: BlockFormat, values: list[float]) -> tuple[int, list[int]]:
    """Scale code and element codes of one block of a format with E8M0 scales."""
    peak = max(abs(Fraction(v)) for v in values)
    shared = -127
    if peak:
        shared = max(_floor_log2(peak) - form.element.highest_exponent, -127)
    scaled = [Fraction(v) / _power(shared) for v in values]
    codes = []
    for v, s in zip(values, scaled, strict=True):
        sign = 1 << form.bits - 1 if math.copysign(1, v) < 0 else 0
        codes.append(sign | _nearest(form.element, abs(s)))
    return shared + 127, codes


def _nearest(form: FloatFormat, a: Fraction) -> int:
    """Code of the number nearest to a >= 0, at most the largest: all are looked at."""
    return min(range(len(_positive(form))), key=lambda c: (abs(_positive(form)[c] - a), c % 2))


def log_code(form: LogFormat, x: float, smallest: float) -> int:
    """The code of the nearest logarithm, by comparing integer powers; up to smallest / 2 is 0."""
    width = form.bits - 1
    sign = 1 << width if math.copysign(1, x) < 0 else 0
    a = abs(Fraction(x)) if math.isfinite(x) else _power(200)
    if a <= Fraction(smallest) / 2:
        return sign + (1 << width - 1)
    # a >= 2**((2 k - 1) / power) exactly when a**power >= 2**(2 k - 1)
    power = 1 << form.fraction_bits + 1
    k = (_floor_log2(Fraction(a.numerator**power, a.denominator**power)) + 1) // 2
    k = min(max(k, -form.highest), form.highest)
    return sign + (k & (1 << width) - 1)
