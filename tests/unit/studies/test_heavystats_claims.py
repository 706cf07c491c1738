"""The checks of the study of heavy statistics: their rules, the ledger, the laws they rest on."""

import math
from importlib.util import find_spec

import numpy as np
import pytest
from scipy.stats import binomtest, ks_2samp

from justenough.cli.claims import STUDIES, check_of
from justenough.ledger import Claim, read_claims
from justenough.stats.bootstrap import resample
from justenough.stats.moments import moments_from, unit_totals
from justenough.stats.weights import exact_weights
from justenough.studies.heavystats import claims, montecarlo_claims, search_claims
from justenough.studies.heavystats.bootstrap_claims import best_weights
from justenough.studies.heavystats.cost import Cost
from justenough.studies.heavystats.montecarlo_claims import _effects, _t_values, share_interval
from justenough.studies.heavystats.network_claims import PAIRS, _by_products, _planted
from justenough.studies.heavystats.posterior_claims import _data, decay

ROWS = [c for c in read_claims(STUDIES / "heavystats" / "claims.toml") if c.check]
# What they measure is a time or the memory of a process, or takes minutes.
MEASURED_ELSEWHERE = {c.check for c in ROWS} - {
    "effect_size", "power_of_a_million", "worth_of_a_million", "permutation_effect",
    "bootstrap_widths", "decay_weight", "evolution_and_grid", "landscapes",
}  # fmt: skip
AGAIN = [pytest.param(c, id=c.id) for c in ROWS if c.check not in MEASURED_ELSEWHERE]


@pytest.mark.slow
@pytest.mark.parametrize("claim", AGAIN)
def test_a_check_finds_what_the_ledger_says(claim: Claim) -> None:
    got = check_of(claim)()
    assert got.verdict == claim.verdict
    said, _, unit = claim.measured.partition(" ")
    assert unit == got.unit
    assert got.value == pytest.approx(float(said.replace(",", "")), rel=0.03, abs=1e-9)
    assert got.said.endswith(".")


def test_every_check_has_a_row_and_the_new_ones_state_their_rule() -> None:
    assert sorted({c.check for c in ROWS}) == sorted(claims.__all__)
    for name in claims.__all__:
        check = getattr(claims, name)
        assert check.__doc__
        if check.__module__ != claims.__name__:
            assert "Rule: " in check.__doc__, name


@pytest.mark.parametrize(
    ("conversations", "verdict"),
    [(10**8, "reproduced"), (10**6, "holds only when the same"), (10**4, "refuted")],
)
def test_effect_sizes_are_as_precise_as_the_sample_lets_them(
    conversations: int, verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(montecarlo_claims, "CONVERSATIONS", conversations)
    assert montecarlo_claims.effect_size().verdict.startswith(verdict)


@pytest.mark.parametrize(
    ("conversations", "verdict"),
    [(10**9, "reproduced"), (10**6, "holds only when the true correlation"), (10**3, "refuted")],
)
def test_power_is_what_the_sample_gives(
    conversations: int, verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(montecarlo_claims, "CONVERSATIONS", conversations)
    assert montecarlo_claims.power_of_a_million().verdict.startswith(verdict)


@pytest.mark.parametrize(
    ("written", "peak", "verdict"),
    [(9.0, 1e9, "reproduced"), (154.0, 1e9, "holds only when conv"), (154.0, 2e10, "refuted")],
)
def test_what_fits_a_card_is_what_was_measured(
    written: float, peak: float, verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_claims, "cost", lambda _: Cost(1.0, int(peak), 0))
    monkeypatch.setattr(search_claims, "written_gb", lambda: written)
    assert search_claims.cards_fit().verdict.startswith(verdict)


def test_arrays_as_written_are_counted_whole() -> None:
    assert search_claims.written_gb() == pytest.approx(154.276)


def test_an_interval_of_a_share_is_clopper_and_pearsons() -> None:
    for k, n in ((0, 20), (7, 50), (20, 20)):
        found = binomtest(k, n).proportion_ci(0.95)
        assert share_interval(k, n) == pytest.approx((found.low, found.high), abs=1e-9)


def test_drawn_statistics_have_the_law_of_samples() -> None:
    """Bartlett's decomposition against samples of 12 pairs."""
    rng, runs, n, rho, d = np.random.default_rng(0), 4_000, 12, 0.6, 0.5
    x = rng.standard_normal((runs, n))
    y = rho * x + math.sqrt(1 - rho * rho) * rng.standard_normal((runs, n))
    both = np.sqrt((x.var(1, ddof=1) + y.var(1, ddof=1)) / 2)
    effects = (d + x.mean(1) - y.mean(1)) / both
    assert ks_2samp(effects, _effects(d, rho, n, runs, rng)).pvalue > 0.01
    r = np.array([np.corrcoef(a, b)[0, 1] for a, b in zip(x, y, strict=True)])
    t = r * np.sqrt((n - 2) / (1 - r * r))
    assert ks_2samp(t, _t_values(rho, n, runs, rng)).pvalue > 0.01


def test_best_weights_of_resamples_are_the_exact_ones() -> None:
    """Also where a least-squares coefficient is negative."""
    rng = np.random.default_rng(0)
    x = rng.random((60, 4))
    y = x @ [0.02, 0.5, 0.2, 0.02] + 0.3 * rng.standard_normal(60)
    sample = unit_totals(np.column_stack([x, y]))
    totals = resample(sample, 50, rng)
    found = best_weights(totals)
    assert (found == 0.0).any() and (found > 0.0).all(axis=1).any()
    for row, w in zip(totals, found, strict=True):
        given = {"origin": sample.origin, "units": np.array(60), "totals": row}
        m = moments_from({**given, "cross": np.zeros((21, 21))})
        assert w == pytest.approx(exact_weights(m.covariance).weights, abs=1e-7)


def test_the_documents_posterior_is_least_squares_where_rows_are_many() -> None:
    n = 20_000
    x, y = _data(n, 4, 3)
    a, b = x[:, :3] - x[:, 3:], y - x[:, 3]
    inverse = np.linalg.inv(a.T @ a)
    mean, sd, low, high = decay(n, 3)
    assert mean == pytest.approx((inverse @ a.T @ b)[0], abs=1e-4)
    assert sd == pytest.approx(0.1 * math.sqrt(inverse[0, 0]), rel=0.02)
    assert (high - low) / sd == pytest.approx(3.92, rel=0.02)


def test_least_squares_on_products_finds_a_strong_pair() -> None:
    assert [_by_products(_planted(pair, 3.0, 1)) for pair in PAIRS] == list(PAIRS)


@pytest.mark.skipif(not find_spec("torch"), reason="needs the extra torch")
def test_a_networks_weights_show_a_strong_pair() -> None:
    from justenough.studies.heavystats.network_claims import _by_weights

    assert _by_weights(_planted((1, 2), 3.0, 1), 1) == (1, 2)
