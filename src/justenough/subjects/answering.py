"""Answers of a model file on rows, as a job for another process or another machine."""

import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import onnx
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from justenough.core.rows import Column
from justenough.core.subject import Runtime
from justenough.errors import InputError
from justenough.subjects import ncnn_files
from justenough.subjects.onnx_model import Array, OnnxModel, _tensors


def weights_beside(path: Path) -> tuple[Path, ...]:
    """Files beside a model file that hold its weights, in name order.

    An ONNX file names them itself: exporters write `model.onnx.data`, `model.onnx_data` and
    names of their own.
    """
    if path.suffix == ".param":
        return ncnn_files.files_of(path)[1:]
    if path.suffix == ".xml":
        bare = path.with_suffix(".bin")
        return (bare,) if bare.is_file() else ()
    model = onnx.load(str(path), format="protobuf", load_external_data=False)
    names = {ExternalDataInfo(t).location for t in _tensors(model) if uses_external_data(t)}
    return tuple(path.parent / n for n in sorted(names))


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
