"""Pieces of a search in other processes, so that they run side by side and may crash alone.

A job is a name, a function of this package and data. Local workers are fresh interpreters (never
forks: runtimes keep threads) that live for many jobs; `justenough.search.ray_workers` has Ray's.
"""

import functools
import importlib
import inspect
import io
import pickle
import re
import signal
import threading
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import IO, Any, Literal, Protocol, Self

from numpy.typing import NDArray

from justenough.errors import InputError, JustEnoughError

Array = NDArray[Any]
Refer = Callable[[object], Any]  # what travels in place of a shared array; None for the rest
MOST_WORKERS = 256
MOST_THREADS = 1024
PREFIX = "justenough-"
_FUNCTION = re.compile(r"justenough(\.[a-z]\w*)+:[A-Za-z]\w*(\.[a-z]\w*)?", re.ASCII)
_RAY = re.compile(r"ray(://[\w.:\[\]-]+:\d{1,5})?", re.ASCII)


@dataclass(frozen=True)
class Job:
    """One piece of work.

    Attributes:
        name: For progress and messages; no two jobs of a map share one.
        function: `module:function` or `module:Class.method` of this package, so that nothing
            but names and data travel.
        arguments: By name (`self` for a method): arrays, bytes, numbers, strings and frozen
            dataclasses of this package. A job writes into none of them.

    Raises:
        InputError: `function` is not of this package.

    >>> Job("one", "justenough.stats.proportion:clopper_pearson_lower",
    ...     {"successes": 9, "n": 9, "alpha": 0.05}).name
    'one'
    """

    name: str
    function: str
    arguments: Mapping[str, Any]

    def __post_init__(self) -> None:
        if not _FUNCTION.fullmatch(self.function):
            raise InputError(
                f"job {self.name!r} asks for {self.function!r}; "
                "a job names a function as 'justenough.room.module:function'"
            )


@dataclass(frozen=True)
class Failed:
    """What came of a job that returned nothing.

    Attributes:
        kind: `crashed`, its process died each time; `error`, it raised; `timed out`.
        message: A sentence; of an `InputError` its own.
    """

    kind: Literal["crashed", "error", "timed out"]
    message: str


class Workers(Protocol):
    """Something that runs jobs. Use it with `with`, or close it."""

    def share(self, *arrays: Array) -> None:
        """Hand arrays over once; a job that holds one of these very objects gets it uncopied.

        Wherever in the arguments it is. Workers see it read-only, as it is now.
        """

    def map(
        self, jobs: Sequence[Job], *, timeout_s: float | None = None
    ) -> Iterator[tuple[str, Any]]:
        """Yield (name, what the job returned or `Failed`) as jobs end, each job once.

        Leaving the loop stops the jobs that are under way.

        Args:
            jobs: What to do; each starts as soon as a worker is free.
            timeout_s: Seconds that one job may take, its wait for a worker not counted.

        Raises:
            InputError: Equal names, a bad `timeout_s`, another map under way, workers that are
                closed, or no worker that can be had.
        """

    def close(self) -> None:
        """Stop what runs and give everything back; closing twice does nothing."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def open_workers(
    spec: str | int | None = None, *, threads: int = 1, folder: Path | None = None
) -> Workers:
    """Workers as `--workers` asks for them.

    Args:
        spec: A number of local processes (None: one), `ray` for a cluster that runs here or a
            new one on this machine, or `ray://HOST:PORT`.
        threads: Threads that libraries use in one worker; jobs pass it on to their sessions.
        folder: Where local workers find shared arrays, as files that are gone after `close`, and
            that the workers delete when this process is killed; the system's folder for
            temporary files where None.

    Raises:
        InputError: Another `spec`; Ray is not installed or cannot be reached; `threads` or
            `folder` cannot be used.
    """
    if not 1 <= threads <= MOST_THREADS:
        raise InputError(f"threads={threads} is outside 1 to {MOST_THREADS}")
    text = "1" if spec is None else str(spec)
    if _RAY.fullmatch(text):
        from justenough.search.ray_workers import open_ray

        return open_ray(text, threads=threads)
    if not re.fullmatch("[0-9]{1,4}", text) or not 1 <= int(text) <= MOST_WORKERS:
        raise InputError(
            f"workers={text!r} would have to be a number of processes from 1 to {MOST_WORKERS}, "
            "ray or ray://HOST:PORT"
        )
    from justenough.search.local_workers import open_local

    return open_local(int(text), threads=threads, folder=folder)


class InProcess:
    """Runs jobs here, one after the other: nothing is copied, and a crash ends this process.

    `timeout_s` has no effect, for nothing could end the job.
    """

    def share(self, *arrays: Array) -> None:
        """Nothing to do."""

    def map(
        self, jobs: Sequence[Job], *, timeout_s: float | None = None
    ) -> Iterator[tuple[str, Any]]:
        """As `Workers.map`."""
        check_map(jobs, timeout_s)
        return ((job.name, _tried(functools.partial(_call, job))) for job in jobs)

    def close(self) -> None:
        """Nothing to do."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def check_map(jobs: Sequence[Job], timeout_s: float | None) -> None:
    """Raise `InputError` for equal names or a time limit that is none."""
    seen: set[str] = set()
    for job in jobs:
        if job.name in seen:
            raise InputError(f"two jobs are named {job.name!r}; names within a map differ")
        seen.add(job.name)
    if timeout_s is not None and not timeout_s > 0:
        raise InputError(f"timeout_s={timeout_s} must be more than 0")


