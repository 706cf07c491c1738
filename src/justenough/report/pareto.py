"""What is gained against what is changed: every candidate in one picture."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from markupsafe import Markup

from justenough.report import deployed, goal, marks, names, svg, tables, timing, words
from justenough.report.words import Promise

Said = Mapping[str, Any]
NEAR = 130, 18


@dataclass(frozen=True)
class Dot:
    """One candidate in a picture.

    Attributes:
        x, y: Its place; `high` is the confidence limit of y, on the clause's side.
        runtime: Of its first stage; None for the reference.
        kind: Verdict, or `open` where none is claimed.
        tip: What pointing at it shows.
        label: Words beside it.
        order: Its place in the plan, for the path; None off the path.
        chosen: Whether it is what was certified.
    """

    x: float
    y: float
    high: float | None
    runtime: str | None
    kind: str
    tip: str
    label: str = ""
    order: int | None = None
    chosen: bool = False

    @property
    def lift(self) -> int:
        """Pixels from the dot to its label, below where whiskers of others stand above."""
        return 22 if self.chosen and self.y > 0 else -9


@dataclass(frozen=True)
class View:
    """One way to look: `x` is speed, size or cost, `y` measured or predicted."""

    x: str
    y: str
    drawing: Markup
    caption: str
    kinds: frozenset[str]
    runtimes: frozenset[str]


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

    @cached_property
    def variants(self) -> Said:
        """Variants of the search by key."""
        found: Said = (self.summary.get("search") or {}).get("variants") or {}
        return found

    @cached_property
    def labels(self) -> dict[str, str]:
        """A short name of each variant."""
        return tables.labels(self.summary)

    @cached_property
    def styles(self) -> dict[str, marks.Style]:
        """How each runtime is drawn."""
        return marks.styles(names.runtimes(self.summary.get("search") or {}))

    def runtime(self, entry: Said) -> str:
        """The runtime of a candidate's first stage."""
        return names.runtime_of(self.variants.get(str(entry.get("variant"))) or entry)

    def evidence(self, entry: Said) -> Said:
        """Evidence for the clause shown."""
        found: Said = entry["clauses"][self.index]
        return found

    def gain(self, entry: Said, x: str) -> float | None:
        """Speed-up over the reference, bytes, or cost, of a candidate or a timed file."""
        if x == "speed":
            return self._speedup(entry)
        if x == "cost":
            own = self.variants.get(str(entry.get("variant"))) or {}
            return goal.cost_of(self.summary, entry if "cost" in entry or "risk" in entry else own)
        if "bytes" in entry:
            return words.finite(entry["bytes"])
        whole = self.summary["model"]["bytes"]
        parts = [self.variants.get(str(entry.get(k))) or {} for k in ("variant", "middle")]
        if "bytes" not in parts[0]:
            return None
        # A middle stage that runs the reference's own file shares it.
        rest = {p["bytes"] for p in parts[1:] if "bytes" in p}
        rest |= {whole} if entry.get("threshold") is not None else set()
        return float(parts[0]["bytes"] + sum(rest))

    def _speedup(self, entry: Said) -> float | None:
        if "speedup" in entry:
            return words.finite(entry["speedup"])
        reference, own = self.summary["plan"].get("reference_s"), entry.get("seconds")
        if goal.is_counted(self.summary):
            own = timing.rung_seconds(self.summary, entry)
        return reference / own if reference and own else None


def chosen_clause(summary: Said) -> int:
    """The first clause that counts changed units, or the first."""
    tested = [*summary.get("steps", ()), summary.get("plain_int8") or {"clauses": ()}]
    for entry in tested:
        for k, e in enumerate(entry["clauses"]):
            if e.get("changed") is not None:
                return k
    return 0


def picture(summary: Said) -> Picture | None:
    """The summary read for its first clause that counts; None where there is nothing to show."""
    clauses = summary["contract"]["clauses"]
    if not clauses or not (summary.get("plan") or summary.get("plain_int8")):
        return None
    index = chosen_clause(summary)
    grouped = bool(summary["cases"].get("grouped"))
    return Picture(summary, words.promise(clauses[index], grouped=grouped), index, grouped)


def views(summary: Said) -> list[View]:
    """Every way to look at the candidates that this summary allows."""
    p = picture(summary)
    if p is None:
        return []
    out = []
    ways = [("measured", _measured), ("predicted", _predicted)]
    # Of a variant that was given, nothing was predicted.
    for y, dots in ways[:1] if goal.of(summary).get("given") else ways:
        for x in ("speed", "size", *(["cost"] if goal.is_estimate(summary) else [])):
            found = list(dots(p, x))
            if len({round(d.x, 6) for d in found}) > 1:
                drawing = svg.both(_drawing(p, x, y, found))
                kinds = frozenset(d.kind for d in found) | {"chosen" for d in found if d.chosen}
                used = frozenset(d.runtime for d in found if d.runtime is not None)
                out.append(View(x, y, drawing, _caption(p, x, y), kinds, used))
    return out


