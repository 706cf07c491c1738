"""The second half of the road: certify the plan, deploy what held, say what was shown."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from justenough.core.cases import CertificationCases
from justenough.core.certificate import evidence_json
from justenough.core.evidence import Evidence, Verdict, overall
from justenough.core.gate import Gate
from justenough.core.judge import Paired, judge, prospects
from justenough.core.quality import quality
from justenough.core.subject import Variant
from justenough.deploy import export
from justenough.deploy.certify import certify, fixed_sequence, paired, seen_mark
from justenough.search.chain import Rung
from justenough.survey import Road, nothing, race, variant_of

Array = NDArray[Any]
SHIFT = 2.0


def certify_plan(
    road: Road, measured: Mapping[str, Any], plan: Mapping[str, Any]
) -> dict[str, Any]:
    """Certify the planned candidates in order, deploy the best that held, judge its file."""
    order = [Rung(**r) for r in plan["rungs"]]
    gate = None if plan["gate"] is None else Gate(**plan["gate"])
    variants = {name: variant_of(e) for name, e in measured["variants"].items()}
    fresh = Fresh(road, variants)

    def pairs(step: str) -> Paired:
        rung = order[int(step)]
        road.progress("certify", int(step) / max(len(order), 1))
        return fresh.pairs(rung.variant, gate_of(rung, gate))

    found = fixed_sequence(road.contract, [str(k) for k in range(len(order))], pairs)
    steps = [
        {
            **asdict(order[int(k)]),
            "verdict": overall(e).value,
            "clauses": [evidence_json(x) for x in e],
        }
        for k, e in found
    ]
    plain = measured["all_int8"]
    raw = judge(road.contract, fresh.pairs(plain, None))
    out: dict[str, Any] = {
        "steps": steps,
        "plain_int8": {
            "variant": plain,
            "verdict": overall(raw).value,
            "clauses": [evidence_json(e) for e in raw],
            **{k: measured["variants"][plain][k] for k in ("speedup", "low", "high", "bytes")},
        },
    }
    held = [order[int(k)] for k, e in found if overall(e) is Verdict.HELD]
    if held:
        return {**out, **deploy(road, plan, held, fresh, gate)}
    return {**out, **nothing_held(road, found)}


@dataclass(frozen=True)
class Fresh:
    """Answers of the reference and of variants on the certification cases, each run once."""

    road: Road
    variants: Mapping[str, Variant]

    def answers(self, name: str) -> dict[str, Array]:
        """Outputs of the file of variant `name`, or of the reference, recorded."""
        road, cases = self.road, self.road.parts.certification.cases

        def run() -> dict[str, Array]:
            road.bench.spent(f"certification/{name}", cases.n)
            path = road.reference.path
            if name != "reference":
                path = road.bench.file(self.variants[name])
            return replace(road.reference, path=path).run(cases.inputs)

        return road.store.once_arrays(f"certification/{name}", run)

    def pairs(self, name: str, gate: Gate | None) -> Paired:
        """Paired outputs of the reference and `name`, alone or as a cascade with `gate`."""
        exact, fast = self.answers("reference"), self.answers(name)
        if gate is not None:
            rows = gate.deferred(fast)
            fast = {k: np.where(_rows_like(rows, v), exact[k], v) for k, v in fast.items()}
        return paired(exact, fast, self.road.parts.certification.cases)


def _rows_like(rows: Array, values: Array) -> Array:
    return rows.reshape(-1, *(1,) * (values.ndim - 1))


def gate_of(rung: Rung, gate: Gate | None) -> Gate | None:
    """The gate of a rung, with its threshold; None for a plain variant."""
    if gate is None or rung.threshold is None:
        return None
    return replace(gate, threshold=rung.threshold)


def deploy(
    road: Road, plan: Mapping[str, Any], held: list[Rung], fresh: Fresh, gate: Gate | None
) -> dict[str, Any]:
    """Write the cheapest candidate that held, judge and time the very file, keep what holds.

    The last plain and the last cascade that held are both timed; the faster is tried first.
    """
    kinds = {r.threshold is None: r for r in held}
    files = {_name(r): deployed_file(road, r, fresh, gate) for r in kinds.values()}
    times = race(road, "race/deployed", files, seconds=3.0, passes=8)
    for rung in sorted(kinds.values(), key=lambda r: -times[_name(r)]["speedup"]):
        speedup = times[_name(rung)]["speedup"]
        if speedup <= 1:
            reason = f"what holds is no faster here: {_name(rung)} runs at {speedup:.2f}x of fp32"
            return nothing(Verdict.BROKEN, reason)
        body = _certificate(road, plan, fresh, rung, gate)
        if body["verdict"] == Verdict.HELD:
            return _deployed(road, body, rung, fresh, gate, times[_name(rung)])
    return nothing(Verdict.UNDECIDED, "the deployed file does not answer as its stages did")


def deployed_file(road: Road, rung: Rung, fresh: Fresh, gate: Gate | None) -> Path:
    """The one ONNX file of a rung, written when it is not there yet."""
    path = road.bench.folder / f"{_name(rung)}.onnx"
    write_deployed(road, fresh.variants[rung.variant], gate_of(rung, gate), path)
    return path


def write_deployed(road: Road, variant: Variant, gate: Gate | None, path: Path) -> None:
    """Write the file of a variant, with a gate its cascade, when it is not there yet."""
    if not path.is_file():
        parts = (road.parts.calibration.cases, road.parts.search.cases)
        mark = {**seen_mark(parts), "justenough.plan": road.store.get("plan")["sha256"]}
        export.write_model(road.bench.file(variant), road.reference.path, gate, path, mark)


def _name(rung: Rung) -> str:
    kind = "plain" if rung.threshold is None else f"cascade-{rung.threshold:.6g}"
    return f"{kind}-{rung.variant}"


def _certificate(
    road: Road, plan: Mapping[str, Any], fresh: Fresh, rung: Rung, gate: Gate | None
) -> dict[str, Any]:
    """Judge the file itself on the certification cases; the certificate as JSON values."""

    def run() -> dict[str, Any]:
        road.progress("certificate", 0.0)
        cases = road.parts.certification.cases
        road.bench.spent(f"certificate/{_name(rung)}", cases.n)
        got = certify(
            road.reference.path,
            deployed_file(road, rung, fresh, gate),
            CertificationCases(cases),
            road.contract,
            batch=road.bench.batch,
            threads=road.bench.threads,
            plan_sha256=plan["sha256"],
            note=tuple(_shift(road, rung, fresh)),
            reference_outputs=fresh.answers("reference"),
        )
        body: dict[str, Any] = json.loads(got.to_json())
        body["cases"]["shares"] = road.shares
        return body

    found: dict[str, Any] = road.store.once(f"certificate/{_name(rung)}", run)
    return found


def _shift(road: Road, rung: Rung, fresh: Fresh) -> list[str]:
    """Warn when the variant is noisier on the certification cases than on the search cases."""
    bench = road.bench
    pairs = fresh.pairs(rung.variant, None)
    change = bench.raw_score(pairs.candidate) - bench.raw_score(pairs.reference)
    there = float((change.reshape(len(change), -1) ** 2).sum(1).mean())
    here = bench.measured(fresh.variants[rung.variant], 0.0).noise
    ratio = there / here if here > 0 else 1.0
    if 1 / SHIFT <= ratio <= SHIFT:
        return []
    return [
        f"Noise power on the certification cases is {ratio:.2g} times that on the search cases: "
        "the two may come from different populations. The certificate speaks for the former."
    ]


def _deployed(
    road: Road,
    body: dict[str, Any],
    rung: Rung,
    fresh: Fresh,
    gate: Gate | None,
    timed: Mapping[str, Any],
) -> dict[str, Any]:
    """The summary's end when something cheaper holds."""
    cases = road.parts.certification.cases
    used = gate_of(rung, gate)
    deferral = 0.0
    if used is not None:
        deferral = float(used.deferred(fresh.answers(rung.variant)).mean())
    variant = fresh.variants[rung.variant]
    sites = {s.name: variant.at(s.name) for s in road.bench.sites}
    out = {
        "verdict": Verdict.HELD.value,
        "reason": "",
        "certificate": body,
        "variant_toml": export.variant_toml(variant, used, sites),
        "result": {
            "kind": "plain" if used is None else "cascade",
            "file": deployed_file(road, rung, fresh, gate).name,
            "variant": rung.variant,
            "sites": sites,
            "gate": None if used is None else asdict(used),
            "deferral": deferral,
            **timed,
        },
        "margins": margins(road, rung, fresh, used),
    }
    if cases.labels is not None:
        pairs = fresh.pairs(rung.variant, used)
        clause = road.contract.clauses[0]
        out["quality"] = {
            "reference": quality(clause, pairs.reference, cases.labels),
            "candidate": quality(clause, pairs.candidate, cases.labels),
        }
    return out


