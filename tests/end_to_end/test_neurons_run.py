"""`justenough neurons run`, as its users call it: killed, stopped, given nonsense."""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from small_world import ROOT, Cli, Ran, process, refused, snapshot

from justenough.assemblies.circuit import Area, Circuit, Fibre, Stimulus
from justenough.assemblies.cuda import card
from justenough.assemblies.exact import ExactBrain
from justenough.studies.neurons.checkpoint import read_arrays, read_head, write_arrays
from justenough.studies.neurons.report import render

RUN = ("neurons", "run")
SMALL = (*RUN, "--areas", "2e4,1e4", "--k", "100", "--p", "0.02", "--rounds", "20", "--seed", "7")
# Winners change in every one of these rounds, so that there is always something to lose.
LONG = (*RUN, "--areas", "5e4,2e4", "--k", "100", "--p", "0.01", "--beta", "0.01")
TIERS = {"exact": (*LONG, "--rounds", "120"), "lazy": (*LONG, "--rounds", "60", "--tier", "lazy")}
# A checkpoint after every round, and not every ten seconds.
OFTEN = (
    "from justenough.studies.neurons import run; run._EVERY_S = run._SHARE = 0\n"
    "from justenough.cli.main import main; main()"
)
FILES = {"report.html", "results.json", "results.npz"}
Arrays = dict[str, NDArray[Any]]


