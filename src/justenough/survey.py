"""The first half of the road: check what was given, measure, search, fix the plan."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from justenough.core.cases import Cases, Split, split, split_apart
from justenough.core.contract import Contract
from justenough.core.evidence import Verdict
from justenough.core.judge import at_best, judge, units_for
from justenough.core.store import Store
from justenough.core.subject import Variant, centred_power
from justenough.deploy import clock, export
from justenough.deploy.certify import paired, stored_bytes
from justenough.deploy.environment import runtime
from justenough.errors import InputError
from justenough.search.chain import DeferralCost, pareto_chain, rungs
from justenough.search.program import build_program
from justenough.search.workbench import Progress, Workbench, key
from justenough.subjects.measure import all_int8
from justenough.subjects.onnx_model import OnnxModel, load_proto

Array = NDArray[Any]
Announce = Callable[[list[dict[str, Any]]], None]


@dataclass(frozen=True)
class Road:
    """Where a run is: its folder, its store, its parts."""

    out: Path
    store: Store
    bench: Workbench
    parts: Split
    contract: Contract
    reference: OnnxModel
    at_best: list[dict[str, Any]]
    shares: tuple[float, ...] | None

    @property
    def progress(self) -> Progress:
        """Told about stages."""
        return self.bench.progress


def open_road(  # noqa: PLR0913 - the one place where everything given is checked
    model: Path | str,
    cases: Cases,
    contract: Contract,
    out: Path | str,
    fresh: Cases | None,
    shares: tuple[float, float, float],
    batch: int,
    threads: int,
    progress: Progress,
    announce: Announce,
) -> Road:
    """Check everything that was given, then open the run store of `out`."""
    out = Path(out)
    load_proto(model)
    _check_folder(out)
    if batch < 1 or threads < 1:
        raise InputError(f"batch={batch} and threads={threads} must be 1 or more")
    reference = OnnxModel(Path(model), threads, batch)
    reference = replace(reference, batch=reference.fixed_batch or batch)
    cases = reference.check_cases(cases)
    if fresh is not None:
        parts = split_apart(cases, reference.check_cases(fresh))
    else:
        parts = split(cases, shares)
    best = what_is_possible(contract, parts.certification.cases)
    announce(best)
    searched = contract.scaled(parts.search.cases.n / parts.certification.cases.n)
    known = (out / "run.sqlite").is_file()
    start = time.perf_counter()
    progress("reference", 0.0)
    # Before anything is written: a model or a contract that does not fit its cases ends here.
    outputs = {} if known else answers_on(parts.search.cases, reference, searched)
    taken = time.perf_counter() - start
    out.mkdir(exist_ok=True)
    clauses = [c.text for c in contract.clauses]
    identity = {
        "model": reference.sha256,
        "cases": cases.fingerprint,
        "certification cases": fresh.fingerprint if fresh is not None else "split off",
        "contract": json.dumps([clauses, contract.alpha, contract.population]),
        "share, batch or thread count": json.dumps([shares, reference.batch, threads]),
        "version of justenough": version("justenough"),
        "runtime or processor": json.dumps(runtime(threads=threads, batch=reference.batch)),
    }
    store = Store(out / "run.sqlite", identity)
    bench = Workbench(
        store, out / ".work", reference, parts.calibration, parts.search, searched,
        reference.batch, threads, progress,
    )  # fmt: skip
    if store.get("reference/search") is None and outputs:
        store.put("reference/search", sorted(outputs), outputs, seconds=taken)
        bench.spent("reference", parts.search.cases.n)
    return Road(out, store, bench, parts, contract, reference, best, None if fresh else shares)


def _check_folder(out: Path) -> None:
    if not out.exists():
        if not out.parent.is_dir():
            raise InputError(f"there is no folder {str(out.parent)!r} to put {out.name!r} in")
    elif not out.is_dir() or (any(out.iterdir()) and not (out / "run.sqlite").is_file()):
        raise InputError(f"{str(out)!r} holds something else; give a new output folder with -o")


def what_is_possible(contract: Contract, cases: Cases) -> list[dict[str, Any]]:
    """Per clause, what the number of certification cases can at best show."""
    out = []
    for clause in contract.clauses:
        best = at_best(clause, cases.n_units, contract.alpha)
        sign = 1 if clause.kind.at_least else -1
        reachable = best is None or sign * best >= sign * clause.bound
        needed = None if reachable else units_for(clause, contract.alpha)
        out.append(
            {"clause": clause.text, "units": cases.n_units, "limit": best,
             "reachable": reachable, "needed": needed}
        )  # fmt: skip
    return out


def too_few(best: list[dict[str, Any]]) -> str:
    """Why no search can help, and how many units would."""
    b = next(b for b in best if not b["reachable"])
    more = (
        f"; it takes {b['needed']}, {b['needed'] - b['units']} more"
        if b["needed"]
        else "; no number of cases that could be run shows it"
    )
    return f"{b['units']} units cannot show {b['clause']}, changed or not{more}"


def described(road: Road) -> dict[str, Any]:
    """The model, the contract, the cases and the machine."""
    parts = {
        name: {"rows": c.n, "units": c.n_units}
        for name, c in (
            ("calibration", road.parts.calibration.cases),
            ("search", road.parts.search.cases),
            ("certification", road.parts.certification.cases),
        )
    }
    return {
        "format": "justenough summary 1",
        "justenough": version("justenough"),
        "model": {
            "file": road.reference.name,
            "sha256": road.reference.sha256,
            "bytes": stored_bytes(road.reference.path),
        },
        "contract": {
            "clauses": [c.text for c in road.contract.clauses],
            "alpha": road.contract.alpha,
            "population": road.contract.population,
        },
        "cases": {"grouped": road.parts.search.cases.groups is not None, **parts},
        "environment": runtime(threads=road.bench.threads, batch=road.bench.batch),
    }


def nothing(verdict: Verdict, reason: str) -> dict[str, Any]:
    """The summary's end when nothing cheaper was certified."""
    return {"verdict": verdict.value, "reason": reason, "result": None}


