"""The second half of the road: certify the plan, deploy what held, say what was shown."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from justenough.core.cases import Cases, CertificationCases
from justenough.core.certificate import evidence_json
from justenough.core.evidence import Evidence, Verdict, overall
from justenough.core.gate import Gate
from justenough.core.judge import Paired, judge, prospects
from justenough.core.quality import quality
from justenough.core.subject import Variant
from justenough.deploy.certify import certify, fixed_sequence, paired, seen_mark
from justenough.measured import race, variant_of, write_stages
from justenough.search.chain import Rung
from justenough.search.goal import Given
from justenough.survey import Road, nothing
from justenough.variant_file import write_variant_toml

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
        return fresh.answered(rung, gate)

    names = [str(k) for k in range(len(order))]
    curve = road.bench.goal.curve and bool(order)
    if curve:
        # All points at once: each at its share of alpha, so that whoever reads them may choose.
        road = replace(
            road, contract=replace(road.contract, alpha=road.contract.alpha / len(order))
        )
        fresh = replace(fresh, road=road)
        found = [(k, judge(road.contract, pairs(k))) for k in names]
    else:
        found = fixed_sequence(road.contract, names, pairs)
    steps = [
        {
            **asdict(order[int(k)]),
            "verdict": overall(e).value,
            "clauses": [evidence_json(x) for x in e],
        }
        for k, e in found
    ]
    out: dict[str, Any] = {"steps": steps, "plain_int8": _plain_int8(road, measured, fresh)}
    if curve:
        out["curve"] = {"alpha": road.contract.alpha, "points": len(order)}
        for step, rung in zip(steps, order, strict=True):
            step |= _point(road, plan, rung, fresh, gate)
    held = [order[int(k)] for k, e in found if overall(e) is Verdict.HELD]
    if held:
        return {**out, **deploy(road, plan, held, fresh, gate)}
    return {**out, **nothing_held(road, found)}


def _plain_int8(road: Road, measured: Mapping[str, Any], fresh: "Fresh") -> dict[str, Any] | None:
    """What int8 everywhere in ONNX Runtime would do on the certification cases."""
    plain = measured["all_int8"]
    if plain is None:
        return None
    raw = judge(road.contract, fresh.pairs(plain))
    return {
        "variant": plain,
        "verdict": overall(raw).value,
        "clauses": [evidence_json(e) for e in raw],
        **{k: measured["variants"][plain][k] for k in ("speedup", "low", "high", "bytes")},
    }


def _point(
    road: Road, plan: Mapping[str, Any], rung: Rung, fresh: "Fresh", gate: Gate | None
) -> dict[str, Any]:
    """The file of one point of a curve, judged itself, and its time beside the reference."""
    file = deployed_file(road, rung, fresh, gate)
    timed = race(road, f"race/{_name(rung)}", {"point": file}, seconds=1.5, passes=4)
    body = _certificate(road, plan, fresh, rung, gate)
    return {
        "file": str(file.relative_to(road.bench.folder)),
        "verdict": body["verdict"],
        "clauses": body["clauses"],
        "certificate": body,
        "stages": _stages_said(rung, fresh, gate),
        **{k: timed["point"][k] for k in ("speedup", "low", "high", "bytes")},
    }


def _stages_said(rung: Rung, fresh: "Fresh", gate: Gate | None) -> list[dict[str, Any]]:
    return [
        {
            "variant": n,
            "runtime": str(fresh.variants[n].runtime),
            "threshold": None if g is None else g.threshold,
        }
        for n, g in stages_of(rung, gate)
    ]


@dataclass(frozen=True)
class Fresh:
    """Answers of the reference and of variants on the certification cases, each run once."""

    road: Road
    variants: Mapping[str, Variant]

    def answers(self, name: str) -> dict[str, Array]:
        """Outputs of variant `name` in its runtime, or of the reference, recorded."""
        road, cases = self.road, self.road.parts.certification.cases

        def run() -> dict[str, Array]:
            road.bench.spent(f"certification/{name}", cases.n)
            if name == "reference":
                return road.reference.run(cases.inputs)
            return road.bench.subject(self.variants[name]).run(cases.inputs)

        return road.store.once_arrays(f"certification/{name}", run)

    def pairs(self, name: str) -> Paired:
        """Paired outputs of the reference and of variant `name` alone."""
        cases = self.road.parts.certification.cases
        return paired(self.answers("reference"), self.answers(name), cases)

    def answered(self, rung: Rung, gate: Gate | None) -> Paired:
        """Paired outputs of the reference and of a rung: its stages, one after the other."""
        found = self.answers("reference")
        for name, used in reversed(stages_of(rung, gate)):
            fast = self.answers(name)
            if used is None:
                found = fast
                continue
            rows = used.deferred(fast)
            found = {k: np.where(_rows_like(rows, found[k]), found[k], fast[k]) for k in found}
        return paired(self.answers("reference"), found, self.road.parts.certification.cases)


def _rows_like(rows: Array, values: Array) -> Array:
    return rows.reshape(-1, *(1,) * (values.ndim - 1))


def stages_of(rung: Rung, gate: Gate | None) -> list[tuple[str, Gate | None]]:
    """The variants of a rung, cheapest first, each with its gate; one alone has none."""
    if gate is None or rung.threshold is None:
        return [(rung.variant, None)]
    out: list[tuple[str, Gate | None]] = [(rung.variant, replace(gate, threshold=rung.threshold))]
    if rung.middle is not None and rung.middle_threshold is not None:
        out.append((rung.middle, replace(gate, threshold=rung.middle_threshold)))
    return out


def deploy(
    road: Road, plan: Mapping[str, Any], held: list[Rung], fresh: Fresh, gate: Gate | None
) -> dict[str, Any]:
    """Write the cheapest candidate that held, judge and time the very file, keep what holds.

    The last plain and the last cascade that held are both timed; the faster is tried first.
    """
    kinds = {len(stages_of(r, gate)) * (r.threshold is not None): r for r in held}
    files = {_name(r): deployed_file(road, r, fresh, gate) for r in kinds.values()}
    times = race(road, "race/deployed", files, seconds=3.0, passes=8)

    def cost(rung: Rung) -> float:
        return rung.seconds if road.bench.objective else -float(times[_name(rung)]["speedup"])

    for rung in sorted(kinds.values(), key=cost):
        speedup = times[_name(rung)]["speedup"]
        if speedup <= 1 and road.bench.objective is None:
            reason = f"what holds is no faster here: {_name(rung)} runs at {speedup:.2f}x of fp32"
            return nothing(Verdict.BROKEN, reason)
        body = _certificate(road, plan, fresh, rung, gate)
        if body["verdict"] == Verdict.HELD:
            return _deployed(road, body, rung, fresh, gate, times[_name(rung)])
    return nothing(Verdict.UNDECIDED, "the deployed file does not answer as its stages did")


def deployed_file(road: Road, rung: Rung, fresh: Fresh, gate: Gate | None) -> Path:
    """What deploys a rung, one ONNX file or a `cascade.toml`, written when it is not there yet."""
    stages = [(fresh.variants[n], g) for n, g in stages_of(rung, gate)]
    return write_deployed(road, stages, road.bench.folder / _name(rung))


def write_deployed(road: Road, stages: list[tuple[Variant, Gate | None]], path: Path) -> Path:
    """Write stages, with the marks of what their making has seen and of the plan."""
    parts = (road.parts.calibration.cases, road.parts.search.cases)
    mark = {**seen_mark(parts), "justenough.plan": road.store.get("plan")["sha256"]}
    return write_stages(road, stages, path, mark)


def _name(rung: Rung) -> str:
    kind = "plain" if rung.threshold is None else f"cascade-{rung.threshold:.6g}"
    between = "" if rung.middle is None else f"-{rung.middle_threshold:.6g}-{rung.middle}"
    return f"{kind}-{rung.variant}{between}"


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
    pairs = fresh.pairs(rung.variant)
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
    stages = stages_of(rung, gate)
    used = stages[0][1]
    passed = np.ones(cases.n, bool)
    shares = []
    for name, g in stages:
        if g is not None:
            passed = passed & g.deferred(fresh.answers(name))
            shares.append(float(passed.mean()))
    variant = fresh.variants[rung.variant]
    sites = {s.name: variant.at(s.name) for s in road.bench.sites}
    file = deployed_file(road, rung, fresh, gate)
    out = {
        "verdict": Verdict.HELD.value,
        "reason": "",
        "certificate": body,
        "variant_toml": write_variant_toml(_given_by(rung, fresh, used, cases), sites),
        "result": {
            "kind": "plain" if used is None else "cascade",
            "file": str(file.relative_to(road.bench.folder)),
            "variant": rung.variant,
            "runtime": str(variant.runtime),
            "sites": sites,
            "gate": None if used is None else asdict(used),
            "stages": _stages_said(rung, fresh, gate),
            "deferral": shares[-1] if shares else 0.0,
            "passed": shares,
            **timed,
        },
        "margins": margins(road, rung, fresh, used),
    }
    if cases.labels is not None:
        pairs = fresh.answered(rung, gate)
        clause = road.contract.clauses[0]
        out["quality"] = {
            "reference": quality(clause, pairs.reference, cases.labels),
            "candidate": quality(clause, pairs.candidate, cases.labels),
        }
    return out


def _given_by(rung: Rung, fresh: Fresh, gate: Gate | None, cases: Cases) -> Given:
    """What a run deploys, as `variant.toml` says it."""
    middle = None
    if rung.middle is not None and rung.middle_threshold is not None:
        middle = (fresh.variants[rung.middle].runtime, rung.middle_threshold)
    return Given(fresh.variants[rung.variant], gate, middle, cases=cases.fingerprint)


def margins(road: Road, rung: Rung, fresh: Fresh, gate: Gate | None) -> dict[str, Any] | None:
    """Counts of rows by margin of the cheap stage, and of those it alone would change."""
    if road.bench.gate is None:
        return None
    plain = fresh.pairs(rung.variant)
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
