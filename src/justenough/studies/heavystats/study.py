"""The study: what is asked, which analyses answer it, and where their results are kept."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from justenough.core.store import Store
from justenough.deploy.export import write_text
from justenough.errors import InputError
from justenough.studies.heavystats import analyses, bundle
from justenough.studies.heavystats.report import render, said
from justenough.studies.heavystats.table import Table, read_table
from justenough.studies.heavystats.work import Work
from justenough.studies.heavystats.world import World
from justenough.subjects.processor import machine, versions

__all__ = ["STAGES", "Asked", "ask", "run", "said"]
CONVERSATIONS = 1_000_000
# What each option of the document runs, in order; every one begins with the pass over the data.
STAGES = {
    "A": ("montecarlo",),
    "B": ("montecarlo", "posterior", "variational"),
    "C": (
        "montecarlo", "posterior", "variational", "bootstrap", "permutation", "search", "factors",
        "architectures",
    ),
    "D": ("montecarlo", "bootstrap", "permutation", "search"),
}  # fmt: skip
Progress = Callable[[str, float], None]
Said = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """What a run is to do.

    Attributes:
        option: A, B, C or D.
        seed: Of everything that is drawn.
        conversations: How many to make up; None with a table.
        table: A table of one's own; None where conversations are made up.
    """

    option: str
    seed: int
    conversations: int | None
    table: Path | None

    def source(self) -> World | Table:
        """The conversations."""
        if self.table is not None:
            return read_table(self.table)
        return World(self.conversations or CONVERSATIONS, seed=self.seed)


def ask(
    option: str | None,
    conversations: float | None,
    table: Path | None,
    seed: int | None,
    compare: Path | None,
) -> tuple[Asked, Said | None]:
    """What a run is to do, from what was given; with a bundle, what that run did, and its stages.

    Raises:
        InputError: A number that is no count, both a table and a number of conversations, or a
            bundle that cannot be used.
    """
    if compare is not None:
        if any(given is not None for given in (option, conversations, seed)):
            raise InputError(
                "--compare does what the bundle says; leave --option, --conversations and --seed "
                "out"
            )
        body = bundle.read_bundle(compare)
        theirs = body["asked"]
        if (theirs.get("table") is None) != (table is None):
            raise InputError(
                f"{compare.name} is about {'made-up conversations' if table else 'a table'}; "
                f"{'leave --cases out' if table else 'give the same one with --cases'}"
            )
        option, conversations, seed = (theirs.get(k) for k in ("option", "conversations", "seed"))
        if table is not None and read_table(table).digest != _digest_of(theirs["table"]):
            raise InputError(f"{table.name} is not the table of {compare.name}; give that one")
    option = "C" if option is None and compare is None else option
    if not isinstance(option, str) or option not in STAGES:
        raise InputError(f"option is {option!r}; it must be one of {', '.join(STAGES)}")
    if table is not None and conversations is not None:
        raise InputError("give a table or a number of conversations, not both")
    many = _count("--conversations", conversations, 1_000, 100_000_000)
    number = _count("--seed", seed, 0, 2**32 - 1)
    asked = Asked(option, number or 0, None if table else many or CONVERSATIONS, table)
    return asked, None if compare is None else body["stages"]


def _digest_of(table: Any) -> str:
    return str(table.get("digest")) if isinstance(table, dict) else ""


def _count(name: str, value: Any, least: int, most: int) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
        raise InputError(f"{name} is {value!r}; give a whole number, such as {max(least, 1000)}")
    if not least <= value <= most:
        raise InputError(f"{name} is {value:g}; give {least:,} to {most:,}")
    return int(value)


def run(asked: Asked, out: Path, progress: Progress = lambda *_: None) -> Said:
    """Run what is asked, or go on with it; write report.html, results.json and bundle.json.

    Each analysis is recorded when it has ended, and the long ones in parts: a run that was
    stopped goes on after the last part, to the same numbers.

    Args:
        asked: From `ask`.
        out: Folder, which belongs to one source and seed; it is locked meanwhile.
        progress: Called with the analysis and the share of it that is done.

    Returns:
        The stages' results by name.

    Raises:
        InputError: The folder belongs to other data, or an analysis refuses what it got.
    """
    source = asked.source()
    store = Store(out / "run.sqlite", _identity(asked, source))
    try:
        stages = {}
        for name in STAGES[asked.option]:
            progress(name, 0.0)
            stages[name] = _stage(name, source, asked.seed, store, progress)
    finally:
        store.close()
    body = _results(asked, source, stages)
    write_text(out / "results.json", json.dumps(body, indent=1) + "\n")
    kept = {k: body[k] for k in ("format", "asked", "versions", "stages")}
    write_text(out / "bundle.json", json.dumps(kept, indent=1) + "\n")
    write_text(out / "report.html", render(body))
    return body


def _stage(name: str, source: World | Table, seed: int, store: Store, progress: Progress) -> Said:
    known: Said | None = store.get(name)
    if known is not None:
        return known
    order = STAGES["C"].index(name)
    start = time.perf_counter()
    found = analyses.ANALYSES[name](
        Work(source, np.random.default_rng([seed, order]), store, lambda d: progress(name, d))
    )
    found["seconds"] = time.perf_counter() - start
    store.put(name, found, seconds=found["seconds"])
    return found


def _identity(asked: Asked, source: World | Table) -> dict[str, str]:
    if isinstance(source, Table):
        return {"study": "heavystats", "seed": str(asked.seed), "table": source.digest}
    return {"study": "heavystats", "seed": str(asked.seed), "world": repr(source)}


def _results(asked: Asked, source: World | Table, stages: Mapping[str, Said]) -> Said:
    world = asdict(source) if isinstance(source, World) else None
    table = {"name": source.name, "digest": source.digest} if isinstance(source, Table) else None
    return {
        "format": bundle.FORMAT,
        "asked": {
            "option": asked.option, "seed": asked.seed, "conversations": asked.conversations,
            "table": table,
        },
        "versions": versions(bundle.LIBRARIES),
        "machine": machine(),
        "source": world or table,
        "stages": dict(stages),
    }  # fmt: skip
