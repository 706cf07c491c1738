"""Whatever happens to a run, nothing that was recorded is lost, and it is said in a sentence."""

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import onnx
import pytest
from small_world import KEEP, ROOT, Cli, Finished, Given, Ran, process, refused, snapshot, start

pytestmark = pytest.mark.slow
AT_WORK = ("another process is at work in 'out'", "wait for it to end, or give a new output")
KILLED = """
import importlib.util, os, signal, sys
import justenough.road  # once for all that are killed
from justenough.cli.main import main
from justenough.core.store import Store
if importlib.util.find_spec("torch"):
    import torch
put = Store.put
def killing(store, step, *rest, **more):
    if step == stage or step.startswith(stage + "/"):
        os.kill(os.getpid(), signal.SIGKILL)
    put(store, step, *rest, **more)
for line in sys.stdin:
    stage = line.strip()
    child = os.fork()
    if not child:
        os.dup2(2, 1)
        Store.put = killing
        main()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def records(out: Path) -> dict[str, tuple[object, ...]]:
    """What the run store holds, by step and in order; read off a copy."""
    with tempfile.TemporaryDirectory() as folder:
        for path in out.glob("run.sqlite*"):
            shutil.copy(path, folder)
        with closing(sqlite3.connect(Path(folder) / "run.sqlite")) as db:
            rows = db.execute("SELECT step, json, arrays FROM records ORDER BY rowid").fetchall()
    return {row[0]: row[1:] for row in rows if not row[0].startswith("rows/")}


def kept(before: dict[str, tuple[object, ...]], out: Path) -> None:
    """Everything that was recorded is still what it was."""
    now = records(out)
    for step, row in before.items():
        assert now.get(step) == row, f"{step} was lost or computed again"


def stages(out: Path) -> list[str]:
    """Stages of a run in order: its steps, without the names of variants."""
    found: dict[str, None] = {}
    for step in records(out):
        found[step.partition("/")[0]] = None
        if not re.search(r"\d", step):
            found[step] = None
    return list(found)


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[list[str]]:
    """A disk of `size` at `folder`; gives what to run to change it."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    if os.getuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user or machine may not mount a small disk")
    try:
        yield ["mount", "-o"]
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_killed_in_every_stage(given: Given, finished: Finished, tmp_path: Path) -> None:
    """Each stage is killed when its work is done and not yet recorded; the end is the same."""
    out = tmp_path / "out"
    args = ("compress", *given.args, *KEEP, "-o", out)
    before: dict[str, tuple[object, ...]] = {}
    wanted = stages(finished.out)
    assert {"identity", "plan", "summary"} < set(wanted) and len(wanted) > 8
    with (
        (tmp_path / "said").open("w") as said,
        subprocess.Popen(
            [sys.executable, "-c", KILLED, *map(str, args)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        ) as runs,
    ):
        assert runs.stdin and runs.stdout
        for stage in wanted:
            runs.stdin.write(stage + "\n")
            runs.stdin.flush()
            code = runs.stdout.readline().strip()
            assert code == str(-signal.SIGKILL), (stage, (tmp_path / "said").read_text())
            if stage != "identity":
                assert stage not in records(out)
                kept(before, out)
                before = records(out)
        runs.stdin.close()
    got = process(*args)
    assert got.code == finished.ran.code == 0, got.out + got.err
    kept(before, out)
    alike = {"identity", "reference/search", "calibration", "calibrations"}
    now, undisturbed = records(out), records(finished.out)
    for step in alike & set(undisturbed):
        assert now[step] == undisturbed[step], step
    assert {p.name for p in out.iterdir()} == {p.name for p in finished.out.iterdir()}
    check = ("verify", out / "certificate.json", "--reference", given.model, "--cases")
    assert process(*check, given.cases).out.startswith("Nothing differs")


def test_two_processes_on_one_folder(given: Given, tmp_path: Path) -> None:
    """However they start, one of them runs to its end and the other says why it does not."""
    out = tmp_path / "out"
    args = ("compress", *given.args, *KEEP, "-o", out)
    with start(*args) as one, start(*args) as other:
        said = [(p.communicate(timeout=120)[1], p.returncode) for p in (one, other)]
    (ended, refusal) = sorted(said, key=lambda got: got[1])
    assert ended == ("", 0)
    refused(Ran(refusal[1], "", refusal[0]), *AT_WORK)


def test_a_second_process_leaves_the_first_alone(given: Given, tmp_path: Path) -> None:
    out = tmp_path / "out"
    args = ("compress", *given.args, *KEEP, "-o", out)
    with start(*args) as first:
        while first.poll() is None and not (out / "run.sqlite").is_file():
            time.sleep(0.002)
        time.sleep(0.1)
        first.send_signal(signal.SIGSTOP)
        try:
            before = snapshot(out)
            for more in ((), ("--alpha", "0.01")):
                refused(process(*args, *more), *AT_WORK)
            assert snapshot(out) == before
            refused(process("report", out), "has not ended")
        finally:
            first.send_signal(signal.SIGCONT)
        _, err = first.communicate(timeout=120)
    assert (first.returncode, err) == (0, "")


def test_a_disk_that_fills_up_at_any_point(
    given: Given, finished: Finished, tmp_path: Path
) -> None:
    """On a disk that grows bit by bit each call goes further, until it ends as it would."""
    disk = tmp_path / "disk"
    full = 0
    with small_disk(disk, "24k") as change:
        out = disk / "out"
        before: dict[str, tuple[object, ...]] = {}
        for size in ("24k", "200k", "700k", "1600k", "3m", "64m"):
            subprocess.run([*change, f"remount,size={size}", str(disk)], check=True)
            got = process("compress", *given.args, *KEEP, "-o", out)
            if got.code == finished.ran.code:
                break
            refused(got, "disk is full", "free some")
            assert not (out / "certificate.json").exists()
            full += 1
            if before:
                kept(before, out)
                before = records(out)
            elif (out / "run.sqlite").is_file() and size != "24k":
                before = records(out)
        assert got.code == finished.ran.code == 0, got.err
        assert full >= 3
        kept(before, out)
        onnx.checker.check_model(str(out / "model.onnx"))


def test_results_that_a_full_disk_has_no_room_for(
    given: Given, finished: Finished, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk, "64k"):
        (disk / "filled").write_bytes(bytes(64 * 1024))
        for args in (
            ("certify", given.model, given.model, *given.args[1:], *KEEP, "-o", disk / "c.json"),
            ("report", finished.out, "-o", disk / "page.html"),
        ):
            refused(process(*args), "the disk is full; free some space and call again")
        assert {p.name for p in disk.iterdir()} <= {"filled", "c.json.part", "page.html.part"}


def test_a_folder_that_cannot_be_written(given: Given, finished: Finished, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk, "32m") as change:
        shutil.copytree(finished.out, disk / "done")
        shutil.copytree(finished.out, disk / "begun")
        with closing(sqlite3.connect(disk / "begun" / "run.sqlite", isolation_level=None)) as db:
            db.execute("DELETE FROM records WHERE step = 'summary'")
        subprocess.run([*change, "remount,ro", str(disk)], check=True)
        for name in ("done", "begun", "new"):
            refused(
                process("compress", *given.args, *KEEP, "-o", disk / name),
                "run.sqlite" if name != "new" else "Read-only",
            )
        refused(process("report", disk / "done"), "Read-only")
        page = tmp_path / "page.html"
        assert process("report", disk / "done", "-o", page).code == 0
        assert page.read_bytes() == (finished.out / "report.html").read_bytes()
        subprocess.run([*change, "remount,rw", str(disk)], check=True)
        assert process("compress", *given.args, *KEEP, "-o", disk / "begun").code == 0


def test_a_store_that_was_damaged(
    given: Given, finished: Finished, cli: Cli, tmp_path: Path
) -> None:
    """No record is taken for what it is not, and nothing is written over."""
    out = tmp_path / "out"
    shutil.copytree(finished.out, out)
    data = (out / "run.sqlite").read_bytes()
    assert b'"alpha": 0.05' in data
    damaged = {
        "digits of records": data.replace(b'"alpha": 0.05', b'"alpha": 0.95'),
        "cut short": data[: len(data) // 2],
        "cut to nothing": b"",
        "something else": np.random.default_rng(0).bytes(len(data)),
    }
    for what, bytes_now in damaged.items():
        (out / "run.sqlite").write_bytes(bytes_now)
        before = snapshot(out)
        refused(cli("compress", *given.args, *KEEP, "-o", out), "run.sqlite")
        refused(cli("report", out), "run.sqlite")
        assert snapshot(out) == before, what
