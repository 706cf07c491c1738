"""Skin lesions as pictures: dermatoscopic images to answer, their kind, and whose they are.

`python -m justenough.studies.skin.data --data TAR --metadata CSV -o FILE` writes the cases that
no network of this study was trained on.
"""

import argparse
import csv
import io
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np
from rich.console import Console

from justenough.errors import InputError
from justenough.train.held_out import Pictures, join_identical, write_cases
from justenough.train.pictures import read_tar

WIDTH, HEIGHT = 200, 150
# Intraepithelial carcinoma, basal cell carcinoma, benign keratosis, dermatofibroma, melanoma,
# melanocytic nevus, vascular lesion: the names of the column `dx`.
CLASSES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
COLUMNS = ("lesion_id", "image_id", "dx")
MOST_BYTES = 10_000_000
KEY = re.compile(r"[A-Za-z]{1,8}_\d{1,12}")


def read_metadata(path: Path) -> Mapping[str, tuple[int, str]]:
    """Per image id, its class and its lesion's id.

    Args:
        path: HAM10000_metadata.csv, as published.

    Raises:
        InputError: No such file, no such columns, an id or a kind of lesion that is not one,
            or an image that comes twice.
    """
    if not path.is_file() or path.stat().st_size > MOST_BYTES:
        raise InputError(f"{path.name} is no file of at most {MOST_BYTES:,} bytes of metadata")
    try:
        rows = list(
            csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8-sig")), strict=True)
        )
    except (UnicodeDecodeError, csv.Error) as e:
        raise InputError(f"{path.name} is no table of comma-separated text: {e}") from e
    found: dict[str, tuple[int, str]] = {}
    for k, row in enumerate(rows):
        lesion, image, kind = (row.get(name) or "" for name in COLUMNS)
        if not (KEY.fullmatch(lesion) and KEY.fullmatch(image) and kind in CLASSES):
            raise InputError(
                f"row {k + 1} of {path.name} has lesion_id {lesion[:40]!r}, image_id "
                f"{image[:40]!r}, dx {kind[:40]!r}; give HAM10000's metadata as published"
            )
        if image in found:
            raise InputError(f"image {image} is twice in {path.name}; give each image once")
        found[image] = CLASSES.index(kind), lesion
    return found


def load(tar: Path, metadata: Path) -> Pictures:
    """Read all images as colour pictures (n, 3, 150, 200), grouped by lesion.

    Raises:
        InputError: The tar or the table cannot be used, or the table lacks an image.
    """
    table = read_metadata(metadata)
    images = read_tar(tar, width=WIDTH, height=HEIGHT)
    names = [PurePosixPath(name).stem for name in images]
    for name in names:
        if name not in table:
            raise InputError(f"{metadata.name} says nothing of image {name}; give its own table")
    pixels = np.stack(list(images.values()))
    group = join_identical(pixels, np.array([table[name][1] for name in names]))
    return Pictures(pixels, np.array([table[name][0] for name in names]), group, CLASSES)


def main() -> None:
    """Write the cases that are held out."""
    parser = argparse.ArgumentParser(description="write the skin lesions never trained on")
    parser.add_argument("--data", type=Path, required=True, help="tar of the data set")
    parser.add_argument("--metadata", type=Path, required=True, help="HAM10000_metadata.csv")
    parser.add_argument("-o", "--output", type=Path, required=True, help="npz file to write")
    given = parser.parse_args()
    held = write_cases(load(given.data, given.metadata), given.output)
    Console().print(f"{given.output.name}: {held.n:,} images of {held.n_units:,} lesions")


if __name__ == "__main__":
    main()
