import numpy as np
import pytest
from scipy.stats import norm

from justenough.stats.delong import delong_test
from justenough.stats.paired import (
    EquivalenceMethod,
    equivalent,
    mcnemar,
    tost_means,
    tost_proportions,
)
from justenough.stats.proportion import clopper_pearson_lower, clopper_pearson_upper


def test_no_discordant_case_says_nothing() -> None:
    for alternative in ("two-sided", "greater", "less"):
        assert mcnemar(0, 0, alternative=alternative) == 1.0


def test_mcnemar_mirrors() -> None:
    for lost, gained in ((3, 3), (0, 7), (12, 5)):
        assert mcnemar(lost, gained) == pytest.approx(mcnemar(gained, lost), rel=1e-12)
        assert mcnemar(lost, gained, alternative="greater") == pytest.approx(
            mcnemar(gained, lost, alternative="less"), rel=1e-12
        )


@pytest.mark.parametrize("method", ["clopper_pearson", "score"])
@pytest.mark.parametrize(
    ("lost", "gained", "n"), [(0, 0, 400), (5, 2, 400), (90, 80, 400), (4, 0, 9)]
)
def test_p_and_bounds_agree(method: EquivalenceMethod, lost: int, gained: int, n: int) -> None:
    """Shown exactly if both bounds lie within the margin, and the mirror image mirrors."""
    found = tost_proportions(lost, gained, n, margin=0.03, alpha=0.05, method=method)
    mirrored = tost_proportions(gained, lost, n, margin=0.03, alpha=0.05, method=method)
    assert (found.lower, found.upper) == (-mirrored.upper, -mirrored.lower)
    assert found.lower <= found.estimate <= found.upper
    worst = max(found.upper, -found.lower)
    for margin in (worst + 1e-6, worst - 1e-6):
        if 0 < margin < 1:
            again = tost_proportions(lost, gained, n, margin=margin, alpha=0.05, method=method)
            assert again.shown == (margin > worst)


def test_exact_bounds_are_two_of_clopper_and_pearson() -> None:
    found = tost_proportions(7, 3, 400, margin=0.1, alpha=0.05)
    for one, other, bound in ((7, 3, found.upper), (3, 7, -found.lower)):
        high = clopper_pearson_upper(one, 400, alpha=0.025)
        low = clopper_pearson_lower(other, 400, alpha=0.025)
        assert bound == pytest.approx(high - low, rel=1e-12)
    again = tost_proportions(7, 3, 400, margin=0.1, alpha=found.p_value)
    assert max(again.upper, -again.lower) == pytest.approx(0.1, abs=1e-9)


def test_exact_p_value_at_its_ends() -> None:
    assert tost_proportions(0, 9, 10, margin=0.1, alpha=0.05).p_value == 1.0
    assert tost_proportions(0, 0, 10**6, margin=0.5, alpha=0.05).p_value == pytest.approx(1e-15)


def test_score_nears_wald_for_many_cases() -> None:
    lost, gained, n, margin = 4000, 3900, 10**5, 0.01
    d = (lost - gained) / n
    se = np.sqrt((lost + gained) / n - d * d) / np.sqrt(n)
    wald = float(norm.sf((margin - d) / se))
    found = tost_proportions(lost, gained, n, margin=margin, alpha=0.05, method="score").p_value
    assert np.log(found) == pytest.approx(np.log(wald), rel=0.1)


@pytest.mark.parametrize("method", ["clopper_pearson", "score"])
def test_arrays_give_what_numbers_give(method: EquivalenceMethod) -> None:
    a, b = np.arange(30), np.full(30, 4)
    shown = [
        tost_proportions(int(x), 4, 300, margin=0.05, alpha=0.05, method=method).shown for x in a
    ]
    found = equivalent(a, b, 300, margin=0.05, alpha=0.05, method=method)
    assert found.tolist() == shown
    assert 3 < sum(shown) < 27


def test_tost_of_means_moves_with_its_unit() -> None:
    d = np.random.default_rng(0).normal(0.1, 1.0, 50)
    one, thousand = (
        tost_means(d, margin=0.5, alpha=0.05),
        tost_means(1e3 * d, margin=5e2, alpha=0.05),
    )
    assert one.p_value == pytest.approx(thousand.p_value, rel=1e-9)
    assert one.shown == (one.upper < 0.5 and one.lower > -0.5)


def test_delong_mirrors_and_agrees_with_its_interval() -> None:
    rng = np.random.default_rng(4)
    labels = rng.random(200) < 0.3
    for noise in (0.2, 1.0, 3.0):
        a = rng.standard_normal(200) + labels
        b = a + noise * rng.standard_normal(200)
        found, back = (delong_test(labels, *s, alpha=0.05) for s in ((a, b), (b, a)))
        assert (found.drop, found.z) == pytest.approx((-back.drop, -back.z), rel=1e-12)
        assert (found.p_value <= 0.05) == (found.lower > 0 or found.upper < 0)
        # Only the order of the scores matters.
        same = delong_test(labels, np.exp(a), b**3, alpha=0.05)
        assert same == found
