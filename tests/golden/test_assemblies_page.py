"""docs/assemblies-benchmarks.md is what the last runs found."""

import importlib
from pathlib import Path
from typing import Any

# Not followed by the type checker: the benchmarks' neighbours need packages of their own.
table: Any = importlib.import_module("benchmarks.assemblies_table")
ROOT = Path(__file__).parents[2]


def test_the_page_is_what_the_last_runs_found() -> None:
    again = "write it again: python -m benchmarks.assemblies_table"
    assert (ROOT / table.PAGE).read_text("utf8") == table.page(table.load(ROOT)), again


def test_a_goal_that_was_missed_is_said() -> None:
    slow, quick = table.load(ROOT), table.load(ROOT)
    for results, times in ((slow, 9.9), (quick, 10.1)):
        for row in results["topk"]["rows"]:
            if row["side"] == "np.argpartition":
                row["ratio"] = times
    assert "| >= 10 | 9.9 | **no** |" in table.page(slow)
    assert "| >= 10 | 10.1 | yes |" in table.page(quick)


def test_processor_and_card_came_to_the_same_support() -> None:
    runs = [
        r
        for name in ("cpu", "card")
        for r in table.load(ROOT)[name]["runs"]
        if r["tier"] == "exact"
    ]
    seen: dict[tuple[float, ...], list[int]] = {}
    for r in runs:
        known = seen.setdefault((r["n"], r["k"], r["p"], r["beta"]), r["support"])
        assert known == r["support"]
    assert len(seen) < len(runs)
