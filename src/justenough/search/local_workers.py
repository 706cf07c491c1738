"""Workers on this machine: fresh interpreters that talk over pipes and map shared arrays."""

import functools
import mmap
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from justenough.errors import InputError
from justenough.search.workers import Failed, Job, Pool, answer, packed, sentence

Array = NDArray[Any]
PREFIX = "justenough-"
# What the libraries that jobs use read when they are loaded; PYTHON_CPU_COUNT from Python 3.13.
_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
    "PYTHON_CPU_COUNT",
)
_CHILD = (
    "import sys; folder, *sys.path[:] = sys.argv[1:]; "
    "from justenough.search.local_workers import serve; serve(folder)"
)


def open_local(n: int, *, threads: int, folder: Path | None) -> Pool:
    """`n` workers on this machine; arguments and errors as for `open_workers`."""
    shared = SharedFiles(folder)
    return Pool(
        [_Process(threads, shared) for _ in range(n)],
        tries=2,
        alone=True,
        share=shared.add,
        on_close=shared.close,
    )


class SharedFiles:
    """Shared arrays as files that local workers map: no copy in memory, read when touched.

    Not in shared memory, of which a container often has little and where the lack of it is a
    SIGBUS and no error. An array that is a read-only map of a file already stays where it is.
    """

    def __init__(self, folder: Path | None) -> None:
        try:
            self._folder = tempfile.TemporaryDirectory(prefix=PREFIX, dir=folder)
        except OSError as e:
            raise InputError(
                f"shared arrays cannot be kept in {str(folder or tempfile.gettempdir())!r}: "
                f"{e.strerror}; choose another folder"
            ) from e
        self._held: dict[int, tuple[Array, Any]] = {}

    @property
    def path(self) -> Path:
        """The folder of the files."""
        return Path(self._folder.name)

    def add(self, array: Array) -> None:
        """Keep `array`, (n, ...) of any type but objects."""
        if id(array) in self._held or not array.size or not array.ndim or array.dtype.hasobject:
            return  # too small to matter, or nothing that a file could hold: travels with a job
        mapped = _mapped_already(array)
        where = mapped or (str(self.path / f"{len(self._held)}.rows"), 0)
        if not mapped:
            try:
                array.tofile(where[0])
            except OSError as e:
                raise InputError(
                    f"{array.nbytes / 1e6:.0f} MB of shared rows cannot be written to "
                    f"{str(self.path.parent)!r} ({sentence(e)}); make room or choose another "
                    "folder"
                ) from e
        self._held[id(array)] = (array, (*where, array.dtype, array.shape))

    def refer(self, thing: object) -> Any:
        """File, offset, type and shape of an array that was added; None for all else."""
        return self._held[id(thing)][1] if id(thing) in self._held else None

    def close(self) -> None:
        """Delete the files."""
        self._held.clear()
        self._folder.cleanup()


def _mapped_already(array: Array) -> tuple[str, int] | None:
    """File and offset that `array` is a read-only map of."""
    source = array if isinstance(array, np.memmap) else array.base
    if not isinstance(source, np.memmap) or not isinstance(source.base, mmap.mmap):
        return None  # the offset of a slice is that of the whole
    same = (
        source.__array_interface__["data"][0] == array.__array_interface__["data"][0]
        and source.shape == array.shape
        and source.dtype == array.dtype
        and array.flags.c_contiguous
    )
    if not same or source.mode != "r" or source.filename is None:
        return None
    return str(source.filename), source.offset


