"""How often a classifier is right, with intervals that know of groups."""

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from justenough.stats.auc import auc

Array = NDArray[Any]
Measure = Callable[[Array, Array], float]
REPEATS = 2000
SEED = 0


def accuracy(logits: Array, labels: Array) -> float:
    """Share of rows whose largest logit is their label's.

    >>> accuracy(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0, 0]))
    0.5
    """
    return float((logits.argmax(1) == labels).mean())


def recall(logits: Array, labels: Array, k: int) -> float:
    """Share of the rows labelled `k` that are called `k`; 1 where there are none."""
    return float((logits[labels == k].argmax(1) == k).mean()) if (labels == k).any() else 1.0


def balanced_accuracy(logits: Array, labels: Array) -> float:
    """Mean over the classes that occur of the share of their rows that are called right.

    Brodersen et al. 2010, "The balanced accuracy and its posterior distribution" (ICPR).

    >>> balanced_accuracy(np.array([[1.0, 0.0]] * 4), np.array([0, 0, 0, 1]))
    0.5
    """
    return float(np.mean([recall(logits, labels, k) for k in np.unique(labels).tolist()]))


def mean_auc(logits: Array, labels: Array) -> float:
    """Mean over the classes that occur of the area under the ROC curve of each against the rest.

    The score of class k is its logit less the largest other one; of two classes both areas
    are the same.
    """
    areas = []
    for k in np.unique(labels).tolist():
        rest = np.delete(logits, k, 1).max(1)
        areas.append(auc(labels == k, logits[:, k].astype(float) - rest))
    return float(np.mean(areas))


def intervals(
    logits: Array, labels: Array, groups: Array, asked: Mapping[str, Measure]
) -> dict[str, tuple[float, float, float]]:
    """Each number asked for, with the ends of its 95 % interval.

    Groups are drawn with replacement, since rows of one group are not independent (percentile
    bootstrap of clusters, Efron & Tibshirani 1993, chapter 13). The network stays as it is:
    the intervals do not cover what another training run would give.

    Args:
        logits: (n, classes).
        labels: (n,) integer classes.
        groups: (n,) keys.
        asked: By name, what is computed from logits and labels.
    """
    _, unit = np.unique(groups, return_inverse=True)
    order = np.argsort(unit, kind="stable")
    starts = np.searchsorted(unit[order], np.arange(unit.max() + 2))
    rows_of = [order[a:b] for a, b in pairwise(starts)]
    rng = np.random.default_rng(SEED)
    draws = []
    for _ in range(REPEATS):
        rows = np.concatenate([rows_of[g] for g in rng.integers(0, len(rows_of), len(rows_of))])
        draws.append([measure(logits[rows], labels[rows]) for measure in asked.values()])
    low, high = np.quantile(np.array(draws), (0.025, 0.975), axis=0)
    found = [measure(logits, labels) for measure in asked.values()]
    return {
        name: (value, float(a), float(b))
        for name, value, a, b in zip(asked, found, low, high, strict=True)
    }
