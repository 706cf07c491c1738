"""How results read on a terminal."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)


@contextmanager
def progress_bar() -> Iterator[Callable[[str, float], None]]:
    """A bar on stderr that follows stages; nothing when it is not a terminal."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    err = Console(stderr=True)
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task("reading", total=1.0)
        yield lambda stage, done: bar.update(task, description=stage, completed=done)


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
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def limit_text(e: Mapping[str, Any]) -> str:
    """What was shown of a clause."""
    if e["limit"] is None:
        return str(e["note"])
    changed = f"{e['changed']} of {e['n']} changed; " if e["changed"] is not None else ""
    return f"{changed}estimate {e['estimate']:.5g}, limit {e['limit']:.5g} {e['unit']}"


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
            f"{1 - alpha:.4g} confidence ({e['unit']}; {e['method']})"
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


def found(summary: Mapping[str, Any]) -> None:
    """The end of a compress run: what int8 would do, what was found, what was shown."""
    raw = summary.get("plain_int8")
    if raw:
        e, r = summary["environment"], summary["result"] or summary["plan"]
        console.print(f"fp32 takes: {duration(r['reference_s'])} a case ({e['threads']} thread"
                      f"{'s'[: e['threads'] > 1]}, batch {e['batch']})")  # fmt: skip
        console.print(f"Plain int8: {raw['speedup']:.2f}x as fast as fp32; alone "
                      f"{_ALONE[raw['verdict']]}: {limit_text(raw['clauses'][0])}")  # fmt: skip
    result = summary["result"]
    if result is None:
        console.print(f"Verdict:    nothing cheaper is offered: {summary['reason']}")
        return
    int8 = sum(c == "int8" for c in result["sites"].values())
    what = f"int8 at {int8} of {len(result['sites'])} sites"
    if result["kind"] == "cascade":
        what += f", {result['deferral']:.2%} of cases answered again by the exact model"
    console.print(
        f"Found:      {result['kind']}: {what}; {result['speedup']:.2f}x as fast as fp32 "
        f"({result['low']:.2f} to {result['high']:.2f}), "
        f"{duration(result['candidate_s'])} a case, {size(result['bytes'])}"
    )
    for which, q in summary.get("quality", {}).items():
        numbers = ", ".join(f"{k} {v:.4f}" for k, v in q.items() if k != "rows")
        if numbers:
            console.print(f"Quality:    {which}: {numbers} on {q['rows']:.0f} labelled rows")
    spent = summary["spent"]
    console.print(f"Spent:      {spent['inferences']:,} full-equivalent inferences (rows through "
                  f"any model), {spent['seconds']:.0f} s")  # fmt: skip
    for note in summary["certificate"]["note"]:
        console.print(f"Note:       {note}")
    console.print()
    clauses(summary["certificate"]["clauses"], summary["contract"]["alpha"])


def where(out: Path, model: Path | str, cases: str, summary: Mapping[str, Any]) -> None:
    """Where the results are, and how to check them again from a file of cases."""
    if summary["result"] is not None:
        console.print(f"\nDeploy:     {out / 'model.onnx'}")
        if cases:
            console.print(f"Check:      justenough verify {out / 'certificate.json'} "
                          f"--reference {model} --cases {cases}")  # fmt: skip
    else:
        console.print()
    console.print(f"Look:       {out / 'report.html'}")
