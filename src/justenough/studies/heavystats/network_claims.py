"""Claims on networks in place of weights: whether they help, and what they show of the signals."""

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from justenough.ledger import Measured
from justenough.studies.heavystats.montecarlo_claims import share_interval
from justenough.studies.heavystats.work import HOPED, one_turn_each
from justenough.studies.heavystats.world import World

Array = NDArray[np.float64]
ROWS, TEST = 2_048, 20_000
SHALLOW = ((8,), (16,))
STEPS = 1_000
SLIGHT = 0.01
BENDS = (0.0, 0.5, 1.0)
PAIRS = tuple(itertools.combinations(range(4), 2))


def _parts(bend: float, seed: int) -> list[Array]:
    """Training, validation and test turns, one of each conversation."""
    world = World(2 * ROWS + TEST, seed=seed, bend=bend)
    rows = one_turn_each(world, 0, world.conversations, np.random.default_rng(seed))
    return [rows[:ROWS], rows[ROWS : 2 * ROWS], rows[2 * ROWS :]]


def _mean_interval(values: list[float]) -> tuple[float, float, float]:
    """Mean and its 95 % interval by Student's t."""
    x = np.array(values)
    reach = float(student.ppf(0.975, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)))
    return float(x.mean()), float(x.mean()) - reach, float(x.mean()) + reach


def linear_near_optimal() -> Measured:
    """Test correlation of the best of 252 networks less that of linear weights.

    2,048 turns to train on, as many to choose on, 20,000 to judge on; 3 data sets for each of a
    linear truth and two bent ones (World.bend 0.5 and 1). Successive halving, at most 1,000 steps.
    The value is the mean gain under the linear truth.

    Rule: near-optimal is a gain of at most 0.01 in every data set of a truth. Reproduced if so
    under all truths, refuted if under none, else only under the linear one, if it is that.
    """
    from justenough.train.importance_nets import Recipe, Rows, search

    gains: dict[float, list[float]] = {}
    for bend in BENDS:
        for seed in range(3):
            train, choose, test = (Rows(r[:, :4], r[:, 4]) for r in _parts(bend, seed))
            recipe, rng = Recipe(STEPS, 100, halving=True), np.random.default_rng(seed)
            found = search(train, choose, test, recipe, rng=rng)
            gains.setdefault(bend, []).append(found.gain)
    near = {bend: max(g) <= SLIGHT for bend, g in gains.items()}
    verdict = "reproduced" if all(near.values()) else "refuted"
    if near[0.0] and not all(near.values()):
        kept = [b for b in BENDS if near[b]]
        verdict = "holds only when importance is" + (
            " linear in the signals" if kept == [0.0] else f" bent by {kept[-1]:g} at most"
        )
    value, low, high = _mean_interval(gains[0.0])
    return Measured(
        value, "", low, high, verdict,
        "gain of the best network, smallest to largest: " + "; ".join(
            f"{min(g):.4f} to {max(g):.4f} at bend {bend:g}" for bend, g in gains.items()
        ) + ".",
    )  # fmt: skip


def _trained(train: Array, hidden: tuple[int, ...], seed: int) -> tuple[Any, Array, Array]:
    """A network after `STEPS` steps, and centre and spread of its signals; no row but these."""
    import torch

    from justenough.train.side_by_side import Architecture, Data, advance, untrained

    centre, spread = train[:, :4].mean(0), train[:, :4].std(0)
    y = train[:, 4] - train[:, 4].mean()
    given = [
        torch.from_numpy(v.astype(np.float32))
        for v in ((train[:, :4] - centre) / spread, y / np.linalg.norm(y))
    ]
    rng = np.random.default_rng([seed, *hidden])
    batch = untrained([Architecture(hidden, 0.0, 0.01, "tanh")], 4, rng)
    advance(batch, Data(*given, *given), STEPS, 0, rng)
    return batch, centre, spread


def _on_test(train: Array, test: Array, hidden: tuple[int, ...], seed: int) -> float:
    from justenough.train.side_by_side import answers

    batch, centre, spread = _trained(train, hidden, seed)
    said = answers(batch, 0, (test[:, :4] - centre) / spread)
    return float(np.corrcoef(said, test[:, 4])[0, 1])


