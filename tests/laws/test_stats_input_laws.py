"""Bad input to any public function of `justenough.stats` is one sentence, never a silent NaN."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any, get_args

import numpy as np
import pytest

import justenough.stats
from justenough.errors import InputError
from justenough.stats import (
    auc,
    bootstrap,
    bounded,
    clusters,
    concentration,
    convergence,
    delong,
    eprocess,
    factors,
    kendall,
    learn_then_test,
    moments,
    multiplicity,
    nuts,
    paired,
    permutation,
    posterior,
    power,
    power_paired,
    proportion,
    ranks,
    ratio,
    simplex,
    simplex_posterior,
    stream,
    variational,
    weights,
)  # fmt: skip

N = 60
RNG = np.random.default_rng(0)
X = RNG.standard_normal(N)
Y = X + RNG.standard_normal(N)
SHARES = RNG.random(N)
LABELS = (np.arange(N) % 3 == 0).astype(np.float64)
UNITS = np.arange(N) // 2 * 1.0
ROWS = RNG.standard_normal((N, 3))
SIGNALS = RNG.random((N, 3))
OUTCOME = SIGNALS @ [0.2, 0.5, 0.3] + 0.1 * RNG.standard_normal(N)
COVARIANCE = np.cov(np.column_stack([SIGNALS, OUTCOME]).T)
CHAINS = RNG.standard_normal((2, 40))
TENSOR = RNG.standard_normal((5, 4, 3))
P = np.array([0.01, 0.2, 0.03])
MODEL = simplex.SimplexModel(simplex.summary(SIGNALS, OUTCOME), np.ones(3))
DRAWN = posterior.Posterior(
    "prior", RNG.dirichlet(np.ones(3), (1, 50)), np.ones((1, 50)), np.full((1, 50), 0.02), 50.0
)
SAMPLE = moments.unit_totals(ROWS)
RESAMPLED = bootstrap.resample(SAMPLE, 50, np.random.default_rng(0))
BOOT = bootstrap.from_resamples(SAMPLE, [0.5, 0.5], RESAMPLED)
SCORES = power_paired.Binormal(0.9, 0.85, 0.5)
CP2 = factors.cp(TENSOR, 2, rng=np.random.default_rng(0))
RANDOM = {"rng": np.random.default_rng(0)}
A = {"alpha": 0.05}
PAIR = {"x": X, "y": Y, "units": UNITS, **A}
LOSSES = {"losses": SHARES, "units": UNITS, **A}
RUNS = {"at_least": 0.1, **A, "runs": 1, **RANDOM}
RATES = {"at_most": 0.2, **A}
CELLS = {"lost": 0.1, "gained": 0.1, **A}

# Each with arguments that it takes; laws below spoil one after the other.
CALLS: list[tuple[Callable[..., Any], dict[str, Any]]] = [
    (auc.auc, {"labels": LABELS, "scores": X}),
    (auc.auc_drop_interval,
     {"labels": LABELS, "reference": X, "candidate": Y, "units": UNITS, **A}),
    (bootstrap.bootstrap_correlations,
     {"rows": ROWS, "weights": [1.0, 2.0], "replicates": 20, "units": UNITS, **RANDOM}),
    (bootstrap.resample, {"sample": SAMPLE, "replicates": 3, **RANDOM}),
    (bootstrap.from_resamples,
     {"sample": SAMPLE, "weights": [1.0, 2.0], "resampled": RESAMPLED}),
    (bootstrap.bootstrap_by_moments,
     {"moments": SAMPLE.moments(), "weights": [1.0, 2.0], "replicates": 20, **RANDOM}),
    (bootstrap.bca_bounds,
     {"estimates": np.zeros(1), "replicates": X[:, None], "accelerations": np.zeros(1), **A}),
    (bootstrap.acceleration, {"influences": ROWS}),
    (BOOT.percentile, A),
    (BOOT.bca, A),
    (bounded.mean_upper, {"x": SHARES, **A}),
    (bounded.mean_lower, {"x": SHARES, **A}),
    *((f, LOSSES) for f in (
        clusters.unit_mean_upper, clusters.unit_mean_lower,
        clusters.unit_failure_upper, clusters.unit_failure_lower,
    )),
    (clusters.unit_sums, {"losses": SHARES, "units": UNITS}),
    (clusters.row_mean_upper, {**LOSSES, "largest": 2}),
    (clusters.row_mean_lower, {**LOSSES, "largest": 2}),
    *((f, {"x": SHARES, **A}) for f in (
        concentration.bernstein_upper, concentration.bernstein_lower,
        concentration.hoeffding_bentkus_upper, concentration.hoeffding_bentkus_lower,
    )),
    (concentration.hoeffding_bentkus_p, {"x": SHARES, "at_most": 0.5}),
    *((f, {"draws": CHAINS}) for f in (
        convergence.r_hat, convergence.ess_bulk, convergence.ess_tail)),
    (convergence.psis, {"log_ratios": X}),
    (convergence.pareto_k, {"log_ratios": X}),
    (delong.delong_test, {"labels": LABELS, "reference": X, "candidate": Y, **A}),
    (eprocess.FailureProcess, {"p0": 0.1, **A, "n": 10, "failures": 1}),
    (eprocess.anytime_units_needed, {"failures": 1, **RATES}),
    (factors.st_hosvd, {"tensor": TENSOR, "ranks": (2, 2, 2)}),
    (factors.hooi, {"tensor": TENSOR, "ranks": (2, 2, 2), "sweeps": 3}),
    (factors.cp, {"tensor": TENSOR, "rank": 1, "starts": 2, "sweeps": 9, **RANDOM}),
    (factors.core_consistency, {"tensor": TENSOR, "found": CP2}),
    (factors.supported_rank, {"tensor": TENSOR, "largest": 1, "noise_fits": 1, **RANDOM}),
    (kendall.kendall_interval, PAIR),
    (learn_then_test.learn_then_test,
     {"losses": SHARES[:, None], **RATES, "procedure": multiplicity.holm}),
    (learn_then_test.risk_p_values, {"losses": SHARES[:, None], "at_most": 0.2}),
    (moments.moments, {"rows": ROWS, "units": UNITS}),
    (moments.unit_totals, {"rows": ROWS, "units": UNITS}),
    (moments.moments_from, {"arrays": SAMPLE.moments().arrays()}),
    (SAMPLE.moments().correlations, {"weights": [1.0, 2.0]}),
    (SAMPLE.moments().standard_errors, {"weights": [1.0, 2.0]}),
    (SAMPLE.influences, {"weights": [1.0, 2.0]}),
    (multiplicity.fixed_sequence, {"p": P, **A}),
    (multiplicity.holm, {"p": P, **A}),
    (multiplicity.benjamini_hochberg, {"p": P, **A}),
    (multiplicity.graphical,
     {"p": P, "weights": np.full(3, 1 / 3), "transitions": np.eye(3, k=1), **A}),
    (nuts.nuts, {"model": MODEL, "draws": 99, **RANDOM}),
    (paired.mcnemar, {"lost": 3, "gained": 5}),
    (paired.tost_proportions, {"lost": 3, "gained": 5, "n": 99, "margin": 0.1, **A}),
    (paired.tost_means, {"differences": X, "margin": 1.0, **A}),
    (paired.equivalent,
     {"lost": np.array([3]), "gained": np.array([5]), "n": 99, "margin": 0.1, **A,
      "method": "score"}),
    (permutation.pearson_permutation_test, {"x": X, "y": Y, "permutations": 9, **RANDOM}),
    (permutation.spearman_permutation_test, {"x": X, "y": Y, "permutations": 9, **RANDOM}),
    (posterior.discrepancy, {"candidate": DRAWN, "reference": DRAWN, **A}),
    (power.proportion_power, {"bound": "betting", "n": 50, "q": 0.1, **RATES}),
    (power.most_failures, {"bound": "betting", "n": 50, **RATES}),
    (power.units_for_power, {"bound": "clopper_pearson", "wanted": 0.8, "q": 0.05, **RATES}),
    (power.smallest_n, {"power_of": lambda n: 1.0 - 0.9**n, "wanted": 0.5, "least": 1}),
    (power.eprocess_course, {"q": 0.1, "p0": 0.2, **A, "every": 10, "most": 50}),
    (power.simulated_power, {"shown": lambda rng: True, "runs": 2, **RANDOM}),
    (power_paired.Binormal, {"reference": 0.9, "candidate": 0.8, "correlation": 0.5}),
    (power_paired.mcnemar_power, {"n": 50, **CELLS}),
    (power_paired.tost_proportions_power, {"n": 50, **CELLS, "margin": 0.2}),
    (power_paired.tost_means_power, {"n": 50, "difference": 0.0, "sd": 1.0, "margin": 1.0, **A}),
    (power_paired.spearman_power, {"n": 50, "rho": 0.5, **RUNS}),
    (power_paired.kendall_power, {"n": 50, "tau": 0.5, **RUNS}),
    (power_paired.top_overlap_power, {"rows": (99, 40), "r": 0.9, **RUNS}),
    (power_paired.delong_power, {"scores": SCORES, "positives": 20, "negatives": 30, **A}),
    (power_paired.auc_drop_power, {"scores": SCORES, "rows": (20, 30), **RATES, "runs": 1,
                                   **RANDOM}),
    (proportion.clopper_pearson_lower, {"successes": 3, "n": 9, **A}),
    (proportion.clopper_pearson_upper, {"successes": 3, "n": 9, **A}),
    (proportion.units_needed, {"failures": 3, "at_least": 0.9, **A}),
    (ranks.spearman_interval, PAIR),
    (ranks.top_overlap_interval, {**PAIR, "k": 30}),
    (ranks.best_spearman_lower, {"g": 50, **A}),
    (ranks.top_weights, {"scores": X, "k": 3}),
    (ratio.log_ratio_interval, {"numerator": SHARES, "denominator": SHARES[::-1], **A}),
    (simplex.summary, {"x": SIGNALS, "y": OUTCOME}),
    (simplex.checked_covariance, {"covariance": COVARIANCE}),
    (simplex.mode, {"model": MODEL}),
    (simplex_posterior.exact, {"model": MODEL, "draws": 10_000, **RANDOM}),
    (simplex_posterior.predictive, {"model": MODEL, "posterior": DRAWN, "x": SIGNALS, **RANDOM}),
    (stream.stream_moments, {"blocks": [ROWS], "threads": 1}),
    (variational.laplace, {"model": MODEL, "draws": 1000, **RANDOM}),
    (variational.variational, {"model": MODEL, "draws": 1000, "full_rank": False, **RANDOM}),
    (variational.pathfinder, {"model": MODEL, "draws": 1000, "paths": 1, **RANDOM}),
    (weights.exact_weights, {"covariance": COVARIANCE}),
    (weights.best_of, {"covariance": COVARIANCE, "candidates": np.eye(3)}),
    (weights.genetic_weights, {"covariance": COVARIANCE, "generations": 2, "population": 8,
                               **RANDOM}),
    (weights.evolved, {"fitness_of": lambda w: -w[:, 0], "k": 3, "generations": 2,
                       "population": 8, **RANDOM}),
    (weights.cma_weights, {"covariance": COVARIANCE, "evaluations": 100, **RANDOM}),
]  # fmt: skip
# Plumbing below the doors: they take what a door has checked already.
INNER = {
    "checks", "totals", "counter", "fast", "influence", "bisection",
    "bounded.counted_upper", "bootstrap.multinomial_counts",
    "auc.checked_labels", "auc.labelled_scores", "clusters.UnitSums",
}  # fmt: skip
# Whole numbers that must not be negative, and shares that must lie strictly between 0 and 1.
COUNTS = {
    "n", "k", "replicates", "permutations", "runs", "draws", "lost", "gained", "successes",
    "failures", "positives", "negatives", "largest", "g", "threads", "sweeps", "rank", "starts",
    "noise_fits", "paths", "generations", "population", "evaluations", "every", "most", "least",
}  # fmt: skip
SHARES_OF_ONE = {"alpha", "at_most", "p0", "margin", "wanted"}


def _spoiled() -> list[tuple[str, Callable[..., Any], dict[str, Any], bool]]:
    """Names, calls, and whether the call must be refused; otherwise its answer holds no NaN."""
    out = []
    for call, good in CALLS:
        name = getattr(call, "__qualname__", str(call))
        for key, value in good.items():
            bad: dict[str, tuple[Any, bool]] = {}
            if isinstance(value, np.ndarray | list) and np.asarray(value).dtype.kind == "f":
                array = np.asarray(value, np.float64)
                hole = array.copy()
                hole.flat[0] = np.nan
                if call not in UNCHECKED and key not in ("blocks", "resampled"):
                    bad |= {
                        "nan": (hole, True),
                        "text": (array.astype(str).astype(object) + "x", key != "units"),
                        "empty": (array[:0], True),
                    }
                    bad["constant"] = np.ones_like(array), False
                    bad["one row"] = array[:1], False
                    bad["ties"] = np.sign(array - np.median(array)), False
            elif key in SHARES_OF_ONE and call not in UNCHECKED:
                bad = {str(v): (v, True) for v in (-1.0, 0.0, np.nan)}
                if (call, key) != (paired.tost_means, "margin"):
                    bad["2"] = 2.0, call is not power_paired.tost_means_power or key == "alpha"
            elif key in COUNTS and isinstance(value, int):
                bad = {"-1": (-1, call is not paired.equivalent)}
            out += [(f"{name} {key} {how}", call, {**good, key: v}, must)
                    for how, (v, must) in bad.items()]  # fmt: skip
    return out


# Their docstrings say that they check nothing, or they take what another function gave.
UNCHECKED = (paired.equivalent, bootstrap.bca_bounds, bootstrap.acceleration)
SPOILED = _spoiled()


def _has_nan(value: Any) -> bool:
    if is_dataclass(value) and not isinstance(value, type):
        return any(_has_nan(getattr(value, f.name)) for f in fields(value))
    if isinstance(value, tuple | list):
        return any(_has_nan(v) for v in value)
    if isinstance(value, float | np.floating | np.ndarray) and np.asarray(value).dtype.kind == "f":
        return bool(np.isnan(value).any())
    return False


@pytest.mark.parametrize(
    ("call", "given", "must"), [s[1:] for s in SPOILED], ids=[s[0] for s in SPOILED]
)
def test_bad_input_is_one_sentence(
    call: Callable[..., Any], given: dict[str, Any], must: bool
) -> None:
    try:
        found = call(**given)
    except InputError as error:
        said = str(error)
        assert said, said
        assert "\n" not in said
        return
    assert not must, f"answered {found}"
    assert not _has_nan(found)


def test_every_function_that_refuses_is_here() -> None:
    """Whatever says in its docstring that it raises InputError is called above."""
    called = {f"{c.__module__.rpartition('.')[2]}.{c.__qualname__}" for c, _ in CALLS}
    missing = []
    for found in pkgutil.iter_modules(justenough.stats.__path__):
        module = importlib.import_module(f"justenough.stats.{found.name}")
        for name, value in inspect.getmembers(module, inspect.isroutine):
            full = f"{found.name}.{name}"
            if value.__module__ != module.__name__ or name.startswith("_"):
                continue
            raises = "InputError" in (inspect.getdoc(value) or "")
            if raises and full not in called and not {full, found.name} & INNER:
                missing.append(full)
    assert not missing


def test_the_names_of_bounds_are_those_of_power() -> None:
    """Every bound on a proportion at a fixed n has its power."""
    assert set(get_args(clusters.MeanBound)) < set(get_args(power.ProportionBound))
