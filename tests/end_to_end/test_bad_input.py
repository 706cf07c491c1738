import json
import os
import pickle
import resource
import shutil
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from small_world import (
    CLASSES,
    FEATURES,
    KEEP,
    Cli,
    Finished,
    Given,
    compress_refused,
    mlp,
    network,
    process,
    refused,
    snapshot,
    start,
)

Array = NDArray[Any]


# Cases

X = np.zeros((12, FEATURES), np.float32)


def with_value(value: float) -> Array:
    x = X.copy()
    x[3, 4] = value
    return x


class Trap:
    """Unpickling this would make a file."""

    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.marker, "w")


ARRAYS: list[tuple[str, Mapping[str, Array], tuple[str, ...]]] = [
    ("nan", {"x": with_value(np.nan)}, ("input 'x'", "1 NaN or infinite values")),
    ("infinity", {"x": with_value(-np.inf)}, ("input 'x'", "1 NaN or infinite values")),
    ("no rows", {"x": X[:0]}, ("the cases are empty; give at least one row",)),
    ("nothing", {}, ("missing ['x']",)),
    ("other name", {"y": X}, ("missing ['x']", "unknown ['y']")),
    ("one too many", {"x": X, "y": X}, ("missing []", "unknown ['y']")),
    ("shape", {"x": X[:, :5]}, ("input 'x'", "['any', 64]", "[12, 5]")),
    ("rank", {"x": X[:, :, None]}, ("input 'x'", "['any', 64]", "[12, 64, 1]")),
    ("number", {"x": np.array(3, np.float32)}, ("input 'x' is a single number",)),
    ("integers", {"x": X.astype(np.int64)}, ("'x' takes float32", "give int64")),
    ("complex", {"x": X.astype(np.complex64)}, ("input 'x' has type complex64",)),
    ("words", {"x": np.full(X.shape, "a")}, ("input 'x' has type <U1",)),
    ("too large", {"x": np.full(X.shape, 1e300)}, ("'x' takes float32", "give float64")),
    ("labels", {"x": X, "labels": np.zeros(11, int)}, ("labels has shape (11,)", "(12,)")),
    ("labels 2-d", {"x": X, "labels": np.zeros((12, 1), int)}, ("labels has shape (12, 1)",)),
    ("real labels", {"x": X, "labels": np.zeros(12)}, ("labels has type float64",)),
    ("groups", {"x": X, "groups": np.zeros(13, int)}, ("groups has shape (13,)", "(12,)")),
    ("real groups", {"x": X, "groups": np.zeros(12)}, ("groups has type float64",)),
    ("surrogates", {"x": X, "groups": np.full(12, "\ud800")}, ("groups", "text")),
    ("two rows", {"x": X[:2]}, ("leave no case for",)),
]


@pytest.mark.parametrize(("arrays", "words"), [a[1:] for a in ARRAYS], ids=[a[0] for a in ARRAYS])
def test_bad_arrays(
    arrays: Mapping[str, Array],
    words: tuple[str, ...],
    given: Given,
    cli: Cli,
    tmp_path: Path,
) -> None:
    save: Any = np.savez
    save(tmp_path / "cases.npz", **arrays)
    args = (given.model, "--cases", tmp_path / "cases.npz", *KEEP)
    compress_refused(cli, tmp_path, args, *words)