def legend(summary: Said, found: Sequence[View]) -> list[list[tuple[Markup, str]]]:
    """Marks and their meaning: a line for the runtimes, and one for the verdicts."""
    p = picture(summary)
    if p is None:
        return []
    kinds = frozenset[str]().union(*(v.kinds for v in found))
    used = frozenset[str]().union(*(v.runtimes for v in found))
    first = [
        (marks.sample(style, "HELD"), names.runtime(r))
        for r, style in p.styles.items()
        if r in used
    ]
    second = [(marks.sample(marks.NEUTRAL, k), said) for k, said in marks.MEANINGS if k in kinds]
    path = svg.line(0, 8, 16, 8, "path")
    on_path = "candidates in the order of the plan, safest first"
    return [first, [*second, (svg.element("svg", path, viewBox="0 0 16 16"), on_path)]]


def evidence_words(e: Said, p: Promise, units: str) -> str:
    """Changed units, estimate and limit in one line."""
    changed = e.get("changed")
    some = "" if changed is None else f"{words.count(changed)} of "
    return f"{some}{words.count(e['n'])} {units}{'' if changed is None else ' changed'}, " + (
        f"estimate {p.value(e.get('estimate'))}, limit {p.limit(e.get('limit'))}"
    )


def _tested(p: Picture, entry: Said, x: float, name: str, label: str = "") -> Dot:
    e = p.evidence(entry)
    y = p.promise.loss(e.get("estimate"))
    verdict = str(entry.get("verdict", "UNDECIDED"))
    tip = f"{name}\n{verdict}: {evidence_words(e, p.promise, p.units)}\n{_gained(p, entry)}"
    at = 0.0 if y is None else y
    return Dot(x, at, p.promise.loss(e.get("limit")), p.runtime(entry), verdict, tip, label)


def _gained(p: Picture, entry: Said) -> str:
    speed, size = p.gain(entry, "speed"), p.gain(entry, "size")
    text = f"{words.times(speed)} as fast, {words.size(size)}"
    name, cost = goal.cost_name(p.summary), p.gain(entry, "cost")
    if name and goal.is_estimate(p.summary) and cost is not None:
        text += f", {goal.in_unit(p.summary, cost)} ({name})"
    deferral = words.finite(entry.get("deferral"))
    return text + (f", defers {words.share(deferral)}" if deferral is not None else "")


def _measured(p: Picture, x: str) -> Iterator[Dot]:
    """Candidates as the certification cases saw them, and variants as the search cases did."""
    s = p.summary
    yield from _on_search(p, x)
    for k, step in enumerate(s.get("steps", ())):
        at = p.gain(step, x)
        if at is not None:
            dot = _tested(p, step, at, deployed.rung_name(step, p.labels))
            yield replace(dot, order=k)
    plain = s.get("plain_int8")
    if plain:
        at = p.gain(plain, x)
        if at is not None:
            name = tables.plain_name(s)
            label = "int8 alone" if name.startswith("int8") else "alone"
            yield _tested(p, plain, at, f"{name}, no cascade", label)
    result, certificate = s.get("result"), s.get("certificate")
    if result and certificate:
        at = p.gain(result, x)
        if at is not None:
            both = {**result, "verdict": certificate["verdict"], "clauses": certificate["clauses"]}
            what = f"What was certified\n{deployed.sentence(s)}"
            yield replace(_tested(p, both, at, what, "certified"), chosen=True)
    yield from _exact(p, x)


def _exact(p: Picture, x: str) -> Iterator[Dot]:
    """The reference itself: nothing changed, nothing gained."""
    if p.promise.is_share and x != "cost":
        at = 1.0 if x == "speed" else float(p.summary["model"]["bytes"])
        tip = f"The reference\n{words.size(p.summary['model']['bytes'])}"
        yield Dot(at, 0.0, None, None, "exact", tip, "reference")


def _on_search(p: Picture, x: str) -> Iterator[Dot]:
    """Variants without a cascade, as counted on the search cases; no limit is claimed."""
    n = (p.summary["cases"].get("search") or {}).get("units")
    for key, v in p.variants.items():
        at, changed = p.gain(v, x), v.get("changed")
        if n and at is not None and changed is not None and p.index == 0 and p.promise.is_share:
            tip = (
                f"{p.labels[key]}, alone\n{changed} of {n} {p.units} changed on the search cases "
                f"(no claim)\n{_gained(p, v)}"
            )
            yield Dot(at, changed / n, None, names.runtime_of(v), "open", tip)


