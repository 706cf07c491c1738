"""Reads the arrays of case files: small ones into memory, large ones row by row from disk."""

import os
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from justenough.core.rows import BLOCK_BYTES, IN_MEMORY_BYTES, Column, Rows, row_bytes
from justenough.errors import InputError

Array = NDArray[Any]
Stamp = tuple[int, int, int]
GAP_BYTES = 2**14
LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def stamp(found: os.stat_result) -> Stamp:
    """What tells that a file is still the one that was opened: its number, size and time."""
    return found.st_ino, found.st_size, found.st_mtime_ns


@dataclass(frozen=True, eq=False)
class RowFile:
    """Rows of a C-ordered array inside a file, read when they are asked for.

    They are read and not mapped: a file that is cut short meanwhile is a sentence and not a
    bus error, and what was read does not count as the program's memory for ever.

    Attributes:
        path: The file, opened for each read.
        offset: Bytes before the first row.
        shape: Shape of all rows, (n, ...).
        dtype: Type of a value.
        stamp: What the file was; another one is refused.
    """

    path: Path
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    stamp: Stamp

    def __getitem__(self, rows: NDArray[np.intp]) -> Array:
        """The rows at `rows` (k,), each 0 to n - 1.

        Raises:
            InputError: The file is gone, cannot be read, or is not what it was.
        """
        out = np.empty((len(rows), *self.shape[1:]), self.dtype)
        try:
            with self.path.open("rb", buffering=0) as f:
                if stamp(os.fstat(f.fileno())) != self.stamp:
                    raise InputError(_changed(self.path))
                for picked in _runs(rows, row_bytes(self)):
                    self._fill(f, rows, picked, out)
        except OSError as e:
            raise InputError(
                f"cannot read {self.path.name} any more ({e.strerror}); leave the cases where "
                "they are until the run has ended, and call again"
            ) from e
        return out

    def _fill(self, f: IO[bytes], rows: NDArray[np.intp], picked: Array, out: Array) -> None:
        """Read the span of the rows at places `picked` in one go, and put them in place."""
        first, last = int(rows[picked[0]]), int(rows[picked[-1]])
        start = int(picked[0])
        whole = np.array_equal(rows[picked] - first, picked - start)
        whole = whole and len(picked) == last - first + 1
        span = (last - first + 1, *self.shape[1:])
        block = out[start : start + len(picked)] if whole else np.empty(span, self.dtype)
        f.seek(self.offset + first * row_bytes(self))
        left = block.reshape(-1).view(np.uint8).data
        while left:
            got: int = f.readinto(left)  # type: ignore[attr-defined]
            if not got:
                raise InputError(_changed(self.path))
            left = left[got:]
        if not whole:
            out[picked] = block[rows[picked] - first]


