"""The smaller figures: sensitivity, margins, deferral, times, intervals."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from justenough.report import svg, words
from justenough.report.words import Promise

Said = Mapping[str, Any]
NAMED_BARS = 40
COLOURS = 6


@dataclass(frozen=True)
class Site:
    """A place in the model, for its bar and its row.

    Attributes:
        short: Name as far as it fits.
        db: Signal over the noise that this site alone would add in int8; infinite without
            noise, None where it was not measured.
        choice: What the certified file has there; empty where nothing was certified.
        colour: Class of the style sheet for that choice.
    """

    name: str
    short: str
    op: str
    db: float | None
    weights: Any
    operations: Any
    choice: str
    colour: str

    @property
    def tip(self) -> str:
        """Everything about the site."""
        made = f"{self.choice} in the certified file\n" if self.choice else ""
        return (
            f"{self.name} ({self.op})\n{made}signal over noise {words.in_decibel(self.db)}\n"
            f"{words.count(self.weights)} weights, {words.count(self.operations)} multiply-adds"
        )


def sites(summary: Said) -> list[Site]:
    """The sites of a summary in the order of the network."""
    search = summary.get("search") or {}
    found: Said = search.get("sites") or {}
    noise = (search.get("sensitivity") or {}).get("noise", {})
    chosen: Said = (summary.get("result") or {}).get("sites", {})
    short = words.shortened(list(found), [str(s.get("op", "")) for s in found.values()], 34)
    colours = choice_colours(chosen)
    return [
        Site(
            name, short[name], str(s.get("op", "")),
            words.decibel(search.get("signal"), noise.get(name)), s.get("size"),
            s.get("operations"), str(chosen.get(name, "")),
            colours.get(str(chosen.get(name)), "choice-none"),
        )
        for name, s in found.items()
    ]  # fmt: skip


def choice_colours(chosen: Said) -> dict[str, str]:
    """A class for each choice: the exact one is neutral, others in order of appearance."""
    names = list(dict.fromkeys(str(c) for c in chosen.values()))
    cheap = [n for n in names if n != "fp32"]
    found = {n: f"choice-{min(k, COLOURS - 1)}" for k, n in enumerate(cheap)}
    return {n: found.get(n, "choice-exact") for n in names}


def sensitivity(found: Sequence[Site]) -> Markup:
    """Signal over noise per site: named bars for few sites, thin columns for many."""
    if len(found) <= NAMED_BARS:
        return svg.both(lambda width: _named(found, width))
    return svg.both(lambda width: _columns(found, width))


def _range(found: Sequence[Site]) -> tuple[float, float]:
    finite = [s.db for s in found if s.db is not None and math.isfinite(s.db)]
    return min(0.0, *finite, 0.0), max([*finite, 10.0]) * 1.08


def _at(scale: svg.Scale, db: float) -> float:
    return scale(db) if math.isfinite(db) else scale.end


def _named(found: Sequence[Site], width: int) -> Markup:
    step, left = 20, 250 if width == svg.WIDE else 150
    box = svg.Box(left, 10, width - 62, 10 + step * len(found))
    x = svg.Scale(*_range(found), box.left, box.right)
    parts = []
    for v in x.ticks(6):
        parts.append(svg.line(x(v), box.top, x(v), box.bottom, "grid"))
        parts.append(svg.text(x(v), box.bottom + 17, f"{v:g}", "tick", "middle"))
    fits = 34 if width == svg.WIDE else 21
    for k, s in enumerate(found):
        y = box.top + k * step
        said = words.in_decibel(s.db)
        bars = [svg.text(left - 8, y + 14, words.squeezed(s.short, fits), "tick", "end")]
        if s.db is not None:
            end = _at(x, s.db)
            bars.append(svg.bar(svg.Box(x(0), y + 3, end, y + step - 3), s.colour))
            bars.append(svg.text(max(end, x(0)) + 6, y + 14, said.removesuffix(" dB"), "value"))
        touch = svg.bar(svg.Box(0, y, width, y + step), "touch")
        parts.append(svg.element("g", *bars, touch, class_="point", data_tip=s.tip))
    parts.append(svg.text(box.right, box.bottom + 36, "signal over noise, dB", "title", "end"))
    return svg.picture(
        width, box.bottom + 44, f"signal over noise in dB of {len(found)} sites", *parts
    )


def _columns(found: Sequence[Site], width: int) -> Markup:
    box = svg.Box(48, 40, width - 18, 270)
    y = svg.Scale(*_range(found), box.bottom, box.top)
    step = (box.right - box.left) / len(found)
    x = svg.Scale(0, len(found), box.left, box.right)
    parts = [
        svg.axes(box, x, y, lambda v: f"{v:g}", lambda v: f"{v:g}",
                 ("site, in the order of the network", "signal over noise, dB"))
    ]  # fmt: skip
    for k, s in enumerate(found):
        if s.db is None:
            continue
        left, gap = box.left + k * step, min(1.0, step / 5)
        top = _at(y, s.db)
        low, high = min(top, y(0)), max(top, y(0))
        column = svg.bar(svg.Box(left + gap, low, left + step - gap, high), s.colour)
        touch = svg.bar(svg.Box(left, box.top, left + step, box.bottom), "touch")
        parts.append(svg.element("g", column, touch, class_="point", data_tip=s.tip))
    return svg.picture(width, 316, f"signal over noise in dB of {len(found)} sites", *parts)


def margins(m: Said) -> Markup:
    """Cases by margin of the cheap stage, with those that it alone changes."""
    edges, rows, changed = (list(m[k]) for k in ("edges", "rows", "changed"))
    threshold = words.finite(m.get("threshold"))

    def draw(width: int) -> Markup:
        box = svg.Box(52, 46, width - 12, 286)
        x = svg.Scale(edges[0], edges[-1], box.left, box.right)
        y = svg.Scale(0, max([*rows, 1]) * 1.1, box.bottom, box.top)
        parts = [
            svg.axes(box, x, y, lambda v: f"{v:g}", words.count,
                     ("margin of the cheap stage", "certification cases"))
        ]  # fmt: skip
        for low, high, n, bad in zip(edges, edges[1:], rows, changed, strict=False):
            if n == 0:
                continue
            left, right = x(low) + 0.5, x(high) - 0.5
            bars = [svg.bar(svg.Box(left, y(n), right, box.bottom), "bin")]
            if bad:
                top = min(y(bad), box.bottom - 3)
                bars.append(svg.bar(svg.Box(left, top, right, box.bottom), "bin changed"))
            tip = (
                f"margin {words.significant(low)} to {words.significant(high)}\n"
                f"{words.count(n)} cases, {words.count(bad)} changed by the cheap stage alone"
            )
            parts.append(svg.element("g", *bars, class_="point", data_tip=tip))
        if threshold is not None:
            parts += _threshold(box, x(threshold), threshold)
        what = f"{sum(rows)} cases by margin; {sum(changed)} changed by the cheap stage alone"
        return svg.picture(width, 334, what, *parts)

    return svg.both(draw)


def _threshold(box: svg.Box, at: float, threshold: float) -> list[Markup]:
    left = at > (box.left + box.right) / 2
    said = f"defers up to {words.significant(threshold)}"
    return [
        svg.line(at, box.top - 8, at, box.bottom, "bound"),
        svg.text(at + (-6 if left else 6), box.top, said, "bound-label", "end" if left else None),
    ]


def deferral(summary: Said) -> Markup | None:
    """What the exact model answers, against the threshold; None without a cascade."""
    plan, result = summary.get("plan") or {}, summary.get("result") or {}
    rungs = [
        r for r in plan.get("rungs", ()) if r.get("threshold") is not None and r["threshold"] > 0
    ]
    if len(rungs) < 2:
        return None
    tested = {(s["variant"], s["threshold"]): str(s["verdict"]) for s in summary.get("steps", ())}
    gate = result.get("gate") or {}
    real = (words.finite(gate.get("threshold")), words.finite(result.get("deferral")))

    def draw(width: int) -> Markup:
        box = svg.Box(62, 46, width - 16, 286)
        values = [r["threshold"] for r in rungs]
        x = svg.Scale(min(values) / 1.3, max(values) * 1.3, box.left, box.right, log=True)
        high = max([*(r["deferral"] for r in rungs), real[1] or 0.0]) * 1.12 or 0.01
        y = svg.Scale(0, high, box.bottom, box.top)
        parts = [
            svg.axes(box, x, y, words.significant, words.tick,
                     ("threshold on the margin", "answered by the exact model"))
        ]  # fmt: skip
        for name in dict.fromkeys(r["variant"] for r in rungs):
            own = sorted((r["threshold"], r["deferral"]) for r in rungs if r["variant"] == name)
            points = " ".join(f"{x(t):.1f},{y(d):.1f}" for t, d in own)
            parts.append(svg.element("polyline", points=points, class_="curve"))
        for r in rungs:
            verdict = tested.get((r["variant"], r["threshold"]), "untested")
            tip = (
                f"{r['variant']}, threshold {words.significant(r['threshold'])}\n"
                f"predicted: the exact model answers {words.share(r['deferral'])}\n{verdict}"
            )
            dot = svg.mark("circle", x(r["threshold"]), y(r["deferral"]), 4, f"dot {verdict}")
            parts.append(svg.element("g", dot, class_="point", data_tip=tip))
        if real[0] and real[1] is not None:
            parts.append(_real(x(real[0]), y(real[1]), real[0], real[1]))
        return svg.picture(width, 334, "share of deferred cases against the threshold", *parts)

    return svg.both(draw)


def _real(x: float, y: float, threshold: float, share: float) -> Markup:
    tip = (
        f"The certified file, threshold {words.significant(threshold)}\n"
        f"deferred {words.share(share)} of the certification cases"
    )
    return svg.element(
        "g", svg.mark("diamond", x, y, 6, "dot result"),
        svg.text(x - 9, y - 10, f"certified: {words.share(share)}", "dot-label result", "end"),
        class_="point", data_tip=tip,
    )  # fmt: skip


def speeds(variants: Said, result: Said | None) -> Markup:
    """Speed-up of every timed file: median, with 10 % and 90 % over the passes."""
    rows = [(str(k), v) for k, v in variants.items()]
    if result:
        rows.insert(0, ("certified file", result))
    ends = [float(v.get(k) or 1.0) for _, v in rows for k in ("low", "high", "speedup")]

    def draw(width: int) -> Markup:
        step, left = 24, 215 if width == svg.WIDE else 134
        box = svg.Box(left, 10, width - 50, 10 + step * len(rows))
        x = svg.linear([*ends, 1.0], box.left, box.right)
        parts = []
        for v in x.ticks(5 if width == svg.WIDE else 4):
            kind = "bound" if v == 1 else "grid"
            parts.append(svg.line(x(v), box.top, x(v), box.bottom, kind))
            parts.append(svg.text(x(v), box.bottom + 17, f"{v:g}{words.TIMES}", "tick", "middle"))
        for k, (name, v) in enumerate(rows):
            kind = "result" if result and k == 0 else "untested"
            parts.append(_timed(box, x, box.top + (k + 0.5) * step, name, v, kind))
        parts.append(svg.text(box.right, box.bottom + 36, "speed-up", "title", "end"))
        return svg.picture(width, box.bottom + 44, f"speed-up of {len(rows)} files", *parts)

    return svg.both(draw)


def _timed(box: svg.Box, x: svg.Scale, y: float, name: str, v: Said, kind: str) -> Markup:
    fits = 30 if box.left > 200 else 18
    at = float(v["speedup"])
    low, high = (float(v.get(k) or at) for k in ("low", "high"))
    tip = (
        f"{name}\n{words.seconds(v.get('candidate_s'))} a case against "
        f"{words.seconds(v.get('reference_s'))}, {words.times(at)}\n10 to 90 % of "
        f"{v.get('repeats')} passes: {words.times(low)} to {words.times(high)}"
    )
    return svg.element(
        "g", svg.text(box.left - 8, y + 4, words.squeezed(name, fits), "tick", "end"),
        svg.line(x(low), y, x(high), y, "whisker bold"),
        svg.mark("circle", x(at), y, 5, f"dot {kind}"),
        svg.text(box.right + 8, y + 4, words.times(at), "value"),
        svg.bar(svg.Box(0, y - 12, box.right + 50, y + 12), "touch"),
        class_="point", data_tip=tip,
    )  # fmt: skip


def interval(e: Said, p: Promise) -> Markup:
    """Estimate, its limits on both sides and the bound, small enough for a table."""
    estimate, limit, other = (words.finite(e.get(k)) for k in ("estimate", "limit", "other_limit"))
    if p.bound is None or limit is None or estimate is None:
        return Markup("")
    other = estimate if other is None else other
    x = svg.linear([p.bound, estimate, limit, other], 4, 136, pad=0.08)
    kind = str(e.get("verdict", ""))
    what = f"limit {p.limit(limit)}, estimate {p.value(estimate)}, bound {p.asked}"
    return svg.picture(
        140, 22, what,
        svg.line(x(p.bound), 1, x(p.bound), 21, "bound"),
        svg.line(x(limit), 11, x(other), 11, f"span {kind}"),
        svg.line(x(limit), 6, x(limit), 16, f"span {kind}"),
        svg.mark("circle", x(estimate), 11, 3.5, f"dot {kind}"),
        class_="interval",
    )  # fmt: skip


def portion(part: float, whole: float) -> Markup:
    """A bar for a table cell: `part` of `whole`."""
    end = 100 * part / whole if whole > 0 else 0.0
    return svg.picture(
        100, 10, f"{end:.0f} %", svg.bar(svg.Box(0, 1, max(end, 0.5), 9), "bin"), class_="portion"
    )
