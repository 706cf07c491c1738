import json
import re
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    quantize_dynamic,
    quantize_static,
)
from small_world import (
    KEEP,
    SITES,
    Array,
    Cli,
    Finished,
    Given,
    blobs,
    mlp,
    process,
    refused,
    snapshot,
    without_sites,
)

from justenough.core.store import Store

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:onnx")


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """1,200 cases that no search has seen."""
    x, labels = blobs(np.random.default_rng(11), 1200)
    np.savez(tmp_path / "fresh.npz", x=x, labels=labels)
    return tmp_path / "fresh.npz"


def shaken(model: onnx.ModelProto, share: float) -> onnx.ModelProto:
    """The model with noise of this share of their size on its first weights."""
    w = numpy_helper.to_array(model.graph.initializer[0])
    noise = np.random.default_rng(0).normal(0, share * w.std(), w.shape)
    moved = numpy_helper.from_array((w + noise).astype(np.float32), "w1")
    model.graph.initializer[0].CopyFrom(moved)
    return model


# Exit codes: each shown with a real run


@pytest.mark.slow
def test_held_is_0(finished: Finished) -> None:
    got = finished.ran
    assert got.code == 0, got.err
    assert got.err == ""
    lines = got.out.splitlines()
    assert lines[0] == "Model:      small.onnx, 695 kB"
    best = next(k for k, line in enumerate(lines) if line.startswith("At best:"))
    found = next(k for k, line in enumerate(lines) if line.startswith("Plain int8:"))
    assert best < found, "what is possible is said before any search"
    assert "groups with nothing changed show 0.985" in lines[best]
    assert "HELD        decision_stability" in got.out
    for name in ("model.onnx", "certificate.json", "variant.toml", "report.html", "run.sqlite"):
        assert (finished.out / name).is_file()
    assert {p.name for p in finished.out.iterdir()} == {
        "model.onnx", "certificate.json", "variant.toml", "report.html", "run.sqlite",
    }  # fmt: skip
    onnx.checker.check_model(str(finished.out / "model.onnx"))


@pytest.mark.slow
def test_broken_is_1(given: Given, cli: Cli, tmp_path: Path) -> None:
    got = cli("compress", *given.args, "--keep", "snr_db >= 150", "-o", tmp_path / "out")
    assert got.code == 1, (got.out, got.err)
    assert "the safest candidate breaks snr_db >= 150" in got.out
    assert not (tmp_path / "out" / "model.onnx").exists()
    assert not (tmp_path / "out" / "certificate.json").exists()
    assert (tmp_path / "out" / "report.html").is_file()


def test_nothing_to_make_cheaper_is_1(cli: Cli, tmp_path: Path) -> None:
    onnx.save(without_sites(), str(tmp_path / "bare.onnx"))
    x = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
    np.save(tmp_path / "cases.npy", x)
    args = (tmp_path / "bare.onnx", "--cases", tmp_path / "cases.npy", *KEEP)
    got = cli("compress", *args, "-o", tmp_path / "out")
    assert got.code == 1
    assert "the model has no site to make cheaper" in got.out
    assert "0 sites" in cli("inspect", tmp_path / "bare.onnx").out


