"""`justenough study NAME`: questions asked of the world, answered again from the start."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from justenough.cli import options, show

app = typer.Typer(
    help="Run a study: its data, its analyses, a report.", no_args_is_help=True,
    rich_markup_mode=None,
)  # fmt: skip


@app.command()
def heavystats(
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the results.")] = Path(
        "heavystats-out"
    ),
    option: Annotated[
        Literal["A", "B", "C", "D"] | None,
        typer.Option(
            help="A: Monte Carlo. B: posteriors. C: all eight analyses. D: the quick ones. [C]"
        ),
    ] = None,
    conversations: Annotated[
        float | None, typer.Option(help="How many to make up, such as 1e6. [1e6]")
    ] = None,
    cases: Annotated[
        Path | None,
        typer.Option(
            "--cases",
            help="A table of your own in their place (.parquet, .csv, .npz): columns decay, "
            "surprise, relevance, habituation, importance, conversation.",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything that is drawn. [0]")] = None,
    compare: Annotated[
        Path | None,
        typer.Option(help="bundle.json of another run: do what it did, and say what differs."),
    ] = None,
) -> None:
    """Which weights of four signals predict importance, and how sure can one be?"""
    from justenough.studies.heavystats import study

    asked, theirs = study.ask(option, conversations, cases, seed, compare)
    out.mkdir(parents=True, exist_ok=True)
    with show.study_bar(len(study.STAGES[asked.option])) as progress:
        results = study.run(asked, out, progress)
    for line in study.said(results):
        show.console.print(line)
    show.console.print(f"\nLook:    {out / 'report.html'}\nBundle:  {out / 'bundle.json'}")
    if theirs is not None:
        raise typer.Exit(_compared(theirs, results["stages"]))


@app.command()
def neurons(  # noqa: PLR0913 - one for each option
    n: Annotated[float, typer.Option("--n", help="Neurons of the area.")] = 1e6,
    k: Annotated[float, typer.Option("--k", help="How many fire at once.")] = 1000,
    p: Annotated[float, typer.Option("--p", help="Probability of a synapse.")] = 0.01,
    beta: Annotated[float, typer.Option("--beta", help="Plasticity, 0 to 1.")] = 0.05,
    rounds: Annotated[float, typer.Option("--rounds", help="Of the projection.")] = 25,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            "--keep",
            metavar="CLAUSE",
            help="within_tolerance(EPS, output=NAME) >= SHARE, or relative_within. Names: "
            "support, settled, completion, winner_overlap. Repeatable. [support within 10 %, "
            "settled within 3 rounds, completion within 0.05, each on 90 % of graphs]",
        ),
    ] = None,
    contract: options.ContractOption = None,
    alpha: options.AlphaOption = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            help="Graphs to judge each simulator on. [what the contract takes, and some more]"
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the results.")] = Path(
        "neurons-study-out"
    ),
) -> None:
    """Which simulator of neural assemblies, in which formats, is the cheapest that will do?"""
    from justenough.core.evidence import Verdict
    from justenough.studies.neurons import study

    terms = None
    if keep or contract is not None or alpha is not None:
        given = keep or (list(study.KEEP) if contract is None else [])
        terms = options.contract_of(given, contract, alpha, None)
    sizes = {"n": n, "k": k, "p": p, "beta": beta, "rounds": rounds}
    asked = study.ask(sizes, terms, seeds, seed)
    out.mkdir(parents=True, exist_ok=True)
    with show.study_bar(len(study.STAGES)) as progress:
        results = study.run(asked, out, progress)
    for line in study.said(results):
        show.console.print(line)
    show.console.print(f"\nUse:     {out / 'simulator.json'}\nLook:    {out / 'report.html'}")
    raise typer.Exit(Verdict(results["verdict"]).exit_code)


def _compared(theirs: object, ours: object) -> int:
    """Say where two runs differ; 0 where nowhere, 1 elsewhere."""
    from justenough.studies.heavystats.bundle import Difference, differences

    found = list(differences(theirs, ours))
    for d in found[:20]:
        if isinstance(d, Difference):
            show.console.print(
                f"Differs: {d.where}: {d.theirs:.8g} there, {d.ours:.8g} here; "
                f"{d.allowed:.2g} is allowed"
            )
        else:
            show.console.print(f"Differs: {d}")
    if len(found) > 20:
        show.console.print(f"... and {len(found) - 20} more")
    if not found:
        show.console.print("Same:    every number of the bundle came out again, within its error")
    return 1 if found else 0
