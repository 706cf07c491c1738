"""Certificates as JSON: what goes in comes out, and what is none is refused."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from justenough.core.certificate import Certificate, read_certificate
from justenough.core.contract import Contract, parse_clause
from justenough.core.evidence import Verdict
from justenough.core.judge import Paired, judge
from justenough.errors import InputError


def _certificate(n: int = 400) -> Certificate:
    contract = Contract(
        (parse_clause("decision_stability >= 0.99"), parse_clause("snr_db >= 10")), 0.05, "here"
    )
    y = np.where(np.arange(n) % 2 > 0, 1.0, -1.0)
    return Certificate(
        Verdict.UNDECIDED, contract, judge(contract, Paired({"y": y}, {"y": y}, np.arange(n))),
        {"file": "a.onnx", "sha256": "0" * 64, "bytes": 1}, {"file": "b.onnx"},
        {"n": n, "units": n}, {"name": "onnxruntime"}, "", ("a note",), "2026-01-01T00:00:00Z",
        "0.1.0",
    )  # fmt: skip


def test_a_certificate_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "certificate.json"
    path.write_text(_certificate().to_json(), encoding="utf-8")
    body = read_certificate(path)
    assert body["verdict"] == "UNDECIDED"
    assert (body["alpha"], body["population"], body["note"]) == (0.05, "here", ["a note"])
    stability, snr = body["clauses"]
    assert (stability["metric"], stability["op"], stability["bound"]) == (
        "decision_stability", ">=", 0.99,
    )  # fmt: skip
    assert (stability["n"], stability["changed"], stability["verdict"]) == (400, 0, "HELD")
    assert stability["limit"] == pytest.approx(0.05 ** (1 / 400))
    assert snr["estimate"] is None  # no noise seen: infinite
    assert snr["clause"] == "snr_db >= 10"
    assert parse_clause(snr["clause"]).bound == snr["bound"]


def test_numbers_that_do_not_exist_are_null() -> None:
    body = json.loads(_certificate(20).to_json())
    snr = body["clauses"][1]
    assert (snr["estimate"], snr["limit"], snr["other_limit"], snr["n"]) == (None, None, None, 20)
    assert "needs at least 30" in snr["note"]
    assert not any(math.isnan(v) for v in snr.values() if isinstance(v, float))


def _without(key: str) -> Any:
    body = json.loads(_certificate().to_json())
    del body[key]
    return body


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "certificate.json is not JSON: "),
        ("[" * 100_000, "certificate.json is not JSON: "),
        ("[]", "is not a certificate; it needs the keys format, verdict, alpha"),
        (json.dumps(_without("clauses")), "is not a certificate; it needs the keys"),
        (_certificate().to_json().replace("certificate 1", "certificate 9"),
         "has the format 'justenough certificate 9', unknown here"),
    ],
)  # fmt: skip
def test_what_is_no_certificate(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "certificate.json"
    with pytest.raises(InputError, match="no certificate at "):
        read_certificate(path)
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        read_certificate(path)
