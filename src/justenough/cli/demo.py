"""`justenough demo`: the whole road on real annotations of lung nodules."""

from pathlib import Path
from typing import Annotated

import typer

from justenough.cli import show


def run(
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the results.")] = Path(
        "demo-out"
    ),
) -> None:
    """Compress and certify a lung-nodule network on real cases, end to end."""
    from justenough.road import compress
    from justenough.studies.nodules import data
    from justenough.studies.nodules.study import CONTRACT, MODEL

    say = show.console.print
    say("Lung nodules of LIDC-IDRI: 6,859 radiologists' annotations as 8 views of 64x64 pixels,")
    say("a residual network that rates malignancy, and groups that are patients.")
    card = MODEL.with_name("README.md")
    say(f"Not a medical device; what the network is worth is said in {card}\n")
    out.mkdir(exist_ok=True)
    cases = data.cases(data.load(out / "cases"))
    say(f"Cases:      {cases.n:,} annotations of {cases.n_units} patients")
    say(f"Reference:  {MODEL.name}, {show.size(MODEL.stat().st_size)}, fp32")
    for clause in CONTRACT.clauses:
        say(f"Contract:   {clause.text} at {1 - CONTRACT.alpha:.4g} confidence;")
        say("            a patient is changed when the decision of any annotation changes")
    with show.progress_bar() as progress:
        result = compress(
            MODEL, cases, CONTRACT, out / "run", progress=progress,
            announce=lambda best: show.possible(best, "patient"),
        )  # fmt: skip
    if result.before:
        show.console.print("(This run had ended before; nothing was run again.)")
    show.found(result.summary)
    show.where(out / "run", MODEL, "", result.summary)
    raise typer.Exit(result.verdict.exit_code)
