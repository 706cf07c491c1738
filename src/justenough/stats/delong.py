"""Whether two scores of the same cases differ in the area under their ROC curves."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm

from justenough.errors import InputError
from justenough.stats.auc import labelled_scores, structural_components
from justenough.stats.checks import checked_alpha


@dataclass(frozen=True)
class AucComparison:
    """DeLong's test of two correlated areas.

    Attributes:
        reference: AUC of the reference.
        candidate: AUC of the candidate.
        drop: reference - candidate.
        standard_error: Of the drop.
        z: drop / standard_error.
        p_value: Two-sided, from the normal distribution.
        lower: Lower end of the interval for the drop, of confidence 1 - alpha with both ends.
        upper: Its upper end.
    """

    reference: float
    candidate: float
    drop: float
    standard_error: float
    z: float
    p_value: float
    lower: float
    upper: float


def delong_test(
    labels: ArrayLike, reference: ArrayLike, candidate: ArrayLike, *, alpha: float
) -> AucComparison:
    """Return DeLong's z test and interval for two AUCs on the same independent rows.

    DeLong, DeLong & Clarke-Pearson 1988, Biometrics 44(3), equations 3-6, with the components by
    midranks (Sun & Xu 2014). Normal in the limit: with few positive rows, areas near 1 or rare
    failures it promises too much. A certificate uses `justenough.stats.auc.auc_drop_interval`,
    which takes clusters and leaves room for failures that were not seen; this is the test that
    the literature reports.

    Args:
        labels: True for a positive row, shape (n,), at least 2 of each class.
        reference: Scores of the reference, shape (n,).
        candidate: Scores of the candidate, shape (n,).
        alpha: Allowed probability that the interval misses the truth, in (0, 1).

    Raises:
        InputError: For fewer than 2 rows of a class, labels other than 0 and 1, scores that are
            not finite, lengths that differ, alpha outside (0, 1), or scores whose components do
            not vary against each other, such as two that rank all rows alike.

    >>> labels, reference = [0, 0, 0, 1, 1, 1], [1, 2, 5, 3, 4, 6]
    >>> found = delong_test(labels, reference, [1, 2, 3, 4, 5, 6], alpha=0.05)
    >>> round(found.drop, 4), round(found.z, 4), round(found.p_value, 4)
    (-0.2222, -0.8944, 0.3711)
    """
    checked_alpha(alpha)
    positive, first, second = labelled_scores(labels, reference, candidate)
    counts = (int(positive.sum()), int((~positive).sum()))
    if min(counts) < 2:
        raise InputError(f"{counts[0]} positive and {counts[1]} negative rows; 2 of each needed")
    components = [structural_components(positive, scores) for scores in (first, second)]
    areas = [float(c[positive].mean()) for c in components]
    lost = components[0] - components[1]
    variance = sum(float(np.var(lost[of], ddof=1)) / of.sum() for of in (positive, ~positive))
    if variance <= 1e-30:
        raise InputError(
            "both scores put every row on the right side of as many others, give or take a "
            "constant: the drop has no variance; DeLong's test does not apply"
        )
    drop, error = float(lost[positive].mean()), math.sqrt(variance)
    z, reach = drop / error, float(norm.isf(0.5 * alpha)) * error
    p = 2.0 * float(norm.sf(abs(z)))
    return AucComparison(areas[0], areas[1], drop, error, z, p, drop - reach, drop + reach)
