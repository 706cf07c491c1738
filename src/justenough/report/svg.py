"""Small pieces of SVG: escaped elements, scales, axes, marks."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from justenough.report.words import kept_together

WIDE, PHONE = 860, 336
Draw = Callable[[int], Markup]
Label = Callable[[float], str]


def element(tag: str, *children: str, **attrs: object) -> Markup:
    """One element; every attribute and child that is not markup is escaped.

    >>> element("text", "a<b", x=1.25, class_="note", data_tip='"')
    Markup('<text x="1.2" class="note" data-tip="&#34;">a&lt;b</text>')
    """
    given = Markup("").join(
        Markup(' {}="{}"').format(k.rstrip("_").replace("_", "-"), _short(v))
        for k, v in attrs.items()
        if v is not None
    )
    inside = Markup("").join(escape(c) for c in children)
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(tag), given, inside)


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.1f}".removesuffix(".0")
    return kept_together(str(value))


def picture(width: int, height: float, what: str, *children: Markup, class_: str = "") -> Markup:
    """A whole drawing of `width` x `height`, said in words by `what`."""
    return element(
        "svg", *children, viewBox=f"0 0 {width} {height:.0f}", role="img", aria_label=what,
        class_=class_ or None,
    )  # fmt: skip


def both(draw: Draw) -> Markup:
    """The drawing at two widths; the page shows the one that fits."""
    return element("div", draw(WIDE), class_="wide") + element("div", draw(PHONE), class_="phone")


@dataclass(frozen=True)
class Scale:
    """From values to pixels: linear, or logarithmic with a strip apart for zero.

    Attributes:
        low, high: Values at the ends, positive where `log`.
        start, end: Pixels there.
        zero: Pixel of the value 0 on a logarithmic scale, or None.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False
    zero: float | None = None

    def __call__(self, value: float) -> float:
        """The pixel of a value; values beyond the ends stay at the ends."""
        low, high = self.low, self.high
        if self.log:
            if value <= 0:
                return self.start if self.zero is None else self.zero
            low, high, value = math.log(low), math.log(high), math.log(value)
        part = (value - low) / (high - low)
        return self.start + min(max(part, 0.0), 1.0) * (self.end - self.start)

    def ticks(self, most: int) -> list[float]:
        """Round values within the scale, `most` or fewer."""
        if self.log:
            return _log_ticks(self.low, self.high, most)
        raw = (self.high - self.low) / most
        power = 10 ** math.floor(math.log10(raw))
        step = next(m * power for m in (1, 2, 5, 10, 20) if m * power >= raw * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [round(k * step, 12) for k in range(first, last + 1)]


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for parts in ((1, 1.5, 2, 2.5, 3, 4, 5, 6, 8), (1, 2, 3, 5), (1, 2, 5), (1, 3), (1,)):
        found = [
            m * 10.0**k
            for k in range(first, last + 1)
            for m in parts
            if low * 0.999 <= m * 10.0**k <= high * 1.001
        ]
        if len(found) <= most:
            return found
    return found[:: math.ceil(len(found) / most)]


def linear(values: Sequence[float], start: float, end: float, pad: float = 0.06) -> Scale:
    """A linear scale that holds all values with some room."""
    low, high = min(values), max(values)
    room = (high - low) * pad or abs(high) * 0.1 or 1.0
    return Scale(low - room, high + room, start, end)


def with_zero(values: Sequence[float], start: float, end: float, strip: float = 26) -> Scale:
    """A logarithmic scale of at least 1.5 decades, with a strip for zero at its start."""
    positive = [v for v in values if v > 0] or [1e-3, 1e-2]
    high = max(positive) * 1.7
    low = min(min(positive) / 1.5, high / 30)
    way = -1 if end < start else 1
    return Scale(low, high, start + way * strip, end, log=True, zero=start + way * strip * 0.35)


@dataclass(frozen=True)
class Box:
    """Where a chart's axes lie inside its drawing, in pixels."""

    left: float
    top: float
    right: float
    bottom: float


def axes(
    box: Box, x: Scale, y: Scale, x_label: Label, y_label: Label, titles: tuple[str, str]
) -> Markup:
    """Grid lines, tick labels, and titles: of x below, of y above the chart."""
    out = []
    across = int((box.right - box.left) // 60)
    for v in x.ticks(max(across, 2)):
        out += [
            line(x(v), box.top, x(v), box.bottom, "grid"),
            text(x(v), box.bottom + 17, x_label(v), "tick", "middle"),
        ]
    marks = [(y(v), y_label(v)) for v in y.ticks(7)]
    if y.zero is not None:
        marks.append((y.zero, "0"))
        out.append(line(box.left, y.start, box.right, y.start, "break"))
    for at, said in marks:
        out += [
            line(box.left, at, box.right, at, "grid"),
            text(box.left - 7, at + 4, said, "tick", "end"),
        ]
    out += [
        text(box.right, box.bottom + 36, titles[0], "title", "end"),
        text(2, box.top - 14, titles[1], "title"),
    ]
    return element("g", *out, class_="axes")


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """A straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def text(x: float, y: float, said: str, class_: str, anchor: str | None = None) -> Markup:
    """A line of text; `anchor` is start, middle or end."""
    return element("text", said, x=x, y=y, class_=class_, text_anchor=anchor)


def bar(box: Box, class_: str, tip: str | None = None) -> Markup:
    """A filled rectangle."""
    return element(
        "rect", x=min(box.left, box.right), y=box.top, width=abs(box.right - box.left),
        height=max(box.bottom - box.top, 0.0), class_=class_, data_tip=tip,
    )  # fmt: skip


def mark(shape: str, x: float, y: float, r: float, class_: str) -> Markup:
    """A circle, square, diamond, triangle, wedge or hexagon around a point."""
    if shape == "circle":
        return element("circle", cx=x, cy=y, r=r, class_=class_)
    corners = {
        "square": ((-1, -1), (1, -1), (1, 1), (-1, 1)),
        "diamond": ((0, -1.35), (1.35, 0), (0, 1.35), (-1.35, 0)),
        "triangle": ((0, -1.25), (1.2, 0.95), (-1.2, 0.95)),
        "wedge": ((0, 1.25), (1.2, -0.95), (-1.2, -0.95)),
        "hexagon": ((0, -1.15), (1, -0.58), (1, 0.58), (0, 1.15), (-1, 0.58), (-1, -0.58)),
    }[shape]
    points = " ".join(f"{x + a * r * 0.92:.1f},{y + b * r * 0.92:.1f}" for a, b in corners)
    return element("polygon", points=points, class_=class_)
