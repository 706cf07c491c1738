"""`justenough verify`: run a certificate again and say what differs."""

from pathlib import Path
from typing import Annotated

import typer

from justenough.cli import options, show


def run(  # noqa: PLR0913 - one for each option
    certificate: Annotated[Path, typer.Argument(help="certificate.json")],
    reference: Annotated[Path, typer.Option("--reference", help="The reference model.")],
    cases: options.CasesOption,
    candidate: Annotated[
        Path | None,
        typer.Option("--candidate", help="The certified file. [model.onnx beside it]"),
    ] = None,
    keep: options.KeepOption = [],  # noqa: B006 - typer reads it, nobody writes it
    image: options.ImageOption = None,
    mean: options.MeanOption = "",
    std: options.StdOption = "",
    layout: options.LayoutOption = "nchw",
) -> None:
    """Run a certificate again: same files, same cases, this machine. Say what differs."""
    from justenough.core.cases import CertificationCases, split
    from justenough.core.certificate import (
        contract_in,
        differences,
        number_in,
        read_certificate,
        shares_in,
    )
    from justenough.deploy.certify import certify
    from justenough.deploy.deployment import load
    from justenough.subjects.onnx_model import OnnxModel, load_proto

    body = read_certificate(certificate)
    terms = contract_in(body, keep)
    # Only the name: a certificate is untrusted and may not point out of its folder.
    named = Path(str(body["candidate"].get("file", ""))).name or "model.onnx"
    candidate = candidate or certificate.parent / named
    load_proto(reference)
    load(candidate)
    given = OnnxModel(reference).check_cases(
        options.cases_of(cases, OnnxModel(reference).input_names, image, mean, std, layout)
    )
    fresh = CertificationCases(given)
    if given.fingerprint != body["cases"].get("fingerprint"):
        fresh = split(given, shares_in(body)).certification
    batch, threads = (number_in(body["runtime"], k) for k in ("batch", "threads"))
    got = certify(reference, candidate, fresh, terms, batch=batch, threads=threads)
    found = differences(body, got)
    for line in found:
        show.console.print(f"differs: {line}")
    if not found:
        show.console.print("Nothing differs: files, cases, runtime and every number are the same.")
    show.console.print(f"Verdict: {got.verdict.value} (certificate: {body['verdict']})")
    raise typer.Exit(got.verdict.exit_code if got.verdict.value == body["verdict"] else 1)
