"""Figures of the study's report, as SVG."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from justenough.report import svg, words

Said = Mapping[str, Any]
SIDE = 13
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(x: Any) -> float:
    """A number of the results, drawn at random or not."""
    return float(x["value"] if isinstance(x, Mapping) else x)


def numbers(xs: Sequence[Any]) -> list[float]:
    """Many of them."""
    return [number(x) for x in xs]


def weightings(m: Said) -> Markup:
    """Correlation of the 169 weightings over decay and surprise; the best has a ring."""
    r, weights = m["r"], m["weights"]
    low, high = min(r), max(r)

    def draw(width: int) -> Markup:
        side = min((width - 90) / SIDE, 34.0)
        box = svg.Box(58, 30, 58 + SIDE * side, 30 + SIDE * side)
        parts = []
        for k, value in enumerate(r):
            decay, surprise = divmod(k, SIDE)
            left, top = box.left + surprise * side, box.bottom - (decay + 1) * side
            cell = svg.element(
                "rect", x=left, y=top, width=side - 1, height=side - 1, class_="rt-0 heat",
                fill_opacity=f"{0.06 + 0.94 * ((value - low) / (high - low or 1)) ** 2:.3f}",
            )  # fmt: skip
            tip = (
                f"decay {weights[k][0]:.3f}, surprise {weights[k][1]:.3f}\n"
                f"relevance and habituation {weights[k][2]:.3f} each\nr = {value:.5f}"
            )
            ring = []
            if k == m["best"]:
                ring = [svg.mark("circle", left + side / 2, top + side / 2, side * 0.3, "ring")]
            parts.append(svg.element("g", cell, *ring, class_="point", data_tip=tip))
        for k in range(0, SIDE, 4):
            at = box.left + (k + 0.5) * side
            parts.append(svg.text(at, box.bottom + 16, f"{k}/18", "tick", "middle"))
            up = box.bottom - (k + 0.4) * side
            parts.append(svg.text(box.left - 6, up, f"{k}/36", "tick", "end"))
        parts.append(svg.text(box.right, box.bottom + 34, "weight of surprise", "title", "end"))
        parts.append(svg.text(2, 16, "weight of decay", "title"))
        what = f"correlation with importance of 169 weightings, {low:.3f} to {high:.3f}"
        return svg.picture(width, box.bottom + 44, what, *parts)

    return svg.both(draw)


def convergence(m: Said) -> Markup | None:
    """Standard error, and the real error where the truth is known, by number of conversations."""
    rows = m["convergence"]
    if len(rows) < 2:
        return None
    truth = m["exact_r"][m["best"]] if "exact_r" in m else None
    errors = [row["standard_error"] for row in rows]
    real = [abs(row["r"] - truth) for row in rows] if truth is not None else []

    def draw(width: int) -> Markup:
        box = svg.Box(66, 40, width - 16, 250)
        x = svg.Scale(
            rows[0]["conversations"] / 1.5, rows[-1]["conversations"] * 1.5, box.left, box.right,
            log=True,
        )  # fmt: skip
        values = [v for v in [*errors, *real] if v > 0]
        y = svg.Scale(min(values) / 2, max(values) * 2, box.bottom, box.top, log=True)
        parts = [
            svg.axes(
                box,
                x,
                y,
                words.count,
                lambda v: words.significant(v, 1),
                ("conversations", "error of the correlation r"),
            )
        ]
        line = " ".join(
            f"{x(row['conversations']):.1f},{y(e):.1f}"
            for row, e in zip(rows, errors, strict=True)
        )
        parts.append(svg.element("polyline", points=line, class_="curve on"))
        for k, row in enumerate(rows):
            at = x(row["conversations"])
            tip = (
                f"{words.count(row['conversations'])} conversations\nr = {row['r']:.5f}, "
                f"standard error {errors[k]:.2g}"
            )
            dots = [svg.mark("diamond", at, y(errors[k]), 4, "dot open")]
            if real:
                tip += f"\nreal error {real[k]:.2g}"
                dots.append(svg.mark("circle", at, y(real[k]), 4.5, "dot exact"))
            parts.append(svg.element("g", *dots, class_="point", data_tip=tip))
        return svg.picture(width, 292, "error of the best correlation by conversations", *parts)

    return svg.both(draw)


def intervals(
    rows: Sequence[tuple[str, float, float, float]], title: str, truth: float | None = None
) -> Markup:
    """A line for each of (name, low, middle, high), and a dashed one at the truth."""
    ends = [v for _, low, _, high in rows for v in (low, high)]
    ends += [] if truth is None else [truth]

    def draw(width: int) -> Markup:
        left = 150 if width > 500 else 104
        box = svg.Box(left, 26, width - 14, 26 + 26 * len(rows))
        x = svg.linear(ends, box.left, box.right)
        parts = [_without_levels(box, x, title)]
        if truth is not None:
            parts.append(svg.line(x(truth), box.top, x(truth), box.bottom, "bound"))
        for k, (name, low, middle, high) in enumerate(rows):
            at = box.top + 26 * (k + 0.5)
            tip = f"{name}\n{low:.6g} to {high:.6g}, middle {middle:.6g}"
            parts.append(
                svg.element(
                    "g",
                    svg.text(box.left - 8, at + 4, name, "value", "end"),
                    svg.line(x(low), at, x(high), at, "whisker bold"),
                    svg.mark("circle", x(middle), at, 4, "dot exact"),
                    class_="point",
                    data_tip=tip,
                )
            )
        return svg.picture(width, box.bottom + 44, title, *parts)

    return svg.both(draw)


def _without_levels(box: svg.Box, x: svg.Scale, title: str) -> Markup:
    out = []
    for v in x.ticks(max(int((box.right - box.left) // 62), 5)):
        out.append(svg.line(x(v), box.top, x(v), box.bottom, "grid"))
        out.append(svg.text(x(v), box.bottom + 16, f"{v:.6g}", "tick", "middle"))
    out.append(svg.text(box.right, box.bottom + 35, title, "title", "end"))
    return svg.element("g", *out, class_="axes")


def null(p: Said) -> Markup:
    """What shuffled importance gives, and what the data gave."""
    edges, counts = numbers(p["null"]["edges"]), numbers(p["null"]["counts"])
    r = float(p["r"])

    def draw(width: int) -> Markup:
        box = svg.Box(62, 40, width - 16, 240)
        x = svg.linear([edges[0], edges[-1], r, 0.0], box.left, box.right)
        y = svg.Scale(0, max(counts) * 1.1, box.bottom, box.top)
        parts = [svg.axes(box, x, y, lambda v: f"{v:g}", words.count, ("correlation", "shuffles"))]
        for low, high, n in zip(edges, edges[1:], counts, strict=False):
            if n:
                bar = svg.bar(svg.Box(x(low), y(n), x(high), box.bottom), "bin")
                parts.append(
                    svg.element("g", bar, class_="point", data_tip=f"{words.count(n)} shuffles")
                )
        parts.append(svg.line(x(r), box.top, x(r), box.bottom, "bound"))
        parts.append(svg.text(x(r) - 6, box.top + 12, f"the data: {r:.3f}", "bound-label", "end"))
        return svg.picture(
            width, 282, f"correlations of shuffled data, and {r:.3f} of the data", *parts
        )

    return svg.both(draw)


def power_of_ten(v: float) -> str:
    """A number beside a logarithmic axis of many decades.

    >>> power_of_ten(1e-13)
    '10⁻¹³'
    """
    return "10" + str(math.floor(math.log10(v) + 0.5)).translate(RAISED)


def gaps(trajectories: Mapping[str, Sequence[Any]]) -> Markup | None:
    """How far the best so far falls short of the exact optimum, as each search goes on."""
    found = {k: [max(number(v), 1e-16) for v in vs] for k, vs in trajectories.items() if vs}
    if not found:
        return None
    low = min(min(v) for v in found.values())
    high = max(max(v) for v in found.values())

    def draw(width: int) -> Markup:
        box = svg.Box(66, 40, width - 24, 240)
        x = svg.Scale(0, 1, box.left, box.right)
        y = svg.Scale(low / 2, high * 2, box.bottom, box.top, log=True)
        parts = [
            svg.axes(box, x, y, words.tick, power_of_ten,
                     ("share of the search's generations", "correlation short of the optimum"))
        ]  # fmt: skip
        for k, (name, v) in enumerate(found.items()):
            at = [x(j / max(len(v) - 1, 1)) for j in range(len(v))]
            points = " ".join(f"{a:.1f},{y(g):.1f}" for a, g in zip(at, v, strict=True))
            parts.append(svg.element("polyline", points=points, class_=f"trace rt-{k}"))
            half = (max(v) * v[-1]) ** 0.5  # on its way down, where curves lie apart
            side = next(j for j, g in enumerate(v) if g <= half)
            parts.append(svg.text(at[side] + 6, y(v[side]) - 6, name, "haloed value"))
        return svg.picture(width, 282, "gap to the exact optimum along each search", *parts)

    return svg.both(draw)
