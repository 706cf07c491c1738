"""Claims on the bootstrap: intervals of the best weights, what a width says, a million rows."""

import numpy as np
from numpy.typing import NDArray

from justenough.ledger import Measured
from justenough.stats.bootstrap import bootstrap_by_moments, from_resamples, resample
from justenough.stats.moments import UnitTotals, unit_totals
from justenough.stats.weights import exact_weights, grid
from justenough.studies.heavystats.cost import CONVERSATIONS
from justenough.studies.heavystats.montecarlo_claims import Z, made, share_interval
from justenough.studies.heavystats.work import HOPED
from justenough.studies.heavystats.world import World

Array = NDArray[np.float64]
QUOTED = np.array([[0.08, 0.12], [0.57, 0.63]])
REPLICATES = 10_000


def rows_of(conversations: int, seed: int) -> Array:
    """Made-up conversations, shape (conversations, turns, 5)."""
    world = World(conversations, seed=seed)
    return np.concatenate([world.block(b) for b in range(world.n_blocks)]).astype(np.float64)


def sample_of(conversations: int, seed: int) -> UnitTotals:
    """Totals of each made-up conversation."""
    rows = rows_of(conversations, seed)
    index = np.repeat(np.arange(conversations), rows.shape[1])
    return unit_totals(rows.reshape(-1, rows.shape[-1]), index)


def best_weights(totals: Array) -> Array:
    """Best weights on the simplex of each row of totals (b, 21), shape (b, 4).

    Where no least-squares coefficient is negative, it is the direction of the non-negative one.
    """
    j, k = np.triu_indices(5)
    c = np.empty((len(totals), 5, 5))
    mean = totals[:, 1:6] / totals[:, :1]
    c[:, j, k] = c[:, k, j] = totals[:, 6:] / totals[:, :1]
    c -= mean[:, :, None] * mean[:, None, :]
    w = np.linalg.solve(c[:, :4, :4], c[:, :4, 4:])[..., 0]
    for i in np.flatnonzero(w.min(1) < 0.0):
        w[i] = exact_weights(c[i]).weights
    found: Array = w / w.sum(1, keepdims=True)
    return found


def _interval(sample: UnitTotals, replicates: int, seed: int) -> Array:
    """Ends and mean of resampled best weights of decay and surprise, 95 % percentiles, (3, 2)."""
    drawn = best_weights(resample(sample, replicates, np.random.default_rng(seed)))[:, :2]
    return np.concatenate([np.quantile(drawn, [0.025, 0.975], axis=0), drawn.mean(0)[None]])


def bootstrap_weights() -> Measured:
    """Bootstrap intervals of the best weights of decay and surprise, 30 to 10,000 conversations.

    10,000 resamples of conversations, the best weights of each, percentiles, mean over 5 samples;
    half-widths stand beside the quoted 0.02 and 0.03. Coverage: 200 samples of 150 conversations,
    1,000 resamples each. The value is decay's mean and interval at 150.

    Rule: as quoted is a half-width within a quarter of 0.02 for decay and of 0.03 for surprise.
    Reproduced if so at all sizes, refuted if at none, else only at those sizes.
    """
    sizes = (30, 100, 150, 200, 1_000, 10_000)
    found = {
        n: np.mean([_interval(sample_of(n, s), REPLICATES, s) for s in range(5)], axis=0)
        for n in sizes
    }
    halves = {n: (f[1] - f[0]) / 2 for n, f in found.items()}
    want = (QUOTED[:, 1] - QUOTED[:, 0]) / 2
    kept = [n for n in sizes if (np.abs(halves[n] / want - 1) <= 0.25).all()]
    right = sum(_covers(_interval(sample_of(150, s), 1_000, s)) for s in range(200))
    verdict = "reproduced" if len(kept) == len(sizes) else "refuted"
    if kept and len(kept) < len(sizes):
        verdict = f"holds only when there are about {' to '.join(map(str, kept))} conversations"
    low, high, mean = (float(v) for v in found[150][:, 0])
    covered = [f"{100 * e:.1f}" for e in share_interval(right, 200)]
    return Measured(
        mean, "", low, high, verdict,
        "half-widths of decay and surprise: "
        + "; ".join(f"{h[0]:.3g} and {h[1]:.3g} at {n:,}" for n, h in halves.items())
        + f"; at 150 decay's interval holds 0.10 in {right / 2:.1f} % of 200 samples "
        f"({' to '.join(covered)} %).",
    )  # fmt: skip


