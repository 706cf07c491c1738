"""The nodules as cases: views to answer, shape numbers to compare with, ratings to judge by."""

import zipfile
import zlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from justenough.core.cases import Cases, roles
from justenough.studies.nodules.contours import RATINGS, SHA256, database, read
from justenough.studies.nodules.render import SHAPE_NAMES as SHAPE_NAMES
from justenough.studies.nodules.render import VERSION, render

Array = NDArray[Any]

CALIBRATION, SEARCH, CERTIFICATION = 0, 1, 2
MODEL = Path(__file__).with_name("model.onnx")


@dataclass(frozen=True, eq=False)
class Nodules:
    """One row per annotation: one nodule, outlined and rated by one radiologist.

    Ratings are integers 1 to 5 (calcification and internal structure 1 to 6), Armato et al.
    2011, Table I; their meaning is subjective.

    Attributes:
        views: (n, 8, 64, 64) uint8, in the order of `render.VIEWS`.
        shape: (n, 9) float32 covariates, in the order of `SHAPE_NAMES`.
        patient: (n,) LIDC-IDRI patient ids; the independent unit.
        malignancy: 1 highly unlikely to 5 highly suspicious.
        sphericity: 1 linear, 3 ovoid, 5 round.
        lobulation: 1 none to 5 marked.
        spiculation: 1 none to 5 marked.
        margin: 1 poorly defined to 5 sharp.
        calcification: 1 to 5 kinds of it, 6 absent.
        subtlety: 1 extremely subtle to 5 obvious.
        internal_structure: 1 soft tissue, 2 fluid, 3 fat, 4 air; one row holds a stray 5.
        texture: 1 non-solid to 5 solid.
    """

    views: Array
    shape: Array
    patient: Array
    malignancy: Array
    sphericity: Array
    lobulation: Array
    spiculation: Array
    margin: Array
    calcification: Array
    subtlety: Array
    internal_structure: Array
    texture: Array

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(self.patient)

    @property
    def role(self) -> Array:
        """Per row (n,), 0, 1 or 2: what the project's own split makes of its patient."""
        return roles(self.patient.tolist())


def load(cache: Path | None = None) -> Nodules:
    """Read and draw all 6,859 annotations, in the order of their ids in the database.

    Args:
        cache: A folder that keeps the result, 13 MB; the views are 225 MB in memory.

    Raises:
        InputError: The wheel that holds the annotations is missing or another version.
    """
    database()
    path = None if cache is None else cache / f"nodules-{SHA256[:12]}-{VERSION}.npz"
    if path is not None and (kept := _read(path)) is not None:
        return kept
    contours = read()
    views, shape = render(contours)
    ratings = dict(zip(RATINGS, contours.ratings.T, strict=True))
    nodules = Nodules(views, shape, contours.patient, **ratings)
    if path is not None:
        _write(path, nodules)
    return nodules


def cases(nodules: Nodules) -> Cases:
    """The nodules as `views` to answer, grouped by patient.

    Labels are 1 where the reader called malignancy likely (4 or 5), 0 where unlikely (1 or
    2), and -1, no label, where the reader would not say (3).
    """
    label = np.sign(nodules.malignancy.astype(np.int8) - 3)
    return Cases({"views": nodules.views}, _LABEL[label + 1], nodules.patient)


_LABEL = np.array([0, -1, 1], np.int8)


def _read(path: Path) -> Nodules | None:
    try:
        # opened here, since NumPy leaves a file open that turns out to be cut short
        with path.open("rb") as f, np.load(f, allow_pickle=False) as z:
            return Nodules(**{field.name: z[field.name] for field in fields(Nodules)})
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None  # not there or cut short: drawing again costs seconds


def _write(path: Path, nodules: Nodules) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # a name of its own and a rename, so that two processes never read half a file
    part = path.with_name(f"{path.name}.{uuid4().hex}.part")
    try:
        # level 1 takes a third of the time of level 6 for a file a third larger
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as z:
            for field in fields(Nodules):
                with z.open(f"{field.name}.npy", "w", force_zip64=True) as out:
                    value = np.ascontiguousarray(getattr(nodules, field.name))
                    np.lib.format.write_array(out, value, allow_pickle=False)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
