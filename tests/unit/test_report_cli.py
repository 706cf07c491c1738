"""What the command line says at the end of a run, without running one."""

from pathlib import Path
from typing import Any

import pytest
from report_world import (
    MISSING,
    bf16_alone,
    costed,
    curved,
    evidence,
    goal,
    held,
    stopped,
    three_stages,
    two_runtimes,
    without_openvino,
)

from justenough.cli import show


def said(capsys: pytest.CaptureFixture[str], summary: dict[str, Any], cases: str = "") -> str:
    """Everything that is printed at the end of a run, its line breaks taken out."""
    show.found(summary)
    show.where(Path("out"), "net.onnx", cases, summary)
    printed = capsys.readouterr().out
    kept = (line for line in printed.splitlines() if not line.startswith(("Check:", "Verdict:")))
    assert all(len(line) <= show.WIDE for line in kept), printed
    return " ".join(printed.split())


def test_stages_and_runtimes_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, three_stages())
    assert (
        "Found: OpenVINO int8 at 2 of 3 sites, the rest bf16; 1.1 % of cases go on to OpenVINO "
        "bf16, 0.2 % are answered again by the exact model in ONNX Runtime. Speed: 3.16x" in text
    )
    assert (
        "Deploy: out/cascade.toml, with stage-1.xml, stage-1.bin, stage-2.onnx beside it" in text
    )
    assert "Look: out/report.html" in text


def test_one_file_is_deployed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, held(), "cases.npz")
    assert "Deploy: out/model.onnx Check: justenough verify" in text
    assert "fp32 takes: 1.95 ms a case (1 thread, batch 32)" in text
    assert "Size: 3.57 MB; the reference has 2.79 MB" in text
    assert "at 0.95 confidence" in text


def test_runtime_alone_needs_no_stages(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, bf16_alone())
    assert "Found: The model as it is, in OpenVINO bf16." in text
    assert "Deploy: out/cascade.toml, with stage-1.onnx beside it" in text
    assert "Quality" not in text


def test_skipped_variants_are_a_count_and_missing_runtimes_a_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = said(capsys, without_openvino())
    assert f"Missing: {MISSING}" in text
    assert "Left out: 2 variants that could not be built or run; see the report" in text
    assert "Note: the time was over" in text
    assert "cannot load" not in text
    s = without_openvino()
    del s["search"]["notes"][2]
    assert "Left out: 1 variant that could" in said(capsys, s)
    assert "Left out" not in said(capsys, held())


def test_nothing_held(capsys: pytest.CaptureFixture[str]) -> None:
    s = two_runtimes()
    s["search"]["notes"] = ["v was skipped: no"]
    text = said(capsys, s)
    assert "Verdict: nothing cheaper is offered: the safest candidate did not hold" in text
    assert "Left out: 1 variant" in text
    assert "Deploy" not in text
    assert "Plain int8: 3.20x as fast as fp32; alone it breaks the contract" in text


def test_run_that_stopped_before_its_search(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, stopped())
    assert text == "Verdict: nothing cheaper is offered: too few cases Look: out/report.html"


def test_run_without_int8_still_says_what_fp32_takes(capsys: pytest.CaptureFixture[str]) -> None:
    s = bf16_alone()
    s["plain_int8"] = None
    text = said(capsys, s)
    assert "fp32 takes: 1.95 ms" in text
    assert "Plain int8" not in text


def test_variant_that_was_given_is_called_so(capsys: pytest.CaptureFixture[str]) -> None:
    s = held()
    s["goal"] = goal(given=True)
    text = said(capsys, s)
    assert "Given: 3.20x as fast as fp32; alone it breaks the contract" in text
    assert "Plain int8" not in text


def test_curve_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, curved())
    assert (
        "Curve: 3 of 4 points hold the contract; all 4 limits hold at once with 0.95 confidence"
        in text
    )
    assert "at least 0.99055 at 0.9875 confidence" in text


def test_estimates_are_called_estimates(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, costed("energy-estimate", "rx580", 0.001))
    assert "Estimate: 1.7 mJ (energy a case on rx580, estimate)" in text
    assert "Estimate" not in said(capsys, costed("bytes", "this-machine", 1e6))


def test_estimate_that_is_no_number_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    s = held()
    e = {**evidence(0, 0.0, 30.0), "estimate": None, "changed": None, "unit": "dB"}
    s["plain_int8"]["clauses"] = [e]
    assert "estimate not finite, limit 30 dB" in said(capsys, s)
