"""The models of `make bench-compress`, their cases and contracts, fixed before any run."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from justenough.core.cases import Cases, load_cases
from justenough.core.contract import Contract, parse_clause
from justenough.subjects.onnx_model import OnnxModel

RELEASED = Path(__file__).parents[1] / "models"


@dataclass(frozen=True)
class Bench:
    """A model with its cases and what must not change, as plain values that a file can hold.

    Attributes:
        name: Short name; also that of its folder.
        title: For the table.
        model: ONNX file.
        cases: `.npz` file of all cases, with groups.
        keep: Clauses of the contract.
        batch: Rows of a call in the deployment that the search is for.
        transformer: Whether NNCF is told that the model is one, as its documentation asks.
        population: Who the cases stand for.
    """

    name: str
    title: str
    model: str
    cases: str
    keep: tuple[str, ...]
    batch: int
    transformer: bool = False
    population: str = ""

    @property
    def contract(self) -> Contract:
        """The contract, at 95 % confidence."""
        clauses = tuple(parse_clause(text) for text in self.keep)
        return Contract(clauses, population=self.population)

    @property
    def path(self) -> Path:
        """The model file."""
        return Path(self.model)

    def load(self) -> Cases:
        """All cases, in the model's own types."""
        reference = OnnxModel(self.path)
        return reference.check_cases(load_cases(Path(self.cases), reference.input_names))

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", "utf8")

    @staticmethod
    def read(path: Path) -> "Bench":
        """What `write` wrote."""
        held: dict[str, Any] = json.loads(path.read_text("utf8"))
        return Bench(**{**held, "keep": tuple(held["keep"])})


@dataclass(frozen=True)
class Given:
    """What a user hands over; a model whose data are not there is left out.

    Attributes:
        folder: Where models and cases that can be made are kept.
        xray: Tar of the chest X-rays; the networks on them are in this repository.
        skin: Tar of the skin lesions.
        skin_metadata: Their table.
        skin_weights: Weights trained on them, which may not be in any repository.
    """

    folder: Path
    xray: Path | None = None
    skin: Path | None = None
    skin_metadata: Path | None = None
    skin_weights: Path | None = None


def benches(given: Given) -> Iterator[Bench | str]:
    """The models in order; a sentence in place of one whose data are not there."""
    yield _nodules(given.folder)
    yield _retrieval(given.folder)
    yield from _xrays(given)
    yield _skin(given)


PICTURES = "decision_stability >= 0.995"


def _xrays(given: Given) -> Iterator[Bench | str]:
    """Two networks on the chest X-rays of children."""
    from justenough.studies.xray import data

    folder = given.folder / "xray"
    for name, title, network in (
        ("densenet", "DenseNet-121, chest X-rays 224x224", "densenet121"),
        ("chest-efficientnet", "EfficientNet-B0, chest X-rays 224x224", "efficientnet_b0"),
    ):
        weights = RELEASED / f"xray-{network}.fp16.safetensors"
        if given.xray is None:
            yield f"{name} is left out: no tar of chest X-rays was given (XRAY=)"
            continue
        cases = _made(folder / "cases.npz", partial(_write_xrays, given.xray))
        size = (data.SIDE, data.SIDE)
        model = _made(
            folder / f"{network}.onnx",
            partial(_write_network, weights, len(data.CLASSES), 1, size),
        )
        yield Bench(
            name, title, str(model), str(cases), (PICTURES,), 8,
            population="chest X-rays of children as in the groups held out, by person",
        )  # fmt: skip


def _skin(given: Given) -> Bench | str:
    """A network on skin lesions."""
    from justenough.studies.skin import data
    from justenough.train.held_out import write_cases

    name, folder = "skin-efficientnet", given.folder / "skin"
    if given.skin is None or given.skin_metadata is None or given.skin_weights is None:
        return (f"{name} is left out: images, their table and trained weights were not all given "
                "(SKIN=, SKIN_METADATA=, SKIN_WEIGHTS=)")  # fmt: skip
    tar, table = given.skin, given.skin_metadata
    cases = _made(folder / "cases.npz", lambda out: write_cases(data.load(tar, table), out))
    size = (data.HEIGHT, data.WIDTH)
    model = _made(
        folder / "efficientnet_b0.onnx",
        partial(_write_network, given.skin_weights, len(data.CLASSES), 3, size),
    )
    return Bench(
        name, "EfficientNet-B0, skin lesions 150x200", str(model), str(cases), (PICTURES,), 32,
        population="dermatoscopic images as in HAM10000, by lesion",
    )  # fmt: skip


def _made(path: Path, write: Callable[[Path], object]) -> Path:
    """The file at `path`, written now if it is not there."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name("part-" + path.name)
        write(part)
        part.replace(path)
    return path.resolve()


def _write_xrays(tar: Path, out: Path) -> None:
    from justenough.studies.xray import data
    from justenough.train.held_out import write_cases

    write_cases(data.load(tar), out)


def _write_network(
    weights: Path, classes: int, channels: int, size: tuple[int, int], out: Path
) -> None:
    from justenough.train.release import export, load_half

    network, said = load_half(weights, classes, channels)
    export(network, out, size, said)


def _nodules(folder: Path) -> Bench:
    """The demo's model with its cases."""
    from justenough.studies.nodules import data
    from justenough.studies.nodules.study import CONTRACT, MODEL

    cases = folder / "nodules" / "cases.npz"
    if not cases.is_file():
        cases.parent.mkdir(parents=True, exist_ok=True)
        save_cases(data.cases(data.load(cases.parent)), cases)
    return Bench(
        "nodules", "the demo: residual CNN, 0.7 M weights, 8 views of 64x64", str(MODEL),
        str(cases), tuple(c.text for c in CONTRACT.clauses), 32, population=CONTRACT.population,
    )  # fmt: skip


def _retrieval(folder: Path) -> Bench:
    """MiniLM as a searcher; made when it is not there yet."""
    from justenough.errors import InputError

    where = folder / "retrieval"
    if not (where / "cases.npz").is_file():
        from benchmarks.retrieval import build

        build(where)
    if not (where / "model.onnx").is_file():
        raise InputError(f"{where} holds cases and no model; move it away to have both made")
    return Bench(
        "retrieval",
        "MiniLM-L6 as a searcher: ten best of 1,740 docstrings for a query of 64 tokens",
        str(where / "model.onnx"), str(where / "cases.npz"),
        ("top_k_overlap(10, output=scores, axis=1, per=mean) >= 0.95",), 32, transformer=True,
        population="docstrings of Python packages, by source file",
    )  # fmt: skip


def save_cases(cases: Cases, path: Path) -> None:
    """Write cases as `load_cases` reads them, row by row from disk where they are large."""
    aside = {"labels": cases.labels, "groups": cases.groups}
    held = {k: np.asarray(v) for k, v in (*cases.inputs.items(), *aside.items()) if v is not None}
    part = path.with_name("part-" + path.name)
    with part.open("wb") as f:
        np.savez(f, allow_pickle=False, **held)
    part.replace(path)
