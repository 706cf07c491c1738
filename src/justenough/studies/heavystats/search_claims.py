"""Claims on the genetic algorithm, the tensor's factors and the machine that all this needs."""

import math
import time

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau

from justenough.ledger import Measured
from justenough.stats.factors import cp, hooi
from justenough.stats.simplex import correlation
from justenough.stats.weights import best_of, evolved, exact_weights, genetic_weights, grid
from justenough.studies.heavystats.analyses import ANALYSES
from justenough.studies.heavystats.cost import CONVERSATIONS, cost
from justenough.studies.heavystats.montecarlo_claims import made
from justenough.studies.heavystats.searches import CP_RANK, SHAPE, TUCKER
from justenough.studies.heavystats.work import HOPED
from justenough.studies.heavystats.world import World

Array = NDArray[np.float64]
GB = 1e9
# Memory of the cards that the document names: RTX 3080 (10 or 12 GB) and RX 6900 XT.
CARDS = (10.0, 16.0)
SETS = 20


def written_gb() -> float:
    """Size of the arrays of Monte Carlo as the document's code makes them, all at once."""
    return 4 * (CONVERSATIONS * 50 * 768 + 169 * CONVERSATIONS) / GB


def evolution_and_grid() -> Measured:
    """Correlation of evolved weights less that of the best of the grid, on fresh conversations.

    20 data sets of 2,000 conversations; population 1,000, 500 generations. Fresh conversations are
    the exact covariance of the generator. Controls: 10,000 random weightings, and least squares,
    the optimum of each data set.

    Rule: reproduced if the difference is above 0 in every data set, refuted if in none, else only
    in those.
    """
    truth = World(2).covariance()
    rng = np.random.default_rng(0)
    gains, inside, short, random = [], [], [], []
    for seed in range(SETS):
        c = made(2_000, 100 + seed).covariance
        found, best = genetic_weights(c, rng=rng), best_of(c, grid())
        chance = best_of(c, rng.dirichlet(np.ones(4), 10_000))
        gains.append(float(correlation(truth, found.weights) - correlation(truth, best.weights)))
        inside.append(found.correlation - best.correlation)
        short.append(exact_weights(c).correlation - found.correlation)
        random.append(exact_weights(c).correlation - chance.correlation)
    better = sum(g > 0 for g in gains)
    verdict = "reproduced" if better == SETS else "refuted"
    if 0 < better < SETS:
        verdict = f"holds only when data allow it: in {better} of {SETS} data sets"
    return Measured(
        float(np.median(gains)), "", min(gains), max(gains), verdict,
        f"on fresh conversations better in {better} of {SETS}; on the same ones by "
        f"{min(inside):.3g} to {max(inside):.3g}; least squares finds what evolution finds "
        f"within {max(map(abs, short)):.1g}; 10,000 random weightings fall short of it by up to "
        f"{max(random):.2g}.",
    )  # fmt: skip


def landscapes() -> Measured:
    """Generations until the best fitness is within 1e-4 of the optimum, smooth to rugged.

    Fitness is the exact correlation less `ruggedness` times the mean of sin(20 pi (w - w*))**2
    over the weights, whose optimum w* is the same; 20 runs each of population 1,000, at most 500
    generations. The value is the median for the smooth one.

    Rule: reproduced if medians never fall as ruggedness grows and Kendall's tau of generations
    and ruggedness is above 0 with p < 0.001; refuted otherwise.
    """
    c = World(2).covariance()
    best, top = exact_weights(c).weights, exact_weights(c).correlation
    roughness = (0.0, 0.01, 0.05, 0.2)
    taken: list[list[int]] = []
    for rough in roughness:

        def fitness(w: Array, rough: float = rough) -> Array:
            waves = np.sin(20 * math.pi * (w - best)) ** 2
            found: Array = correlation(c, w) - rough * waves.mean(axis=1)
            return found

        runs = [evolved(fitness, 4, rng=np.random.default_rng([s, 1])).best for s in range(SETS)]
        taken.append([int((r < top - 1e-4).sum()) + 1 for r in runs])
    medians = [float(np.median(t)) for t in taken]
    test = kendalltau(np.repeat(roughness, SETS), np.concatenate(taken))
    rises = medians == sorted(medians) and test.statistic > 0 and test.pvalue < 0.001
    return Measured(
        medians[0], "generations", min(medians), max(medians),
        "reproduced" if rises else "refuted",
        "median generations: " + ", ".join(
            f"{m:g} at {r:g}" for m, r in zip(medians, roughness, strict=True)
        ) + f"; Kendall's tau {test.statistic:.2f}.",
    )  # fmt: skip


