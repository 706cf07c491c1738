"""Everything that cannot be used is refused in one sentence."""

import math
import re
from collections.abc import Callable

import numpy as np
import pytest

from justenough.errors import InputError
from justenough.stats.clusters import (
    row_mean_lower,
    row_mean_upper,
    unit_failure_lower,
    unit_failure_upper,
    unit_mean_lower,
    unit_mean_upper,
    unit_sums,
)
from justenough.stats.concentration import (
    bernstein_lower,
    bernstein_upper,
    hoeffding_bentkus_lower,
    hoeffding_bentkus_p,
    hoeffding_bentkus_upper,
)
from justenough.stats.delong import delong_test
from justenough.stats.eprocess import FailureProcess, anytime_units_needed
from justenough.stats.learn_then_test import learn_then_test, risk_p_values
from justenough.stats.multiplicity import benjamini_hochberg, fixed_sequence, graphical, holm
from justenough.stats.paired import mcnemar, tost_means, tost_proportions
from justenough.stats.power import (
    eprocess_course,
    most_failures,
    proportion_power,
    simulated_power,
    smallest_n,
    units_for_power,
)
from justenough.stats.power_paired import (
    Binormal,
    auc_drop_power,
    delong_power,
    mcnemar_power,
    spearman_power,
    tost_means_power,
    tost_proportions_power,
)

RNG = np.random.default_rng(0)
ROWS, UNITS = np.arange(40) / 40, np.repeat(np.arange(20), 2)
LABELS = np.arange(40) % 2 == 0
EDGES: list[list[float]] = [[0, 1], [1, 0]]
LOOP: list[list[float]] = [[0.5, 0.5], [1, 0]]
HEAVY: list[list[float]] = [[0, 0.6, 0.6], [0] * 3, [0] * 3]
HOLE: list[list[float]] = [[0, math.nan], [1, 0]]
SCORES = Binormal(0.9, 0.8, 0.5)
TABLE = np.zeros((5, 2))
LEVEL = "alpha is .*; it must lie strictly between 0 and 1"


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, 1.5, math.nan])
@pytest.mark.parametrize(
    "call",
    [
        lambda a: FailureProcess(p0=0.1, alpha=a),
        lambda a: anytime_units_needed(0, at_most=0.1, alpha=a),
        lambda a: bernstein_upper(ROWS, alpha=a),
        lambda a: bernstein_lower(ROWS, alpha=a),
        lambda a: hoeffding_bentkus_upper(ROWS, alpha=a),
        lambda a: hoeffding_bentkus_lower(ROWS, alpha=a),
        lambda a: unit_mean_upper(ROWS, UNITS, alpha=a),
        lambda a: unit_mean_lower(ROWS, UNITS, alpha=a),
        lambda a: unit_failure_upper(ROWS, UNITS, alpha=a),
        lambda a: unit_failure_lower(ROWS, UNITS, alpha=a),
        lambda a: row_mean_upper(ROWS, UNITS, largest=2, alpha=a),
        lambda a: row_mean_lower(ROWS, UNITS, largest=2, alpha=a),
        lambda a: fixed_sequence(ROWS, alpha=a),
        lambda a: holm(ROWS, alpha=a),
        lambda a: benjamini_hochberg(ROWS, alpha=a),
        lambda a: graphical([0.1, 0.2], [0.5, 0.5], EDGES, alpha=a),
        lambda a: learn_then_test(TABLE, at_most=0.1, alpha=a, procedure=holm),
        lambda a: tost_proportions(1, 1, 9, margin=0.1, alpha=a),
        lambda a: tost_means(ROWS, margin=0.1, alpha=a),
        lambda a: delong_test(LABELS, ROWS, -ROWS, alpha=a),
        lambda a: proportion_power("betting", 9, 0.1, at_most=0.2, alpha=a),
        lambda a: most_failures("betting", 9, at_most=0.2, alpha=a),
        lambda a: units_for_power("betting", 0.8, 0.1, at_most=0.2, alpha=a),
        lambda a: eprocess_course(0.1, p0=0.2, alpha=a, every=1, most=9),
        lambda a: mcnemar_power(9, 0.1, 0.1, alpha=a),
        lambda a: tost_proportions_power(9, 0.1, 0.1, margin=0.1, alpha=a),
        lambda a: tost_means_power(9, 0.0, 1.0, margin=0.1, alpha=a),
        lambda a: spearman_power(40, 0.9, at_least=0.5, alpha=a, runs=1, rng=RNG),
        lambda a: delong_power(SCORES, 20, 20, alpha=a),
        lambda a: auc_drop_power(SCORES, (20, 20), at_most=0.1, alpha=a, runs=1, rng=RNG),
    ],
)
def test_alpha_is_checked(call: Callable[[float], object], alpha: float) -> None:
    with pytest.raises(InputError, match=LEVEL):
        call(alpha)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: bernstein_upper(x, alpha=0.05),
        lambda x: bernstein_lower(x, alpha=0.05),
        lambda x: hoeffding_bentkus_upper(x, alpha=0.05),
        lambda x: hoeffding_bentkus_lower(x, alpha=0.05),
        lambda x: hoeffding_bentkus_p(x, at_most=0.5),
        lambda x: unit_mean_upper(x, np.arange(len(x)), alpha=0.05),
        lambda x: unit_mean_lower(x, np.arange(len(x)), alpha=0.05),
        lambda x: unit_failure_upper(x, np.arange(len(x)), alpha=0.05),
        lambda x: unit_failure_lower(x, np.arange(len(x)), alpha=0.05),
        lambda x: row_mean_upper(x, np.arange(len(x)), largest=1, alpha=0.05),
        lambda x: row_mean_lower(x, np.arange(len(x)), largest=1, alpha=0.05),
        lambda x: fixed_sequence(x, alpha=0.05),
        lambda x: holm(x, alpha=0.05),
        lambda x: benjamini_hochberg(x, alpha=0.05),
        lambda x: graphical(x, [1.0], [[0.0]], alpha=0.05),
    ],
)
@pytest.mark.parametrize(
    ("x", "said"),
    [
        ([0.5, 1.5], "runs from 0.5 to 1.5; scale it to [0, 1] first"),
        ([0.5, -0.5], "runs from -0.5 to 0.5; scale it to [0, 1] first"),
        ([0.5, math.nan], "is nan in row 1; every value must be finite"),
        ([], "has shape (0,); it must be (n,) with n >= 1"),
        ([[0.5]], "has shape (1, 1); it must be (n,) with n >= 1"),
        (["a"], "holds values that are not numbers"),
    ],
)
def test_values_lie_in_0_to_1(call: Callable[[object], object], x: object, said: str) -> None:
    with pytest.raises(InputError) as error:
        call(x)
    # A mirror image says the range of what it was given, too.
    assert re.search(re.escape(said), str(error.value)), error.value