def test_bad_case_files(given: Given, cli: Cli, tmp_path: Path) -> None:
    def check(path: Path, *words: str) -> None:
        compress_refused(cli, tmp_path, (given.model, "--cases", path, *KEEP), *words)

    check(tmp_path / "none.npz", "no cases file at", "none.npz")
    table = tmp_path / "cases.csv"
    table.write_text("1,2,3")
    check(table, "'cases.csv' ends in '.csv'; give .npz or .npy")
    for suffix in (".npz", ".npy"):
        path = tmp_path / f"bad{suffix}"
        path.write_bytes(b"")
        check(path, f"cannot read bad{suffix}")
        path.write_bytes(b"nothing of that kind")
        check(path, f"cannot read bad{suffix}")
        assert "pickle" not in cli("inspect", given.model, "--cases", path).err
    whole = given.cases.read_bytes()
    cut = tmp_path / "cut.npz"
    cut.write_bytes(whole[: len(whole) // 2])
    check(cut, "cannot read cut.npz")
    np.save(tmp_path / "one.npy", X)
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    check(tmp_path / "one.npz", "rename it to .npy")
    with zipfile.ZipFile(tmp_path / "zip.npz", "w") as z:
        z.writestr("x", "no array")
    check(tmp_path / "zip.npz", "cannot read zip.npz", "'x'")


@pytest.mark.parametrize("where", ["x", "labels", "groups"])
def test_pickles_are_never_opened(where: str, given: Given, cli: Cli, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    trap = np.empty(12, object)
    trap[:] = Trap(str(marker))
    save: Any = np.savez
    save(tmp_path / "cases.npz", **{"x": X, where: trap})
    assert pickle.dumps(Trap("")), "the trap can be pickled"
    args = (given.model, "--cases", tmp_path / "cases.npz", *KEEP)
    compress_refused(cli, tmp_path, args, "cannot read cases.npz: it holds pickled objects")
    (tmp_path / "cases.npz").write_bytes(pickle.dumps(Trap(str(marker))))
    compress_refused(cli, tmp_path, args, "cannot read cases.npz")
    assert not marker.exists()


def test_two_inputs_in_one_array(cli: Cli, tmp_path: Path) -> None:
    shape = (TensorProto.FLOAT, ["n", 2])
    model = network(
        [helper.make_node("Add", ["a", "b"], ["y"])], {"a": shape, "b": shape}, {"y": shape}, {}
    )
    onnx.save(model, tmp_path / "two.onnx")
    np.save(tmp_path / "cases.npy", np.zeros((9, 2), np.float32))
    args = (tmp_path / "two.onnx", "--cases", tmp_path / "cases.npy", *KEEP)
    compress_refused(cli, tmp_path, args, "['a', 'b']", "give an .npz with an array for each")
    np.savez(
        tmp_path / "cases.npz", a=np.zeros((9, 2), np.float32), b=np.zeros((8, 2), np.float32)
    )
    args = (tmp_path / "two.onnx", "--cases", tmp_path / "cases.npz", *KEEP)
    compress_refused(cli, tmp_path, args, "'a': 9, 'b': 8")


def test_certification_cases_that_the_search_has(given: Given, cli: Cli, tmp_path: Path) -> None:
    args = (*given.args, "--certify-cases", given.cases, *KEEP)
    compress_refused(cli, tmp_path, args, "groups of the certification cases are also among")


# Contracts

CLAUSES = [
    ("decision_stabilty >= 0.9", "did you mean 'decision_stability'?"),
    ("wibble >= 0.9", "unknown metric 'wibble'"),
    ("decision_stability >= 1.5", "cannot be bounded by 1.5; give 0 to 1"),
    ("decision_stability >= nan", "at_least='nan' must be finite"),
    ("decision_stability >= high", "at_least='high' is not a number"),
    ("decision_stability <= 0.9", "decision_stability takes >="),
    ("accuracy_drop >= 0.01", "accuracy_drop takes <="),
    ("decision_stability(prr=any) >= 0.9", "did you mean 'per'?"),
    ("decision_stability(per=most) >= 0.9", "per='most' is unknown; give one of any, mean, max"),
    ("decision_stability(output=logit) >= 0.9", "did you mean 'logits'?"),
    ("decision_stability(column=9) >= 0.9", "column=9 is not a column"),
    ("decision_stability(axis=5) >= 0.9", "axis=5"),
    ("decision_stability(axis=0) >= 0.9", "axis=0"),
    ("decision_stability(5) >= 0.9", "does not take '5'"),
    ("decision_stability(metric=snr_db) >= 0.9", "metric"),
    ("decision_stability(column=1, column=2) >= 0.9", "column"),
    ("top_k_stability >= 0.9", "top_k_stability needs k"),
    ("top_k_stability(0) >= 0.9", "k=0 is outside 1 and up"),
    ("top_k_stability(1.5) >= 0.9", "k='1.5' is not a whole number"),
    ("top_k_stability(9) >= 0.9", "k=9"),
    ("within_tolerance(-1) >= 0.9", "eps=-1.0 must be a positive number"),
    ("within_tolerance(far) >= 0.9", "eps='far' is not a number"),
    ("spearman >= 0.9", "needs one score a case"),
    ("keep everything", "cannot read the clause 'keep everything'"),
    ("", "cannot read the clause ''"),
]


@pytest.mark.parametrize(("clause", "words"), CLAUSES, ids=[c[0] or "empty" for c in CLAUSES])
def test_bad_clause(clause: str, words: str, given: Given, cli: Cli, tmp_path: Path) -> None:
    compress_refused(cli, tmp_path, (*given.args, "--keep", clause), words)


@pytest.mark.parametrize(
    ("clause", "words"),
    [
        ("accuracy_drop <= 0.1", "needs an array 'labels'"),
        ("top_k_overlap(5000, column=0) >= 0.5", "needs more than"),
        ("decision_stability(column=0, cut=99) >= 0.5", "falls on one side of cut=99"),
    ],
)
def test_clause_that_the_cases_cannot_answer(
    clause: str, words: str, given: Given, cli: Cli, tmp_path: Path
) -> None:
    np.savez(tmp_path / "bare.npz", x=np.load(given.cases)["x"])
    args = (given.model, "--cases", tmp_path / "bare.npz", "--keep", clause)
    compress_refused(cli, tmp_path, args, words)


def test_bad_contract_options(given: Given, cli: Cli, tmp_path: Path) -> None:
    def check(args: tuple[object, ...], *words: str) -> None:
        compress_refused(cli, tmp_path, (*given.args, *args), *words)

    check((), "no contract given", "--keep")
    for alpha in ("0", "0.5", "-1", "nan", "7"):
        check((*KEEP, "--alpha", alpha), f"alpha={float(alpha)}", "outside (0, 0.5)")
    check((*KEEP, "--alpha", "few"), "--alpha", "number")
    check((*KEEP, *KEEP), "a clause is given twice: decision_stability >= 0.97")
    toml = tmp_path / "contract.toml"
    check(("--contract", toml), "no contract file at")
    toml.write_text("alpha = 0.05\n[[keep]]\nmetric = 'decision_stability'\nat_least = 0.9\n")
    check(("--contract", toml, *KEEP), "not both")
    huge, deep = "9" * 5000, "[" * 5000
    for text, *words in (
        ("alpha = ", "contract.toml is not TOML"),
        ("alfa = 0.05", "unknown key 'alfa' in contract.toml", "did you mean 'alpha'?"),
        ("alpha = 0.7\n[[keep]]\nmetric='snr_db'\nat_least=3", "alpha=0.7"),
        ("alpha = true\n[[keep]]\nmetric='snr_db'\nat_least=3", "alpha=True is not a number"),
        ("keep = 3", "write each clause as a [[keep]] table"),
        ("", "the contract is empty"),
        ("[[keep]]\nmetric='snr_db'\natleast=3", "unknown key 'atleast'", "'at_least'"),
        ("[[keep]]\nmetric='snr_db'\nat_least='high'", "at_least='high' is not a number"),
        (f"[[keep]]\nmetric='snr_db'\nat_least={huge[:400]}", "at_least"),
        (f"[[keep]]\nmetric='snr_db'\nat_least={huge}", "contract.toml is not TOML"),
        (f"keep = {deep}", "contract.toml is not TOML"),
        ("population = 5\n[[keep]]\nmetric='snr_db'\nat_least=3", "population"),
        ("[[keep]]\nmetric=['snr_db']\nat_least=3", "metric"),
        ("[[keep]]\nmetric='os:system'\nat_most=0.1", "os:system", "may not run code"),
    ):
        toml.write_text(text)
        check(("--contract", toml), *words)
    toml.write_bytes(b"\xff\xfe\x00")
    check(("--contract", toml), "contract.toml is not TOML")


# Usage


def test_wrong_usage(given: Given, cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "out"
    refused(cli("compress", given.model, *KEEP, "-o", out), "--cases")
    refused(cli("compress", *given.args, *KEEP), "--out")
    refused(cli("compress", *given.args, *KEEP, "-o", out, "--fast"), "--fast")
    refused(cli("squeeze", given.model), "squeeze")
    refused(cli("verify", out / "certificate.json"), "--reference")
    refused(cli("report", out), "no run store at")
    for option, value, *words in (
        ("--batch", "0", "batch=0"),
        ("--batch", "-3", "batch=-3"),
        ("--batch", "many", "--batch"),
        ("--threads", "0", "threads=0"),
        ("--threads", "1000000000", "threads=1000000000"),
        ("--image", "8x8", "go with a folder of images; the cases are a file"),
        ("--mean", "0.5", "go with a folder of images; the cases are a file"),
        ("--layout", "nhwc", "go with a folder of images; the cases are a file"),
    ):
        refused(cli("compress", *given.args, *KEEP, "-o", out, option, value), *words)
        certify = ("certify", given.model, given.model, "--cases", given.cases, *KEEP)
        refused(cli(*certify, "-o", out, option, value), *words)
        refused(cli("inspect", *given.args, option, value), *words)
    for shares in ("0.5,0.5", "a,b,c", "0.5,0.6,0.7", "-0.1,0.1,1", "nan,0.5,0.5", "0,0,1"):
        args = (*given.args, *KEEP, "-o", out, "--shares", shares)
        refused(cli("compress", *args), "shares")
    assert not out.exists()


def test_name_that_is_not_text(given: Given) -> None:
    refused(process("inspect", "bad\udcff.onnx"), "bad")


def test_nothing_at_all_is_explained(cli: Cli) -> None:
    got = cli()
    assert got.code == 2 and "compress" in got.out + got.err
    assert "justenough: Usage" not in got.err


# Where results go


def test_output_folder_that_holds_something_else(given: Given, cli: Cli, tmp_path: Path) -> None:
    refused(
        cli("compress", *given.args, *KEEP, "-o", tmp_path / "no" / "out"),
        "there is no folder", "to put 'out' in",
    )  # fmt: skip
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    before = snapshot(tmp_path)
    refused(cli("compress", *given.args, *KEEP, "-o", out), "holds something else")
    assert snapshot(tmp_path) == before
    refused(cli("compress", *given.args, *KEEP, "-o", out / "thesis.tex"), "something else")
    assert snapshot(tmp_path) == before
    for content in (b"not a database" * 500, b"SQLite format 3\0" + bytes(range(256)) * 40):
        (out / "run.sqlite").write_bytes(content)
        before = snapshot(tmp_path)
        refused(cli("compress", *given.args, *KEEP, "-o", out), "run.sqlite")
        refused(cli("report", out), "run.sqlite")
        assert snapshot(tmp_path) == before


def test_database_of_somebody_else(given: Given, cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for k, table in enumerate(("recipes (name)", "records (name)", "records (step, json)")):
        (out / "run.sqlite").unlink(missing_ok=True)
        with sqlite3.connect(out / "run.sqlite") as db:
            db.execute(f"CREATE TABLE {table}")
            db.execute(
                f"INSERT INTO {table.split()[0]} ({'step' if k == 2 else 'name'}) VALUES ('x')"
            )
        db.close()
        before = snapshot(tmp_path)
        refused(cli("compress", *given.args, *KEEP, "-o", out), "run.sqlite")
        refused(cli("report", out), "run.sqlite")
        assert snapshot(tmp_path) == before


@pytest.mark.slow
def test_finished_run_is_never_changed_by_another(
    finished: Finished, given: Given, cli: Cli, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished.out, out)
    before = snapshot(out)
    rows = np.load(given.cases)
    np.savez(tmp_path / "other.npz", x=rows["x"][:500], groups=rows["groups"][:500])
    onnx.save(mlp(hidden=32), tmp_path / "other.onnx")
    loose = ("--keep", "decision_stability >= 0.9")
    for args, word in (
        ((*given.args, *loose), "contract"),
        ((*given.args, *KEEP, "--alpha", "0.01"), "contract"),
        ((*given.args, *KEEP, "--population", "men"), "contract"),
        ((*given.args, *KEEP, "--batch", "8"), "batch"),
        ((*given.args, *KEEP, "--shares", "0.2,0.2,0.6"), "share"),
        ((given.model, "--cases", tmp_path / "other.npz", *KEEP), "cases"),
        ((tmp_path / "other.onnx", "--cases", given.cases, *KEEP), "model"),
    ):
        refused(cli("compress", *args, "-o", out), "belongs to a run with another", word)
        assert snapshot(out) == before
    refused(cli("compress", *given.args, "--keep", "nonsense", "-o", out), "nonsense")
    pair = (given.model, out / "model.onnx", "--cases", given.cases, *KEEP)
    refused(
        cli("certify", *pair, "-o", out / "certificate.json"), "exists; certificates are never"
    )
    assert snapshot(out) == before


@pytest.mark.slow
def test_rows_that_the_search_saw_certify_nothing(
    finished: Finished, given: Given, cli: Cli, tmp_path: Path
) -> None:
    certificate = tmp_path / "certificate.json"
    pair = (given.model, finished.out / "model.onnx", "--cases", given.cases, *KEEP)
    words = ("cases were used to make model.onnx", "cases that nobody searched on")
    refused(cli("certify", *pair, "-o", certificate), *words)
    assert not certificate.exists()


# Certificates


@pytest.mark.slow
def test_certificate_that_was_tampered_with(
    finished: Finished, given: Given, cli: Cli, tmp_path: Path
) -> None:
    path = tmp_path / "certificate.json"
    shutil.copy(finished.out / "model.onnx", tmp_path / "model.onnx")
    good = json.loads((finished.out / "certificate.json").read_text())

    def check(text: str | bytes, *words: str) -> None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        got = cli("verify", path, "--reference", given.model, "--cases", given.cases)
        refused(got, *words)

    def edited(where: str, value: object) -> str:
        body: Any = json.loads(json.dumps(good))
        table, *keys = body, *(int(k) if k.isdigit() else k for k in where.split("/"))
        for key in keys[:-1]:
            table = table[key]
        table[keys[-1]] = value
        return json.dumps(body)

    check("", "certificate.json is not JSON")
    check(b"\xff\xfe", "certificate.json is not JSON")
    check("[" * 100_000, "certificate.json is not JSON")
    check('{"a":' * 100_000, "certificate.json is not JSON")
    check("9" * 5000, "certificate.json is not JSON")
    check("[]", "is not a certificate; it needs the keys format,")
    check("{}", "is not a certificate; it needs the keys format,")
    check(edited("format", "certificate 9"), "format 'certificate 9'")
    check(edited("format", [1]), "format [1]")
    for part in ("reference", "candidate", "cases", "runtime", "clauses"):
        check(edited(part, 3), "is not a certificate")
    for alpha in ("0.05", None, True, 0.7, 10**400):
        check(edited("alpha", alpha), "alpha")
    check(edited("clauses", []), "the contract is empty")
    check(edited("clauses/0", 3), "a clause without text")
    check(edited("clauses/0/clause", ["a"]), "a clause without text")
    check(edited("clauses/0/clause", "os:system <= 0.1"), "os:system", "say that you trust it")
    for bad in (0, -1, "8", 1.5, None, True, 10**12):
        check(edited("runtime/threads", bad), "threads")
    for bad in (0, -1, "8", 1.5, None, True):
        check(edited("runtime/batch", bad), "batch")
    for name in ("../../../etc/passwd", "/etc/passwd", "..", "a\0b", 7, ["x"]):
        check(edited("candidate/file", name), "no model file at", str(tmp_path))


# What a file says is never believed by the page that shows it


@pytest.mark.slow
def test_names_with_html_in_them(cli: Cli, tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    model = mlp(hidden=128)
    for node in model.graph.node:
        node.name = evil + node.name
        for names in (node.input, node.output):
            names[:] = [evil if t == "logits" else t for t in names]
    model.graph.output[0].name = evil
    path = tmp_path / "<img src=x onerror=alert(1)>.onnx"
    onnx.save(model, str(path))
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "cases.npz", x=rng.normal(0, 1, (300, FEATURES)).astype(np.float32))
    out = tmp_path / "out"
    got = cli(
        "compress", path, "--cases", tmp_path / "cases.npz", "--keep", "decision_stability >= 0.9",
        "--population", "<b>everybody</b><script>", "-o", out,
    )  # fmt: skip
    assert got.code in (0, 1, 3), got.err
    page = (out / "report.html").read_text()
    assert "alert(1)" in page
    for raw in (evil, "<img src=x", "<b>everybody"):
        assert raw not in page


# The disk is full


def limited(megabytes: float) -> Callable[[], None]:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(megabytes * 2**20),) * 2)

    return limit


@pytest.mark.slow
@pytest.mark.parametrize("kilobytes", [20, 60, 300, 800])
def test_file_that_cannot_grow(
    kilobytes: int, given: Given, finished: Finished, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    limit = limited(kilobytes / 1024)
    got = process("compress", *given.args, *KEEP, "-o", out, preexec_fn=limit)
    refused(got, "disk")
    assert not (out / "model.onnx").exists()
    assert not (out / "certificate.json").exists()
    again = process("compress", *given.args, *KEEP, "-o", out)
    assert again.code in (finished.ran.code, 1), again.err  # it may be no faster now
    if again.code == 0:
        onnx.checker.check_model(str(out / "model.onnx"))


@pytest.mark.slow
@pytest.mark.skipif(os.getuid() != 0, reason="mounting a small disk needs root")
def test_disk_that_is_full(given: Given, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1300k", "none", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this machine does not allow mounts")
    try:
        out = disk / "out"
        args = ("compress", *given.args, *KEEP, "-o", out)
        refused(process(*args), "disk is full", "nothing done so far is lost")
        assert not (out / "model.onnx").exists()
        subprocess.run([*mount[:4], "remount,size=40m", *mount[5:]], check=True)
        assert process(*args).code == 0
        onnx.checker.check_model(str(out / "model.onnx"))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_processes_use_this_interpreter() -> None:
    with start("--help") as p:
        assert p.communicate()[0].startswith("Usage")
    assert p.args[0] == sys.executable  # type: ignore[index]
    assert CLASSES == 4