class Worker(Protocol):
    """One process elsewhere. Only `kill` may be called while another call is under way."""

    @property
    def alive(self) -> bool:
        """Whether a process was started and, as far as is known, lives."""

    def start(self) -> None:
        """Be ready for a job, however long that takes; `InputError` where it cannot be."""

    def run(self, job: Job, timeout_s: float) -> Any:
        """What the job returned, or `Failed`; the process need not live afterwards."""

    def kill(self) -> None:
        """End the process at once."""

    def stop(self) -> None:
        """End the process and give back what it held."""


class Pool:
    """Jobs over several workers: the worker that is ready first takes the next job.

    So a job is lost with its worker only, and tried again when the others are done.

    Args:
        workers: Started when first needed.
        tries: How often a job may lose its worker before it counts as crashed.
        alone: Whether a further try has the machine to itself, in a fresh process: a job that
            was ended for want of memory then finds what the others held.
        share: What `share` does with an array.
        on_close: What is left to do when all workers have stopped.
    """

    def __init__(
        self,
        workers: Sequence[Worker],
        *,
        tries: int,
        alone: bool,
        share: Callable[[Array], None],
        on_close: Callable[[], None],
    ) -> None:
        self._workers = workers
        self._tries = tries
        self._alone = alone
        self._share = share
        self._on_close = on_close
        self._closed = False
        # Weak, so that a caller who breaks out of the loop ends the map.
        self._under_way: weakref.ref[Generator[tuple[str, Any]]] | None = None

    def share(self, *arrays: Array) -> None:
        """As `Workers.share`."""
        self._check_open()
        for array in arrays:
            self._share(array)

    def map(
        self, jobs: Sequence[Job], *, timeout_s: float | None = None
    ) -> Iterator[tuple[str, Any]]:
        """As `Workers.map`."""
        self._check_open()
        check_map(jobs, timeout_s)
        before = self._under_way() if self._under_way else None
        if before is not None and inspect.getgeneratorstate(before) != inspect.GEN_CLOSED:
            raise InputError("these workers are in the middle of a map; finish or close it first")
        limit = threading.TIMEOUT_MAX
        found = self._map(jobs, min(timeout_s, limit) if timeout_s is not None else limit)
        self._under_way = weakref.ref(found)
        return found

    def close(self) -> None:
        """As `Workers.close`."""
        running = self._under_way() if self._under_way else None
        if running is not None:
            running.close()
        if not self._closed:
            self._closed = True
            self._stop()
            self._on_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise InputError("these workers are closed; open new ones")

    def _stop(self) -> None:
        for worker in self._workers:
            worker.stop()

    def _map(self, jobs: Sequence[Job], timeout_s: float) -> Generator[tuple[str, Any]]:
        for tried in range(1, self._tries + 1):
            crashed = []
            alone = self._alone and tried > 1
            for together in [[job] for job in jobs] if alone else [jobs]:
                if alone:
                    self._stop()
                for job, outcome in self._round(together, timeout_s):
                    if not isinstance(outcome, Failed) or outcome.kind != "crashed":
                        yield job.name, outcome
                    elif tried < self._tries:
                        crashed.append(job)
                    else:
                        said = f"{outcome.message} (tried {tried} times)"
                        yield job.name, replace(outcome, message=said)
            jobs = crashed

    def _round(self, jobs: Sequence[Job], timeout_s: float) -> Generator[tuple[Job, Any]]:
        """Each job once. A turn is a thread, for there is no portable wait on many processes."""
        waiting = deque(jobs)
        done: SimpleQueue[tuple[Worker, Job | None, Any]] = SimpleQueue()
        turns: dict[int, tuple[Worker, threading.Thread]] = {}

        def begin(worker: Worker) -> None:
            arguments = (worker, waiting, done, timeout_s)
            turns[id(worker)] = (worker, threading.Thread(target=_turn, args=arguments))
            turns[id(worker)][1].daemon = True
            turns[id(worker)][1].start()

        left = len(jobs)
        try:
            # Living ones first: a new one of a cluster may wait for its place for ever.
            spare = deque(sorted(self._workers, key=lambda w: not w.alive))
            for _ in jobs[: len(spare)]:
                begin(spare.popleft())
            while left:
                worker, job, outcome = done.get()
                turns.pop(id(worker))[1].join()
                if job is None:
                    if waiting and spare:
                        begin(spare.popleft())
                    elif not turns:
                        raise outcome
                    continue
                left -= 1
                if waiting:
                    begin(worker)
                yield job, outcome
        finally:
            waiting.clear()
            for worker, thread in turns.values():
                worker.kill()
                thread.join(10)
                if not thread.is_alive():
                    worker.stop()  # or it would be taken for one that lives


