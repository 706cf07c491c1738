"""Chest X-rays as pictures: films to answer, pneumonia or not, and whose they are.

`python -m justenough.studies.xray.data --data TAR -o FILE` writes the cases that no network
of this study was trained on.
"""

import argparse
import re
from pathlib import Path

import numpy as np
from rich.console import Console

from justenough.errors import InputError
from justenough.train.held_out import Pictures, join_identical, write_cases
from justenough.train.pictures import read_tar

SIDE = 224
CLASSES = ("normal", "pneumonia")
# Numbers of persons start again for every kind of film (bacteria and virus), and numbers of
# studies too (NORMAL with and without NORMAL2). Whether an equal number means the same person
# is not documented; here it does, which can only make the groups fewer.
NAME = re.compile(
    r"(?:[\w.-]+/)*(?:"
    r"(?P<ill>PNEUMONIA)/(?P<person>person\d{1,6})_(?:bacteria|virus)_\d+(?:_\d+)?"
    r"|(?P<well>NORMAL)/(?:NORMAL2-)?(?P<study>IM-\d{1,6})-\d+(?:-\d+)?"
    r")\.jpe?g"
)


def place(name: str) -> tuple[int, str]:
    """Class and group that a file's name says.

    Raises:
        InputError: The name is not of the data set's kinds.

    >>> place("test/PNEUMONIA/person1_virus_6.jpeg"), place("train/NORMAL/IM-0115-0001.jpeg")
    ((1, 'person1'), (0, 'IM-0115'))
    """
    found = NAME.fullmatch(name)
    if found is None:
        raise InputError(
            f"{name} is not named like PNEUMONIA/person1_virus_6.jpeg or "
            "NORMAL/IM-0115-0001.jpeg; give the data set as it was published"
        )
    return (1, found["person"]) if found["ill"] else (0, found["study"])


def load(tar: Path) -> Pictures:
    """Read all films as grey pictures (n, 1, 224, 224), training and test folders together.

    Raises:
        InputError: The tar cannot be used; see `justenough.train.pictures.read_tar`.
    """
    films = read_tar(tar, width=SIDE, height=SIDE, grey=True)
    places = [place(name) for name in films]
    pixels = np.stack(list(films.values()))
    group = join_identical(pixels, np.array([group for _, group in places]))
    return Pictures(pixels, np.array([label for label, _ in places]), group, CLASSES)


def main() -> None:
    """Write the cases that are held out."""
    parser = argparse.ArgumentParser(description="write the chest X-rays never trained on")
    parser.add_argument("--data", type=Path, required=True, help="tar of the data set")
    parser.add_argument("-o", "--output", type=Path, required=True, help="npz file to write")
    given = parser.parse_args()
    held = write_cases(load(given.data), given.output)
    Console().print(f"{given.output.name}: {held.n:,} films of {held.n_units:,} groups")


if __name__ == "__main__":
    main()
