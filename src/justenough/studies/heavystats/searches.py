"""Weights by search, factors of the tensor, and small networks in place of weights."""

import itertools
import time
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from justenough.stats.factors import cp, hooi, st_hosvd, supported_rank
from justenough.stats.simplex import correlation
from justenough.stats.weights import (
    Found,
    best_of,
    cma_weights,
    exact_weights,
    genetic_weights,
    grid,
)
from justenough.studies.heavystats.table import Table
from justenough.studies.heavystats.work import HOPED, Said, Work, everything, one_turn_each, value
from justenough.studies.heavystats.world import World

_T = TypeVar("_T")
SHAPE = (1000, 50, 4, 3)
TUCKER = (10, 5, 3, 2)
CP_RANK = 3
TRAINED, TESTED = 2048, 20_000
FEWEST = 120  # a quarter to train on has to be 30


def search(work: Work) -> Said:
    """The best weights: exactly, on the grid, by evolution; and how far each falls short."""
    covariance = everything(work).covariance
    best, seconds = _timed(lambda: exact_weights(covariance))
    ways: list[tuple[str, Callable[[], Found]]] = [
        ("grid of 169", lambda: best_of(covariance, grid())),
        ("genetic", lambda: genetic_weights(covariance, rng=work.rng)),
        ("CMA-ES", lambda: cma_weights(covariance, rng=work.rng)),
    ]
    said = [_found("exact (NNLS)", best, best, seconds)]
    trajectories = {}
    for k, (name, way) in enumerate(ways):
        found, seconds = _timed(way)
        said.append(_found(name, found, best, seconds))
        if len(found.best) > 1:
            gaps = best.correlation - found.best
            trajectories[name] = [max(float(g), 0.0) for g in gaps[:: max(1, len(gaps) // 100)]]
        work.tick((k + 1) / len(ways))
    out: Said = {
        "methods": said,
        "trajectories": {k: [value(g, g) for g in v] for k, v in trajectories.items()},
        "hoped": HOPED.tolist(),
        "hoped_gap": best.correlation - float(correlation(covariance, HOPED)),
    }
    if isinstance(work.source, World):
        out["weights_put_in"] = HOPED.tolist()
    return out


def _found(name: str, found: Found, best: Found, seconds: float) -> Said:
    gap = max(best.correlation - found.correlation, 0.0)  # rounding can put it above by an ulp
    return {
        "method": name,
        "weights": [value(w, 0.02) for w in found.weights.tolist()]
        if name in ("genetic", "CMA-ES")
        else found.weights.tolist(),
        "gap": value(gap, gap + 1e-9),
        "evaluations": found.evaluations if name != "CMA-ES" else value(found.evaluations, 500),
        "seconds": seconds,
    }


def factors(work: Work) -> Said:
    """What 1,000 conversations x 50 turns x 4 signals x 3 outcomes have in common.

    An entry is the product of a signal and an outcome of a turn, both standardised over all
    turns: what that turn adds to their correlation.
    """
    if isinstance(work.source, Table):
        return {"left_out": "a table has one outcome; this analysis needs three"}
    conversations, turns = min(SHAPE[0], work.source.conversations), work.source.turns
    block = work.source.block(0, outcomes=SHAPE[3])[:conversations].astype(np.float64)
    block -= block.mean((0, 1))
    block /= block.std((0, 1))
    tensor = block[..., :4, None] * block[..., None, 4:]
    first, hosvd_seconds = _timed(lambda: st_hosvd(tensor, TUCKER))
    second, hooi_seconds = _timed(lambda: hooi(tensor, TUCKER))
    work.tick(0.3)
    third, cp_seconds = _timed(lambda: cp(tensor, CP_RANK, rng=work.rng))
    work.tick(0.6)
    support = supported_rank(tensor, rng=work.rng)
    mean = tensor.mean((0, 1))
    return {
        "shape": [conversations, turns, *SHAPE[2:]],
        "megabytes": tensor.nbytes / 1e6,
        "methods": [
            {"method": "Tucker by ST-HOSVD", "ranks": list(TUCKER), "error": first.error,
             "seconds": hosvd_seconds},
            {"method": "Tucker by HOOI", "ranks": list(TUCKER), "error": second.error,
             "seconds": hooi_seconds},
            {"method": "CP by ALS", "ranks": [CP_RANK], "error": value(third.error, 1e-3),
             "seconds": cp_seconds},
        ],
        "signals": [[value(abs(x), 0.1) for x in row] for row in third.factors[2].tolist()],
        "supported": {
            "ranks": list(support.ranks),
            "explained": [value(x, 2e-3) for x in support.explained],
            "consistency": [value(x, 10.0) for x in support.consistency],
            "rank": value(support.rank, 1.0),
        },
        "mean_share": float((mean**2).sum() / (tensor**2).mean((0, 1)).sum()),
    }  # fmt: skip


def architectures(work: Work) -> Said:
    """252 small networks on 2,048 turns, chosen on as many others, judged once on new ones."""
    if work.source.conversations < FEWEST:
        return {
            "left_out": f"it needs {FEWEST} conversations to train, choose and judge on; there "
            f"are {work.source.conversations}"
        }
    from justenough.train.importance_nets import Recipe, Rows
    from justenough.train.importance_nets import search as train

    ends = _parts(work.source.conversations)
    rows = [one_turn_each(work.source, a, b, work.rng) for a, b in itertools.pairwise(ends)]
    train_rows, validation, test = (Rows(r[:, :4], r[:, 4]) for r in rows)
    recipe = Recipe()
    found = train(
        train_rows, validation, test, recipe, rng=work.rng,
        folder=work.store.path.parent / "networks", progress=work.ticking(),
    )  # fmt: skip
    out: Said = {
        "rows": [len(r) for r in rows],
        "candidates": len(found.table),
        "most_epochs": recipe.epochs,
        "epochs_trained": value(sum(c.epochs for c in found.table), 5_000),
        "winner": _named(found.winner.architecture),
        "validation": value(found.winner.validation, 0.003),
        "test": value(found.test, 0.003),
        "test_interval": [value(x, 0.003) for x in found.test_interval],
        "linear": found.linear,
        "linear_interval": list(found.linear_interval),
        "gain": value(found.gain, 0.002),
        "gain_interval": [value(x, 0.002) for x in found.gain_interval],
        "table": [
            {"network": _named(c.architecture), "validation": value(c.validation, 0.01)}
            for c in found.table[:10]
        ],
        "by_hidden": _by_hidden(found.table),
    }
    if isinstance(work.source, World):
        out["ceiling"] = ceiling(work.source)
    return out


def ceiling(world: World) -> float:
    """The correlation of what can be known with importance; no function of the signals passes it.

    Linear and bent part are uncorrelated; the rest is noise.
    """
    c = world.covariance()
    noise = world.noise**2 + world.apart**2
    return float(np.sqrt(1.0 - noise / c[4, 4]))


def _parts(conversations: int) -> list[int]:
    few = min(TRAINED, conversations // 4)
    return [0, few, 2 * few, min(2 * few + TESTED, conversations)]


def _named(a: Any) -> str:
    hidden = "-".join(str(h) for h in a.hidden) or "linear"
    return f"{hidden} {a.activation} dropout {a.dropout:g} rate {a.rate:g}"


def _by_hidden(table: Any) -> list[Said]:
    best: dict[tuple[int, ...], float] = {}
    for c in table:
        key = c.architecture.hidden
        best[key] = max(best.get(key, -1.0), c.validation)
    return [
        {"hidden": "-".join(map(str, k)) or "none", "best_validation": value(v, 0.005)}
        for k, v in sorted(best.items(), key=lambda kv: (len(kv[0]), kv[0]))
    ]


def _timed(way: Callable[[], _T]) -> tuple[_T, float]:
    start = time.perf_counter()
    found = way()
    return found, time.perf_counter() - start
