"""What is deployed: its stages, its files, how to run it, in words."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from justenough.core.subject import ONNXRUNTIME
from justenough.report import names, words

Said = Mapping[str, Any]
CASCADE, MODEL = "cascade.toml", "model.onnx"
BESIDE = {".xml": (".bin",), ".param": (".bin", ".json")}
Key = tuple[str, float | None, str | None, float | None]


@dataclass(frozen=True)
class Stage:
    """One model of what is deployed.

    Attributes:
        variant: Its key; empty for the exact model.
        runtime: As a summary writes it.
        said: Its runtime and what stands where, in words.
        file: Name of its file; empty where it is not known.
        threshold: Margin up to which rows go on to the next stage; None for the last.
        reached: Share of rows that reach it.
        answered: Share of rows that it answers.
    """

    variant: str
    runtime: str
    said: str
    file: str
    threshold: float | None
    reached: float
    answered: float


def key_of(rung: Said) -> Key:
    """What tells a candidate from all others of its plan."""
    return (
        str(rung["variant"]), rung.get("threshold"),
        rung.get("middle"), rung.get("middle_threshold"),
    )  # fmt: skip


def key_of_result(result: Said) -> Key:
    """The candidate that a result deploys, as `key_of` gives it."""
    found = _found(result)
    first, middle = found[0], found[1] if found[1:] else {}
    return first["variant"], first["threshold"], middle.get("variant"), middle.get("threshold")


def goes_on(rung: Said) -> float:
    """Predicted share of rows that a candidate's first stage passes on."""
    return float(rung["passed"] if rung.get("middle") else rung["deferral"])


def rung_name(rung: Said, labels: Mapping[str, str]) -> str:
    """A candidate in words; `labels` names variants."""
    first = labels.get(rung["variant"], str(rung["variant"]))
    if rung.get("threshold") is None:
        return f"{first}, alone"
    up_to = words.significant(rung["threshold"])
    if not rung.get("middle"):
        return f"{first}, defers up to {up_to}"
    middle = labels.get(rung["middle"], str(rung["middle"]))
    then = words.significant(rung["middle_threshold"])
    return f"{first}, passes on up to {up_to} to {middle}, which defers up to {then}"


def _found(result: Said) -> list[Said]:
    """The stages of a result but for the exact one; of a result that does not list them, one."""
    one = {"variant": result["variant"], "threshold": (result.get("gate") or {}).get("threshold")}
    return list(result.get("stages") or [one])


def deployed_name(result: Said) -> str:
    """What is deployed: `model.onnx`, or `cascade.toml` where it takes more than one runtime."""
    return CASCADE if Path(str(result["file"])).name == CASCADE else MODEL


def stages(summary: Said) -> list[Stage]:
    """The stages of what is deployed, cheapest first; none where nothing is."""
    result: Said | None = summary.get("result")
    if not result:
        return []
    found, last = _found(result), deployed_name(result)
    shares = _shares(result, found)
    files = [str(f.get("file", "")) for f in _candidate(summary).get("stages") or ()]
    known: Said = (summary.get("search") or {}).get("variants") or {}
    out = []
    for k, s in enumerate(found):
        entry = known.get(s["variant"]) or {"runtime": s.get("runtime", ONNXRUNTIME), "picks": []}
        said = names.stage(entry, len(result["sites"]))
        if k == 0 and s["variant"] not in known:
            said = names.stage(_entry(result), len(result["sites"]))
        out.append((str(s["variant"]), names.runtime_of(entry), said, s["threshold"]))
    if found[-1]["threshold"] is not None:
        out.append(
            ("", str(ONNXRUNTIME), f"the exact model in {names.brand('onnxruntime')}", None)
        )
    return [
        Stage(v, r, said, (files[k] if k < len(files) else "") or last, t, shares[k],
              shares[k] - shares[k + 1])
        for k, (v, r, said, t) in enumerate(out)
    ]  # fmt: skip


def _shares(result: Said, found: list[Said]) -> list[float]:
    """Share of rows that reach each stage, and at the end 0."""
    cascaded = found[-1]["threshold"] is not None
    passed = [float(p) for p in result.get("passed") or ([result["deferral"]] if cascaded else [])]
    return [1.0, *passed, 0.0, 0.0]


