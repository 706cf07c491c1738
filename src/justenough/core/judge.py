"""Weighs paired outputs against a contract: clause by clause, with groups as units."""

import bisect
import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from justenough.core import metrics
from justenough.core.contract import Clause, Contract
from justenough.core.evidence import Evidence, Verdict
from justenough.core.subject import Outputs
from justenough.errors import InputError
from justenough.stats import auc, bounded, proportion, ranks, ratio
from justenough.stats.influence import unit_spread

Array = NDArray[Any]
Interval = tuple[float, float, float]
LABELLED = ("accuracy_drop", "auc_drop")
CLOPPER_PEARSON = "Clopper-Pearson 1934, exact, one-sided"
BETTING = "betting bound, Waudby-Smith & Ramdas 2024, one-sided"


@dataclass(frozen=True)
class Paired:
    """Outputs of the reference and of a candidate on the same rows.

    Attributes:
        reference: Arrays by output name, each (n, ...).
        candidate: The same names and shapes.
        units: (n,) index of the independent unit of each row.
        labels: (n,) as in `Cases`, or None.
    """

    reference: Outputs
    candidate: Outputs
    units: NDArray[np.intp]
    labels: Array | None = None

    def __post_init__(self) -> None:
        for name, ref in self.reference.items():
            got = self.candidate[name].shape if name in self.candidate else None
            if got != ref.shape:
                raise InputError(
                    f"outputs must pair up case by case: output {name!r} has shape {ref.shape} "
                    f"in the reference and {got} in the candidate"
                )
            if ref.dtype.kind == "f" and not np.isfinite(ref).all():
                raise InputError(
                    f"output {name!r} of the reference has NaN or infinite values on the cases; "
                    "a contract needs a reference that answers every case"
                )

    def take(self, rows: Array) -> "Paired":
        """The pairs at `rows`; units are numbered anew."""
        return Paired(
            {k: v[rows] for k, v in self.reference.items()},
            {k: v[rows] for k, v in self.candidate.items()},
            np.unique(self.units[rows], return_inverse=True)[1],
            None if self.labels is None else self.labels[rows],
        )


def judge(contract: Contract, pairs: Paired) -> tuple[Evidence, ...]:
    """Evidence for each clause, each at the contract's alpha.

    All must hold, so that HELD needs no correction; one BROKEN clause breaks the contract, so
    that BROKEN is said only if it stands at alpha over the number of clauses (Bonferroni).
    """
    found = []
    for clause in contract.clauses:
        e = judge_clause(clause, pairs, contract.alpha)
        if e.verdict is Verdict.BROKEN and len(contract.clauses) > 1:
            strict = judge_clause(clause, pairs, contract.alpha / len(contract.clauses))
            e = replace(e, verdict=strict.verdict)
        found.append(e)
    return tuple(found)


def judge_clause(clause: Clause, pairs: Paired, alpha: float) -> Evidence:
    """Evidence for one clause.

    A metric that cannot be bounded on so few cases is UNDECIDED, never held.
    """
    try:
        (estimate, lower, upper), n, changed, method = _measure(clause, pairs, alpha)
    except TooFewError as e:
        nan = math.nan
        return Evidence(
            clause.text, Verdict.UNDECIDED, nan, nan, nan, int(pairs.units.max()) + 1, None,
            clause.kind.unit, clause.kind.source, str(e),
        )  # fmt: skip
    limit, other = (lower, upper) if clause.kind.at_least else (upper, lower)
    return Evidence(
        clause.text, _verdict(clause, limit, other), estimate, limit, other, n, changed,
        clause.kind.unit, method,
    )  # fmt: skip


class TooFewError(Exception):
    """The cases cannot support any bound for this metric."""


def _verdict(clause: Clause, limit: float, other: float) -> Verdict:
    sign = 1.0 if clause.kind.at_least else -1.0
    if sign * limit >= sign * clause.bound:
        return Verdict.HELD
    return Verdict.BROKEN if sign * other < sign * clause.bound else Verdict.UNDECIDED


