"""docs/statistics-benchmarks.md is what the last run found."""

import importlib
import json
from pathlib import Path
from typing import Any

# Not followed by the type checker: the benchmarks' neighbours need packages of their own.
table: Any = importlib.import_module("benchmarks.heavystats_table")
ROOT = Path(__file__).parents[2]
RESULTS: dict[str, Any] = json.loads((ROOT / table.RESULTS).read_text("utf8"))


def test_the_page_is_what_the_last_run_found() -> None:
    again = "write it again: python -m benchmarks.heavystats_table"
    assert (ROOT / table.PAGE).read_text("utf8") == table.page(RESULTS), again


def test_a_goal_that_was_missed_is_said() -> None:
    slower = json.loads(json.dumps(RESULTS))
    slower["study"]["seconds"] = 181.0
    quicker = json.loads(json.dumps(RESULTS))
    quicker["study"]["seconds"] = 179.0
    assert "| the whole study | 3 min | 3 min | **no** |" in table.page(slower)
    assert "| the whole study | 3 min | 3 min | yes |" in table.page(quicker)


def test_what_was_scaled_says_so() -> None:
    loop = RESULTS["loops"]["montecarlo"]
    assert loop["scaled_by"] > 1
    rows = [
        r for r in table.page(RESULTS).splitlines() if "configuration, each conversation |" in r
    ]
    assert [f"{loop['scaled_by']:,.0f} times" in r for r in rows] == [True]
