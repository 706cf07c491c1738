"""The middle of the road: build candidates, time them, run the search cases, fix the plan."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from justenough.core.evidence import Verdict, overall
from justenough.core.gate import Gate
from justenough.core.judge import judge
from justenough.core.subject import ONNXRUNTIME, Runtime, Variant, centred_power
from justenough.deploy import clock, export
from justenough.deploy.certify import deployed_bytes, paired
from justenough.deploy.deployment import NAME, write_deployment
from justenough.errors import InputError
from justenough.search.chain import (
    DeferralCost,
    Measured,
    Middle,
    Proposal,
    Rung,
    between,
    pareto_chain,
    predicted_risk,
    rungs,
)  # fmt: skip
from justenough.search.families import Family, families, with_pins, worth_searching
from justenough.search.mending import mend
from justenough.search.program import Noise
from justenough.search.sensitivity import eight_bits, noise_of, sensitivity
from justenough.search.workbench import key
from justenough.subjects.quantize import has_activations
from justenough.survey import Road

SCOUT_S, RACE_S = 0.5, 1.0
WORST = 5.0
# Bytes: variants from the smallest to the finest, and more where it turns from unsafe to safe.
BYTES_VARIANTS, REFINED = 8, 3
# Of the time that the search has taken so far.
REPAIR_SHARE = 0.2
CURVE_POINTS = 6
PLAIN_INT8 = Family(ONNXRUNTIME, "full", 1)


def variant_of(entry: Mapping[str, Any]) -> Variant:
    """The variant that a summary's entry describes."""
    return Variant.of(
        dict(entry["picks"]), entry["calibration"], Runtime.parse(entry["runtime"]),
        entry["form"], tuple(entry["repairs"]),
    )  # fmt: skip


def measure_variants(road: Road) -> dict[str, Any]:
    """Measure sites, propose a chain for each family, time its files and run the search cases."""
    bench = road.bench
    known, notes = families(bench.goal.runtimes)
    whole = bench.objective is None and has_activations(bench.model, bench.sites)
    known = [f for f in known if whole or f.form != "whole"]
    if bench.goal.given is None:
        known, left_out = with_pins(known, bench.goal.pins, bench.choices)
        notes += left_out
    road.progress("reference", 0.0)
    bench.outputs  # noqa: B018 - a run that was killed before they were recorded makes them now
    seconds = road.store.seconds()["reference/search"] / bench.search.cases.n
    road.store.once("reference/seconds", lambda: seconds)
    if not bench.sites:
        return {"sites": {}}
    calibrations = bench.best_calibration()
    trial = _Trial(road, {}, {}, {}, [])
    if bench.goal.given is not None:
        return _given(road, trial, calibrations)
    trial.add([(bench.everything(f), None, f) for f in known], SCOUT_S)
    if not trial.times:
        return {"sites": {}, "notes": [*notes, *trial.skipped]}
    boldest = {f.name: trial.seconds(bench.everything(f)) for f in known}
    built = {k: v for k, v in boldest.items() if v}
    alive = worth_searching(known, built, trial.reference_s, bench.goal.minimise)
    full = any(f.form == "full" for f in alive)
    found = sensitivity(bench, calibrations["best"], bench.worthwhile if full else {})
    for family in alive:
        if road.late:
            notes.append(f"the time was over before mixtures in {family.name} were proposed")
            break
        _search(road, trial, known, family, noise_of(found))
    about = {
        "calibrations": calibrations,
        "sensitivity": found,
        "families": [f.name for f in known],
        "searched": [f.name for f in alive],
    }
    return _found(road, trial, notes, about)


