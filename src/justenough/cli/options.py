"""Options that several verbs share, and how their values are read."""

from pathlib import Path
from typing import Annotated

import typer

from justenough.core.cases import Cases, load_cases
from justenough.core.contract import METRICS, Contract, load_contract, parse_clause
from justenough.errors import InputError

CasesOption = Annotated[
    Path,
    typer.Option(
        "--cases",
        help=".npz with arrays named like the inputs (and 'labels', 'groups'), .npy for one "
        "input, or a folder of images with a subfolder for each class.",
    ),
]
KeepOption = Annotated[
    list[str],
    typer.Option(
        "--keep",
        metavar="CLAUSE",
        help='A clause, such as "decision_stability >= 0.995" or "auc_drop(output=y) <= 0.01". '
        "Repeatable. Metrics: " + ", ".join(METRICS) + ", module:function. Arguments: output=, "
        "per=any|mean|max (what makes a group changed), cut=, column=, axis=.",
    ),
]
ContractOption = Annotated[
    Path | None, typer.Option("--contract", help="The same clauses in a TOML file.")
]
AlphaOption = Annotated[
    float | None, typer.Option("--alpha", help="Allowed chance of a wrong certificate. [0.05]")
]
PopulationOption = Annotated[
    str | None, typer.Option("--population", help="Which cases this is about, in your words.")
]
BatchOption = Annotated[int, typer.Option("--batch", help="Rows of a call when deployed.")]
ThreadsOption = Annotated[int, typer.Option("--threads", help="Threads when deployed.")]
ImageOption = Annotated[
    str | None, typer.Option("--image", help="Size of images from a folder, such as 224x224.")
]
MeanOption = Annotated[
    str, typer.Option("--mean", help="Taken off each channel after scaling to 0..1: 0.485,0.456,…")
]
StdOption = Annotated[str, typer.Option("--std", help="Each channel is divided by it.")]
LayoutOption = Annotated[str, typer.Option("--layout", help="nchw or nhwc.")]


def contract_of(
    keep: list[str], file: Path | None, alpha: float | None, population: str | None
) -> Contract:
    """The contract that `--keep` or `--contract` says."""
    if file is not None:
        if keep or alpha is not None or population is not None:
            raise InputError(
                "give either --contract or --keep, --alpha and --population; not both"
            )
        return load_contract(file)
    if not keep:
        raise InputError('no contract given; add --keep "decision_stability >= 0.995"')
    clauses = tuple(parse_clause(k) for k in keep)
    return Contract(clauses, 0.05 if alpha is None else alpha, population or "")


def cases_of(
    path: Path,
    names: tuple[str, ...],
    image: str | None,
    mean: str,
    std: str,
    layout: str,
) -> Cases:
    """Cases from a file, or from a folder of images."""
    if not path.is_dir():
        if image is not None or mean or std or layout != "nchw":
            raise InputError(
                "--image, --mean, --std and --layout go with a folder of images; the cases are "
                "a file"
            )
        return load_cases(path, names)
    from justenough.subjects.images import load_images

    if len(names) != 1:
        raise InputError(f"a folder of images feeds one input, the model has {sorted(names)}")
    if image is None:
        raise InputError("a folder of images needs their size: --image 224x224")
    return load_images(path, names[0], image, mean=mean, std=std, layout=layout)
