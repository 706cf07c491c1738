"""Evidence: estimates, limits and verdicts on pairs whose losses are known."""

import math
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from justenough.core.contract import Clause, Contract, parse_clause
from justenough.core.evidence import Evidence, Verdict, overall
from justenough.core.judge import (
    BETTING,
    CLOPPER_PEARSON,
    Paired,
    at_best,
    correct,
    further_units,
    judge,
    judge_clause,
    units_for,
)
from justenough.errors import InputError
from justenough.stats.bounded import mean_upper
from justenough.stats.proportion import clopper_pearson_lower, clopper_pearson_upper
from justenough.stats.ranks import best_spearman_lower

Array = NDArray[Any]
N = 400
SIGNS = np.where(np.arange(N) % 2 > 0, 1.0, -1.0)


def _flipped(count: int) -> Array:
    return np.where(np.arange(N) < count, -SIGNS, SIGNS)


def _weigh(
    keep: str, reference: Array, candidate: Array,
    units: Array | None = None, labels: Array | None = None,
) -> Evidence:  # fmt: skip
    units = np.arange(len(reference)) if units is None else units
    pairs = Paired({"y": reference}, {"y": candidate}, units, labels)
    return judge_clause(parse_clause(keep), pairs, 0.05)


@pytest.mark.parametrize(
    ("changed", "verdict"),
    [(0, Verdict.HELD), (4, Verdict.UNDECIDED), (40, Verdict.BROKEN)],
)
def test_the_three_verdicts(changed: int, verdict: Verdict) -> None:
    e = _weigh("decision_stability >= 0.98", SIGNS, _flipped(changed))
    assert e.verdict is verdict
    assert (e.changed, e.n, e.method) == (changed, N, CLOPPER_PEARSON)
    assert e.estimate == 1 - changed / N
    assert e.limit == pytest.approx(1 - clopper_pearson_upper(changed, N, alpha=0.05))
    assert e.other_limit == pytest.approx(1 - clopper_pearson_lower(changed, N, alpha=0.05))


def test_groups_are_the_units() -> None:
    units = np.arange(N) // 10
    e = _weigh("decision_stability >= 0.5", SIGNS, _flipped(11), units)
    assert (e.changed, e.n) == (2, 40)
    e = _weigh("decision_stability(per=mean) >= 0.5", SIGNS, _flipped(11), units)
    losses = np.array([1.0, 0.1, *np.zeros(38)])
    assert (e.changed, e.n, e.method) == (2, 40, BETTING)
    assert e.limit == pytest.approx(1 - mean_upper(losses, alpha=0.05))


def test_the_largest_score_of_a_group_decides() -> None:
    units = np.arange(N) // 4
    reference = np.where(np.arange(N) % 8 == 0, 2.0, -1.0)  # every other group has one
    lower = np.where(reference > 0, 1.0, -1.0)
    assert _weigh("decision_stability(per=max) >= 0.9", reference, lower, units).changed == 0
    moved = np.roll(reference, 1)  # another row of the same group
    assert _weigh("decision_stability(per=max) >= 0.9", reference, moved, units).changed == 0
    assert _weigh("decision_stability(per=any) >= 0.1", reference, moved, units).changed == 50
    lost = np.where(np.arange(N) == 7, math.nan, reference)
    assert _weigh("decision_stability(per=max) >= 0.9", reference, lost, units).changed == 1


