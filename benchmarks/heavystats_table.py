"""The page docs/statistics-benchmarks.md, from results as `benchmarks.heavystats` writes them.

`python -m benchmarks.heavystats_table` writes it again from the JSON file.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]
PAGE = Path("docs/statistics-benchmarks.md")
RESULTS = Path("benchmarks/heavystats.json")
BOOTSTRAP, FEWER = "bootstrap 10,000 x 169, n = 1e5", "bootstrap 10,000 x 169, n = 1e4"
PERMUTATION = "permutation test 100,000, n = 1e4"
MONTE_CARLO = "1,000,000 conversations x 50 x 4 x 169"
BATCHED = "batched, patience 100"


def page(results: Row) -> str:
    """What the last run found, as Markdown."""
    m = results["machine"]
    versions = ", ".join(f"{k} {v}" for k, v in results["versions"].items())
    lines = [
        *_INTRO,
        "",
        f"{results['date']}; {m['processor']}, {m['cores']} cores, {m['system']}, Python "
        f"{m['python']}; load {m['load_before']:.2f} before it began. {m['note']}".strip(),
        "",
        f"{versions}.",
        "",
        *_goals(results),
        "",
        *_sides(results),
        "",
        *_errors(results),
    ]
    return "\n".join(lines) + "\n"


_INTRO = """# Statistics beside their peers

