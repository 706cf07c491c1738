"""Two classifiers or measurements on the same cases: are they different, are they equivalent."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.stats import beta, binom, norm
from scipy.stats import t as student

from justenough.errors import InputError
from justenough.stats.bisection import upper_end
from justenough.stats.checks import (
    checked_alpha,
    checked_count,
    checked_share,
    finite_vector,
    varying,
)

Alternative = Literal["two-sided", "greater", "less"]
EquivalenceMethod = Literal["clopper_pearson", "score"]

_SMALLEST_P = 1e-15

_Vector = NDArray[np.float64]
_Counts = NDArray[np.integer] | NDArray[np.float64]


@dataclass(frozen=True)
class Equivalence:
    """Two one-sided tests (TOST) of "the difference is not within the margin".

    Attributes:
        estimate: Difference seen.
        lower: Lower bound on the difference, wrong with probability at most alpha by itself.
        upper: Upper bound, likewise; both together are an interval of confidence 1 - 2 alpha.
        p_value: The larger of the two one-sided p-values; exact ones are not given below 1e-15.
        shown: Whether that is at most alpha: the difference lies strictly within the margin.
    """

    estimate: float
    lower: float
    upper: float
    p_value: float
    shown: bool


def mcnemar(lost: int, gained: int, *, alternative: Alternative = "two-sided") -> float:
    """Return the exact p-value of McNemar's test for two classifiers on the same cases.

    McNemar 1947, Psychometrika 12(2), in its exact form: if both are right equally often, each
    case on which only one is right falls on either side like a fair coin. Cases must be
    independent; clustered rows are not.

    Args:
        lost: Cases that the reference gets right and the candidate wrong.
        gained: Cases that the candidate gets right and the reference wrong.
        alternative: "greater" asks whether more are lost than gained, "less" whether fewer,
            "two-sided" whether the numbers differ: twice the smaller of the two, at most 1.

    Returns:
        The p-value, in [0, 1]; 1 where no case distinguishes them.

    Raises:
        InputError: For a negative count or an unknown alternative.

    >>> round(mcnemar(9, 2), 5), round(mcnemar(9, 2, alternative="greater"), 5)
    (0.06543, 0.03271)
    """
    checked_count("lost", lost, 0)
    checked_count("gained", gained, 0)
    n = lost + gained
    greater, less = float(binom.sf(lost - 1, n, 0.5)), float(binom.cdf(lost, n, 0.5))
    if alternative == "greater":
        return greater
    if alternative == "less":
        return less
    if alternative != "two-sided":
        raise InputError(f"alternative is {alternative!r}; it must be two-sided, greater or less")
    return min(1.0, 2.0 * min(greater, less))


def tost_proportions(
    lost: int,
    gained: int,
    n: int,
    *,
    margin: float,
    alpha: float,
    method: EquivalenceMethod = "clopper_pearson",
) -> Equivalence:
    """Show that two classifiers are right equally often, within a margin, on the same cases.

    Two one-sided tests (Schuirmann 1987) on the difference P(lost) - P(gained), which is the
    accuracy of the reference less that of the candidate. One-sided bounds come with it, so the
    non-inferiority of the candidate is `upper < margin` alone.

    "clopper_pearson" is valid at every n: Clopper & Pearson's bounds on both chances at alpha / 2
    each, subtracted (Bonferroni), so it is conservative. "score" is Tango's score test (1998,
    Stat. Med. 17(8)), normal in the limit: sharper, but with few discordant cases its true level
    exceeds alpha (`docs/coverage.md` has by how much).

    Args:
        lost: Cases that the reference gets right and the candidate wrong.
        gained: Cases that the candidate gets right and the reference wrong.
        n: All cases, independent, at least lost + gained.
        margin: Largest difference that does not matter, in (0, 1).
        alpha: Allowed probability of showing it wrongly, in (0, 1).
        method: "clopper_pearson" or "score", chosen before the cases are seen.

    Raises:
        InputError: For counts that are negative or exceed n, margin or alpha outside (0, 1), or an
            unknown method.

    >>> found = tost_proportions(4, 3, 1000, margin=0.02, alpha=0.05)
    >>> round(found.lower, 4), round(found.upper, 4), found.shown
    (-0.0077, 0.0096, True)
    """
    checked_count("n", n, 1)
    checked_count("lost", lost, 0, n)
    checked_count("gained", gained, 0, n - lost)
    checked_share("margin", margin)
    checked_alpha(alpha)
    one, other = np.array([lost]), np.array([gained])
    shown = bool(equivalent(one, other, n, margin=margin, alpha=alpha, method=method)[0])
    if method == "score":
        p = float(_score_p(one, other, n, margin)[0])
        lower, upper = -_score_upper(gained, lost, n, alpha), _score_upper(lost, gained, n, alpha)
    else:
        p = _exact_p(lost, gained, n, margin)
        lower = -float(_exact_upper(other, one, n, alpha)[0])
        upper = float(_exact_upper(one, other, n, alpha)[0])
    return Equivalence((lost - gained) / n, lower, upper, p, shown)


def tost_means(differences: ArrayLike, *, margin: float, alpha: float) -> Equivalence:
    """Show that the mean of paired differences lies within a margin, by Student's t.

    Two one-sided tests (Schuirmann 1987, J. Pharmacokinet. Biopharm. 15(6)). Exact for normal
    differences, in the limit for others of finite variance; rare large differences that were not
    seen are not allowed for. Where differences are bounded, scale them to [0, 1] and compare
    `justenough.stats.bounded.mean_upper` with the margin: valid at every n.

    Args:
        differences: One for each independent pair, shape (n,), n >= 2.
        margin: Largest mean difference that does not matter, > 0, in the differences' unit.
        alpha: Allowed probability of showing it wrongly, in (0, 1).

    Raises:
        InputError: For fewer than 2 differences, some not finite, all equal, margin <= 0 or
            alpha outside (0, 1).

    >>> found = tost_means([0.1, -0.2, 0.05, 0.0, -0.1, 0.12], margin=0.2, alpha=0.05)
    >>> round(found.p_value, 4), found.shown
    (0.006, True)
    """
    checked_alpha(alpha)
    values = finite_vector("differences", differences)
    if not (margin > 0.0 and math.isfinite(margin)):
        raise InputError(f"margin is {margin}; it must be a positive number")
    n = len(values)
    if n < 2:
        raise InputError("differences has 1 value; Student's t needs at least 2")
    varying("differences", values, "without any spread a t test says nothing")
    mean, error = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(n)
    reach = float(student.isf(alpha, n - 1)) * error
    p = float(student.sf((margin - abs(mean)) / error, n - 1))
    return Equivalence(mean, mean - reach, mean + reach, p, p <= alpha)


def equivalent(
    lost: _Counts,
    gained: _Counts,
    n: int,
    *,
    margin: float,
    alpha: float,
    method: EquivalenceMethod,
) -> NDArray[np.bool_]:
    """Return what `tost_proportions` would show for arrays of counts; margin and alpha unchecked.

    Raises:
        InputError: For an unknown method.

    >>> lost, gained = np.array([4, 16]), np.array([3, 3])
    >>> equivalent(lost, gained, 1000, margin=0.02, alpha=0.05, method="score")
    array([ True, False])
    """
    if method not in get_args(EquivalenceMethod):
        raise InputError(f"method is {method!r}; it must be clopper_pearson or score")
    if method == "score":
        shown: NDArray[np.bool_] = _score_p(lost, gained, n, margin) <= alpha
        return shown
    above, below = _exact_upper(lost, gained, n, alpha), _exact_upper(gained, lost, n, alpha)
    within: NDArray[np.bool_] = np.maximum(above, below) < margin
    return within


def _exact_upper(more: _Counts, fewer: _Counts, n: int, alpha: float) -> _Vector:
    """Upper bound on P(more) - P(fewer): Clopper and Pearson's of each at alpha / 2."""
    high = np.where(more == n, 1.0, beta.isf(0.5 * alpha, more + 1, np.maximum(n - more, 1)))
    low = np.where(fewer == 0, 0.0, beta.ppf(0.5 * alpha, np.maximum(fewer, 1), n - fewer + 1))
    difference: _Vector = high - low
    return difference


