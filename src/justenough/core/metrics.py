"""Per-case losses between paired outputs, and how a group's loss comes from its rows.

Every function takes the values that one clause looks at: `reference` and `candidate` of equal
shape (n, ...), a row per case. A candidate value that is not a number counts as changed.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from justenough.errors import InputError
from justenough.stats.ranks import top_places

Array = NDArray[Any]
Losses = NDArray[np.float64]


def any_changed(changed: Array) -> Losses:
    """1.0 for each row (n, ...) in which anything changed, else 0.0."""
    return np.asarray(changed.reshape(len(changed), -1).any(1), np.float64)


def cut_changed(reference: Array, candidate: Array, cut: float) -> Losses:
    """Whether any score of a row crosses `cut` (a score above it decides yes)."""
    return any_changed(((reference > cut) != (candidate > cut)) | ~np.isfinite(candidate))


def argmax_changed(reference: Array, candidate: Array, axis: int) -> Losses:
    """Whether the first largest value along `axis` is another one, anywhere in a row."""
    lost = ~np.isfinite(candidate).all(axis)
    return any_changed((reference.argmax(axis) != candidate.argmax(axis)) | lost)


def top_k_changed(reference: Array, candidate: Array, k: int, axis: int) -> Losses:
    """Whether the set of the k largest along `axis` may differ; a tie at the edge counts.

    >>> top_k_changed(np.array([[3., 2., 1.]]), np.array([[2., 3., 3.]]), k=2, axis=1)
    array([1.])
    """
    reference, candidate = np.moveaxis(reference, axis, -1), np.moveaxis(candidate, axis, -1)
    if not 1 <= k < reference.shape[-1]:
        raise InputError(
            f"top_k_stability({k}) needs more than k values to choose from; "
            f"the output has {reference.shape[-1]}"
        )
    order = np.argsort(-reference, axis=-1, kind="stable")
    ranked = np.take_along_axis(candidate, order, -1)
    kept = ranked[..., :k].min(-1) > ranked[..., k:].max(-1)
    edge = np.take_along_axis(reference, order[..., k - 1 : k + 1], -1)
    same_tie = (edge[..., 0] == edge[..., 1]) & (reference == candidate).all(-1)
    return any_changed(~(kept | same_tie))


def lost_from_top(reference: Array, candidate: Array, k: int, axis: int) -> Losses:
    """Share of the k largest along `axis` that the candidate's k largest do not hold.

    Ties are shared: values equal at the edge of the k count as the part of them that fits in,
    so that a candidate which only adds ties loses what the ties lose. Where an output has
    further axes, the mean over them.

    >>> lost_from_top(np.array([[4., 3., 2., 1.]]), np.array([[4., 1., 2., 3.]]), k=2, axis=1)
    array([0.5])
    """
    whole = np.asarray(np.moveaxis(np.isfinite(candidate), axis, -1).all(-1))
    here, there = (np.moveaxis(_wide(x), axis, -1) for x in (reference, candidate))
    there = np.where(whole[..., None], there, 0.0)
    kept = np.minimum(top_places(here, k), top_places(there, k)).sum(-1) / k
    lost = np.where(whole, 1 - np.minimum(kept, 1.0), 1.0)
    return np.asarray(lost.reshape(len(lost), -1).mean(1))


def moved(reference: Array, candidate: Array, eps: float) -> Losses:
    """Whether any output of a row moves by `eps` or more, in the outputs' unit."""
    return any_changed(~(np.abs(_wide(candidate) - _wide(reference)) < eps))


def moved_relatively(reference: Array, candidate: Array, eps: float) -> Losses:
    """Whether any output of a row moves by `eps` or more of its own size; 0 must stay 0."""
    reference, candidate = _wide(reference), _wide(candidate)
    within = np.abs(candidate - reference) < eps * np.abs(reference)
    return any_changed(~(within | (candidate == reference)))


def _wide(x: Array) -> NDArray[np.float64]:
    return np.asarray(x, np.float64)


def per_unit(losses: Losses, units: NDArray[np.intp], per: str) -> Losses:
    """Loss of each unit from its rows: 1 when `any` row has a loss, or their `mean`.

    Args:
        losses: (n,) in [0, 1].
        units: (n,) index of each row's unit, 0 to n_units - 1, none left out.
        per: `any` takes the largest loss of the rows, `mean` their average.

    >>> per_unit(np.array([0., 1., 0.]), np.array([0, 0, 1]), "any")
    array([1., 0.])
    """
    if per == "mean":
        return np.bincount(units, losses) / np.bincount(units)
    return largest_of_unit(losses, units)


def largest_of_unit(values: Array, units: NDArray[np.intp]) -> NDArray[np.float64]:
    """Largest of the values (n,) of each unit; not-a-number wins."""
    out = np.full(int(units.max()) + 1, -np.inf)
    with np.errstate(invalid="ignore"):
        np.maximum.at(out, units, _wide(values))
    return out


def noise_power(reference: Array, candidate: Array) -> NDArray[np.float64]:
    """Per row (n,), the squared error summed over its outputs, in squared units."""
    change = (_wide(candidate) - _wide(reference)).reshape(len(reference), -1)
    return np.asarray((change**2).sum(1))


def signal_power(reference: Array, *, centred: bool) -> NDArray[np.float64]:
    """Per row (n,), the squared output summed over its values.

    With `centred`, around the mean row: an offset that every case shares is no signal, and
    left in it flatters the ratio (40 dB by definition instead of by measurement).
    """
    x = _wide(reference).reshape(len(reference), -1)
    return np.asarray(((x - x.mean(0) * centred) ** 2).sum(1))
