"""The smaller figures: sensitivity, margins, deferral, times, intervals."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from justenough.report import deployed, marks, names, svg, words
from justenough.report.words import Promise

Said = Mapping[str, Any]
NAMED_BARS = 40
# A choice keeps its colour from one report to the next while there are few of them.
CHOICES = (
    "int8", "int4-weight", "int8-weight", "int8-dynamic", "fp16", "bf16", "fp16-weight",
    "bf16-weight", "int2-weight",
)  # fmt: skip
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
    colours = choice_colours(chosen, names.own(names.runtime_of(summary.get("result"))))
    return [
        Site(
            name, short[name], str(s.get("op", "")),
            words.decibel(search.get("signal"), noise.get(name)), s.get("size"),
            s.get("operations"), str(chosen.get(name, "")),
            colours.get(str(chosen.get(name)), "choice-none"),
        )
        for name, s in found.items()
    ]  # fmt: skip


def choice_colours(chosen: Said, own: str = names.EXACT) -> dict[str, str]:
    """A class for each choice, in a fixed order; `own`, what nothing was picked for, is pale."""
    seen = list(dict.fromkeys(str(c) for c in chosen.values()))
    neutral = {c: "choice-exact" if c == names.EXACT else "choice-own" for c in (own, names.EXACT)}
    cheap = [c for c in dict.fromkeys((*CHOICES, *seen)) if c in seen and c not in neutral]
    found = {c: f"choice-{min(k, COLOURS - 1)}" for k, c in enumerate(cheap)}
    return found | {c: kind for c, kind in neutral.items() if c in seen}


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
    step, left = 20, 250 if width == svg.WIDE else 132
    longest = max(len(s.choice) for s in found)
    box = svg.Box(left, 10, width - 46 - 6.5 * longest, 10 + step * len(found))
    x = svg.Scale(*_range(found), box.left, box.right)
    parts = []
    for v in x.ticks(6):
        parts.append(svg.line(x(v), box.top, x(v), box.bottom, "grid"))
        parts.append(svg.text(x(v), box.bottom + 17, f"{v:g}", "tick", "middle"))
    fits = 34 if width == svg.WIDE else 18
    for k, s in enumerate(found):
        y = box.top + k * step
        said = words.in_decibel(s.db)
        bars = [svg.text(left - 8, y + 14, words.squeezed(s.short, fits), "tick", "end")]
        if s.db is not None:
            end = _at(x, s.db)
            bars.append(svg.bar(svg.Box(x(0), y + 3, end, y + step - 3), s.colour))
            value = " ".join([said.removesuffix(" dB"), s.choice]).strip()
            bars.append(svg.text(max(end, x(0)) + 6, y + 14, value, "value"))
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
    said = f"goes on up to {words.significant(threshold)}"
    return [
        svg.line(at, box.top - 8, at, box.bottom, "bound"),
        svg.text(at + (-6 if left else 6), box.top, said, "bound-label", "end" if left else None),
    ]


def deferral(summary: Said) -> Markup | None:
    """Who answers what in every candidate of the plan; None where no candidate is a cascade."""
    rungs = list((summary.get("plan") or {}).get("rungs", ()))
    if sum(r.get("threshold") is not None for r in rungs) < 2:
        return None
    result = summary.get("result")
    tested = {deployed.key_of(s): str(s["verdict"]) for s in summary.get("steps", ())}
    on, exact = [deployed.goes_on(r) for r in rungs], [float(r["deferral"]) for r in rungs]
    chosen = next(
        (k for k, r in enumerate(rungs)
         if result and deployed.key_of(r) == deployed.key_of_result(result)), None,
    )  # fmt: skip

    def draw(width: int) -> Markup:
        box = svg.Box(62, 46, width - 16, 286)
        x = svg.Scale(0.4, len(rungs) + 0.6, box.left, box.right)
        y = svg.with_zero([*on, *exact], box.bottom, box.top)
        parts = [
            svg.axes(box, x, y, lambda v: f"{v:g}" if v >= 1 and v == round(v) else "", words.tick,
                     ("candidate, safest first", "share of cases"))
        ]  # fmt: skip
        for kind, shares in (("on", on), ("", exact)):
            points = " ".join(f"{x(k + 1):.1f},{y(s):.1f}" for k, s in enumerate(shares))
            parts.append(svg.element("polyline", points=points, class_=f"curve {kind}".strip()))
        for k, r in enumerate(rungs):
            verdict = tested.get(deployed.key_of(r), "not tested")
            parts.append(_candidate(x(k + 1), y, r, k, verdict))
        if chosen is not None and result:
            share = float(result["deferral"])
            parts.append(_real(x(chosen + 1), y(share), share, box))
        what = "shares of cases that go on and that the exact model answers, by candidate"
        return svg.picture(width, 334, what, *parts)

    return svg.both(draw)


def _candidate(x: float, y: svg.Scale, r: Said, k: int, verdict: str) -> Markup:
    on, exact = deployed.goes_on(r), float(r["deferral"])
    tip = (
        f"Candidate {k + 1} ({verdict}), as predicted:\n{words.share(on)} go on from the first "
        f"stage, the exact model answers {words.share(exact)}"
    )
    return svg.element(
        "g", svg.mark("circle", x, y(on), 3.6, "dot open"),
        svg.mark("square", x, y(exact), 3.6, "dot exact"),
        svg.element("rect", x=x - 7, y=40.0, width=14, height=250, class_="touch"),
        class_="point", data_tip=tip,
    )  # fmt: skip


def _real(x: float, y: float, share: float, box: svg.Box) -> Markup:
    left = x > (box.left + box.right) / 2
    tip = f"Deployed: the exact model answered {words.share(share)} of the certification cases"
    return svg.element(
        "g", svg.mark("diamond", x, y, 6, "dot result"),
        svg.text(x + (-10 if left else 10), y - 9, f"certified: {words.share(share)}",
                 "dot-label result", "end" if left else "start"),
        class_="point", data_tip=tip,
    )  # fmt: skip


def speeds(variants: Said, result: Said | None, labels: Mapping[str, str]) -> Markup:
    """Speed-up of every timed file, fastest first: median, with 10 % and 90 % over the passes."""
    styles = marks.styles(names.runtimes({"variants": variants}))
    rows: list[tuple[str, Said, marks.Style | None]] = [
        (labels.get(k, k), v, styles[names.runtime_of(v)])
        for k, v in sorted(variants.items(), key=lambda kv: -float(kv[1]["speedup"]))
    ]
    if result:
        rows.insert(0, ("what was certified", result, None))
    ends = [float(v.get(k) or 1.0) for _, v, _ in rows for k in ("low", "high", "speedup")]

    def draw(width: int) -> Markup:
        # On a phone a name has a line of its own, above what it names.
        above = 0 if width == svg.WIDE else 15
        step, left = 23 + above, 8 if above else 230
        box = svg.Box(left, 10, width - 50, 10 + step * len(rows))
        x = svg.linear([*ends, 1.0], box.left, box.right)
        parts = []
        for v in x.ticks(5 if above else 9):
            kind = "bound" if v == 1 else "grid"
            parts.append(svg.line(x(v), box.top, x(v), box.bottom, kind))
            parts.append(svg.text(x(v), box.bottom + 17, f"{v:g}{words.TIMES}", "tick", "middle"))
        for k, row in enumerate(rows):
            top = box.top + k * step
            parts.append(_timed(svg.Box(left, top, box.right, top + step), x, above, row))
        parts.append(svg.text(box.right, box.bottom + 36, "speed-up", "title", "end"))
        return svg.picture(width, box.bottom + 44, f"speed-up of {len(rows)} files", *parts)

    return svg.both(draw)


def _timed(
    box: svg.Box, x: svg.Scale, above: int, row: tuple[str, Said, marks.Style | None]
) -> Markup:
    name, v, style = row
    at = float(v["speedup"])
    low, high = (float(v.get(k) or at) for k in ("low", "high"))
    tip = (
        f"{name}\n{words.seconds(v.get('candidate_s'))} a case against "
        f"{words.seconds(v.get('reference_s'))}, {words.times(at)}\n10 to 90 % of "
        f"{v.get('repeats')} passes: {words.times(low)} to {words.times(high)}"
    )
    y = box.top + above + 11
    said = svg.text(box.left, box.top + 12, words.squeezed(name, 48), "tick haloed")
    if not above:
        said = svg.text(box.left - 8, y + 4, words.squeezed(name, 34), "tick", "end")
    dot = svg.mark("diamond", x(at), y, 5, "dot result")
    return svg.element(
        "g", svg.line(x(low), y, x(high), y, "whisker bold"),
        dot if style is None else marks.mark(style, "HELD", x(at), y, 4.5), said,
        svg.text(box.right + 8, y + 4, words.times(at), "value"),
        svg.bar(svg.Box(0, box.top, box.right + 50, box.bottom), "touch"),
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
