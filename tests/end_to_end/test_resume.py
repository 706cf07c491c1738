"""Nothing that was computed is ever lost: real processes, really killed."""

import random
import shutil
import signal
import sqlite3
import tempfile
import time
from pathlib import Path

import onnx
import pytest
from small_world import KEEP, Cli, Finished, Given, process, refused, snapshot, start

pytestmark = pytest.mark.slow
KEPT = ("model.onnx", "certificate.json", "variant.toml", "report.html")


def records(out: Path) -> dict[str, tuple[object, ...]]:
    """Everything that the run store holds, by step; read off a copy, the store stays as it is."""
    with tempfile.TemporaryDirectory() as folder:
        for path in out.glob("run.sqlite*"):
            shutil.copy(path, folder)
        with sqlite3.connect(Path(folder) / "run.sqlite") as db:
            rows = db.execute("SELECT step, json, arrays, seconds, created FROM records")
            found = {row[0]: row[1:] for row in rows}
        db.close()
    return found


def steps(out: Path) -> int:
    """How many records a running process has made; 0 before there is a store."""
    try:
        db = sqlite3.connect(f"file:{out / 'run.sqlite'}?mode=ro", uri=True)
    except sqlite3.Error:
        return 0
    try:
        return int(db.execute("SELECT count(*) FROM records").fetchone()[0])
    except sqlite3.Error:
        return 0
    finally:
        db.close()


def killed_at(out: Path, args: tuple[object, ...], wanted: int, delay: float) -> bool:
    """Kill the run `delay` seconds after its store holds `wanted` records; False if it ended."""
    with start(*args) as p:
        while p.poll() is None and steps(out) < wanted:
            time.sleep(0.002)
        time.sleep(delay)
        alive = p.poll() is None
        p.send_signal(signal.SIGKILL)
        p.communicate()
    return alive


def whole(out: Path) -> None:
    """The store passes SQLite's own check, and no output is half there."""
    with sqlite3.connect(out / "run.sqlite") as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()
    if (out / "model.onnx").exists():
        onnx.checker.check_model(str(out / "model.onnx"))


def test_killed_again_and_again(given: Given, finished: Finished, tmp_path: Path) -> None:
    """After each kill the next call keeps every record, and the end is the recorded one."""
    out = tmp_path / "out"
    args = ("compress", *given.args, *KEEP, "-o", out)
    rng = random.Random(4)
    before: dict[str, tuple[object, ...]] = {}
    kills, wanted = 0, 1
    while killed_at(out, args, wanted, rng.uniform(0, 0.05)):
        kills += 1
        now = records(out)
        for step, row in before.items():
            if not step.startswith("rows/"):
                assert now[step] == row, f"{step} was computed again"
        shutil.copytree(out, tmp_path / f"copy{kills}")
        whole(tmp_path / f"copy{kills}")
        before, wanted = now, len(now) + rng.randint(1, 6)
    assert kills >= 4
    got = process(*args)
    now = records(out)
    for step, row in before.items():
        if not step.startswith("rows/"):
            assert now[step] == row, f"{step} was computed again"
    assert got.code == finished.ran.code == 0, got.out + got.err
    assert not (out / ".work").exists()
    assert {p.name for p in out.iterdir()} == {*KEPT, "run.sqlite"}
    check = ("verify", out / "certificate.json", "--reference", given.model, "--cases")
    assert process(*check, given.cases).out.startswith("Nothing differs")


def test_killed_while_the_results_are_put_in_place(
    given: Given, finished: Finished, tmp_path: Path
) -> None:
    """Whatever part of the results is there already, the call ends with the recorded ones."""
    full = records(finished.out)
    for present in ((), ("model.onnx",), ("model.onnx", "certificate.json"), KEPT):
        out = tmp_path / f"out{len(present)}"
        out.mkdir()
        for name in (*present, "run.sqlite"):
            shutil.copy(finished.out / name, out / name)
        with sqlite3.connect(out / "run.sqlite") as db:
            db.execute("DELETE FROM records WHERE step = 'summary'")
        db.close()
        (out / "certificate.json.part").write_text("{half")
        got = process("compress", *given.args, *KEEP, "-o", out)
        assert got.code == 0, got.err
        for name in ("model.onnx", "certificate.json", "variant.toml"):
            assert (out / name).read_bytes() == (finished.out / name).read_bytes(), name
        now = records(out)
        assert {k for k in now if now[k] != full[k]} <= {"summary"} | {
            k for k in now if k.startswith("rows/")
        }


def test_a_second_call_changes_nothing_and_is_quick(
    given: Given, finished: Finished, cli: Cli, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished.out, out)
    before = snapshot(out)
    started = time.perf_counter()
    got = cli("compress", *given.args, *KEEP, "-o", out)
    assert time.perf_counter() - started < 1.5
    assert (got.code, got.err) == (finished.ran.code, "")
    assert snapshot(out) == before

    def verdicts(text: str) -> list[str]:
        return [line for line in text.splitlines() if line.startswith(("Found", "Verdict"))]

    assert verdicts(got.out) == verdicts(finished.ran.out) != []


def test_a_model_that_was_taken_away_is_missed(
    given: Given, finished: Finished, cli: Cli, tmp_path: Path
) -> None:
    """The end is recorded, so the run is not repeated; its file is built again or asked for."""
    out = tmp_path / "out"
    shutil.copytree(finished.out, out)
    (out / "model.onnx").unlink()
    got = cli("compress", *given.args, *KEEP, "-o", out)
    if got.code == 0:
        assert (out / "model.onnx").read_bytes() == (finished.out / "model.onnx").read_bytes()
    else:
        refused(got, "model.onnx")


def test_another_file_is_never_left_beside_the_certificate(
    given: Given, finished: Finished, cli: Cli, tmp_path: Path
) -> None:
    """The same call must not vouch for a model.onnx that somebody put there."""
    out = tmp_path / "out"
    shutil.copytree(finished.out, out)
    shutil.copyfile(given.model, out / "model.onnx")
    before = snapshot(out)
    refused(cli("compress", *given.args, *KEEP, "-o", out), "not the file that was certified")
    assert snapshot(out) == before
    (out / "model.onnx").unlink()
    assert cli("compress", *given.args, *KEEP, "-o", out).code == 0
    assert (out / "model.onnx").read_bytes() == (finished.out / "model.onnx").read_bytes()


def test_interrupt_leaves_a_run_that_goes_on(given: Given, tmp_path: Path) -> None:
    out = tmp_path / "out"
    args = ("compress", *given.args, *KEEP, "-o", out)
    with start(*args) as p:
        while p.poll() is None and steps(out) < 4:
            time.sleep(0.002)
        p.send_signal(signal.SIGINT)
        _, err = p.communicate()
    assert p.returncode == 130
    assert err == "justenough: stopped; the same call goes on where it was\n"
    whole(out)
    before = records(out)
    assert process(*args).code == 0
    now = records(out)
    assert all(now[s] == row for s, row in before.items() if not s.startswith("rows/"))


def test_damaged_store_is_said(given: Given, finished: Finished, cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished.out, out)
    data = bytearray((out / "run.sqlite").read_bytes())
    data[4096:] = bytes(range(256)) * ((len(data) - 4096) // 256)
    (out / "run.sqlite").write_bytes(data)
    before = snapshot(out)
    refused(cli("compress", *given.args, *KEEP, "-o", out), "run.sqlite")
    refused(cli("report", out), "run.sqlite")
    assert snapshot(out) == before