def _search(
    road: Road, trial: "_Trial", known: list[Family], family: Family, noise: Noise
) -> None:
    """Build and time mixtures of a family, then what the search rows say is worth it."""
    bench = road.bench
    calibration = road.store.get("calibrations")["best"]
    safe = np.inf
    if bench.objective is None:
        plain = [trial.seconds(bench.everything(f)) for f in known if f.form == "plain"]
        safe = min((s for s in plain if s), default=np.inf)
    most = BYTES_VARIANTS if bench.goal.minimise == "bytes" else family.most
    chain = pareto_chain(
        bench.program(family), noise, most=most, pins=dict(bench.goal.pins),
        careful=eight_bits(noise, bench.sites) / 2,
    )  # fmt: skip
    first = list(_variants(road, family, chain, calibration, safe))
    trial.add(first, RACE_S)
    if bench.goal.minimise == "bytes" and not road.late:
        trial.add(list(_refined(road, trial, family, noise, first)), RACE_S)
    if family.form in ("full", "whole", "inputs") and not road.late:
        trial.add(list(_mended(road, trial, family)), RACE_S)


def _variants(
    road: Road, family: Family, chain: Iterable[Proposal], calibration: str, safe: float = np.inf
) -> Iterable[tuple[Variant, Mapping[str, float], Family]]:
    """Proposals as variants of a family, up to those predicted no faster than what is `safe`."""
    bench = road.bench
    for p in chain:
        if p.cost / bench.batch > safe:
            break
        variant = family.variant(dict(p.variant.picks), calibration)
        about = {"predicted_noise": p.noise}
        about |= {"predicted_s": p.cost / bench.batch} if bench.objective is None else {}
        yield variant, about, family


def _refined(
    road: Road,
    trial: "_Trial",
    family: Family,
    noise: Noise,
    first: list[tuple[Variant, Mapping[str, float], Family]],
) -> Iterable[tuple[Variant, Mapping[str, float], Family]]:
    """More variants between the boldest that seems safe and the safest that does not."""
    bench = road.bench
    built = [(v, about["predicted_noise"]) for v, about, _ in first if key(v) in trial.variants]
    failed = bench.answer_all([v for v, _ in built])
    seems = {p: _seems_safe(road, v) for v, p in built if key(v) not in failed}
    low = max((p for p, ok in seems.items() if ok), default=eight_bits(noise, bench.sites) / 100)
    high = min((p for p, ok in seems.items() if not ok and p > low), default=0.0)
    pins = dict(bench.goal.pins)
    more = between(bench.program(family), noise, low, high, most=REFINED, pins=pins)
    return _variants(road, family, more, road.store.get("calibrations")["best"])


def _seems_safe(road: Road, variant: Variant) -> bool:
    """Whether the search rows let one expect that `variant` alone keeps the contract."""
    bench = road.bench
    m = bench.measured(variant, 0.0)
    if bench.margins is None or m.kept is None:
        pairs = paired(bench.outputs, bench.answers(variant), bench.search.cases)
        return overall(judge(bench.contract, pairs)) is not Verdict.BROKEN
    allowed = max(1 - bench.contract.clauses[0].bound, 1e-3) / bench.rows_per_unit
    kept = m.kept
    return bool(np.isfinite(kept).all()) and predicted_risk(bench.margins, kept, 0) <= allowed / 2


def _mended(road: Road, trial: "_Trial", family: Family) -> Iterable[tuple[Variant, None, Family]]:
    """The variant of a family that repairs may make safe, with those that do it good.

    For seconds that is the boldest one: less noise lets its cascade defer less. Bytes have no
    cascade, so that it is the one that is nearest to being safe.
    """
    bench = road.bench
    mine = [v for v in trial.variants.values()
            if (v.runtime, v.form) == (family.runtime, family.form) and v.picks]  # fmt: skip
    failed = bench.answer_all(mine)
    risky = [v for v in mine if key(v) not in failed and not _seems_safe(road, v)]
    if not risky:
        return
    if bench.goal.minimise == "bytes":
        chosen = min(risky, key=lambda v: bench.measured(v, 0.0).noise)
    else:
        chosen = min(risky, key=lambda v: trial.seconds(v) or np.inf)
    budget = REPAIR_SHARE * sum(road.store.seconds().values())
    try:
        better = mend(bench, chosen, budget)
    except InputError as e:
        trial.skipped.append(f"repairs of {key(chosen)} were skipped: {e}")
        return
    if better is not None:
        yield better, None, family


