"""Bounds in closed form for the mean of independent values in [0, 1], and a p-value."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import xlogy
from scipy.stats import binom

from justenough.errors import InputError
from justenough.stats.bisection import upper_end
from justenough.stats.checks import checked_alpha, checked_share, unit_interval


def bernstein_upper(x: ArrayLike, *, alpha: float) -> float:
    """Upper bound on a mean by its sample variance, valid with probability >= 1 - alpha.

    Maurer & Pontil 2009, "Empirical Bernstein bounds and sample variance penalization" (COLT,
    arXiv 0907.3740), theorem 11: mean + sqrt(2 V L / n) + 7 L / (3 (n - 1)), where
    L = log(2 / alpha) and V is the sample variance with divisor n - 1. For independent values, at
    every n >= 2, also where their means differ: then for the average of these. The betting bound
    (`justenough.stats.bounded.mean_upper`) is usually tighter; this one fits on a line.

    Args:
        x: Independent values in [0, 1], shape (n,), n >= 2; clustered rows must be averaged first.
        alpha: Allowed probability that the bound is below the truth, in (0, 1).

    Returns:
        The bound, in [mean of x, 1].

    Raises:
        InputError: For fewer than 2 values, values outside [0, 1] or not finite, or alpha outside
            (0, 1).

    >>> round(bernstein_upper(np.zeros(1000), alpha=0.05), 4)
    0.0086
    """
    checked_alpha(alpha)
    values = unit_interval("x", x)
    n = len(values)
    if n < 2:
        raise InputError("x has 1 value; a sample variance needs at least 2")
    return min(1.0, bernstein_of(float(values.mean()), float(values.var(ddof=1)), n, alpha))


def bernstein_lower(x: ArrayLike, *, alpha: float) -> float:
    """Lower bound on a mean that holds with probability >= 1 - alpha.

    The mirror image of `bernstein_upper`, with the same arguments, errors and source.

    >>> round(bernstein_lower(np.ones(1000), alpha=0.05), 4)
    0.9914
    """
    return 1.0 - bernstein_upper(1.0 - unit_interval("x", x), alpha=alpha)


def bernstein_of(mean: float, variance: float, n: int, alpha: float) -> float:
    """The bound of `bernstein_upper` from the sample's mean and variance, not cut at 1.

    >>> round(bernstein_of(0.0, 0.0, 1000, 0.05), 4)
    0.0086
    """
    confidence = math.log(2.0 / alpha)
    return mean + math.sqrt(2.0 * variance * confidence / n) + 7.0 * confidence / (3.0 * (n - 1))


def hoeffding_bentkus_upper(x: ArrayLike, *, alpha: float) -> float:
    """Upper bound on a mean that holds with probability >= 1 - alpha, at every n.

    Bates, Angelopoulos, Lei, Malik & Jordan 2021, "Distribution-free, risk-controlling prediction
    sets" (J. ACM 68(6), section 3.1): the largest mean whose `hoeffding_bentkus_p` exceeds
    alpha. Only the sample's mean enters, so it gains nothing where values vary less than coins do.

    Args:
        x: Independent values in [0, 1], shape (n,), n >= 1; clustered rows must be averaged first.
        alpha: Allowed probability that the bound is below the truth, in (0, 1).

    Returns:
        The bound, in [mean of x, 1].

    Raises:
        InputError: For values outside [0, 1] or not finite, an empty x, or alpha outside (0, 1).

    >>> round(hoeffding_bentkus_upper(np.zeros(1000), alpha=0.05), 4)
    0.003
    """
    checked_alpha(alpha)
    values = unit_interval("x", x)
    n, total = len(values), math.fsum(values)

    def ruled_out(mean: float) -> bool:
        return bool(hoeffding_bentkus_of(np.array([total]), n, mean)[0] <= alpha)

    return upper_end(ruled_out, min(total / n, 1.0))


def hoeffding_bentkus_lower(x: ArrayLike, *, alpha: float) -> float:
    """Lower bound on a mean that holds with probability >= 1 - alpha, at every n.

    The mirror image of `hoeffding_bentkus_upper`, with the same arguments, errors and source.

    >>> round(hoeffding_bentkus_lower(np.ones(1000), alpha=0.05), 4)
    0.997
    """
    return 1.0 - hoeffding_bentkus_upper(1.0 - unit_interval("x", x), alpha=alpha)


def hoeffding_bentkus_p(x: ArrayLike, *, at_most: float) -> float:
    """Return a p-value for "the mean is `at_most` or more": small where the mean is shown below.

    The smaller of two bounds on the chance of a sample's mean this low: Hoeffding's in its form
    with the relative entropy (1963, theorem 1) and Bentkus's e P(Bin(n, at_most) <= ceil(sum))
    (2004, Ann. Probab. 32(2), theorem 1.2). Both bound the same tail, so no correction is due for
    taking the smaller. Bates et al. 2021, section 3.1; as a p-value Angelopoulos et al. 2021,
    "Learn then test" (arXiv 2110.01052), proposition 1.

    Args:
        x: Independent values in [0, 1], shape (n,), n >= 1.
        at_most: Mean to be ruled out, in (0, 1).

    Returns:
        Probability in [0, 1]; at most u with probability at most u if the mean is `at_most` or
        more.

    Raises:
        InputError: For values outside [0, 1] or not finite, an empty x, or at_most outside (0, 1).

    >>> round(hoeffding_bentkus_p(np.zeros(1000), at_most=0.005), 4)
    0.0067
    """
    checked_share("at_most", at_most)
    values = unit_interval("x", x)
    return float(hoeffding_bentkus_of(np.array([math.fsum(values)]), len(values), at_most)[0])


def hoeffding_bentkus_of(
    totals: NDArray[np.float64], n: int, at_most: float
) -> NDArray[np.float64]:
    """`hoeffding_bentkus_p` from the sums of n values each, shape (m,), unchecked.

    >>> hoeffding_bentkus_of(np.array([0.0, 20.0]), 1000, 0.005).round(4)
    array([0.0067, 1.    ])
    """
    mean = np.minimum(totals / n, at_most)
    entropy = xlogy(mean, mean / at_most) + xlogy(1.0 - mean, (1.0 - mean) / (1.0 - at_most))
    bentkus = math.e * binom.cdf(np.ceil(totals), n, at_most)
    smaller: NDArray[np.float64] = np.minimum(np.exp(-n * np.maximum(entropy, 0.0)), bentkus)
    return np.minimum(smaller, 1.0)
