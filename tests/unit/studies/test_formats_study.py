"""The formats study: its checks against the ledger, its rules, and the laws they rest on."""

import math

import numpy as np
import pytest

from justenough.cli.claims import STUDIES, check_of
from justenough.ledger import Claim, read_claims
from justenough.studies.formats import claims
from justenough.studies.formats.attention import attention_mask
from justenough.studies.formats.kinetics import _beta, _integrated
from justenough.studies.formats.ranking import (
    Top,
    _overlap,
    predicted_rho,
    quantized,
    rho_and_shares,
    top,
)
from justenough.studies.formats.rounding import _inside, worst_fp16_error

ROWS = read_claims(STUDIES / "formats" / "claims.toml")
SLOW = {
    "int8_digits",
    "int8_spearman",
    "int8_overlap",
    "screening_overlap",
    "attention_growth",
    "local_indices",
}
PARAMETERS = [
    pytest.param(c, id=c.id, marks=[pytest.mark.slow] if c.check in SLOW else []) for c in ROWS
]


@pytest.mark.parametrize("claim", PARAMETERS)
def test_a_check_finds_what_the_ledger_says(claim: Claim) -> None:
    got = check_of(claim)()
    assert got.verdict == claim.verdict
    said, unit = claim.measured.split(" ", 1) if " " in claim.measured else (claim.measured, "")
    assert unit == got.unit
    assert got.value == pytest.approx(float(said.replace(",", "")), rel=0.02, abs=1e-9)
    if claim.low is not None:
        assert got.low == pytest.approx(claim.low, rel=0.02)
        assert got.high == pytest.approx(claim.high, rel=0.02)
    assert got.said.endswith(".")


def test_every_check_has_a_row_and_states_its_rule() -> None:
    assert sorted(c.check for c in ROWS) == claims.__all__
    for name in claims.__all__:
        assert "Rule: " in (getattr(claims, name).__doc__ or ""), name


def test_a_range_is_reproduced_only_when_every_value_lies_in_it() -> None:
    assert _inside([40.0, 41.0], 37, 43, "x") == "reproduced"
    assert _inside([40.0, 73.0], 37, 43, "x") == "holds only when x"
    assert _inside([73.0, -math.inf], 37, 43, "x") == "refuted"


def test_the_rule_of_overlaps_follows_from_the_cases() -> None:
    good = Top("max", 0.99, 0.9, tied=20, places=10)
    bad = Top("max", 0.5, 0.0, tied=2000, places=1000)
    odd = Top("max", 0.5, 0.0, tied=20, places=10)
    assert _overlap([good], 0.97, 0.99).verdict == "reproduced"
    assert _overlap([bad], 0.97, 0.99).verdict == "refuted"
    assert _overlap([good, bad], 0.97, 0.99).verdict.startswith("holds only when few scores")
    assert _overlap([good, odd], 0.97, 0.99).verdict == "refuted"


# What the conditions say, as laws


@pytest.mark.parametrize("clipped", ["max", "99.9 % quantile", "99 % quantile"])
def test_overlap_is_what_the_ties_leave(clipped: str) -> None:
    for seed in range(20):
        x = np.random.default_rng(seed).lognormal(0, 1, 5000)
        got = top(x, clipped, 100)
        lost = got.places * (got.tied - got.places) / (got.tied * 100)
        assert got.overlap == pytest.approx(1 - lost, abs=1e-12)
        assert got.worst <= got.overlap


def test_overlap_is_the_mean_over_ties_broken_at_random() -> None:
    rng = np.random.default_rng(0)
    x = rng.random(2000)
    y = quantized(x)
    best = set(np.argsort(x)[-50:])
    drawn = [len(best & set(np.lexsort((rng.random(2000), y))[-50:])) / 50 for _ in range(2000)]
    error = float(np.std(drawn)) / math.sqrt(len(drawn))
    assert top(x, "max", 50).overlap == pytest.approx(np.mean(drawn), abs=5 * error)


def test_correlation_follows_from_the_cubed_shares() -> None:
    for seed in range(10):
        x = np.random.default_rng(seed).lognormal(0, 1.5, 3000)
        rho, shares = rho_and_shares(x)
        assert rho == pytest.approx(predicted_rho(shares, 3000), abs=1e-9)


@pytest.mark.parametrize("exponent", [-24, -20, -14, 0, 6, 15])
def test_fp16_errs_by_half_a_step(exponent: int) -> None:
    step = 2.0 ** max(exponent - 10, -24)
    worst = worst_fp16_error(exponent)
    assert worst == pytest.approx(step / 2, rel=1e-2)
    assert worst <= step / 2


def test_key_residues_are_counted_once() -> None:
    mask = attention_mask(1000, 100, True)
    far = np.abs(np.subtract.outer(np.arange(1000), np.arange(1000))) > 32
    keys = np.zeros(1000, bool)
    keys[::10] = True
    assert (mask == (~far | keys[:, None] | keys)).all()
    window = 1000 * 65 - 32 * 33
    assert attention_mask(1000, 0, False).sum() == window


def test_the_slower_rate_solves_its_equation() -> None:
    rng = np.random.default_rng(0)
    k10, k12, k21 = rng.uniform(0.01, 2, (3, 100))
    beta = _beta(k10, k12, k21)
    assert beta**2 - (k10 + k12 + k21) * beta + k10 * k21 == pytest.approx(0, abs=1e-12)
    assert (beta <= np.minimum(k10, k21) + 1e-12).all()


def test_an_exact_integration_finds_the_half_life() -> None:
    assert _integrated(lambda x: x, 0.01) == pytest.approx(6, abs=0.02)
