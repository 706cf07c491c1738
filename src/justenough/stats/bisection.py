"""Where a statement that holds from some point on begins to hold."""

from collections.abc import Callable


def upper_end(holds: Callable[[float], bool], low: float, high: float = 1.0) -> float:
    """Return the smallest number found above `low` for which it holds, by 60 halvings.

    The end that holds is returned, so a bound found this way is never too small by rounding.

    Args:
        holds: False below some point and True from there on; not asked at either end.
        low: Where it does not hold.
        high: Where it does.

    >>> round(upper_end(lambda x: x * x >= 0.5, 0.0), 6)
    0.707107
    """
    for _ in range(60):
        middle = 0.5 * (low + high)
        if middle in (low, high):
            break
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def first_whole(holds: Callable[[int], bool], low: int, high: int) -> int:
    """Return the smallest whole number above `low` for which it holds.

    Args:
        holds: False below some number and True from there on; not asked at either end.
        low: Where it does not hold.
        high: Where it does.

    >>> first_whole(lambda n: n * n >= 50, 0, 50)
    8
    """
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