@functools.cache
def _mapped(path: str, offset: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    return np.asarray(np.memmap(path, dtype, "r", offset, shape))


class _Process:
    """A worker on this machine, `Worker`, that talks over its standard input and output.

    It gets no `__main__` of ours, so that a user's script needs no guard.
    """

    def __init__(self, threads: int, shared: SharedFiles) -> None:
        self._environment = dict.fromkeys(_THREADS, str(threads))
        self._shared = shared
        self._process: subprocess.Popen[bytes] | None = None
        self._said: IO[bytes] | None = None

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        if self.alive:
            return
        self.stop()
        paths = [str(Path(p or ".").absolute()) for p in sys.path]
        try:
            self._said = tempfile.TemporaryFile("a+b")  # noqa: SIM115 (lives as the process does)
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _CHILD, str(self._shared.path), *paths],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                env={**os.environ, **self._environment},
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )
        except OSError as e:
            if self._said is not None:
                self._said.close()
            raise InputError(f"no worker process can be started: {e.strerror}") from e
        if self._exchange(None) is None:
            raise InputError(f"no worker process can be started: {self._end()}")

    def run(self, job: Job, timeout_s: float) -> Any:
        payload = packed(job, self._shared.refer)
        assert self._said is not None
        os.ftruncate(self._said.fileno(), 0)
        late = threading.Event()

        def expire() -> None:
            late.set()
            self.kill()

        clock = threading.Timer(timeout_s, expire)
        clock.daemon = True
        clock.start()
        reply = self._exchange(payload)
        clock.cancel()
        clock.join()
        end = self._end() if reply is None or late.is_set() else ""
        if reply is not None:
            return pickle.loads(reply)
        if late.is_set():
            return Failed("timed out", f"it took more than {timeout_s:g} s")
        return Failed("crashed", end)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    def stop(self) -> None:
        self.kill()
        self._end()

    def _exchange(self, payload: bytes | None) -> bytes | None:
        """Send a job, or nothing, and wait for the reply: None where the process ended."""
        assert self._process and self._process.stdin and self._process.stdout
        try:
            if payload is not None:
                _send(self._process.stdin, payload)
            return _receive(self._process.stdout)
        except OSError:
            return None

    def _end(self) -> str:
        """End the process, and say how it ended."""
        if self._process is None or self._said is None:
            return ""
        if self._process.stdout and self._process.stdin:
            # A process that closed its output is about to end in its own way.
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(0 if self._process.poll() is not None else 0.2)
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()
            with suppress(OSError):  # what was never read is written again at close
                self._process.stdin.close()
        words = _last_words(self._said)
        self._said.close()
        code, self._process, self._said = self._process.returncode, None, None
        return f"its process {_ending(code)}" + (f"; it said last: {words}" if words else "")


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = ", which is how want of memory ends" if name == "SIGKILL" else ""
    return f"was ended by {name}{hint}"


def _last_words(said: IO[bytes]) -> str:
    size = said.seek(0, os.SEEK_END)
    said.seek(max(0, size - 4096))
    lines = said.read().decode("utf-8", "replace").split("\n")
    last = next((line for line in reversed(lines) if line.strip()), "")
    return "".join(c for c in last if c.isprintable()).strip()[:200]


def _send(stream: IO[bytes], body: bytes) -> None:
    stream.write(len(body).to_bytes(8, "little"))
    stream.write(body)
    stream.flush()


def _receive(stream: IO[bytes]) -> bytes | None:
    head = stream.read(8)
    size = int.from_bytes(head, "little")
    body = stream.read(size) if len(head) == 8 else b""
    return body if len(head) == 8 and len(body) == size else None


def serve(folder: str) -> None:
    """What a local worker does all its life: one job after the other, until its parent is gone.

    Args:
        folder: Its parent's shared files, which it deletes where the parent could not.
    """
    # Copies that no process of a job's inherits; a job's own input is empty, its prints are noise.
    orders, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    waiting: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_listen, args=(orders, waiting, folder), daemon=True).start()
    _send(replies, b"ready")
    while True:
        _send(replies, answer(waiting.get(), lambda reference: _mapped(*reference)))


def _listen(orders: IO[bytes], waiting: SimpleQueue[bytes], folder: str) -> None:
    """Take orders in a thread, so that a parent's death ends a job that is under way."""
    while (body := _receive(orders)) is not None:
        waiting.put(body)
    if Path(folder).name.startswith(PREFIX):
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)
