"""Summaries of runs, made by hand: what the report and the command line have to say in words."""

import copy
import html
import re
from typing import Any

CLAUSE = "decision_stability(output=y) >= 0.99"
BF16, NNCF, ORT = "openvino-bf16-0b", "openvino-bf16-nncf-int8-2-minmax-0c", "int8-3-minmax-0a"
MISSING = (
    "openvino is not installed; install justenough[openvino] to use it: on x86 it brings bf16, "
    "and int8 often faster"
)


def evidence(changed: int, estimate: float, limit: float, verdict: str = "HELD") -> dict[str, Any]:
    return {
        "clause": CLAUSE, "verdict": verdict, "estimate": estimate, "limit": limit,
        "other_limit": 1.0, "n": 500, "changed": changed, "unit": "share of units",
        "method": "Clopper-Pearson 1934, exact, one-sided", "note": "",
    }  # fmt: skip


def stopped() -> dict[str, Any]:
    """A run that ended before its search."""
    part = {"rows": 900, "units": 100}
    return {
        "justenough": "0.1.0",
        "model": {"file": "net.onnx", "sha256": "ab" * 32, "bytes": 2_793_026},
        "contract": {"clauses": [CLAUSE], "alpha": 0.05, "population": "adults"},
        "cases": {"grouped": True, "calibration": part, "search": part,
                  "certification": {"rows": 4000, "units": 500}},
        "environment": {"name": "onnxruntime", "version": "1.32.0", "provider": "CPU",
                        "processor": "EPYC", "cpu_flags": ["avx2", "avx512_vnni", "avx512_bf16"],
                        "threads": 1, "batch": 32},
        "at_best": [{"clause": CLAUSE, "units": 500, "limit": 0.99402, "reachable": True,
                     "needed": None}],
        "verdict": "UNDECIDED", "reason": "too few cases", "result": None,
    }  # fmt: skip


def variant(runtime: str, form: str, sites: list[str], speedup: float, **more: Any) -> Any:
    """A variant as the search lists it, int8 at `sites`."""
    return {
        "picks": [[s, "int8"] for s in sites], "int8_sites": sites, "calibration": "minmax",
        "runtime": runtime, "form": form, "repairs": [], "noise": 1e-4, "changed": 2,
        "reference_s": 0.002, "candidate_s": 0.002 / speedup, "speedup": speedup,
        "low": speedup - 0.1, "high": speedup + 0.1, "repeats": 4, "rows": 256, "threads": 1,
        "batch": 32, "bytes": 752_126, **more,
    }  # fmt: skip


def rung(name: str, threshold: float | None, deferral: float, risk: float, **more: Any) -> Any:
    """A candidate of a plan."""
    return {
        "variant": name, "threshold": threshold, "deferral": deferral, "risk": risk,
        "seconds": 0.0009 - 0.1 * risk, "middle": None, "middle_threshold": None, "passed": 0.0,
        **more,
    }  # fmt: skip


def searched(n_sites: int = 3) -> dict[str, Any]:
    """A run in ONNX Runtime alone, whose safest candidate broke the contract."""
    names = [f"/net/block.{k}/Conv" for k in range(n_sites)]
    rungs = [rung(ORT, t, d, r) for t, d, r in ((0.2, 0.1, 0.0), (0.05, 1e-2, 1e-4),
                                                (0.01, 5e-3, 2e-3))]  # fmt: skip
    broken = evidence(40, 0.92, 0.897, "BROKEN")
    return {
        **stopped(),
        "search": {
            "sites": {n: {"name": n, "op": "Conv", "nodes": [], "size": 9216,
                          "operations": 9_437_184, "choices": None} for n in names},
            "calibrations": {"best": "minmax", "by": "deferral",
                             "found": {"minmax": {"noise": 1e-4, "deferral": 0.0166},
                                       "mse": {"noise": 1.2, "deferral": 1.0}}},
            "sensitivity": {"noise": dict.fromkeys(names, 1e-5), "method": "sessions",
                            "rows": 256},
            "signal": 0.63, "all_int8": ORT,
            "families": ["onnxruntime full"], "searched": ["onnxruntime full"], "notes": [],
            "reference_s": 0.002, "gate_s": {"file": 1e-5, "runner": 5e-5},
            "call_cost": {"reference": [[1, 0.002], [32, 0.064]]},
            "variants": {"int8-1-minmax-0d": variant("onnxruntime", "full", names[:1], 1.5,
                                                     bytes=1_752_126, changed=0),
                         ORT: variant("onnxruntime", "full", names, 3.2)},
        },
        "plan": {"rungs": rungs, "gate": {"threshold": 0.0}, "reference_s": 0.002,
                 "sha256": "cd" * 32},
        "steps": [{**rungs[0], "verdict": "BROKEN", "clauses": [broken]}],
        "plain_int8": {"variant": ORT, "verdict": "BROKEN", "clauses": [broken],
                       "speedup": 3.2, "low": 3.1, "high": 3.3, "bytes": 752_126},
        "verdict": "BROKEN", "reason": "the safest candidate did not hold",
        "spent": {"inferences": 49_044, "rows": {f"race/{ORT}": 2048},
                  "seconds": 85.5, "steps": {f"race/{ORT}": 3.25, "call cost": 1.0}},
    }  # fmt: skip


