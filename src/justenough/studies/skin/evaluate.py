"""How often a network is right on lesions never trained on: the numbers of the model card.

`python -m justenough.studies.skin.evaluate --data TAR --metadata CSV --model FILE.onnx`
"""

import argparse
import sys
from functools import partial
from pathlib import Path

from justenough.studies.skin.data import CLASSES, load
from justenough.train.answers import table
from justenough.train.scores import Measure, accuracy, balanced_accuracy, mean_auc, recall

ASKED: dict[str, Measure] = {
    "accuracy": accuracy,
    "balanced accuracy": balanced_accuracy,
    "mean AUC": mean_auc,
    "recall of melanoma": partial(recall, k=CLASSES.index("mel")),
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="accuracy on skin lesions never trained on")
    parser.add_argument("--data", type=Path, required=True, help="tar of the data set")
    parser.add_argument("--metadata", type=Path, required=True, help="HAM10000_metadata.csv")
    parser.add_argument("--model", type=Path, required=True, help="ONNX file to evaluate")
    given = parser.parse_args()
    sys.stdout.write(table(given.model, load(given.data, given.metadata), ASKED))


if __name__ == "__main__":
    main()
