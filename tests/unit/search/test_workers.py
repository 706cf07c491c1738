import importlib.util
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import numpy_helper as nh
from onnx.parser import parse_model

from justenough.errors import InputError
from justenough.search import local_workers
from justenough.search.workers import (
    Failed,
    InProcess,
    Job,
    Pool,
    Workers,
    answer,
    open_workers,
    packed,
)
from justenough.subjects.onnx_model import OnnxModel

Array = NDArray[Any]
VECTOR = "justenough.stats.checks:finite_vector"  # gives its values back as float64


class Late:
    """A value that is computed where it is unpickled: what a job does to its process."""

    def __init__(self, code: str) -> None:
        self.code = code

    def __reduce__(self) -> Any:
        return eval, (self.code,)


def job(name: str, values: Any) -> Job:
    return Job(name, VECTOR, {"name": "x", "values": values})


def dies(how: str) -> str:
    return f"__import__('os').{how}"


def once(mark: Path, first: str, then: str) -> Late:
    """`first` where `mark` is not there yet, `then` afterwards."""
    path = f"__import__('pathlib').Path({str(mark)!r})"
    return Late(f"{then} if {path}.exists() else ({path}.touch(), {first})")


PID = "[float(__import__('os').getpid())]"
GENTLE = [job(str(k), np.arange(k + 1.0)) for k in range(7)]


@pytest.fixture(scope="module")
def two() -> Iterator[Workers]:
    with open_workers("2") as workers:
        yield workers


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def until(true: Any, seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.02)
    return bool(true())


# --- the same answers everywhere --------------------------------------------------------------


def test_answers_are_those_of_this_process(two: Workers) -> None:
    expected = dict(InProcess().map(GENTLE))
    for workers in (two, open_workers(None)):
        found = list(workers.map(GENTLE))
        assert sorted(n for n, _ in found) == sorted(expected)
        for name, value in found:
            np.testing.assert_array_equal(value, expected[name])
    workers.close()
    assert list(two.map([])) == []


def network(path: Path) -> OnnxModel:
    rng = np.random.default_rng(0)
    model = parse_model(
        '<ir_version: 8, opset_import: ["": 17]> '
        "g (float[n,16] x) => (float[n,4] y) { h = MatMul(x, a)\nr = Relu(h)\ny = MatMul(r, b) }"
    )
    for name, shape in (("a", (16, 64)), ("b", (64, 4))):
        model.graph.initializer.append(nh.from_array(rng.normal(size=shape).astype("f"), name))
    onnx.save(model, path)
    return OnnxModel(path, threads=1, batch=8)


@pytest.mark.slow
def test_a_network_gives_the_same_bits(tmp_path: Path) -> None:
    model = network(tmp_path / "m.onnx")
    rows = np.random.default_rng(1).normal(size=(300, 16)).astype("f")
    run = "justenough.subjects.onnx_model:OnnxModel.run"
    jobs = [Job(str(k), run, {"self": model, "inputs": {"x": rows}}) for k in range(3)]
    expected = OnnxModel(model.path, threads=1, batch=8).run({"x": rows})
    for n in (1, 2):
        with open_workers(n) as workers:
            workers.share(rows)
            found = dict(workers.map(jobs))
        assert sorted(found) == ["0", "1", "2"]
        assert all(v["y"].tobytes() == expected["y"].tobytes() for v in found.values())
    assert all(v["y"].tobytes() == expected["y"].tobytes() for _, v in InProcess().map(jobs))


