"""Runtimes, goals and variants given back, as a user asks for them on the command line."""

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from small_world import (
    CLASSES,
    KEEP,
    ROOT,
    Cli,
    Finished,
    Given,
    blobs,
    compress_refused,
    network,
    process,
    refused,
)

Array = NDArray[Any]
SIZE, CHANNELS = 12, 12
ORT = ("--runtime", "onnxruntime")
CRASHING = """
import os, sys
class Crash:
    def find_spec(self, name, *_):
        if name == "openvino":
            os.abort()
if any("justenough.search.local_workers" in a for a in sys.orig_argv):
    sys.meta_path.insert(0, Crash())
"""


def summary(out: Path) -> dict[str, Any]:
    """What the run recorded at its end."""
    with closing(sqlite3.connect(out / "run.sqlite")) as db:
        (text,) = db.execute("SELECT json FROM records WHERE step = 'summary'").fetchone()
    found: dict[str, Any] = json.loads(text)
    return found


def pictures(seed: int, n: int) -> tuple[Array, Array]:
    """Noisy pictures (n, 3, SIZE, SIZE) around one a class, and their classes."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(7).normal(0, 1, (CLASSES, 3, SIZE, SIZE))
    labels = rng.integers(0, CLASSES, n)
    x = 0.25 * centres[labels] + rng.normal(0, 1, (n, 3, SIZE, SIZE))
    return x.astype(np.float32), labels


def conv_model(readout: Array) -> onnx.ModelProto:
    rng = np.random.default_rng(2)
    nodes, last = [], "x"
    weights: dict[str, Array] = {"readout": readout}
    for k, width in enumerate((3, CHANNELS, CHANNELS)):
        shape = (CHANNELS, width, 3, 3)
        weights[f"w{k}"] = (rng.normal(0, 1, shape) / np.sqrt(9 * width)).astype(np.float32)
        stride = [1 + (k == 2)] * 2
        nodes += [
            helper.make_node("Conv", [last, f"w{k}"], [f"c{k}"], f"conv{k}", pads=[1] * 4,
                             strides=stride),
            helper.make_node("Relu", [f"c{k}"], [f"r{k}"], f"relu{k}"),
        ]  # fmt: skip
        last = f"r{k}"
    nodes += [
        helper.make_node("Flatten", [last], ["flat"], "flatten"),
        helper.make_node("MatMul", ["flat", "readout"], ["logits"], "readout"),
    ]
    return network(
        nodes,
        {"x": (TensorProto.FLOAT, ["n", 3, SIZE, SIZE])},
        {"logits": (TensorProto.FLOAT, ["n", CLASSES])},
        weights,
    )


@pytest.fixture(scope="session")
def conv(tmp_path_factory: pytest.TempPathFactory) -> Given:
    """A small convolutional network whose readout was fitted, and 700 cases."""
    folder = tmp_path_factory.mktemp("conv")
    width = CHANNELS * (SIZE // 2) ** 2
    model = conv_model(np.zeros((width, CLASSES), np.float32))
    model.graph.output.append(helper.make_tensor_value_info("flat", TensorProto.FLOAT, None))
    x, labels = pictures(1, 1200)
    features = ort.InferenceSession(model.SerializeToString()).run(["flat"], {"x": x})[0]
    ridge = features.T @ features + 300 * np.eye(width)
    readout = np.linalg.solve(ridge, features.T @ np.eye(CLASSES)[labels])
    onnx.save(conv_model(readout.astype(np.float32)), str(folder / "conv.onnx"))
    x, labels = pictures(5, 700)
    np.savez(folder / "cases.npz", x=x, labels=labels)
    return Given(folder, folder / "conv.onnx", folder / "cases.npz")


@pytest.fixture(scope="session")
def in_openvino(conv: Given, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A run that may deploy nothing but OpenVINO's models."""
    pytest.importorskip("nncf")
    out = tmp_path_factory.mktemp("openvino") / "out"
    only = ("--runtime", "openvino", "--minimise", "bytes")
    keep = ("--keep", "decision_stability >= 0.9")
    return Finished(out, process("compress", *conv.args, *keep, *only, "-o", out))


def bare(path: Path) -> bytes:
    """A model without its notes, one of which names the plan of its run."""
    model = onnx.load(path)
    del model.metadata_props[:]
    return bytes(model.SerializeToString(deterministic=True))


def answers(cli: Cli, model: Path, cases: Path, out: Path) -> dict[str, Array]:
    got = cli("run", model, "--cases", cases, "-o", out)
    assert got.code == 0, got.err
    assert f"answered by {model.name}" in got.out
    with np.load(out) as held:
        return dict(held)


