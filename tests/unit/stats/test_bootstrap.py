from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.stats import chisquare

from justenough import compiled
from justenough.errors import InputError
from justenough.stats import bootstrap, fast
from justenough.stats.bootstrap import (
    CorrelationBootstrap,
    bca_bounds,
    bootstrap_by_moments,
    bootstrap_correlations,
    from_resamples,
    multinomial_counts,
    resample,
)
from justenough.stats.counter import new_key
from justenough.stats.moments import moments, unit_totals

WEIGHTS = np.array([[1.0, 0.0], [0.3, 0.7], [-1.0, 2.0]])
ROWS = np.random.default_rng(5).standard_normal((300, 3)) @ np.array(
    [[1.0, 0.2, 0.5], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]]
)


def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def test_replicates_are_correlations_of_the_resampled_rows() -> None:
    found = bootstrap_correlations(ROWS, WEIGHTS, replicates=40, rng=rng(), studentised=True)
    counts = multinomial_counts(new_key(rng()), 0, 40, ROWS)
    assert found.replicate_errors is not None
    for b in range(40):
        rows = np.repeat(ROWS, counts[b], axis=0)
        again = moments(rows)
        assert np.allclose(found.replicates[b], again.correlations(WEIGHTS), rtol=0, atol=1e-13)
        assert np.allclose(found.replicate_errors[b], again.standard_errors(WEIGHTS), rtol=1e-10)


def test_units_are_resampled_whole() -> None:
    units = np.arange(300) % 60
    found = bootstrap_correlations(ROWS, WEIGHTS, replicates=20, rng=rng(), units=units)
    counts = multinomial_counts(new_key(rng()), 0, 20, np.empty((60, 1)))
    for b in range(20):
        rows = np.repeat(ROWS, counts[b][units], axis=0)
        assert np.allclose(found.replicates[b], moments(rows).correlations(WEIGHTS), atol=1e-13)


def test_a_stopped_run_goes_on_with_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    sample = unit_totals(ROWS)
    whole = resample(sample, 50, rng())
    monkeypatch.setattr(bootstrap, "CHUNK_BYTES", 64 * 300 * 7)  # seven resamples a chunk
    seen: list[tuple[int, int]] = []
    chunked = resample(sample, 50, rng(), tick=lambda done, wanted: seen.append((done, wanted)))
    assert np.allclose(chunked, whole, rtol=1e-13, atol=1e-12)
    assert seen == [(min(7 * k, 50), 50) for k in range(1, 9)]

    def stop(done: int, _: int) -> None:
        if done >= 21:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        resample(sample, 50, rng(), tick=stop)
    kept = np.concatenate([resample(sample, 21, rng()), resample(sample, 29, rng(), first=21)])
    assert np.array_equal(kept, chunked)
    boot = from_resamples(sample, WEIGHTS, kept)
    straight = bootstrap_correlations(ROWS, WEIGHTS, replicates=50, rng=rng())
    assert np.allclose(boot.replicates, straight.replicates, rtol=0, atol=1e-13)


@pytest.mark.parametrize("g", [1, 2, 37, 1000])
def test_compiled_counts_are_the_plain_ones(g: int) -> None:
    loops = fast.compiled()
    if loops is None:
        pytest.skip("numba is not installed")
    like = np.empty((g, 1))
    plain = multinomial_counts(2**63 + 5, 3, 40, like)
    assert np.array_equal(plain, multinomial_counts(2**63 + 5, 3, 40, like, loops))
    assert (plain.sum(1) == g).all()


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_counts_do_not_depend_on_threads(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    loops = fast.compiled()
    if loops is None:
        pytest.skip("numba is not installed")
    monkeypatch.setattr(compiled, "usable_cores", lambda: threads)
    like = np.empty((50, 1))
    expected = multinomial_counts(9, 0, 31, like)
    assert np.array_equal(multinomial_counts(9, 0, 31, like, loops), expected)


def test_counts_follow_the_multinomial_law() -> None:
    counts = multinomial_counts(1, 0, 4000, np.empty((7, 1))).astype(np.int64)
    # Means and covariances of multinomial(7, 1/7), in standard errors.
    assert np.abs(counts.mean(0) - 1.0).max() < 4.5 * np.sqrt(6 / 7 / 4000)
    covariance = np.cov(counts.T)
    assert np.abs(covariance[~np.eye(7, dtype=bool)] + 1 / 7).max() < 4.5 / np.sqrt(4000)
    assert chisquare(counts.sum(0)).pvalue > 1e-4


def test_by_moments_agrees_with_resampling() -> None:
    rows = np.random.default_rng(1).standard_normal((4000, 3)) ** 3 @ np.array(
        [[1.0, 0.2, 0.5], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]]
    )
    by_rows = bootstrap_correlations(rows, WEIGHTS, replicates=4000, rng=rng())
    by_moments = bootstrap_by_moments(moments(rows), WEIGHTS, replicates=20_000, rng=rng())
    ratio = by_moments.replicates.std(0) / by_rows.replicates.std(0)
    assert np.abs(ratio - 1.0).max() < 0.05  # Monte Carlo error of the ratio: about 0.013
    assert np.array_equal(by_moments.estimates, moments(rows).correlations(WEIGHTS))


