"""ncnn as a runtime, on the CPU and through Vulkan: for cards that have no CUDA.

What `justenough.subjects.ncnn_convert` writes is opened here. ncnn may crash on a file or in a
driver; a caller who trusts neither opens the file in a process that may die.
"""

import functools
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from justenough.errors import InputError
from justenough.subjects.ncnn_files import Note, Port, check_graph, read_network

Array = NDArray[Any]
DEVICES = ("cpu", "vulkan")
SWITCHES = {
    "fp32": (),
    "fp16": ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic"),
    "bf16": ("use_bf16_packed", "use_bf16_storage"),
}
PROBE_SECONDS = 60.0
_PROBE = (
    "import json, ncnn\n"
    "names = [ncnn.get_gpu_info(i).device_name() for i in range(ncnn.get_gpu_count())]\n"
    "print(json.dumps(names))"
)
_ANSWER = (
    "import sys\n"
    "from justenough.subjects.ncnn_session import answer_file\n"
    "answer_file(*sys.argv[1:])"
)


@functools.cache
def _ncnn() -> Any:
    """The package, its OpenMP told not to spin: waiting threads would spoil other timings."""
    if importlib.util.find_spec("ncnn") is None:
        raise InputError("ncnn is not installed; install justenough[vulkan] to use it")
    name = "OMP_WAIT_POLICY"
    before = os.environ.get(name)
    os.environ.setdefault(name, "passive")  # read once, when the library is loaded
    try:
        return importlib.import_module("ncnn")
    finally:
        if before is None:
            del os.environ[name]


def unknown_layers(kinds: Sequence[str]) -> list[str]:
    """Those layer types that this ncnn does not have, sorted."""
    ncnn = _ncnn()
    return sorted({k for k in kinds if ncnn.layer_to_index(k) < 0})


def vulkan_devices() -> list[str]:
    """Names of the devices that ncnn can reach through Vulkan; empty where there is none.

    A broken driver may take its process down, so another process looks.
    """
    drivers = tuple(os.environ.get(k, "") for k in ("VK_DRIVER_FILES", "VK_ICD_FILENAMES"))
    return list(_probed(drivers))


@functools.cache
def _probed(drivers: tuple[str, ...]) -> tuple[str, ...]:
    if importlib.util.find_spec("ncnn") is None:
        return ()
    try:
        said = subprocess.run(
            [sys.executable, "-c", _PROBE],
            capture_output=True, check=True, timeout=PROBE_SECONDS, env=_same_imports(),
        ).stdout  # fmt: skip
        return tuple(map(str, json.loads(said.splitlines()[-1])))
    except (subprocess.SubprocessError, OSError, ValueError, IndexError):
        return ()


