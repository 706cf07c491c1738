"""Figures of the report of a run, as SVG."""

from collections.abc import Callable, Mapping, Sequence
from math import isfinite

from markupsafe import Markup

from justenough.report import svg, words

# So many rounds have a mark each; of more than so many, the line has this many points.
_MARKED, _POINTS = 60, 600
Series = Mapping[str, Sequence[float]]
Round = tuple[int, float]


def by_round(
    series: Series, title: str, label: Callable[[float], str], log: bool = False
) -> Markup | None:
    """A line for each area over the rounds, from 1; None where there is nothing to draw.

    Args:
        series: Values of each round by the area's name; what is not finite is left out.
        title: Of the values.
        label: A value in words.
        log: Whether values have a logarithmic axis; they are then positive.
    """
    kept = {name: _points(values) for name, values in series.items()}
    kept = {name: points for name, points in kept.items() if points}
    if not kept:
        return None
    ends = [v for points in kept.values() for _, v in points]
    rounds = [float(r) for points in kept.values() for r, _ in points]

    def draw(width: int) -> Markup:
        box = svg.Box(66, 40, width - 18, 230)
        x = svg.Scale(min(rounds) - 0.5, max(rounds) + 0.5, box.left, box.right)
        y = svg.linear(ends, box.bottom, box.top)
        if log:
            y = svg.Scale(min(ends) / 1.5, max(ends) * 1.5, box.bottom, box.top, log=True)
        parts = [svg.axes(box, x, y, _whole, label, ("round", title))]
        for k, (name, points) in enumerate(kept.items()):
            line = " ".join(f"{x(r):.1f},{y(v):.1f}" for r, v in points)
            parts.append(svg.element("polyline", points=line, class_=f"trace rt-{k % 6}"))
            if len(points) <= _MARKED:
                parts += [
                    _mark(x(r), y(v), k, f"{name}, round {r}\n{label(v)}") for r, v in points
                ]
        return svg.picture(width, box.bottom + 44, f"{title} by round", *parts)

    return svg.both(draw)


def _points(values: Sequence[float]) -> list[Round]:
    known = [(r, float(v)) for r, v in enumerate(values, start=1) if isfinite(v)]
    step = -(-len(known) // _POINTS) or 1
    return known[::step] + known[-1:] if step > 1 else known


def _mark(x: float, y: float, k: int, tip: str) -> Markup:
    return svg.element(
        "g",
        svg.mark("circle", x, y, 3.2, f"dot rt-{k % 6} HELD"),
        svg.element("circle", cx=x, cy=y, r=9, class_="touch"),
        class_="point", data_tip=tip,
    )  # fmt: skip


def _whole(v: float) -> str:
    return words.count(v) if v == int(v) else ""


def bars(sizes: Sequence[tuple[str, int, str]]) -> Markup:
    """Bytes as bars from zero: name, bytes, and the style sheet's class of each."""
    most = max(size for _, size, _ in sizes)

    def draw(width: int) -> Markup:
        left = 168 if width == svg.WIDE else 128
        box = svg.Box(left, 6, width - 76, 6 + 28 * len(sizes))
        x = svg.Scale(0, most or 1, box.left, box.right)
        parts = []
        for k, (name, size, kind) in enumerate(sizes):
            top = box.top + 28 * k
            end = max(x(size), box.left + 1.5)
            parts += [
                svg.text(left - 8, top + 17, name, "value", "end"),
                svg.bar(svg.Box(box.left, top + 4, end, top + 22), kind),
                svg.text(end + 6, top + 17, words.size(size), "value"),
            ]
        return svg.picture(width, box.bottom + 8, "bytes by what takes them", *parts)

    return svg.both(draw)
