"""`justenough study neurons`: the cheapest simulator of assemblies that keeps a contract."""

import datetime
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binom
from scipy.stats import t as student

from justenough.assemblies.operations import overlap
from justenough.assemblies.subject import OUTPUTS, TAUGHT, Problem
from justenough.compiled import usable_cores
from justenough.core.certificate import Certificate, evidence_json
from justenough.core.contract import Contract, parse_clause
from justenough.core.evidence import Verdict, overall
from justenough.core.judge import at_best, judge, judge_clause, prospects
from justenough.core.store import Store
from justenough.deploy.environment import runtime
from justenough.deploy.export import write_text
from justenough.errors import InputError
from justenough.studies.neurons import certifying
from justenough.studies.neurons.certifying import Decision, Searched
from justenough.studies.neurons.seeds import (
    CANDIDATES,
    FORMATS,
    HASHES,
    MOST_SEED,
    OTHERS,
    REFERENCE,
    VARIANTS,
    WITH_STATE,
    Bench,
    Progress,
)
from justenough.studies.neurons.study_report import render, said

__all__ = ["KEEP", "STAGES", "Asked", "ask", "run", "said"]
KEEP = certifying.KEEP
FORMAT = "justenough simulator 1"
STAGES = ("timing", "exact", "certify", "formats", "hashes")
# Search seeds; certification seeds of what is judged beside, an interval of a ratio needs 30; and
# of the hashes, whose graphs are no random ones.
SEARCH, BESIDE, FEW = 8, 30, 3
TIMED_ALPHA = 0.05  # of the sign test that a simulator is faster: 7 of 8 seeds
FORMAT_CLAUSE = parse_clause(f"within_tolerance(0.005, output={TAUGHT}) >= 0.9")
Said = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """What a run is to do.

    Attributes:
        problem: What is simulated.
        contract: What the cheaper simulator has to keep.
        seeds: Certification seeds.
        beside: Of these, the first on which all that was not certified in order is judged.
        seed: Where seeds begin.
    """

    problem: Problem
    contract: Contract
    seeds: int
    beside: int
    seed: int


def ask(
    sizes: Mapping[str, float], contract: Contract | None, seeds: int | None, seed: int
) -> Asked:
    """What a run is to do, from what was given.

    Args:
        sizes: `n`, `k`, `p`, `beta`, `rounds`.
        contract: None keeps `certifying.KEEP`.
        seeds: Certification seeds, for all simulators; None for as many as the contract takes,
            one failure allowed, and fewer for those that are judged beside.
        seed: Of everything that is drawn.

    Raises:
        InputError: A number out of range, or a contract that cannot be asked of a simulator.
    """
    whole = {k: _whole(k, sizes[k]) for k in ("n", "k", "rounds")}
    problem = Problem(**whole, p=sizes["p"], beta=sizes["beta"])
    contract = contract or certifying.default_contract()
    certifying.check(contract, (*OUTPUTS, TAUGHT))
    if not 0 <= seed <= MOST_SEED:
        raise InputError(f"--seed is {seed}; give 0 to {MOST_SEED}")
    needed = certifying.seeds_for(contract, 0)
    beside = seeds
    if seeds is None:
        seeds = certifying.seeds_for(contract)
        beside = min(BESIDE, seeds)
    if not 1 <= seeds <= certifying.MOST_SEEDS:
        raise InputError(f"--seeds is {seeds}; give {needed} or more, at most 100000")
    return Asked(problem, contract, seeds, beside or seeds, seed)


def _whole(name: str, value: float) -> int:
    if value != value // 1 or not 1 <= value <= 1e10:
        raise InputError(f"--{name} is {value:g}; give a whole number from 1 to 1e10")
    return int(value)


def run(asked: Asked, out: Path, progress: Progress = lambda *_: None) -> Said:
    """Run what is asked, or go on with it; write what was found.

    Every run of a simulator is kept when it has ended, so that a study that was stopped goes on
    after the last one, to the same numbers.

    Args:
        asked: From `ask`.
        out: Folder; `simulator.json`, `certificate.json` where something was certified,
            `results.json` and `report.html`.
        progress: Called with the stage and the share of it that is done.

    Raises:
        InputError: The folder belongs to another run, or the exact tier refuses the problem.
    """
    store = Store(out / "run.sqlite", _identity(asked))
    try:
        body = _body(asked, Bench(asked.problem, asked.seed, store, progress))
    finally:
        store.close()
    certificate = body["certificate"]
    write_text(out / "results.json", json.dumps(body, indent=1, allow_nan=False) + "\n")
    write_text(out / "simulator.json", json.dumps(body["simulator"], indent=1) + "\n")
    if certificate is not None:
        write_text(out / "certificate.json", json.dumps(certificate, indent=2) + "\n")
    write_text(out / "report.html", render(body))
    return body


