"""Certificates: what was shown, about which files, on which cases, in which runtime."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from justenough.core.cases import SHARES
from justenough.core.contract import Contract, parse_clause
from justenough.core.evidence import Evidence, Verdict
from justenough.errors import InputError


@dataclass(frozen=True)
class Certificate:
    """The result of judging a deployed file against a contract on fresh cases.

    It holds for these files, this runtime on a processor with these flags, and cases drawn
    from the stated population, and expires with any of them.

    Attributes:
        verdict: HELD only when every clause held.
        contract: Clauses, alpha and population.
        evidence: One per clause.
        reference: File name, sha256 and bytes of the reference; `candidate` the same.
        cases: fingerprint, n (rows), units, whether the units are groups.
        runtime: name, version, processor, cpu_flags, threads, batch.
        plan_sha256: Hash of contract, candidates and thresholds, fixed before the cases
            were read; empty when a single candidate was judged as given.
        note: What the reader has to know before relying on it.
        created: UTC, ISO 8601.
        justenough: Version of this program.
    """

    verdict: Verdict
    contract: Contract
    evidence: tuple[Evidence, ...]
    reference: Mapping[str, Any]
    candidate: Mapping[str, Any]
    cases: Mapping[str, Any]
    runtime: Mapping[str, Any]
    plan_sha256: str
    note: tuple[str, ...]
    created: str
    justenough: str

    def to_json(self) -> str:
        """The certificate as JSON text; numbers that do not exist are null."""
        body = {
            "format": "justenough certificate 1",
            "verdict": self.verdict.value,
            "alpha": self.contract.alpha,
            "population": self.contract.population,
            "clauses": [
                {
                    **dataclasses.asdict(c),
                    **evidence_json(e),
                    "op": ">=" if c.kind.at_least else "<=",
                }
                for c, e in zip(self.contract.clauses, self.evidence, strict=True)
            ],
            "reference": dict(self.reference),
            "candidate": dict(self.candidate),
            "cases": dict(self.cases),
            "runtime": dict(self.runtime),
            "plan_sha256": self.plan_sha256,
            "note": list(self.note),
            "created": self.created,
            "justenough": self.justenough,
        }
        return json.dumps(body, indent=2, sort_keys=False, allow_nan=False) + "\n"


def evidence_json(e: Evidence) -> dict[str, Any]:
    """Evidence as JSON values; numbers that do not exist are None."""
    return {
        k: None if isinstance(v, float) and not math.isfinite(v) else v
        for k, v in dataclasses.asdict(e).items()
    }


def read_certificate(path: Path) -> dict[str, Any]:
    """The JSON of a certificate, checked for the keys that `verify` needs."""
    if not path.is_file():
        raise InputError(f"no certificate at {str(path)!r}")
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as e:
        raise InputError(f"{path.name} is not JSON: {e}") from e
    needed = (
        "format",
        "verdict",
        "alpha",
        "clauses",
        "reference",
        "candidate",
        "cases",
        "runtime",
    )
    if not isinstance(body, dict) or any(k not in body for k in needed):
        raise InputError(
            f"{path.name} is not a certificate; it needs the keys {', '.join(needed)}"
        )
    parts = ("reference", "candidate", "cases", "runtime")
    if not all(isinstance(body[k], dict) for k in parts) or not isinstance(body["clauses"], list):
        raise InputError(f"{path.name} is not a certificate; {', '.join(parts)} must be tables")
    if body["format"] != "justenough certificate 1":
        raise InputError(f"{path.name} has the format {body['format']!r}, unknown here")
    return body


def number_in(table: Mapping[str, Any], key: str) -> int:
    """A whole number from 1 up, as a certificate's table gives it."""
    value = table.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"the certificate gives {key} as {value!r}; a whole number is needed")
    return value


def shares_in(body: Mapping[str, Any]) -> tuple[float, float, float]:
    """How the cases of a certificate were split off; the default where it does not say."""
    value = body["cases"].get("shares") or SHARES
    if not (
        isinstance(value, list | tuple)
        and len(value) == 3
        and all(isinstance(v, int | float) and not isinstance(v, bool) for v in value)
    ):
        raise InputError(f"the certificate gives shares as {value!r}; three numbers are needed")
    return float(value[0]), float(value[1]), float(value[2])


def contract_in(body: Mapping[str, Any], keep: Sequence[str] = ()) -> Contract:
    """The contract of a certificate's JSON.

    A certificate is untrusted: a clause that names a Python function is only taken when
    `keep` gives the same clause.
    """
    trusted = {c.text: c for c in map(parse_clause, keep)}
    clauses = []
    for entry in body["clauses"]:
        if not isinstance(entry, dict) or not isinstance(entry.get("clause"), str):
            raise InputError("the certificate has a clause without text")
        clause = trusted.get(entry["clause"]) or parse_clause(entry["clause"])
        if ":" in clause.metric and clause.text not in trusted:
            raise InputError(
                f"the certificate runs the Python function {clause.metric!r}; say that you "
                f'trust it: --keep "{clause.text}"'
            )
        clauses.append(clause)
    alpha, population = body["alpha"], body.get("population", "")
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not abs(alpha) < 1:
        raise InputError(f"the certificate gives alpha as {alpha!r}; a number is needed")
    return Contract(tuple(clauses), float(alpha), str(population))


def differences(body: Mapping[str, Any], again: Certificate) -> list[str]:
    """What a certificate says and a second run does not, one sentence each."""
    now = json.loads(again.to_json())
    out = []
    for part, keys in _COMPARED.items():
        for key in keys:
            was, new = body[part].get(key), now[part].get(key)
            if was != new:
                out.append(f"{part} {key}: {_short(was)} in the certificate, {_short(new)} here")
    for old, new in zip(body["clauses"], now["clauses"], strict=True):
        for key in new:
            if old.get(key) != new[key]:
                was = _short(old.get(key))
                out.append(f"{new['clause']}, {key}: {was} then, {new[key]} now")
    for key in ("verdict", "justenough"):
        if body.get(key) != now[key]:
            out.append(f"{key}: {_short(body.get(key))} then, {now[key]} now")
    return out


_COMPARED = {
    "reference": ("sha256",),
    "candidate": ("sha256",),
    "cases": ("fingerprint", "n", "units"),
    "runtime": ("name", "version", "provider", "processor", "cpu_flags", "threads", "batch"),
}


def _short(value: Any) -> str:
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 80 else text[:77] + "..."
