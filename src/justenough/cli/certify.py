"""`justenough certify`: judge any two ONNX files on fresh cases."""

import json
from pathlib import Path
from typing import Annotated

import typer

from justenough.cli import options, show
from justenough.core.evidence import Verdict
from justenough.errors import InputError


def run(  # noqa: PLR0913 - one for each option
    reference: Annotated[Path, typer.Argument(help="The model whose decisions are to be kept.")],
    candidate: Annotated[
        Path, typer.Argument(help="Any ONNX file with the same outputs, or a cascade.toml.")
    ],
    cases: options.CasesOption,
    out: Annotated[Path, typer.Option("-o", "--out", help="Certificate to write (JSON).")],
    keep: options.KeepOption = [],  # noqa: B006 - typer reads it, nobody writes it
    contract: options.ContractOption = None,
    alpha: options.AlphaOption = None,
    population: options.PopulationOption = None,
    batch: options.BatchOption = 32,
    threads: options.ThreadsOption = 1,
    image: options.ImageOption = None,
    mean: options.MeanOption = "",
    std: options.StdOption = "",
    layout: options.LayoutOption = "nchw",
) -> None:
    """Judge CANDIDATE against REFERENCE on cases that nobody searched on."""
    from justenough.core.cases import CertificationCases
    from justenough.core.judge import prospects
    from justenough.deploy.certify import certify
    from justenough.deploy.deployment import load
    from justenough.deploy.export import write_text
    from justenough.subjects.onnx_model import OnnxModel, load_proto

    terms = options.contract_of(keep, contract, alpha, population)
    if out.exists():
        raise InputError(f"{str(out)!r} exists; certificates are never overwritten, name another")
    if not out.parent.is_dir():
        raise InputError(f"there is no folder {str(out.parent)!r} to put {out.name!r} in")
    load_proto(reference)
    load(candidate)
    names = OnnxModel(reference).input_names
    fresh = CertificationCases(options.cases_of(cases, names, image, mean, std, layout))
    got = certify(reference, candidate, fresh, terms, batch=batch, threads=threads)
    write_text(out, got.to_json())
    show.console.print(
        f"{candidate.name} against {reference.name} on {got.cases['n']} cases"
        + (f" of {got.cases['units']} groups" if got.cases["groups"] else "")
    )
    for note in got.note:
        show.console.print(f"Note: {note}")
    show.console.print(f"Verdict: {got.verdict.value}: {got.verdict.sentence}\n")
    show.clauses(json.loads(got.to_json())["clauses"], terms.alpha)
    for clause, e in zip(terms.clauses, got.evidence, strict=True):
        if e.verdict is Verdict.UNDECIDED:
            show.console.print(f"{clause.text}: {prospects(e, clause, terms.alpha)}")
    show.console.print(f"\nCertificate: {out}")
    raise typer.Exit(got.verdict.exit_code)
