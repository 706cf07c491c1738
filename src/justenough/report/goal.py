"""What a search was for, in words, and costs in the unit of its objective."""

from collections.abc import Mapping
from typing import Any

from justenough.report import names, words

Said = Mapping[str, Any]
HERE = "this-machine"
SOUGHT = {
    "latency": "the least time a case", "bytes": "the fewest bytes of everything deployed",
    "energy-estimate": "the least energy a case",
}  # fmt: skip


def of(summary: Said) -> Said:
    """The goal of a summary; an empty one where it does not say."""
    found: Said = summary.get("goal") or {}
    return found


def minimised(summary: Said) -> str:
    """What was minimised: `latency` where a summary does not say."""
    return str(of(summary).get("minimise", "latency"))


def is_counted(summary: Said) -> bool:
    """Whether candidates were ranked by something else than seconds measured here."""
    return minimised(summary) != "latency" or bool(of(summary).get("estimated"))


def is_estimate(summary: Said) -> bool:
    """Whether costs are estimates: neither timed nor the size of a file."""
    by = minimised(summary)
    return by == "energy-estimate" or (by != "bytes" and bool(of(summary).get("estimated")))


def cost_name(summary: Said) -> str | None:
    """What costs are called; None where they are seconds measured here."""
    by, target = minimised(summary), str(of(summary).get("target", HERE))
    if by == "bytes":
        return "bytes"
    if not is_estimate(summary):
        return None
    what = "energy a case" if by == "energy-estimate" else "time a case"
    return f"{what}{'' if target == HERE else f' on {target}'}, estimate"


def cost_of(summary: Said, entry: Said) -> float | None:
    """The cost of a variant or a candidate; candidates may give it as their seconds."""
    found = entry.get("cost", entry.get("seconds") if is_counted(summary) else None)
    return words.finite(found)


def in_unit(summary: Said, value: float | None) -> str:
    """A cost with its unit."""
    by = {"bytes": words.size, "energy-estimate": words.energy}
    return by.get(minimised(summary), words.seconds)(value)


def sought(summary: Said) -> list[str]:
    """What was sought, among what, with what settled: a sentence each; none without a goal."""
    goal = of(summary)
    if not goal:
        return []
    if goal.get("given"):
        return ["A variant was given and taken as it is; nothing was searched."]
    target = str(goal.get("target", HERE))
    where = "on this machine" if target == HERE else f"on {target}"
    brands = [names.brand(str(r)) for r in goal.get("runtimes") or ()]
    among = f", in {' or '.join(brands)}" if brands else ""
    out = [f"Sought: {SOUGHT.get(minimised(summary), minimised(summary))} {where}{among}."]
    if is_estimate(summary):
        out.append("Its costs are estimates, counted and not measured; speed-ups are measured.")
    pins = [f"{site} = {choice}" for site, choice in goal.get("pins") or ()]
    if pins:
        out.append(f"Settled beforehand: {'; '.join(pins)}.")
    if goal.get("budget_s") is not None:
        out.append(f"Time allowed: {words.seconds(goal['budget_s'])}.")
    return out
