"""Loops over arrays with a technique and without it, for Numba to compile.

FP16 is converted by the processor's own instructions, which Numba has no name for. Arguments are
untyped on purpose: Numba specialises on what it is given.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from justenough.studies.neurons.timing import need_numba

Loop = Callable[..., Any]
DECAY = np.float32(0.9375)
_ZERO, _GAIN = np.float32(0), np.float32(1.5)
_TOP19 = np.uint32(0xFFFFE000)
_A, _B = np.uint32(0x9E3779B9), np.uint32(0x85EBCA6B)
_S15, _S19 = np.uint32(15), np.uint32(19)


@lru_cache
def made(function: Loop) -> Loop:
    """A loop compiled for this process alone, to run without the interpreter's lock."""
    need_numba()
    import numba

    _know_halves()
    compiled: Loop = numba.njit(nogil=True, error_model="numpy")(function)
    return compiled


def all_made(loops: dict[str, Loop]) -> dict[str, Loop]:
    """Compiled loops by name."""
    return {name: made(loop) for name, loop in loops.items()}


def wide(x: Any) -> Any:
    """FP16, as its bits, to FP32.

    >>> float(wide(0x3C00))
    1.0
    """
    return np.float32(np.uint16(x).view(np.float16))


def narrow(x: Any) -> Any:
    """FP32 to the bits of the nearest FP16.

    >>> hex(narrow(1.0))
    '0x3c00'
    """
    return np.float16(x).view(np.uint16)


