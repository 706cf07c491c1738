"""Judges deployed files in their runtime, on cases that nobody searched on."""

import base64
import datetime
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from justenough.core.cases import Cases, CertificationCases
from justenough.core.certificate import Certificate
from justenough.core.contract import Contract
from justenough.core.evidence import Evidence, Verdict, overall
from justenough.core.judge import Paired, judge
from justenough.deploy.deployment import Deployment, Loaded, load
from justenough.deploy.environment import runtime
from justenough.errors import DataReuseError, InputError
from justenough.subjects.onnx_model import OnnxModel, file_bytes, load_proto

Array = NDArray[Any]
SEEN = "justenough.seen"


def seen_mark(parts: Sequence[Cases]) -> dict[str, str]:
    """Metadata that marks a file with digests of the rows its making has seen."""
    digests = sorted({int(d, 16) for part in parts for d in part.digests})
    return {SEEN: base64.b64encode(np.array(digests, "<u8").tobytes()).decode()}


def refuse_seen(candidate: Path, cases: Cases) -> None:
    """Raise DataReuseError if `candidate` was made with any of these rows."""
    seen: set[int] = set()
    for mark in _marks(candidate):
        try:
            seen.update(np.frombuffer(base64.b64decode(mark, validate=True), "<u8").tolist())
        except (ValueError, TypeError) as e:
            raise InputError(f"{candidate.name} has a damaged {SEEN!r} entry: {e}") from e
    shared = sum(int(d, 16) in seen for d in cases.digests)
    if shared:
        raise DataReuseError(
            f"{shared} of {cases.n} cases were used to make {candidate.name}; certification "
            "needs cases that nobody searched on"
        )


def _marks(candidate: Path) -> list[Any]:
    """The marks of a candidate; of a deployment its own and those of its stages' files."""
    if candidate.suffix == ".toml":
        found = Deployment(candidate)
        inner = [m for p in found.models if p.path.suffix == ".onnx" for m in _marks(p.path)]
        return [found.table[SEEN], *inner] if SEEN in found.table else inner
    model = onnx.load(str(candidate), format="protobuf", load_external_data=False)
    return [p.value for p in model.metadata_props if p.key == SEEN]


def fixed_sequence(
    contract: Contract, order: Sequence[str], pairs: Callable[[str], Paired]
) -> list[tuple[str, tuple[Evidence, ...]]]:
    """Judge candidates in a fixed order, each at alpha, up to the first that does not hold.

    The probability that any candidate that should not hold is among those that did is at
    most alpha, however many there are (fixed-sequence testing: Maurer, Hothorn & Lehmacher
    1995; for risk control: Angelopoulos et al. 2021, arXiv:2110.01052, section 3.2).

    Args:
        contract: Clauses and alpha.
        order: Candidates from safest to boldest, fixed before their cases are read.
        pairs: Gives the paired outputs of a candidate on the certification cases.
    """
    out = []
    for candidate in order:
        evidence = judge(contract, pairs(candidate))
        out.append((candidate, evidence))
        if overall(evidence) is not Verdict.HELD:
            break
    return out


def paired(reference: Mapping[str, Array], candidate: Mapping[str, Array], cases: Cases) -> Paired:
    """Pair the outputs that the reference has; a candidate may add others, as a cascade does."""
    missing = sorted(set(reference) - set(candidate))
    if missing:
        raise InputError(f"the candidate lacks the outputs {missing} of the reference")
    kept = {name: candidate[name] for name in reference}
    return Paired(dict(reference), kept, cases.units, cases.labels)


def certify(  # noqa: PLR0913 - a verb of the public interface, keywords with defaults
    reference: Path,
    candidate: Path,
    cases: CertificationCases,
    contract: Contract,
    *,
    batch: int = 32,
    threads: int = 1,
    plan_sha256: str = "",
    note: tuple[str, ...] = (),
    reference_outputs: Mapping[str, Array] | None = None,
) -> Certificate:
    """Run two ONNX files on fresh cases in ONNX Runtime and judge the contract.

    Args:
        reference: The model whose decisions are to be kept.
        candidate: Any ONNX file with the same inputs and outputs, whoever made it.
        contract: Clauses, alpha and population.
        batch: Rows of a call, as deployed; int8 results do not depend on it, times do.
        threads: Threads of a session, as deployed.
        plan_sha256: Hash of the plan that the candidate comes from, if there was one.
        note: What else the reader has to know.
        cases: Certification cases; nothing else is accepted, for a bound on cases that the
            search saw is wrong far more often than alpha (tests/guarantees shows how often).
        reference_outputs: The reference's outputs on these cases in this runtime, when they
            are known already.

    Raises:
        DataReuseError: `cases` are not certification cases, or the candidate's making saw
            some of them.
        InputError: The files cannot run the cases or their outputs do not pair up.
    """
    if not isinstance(cases, CertificationCases):
        raise DataReuseError(
            f"certify takes CertificationCases, got {type(cases).__name__}; cases that chose "
            "the candidate cannot certify it"
        )
    load_proto(reference)
    ref, cand = OnnxModel(reference, threads, batch), load(candidate, threads, batch)
    if set(cand.input_names) != set(ref.input_names):
        raise InputError(
            f"inputs differ: {ref.name} takes {sorted(ref.input_names)}, "
            f"{cand.name} takes {sorted(cand.input_names)}"
        )
    rows = ref.check_cases(cases.cases)
    refuse_seen(candidate, rows)
    exact = reference_outputs or ref.run(rows.inputs)
    contract.check(exact, rows.labels)
    evidence = judge(contract, paired(exact, cand.run(cand.check_cases(rows).inputs), rows))
    return Certificate(
        verdict=overall(evidence),
        contract=contract,
        evidence=evidence,
        reference=_described(ref),
        candidate=_described(cand),
        cases={
            "fingerprint": rows.fingerprint,
            "n": rows.n,
            "units": rows.n_units,
            "groups": rows.groups is not None,
        },
        runtime=runtime(threads=threads, batch=ref.fixed_batch or batch),
        plan_sha256=plan_sha256,
        note=(*notes_on(rows), *note),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        justenough=version("justenough"),
    )


def notes_on(cases: Cases) -> tuple[str, ...]:
    """What the reader of a certificate on these cases has to know."""
    if cases.groups is None:
        same = cases.n - cases.n_units
        repeated = f" ({same} repeated rows count once)" if same else ""
        return (
            "No groups were given: every distinct case was taken as independent"
            f"{repeated}. Where cases share a patient, a lesion or a source, give 'groups'.",
        )
    return ()


def _described(model: Loaded) -> dict[str, Any]:
    out = {"file": model.path.name, "sha256": model.sha256, "bytes": deployed_bytes(model.path)}
    return out if isinstance(model, OnnxModel) else {**out, "stages": model.described()}


def deployed_bytes(path: Path) -> int:
    """Bytes of what is deployed: a model file with the weights beside it, or all stages' files."""
    if path.suffix == ".toml":
        return sum(p.stat().st_size for p in Deployment(path).files)
    return file_bytes(path)