def _entry(result: Said) -> Said:
    """The entry of a variant that the search does not list, from its sites."""
    text = names.runtime_of(result)
    picks = [(s, c) for s, c in result["sites"].items() if c != names.own(text)]
    return {"runtime": text, "picks": picks}


def _candidate(summary: Said) -> Said:
    found: Said = (summary.get("certificate") or {}).get("candidate") or {}
    return found


def sentence(summary: Said) -> str:
    """Runtimes and stages in one sentence; empty where nothing is deployed."""
    found = stages(summary)
    if not found:
        return ""
    first = found[0]
    kinds = dict.fromkeys(summary["result"]["sites"].values())
    if len(found) == 1 and set(kinds) <= {names.own(first.runtime)}:
        return f"The model as it is, in {first.said}."
    parts = [first.said]
    exact = "the exact model"
    if len({names.brand(s.runtime) for s in found}) > 1:
        exact += " in ONNX Runtime"
    then: list[str] = []
    for s in found[1:]:
        of = "" if then else " of cases"
        if s.variant:
            then.append(f"{words.share(s.reached)}{of} go on to {s.said}")
        else:
            then.append(f"{words.share(s.reached)}{of} are answered again by {exact}")
    return "; ".join([*parts, *([", ".join(then)] if then else [])]) + "."


def files(summary: Said) -> list[tuple[str, str]]:
    """Files to deploy and what each is for."""
    result = summary.get("result")
    if not result:
        return []
    if deployed_name(result) == MODEL:
        return [(MODEL, "the certified file, to deploy: plain ONNX")]
    what: dict[str, list[str]] = {}
    found = stages(summary)
    for k, s in enumerate(found, 1):
        what.setdefault(s.file, []).append(f"stage {k}: {s.said}" if found[1:] else s.said)
    about = "which stage runs where, and when rows go on" if found[1:] else "what runs it, and how"
    out = [(CASCADE, f"to deploy with what stands below: {about}")]
    for name, said in what.items():
        if name != CASCADE:
            beside = [Path(name).with_suffix(x).name for x in BESIDE.get(Path(name).suffix, ())]
            out.append((", ".join([name, *beside]), "; ".join(said)))
    return out


def code(summary: Said) -> list[str]:
    """How to run what is deployed: two lines of Python, and a command; none without a result."""
    result = summary.get("result")
    if not result:
        return []
    file = f"OUT/{deployed_name(result)}"
    inputs = list(summary["model"].get("inputs") or ["x"])
    rows = ", ".join(f'"{i}": {"rows" if i == inputs[0] else "..."}' for i in inputs)
    python = f'from justenough import load\nload("{file}").run({{{rows}}})'
    return [python, f"justenough run {file} --cases C.npz -o answers.npz"]


def judged_in(summary: Said) -> str:
    """The runtimes that judged it, with their versions."""
    env = summary["environment"]
    said = []
    for s in _candidate(summary).get("stages") or ():
        r = s.get("runtime") or {}
        about = f"{r.get('precision')}, {r.get('provider') or r.get('device')}"
        said.append(f"{names.brand(str(r.get('name')))} {r.get('version')} ({about})")
    plain = f"{names.brand(str(env.get('name')))} {env.get('version')} ({env.get('provider', '')})"
    return " and ".join(dict.fromkeys(said)) or plain


def sources(summary: Said) -> list[tuple[str, str]]:
    """Where each number of the page is recorded, to look it up."""
    steps = (summary.get("spent") or {}).get("steps") or {}
    out = [
        ("every number here", "run.sqlite, step summary, under the keys named below"),
        ("what the cases could show", "at_best"),
    ]
    if summary.get("result"):
        out.append(("verdict, limits, changed; files and their digests", "certificate.json"))
        out.append(("speed and time of what is deployed", "result; step race/deployed"))
        out.append(("stages, shares that go on", "result.stages, result.passed"))
    if summary.get("plan"):
        out.append(("candidates, predictions", "plan; step plan"))
        out.append(("candidates as certified", "steps; outputs: steps certification/VARIANT"))
    if (summary.get("search") or {}).get("variants"):
        out.append(("time, noise, changes of a variant",
                    "search.variants; steps race/VARIANT, search/VARIANT"))  # fmt: skip
        out.append(("noise of every site", "search.sensitivity; step sensitivity"))
    if steps:
        out.append(("what the run took", "spent; seconds and rows of every step"))
    return out