def start(*args: object) -> "subprocess.Popen[str]":
    """Start the command line, with a checkpoint after every round."""
    return subprocess.Popen(
        [sys.executable, "-c", OFTEN, *map(str, args)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip


def results(out: Path) -> Arrays:
    """Everything in results.npz but the time."""
    with np.load(out / "results.npz", allow_pickle=False) as z:
        return {name: z[name] for name in z.files if name not in ("seconds", "digest")}


def same(one: Path, other: Path) -> None:
    mine, theirs = results(one), results(other)
    assert mine.keys() == theirs.keys()
    for name, array in mine.items():
        if name == "bytes":  # arrays that grow by doubling are made tight when they are restored
            continue
        assert np.array_equal(array, theirs[name], equal_nan=array.dtype == float), name


def done(out: Path) -> int:
    """How many rounds the checkpoint holds; -1 without one."""
    path = out / "checkpoint.npz"
    return int(read_head(path)["done"]) if path.exists() else -1


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run to its end."""
    out = tmp_path_factory.mktemp("whole") / "out"
    got = process(*SMALL, "-o", out)
    assert got.code == 0, got.err
    return out


@pytest.fixture(scope="module", params=TIERS)
def uncut(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[tuple[str, Path]]:
    """A longer run of each tier to its end."""
    out = tmp_path_factory.mktemp(request.param) / "out"
    got = process(*TIERS[request.param], "-o", out)
    assert got.code == 0, got.err
    yield request.param, out


@pytest.mark.slow
def test_killed_again_and_again(uncut: tuple[str, Path], tmp_path: Path) -> None:
    """Whenever it is killed, the next call goes on, to the same bits."""
    tier, there = uncut
    args, out = (*TIERS[tier], "-o", tmp_path / "out"), tmp_path / "out"
    rng, kills, before = random.Random(5), 0, -1
    while True:
        with start(*args) as p:
            wanted = before + rng.randint(2, 20 if tier == "exact" else 10)
            while p.poll() is None and done(out) < wanted:
                time.sleep(0.002)
            time.sleep(rng.uniform(0, 0.05))
            alive = p.poll() is None
            p.kill()
            _, err = p.communicate()
        assert p.returncode in (0, -signal.SIGKILL), err
        if not alive:
            break
        kills += 1
        now = done(out)
        assert now >= before
        before = now
    assert kills >= 3 and p.returncode == 0
    same(out, there)
    body = json.loads((out / "results.json").read_text("utf8"))
    assert 1 <= len(body["resumed"]) <= kills
    assert "went on with round" in (out / "report.html").read_text("utf8")
    assert {p.name for p in out.iterdir()} == FILES


@pytest.mark.slow
def test_interrupted_it_ends_after_the_round_and_goes_on(
    uncut: tuple[str, Path], tmp_path: Path
) -> None:
    tier, there = uncut
    out = tmp_path / "out"
    args = (*TIERS[tier], "-o", out)
    with start(*args) as p:
        while p.poll() is None and done(out) < 3:
            time.sleep(0.01)
        p.send_signal(signal.SIGINT)
        _, err = p.communicate()
    assert p.returncode == 130
    assert err == (
        "justenough: stopping after this round; Ctrl-C again stops at once\n"
        "justenough: stopped; the same call goes on where it was\n"
    )
    assert {p.name for p in out.iterdir()} == {"checkpoint.npz"}
    assert done(out) >= 3
    got = process(*args)
    assert got.code == 0 and "Goes on:" in got.out, got.err
    same(out, there)


@pytest.mark.slow
def test_interrupted_twice_it_ends_at_once(tmp_path: Path) -> None:
    out = tmp_path / "out"
    # One thread: a round of seconds in one compiled call.
    args = (*RUN, "--areas", "1e9", "--threads", "1", "-o", out)
    with start(*args) as p:
        while p.poll() is None and done(out) < 0:
            time.sleep(0.01)
        time.sleep(0.2)
        p.send_signal(signal.SIGINT)
        time.sleep(0.2)
        p.send_signal(signal.SIGINT)
        _, err = p.communicate(timeout=60)
    assert p.returncode == 130
    assert err.endswith("goes on from the last checkpoint\n"), err
    assert done(out) == 0


def test_results_are_those_of_the_simulator(whole: Path) -> None:
    assert {p.name for p in whole.iterdir()} == FILES
    found = results(whole)
    a, b, s = Area("area1", 20_000, 100, 0.1), Area("area2", 10_000, 100, 0.1), "stimulus"
    fibres = (Fibre(a.name, a.name), Fibre(b.name, b.name), Fibre(a.name, b.name))
    brain = ExactBrain(Circuit(0.02, (a, b), (Stimulus(s, 100),), fibres), 7)
    for number in range(20):
        inputs = {a.name: [s, a.name] if number else [s]}
        if number:
            inputs[b.name] = [a.name, b.name] if number > 1 else [a.name]
        brain.fire(inputs)
        for i, area in enumerate((a, b)):
            row = found[f"winners_{area.name}"][number]
            assert np.array_equal(row, brain.winners(area.name) if number or not i else [-1] * 100)
            assert found["support"][number, i] == brain.support(area.name)
    first, second = found["winners_area1"], found["overlap"][:, 0]
    assert first.dtype == np.int64 and first.shape == (20, 100)
    assert second[5] == np.isin(first[4], first[5]).mean()
    assert np.isnan(found["overlap"][:2, 1]).all() and np.isnan(second[0])
    assert dict(zip(found["bytes_of"], found["bytes"], strict=True))["counts"] == 30_000


def test_threads_and_calls_change_nothing(whole: Path, cli: Cli, tmp_path: Path) -> None:
    before = snapshot(whole)
    again = cli(*SMALL, "-o", whole)
    assert again.code == 0 and "ended before" in again.out and "neurons ever fired" in again.out
    assert snapshot(whole) == before
    assert cli(*SMALL, "--threads", "1", "-o", tmp_path / "one").code == 0
    same(tmp_path / "one", whole)


def test_a_newcomer_reads_what_it_takes_and_what_came_out(cli: Cli, tmp_path: Path) -> None:
    got = cli(*SMALL, "-o", tmp_path / "out")
    words = "Simulates:  20,000, 10,000 neurons", "Memory:", "are free", "a round while"
    for word in (*words, "Winners:    area1: ", "Support:    area2: ", "60 B a neuron"):
        assert word in got.out, word
    assert got.err == ""


def test_another_run_of_the_folder_is_refused(whole: Path, cli: Cli, tmp_path: Path) -> None:
    before = snapshot(whole)
    others = {
        "--k": "99", "--seed": "8", "--rounds": "21", "--beta": "0.2", "--areas": "2e4",
        "--tier": "lazy", "--ties": "lowest",
    }  # fmt: skip
    for option, value in others.items():
        refused(cli(*SMALL, option, value, "-o", whole), "another", option[2:])
    assert snapshot(whole) == before
    for name, text in (("results.json", "{"), ("results.json", "[]"), ("report.html", "mine"),
                       ("results.npz", "mine"), ("results.json", '{"settings": 3}')):  # fmt: skip
        out = tmp_path / f"{name}{len(text)}"
        out.mkdir()
        (out / name).write_text(text)
        refused(cli(*SMALL, "-o", out), name)
        assert (out / name).read_text() == text and len(snapshot(out)) == 1
    (tmp_path / "file").write_text("x")
    refused(cli(*SMALL, "-o", tmp_path / "file"), "not a folder")


def test_edited_results_are_refused(whole: Path, cli: Cli, tmp_path: Path) -> None:
    body = json.loads((whole / "results.json").read_text("utf8"))
    for name, value in (("areas", 3), ("areas", [{}]), ("seconds", 0), ("bytes", [1]),
                        ("settings", None), ("document_bytes", {})):  # fmt: skip
        out = tmp_path / f"{name}{value}"
        out.mkdir()
        (out / "results.json").write_text(json.dumps(body | {name: value}))
        got = cli(*SMALL, "-o", out)
        if name != "document_bytes":
            refused(got, "results.json")
        assert "Traceback" not in got.err


def test_two_at_once_in_a_folder_are_refused(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "out"
    args = (*TIERS["exact"], "-o", out)
    with start(*args) as p:
        while p.poll() is None and done(out) < 0:
            time.sleep(0.005)
        got = cli(*args)
        p.kill()
        p.communicate()
    refused(got, "another process")


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the small run was stopped."""
    out = tmp_path_factory.mktemp("stopped") / "out"
    with start(*SMALL, "-o", out) as p:
        while p.poll() is None and done(out) < 6:
            time.sleep(0.001)
        p.kill()
        p.communicate()
    assert p.returncode == -signal.SIGKILL
    return out


@pytest.mark.parametrize("how", ["cut", "empty", "flipped", "text", "pickled", "foreign", "array"])
def test_a_damaged_checkpoint_is_refused(
    how: str, stopped: Path, cli: Cli, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(stopped, out)
    path = out / "checkpoint.npz"
    data = path.read_bytes()
    if how == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "flipped":
        middle = len(data) // 2
        path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    elif how == "text":
        path.write_text("<img src=x>")
    elif how == "pickled":
        np.savez(path, allow_pickle=True, head=np.array([{"a": 1}], object))
    elif how == "foreign":
        write_arrays(path, {"format": "another"}, {})
    else:
        with path.open("wb") as f:
            np.save(f, np.arange(3))
    before = snapshot(out)
    refused(cli(*SMALL, "-o", out), "checkpoint.npz")
    assert snapshot(out) == before


@pytest.mark.parametrize("name", ["brain area1~ids", "winners_area1", "seconds", "support"])
def test_a_checkpoint_that_cannot_be_is_refused(
    name: str, stopped: Path, cli: Cli, tmp_path: Path
) -> None:
    """Whole by its digest, and yet no state of this run."""
    out = tmp_path / "out"
    shutil.copytree(stopped, out)
    head, arrays = read_arrays(out / "checkpoint.npz")
    write_arrays(out / "checkpoint.npz", head, {**arrays, name: arrays[name][1:]})
    before = snapshot(out)
    refused(cli(*SMALL, "-o", out))
    assert snapshot(out) == before


def test_a_part_of_a_checkpoint_is_no_harm(stopped: Path, whole: Path, tmp_path: Path) -> None:
    """As a kill in the middle of writing the next one leaves it."""
    out = tmp_path / "out"
    shutil.copytree(stopped, out)
    (out / "checkpoint.npz.part").write_bytes(b"PK\x03\x04 half")
    got = process(*SMALL, "-o", out)
    assert got.code == 0, got.err
    same(out, whole)


BAD: dict[str, tuple[tuple[str, ...], str]] = {
    "k above n": (("--areas", "1e3", "--k", "2000"), "k=2000"),
    "no k": (("--k", "0"), "--k"),
    "half a k": (("--k", "1.5"), "whole number"),
    "k a word": (("--k", "many"), "--k"),
    "p one": (("--p", "1"), "--p"),
    "p zero": (("--p", "0"), "p=0"),
    "p above one": (("--p", "1.5"), "p=1.5"),
    "p nan": (("--p", "nan"), "--p"),
    "beta negative": (("--beta", "-0.1"), "beta=-0.1"),
    "beta above one": (("--beta", "1.1"), "beta=1.1"),
    "beta infinite": (("--beta", "inf"), "--beta"),
    "no rounds": (("--rounds", "0"), "--rounds"),
    "weights outgrow 64 bits": (("--rounds", "500"), "64 bits"),
    "lazy weights too": (("--rounds", "500", "--tier", "lazy"), "64 bits"),
    "too many rounds": (("--beta", "0", "--rounds", "1e5"), "--rounds"),
    "counts outgrow 16 bits": (("--areas", "1e7", "--k", "1e6", "--p", "0.5"), "65535"),
    "too many tie": (("--areas", "1e9", "--k", "10", "--p", "1e-12"), "would tie"),
    "too many neurons": (("--areas", "1.1e10"), "--areas"),
    "no neurons": (("--areas", "0"), "--areas"),
    "no areas": (("--areas", ""), "--areas"),
    "a comma": (("--areas", "1e4,"), "--areas"),
    "too many areas": (("--areas", ",".join(["1e4"] * 101)), "101 areas"),
    "seed": (("--seed", "-1"), "--seed"),
    "large seed": (("--seed", str(2**64)), "--seed"),
    "no threads": (("--threads", "0"), "--threads"),
    "tier": (("--tier", "fast"), "--tier"),
    "ties": (("--tier", "lazy", "--ties", "lowest"), "--ties"),
    "device of lazy": (("--tier", "lazy", "--device", "cuda"), "--device"),
    "markup": (("--areas", "<img src=x>"), "--areas"),
    "too much memory": (("--areas", ",".join(["1e10"] * 30)), "300 GB of it for counts"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_done_is_refused_before_it_starts(
    case: str, cli: Cli, tmp_path: Path
) -> None:
    args, word = BAD[case]
    small = ("--areas", "1e4", "--k", "100", "--p", "0.01")
    refused(cli(*RUN, *small, *args, "-o", tmp_path / "out"), word)
    assert not (tmp_path / "out").exists()


def test_without_a_card_the_card_is_refused(cli: Cli, tmp_path: Path) -> None:
    if card() is not None:
        pytest.skip("a card is here")
    got = cli(*RUN, "--areas", "1e4", "--k", "100", "--device", "cuda", "-o", tmp_path / "out")
    refused(got, "--device cpu")


@pytest.mark.skipif(card() is None, reason="no graphics card that CuPy can use is here")
def test_a_card_gives_the_same_bits(whole: Path, cli: Cli, tmp_path: Path) -> None:
    got = cli(*SMALL, "--device", "cuda", "-o", tmp_path / "out")
    assert got.code == 0, got.err
    same(tmp_path / "out", whole)


def test_a_limit_of_the_process_counts() -> None:
    """Before anything is allocated: the areas would fit in the machine, or nearly."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (6 * 10**9, 6 * 10**9))

    got: Ran = process(*RUN, "--areas", "9e9", preexec_fn=limit)
    refused(got, "9 GB of it for counts", "--tier lazy takes")


def test_the_report_escapes_what_it_shows(whole: Path) -> None:
    body = json.loads((whole / "results.json").read_text("utf8"))
    page = (whole / "report.html").read_text("utf8")
    assert "http://" not in page.replace("http://www.w3.org", "") and "https://" not in page
    assert "neurons ever fired" in page and "overlap with the round before by round" in page
    evil = '"><img src=x onerror=alert(1)>'
    body["machine"] = dict.fromkeys(body["machine"], evil)
    body["versions"] = {evil: evil}
    body["device"] = body["settings"]["ties"] = body["settings"]["tier"] = evil
    for area in body["areas"]:
        area["name"] = evil
    body["bytes"] = {evil: 1}
    made = render(body, results(whole) | {"seconds": np.ones(20)})
    assert "<img" not in made and "&lt;img src=x" in made