def test_by_moments_has_no_bca_and_no_t() -> None:
    found = bootstrap_by_moments(moments(ROWS), WEIGHTS, replicates=100, rng=rng())
    with pytest.raises(InputError, match="there are no accelerations; BCa needs the units"):
        found.bca(alpha=0.05)
    with pytest.raises(InputError, match="no errors of the replicates; ask for studentised=True"):
        found.studentised(alpha=0.05)


def test_work_on_tensors_equals_arrays(tensor: Callable[[Any], Any]) -> None:
    units = np.arange(300) // 2
    for studentised in (False, True):
        for ids in (None, units):
            plain, found = (
                bootstrap_correlations(
                    rows, WEIGHTS, replicates=30, rng=rng(), units=ids, studentised=studentised
                )
                for rows in (ROWS, tensor(ROWS))
            )
            assert np.allclose(plain.replicates, found.replicates, rtol=0, atol=1e-12)
            assert np.allclose(plain.standard_errors, found.standard_errors, rtol=1e-10)
            if studentised:
                assert plain.replicate_errors is not None
                assert found.replicate_errors is not None
                assert np.allclose(plain.replicate_errors, found.replicate_errors, rtol=1e-9)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda r: bootstrap_correlations(ROWS[:29], WEIGHTS, replicates=9, rng=r), "29 indep"),
        (lambda r: bootstrap_correlations(ROWS, WEIGHTS, replicates=0, rng=r), "replicates is 0"),
        (lambda r: bootstrap_correlations(ROWS, [1.0], replicates=9, rng=r), "weights has 1 col"),
        (
            lambda r: bootstrap_correlations(ROWS, WEIGHTS, replicates=9, rng=r, units=[1, 2]),
            r"units has shape \(2,\)",
        ),
        (lambda r: resample(unit_totals(ROWS), 5, r, first=-1), "first is -1; it must be"),
        (
            lambda r: bootstrap_by_moments(moments(ROWS[:29]), WEIGHTS, replicates=9, rng=r),
            "29 independent units",
        ),
        (
            lambda r: bootstrap_by_moments(moments(ROWS), WEIGHTS, replicates=0, rng=r),
            "replicates is 0",
        ),
    ],
)
def test_bad_input_is_said(call: Callable[[np.random.Generator], object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        call(rng())


def test_a_constant_resample_is_said() -> None:
    rows = np.column_stack([ROWS[:40, 0], np.arange(40) == 0])
    with pytest.raises(InputError, match=r"the outcome is constant in sample \d+ of 200"):
        bootstrap_correlations(rows, [1.0], replicates=200, rng=rng())
    with pytest.raises(
        InputError, match="40 units; a normal draw of their totals has no positive"
    ):
        bootstrap_by_moments(moments(rows), [1.0], replicates=200, rng=rng())


@pytest.mark.parametrize("kind", ["percentile", "bca", "studentised"])
def test_every_interval_checks_alpha_and_replicates(kind: str) -> None:
    found = bootstrap_correlations(ROWS, WEIGHTS, replicates=50, rng=rng(), studentised=True)
    low, high = getattr(found, kind)(alpha=0.1)
    assert (low < found.estimates).all()
    assert (found.estimates < high).all()
    for alpha, said in ((0.0, "alpha is 0.0"), (0.5, "two bounds need it below 0.5")):
        with pytest.raises(InputError, match=said):
            getattr(found, kind)(alpha=alpha)
    with pytest.raises(InputError, match=r"50 replicates; alpha = 0.01 needs at least 100"):
        getattr(found, kind)(alpha=0.01)


def test_bca_says_where_replicates_end() -> None:
    spread, a = np.linspace(0.0, 1.0, 100)[:, None], np.array([0.0])
    with pytest.raises(InputError, match="all 100 replicates of statistic 0 lie on one side"):
        bca_bounds(np.array([2.0]), spread, a, alpha=0.05)
    with pytest.raises(InputError, match=r"statistic 0 needs quantile 0\.99\d+ of 100 replicates"):
        bca_bounds(np.array([0.9]), spread, a, alpha=0.05)
    with pytest.raises(InputError, match="statistic 0 needs quantile nan"):
        bca_bounds(np.array([0.5]), spread, np.array([-1.0]), alpha=0.05)


def test_perfect_correlation_has_no_t_and_no_acceleration() -> None:
    rows = np.column_stack([ROWS[:, 0], 2.0 * ROWS[:, 0]])
    with pytest.raises(InputError, match="a correlation is -1 or 1"):
        CorrelationBootstrap(
            np.ones(1), np.zeros(1), np.ones((99, 1)), np.zeros(1), np.ones((99, 1))
        ).studentised(alpha=0.1)
    sample = unit_totals(rows)
    assert np.abs(sample.influences([1.0])).max() < 1e-15
