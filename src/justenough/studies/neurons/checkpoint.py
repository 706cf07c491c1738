"""Where a run stands, in one file that is whole at every moment, whoever kills the process."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from justenough.errors import InputError

Arrays = Mapping[str, NDArray[Any]]
Head = dict[str, Any]
_HEAD, _DIGEST = "head", "digest"


def write_arrays(path: Path, head: Mapping[str, Any], arrays: Arrays) -> None:
    """Write `head` (JSON) and `arrays`, with a digest of them, whole or not at all.

    Raises:
        InputError: An array needs pickling.
    """
    text = np.frombuffer(json.dumps(head).encode(), np.uint8)
    whole = {_HEAD: text, **arrays}
    whole[_DIGEST] = _digest(whole)
    part = path.with_name(path.name + ".part")
    with part.open("wb") as f:
        cast(Any, np.savez)(f, allow_pickle=False, **whole)
        f.flush()
        os.fsync(f.fileno())
    part.replace(path)
    _sync(path.parent)


def read_head(path: Path) -> Head:
    """The head alone, quickly: its digest is not compared.

    Raises:
        InputError: As `read_arrays`.
    """
    try:
        with path.open("rb") as f, np.load(f, allow_pickle=False) as z:
            head = json.loads(z[_HEAD].tobytes())
    except Exception as e:  # as below
        raise _damaged(path, e) from e
    return _checked(path, head)


def read_arrays(path: Path) -> tuple[Head, dict[str, NDArray[Any]]]:
    """What `write_arrays` wrote.

    Raises:
        InputError: The file is damaged, or something else.
    """
    try:
        with path.open("rb") as f, np.load(f, allow_pickle=False) as z:
            arrays = {name: z[name] for name in z.files}
        digest = arrays.pop(_DIGEST)
        if not np.array_equal(digest, _digest(arrays)):
            raise ValueError("its digest is another")
        head = json.loads(arrays.pop(_HEAD).tobytes())
    except Exception as e:  # zipfile, zlib, NumPy and JSON have many ways to say it
        raise _damaged(path, e) from e
    return _checked(path, head), arrays


def _checked(path: Path, head: Any) -> Head:
    if not isinstance(head, dict):
        raise _damaged(path, ValueError("its head is another"))
    return head


def _damaged(path: Path, e: Exception) -> InputError:
    why = (str(e).strip() or type(e).__name__).splitlines()[0]
    return InputError(
        f"{path.name} in {path.parent.name!r} is damaged or is something else ({why}); put back "
        "a copy, or give a new output folder with -o"
    )


def _digest(arrays: Arrays) -> NDArray[np.uint8]:
    """Digest (BLAKE2b, 256 bits) of names, types, shapes and values."""
    h = hashlib.blake2b(digest_size=32)
    for name, array in arrays.items():
        h.update(json.dumps([name, array.dtype.str, array.shape]).encode())
        h.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return np.frombuffer(h.digest(), np.uint8)


def _sync(folder: Path) -> None:
    """Make a renaming last, where the system can: after a power cut the file is the new one."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
