"""The arrays that a simulation goes on from, each checked before a compiled loop reads it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from justenough.errors import InputError

Arrays = Mapping[str, NDArray[Any]]


def within(
    saved: Mapping[str, Any],
    name: str,
    kind: Any,
    shape: tuple[int | None, ...],
    most: int | None = None,
) -> NDArray[Any]:
    """A copy of the array of that name, if it is what a simulation of this circuit saves.

    Args:
        saved: Arrays by name.
        name: Which of them.
        kind: Its type.
        shape: Its shape; None for any length.
        most: Where given, its values are 0 to `most`.

    Raises:
        InputError: It is missing, or has another type, another shape or a value out of range.

    >>> within({"a": np.array([1, 2])}, "a", np.int64, (None,), 2)
    array([1, 2])
    """
    found = saved.get(name)
    if not isinstance(found, np.ndarray):
        raise unfit(f"{name} is missing")
    right = found.ndim == len(shape) and all(
        asked in (None, held) for asked, held in zip(shape, found.shape, strict=True)
    )
    if found.dtype != kind or not right:
        raise unfit(f"{name} is {found.dtype} of shape {found.shape}")
    if most is not None and found.size and not 0 <= int(found.min()) <= int(found.max()) <= most:
        raise unfit(f"{name} reaches from {found.min()} to {found.max()}")
    return np.array(found)


def whole(saved: Mapping[str, Any], name: str, most: int) -> int:
    """The whole number of that name, if it is 0 to `most`; InputError otherwise.

    >>> whole({"a": 2}, "a", 2)
    2
    """
    found: Any = saved.get(name)
    if type(found) not in (int, np.int64) or not 0 <= found <= most:
        raise unfit(f"{name} is {found!r:.40}")
    return int(found)


def unfit(why: str) -> InputError:
    """What is said of a state that no run of this circuit has."""
    return InputError(f"the saved state is not one of this circuit: {why}; start anew")


def only_first_bits(words: NDArray[np.uint64], bits: int) -> bool:
    """Whether no row has a bit from number `bits` on; its words are just enough for so many.

    >>> [only_first_bits(np.array([[word]], np.uint64), 3) for word in (7, 8)]
    [True, False]
    """
    last = bits % 64
    return not (last and (words[:, -1] >> np.uint64(last)).any())
