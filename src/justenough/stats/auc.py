"""The area under the ROC curve, and how much of it a candidate loses."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from justenough.errors import InputError
from justenough.stats.checks import checked_alpha, finite_vector, same_length, unit_index
from justenough.stats.influence import unit_spread

_Vector = NDArray[np.float64]


def auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return the probability that a positive row scores above a negative one, ties counted half.

    Mann & Whitney 1947, by midranks.

    Args:
        labels: True for a positive row, shape (n,).
        scores: Shape (n,).

    Raises:
        InputError: If a class is missing, a score is not finite or the lengths differ.

    >>> auc([False, False, True, True], [0.1, 0.4, 0.35, 0.8])
    0.75
    """
    scores = finite_vector("scores", scores)
    positive = checked_labels(labels)
    same_length(labels=positive, scores=scores)
    return float(structural_components(positive, scores)[positive].mean())


def auc_drop_interval(
    labels: ArrayLike,
    reference: ArrayLike,
    candidate: ArrayLike,
    units: ArrayLike,
    *,
    alpha: float,
) -> tuple[float, float, float]:
    """Return AUC(reference) - AUC(candidate), and a lower and an upper bound.

    DeLong, DeLong & Clarke-Pearson 1988 (Biometrics 44(3)), equations 3-6: paired structural
    components. They are summed within units as in Obuchowski 1997 (Biometrics 53(2)), so
    one unit may have rows of both classes. Student's t quantile with g - 1 degrees of freedom,
    and room for a unit that was not seen (`Spread.reach`): the largest unit, all wrong. So m
    positive rows, fewer than the negative ones, show at best a drop of about 3.6 / m at
    alpha = 0.05, even where no score changed.

    Args:
        labels: True for a positive row, shape (n,).
        reference: Scores of the reference, shape (n,).
        candidate: Scores of the candidate, shape (n,).
        units: Id of the independent unit of each row, shape (n,).
        alpha: Allowed probability that one bound is wrong, in (0, 1); both at once: 2 alpha.

    Returns:
        Drop, lower bound, upper bound, each in [-1, 1].

    Raises:
        InputError: For fewer than 30 units, a missing class, a score that is not finite, lengths
            that differ, or alpha outside (0, 1).

    >>> scores, labels = np.arange(1000.0), np.arange(1000) % 2 == 1
    >>> drop, lower, upper = auc_drop_interval(labels, scores, scores, scores, alpha=0.05)
    >>> drop, round(lower, 4), round(upper, 4)
    (0.0, -0.0073, 0.0073)
    """
    checked_alpha(alpha)
    positive, reference, candidate = labelled_scores(labels, reference, candidate)
    index, g = unit_index(units, len(positive))
    drop, influence, share = drop_influence(positive, reference, candidate)
    spread = unit_spread(influence, index, g, alpha)
    largest = float(np.bincount(index, share).max())
    down = drop - spread.reach((1.0 + drop) * largest)
    up = drop + spread.reach((1.0 - drop) * largest)
    return drop, max(down, -1.0), min(up, 1.0)


def drop_influence(
    positive: NDArray[np.bool_], reference: _Vector, candidate: _Vector
) -> tuple[float, _Vector, _Vector]:
    """Return the drop in AUC, the influence of each row on it, and each row's share of its class.

    DeLong 1988, equations 3-4: a row's influence is its structural component less the drop, times
    its share of its class and n, as the drop is taken for a mean over all n rows.

    Args:
        positive: True for a positive row, shape (n,), with both classes.
        reference: Finite scores, shape (n,).
        candidate: Finite scores, shape (n,).

    >>> scores = np.array([1.0, 2.0, 3.0])
    >>> drop_influence(np.array([False, True, True]), scores, -scores)[0]
    1.0
    """
    lost = structural_components(positive, reference) - structural_components(positive, candidate)
    drop = float(lost[positive].mean())
    share = np.where(positive, 1.0 / positive.sum(), 1.0 / (~positive).sum())
    return drop, len(lost) * share * (lost - drop), share


def structural_components(positive: NDArray[np.bool_], scores: _Vector) -> _Vector:
    """Return the share of the other class that each row is on the right side of, shape (n,).

    The structural components of DeLong 1988, equations 3-4; ties count half.
    """
    ranks = rankdata(scores)
    others = np.empty(len(scores))
    for mine in (positive, ~positive):
        others[mine] = (ranks[mine] - rankdata(scores[mine])) / (len(scores) - mine.sum())
    return np.where(positive, others, 1.0 - others)


def labelled_scores(
    labels: ArrayLike, reference: ArrayLike, candidate: ArrayLike
) -> tuple[NDArray[np.bool_], _Vector, _Vector]:
    """Return labels as booleans and two finite scores of the same rows, each shape (n,).

    Raises:
        InputError: As `checked_labels`, for a score that is not finite or lengths that differ.
    """
    scores = finite_vector("reference", reference), finite_vector("candidate", candidate)
    positive = checked_labels(labels)
    same_length(labels=positive, reference=scores[0], candidate=scores[1])
    return positive, *scores


def checked_labels(labels: ArrayLike) -> NDArray[np.bool_]:
    """Return labels as booleans, shape (n,), if both classes are there.

    Raises:
        InputError: For another shape, other values than 0 and 1, or a single class.
    """
    given = np.asarray(labels)
    if given.ndim != 1:
        raise InputError(f"labels has shape {given.shape}; it must be (n,)")
    if not np.isin(given, (0, 1)).all():
        raise InputError("labels holds values other than 0 and 1, False and True")
    positive = given.astype(np.bool_)
    if positive.all() or not positive.any():
        raise InputError(f"all {len(positive)} rows have one label; an AUC needs both classes")
    return positive
