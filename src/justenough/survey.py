"""The first half of the road: check what was given, measure, search, fix the plan."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
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
from justenough.deploy.certify import deployed_bytes, paired
from justenough.deploy.environment import runtime
from justenough.errors import InputError
from justenough.search.families import check_variant, families, with_pins
from justenough.search.goal import THIS_MACHINE, Goal
from justenough.search.workbench import Progress, Workbench, open_choices
from justenough.subjects.onnx_model import OnnxModel, find_sites, load_proto
from justenough.subjects.prepare import prepare

Array = NDArray[Any]
Announce = Callable[[list[dict[str, Any]]], None]


@dataclass(frozen=True)
class Road:
    """Where a run is: its folder, its store, its parts.

    Attributes:
        deadline: By `time.monotonic`; what is measured by then is certified.
    """

    out: Path
    store: Store
    bench: Workbench
    parts: Split
    contract: Contract
    reference: OnnxModel
    at_best: list[dict[str, Any]]
    shares: tuple[float, ...] | None
    deadline: float

    @property
    def late(self) -> bool:
        """Whether the time for measuring further candidates is over."""
        return time.monotonic() > self.deadline

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
    goal: Goal,
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
    if goal.given is not None:
        goal.given.check_fresh(parts.certification.cases.fingerprint)
    best = what_is_possible(contract, parts.certification.cases)
    announce(best)
    searched = contract.scaled(parts.search.cases.n / parts.certification.cases.n)
    known = (out / "run.sqlite").is_file()
    start = time.perf_counter()
    progress("reference", 0.0)
    # Before anything is written: a model or a contract that does not fit its cases ends here.
    outputs = {} if known else answers_on(parts.search.cases, reference, searched)
    taken = time.perf_counter() - start
    _check_goal(reference, goal)
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
        "goal": goal.identity,
    }
    store = Store(out / "run.sqlite", identity)
    try:
        bench = Workbench(
            store, out / ".work", reference, parts.calibration, parts.search, searched,
            reference.batch, threads, progress, goal,
        )  # fmt: skip
        if store.get("reference/search") is None and outputs:
            store.put("reference/search", sorted(outputs), outputs, seconds=taken)
            bench.spent("reference", parts.search.cases.n)
    except BaseException:
        store.close()  # it holds the folder
        raise
    # The rest of the time is for certifying what was found.
    end = time.monotonic() + 0.7 * (np.inf if goal.budget_s is None else goal.budget_s)
    given = None if fresh else shares
    return Road(out, store, bench, parts, contract, reference, best, given, end)


def _check_goal(reference: OnnxModel, goal: Goal) -> None:
    """Refuse pins and variants that the model cannot have."""
    if not goal.pins and goal.given is None:
        return
    model = prepare(load_proto(reference.path))
    choices = open_choices(model, find_sites(model), reference.batch)
    if goal.given is not None:
        check_variant(goal.given.variant, choices)
    else:
        with_pins(families(goal.runtimes)[0], goal.pins, choices)


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
            "bytes": deployed_bytes(road.reference.path),
            "inputs": road.reference.input_names,
        },
        "contract": {
            "clauses": [c.text for c in road.contract.clauses],
            "alpha": road.contract.alpha,
            "population": road.contract.population,
        },
        "cases": {"grouped": road.parts.search.cases.groups is not None, **parts},
        "environment": runtime(threads=road.bench.threads, batch=road.bench.batch),
        "goal": _goal(road.bench.goal),
    }


def _goal(goal: Goal) -> dict[str, Any]:
    counted = goal.minimise == "energy-estimate" or goal.target != THIS_MACHINE
    return {
        "minimise": goal.minimise, "target": goal.target, "runtimes": goal.runtimes,
        "pins": goal.pins, "given": goal.given is not None, "budget_s": goal.budget_s,
        "curve": goal.curve, "workers": goal.workers, "estimated": counted,
    }  # fmt: skip


def nothing(verdict: Verdict, reason: str) -> dict[str, Any]:
    """The summary's end when nothing cheaper was certified."""
    return {"verdict": verdict.value, "reason": reason, "result": None}


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
