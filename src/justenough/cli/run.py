"""`justenough run`: answer cases with what a compress run deployed."""

from pathlib import Path
from typing import Annotated

import typer

from justenough.cli import options, show
from justenough.errors import InputError


def run(  # noqa: PLR0913 - one for each option
    model: Annotated[Path, typer.Argument(help="An ONNX file or a cascade.toml.")],
    cases: options.CasesOption,
    out: Annotated[Path, typer.Option("-o", "--out", help="Answers to write (.npz).")],
    batch: options.BatchOption = 32,
    threads: options.ThreadsOption = 1,
    image: options.ImageOption = None,
    mean: options.MeanOption = "",
    std: options.StdOption = "",
    layout: options.LayoutOption = "nchw",
) -> None:
    """Answer cases with MODEL: its outputs, and with a cascade which rows were deferred."""
    import numpy as np

    from justenough.deploy.deployment import load

    if out.exists():
        raise InputError(f"{str(out)!r} exists; answers are never overwritten, name another")
    if out.suffix != ".npz" or not out.parent.is_dir():
        raise InputError(f"{str(out)!r} is no .npz file in a folder that exists")
    subject = load(model, threads, batch)
    given = options.cases_of(cases, subject.input_names, image, mean, std, layout)
    answers = subject.run(subject.check_cases(given).inputs)
    part = out.with_suffix(".part")
    with part.open("wb") as f:
        np.savez(f, **answers)  # type: ignore[arg-type]
    part.replace(out)
    shapes = ", ".join(f"{k} {v.shape}" for k, v in answers.items())
    show.console.print(f"{given.n} cases answered by {model.name}: {shapes}\nAnswers: {out}")
