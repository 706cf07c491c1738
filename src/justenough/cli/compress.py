"""`justenough compress`: find the cheapest variant that keeps the contract, and prove it."""

from pathlib import Path
from typing import Annotated

import typer

from justenough.cli import options, show
from justenough.errors import InputError


def run(  # noqa: PLR0913 - one for each option
    model: Annotated[Path, typer.Argument(help="ONNX file, opset 13 or later.")],
    cases: options.CasesOption,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the results.")],
    keep: options.KeepOption = [],  # noqa: B006 - typer reads it, nobody writes it
    contract: options.ContractOption = None,
    certify_cases: Annotated[
        Path | None,
        typer.Option("--certify-cases", help="Fresh cases given apart, instead of a split."),
    ] = None,
    shares: Annotated[
        str, typer.Option(help="Shares of calibration, search and certification cases.")
    ] = "0.15,0.15,0.70",
    alpha: options.AlphaOption = None,
    population: options.PopulationOption = None,
    batch: options.BatchOption = 32,
    threads: options.ThreadsOption = 1,
    minimise: Annotated[
        str, typer.Option(help="latency (measured), bytes, or energy-estimate.")
    ] = "latency",
    target: Annotated[
        str,
        typer.Option(help="this-machine (measured), or a profile for estimates, such as rx580."),
    ] = "this-machine",
    runtime: Annotated[
        list[str],
        typer.Option(
            "--runtime",
            help="Runtimes that may be deployed; repeatable."
            " [onnxruntime and openvino, where installed]",
        ),
    ] = [],  # noqa: B006 - typer reads it, nobody writes it
    pin: Annotated[
        list[str], typer.Option("--pin", metavar="SITE=CHOICE", help="Settle a site; repeatable.")
    ] = [],  # noqa: B006 - as above
    variant: Annotated[
        Path | None,
        typer.Option("--variant", help="Take this variant.toml as it is; nothing is searched."),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option("--budget", help="Such as 90s or 10m; then the best so far is certified."),
    ] = None,
    curve: Annotated[
        bool, typer.Option("--curve", help="Certify every point between safe and bold at once.")
    ] = False,
    workers: Annotated[
        str,
        typer.Option("--workers", help="Local processes, or ray, or ray://HOST:PORT."),
    ] = "1",
    image: options.ImageOption = None,
    mean: options.MeanOption = "",
    std: options.StdOption = "",
    layout: options.LayoutOption = "nchw",
) -> None:
    """Find the cheapest variant of MODEL that keeps the contract, and prove it."""
    from justenough.road import compress
    from justenough.search.goal import Goal, pin_in, seconds_in
    from justenough.subjects.onnx_model import OnnxModel, load_proto
    from justenough.variant_file import read_variant_toml

    terms = options.contract_of(keep, contract, alpha, population)
    parts = shares_of(shares)
    goal = Goal(
        minimise, target, tuple(runtime) or Goal.runtimes, tuple(map(pin_in, pin)),
        None if variant is None else read_variant_toml(variant),
        None if budget is None else seconds_in(budget), curve, workers,
    )  # fmt: skip
    load_proto(model)
    names = OnnxModel(model).input_names
    given = options.cases_of(cases, names, image, mean, std, layout)
    fresh = None
    if certify_cases is not None:
        fresh = options.cases_of(certify_cases, names, image, mean, std, layout)
    show.console.print(f"Model:      {model.name}, {show.size(model.stat().st_size)}")
    for clause in terms.clauses:
        show.console.print(f"Contract:   {clause.text} at {1 - terms.alpha:.4g} confidence")
    with show.progress_bar() as progress:
        result = compress(
            model, given, terms, out, fresh=fresh, shares=parts, batch=batch, threads=threads,
            progress=progress, announce=lambda best: show.possible(best, given.unit_name),
            goal=goal,
        )  # fmt: skip
    if result.before:
        show.console.print("(This run had ended before; nothing was run again.)")
    show.found(result.summary)
    show.where(out, model, str(cases), result.summary)
    raise typer.Exit(result.verdict.exit_code)


def shares_of(text: str) -> tuple[float, float, float]:
    """Three positive numbers that add to 1."""
    try:
        a, b, c = (float(v) for v in text.split(","))
    except ValueError:
        raise InputError(
            f"--shares {text!r} is not three numbers, such as 0.15,0.15,0.70"
        ) from None
    return a, b, c
