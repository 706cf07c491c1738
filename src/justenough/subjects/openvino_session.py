"""OpenVINO as a runtime on the CPU: ONNX files and its own IR, in float32 or bfloat16."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino.frontend import FrontEndManager

from justenough.errors import InputError
from justenough.subjects.sessions import first_line

Array = NDArray[Any]
HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
CAPABILITIES = {"fp32": "FP32", "bf16": "BF16", "fp16": "FP16"}
TYPES = {
    "f32": "float", "f64": "double", "f16": "float16", "u8": "uint8", "i8": "int8",
    "u16": "uint16", "i16": "int16", "i32": "int32", "i64": "int64", "u32": "uint32",
    "u64": "uint64", "boolean": "bool",
}  # fmt: skip
READERS = {".onnx": "onnx", ".xml": "ir"}
SINK = "/sink_port_0"


def precisions() -> tuple[str, ...]:
    """The precisions that OpenVINO computes in on this processor, float32 first."""
    known = ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return tuple(p for p, name in CAPABILITIES.items() if name in known)


@dataclass(frozen=True)
class _Face:
    name: str
    shape: Sequence[int | str | None]
    type: str


@dataclass(frozen=True)
class OpenVinoSession:
    """A compiled model that looks like an ONNX Runtime session; calls from threads take turns.

    Attributes:
        inputs, outputs: Names in the ONNX file's order.
        request: Of the model compiled for one stream, so that there is nothing to gain from two.
    """

    inputs: tuple[_Face, ...]
    outputs: tuple[_Face, ...]
    request: ov.InferRequest
    _turn: threading.Lock = field(default_factory=threading.Lock, compare=False)

    def get_inputs(self) -> Sequence[_Face]:
        """Inputs in order."""
        return self.inputs

    def get_outputs(self) -> Sequence[_Face]:
        """Outputs in order."""
        return self.outputs

    def get_overridable_initializers(self) -> Sequence[_Face]:
        """Nothing: OpenVINO folds defaults in."""
        return ()

    def run(self, names: Sequence[str] | None, feed: dict[str, Array]) -> list[Array]:
        """Answer one batch; outputs by `names`, all in order where it is None."""
        with self._turn:
            self.request.infer(
                {k: np.ascontiguousarray(feed[i.name]) for k, i in enumerate(self.inputs)}
            )
            # Copied: the request owns its tensors and the next call writes into them.
            got = [self.request.get_output_tensor(k).data.copy() for k in range(len(self.outputs))]
        found = dict(zip((o.name for o in self.outputs), got, strict=True))
        return [found[n] for n in names or found]

    def seconds_by_node(self) -> dict[str, float]:
        """Seconds of each executed node in the last call, by OpenVINO's names."""
        return {
            e.node_name: e.real_time.total_seconds()
            for e in self.request.get_profiling_info()
            if e.real_time.total_seconds() > 0
        }


def read_model(path: Path) -> ov.Model:
    """Read an ONNX file or an IR (`.xml` with its `.bin`) into OpenVINO's form."""
    if path.suffix not in READERS:
        raise InputError(f"OpenVINO takes .onnx and .xml files, got {path.name}")
    if path.suffix == ".xml" and not path.with_suffix(".bin").is_file():
        raise InputError(
            f"{path.name} needs its weights, {path.with_suffix('.bin').name}, beside it"
        )
    if not path.is_file():
        raise InputError(f"no model file at {str(path)!r}; OpenVINO takes .onnx and .xml files")
    try:
        # By content OpenVINO would go on to try the readers of six frameworks on it.
        if not FrontEndManager().load_by_framework(READERS[path.suffix]).supported(str(path)):
            raise InputError(f"OpenVINO {ov.__version__} cannot load {path.name}: it is damaged")
        return ov.Core().read_model(path)
    except InputError:
        raise
    except Exception as e:  # OpenVINO raises RuntimeErrors that name its own source lines
        raise InputError(f"OpenVINO {ov.__version__} cannot load {path.name}: {_said(e)}") from e


def open_openvino(
    path: Path, *, threads: int = 1, precision: str = "fp32", profile: bool = False
) -> OpenVinoSession:
    """Compile a file for the CPU, on one stream of `threads` threads.

    Args:
        path: ONNX file, or IR.
        threads: Threads of a call.
        precision: Arithmetic of what is not quantized: `fp32`, or `bf16` where the processor
            computes in it; refused elsewhere, for OpenVINO would fall back in silence.
        profile: Keep the time of each node, for `seconds_by_node`.

    Raises:
        InputError: The precision is not to be had, or OpenVINO cannot load the file.
    """
    if precision not in precisions():
        raise InputError(
            f"OpenVINO does not compute in {precision} on this processor; it has: "
            f"{', '.join(precisions())}"
        )
    model = read_model(path)
    settings = {
        "INFERENCE_PRECISION_HINT": HINTS[precision],
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        # Two pinned sessions of one process could be pinned to one core.
        "ENABLE_CPU_PINNING": False,
        "PERF_COUNT": profile,
    }
    try:
        compiled = ov.Core().compile_model(model, "CPU", settings)
    except Exception as e:  # as above
        raise InputError(
            f"OpenVINO {ov.__version__} cannot compile {path.name}: {_said(e)}"
        ) from e
    return OpenVinoSession(
        tuple(_face(p, p.get_node().get_friendly_name()) for p in model.inputs),
        tuple(
            _face(p, p.get_node().get_friendly_name().removesuffix(SINK)) for p in model.outputs
        ),
        compiled.create_infer_request(),
    )


def _face(port: Any, name: str) -> _Face:
    sizes = [d.get_length() if d.is_static else None for d in port.get_partial_shape()]
    kind = port.get_element_type().get_type_name()
    return _Face(name, sizes, f"tensor({TYPES.get(kind, kind)})")


def _said(e: Exception) -> str:
    """The last sentence of OpenVINO's error: those before it name its own source lines."""
    lines = [s.strip() for s in str(e).splitlines() if s.strip()]
    kept = [s for s in lines if not s.startswith(("Exception from", "Check '", "[ "))]
    return first_line(RuntimeError(kept[0] if kept else (lines or [type(e).__name__])[-1]))
