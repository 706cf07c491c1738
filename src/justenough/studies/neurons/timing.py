"""Ratios of times, and what they say of a claim.

Both sides take turns in one process, on as many threads; a pass gives one ratio of processor
seconds, all threads together, from which other programs take less than from the wall clock's. The
value is the median, the interval the middle half of the passes. A claimed number is met within a
tenth, for times vary so much, a claimed range as it stands; what lies within a tenth of an end is
said to be near it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from justenough.compiled import has_numba
from justenough.errors import InputError
from justenough.ledger import Measured

SLACK = 1.1
Call = Callable[[], object]


@dataclass(frozen=True)
class Ratio:
    """Seconds without a technique over seconds with it.

    Attributes:
        value: Median over passes.
        low: Lower quartile.
        high: Upper quartile.
        before: Median processor seconds without it.
        after: Median processor seconds with it.
        wall: Median seconds by the wall clock, without it and with it.
    """

    value: float
    low: float
    high: float
    before: float
    after: float
    wall: tuple[float, float]

    def __str__(self) -> str:
        return f"{self.value:.2f}x ({self.low:.2f} to {self.high:.2f})"


def ratio(before: Call, after: Call, passes: int = 25, warm: bool = True) -> Ratio:
    """Time two calls in turn, after one of each that does not count.

    >>> ratio(lambda: sum(range(9999)), lambda: 1, passes=3).value > 1
    True
    """
    if warm:
        before()
        after()
    taken: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    for k in range(passes):
        for first in (True, False):
            without = first == (k % 2 == 0)
            busy, start = time.process_time(), time.perf_counter()
            (before if without else after)()
            spent = time.process_time() - busy, time.perf_counter() - start
            taken[without].append((max(spent[0], 1e-9), spent[1]))
    one, other = np.array(taken[True]), np.array(taken[False])
    low, value, high = np.percentile(one[:, 0] / other[:, 0], [25, 50, 75])
    a, b = np.median(one, axis=0), np.median(other, axis=0)
    return Ratio(
        float(value), float(low), float(high), float(a[0]), float(b[0]), (float(a[1]), float(b[1]))
    )


def within(value: float, low: float, high: float) -> bool:
    """Whether a value lies in a claimed range, or within a tenth of a single number.

    >>> within(2.1, 1.5, 2), within(2.1, 2, 2), within(2.3, 2, 2)
    (False, True, False)
    """
    slack = SLACK if low == high else 1.0
    return low / slack <= value <= high * slack


def near_an_end(found: Ratio, low: float, high: float) -> str:
    """A clause where the median or its spread stands near an end of what meets the claim."""
    if low == high:
        crossed = any(found.low <= end <= found.high for end in (low / SLACK, high * SLACK))
        return "; its spread crosses the tenth that is allowed" if crossed else ""
    ends = [f"{end:g}" for end in (low, high)
            if found.low / SLACK <= end <= found.high * SLACK]  # fmt: skip
    return f"; near the claim's end at {' and '.join(ends)}" if ends else ""


def judged(found: Ratio, low: float, high: float, said: str, condition: str = "") -> Measured:
    """Reproduced when the ratio is in the range; else refuted, or only under a condition."""
    verdict = "reproduced" if within(found.value, low, high) else "refuted"
    if verdict == "refuted" and condition:
        verdict = f"holds only when {condition}"
    return Measured(
        found.value, "x", found.low, found.high, verdict,
        f"{said}{near_an_end(found, low, high)}.",
    )  # fmt: skip


def need_numba() -> None:
    """Refuse to go on without compiled loops; InputError says what brings them."""
    if not has_numba():
        raise InputError("loops are compared here, which Numba compiles: install it")
