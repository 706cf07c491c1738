"""Loops that Numba compiles where it is installed, and work spread over the cores."""

import importlib.util
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise
from typing import Any, TypeVar

from justenough.errors import InputError

_T = TypeVar("_T")
# From so many values on, loading compiled code, once in a process, costs less than it saves.
FAST_FROM = 1 << 20


@lru_cache
def has_numba() -> bool:
    """Whether loops can be compiled."""
    return importlib.util.find_spec("numba") is not None


def pays(values: int) -> bool:
    """Whether loops over so many values can be compiled and are worth it.

    >>> pays(1)
    False
    """
    return values >= FAST_FROM and has_numba()


def jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` compiled by Numba; at its first call, and kept on disk if possible.

    Without fast-math, so that the numbers are those of the plain loop, and without the
    interpreter's lock, so that several threads can run it. Numba must be installed.
    """
    import numba

    # An argument, not a decorator: Numba has no types, and would take the function's away.
    made: Callable[..., Any]
    try:
        made = numba.njit(nogil=True, cache=True, error_model="numpy")(function)
    except RuntimeError:  # neither the package nor the user's cache folder can be written
        made = numba.njit(nogil=True, error_model="numpy")(function)
    return made


def usable_cores() -> int:
    """Number of cores that this process may use.

    >>> usable_cores() >= 1
    True
    """
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not offered by this system
        return os.cpu_count() or 1


def spread(work: Callable[[slice], _T], n: int, threads: int | None = None) -> list[_T]:
    """Call `work` on equal parts of range(n), one on each thread; results in order.

    Args:
        work: Called with a slice.
        n: Length of what is divided, 0 or more.
        threads: How many; without it, the cores that this process may use.

    Raises:
        InputError: `threads` is below 1.

    >>> spread(lambda part: (part.start, part.stop), 5, 2)
    [(0, 2), (2, 5)]
    """
    count = usable_cores() if threads is None else threads
    if count < 1:
        raise InputError(f"threads={count}; give at least 1")
    edges = [n * k // count for k in range(count + 1)]
    parts = [slice(a, b) for a, b in pairwise(edges) if a < b]
    if len(parts) < 2:
        return [work(p) for p in parts]
    with ThreadPoolExecutor(len(parts)) as pool:
        return list(pool.map(work, parts))