def tucker_more_flexible() -> Measured:
    """Explained share of a tensor by Tucker (10, 5, 3, 2) less that by CP of rank 3.

    1,000 x 50 x 4 x 3: three positive factors; three factors of unlike directions; a Tucker
    tensor of those ranks; each with as much noise as half of its signal's power. Five of each. The
    value is the smallest difference. Tucker has 10,568 numbers, CP 3,171.

    Rule: more flexible is an explained share that is not smaller. Reproduced if so for every
    tensor; if for every one of the third kind alone, only when the outcomes need no third factor,
    for which Tucker's ranks have no room and CP's have; else refuted.
    """
    gaps: dict[str, list[float]] = {}
    for seed in range(5):
        for name, x in _tensors(np.random.default_rng(seed)).items():
            rng = np.random.default_rng([seed, 1])
            gap = cp(x, CP_RANK, rng=rng).error ** 2 - hooi(x, TUCKER).error ** 2
            gaps.setdefault(name, []).append(float(gap))
    least = {name: min(g) for name, g in gaps.items()}
    verdict = "reproduced" if min(least.values()) >= 0 else "refuted"
    if max(least["unlike"], least["positive"]) < 0 <= least["Tucker"]:
        verdict = "holds only when two factors are enough for the outcomes, as Tucker's ranks have"
    every = [v for g in gaps.values() for v in g]
    numbers = sum(a * b for a, b in zip(SHAPE, TUCKER, strict=True)) + math.prod(TUCKER)
    return Measured(
        min(every), "", min(every), max(every), verdict,
        f"Tucker ({numbers:,} numbers) explains more than CP ({CP_RANK * sum(SHAPE):,}) by "
        + "; ".join(f"{min(g):.4f} to {max(g):.4f} ({k})" for k, g in gaps.items()) + ".",
    )  # fmt: skip


def _tensors(rng: np.random.Generator) -> dict[str, Array]:
    positive = [rng.random((n, CP_RANK)) for n in SHAPE]
    unlike = [np.linalg.qr(rng.standard_normal((n, CP_RANK)))[0] for n in SHAPE]
    bases = [
        np.linalg.qr(rng.standard_normal((n, r)))[0] for n, r in zip(SHAPE, TUCKER, strict=True)
    ]
    core = rng.standard_normal(TUCKER)
    signals = {
        "positive": np.einsum("ar,br,cr,dr->abcd", *positive),
        "unlike": np.einsum("ar,br,cr,dr->abcd", *unlike),
        "Tucker": np.einsum("ijkl,ai,bj,ck,dl->abcd", core, *bases, optimize=True),
    }
    return {
        name: x / x.std() + math.sqrt(0.5) * rng.standard_normal(SHAPE)
        for name, x in signals.items()
    }


def one_card() -> Measured:
    """Cards that the eight analyses need: 0 in blocks on a processor, more as written.

    All eight are run. As written, Monte Carlo's arrays alone are divided by the 16 GB of the
    larger card.

    Rule: one is enough, which reproduces, if all eight end and the arrays as written fit a card;
    if they end and do not fit, only when they are made in blocks; else refuted.
    """
    peak = max(cost(n).peak_bytes for n in ANALYSES) / GB
    needed = math.ceil(written_gb() / CARDS[1])
    verdict = (
        "reproduced"
        if needed <= 1
        else "holds only when conversations are made and read in blocks, never all at once"
    )
    return Measured(
        0.0, "cards", 0.0, float(needed), verdict,
        f"all eight ended on a processor, in at most {peak:.2g} GB each; the arrays of Monte "
        f"Carlo as written, {written_gb():.0f} GB, would fill {needed} cards of {CARDS[1]:g} GB.",
    )  # fmt: skip


def cards_fit() -> Measured:
    """Largest peak memory of the eight, in blocks, and the largest array set as written, in GB.

    Against the 10 GB of the smallest card named. The document itself says 20 GB for Monte Carlo.

    Rule: reproduced if both fit 10 GB, refuted if neither does, else only in blocks.
    """
    peaks = {n: cost(n).peak_bytes / GB for n in ANALYSES}
    largest, written = max(peaks.values()), written_gb()
    fits = [v <= CARDS[0] for v in (largest, written)]
    verdict = "reproduced" if all(fits) else "refuted"
    if fits == [True, False]:
        verdict = "holds only when conversations are made and read in blocks, never all at once"
    return Measured(
        largest, "GB", largest, written, verdict,
        "peaks of the processes in GB: " + ", ".join(f"{k} {v:.2g}" for k, v in peaks.items())
        + f"; as written Monte Carlo needs {written:.0f} GB, and the document says 20.",
    )  # fmt: skip


def laptop_grid() -> Measured:
    """Seconds of 169 correlations, one NumPy call after another, of 10,000 conversations.

    50 turns each, as a laptop holds them in memory; median of three.

    Rule: reproduced below one hour, refuted otherwise.
    """
    world = World(10_000)
    rows = np.concatenate([world.block(b) for b in range(world.n_blocks)]).reshape(-1, 5)
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        for w in grid():
            np.corrcoef(rows[:, :4] @ w, rows[:, 4])
        taken.append(time.perf_counter() - start)
    seconds = float(np.median(taken))
    one = float(np.corrcoef(rows[:, :4] @ HOPED, rows[:, 4])[0, 1])
    return Measured(
        seconds, "s", min(taken), max(taken), "reproduced" if seconds < 3600 else "refuted",
        f"169 correlations of {len(rows):,} turns took {seconds:.3g} s; the weights put in have "
        f"{one:.4f}, the generator {float(correlation(world.covariance(), HOPED)):.4f}.",
    )  # fmt: skip
