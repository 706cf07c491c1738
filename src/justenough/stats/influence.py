"""From influences to one-sided bounds: units summed, and room left for a failure not yet seen."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from justenough.stats.checks import checked_units


@dataclass(frozen=True)
class Spread:
    """How sure an estimate over independent units is.

    Attributes:
        variance: Squared standard error of the estimate.
        quantile: Student's t quantile at 1 - alpha with g - 1 degrees of freedom.
    """

    variance: float
    quantile: float

    @property
    def width(self) -> float:
        """Quantile times standard error."""
        return self.quantile * math.sqrt(self.variance)

    @property
    def imaginary(self) -> float:
        """Number of imaginary units that stand for those not seen."""
        return (self.quantile**2 + 2.0) / 3.0

    def reach(self, worst: float) -> float:
        """Width with room for the worst unit that was not seen.

        Clopper and Pearson's upper bound for k rare failures is near k + a + q sqrt(k + 1) with
        a = (q**2 + 2) / 3 (Molenaar 1970, Approximations to the Poisson, Binomial and
        Hypergeometric Distribution Functions). So `a` imaginary units that move the
        estimate by `worst` each are added. Without them a sample with no rare failure in it
        has no variance, and the bound would promise that there are none.

        >>> round(Spread(0.0, 1.645).reach(1 / 1000), 5)
        0.00363
        """
        with_them = self.variance + self.imaginary * worst**2
        return self.imaginary * worst + self.quantile * math.sqrt(with_them)


def cautious_bounds(
    correlation: float, spread: Spread, worst: float, *, bias: float = 0.0
) -> tuple[float, float]:
    """Return a lower and an upper bound on a rank correlation, in [-1, 1].

    Each is the more cautious of two: Fisher's z with Student's t, and the plain scale with room
    for a unit that was not seen (`Spread.reach`).

    Args:
        correlation: The estimate r, in [-1, 1].
        spread: Its spread.
        worst: What an unseen unit may move it by, over 1 + r downwards and 1 - r upwards.
        bias: Expected estimate less the truth; it is taken off only where that is cautious.

    >>> [round(b, 3) for b in cautious_bounds(0.9, Spread(0.0001, 1.645), 0.001)]
    [0.88, 0.917]
    """
    down = correlation - spread.reach((1.0 + correlation) * worst)
    up = correlation + spread.reach((1.0 - correlation) * worst)
    if abs(correlation) < 1.0:
        z, width = math.atanh(correlation), spread.width / (1.0 - correlation**2)
        down, up = min(down, math.tanh(z - width)), max(up, math.tanh(z + width))
    return max(down - max(bias, 0.0), -1.0), min(up - min(bias, 0.0), 1.0)


def unit_spread(
    influence: NDArray[np.float64], units: NDArray[np.intp], g: int, alpha: float
) -> Spread:
    """Return the spread of a mean of influences, rows summed within units first.

    Liang & Zeger 1986 (Biometrika 73(1)), equation 8, with the factor g / (g - 1).

    Args:
        influence: Influence of each row, shape (n,), with mean about 0.
        units: Independent unit of each row, 0..g-1, shape (n,).
        g: Number of units, at least 30.
        alpha: Allowed probability of a wrong bound, in (0, 1).

    >>> spread = unit_spread(np.tile([-1.0, 1.0], 50), np.arange(100), 100, alpha=0.05)
    >>> round(spread.variance, 6), round(spread.quantile, 3)
    (0.010101, 1.66)
    """
    checked_units(g)
    sums = np.bincount(units, influence, g)
    sums -= sums.mean()
    variance = g / (g - 1) * float(sums @ sums) / len(influence) ** 2
    return Spread(variance, float(student.isf(alpha, g - 1)))