SENTENCES: list[tuple[Callable[[], object], str]] = [
    (
        lambda: FailureProcess(p0=1.0, alpha=0.05),
        "p0 is 1.0; it must lie strictly between 0 and 1",
    ),
    (
        lambda: FailureProcess(p0=0.1, alpha=0.05, n=3, failures=4),
        "failures is 4; it must be a whole number, in 0..3",
    ),
    (
        lambda: FailureProcess(p0=0.1, alpha=0.05, upper=math.nan),
        "upper is nan; it must lie in [0, 1]",
    ),
    (
        lambda: FailureProcess(p0=0.1, alpha=0.05).extended(0, 0),
        "n is 0; it must be a whole number, 1 or more",
    ),
    (
        lambda: FailureProcess(p0=0.1, alpha=0.05).extended(5, 6),
        "failures is 6; it must be a whole number, in 0..5",
    ),
    (
        lambda: FailureProcess(p0=0.1, alpha=0.05).extended(5, 1).can_still_hold(4),
        "most is 4; it must be a whole number, 5 or more",
    ),
    (lambda: bernstein_upper([0.5], alpha=0.05), "x has 1 value; a sample variance needs"),
    (lambda: hoeffding_bentkus_p([0.5], at_most=0.0), "at_most is 0.0; it must lie strictly"),
    (
        lambda: unit_sums(ROWS, np.arange(50)),
        "units has shape (50,); it must be (40,), one id for each row",
    ),
    (
        lambda: unit_sums([0.1, 0.2], [1.0, math.nan]),
        "units is nan in row 1; every row needs the id of its unit",
    ),
    (
        lambda: unit_sums([0.1, 0.2], np.array([1, "a"], dtype=object)),
        "units mixes kinds of ids; give all as numbers or all as text",
    ),
    (
        lambda: unit_mean_upper(ROWS, UNITS, alpha=0.05, bound="normal"),  # type: ignore[arg-type]
        "bound is 'normal'; it must be one of betting, bernstein, hoeffding_bentkus",
    ),
    (
        lambda: unit_mean_upper(ROWS, np.zeros(40), alpha=0.05, bound="bernstein"),
        "x has 1 value; a sample variance needs at least 2",
    ),
    (
        lambda: row_mean_upper(ROWS, UNITS, largest=1, alpha=0.05),
        "a unit has 2 rows, but largest is 1; it must be the most rows that any unit can have",
    ),
    (
        lambda: row_mean_lower(ROWS, UNITS, largest=0, alpha=0.05),
        "largest is 0; it must be a whole number, 1 or more",
    ),
    (
        lambda: graphical([0.1, 0.2], [1.0], EDGES, alpha=0.05),
        "weights has 1 entries for 2 p-values; give one for each",
    ),
    (
        lambda: graphical([0.1, 0.2], [0.9, 0.2], EDGES, alpha=0.05),
        "weights sum to 1.1; they may sum to 1 at most",
    ),
    (
        lambda: graphical([0.1, 0.2], [0.5, 0.5], [[0, 1]], alpha=0.05),
        "transitions has shape (1, 2); it must be (2, 2)",
    ),
    (
        lambda: graphical([0.1, 0.2], [0.5, 0.5], LOOP, alpha=0.05),
        "transitions has an entry on its diagonal; no weight can stay where it is",
    ),
    (
        lambda: graphical([0.1] * 3, [1, 0, 0], HEAVY, alpha=0.05),
        "row 0 of transitions sums to 1.2; it may be 1 at most",
    ),
    (
        lambda: graphical([0.1, 0.2], [0.5, 0.5], HOLE, alpha=0.05),
        "transitions is nan in row 1; every value must be finite",
    ),
    (
        lambda: graphical([0.1, 0.2], [0.5, 0.5], [["a", "b"], ["c", "d"]], alpha=0.05),
        "transitions holds values that are not numbers",
    ),
    (
        lambda: risk_p_values([0.1, 0.2], at_most=0.5),
        "losses has shape (2,); it must be (n, k), neither of them 0",
    ),
    (
        lambda: risk_p_values(np.zeros((0, 3)), at_most=0.5),
        "losses has shape (0, 3); it must be (n, k), neither of them 0",
    ),
    (
        lambda: risk_p_values([[0.1, math.nan]], at_most=0.5),
        "losses is nan in row 0, column 1; every value must be finite",
    ),
    (
        lambda: risk_p_values([[0.1, 3.0]], at_most=0.5),
        "losses runs from 0.1 to 3; scale it to [0, 1] first",
    ),
    (
        lambda: risk_p_values([["a"]], at_most=0.5),
        "losses holds values that are not numbers",
    ),
    (
        lambda: risk_p_values([[0.5]], at_most=0.5, p_value="binomial"),
        "losses holds values other than 0 and 1; use p_value='hoeffding_bentkus'",
    ),
    (
        lambda: risk_p_values([[0.5]], at_most=0.5, p_value="normal"),  # type: ignore[arg-type]
        "p_value is 'normal'; it must be hoeffding_bentkus or binomial",
    ),
    (lambda: risk_p_values([[0.5]], at_most=1.0), "at_most is 1.0; it must lie strictly"),
    (lambda: mcnemar(-1, 2), "lost is -1; it must be a whole number, 0 or more"),
    (
        lambda: mcnemar(1, 2, alternative="worse"),  # type: ignore[arg-type]
        "alternative is 'worse'; it must be two-sided, greater or less",
    ),
    (
        lambda: tost_proportions(5, 6, 10, margin=0.1, alpha=0.05),
        "gained is 6; it must be a whole number, in 0..5",
    ),
    (
        lambda: tost_proportions(1, 1, 10, margin=0.0, alpha=0.05),
        "margin is 0.0; it must lie strictly between 0 and 1",
    ),
    (
        lambda: tost_proportions(1, 1, 9, margin=0.1, alpha=0.1, method="wald"),  # type: ignore[arg-type]
        "method is 'wald'; it must be clopper_pearson or score",
    ),
    (lambda: tost_means([1.0, 2.0], margin=-1.0, alpha=0.05), "margin is -1.0; it must be a posi"),
    (lambda: tost_means([1.0], margin=1.0, alpha=0.05), "differences has 1 value; Student's t"),
    (
        lambda: tost_means([2.0, 2.0], margin=1.0, alpha=0.05),
        "differences is 2 in every row; without any spread a t test says nothing",
    ),
    (
        lambda: delong_test([0, 1, 1], [1, 2, 3], [3, 2, 1], alpha=0.05),
        "2 positive and 1 negative rows; 2 of each needed",
    ),
    (
        lambda: delong_test([1, 1], [1, 2], [3, 2], alpha=0.05),
        "all 2 rows have one label; an AUC needs both classes",
    ),
    (lambda: delong_test(LABELS, ROWS, 2 * ROWS, alpha=0.05), "both scores put every row on"),
    (lambda: delong_test(LABELS, ROWS, ROWS[:5], alpha=0.05), "lengths differ: labels 40, ref"),
    (
        lambda: proportion_power("wald", 9, 0.1, at_most=0.2, alpha=0.05),  # type: ignore[arg-type]
        "bound is 'wald'; it must be one of clopper_pearson, betting, bernstein",
    ),
    (
        lambda: proportion_power("betting", 9, 1.1, at_most=0.2, alpha=0.05),
        "q is 1.1; it must lie in [0, 1]",
    ),
    (
        lambda: units_for_power("betting", 0.8, 0.2, at_most=0.2, alpha=0.05),
        "q is 0.2 and at_most 0.2; no number of units shows it unless q is less",
    ),
    (
        lambda: smallest_n(lambda n: 0.5, 0.9, least=1, most=100),
        "100 units do not give a power of 0.9; ask for less",
    ),
    (
        lambda: eprocess_course(0.1, p0=0.2, alpha=0.05, every=10, most=25),
        "most is 25; it must be a multiple of every, 10",
    ),
    (
        lambda: simulated_power(lambda rng: True, runs=0, rng=RNG),
        "runs is 0; it must be a whole number, 1 or more",
    ),
    (lambda: Binormal(1.0, 0.8, 0.5), "reference is 1.0; it must lie strictly between 0 and 1"),
    (lambda: Binormal(0.9, 0.8, 1.0), "correlation is 1.0; it must lie within (-1, 1)"),
    (
        lambda: mcnemar_power(9, 0.7, 0.7, alpha=0.05),
        "lost is 0.7 and gained 0.7; chances of separate events must be 0 or more and sum to 1",
    ),
    (
        lambda: mcnemar_power(9, 0.1, 0.1, alpha=0.05, alternative="x"),  # type: ignore[arg-type]
        "alternative is 'x'; it must be two-sided, greater or less",
    ),
    (
        lambda: tost_means_power(9, 0.0, 0.0, margin=1.0, alpha=0.05),
        "sd is 0.0; it must be a positive number",
    ),
    (
        lambda: tost_means_power(9, math.nan, 1.0, margin=1.0, alpha=0.05),
        "difference is nan; it must be a number",
    ),
    (
        lambda: spearman_power(29, 0.9, at_least=0.5, alpha=0.05, runs=1, rng=RNG),
        "n is 29; it must be a whole number, 30 or more",
    ),
    (
        lambda: spearman_power(40, 1.0, at_least=0.5, alpha=0.05, runs=1, rng=RNG),
        "rho is 1.0; it must lie within (-1, 1)",
    ),
    (lambda: delong_power(SCORES, 1, 20, alpha=0.05), "positives is 1; it must be a whole number"),
]


@pytest.mark.parametrize(("call", "said"), SENTENCES, ids=[said[:40] for _, said in SENTENCES])
def test_the_sentence(call: Callable[[], object], said: str) -> None:
    with pytest.raises(InputError) as error:
        call()
    assert str(error.value).startswith(said), error.value
    assert "\n" not in str(error.value)