Written by `make bench-stats`; do not edit. One run on one machine: the eight analyses of document
003 by this program, by the document's own loops, and by other libraries. Times are medians by the
wall, with fastest and slowest where there are several. **Scaled** is said where only a part was
run and the rest extrapolated linearly: so many times the part. The document's loops were run on
this processor, not on the graphics card that it is about.
""".rstrip().splitlines()


def seconds(value: float) -> str:
    """A time as a reader takes it in.

    >>> seconds(0.0294), seconds(12.34), seconds(36_000.0)
    ('0.029 s', '12 s', '10 h')
    """
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if value >= 2 * size:
            return (
                f"{value / size:.2g} {unit}"
                if value < 100 * size
                else f"{value / size:.0f} {unit}"
            )
    return f"{value:.2g} s" if value < 100 else f"{value:.0f} s"


def _goals(results: Row) -> list[str]:
    """Each goal beside what was measured, reached or not."""
    work = results["resampling"]
    study = results["study"]
    drawn, quick = (work[BOOTSTRAP][k]["seconds"] for k in ("resampling", "by moments"))
    errors = results["standard_errors"]
    mean_off = abs(errors["moments_over_resampling_mean"] - 1)
    most = max(abs(errors[f"moments_over_resampling_{k}"] - 1) for k in ("min", "max"))
    goals = [
        ("Monte Carlo, 1,000,000 x 50 x 4 x 169", 3.0,
         work[MONTE_CARLO]["made, pooled moments"]["seconds"]),
        ("the same within the study, its conversations made by NumPy", 3.0,
         study["stages"]["montecarlo"]),
        ("bootstrap, 10,000 x 169, n = 100,000, by resampling", 10.0, drawn),
        ("the same by moments", 0.1, quick),
        ("permutation test, 100,000, n = 10,000", 1.5,
         work[PERMUTATION]["ours, Numba"]["seconds"]),
        ("posterior, 4 x 20,000 draws, n = 50,000", 10.0,
         results["samplers"]["blackjax"]["seconds"]),
        ("252 networks, stopped early", 120.0, results["networks"][BATCHED]["seconds"]),
        ("252 networks, all 1,000 steps", 120.0,
         results["networks"]["batched, 1000 steps"]["seconds"]),
        ("the whole study", 180.0, study["seconds"]),
    ]  # fmt: skip
    lines = [
        "## Goals for two cores",
        "",
        "| what | goal | measured | reached |",
        "|---" * 4 + "|",
    ]
    for what, goal, got in goals:
        lines.append(f"| {what} | {seconds(goal)} | {seconds(got)} | {_yes(got <= goal)} |")
    lines.append(
        f"| standard errors by moments, of those by resampling: mean of 169 | within 2 % | "
        f"{mean_off:.1%} off | {_yes(mean_off <= 0.02)} |"
    )
    lines.append(
        f"| the furthest of the 169 | within 2 % | {most:.1%} off, with a Monte Carlo error of "
        f"{errors['monte_carlo_error_of_one_ratio']:.1%} | {_yes(most <= 0.02)} |"
    )
    return lines


def _yes(reached: bool) -> str:
    return "yes" if reached else "**no**"


def _sides(results: Row) -> list[str]:
    """One table for each analysis: ours, the document's loop, peers."""
    work, loops, study = results["resampling"], results["loops"], results["study"]["stages"]
    w, f, n = results["weights"], results["factors"], results["networks"]
    lines = ["## Side by side"]
    lines += _table("Monte Carlo, 1,000,000 conversations", [
        ("justenough, made by a compiled generator", work[MONTE_CARLO]["made, pooled moments"]),
        ("NumPy, all conversations of a block at once",
         work[MONTE_CARLO]["made, numpy loop over weights"]),
        ("the document's loops: each configuration, each conversation", loops["montecarlo"]),
    ])  # fmt: skip
    lines += _table("Bootstrap, 10,000 resamples, 169 configurations, n = 100,000", [
        ("justenough, resampling", work[BOOTSTRAP]["resampling"]),
        ("justenough, by moments", work[BOOTSTRAP]["by moments"]),
        ("the document's loops: each resample, each configuration",
         work[BOOTSTRAP]["numpy loop"]),
    ])  # fmt: skip
    lines += _table("The same, n = 10,000, with peers that know one statistic at a time", [
        ("justenough, with BCa intervals", work[FEWER]["resampling"]),
        ("justenough, studentised", work[FEWER]["resampling, studentised"]),
        ("scipy.stats.bootstrap", work[FEWER]["scipy.stats.bootstrap"]),
        ("arch IIDBootstrap", work[FEWER]["arch IIDBootstrap"]),
    ])  # fmt: skip
    lines += _table("Permutation test, 100,000, n = 10,000", [
        ("justenough", work[PERMUTATION]["ours, Numba"]),
        ("justenough, without Numba", work[PERMUTATION]["ours, NumPy alone"]),
        ("the document's loop", work[PERMUTATION]["numpy shuffle and corrcoef"]),
        ("scipy.stats.permutation_test", work[PERMUTATION]["scipy.stats.permutation_test"]),
    ])  # fmt: skip
    lines += _samplers(results)
    lines += _table("Best weights, n = 100,000", [
        ("justenough, exact (NNLS)", w["NNLS"]),
        ("justenough, genetic 1,000 x 500 on the covariance", w["genetic, 1000 x 500"]),
        ("covariance of the rows, which both need", w["covariance"]),
        ("the document's loop: fitness from all rows", loops["search"]),
        ("pymoo, genetic 1,000 x 500 on the covariance", w["pymoo genetic, 1000 x 500"]),
        ("cma, CMA-ES on the covariance", w["CMA-ES"]),
        ("the grid of 169", w["grid of 169"]),
    ], gap="short of the optimum by")  # fmt: skip
    lines += _table("Factors, 1,000 x 50 x 4 x 3", [
        ("justenough, Tucker by ST-HOSVD", f["ST-HOSVD"]),
        ("justenough, Tucker by HOOI to 1e-8", f["HOOI, to 1e-8"]),
        ("TensorLy tucker to 1e-8", f["TensorLy tucker, to 1e-8"]),
        ("justenough, CP of rank 3, 10 starts", f["CP of rank 3, 10 starts"]),
        ("TensorLy parafac of rank 3, 500 iterations, as the document calls it",
         f["TensorLy parafac of rank 3, 1 start"]),
    ], error="relative error")  # fmt: skip
    lines += _table("252 networks, at most 1,000 steps on 2,048 rows", [
        ("justenough, stopped early", n[BATCHED]),
        ("justenough, all steps", n["batched, 1000 steps"]),
        ("the document's loop: PyTorch, one network after the other",
         {**n["one after the other (extrapolated)"], "scaled_by": 1000 / 50 * 3}),
    ], test="test correlation")  # fmt: skip
    took = ", ".join(f"{k} {seconds(v)}" for k, v in study.items())
    return [*lines, "", f"Within the whole study: {took}."]