def shallow_helps() -> Measured:
    """Test correlation of networks with 8 or 16 hidden units less that of one with none.

    Tanh, no dropout, rate 0.01, 1,000 steps, fixed before any data were seen; 10 data sets of
    2,048 turns for each of a linear truth and two bent ones. The value is the mean gain with 8
    units under the linear truth.

    Rule: helps slightly is a mean gain whose 95 % interval is above 0 and a mean of at most 0.01,
    for both widths. Reproduced if so under all truths, refuted if under none, else only there.
    """
    gains: dict[float, list[tuple[float, float, float]]] = {}
    for bend in BENDS:
        each: list[list[float]] = [[], []]
        for seed in range(10):
            train, _, test = _parts(bend, seed)
            none = _on_test(train, test, (), seed)
            for k, hidden in enumerate(SHALLOW):
                each[k].append(_on_test(train, test, hidden, seed) - none)
        gains[bend] = [_mean_interval(g) for g in each]
    helps = [all(low > 0 and mean <= SLIGHT for mean, low, _ in g) for g in gains.values()]
    verdict = "reproduced" if all(helps) else "refuted"
    if any(helps) and not all(helps):
        kept = [f"{b:g}" for b, ok in zip(BENDS, helps, strict=True) if ok]
        verdict = f"holds only when importance is bent, by {' or '.join(kept)} here"
    value, low, high = gains[0.0][0]
    return Measured(
        value, "", low, high, verdict,
        "mean gain with 8 and 16 units: " + "; ".join(
            f"{a[0]:.4f} and {b[0]:.4f} at bend {bend:g}" for bend, (a, b) in gains.items()
        ) + ".",
    )  # fmt: skip


def _planted(pair: tuple[int, int], strength: float, seed: int) -> Array:
    """Uniform signals, their weighted sum, a product of two of them, and noise of 0.1."""
    rng = np.random.default_rng(seed)
    x = rng.random((ROWS, 4))
    product = (x[:, pair[0]] - 0.5) * (x[:, pair[1]] - 0.5)
    y = x @ HOPED + strength * product + 0.1 * rng.standard_normal(ROWS)
    return np.column_stack([x, y])


def _by_weights(rows: Array, seed: int) -> tuple[int, int]:
    """The strongest pair by the weights of a network of 16 units.

    Neural interaction detection: sum over units of the absolute outgoing weight times the smaller
    of the two absolute incoming ones (Tsang, Cheng & Liu 2018, ICLR, equation 4).
    """
    batch, _, _ = _trained(rows, (16,), seed)
    vector = batch.best[0].numpy()
    into, out = np.abs(vector[:64]).reshape(4, 16), np.abs(vector[80:96])
    return max(PAIRS, key=lambda p: float((out * np.minimum(into[p[0]], into[p[1]])).sum()))


def _by_products(rows: Array) -> tuple[int, int]:
    """The pair whose product has the largest t in least squares with all products."""
    away = rows[:, :4] - rows[:, :4].mean(0)
    design = np.column_stack(
        [np.ones(len(rows)), away, *(away[:, i] * away[:, j] for i, j in PAIRS)]
    )
    inverse = np.linalg.inv(design.T @ design)
    t = (inverse @ design.T @ rows[:, 4]) / np.sqrt(np.diag(inverse))
    return PAIRS[int(np.abs(t[5:]).argmax())]


def network_interactions() -> Measured:
    """How often the pair planted is the strongest by a trained network's weights, of 24 each.

    A product of one of six pairs is added to the weighted sum with strength 0.1, 0.3, 1 or 3; 4
    data sets of 2,048 rows for each pair. Chance is 1 in 6. The value is for strength 1.

    Rule: discovered is a share whose 95 % interval begins above 1/6 and that is 90 % or more.
    Reproduced if so at all strengths, refuted if at none, else only from the least on.
    """
    strengths = (0.1, 0.3, 1.0, 3.0)
    shares, others = [], []
    for strength in strengths:
        hits = [0, 0]
        for number, pair in enumerate(PAIRS):
            for seed in range(4):
                rows = _planted(pair, strength, 100 * number + seed)
                hits[0] += _by_weights(rows, seed) == pair
                hits[1] += _by_products(rows) == pair
        shares.append(hits[0])
        others.append(hits[1])
    count = 4 * len(PAIRS)
    good = [share_interval(k, count)[0] > 1 / 6 and k >= 0.9 * count for k in shares]
    verdict = "reproduced" if all(good) else "refuted"
    if any(good) and not all(good):
        least = next(s for s, ok in zip(strengths, good, strict=True) if ok)
        verdict = f"holds only when the product's coefficient is {least:g} or more"
    at = strengths.index(1.0)
    low, high = share_interval(shares[at], count)
    return Measured(
        100 * shares[at] / count, "%", 100 * low, 100 * high, verdict,
        "found by weights, and by least squares on products, of "
        f"{count}: " + "; ".join(
            f"{a} and {b} at strength {s:g}"
            for s, a, b in zip(strengths, shares, others, strict=True)
        ) + ".",
    )  # fmt: skip