def verified(cli: Cli, out: Path, given: Given) -> None:
    check = ("verify", out / "certificate.json", "--reference", given.model, "--cases")
    got = cli(*check, given.cases)
    assert got.out.startswith("Nothing differs"), got.out + got.err
    assert got.code == 0


# What is deployed


@pytest.mark.slow
def test_openvino_is_deployed_verified_and_run(
    in_openvino: Finished, conv: Given, cli: Cli, tmp_path: Path
) -> None:
    out, ran = in_openvino.out, in_openvino.ran
    assert ran.code == 0, ran.out + ran.err
    assert ran.err == ""
    assert "Deploy:" in ran.out and "cascade.toml" in ran.out and "OpenVINO" in ran.out
    assert (out / "report.html").is_file() and not (out / "model.onnx").exists()
    assert not (out / ".work").exists()
    certificate = json.loads((out / "certificate.json").read_text())
    assert certificate["candidate"]["file"] == "cascade.toml"
    assert certificate["candidate"]["stages"][0]["runtime"]["name"] == "openvino"
    verified(cli, out, conv)
    got = answers(cli, out / "cascade.toml", conv.cases, tmp_path / "answers.npz")
    assert set(got) == {"logits", "deferred"} and got["logits"].shape == (700, CLASSES)
    want = answers(cli, conv.model, conv.cases, tmp_path / "exact.npz")["logits"]
    assert (got["logits"].argmax(1) == want.argmax(1)).mean() > 0.9
    report = cli("report", out)
    assert report.code == 0, report.err


@pytest.mark.slow
def test_a_changed_byte_of_a_stage_is_seen(
    in_openvino: Finished, conv: Given, cli: Cli, tmp_path: Path
) -> None:
    for file in in_openvino.out.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    stage = next(tmp_path.glob("stage-1.*"))
    weights = stage.with_suffix(".bin")
    if weights.is_file():
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(bytes(content))
    else:  # the float file, with one note more
        model = onnx.load(stage)
        model.metadata_props.add(key="note", value="mine")
        onnx.save(model, stage)
    check = ("verify", tmp_path / "certificate.json", "--reference", conv.model, "--cases")
    got = cli(*check, conv.cases)
    assert "differs: " in got.out and "sha256" in got.out


