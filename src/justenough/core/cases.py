"""Cases: what a subject answers, who they belong to, and which part may see them.

Calibration, search and certification cases are three distinct types, so that a case nobody
searched on cannot be confused with one that somebody did.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from justenough.core.case_files import read_arrays
from justenough.core.rows import Column, Rows, blocks, blocks_of, not_finite, take
from justenough.errors import DataReuseError, InputError

Array = NDArray[Any]
RESERVED = ("labels", "groups")
SHARES = (0.15, 0.15, 0.70)


def key_fraction(key: str) -> float:
    """Place a group key on [0, 1): the same key lands on the same place on every machine.

    There is no seed to turn: a split that could be re-rolled until it certifies is no split.

    >>> round(key_fraction("LIDC-IDRI-0001"), 6)
    0.134695
    """
    digest = hashlib.blake2b(key.encode(), digest_size=8, person=b"justenough").digest()
    return int.from_bytes(digest, "big") / 2**64


@dataclass(frozen=True, eq=False)
class Cases:
    """Inputs by name, one row a case, with optional labels and group keys.

    Inputs may stay on disk (`Rows`): they are checked, hashed, split and run some rows at a
    time. What grows with the number of rows is in memory: labels, keys, digests, outputs.

    Attributes:
        inputs: Arrays named like the model's inputs, each (n, ...), finite where float; or
            rows that are read when they are asked for.
        labels: (n,) integer classes, or booleans for a score; negative means no label.
        groups: (n,) keys of what is independent (patient, lesion, scaffold); rows of one
            group share it. Without groups, rows with identical inputs count as one group,
            so that repeating a case cannot strengthen a certificate.
    """

    inputs: Mapping[str, Column]
    labels: Array | None = None
    groups: Array | None = None

    def __post_init__(self) -> None:
        if not self.inputs:
            raise InputError("the cases hold no input array; name one like the model's input")
        for name, value in self.inputs.items():
            _check_input(name, value)
        lengths = {name: len(value) for name, value in self.inputs.items()}
        if len(set(lengths.values())) > 1:
            raise InputError(f"inputs must have one row a case each; their lengths are {lengths}")
        if self.n == 0:
            raise InputError("the cases are empty; give at least one row")
        for what, aside in (("labels", self.labels), ("groups", self.groups)):
            if aside is not None:
                _check_aside(what, aside, self.n)

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(next(iter(self.inputs.values())))

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """Per row, the key of its independent unit: its group, or the digest of its inputs."""
        if self.groups is not None:
            return tuple(
                g.decode(errors="backslashreplace") if isinstance(g, bytes) else str(g)
                for g in self.groups.tolist()
            )
        return self.digests

    @cached_property
    def digests(self) -> tuple[str, ...]:
        """Per row, a digest of all its inputs (BLAKE2b, 64 bits)."""
        out = []
        for rows in blocks_of(tuple(self.inputs[name] for name in sorted(self.inputs))):
            whole = [np.ascontiguousarray(r) for r in rows]
            for i in range(len(whole[0])):
                h = hashlib.blake2b(digest_size=8)
                for r in whole:
                    h.update(r[i].tobytes())
                out.append(h.hexdigest())
        return tuple(out)

    @cached_property
    def units(self) -> NDArray[np.intp]:
        """Per row (n,), the index of its independent unit, 0 to n_units - 1."""
        return np.asarray(np.unique(np.array(self.keys), return_inverse=True)[1], np.intp)

    @property
    def n_units(self) -> int:
        """Number of independent units: groups, or distinct rows."""
        return int(self.units.max()) + 1

    @property
    def unit_name(self) -> str:
        """What a unit is called in reports."""
        return "group" if self.groups is not None else "case"

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of names, types, shapes and values of everything the cases hold."""
        h = hashlib.sha256()
        named = dict(sorted(self.inputs.items()))
        for name, value in (*named.items(), ("labels", self.labels), ("groups", self.groups)):
            if value is not None:
                h.update(f"{name}\0{value.dtype.str}\0{value.shape}\0".encode())
                for block in blocks(value):
                    h.update(np.ascontiguousarray(block).tobytes())
        return h.hexdigest()

    def take(self, rows: Array) -> "Cases":
        """The cases at `rows`, an index or mask array; of inputs on disk none is read."""
        out = Cases(
            {name: take(value, rows) for name, value in self.inputs.items()},
            None if self.labels is None else self.labels[rows],
            None if self.groups is None else self.groups[rows],
        )
        if "digests" in self.__dict__:  # known of all rows: they need not be read again
            picked = np.arange(self.n)[rows].tolist()
            out.__dict__["digests"] = tuple(self.digests[i] for i in picked)
        return out


@dataclass(frozen=True)
class CalibrationCases:
    """Rows that set ranges of quantized tensors; they may come from the training set."""

    cases: Cases


@dataclass(frozen=True)
class SearchCases:
    """Rows that choose the variant and the thresholds."""

    cases: Cases


@dataclass(frozen=True)
class CertificationCases:
    """Rows that nobody searched on, judged once."""

    cases: Cases


@dataclass(frozen=True)
class Split:
    """The three parts of a user's cases; no group is in two of them."""

    calibration: CalibrationCases
    search: SearchCases
    certification: CertificationCases


