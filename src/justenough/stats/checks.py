"""What every bound asks of its arguments."""

import warnings
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from justenough.errors import InputError

FEWEST_UNITS = 30
"""Below this many independent units no asymptotic bound is given."""


def checked_alpha(alpha: float) -> float:
    """Return `alpha` if it is a probability strictly between 0 and 1.

    Raises:
        InputError: If it is not.

    >>> checked_alpha(0.05)
    0.05
    """
    if not 0.0 < alpha < 1.0:
        raise InputError(f"alpha is {alpha}; it must lie strictly between 0 and 1, such as 0.05")
    return float(alpha)


def numbers(name: str, values: ArrayLike) -> NDArray[np.float64]:
    """Return `values` as a float64 array of any shape.

    Raises:
        InputError: If they are not numbers, or rows of different lengths.

    >>> numbers("x", [[1, 2]])
    array([[1., 2.]])
    """
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} holds values that are not numbers") from error


def all_finite(name: str, array: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return `array` if every value is finite.

    Raises:
        InputError: If one is not; the message says which.

    >>> all_finite("x", np.ones(1))
    array([1.])
    """
    bad = ~np.isfinite(array)
    if bad.any():
        at = tuple(int(i) for i in np.argwhere(bad)[0])
        names = zip(("row", "column"), at, strict=False)
        place = ", ".join(f"{axis} {i}" for axis, i in names) if len(at) < 3 else f"place {at}"
        raise InputError(f"{name} is {array[at]} in {place}; every value must be finite")
    return array


def finite_vector(name: str, values: ArrayLike) -> NDArray[np.float64]:
    """Return `values` as a finite float64 vector of shape (n,), n >= 1.

    Raises:
        InputError: If they are empty, not one-dimensional, not numbers or not finite.

    >>> finite_vector("scores", [1, 2])
    array([1., 2.])
    """
    vector = numbers(name, values)
    if vector.ndim != 1 or vector.size == 0:
        raise InputError(f"{name} has shape {vector.shape}; it must be (n,) with n >= 1")
    return all_finite(name, vector)


def finite_matrix(name: str, values: ArrayLike) -> NDArray[np.float64]:
    """Return `values` as a finite float64 matrix of shape (n, k), neither of them 0.

    Raises:
        InputError: If they are empty, not two-dimensional, not numbers or not finite.

    >>> finite_matrix("x", [[1, 2]])
    array([[1., 2.]])
    """
    matrix = numbers(name, values)
    if matrix.ndim != 2 or matrix.size == 0:
        raise InputError(f"{name} has shape {matrix.shape}; it must be (n, k), neither of them 0")
    return all_finite(name, matrix)


def varying(name: str, values: NDArray[np.float64], why: str) -> NDArray[np.float64]:
    """Return `values` if they are not all alike; `why` says what a constant lacks.

    Raises:
        InputError: If they are.

    >>> varying("x", np.arange(2.0), "a constant has no ranking")
    array([0., 1.])
    """
    if values.min() == values.max():
        raise InputError(f"{name} is {values.flat[0]:g} in every row; {why}")
    return values


def unit_interval(name: str, values: ArrayLike) -> NDArray[np.float64]:
    """Return `values` as a vector of numbers in [0, 1], shape (n,), n >= 1.

    Raises:
        InputError: As `finite_vector`, or if a value is outside [0, 1].

    >>> unit_interval("x", [0, 1])
    array([0., 1.])
    """
    return within_unit(name, finite_vector(name, values))


def within_unit(name: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return finite `values` if all lie in [0, 1].

    Raises:
        InputError: If one does not.

    >>> within_unit("x", np.eye(1))
    array([[1.]])
    """
    if values.min() < 0.0 or values.max() > 1.0:
        raise InputError(
            f"{name} runs from {values.min():g} to {values.max():g}; scale it to [0, 1] first"
        )
    return values


def checked_share(name: str, value: float) -> float:
    """Return `value` if it lies strictly between 0 and 1.

    Raises:
        InputError: If it does not.

    >>> checked_share("p0", 0.005)
    0.005
    """
    if not 0.0 < value < 1.0:
        raise InputError(f"{name} is {value}; it must lie strictly between 0 and 1")
    return float(value)


def checked_count(name: str, value: int, least: int, most: int | None = None) -> int:
    """Return `value` if it is a whole number in least..most.

    Raises:
        InputError: If it is not.

    >>> checked_count("n", 5, 1)
    5
    """
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):
        room = f"{least} or more" if most is None else f"in {least}..{most}"
        raise InputError(f"{name} is {value}; it must be a whole number, {room}")
    return int(value)


