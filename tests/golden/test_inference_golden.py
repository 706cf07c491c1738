"""Values of R, statsmodels and the literature, each with its source."""

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import beta, binomtest, ttest_1samp

from justenough.stats.concentration import (
    bernstein_upper,
    hoeffding_bentkus_p,
    hoeffding_bentkus_upper,
)
from justenough.stats.delong import delong_test
from justenough.stats.multiplicity import (
    benjamini_hochberg,
    fixed_sequence,
    graphical,
    holm,
)
from justenough.stats.paired import mcnemar, tost_means, tost_proportions
from justenough.stats.power_paired import equivalence_power

# Benjamini & Hochberg 1995, section 3.2: thrombolysis in myocardial infarction, 15 hypotheses
THROMBOLYSIS = [
    0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262,
    0.5719, 0.6528, 0.7590, 1.0,
]  # fmt: skip
# statsmodels 0.15.0, multipletests(method="holm") and "fdr_bh"
HOLM = [0.0015, 0.0056, 0.0247, 0.114, 0.2211, 0.278, 0.278, 0.278, 0.3213, *[1.0] * 6]
BH = [
    0.0015, 0.003, 0.0095, 0.035625, 0.0603, 0.06385714285714286, 0.06385714285714286, 0.0645,
    0.0765, 0.486, 0.5811818181818182, 0.714875, 0.7532307692307693, 0.8132142857142857, 1.0,
]  # fmt: skip


def test_benjamini_hochberg_rejects_what_the_paper_rejects() -> None:
    """The paper: four by its procedure, three by Bonferroni's at 0.05."""
    assert int(benjamini_hochberg(THROMBOLYSIS, alpha=0.05).rejected.sum()) == 4
    assert int(holm(THROMBOLYSIS, alpha=0.05).rejected.sum()) == 3


def test_adjusted_p_values_are_statsmodels() -> None:
    order = np.random.default_rng(0).permutation(15)
    p = np.array(THROMBOLYSIS)[order]
    assert holm(p, alpha=0.05).adjusted == pytest.approx(np.array(HOLM)[order], rel=1e-12)
    found = benjamini_hochberg(p, alpha=0.05).adjusted
    assert found == pytest.approx(np.array(BH)[order], rel=1e-12)


SUCCESSIVE = [[0, 0, 1, 0], [0, 0, 0, 1], [0, 1, 0, 0], [1, 0, 0, 0]]


@pytest.mark.parametrize(
    ("p", "adjusted"),
    [
        ([0.01, 0.005, 0.015, 0.022], [0.02, 0.01, 0.03, 0.03]),
        ([0.02, 0.015, 0.010, 0.023], [0.04, 0.03, 0.04, 0.04]),
    ],
)
def test_graphical_is_lrstats(p: list[float], adjusted: list[float]) -> None:
    """R package lrstat, fadjpbon: the example of its manual page and the values of its tests."""
    found = graphical(p, [0.5, 0.5, 0, 0], SUCCESSIVE, alpha=0.05)
    assert found.adjusted == pytest.approx(adjusted, rel=1e-12)


def test_graphical_is_graphical_mcps() -> None:
    """R package graphicalMCP, test-graph_test_shortcut.R, "exceeds alpha by floating point".

    There alpha is 0.025 with room for rounding; here a little more, without room.
    """
    edges: list[list[float]] = [
        [0, 0.5, 0.25, 0, 0.25, 0],
        [0.5, 0, 0, 0.25, 0, 0.25],
        [0, 0, 0, 0, 1, 0],
        [0.0001, 0, 0, 0, 0, 0.9999],
        [0, 0.0001, 0.9999, 0, 0, 0],
        [0, 0, 0, 1, 0, 0],
    ]
    p = [0.001, 0.01875, 0.013, 0.0002, 0.03, 0.04]
    found = graphical(p, [0.5, 0.5, 0, 0, 0, 0], edges, alpha=0.025 + 1e-12)
    assert found.rejected.tolist() == [True, True, False, True, False, False]


def test_graphical_has_the_named_procedures_as_special_cases() -> None:
    """Bretz et al. 2009, section 3: Holm's, the fixed sequence and the fallback procedure."""
    p = np.array([0.012, 0.04, 0.001, 0.2, 0.011])
    equal = (np.ones((5, 5)) - np.eye(5)) / 4
    assert graphical(p, np.full(5, 0.2), equal, alpha=0.05).adjusted == pytest.approx(
        holm(p, alpha=0.05).adjusted, rel=1e-12
    )
    chain = np.eye(5, k=1)
    assert graphical(p, np.eye(5)[0], chain, alpha=0.05).adjusted == pytest.approx(
        fixed_sequence(p, alpha=0.05).adjusted, rel=1e-12
    )
    # Fallback (Wiens 2003): 0.012 fails at 0.01; 0.04 at 0.01; 0.001 <= 0.01 hands on 0.01, and
    # 0.2 fails at 0.02; 0.011 fails at its own 0.01.
    fallback = graphical(p, np.full(5, 0.2), chain, alpha=0.05).rejected
    assert fallback.tolist() == [False, False, True, False, False]


