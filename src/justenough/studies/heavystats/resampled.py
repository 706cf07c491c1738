"""Bootstrap intervals of every weighting, and the permutation test of the hoped-for one."""

import time
from functools import partial

import numpy as np

from justenough.stats.bootstrap import bootstrap_by_moments, from_resamples, resample
from justenough.stats.moments import UnitTotals
from justenough.stats.permutation import pearson_permutation_test
from justenough.stats.weights import grid
from justenough.studies.heavystats.work import (
    HOPED,
    Array,
    Said,
    Work,
    one_turn_each,
    units,
    value,
)

REPLICATES, PART = 10_000, 1_000
STUDENTISED = 2_000
ALPHA = 0.025
PERMUTATIONS, ROWS = 100_000, 10_000


def bootstrap(work: Work) -> Said:
    """Conversations drawn anew 10,000 times, all 169 weightings at once; and without drawing."""
    sample, weights = units(work), grid()
    key = int(work.rng.integers(2**63))
    start = time.perf_counter()
    parts = []
    for first in range(0, REPLICATES, PART):
        made = partial(_part, sample, key, first)
        parts.append(work.store.once_arrays(f"bootstrap {first}", made)["totals"])
        work.tick(0.7 * (first + PART) / REPLICATES)
    drawn = from_resamples(sample, weights, np.concatenate(parts))
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    quick = bootstrap_by_moments(sample.moments(), weights, replicates=REPLICATES, rng=work.rng)
    quick_seconds = time.perf_counter() - start
    best = int(drawn.estimates.argmax())
    spread, quick_spread = drawn.replicates.std(0), quick.replicates.std(0)
    mc = 1.0 / np.sqrt(2 * REPLICATES)  # of a ratio to its own standard deviation
    own = from_resamples(
        sample, weights[best],
        resample(sample, STUDENTISED, np.random.default_rng(key), second_order=True),
    )  # fmt: skip
    work.tick(1.0)
    ends = {
        "percentile": drawn.percentile(alpha=ALPHA),
        "bca": drawn.bca(alpha=ALPHA),
        "by moments": quick.percentile(alpha=ALPHA),
    }
    error = float(spread[best])
    student = own.studentised(alpha=ALPHA)
    intervals = {k: [float(v[0][best]), float(v[1][best])] for k, v in ends.items()}
    intervals["studentised"] = [float(student[0][0]), float(student[1][0])]
    # A quantile at 2.5 % of b replicates has a standard error of about 2.7 / sqrt(b) deviations.
    count = {"studentised": STUDENTISED}
    return {
        "conversations": len(sample.totals),
        "replicates": REPLICATES,
        "best": best,
        "estimate": float(drawn.estimates[best]),
        "intervals": {
            k: [value(x, 2.7 * error / np.sqrt(count.get(k, REPLICATES))) for x in v]
            for k, v in intervals.items()
        },
        "standard_error": value(error, error * mc),
        "formula_error": float(drawn.standard_errors[best]),
        "ratio_to_formula": [value(x, mc) for x in _range(spread / drawn.standard_errors)],
        "ratio_by_moments": [value(x, 2 * mc) for x in _range(quick_spread / spread)],
        "all_errors": [value(x, x * mc) for x in spread.tolist()],
        "resampling_seconds": {"seconds": seconds},
        "moments_seconds": {"seconds": quick_seconds},
    }


def _part(sample: UnitTotals, key: int, first: int) -> dict[str, Array]:
    return {"totals": resample(sample, PART, np.random.default_rng(key), first=first)}


def _range(x: Array) -> list[float]:
    return [float(x.min()), float(np.median(x)), float(x.max())]


def permutation(work: Work) -> Said:
    """Importance shuffled 100,000 times against the hoped-for weighting, one turn each."""
    rows = one_turn_each(work.source, 0, ROWS, work.rng)
    composite = rows[:, :4] @ HOPED
    start = time.perf_counter()
    found = pearson_permutation_test(
        composite, rows[:, 4], permutations=PERMUTATIONS, rng=work.rng,
        alternative="greater", tick=work.ticking(0.0, 0.9),
    )  # fmt: skip
    seconds = time.perf_counter() - start
    shuffled = work.rng.permutation(rows[:, 4])
    stopped = pearson_permutation_test(
        composite, shuffled, permutations=PERMUTATIONS, rng=work.rng,
        alternative="greater", stop_after=10,
    )  # fmt: skip
    null = found.null
    counts, edges = np.histogram(null, bins=60)
    exact = 1.0 / np.sqrt(len(rows) - 1)
    mc = exact / np.sqrt(2 * PERMUTATIONS)
    return {
        "rows": len(rows),
        "permutations": found.permutations,
        "r": found.statistic,
        "exceedances": found.exceedances,
        "p": found.p_value,
        "p_of_the_document": found.exceedances / found.permutations,
        "effect_size": value(found.effect_size, found.effect_size * mc / exact),
        "null_sd": value(null.std(), mc),
        "exact_null_sd": exact,
        "null": {
            "edges": [value(x, 0.1) for x in edges.tolist()],
            "counts": [value(c, 5 * np.sqrt(c + 10)) for c in counts.tolist()],
        },
        "stopped": {"p": stopped.p_value, "permutations": stopped.permutations},
        "permuting": {"seconds": seconds},
    }