def margins(road: Road, rung: Rung, fresh: Fresh, gate: Gate | None) -> dict[str, Any] | None:
    """Counts of rows by margin of the cheap stage, and of those it alone would change."""
    if road.bench.gate is None:
        return None
    plain = fresh.pairs(rung.variant, None)
    margin = road.bench.gate.margin(plain.candidate)
    changed = road.bench.gate.signed(plain.reference, plain.candidate) < 0
    error = np.abs(
        road.bench.gate.signed(plain.reference, plain.reference)
        - np.where(changed, -margin, margin)
    )
    top = max(4 * float(error.max(initial=0)), 4 * (gate.threshold if gate else 0), 1e-6)
    edges = np.linspace(0, top, 61)
    return {
        "edges": edges.tolist(),
        "rows": np.histogram(margin, edges)[0].tolist(),
        "changed": np.histogram(margin[changed], edges)[0].tolist(),
        "threshold": None if gate is None else gate.threshold,
    }


def nothing_held(road: Road, found: list[tuple[str, tuple[Evidence, ...]]]) -> dict[str, Any]:
    """The summary's end when no candidate held: why, and how many cases could change it."""
    if not found:
        return nothing(Verdict.BROKEN, "no candidate was faster than the reference here")
    evidence = found[0][1]
    verdict = overall(evidence)
    for clause, e in zip(road.contract.clauses, evidence, strict=True):
        if e.verdict is Verdict.HELD:
            continue
        fails = "breaks" if e.verdict is Verdict.BROKEN else "is not shown to hold"
        reason = f"the safest candidate {fails} {e.clause}: {stated(e)}"
        if verdict is Verdict.UNDECIDED:
            reason += f"; {prospects(e, clause, road.contract.alpha)}"
        return nothing(verdict, reason)
    return nothing(verdict, "")


def stated(e: Evidence) -> str:
    """Estimate and limit of a clause in a few words."""
    if e.note:
        return e.note
    changed = f"{e.changed} of {e.n} changed, " if e.changed is not None else ""
    return f"{changed}estimate {e.estimate:.5g}, limit {e.limit:.5g} {e.unit}"