@pytest.mark.slow
def test_onnx_runtime_gives_one_file(given: Given, cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "out"
    got = process("compress", *given.args, *KEEP, *ORT, "--workers", "2", "-o", out)
    assert got.code == 0, got.out + got.err
    assert (out / "model.onnx").is_file() and not (out / "cascade.toml").exists()
    assert {e["runtime"] for e in summary(out)["search"]["variants"].values()} == {"onnxruntime"}
    assert summary(out)["goal"]["workers"] == "2"
    verified(cli, out, given)
    file = answers(cli, out / "model.onnx", given.cases, tmp_path / "answers.npz")
    assert file["logits"].shape == (900, CLASSES)


# Variants given back


@pytest.mark.slow
def test_a_variant_as_it_was_gives_the_same_file(
    finished: Finished, given: Given, tmp_path: Path
) -> None:
    """What a run wrote deploys the same model again, on the very cases that certified it."""
    if (finished.out / "cascade.toml").exists():
        pytest.skip("this machine deployed more than one file")
    out = tmp_path / "out"
    variant = finished.out / "variant.toml"
    got = process("compress", *given.args, *KEEP, "--variant", variant, "-o", out)
    assert got.code == 0, got.out + got.err
    first, again = (json.loads((o / "certificate.json").read_text()) for o in (finished.out, out))
    assert again["clauses"] == first["clauses"] and again["cases"] == first["cases"]
    assert bare(out / "model.onnx") == bare(finished.out / "model.onnx")
    assert (out / "variant.toml").read_text() == variant.read_text()
    assert summary(out)["goal"]["given"] is True


@pytest.mark.slow
def test_an_edited_variant_needs_fresh_cases(
    finished: Finished, given: Given, cli: Cli, tmp_path: Path
) -> None:
    text = (finished.out / "variant.toml").read_text()
    assert '= "int8"' in text
    edited = tmp_path / "variant.toml"
    edited.write_text(text.replace('= "int8"', '= "fp32"', text.count('= "int8"') - 1))
    args = ("compress", *given.args, *KEEP, "--variant", edited)
    out = tmp_path / "out"
    refused(cli(*args, "-o", out), "the variant was edited after these cases had certified it",
            "--certify-cases")  # fmt: skip
    assert not out.exists()
    x, labels = blobs(np.random.default_rng(77), 700)
    np.savez(tmp_path / "fresh.npz", x=x, labels=labels,
             groups=np.array([f"other {k}" for k in range(len(x))]))  # fmt: skip
    got = process(*args, "--certify-cases", tmp_path / "fresh.npz", "-o", out)
    assert got.code in (0, 1), got.out + got.err  # it may be no faster here
    assert got.err == "" and summary(out)["steps"][0]["verdict"] == "HELD"


def test_a_variant_that_cannot_be_is_refused(given: Given, cli: Cli, tmp_path: Path) -> None:
    for text, said in (
        (
            'calibration = "best"\n[sites]\n',
            "a calibration 'best'; there are: minmax, minmax-narrow",
        ),
        ('form = "half"\n[sites]\n', "a form 'half'; there are: full, whole, inputs, nncf, plain"),
        ('[sites]\nthird = "int8"\n', "a site 'third' that the model does not have"),
        ('[sites]\nfirst = "int9"\n', "no choice 'int9'"),
    ):
        wrong = tmp_path / "wrong.toml"
        wrong.write_text(text)
        compress_refused(cli, tmp_path, (*given.args, *KEEP, "--variant", wrong), said)


# Goals


@pytest.mark.slow
def test_a_pinned_site_stays(given: Given, tmp_path: Path) -> None:
    out = tmp_path / "out"
    got = process("compress", *given.args, *KEEP, *ORT, "--pin", "second=fp32", "-o", out)
    assert got.code in (0, 1), got.out + got.err
    found = summary(out)
    assert found["goal"]["pins"] == [["second", "fp32"]]
    picks = [dict(e["picks"]) for e in found["search"]["variants"].values()]
    assert picks and all(p.get("second", "fp32") == "fp32" for p in picks)
    assert any("first" in p for p in picks)


@pytest.mark.slow
def test_bytes_are_made_small(given: Given, cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "out"
    keep = ("--keep", "decision_stability >= 0.9")
    got = process("compress", *given.args, *keep, *ORT, "--minimise", "bytes", "-o", out)
    assert got.code == 0, got.out + got.err
    held = summary(out)
    assert held["goal"]["minimise"] == "bytes" and not held["goal"]["estimated"]
    assert (out / "model.onnx").stat().st_size < 0.5 * given.model.stat().st_size
    assert held["result"]["kind"] == "plain"  # a cascade holds the reference too
    verified(cli, out, given)


@pytest.mark.slow
def test_another_machine_is_an_estimate_and_says_so(given: Given, tmp_path: Path) -> None:
    out = tmp_path / "out"
    got = process("compress", *given.args, *KEEP, *ORT, "--target", "rx580", "-o", out)
    assert got.code in (0, 1), got.out + got.err
    assert summary(out)["goal"] | {"target": "rx580", "estimated": True} == summary(out)["goal"]
    assert "estimate" in got.out.lower(), got.out
    assert "rx580" in (out / "report.html").read_text()


@pytest.mark.slow
def test_no_time_at_all_still_ends_with_an_answer(given: Given, cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "out"
    got = process("compress", *given.args, *KEEP, "--budget", "0s", "-o", out)
    assert got.code in (0, 1), got.out + got.err
    assert got.err == "" and (out / "report.html").is_file()
    found = summary(out)
    assert found["goal"]["budget_s"] == 0.0 and len(found["search"]["variants"]) == 1
    if got.code == 0:
        verified(cli, out, given)


@pytest.mark.slow
def test_a_curve_judges_every_point(given: Given, tmp_path: Path) -> None:
    out = tmp_path / "out"
    got = process(
        "compress", *given.args, "--keep", "decision_stability >= 0.95", *ORT, "--curve", "-o", out
    )
    assert got.code in (0, 1), got.out + got.err
    found = summary(out)
    points = found["curve"]["points"]
    assert 1 <= points <= 6 and len(found["steps"]) == points
    assert found["curve"]["alpha"] == pytest.approx(0.05 / points)
    assert all({"verdict", "speedup", "bytes", "file"} <= set(s) for s in found["steps"])
    if found["result"]:
        assert found["certificate"]["alpha"] == pytest.approx(0.05 / points)


@pytest.mark.slow
def test_a_runtime_that_crashes_is_left_out_and_the_run_goes_on(
    given: Given, cli: Cli, tmp_path: Path
) -> None:
    pytest.importorskip("openvino")
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(CRASHING)
    paths = os.pathsep.join([str(tmp_path / "hook"), str(ROOT / "src")])
    out = tmp_path / "out"
    got = process("compress", *given.args, *KEEP, "-o", out, env={"PYTHONPATH": paths})
    assert got.code == 0, got.out + got.err
    assert got.err == ""
    found = summary(out)
    said = [n for n in found["search"]["notes"] if "openvino" in n and "crashed" in n]
    assert said and all("skipped" in n for n in said)
    runtimes = {e["runtime"] for e in found["search"]["variants"].values()}
    assert runtimes == {"onnxruntime"}
    verified(cli, out, given)


# What is refused


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (("--minimise", "speed"), "cannot minimise 'speed'"),
        (("--target", "rx58"), "rx58"),
        (("--runtime", "tvm"), "runtimes tvm: known are"),
        (("--pin", "second"), "'second' is no pin"),
        (("--pin", "=int8"), "'=int8' is no pin"),
        (("--pin", "second=int8", "--pin", "second=fp32"), "site 'second' is pinned twice"),
        (("--budget", "soon"), "'soon' is no time"),
        (("--budget", "-1s"), "is no time"),
        (("--workers", "0"), "workers='0' would have to be a number of processes"),
        (("--workers", "many"), "workers='many'"),
        (("--variant", "gone.toml"), "no variant at 'gone.toml'"),
        (("--pin", "no such site=fp32"), "no such site"),
        (("--pin", "second=int9"), "int9"),
    ],
)  # fmt: skip
def test_a_wrong_option_is_one_sentence(
    given: Given, cli: Cli, tmp_path: Path, option: tuple[str, ...], said: str
) -> None:
    compress_refused(cli, tmp_path, (*given.args, *KEEP, *option), said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no table [sites]"),
        ("[sites]\nsecond = 8", "a choice is a word"),
        ("a = " + "9" * 5000, "is not TOML"),
        ("runtime = 'tvm'\n[sites]\nsecond = 'int8'", "'tvm' is no runtime"),
    ],
)
def test_a_wrong_variant_is_one_sentence(
    given: Given, cli: Cli, tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / "variant.toml").write_text(text)
    args = (*given.args, *KEEP, "--variant", tmp_path / "variant.toml")
    compress_refused(cli, tmp_path, args, said)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sites", "said"),
    [
        ('"no such" = "int8"', "a site 'no such' that the model does not have"),
        ('second = "int9"', "site 'second' has no choice 'int9'; it has: fp32, int8"),
    ],
)
def test_a_variant_of_another_model_is_one_sentence(
    given: Given, cli: Cli, tmp_path: Path, sites: str, said: str
) -> None:
    (tmp_path / "variant.toml").write_text(f"[sites]\n{sites}\n")
    args = ("compress", *given.args, *KEEP, "--variant", tmp_path / "variant.toml")
    refused(cli(*args, "-o", tmp_path / "out"), said)


