"""Sessions: a model file loaded in a runtime, called a batch at a time."""

import importlib.util
import re
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import onnxruntime as ort
from numpy.typing import NDArray

from justenough.core.subject import ONNXRUNTIME, Runtime
from justenough.errors import InputError

Array = NDArray[Any]


class Face(Protocol):
    """An input or an output: `type` as ONNX Runtime writes it, `tensor(float)`."""

    @property
    def name(self) -> str:
        """Name in the model."""

    @property
    def shape(self) -> Sequence[int | str | None]:
        """Sizes; a name or None where a size is free."""

    @property
    def type(self) -> str:
        """Element type."""


class Session(Protocol):
    """What this project uses of ONNX Runtime's session; other runtimes are made to look so."""

    def get_inputs(self) -> Sequence[Face]:
        """Inputs in order."""

    def get_outputs(self) -> Sequence[Face]:
        """Outputs in order."""

    def get_overridable_initializers(self) -> Sequence[Face]:
        """Inputs that have a default."""

    def run(self, names: Sequence[str] | None, feed: dict[str, Array]) -> list[Array]:
        """Answer one batch; outputs by `names`, all in order where it is None."""


def open_session(path: Path | str, runtime: Runtime = ONNXRUNTIME, *, threads: int = 1) -> Session:
    """Load a model file in a runtime.

    Raises:
        InputError: The runtime is not installed, has no such device or precision here, or
            cannot load the file.
    """
    if runtime.name != "ncnn":
        _check_kind(runtime)
    if runtime.name == "onnxruntime":
        found: Session = session(path, threads=threads, device=runtime.device)
        return found
    missing = missing_part(runtime)
    if missing:
        raise InputError(missing)
    if runtime.name == "openvino":
        from justenough.subjects.openvino_session import open_openvino

        return open_openvino(Path(path), threads=threads, precision=runtime.precision)
    from justenough.subjects.ncnn_session import open_ncnn

    return open_ncnn(
        Path(path), threads=threads, precision=runtime.precision, device=runtime.device
    )


def _check_kind(runtime: Runtime) -> None:
    """Refuse what a runtime would not do but leave unsaid: a certificate would name it."""
    if runtime.name == "onnxruntime" and runtime.precision != "fp32":
        raise InputError(
            f"ONNX Runtime computes a file as it is written, not in {runtime.precision}; "
            "name it without a precision"
        )
    if runtime.name == "openvino" and runtime.device != "cpu":
        raise InputError(f"OpenVINO is used on the cpu here, not on {runtime.device!r}")


EXTRAS = {"openvino": "openvino", "ncnn": "vulkan"}


def missing_part(runtime: Runtime) -> str:
    """Why `runtime` cannot be had here, as a sentence; empty where its package is installed."""
    if runtime.name == "onnxruntime" or importlib.util.find_spec(runtime.name) is not None:
        return ""
    extra = EXTRAS[runtime.name]
    return f"{runtime.name} is not installed; install justenough[{extra}] to use it"


_NOISE = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : (Load model from .*? failed:\s*)?")


def first_line(e: Exception) -> str:
    """What another library's error says, without its own file names."""
    said = _NOISE.sub("", (str(e).strip() or type(e).__name__).splitlines()[0])
    return said[:300].strip() or type(e).__name__


PROVIDERS = {
    "cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "dml": "DmlExecutionProvider",
}  # fmt: skip


def devices() -> tuple[str, ...]:
    """Devices beside the cpu that the installed ONNX Runtime has a provider for."""
    there = ort.get_available_providers()
    return tuple(d for d, provider in PROVIDERS.items() if d != "cpu" and provider in there)


def session(path: Path | str, *, threads: int = 1, device: str = "cpu") -> ort.InferenceSession:
    """An ONNX Runtime session with pinned thread count, nothing spinning, and no log noise.

    Spinning threads of one session spoil the timing of another in the same process.
    """
    provider = PROVIDERS.get(device)
    if provider not in ort.get_available_providers():
        raise InputError(
            f"ONNX Runtime here has no provider for {device!r}; it has: "
            f"{', '.join(d for d, p in PROVIDERS.items() if p in ort.get_available_providers())}"
        )
    o = ort.SessionOptions()
    o.intra_op_num_threads, o.inter_op_num_threads, o.log_severity_level = threads, 1, 4
    if threads > 1:
        o.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(str(path), o, providers=[provider])
    except Exception as e:  # ONNX Runtime raises a type of its own for every failure kind
        raise InputError(
            f"ONNX Runtime {ort.__version__} cannot load {Path(path).name}: {first_line(e)}"
        ) from e


def described(runtime: Runtime) -> dict[str, Any]:
    """What a certificate says of a runtime: name, version, device and precision."""
    out: dict[str, Any] = {
        "name": runtime.name, "precision": runtime.precision, "device": runtime.device,
    }  # fmt: skip
    if runtime.name == "onnxruntime":
        return {**out, "version": ort.__version__, "provider": PROVIDERS[runtime.device]}
    return {**out, "version": version(runtime.name)}
