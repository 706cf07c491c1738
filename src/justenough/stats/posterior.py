"""Draws from a posterior of weights on the simplex, and how far two posteriors lie apart."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from justenough.errors import InputError
from justenough.stats.checks import checked_alpha

_Array = NDArray[np.float64]


@dataclass(frozen=True)
class Posterior:
    """What one method says about the weights.

    Attributes:
        method: Its name.
        draws: Weights, shape (chains, n, k); each row sums to 1.
        slope: Slope of standardised y on the standardised X @ w of each draw, shape (chains, n).
        shares: Probability that each draw stands for, shape (chains, n), summing to 1; all equal
            unless the draws are importance-weighted.
        ess: Effective number of independent draws: for chains the smallest bulk or tail ESS of
            a weight, for importance-weighted draws 1 / sum of squared shares (Kong 1992).
        pareto_k: Largest shape of the tail of importance ratios over several sets of draws
            (Vehtari et al. 2024); above 0.7 the approximation is not to be trusted. None for
            chains.
        r_hat: Largest rank-normalised split R-hat of a weight; None where there are no chains.
        divergences: Divergent transitions of chains; each is a sign of bias.
    """

    method: str
    draws: _Array
    slope: _Array
    shares: _Array
    ess: float
    pareto_k: float | None = None
    r_hat: float | None = None
    divergences: int = 0

    @property
    def mean(self) -> _Array:
        """Posterior mean of each weight, shape (k,)."""
        found: _Array = np.einsum("cn,cnk->k", self.shares, self.draws)
        return found

    @property
    def sd(self) -> _Array:
        """Posterior standard deviation of each weight, shape (k,)."""
        away = self.draws - self.mean
        found: _Array = np.sqrt(np.einsum("cn,cnk,cnk->k", self.shares, away, away))
        return found

    @property
    def mean_error(self) -> _Array:
        """Monte Carlo standard error of `mean`, shape (k,).

        For importance-weighted draws by the delta method (Owen 2013, Monte Carlo theory, methods
        and examples, equation 9.9); for chains the standard deviation over the root of the ESS.
        """
        if self.r_hat is not None:
            return self.sd / math.sqrt(self.ess)
        away = self.draws - self.mean
        found: _Array = np.sqrt(np.einsum("cn,cnk,cnk->k", self.shares**2, away, away))
        return found

    def interval(self, alpha: float = 0.05) -> _Array:
        """Equal-tailed credible intervals of mass 1 - alpha, shape (k, 2)."""
        checked_alpha(alpha)
        ends = np.array([alpha / 2, 1 - alpha / 2])
        columns = []
        for values, below in self._sorted():
            columns.append(np.interp(ends, below, values))
        return np.array(columns)

    def hdi(self, alpha: float = 0.05) -> _Array:
        """Shortest intervals of mass 1 - alpha (Chen & Shao 1999), shape (k, 2)."""
        checked_alpha(alpha)
        columns = []
        for values, below in self._sorted():
            start = below[below <= below[0] + alpha]
            first = np.interp(start, below, values)
            last = np.interp(start + (1 - alpha), below, values)
            best = int((last - first).argmin())
            columns.append((first[best], last[best]))
        return np.array(columns)

    def _sorted(self) -> list[tuple[_Array, _Array]]:
        """Sorted values of each weight, and the mass below the middle of each."""
        shares = self.shares.ravel()
        out = []
        for column in self.draws.reshape(-1, self.draws.shape[-1]).T:
            order = np.argsort(column)
            mass = shares[order]
            out.append((column[order], np.cumsum(mass) - 0.5 * mass))
        return out


@dataclass(frozen=True)
class Discrepancy:
    """Largest difference over the weights, in standard deviations of the reference.

    Attributes:
        mean: Of posterior means.
        sd: Of posterior standard deviations.
        ends: Of the ends of equal-tailed intervals.
    """

    mean: float
    sd: float
    ends: float


def discrepancy(candidate: Posterior, reference: Posterior, *, alpha: float = 0.05) -> Discrepancy:
    """Return how far a candidate's marginals lie from the reference's.

    Args:
        candidate: Of the same weights.
        reference: Usually the exact one; its own Monte Carlo error is part of the answer.
        alpha: The intervals compared have mass 1 - alpha.

    Raises:
        InputError: If the numbers of weights differ.

    >>> rng = np.random.default_rng(0)
    >>> w = rng.dirichlet([4.0, 3.0, 2.0, 1.0], (4, 1000))
    >>> p = Posterior("prior", w, np.ones((4, 1000)), np.full((4, 1000), 1 / 4000), 4000.0)
    >>> discrepancy(p, p)
    Discrepancy(mean=0.0, sd=0.0, ends=0.0)
    """
    if candidate.draws.shape[-1] != reference.draws.shape[-1]:
        raise InputError(
            f"{candidate.draws.shape[-1]} weights against {reference.draws.shape[-1]}; "
            "both must be posteriors of the same weights"
        )
    unit = reference.sd
    ends = candidate.interval(alpha) - reference.interval(alpha)
    return Discrepancy(
        float(np.abs((candidate.mean - reference.mean) / unit).max()),
        float(np.abs(candidate.sd / unit - 1).max()),
        float(np.abs(ends / unit[:, None]).max()),
    )
