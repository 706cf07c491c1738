"""Certificates: what was shown, about which files, on which cases, in which runtime."""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from justenough.core.contract import Contract
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
                    **{k: _finite(v) for k, v in dataclasses.asdict(e).items()},
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


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


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
    if body["format"] != "justenough certificate 1":
        raise InputError(f"{path.name} has the format {body['format']!r}, unknown here")
    return body
