"""Tables of the report: rows of text, nothing that knows about HTML but small figures."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from justenough.report import deployed, figures, goal, names, timing, words

Said = Mapping[str, Any]
Cell = str
STEPS = {
    "reference": "reference pass over the search cases",
    "calibration": "ranges from the calibration cases",
    "calibrations": "choice of the calibration",
    "sensitivity": "noise of every site",
    "profile": "time of every operator",
    "search": "variants on the search cases",
    "race": "timing files side by side",
    "call cost": "cost of deferring",
    "nncf": "int8 files by NNCF",
    "plan": "fixing the plan",
    "certification": "candidates on the certification cases",
    "certificate": "the deployed file on the certification cases",
}


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        columns: Heads; one that starts with `#` holds numbers, set to the right; one that
            starts with `*` takes the whole width of a block on a phone.
        rows: Cells of each row.
        marked: Index of rows that matter most.
        stack: On a phone, whether each row becomes a block of lines of its own.
        pairs: On a phone, whether such a block puts two cells beside each other.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    marked: tuple[int, ...] = ()
    stack: bool = False
    pairs: bool = False

    @property
    def kind(self) -> str:
        """Classes of the style sheet."""
        if self.stack or self.pairs:
            return "stack pairs" if self.pairs else "stack"
        return "few" if len(self.columns) < 5 else ""

    @property
    def heads(self) -> list[tuple[str, str]]:
        """Name and class of each column."""
        kinds = {"#": "number", "*": "whole"}
        return [(c.lstrip("#*"), kinds.get(c[0], "") if c else "") for c in self.columns]


def clauses(summary: Said, entries: list[Said], *, grouped: bool) -> Table:
    """Every clause with its evidence."""
    texts = summary["contract"]["clauses"]
    rows = []
    for text, e in zip(texts, entries, strict=False):
        p = words.promise(text, grouped=grouped)
        changed = e.get("changed")
        method = str(e.get("method", "")) + (f" ({e['note']})" if e.get("note") else "")
        rows.append(
            (text, str(e.get("verdict", "")), p.value(e.get("estimate")), p.limit(e.get("limit")),
             figures.interval(e, p), words.count(e.get("n")),
             words.NONE if changed is None else words.count(changed),
             f"{p.unit}; {method}" if p.unit else method)
        )  # fmt: skip
    heads = ("clause", "verdict", "#estimate", "#limit", "interval", "#n", "#changed",
             "unit; method and paper")  # fmt: skip
    return Table(heads, tuple(rows), stack=True)


def plain_name(summary: Said) -> str:
    """What the simplest candidate is: int8 everywhere, unless sites were settled otherwise."""
    search = summary.get("search") or {}
    entry = (search.get("variants") or {}).get(
        str((summary.get("plain_int8") or {}).get("variant"))
    )
    total = len(search.get("sites") or {})
    if entry and names.picked(entry) != {"int8": total}:
        return names.stage(entry, total)
    return "int8 everywhere" + (f" in {names.brand(names.runtime_of(entry))}" if entry else "")


def comparison(summary: Said, *, grouped: bool) -> Table | None:
    """The reference, int8 everywhere, and what was certified, side by side."""
    plain, result = summary.get("plain_int8"), summary.get("result")
    if not plain:
        return None
    texts = summary["contract"]["clauses"]
    rows: list[tuple[str, ...]] = [
        ("reference", "", "", f"1{words.TIMES}", words.size(summary["model"]["bytes"]))
    ]
    rows.append((f"{plain_name(summary)}, alone", *_shown(plain, texts, grouped=grouped)))
    if result:
        clauses = summary["certificate"]["clauses"]
        entry = {**result, "verdict": summary["certificate"]["verdict"], "clauses": clauses}
        n = len(deployed.stages(summary))
        kind = f"{result['kind']} of {n} stages" if n > 1 else result["kind"]
        rows.append((f"certified ({kind})", *_shown(entry, texts, grouped=grouped)))
    heads = ("file", "verdict", "certification cases", "#speed", "#size")
    return Table(heads, tuple(rows), (2,) if result else (), stack=True)


def _shown(entry: Said, texts: list[str], *, grouped: bool) -> tuple[str, ...]:
    units = "groups" if grouped else "cases"
    said = []
    for text, e in zip(texts, entry["clauses"], strict=False):
        p = words.promise(text, grouped=grouped)
        if e.get("changed") is None:
            said.append(f"estimate {p.value(e.get('estimate'))}, limit {p.limit(e.get('limit'))}")
        else:
            said.append(
                f"{words.count(e['changed'])} of {words.count(e['n'])} {units} changed "
                f"(limit {p.limit(e.get('limit'))})"
            )
    speed = words.times(entry.get("speedup"))
    return str(entry["verdict"]), "; ".join(said), speed, words.size(entry.get("bytes"))


def candidates(summary: Said, *, grouped: bool) -> Table | None:
    """Every rung of the plan, and what certification said of it."""
    plan = summary.get("plan") or {}
    rungs = plan.get("rungs") or []
    if not rungs:
        return None
    texts, result = summary["contract"]["clauses"], summary.get("result")
    tested = {deployed.key_of(s): s for s in summary.get("steps", ())}
    chosen = deployed.key_of_result(result) if result else None
    short = labels(summary)
    rows = []
    for k, r in enumerate(rungs, 1):
        step = tested.get(deployed.key_of(r))
        said = _shown(step, texts, grouped=grouped)[:2] if step else ("not tested", "")
        name, *predicted = _rung(summary, r, short)
        rows.append((f"{k}. {name}", *predicted, *said))
    marked = tuple(k for k, r in enumerate(rungs) if deployed.key_of(r) == chosen)
    heads = ("candidate", "#goes on", "#to the exact model",
             "#predicted changed" if plan.get("gate") else "#noise",
             f"#{goal.cost_name(summary) or 'time a case'}", "verdict",
             "*certification cases")  # fmt: skip
    return Table(heads, tuple(rows), marked, pairs=True)


def _rung(summary: Said, r: Said, short: Mapping[str, str]) -> tuple[str, ...]:
    """A candidate and what was predicted of it."""
    gate = (summary.get("plan") or {}).get("gate")
    risk = words.share(r["risk"]) if gate else words.significant(r["risk"])
    on = deployed.goes_on(r)
    took = goal.cost_of(summary, r)
    cost = words.seconds(r["seconds"]) if took is None else goal.in_unit(summary, took)
    predicted = [words.share(on), words.share(r["deferral"]), risk]
    if goal.of(summary).get("given"):  # nothing was predicted of what was given
        predicted = [words.NONE] * 3
    return deployed.rung_name(r, short), *predicted, cost


def labels(summary: Said) -> dict[str, str]:
    """A short name of each variant of a run."""
    search = summary.get("search") or {}
    return names.labels(search.get("variants") or {}, len(search.get("sites") or {}))


def stages(summary: Said) -> Table | None:
    """The stages of what is deployed: file, runtime, threshold, cases and time of each."""
    found = deployed.stages(summary)
    if len(found) < 2:
        return None
    took = timing.stage_seconds(summary, [s.variant for s in found], [s.reached for s in found])
    total = sum(took) if took else 0.0
    n = summary["cases"]["certification"]["rows"]
    rows = []
    for k, s in enumerate(found):
        last = s.threshold is None
        gate = "answers all" if last else f"up to {words.significant(s.threshold)}"
        part = took[k] / total if took and total else None
        rows.append(
            (f"{k + 1}. {s.said}", Markup("<code>{}</code>").format(s.file), gate,
             _bar(s.reached, n), words.share(s.answered),
             words.NONE if part is None else _bar(part))
        )  # fmt: skip
    heads = ("stage", "file", "margins that go on", "cases that reach it", "#answers",
             "share of the time, predicted")  # fmt: skip
    return Table(heads, tuple(rows), pairs=True)


def _bar(part: float, n: Any = None) -> Cell:
    """A share with its bar, and the count where `n` is the whole."""
    count = "" if n is None else f"({words.count(part * n)})"
    text = f"{words.kept_together(words.share(part))} {count}".strip()
    return Markup('<div class="share">{}{}</div>').format(text, figures.portion(part, 1.0))


def sites(found: list[figures.Site]) -> Table:
    """Every site with its full name."""
    rows = tuple(
        (str(k + 1), s.name, s.choice or words.NONE, words.in_decibel(s.db), s.op,
         words.count(s.weights), words.count(s.operations))
        for k, s in enumerate(found)
    )  # fmt: skip
    heads = ("#", "site", "choice", "#signal over noise", "operator", "#weights",
             "#multiply-adds")  # fmt: skip
    return Table(heads, rows)


def calibrations(search: Said) -> Table | None:
    """Calibrations tried and what each would defer."""
    tried = search.get("calibrations")
    if not tried:
        return None
    rows, marked = [], []
    for k, (name, c) in enumerate(tried["found"].items()):
        chosen = name == tried["best"]
        marked += [k] if chosen else []
        db = words.decibel(search.get("signal"), c.get("noise"))
        defers = words.share(c["deferral"]) if c.get("deferral") is not None else words.NONE
        rows.append((name, words.in_decibel(db), defers, "chosen" if chosen else ""))
    heads = ("calibration", "#signal over noise", "#would defer", "")
    return Table(heads, tuple(rows), tuple(marked))


def variants(summary: Said, *, grouped: bool) -> Table | None:
    """Every variant that was built and timed, fastest first."""
    search = summary.get("search") or {}
    found: Said = search.get("variants") or {}
    if not found:
        return None
    n = (summary["cases"].get("search") or {}).get("units")
    used = {s.variant for s in deployed.stages(summary)}
    ordered = fastest_first(found)
    units = "groups" if grouped else "cases"
    heads = ["runtime, variant", "form", "choices", "#speed-up", "#time a case", "#size",
             "#signal over noise", f"#changed of {words.count(n)} search {units}"]  # fmt: skip
    rows = [_variant(search, k, found[k]) for k in ordered]
    name = goal.cost_name(summary)
    if name and goal.is_estimate(summary):
        heads.append(f"#{name}")
        costs = (goal.in_unit(summary, goal.cost_of(summary, found[k])) for k in ordered)
        rows = [(*r, c) for r, c in zip(rows, costs, strict=True)]
    marked = tuple(k for k, name in enumerate(ordered) if name in used)
    return Table(tuple(heads), tuple(rows), marked, pairs=True)


def fastest_first(found: Said) -> list[str]:
    """Keys of variants by measured speed."""
    return sorted(found, key=lambda k: -(words.finite(found[k].get("speedup")) or 0.0))


def _variant(search: Said, key: str, v: Said) -> tuple[Cell, ...]:
    total = len(search.get("sites") or {})
    text, counts = names.runtime_of(v), names.picked(v)
    rest = total - sum(counts.values())
    some = [f"{c} {n}" for c, n in counts.items()] + (
        [f"{names.own(text)} {rest}"] if rest else []
    )
    made = [str(v.get("calibration", "")) if counts else "", *map(str, v.get("repairs") or ())]
    changed = words.NONE if v.get("changed") is None else words.count(v["changed"])
    db = words.decibel(search.get("signal"), v.get("noise"))
    spread = f"{words.times(v.get('low'))} to {words.times(v.get('high'))}"
    return (
        _under(names.runtime(text), key), str(v.get("form", "")),
        _under(", ".join(some), ", ".join(m for m in made if m)),
        _under(words.times(v.get("speedup")), spread), words.seconds(v.get("candidate_s")),
        words.size(v.get("bytes")), words.in_decibel(db), changed,
    )  # fmt: skip


def _under(text: str, remark: str) -> Cell:
    """A text with a remark under it."""
    return Markup("{}<small>{}</small>").format(text, remark) if remark else text


def spent(summary: Said, *, each: bool) -> Table | None:
    """Where time and inferences went: by kind of step, or every step, longest first."""
    spent = summary.get("spent")
    if not spent:
        return None
    total: dict[str, list[float]] = {}
    for column, given in enumerate((spent.get("steps", {}), spent.get("rows", {}))):
        for step, value in given.items():
            name = step if each else step.partition("/")[0]
            name = name if each else STEPS.get(name, name)
            total.setdefault(name, [0.0, 0.0])[column] += words.finite(value) or 0.0
    ordered = sorted(total.items(), key=lambda t: (-t[1][0], -t[1][1]))
    longest = max((t for _, (t, _) in ordered), default=0.0)
    rows = tuple(
        (name, words.seconds(t) if t else words.NONE, figures.portion(t, longest),
         words.count(n) if n else words.NONE)
        for name, (t, n) in ordered
    )  # fmt: skip
    return Table(("step", "#time", "", "#inferences"), rows)


def quality(summary: Said) -> Table | None:
    """Accuracy and AUC of both files on labelled cases."""
    found = summary.get("quality") or {}
    was, now = found.get("reference") or {}, found.get("candidate") or {}
    rows = []
    for key, name in (("accuracy", "accuracy"), ("auc", "area under the ROC curve")):
        a, b = words.finite(was.get(key)), words.finite(now.get(key))
        if a is None or b is None:
            continue
        if key == "accuracy":
            delta = f"{100 * (b - a):+.2f} percentage points" if b != a else "none"
            rows.append((name, f"{100 * a:.1f} %", f"{100 * b:.1f} %", delta))
        else:
            delta = f"{b - a:+.5f}" if b != a else "none"
            rows.append((name, f"{a:.4f}", f"{b:.4f}", delta))
    if not rows:
        return None
    return Table(("measure", "#reference", "#certified", "#difference"), tuple(rows), stack=True)
