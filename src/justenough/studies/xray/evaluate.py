"""How often a network is right on films never trained on: the numbers of the model card.

`python -m justenough.studies.xray.evaluate --data TAR --model FILE.onnx`
"""

import argparse
import sys
from functools import partial
from pathlib import Path

from justenough.studies.xray.data import CLASSES, load
from justenough.train.answers import table
from justenough.train.scores import Measure, accuracy, balanced_accuracy, mean_auc, recall

ASKED: dict[str, Measure] = {
    "accuracy": accuracy,
    "balanced accuracy": balanced_accuracy,
    "AUC": mean_auc,
    "sensitivity": partial(recall, k=CLASSES.index("pneumonia")),
    "specificity": partial(recall, k=CLASSES.index("normal")),
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="accuracy on chest X-rays never trained on")
    parser.add_argument("--data", type=Path, required=True, help="tar of the data set")
    parser.add_argument("--model", type=Path, required=True, help="ONNX file to evaluate")
    given = parser.parse_args()
    sys.stdout.write(table(given.model, load(given.data), ASKED))


if __name__ == "__main__":
    main()
