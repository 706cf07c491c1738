"""The run store when things go wrong: killed, full, damaged, taken, read-only."""

import functools
import gc
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from justenough.core import folder_lock
from justenough.core.store import Store
from justenough.errors import InputError

MINE = {"model": "a"}
fcntl = pytest.importorskip("fcntl")


def opened(folder: Path) -> Store:
    return Store(folder / "run.sqlite", MINE)


def value_of(k: int) -> dict[str, Any]:
    """What step `k` records: different for each, and of any size."""
    return {"step": k, "text": "x" * (37 * k % 5000)}


def rows_of(k: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(k).normal(size=(1 + 61 * k % 900, 3))


def run_python(code: str, *args: object) -> "subprocess.Popen[str]":
    """A child that has this module's functions at hand."""
    head = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    return subprocess.Popen(
        [sys.executable, "-c", head + code, *map(str, args)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(folder_lock.__file__).parents[2])},
    )


# Two processes


def refused_second(folder: Path) -> None:
    with pytest.raises(InputError, match=f"another process is at work in '{folder.name}'; wait"):
        opened(folder)


def test_a_second_writer_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.put("plan", 1)
    refused_second(tmp_path)
    first.put("race", 2)
    reader = Store(tmp_path / "run.sqlite")
    assert (reader.get("plan"), reader.get("race")) == (1, 2)
    reader.close()
    first.close()
    again = opened(tmp_path)
    assert again.get("race") == 2
    again.close()
    assert [p.name for p in tmp_path.iterdir()] == ["run.sqlite"]


def test_a_store_that_was_refused_or_forgotten_holds_nothing(tmp_path: Path) -> None:
    opened(tmp_path).close()
    with pytest.raises(InputError, match="a run with another model"):
        Store(tmp_path / "run.sqlite", {"model": "b"})
    forgotten = opened(tmp_path)
    forgotten._db.close()
    del forgotten
    gc.collect()
    opened(tmp_path).close()


def no_locks(number: int, how: int) -> None:
    raise OSError(95, "Operation not supported")


def test_where_folders_cannot_be_locked_sqlite_locks_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", no_locks)
    first = opened(tmp_path)
    first.put("plan", 1)
    refused_second(tmp_path)
    first.put("race", 2)
    first.close()
    again = opened(tmp_path)
    refused_second(tmp_path)
    assert (again.get("plan"), again.get("race")) == (1, 2)
    again.close()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no folder '.*none'; make it first"):
        opened(tmp_path / "none")


def hold_and_fork(folder: str) -> None:
    """Open the store, leave a forked worker behind, and wait to be killed."""
    store = opened(Path(folder))
    store.put("plan", 1)
    if not os.fork():
        sys.stdout.write(f"{os.getpid()}\n")
        sys.stdout.flush()
    time.sleep(60)


def test_a_worker_that_outlives_its_killed_parent_holds_nothing(tmp_path: Path) -> None:
    with run_python(
        "import test_store_faults as t; t.hold_and_fork(sys.argv[1])", tmp_path
    ) as parent:
        assert parent.stdout
        worker = int(parent.stdout.readline())
        try:
            refused_second(tmp_path)
            parent.send_signal(signal.SIGKILL)
            parent.wait()
            os.kill(worker, 0)  # alive
            store = opened(tmp_path)
            assert store.get("plan") == 1
            store.close()
        finally:
            os.kill(worker, signal.SIGKILL)


# Killed


def record_for_ever(folder: str) -> None:
    """Record step after step, and say each one that is recorded."""
    store = opened(Path(folder))
    for k in range(10**6):
        store.once(f"value {k}", lambda k=k: value_of(k))  # type: ignore[misc]
        store.once_arrays(f"rows {k}", lambda k=k: {"y": rows_of(k)})  # type: ignore[misc]
        sys.stdout.write(f"{k}\n")
        sys.stdout.flush()


@pytest.mark.slow
def test_killed_between_any_two_writes_nothing_is_lost(tmp_path: Path) -> None:
    """Every step that was said to be recorded is there and whole; the rest goes on."""
    rng = np.random.default_rng(3)
    reached = 0
    for _ in range(6):
        code = "import test_store_faults as t; t.record_for_ever(sys.argv[1])"
        with run_python(code, tmp_path) as child:
            assert child.stdout
            for _ in range(reached + int(rng.integers(1, 60))):
                said = int(child.stdout.readline())
            time.sleep(float(rng.uniform(0, 0.01)))
            child.send_signal(signal.SIGKILL)
            said = [said, *map(int, child.stdout.read().split())][-1]
        store = opened(tmp_path)
        for k in range(said + 1):
            assert store.get(f"value {k}") == value_of(k)
            assert np.array_equal(store.arrays(f"rows {k}")["y"], rows_of(k))
        reached = said + 1
        known = store.seconds()
        assert len(known) - 1 in (2 * reached, 2 * reached + 1, 2 * reached + 2)
        store.close()
    assert reached > 6


# Full


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.put("plan", 1)
    (pages,) = store._db.execute("PRAGMA page_count").fetchone()
    store._db.execute(f"PRAGMA max_page_count = {pages + 4}")  # the disk holds no more
    with pytest.raises(InputError, match=r"cannot write run\.sqlite .* disk is full, free some"):
        store.once_arrays("rows", lambda: {"y": np.zeros(10**5)})
    assert store.get("plan") == 1
    assert store.get("rows") is None
    store.put("small", 2)
    store.close()
    again = opened(tmp_path)
    assert (again.get("plan"), again.get("small")) == (1, 2)
    assert len(again.once_arrays("rows", lambda: {"y": np.zeros(10**5)})["y"]) == 10**5
    again.close()