@lru_cache
def _know_halves() -> None:
    """Tell Numba that `wide` and `narrow` are one instruction each."""
    from llvmlite import ir
    from numba import types
    from numba.extending import intrinsic, overload

    def widened(typingctx: Any, x: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.fpext(builder.bitcast(args[0], ir.HalfType()), ir.FloatType())

        return types.float32(types.uint16), code

    def narrowed(typingctx: Any, x: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.bitcast(builder.fptrunc(args[0], ir.HalfType()), ir.IntType(16))

        return types.uint16(types.float32), code

    to_single: Any = intrinsic(widened)
    to_half: Any = intrinsic(narrowed)
    overload(wide, inline="always")(lambda x: lambda x: to_single(x))
    overload(narrow, inline="always")(lambda x: lambda x: to_half(x))


def _fp32(a: Any, x: Any) -> None:
    for i in range(a.size):
        a[i] = DECAY * a[i] + x[i]


def _fp16(a: Any, x: Any) -> None:
    for i in range(a.size):
        a[i] = narrow(DECAY * wide(a[i]) + wide(x[i]))


def _at_random(a: Any, x: Any, seed: Any) -> None:
    for i in range(a.size):
        z = np.uint32(i) * _A + seed
        z = np.uint32((z ^ (z >> _S15)) * _B)
        exact = np.float32(DECAY * wide(a[i]) + wide(x[i]))
        # Below the last place that FP16 keeps, a random number: it carries or it does not.
        lifted = np.uint32(exact.view(np.uint32) + (z >> _S19)) & _TOP19
        a[i] = narrow(np.uint32(lifted).view(np.float32))


def _adaptive(kind: Any, value: Any, x: Any) -> None:
    for i in range(kind.size):
        bits = value[i]
        if kind[i] == 0:
            old = wide(np.uint16(bits))
            value[i] = np.uint64(narrow(np.float32(DECAY * old + x[i])))
        elif kind[i] == 1:
            single = np.float32(DECAY * np.uint32(bits).view(np.float32) + x[i])
            value[i] = np.uint64(single.view(np.uint32))
        else:
            double = np.float64(DECAY) * np.uint64(bits).view(np.float64) + x[i]
            value[i] = np.float64(double).view(np.uint64)


def _adaptive_top(kind: Any, value: Any) -> Any:
    top = np.float64(-np.inf)
    for i in range(kind.size):
        bits = value[i]
        if kind[i] == 0:
            top = max(top, np.float64(wide(np.uint16(bits))))
        elif kind[i] == 1:
            top = max(top, np.float64(np.uint32(bits).view(np.float32)))
        else:
            top = max(top, np.uint64(bits).view(np.float64))
    return top


def _mixed(a: Any, x: Any) -> None:
    for i in range(a.size):
        a[i] = narrow(DECAY * wide(a[i]) + x[i])


def updates() -> dict[str, Loop]:
    """The update a = DECAY a + x over n neurons, in the formats that the keys name."""
    return all_made(
        {
            "fp32": _fp32, "fp16": _fp16, "random": _at_random, "adaptive": _adaptive,
            "adaptive top": _adaptive_top, "mixed": _mixed,
        }
    )  # fmt: skip


def _first(a: Any, x: Any, t: Any) -> None:
    for i in range(a.size):
        t[i] = DECAY * a[i] + x[i]


def _second(t: Any, out: Any) -> None:
    for i in range(t.size):
        out[i] = max(t[i], _ZERO) * _GAIN


def _first_half(a: Any, x: Any, t: Any) -> None:
    for i in range(a.size):
        t[i] = narrow(np.float32(DECAY * a[i] + x[i]))


def _second_half(t: Any, out: Any) -> None:
    for i in range(t.size):
        out[i] = max(wide(t[i]), _ZERO) * _GAIN


def _both(a: Any, x: Any, out: Any) -> None:
    for i in range(a.size):
        out[i] = max(np.float32(DECAY * a[i] + x[i]), _ZERO) * _GAIN


def two_passes() -> dict[str, Loop]:
    """Two passes with a temporary between them: FP32, FP16, and both passes in one."""
    return all_made(
        {
            "first": _first, "second": _second, "first half": _first_half,
            "second half": _second_half, "both": _both,
        }
    )  # fmt: skip


def _product(a: Any, b: Any, c: Any, d: Any, out: Any) -> None:
    for i in range(out.size):
        out[i] = a[i] * b[i] * c[i] * d[i]


def _sum_of_logs(a: Any, b: Any, c: Any, d: Any, out: Any) -> None:
    for i in range(out.size):
        out[i] = a[i] + b[i] + c[i] + d[i]


def _grow(w: Any, by: Any) -> None:
    for i in range(w.size):
        w[i] *= by


def _add(w: Any, by: Any) -> None:
    for i in range(w.size):
        w[i] += by


def _dot(a: Any, b: Any) -> Any:
    # Eight sums, so that additions do not wait for each other, on both sides alike.
    s = np.zeros(8, np.float32)
    for i in range(0, a.size - 7, 8):
        for q in range(8):
            s[q] += a[i + q] * b[i + q]
    return s.sum()


def _dot_of_logs(a: Any, b: Any, table: Any) -> Any:
    s = np.zeros(8, np.float32)
    for i in range(0, a.size - 7, 8):
        for q in range(8):
            e = a[i + q] + b[i + q]
            # 2^(whole + part): the whole is the exponent of a float, the part is looked up.
            power = np.uint32((np.int32(e >> 16) + np.int32(127)) << 23)
            s[q] += power.view(np.float32) * table[(e >> 4) & 0xFFF]
    return s.sum()


def logarithms() -> dict[str, Loop]:
    """Products, growth and dot products of floats, and of logarithms as whole numbers."""
    return all_made(
        {
            "product": _product, "sum": _sum_of_logs, "grow": _grow, "add": _add, "dot": _dot,
            "dot of logs": _dot_of_logs,
        }
    )  # fmt: skip


def _largest(x: Any) -> Any:
    top = x[0]
    for i in range(x.size):
        top = max(top, x[i])
    return top


def _at(x: Any, places: Any) -> Any:
    top = x[0]
    for i in range(places.size):
        top = max(top, x[places[i]])
    return top


def reads() -> dict[str, Loop]:
    """Maxima of values read in order, or some apart, and at given places."""
    return all_made({"largest": _largest, "at": _at})
