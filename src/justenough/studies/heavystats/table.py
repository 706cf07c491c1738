"""A table of one's own: four signals, importance, and whose turn it is."""

import hashlib
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
            that never changes, fewer than 30 conversations, or no conversation of two turns.
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
    unit = np.unique(keys, return_inverse=True)[1].reshape(-1)
    groups = int(unit.max()) + 1
    if groups < 30:
        raise InputError(f"{path.name} holds {groups} conversations; an interval needs 30 or more")
    if groups == len(keys):
        raise InputError(
            f"every conversation of {path.name} has one turn; a conversation must group its turns"
        )
    order = np.argsort(unit, kind="stable")
    return Table(np.column_stack(numbers)[order], unit[order], path.name)


def _numbers(path: Path, name: str, given: Any) -> NDArray[np.float64]:
    try:
        column = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError) as e:
        raise InputError(f"column {name!r} of {path.name} holds values that are no numbers") from e
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
    return column


def _npz(path: Path) -> dict[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as held:
            missing = [c for c in COLUMNS if c not in held.files]
            if missing:
                raise InputError(_lacks(path, missing, held.files))
            return {c: held[c] for c in COLUMNS}
    except (OSError, ValueError, KeyError) as e:
        raise InputError(f"{path.name} cannot be read as .npz arrays: {e}") from e


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