def held(n_sites: int = 3) -> dict[str, Any]:
    """A run that certified a cascade of two stages in one ONNX file."""
    s = searched(n_sites)
    good = evidence(1, 0.998, 0.99055)
    s["steps"] = [{**r, "verdict": "HELD", "clauses": [good]} for r in s["plan"]["rungs"][:2]]
    sites = dict.fromkeys(s["search"]["sites"], "int8")
    return {
        **s, "verdict": "HELD", "reason": "",
        "certificate": {
            "verdict": "HELD", "alpha": 0.05, "clauses": [{**good, "op": ">="}], "note": [],
            "candidate": {"file": "model.onnx", "sha256": "ef" * 32, "bytes": 3_571_063},
            "cases": {"fingerprint": "12" * 32}, "created": "2026-01-01T00:00:00+00:00",
        },
        "result": {"kind": "cascade", "file": "c.onnx", "variant": ORT, "sites": sites,
                   "runtime": "onnxruntime", "gate": {"threshold": 0.05},
                   "stages": [{"variant": ORT, "runtime": "onnxruntime", "threshold": 0.05}],
                   "deferral": 0.00823, "passed": [0.00823], "reference_s": 0.00195,
                   "candidate_s": 0.000618, "speedup": 3.16, "low": 3.1, "high": 3.2,
                   "repeats": 4, "bytes": 3_571_063},
        "margins": {"edges": [0.0, 0.1, 0.2], "rows": [100, 3800], "changed": [11, 0],
                    "threshold": 0.05},
        "quality": {"reference": {"rows": 3033.0, "accuracy": 0.78635, "auc": 0.84882},
                    "candidate": {"rows": 3033.0, "accuracy": 0.78635, "auc": 0.84876}},
    }  # fmt: skip


def without_openvino() -> dict[str, Any]:
    """A run that held where OpenVINO is not installed and two variants failed."""
    s = held()
    s["search"]["notes"] = [
        MISSING, f"{ORT[:-1]}f was skipped: ONNX Runtime 1.32.0 cannot load a<b.onnx",
        "int8-2-mse-09 was skipped: it answers with no number",
        "the time was over before mixtures in onnxruntime full were proposed",
    ]  # fmt: skip
    return s


def two_runtimes() -> dict[str, Any]:
    """A search over ONNX Runtime and OpenVINO, in which nothing held."""
    s = searched()
    sites = list(s["search"]["sites"])
    s["search"]["variants"] |= {
        BF16: variant("openvino bf16", "plain", [], 1.9, noise=1e-6, changed=0, bytes=2_793_026),
        NNCF: variant("openvino bf16", "nncf", sites[:2], 3.8, changed=7, bytes=878_947),
    }
    s["search"]["families"] += ["openvino bf16 plain", "openvino bf16 nncf"]
    s["search"]["searched"] = ["openvino bf16 nncf"]
    s["search"]["call_cost"][BF16] = [[1, 0.0012], [32, 0.034]]
    rungs = [
        rung(BF16, None, 0.0, 0.0),
        rung(NNCF, 0.1, 0.03, 1e-5),
        rung(NNCF, 0.1, 0.004, 2e-4, middle=BF16, middle_threshold=0.0125, passed=0.03),
        rung(NNCF, 0.0243, 0.003, 1e-3, middle=BF16, middle_threshold=0.0033, passed=0.011),
    ]  # fmt: skip
    s["plan"]["rungs"] = rungs
    s["steps"] = [
        {**rungs[0], "verdict": "BROKEN", "clauses": [evidence(40, 0.92, 0.9, "BROKEN")]}
    ]
    return s


def _certified(s: dict[str, Any], stages: list[dict[str, Any]], files: list[str]) -> Any:
    """A certificate over files in several runtimes."""
    h = held()
    openvino = {"name": "openvino", "precision": "bf16", "device": "cpu", "version": "2026.4.1"}
    ours = {"name": "onnxruntime", "precision": "fp32", "device": "cpu", "version": "1.32.0",
            "provider": "CPUExecutionProvider"}  # fmt: skip
    cascaded = stages[-1]["threshold"] is not None
    runtimes = [openvino] * len(stages) + [ours] * cascaded
    h["certificate"]["candidate"] = {
        "file": "cascade.toml", "sha256": "ef" * 32, "bytes": 3_692_450,
        "stages": [{"file": f, "sha256": f"{k}a" * 32, "runtime": r}
                   for k, (f, r) in enumerate(zip(files, runtimes, strict=True))],
    }  # fmt: skip
    kind = "cascade" if cascaded else "plain"
    result = {**h["result"], "kind": kind, "file": f"{kind}-x/cascade.toml", "stages": stages,
              "variant": stages[0]["variant"], "runtime": "openvino bf16"}  # fmt: skip
    s |= {k: h[k] for k in ("verdict", "reason", "certificate", "quality")}
    return {**s, "result": result}


