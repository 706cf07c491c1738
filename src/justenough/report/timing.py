"""What each stage of a cascade takes, from times of single calls."""

from collections.abc import Mapping, Sequence
from typing import Any

from justenough.core.subject import ONNXRUNTIME
from justenough.report import names, words
from justenough.search.chain import DeferralCost

Said = Mapping[str, Any]


def stage_seconds(
    summary: Said, stages: Sequence[str], reached: Sequence[float]
) -> list[float] | None:
    """Predicted seconds per case of each stage, the gate's counted to the first.

    Args:
        summary: Of a run.
        stages: Variants by key, cheapest first; an empty key is the exact model.
        reached: Share of rows that reach each.

    Returns:
        None where a stage was not timed.
    """
    search = summary.get("search") or {}
    known, calls = search.get("variants") or {}, search.get("call_cost") or {}
    batch = int(summary["environment"].get("batch") or 1)
    entries = [known.get(v) for v in stages if v]
    first = words.finite((known.get(stages[0]) or {}).get("candidate_s"))
    if first is None or any(e is None for e in entries):
        return None
    if len(stages) > 1:
        plain = all(names.runtime_of(e) == str(ONNXRUNTIME) for e in entries)
        first += float((search.get("gate_s") or {}).get("file" if plain else "runner") or 0.0)
    out = [first]
    for name, share in zip(stages[1:], reached[1:], strict=False):
        timed = calls.get(name or "reference")
        if not timed:
            return None
        out.append(_cost(timed, batch).per_case(share))
    return out


def _cost(calls: Sequence[Sequence[float]], batch: int) -> DeferralCost:
    """What a stage costs, from (rows, seconds) of a call with few rows and of one with many."""
    (k0, t0), (k1, t1) = calls[0], calls[-1]
    if k1 > k0:
        per_row = (t1 - t0) / (k1 - k0)
        return DeferralCost(max(t0 - per_row, 0.0), per_row, batch)
    # One size alone was timed: every call takes a whole batch.
    return DeferralCost(t1, 0.0, batch) if k1 > 1 else DeferralCost(0.0, t1, batch)


def rung_seconds(summary: Said, rung: Said) -> float | None:
    """Predicted seconds per case of a candidate whose own `seconds` are another cost."""
    stages, reached = [str(rung["variant"])], [1.0]
    if rung.get("middle"):
        stages, reached = [*stages, str(rung["middle"])], [*reached, float(rung["passed"])]
    if rung.get("threshold") is not None:
        stages, reached = [*stages, ""], [*reached, float(rung["deferral"])]
    found = stage_seconds(summary, stages, reached)
    return None if found is None else sum(found)