def _found(
    road: Road, trial: "_Trial", notes: list[str], about: Mapping[str, Any]
) -> dict[str, Any]:
    bench = road.bench
    built = _run_all(road, trial)
    plain = next((n for n, e in built.items() if e["form"] == "full"), None)
    return {
        "sites": {s.name: {**asdict(s), "choices": None} for s in bench.sites},
        **about,
        "signal": centred_power(bench.raw_score(bench.outputs)),
        "all_int8": plain,
        "notes": [*notes, *trial.skipped],
        "gate_s": _gates(road, trial),
        "variants": built,
        "reference_s": trial.reference_s,
        "call_cost": _call_costs(road, trial),
    }


def _given(road: Road, trial: "_Trial", calibrations: Mapping[str, Any]) -> dict[str, Any]:
    """Measure the variant that was given, and the runtime between it and the exact model."""
    given = road.bench.goal.given
    assert given is not None
    parts = [given.variant]
    if given.middle is not None:
        parts.append(Variant((), "minmax", given.middle[0], "plain"))
    trial.add([(v, None, Family(v.runtime, v.form, 1)) for v in parts], RACE_S)
    if trial.skipped:
        raise InputError(trial.skipped[0])
    about = {"calibrations": calibrations, "sensitivity": {"noise": {}, "method": "not measured",
             "rows": 0}, "families": [], "searched": []}  # fmt: skip
    return _found(road, trial, [], about)


@dataclass(frozen=True)
class _Trial:
    """Variants built and timed so far, by key."""

    road: Road
    variants: dict[str, Variant]
    times: dict[str, dict[str, Any]]
    predicted: dict[str, dict[str, float]]
    skipped: list[str]

    def add(
        self,
        found: Iterable[tuple[Variant, Mapping[str, float] | None, Family]],
        seconds: float,
    ) -> None:
        """Build and time variants; one that cannot be built or run is skipped with a sentence."""
        for variant, predicted, family in found:
            name = key(variant)
            if name in self.variants:
                continue
            self.road.progress(f"build and time {family.name}", 0.0)
            try:
                file = self.road.bench.file(variant)
                if self.road.store.get(f"race/{name}") is None:
                    self.road.bench.probe(variant)
                timed = race(
                    self.road, f"race/{name}", {name: file}, seconds=seconds, passes=1,
                    runtimes={name: variant.runtime},
                )  # fmt: skip
            except InputError as e:
                self.skipped.append(f"{name} was skipped: {e}")
                continue
            self.variants[name] = variant
            self.times[name] = timed[name]
            self.predicted[name] = dict(predicted or {})
            if self.road.late:
                return

    @property
    def reference_s(self) -> float:
        """Seconds per case of the reference, the median of all times beside a candidate."""
        found = [t["reference_s"] for t in self.times.values()]
        return float(np.median(found)) if found else float("inf")

    def seconds(self, variant: Variant) -> float | None:
        """Seconds per case of a variant, by its ratio to the reference beside it."""
        timed = self.times.get(key(variant))
        return None if timed is None else self.reference_s / timed["speedup"]


def _run_all(road: Road, trial: _Trial) -> dict[str, Any]:
    """Run the search cases through every variant; one whose runtime crashes is skipped."""
    bench = road.bench
    built: dict[str, Any] = {}
    road.progress("search cases", 0.0)
    worth = {name: v for name, v in trial.variants.items() if _worth_running(road, trial, v)}
    failed = bench.answer_all(list(worth.values()))
    trial.skipped.extend(f"{said}; it was skipped" for said in failed.values())
    for name, v in ((n, v) for n, v in worth.items() if n not in failed):
        m = bench.measured(v, trial.seconds(v) or 0.0)
        pairs = paired(bench.outputs, bench.answers(v), bench.search.cases)
        built[name] = {
            "picks": list(v.picks),
            "int8_sites": v.sites("int8"),
            "calibration": v.calibration,
            "runtime": str(v.runtime),
            "form": v.form,
            "repairs": v.repairs,
            "noise": m.noise,
            "changed": judge(bench.contract, pairs)[0].changed,
            **trial.times[name],
            **trial.predicted[name],
            "candidate_s": trial.seconds(v),
            "reference_s": trial.reference_s,
        }
        built[name]["cost"] = cost_of(road, built[name])
    return built