def roles(keys: Sequence[str], shares: tuple[float, float, float] = SHARES) -> Array:
    """Per key, 0 for calibration, 1 for search, 2 for certification, by hash of the key."""
    if len(shares) != 3 or not (min(shares) > 0 and abs(sum(shares) - 1) <= 1e-9):
        raise InputError(f"shares {shares} must be three positive numbers that add to 1")
    edges = np.cumsum(shares)[:2]
    place = {key: key_fraction(key) for key in set(keys)}
    return np.searchsorted(edges, [place[key] for key in keys], side="right")


def split(cases: Cases, shares: tuple[float, float, float] = SHARES) -> Split:
    """Split by hash of the group key into calibration, search and certification cases.

    A group lands where its key says whatever the other groups are, so that adding cases
    later never turns a searched case into a fresh one. A row that is repeated in a group to
    certify on is left out of the search: what was searched on cannot certify.

    Raises:
        InputError: A part would be empty.
    """
    role = roles(cases.keys, shares)
    if cases.groups is not None:
        digests = np.array(cases.digests)
        role = np.where((role < 2) & np.isin(digests, digests[role == 2]), -1, role)
    for k, name in enumerate(("calibration", "search", "certification")):
        if not (role == k).any():
            raise InputError(
                f"{cases.n_units} {cases.unit_name}s leave no case for {name} at shares "
                f"{shares}; give more cases or other shares"
            )
    parts = [cases.take(role == k) for k in range(3)]
    return Split(CalibrationCases(parts[0]), SearchCases(parts[1]), CertificationCases(parts[2]))


def split_apart(cases: Cases, fresh: Cases, shares: tuple[float, float] = (0.5, 0.5)) -> Split:
    """Split `cases` into calibration and search, and certify on `fresh`, given apart.

    Raises:
        DataReuseError: `fresh` shares a group or an identical row with `cases`.
    """
    if (cases.groups is None) != (fresh.groups is None):
        raise InputError("give groups in both case files or in neither; only one has them")
    for what, a, b in (
        ("group", cases.keys, fresh.keys),
        ("row", cases.digests, fresh.digests),
    ):
        shared = set(a) & set(b)
        if shared:
            raise DataReuseError(
                f"{len(shared)} {what}s of the certification cases are also among the cases "
                f"to search on (one is {min(shared)!r}); certification needs cases nobody saw"
            )
    role = roles(cases.keys, (shares[0], shares[1] * (1 - 1e-12), shares[1] * 1e-12))
    if not ((role == 0).any() and (role != 0).any()):
        raise InputError(f"{cases.n_units} {cases.unit_name}s are too few to search on; give more")
    return Split(
        CalibrationCases(cases.take(role == 0)),
        SearchCases(cases.take(role != 0)),
        CertificationCases(fresh),
    )


def load_cases(path: Path | str, input_names: Sequence[str]) -> Cases:
    """Read cases from `.npz` (arrays named like the inputs) or `.npy` (one input).

    Nothing is ever unpickled: an object array is an error. Large inputs stay on disk, as
    `read_arrays` says.

    Raises:
        InputError: The file is missing, unreadable, not NumPy's, or does not fit.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no cases file at {str(path)!r}; give an .npz or .npy file")
    arrays = read_arrays(path, input_names)
    inputs = {k: v for k, v in arrays.items() if k not in RESERVED or k in input_names}
    labels, groups = (None if k in input_names else _aside(arrays.get(k)) for k in RESERVED)
    missing = sorted(set(input_names) - set(inputs))
    extra = sorted(set(inputs) - set(input_names))
    if missing or extra:
        raise InputError(
            f"arrays in {path.name} do not match the model's inputs {sorted(input_names)}: "
            f"missing {missing}, unknown {extra}; 'labels' and 'groups' may be added"
        )
    return Cases(inputs, labels, groups)


def _aside(value: Column | None) -> Any:
    """Labels and groups in memory; what cannot be either stays where it is, and is refused."""
    return np.asarray(value) if isinstance(value, Rows) and value.ndim == 1 else value


def _check_input(name: str, value: Column) -> None:
    if value.dtype.kind not in "fiub" or value.dtype.itemsize > 8:
        raise InputError(
            f"input {name!r} has type {value.dtype}; give a numeric array of at most 64 bits"
        )
    if value.ndim == 0:
        raise InputError(f"input {name!r} is a single number; give an array with a row per case")
    bad = not_finite(value)
    if bad:
        raise InputError(
            f"input {name!r} (shape {value.shape}) has {bad} NaN or infinite values; "
            "clip or drop them"
        )


def _check_aside(what: str, value: Array, n: int) -> None:
    if value.ndim != 1 or len(value) != n:
        raise InputError(f"{what} has shape {value.shape}; give one value per case, ({n},)")
    kinds = "iub" if what == "labels" else "iubUS"
    if value.dtype.kind not in kinds:
        wanted = "integers" if what == "labels" else "integers or strings"
        raise InputError(f"{what} has type {value.dtype}; give {wanted}")
    if value.dtype.kind == "U":
        try:
            "".join(value.tolist()).encode()
        except ValueError as e:
            raise InputError(f"{what} hold what is not text ({e}); give valid Unicode") from e
