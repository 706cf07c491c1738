"""What the shipped network knows beyond nodule size: the table of the model card.

`python -m justenough.studies.nodules.evaluate` compares it with logistic regression on log
volume and on nine shape numbers, all fitted on the same patients, on the patients that none
of them was fitted on.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime  # type: ignore[import-untyped, unused-ignore]

from justenough.studies.nodules.data import CALIBRATION, MODEL, SHAPE_NAMES, Array, Nodules, load

SEED = 0
REPEATS = 2000


@dataclass(frozen=True)
class Task:
    """A question with two answers: the rows of `positive` against those of `negative`.

    Attributes:
        name: The rating asked about, and the model's output that answers.
        question: In words, for the table.
        positive: Rating (n,) to a mask (n,).
        negative: Rating (n,) to a mask (n,); rows in neither are left out.
    """

    name: str
    question: str
    positive: Callable[[Array], Array]
    negative: Callable[[Array], Array]


TASKS = (
    Task("malignancy", "malignancy >= 4 v <= 2", lambda r: r >= 4, lambda r: r <= 2),
    Task("sphericity", "sphericity 5 v <= 3", lambda r: r == 5, lambda r: r <= 3),
)


def auc(score: Array, positive: Array, weight: Array | None = None) -> float:
    """Area under the ROC curve: the probability that a positive row scores higher.

    Hanley & McNeil 1982, Radiology 143(1), 29-36; ties count one half.

    Args:
        score: (n,) real.
        positive: (n,) boolean.
        weight: (n,) how often each row counts; once where not given.

    >>> auc(np.array([1.0, 2.0, 2.0, 3.0]), np.array([False, False, True, True]))
    0.875
    """
    weight = np.ones(len(score)) if weight is None else weight
    _, level = np.unique(score, return_inverse=True)
    of_positive = np.bincount(level, weight * positive)
    of_negative = np.bincount(level, weight * ~positive)
    below = np.cumsum(of_negative) - of_negative / 2
    return float(of_positive @ below / (of_positive.sum() * of_negative.sum()))


def logistic(x: Array, y: Array, steps: int = 30) -> Array:
    """Fit logistic regression by Newton's method (iteratively reweighted least squares).

    Args:
        x: (n, k) standardised covariates.
        y: (n,) 0 or 1.
        steps: Newton steps; from zero, 30 are plenty where the classes overlap.

    Returns:
        (k + 1,) intercept and coefficients of largest likelihood.
    """
    x = np.column_stack((np.ones(len(x)), x))
    beta: Array = np.zeros(x.shape[1])
    for _ in range(steps):
        p = 1 / (1 + np.exp(-(x @ beta)))
        hessian = (x * (p * (1 - p))[:, None]).T @ x
        beta = beta + np.linalg.solve(hessian, x.T @ (y - p))
    return beta


def baseline(covariates: Array, positive: Array, train: Array) -> Array:
    """Score of every row (n,) by logistic regression fitted on the rows of `train`."""
    x = (covariates - covariates[train].mean(0)) / covariates[train].std(0)
    beta = logistic(x[train], positive[train].astype(float))
    score: Array = beta[0] + x @ beta[1:]
    return score


def answer(views: Array, model: Path = MODEL) -> dict[str, Array]:
    """Run the network on views (n, 8, 64, 64); one logit (n,) per output name."""
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    parts = [session.run(None, {"views": views[i : i + 256]}) for i in range(0, len(views), 256)]
    return {name: np.concatenate([p[k] for p in parts]) for k, name in enumerate(names)}


def intervals(
    scores: dict[str, Array], positive: Array, patient: Array, rng: np.random.Generator
) -> dict[str, tuple[float, float, float]]:
    """AUC and its 95 % interval per score, and of the last score less each of the others.

    Patients are drawn with replacement, since rows of one patient are not independent
    (percentile bootstrap of clusters, Efron & Tibshirani 1993, chapter 13). The fitted
    models stay as they are: the intervals do not cover what another fit would give.
    """
    _, unit = np.unique(patient, return_inverse=True)
    n = int(unit.max()) + 1
    draws = np.empty((REPEATS + 1, len(scores)))
    for k in range(REPEATS + 1):
        # the first row is the estimate itself: every patient once
        count = np.ones(n) if k == 0 else np.bincount(rng.integers(0, n, n), minlength=n)
        draws[k] = [auc(s, positive, count[unit]) for s in scores.values()]
    columns = dict(zip(scores, draws.T, strict=True))
    *others, last = scores
    columns |= {f"{last} - {name}": columns[last] - columns[name] for name in others}
    out = {}
    for name, column in columns.items():
        low, high = np.quantile(column[1:], (0.025, 0.975))
        out[name] = (float(column[0]), float(low), float(high))
    return out


def compare(nodules: Nodules, answers: dict[str, Array], task: Task) -> list[str]:
    """The table's row for one task: (question, rows, patients, then each estimate)."""
    rating = getattr(nodules, task.name)
    positive = task.positive(rating)
    asked = positive | task.negative(rating)
    trained_on = nodules.role == CALIBRATION
    train, unseen = np.flatnonzero(asked & trained_on), asked & ~trained_on
    shape = nodules.shape.astype(np.float64)
    scores = {
        "volume": baseline(shape[:, [SHAPE_NAMES.index("log_volume_mm3")]], positive, train),
        "shape9": baseline(shape, positive, train),
        "CNN": answers[task.name],
    }
    patient = nodules.patient[unseen]
    found = intervals(
        {name: s[unseen] for name, s in scores.items()},
        positive[unseen],
        patient,
        np.random.default_rng(SEED),
    )
    cells = [_cell(*value, signed="-" in name) for name, value in found.items()]
    return [task.question, f"{unseen.sum():,}", f"{len(set(patient.tolist()))}", *cells]


def _cell(estimate: float, low: float, high: float, *, signed: bool) -> str:
    sign = "+" if signed else ""
    return f"{estimate:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"


def table(nodules: Nodules, answers: dict[str, Array]) -> str:
    """The model card's table, in Markdown: AUC and 95 % interval on unseen patients."""
    head = ["AUC", "rows", "patients", "volume", "shape9", "CNN", "CNN - volume", "CNN - shape9"]
    rows = [compare(nodules, answers, task) for task in TASKS]
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="AUC of the shipped network on unseen patients")
    parser.add_argument("--cache", type=Path, help="folder that keeps the drawn views")
    parser.add_argument("--model", type=Path, default=MODEL, help="ONNX file to evaluate")
    given = parser.parse_args()
    nodules = load(given.cache)
    sys.stdout.write(table(nodules, answer(nodules.views, given.model)))


if __name__ == "__main__":
    main()
