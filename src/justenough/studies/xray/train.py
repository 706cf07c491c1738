"""Train on chest X-rays: `python -m justenough.studies.xray.train --data TAR -o FILE`.

It sees only groups that are not held out, and looks at the others once, when it is done.
"""

from dataclasses import replace

from justenough.studies.xray.data import CLASSES, load
from justenough.train.augment import Augmentation
from justenough.train.classify import Recipe
from justenough.train.course import parser, run

AUGMENTATION = Augmentation(
    mirror=True,
    degrees=10,
    zoom=(0.75, 1.1),
    stretch=0.08,
    shift=0.04,
    brightness=0.25,
    contrast=0.25,
    erase=0.25,
)
RECIPES = {
    "densenet121": Recipe(epochs=120, rate=1e-3, augmentation=AUGMENTATION),
    "efficientnet_b0": Recipe(epochs=150, rate=2e-3, augmentation=AUGMENTATION),
}
METADATA = {
    "name": "justenough chest X-ray study",
    "classes": ", ".join(CLASSES),
    "data": (
        "Chest X-rays of children (Kermany, Zhang & Goldbaum 2018, Mendeley Data, "
        "doi:10.17632/rscbjbr9sj.2; Kermany et al. 2018, Cell 172(5), 1122-1131, "
        "doi:10.1016/j.cell.2018.02.010), scaled to 224 x 224"
    ),
    "data_licence": "CC BY 4.0",
    "licence": "CC BY 4.0",
    "intended_use": (
        "Demonstrates certified approximation. Not a medical device; not for diagnosis, "
        "triage or any other clinical decision."
    ),
}


def main() -> None:
    """Train, write the weights, and say how well they do."""
    given = parser("chest X-rays").parse_args()
    recipe = RECIPES[given.network]
    recipe = replace(recipe, epochs=given.epochs or recipe.epochs)
    run(load(given.data), recipe, given, METADATA)


if __name__ == "__main__":
    main()
