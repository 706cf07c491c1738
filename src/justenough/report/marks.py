"""Marks of candidates: the shape and the colour say the runtime, the filling says the verdict."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from justenough.report import svg

SHAPES = ("circle", "square", "triangle", "diamond", "wedge", "hexagon")
MEANINGS = (
    ("HELD", "filled: held"),
    ("UNDECIDED", "light: undecided"),
    ("BROKEN", "crossed: broken"),
    ("open", "hollow: no claim, on the search cases or not tested"),
    ("chosen", "ringed: certified and deployed"),
)


@dataclass(frozen=True)
class Style:
    """How the candidates of a runtime are drawn: a shape, and a class for the colour."""

    shape: str
    colour: str


NEUTRAL = Style("circle", "rt-none")


def styles(runtimes: Sequence[str]) -> dict[str, Style]:
    """A style for each runtime, no two alike while shapes last."""
    return {
        r: Style(SHAPES[k % len(SHAPES)], f"rt-{k % len(SHAPES)}") for k, r in enumerate(runtimes)
    }


def mark(style: Style, kind: str, x: float, y: float, r: float) -> Markup:
    """A candidate; `kind` is its verdict, `open` without one, `exact` for the reference."""
    drawn = svg.mark(style.shape, x, y, r, f"dot {style.colour} {kind}")
    if kind != "BROKEN":
        return drawn
    a = r * 0.95
    cross = [
        svg.line(x - a, y - a, x + a, y + a, f"cross {style.colour}"),
        svg.line(x - a, y + a, x + a, y - a, f"cross {style.colour}"),
    ]
    return drawn + Markup("").join(cross)


def sample(style: Style, kind: str) -> Markup:
    """A mark for a legend."""
    drawn = mark(style, "HELD" if kind == "chosen" else kind, 8, 8, 3.5 if kind == "chosen" else 5)
    if kind == "chosen":
        drawn += svg.element("circle", cx=8, cy=8, r=6.8, class_="ring")
    return svg.element("svg", drawn, viewBox="0 0 16 16")
