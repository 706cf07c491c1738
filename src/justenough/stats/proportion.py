"""Bounds for a proportion, and how many units they need."""

from scipy.stats import beta

from justenough.errors import InputError
from justenough.stats.bisection import first_whole
from justenough.stats.checks import checked_alpha, checked_count

_MOST_UNITS = 10**15


def clopper_pearson_lower(successes: int, n: int, *, alpha: float) -> float:
    """Lower bound on a success probability that holds with probability >= 1 - alpha.

    Clopper & Pearson 1934, Biometrika 26(4), one-sided. Exact, never anti-conservative.

    Args:
        successes: Number of successes among `n` independent trials.
        n: Number of trials, at least 1.
        alpha: Allowed probability that the bound exceeds the truth, in (0, 1).

    Raises:
        InputError: For alpha outside (0, 1), n < 1 or successes outside 0..n.

    >>> round(clopper_pearson_lower(999, 1000, alpha=0.05), 5)
    0.99527
    """
    _check(successes, n, alpha)
    return 0.0 if successes == 0 else float(beta.ppf(alpha, successes, n - successes + 1))


def clopper_pearson_upper(successes: int, n: int, *, alpha: float) -> float:
    """Upper bound on a success probability that holds with probability >= 1 - alpha.

    Clopper & Pearson 1934, Biometrika 26(4), one-sided. Arguments and errors as for
    `clopper_pearson_lower`.

    >>> round(clopper_pearson_upper(1, 1000, alpha=0.05), 5)
    0.00473
    """
    _check(successes, n, alpha)
    if successes == n:
        return 1.0
    # isf keeps the digits that 1 - alpha would lose for a tiny alpha
    return float(beta.isf(alpha, successes + 1, n - successes))


def units_needed(failures: int, *, at_least: float, alpha: float) -> int:
    """Return the smallest n at which `failures` failures still show `at_least`.

    The bound is `clopper_pearson_lower(n - failures, n, alpha=alpha) >= at_least`.

    Args:
        failures: Number of failures to allow for, at least 0.
        at_least: Success probability to be shown, in (0, 1).
        alpha: Allowed probability that the bound exceeds the truth, in (0, 1).

    Raises:
        InputError: For an argument outside these ranges, or where no n up to 1e15 would do.

    >>> [units_needed(0, at_least=p, alpha=0.05) for p in (0.99, 0.995, 0.999)]
    [299, 598, 2995]
    """
    checked_alpha(alpha)
    checked_count("failures", failures, 0)
    if not 0.0 < at_least < 1.0:
        raise InputError(
            f"at_least is {at_least}; a sample can only show a proportion strictly between 0 and 1"
        )

    def shown(n: int) -> bool:
        return clopper_pearson_lower(n - failures, n, alpha=alpha) >= at_least

    high = failures + 1
    while not shown(high):
        high *= 2
        if high > _MOST_UNITS:
            raise InputError(f"at_least is {at_least}; more than {_MOST_UNITS:.0e} units needed")
    low = max(failures, high // 2)  # does not show it, or has no success at all
    return first_whole(shown, low, high)


def _check(successes: int, n: int, alpha: float) -> None:
    checked_alpha(alpha)
    checked_count("n", n, 1)
    checked_count("successes", successes, 0, n)