def _measure(clause: Clause, pairs: Paired, alpha: float) -> tuple[Interval, int, int | None, str]:
    _check_cut(clause, pairs)
    if clause.metric in LABELLED and pairs.labels is None:
        raise InputError(f"{clause.metric} needs an array 'labels' in the cases")
    if clause.metric in _SAMPLE:
        clause, rows = _at_units(clause, pairs)
        with _Refusing():
            if clause.metric in LABELLED:
                rows = _labelled(clause, rows)
            interval, method = _SAMPLE[clause.metric](clause, rows, alpha)
        return interval, int(rows.units.max()) + 1, None, method
    losses = unit_losses(clause, pairs)
    changed = int(np.count_nonzero(losses))
    (low, high), method = _loss_limits(clause, losses, alpha)
    interval = (float(losses.mean()), low, high)
    if clause.kind.at_least:
        interval = (1 - interval[0], 1 - high, 1 - low)
    return interval, len(losses), changed, method


def _check_cut(clause: Clause, pairs: Paired) -> None:
    """Refuse a cut that nobody chose and no case is near: nothing could ever change."""
    if clause.metric not in ("decision_stability", "accuracy_drop") or clause.cut is not None:
        return
    if clause.is_score(pairs.reference):
        yes = clause.values(pairs.reference) > 0
        if yes.all() or not yes.any():
            raise TooFewError(
                "every case of the reference falls on one side of cut=0, so that no decision "
                f"could change; give the cut that decides: {clause.metric}(cut=NUMBER)"
            )


def _is_fractional(clause: Clause) -> bool:
    return clause.per == "mean" or ":" in clause.metric or clause.is_list


def _loss_limits(
    clause: Clause, losses: NDArray[np.float64], alpha: float
) -> tuple[tuple[float, float], str]:
    """One-sided limits of the mean loss, by a method that the clause fixes, never the data.

    Losses that are 0 or 1 by construction are counted. A tie can make one of them fractional;
    counting it as 1 above and as 0 below keeps both limits valid.
    """
    if _is_fractional(clause):
        limits = (bounded.mean_lower(losses, alpha=alpha), bounded.mean_upper(losses, alpha=alpha))
        return limits, BETTING
    n, some, whole = len(losses), np.count_nonzero(losses), np.count_nonzero(losses == 1)
    low = proportion.clopper_pearson_lower(int(whole), n, alpha=alpha)
    return (low, proportion.clopper_pearson_upper(int(some), n, alpha=alpha)), CLOPPER_PEARSON


