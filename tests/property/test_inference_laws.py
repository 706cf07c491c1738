"""Laws of the bounds that hold for any data."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from justenough.stats.clusters import row_mean_lower, row_mean_upper, unit_mean_upper
from justenough.stats.concentration import (
    bernstein_lower,
    bernstein_upper,
    hoeffding_bentkus_lower,
    hoeffding_bentkus_p,
    hoeffding_bentkus_upper,
)
from justenough.stats.eprocess import FailureProcess
from justenough.stats.multiplicity import benjamini_hochberg, fixed_sequence, graphical, holm
from justenough.stats.paired import mcnemar, tost_proportions

unit = st.floats(0.0, 1.0)
losses = st.lists(unit, min_size=2, max_size=40)
alphas = st.floats(0.001, 0.5)
p_values = st.lists(unit, min_size=1, max_size=8)


@given(losses, alphas)
@settings(deadline=None, max_examples=50)
def test_bounds_enclose_the_sample_and_widen_with_confidence(x: list[float], alpha: float) -> None:
    mean = float(np.mean(x))
    for upper, lower in (
        (bernstein_upper, bernstein_lower),
        (hoeffding_bentkus_upper, hoeffding_bentkus_lower),
    ):
        assert 0.0 <= lower(x, alpha=alpha) <= mean + 1e-12
        assert mean - 1e-12 <= upper(x, alpha=alpha) <= 1.0
        assert upper(x, alpha=alpha / 2) >= upper(x, alpha=alpha) - 1e-12


@given(losses, alphas, st.floats(0.01, 0.99))
@settings(deadline=None, max_examples=50)
def test_bound_and_p_value_agree(x: list[float], alpha: float, at_most: float) -> None:
    shown = hoeffding_bentkus_upper(x, alpha=alpha)
    if abs(shown - at_most) > 1e-9:
        assert (hoeffding_bentkus_p(x, at_most=at_most) <= alpha) == (shown < at_most)


@given(losses, st.data())
@settings(deadline=None, max_examples=50)
def test_clusters_grow_with_their_losses(x: list[float], data: st.DataObject) -> None:
    units = data.draw(st.lists(st.integers(0, 9), min_size=len(x), max_size=len(x)))
    row = data.draw(st.integers(0, len(x) - 1))
    more = [*x[:row], 1.0, *x[row + 1 :]]
    b = len(x)
    high = row_mean_upper(x, units, largest=b, alpha=0.05)
    low = row_mean_lower(x, units, largest=b, alpha=0.05)
    assert low - 1e-9 <= float(np.mean(x)) <= high + 1e-9
    assert row_mean_upper(more, units, largest=b, alpha=0.05) >= high - 1e-9
    assert unit_mean_upper(more, units, alpha=0.05) >= unit_mean_upper(x, units, alpha=0.05) - 1e-9


@given(
    st.lists(st.tuples(st.integers(1, 300), unit), min_size=1, max_size=6), st.floats(0.01, 0.5)
)
@settings(deadline=None, max_examples=50)
def test_process_needs_only_its_counts(looks: list[tuple[int, float]], p0: float) -> None:
    process = FailureProcess(p0=p0, alpha=0.05)
    for n, share in looks:
        before = process
        process = process.extended(n, round(share * n))
        assert before.lower <= process.lower
        assert process.upper <= before.upper
    at_once = FailureProcess(p0=p0, alpha=0.05).extended(process.n, process.failures)
    assert process.log_evidence_for == at_once.log_evidence_for
    assert process.upper <= at_once.upper
    assert process.lower >= at_once.lower


@given(p_values, alphas)
def test_adjusted_p_values_are_no_smaller(p: list[float], alpha: float) -> None:
    m = len(p)
    edges = (np.ones((m, m)) - np.eye(m)) / max(m - 1, 1)
    for found in (
        fixed_sequence(p, alpha=alpha),
        holm(p, alpha=alpha),
        benjamini_hochberg(p, alpha=alpha),
        graphical(p, np.full(m, 1 / m), edges, alpha=alpha),
    ):
        assert (found.adjusted >= np.array(p) - 1e-12).all()
        assert (found.adjusted <= 1.0).all()
    # What Holm's rejects, Benjamini and Hochberg's rejects.
    assert (benjamini_hochberg(p, alpha=alpha).rejected >= holm(p, alpha=alpha).rejected).all()


@given(st.integers(0, 200), st.integers(0, 200), st.integers(0, 300))
@settings(deadline=None, max_examples=50)
def test_pairs(lost: int, gained: int, alike: int) -> None:
    n = max(lost + gained + alike, 1)
    assert 0.0 <= mcnemar(lost, gained) <= 1.0
    found = tost_proportions(lost, gained, n, margin=0.1, alpha=0.05)
    assert -1.0 <= found.lower <= found.estimate <= found.upper <= 1.0
    wider = tost_proportions(lost, gained, n, margin=0.2, alpha=0.05)
    assert wider.p_value <= found.p_value
    assert wider.shown >= found.shown