def _identity(asked: Asked) -> dict[str, str]:
    clauses = [c.text for c in asked.contract.clauses]
    return {
        "study": "neurons",
        "problem": repr(asked.problem),
        "contract": json.dumps([clauses, asked.contract.alpha, asked.contract.population]),
        "seeds": f"{asked.seeds} from {asked.seed}",
        "version of justenough": version("justenough"),
    }


def _body(asked: Asked, bench: Bench) -> Said:
    contract = asked.contract
    refused = _refused(contract)
    bench.timed([REFERENCE, *CANDIDATES], SEARCH)
    timed = {k: _timed(bench, k) for k in (REFERENCE, *CANDIDATES) if k not in bench.failed}
    searched = _searched(contract, bench, timed, refused)
    order = certifying.ordered(searched)
    plan = _plan(asked, order)
    beside = asked.beside
    # Clauses on one round from the exact state are judged on every seed, if there are any.
    asks_state = any(c.output == TAUGHT for c in contract.clauses)
    bench.judged([REFERENCE], asked.seeds, "exact", asked.seeds if asks_state else beside)
    seeds = bench.certification_seeds(asked.seeds)

    def pairs(name: str) -> Any:
        bench.judged([name], asked.seeds, "certify")
        return bench.pairs(name, seeds)

    decision = certifying.decide(contract, order, searched, pairs)
    # Counts of another width give the same winners by construction: they are timed, no more.
    known = {"uint16", *dict(decision.steps)}
    others = [k for k in (*CANDIDATES, *FORMATS, *OTHERS) if k not in known]
    bench.judged(others, beside, "formats")
    bench.judged(HASHES, FEW, "hashes")
    body: Said = {
        "format": "justenough neurons study 1",
        "asked": _said_of(asked),
        "at_best": [
            {"clause": c.text, "limit": at_best(c, asked.seeds, contract.alpha)}
            for c in contract.clauses
        ],
        "timed": timed,
        "risk": {k: s.risk for k, s in searched.items()},
        "order": order,
        "plan_sha256": plan,
        "steps": [_judged(k, e, asked.seeds) for k, e in decision.steps],
        "beside": [
            _judged(k, judge(contract, bench.pairs(k, seeds[:n])), n)
            for k, n in [*((k, beside) for k in others), *((k, FEW) for k in HASHES)]
            if k not in refused and bench.has(k, seeds[:n])
        ],
        "refused": refused,
        "left_out": dict(bench.failed),
        "taught": _taught(contract, bench, seeds[:beside]),
        "free": _free(bench, seeds[:beside]),
        "support": _supports(bench, seeds),
        "bytes": _bytes(bench, [*seeds[:1], *bench.search_seeds(1)]),
        "machine": runtime(threads=usable_cores(), batch=1),
    }
    body |= _ending(asked, decision, body["beside"])
    body["simulator"] = _simulator(asked, decision, body)
    chosen = decision.chosen
    body["certificate"] = None if chosen is None else certificate_of(asked, decision, plan)
    return body


def _refused(contract: Contract) -> dict[str, str]:
    """Simulators that a clause cannot be asked of."""
    if not any(c.output == TAUGHT for c in contract.clauses):
        return {}
    why = (f"no {TAUGHT}: it has not the graph, top-k and ties of the exact tier, so that there "
           "is no round from its state")  # fmt: skip
    return {k: why for k in VARIANTS if k not in (REFERENCE, *WITH_STATE)}


def _timed(bench: Bench, name: str) -> Said:
    """Times of a simulator and of the exact tier on the same seeds, run in turn."""
    seeds = bench.search_seeds(SEARCH)
    here = np.array([bench.said(name, s)["seconds"] for s in seeds])
    there = np.array([bench.said(REFERENCE, s)["seconds"] for s in seeds])
    low, middle, high = np.quantile(there / here, (0.1, 0.5, 0.9)).tolist()
    by_chance = float(binom.sf((here < there).sum() - 1, SEARCH, 0.5))
    return {"seconds": float(np.median(here)), "runs": here.tolist(),
            "speedup": middle, "low": low, "high": high,
            "faster": by_chance <= TIMED_ALPHA}  # fmt: skip