def test_too_few_cases_is_3_and_stops_before_any_search(
    given: Given, cli: Cli, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    got = cli("compress", *given.args, "--keep", "decision_stability >= 0.999", "-o", out)
    assert got.code == 3
    found = re.search(r"(\d+) units cannot show .* it takes (\d+), (\d+) more", got.out)
    assert found, got.out
    have, needed, more = map(int, found.groups())
    assert (have, needed, more) == (200, 2995, 2795)
    assert "Found:" not in got.out
    store = Store(out / "run.sqlite")
    steps = set(store.seconds())
    assert "summary" in steps
    assert steps <= {"identity", "at_best", "summary", "reference/search", "rows/reference"}
    store.close()


@pytest.mark.slow
def test_undecided_is_3_and_says_how_many_more_cases(
    given: Given, cli: Cli, tmp_path: Path
) -> None:
    """A tolerance that a few percent of the groups exceed is chosen from a first run."""
    first, variant = tmp_path / "first", tmp_path / "int8.toml"
    # The same file in both runs, whatever is fast here.
    variant.write_text("[sites]\n" + "".join(f'{s} = "int8"\n' for s in SITES))
    args = ("compress", *given.args, "--variant", variant)
    assert cli(*args, "--keep", "snr_db >= 150", "-o", first).code == 1
    store = Store(first / "run.sqlite")
    rung = store.get("summary")["plan"]["rungs"][0]["variant"]
    exact = store.arrays("certification/reference")["logits"]
    cheap = store.arrays(f"certification/{rung}")["logits"]
    store.close()
    worst = np.sort(np.abs(cheap - exact).max(1).reshape(-1, 3).max(1))[::-1]
    eps = float(worst[5:7].mean())
    clause = f"within_tolerance({eps:.9f}) >= 0.955"
    got = cli(*args, "--keep", clause, "-o", tmp_path / "out")
    assert got.code == 3, got.out
    assert "changed" in got.out
    more = re.search(r"about (\d+) more certification units at this rate could show it", got.out)
    assert more, got.out
    assert 10 < int(more[1]) < 10_000


# certify


def judged(cli: Cli, *args: object) -> tuple[int, str]:
    got = cli("certify", *args)
    assert got.err == ""
    return got.code, got.out


class Rows(CalibrationDataReader):  # type: ignore[misc]
    """Batches of rows for ONNX Runtime's own quantizer."""

    def __init__(self, x: Array) -> None:
        self.left = iter(np.array_split(x, 4))

    def get_next(self) -> dict[str, Array] | None:
        rows = next(self.left, None)
        return None if rows is None else {"x": rows}


def test_certify_files_that_others_made(
    given: Given, fresh: Path, cli: Cli, tmp_path: Path
) -> None:
    quantize_dynamic(given.model, tmp_path / "dynamic.onnx")
    rows = Rows(np.load(given.cases)["x"])
    quantize_static(given.model, tmp_path / "static.onnx", rows, QuantFormat.QDQ)
    for name, code in (("dynamic", 0), ("static", 0)):
        pair = (given.model, tmp_path / f"{name}.onnx", "--cases", fresh)
        out = tmp_path / f"{name}.json"
        got, said = judged(cli, *pair, "--keep", "decision_stability >= 0.9", "-o", out)
        assert (got, "Verdict: HELD" in said) == (code, True), said
        body = json.loads(out.read_text())
        assert body["verdict"] == "HELD"
        assert body["cases"]["n"] == 1200
        assert body["candidate"]["bytes"] == (tmp_path / f"{name}.onnx").stat().st_size
        assert any("No groups were given" in note for note in body["note"])


def test_certify_gives_each_verdict(given: Given, fresh: Path, cli: Cli, tmp_path: Path) -> None:
    said = []
    for share, bound, code in ((0.02, 0.95, 0), (1.0, 0.95, 1), (0.05, 0.985, 3)):
        onnx.save(shaken(mlp(), share), str(tmp_path / "shaken.onnx"))
        pair = (given.model, tmp_path / "shaken.onnx", "--cases", fresh)
        keep = ("--keep", f"decision_stability >= {bound}")
        got, text = judged(cli, *pair, *keep, "-o", tmp_path / f"{share}.json")
        assert got == code, text
        said.append(text)
    assert "holds with the stated confidence" in said[0]
    assert "fails with the stated confidence" in said[1]
    assert "too few cases to say" in said[2]


def test_certify_never_overwrites(given: Given, fresh: Path, cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "certificate.json"
    out.write_text("mine")
    args = ("certify", given.model, given.model, "--cases", fresh, *KEEP, "-o")
    refused(cli(*args, out), "exists; certificates are never overwritten")
    refused(cli(*args, tmp_path / "no" / "c.json"), "there is no folder")
    assert out.read_text() == "mine"


def test_certify_takes_a_contract_file(
    given: Given, fresh: Path, cli: Cli, tmp_path: Path
) -> None:
    terms = tmp_path / "contract.toml"
    terms.write_text(
        'alpha = 0.1\npopulation = "adults"\n[[keep]]\nmetric = "decision_stability"\n'
        'at_least = 0.99\n[[keep]]\nmetric = "snr_db"\nat_least = 10\n'
    )
    pair = (given.model, given.model, "--cases", fresh, "--contract", terms)
    code, _ = judged(cli, *pair, "-o", tmp_path / "c.json")
    body = json.loads((tmp_path / "c.json").read_text())
    assert code == 0
    assert (body["alpha"], body["population"]) == (0.1, "adults")
    assert [c["clause"] for c in body["clauses"]] == [
        "decision_stability >= 0.99", "snr_db >= 10",
    ]  # fmt: skip


def test_certify_names_what_does_not_pair_up(
    given: Given, fresh: Path, cli: Cli, tmp_path: Path
) -> None:
    out = tmp_path / "c.json"
    other = mlp(hidden=8)
    other.graph.input[0].name = other.graph.node[0].input[0] = "pixels"
    onnx.save(other, str(tmp_path / "other.onnx"))
    pair = (given.model, tmp_path / "other.onnx", "--cases", fresh)
    refused(cli("certify", *pair, *KEEP, "-o", out), "inputs differ", "['x']", "['pixels']")
    other = mlp(hidden=8)
    other.graph.output[0].name = other.graph.node[-1].output[0] = "scores"
    onnx.save(other, str(tmp_path / "other.onnx"))
    refused(cli("certify", *pair, *KEEP, "-o", out), "lacks the outputs ['logits']")
    assert not out.exists()


# verify


@pytest.mark.slow
def test_verify_says_what_differs(
    finished: Finished, given: Given, cli: Cli, tmp_path: Path
) -> None:
    here = tmp_path / "run"
    shutil.copytree(finished.out, here)
    path = here / "certificate.json"
    good = path.read_text()
    args = ("verify", path, "--reference", given.model, "--cases")
    got = cli(*args, given.cases)
    assert (got.code, got.err) == (0, "")
    assert got.out.startswith("Nothing differs: files, cases, runtime and every number")

    body = json.loads(good)
    body["runtime"]["cpu_flags"] = ["avx", 9]
    body["runtime"]["version"] = "0.1"
    body["justenough"] = "9.9.9"
    body["clauses"][0]["estimate"] = 0.5
    body["clauses"][0]["bound"] = 0.1
    path.write_text(json.dumps(body))
    got = cli(*args, given.cases)
    said = got.out.splitlines()
    for line in (
        "differs: runtime version: 0.1 in the certificate",
        "differs: runtime cpu_flags: avx 9 in the certificate",
        "differs: justenough: 9.9.9 then",
        "differs: decision_stability >= 0.97, estimate: 0.5 then",
        "differs: decision_stability >= 0.97, bound: 0.1 then",
    ):
        assert any(s.startswith(line) for s in said), (line, said)

    path.write_text(good)
    x, labels = blobs(np.random.default_rng(99), 900)
    groups = np.array([f"other {k // 3}" for k in range(len(x))])
    np.savez(tmp_path / "others.npz", x=x, labels=labels, groups=groups)
    got = cli(*args, tmp_path / "others.npz")
    assert "differs: cases fingerprint" in got.out
    assert "differs: candidate" not in got.out

    model = onnx.load(here / "model.onnx")
    model.doc_string = "edited"
    onnx.save(model, here / "model.onnx")
    got = cli(*args, given.cases)
    assert got.out.startswith("differs: candidate sha256")
    onnx.save(shaken(mlp(), 5.0), str(here / "model.onnx"))
    got = cli(*args, given.cases)
    assert got.code == 1
    assert "differs: verdict: HELD then, BROKEN now" in got.out
    got = cli("verify", path, "--reference", here / "model.onnx", "--cases", given.cases)
    assert "differs: reference sha256" in got.out


def test_verify_a_certificate_of_certify(
    given: Given, fresh: Path, cli: Cli, tmp_path: Path
) -> None:
    onnx.save(shaken(mlp(), 1.0), str(tmp_path / "shaken.onnx"))
    pair = (given.model, tmp_path / "shaken.onnx", "--cases", fresh)
    assert judged(cli, *pair, *KEEP, "-o", tmp_path / "c.json")[0] == 1
    args = ("--reference", given.model, "--cases", fresh)
    got = cli("verify", tmp_path / "c.json", *args)
    assert got.code == 1, "a broken certificate stays broken"
    assert got.out.startswith("Nothing differs")
    refused(cli("verify", tmp_path / "no.json", *args), "no certificate at")


# inspect, report, help


def test_inspect(given: Given, cli: Cli) -> None:
    got = cli("inspect", given.model)
    assert got.code == 0
    assert "opset 17, inputs x, outputs logits" in got.out
    for name, size in (("first", 64 * 384), ("second", 384 * 384), ("readout", 384 * 4)):
        row = next(line for line in got.out.splitlines() if line.startswith(name))
        assert row.split()[:3] == [name, "MatMul", f"{size:,}"]
    assert f"3 sites, {64 * 384 + 384 * 384 + 384 * 4:,} weights" in got.out
    timed = cli("inspect", *given.args)
    assert timed.code == 0
    shares = [float(s) for s in re.findall(r"([\d.]+)%", timed.out)]
    assert len(shares) == 3 and 50 < sum(shares) <= 100.5
    assert "a call of 32 cases" in timed.out


@pytest.mark.slow
def test_report_is_rebuilt_from_the_store(
    finished: Finished, given: Given, cli: Cli, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished.out, out)
    before = snapshot(out)
    (out / "report.html").unlink()
    assert cli("report", out).code == 0
    assert snapshot(out) == before
    assert cli("report", out, "-o", tmp_path / "again.html").code == 0
    assert (tmp_path / "again.html").read_bytes() == before["report.html"]
    with sqlite3.connect(out / "run.sqlite") as db:
        db.execute("DELETE FROM records WHERE step = 'summary'")
    db.close()
    refused(cli("report", out), "has not ended; call compress again to go on")


def test_help_and_a_process() -> None:
    got = process("--help")
    assert got.code == 0
    for verb in ("inspect", "compress", "certify", "verify", "report", "demo"):
        assert f"  {verb} " in got.out
    refused(process("inspect", "nothing.onnx"), "no model file at 'nothing.onnx'")