def installed(module: str, extra: str) -> Any:
    """Return an optional module.

    Raises:
        InputError: If it is missing; the message names the extra that brings it.

    >>> installed("math", "fast").pi > 3
    True
    """
    try:
        with warnings.catch_warnings():  # of what they in turn could use and do not find
            warnings.simplefilter("ignore")
            return import_module(module)
    except ImportError as error:
        raise InputError(
            f"{module} is not installed; pip install 'justenough[{extra}]' brings it"
        ) from error


def same_length(**vectors: NDArray[np.generic]) -> int:
    """Return the common length of vectors, n.

    Raises:
        InputError: If they differ.

    >>> same_length(x=np.zeros(3), y=np.ones(3))
    3
    """
    lengths = {name: len(vector) for name, vector in vectors.items()}
    if len(set(lengths.values())) > 1:
        got = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise InputError(f"lengths differ: {got}; every row needs one value of each")
    return next(iter(lengths.values()))


def unit_index(units: ArrayLike, n: int) -> tuple[NDArray[np.intp], int]:
    """Return each row's unit as 0..g-1, shape (n,), and the number of units g.

    Raises:
        InputError: If `units` is not one id for each of the `n` rows, or g < 30.

    >>> unit_index(np.repeat(np.arange(30) + 7, 2), 60)[1]
    30
    """
    index, g = group_index(units, n)
    checked_units(g)
    return index, g


def group_index(units: ArrayLike, n: int) -> tuple[NDArray[np.intp], int]:
    """Return each row's unit as 0..g-1, shape (n,), and the number of units g, at least 1.

    Raises:
        InputError: If `units` is not one id for each of the `n` rows, or an id is missing (NaN).

    >>> group_index(["b", "a", "b"], 3)
    (array([1, 0, 1]), 2)
    """
    ids = np.asarray(units)
    if ids.shape != (n,):
        raise InputError(f"units has shape {ids.shape}; it must be ({n},), one id for each row")
    if ids.dtype.kind == "f" and np.isnan(ids).any():
        row = int(np.flatnonzero(np.isnan(ids))[0])
        raise InputError(f"units is nan in row {row}; every row needs the id of its unit")
    if ids.dtype.kind in "iu" and n and (ids[1:] >= ids[:-1]).all():  # sorted: no need to sort
        index = np.concatenate(([0], np.cumsum(ids[1:] != ids[:-1])))
        return index, int(index[-1]) + 1
    try:
        index = np.unique(ids, return_inverse=True)[1].reshape(n)
    except TypeError as error:
        raise InputError("units mixes kinds of ids; give all as numbers or all as text") from error
    return index, int(index.max()) + 1


def checked_units(g: int) -> int:
    """Return `g` if there are enough independent units for an asymptotic bound.

    Raises:
        InputError: If there are fewer than 30.

    >>> checked_units(30)
    30
    """
    if g < FEWEST_UNITS:
        raise InputError(f"{g} independent units; this bound needs at least {FEWEST_UNITS}")
    return g


def paired_scores(
    x: ArrayLike, y: ArrayLike, units: ArrayLike, alpha: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.intp], int]:
    """Return two scores of the same rows, each row's unit 0..g-1, and the number of units g.

    Raises:
        InputError: For fewer than 30 units, scores that are not finite, lengths that differ, ids
            that do not fit, or alpha outside (0, 1).

    >>> paired_scores(np.arange(40), np.ones(40), np.arange(40), 0.05)[3]
    40
    """
    checked_alpha(alpha)
    first, second = finite_vector("x", x), finite_vector("y", y)
    index, g = unit_index(units, same_length(x=first, y=second))
    return first, second, index, g