def test_a_script_needs_no_guard(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from justenough.search.workers import Job, open_workers\n"
        f"with open_workers(1) as w: print(list(w.map([Job('a', {VECTOR!r}, "
        "{'name': 'x', 'values': [1.0]})])))\n"
    )
    out = subprocess.run(
        [sys.executable, "-W", "error", script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert out.stdout == "[('a', array([1.]))]\n"
    assert out.stderr == ""


def test_libraries_get_the_threads() -> None:
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    asked = Late(f"[float(__import__('os').environ[n]) for n in {names}]")
    with open_workers(1, threads=3) as workers:
        ((_, found),) = workers.map([job("a", asked)])
    np.testing.assert_array_equal(found, [3, 3, 3, 3])


def test_what_a_job_prints_and_reads_disturbs_nobody(two: Workers) -> None:
    noise = "(__import__('os').write(1, b'x' * 999), print('y'), len(input())) or 0"
    ((_, found),) = two.map([job("a", Late(noise))])
    assert found == Failed("error", "EOFError: EOF when reading a line")
    ((_, found),) = two.map([job("a", Late("print('y') or [2.0]"))])
    np.testing.assert_array_equal(found, [2])


# --- jobs that fail ---------------------------------------------------------------------------


@pytest.mark.slow
def test_errors_are_a_sentence_and_end_no_worker() -> None:
    jobs = [
        job("nan", np.array([1, np.nan])),
        job("zero", Late("1 / 0")),
        job("exit", Late("__import__('sys').exit(4)")),
        job("unsent", lambda: 0),
        Job("unreturned", "justenough.stats.proportion:units_needed", {"no": 1}),
        Job("missing", "justenough.stats.checks:nothing", {}),
        Job("absent", "justenough.nowhere:nothing", {}),
        Job("outside", "justenough.search.workers:replace", {}),
    ]
    with open_workers(1) as workers:
        before, found, after = (
            dict(workers.map(each))
            for each in ([job("a", Late(PID))], jobs, [job("a", Late(PID))])
        )
    assert before["a"] == after["a"]
    assert {f.kind for f in found.values()} == {"error"}
    said = {name: f.message for name, f in found.items()}
    assert said["nan"] == "x is nan in row 1; every value must be finite"
    assert said["zero"] == "ZeroDivisionError: division by zero"
    assert said["exit"] == "SystemExit: 4"
    assert "pickle" in said["unsent"].lower()
    assert said["unreturned"].startswith("TypeError: units_needed()")
    assert said["missing"].startswith("AttributeError: module 'justenough.stats.checks'")
    assert said["absent"] == "ModuleNotFoundError: No module named 'justenough.nowhere'"
    assert said["outside"] == (
        "'justenough.search.workers:replace' was only imported there; name where it is defined"
    )
    here = dict(InProcess().map([jobs[0], *jobs[4:]]))
    assert all(here[name] == found[name] for name in here)


def test_a_result_that_cannot_be_sent_is_an_error() -> None:
    generator = Job("a", "justenough.subjects.measure:batches", {"inputs": {}, "size": 1})
    failed = pickle.loads(answer(packed(generator, lambda _: None), lambda _: np.zeros(0)))
    assert failed.kind == "error"
    assert failed.message.startswith("what it returned cannot be sent: TypeError: cannot pickle")


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 2])
def test_a_crash_takes_only_its_own_job(n: int) -> None:
    crashes = {
        "exit": (dies("_exit(3)"), "ended with exit code 3"),
        "fault": ("__import__('ctypes').string_at(0)", "was ended by SIGSEGV"),
        "abort": (
            "(__import__('os').write(2, b'a\\n\\x1b[31mlast word\\n\\n'), " + dies("abort())"),
            "was ended by SIGABRT; it said last: [31mlast word",
        ),
        "killed": (
            dies("kill(__import__('os').getpid(), 9)"),
            "was ended by SIGKILL, which is how want of memory ends",
        ),
    }
    jobs = [job(name, Late(code)) for name, (code, _) in crashes.items()]
    jobs = [GENTLE[0], *jobs, *GENTLE[1:]]
    with open_workers(n) as workers:
        found = list(workers.map(jobs))
    assert Counter(name for name, _ in found) == Counter(j.name for j in jobs)
    assert {name for name, _ in found[-4:]} == set(crashes), "crashed jobs come last"
    for name, value in found:
        if name in crashes:
            said = f"its process {crashes[name][1]} (tried 2 times)"
            assert value == Failed("crashed", said)
        else:
            np.testing.assert_array_equal(value, np.arange(int(name) + 1))


