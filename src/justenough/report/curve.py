"""The certified curve: speed against what was shown, for every point at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from markupsafe import Markup

from justenough.report import deployed, marks, names, pareto, svg, tables, words
from justenough.report.pareto import Picture, Said


@dataclass(frozen=True)
class Curve:
    """A section of the page.

    Attributes:
        sentence: What may be said of all points together.
        figure: Speed-up against estimate and limit.
        table: A row for each point.
    """

    sentence: str
    figure: Markup
    table: tables.Table
    legend: list[tuple[Markup, str]]


def section(summary: Said) -> Curve | None:
    """The curve of a run that certified one; None for other runs."""
    found = pareto.picture(summary)
    steps = [s for s in summary.get("steps", ()) if words.finite(s.get("speedup")) is not None]
    if not summary.get("curve") or found is None or not steps:
        return None
    clauses = summary["contract"]["clauses"]
    p = replace(found, index=0, promise=words.promise(clauses[0], grouped=found.grouped))
    m, alone = summary["curve"]["points"], float(summary["curve"]["alpha"])
    together = words.given(round(1 - summary["contract"]["alpha"], 6))
    sentence = (
        f"All {words.count(m)} limits hold at once with {together} confidence: each is tested at "
        f"alpha / {words.count(m)} = {words.significant(alone)} (Bonferroni), so that whoever "
        "reads the curve may still choose a point."
    )
    used = dict.fromkeys(p.runtime(s) for s in steps)
    legend = [(marks.sample(p.styles[r], "HELD"), names.runtime(r)) for r in used if r in p.styles]
    kinds = {str(s["verdict"]) for s in steps}
    said = {"HELD": "filled: holds the contract", "UNDECIDED": "light: not shown to hold it",
            "BROKEN": "crossed: breaks it", "chosen": "ringed: deployed"}  # fmt: skip
    if any(_is_deployed(summary, s) for s in steps):
        kinds.add("chosen")
    legend += [(marks.sample(marks.NEUTRAL, k), text) for k, text in said.items() if k in kinds]
    return Curve(sentence, svg.both(_drawing(p, steps)), _table(p, steps), legend)


def _drawing(p: Picture, steps: Sequence[Said]) -> Callable[[int], Markup]:
    e = [p.evidence(s) for s in steps]
    estimates = [p.promise.loss(x.get("estimate")) for x in e]
    limits = [p.promise.loss(x.get("limit")) for x in e]
    shares, bound = p.promise.is_share, p.promise.loss(p.promise.bound)

    def draw(width: int) -> Markup:
        height = 380 if width == svg.WIDE else 330
        box = svg.Box(62, 46, width - 16, height - 48)
        seen = [v for v in (*estimates, *limits, bound) if v is not None]
        y = (svg.with_zero if shares else svg.linear)(seen or [0.0], box.bottom, box.top)
        ends = [float(s.get(k) or s["speedup"]) for s in steps for k in ("low", "high", "speedup")]
        x = svg.linear(ends, box.left, box.right)
        title = f"changed {p.units}: estimate and limit"
        if not (shares and p.promise.at_least):
            title = f"estimate and limit, {p.promise.unit}"
        value = words.tick if shares else words.significant
        parts = [
            svg.axes(box, x, y, lambda v: f"{v:g}{words.TIMES}", value,
                     ("speed-up (right is faster)", title))
        ]  # fmt: skip
        if bound is not None:
            parts.append(svg.line(box.left, y(bound), box.right, y(bound), "bound"))
            said = f"contract: {p.promise.asked}"
            parts.append(svg.text(box.left + 4, y(bound) - 6, said, "bound-label"))
        known = [
            (x(s["speedup"]), y(v)) for s, v in zip(steps, limits, strict=True) if v is not None
        ]
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in sorted(known))
        parts.append(svg.element("polyline", points=points, class_="path"))
        for s, at, limit in zip(steps, estimates, limits, strict=True):
            parts.append(_point(p, s, x, y, (at, limit)))
        what = f"{len(steps)} points: speed-up against the certified limit of {p.promise.text}"
        return svg.picture(width, height, what, *parts)

    return draw


def _point(
    p: Picture, step: Said, x: svg.Scale, y: svg.Scale, shown: tuple[float | None, float | None]
) -> Markup:
    """One point: its mark at the limit, a small dot at the estimate, its speed's spread."""
    estimate, limit = shown
    at, verdict = x(step["speedup"]), str(step["verdict"])
    low, high = (x(float(step.get(k) or step["speedup"])) for k in ("low", "high"))
    parts = []
    if limit is not None:
        parts.append(svg.line(low, y(limit), high, y(limit), "whisker"))
    if limit is not None and estimate is not None:
        parts.append(svg.line(at, y(estimate), at, y(limit), "whisker"))
    if estimate is not None:
        parts.append(svg.element("circle", cx=at, cy=y(estimate), r=2.2, class_="estimate"))
    top = limit if limit is not None else estimate
    if top is not None:
        style = p.styles.get(p.runtime(step), marks.NEUTRAL)
        if _is_deployed(p.summary, step):
            parts.append(svg.element("circle", cx=at, cy=y(top), r=10.5, class_="ring"))
        parts.append(marks.mark(style, verdict, at, y(top), 5.5))
        parts.append(svg.element("circle", cx=at, cy=y(top), r=10, class_="touch"))
    said = pareto.evidence_words(p.evidence(step), p.promise, p.units)
    speed = f"{words.times(step['speedup'])} as fast, {words.size(step.get('bytes'))}"
    tip = f"{deployed.rung_name(step, p.labels)}\n{verdict}: {said}\n{speed}"
    return svg.element("g", *parts, class_="point", data_tip=tip)


def _is_deployed(summary: Said, step: Said) -> bool:
    result: Any = summary.get("result")
    return bool(result) and deployed.key_of(step) == deployed.key_of_result(result)


def _table(p: Picture, steps: Sequence[Said]) -> tables.Table:
    rows = []
    for s in steps:
        e = p.evidence(s)
        rows.append(
            (deployed.rung_name(s, p.labels), str(s["verdict"]), words.times(s["speedup"]),
             f"{words.times(s.get('low'))} to {words.times(s.get('high'))}",
             p.promise.value(e.get("estimate")), p.promise.limit(e.get("limit")),
             words.size(s.get("bytes")), str(s.get("file", "")))
        )  # fmt: skip
    marked = tuple(k for k, s in enumerate(steps) if _is_deployed(p.summary, s))
    heads = ("candidate", "verdict", "#speed-up", "#10 to 90 %", "#estimate", "#limit", "#size",
             "file")  # fmt: skip
    return tables.Table(heads, tuple(rows), marked, pairs=True)