def test_a_file_that_may_not_be_written_is_said(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store._db.execute("PRAGMA query_only = 1")
    with pytest.raises(InputError, match=r"cannot open run\.sqlite to write .* writable, or give"):
        store.put("plan", 1)
    store.close()


def test_a_file_that_somebody_else_writes_to_is_said(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store._db.execute("PRAGMA busy_timeout = 1")
    with sqlite3.connect(tmp_path / "run.sqlite", isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(InputError, match="another process is at work in "):
            store.put("plan", 1)
        other.execute("ROLLBACK")
    other.close()
    store.put("plan", 1)
    store.close()


# Damaged

STEPS = {f"step {k}": (value_of(k), rows_of(k)) for k in range(4)}


@functools.cache
def sound() -> bytes:
    """The bytes of a store that holds STEPS."""
    with tempfile.TemporaryDirectory() as folder:
        store = opened(Path(folder))
        for step, (value, rows) in STEPS.items():
            store.put(step, value, {"y": rows})
        store.close()
        return (Path(folder) / "run.sqlite").read_bytes()


def check_damaged(data: bytes) -> int:
    """Each record is what it was or an error; what was refused at once is left as it is."""
    wrong = 0
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "run.sqlite"
        path.write_bytes(data)
        with suppress(InputError):
            reader = Store(path)
            try:
                assert all(reader.get(s) in (None, value) for s, (value, _) in STEPS.items())
            finally:
                reader.close()
        try:
            store = Store(path, MINE)
        except InputError as e:
            assert "\n" not in str(e)
            assert [p.name for p in Path(name).iterdir()] == ["run.sqlite"]
            assert path.read_bytes() == data
            return len(STEPS)
        for step, (value, rows) in STEPS.items():
            try:
                assert store.get(step) == value
                assert np.array_equal(store.arrays(step)["y"], rows)
            except InputError as e:
                wrong += 1
                assert "run.sqlite is not a run store, or a damaged one" in str(e)
        store.close()
    return wrong


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_a_changed_byte_never_changes_a_record(data: st.DataObject) -> None:
    changed = bytearray(sound())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(changed) - 1))
        changed[at] ^= data.draw(st.integers(1, 255))
    check_damaged(bytes(changed))


def test_a_changed_value_is_noticed_though_the_database_is_sound() -> None:
    data = sound()
    at = data.index(b'"step": 3')
    assert check_damaged(data[: at + 8] + b"4" + data[at + 9 :]) == 1
    assert check_damaged(data) == 0


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(1, 10**6))
@example(1)
@example(4096)
@example(99)
def test_a_store_cut_short_is_refused(size: int) -> None:
    kept = 1 + size % (len(sound()) - 1)
    assert check_damaged(sound()[:kept]) == len(STEPS)


def test_an_emptied_store_is_not_begun_again_over_results(tmp_path: Path) -> None:
    (tmp_path / "run.sqlite").touch()
    opened(tmp_path).close()  # a new run that was killed at once
    (tmp_path / "run.sqlite").write_bytes(b"")
    (tmp_path / "certificate.json").write_text("{}")
    with pytest.raises(InputError, match=r"run\.sqlite is empty, but .* holds results; put back"):
        opened(tmp_path)
    assert (tmp_path / "run.sqlite").read_bytes() == b""


def test_a_store_of_an_earlier_version_is_said(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "run.sqlite") as db:
        db.execute(
            "CREATE TABLE records (step TEXT PRIMARY KEY, json TEXT, arrays BLOB, seconds REAL, "
            "created TEXT)"
        )
    db.close()
    for identity in (MINE, None):
        with pytest.raises(InputError, match="written by an earlier version of justenough; give"):
            Store(tmp_path / "run.sqlite", identity)


def test_a_record_from_elsewhere_is_never_unpickled(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.put("objects", 1, {"y": np.array([object.__name__, None], object)})
    with pytest.raises(InputError, match=r"a damaged one, at 'objects': .*allow_pickle"):
        store.arrays("objects")
    store._db.execute("DROP TABLE records")
    for ask in (store.seconds, lambda: store.get("plan"), lambda: store.put("plan", 1)):
        with pytest.raises(InputError, match="a damaged one: no such table"):
            ask()
    store.close()


# Read-only


def test_a_store_that_nobody_can_write_beside_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite makes files beside a WAL store even to read it; where it cannot, it is read as is."""
    path = tmp_path / "run.sqlite"
    path.write_bytes(sound())
    connect: Any = sqlite3.connect

    class Refusing(sqlite3.Connection):
        def execute(self, *args: Any) -> sqlite3.Cursor:
            found: sqlite3.Cursor = connect(f"file:{tmp_path}/none/x?mode=ro", uri=True)
            return found

    def one(database: Any, **options: Any) -> Any:
        return connect(database, **options, **({} if "uri" in options else {"factory": Refusing}))

    monkeypatch.setattr("justenough.core.store.sqlite3.connect", one)
    store = Store(path)
    assert store.get("step 2") == STEPS["step 2"][0]
    store.close()
    with pytest.raises(InputError, match=r"cannot open run\.sqlite to write"):
        opened(tmp_path)
    shutil.copy(path, path.with_name("run.sqlite-wal"))
    with pytest.raises(InputError, match=r"cannot open run\.sqlite to write"):
        Store(path)
