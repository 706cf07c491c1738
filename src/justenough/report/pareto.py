"""What is gained against what is changed: every candidate in one picture."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from justenough.report import svg, words
from justenough.report.words import Promise

SHAPES = {"HELD": "circle", "UNDECIDED": "square", "BROKEN": "triangle"}
MEANINGS = (
    ("HELD", "circle", "held"),
    ("UNDECIDED", "square", "undecided"),
    ("BROKEN", "triangle", "broken"),
    ("untested", "circle", "not tested"),
    ("search", "diamond", "variant alone on the search cases, no claim"),
    ("result", "circle", "the certified file"),
)
Said = Mapping[str, Any]


@dataclass(frozen=True)
class Dot:
    """One candidate in a picture.

    Attributes:
        x, y: Its place; `high` is the confidence limit of y, on the clause's side.
        shape, kind: How it is drawn; `kind` is a class of the style sheet.
        tip: What pointing at it shows.
        label: Words beside it.
    """

    x: float
    y: float
    high: float | None
    shape: str
    kind: str
    tip: str
    label: str = ""

    @property
    def lift(self) -> int:
        """Pixels from the dot to its label, below where whiskers of others stand above."""
        return 19 if self.kind.startswith("result") and self.y > 0 else -9


@dataclass(frozen=True)
class View:
    """One way to look: `x` is speed or size, `y` measured or predicted."""

    x: str
    y: str
    drawing: Markup
    caption: str
    kinds: frozenset[str]


@dataclass(frozen=True)
class Picture:
    """A summary read for its Pareto picture.

    Attributes:
        promise: The clause shown.
        index: Its place in the contract.
        grouped: Whether units are groups of cases.
    """

    summary: Said
    promise: Promise
    index: int
    grouped: bool

    @property
    def units(self) -> str:
        """What a unit is called."""
        return "groups" if self.grouped else "cases"

    def evidence(self, entry: Said) -> Said:
        """Evidence for the clause shown."""
        found: Said = entry["clauses"][self.index]
        return found

    def gain(self, entry: Said, x: str) -> float | None:
        """Speed-up over the reference, or bytes of the file, of a rung or a timed file."""
        if x == "speed":
            if "speedup" in entry:
                return words.finite(entry["speedup"])
            reference, own = (self.summary["plan"].get("reference_s"), entry.get("seconds"))
            return reference / own if reference and own else None
        if "bytes" in entry:
            return words.finite(entry["bytes"])
        file = self.summary["search"]["variants"].get(entry["variant"], {}).get("bytes")
        both = entry.get("threshold") is not None
        return None if file is None else file + (self.summary["model"]["bytes"] if both else 0)


def chosen_clause(summary: Said) -> int:
    """The first clause that counts changed units, or the first."""
    tested = [*summary.get("steps", ()), summary.get("plain_int8") or {"clauses": ()}]
    for entry in tested:
        for k, e in enumerate(entry["clauses"]):
            if e.get("changed") is not None:
                return k
    return 0


def views(summary: Said) -> list[View]:
    """Every way to look at the candidates that this summary allows."""
    clauses = summary["contract"]["clauses"]
    if not clauses or not (summary.get("plan") or summary.get("plain_int8")):
        return []
    index = chosen_clause(summary)
    grouped = bool(summary["cases"].get("grouped"))
    p = Picture(summary, words.promise(clauses[index], grouped=grouped), index, grouped)
    out = []
    for y, dots in (("measured", _measured), ("predicted", _predicted)):
        for x in ("speed", "size"):
            found = list(dots(p, x))
            if len({round(d.x, 6) for d in found}) > 1:
                out.append(
                    View(
                        x, y, svg.both(_drawing(p, x, y, found)), _caption(p, x, y), _kinds(found)
                    )
                )
    return out


def _kinds(dots: Sequence[Dot]) -> frozenset[str]:
    return frozenset(d.kind.split()[0] for d in dots)


def legend(found: Sequence[View]) -> list[tuple[Markup, str]]:
    """A mark and its meaning, for every kind of dot that some view has."""
    kinds = frozenset[str]().union(*(v.kinds for v in found))
    return [
        (svg.element("svg", svg.mark(shape, 8, 8, 4.5, f"dot {kind}"), viewBox="0 0 16 16"), said)
        for kind, shape, said in MEANINGS
        if kind in kinds
    ]


def rung_name(rung: Said) -> str:
    """A candidate in words."""
    threshold = rung.get("threshold")
    gate = "alone" if threshold is None else f"defers below {words.significant(threshold)}"
    return f"{rung['variant']}, {gate}"


def evidence_words(e: Said, p: Promise, units: str) -> str:
    """Changed units, estimate and limit in one line."""
    changed = e.get("changed")
    some = "" if changed is None else f"{words.count(changed)} of "
    return f"{some}{words.count(e['n'])} {units}{'' if changed is None else ' changed'}, " + (
        f"estimate {p.value(e.get('estimate'))}, limit {p.limit(e.get('limit'))}"
    )


def _tested(p: Picture, entry: Said, x: float, name: str, label: str = "", kind: str = "") -> Dot:
    e = p.evidence(entry)
    y = p.promise.loss(e.get("estimate"))
    verdict = str(entry.get("verdict", "UNDECIDED"))
    tip = f"{name}\n{verdict}: {evidence_words(e, p.promise, p.units)}\n{_gained(p, entry)}"
    at = 0.0 if y is None else y
    return Dot(
        x,
        at,
        p.promise.loss(e.get("limit")),
        SHAPES[verdict],
        f"{kind} {verdict}".strip(),
        tip,
        label,
    )


def _gained(p: Picture, entry: Said) -> str:
    speed, size = p.gain(entry, "speed"), p.gain(entry, "size")
    deferral = words.finite(entry.get("deferral"))
    text = f"{words.times(speed)} as fast, {words.size(size)}"
    return text + (f", defers {words.share(deferral)}" if deferral is not None else "")


def _measured(p: Picture, x: str) -> Iterator[Dot]:
    """Candidates as the certification cases saw them, and variants as the search cases did."""
    s = p.summary
    yield from _on_search(p, x)
    for step in s.get("steps", ()):
        at = p.gain(step, x)
        if at is not None:
            yield _tested(p, step, at, rung_name(step))
    plain = s.get("plain_int8")
    if plain:
        at = p.gain(plain, x)
        if at is not None:
            yield _tested(p, plain, at, "int8 everywhere, no cascade", "int8 alone", "plain")
    result, certificate = s.get("result"), s.get("certificate")
    if result and certificate:
        at = p.gain(result, x)
        if at is not None:
            both = {**result, "verdict": certificate["verdict"], "clauses": certificate["clauses"]}
            yield _tested(p, both, at, "The certified file", "certified", "result")
    yield from _exact(p, x)


def _exact(p: Picture, x: str) -> Iterator[Dot]:
    """The reference itself: nothing changed, nothing gained."""
    if p.promise.is_share:
        at = 1.0 if x == "speed" else float(p.summary["model"]["bytes"])
        tip = f"The reference\n{words.size(p.summary['model']['bytes'])}"
        yield Dot(at, 0.0, None, "circle", "exact", tip, "reference")


def _on_search(p: Picture, x: str) -> Iterator[Dot]:
    """Variants without a cascade, as counted on the search cases; no limit is claimed."""
    n = (p.summary["cases"].get("search") or {}).get("units")
    for name, v in (p.summary.get("search") or {}).get("variants", {}).items():
        at, changed = p.gain(v, x), v.get("changed")
        if n and at is not None and changed is not None and p.index == 0 and p.promise.is_share:
            tip = (
                f"{name} alone\n{changed} of {n} {p.units} changed on the search cases "
                f"(no claim)\n{_gained(p, v)}"
            )
            yield Dot(at, changed / n, None, "diamond", "search", tip)


def _predicted(p: Picture, x: str) -> Iterator[Dot]:
    """Every rung as the search cases predict it."""
    verdicts = {_key(s): str(s["verdict"]) for s in p.summary.get("steps", ())}
    plan = p.summary.get("plan") or {"rungs": ()}
    for rung in plan["rungs"]:
        at, risk = p.gain(rung, x), words.finite(rung.get("risk"))
        if at is None or risk is None:
            continue
        verdict = verdicts.get(_key(rung), "")
        said = words.share(risk) if plan.get("gate") else words.significant(risk)
        what = "of cases" if plan.get("gate") else "noise power"
        tip = f"{rung_name(rung)}\npredicted {said} {what}\n{_gained(p, rung)}\n" + (
            f"then certified: {verdict}" if verdict else "not tested"
        )
        yield Dot(at, risk, None, SHAPES.get(verdict, "circle"), verdict or "untested", tip)
    if plan["rungs"] and plan.get("gate"):
        yield from _exact(p, x)


def _key(rung: Said) -> tuple[Any, Any]:
    return rung["variant"], rung.get("threshold")


def _drawing(p: Picture, x: str, y: str, dots: Sequence[Dot]) -> Callable[[int], Markup]:
    shares = p.promise.is_share if y == "measured" else p.summary["plan"].get("gate") is not None
    bound = p.promise.loss(p.promise.bound)
    if y == "predicted" and not (shares and p.promise.is_share):
        bound = None

    def draw(width: int) -> Markup:
        height = 400 if width == svg.WIDE else 340
        box = svg.Box(62, 46, width - 16, height - 48)
        seen = [v for d in dots for v in (d.y, d.high) if v is not None]
        seen += [] if bound is None else [bound]
        logarithmic = shares or y == "predicted"
        scale = svg.with_zero if logarithmic else svg.linear
        ys = scale(seen, box.bottom, box.top)
        xs = [d.x for d in dots]
        if x == "speed":
            across = svg.linear([*xs, 1.0], box.left, box.right)
        else:
            across = svg.Scale(min(xs) / 1.15, max(xs) * 1.15, box.left, box.right, log=True)
        value = words.tick if shares else words.significant
        x_label = (lambda v: f"{v:g}{words.TIMES}") if x == "speed" else words.size
        parts = [svg.axes(box, across, ys, x_label, value, _titles(p, x, y, shares))]
        if bound is not None:
            parts.append(_bound(box, ys(bound), f"contract: {p.promise.asked}"))
        parts += [_dot(d, across(d.x), ys, box) for d in dots]
        what = f"{len(dots)} candidates: {_caption(p, x, y)}"
        return svg.picture(width, height, what, *parts)

    return draw


def _titles(p: Picture, x: str, y: str, shares: bool) -> tuple[str, str]:
    across = "speed-up (right is faster)" if x == "speed" else "file size (left is smaller)"
    if y == "predicted":
        return across, "predicted changed cases" if shares else "predicted noise power"
    if shares:
        return across, f"changed {p.units}" if p.promise.at_least else "loss"
    return across, f"estimate and limit, {p.promise.unit}"


def _caption(p: Picture, x: str, y: str) -> str:
    gained = "the speed-up over the reference" if x == "speed" else "the size of the file"
    if y == "measured":
        return (
            f"Against {gained}: what changed on the certification cases, with the upper "
            f"{words.given(1 - p.summary['contract']['alpha'])} confidence limit as a whisker."
            if p.promise.is_share
            else f"Against {gained}: the estimate on the certification cases and its limit."
        )
    return (
        f"Against {gained}: what the search cases predict for each candidate of the plan. "
        "It only ranks them."
    )


def _bound(box: svg.Box, at: float, said: str) -> Markup:
    return svg.line(box.left, at, box.right, at, "bound") + svg.text(
        box.right - 4, at - 6, said, "bound-label", "end"
    )


def _dot(d: Dot, x: float, ys: svg.Scale, box: svg.Box) -> Markup:
    y = ys(d.y)
    parts = []
    if d.high is not None:
        top = ys(d.high)
        parts += [svg.line(x, y, x, top, "whisker"), svg.line(x - 3, top, x + 3, top, "whisker")]
    big = bool(d.label)
    parts.append(svg.mark(d.shape, x, y, 7 if big else 4.5, f"dot {d.kind}"))
    if d.label:
        left = x > (box.left + box.right) / 2
        parts.append(
            svg.text(x + (-11 if left else 11), y + d.lift, d.label, f"dot-label {d.kind}",
                     "end" if left else "start")
        )  # fmt: skip
    parts.append(svg.element("circle", cx=x, cy=y, r=10, class_="touch"))
    return svg.element("g", *parts, class_="point", data_tip=d.tip)
