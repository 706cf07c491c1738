"""How many units are needed: the chance that a bound is shown, and the number that gives it.

Exact for losses that are 0 or 1, where the number of failures is binomial. Losses between 0 and 1
have no single answer, as it hangs on their distribution; of all with mean q those of 0 and 1 vary
most. For them, for clusters and for every other rule `simulated_power` counts over seeded draws.
Comparisons of two models are in `justenough.stats.power_paired`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from scipy.stats import binom

from justenough.errors import InputError
from justenough.stats.bisection import first_whole
from justenough.stats.bounded import log_capital, wagers
from justenough.stats.checks import checked_alpha, checked_count, checked_share
from justenough.stats.concentration import bernstein_of, hoeffding_bentkus_of
from justenough.stats.eprocess import log_evidence

ProportionBound = Literal["clopper_pearson", "betting", "bernstein", "hoeffding_bentkus"]
"""Upper bounds on a proportion of failures at an n that is fixed beforehand."""

_MOST_UNITS = 10**9


@dataclass(frozen=True)
class Simulated:
    """A probability that was counted.

    Attributes:
        estimate: Share of runs.
        standard_error: Its Monte Carlo standard error, sqrt(p (1 - p) / runs) with p at least
            1 / runs away from 0 and 1, so that it is never 0.
    """

    estimate: float
    standard_error: float


@dataclass(frozen=True)
class Course:
    """What becomes of an e-process.

    Attributes:
        held: Chance that p < p0 is shown at some look.
        broken: Chance that p > p0 is shown first.
        mean_units: Expected number of units until either, or until the most.
    """

    held: float
    broken: float
    mean_units: float


def proportion_power(
    bound: ProportionBound, n: int, q: float, *, at_most: float, alpha: float
) -> float:
    """Return the chance that `n` units show a proportion of failures of at most `at_most`.

    Exact: the chance that a binomial number of failures is small enough. For clusters let n count
    units and q be the share of units with a failure.

    Args:
        bound: Upper bound that must not exceed `at_most`.
        n: Number of units, at least 1.
        q: True proportion of failures, in [0, 1].
        at_most: Proportion to be shown, in (0, 1).
        alpha: Allowed probability that the bound is wrong, in (0, 1).

    Raises:
        InputError: For an argument outside these ranges or an unknown bound.

    >>> round(proportion_power("clopper_pearson", 1268, 0.001, at_most=0.005, alpha=0.05), 4)
    0.8645
    >>> round(proportion_power("betting", 1268, 0.001, at_most=0.005, alpha=0.05), 4)
    0.2812
    """
    _checked_rate("q", q)
    most = most_failures(bound, n, at_most=at_most, alpha=alpha)
    return float(binom.cdf(most, n, q)) if most >= 0 else 0.0


def most_failures(bound: ProportionBound, n: int, *, at_most: float, alpha: float) -> int:
    """Return the largest number of failures in `n` units that shows `at_most`, -1 if none does.

    Args:
        bound: As for `proportion_power`.
        n: As for `proportion_power`.
        at_most: As for `proportion_power`.
        alpha: As for `proportion_power`.

    Raises:
        InputError: As `proportion_power`.

    >>> [most_failures(b, 1000, at_most=0.01, alpha=0.05) for b in get_args(ProportionBound)]
    [4, 2, 0, 3]
    """
    checked_count("n", n, 1)
    checked_share("at_most", at_most)
    checked_alpha(alpha)
    shown = _shows(bound, n, at_most, alpha)
    most = math.floor(n * at_most) + 1  # every bound is at least the sample's mean
    return first_whole(lambda failures: not shown(failures), -1, most) - 1


def units_for_power(
    bound: ProportionBound, wanted: float, q: float, *, at_most: float, alpha: float
) -> int:
    """Return the fewest units with which the chance to show `at_most` is `wanted` or more.

    The chance falls between the n at which one failure more is allowed and leaps there, so the
    answer is one of these; a few units more may give less chance. The n are looked at in turn, for
    0, 1, 2, ... failures allowed. For "betting", whose bets follow n, an n smaller by a few units
    may do as well.

    Args:
        bound: As for `proportion_power`.
        wanted: Chance wanted, in (0, 1).
        q: True proportion of failures, in [0, at_most).
        at_most: As for `proportion_power`.
        alpha: As for `proportion_power`.

    Raises:
        InputError: As `proportion_power`; for q not below at_most, or more than 1e9 units.

    >>> units_for_power("clopper_pearson", 0.8, 0.001, at_most=0.005, alpha=0.05)
    1258
    """
    checked_share("wanted", wanted)
    _checked_rate("q", q)
    if q >= checked_share("at_most", at_most):
        raise InputError(
            f"q is {q} and at_most {at_most}; no number of units shows it unless q is less"
        )
    n, allowed = 1, most_failures(bound, 1, at_most=at_most, alpha=alpha)
    while allowed < 0 or binom.cdf(allowed, n, q) < wanted:
        n = _first_to_allow(allowed + 1, n, bound, at_most, alpha)
        allowed = most_failures(bound, n, at_most=at_most, alpha=alpha)
    return n


def _first_to_allow(
    failures: int, least: int, bound: ProportionBound, at_most: float, alpha: float
) -> int:
    def allows(n: int) -> bool:
        return most_failures(bound, n, at_most=at_most, alpha=alpha) >= failures

    said = f"{_MOST_UNITS} units do not allow {failures} failures; ask for less"
    return _first_n(allows, least, _MOST_UNITS, said)


def smallest_n(
    power_of: Callable[[int], float], wanted: float, *, least: int, most: int = _MOST_UNITS
) -> int:
    """Return the smallest n from `least` on with power_of(n) >= wanted, if power grows with n.

    By doubling and bisection; where power does not grow everywhere, an n that gives the power and
    whose predecessor does not.

    Args:
        power_of: Power with n units.
        wanted: Power wanted, in (0, 1).
        least: Smallest n that makes sense, at least 1.
        most: Largest n to try.

    Raises:
        InputError: If `most` units do not give the power, least < 1 or wanted is outside (0, 1).

    >>> smallest_n(lambda n: 1.0 - 0.9**n, 0.95, least=1)
    29
    """
    checked_share("wanted", wanted)
    checked_count("least", least, 1)
    said = f"{most} units do not give a power of {wanted}; ask for less"
    return _first_n(lambda n: power_of(n) >= wanted, least, most, said)


def _first_n(holds: Callable[[int], bool], least: int, most: int, said: str) -> int:
    low, high, step = least - 1, least, 1
    while not holds(high):
        if high >= most:
            raise InputError(said)
        low, high, step = high, min(high + step, most), 2 * step
    return first_whole(holds, low, high)


def eprocess_course(
    q: float, *, p0: float, alpha: float, every: int, most: int, futility: bool = False
) -> Course:
    """Return how an e-process ends that is looked at after `every` units, up to `most`.

    Exact: the chances of all numbers of failures are carried from look to look (chances below
    1e-18 are dropped). At q = p0 `held` and `broken` are its two error probabilities.

    Args:
        q: True proportion of failures, in [0, 1].
        p0: Largest proportion that the contract allows, in (0, 1).
        alpha: Allowed probability of each error, in (0, 1).
        every: Units between looks, at least 1.
        most: Units after which it ends in any case, a multiple of `every`.
        futility: Stop also where it cannot hold any more (`FailureProcess.can_still_hold`); that
            counts as neither held nor broken.

    Raises:
        InputError: For an argument outside these ranges.

    >>> course = eprocess_course(0.001, p0=0.005, alpha=0.05, every=10, most=5000)
    >>> round(course.held, 3), round(course.mean_units)
    (0.997, 1486)
    """
    _checked_rate("q", q)
    checked_share("p0", p0)
    goal = -math.log(checked_alpha(alpha))
    checked_count("every", every, 1)
    if checked_count("most", most, every) % every:
        raise InputError(f"most is {most}; it must be a multiple of every, {every}")
    step = binom.pmf(np.arange(every + 1), every, q)
    step = step[: int(np.flatnonzero(step > 1e-18).max()) + 1]
    hopeless = _first(lambda k: k > most or log_evidence(k, most, p0) < goal, 0)
    chances, first = np.array([1.0]), 0  # chances[i]: that first + i failed and nothing is decided
    held = broken = units = 0.0
    enough, many = -1, 0  # held at `enough` failures or fewer, broken at `many` or more
    for n in range(every, most + 1, every):
        chances = np.convolve(chances, step)
        enough = _first(lambda k: log_evidence(k + 1, n, p0) < goal, enough)  # noqa: B023
        many = _first(lambda k: k > n or log_evidence(n - k, n, 1.0 - p0) >= goal, many)  # noqa: B023
        k = first + np.arange(len(chances))
        good, bad = k <= enough, k >= many
        held, broken = held + float(chances[good].sum()), broken + float(chances[bad].sum())
        over = good | bad | (k >= hopeless) if futility else good | bad
        units += n * float(chances[over].sum())
        chances = np.where(over, 0.0, chances)
        left = np.flatnonzero(chances > 1e-18)
        if len(left) == 0:
            return Course(held, broken, units)
        chances, first = chances[left[0] : left[-1] + 1], first + int(left[0])
    return Course(held, broken, units + most * float(chances.sum()))


def simulated_power(
    shown: Callable[[np.random.Generator], bool], *, runs: int, rng: np.random.Generator
) -> Simulated:
    """Return how often `shown` is True over independent draws, and how sure that share is.

    Args:
        shown: Draws one sample from the generator and says whether what is wanted is shown.
        runs: Number of draws, at least 1.
        rng: Where all randomness comes from.

    Raises:
        InputError: For runs < 1.

    >>> from justenough.stats.bounded import mean_upper
    >>> def shown(rng: np.random.Generator) -> bool:
    ...     return mean_upper(rng.beta(0.2, 20.0, 300), alpha=0.05) <= 0.03
    >>> simulated_power(shown, runs=100, rng=np.random.default_rng(0)).estimate > 0.9
    True
    """
    checked_count("runs", runs, 1)
    estimate = sum(bool(shown(rng)) for _ in range(runs)) / runs
    p = min(max(estimate, 1.0 / (runs + 1)), runs / (runs + 1))
    return Simulated(estimate, math.sqrt(p * (1.0 - p) / runs))


def _shows(bound: ProportionBound, n: int, at_most: float, alpha: float) -> Callable[[int], bool]:
    """Whether so many failures show it; each bound says no from some number on."""
    if bound == "clopper_pearson":
        # The bound is where this chance is alpha (`proportion.clopper_pearson_upper`).
        return lambda k: bool(k < n and binom.cdf(k, n, at_most) <= alpha)
    if bound == "hoeffding_bentkus":
        return lambda k: bool(hoeffding_bentkus_of(np.array([k]), n, at_most)[0] <= alpha)
    if bound == "bernstein":
        return lambda k: n > 1 and bernstein_of(k / n, _variance(k, n), n, alpha) <= at_most
    if bound != "betting":
        raise InputError(
            f"bound is {bound!r}; it must be one of {', '.join(get_args(ProportionBound))}"
        )
    bets, log_weights = wagers(n, alpha)

    def shown(k: int) -> bool:
        growth, counts = np.array([1.0 / (1.0 - at_most), 0.0]), np.array([n - k, k], dtype=float)
        seen = counts > 0.0
        return log_capital(growth[seen], counts[seen], bets, log_weights) >= -math.log(alpha)

    return shown


def _variance(k: int, n: int) -> float:
    return k * (n - k) / (n * (n - 1))


def _first(found: Callable[[int], bool], start: int) -> int:
    """The first number from `start` on for which it is True; it stays so from there on."""
    while not found(start):
        start += 1
    return start


def _checked_rate(name: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise InputError(f"{name} is {value}; it must lie in [0, 1]")