def three_stages() -> dict[str, Any]:
    """A run that certified OpenVINO int8 with bf16, then bf16, then the exact model."""
    s = two_runtimes()
    good = evidence(1, 0.998, 0.99055)
    s["steps"] = [{**r, "verdict": "HELD", "clauses": [good]} for r in s["plan"]["rungs"]]
    stages = [{"variant": NNCF, "runtime": "openvino bf16", "threshold": 0.0243},
              {"variant": BF16, "runtime": "openvino bf16", "threshold": 0.0033}]  # fmt: skip
    s = _certified(s, stages, ["stage-1.xml", "stage-2.onnx", "stage-2.onnx"])
    sites = dict(zip(s["search"]["sites"], ("bf16", "int8", "int8"), strict=True))
    s["result"] |= {"sites": sites, "gate": {"threshold": 0.0243}, "deferral": 0.002,
                    "passed": [0.011, 0.002]}  # fmt: skip
    return {**s, "margins": {**held()["margins"], "threshold": 0.0243}}


def bf16_alone() -> dict[str, Any]:
    """A run that certified the model as it is in OpenVINO's bf16, on cases without labels."""
    s = two_runtimes()
    good = evidence(0, 1.0, 0.994)
    s["steps"] = [{**s["plan"]["rungs"][0], "verdict": "HELD", "clauses": [good]}]
    stages = [{"variant": BF16, "runtime": "openvino bf16", "threshold": None}]
    s = _certified(s, stages, ["stage-1.onnx"])
    s["result"] |= {"sites": dict.fromkeys(s["search"]["sites"], "bf16"), "gate": None,
                    "deferral": 0.0, "passed": [], "speedup": 1.9}  # fmt: skip
    del s["quality"]
    return {**s, "margins": None}


def curved() -> dict[str, Any]:
    """A run that certified every point at once; the boldest of four does not hold."""
    s = three_stages()
    shown = [evidence(0, 1.0, 0.9913), evidence(0, 1.0, 0.9913), evidence(1, 0.998, 0.9902),
             evidence(6, 0.988, 0.9712, "UNDECIDED")]  # fmt: skip
    speeds = (1.9, 2.4, 2.9, 3.4)
    s["steps"] = [
        {**r, "verdict": e["verdict"], "clauses": [e], "speedup": v, "low": v - 0.1,
         "high": v + 0.2, "bytes": 3_000_000 + k, "file": f"curve/{k}/cascade.toml"}
        for k, (r, e, v) in enumerate(zip(s["plan"]["rungs"], shown, speeds, strict=True))
    ]  # fmt: skip
    s["curve"] = {"alpha": 0.0125, "points": 4}
    s["certificate"]["alpha"] = 0.0125
    third = s["plan"]["rungs"][2]
    s["result"]["stages"] = [
        {"variant": NNCF, "runtime": "openvino bf16", "threshold": third["threshold"]},
        {"variant": BF16, "runtime": "openvino bf16", "threshold": third["middle_threshold"]},
    ]
    s["goal"] = goal(curve=True)
    return s


def goal(**more: Any) -> dict[str, Any]:
    """What a search was for."""
    return {
        "minimise": "latency", "target": "this-machine", "runtimes": ["onnxruntime", "openvino"],
        "pins": [], "given": False, "budget_s": None, "curve": False, "workers": "1",
        "estimated": False, **more,
    }  # fmt: skip


def costed(minimise: str, target: str, per_case: float) -> dict[str, Any]:
    """A held run that was for something else than seconds measured here."""
    s = copy.deepcopy(held())
    estimated = minimise == "energy-estimate" or target != "this-machine"
    s["goal"] = goal(minimise=minimise, target=target, estimated=estimated)
    entries = [*s["search"]["variants"].values(), *s["plan"]["rungs"], *s["steps"], s["result"]]
    for k, entry in enumerate(entries):
        entry["cost"] = per_case * (1 + 0.1 * k)
    for entry in (*s["plan"]["rungs"], *s["steps"]):
        entry["seconds"] = entry["cost"]
    return s


def shown(page: str) -> str:
    """The text of a page, with plain spaces."""
    body = re.sub(r"<(style|script)>.*?</\1>", "", page, flags=re.S)
    text = html.unescape(re.sub(r"<[^>]+>", " ", body))
    return " ".join(text.replace("\u00a0", " ").replace("\u202f", " ").split())
