"""Many hypotheses tested at once: which may be rejected, and each one's adjusted p-value."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from justenough.errors import InputError
from justenough.stats.checks import checked_alpha, unit_interval

_Vector = NDArray[np.float64]
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Rejections:
    """What a procedure says of m hypotheses.

    Attributes:
        rejected: Which are rejected, shape (m,).
        adjusted: Smallest alpha at which each would be, 1 where none is small enough, shape (m,).
    """

    rejected: NDArray[np.bool_]
    adjusted: _Vector


class Procedure(Protocol):
    """A function of p-values and alpha, such as `holm`."""

    def __call__(self, p: ArrayLike, *, alpha: float) -> Rejections:
        """Return what is rejected."""


def fixed_sequence(p: ArrayLike, *, alpha: float) -> Rejections:
    """Test one after the other in the given order, each at alpha, up to the first that fails.

    Maurer, Hothorn & Lehmacher 1995. The chance of any false rejection is at most alpha, however
    the p-values depend on each other, if the order was fixed without these data.

    Args:
        p: P-values in their order, each in [0, 1], shape (m,), m >= 1.
        alpha: Allowed probability of any false rejection, in (0, 1).

    Raises:
        InputError: For no p-values, one outside [0, 1] or not finite, or alpha outside (0, 1).

    >>> fixed_sequence([0.01, 0.04, 0.2, 0.001], alpha=0.05).rejected
    array([ True,  True, False, False])
    """
    checked_alpha(alpha)
    adjusted = np.maximum.accumulate(unit_interval("p", p))
    return Rejections(adjusted <= alpha, adjusted)


def holm(p: ArrayLike, *, alpha: float) -> Rejections:
    """Holm's step-down procedure: the j-th smallest of m at alpha / (m - j + 1), up to a failure.

    Holm 1979, Scand. J. Stat. 6(2). The chance of any false rejection is at most alpha, however
    the p-values depend on each other and in whatever order they come.

    Args:
        p: P-values, each in [0, 1], shape (m,), m >= 1.
        alpha: Allowed probability of any false rejection, in (0, 1).

    Raises:
        InputError: As `fixed_sequence`.

    >>> holm([0.01, 0.04, 0.03, 0.005], alpha=0.05).adjusted
    array([0.03, 0.06, 0.06, 0.02])
    """
    checked_alpha(alpha)
    values = unit_interval("p", p)
    order = np.argsort(values, kind="stable")
    m = len(values)
    adjusted = np.empty(m)
    adjusted[order] = np.maximum.accumulate((m - np.arange(m)) * values[order])
    adjusted = np.minimum(adjusted, 1.0)
    return Rejections(adjusted <= alpha, adjusted)


def benjamini_hochberg(p: ArrayLike, *, alpha: float) -> Rejections:
    """Benjamini & Hochberg's step-up procedure, which bounds the false discovery rate.

    Benjamini & Hochberg 1995, JRSS-B 57(1). Of what is rejected, the expected share of false
    rejections is at most alpha, for p-values that are independent or positively dependent
    (Benjamini & Yekutieli 2001). That is weaker than what `holm` says: some of what is rejected
    may well be false. It does not certify.

    Args:
        p: P-values, each in [0, 1], shape (m,), m >= 1.
        alpha: Allowed false discovery rate, in (0, 1).

    Raises:
        InputError: As `fixed_sequence`.

    >>> benjamini_hochberg([0.01, 0.04, 0.03, 0.005], alpha=0.05).rejected
    array([ True,  True,  True,  True])
    """
    checked_alpha(alpha)
    values = unit_interval("p", p)
    order = np.argsort(values, kind="stable")[::-1]
    m = len(values)
    adjusted = np.empty(m)
    adjusted[order] = np.minimum.accumulate(m / np.arange(m, 0, -1) * values[order])
    adjusted = np.minimum(adjusted, 1.0)
    return Rejections(adjusted <= alpha, adjusted)


def graphical(
    p: ArrayLike, weights: ArrayLike, transitions: ArrayLike, *, alpha: float
) -> Rejections:
    """Sequentially rejective weighted Bonferroni tests on a graph.

    Bretz, Maurer, Brannath & Posch 2009, Stat. Med. 28(4), algorithms 1 and 2. Hypothesis j is
    tested at weight_j alpha; once it is rejected its weight is handed on along its row of
    `transitions`, and the edges close over the gap. The chance of any false rejection is at most
    alpha, however the p-values depend on each other, if the graph was fixed without these data.
    All weight on the first and 1 from each to the next is `fixed_sequence`; equal weights and
    edges are `holm`.

    Args:
        p: P-values, each in [0, 1], shape (m,), m >= 1.
        weights: Share of alpha that each hypothesis begins with, >= 0, sum at most 1, shape (m,).
        transitions: Share of its weight that each (row) hands on to each (column), in [0, 1], 0 on
            the diagonal, each row's sum at most 1, shape (m, m).
        alpha: Allowed probability of any false rejection, in (0, 1).

    Raises:
        InputError: As `fixed_sequence`, or for weights or transitions outside these ranges.

    >>> graph = [[0, 0, 1, 0], [0, 0, 0, 1], [0, 1, 0, 0], [1, 0, 0, 0]]
    >>> found = graphical([0.01, 0.005, 0.015, 0.022], [0.5, 0.5, 0, 0], graph, alpha=0.05)
    >>> found.adjusted
    array([0.02, 0.01, 0.03, 0.03])
    """
    checked_alpha(alpha)
    values = unit_interval("p", p)
    share, edges = _checked_graph(len(values), weights, transitions)
    left = np.ones(len(values), dtype=np.bool_)
    adjusted, reached = np.ones(len(values)), 0.0
    while (left & (share > 0.0)).any():
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(left & (share > 0.0), values / share, np.inf)
        j = int(np.argmin(ratio))
        reached = max(reached, float(ratio[j]))
        adjusted[j] = min(reached, 1.0)
        left[j] = False
        share, edges = _without(j, share, edges)
    return Rejections(adjusted <= alpha, adjusted)


def _without(j: int, share: _Vector, edges: _Vector) -> tuple[_Vector, _Vector]:
    """The graph once hypothesis j is rejected: equations of algorithm 1."""
    out, into = edges[j], edges[:, j]
    share = share + share[j] * out
    loop = into * out  # from l to j and back
    with np.errstate(divide="ignore", invalid="ignore"):
        closed = (edges + np.outer(into, out)) / (1.0 - loop)[:, None]
    closed[loop >= 1.0 - _ROUNDING] = 0.0
    np.fill_diagonal(closed, 0.0)
    closed[j], closed[:, j], share[j] = 0.0, 0.0, 0.0
    return share, closed


def _checked_graph(m: int, weights: ArrayLike, transitions: ArrayLike) -> tuple[_Vector, _Vector]:
    share = unit_interval("weights", weights)
    if len(share) != m:
        raise InputError(f"weights has {len(share)} entries for {m} p-values; give one for each")
    if share.sum() > 1.0 + _ROUNDING:
        raise InputError(f"weights sum to {share.sum():g}; they may sum to 1 at most")
    given = np.asarray(transitions)
    if given.shape != (m, m):
        raise InputError(f"transitions has shape {given.shape}; it must be ({m}, {m})")
    edges = unit_interval("transitions", given.ravel()).reshape(m, m)
    if np.diagonal(edges).any():
        raise InputError(
            "transitions has an entry on its diagonal; no weight can stay where it is"
        )
    sums = edges.sum(axis=1)
    if sums.max() > 1.0 + _ROUNDING:
        row = int(np.argmax(sums))
        raise InputError(f"row {row} of transitions sums to {sums[row]:g}; it may be 1 at most")
    return share, edges
