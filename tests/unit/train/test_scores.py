"""How often a classifier is right, against scikit-learn and by its laws."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, recall_score, roc_auc_score

from justenough.train import scores
from justenough.train.scores import Array


def answers(n: int, classes: int, seed: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    logits = rng.normal(size=(n, classes)) + 1.5 * np.eye(classes)[labels]
    return logits.astype(np.float32), labels


@pytest.mark.parametrize("classes", [2, 7])
def test_numbers_are_scikit_learns(classes: int) -> None:
    logits, labels = answers(300, classes, 0)
    called = logits.argmax(1)
    assert scores.accuracy(logits, labels) == pytest.approx(accuracy_score(labels, called))
    assert scores.balanced_accuracy(logits, labels) == pytest.approx(
        balanced_accuracy_score(labels, called)
    )
    each = recall_score(labels, called, average=None)
    assert [scores.recall(logits, labels, k) for k in range(classes)] == pytest.approx(each)


def test_auc_of_two_classes_is_of_the_difference() -> None:
    logits, labels = answers(300, 2, 1)
    wanted = roc_auc_score(labels, logits[:, 1].astype(float) - logits[:, 0])
    assert scores.mean_auc(logits, labels) == pytest.approx(wanted)


def test_a_class_that_does_not_occur_counts_nowhere() -> None:
    logits, labels = answers(100, 3, 2)
    labels = np.minimum(labels, 1)
    wanted = np.mean([scores.recall(logits, labels, k) for k in (0, 1)])
    assert scores.balanced_accuracy(logits, labels) == pytest.approx(wanted)
    assert scores.recall(logits, labels, 2) == 1


def test_intervals_hold_the_estimate_and_do_not_shrink_with_copies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scores, "REPEATS", 300)
    logits, labels = answers(200, 3, 3)
    asked = {"accuracy": scores.accuracy}
    alone = scores.intervals(logits, labels, np.arange(200), asked)["accuracy"]
    assert alone[1] < alone[0] < alone[2]
    four = scores.intervals(
        np.tile(logits, (4, 1)), np.tile(labels, 4), np.tile(np.arange(200), 4), asked
    )["accuracy"]
    assert four == pytest.approx(alone)
    free = scores.intervals(np.tile(logits, (4, 1)), np.tile(labels, 4), np.arange(800), asked)[
        "accuracy"
    ]
    assert free[2] - free[1] < 0.7 * (alone[2] - alone[1])
