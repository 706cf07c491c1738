"""How results read on a terminal."""

import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from justenough.report import deployed, goal
from justenough.report.left_out import left_out
from justenough.report.words import kept_together

WIDE = 100
console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)


class Seen(Protocol):
    """A round that has ended; its overlap with the one before is NaN without one."""

    @property
    def round(self) -> int:
        """Its number, from 1."""

    @property
    def overlap(self) -> float:
        """Share of the winners of the round before that fired again."""

    @property
    def support(self) -> int:
        """Neurons that ever fired."""

    @property
    def seconds(self) -> float:
        """What it took."""


# Where a stage begins in the whole of a run, as its runs went so far; it only guesses the end.
BEGINS = {
    "reading": 0.0, "reference": 0.01, "calibration": 0.06, "build and time": 0.2,
    "sensitivity": 0.3, "profile": 0.35, "search cases": 0.45, "certify": 0.7,
    "certificate": 0.93,
}  # fmt: skip


def overall(stage: str, done: float) -> float:
    """Share of a whole run that lies behind, from its stage and how much of that is done.

    >>> overall("build and time openvino bf16 nncf", 0.0), overall("certificate", 1.0)
    (0.2, 1.0)
    """
    known = list(BEGINS)
    at = next((k for k in known if stage.startswith(k)), known[0])
    ends = [*BEGINS.values(), 1.0][known.index(at) + 1]
    return BEGINS[at] + min(max(done, 0.0), 1.0) * (ends - BEGINS[at])


@contextmanager
def progress_bar() -> Iterator[Callable[[str, float], None]]:
    """A bar on stderr that follows a whole run, and guesses its end; nothing without a terminal.

    It never runs back: proposals of one family are profiled after another's were timed.
    """
    columns = (
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
    )  # fmt: skip
    err = Console(stderr=True)
    start = time.monotonic()
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task("reading", total=1.0, left="")

        def follow(stage: str, done: float) -> None:
            share = max(overall(stage, done), bar.tasks[0].completed)
            spent = time.monotonic() - start
            left = f"about {duration(spent * (1 - share) / share)} left" if share > 0.05 else ""
            bar.update(task, description=stage, completed=share, left=left)

        yield follow


@contextmanager
def study_bar(stages: int) -> Iterator[Callable[[str, float], None]]:
    """A bar on stderr that counts the analyses of a study; nothing without a terminal."""
    err = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    seen: list[str] = []
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task("reading", total=float(stages))

        def follow(stage: str, done: float) -> None:
            if stage not in seen:
                seen.append(stage)
            said = f"{stage} ({len(seen)} of {stages})"
            bar.update(task, description=said, completed=len(seen) - 1 + done)

        yield follow


@contextmanager
def rounds_bar(rounds: int) -> Iterator[Callable[[Seen], None]]:
    """A bar on stderr that counts rounds and says how each went; nothing without a terminal."""
    err = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task(f"round 1 of {rounds}", total=float(rounds))

        def follow(seen: Seen) -> None:
            same = f"overlap {100 * seen.overlap:.1f} %, " if seen.overlap == seen.overlap else ""
            said = (
                f"round {seen.round} of {rounds}: {same}support {seen.support:,}, "
                f"{1 / max(seen.seconds, 1e-9):.3g} steps/s"
            )
            bar.update(task, description=said, completed=float(seen.round))

        yield follow


def size(n_bytes: float) -> str:
    """Bytes in the unit that reads best.

    >>> size(2_793_026)
    '2.79 MB'
    """
    for unit in ("B", "kB", "MB"):
        if n_bytes < 1000:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.3g} GB"


def duration(seconds: float) -> str:
    """Seconds in the unit that reads best.

    >>> duration(0.00062)
    '0.62 ms'
    """
    if seconds < 1e-4:
        return f"{seconds * 1e6:.3g} µs"
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 100 else f"{seconds / 60:.3g} min"


def limit_text(e: Mapping[str, Any]) -> str:
    """What was shown of a clause."""
    if e["limit"] is None:
        return str(e["note"])
    changed = f"{e['changed']} of {e['n']} changed; " if e["changed"] is not None else ""
    return f"{changed}estimate {number(e['estimate'])}, limit {e['limit']:.5g} {e['unit']}"


def number(value: float | None) -> str:
    """A value in five digits; JSON has no infinity.

    >>> number(None)
    'not finite'
    """
    return "not finite" if value is None else f"{value:.5g}"


def clauses(evidence: Sequence[Mapping[str, Any]], alpha: float) -> None:
    """Each clause with its verdict and what was shown of it."""
    for e in evidence:
        console.print(f"{e['verdict']:10}  {e['clause']}")
        if e["limit"] is None:
            console.print(f"            {e['note']}")
            continue
        changed = f"{e['changed']} of {e['n']} changed; " if e["changed"] is not None else ""
        side = "at least" if e.get("op", ">=") == ">=" else "at most"
        console.print(
            f"            {changed}estimate {number(e['estimate'])}, {side} {e['limit']:.5g} at "
            f"{1 - alpha:.4g} confidence\n            ({e['unit']}; {e['method']})"
        )