def _predicted(p: Picture, x: str) -> Iterator[Dot]:
    """Every rung as the search cases predict it."""
    verdicts = {deployed.key_of(s): str(s["verdict"]) for s in p.summary.get("steps", ())}
    result = p.summary.get("result")
    chosen = deployed.key_of_result(result) if result else None
    plan = p.summary.get("plan") or {"rungs": ()}
    for k, rung in enumerate(plan["rungs"]):
        at, risk = p.gain(rung, x), words.finite(rung.get("risk"))
        if at is None or risk is None:
            continue
        key = deployed.key_of(rung)
        verdict, here = verdicts.get(key, ""), key == chosen
        said = words.share(risk) if plan.get("gate") else words.significant(risk)
        what = "of cases" if plan.get("gate") else "noise power"
        tip = (
            f"{deployed.rung_name(rung, p.labels)}\npredicted {said} {what}\n{_gained(p, rung)}\n"
            + (f"then certified: {verdict}" if verdict else "not tested")
        )
        yield Dot(at, risk, None, p.runtime(rung), verdict or "open", tip,
                  "certified" if here else "", k, here)  # fmt: skip
    if plan["rungs"] and plan.get("gate"):
        yield from _exact(p, x)


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
        parts = [svg.axes(box, across, ys, _x_label(p, x), value, _titles(p, x, y, shares))]
        if bound is not None:
            places = [(across(d.x), ys(d.y)) for d in dots]
            parts.append(_bound(box, ys(bound), f"contract: {p.promise.asked}", places))
        parts.append(_path(dots, across, ys))
        parts += [_dot(d, across(d.x), ys, box, p.styles) for d in dots]
        what = f"{len(dots)} candidates: {_caption(p, x, y)}"
        return svg.picture(width, height, what, *parts)

    return draw


def _x_label(p: Picture, x: str) -> svg.Label:
    if x == "speed":
        return lambda v: f"{v:g}{words.TIMES}"
    return words.size if x == "size" else lambda v: goal.in_unit(p.summary, v)


def _path(dots: Sequence[Dot], x: svg.Scale, y: svg.Scale) -> Markup:
    """A line through the candidates, in the order of the plan."""
    on = sorted((d for d in dots if d.order is not None), key=lambda d: d.order or 0)
    points = " ".join(f"{x(d.x):.1f},{y(d.y):.1f}" for d in on)
    return svg.element("polyline", points=points, class_="path") if len(on) > 1 else Markup("")


def _titles(p: Picture, x: str, y: str, shares: bool) -> tuple[str, str]:
    across = {
        "speed": "speed-up (right is faster)", "size": "file size (left is smaller)",
        "cost": f"{goal.cost_name(p.summary)} (left is less)",
    }[x]  # fmt: skip
    if y == "predicted":
        return across, "predicted changed cases" if shares else "predicted noise power"
    if shares:
        return across, f"changed {p.units}" if p.promise.at_least else "loss"
    return across, f"estimate and limit, {p.promise.unit}"


def confidence(summary: Said) -> float:
    """At what confidence each limit of a run stands alone."""
    curve = summary.get("curve") or {}
    return 1 - float(curve.get("alpha") or summary["contract"]["alpha"])


def _caption(p: Picture, x: str, y: str) -> str:
    gained = {
        "speed": "the speed-up over the reference", "size": "the size of the file",
        "cost": str(goal.cost_name(p.summary)),
    }[x]  # fmt: skip
    if y == "measured":
        at = words.given(round(confidence(p.summary), 6))
        return (
            f"Against {gained}: what changed on the certification cases, with the upper "
            f"{at} confidence limit as a whisker."
            if p.promise.is_share
            else f"Against {gained}: the estimate on the certification cases and its limit."
        )
    return (
        f"Against {gained}: what the search cases predict for each candidate of the plan. "
        "It only ranks them."
    )


def _bound(box: svg.Box, at: float, said: str, dots: Sequence[tuple[float, float]] = ()) -> Markup:
    """The line of the contract, named at the end with fewer dots in the way."""
    near = [x for x, y in dots if abs(y - (at - 10)) < NEAR[1]]
    left = sum(x > box.right - NEAR[0] for x in near) > sum(x < box.left + NEAR[0] for x in near)
    where, anchor = (box.left + 4, "start") if left else (box.right - 4, "end")
    return svg.line(box.left, at, box.right, at, "bound") + svg.text(
        where, at - 6, said, "bound-label", anchor
    )


def _dot(
    d: Dot, x: float, ys: svg.Scale, box: svg.Box, styles: Mapping[str, marks.Style]
) -> Markup:
    y = ys(d.y)
    parts = []
    if d.high is not None:
        top = ys(d.high)
        parts += [svg.line(x, y, x, top, "whisker"), svg.line(x - 3, top, x + 3, top, "whisker")]
    r = 6.5 if d.label else 4.5
    if d.chosen:
        parts.append(svg.element("circle", cx=x, cy=y, r=r + 5, class_="ring"))
    parts.append(marks.mark(styles.get(d.runtime or "", marks.NEUTRAL), d.kind, x, y, r))
    if d.label:
        left = x > (box.left + box.right) / 2
        parts.append(
            svg.text(x + (-14 if left else 14), y + d.lift, d.label, "dot-label",
                     "end" if left else "start")
        )  # fmt: skip
    parts.append(svg.element("circle", cx=x, cy=y, r=10, class_="touch"))
    return svg.element("g", *parts, class_="point", data_tip=d.tip)
