"""Rows that come in units which resemble each other inside: three means, and bounds for each.

Units must be independent draws from the population of units; rows inside one may depend on each
other in any way. What a bound speaks of is then one of three numbers:

- the mean over units of the unit's mean loss: every unit counts the same, whatever its size
  (`unit_mean_upper`);
- the share of units with any failure (`unit_failure_upper`);
- the mean over rows, sum of losses over number of rows in the population: large units count more
  (`row_mean_upper`), which needs to know how large a unit can be.

They agree only where size and loss have nothing to do with each other. With each unit one row the
first and third are the mean over rows and the second the share of failures. An e-process takes
units too: count each when it is complete (`justenough.stats.eprocess.FailureProcess`).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from justenough.errors import InputError
from justenough.stats import bounded, concentration, proportion
from justenough.stats.bisection import upper_end
from justenough.stats.checks import checked_alpha, checked_count, group_index, unit_interval

MeanBound = Literal["betting", "bernstein", "hoeffding_bentkus"]
"""Which bound on a mean: `bounded.mean_upper`, or one of `justenough.stats.concentration`."""

_Bound = Callable[..., float]
_UPPER: dict[str, _Bound] = {
    "betting": bounded.mean_upper,
    "bernstein": concentration.bernstein_upper,
    "hoeffding_bentkus": concentration.hoeffding_bentkus_upper,
}
_LOWER: dict[str, _Bound] = {
    "betting": bounded.mean_lower,
    "bernstein": concentration.bernstein_lower,
    "hoeffding_bentkus": concentration.hoeffding_bentkus_lower,
}


@dataclass(frozen=True)
class UnitSums:
    """Losses summed within units.

    Attributes:
        sums: Sum of the losses of each unit's rows, shape (g,).
        sizes: Number of rows of each unit, shape (g,), each at least 1.
    """

    sums: NDArray[np.float64]
    sizes: NDArray[np.float64]

    @property
    def means(self) -> NDArray[np.float64]:
        """Mean loss of each unit, in [0, 1], shape (g,)."""
        return np.minimum(self.sums / self.sizes, 1.0)  # a sum of floats may round upwards

    @property
    def failed(self) -> NDArray[np.bool_]:
        """Whether any row of the unit has a loss above 0, shape (g,)."""
        failed: NDArray[np.bool_] = self.sums > 0.0
        return failed


def unit_sums(losses: ArrayLike, units: ArrayLike) -> UnitSums:
    """Return the losses summed within units, in the order of the units' ids.

    Args:
        losses: Loss of each row, in [0, 1], shape (n,), n >= 1.
        units: Id of the unit of each row, shape (n,).

    Raises:
        InputError: For losses outside [0, 1] or not finite, no rows, or not one id for each row.

    >>> unit_sums([1.0, 0.0, 0.5], ["b", "a", "b"]).means
    array([0.  , 0.75])
    """
    values = unit_interval("losses", losses)
    index, g = group_index(units, len(values))
    sums, sizes = np.bincount(index, values, g), np.bincount(index, minlength=g)
    return UnitSums(np.asarray(sums, dtype=np.float64), np.asarray(sizes, dtype=np.float64))


def unit_mean_upper(
    losses: ArrayLike, units: ArrayLike, *, alpha: float, bound: MeanBound = "betting"
) -> float:
    """Upper bound on the mean over units of the unit's mean loss, valid with chance >= 1 - alpha.

    The bound of that name on the unit means, which are independent values in [0, 1].

    Args:
        losses: Loss of each row, in [0, 1], shape (n,).
        units: Id of the unit of each row, shape (n,).
        alpha: Allowed probability that the bound is below the truth, in (0, 1).
        bound: "betting", "bernstein" or "hoeffding_bentkus", chosen before the losses are seen.

    Raises:
        InputError: As `unit_sums`; for alpha outside (0, 1), an unknown bound, or a single unit
            with "bernstein".

    >>> units = np.repeat(np.arange(1000), 5)
    >>> round(unit_mean_upper(np.zeros(5000), units, alpha=0.05), 4)
    0.0044
    """
    return _named(_UPPER, bound)(unit_sums(losses, units).means, alpha=alpha)


def unit_mean_lower(
    losses: ArrayLike, units: ArrayLike, *, alpha: float, bound: MeanBound = "betting"
) -> float:
    """Lower bound on the mean over units of the unit's mean loss; see `unit_mean_upper`.

    >>> units = np.repeat(np.arange(1000), 5)
    >>> round(unit_mean_lower(np.ones(5000), units, alpha=0.05), 4)
    0.9956
    """
    return _named(_LOWER, bound)(unit_sums(losses, units).means, alpha=alpha)


def unit_failure_upper(losses: ArrayLike, units: ArrayLike, *, alpha: float) -> float:
    """Upper bound on the share of units with any loss above 0, valid with chance >= 1 - alpha.

    Clopper & Pearson's on units, so exact. It depends on how many rows a unit has: more rows, more
    chances to fail.

    Args:
        losses: Loss of each row, in [0, 1], shape (n,).
        units: Id of the unit of each row, shape (n,).
        alpha: Allowed probability that the bound is below the truth, in (0, 1).

    Raises:
        InputError: As `unit_sums`, or for alpha outside (0, 1).

    >>> losses, units = np.arange(300) < 3, np.repeat(np.arange(100), 3)
    >>> round(unit_failure_upper(losses, units, alpha=0.05), 4)  # 1 of 100
    0.0466
    """
    failed = unit_sums(losses, units).failed
    return proportion.clopper_pearson_upper(int(failed.sum()), len(failed), alpha=alpha)


def unit_failure_lower(losses: ArrayLike, units: ArrayLike, *, alpha: float) -> float:
    """Lower bound on the share of units with any loss above 0; see `unit_failure_upper`.

    >>> round(unit_failure_lower(np.ones(300), np.repeat(np.arange(100), 3), alpha=0.05), 4)
    0.9705
    """
    failed = unit_sums(losses, units).failed
    return proportion.clopper_pearson_lower(int(failed.sum()), len(failed), alpha=alpha)


def row_mean_upper(losses: ArrayLike, units: ArrayLike, *, largest: int, alpha: float) -> float:
    """Upper bound on the mean over rows, E(sum of a unit) / E(size of a unit).

    A ratio of two means, so no bound on one mean applies; but m is too small exactly if
    E(S - m N) > 0 for a unit's sum S and size N, and m + (S - m N) / B lies in [0, 1] where
    no unit has more than B rows. So the capital of betting against it (Waudby-Smith & Ramdas
    2024; `bounded.mean_upper`) is the average over fixed bets c of the product over units of
    (1 + c (m N - S) / (B (1 - m))), which has expectation at most 1 if m is the ratio. It grows
    with m, and the bound is where it reaches 1/alpha. Valid with probability >= 1 - alpha for any
    number of units, whether sizes are random, fixed, or go with the losses. Rare large units cost
    much: B over the mean size tells how many times more units are needed.

    Args:
        losses: Loss of each row, in [0, 1], shape (n,).
        units: Id of the unit of each row, shape (n,).
        largest: B, the most rows that any unit of the population can have, known beforehand and
            not read off these data.
        alpha: Allowed probability that the bound is below the truth, in (0, 1).

    Returns:
        The bound, in [mean of losses, 1].

    Raises:
        InputError: As `unit_sums`; for alpha outside (0, 1) or a unit larger than `largest`.

    >>> units = np.repeat(np.arange(1000), 5)
    >>> round(row_mean_upper(np.zeros(5000), units, largest=5, alpha=0.05), 4)
    0.0044
    >>> round(row_mean_upper(np.zeros(5000), units, largest=10, alpha=0.05), 4)
    0.0088
    """
    return _row_upper(unit_sums(losses, units), largest, alpha)


def row_mean_lower(losses: ArrayLike, units: ArrayLike, *, largest: int, alpha: float) -> float:
    """Lower bound on the mean over rows; the mirror image of `row_mean_upper`.

    >>> units = np.repeat(np.arange(1000), 5)
    >>> round(row_mean_lower(np.ones(5000), units, largest=5, alpha=0.05), 4)
    0.9956
    """
    return 1.0 - _row_upper(
        unit_sums(1.0 - unit_interval("losses", losses), units), largest, alpha
    )


def _row_upper(found: UnitSums, largest: int, alpha: float) -> float:
    checked_alpha(alpha)
    checked_count("largest", largest, 1)
    if found.sizes.max() > largest:
        raise InputError(
            f"a unit has {found.sizes.max():.0f} rows, but largest is {largest}; it must be the "
            "most rows that any unit can have"
        )
    pairs, counts = np.unique(
        np.stack([found.sums, found.sizes]) / largest, axis=1, return_counts=True
    )
    spared, unused = 1.0 - pairs[0], 1.0 - pairs[1]
    bets, log_weights = bounded.wagers(len(found.sizes), alpha)
    goal = -math.log(alpha)

    def reached(m: float) -> bool:
        # 1 + (m N - S) / (B (1 - m)) is what a bet of everything is multiplied by; it is >= 0,
        # as S <= N <= B, but for rounding.
        growth = np.maximum((spared - m * unused) / (1.0 - m), 0.0)
        return bounded.log_capital(growth, counts.astype(float), bets, log_weights) >= goal

    return upper_end(reached, min(float(found.sums.sum() / found.sizes.sum()), 1.0))


def _named(bounds: dict[str, _Bound], bound: str) -> _Bound:
    if bound not in bounds:
        raise InputError(f"bound is {bound!r}; it must be one of {', '.join(get_args(MeanBound))}")
    return bounds[bound]