def possible(best: Sequence[Mapping[str, Any]], kind: str) -> None:
    """What the number of certification cases can at best show."""
    for b in best:
        if b["limit"] is None:
            console.print(f"At best:    {b['units']} {kind}s; what they show of {b['clause']} "
                          "depends on the data")  # fmt: skip
        else:
            console.print(f"At best:    {b['units']} {kind}s with nothing changed show "
                          f"{b['limit']:.4g} of {b['clause']}")  # fmt: skip


_ALONE = {
    "HELD": "it holds the contract",
    "BROKEN": "it breaks the contract",
    "UNDECIDED": "it is not shown to hold the contract",
}


def said(name: str, text: str) -> None:
    """A line that starts with its name, wrapped where it is long."""
    lead = f"{name + ':':12}"
    lines = textwrap.wrap(
        kept_together(text), WIDE, initial_indent=lead, subsequent_indent=" " * 12,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
    console.print("\n".join(lines).replace("\u00a0", " "))


def found(summary: Mapping[str, Any]) -> None:
    """The end of a compress run: what int8 would do, what was found, what was shown."""
    before(summary)
    if summary["result"] is None:
        # One line, however long: it is what is looked for in a log.
        console.print(f"Verdict:    nothing cheaper is offered: {summary['reason']}")
        curve(summary)
        missed(summary)
        return
    gained(summary, summary["result"])
    curve(summary)
    for which, q in summary.get("quality", {}).items():
        numbers = ", ".join(f"{k} {v:.4f}" for k, v in q.items() if k != "rows")
        if numbers:
            said("Quality", f"{which}: {numbers} on {q['rows']:.0f} labelled rows")
    spent = summary["spent"]
    said("Spent", f"{spent['inferences']:,} full-equivalent inferences (rows through "
         f"any model), {spent['seconds']:.0f} s")  # fmt: skip
    missed(summary)
    for note in summary["certificate"]["note"]:
        said("Note", note)
    console.print()
    shown = summary["certificate"]
    clauses(shown["clauses"], shown.get("alpha", summary["contract"]["alpha"]))


def before(summary: Mapping[str, Any]) -> None:
    """What the reference takes, and what int8 everywhere would do."""
    raw, timed = summary.get("plain_int8"), summary["result"] or summary.get("plan")
    if timed and timed.get("reference_s"):
        e = summary["environment"]
        said("fp32 takes", f"{duration(timed['reference_s'])} a case ({e['threads']} thread"
             f"{'s'[: e['threads'] > 1]}, batch {e['batch']})")  # fmt: skip
    if raw:
        # A variant that was given is what was timed, whatever it holds.
        name = "Given" if (summary.get("goal") or {}).get("given") else "Plain int8"
        said(name, f"{raw['speedup']:.2f}x as fast as fp32; alone "
             f"{_ALONE[raw['verdict']]}: {limit_text(raw['clauses'][0])}")  # fmt: skip


def gained(summary: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    """What is deployed, its speed and its size."""
    said("Found", deployed.sentence(summary))
    said("Speed", f"{result['speedup']:.2f}x as fast as fp32 ({result['low']:.2f} to "
         f"{result['high']:.2f}), {duration(result['candidate_s'])} a case")  # fmt: skip
    said("Size", f"{size(result['bytes'])}; the reference has {size(summary['model']['bytes'])}")
    cost = goal.cost_of(summary, result)
    if goal.is_estimate(summary) and cost is not None:
        said("Estimate", f"{goal.in_unit(summary, cost)} ({goal.cost_name(summary)})")


def curve(summary: Mapping[str, Any]) -> None:
    """How many points of a certified curve hold; nothing for other runs."""
    if not summary.get("curve"):
        return
    m, steps = summary["curve"]["points"], summary["steps"]
    held = sum(s["verdict"] == "HELD" for s in steps)
    said("Curve", f"{held} of {m} points hold the contract; all {m} limits hold at once with "
         f"{1 - summary['contract']['alpha']:.4g} confidence")  # fmt: skip


def missed(summary: Mapping[str, Any]) -> None:
    """What was left out: runtimes that are not installed, and how many variants failed."""
    out = left_out(summary)
    for note in out.missing:
        said("Missing", note)
    for note in out.other:
        said("Note", note)
    if out.skipped:
        n = len(out.skipped)
        said("Left out", f"{n} variant{'s'[: n > 1]} that could not be built or run; "
             "see the report")  # fmt: skip


def where(out: Path, model: Path | str, cases: str, summary: Mapping[str, Any]) -> None:
    """Where the results are, and how to check them again from a file of cases."""
    result = summary["result"]
    if result is not None:
        first, *rest = (name for name, _ in deployed.files(summary))
        beside = f", with {', '.join(rest)} beside it" if rest else ""
        console.print(f"\nDeploy:     {out / first}{beside}")
        if cases:
            console.print(f"Check:      justenough verify {out / 'certificate.json'} "
                          f"--reference {model} --cases {cases}")  # fmt: skip
    else:
        console.print()
    console.print(f"Look:       {out / 'report.html'}")