def _turn(
    worker: Worker,
    waiting: deque[Job],
    done: SimpleQueue[tuple[Worker, Job | None, Any]],
    timeout_s: float,
) -> None:
    """Start a worker, then take a job; whatever happens is put into `done`."""
    if hasattr(signal, "pthread_sigmask"):  # a process started here leaves Ctrl-C to its parent
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    job: Job | None = None
    outcome: Any
    try:
        worker.start()
        job = waiting.popleft()
        outcome = worker.run(job, timeout_s)
    except Exception as e:
        outcome = e if job is None else Failed("error", sentence(e))
    done.put((worker, job, outcome))


def sentence(e: BaseException) -> str:
    """What an error says, on one line; one of ours as it is."""
    if isinstance(e, JustEnoughError):
        return str(e)
    said = (str(e).strip().splitlines() or [""])[0][:300]
    return f"{type(e).__name__}: {said}" if said else type(e).__name__


def _tried(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except (Exception, SystemExit) as e:
        return Failed("error", sentence(e))


def _call(job: Job) -> Any:
    module, _, path = job.function.partition(":")
    found: Any = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    if not str(getattr(found, "__module__", None)).startswith("justenough."):
        raise InputError(f"{job.function!r} was only imported there; name where it is defined")
    return found(**job.arguments)


class _Packer(pickle.Pickler):
    def __init__(self, file: IO[bytes], refer: Refer) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self.persistent_id = refer  # type: ignore[method-assign]


class _Unpacker(pickle.Unpickler):
    def __init__(self, file: IO[bytes], find: Callable[[Any], Array]) -> None:
        super().__init__(file)
        self.persistent_load = find  # type: ignore[method-assign]


def packed(job: Job, refer: Refer) -> bytes:
    """`job` as bytes for a process of ours, with references in place of shared arrays."""
    out = io.BytesIO()
    _Packer(out, refer).dump(job)
    return out.getvalue()


def answer(payload: bytes, find: Callable[[Any], Array]) -> bytes:
    """Do a job that `packed` wrote: what it returned, or `Failed`, as bytes for our parent."""
    outcome = _tried(lambda: _call(_Unpacker(io.BytesIO(payload), find).load()))
    try:
        return pickle.dumps(outcome, pickle.HIGHEST_PROTOCOL)
    except Exception as e:  # pickle raises whatever the object's own code raises
        failed = Failed("error", f"what it returned cannot be sent: {sentence(e)}")
        return pickle.dumps(failed, pickle.HIGHEST_PROTOCOL)