def test_the_largest_score_of_a_column() -> None:
    y = np.stack([SIGNS, -SIGNS], 1)
    e = _weigh("decision_stability(per=max, column=1, cut=0.5) >= 0.9", y, y, np.arange(N) // 1)
    assert (e.n, e.verdict) == (N, Verdict.HELD)
    whole = SIGNS.astype(np.int64)
    with pytest.raises(InputError, match="per=max needs a score, the output holds whole numbers"):
        _weigh("decision_stability(per=max) >= 0.9", whole, whole)


def test_labels_of_groups_are_yes_where_any_row_is() -> None:
    units, labels = np.arange(N) // 2, np.where(np.arange(N) % 4 == 0, 2, 0)
    y = np.where(labels == 2, 1.0, -1.0)
    y2 = np.stack([-y, -y, y], 1)
    e = _weigh("accuracy_drop(per=max, column=2, cut=0) <= 0.1", y2, y2, units, labels)
    assert (e.n, e.estimate, e.verdict) == (200, 0.0, Verdict.HELD)
    e = _weigh("accuracy_drop(per=max, column=2, cut=0) <= 0.1", y2, -y2, units, labels)
    assert (e.estimate, e.verdict) == (0.5, Verdict.BROKEN)  # groups with no yes keep theirs


def test_snr_says_whether_it_is_centred() -> None:
    reference = 100 + SIGNS
    candidate = reference + 0.1 * np.roll(SIGNS, 1)
    centred = _weigh("snr_db >= 10", reference, candidate)
    assert centred.estimate == pytest.approx(20)
    assert "not centred" not in centred.method
    offset = _weigh("snr_db(centred=false) >= 10", reference, candidate)
    assert offset.estimate == pytest.approx(10 * math.log10(10001 / 0.01), abs=1e-6)
    assert "not centred" in offset.method
    groups = _weigh("snr_db >= 10", reference, candidate, np.arange(N) // 10)
    assert groups.n == 40
    assert groups.estimate == pytest.approx(20)


def test_no_noise_seen_is_not_no_noise() -> None:
    e = _weigh("snr_db >= 30", SIGNS, SIGNS)
    assert e.estimate == math.inf
    assert 15 < e.limit < 30
    assert e.verdict is Verdict.UNDECIDED
    assert e.method == "no noise seen, an unseen unit all noise, centred"


def test_too_few_units_are_undecided_with_the_reason() -> None:
    for keep in ("snr_db >= 30", "spearman >= 0.5"):
        e = _weigh(keep, SIGNS[:20] + np.arange(20), SIGNS[:20] + np.arange(20))
        assert e.verdict is Verdict.UNDECIDED
        assert math.isnan(e.estimate)
        assert (type(e.n), e.n) == (int, 20)
        assert e.note == "20 independent units; this bound needs at least 30"


def test_ranks() -> None:
    x = np.random.default_rng(0).standard_normal(N)
    assert _weigh("spearman >= 0.9", x, np.exp(x)).verdict is Verdict.HELD
    assert _weigh("spearman >= 0.9", x, -x).verdict is Verdict.BROKEN
    assert _weigh("spearman >= 0.9", x, np.where(x > 2, math.nan, x)).verdict is Verdict.BROKEN
    constant = _weigh("spearman >= 0.9", x, 0 * x)
    assert constant.verdict is Verdict.UNDECIDED
    assert "a constant has no ranking" in constant.note


def test_drops_leave_out_negative_labels() -> None:
    labels = np.where(np.arange(N) < 100, -1, (SIGNS > 0) * 1)
    e = _weigh("accuracy_drop <= 0.1", SIGNS, _flipped(100), None, labels)
    assert (e.estimate, e.n, e.verdict) == (0.0, 300, Verdict.HELD)
    e = _weigh("accuracy_drop <= 0.1", SIGNS, _flipped(160), None, labels)
    assert e.estimate == pytest.approx(0.2)
    assert e.verdict is Verdict.BROKEN
    e = _weigh("auc_drop <= 0.1", SIGNS, _flipped(100), None, labels)
    assert (e.estimate, e.n, e.verdict) == (0.0, 300, Verdict.HELD)
    e = _weigh("auc_drop <= 0.1", SIGNS, SIGNS, None, np.full(N, -1))
    assert (e.verdict, e.note) == (
        Verdict.UNDECIDED, "auc_drop needs labels from 0 up; all are negative",
    )  # fmt: skip
    with pytest.raises(InputError, match="auc_drop needs an array 'labels' in the cases"):
        _weigh("auc_drop <= 0.1", SIGNS, SIGNS)


def test_what_is_correct() -> None:
    clause = Clause("accuracy_drop", 0.1)
    classes = {"y": np.array([[2.0, 1.0], [0.0, 1.0], [math.nan, 1.0]])}
    assert correct(clause, classes, np.array([0, 0, 0])).tolist() == [True, False, False]
    scores = {"y": np.array([[1.0], [-1.0], [math.inf]])}
    assert correct(clause, scores, np.array([1, 1, 1])).tolist() == [True, False, False]
    whole = {"y": np.array([3, 7, 7])}
    assert correct(clause, whole, np.array([3, 3, 7])).tolist() == [True, False, True]
    with pytest.raises(InputError, match=r"may hold its classes along axis 1 or 2; say which"):
        correct(clause, {"y": np.zeros((3, 2, 4))}, np.array([0, 0, 0]))
    axis_2 = Clause("accuracy_drop", 0.1, axis=2)
    with pytest.raises(InputError, match=r"needs one decision per case, got \(3, 2\)"):
        correct(axis_2, {"y": np.zeros((3, 2, 4))}, np.array([0, 0, 0]))


def _own(monkeypatch: pytest.MonkeyPatch, loss: Callable[[Array, Array], Any]) -> str:
    monkeypatch.setitem(sys.modules, "own_metric", SimpleNamespace(loss=loss))
    return "own_metric:loss <= 0.1"


def test_a_metric_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    keep = _own(monkeypatch, lambda a, b: np.minimum(np.abs(a - b), 1))
    e = _weigh(keep, SIGNS, SIGNS + 0.05)
    assert e.estimate == pytest.approx(0.05)
    assert (e.verdict, e.method) == (Verdict.HELD, BETTING)
    lost = np.where(np.arange(N) < 100, math.nan, SIGNS)
    assert _weigh(keep, SIGNS, lost).verdict is Verdict.BROKEN


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda a, b: np.abs(a - b) + 2, r"one loss in \[0, 1\] per case, .* from 2 to 2"),
        (lambda a, b: a - b - 1, "from -1 to -1"),
        (lambda a, b: 0.0, r"shape \(400,\); got shape \(\)"),
        (lambda a, b: a * math.nan, "from nan to nan"),
    ],
)
def test_losses_outside_0_and_1(
    monkeypatch: pytest.MonkeyPatch, loss: Callable[[Array, Array], Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        _weigh(_own(monkeypatch, loss), SIGNS, SIGNS)


@pytest.mark.parametrize("name", ["no_such_module:loss", "math:no_such_function"])
def test_a_metric_that_cannot_be_imported(name: str) -> None:
    with pytest.raises(InputError, match=f"cannot import the metric '{name}': "):
        _weigh(f"{name} <= 0.1", SIGNS, SIGNS)


def test_outputs_must_pair_up() -> None:
    with pytest.raises(InputError, match=r"'y' has shape \(400,\) in the reference and \(3,\)"):
        Paired({"y": SIGNS}, {"y": SIGNS[:3]}, np.arange(N))
    with pytest.raises(InputError, match="and None in the candidate"):
        Paired({"y": SIGNS}, {"z": SIGNS}, np.arange(N))
    with pytest.raises(InputError, match="output 'y' of the reference has NaN or infinite values"):
        Paired({"y": SIGNS * math.inf}, {"y": SIGNS}, np.arange(N))


def test_all_clauses_must_hold() -> None:
    clauses = ("decision_stability >= 0.5", "within_tolerance(0.1) >= 0.97", "snr_db >= 90")
    contract = Contract(tuple(map(parse_clause, clauses)))
    evidence = judge(contract, Paired({"y": SIGNS}, {"y": _flipped(8)}, np.arange(N)))
    verdicts = [e.verdict for e in evidence]
    assert verdicts == [Verdict.HELD, Verdict.UNDECIDED, Verdict.BROKEN]
    assert overall(evidence) is Verdict.BROKEN
    assert overall(evidence[:2]) is Verdict.UNDECIDED
    assert overall(evidence[:1]) is Verdict.HELD
    assert [v.exit_code for v in verdicts] == [0, 3, 1]
    assert "too few cases" in Verdict.UNDECIDED.sentence


def test_what_n_can_show_at_best() -> None:
    stability = parse_clause("decision_stability >= 0.99")
    at_299, at_298 = at_best(stability, 299, 0.05), at_best(stability, 298, 0.05)
    assert at_298 is not None
    assert at_299 is not None
    assert at_298 < 0.99 <= at_299
    own = at_best(parse_clause("a:b <= 0.1"), 299, 0.05)
    assert own == pytest.approx(mean_upper(np.zeros(299), alpha=0.05))
    assert at_best(parse_clause("snr_db >= 30"), 299, 0.05) is None
    overlap = at_best(parse_clause("top_k_overlap(5) >= 0.9"), 299, 0.05)
    assert overlap == pytest.approx(0.05 ** (1 / 5))
    ranks = at_best(parse_clause("spearman >= 0.9"), 299, 0.05)
    assert ranks == pytest.approx(best_spearman_lower(299, alpha=0.05))


@pytest.mark.parametrize("changed", [0, 1, 3])
def test_further_units_would_do(changed: int) -> None:
    clause = parse_clause("decision_stability >= 0.99")
    rows = 200 if changed == 0 else N
    e = _weigh(clause.text, SIGNS[:rows], _flipped(changed)[:rows])
    assert e.verdict is Verdict.UNDECIDED
    more = further_units(e, clause, 0.05)
    assert more is not None
    n, k = rows + more, round(changed / rows * (rows + more))
    assert clopper_pearson_lower(n - k, n, alpha=0.05) >= 0.99
    assert changed > 0 or n == 299


def test_further_units_where_none_would_do() -> None:
    clause = parse_clause("decision_stability >= 0.99")
    e = _weigh(clause.text, SIGNS, _flipped(4))  # 1 % seen, 1 % allowed
    assert further_units(e, clause, 0.05) is None
    top = parse_clause("top_k_overlap(20) >= 0.9")
    x = np.arange(float(N))
    e = _weigh(top.text, x, x)
    assert e.verdict is Verdict.UNDECIDED
    assert further_units(e, top, 0.05) is None


# Paths to a false certificate, closed


SCORES = np.linspace(-1, 1, 400)
EVERY = np.arange(400)


def _verdict(
    keep: str, reference: Array, candidate: Array, labels: Array | None = None
) -> Verdict:
    units = np.arange(len(reference))
    pairs = Paired({"y": reference}, {"y": candidate}, units, labels)
    return judge_clause(parse_clause(keep), pairs, 0.05).verdict


@pytest.mark.parametrize("keep", ["decision_stability >= 0.9", "decision_stability(cut=0) >= 0.9"])
def test_a_candidate_that_is_not_a_number_has_changed(keep: str) -> None:
    assert _verdict(keep, SCORES, SCORES) is Verdict.HELD
    assert _verdict(keep, SCORES, np.where(EVERY < 100, np.nan, SCORES)) is Verdict.BROKEN


@pytest.mark.parametrize(
    "keep",
    [
        "decision_stability >= 0.9", "top_k_stability(1) >= 0.9", "within_tolerance(9) >= 0.9",
        "relative_within(9) >= 0.9", "snr_db >= 0", "tests_own:never >= 0.9",
    ],
)  # fmt: skip
def test_no_metric_lets_not_a_number_pass(keep: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = SimpleNamespace(never=lambda reference, _: np.zeros(len(reference)))
    monkeypatch.setitem(sys.modules, "tests_own", module)
    y = np.random.default_rng(1).standard_normal((400, 3))
    keep = keep.replace(">= 0.9", "<= 0.1") if "own" in keep else keep
    assert _verdict(keep, y, y + 1e-9) is Verdict.HELD
    broken = y.copy()
    broken[:120, 0] = np.nan
    assert _verdict(keep, y, broken) is Verdict.BROKEN


def test_a_probability_without_a_cut_certifies_nothing() -> None:
    """All above 0, where the default cut is: no decision could change."""
    p = (SCORES + 2) / 4
    assert _verdict("decision_stability >= 0.9", p, 1 - p) is Verdict.UNDECIDED
    assert _verdict("accuracy_drop <= 0.1", p, 1 - p, (p > 0.5) * 1) is Verdict.UNDECIDED
    assert _verdict("decision_stability(cut=0.5) >= 0.9", p, 1 - p) is Verdict.BROKEN


def test_an_output_of_whole_numbers_is_the_decision() -> None:
    """Class 3 that becomes class 7 is a change, though both are above 0."""
    y = EVERY % 10
    assert _verdict("decision_stability >= 0.9", y, y) is Verdict.HELD
    assert (
        _verdict("decision_stability >= 0.9", y, np.where(y > 0, y % 9 + 1, 0)) is Verdict.BROKEN
    )
    tokens = np.stack([y, y, y], 1)
    same_place = tokens + 1  # the largest token stays at the same place
    assert _verdict("decision_stability >= 0.9", tokens, same_place) is Verdict.BROKEN
    assert _verdict("accuracy_drop <= 0.1", y, (y + 1) % 10, y) is Verdict.BROKEN


@pytest.mark.parametrize("column", [0, 1, 2])
@pytest.mark.parametrize("metric", ["auc_drop(column={})", "accuracy_drop(column={}, cut=0.5)"])
def test_a_ruined_column_is_a_drop_for_its_own_class(metric: str, column: int) -> None:
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 3, 400)
    y = np.eye(3)[labels] + 0.2 * rng.standard_normal((400, 3))
    ruined = y.copy()
    ruined[:, column] = rng.standard_normal(400)
    keep = metric.format(column) + " <= 0.05"
    assert _verdict(keep, y, ruined, labels) is Verdict.BROKEN
    assert _verdict(keep, y, y, labels) is not Verdict.BROKEN


@pytest.mark.parametrize("metric", ["auc_drop", "accuracy_drop(cut=0.5)"])
def test_a_score_against_its_labels_certifies_nothing(metric: str) -> None:
    """Column 0 of two classes falls where the label is 1: its losses would count as gains."""
    labels = EVERY % 2
    y = 1.0 - labels + 0.1 * SCORES
    keep = f"{metric} <= 0.1"
    pairs = Paired({"y": y}, {"y": labels + 0.1 * SCORES}, EVERY, labels)
    evidence = judge_clause(parse_clause(keep), pairs, 0.05)
    assert evidence.verdict is Verdict.UNDECIDED
    assert "its score falls where labels say yes" in evidence.note


@pytest.mark.parametrize("lost", [0, 1])
def test_not_a_number_is_never_a_gain_of_auc(lost: int) -> None:
    labels = EVERY % 2
    y = labels + 0.6 * np.random.default_rng(3).standard_normal(400)
    broken = np.where(labels == lost, np.nan, y)
    assert _verdict("auc_drop <= 0.1", y, y, labels) is Verdict.HELD
    assert _verdict("auc_drop <= 0.1", y, broken, labels) is Verdict.BROKEN


def test_rows_without_label_say_nothing() -> None:
    labels = np.where(EVERY < 200, -1, EVERY % 2)
    y = np.where(EVERY % 2 > 0, 1.0, -1.0) + 0.1 * SCORES
    wrong_on_unlabelled = np.where(EVERY < 200, -y, y)
    pairs = Paired({"y": y}, {"y": wrong_on_unlabelled}, EVERY, labels)
    evidence = judge_clause(parse_clause("accuracy_drop <= 0.1"), pairs, 0.05)
    assert evidence.verdict is Verdict.HELD
    assert evidence.n == 200


def test_ties_at_the_edge_of_the_top_are_lost() -> None:
    """Scores on a coarse grid keep their order and lose the top."""
    x = np.arange(1000.0)
    assert _verdict("top_k_overlap(100) >= 0.9", x, x) is Verdict.HELD
    assert _verdict("top_k_overlap(100) >= 0.9", x, np.minimum(x, 500)) is not Verdict.HELD
    two = np.tile([3.0, 2.0, 1.0], (400, 1))
    assert _verdict("top_k_stability(1) >= 0.9", two, np.minimum(two, 2.0)) is Verdict.BROKEN


@pytest.mark.parametrize(
    "text",
    [
        "decision_stability >= 0.99",
        "decision_stability(per=mean) >= 0.99",
        "a:b <= 0.02",
        "spearman >= 0.97",
        "spearman >= 0.1",
    ],
)
def test_units_for_is_the_fewest_that_could_show_it(text: str) -> None:
    clause = parse_clause(text)
    sign = 1 if clause.kind.at_least else -1
    n = units_for(clause, 0.05)
    assert n is not None
    enough, short = at_best(clause, n, 0.05), at_best(clause, n - 1, 0.05)
    assert enough is not None
    assert short is not None
    assert sign * enough >= sign * clause.bound > sign * short


def test_no_number_of_units_for_a_certainty() -> None:
    assert units_for(parse_clause("decision_stability >= 1"), 0.05) is None
