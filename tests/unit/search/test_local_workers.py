"""What local workers share with their parent: its life, and large arrays."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray
from test_workers import alive, job, until

from justenough.errors import InputError
from justenough.search import local_workers
from justenough.search.local_workers import SharedFiles
from justenough.search.workers import open_workers, packed

Array = NDArray[Any]

# --- the parent -------------------------------------------------------------------------------

PARENT = """
import os, sys, json, numpy as np
from pathlib import Path
sys.path.insert(0, {here!r})
from test_workers import Late, job
from justenough.search.workers import open_workers
mark = {mark!r}
sleep = Late("(__import__('pathlib').Path({mark!r} + str(__import__('os').getpid())).touch(), "
             "__import__('time').sleep(100))")
with open_workers(2, folder=Path({folder!r})) as workers:
    workers.share(np.zeros(1000))
    for _ in workers.map([job("a", sleep), job("b", sleep)]):
        pass
"""


def parent(tmp_path: Path) -> tuple[subprocess.Popen[str], list[int]]:
    marks, shared = tmp_path / "marks", tmp_path / "shared"
    marks.mkdir()
    shared.mkdir()
    code = PARENT.format(here=str(Path(__file__).parent), mark=f"{marks}/", folder=str(shared))
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert until(lambda: len(list(marks.iterdir())) == 2), process.stderr
    assert list(shared.glob("justenough-*/0.rows"))
    return process, [int(p.name) for p in marks.iterdir()]


@pytest.mark.slow
def test_a_killed_parent_leaves_nothing(tmp_path: Path) -> None:
    process, children = parent(tmp_path)
    process.kill()
    process.communicate()
    assert until(lambda: not any(map(alive, children)))
    assert until(lambda: not list((tmp_path / "shared").iterdir()))


@pytest.mark.slow
def test_ctrl_c_ends_the_children_without_a_word_of_theirs(tmp_path: Path) -> None:
    process, children = parent(tmp_path)
    began = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=20)[1]
    assert time.monotonic() - began < 10
    assert process.returncode not in (0, None)
    assert not any(map(alive, children))
    assert not list((tmp_path / "shared").iterdir())
    assert said.count("Traceback") == 1
    assert said.rstrip().endswith("KeyboardInterrupt")


# --- shared arrays ----------------------------------------------------------------------------


def references(array: Array, shared: SharedFiles) -> int:
    """Bytes of a job that holds `array`."""
    return len(packed(job("a", {"deep": (array,)}), shared.refer))


@pytest.mark.parametrize(
    "array",
    [
        np.arange(60_000.0),
        np.arange(60_000).reshape(3, 200, 100)[:, ::2],
        np.asfortranarray(np.arange(60_000, dtype="<i2").reshape(300, 200)),
        np.arange(60_000).astype(ml_dtypes.bfloat16),
        np.array(["patient"] * 9_000),
    ],
    ids=["plain", "strided", "fortran", "bfloat16", "text"],
)
def test_a_shared_array_does_not_travel(array: Array, tmp_path: Path) -> None:
    shared = SharedFiles(tmp_path)
    assert references(array, shared) > array.nbytes
    shared.add(array)
    shared.add(array)
    assert len(list(shared.path.iterdir())) == 1
    assert references(array, shared) < 1000
    assert references(array.copy(), shared) > array.nbytes
    seen = local_workers._mapped(*shared.refer(array))
    assert seen.dtype == array.dtype
    assert not seen.flags.writeable
    np.testing.assert_array_equal(seen, array)
    shared.close()
    assert not list(tmp_path.iterdir())


def test_a_mapped_file_stays_where_it_is(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.arange(50_000.0).reshape(500, 100))
    rows = np.load(tmp_path / "rows.npy", mmap_mode="r")
    writable = np.load(tmp_path / "rows.npy", mmap_mode="c")
    shared = SharedFiles(tmp_path)
    for array, files in ((rows, 0), (np.asarray(rows), 0), (rows[7:], 1), (writable, 2)):
        shared.add(array)
        assert len(list(shared.path.iterdir())) == files
        np.testing.assert_array_equal(local_workers._mapped(*shared.refer(array)), array)
    shared.close()


@pytest.mark.parametrize(
    "array",
    [np.zeros((0, 3)), np.array(3.0), np.array([object()])],
    ids=["empty", "0-d", "object"],
)
def test_what_no_file_holds_travels_with_the_job(array: Array, tmp_path: Path) -> None:
    shared = SharedFiles(tmp_path)
    shared.add(array)
    assert shared.refer(array) is None
    shared.close()


def test_shared_rows_give_the_same_answers() -> None:
    rows = np.random.default_rng(2).normal(size=200_000)
    with open_workers(2) as workers:
        workers.share(rows)
        for _, value in workers.map([job(str(k), rows) for k in range(3)]):
            np.testing.assert_array_equal(value, rows)


def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    with open_workers(1, folder=tmp_path) as workers:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, most))
        try:
            with pytest.raises(InputError, match=r"8 MB of shared rows cannot be written to"):
                workers.share(np.zeros(1_000_000))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    with pytest.raises(InputError, match=r"shared arrays cannot be kept in '.*nowhere'"):
        open_workers(1, folder=tmp_path / "nowhere")
