"""Workers on Ray: actors, each a process somewhere on a cluster.

The same version of this package has to be installed on every machine of the cluster; that is
checked when a worker starts. A worker that is lost with its machine is started elsewhere.
"""

import importlib
import importlib.util
import os
import pickle
import re
import socket
import tempfile
import threading
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from justenough.errors import InputError
from justenough.search.workers import (
    MOST_WORKERS,
    Failed,
    Job,
    Pool,
    answer,
    packed,
    sentence,
)

Array = NDArray[Any]
_ADDRESS = re.compile(r"(?:ray://)?\[?([^/\[\]]+)\]?:(\d{1,5})")
TRIES = 3  # a job may lose its machine, the next one too, and is not to blame


def open_ray(spec: str, *, threads: int) -> Pool:
    """As many workers as the cluster has room for when it is opened.

    Args:
        spec: `ray`, the cluster that this process is connected to or that runs on this machine
            or that `RAY_ADDRESS` names, else a new one on this machine; or `ray://HOST:PORT`.
        threads: CPUs that one worker takes.

    Raises:
        InputError: Ray is not installed, cannot be reached, or has no machine with `threads`
            CPUs.
    """
    needed = ("ray", "grpc") if "://" in spec else ("ray",)
    if any(importlib.util.find_spec(package) is None for package in needed):
        raise InputError(f"workers={spec!r} needs Ray: pip install 'justenough[ray]'")
    # Read when Ray is first loaded. Without the second it prints to standard output when a
    # worker dies, whatever its own logging is set to.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
    ray: Any = importlib.import_module("ray")
    ours = not ray.is_initialized()
    if ours:
        _connect(ray, spec)
    rooms = [
        int(node["Resources"].get("CPU", 0) / threads) for node in ray.nodes() if node["Alive"]
    ]
    if not sum(rooms):
        if ours:
            ray.shutdown()
        raise InputError(
            f"no machine of the Ray cluster has the {threads} CPUs of a worker; "
            "use fewer threads or start Ray with more CPUs"
        )
    shared = SharedObjects(ray)

    def close() -> None:
        shared.close()
        if ours:
            ray.shutdown()

    workers = [_Actor(ray, threads, shared) for _ in range(min(sum(rooms), MOST_WORKERS))]
    return Pool(workers, tries=TRIES, alone=False, share=shared.add, on_close=close)


def _connect(ray: Any, spec: str) -> None:
    # Ray itself tries a cluster that is not there for minutes.
    address = spec if "://" in spec else os.environ.get("RAY_ADDRESS", "")
    found = _ADDRESS.fullmatch(address)
    quiet = {"logging_level": "ERROR", "log_to_driver": False}
    try:
        if found:
            socket.create_connection((found[1], int(found[2])), 10).close()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what they say is said below
            if "://" in spec:
                ray.init(spec, **quiet)
            else:
                fresh = {"address": "local"} if not address and _is_gone() else {}
                ray.init(include_dashboard=False, **fresh, **quiet)
    except Exception as e:  # ray and grpc raise types of their own
        where = f" at {address}" if address != spec and address else ""
        raise InputError(
            f"workers={spec!r} cannot be reached{where} ({sentence(e)}); check that Ray runs "
            "there, and with the RAY_AUTH_MODE that is set here"
        ) from e


def _is_gone() -> bool:
    """Whether the cluster that Ray thinks runs on this machine does not answer.

    A cluster whose process was killed stays on record, and Ray tries it for minutes.
    """
    held = Path(os.environ.get("RAY_TMPDIR", tempfile.gettempdir())) / "ray/ray_current_cluster"
    try:
        found = _ADDRESS.fullmatch(held.read_text().strip())
        if found:
            socket.create_connection((found[1], int(found[2])), 2).close()
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return not found


class Remote:
    """What runs in a worker's process, made into an actor by `ray.remote`."""

    def version(self) -> str:
        """Version of this package there."""
        return version("justenough")

    def answer(self, payload: bytes, *shared: Array) -> bytes:
        """Do a packed job whose references count through `shared`."""
        return answer(payload, shared.__getitem__)


class SharedObjects:
    """Shared arrays in Ray's object store, put there once."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._held: dict[int, tuple[Array, Any]] = {}

    def add(self, array: Array) -> None:
        """Put `array` into the store."""
        if id(array) in self._held or array.dtype.hasobject:
            return
        try:
            self._held[id(array)] = (array, self._ray.put(array))
        except self._ray.exceptions.RayError as e:
            raise InputError(
                f"{array.nbytes / 1e6:.0f} MB of shared rows do not fit into Ray's object store "
                f"({sentence(e)})"
            ) from e

    def find(self, thing: object) -> Any:
        """Ray's reference to an array that was added; None for all else."""
        return self._held[id(thing)][1] if id(thing) in self._held else None

    def close(self) -> None:
        """Let the store forget them."""
        self._held.clear()


class _Actor:
    """A worker on a cluster, `Worker`."""

    def __init__(self, ray: Any, threads: int, shared: SharedObjects) -> None:
        self._ray = ray
        self._made = ray.remote(Remote).options(num_cpus=threads, max_restarts=0)
        self._shared = shared
        self._actor: Any = None

    @property
    def alive(self) -> bool:
        return self._actor is not None

    def start(self) -> None:
        if self.alive:
            return
        self._actor = self._made.remote()
        try:
            there = self._ray.get(self._actor.version.remote())
        except self._ray.exceptions.RayError as e:
            self.stop()
            last = str(e).strip().splitlines()[-1]
            raise InputError(
                f"no worker can be started on Ray ({last[:200]}); justenough "
                f"{version('justenough')} has to be installed on every machine of the cluster"
            ) from e
        if there != version("justenough"):
            self.stop()
            raise InputError(
                f"a machine of the Ray cluster has justenough {there} and this one has "
                f"{version('justenough')}; install the same on all"
            )

    def run(self, job: Job, timeout_s: float) -> Any:
        used: list[Any] = []

        def refer(thing: object) -> int | None:
            reference = self._shared.find(thing)
            if reference is None:
                return None
            used.append(reference)
            return len(used) - 1

        payload = packed(job, refer)
        limit = None if timeout_s >= threading.TIMEOUT_MAX else timeout_s
        try:
            reply = self._ray.get(self._actor.answer.remote(payload, *used), timeout=limit)
        except self._ray.exceptions.GetTimeoutError:
            self.stop()
            return Failed("timed out", f"it took more than {timeout_s:g} s")
        except self._ray.exceptions.RayError:
            self.stop()
            return Failed("crashed", "its process on Ray or the machine under it was lost")
        return pickle.loads(reply)

    def kill(self) -> None:
        actor = self._actor
        if actor is not None:
            self._ray.kill(actor)

    def stop(self) -> None:
        self.kill()
        self._actor = None