def _searched(
    contract: Contract, bench: Bench, timed: Mapping[str, Said], refused: Mapping[str, str]
) -> dict[str, Searched]:
    """What the search seeds say of each candidate that the contract can be asked of."""
    seeds = bench.search_seeds(SEARCH)
    ref = bench.outputs(REFERENCE, seeds)
    found = {}
    for name, times in timed.items():
        if name == REFERENCE or name in refused:
            continue
        cand = bench.outputs(name, seeds)
        if name in WITH_STATE:  # counts of another width: the same winners by construction
            cand = {**cand, TAUGHT: np.ones(SEARCH)}
        risk = certifying.risk(contract, {**ref, TAUGHT: np.ones(SEARCH)}, cand)
        found[name] = Searched(risk, times["seconds"], times["faster"])
    return found


def _plan(asked: Asked, order: Sequence[str]) -> str:
    """Hash of everything that is fixed before the certification seeds are run."""
    fixed = {**_said_of(asked), "order": list(order)}
    return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()


def _said_of(asked: Asked) -> Said:
    contract = asked.contract
    return {
        "problem": asdict(asked.problem),
        "contract": {
            "clauses": [c.text for c in contract.clauses], "alpha": contract.alpha,
            "population": contract.population,
        },
        "search_seeds": SEARCH, "seeds": asked.seeds, "seed": asked.seed,
    }  # fmt: skip


def _judged(name: str, evidence: Sequence[Any], n: int) -> Said:
    clauses = [evidence_json(e) for e in evidence]
    return {"variant": name, "seeds": n, "verdict": overall(tuple(evidence)).value,
            "clauses": clauses}  # fmt: skip


def _taught(contract: Contract, bench: Bench, seeds: Sequence[int]) -> Said:
    """`winner_overlap` of each format, with the evidence for a clause that formats can keep."""
    out = {}
    for name in WITH_STATE:
        kept = bench.kept(name, seeds)
        if kept is not None:
            pairs = bench.pairs(name, seeds) if bench.has(name, seeds) else None
            e = None if pairs is None else judge_clause(FORMAT_CLAUSE, pairs, contract.alpha)
            out[name] = {"mean": float(kept.mean()), "least": float(kept.min()),
                         "evidence": None if e is None else evidence_json(e)}  # fmt: skip
    return out


def _bytes(bench: Bench, seeds: Sequence[int]) -> Said:
    """Bytes that each simulator holds at the end of a run, by what takes them."""
    run_on = {k: [s for s in seeds if bench.has(k, [s])] for k in VARIANTS}
    return {k: bench.said(k, found[0])["bytes"] for k, found in run_on.items() if found}


def _free(bench: Bench, seeds: Sequence[int]) -> Said:
    """Overlap of assemblies after free runs on the same graph: which no format keeps."""
    pairs = [(REFERENCE, k) for k in (*FORMATS, "lowest", "top-k 0.95")] + [("fp64", "fp32")]
    out = {}
    for one, other in pairs:
        if bench.has(one, seeds) and bench.has(other, seeds):
            kept = [overlap(bench.winners(one, s), bench.winners(other, s)) for s in seeds]
            out[f"{one} and {other}"] = {"mean": float(np.mean(kept)), "least": min(kept)}
    return out


def _supports(bench: Bench, seeds: Sequence[int]) -> Said:
    """Support of each simulator over that of the exact tier: every seed, and geometric mean."""
    out = {}
    for name in VARIANTS:
        mine = [s for s in seeds if bench.has(name, [s])]
        if name == REFERENCE or not mine:
            continue
        ours, exact = (bench.outputs(k, mine)["support"] for k in (name, REFERENCE))
        logs = np.log(ours / exact)
        found: Said = {"each": (ours / exact).tolist(), "ratio": float(np.exp(logs.mean()))}
        if len(mine) >= BESIDE:  # Student's t; fewer have no interval
            reach = float(student.ppf(0.975, len(mine) - 1) * logs.std(ddof=1) / len(mine) ** 0.5)
            found |= {"low": float(np.exp(logs.mean() - reach)),
                      "high": float(np.exp(logs.mean() + reach))}  # fmt: skip
        out[name] = found
    return out