def _covers(ends: Array) -> bool:
    return bool(ends[0, 0] <= HOPED[0] <= ends[1, 0])


def bootstrap_widths() -> Measured:
    """Bootstrap standard error over true spread of a correlation, 100 to 1,000 conversations.

    200 samples at each size, 1,000 resamples of each, by conversations and, as the document's
    code draws them, by single turns. True spread: standard deviation over the samples.

    Rule: a width says how stable the estimate is if its ratio to the true spread is within 10 %
    of 1 at all sizes. Reproduced if so both ways, refuted if neither, else only for one.
    """
    ratios: dict[str, list[float]] = {"conversations": [], "turns": []}
    for n in (100, 300, 1_000):
        errors: dict[str, list[float]] = {name: [] for name in ratios}
        estimates = []
        for s in range(200):
            rows = rows_of(n, 1_000 + s)
            flat = rows.reshape(-1, 5)
            by = {
                "conversations": unit_totals(flat, np.repeat(np.arange(n), rows.shape[1])),
                "turns": unit_totals(flat),
            }
            for name, sample in by.items():
                drawn = bootstrap_by_moments(
                    sample.moments(), HOPED, replicates=1_000, rng=np.random.default_rng(s)
                )
                errors[name].append(float(drawn.replicates.std()))
            estimates.append(float(drawn.estimates[0]))
        for name in ratios:
            ratios[name].append(float(np.mean(errors[name]) / np.std(estimates, ddof=1)))
    good = {name: max(abs(v - 1) for v in each) <= 0.1 for name, each in ratios.items()}
    verdict = "reproduced" if all(good.values()) else "refuted"
    if good["conversations"] and not good["turns"]:
        verdict = "holds only when conversations are drawn anew, not single turns"
    every = ratios["conversations"] + ratios["turns"]
    return Measured(
        ratios["turns"][-1], "", min(every), max(every), verdict,
        "bootstrap standard error over true spread at 100, 300 and 1,000: "
        + "; ".join(f"by {k} {', '.join(f'{v:.2f}' for v in each)}" for k, each in ratios.items())
        + ".",
    )  # fmt: skip


def bootstrap_million() -> Measured:
    """Width of the widest of 169 intervals at 1,000,000 conversations, and bytes as written.

    By moments, with 10,000 draws; at 20,000 conversations against 2,000 true resamples. The
    document's index matrix is int64 of shape (10,000, n).

    Rule: tight is a width below 0.001. Reproduced if tight and the matrix fits the 4 GB that it
    names, refuted if not tight, else only when the matrix is never made at once.
    """
    whole = made(CONVERSATIONS, 0)
    drawn = bootstrap_by_moments(
        whole, grid(), replicates=REPLICATES, rng=np.random.default_rng(0)
    )
    low, high = drawn.percentile(alpha=0.025)
    formula = 2 * Z * drawn.standard_errors
    sample = sample_of(20_000, 0)
    true = from_resamples(sample, grid(), resample(sample, 2_000, np.random.default_rng(1)))
    few = bootstrap_by_moments(
        sample.moments(), grid(), replicates=REPLICATES, rng=np.random.default_rng(2)
    )
    ratio = np.median(few.replicates.std(0) / true.replicates.std(0))
    widths = high - low
    written = 8 * REPLICATES * CONVERSATIONS / 1e9
    verdict = "refuted"
    if widths.max() < 0.001:
        verdict = (
            "reproduced" if written <= 4 else "holds only when resamples are not all held at once"
        )
    return Measured(
        float(widths.max()), "", float(widths.min()), float(widths.max()), verdict,
        f"widths are {widths.min():.3g} to {widths.max():.3g}, {np.median(widths / formula):.3f} "
        f"of the formula's; at 20,000 conversations the standard errors are {ratio:.3f} of those "
        f"of true resamples; the indices as written are {written:.0f} GB.",
    )  # fmt: skip
