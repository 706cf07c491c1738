"""Tables of the report: rows of text, nothing that knows about HTML but small figures."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from justenough.report import figures, words
from justenough.report.pareto import rung_name

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
    "plan": "fixing the plan",
    "certification": "candidates on the certification cases",
    "certificate": "the deployed file on the certification cases",
}


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        columns: Heads; one that starts with `#` holds numbers, set to the right.
        rows: Cells of each row.
        marked: Index of rows that matter most.
        stack: On a phone, whether each row becomes a block of lines of its own.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    marked: tuple[int, ...] = ()
    stack: bool = False

    @property
    def heads(self) -> list[tuple[str, str]]:
        """Name and class of each column."""
        return [(c.removeprefix("#"), "number" if c.startswith("#") else "") for c in self.columns]


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


def comparison(summary: Said, *, grouped: bool) -> Table | None:
    """The reference, int8 everywhere, and what was certified, side by side."""
    plain, result = summary.get("plain_int8"), summary.get("result")
    if not plain:
        return None
    texts = summary["contract"]["clauses"]
    rows: list[tuple[str, ...]] = [
        ("reference", "", "", f"1{words.TIMES}", words.size(summary["model"]["bytes"]))
    ]
    rows.append(("int8 everywhere, alone", *_shown(plain, texts, grouped=grouped)))
    if result:
        clauses = summary["certificate"]["clauses"]
        entry = {**result, "verdict": summary["certificate"]["verdict"], "clauses": clauses}
        rows.append((f"certified ({result['kind']})", *_shown(entry, texts, grouped=grouped)))
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
    texts, gate = summary["contract"]["clauses"], plan.get("gate")
    tested = {(s["variant"], s["threshold"]): s for s in summary.get("steps", ())}
    result, rows, marked = summary.get("result") or {}, [], []
    threshold = (result.get("gate") or {}).get("threshold")
    for k, r in enumerate(rungs):
        step = tested.get((r["variant"], r["threshold"]))
        said: tuple[str, ...] = ("not tested", "")
        if step:
            said = _shown(step, texts, grouped=grouped)[:2]
        if result and (r["variant"], r["threshold"]) == (result["variant"], threshold):
            marked.append(k)
        risk = words.share(r["risk"]) if gate else words.significant(r["risk"])
        rows.append(
            (str(k + 1), rung_name(r), words.share(r["deferral"]), risk,
             words.seconds(r["seconds"]), *said)
        )  # fmt: skip
    heads = ("#order", "candidate", "#would defer", "#predicted changed" if gate else "#noise",
             "#time a case", "verdict", "certification cases")  # fmt: skip
    return Table(heads, tuple(rows), tuple(marked))


def sites(found: list[figures.Site]) -> Table:
    """Every site with its full name."""
    rows = tuple(
        (str(k + 1), s.name, s.op, s.choice or words.NONE, words.in_decibel(s.db),
         words.count(s.weights), words.count(s.operations))
        for k, s in enumerate(found)
    )  # fmt: skip
    heads = ("#", "site", "operator", "choice", "#signal over noise", "#weights",
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


def variants(search: Said, n: Any, *, grouped: bool) -> Table | None:
    """Every variant that was built and timed."""
    found: Said = search.get("variants") or {}
    if not found:
        return None
    total = len(search.get("sites") or {})
    rows = []
    for name, v in found.items():
        db = words.decibel(search.get("signal"), v.get("noise"))
        changed = words.NONE if v.get("changed") is None else words.count(v["changed"])
        rows.append(
            (name, f"{len(v['int8_sites'])} of {total}", words.seconds(v.get("candidate_s")),
             words.seconds(v.get("reference_s")), words.times(v.get("speedup")),
             f"{words.times(v.get('low'))} to {words.times(v.get('high'))}",
             words.size(v.get("bytes")), words.in_decibel(db), changed)
        )  # fmt: skip
    units = "groups" if grouped else "cases"
    heads = (
        "variant",
        "#int8 sites",
        "#time a case",
        "#reference",
        "#speed-up",
        "#10 to 90 %",
        "#size",
        "#signal over noise",
        f"#changed of {words.count(n)} search {units}",
    )
    return Table(heads, tuple(rows))


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