def race(
    road: Road, step: str, files: Mapping[str, Path], *, seconds: float, passes: int
) -> dict[str, Any]:
    """Time files beside the reference, all in one run; recorded as `step`."""

    def run() -> dict[str, Any]:
        got = clock.race(
            road.reference.path, files, road.parts.search.cases.inputs, batch=road.bench.batch,
            threads=road.bench.threads, seconds=seconds, passes=passes,
        )  # fmt: skip
        road.bench.spent(step, sum(r.rows * (r.repeats + 1) for r in got.values()))
        return {n: {**asdict(r), "bytes": stored_bytes(files[n])} for n, r in got.items()}

    found: dict[str, Any] = road.store.once(step, run)
    return found


def measure_variants(road: Road) -> dict[str, Any]:
    """Measure sites, propose a chain, build its files, time them and run the search cases."""
    bench = road.bench
    road.progress("reference", 0.0)
    bench.outputs  # noqa: B018 - a run that was killed before they were recorded makes them now
    seconds = road.store.seconds()["reference/search"] / bench.search.cases.n
    road.store.once("reference/seconds", lambda: seconds)
    if not bench.sites:
        return {"sites": {}}
    calibrations = bench.best_calibration()
    best = calibrations["best"]
    sensitivity = bench.sensitivity(best)
    chain = pareto_chain(build_program(bench.cost_table()), sensitivity["noise"])
    everything = replace(all_int8(bench.sites), calibration=best)
    variants = {key(everything): everything}
    predicted: dict[str, Any] = {}
    for p in chain:
        v = replace(p.variant, calibration=best)
        variants[key(v)] = v
        predicted[key(v)] = {"predicted_s": p.seconds / bench.batch, "predicted_noise": p.noise}
    road.progress("build and time", 0.0)
    files = {name: bench.file(v) for name, v in variants.items()}
    if bench.gate is not None:
        files["gate"] = idle_cascade(road, files[key(everything)])
    times = race(road, "race", files, seconds=2.5, passes=2)
    built = {}
    for k, (name, v) in enumerate(variants.items()):
        road.progress("search cases", k / len(variants))
        m = bench.measured(v, times[name]["candidate_s"])
        pairs = paired(bench.outputs, bench.answers(v), bench.search.cases)
        built[name] = {
            "int8_sites": v.sites("int8"),
            "calibration": v.calibration,
            "noise": m.noise,
            "changed": judge(bench.contract, pairs)[0].changed,
            **times[name],
            **predicted.get(name, {}),
        }
    return {
        "sites": {s.name: {**asdict(s), "choices": None} for s in bench.sites},
        "calibrations": calibrations,
        "sensitivity": sensitivity,
        "signal": centred_power(bench.raw_score(bench.outputs)),
        "all_int8": key(everything),
        "gate_s": max(times["gate"]["candidate_s"] - times[key(everything)]["candidate_s"], 0.0)
        if bench.gate is not None
        else 0.0,
        "variants": built,
        "call_cost": road.store.once(
            "call cost",
            lambda: clock.call_cost(
                road.reference.path, bench.search.cases.inputs,
                batch=bench.batch, threads=bench.threads,
            ),
        ),
    }  # fmt: skip