def _worth_running(road: Road, trial: _Trial, variant: Variant) -> bool:
    """Whether the search cases are run through a variant: not where it is no faster than fp32.

    Int8 everywhere is: its answers have chosen the calibration, and everybody asks for them.
    """
    bench, speed = road.bench, trial.times[key(variant)]["speedup"]
    asked = bench.goal.given is not None or variant == bench.everything(PLAIN_INT8)
    if asked or bench.objective is not None or speed > 1:
        return True
    trial.skipped.append(f"{key(variant)} was skipped: it runs at {speed:.2f}x of fp32")
    return False


def race(
    road: Road,
    step: str,
    files: Mapping[str, Path],
    *,
    seconds: float,
    passes: int,
    runtimes: Mapping[str, Runtime] = {},
) -> dict[str, Any]:
    """Time files, each beside the reference; recorded as `step`."""

    def run() -> dict[str, Any]:
        got = clock.race(
            road.reference.path, files, road.parts.search.cases.inputs, batch=road.bench.batch,
            threads=road.bench.threads, seconds=seconds, passes=passes, runtimes=runtimes,
        )  # fmt: skip
        road.bench.spent(step, sum(r.rows * (r.repeats + 1) for r in got.values()))
        return {n: {**asdict(r), "bytes": deployed_bytes(files[n])} for n, r in got.items()}

    found: dict[str, Any] = road.store.once(step, run)
    return found


def _gates(road: Road, trial: _Trial) -> dict[str, float]:
    """Seconds per case that a gate takes which defers nothing, by what runs the cascade."""
    out = {"file": 0.0, "runner": 0.0}
    gate = road.bench.gate
    if gate is None:
        return out
    never = replace(gate, threshold=-1.0)
    for kind in out:
        fast = next(
            (n for n, v in trial.variants.items() if _cascade_in(v) == kind and v.picks), None
        )
        if fast is None:
            continue
        path = road.bench.folder / f"gate-{kind}"
        variant = trial.variants[fast]
        file = write_stages(road, [(variant, never)], path, {})
        timed = race(road, f"race/gate-{kind}", {"gate": file}, seconds=RACE_S, passes=1)
        idle = trial.reference_s / timed["gate"]["speedup"]
        out[kind] = max(idle - (trial.seconds(variant) or idle), 0.0)
    return out


def _cascade_in(*variants: Variant) -> str:
    """Whether a cascade of these with the reference fits one ONNX file, or needs the runner."""
    return "file" if all(v.runtime == ONNXRUNTIME for v in variants) else "runner"


def write_stages(
    road: Road, stages: list[tuple[Variant, Gate | None]], path: Path, mark: Mapping[str, str]
) -> Path:
    """Write what is deployed: one ONNX file, or a folder with `cascade.toml`.

    Args:
        road: Whose reference is the last stage of a cascade.
        stages: Variants with their gates, cheapest first; a single one without a gate is
            deployed alone.
        path: Where to, without a suffix.
        mark: Metadata.
    """
    files = [road.bench.file(v) for v, _ in stages]
    exact = road.reference.path
    if len(stages) == 1 and _cascade_in(stages[0][0]) == "file":
        out = path.with_name(path.name + ".onnx")
        if not out.is_file():
            export.write_model(files[0], exact, stages[0][1], out, mark)
        return out
    out = path / NAME
    if not out.is_file():
        parts = [(f, v.runtime, g) for f, (v, g) in zip(files, stages, strict=True)]
        if stages[-1][1] is not None:
            parts.append((exact, ONNXRUNTIME, None))
        write_deployment(parts, road.reference.output_names, path, mark)
    return out


def _call_costs(road: Road, trial: _Trial) -> dict[str, Any]:
    """Seconds of one call, for one row and for a batch, of stages that answer deferred rows."""
    bench = road.bench
    fixed = road.reference.fixed_batch
    sizes = [bench.batch] if fixed or bench.batch == 1 else [1, bench.batch]
    stages: dict[str, tuple[Path, Runtime]] = {"reference": (road.reference.path, ONNXRUNTIME)}
    for name, v in trial.variants.items():
        if not v.picks:
            stages[name] = (bench.file(v), v.runtime)

    def cost(path: Path, runtime: Runtime) -> Callable[[], Any]:
        return lambda: clock.call_cost(
            clock.opened(path, runtime, threads=bench.threads),
            bench.search.cases.inputs,
            sizes=sizes,
        )

    return {n: road.store.once(f"call cost/{n}", cost(p, r)) for n, (p, r) in stages.items()}