def test_run_refuses_what_it_cannot_answer_or_write(
    given: Given, cli: Cli, tmp_path: Path
) -> None:
    there = tmp_path / "there.npz"
    there.write_bytes(b"")
    ask = ("run", given.model, "--cases", given.cases, "-o")
    refused(cli(*ask, there), "exists; answers are never overwritten")
    refused(cli(*ask, tmp_path / "a.npy"), "is no .npz file in a folder that exists")
    refused(cli(*ask, tmp_path / "gone" / "a.npz"), "in a folder that exists")
    refused(cli("run", tmp_path / "gone.toml", *ask[2:], tmp_path / "a.npz"), "no deployment at")
    refused(cli("run", tmp_path / "gone.onnx", *ask[2:], tmp_path / "a.npz"), "no model file at")
    (tmp_path / "bad.toml").write_text("a = ")
    refused(cli("run", tmp_path / "bad.toml", *ask[2:], tmp_path / "a.npz"), "is not TOML")
    refused(cli(*ask, tmp_path / "a.npz", "--batch", "0"), "batch=0 must be 1 or more")
    assert {p.name for p in tmp_path.iterdir()} == {"there.npz", "bad.toml"}


def test_run_answers_with_a_model_alone(given: Given, cli: Cli, tmp_path: Path) -> None:
    got = answers(cli, given.model, given.cases, tmp_path / "a.npz")
    with np.load(given.cases) as held:
        want = ort.InferenceSession(str(given.model)).run(None, {"x": held["x"]})[0]
    assert set(got) == {"logits"}
    np.testing.assert_allclose(got["logits"], want, rtol=1e-4, atol=1e-5)