def _exact_p(lost: int, gained: int, n: int, margin: float) -> float:
    """Smallest alpha in 1e-15..1 at which both exact bounds lie within the margin."""

    def missing(log_alpha: float) -> float:
        counts = np.array([lost, gained])
        return float(_exact_upper(counts, counts[::-1], n, math.exp(log_alpha)).max()) - margin

    lowest = math.log(_SMALLEST_P)  # beta quantiles beyond that do not converge everywhere
    if missing(0.0) >= 0.0:
        return 1.0
    return math.exp(brentq(missing, lowest, 0.0)) if missing(lowest) > 0.0 else math.exp(lowest)


def _score_p(lost: _Counts, gained: _Counts, n: int, margin: float) -> _Vector:
    above, below = (_score_z(a, b, n, margin) for a, b in ((lost, gained), (gained, lost)))
    p: _Vector = norm.cdf(np.maximum(above, below))
    return p


def _score_z(more: _Counts, fewer: _Counts, n: int, difference: float) -> _Vector:
    """Tango's z for P(more) - P(fewer) = difference >= 0, with the nuisance at its maximum."""
    b = -more - fewer + (2.0 * n - more + fewer) * difference
    c = -fewer * difference * (1.0 - difference)
    nuisance = (np.sqrt(b * b - 8.0 * n * c) - b) / (4.0 * n)
    variance = n * np.maximum(2.0 * nuisance + difference * (1.0 - difference), 0.0)
    off = np.asarray(more - fewer - n * difference, dtype=np.float64)
    z: _Vector = np.divide(off, np.sqrt(variance), out=np.zeros_like(off), where=variance > 0.0)
    return z


def _score_upper(lost: int, gained: int, n: int, alpha: float) -> float:
    """Largest difference that the score test at alpha does not reject."""
    goal = float(norm.ppf(alpha))

    def rejected(difference: float) -> bool:
        a, b = np.array([lost]), np.array([gained])
        if difference >= 0.0:
            return float(_score_z(a, b, n, difference)[0]) <= goal
        return -float(_score_z(b, a, n, -difference)[0]) <= goal

    return upper_end(rejected, (lost - gained) / n)