def _samplers(results: Row) -> list[str]:
    s, a, loops = results["samplers"], results["approximations"], results["loops"]
    return _table("Posterior, n = 50,000; of samplers, import and compilation included", [
        ("justenough, exact draws", a["exact"]),
        ("justenough, NUTS by blackjax, 4 x 20,000 on moments", s["blackjax"]),
        ("numpyro, the same density", s["numpyro"]),
        ("nutpie, the same density", s["nutpie"]),
        ("as the document: NUTS on all rows, by numpyro", loops["posterior"]),
        ("justenough, variational, independent", a["mean_field"]),
        ("justenough, variational, full rank", a["full_rank"]),
        ("the document's loop: 10,000 steps of Adam on all rows", loops["variational"]),
    ], mean_error_sd="mean off, in sds", sd_error="sd off, as a share")  # fmt: skip


def _table(title: str, rows: list[tuple[str, Row]], **columns: str) -> list[str]:
    """A table of times; further columns by the key that holds them."""
    head = ["side", "time", "fastest to slowest", "scaled", *columns.values()]
    lines = ["", f"### {title}", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, row in rows:
        span = "once" if row.get("passes", 1) == 1 else f"median of {row['passes']}"
        if "fastest" in row:
            span = f"{seconds(row['fastest'])} to {seconds(row['slowest'])}"
        if "fastest" in row and row["fastest"] == row["slowest"]:
            span = "once"
        scaled = row.get("scaled_by", 1.0)
        times = f"{scaled:,.0f} times" if scaled != 1.0 else "no"
        more = [f"{row[key]:.2g}" if key in row else "" for key in columns]
        lines.append(f"| {' | '.join([name, seconds(row['seconds']), span, times, *more])} |")
    return lines


def _errors(results: Row) -> list[str]:
    """Each result of the whole study against its exact answer."""
    e = results["study"]["errors"]
    mc, boot, post = e["montecarlo"], e["bootstrap"], e["posterior"]
    return [
        "## Each result beside its exact answer",
        "",
        "From the whole study of this run, at the document's sizes.",
        "",
        "| analysis | exact answer | error |",
        "|---|---|---|",
        f"| Monte Carlo | correlations from the generator's covariance | at most "
        f"{mc['correlation']:.2g} of 169, {mc['in_standard_errors']:.2f} standard errors |",
        f"| posterior | weighted draws | NUTS: mean {post['nuts']['mean']:.2g} sd, sd "
        f"{post['nuts']['sd']:.1%} |",
        "| variational | the same | "
        + "; ".join(f"{k.replace('_', ' ')}: mean {post[k]['mean']:.2g} sd, sd {post[k]['sd']:.1%}"
                    for k in ("laplace", "mean_field", "full_rank", "pathfinder")) + " |",
        f"| bootstrap | influence function | standard errors {_span(boot['over_formula'])} of it; "
        f"by moments {_span(boot['moments_over_resampling'])} of those by resampling, Monte "
        f"Carlo error {boot['mc_error']:.1%} |",
        f"| permutation | 1 / sqrt(n - 1) | sd of the null "
        f"{e['permutation']['null_sd_over_exact']:.4f} of it |",
        "| search | least squares | short of it by "
        + "; ".join(f"{v:.2g} ({k})" for k, v in e["search"].items()) + " |",
        f"| factors | none; HOOI refines ST-HOSVD | relative error {e['factors']['st_hosvd']:.5f} "
        f"and {e['factors']['hooi']:.5f} |",
        f"| architectures | the noise ceiling, {e['architectures']['ceiling']:.4f} | test "
        f"correlation {e['architectures']['test']:.4f}, linear weights "
        f"{e['architectures']['linear']:.4f} |",
    ]  # fmt: skip


def _span(values: list[float]) -> str:
    low, middle, high = values
    return f"{low:.3f} to {high:.3f}, median {middle:.3f},"


if __name__ == "__main__":
    PAGE.write_text(page(json.loads(RESULTS.read_text("utf8"))), "utf8")