@pytest.mark.slow
def test_a_second_try_is_alone_in_a_fresh_process(tmp_path: Path) -> None:
    if not shutil.which("pgrep"):
        pytest.skip("no pgrep here to list the children of a process")
    children = (
        f"len(__import__('subprocess').run(['pgrep', '-P', '{os.getpid()}'], "
        "capture_output=True).stdout.split())"
    )
    siblings = f"[float(__import__('os').getpid()), float({children})]"
    others = eval(children)  # of another test's workers
    with open_workers(2) as workers:
        before = {v[0] for _, v in workers.map([job(str(k), Late(siblings)) for k in range(8)])}
        tricky = job("again", once(tmp_path / "mark", dies("_exit(1)"), siblings))
        found = dict(workers.map([tricky, *GENTLE]))
        assert not any(isinstance(v, Failed) for v in found.values())
        pid, together = found["again"]
        assert pid not in before
        assert together == others + 1
        assert len(dict(workers.map(GENTLE))) == len(GENTLE), "and the pool goes on"


def test_a_worker_that_died_while_idle_is_replaced() -> None:
    with open_workers(1) as workers:
        ((_, pid),) = workers.map([job("a", Late(PID))])
        os.kill(int(pid[0]), signal.SIGKILL)
        assert until(lambda: not alive(int(pid[0])))
        ((_, other),) = workers.map([job("a", Late(PID))])
    assert pid[0] != other[0]


@pytest.mark.slow
def test_a_job_may_take_too_long(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    sleep = (
        f"(__import__('pathlib').Path({str(mark)!r}).write_text(str(__import__('os').getpid())), "
        "__import__('time').sleep(100))"
    )
    with open_workers(1) as workers:
        found = list(workers.map([job("slow", Late(sleep)), *GENTLE], timeout_s=2))
        assert found[0] == ("slow", Failed("timed out", "it took more than 2 s"))
        assert [n for n, _ in found[1:]] == [j.name for j in GENTLE]
        assert not alive(int(mark.read_text()))


@pytest.mark.slow
def test_leaving_the_loop_stops_the_jobs(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    path = f"__import__('pathlib').Path({str(mark)!r})"
    sleep = Late(
        f"({path}.write_text(str(__import__('os').getpid())), __import__('time').sleep(100))"
    )
    with open_workers(2) as workers:
        for _name, _value in workers.map([job("sleep", sleep), *GENTLE]):
            assert until(lambda: mark.exists() and mark.read_text())
            break
        assert until(lambda: not alive(int(mark.read_text())))
        assert len(dict(workers.map(GENTLE))) == len(GENTLE)


def test_workers_that_cannot_start_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_workers, "_CHILD", "raise SystemExit('out of luck')")
    with (
        open_workers(2) as workers,
        pytest.raises(InputError, match="no worker process can be started: its process ended"),
    ):
        list(workers.map(GENTLE))
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with (
        open_workers(1) as workers,
        pytest.raises(InputError, match="can be started: No such file or directory"),
    ):
        list(workers.map(GENTLE))


# --- what is asked for ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec",
    ["rayy", "0", "-3", "", "1.5", "257", "\uff19", "ray://", "ray://host", "Ray", "2 ", 0, 1.0],
)
def test_bad_specs(spec: Any) -> None:
    with pytest.raises(InputError, match="would have to be a number of processes from 1 to 256"):
        open_workers(spec)


