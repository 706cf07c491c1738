"""Answers of a model file on rows, as a job for another process or another machine."""

import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from justenough.core.rows import Column
from justenough.core.subject import Runtime
from justenough.errors import InputError
from justenough.subjects.onnx_model import Array, OnnxModel, weights_beside


def files_of(path: Path) -> dict[str, bytes]:
    """A model file and the weights beside it, by relative name: all another machine needs."""
    files = (path, *weights_beside(path))
    return {p.relative_to(path.parent).as_posix(): p.read_bytes() for p in files}


def answer(
    files: Mapping[str, bytes],
    name: str,
    runtime: Runtime,
    inputs: Mapping[str, Column],
    threads: int,
    batch: int,
    at_once: int,
) -> dict[str, Array]:
    """Outputs (n, ...) of the file `name` among `files` on `inputs` (n, ...).

    Args:
        files: As `files_of` gives them.
        name: The model's own file among them.
        runtime: What runs it.
        inputs: Rows.
        threads: Threads of the session.
        batch: Rows of a call.
        at_once: Calls side by side.
    """
    with tempfile.TemporaryDirectory() as folder:
        for file, content in files.items():
            where = PurePosixPath(file)
            if where.is_absolute() or ".." in where.parts:
                raise InputError(f"a job brings a file {file!r}, outside its own folder")
            (Path(folder) / where).parent.mkdir(parents=True, exist_ok=True)
            (Path(folder) / where).write_bytes(content)
        model = OnnxModel(Path(folder) / Path(name).name, threads, batch, runtime, at_once)
        return model.run(inputs)
