"""A proportion of failures watched batch by batch: bounds that hold whenever one stops to look."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from justenough.errors import InputError
from justenough.stats.bisection import first_whole
from justenough.stats.bounded import log_sum
from justenough.stats.checks import checked_alpha, checked_count, checked_share

Decision = Literal["held", "broken", "undecided"]

# Odds of the alternatives over those of p0, and the weight of each: fixed here, so that neither
# the data nor the user can bend them. 0 stands for no failures at all, the case met most; the
# others are spread evenly, and the last four let the confidence sequence shrink as n grows.
_CLOSENESS = np.array(
    [1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.025, 0.0125, 0.00625]
)
_WEIGHTS = np.concatenate([[0.4], np.full(10, 0.055), np.full(4, 0.0125)])
with np.errstate(divide="ignore"):
    _LOG_ODDS = np.log1p(-_CLOSENESS)
_LOG_WEIGHTS = np.log(_WEIGHTS)


@dataclass(frozen=True)
class FailureProcess:
    """An e-process for a proportion p of failures: evidence that may be extended at will.

    Against "p >= p0" the evidence is the mixture E = sum over j of w_j times the likelihood ratio
    (q_j / p0)**k ((1 - q_j) / (1 - p0))**(n - k) for k failures in n trials, where the odds of q_j
    are a fixed fraction of those of p0. Were p >= p0 true, E would be a nonnegative
    supermartingale from 1, so by Ville's inequality (1939; Howard et al. 2021, Ann. Stat. 49(2))
    it would ever reach 1/alpha with probability at most alpha: one may look after every batch,
    stop when one likes, and go on later. The mirror image is evidence against "p <= p0".

    E grows with p0, so the values it does not rule out are an interval: `upper` is where E reaches
    1/alpha, and the smallest one met at any look stays valid; likewise `lower`. Each holds for all
    looks together with probability 1 - alpha. Their price against Clopper-Pearson at one n that
    was fixed beforehand: `anytime_units_needed`. The nearest alternative has odds of 0.99375 times
    those of p0, so with n in the millions the bounds stop shrinking at about 0.3 % of the odds.

    The state is six numbers: `dataclasses.asdict` gives what JSON can hold, and
    `FailureProcess(**it)` goes on from there. Trials must come one after another, each failing
    with probability p whatever came before (or, for `upper`, at least p; for `lower`, at most p).
    Rows of one unit resemble each other: count units, each when it is complete.

    Attributes:
        p0: Largest proportion of failures that the contract allows, in (0, 1).
        alpha: Allowed probability that one of the bounds is ever wrong, in (0, 1).
        n: Trials so far.
        failures: Failures so far.
        lower: Largest lower bound at any look so far, in [0, 1].
        upper: Smallest upper bound at any look so far, in [0, 1].

    Raises:
        InputError: For p0 or alpha outside (0, 1), or a state that cannot have come about.

    >>> process = FailureProcess(p0=0.005, alpha=0.05)
    >>> for failures in (1, 0, 0):
    ...     process = process.extended(500, failures)
    >>> process.decision, round(process.upper, 5)
    ('held', 0.00498)
    """

    p0: float
    alpha: float
    n: int = 0
    failures: int = 0
    lower: float = 0.0
    upper: float = 1.0

    def __post_init__(self) -> None:
        checked_share("p0", self.p0)
        checked_alpha(self.alpha)
        checked_count("n", self.n, 0)
        checked_count("failures", self.failures, 0, self.n)
        for name, bound in (("lower", self.lower), ("upper", self.upper)):
            if not 0.0 <= bound <= 1.0:
                raise InputError(f"{name} is {bound}; it must lie in [0, 1]")

    def extended(self, n: int, failures: int) -> "FailureProcess":
        """Return the process after a look at `n` more trials, `failures` of which failed.

        Args:
            n: New trials, at least 1.
            failures: Failures among them, 0..n.

        Raises:
            InputError: For n < 1 or failures outside 0..n.

        >>> FailureProcess(p0=0.1, alpha=0.05).extended(10, 1).extended(20, 0).n
        30
        """
        trials = self.n + checked_count("n", n, 1)
        failed = self.failures + checked_count("failures", failures, 0, n)
        low = 1.0 - _upper(trials - failed, trials, self.alpha)
        high = _upper(failed, trials, self.alpha)
        return FailureProcess(
            self.p0, self.alpha, trials, failed, max(self.lower, low), min(self.upper, high)
        )

    @property
    def log_evidence_for(self) -> float:
        """Logarithm of the e-value against "p >= p0", now; its expectation there is at most 1.

        >>> process = FailureProcess(p0=0.5, alpha=0.05).extended(10, 0)
        >>> round(process.log_evidence_for, 2)
        6.18
        """
        return log_evidence(self.failures, self.n, self.p0)

    @property
    def log_evidence_against(self) -> float:
        """Logarithm of the e-value against "p <= p0", now.

        >>> process = FailureProcess(p0=0.5, alpha=0.05).extended(10, 10)
        >>> process.log_evidence_against == FailureProcess(0.5, 0.05, 10, 0).log_evidence_for
        True
        """
        return log_evidence(self.n - self.failures, self.n, 1.0 - self.p0)

    @property
    def decision(self) -> Decision:
        """Whether any look so far has shown p < p0 ("held") or p > p0 ("broken").

        Each is wrong with probability at most alpha. Where both were shown, neither is believed.

        >>> FailureProcess(p0=0.005, alpha=0.05).extended(200, 9).decision
        'broken'
        """
        held, broken = self.upper <= self.p0, self.lower >= self.p0
        if held == broken:
            return "undecided"
        return "held" if held else "broken"

    def can_still_hold(self, most: int) -> bool:
        """Whether p < p0 is shown already, or would be if no trial up to `most` failed any more.

        Where it is False, going on cannot help: stop. This looks at nothing but the counts and
        needs no error probability.

        Args:
            most: Largest number of trials, this process's own included.

        Raises:
            InputError: If `most` is fewer than were made already.

        >>> process = FailureProcess(p0=0.005, alpha=0.05).extended(500, 5)
        >>> process.can_still_hold(2500), process.can_still_hold(3500)
        (False, True)
        """
        checked_count("most", most, self.n)
        best = log_evidence(self.failures, most, self.p0)  # grows with n while k stays
        return self.upper <= self.p0 or best >= -math.log(self.alpha)


def log_evidence(failures: int, n: int, p0: float) -> float:
    """Return the logarithm of the mixture likelihood ratio against "p >= p0".

    With odds r times those of p0 each ratio is r**k / (1 - (1 - r) p0)**n, which grows with p0 and
    n and falls with k. Nothing is checked; see `FailureProcess`.

    >>> round(log_evidence(0, 710, 0.005), 4) >= round(math.log(20), 4)
    True
    """
    powers = failures * _LOG_ODDS if failures else 0.0  # 0 times -inf would be nan
    terms: NDArray[np.float64] = powers - n * np.log1p(-_CLOSENESS * p0)
    return log_sum(terms + _LOG_WEIGHTS)


def anytime_units_needed(failures: int, *, at_most: float, alpha: float) -> int:
    """Return the smallest n at which `failures` failures still show p < `at_most`, at any look.

    To be held against `justenough.stats.proportion.units_needed`, which allows one look at an n
    fixed beforehand: the difference is the price of looking whenever one likes.

    Args:
        failures: Number of failures to allow for, at least 0.
        at_most: Proportion of failures to be ruled out, in (0, 1).
        alpha: Allowed probability that it is ever ruled out wrongly, in (0, 1).

    Raises:
        InputError: For an argument outside these ranges.

    >>> [anytime_units_needed(0, at_most=p, alpha=0.05) for p in (0.01, 0.005, 0.001)]
    [354, 710, 3555]
    """
    checked_count("failures", failures, 0)
    checked_share("at_most", at_most)
    goal = -math.log(checked_alpha(alpha))
    low, high = failures, failures + 1
    while log_evidence(failures, high, at_most) < goal:
        low, high = high, 2 * high
    return first_whole(lambda n: log_evidence(failures, n, at_most) >= goal, low, high)


def _upper(failures: int, n: int, alpha: float) -> float:
    """Smallest p0 that is ruled out, narrowed down 64 points at a time; 1 where none is."""
    goal = -math.log(alpha)
    powers = failures * _LOG_ODDS if failures else 0.0
    low, high = failures / n, 1.0
    if failures == n:
        return 1.0
    for _ in range(9):
        grid = np.linspace(low, high, 65)
        inside = np.minimum(grid[1:-1, None], 1.0 - 2.0**-53)
        terms = _LOG_WEIGHTS + powers - n * np.log1p(-_CLOSENESS * inside)
        largest = terms.max(axis=1)
        found = largest + np.log(np.exp(terms - largest[:, None]).sum(axis=1)) >= goal
        first = int(np.argmax(found)) if found.any() else 63
        low, high = float(grid[first]), float(grid[first + 1])
    return high