def _runs(rows: NDArray[np.intp], size: int) -> Sequence[NDArray[np.intp]]:
    """Places of `rows` in runs that are worth one read each, in the order of the file.

    Small gaps are read over, for another read costs more; a run spans at most one block.
    """
    order = np.argsort(rows, kind="stable")
    at = rows[order] * size
    cut = (np.diff(at) - size > GAP_BYTES) | (np.diff(at // BLOCK_BYTES) > 0)
    return np.split(order, np.flatnonzero(cut) + 1) if len(rows) else []


def _changed(path: Path) -> str:
    return (
        f"{path.name} changed while it was read; leave the cases alone until the run has ended, "
        "and call again"
    )


def read_arrays(path: Path, input_names: Sequence[str]) -> dict[str, Column]:
    """The arrays in an `.npz` or `.npy` file, by name.

    Up to IN_MEMORY_BYTES an array is read at once. A larger one stays on disk if it was saved
    plainly and in C order; the checksum of the archive is compared once, when it is opened.
    One that is compressed or in Fortran order has to fit into a quarter of the memory.

    Raises:
        InputError: The file is missing, unreadable, not NumPy's, or too large to be unpacked.
    """
    if path.suffix not in (".npz", ".npy"):
        raise InputError(f"cases file {path.name!r} ends in {path.suffix!r}; give .npz or .npy")
    try:
        if path.suffix == ".npy":
            if len(input_names) != 1:
                raise InputError(
                    f"{path.name} holds one array but the model has the inputs "
                    f"{sorted(input_names)}; give an .npz with an array for each"
                )
            return {input_names[0]: _read_npy(path)}
        if not zipfile.is_zipfile(path):
            with path.open("rb") as f:
                if f.read(6) == b"\x93NUMPY":
                    raise InputError(f"{path.name} is one array named .npz; rename it to .npy")
            raise ValueError("it is cut short or was not written by numpy.savez")
        return _read_npz(path)
    except InputError:
        raise
    except Exception as e:  # zipfile, zlib and NumPy have many ways to say that a file is damaged
        said = (str(e).strip() or type(e).__name__).splitlines()[0]
        why = "it holds pickled objects" if "Object arrays" in said else said
        raise InputError(
            f"cannot read {path.name}: {why}; save plain numeric arrays with numpy.savez"
        ) from e


def _read_npy(path: Path) -> Column:
    with path.open("rb") as f:
        found = os.fstat(f.fileno())
        if found.st_size > IN_MEMORY_BYTES:
            shape, fortran, dtype = _header(f)
            if not fortran:
                rows = RowFile(path.absolute(), f.tell(), shape, dtype, stamp(found))
                return _fitting(rows, found.st_size - f.tell())
            must_fit(found.st_size, path.name, "is in Fortran order")
            f.seek(0)
        return np.lib.format.read_array(f, allow_pickle=False)


def _read_npz(path: Path) -> dict[str, Column]:
    with path.open("rb") as f, np.load(f, allow_pickle=False) as z:
        opened = stamp(os.fstat(f.fileno()))
        arrays = {name: _member(path, z, name, opened) for name in z.files}
    for name, value in arrays.items():
        if not isinstance(value, np.ndarray | Rows):
            raise ValueError(f"{name!r} in it is not an array")
    return arrays


def _member(path: Path, z: Any, name: str, opened: Stamp) -> Column:
    """An array of an archive; a large one stays on disk where it can."""
    packed: zipfile.ZipFile = z.zip
    known = packed.NameToInfo
    info = known.get(name + ".npy") or known[name]
    if info.file_size <= IN_MEMORY_BYTES:
        found: Array = z[name]
        return found
    what = f"{name!r} in {path.name}"
    if info.compress_type != zipfile.ZIP_STORED:
        must_fit(info.file_size, what, "is compressed")
        return np.asarray(z[name])
    with packed.open(info) as f:
        shape, fortran, dtype = _header(f)
        if fortran:
            must_fit(info.file_size, what, "is in Fortran order")
            return np.asarray(z[name])
        before = f.tell()
        while f.read(2**20):  # to its end, where zipfile compares the checksum
            pass
    at = _start(path, info) + before
    return _fitting(RowFile(path.absolute(), at, shape, dtype, opened), info.file_size - before)


def _start(path: Path, info: zipfile.ZipInfo) -> int:
    """Where the bytes of a member begin: after its local header, a name and an extra field."""
    with path.open("rb") as f:
        f.seek(info.header_offset)
        local = f.read(30)
    if len(local) < 30 or local[:4] != b"PK\x03\x04":
        raise ValueError("its directory points at no file")
    name, extra = (int.from_bytes(local[k : k + 2], "little") for k in (26, 28))
    return info.header_offset + 30 + name + extra


def _header(f: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(f)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read is None:
        raise ValueError(f"version {version} of NumPy's format holds no plain array")
    shape, fortran, dtype = read(f)
    if dtype.hasobject:
        raise ValueError("Object arrays cannot be loaded when allow_pickle=False")
    return shape, fortran and len(shape) > 1, dtype


def _fitting(rows: RowFile, held: int) -> Rows:
    if not rows.shape or rows.shape[0] * row_bytes(rows) > held:
        raise ValueError(f"it is cut short: its header says {rows.shape} {rows.dtype}")
    return Rows.of(rows)


def must_fit(size: int, what: str, why: str) -> None:
    """Refuse to unpack `size` bytes where they are more than a quarter of the memory."""
    if size > memory_bytes() // 4:
        raise InputError(
            f"{what} {why} and takes {size / 2**30:.1f} GiB of memory, too much here; save it "
            "with numpy.savez as a C-ordered array, and it is read from disk row by row"
        )


def memory_bytes() -> int:
    """Bytes of memory that this machine, or the container around this process, has."""
    known = []
    if hasattr(os, "sysconf"):
        known.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for limit in LIMITS:
        with suppress(OSError, ValueError):  # no such limit, or "max"
            known.append(int(Path(limit).read_text(encoding="utf-8")))
    return min(known, default=2**32)