class _Refusing:
    """Turns a bound's refusal of too small a sample into TooFewError."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if isinstance(error, InputError):
            raise TooFewError(str(error)) from error


def unit_losses(clause: Clause, pairs: Paired) -> NDArray[np.float64]:
    """Loss in [0, 1] of each independent unit, for clauses about a share of units."""
    clause, rows = _at_units(clause, pairs)
    if clause.metric == "top_k_overlap" and not clause.is_list:
        return _lost_from_top(clause, rows)
    return metrics.per_unit(row_losses(clause, rows), rows.units, clause.per)


def row_losses(clause: Clause, pairs: Paired) -> NDArray[np.float64]:
    """Loss in [0, 1] of each row (n,), for clauses about a share of units."""
    if ":" in clause.metric:
        return _own_losses(clause, pairs)
    ref, cand = clause.values(pairs.reference), clause.values(pairs.candidate)
    if clause.metric == "decision_stability":
        if clause.is_label(pairs.reference):
            return metrics.any_changed(ref != cand)
        if clause.is_score(pairs.reference):
            return metrics.cut_changed(ref, cand, clause.cut or 0.0)
        clause.check_axis(ref)
        return metrics.argmax_changed(ref, cand, clause.class_axis)
    if clause.metric == "top_k_stability":
        clause.check_axis(ref)
        return metrics.top_k_changed(ref, cand, clause.k or 1, clause.class_axis)
    if clause.is_list:
        clause.check_axis(ref)
        return metrics.lost_from_top(ref, cand, clause.k or 1, clause.class_axis)
    if clause.metric == "within_tolerance":
        return metrics.moved(ref, cand, clause.eps or 0.0)
    return metrics.moved_relatively(ref, cand, clause.eps or 0.0)


def _at_units(clause: Clause, pairs: Paired) -> tuple[Clause, Paired]:
    """With per=max, one row a unit that holds its largest score; else the pairs.

    The clause that comes back fits them: the score is no longer a column.
    """
    if clause.per != "max":
        return clause, pairs
    if clause.is_label(pairs.reference) and clause.metric in (
        "decision_stability",
        "accuracy_drop",
    ):
        raise InputError(
            "per=max needs a score, the output holds whole numbers; give cut=NUMBER or another per"
        )
    name = clause.output or next(iter(pairs.reference))
    ref, cand = (
        metrics.largest_of_unit(clause.score(o), pairs.units)
        for o in (pairs.reference, pairs.candidate)
    )
    labels = None
    if pairs.labels is not None:
        known = pairs.labels.astype(np.int64)
        yes = np.where(known < 0, -1, positive(clause, known))
        labels = metrics.largest_of_unit(yes, pairs.units).astype(np.int64)
    units = np.arange(len(ref))
    return replace(clause, column=None), Paired({name: ref}, {name: cand}, units, labels)


def _own_losses(clause: Clause, pairs: Paired) -> NDArray[np.float64]:
    """Call the user's `module:function(reference, candidate)` on the clause's values.

    A row in which the candidate is not a number is lost, whatever the function makes of it.
    """
    where, _, name = clause.metric.partition(":")
    try:
        function: Callable[[Array, Array], Array] = getattr(importlib.import_module(where), name)
    except (ImportError, AttributeError, ValueError) as e:
        raise InputError(f"cannot import the metric {clause.metric!r}: {e}") from e
    ref, cand = clause.values(pairs.reference), clause.values(pairs.candidate)
    try:
        losses = np.array(function(ref, cand), np.float64)
    except Exception as e:  # whatever a function of the user's own raises
        raise InputError(f"{clause.metric} failed: {type(e).__name__}: {e}") from e
    n = len(pairs.units)
    if losses.shape == (n,):
        losses[metrics.any_changed(~np.isfinite(cand)) > 0] = 1.0
    if losses.shape != (n,) or not ((losses >= 0) & (losses <= 1)).all():
        raise InputError(
            f"{clause.metric} must give one loss in [0, 1] per case, shape ({n},); "
            f"got shape {losses.shape}"
            + (f" from {losses.min():g} to {losses.max():g}" if losses.size else "")
        )
    return losses


def _lost_from_top(clause: Clause, pairs: Paired) -> NDArray[np.float64]:
    """Per unit with rows among the reference's top k, the largest share lost of one of them.

    Tie-aware: a row's place in the top is its probability under random tie-breaking, so that
    a candidate that only adds ties loses what the ties lose.
    """
    ref, cand = clause.score(pairs.reference), clause.score(pairs.candidate)
    k = clause.k or 1
    if k >= len(ref):
        raise InputError(f"top_k_overlap({k}) needs more than {k} cases, there are {len(ref)}")
    here = ranks.top_weights(ref, k)
    worst = -np.finfo(np.float64).max
    there = ranks.top_weights(np.where(np.isfinite(cand), cand, worst), k)
    top = here > 0
    lost = 1 - np.minimum(here, there)[top] / here[top]
    units = np.unique(pairs.units[top], return_inverse=True)[1]
    return metrics.largest_of_unit(lost, units)


def _snr(clause: Clause, pairs: Paired, alpha: float) -> tuple[Interval, str]:
    """Signal over noise in dB.

    Where no unit shows noise, as in a cascade that deferred them all, room is left for unseen
    units that are noise as loud as the loudest signal: 100 units without noise do not show that
    none has any.
    """
    ref, cand = clause.values(pairs.reference), clause.values(pairs.candidate)
    if not np.isfinite(cand).all():
        return (-math.inf, -math.inf, -math.inf), "not finite"
    signal = np.bincount(pairs.units, metrics.signal_power(ref, centred=clause.centred))
    noise = np.bincount(pairs.units, metrics.noise_power(ref, cand))
    how = "centred" if clause.centred else "not centred"
    if signal.any() and not noise.any():
        share = float(signal.max() / signal.sum())
        unseen = unit_spread(np.zeros(len(noise)), np.arange(len(noise)), len(noise), alpha)
        low = -10 * math.log10(unseen.reach(share))
        return (math.inf, low, math.inf), f"no noise seen, an unseen unit all noise, {how}"
    estimate, low, high = ratio.log_ratio_interval(signal, noise, alpha=alpha)
    db = 10 / math.log(10)
    return (estimate * db, low * db, high * db), f"delta method on the log ratio, {how}, one-sided"


def _spearman(clause: Clause, pairs: Paired, alpha: float) -> tuple[Interval, str]:
    ref, cand = clause.score(pairs.reference), clause.score(pairs.candidate)
    if not np.isfinite(cand).all():
        return (-1.0, -1.0, -1.0), "not finite"
    interval = ranks.spearman_interval(ref, cand, pairs.units, alpha=alpha)
    return interval, "influence function, Fisher z, cluster-robust, one-sided"


def _labelled(clause: Clause, pairs: Paired) -> Paired:
    """The rows that have a label."""
    assert pairs.labels is not None
    keep = pairs.labels.astype(np.int64) >= 0
    if not keep.any():
        raise InputError(f"{clause.metric} needs labels from 0 up; all are negative")
    return replace(pairs.take(keep), labels=pairs.labels[keep].astype(np.int64))


def _known(rows: Paired) -> Array:
    assert rows.labels is not None
    return rows.labels


def positive(clause: Clause, labels: Array) -> NDArray[np.bool_]:
    """Per row (n,), whether the label says yes to the score.

    Where labels go beyond 1 they are classes and the score is that of its column; else 1 is yes.
    """
    if clause.column is not None and labels.max() > 1:
        return np.asarray(labels == clause.column)
    return np.asarray(labels > 0)


def _check_direction(clause: Clause, outputs: Outputs, yes: NDArray[np.bool_]) -> None:
    """Refuse a score that falls where labels say yes: its losses would count as gains."""
    if yes.any() and not yes.all():
        area = auc.auc(yes, clause.score(outputs))
        if area < 0.5:
            raise InputError(
                f"the AUC of the reference is {area:.3g}, below one half: its score falls where "
                "labels say yes; give the column whose score rises with them: column=NUMBER"
            )


def correct(clause: Clause, outputs: Outputs, labels: Array) -> NDArray[np.bool_]:
    """Per row (n,), whether the decision of `outputs` is the label."""
    y = clause.values(outputs)
    if clause.is_label(outputs):
        return np.asarray(clause.score(outputs) == labels)
    if clause.is_score(outputs):
        y = clause.score(outputs)
        yes = y > (clause.cut or 0.0)
        return np.asarray((yes == positive(clause, labels)) & np.isfinite(y))
    clause.check_axis(y)
    decided = y.argmax(clause.class_axis)
    if decided.shape != labels.shape:
        raise InputError(f"{clause.metric} needs one decision per case, got {decided.shape}")
    return np.asarray(decided == labels) & np.isfinite(y).all(clause.class_axis)


def _accuracy_drop(clause: Clause, rows: Paired, alpha: float) -> tuple[Interval, str]:
    labels = _known(rows)
    if clause.is_score(rows.reference):
        _check_direction(clause, rows.reference, positive(clause, labels))
    was, now = (correct(clause, o, labels) for o in (rows.reference, rows.candidate))
    drop = np.bincount(rows.units, was.astype(float) - now) / np.bincount(rows.units)
    half = (drop + 1) / 2
    low, high = bounded.mean_lower(half, alpha=alpha), bounded.mean_upper(half, alpha=alpha)
    return (float(drop.mean()), 2 * low - 1, 2 * high - 1), BETTING


def _auc_drop(clause: Clause, rows: Paired, alpha: float) -> tuple[Interval, str]:
    labels = _known(rows)
    yes = positive(clause, labels)
    _check_direction(clause, rows.reference, yes)
    ref, cand = clause.score(rows.reference), clause.score(rows.candidate)
    worst = np.where(yes, -1.0, 1.0) * np.finfo(np.float64).max
    cand = np.where(np.isfinite(cand), cand, worst)
    interval = auc.auc_drop_interval(yes, ref, cand, rows.units, alpha=alpha)
    return interval, "DeLong 1988, clustered as Obuchowski 1997, one-sided"


_SAMPLE: Mapping[str, Callable[[Clause, Paired, float], tuple[Interval, str]]] = {
    "snr_db": _snr,
    "spearman": _spearman,
    "accuracy_drop": _accuracy_drop,
    "auc_drop": _auc_drop,
}


def at_best(clause: Clause, n_units: int, alpha: float) -> float | None:
    """Limit that `n_units` with no loss at all would show; None where data decide it.

    >>> round(at_best(Clause("decision_stability", 0.995), 612, 0.05), 5)
    0.99512
    """
    if clause.metric == "spearman":
        try:
            return ranks.best_spearman_lower(n_units, alpha=alpha)
        except InputError:  # too few for any bound: nothing is shown
            return -1.0
    if clause.metric in _SAMPLE:
        return None
    if clause.metric == "top_k_overlap" and not clause.is_list:
        n_units = min(n_units, clause.k or 1)
    (_, loss), _ = _loss_limits(clause, np.zeros(n_units), alpha)
    return 1 - loss if clause.kind.at_least else loss


def units_for(clause: Clause, alpha: float) -> int | None:
    """Fewest units that could show the clause with no loss at all; None if no number can.

    >>> units_for(Clause("decision_stability", 0.995), 0.05)
    598
    >>> units_for(Clause("top_k_overlap", 0.99, k=100), 0.05) is None
    True
    """
    sign = 1 if clause.kind.at_least else -1

    def enough(n: int) -> bool:
        best = at_best(clause, n, alpha)
        return best is None or sign * best >= sign * clause.bound

    most = 2**20
    if not enough(most):
        return None
    return bisect.bisect_left(range(1, most + 1), True, key=enough) + 1


def further_units(evidence: Evidence, clause: Clause, alpha: float) -> int | None:
    """How many more units could turn UNDECIDED into HELD at the loss rate seen.

    None where no number of cases would: the rate seen is itself beyond the bound, or the
    metric is not a share of units.
    """
    if evidence.changed is None or evidence.method != CLOPPER_PEARSON:
        return None
    if clause.metric == "top_k_overlap":  # more cases do not make the top larger
        return None
    allowed = 1 - clause.bound if clause.kind.at_least else clause.bound
    rate = evidence.changed / evidence.n
    if rate >= allowed or allowed <= 0:
        return None
    n = evidence.n
    while n < 10**9:
        needed = proportion.units_needed(round(rate * n), at_least=1 - allowed, alpha=alpha)
        if needed <= n:
            return n - evidence.n
        n = max(needed, int(n * 1.02) + 1)
    return None


def prospects(evidence: Evidence, clause: Clause, alpha: float) -> str:
    """What further cases could change about an UNDECIDED clause, as words."""
    more = further_units(evidence, clause, alpha)
    if more:
        return f"about {more} more certification units at this rate could show it"
    sign = 1 if clause.kind.at_least else -1
    if sign * evidence.estimate >= sign * clause.bound:
        return "the estimate is within the bound, more cases could show it"
    return "at this rate no number of cases would show it"