def _ending(asked: Asked, decision: Decision, beside: Sequence[Said]) -> Said:
    """Verdict and reason of the whole study."""
    if decision.chosen is not None:
        return {"verdict": Verdict.HELD.value, "chosen": decision.chosen, "reason": ""}
    if not decision.steps:
        reason = "no simulator that the contract can be asked of was faster than the exact tier"
        return {"verdict": Verdict.BROKEN.value, "chosen": None, "reason": reason}
    name, evidence = decision.steps[0]
    verdict = overall(evidence)
    clause, e = next((c, e) for c, e in zip(asked.contract.clauses, evidence, strict=True)
                     if e.verdict is verdict)  # fmt: skip
    fails = "breaks" if verdict is Verdict.BROKEN else "is not shown to keep"
    reason = f"the safest candidate, {name}, {fails} {e.clause}: {e.changed} of {e.n} seeds fail"
    if verdict is Verdict.UNDECIDED:
        reason += f"; {prospects(e, clause, asked.contract.alpha)}"
    if any(s["variant"] == "redrawn" and s["verdict"] == Verdict.BROKEN for s in beside):
        reason += (
            "; so does the exact tier on another graph: graphs of this size differ by more than "
            "the contract allows, and only a simulator of the very same graph could keep it"
        )
    return {"verdict": verdict.value, "chosen": None, "reason": reason}


def _simulator(asked: Asked, decision: Decision, body: Mapping[str, Any]) -> Said:
    """The simulator to use, and what it was certified for; the exact tier where none was."""
    name = decision.chosen or REFERENCE
    timed = body["timed"][name]
    certified = {
        "problem": asdict(asked.problem), "operation": "project, then complete half of it",
        "contract": [c.text for c in asked.contract.clauses], "alpha": asked.contract.alpha,
        "seeds": asked.seeds,
    }  # fmt: skip
    return {
        "format": FORMAT, "simulator": name, "sites": dict(VARIANTS[name].picks),
        "certified_for": None if decision.chosen is None else certified,
        "seconds": timed["seconds"], "speedup": timed["speedup"],
        "bytes": body["bytes"][name],
    }  # fmt: skip


def certificate_of(asked: Asked, decision: Decision, plan: str) -> Said:
    """The project's certificate of the chosen simulator, and what it does not cover.

    Args:
        asked: Problem, contract and seeds.
        decision: With a simulator that held.
        plan: Hash of what was fixed before the certification seeds were run.
    """
    name = str(decision.chosen)
    problem = asdict(asked.problem)

    def described(which: str) -> Said:
        sites = dict(VARIANTS[which].picks)
        text = json.dumps([sites, version("justenough")], sort_keys=True)
        return {"simulator": which, "sites": sites, "problem": problem,
                "sha256": hashlib.sha256(text.encode()).hexdigest()}  # fmt: skip

    seeds = {"problem": problem, "first": 2_000_000 * asked.seed + 1, "step": 2, "n": asked.seeds}
    fingerprint = hashlib.sha256(json.dumps(seeds, sort_keys=True).encode()).hexdigest()
    here = runtime(threads=usable_cores(), batch=1)
    evidence = dict(decision.steps)[name]
    got = Certificate(
        verdict=overall(evidence),
        contract=asked.contract,
        evidence=evidence,
        reference=described(REFERENCE),
        candidate=described(name),
        cases={"fingerprint": fingerprint, "units": asked.seeds, "groups": False, **seeds},
        runtime={**here, "name": "justenough assemblies", "version": version("justenough"),
                 "provider": f"numpy {np.__version__}"},
        plan_sha256=plan,
        note=NOTES,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        justenough=version("justenough"),
    )  # fmt: skip
    body: Said = json.loads(got.to_json())
    return body


NOTES = (
    "A case is a seed, which is a random graph: the certificate speaks for graphs drawn with "
    "these n, k, p, beta and rounds, and for no other values of them.",
    "It speaks for a projection and the completion of half of its assembly. Other operations, "
    "circuits of several areas, and which neurons win are not covered.",
    "There is no model file: reference and candidate are simulators of this version, and the "
    "same command runs it again.",
)