@pytest.mark.parametrize("spec", ["ray", "ray://127.0.0.1:10001"])
def test_ray_is_an_extra(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs Ray: pip install 'justenough\[ray\]'"):
        open_workers(spec)


def test_bad_threads() -> None:
    with pytest.raises(InputError, match="threads=0 is outside 1 to 1024"):
        open_workers(1, threads=0)


@pytest.mark.parametrize(
    "function",
    [
        "os:_exit",
        "os.path:join",
        "justenough:compress",
        "justenoughx.a:b",
        "justenough.a",
        "justenough.a:_b",
        "justenough.a:b.c.d",
        "justenough.a:b\n",
    ],
)
def test_a_job_names_a_function_of_ours(function: str) -> None:
    with pytest.raises(
        InputError, match=r"names a function as 'justenough\.room\.module:function'"
    ):
        Job("a", function, {})


def test_a_map_is_checked_before_it_runs() -> None:
    with open_workers(1) as workers:
        for each in (workers, InProcess()):
            with pytest.raises(InputError, match="two jobs are named '0'"):
                each.map([GENTLE[0], GENTLE[0]])
            for bad in (0, -1, float("nan")):
                with pytest.raises(InputError, match="must be more than 0"):
                    each.map(GENTLE, timeout_s=bad)
        running = workers.map(GENTLE)
        next(running)
        with pytest.raises(InputError, match="in the middle of a map"):
            workers.map(GENTLE)
        assert len(list(running)) == len(GENTLE) - 1
        running = workers.map(GENTLE)
        next(running)
    assert list(running) == [], "closing ends the map"
    workers.close()
    with pytest.raises(InputError, match="closed; open new ones"):
        workers.map(GENTLE)
    with pytest.raises(InputError, match="closed; open new ones"):
        workers.share(np.zeros(3))


# --- the pool over workers of every temper ----------------------------------------------------


class Moody:
    """A worker in this process that loses jobs as told: crashes left, by name of job."""

    def __init__(self, crashes: Counter[str], starts: bool) -> None:
        self.crashes, self.starts, self.alive = crashes, starts, False

    def start(self) -> None:
        if not self.starts:
            raise InputError("it does not start")
        self.alive = True

    def run(self, job: Job, timeout_s: float) -> Any:
        if self.crashes[job.name]:
            self.crashes[job.name] -= 1
            return Failed("crashed", "it died")
        if job.name == "raises":
            raise ValueError("not sent")
        return job.arguments["value"]

    def kill(self) -> None:
        pass

    def stop(self) -> None:
        self.alive = False


def moody(
    crashes: Sequence[int], starts: Sequence[bool], tries: int, alone: bool
) -> tuple[Pool, list[Job]]:
    left = Counter({str(k): c for k, c in enumerate(crashes)})
    workers = [Moody(left, s) for s in starts]
    jobs = [Job(str(k), VECTOR, {"value": k}) for k in range(len(crashes))]
    nothing: Any = lambda *_: None  # noqa: E731
    return Pool(workers, tries=tries, alone=alone, share=nothing, on_close=nothing), jobs


@given(
    crashes=st.lists(st.integers(0, 4), max_size=12),
    starts=st.lists(st.booleans(), min_size=1, max_size=4),
    tries=st.integers(1, 3),
    alone=st.booleans(),
)
def test_no_job_is_lost_and_none_is_done_twice(
    crashes: list[int], starts: list[bool], tries: int, alone: bool
) -> None:
    pool, jobs = moody(crashes, [*starts, True], tries, alone)
    found = list(pool.map(jobs))  # a worker that cannot start is passed over
    assert sorted(int(n) for n, _ in found) == list(range(len(jobs)))
    for name, value in found:
        if crashes[int(name)] < tries:
            assert value == int(name)
        else:
            assert value == Failed("crashed", f"it died (tried {tries} times)")


def test_a_job_that_cannot_be_sent_is_its_own_failure() -> None:
    pool, _ = moody([], [True], 2, True)
    found = dict(pool.map([Job("raises", VECTOR, {}), Job("b", VECTOR, {"value": 1})]))
    assert found == {"raises": Failed("error", "ValueError: not sent"), "b": 1}