@pytest.mark.parametrize(("lost", "gained", "p"), [(9, 2, 0.06543), (40, 23, 0.04295654552438921)])
def test_mcnemar(lost: int, gained: int, p: float) -> None:
    """First: R package exact2x2, mcnemar.exact(matrix(c(21, 9, 2, 12), 2)). Second: statsmodels
    0.15.0, mcnemar(exact=True)."""
    assert mcnemar(lost, gained) == pytest.approx(p, abs=5e-6)
    for alternative in ("greater", "less"):
        wanted = binomtest(lost, lost + gained, alternative=alternative).pvalue
        assert mcnemar(lost, gained, alternative=alternative) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize(
    ("lost", "gained", "n", "alpha", "lower", "upper", "digits"),
    [
        (28, 25, 618, 0.05, -0.0148, 0.0247, 4),
        (1, 7, 21, 0.025, -0.517, -0.026, 3),
    ],
)
def test_tangos_interval(
    lost: int, gained: int, n: int, alpha: float, lower: float, upper: float, digits: int
) -> None:
    """First: R package PropCIs, scoreci.mp(25, 28, 618, 0.9). Second: Fagerland, Lydersen & Laake
    2014 (Stat. Med. 33), airway hyper-responsiveness of Bentur et al. 2009."""
    found = tost_proportions(lost, gained, n, margin=0.5, alpha=alpha, method="score")
    assert (round(found.lower, digits), round(found.upper, digits)) == (lower, upper)


def test_tost_of_means() -> None:
    """statsmodels 0.15.0, DescrStatsW(d).ttost_mean(-1, 1)."""
    d = [
        0.45, 0.14, 1.07, 0.43, -0.34, 0.73, 1.86, 1.44, -0.54, -1.22, -0.45, 0.35, -2.49, 0.04,
        -1.2, -0.58, -0.35, -0.08, 0.79, 1.55, 0.15, 1.94, -0.5, 0.72, 1.38,
    ]  # fmt: skip
    found = tost_means(d, margin=1.0, alpha=0.05)
    assert found.p_value == pytest.approx(0.00047621602374582866, rel=1e-9)
    interval = ttest_1samp(d, 0.0).confidence_interval(0.9)
    assert (found.lower, found.upper) == pytest.approx(tuple(interval), rel=1e-9)


def test_power_of_tost_is_powertosts() -> None:
    """R package PowerTOST, manual of power.TOST: power.TOST(CV = 0.25, n = 24) is 0.7391155."""
    sd, bound = math.sqrt(math.log(1 + 0.25**2)), math.log(1.25)
    power = equivalence_power(math.log(0.95), sd * math.sqrt(2 / 24), 22, bound, 0.05)
    assert round(power, 7) == 0.7391155


# Rounded normal scores, every third row positive
REFERENCE = [
    3.0, -2.6, 0.4, 0.4, -0.5, -0.2, -1.0, -0.2, -0.9, 4.3, 0.2, -0.4, 0.7, -0.7, -1.1, 0.6, 0.5,
    -0.2, 2.0, -0.2, 0.0, 2.5, 0.5, -0.5, 0.8, 0.5, 1.9, 0.7, -0.2, 1.0, 0.1, -0.3, 0.9, 1.6, 0.1,
    0.7, -1.8, 1.0, -1.0, -0.7,
]  # fmt: skip
CANDIDATE = [
    0.8, 0.7, -0.4, -0.6, 0.0, -0.1, 1.9, 0.7, 0.2, 1.6, -0.2, -0.9, 1.1, 0.6, -0.2, -0.3, 0.2,
    -2.5, 1.2, 0.5, -1.6, 0.6, -1.0, 0.8, -1.5, -0.9, 0.7, 1.7, -2.2, -0.5, 0.8, -0.6, 1.6, -0.7,
    0.4, -1.0, 1.9, 0.0, -0.4, -1.2,
]  # fmt: skip


def test_delong_is_mlstatkits() -> None:
    """MLstatkit 0.1.91, Delong_test: it tests candidate - reference, with the opposite sign of z
    where it says so; its variance of the difference is 0.019915782653525685."""
    found = delong_test(np.arange(40) % 3 == 0, REFERENCE, CANDIDATE, alpha=0.05)
    assert found.standard_error**2 == pytest.approx(0.019915782653525685, rel=1e-12)
    assert abs(found.z) == pytest.approx(0.029200560408556515, rel=1e-9)
    assert found.p_value == pytest.approx(0.9767046342840976, rel=1e-9)
    assert (found.reference, found.candidate) == pytest.approx(
        (0.7032967032967034, 0.6991758241758242), rel=1e-12
    )


