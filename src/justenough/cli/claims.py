"""`justenough claims`: what was claimed, what was measured, and whether it still is so."""

import textwrap
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

import justenough.studies
from justenough.cli import show
from justenough.errors import InputError
from justenough.ledger import (
    VERDICTS,
    Claim,
    Measured,
    counts,
    interval_text,
    page,
    read_ledger,
)

STUDIES = Path(justenough.studies.__path__[0])
app = typer.Typer(rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def table(
    context: typer.Context,
    document: Annotated[str, typer.Option("--document", help="Only this one, such as 003.")] = "",
    study: Annotated[str, typer.Option("--study", help="Only claims that it tests.")] = "",
    verdict: Annotated[str, typer.Option("--verdict", help="Only " + ", ".join(VERDICTS))] = "",
    page_file: Annotated[
        Path | None, typer.Option("--page", help="Write all of it to this Markdown file.")
    ] = None,
) -> None:
    """Show the ledger of claims and check every row of it."""
    if context.invoked_subcommand is not None:
        return
    claims = read_ledger(STUDIES)
    if page_file is not None:
        if document or study or verdict:
            raise InputError("the page holds all claims; give --page without a filter")
        page_file.write_text(page(claims), encoding="utf-8")
        show.console.print(f"{len(claims)} claims in {page_file}")
        return
    claims = only(claims, "document", document)
    claims = only(claims, "study", study)
    claims = only(claims, "kind", verdict)
    if show.console.width < show.WIDE:
        for c in claims:
            paragraph(c)
    else:
        show.console.print(side_by_side(claims))
    parts = [f"{n} {v}" for v, n in counts(claims).items() if n]
    show.console.print(f"{len(claims)} claims: {', '.join(parts)}")


def side_by_side(claims: tuple[Claim, ...]) -> Table:
    """Claims as a table, whose words are never broken."""
    rows = Table(box=None, pad_edge=False, header_style="bold")
    rows.add_column("claim", no_wrap=True)
    cells = [(c.claimed, _measured(c), c.verdict) for c in claims]
    for name, column in zip(
        ("claimed", "measured", "verdict"), zip(*cells, strict=True), strict=True
    ):
        words = [w for cell in column for w in cell.split()]
        rows.add_column(name, min_width=max(len(w) for w in [name, *words]))
    for c, row in zip(claims, cells, strict=True):
        rows.add_row(c.id, *row)
    return rows


def paragraph(claim: Claim) -> None:
    """Print a claim where there is no room for a table: id and verdict, then what they are."""
    width, indent = show.console.width, " " * 12
    texts = [f"{claim.id}  {claim.verdict}", f"  claimed   {claim.claimed}"]
    if claim.measured:
        texts.append(f"  measured  {_measured(claim)}")
    for text in texts:
        show.console.print(
            textwrap.fill(text, width, subsequent_indent=indent, break_on_hyphens=False)
        )


def _measured(claim: Claim) -> str:
    return f"{claim.measured} {interval_text(claim.low, claim.high)}".strip()


def only(claims: tuple[Claim, ...], key: str, value: str) -> tuple[Claim, ...]:
    """Claims whose `key` is `value`; all for an empty one.

    Raises:
        InputError: None has it.
    """
    if not value:
        return claims
    kept = tuple(c for c in claims if getattr(c, key) == value)
    if not kept:
        known = ", ".join(sorted({getattr(c, key) for c in claims} - {""}))
        option = "verdict" if key == "kind" else key
        raise InputError(f"no claim has --{option} '{value}'; there are {known}")
    return kept


@app.command()
def run(
    claim_id: Annotated[str, typer.Argument(metavar="ID", help="A claim, such as 000-pk-x.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="Every claim with a check.")] = False,
    study: Annotated[str, typer.Option("--study", help="With --all: of this study.")] = "",
) -> None:
    """Measure a claim again: exit 0 when the verdict is the ledger's, 1 when it differs."""
    ledger = read_ledger(STUDIES)
    if bool(claim_id) == everything:
        raise InputError("give the ID of one claim, or --all")
    if study and not everything:
        raise InputError("--study goes with --all; an ID names its study already")
    asked = only(ledger, "study", study)
    claims = [c for c in asked if c.check] if everything else [found(ledger, claim_id)]
    differ = 0
    for c in claims:
        measured = check_of(c)()
        differ += measured.verdict != c.verdict
        beside(c, measured)
    if everything:
        show.console.print(f"{len(claims)} claims measured; {differ} verdicts differ")
    raise typer.Exit(1 if differ else 0)


def found(ledger: tuple[Claim, ...], claim_id: str) -> Claim:
    """The claim with that id.

    Raises:
        InputError: There is none, or nothing measures it.
    """
    claim = next((c for c in ledger if c.id == claim_id), None)
    if claim is None:
        near = [c.id for c in ledger if claim_id in c.id][:5]
        hint = f"did you mean {', '.join(near)}" if near else "`justenough claims` lists them"
        raise InputError(f"no claim has id '{claim_id}'; {hint}")
    if not claim.check:
        raise InputError(f"claim '{claim_id}' is {claim.verdict}; nothing measures it")
    return claim


def check_of(claim: Claim) -> Callable[[], Measured]:
    """The function that measures a claim.

    Raises:
        InputError: The study has no such function.
    """
    module = import_module(f"justenough.studies.{claim.study}.claims")
    check: Callable[[], Measured] | None = getattr(module, claim.check, None)
    if check is None:
        raise InputError(
            f"claim '{claim.id}' names check '{claim.check}', which is not in {module.__name__}"
        )
    return check


def beside(claim: Claim, measured: Measured) -> None:
    """Print what was measured and what the ledger says."""
    say = show.console.print
    say(f"{claim.id}: {claim.quantity}")
    say(f"  claimed   {claim.claimed}")
    say(f"  measured  {measured.text} {interval_text(measured.low, measured.high)}")
    say(f"  ledger    {claim.measured} {interval_text(claim.low, claim.high)}")
    say(f"  verdict   {measured.verdict}")
    same = "the same" if measured.verdict == claim.verdict else claim.verdict
    say(f"  ledger    {same}")
    say(f"  {measured.said}")