def deferral_cost(road: Road, calls: list[list[float]]) -> DeferralCost:
    """What a stage costs for the rows that reach it, from its seconds for 1 row and a batch."""
    (k0, t0), (k1, t1) = calls[0], calls[-1]
    per_row = (t1 - t0) / (k1 - k0) if k1 > k0 else t1 / k1
    if road.reference.fixed_batch and road.reference.fixed_batch > 1:
        return DeferralCost(t1, 0.0, road.bench.batch)
    return DeferralCost(max(t0 - per_row, 0.0), per_row, road.bench.batch)


def make_plan(road: Road, measured: Mapping[str, Any]) -> dict[str, Any]:
    """Fix the candidates, their order and thresholds; recorded before certification."""
    bench = road.bench

    def run() -> dict[str, Any]:
        body = {
            "contract": [c.text for c in road.contract.clauses],
            "alpha": road.contract.alpha,
            "gate": None if bench.gate is None else asdict(bench.gate),
            "reference_s": measured["reference_s"],
            "rungs": [asdict(r) for r in _rungs(road, measured)],
        }
        text = json.dumps(body, sort_keys=True)
        return {**body, "sha256": hashlib.sha256(text.encode()).hexdigest()}

    plan: dict[str, Any] = road.store.once("plan", run)
    return plan


def _rungs(road: Road, measured: Mapping[str, Any]) -> list[Rung]:
    """The candidates in order: those of the search, or the one that was given."""
    bench, goal = road.bench, road.bench.goal
    said: dict[str, Measured] = {}
    for name, e in measured["variants"].items():
        variant = variant_of(e)
        gate_s = measured["gate_s"][_cascade_in(variant)]
        said[name] = bench.measured(variant, cost_of(road, e), gate_s)
    if goal.given is not None:
        return _given_rung(road, said)
    calls = measured["call_cost"]
    middles = [
        Middle(said[n], deferral_cost(road, c))
        for n, c in calls.items()
        if n in said and n != "reference"
    ]
    exact, whole = deferral_cost(road, calls["reference"]), measured["reference_s"]
    if bench.objective is not None:
        middles, exact, whole = [], bench.objective.exact, bench.objective.reference
    allowed = max(1 - road.contract.clauses[0].bound, 1e-3)
    order = rungs(
        bench.margins, list(said.values()), whole, exact, middles,
        worst=np.inf if goal.curve else WORST * allowed,
    )  # fmt: skip
    if goal.curve and len(order) > CURVE_POINTS:
        pick = np.unique(np.linspace(0, len(order) - 1, CURVE_POINTS).astype(int))
        order = [order[i] for i in pick]
    return order


def _given_rung(road: Road, said: Mapping[str, Measured]) -> list[Rung]:
    given = road.bench.goal.given
    assert given is not None
    first = said[key(given.variant)]
    margin = road.bench.gate and replace(road.bench.gate, threshold=0.0)
    if given.gate is not None and margin != replace(given.gate, threshold=0.0):
        raise InputError(
            "the variant's cascade looks at another margin than the contract does: "
            f"{given.gate} instead of {road.bench.gate}"
        )
    if given.gate is None:
        return [Rung(first.name, None, 0.0, 0.0, first.seconds)]
    rung = Rung(first.name, float(np.float32(given.gate.threshold)), 0.0, 0.0, first.seconds)
    if given.middle is None:
        return [rung]
    middle = next(n for n in said if n != first.name)
    return [replace(rung, middle=middle, middle_threshold=given.middle[1])]


def cost_of(road: Road, entry: Mapping[str, Any]) -> float:
    """Cost per case of a variant's entry, in the unit of what is minimised."""
    objective = road.bench.objective
    if objective is None:
        return float(entry["candidate_s"])
    return objective.of(variant_of(entry), entry["bytes"])