# Turck et al. 2010 (Intensive Care Med 36), subarachnoid haemorrhage, as in the data set aSAH of
# the R package pROC: poor outcome, WFNS grade, and S100B in 0.01 ug/l, of 113 patients
POOR = (
    "000011010010110010111010000000001001101100000000011000100010"
    "10011101101111000110100000010000000000001111110001000"
)
WFNS = (
    "111132541252551252252111121211342145414255112411255212512221"
    "51125214524414121421232421451154221113125225552445111"
)
S100B = [
    13, 14, 10, 4, 13, 10, 47, 16, 18, 10, 12, 10, 44, 71, 4, 8, 49, 4, 7, 33, 9, 9, 7, 11, 7, 17,
    7, 11, 13, 19, 5, 16, 41, 14, 34, 35, 48, 9, 96, 25, 50, 46, 16, 7, 43, 45, 11, 8, 9, 86, 52,
    8, 6, 13, 207, 10, 14, 15, 7, 6, 77, 5, 9, 30, 3, 9, 4, 23, 70, 9, 27, 71, 8, 26, 8, 16, 9,
    13, 10, 8, 11, 33, 11, 28, 7, 10, 32, 22, 7, 5, 24, 38, 10, 15, 8, 14, 10, 7, 4, 19, 56, 14,
    58, 32, 82, 74, 15, 47, 17, 44, 15, 50, 48,
]  # fmt: skip


def test_delong_is_procs() -> None:
    """R package pROC, test-roc.test.R and test-ci.auc.R: roc.test(r.wfns, r.s100b), one area."""
    poor, wfns = ([int(c) for c in text] for text in (POOR, WFNS))
    found = delong_test(poor, wfns, S100B, alpha=0.05)
    assert found.reference == pytest.approx(0.823678861788618, rel=1e-12)
    assert found.z == pytest.approx(2.20898359144091, rel=1e-12)
    assert found.p_value == pytest.approx(0.0271757822291882, rel=1e-10)
    assert (found.lower, found.upper) == pytest.approx(
        (0.0104061769564846, 0.174214419249478), rel=1e-9
    )


def test_delong_in_fractions() -> None:
    """Equations 3-6 of DeLong 1988 pair by pair, without rounding."""
    labels = np.arange(40) % 3 == 0
    rows = [np.array(REFERENCE), np.array(CANDIDATE)]

    def better(a: float, b: float) -> Fraction:
        return Fraction(int(a > b) * 2 + int(a == b), 2)

    def mean(values: list[Fraction]) -> Fraction:
        return sum(values, Fraction()) / len(values)

    def variance(values: list[Fraction]) -> Fraction:
        return sum(((v - mean(values)) ** 2 for v in values), Fraction()) / (len(values) - 1)

    def lost(i: int, j: int) -> Fraction:
        return better(rows[0][i], rows[0][j]) - better(rows[1][i], rows[1][j])

    p, q = np.flatnonzero(labels).tolist(), np.flatnonzero(~labels).tolist()
    v10 = [mean([lost(i, j) for j in q]) for i in p]
    v01 = [mean([lost(i, j) for i in p]) for j in q]
    found = delong_test(labels, rows[0], rows[1], alpha=0.05)
    assert found.drop == pytest.approx(float(mean(v10)), abs=1e-14)
    wanted = float(variance(v10) / len(p) + variance(v01) / len(q))
    assert found.standard_error**2 == pytest.approx(wanted, rel=1e-12)


def test_hoeffding_bentkus_by_hand() -> None:
    """No loss in n = 100 at limit 0.05: Hoeffding 0.95**100, Bentkus e times that."""
    assert hoeffding_bentkus_p(np.zeros(100), at_most=0.05) == pytest.approx(0.95**100, rel=1e-9)
    # Without losses the bound is Clopper and Pearson's.
    assert hoeffding_bentkus_upper(np.zeros(300), alpha=0.05) == pytest.approx(
        float(beta.ppf(0.95, 1, 300)), rel=1e-9
    )
    # 3 of 100: P(Bin(100, 0.1) <= 3) = 0.007836487
    p = hoeffding_bentkus_p(np.repeat([1.0, 0.0], [3, 97]), at_most=0.1)
    entropy = 0.03 * math.log(0.03 / 0.1) + 0.97 * math.log(0.97 / 0.9)
    assert p == pytest.approx(min(math.e * 0.007836487, math.exp(-100 * entropy)), rel=1e-6)


def test_bernstein_by_hand() -> None:
    """Half zeros, half ones, n = 100: V = 25/99."""
    x = np.repeat([0.0, 1.0], 50)
    log = math.log(2 / 0.05)
    wanted = 0.5 + math.sqrt(2 * (25 / 99) * log / 100) + 7 * log / (3 * 99)
    assert bernstein_upper(x, alpha=0.05) == pytest.approx(wanted, rel=1e-12)