def idle_cascade(road: Road, fast: Path) -> Path:
    """A cascade of `fast` that defers nothing, to time what its gate costs."""
    path = road.bench.folder / "gate.onnx"
    if not path.is_file() and road.bench.gate is not None:
        never = replace(road.bench.gate, threshold=-1.0)
        export.write_model(fast, road.reference.path, never, path, {})
    return path


def answers_on(cases: Cases, reference: OnnxModel, contract: Contract) -> dict[str, Array]:
    """Outputs of the reference on the search rows, checked against the contract."""
    few = cases.take(np.arange(min(2, cases.n)))
    contract.check(reference.run(few.inputs), cases.labels)
    outputs = reference.run(cases.inputs)
    judge(contract, paired(outputs, outputs, cases))
    _check_decisions(contract, outputs)
    return outputs


def _check_decisions(contract: Contract, outputs: Mapping[str, Array]) -> None:
    """Refuse a cut that no case is near: a decision that never varies proves nothing."""
    for clause in contract.clauses:
        if clause.metric == "decision_stability" and clause.is_score(outputs):
            yes = clause.values(outputs) > (clause.cut or 0.0)
            if yes.all() or not yes.any():
                raise InputError(
                    f"every search case of the reference falls on one side of cut="
                    f"{clause.cut or 0.0:g}, so that no decision could change; "
                    "give the cut that decides: decision_stability(cut=NUMBER)"
                )


def variant_of(entry: Mapping[str, Any]) -> Variant:
    """The variant that a summary's entry describes."""
    return Variant.of(dict.fromkeys(entry["int8_sites"], "int8"), entry["calibration"])


def make_plan(road: Road, measured: Mapping[str, Any]) -> dict[str, Any]:
    """Fix the candidates, their order and thresholds; recorded before certification."""
    bench = road.bench

    def run() -> dict[str, Any]:
        calls = measured["call_cost"]
        (k0, t0), (k1, t1) = calls[0], calls[-1]
        per_row = (t1 - t0) / (k1 - k0) if k1 > k0 else t1 / k1
        if road.reference.fixed_batch and road.reference.fixed_batch > 1:
            cost = DeferralCost(t1, 0.0, bench.batch, measured["gate_s"])
        else:
            cost = DeferralCost(max(t0 - per_row, 0.0), per_row, bench.batch, measured["gate_s"])
        entries = measured["variants"]
        race_s = next(iter(entries.values()))["reference_s"]
        order = rungs(
            bench.margins,
            [bench.measured(variant_of(e), e["candidate_s"]) for e in entries.values()],
            race_s,
            cost,
        )
        body = {
            "contract": [c.text for c in road.contract.clauses],
            "alpha": road.contract.alpha,
            "gate": None if bench.gate is None else asdict(bench.gate),
            "reference_s": race_s,
            "rungs": [asdict(r) for r in order],
        }
        text = json.dumps(body, sort_keys=True)
        return {**body, "sha256": hashlib.sha256(text.encode()).hexdigest()}

    plan: dict[str, Any] = road.store.once("plan", run)
    return plan
