"""Train on skin lesions: `python -m justenough.studies.skin.train --data TAR --metadata CSV`.

It sees only lesions that are not held out, and looks at the others once, when it is done.
What it writes is derived from data that forbid commercial use; it is no part of this project.
"""

from dataclasses import replace
from pathlib import Path

from justenough.studies.skin.data import CLASSES, load
from justenough.train.augment import Augmentation
from justenough.train.classify import Recipe
from justenough.train.course import parser, run

# A lesion has no up and no left: turned any way and mirrored, it is the same lesion.
AUGMENTATION = Augmentation(
    mirror=True,
    flip=True,
    degrees=180,
    zoom=(0.6, 1.1),
    stretch=0.1,
    shift=0.02,
    brightness=0.15,
    contrast=0.2,
    saturation=0.25,
    tint=0.05,
    erase=0.2,
)
RECIPES = {
    "densenet121": Recipe(epochs=120, batch=96, rate=1e-3, balance=0.5, augmentation=AUGMENTATION),
    "efficientnet_b0": Recipe(
        epochs=160, batch=96, rate=2e-3, balance=0.5, augmentation=AUGMENTATION
    ),
}
METADATA = {
    "name": "justenough skin lesion study",
    "classes": ", ".join(CLASSES),
    "data": (
        "HAM10000 (Tschandl, Rosendahl & Kittler 2018, Scientific Data 5, 180161, "
        "doi:10.1038/sdata.2018.161; Harvard Dataverse, doi:10.7910/DVN/DBW86T), "
        "scaled to 200 x 150"
    ),
    "data_licence": "CC BY-NC 4.0",
    "licence": "CC BY-NC 4.0: no commercial use; not part of justenough",
    "intended_use": (
        "Demonstrates certified approximation. Not a medical device; not for diagnosis, "
        "triage or any other clinical decision."
    ),
}


def main() -> None:
    """Train, write the weights, and say how well they do."""
    arguments = parser("skin lesions")
    arguments.add_argument("--metadata", type=Path, required=True, help="HAM10000_metadata.csv")
    given = arguments.parse_args()
    recipe = RECIPES[given.network]
    recipe = replace(recipe, epochs=given.epochs or recipe.epochs)
    run(load(given.data, given.metadata), recipe, given, METADATA)


if __name__ == "__main__":
    main()
