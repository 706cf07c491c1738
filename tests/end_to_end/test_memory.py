"""Cases larger than memory may be: what a run takes does not grow with the bytes of its cases."""

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from small_world import (
    CLASSES,
    FEATURES,
    HIDDEN,
    KEEP,
    ROOT,
    Array,
    Ran,
    blobs,
    fitted,
    hidden_weights,
    network,
)

from justenough.core.cases import Cases, CertificationCases
from justenough.core.contract import Contract, parse_clause
from justenough.deploy.certify import certify

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="peak memory from /proc"),
]
WIDTH, CASES = 2**16, 6000
LEAST_BYTES, MOST_BYTES = 1_500_000_000, 500_000_000
MEASURED = """
import atexit, re, sys
from pathlib import Path
def peak():
    kib = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]
    print("PEAK", int(kib) * 1024, file=sys.stderr)
atexit.register(peak)
from justenough.cli.main import main
main()
"""


def measured(*args: object) -> tuple[Ran, int]:
    """Run `justenough ARGS` as a process of its own; its peak of resident bytes too."""
    got = subprocess.run(
        [sys.executable, "-c", MEASURED, *map(str, args)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    *said, peak = got.stderr.splitlines()
    assert peak.startswith("PEAK "), got.stderr
    return Ran(got.returncode, got.stdout, "\n".join(said)), int(peak.split()[1])


def readout(changed: float, width: int, *, slow: bool = False) -> onnx.ModelProto:
    """Two layers on the first FEATURES of `width` inputs; the weights rounded to `changed`.

    A slow one takes longer for a row than reading it does, so that rows that are read ahead
    would pile up; its answers are the same.
    """
    x, labels = blobs(np.random.default_rng(1), 800)
    w1 = hidden_weights((FEATURES, HIDDEN), 2)
    w2 = fitted(np.maximum(x @ w1, 0), labels)
    if changed:
        w1 = np.round(w1 / changed).astype(np.float32) * np.float32(changed)
    weights: dict[str, Array] = {
        "w1": w1,
        "w2": w2,
        "from": np.array([0]),
        "to": np.array([FEATURES]),
        "axis": np.array([1]),
    }
    nodes = [
        helper.make_node("Slice", ["x", "from", "to", "axis"], ["few"]),
        helper.make_node("MatMul", ["few", "w1"], ["a"], "first"),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "w2"], ["c" if slow else "logits"], "readout"),
    ]
    if slow:
        weights["nothing"] = np.zeros(1, np.float32)
        nodes += [helper.make_node("Sin", [a], [b]) for a, b in ("xs", "st", "tu", "uv")]
        nodes += [
            helper.make_node("ReduceMax", ["v"], ["largest"], axes=[1]),
            helper.make_node("Mul", ["largest", "nothing"], ["zero"]),
            helper.make_node("Add", ["c", "zero"], ["logits"]),
        ]
    return network(
        nodes,
        {"x": (TensorProto.FLOAT, ["n", width])},
        {"logits": (TensorProto.FLOAT, ["n", CLASSES])},
        weights,
    )


def written(path: Path, x: Array) -> str:
    """An archive of rows as wide as WIDTH that begin like `x`; its fingerprint, by hand."""
    shape = (len(x), WIDTH)
    finger = hashlib.sha256(f"x\0<f4\0{shape}\0".encode())
    with (
        zipfile.ZipFile(path, "w") as archive,
        archive.open("x.npy", "w", force_zip64=True) as member,
    ):
        np.lib.format.write_array_header_1_0(
            member, {"descr": "<f4", "fortran_order": False, "shape": shape}
        )
        for i in range(0, len(x), 50):
            rows = np.zeros((len(x[i : i + 50]), WIDTH), np.float32)
            rows[:, :FEATURES] = x[i : i + 50]
            member.write(rows.data)
            finger.update(rows.data)
    return finger.hexdigest()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Array, str]]:
    """Models for wide and narrow rows, a large case file, its narrow rows and fingerprint."""
    folder = tmp_path_factory.mktemp("large")
    for name, changed in (("exact", 0.0), ("cheap", 0.05)):
        onnx.save(readout(changed, WIDTH), str(folder / f"{name}.onnx"))
        onnx.save(readout(changed, WIDTH, slow=True), str(folder / f"slow-{name}.onnx"))
        onnx.save(readout(changed, FEATURES), str(folder / f"narrow-{name}.onnx"))
    x, _ = blobs(np.random.default_rng(5), CASES)
    yield folder, x, written(folder / "cases.npz", x)
    (folder / "cases.npz").unlink()


def test_certify_takes_far_less_memory_than_its_cases(world: tuple[Path, Array, str]) -> None:
    """The verdict and every number are those of the rows in memory."""
    folder, x, fingerprint = world
    assert (folder / "cases.npz").stat().st_size > LEAST_BYTES
    got, peak = measured(
        "certify", folder / "slow-exact.onnx", folder / "slow-cheap.onnx",
        "--cases", folder / "cases.npz", *KEEP, "-o", folder / "certificate.json",
    )  # fmt: skip
    assert got.code == 0, got.err
    assert peak < MOST_BYTES, f"{peak:,} bytes"
    body: Any = json.loads((folder / "certificate.json").read_text())
    assert body["cases"]["fingerprint"] == fingerprint
    held = certify(
        folder / "narrow-exact.onnx", folder / "narrow-cheap.onnx",
        CertificationCases(Cases({"x": x})), Contract((parse_clause(KEEP[1]),), 0.05, ""),
    )  # fmt: skip
    (clause,), want = body["clauses"], held.evidence[0]
    assert want.changed, "the models must differ for this to show anything"
    assert (clause["n"], clause["changed"]) == (want.n, want.changed)
    assert (clause["estimate"], clause["limit"]) == (want.estimate, want.limit)
    assert body["verdict"] == held.verdict == "HELD"


def test_compress_takes_far_less_memory_than_its_cases(world: tuple[Path, Array, str]) -> None:
    folder, _, _ = world
    got, peak = measured(
        "compress", folder / "exact.onnx", "--cases", folder / "cases.npz",
        *KEEP, "-o", folder / "out",
    )  # fmt: skip
    assert got.code in (0, 1, 3), got.err
    assert (folder / "out" / "report.html").is_file()
    assert peak < LEAST_BYTES, f"{peak:,} bytes"
