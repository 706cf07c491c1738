"""A table of one's own: four signals, importance, and whose turn it is."""

import hashlib
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from justenough.errors import InputError
from justenough.studies.heavystats.world import OUTCOMES, SIGNALS

GROUP = "conversation"
COLUMNS = (*SIGNALS, OUTCOMES[0], GROUP)
MOST_ROWS = 100_000_000
LARGEST = 1e50  # a fourth power of it, summed over all rows, is still a number
FINEST = 1e-7  # of a column's size; below that its fourth moments are rounding
DEPENDENT = 1e-10


@dataclass(frozen=True, eq=False)
class Table:
    """Turns of conversations, sorted by conversation.

    Attributes:
        values: (n, 5) float64: the four signals and importance.
        unit: (n,) number of each turn's conversation, from 0.
        name: Of the file.
    """

    values: NDArray[np.float64]
    unit: NDArray[np.intp]
    name: str

    @property
    def digest(self) -> str:
        """Digest (BLAKE2b, 128 bits) of the rows as they are sorted."""
        h = hashlib.blake2b(np.ascontiguousarray(self.values).tobytes(), digest_size=16)
        h.update(np.ascontiguousarray(self.unit, np.int64).tobytes())
        return h.hexdigest()

    @property
    def conversations(self) -> int:
        """How many there are."""
        return int(self.unit[-1]) + 1


def read_table(path: Path) -> Table:
    """Read a table from Parquet, CSV, or an .npz with one array for each column.

    Args:
        path: Columns `decay`, `surprise`, `relevance`, `habituation`, `importance` (numbers) and
            `conversation` (any key); others are ignored. Rows come in any order.

    Raises:
        InputError: No such file, no such columns, values that are not finite numbers, a column
            that never changes or whose size drowns its changes, signals or importance that
            follow exactly from the others, fewer than 30 conversations, or none of two turns.
    """
    if not path.is_file():
        raise InputError(f"no table at {str(path)!r}; give a .parquet, .csv or .npz file")
    columns = _npz(path) if path.suffix == ".npz" else _arrow(path)
    numbers = [_numbers(path, name, columns[name]) for name in COLUMNS[:-1]]
    lengths = sorted({len(column) for column in numbers})
    if len(lengths) > 1:
        raise InputError(
            f"columns of {path.name} have {' and '.join(map(str, lengths))} rows; give each row "
            "one value of each"
        )
    keys = np.asarray(columns[GROUP])
    if keys.dtype.kind == "O" and all(isinstance(k, str) for k in keys):
        keys = keys.astype(str)
    if keys.shape != (lengths[0],) or keys.dtype.kind not in "iuUS":
        raise InputError(
            f"column {GROUP!r} of {path.name} must hold one whole number or text for each row"
        )
    if keys.dtype.kind in "US" and not all(keys):
        row = int(np.flatnonzero(keys == keys.dtype.type())[0])
        raise InputError(f"column {GROUP!r} of {path.name} is empty in row {row}; name each one")
    unit = np.unique(keys, return_inverse=True)[1].reshape(-1)
    groups = int(unit.max()) + 1
    if groups < 30:
        many = "1 conversation" if groups == 1 else f"{groups} conversations"
        raise InputError(f"{path.name} holds {many}; an interval needs 30 or more")
    if groups == len(keys):
        raise InputError(
            f"every conversation of {path.name} has one turn; a conversation must group its turns"
        )
    _independent(path, numbers)
    order = np.argsort(unit, kind="stable")
    return Table(np.column_stack(numbers)[order], unit[order], path.name)


def _numbers(path: Path, name: str, given: Any) -> NDArray[np.float64]:
    found = np.asarray(given)
    if found.dtype.kind not in "iufb":
        raise InputError(f"column {name!r} of {path.name} holds values that are no numbers")
    column = found.astype(np.float64)
    if column.ndim != 1 or not 0 < len(column) <= MOST_ROWS:
        raise InputError(
            f"column {name!r} of {path.name} has shape {column.shape}; it must be (n,), n from 1 "
            f"to {MOST_ROWS:,}"
        )
    if not np.isfinite(column).all():
        row = int(np.flatnonzero(~np.isfinite(column))[0])
        raise InputError(
            f"column {name!r} of {path.name} is {column[row]} in row {row}; every value must be "
            "finite"
        )
    if column.min() == column.max():
        raise InputError(
            f"column {name!r} of {path.name} is {column[0]:g} in every row; a constant column "
            "has no correlation with anything"
        )
    size, span = float(np.abs(column).max()), float(column.max() - column.min())
    if size > LARGEST or span < max(1 / LARGEST, FINEST * size):
        raise InputError(
            f"column {name!r} of {path.name} reaches {size:.3g} and spans {span:.3g}; shift and "
            "scale it, as to 0 to 1"
        )
    return column


def _independent(path: Path, numbers: list[NDArray[np.float64]]) -> None:
    """Refuse columns that follow from the others without error: no weights are best then."""
    between = np.atleast_2d(np.corrcoef(np.stack(numbers)))
    for many, what in ((len(SIGNALS), "the signals"), (len(numbers), "signals and importance")):
        if np.linalg.eigvalsh(between[:many, :many])[0] < DEPENDENT:
            raise InputError(
                f"{what} of {path.name} depend on each other linearly without any error; leave "
                "out or mend the column that follows from the others"
            )


def _npz(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as f, np.load(f, allow_pickle=False) as held:
            missing = [c for c in COLUMNS if c not in held.files]
            if missing:
                raise InputError(_lacks(path, missing, held.files))
            return {c: held[c] for c in COLUMNS}
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as e:
        raise InputError(f"{path.name} cannot be read as .npz arrays: {_first_line(e)}") from e


def _arrow(path: Path) -> dict[str, Any]:
    """By Apache Arrow, whose readers are made for files from strangers."""
    if path.suffix not in (".parquet", ".csv"):
        raise InputError(f"{path.name!r} ends in {path.suffix!r}; give .parquet, .csv or .npz")
    try:
        import pyarrow as pa
        from pyarrow import csv, parquet
    except ImportError as e:
        raise InputError(
            f"reading {path.suffix} needs pyarrow: pip install justenough[stats]"
        ) from e
    try:
        if path.suffix == ".csv":
            found = csv.read_csv(path)
        else:
            found = parquet.read_table(path, columns=_present(parquet.read_schema(path).names))
        missing = [c for c in COLUMNS if c not in found.column_names]
        if missing:
            raise InputError(_lacks(path, missing, found.column_names))
        for c in COLUMNS:
            if found.column_names.count(c) > 1:
                raise InputError(f"{path.name} has more than one column {c!r}; name each once")
        return {c: found.column(c).to_numpy(zero_copy_only=False) for c in COLUMNS}
    except (OSError, pa.ArrowException) as e:
        raise InputError(f"{path.name} cannot be read as a table: {_first_line(e)}") from e


def _present(names: list[str]) -> list[str]:
    return [c for c in COLUMNS if c in names]


def _lacks(path: Path, missing: list[str], found: list[str]) -> str:
    return (
        f"{path.name} has no column {', '.join(missing)}; it has: {', '.join(found[:12])}. Give "
        f"{', '.join(COLUMNS)}"
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or ["unreadable"])[0][:200]