def _same_imports() -> dict[str, str]:
    """The environment of a child that finds the same packages."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}


def versions() -> dict[str, str]:
    """Versions of the packages behind this runtime, those that are installed."""
    return {n: version(n) for n in ("ncnn", "pnnx") if importlib.util.find_spec(n) is not None}


@dataclass(frozen=True, eq=False)
class NcnnSession:
    """A network in ncnn that looks like an ONNX Runtime session.

    ncnn answers one row at a time here, so the time of a batch is that of its rows. Calls
    from several threads wait for each other.

    Attributes:
        net: The live network.
        note: Its ports.
        device: Name of the device, as Vulkan gives it, or `cpu`.
        in_force: ncnn's switches for low precision that the device left on.
    """

    net: Any
    note: Note
    device: str
    in_force: tuple[str, ...]
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def get_inputs(self) -> Sequence[Port]:
        """Inputs in the order of the ONNX file."""
        return self.note.inputs

    def get_outputs(self) -> Sequence[Port]:
        """Outputs in the order of the ONNX file."""
        return self.note.outputs

    def get_overridable_initializers(self) -> Sequence[Port]:
        """Nothing: the converter folds defaults in."""
        return ()

    def run(self, names: Sequence[str] | None, feed: Mapping[str, Array]) -> list[Array]:
        """Answer a batch, row after row.

        Args:
            names: Outputs wanted, all in order where it is None.
            feed: Rows (n, ...) by input name, of any real type; they become float32.

        Returns:
            float32 (n, ...) per output.

        Raises:
            InputError: An unknown or missing name, rows of another shape or number, or ncnn
                gives up.
        """
        rows = self._rows(feed)
        wanted = self._wanted(names)
        with self._lock:
            answers = [self._answer(k, rows, wanted) for k in range(len(rows[0]))]
        return [
            np.array([a[k] for a in answers], np.float32).reshape(-1, *port.row)
            for k, port in enumerate(wanted)
        ]

    def _rows(self, feed: Mapping[str, Array]) -> list[Array]:
        names = [p.name for p in self.note.inputs]
        if sorted(feed) != sorted(names):
            raise InputError(f"got inputs {sorted(feed)}; the network takes {sorted(names)}")
        out = []
        for port in self.note.inputs:
            value = np.asarray(feed[port.name])
            if value.dtype.kind not in "fiub" or value.shape[1:] != port.row or not value.ndim:
                raise InputError(
                    f"input {port.name!r} takes numbers of shape ['any', "
                    f"{', '.join(map(str, port.row))}], got {value.dtype} {value.shape}"
                )
            out.append(
                np.ascontiguousarray(value, np.float32).reshape(len(value), *(port.row or (1,)))
            )
        if len({len(v) for v in out}) > 1:
            raise InputError(f"inputs have {[len(v) for v in out]} rows; each needs as many")
        return out

    def _wanted(self, names: Sequence[str] | None) -> list[Port]:
        ports = {p.name: p for p in self.note.outputs}
        for name in names or ():
            if name not in ports:
                raise InputError(f"the network has no output {name!r}; it has: {', '.join(ports)}")
        return [ports[n] for n in names or ports]

    def _answer(self, k: int, rows: Sequence[Array], wanted: Sequence[Port]) -> list[Array]:
        ncnn = _ncnn()
        extractor = self.net.create_extractor()
        for port, value in zip(self.note.inputs, rows, strict=True):
            row = value[k]
            # Cloned while `row` lives: ncnn neither keeps the array alive nor spares it, and
            # a layer that works in place crashes on memory that is not ncnn's own.
            if extractor.input(port.blob, ncnn.Mat(row).clone()) != 0:
                raise InputError(f"ncnn does not take input {port.name!r}")
        out = []
        for port in wanted:
            code, answer = extractor.extract(port.blob)
            got = answer.w * answer.h * answer.d * answer.c if code == 0 else 0
            if got != np.prod(port.row, dtype=int):
                raise InputError(
                    f"ncnn gives up at output {port.name!r} (code {code}, {got} values where "
                    f"{list(port.row)} are due)"
                )
            out.append(np.array(answer.numpy(), np.float32).reshape(-1))
        return out


def open_ncnn(
    path: Path, *, threads: int = 1, precision: str = "fp32", device: str = "cpu"
) -> NcnnSession:
    """Load a network that `convert` wrote.

    Args:
        path: Its folder, or its `.param` file with the other two beside it.
        threads: Threads of a call on the CPU.
        precision: `fp32` switches everything narrower off; `fp16` and `bf16` switch on what
            the device has of storage and arithmetic. Weights stored in fp16 stay so rounded.
        device: `cpu`, or `vulkan`, the device that ncnn prefers among those there.

    Raises:
        InputError: The files are not sound, the device or the precision is not to be had, or
            ncnn cannot load the network.
    """
    if device not in DEVICES or precision not in SWITCHES:
        raise InputError(
            f"ncnn has no {precision!r} on {device!r}; it has {', '.join(SWITCHES)} on "
            f"{' and '.join(DEVICES)}"
        )
    if threads < 1:
        raise InputError(f"threads={threads} must be 1 or more")
    text, weights, note = read_network(path)
    ncnn = _ncnn()
    missing = unknown_layers([kind for kind, _ in check_graph(text, path.name)])
    if missing:
        raise InputError(f"ncnn {versions()['ncnn']} has no layer {', '.join(missing)}")
    if device == "vulkan" and not (vulkan_devices() and ncnn.get_gpu_count()):
        raise InputError("no Vulkan device is found; install its driver, or use ncnn on the cpu")
    net = _configured(ncnn, threads, precision, device)
    if net.load_param_mem(text) != 0 or net.load_model(str(weights)) != 0:
        raise InputError(f"ncnn {versions()['ncnn']} cannot load {path.name}")
    in_force = tuple(s for s in SWITCHES[precision] if getattr(net.opt, s))
    if precision != "fp32" and not in_force:
        raise InputError(f"the {device} device has nothing of {precision} for ncnn; use fp32")
    if device == "cpu":
        return NcnnSession(net, note, "cpu", in_force)
    if not net.opt.use_vulkan_compute or net.vulkan_device() is None:
        raise InputError("ncnn fell back to the cpu; use it there, or another driver")
    name = ncnn.get_gpu_info(ncnn.get_default_gpu_index()).device_name()
    return NcnnSession(net, note, str(name), in_force)


def _configured(ncnn: Any, threads: int, precision: str, device: str) -> Any:
    net = ncnn.Net()
    net.opt.num_threads = threads
    net.opt.use_vulkan_compute = device == "vulkan"
    for kind, switches in SWITCHES.items():
        for switch in switches:
            setattr(net.opt, switch, kind == precision)
    return net


def answer_file(
    network: str, rows: str, answers: str, precision: str = "fp32", device: str = "cpu"
) -> None:
    """Answer the arrays of one `.npz` into another, both in order; for a process of its own."""
    session = open_ncnn(Path(network), precision=precision, device=device)
    with np.load(rows, allow_pickle=False) as held:
        feed = {p.name: held[f"arr_{k}"] for k, p in enumerate(session.get_inputs())}
    np.savez(answers, *session.run(None, feed))


def answers_apart(
    network: Path,
    inputs: Mapping[str, Array],
    *,
    precision: str = "fp32",
    device: str = "cpu",
    timeout_s: float = 600.0,
) -> dict[str, Array]:
    """Answer `inputs` in another process, which may crash without harm.

    Args:
        network: Folder or `.param` file.
        inputs: Rows (n, ...) by name.
        precision: As `open_ncnn` takes it.
        device: As `open_ncnn` takes it.
        timeout_s: Seconds until the process is ended.

    Raises:
        InputError: The process crashed, took too long, or says what is wrong.
    """
    note = read_network(network)[2]
    with tempfile.TemporaryDirectory() as folder:
        rows, answers = Path(folder, "rows.npz"), Path(folder, "answers.npz")
        np.savez(rows, *(inputs[p.name] for p in note.inputs))
        words = [str(network), str(rows), str(answers), precision, device]
        try:
            ended = subprocess.run(
                [sys.executable, "-c", _ANSWER, *words],
                capture_output=True, timeout=timeout_s, env=_same_imports(), check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as e:
            raise InputError(f"ncnn took more than {timeout_s:g} s on {network.name}") from e
        if ended.returncode != 0 or not answers.is_file():
            said = ended.stderr.decode(errors="replace").strip().rpartition("InputError: ")[2]
            raise InputError(
                said if ended.returncode > 0 and said
                else f"ncnn crashed on {network.name} (exit code {ended.returncode})"
            )  # fmt: skip
        with np.load(answers, allow_pickle=False) as held:
            return {p.name: held[f"arr_{k}"] for k, p in enumerate(note.outputs)}
