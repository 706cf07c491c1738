"""The documents keep up: links exist, snippets run, tables are what the code says."""

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from justenough.core.contract import METRICS, Clause, load_contract
from justenough.core.judge import at_best
from justenough.stats.proportion import units_needed
from justenough.stats.ranks import best_spearman_lower

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("src/**/*.md")],
    key=lambda p: p.relative_to(ROOT),
)
RUN = [ROOT / "README.md", ROOT / "docs" / "guide.md"]
FORBIDDEN = re.compile(
    r"/work/|/tmp/|/root/|/home/|/opt/|localhost|TODO|FIXME",
    re.IGNORECASE,
)
MARK = re.compile(
    r"(?:^<!-- (?P<mark>[^>]*) -->\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.M | re.S
)
LINK = re.compile(r"\]\((?!https?:|mailto:|doi:)([^)#\s]*)(#[^)\s]*)?\)")


@dataclass(frozen=True)
class Snippet:
    """A fenced block, and what its mark says: run, run slow, run MODULE, file NAME, shown."""

    mark: str
    language: str
    text: str
    where: str

    @property
    def words(self) -> list[str]:
        return self.mark.split()


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def snippets(path: Path) -> Iterator[Snippet]:
    text = path.read_text()
    for m in MARK.finditer(text):
        line = text.count("\n", 0, m.start()) + 1
        yield Snippet(m["mark"] or "", m["language"], m["text"], f"{named(path)}:{line}")


# What stands in the documents


@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
def test_links_lead_somewhere(path: Path) -> None:
    for target, anchor in LINK.findall(path.read_text()):
        found = (path.parent / target).resolve() if target else path
        assert found.exists(), f"{target} is not there"
        if anchor and found.suffix == ".md":
            assert anchor[1:] in anchors(found), f"{target} has no heading {anchor}"


def anchors(path: Path) -> set[str]:
    """Anchors of the headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in heads}


@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
def test_files_that_are_named_exist(path: Path) -> None:
    for name in re.findall(r"`((?:tests|src|benchmarks)/[\w./]+)`", path.read_text()):
        assert (ROOT / name).exists(), f"{name} is not there"


@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
def test_nothing_is_said_that_only_one_machine_knows(path: Path) -> None:
    found = FORBIDDEN.search(path.read_text())
    assert found is None, f"{named(path)} says {found and found[0]!r}"


def test_the_readmes_commands_are_in_the_makefile() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    documents = "\n".join(p.read_text() for p in DOCUMENTS)
    asked = set(re.findall(r"(?:^|`)make (\w+)", documents, re.MULTILINE))
    assert {"demo", "test"} <= asked <= targets


@pytest.mark.parametrize("path", RUN, ids=named)
def test_every_snippet_says_whether_it_runs(path: Path) -> None:
    for s in snippets(path):
        assert s.mark in ("run", "run slow", "shown") or s.words[0] in ("run", "file"), s.where


def test_every_clause_is_explained() -> None:
    guide = (ROOT / "docs/guide.md").read_text()
    for metric, known in METRICS.items():
        argument = r"\([^)]+\)" if known.argument else ""
        assert re.search(rf"^\| `{metric}{argument} [<>]= ", guide, re.MULTILINE), metric


def test_tables_are_what_the_code_says() -> None:
    guide = (ROOT / "docs/guide.md").read_text()
    for share in (0.95, 0.98, 0.99, 0.995, 0.999):
        needed = [units_needed(k, at_least=share, alpha=0.05) for k in (0, 1, 2, 3, 5, 10)]
        cells = [f"{100 * share:g} %", *(f"{n:,}" for n in (*needed, units_for_mean(share)))]
        assert f"| {' | '.join(cells)} |" in guide
    shown = [f"{best_spearman_lower(g, alpha=0.05):.3f}" for g in (100, 300, 1000, 3000)]
    assert f"| rho shown at best | {' | '.join(shown)} |" in guide


def units_for_mean(share: float) -> int:
    """Smallest number of units that shows `share` with per=mean and nothing changed."""
    clause = Clause("decision_stability", share, per="mean")

    def shown(n: int) -> bool:
        best = at_best(clause, n, 0.05)
        return best is not None and best >= share

    low, high = 1, 2
    while not shown(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if shown(middle) else (middle, high)
    return high


def test_licences_name_every_direct_dependency_and_its_version() -> None:
    text = (ROOT / "docs/licences.md").read_text()
    pins = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line and not line.startswith("#")
    )
    pinned = {name.lower().replace("_", "-"): v for name, v in pins.items()}
    extras = project()["optional-dependencies"].values()
    for line in (*project()["dependencies"], *(d for extra in extras for d in extra)):
        name = re.split(r"[^\w.-]", line)[0].lower()
        row = re.search(rf"^\| {name} \| ([^ |]+) \| ", text, re.MULTILINE)
        assert row, f"{name} is missing"
        assert row[1] == pinned[name.replace("_", "-")]


def test_the_changelog_knows_this_version() -> None:
    assert f"\n## [{project()['version']}]" in (ROOT / "CHANGELOG.md").read_text()


def project() -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return table


# What runs


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A classifier of four clouds: random features, a last layer fitted by ridge regression."""
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(2000), 2)
    labels = rng.integers(0, 4, len(patients))
    centres = rng.normal(size=(4, 64)).astype(np.float32)
    x = (centres[labels] + 0.8 * rng.normal(size=(len(labels), 64))).astype(np.float32)
    first, second = (rng.normal(size=s) / s[0] ** 0.5 for s in ((64, 512), (512, 512)))
    hidden = np.maximum(np.maximum(x @ first, 0) @ second, 0)
    last = np.linalg.solve(hidden.T @ hidden + np.eye(512), hidden.T @ (2 * np.eye(4)[labels]))
    write_net([first, second, last], tmp_path / "model.onnx")
    for name, value in (("x", x), ("patients", patients), ("labels", labels)):
        np.save(tmp_path / f"{name}.npy", value)
    return tmp_path


def write_net(weights: list[NDArray[np.float64]], path: Path) -> None:
    nodes, constants, here = [], [], "x"
    for k, w in enumerate(weights):
        constants.append(numpy_helper.from_array(w.astype(np.float32), f"w{k}"))
        out = "scores" if k == len(weights) - 1 else f"h{k}"
        nodes.append(helper.make_node("Gemm", [here, f"w{k}"], [out], name=f"layer{k}"))
        if out != "scores":
            nodes.append(helper.make_node("Relu", [out], [f"r{k}"], name=f"relu{k}"))
            here = f"r{k}"
    faces = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", size])
        for name, size in (("x", 64), ("scores", 4))
    ]
    graph = helper.make_graph(nodes, "net", faces[:1], faces[1:], constants)
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), str(path))


def execute(s: Snippet, folder: Path) -> None:
    """Run or write one snippet in `folder`; a module that is not installed leaves it out."""
    what = s.words[1] if len(s.words) > 1 else ""
    if s.words[0] == "file":
        (folder / what).write_text(s.text)
        if s.language == "toml":
            load_contract(folder / what)
        return
    if s.words[0] != "run" or (what not in ("", "slow") and find_spec(what) is None):
        return
    (folder / "bin").mkdir(exist_ok=True)
    program = folder / "bin" / "justenough"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m justenough "$@"\n')
    program.chmod(0o755)
    seen = {
        **os.environ,
        "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([".", str(ROOT / "src")]),
    }
    shell = ["bash", "-euo", "pipefail", "-c"]
    call = [*shell, s.text] if s.language == "bash" else [sys.executable, "-c", s.text]
    # PYTHONPATH=. in a snippet must not hide the package under test.
    call = [c.replace("PYTHONPATH=. ", "") for c in call]
    got = subprocess.run(call, cwd=folder, env=seen, capture_output=True, text=True, check=False)
    assert got.returncode == 0, f"{s.where}: exit {got.returncode}\n{got.stdout}\n{got.stderr}"


def test_the_cheap_python_of_the_guide_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    for s in snippets(ROOT / "docs/guide.md"):
        if s.words[:1] == ["file"]:
            execute(s, folder)
        elif s.mark == "run" and s.language == "python":
            exec(compile(s.text, s.where, "exec"), {})


@pytest.mark.slow
@pytest.mark.parametrize("path", RUN, ids=named)
def test_all_snippets_run_in_their_order(path: Path, folder: Path) -> None:
    x, patients = np.load(folder / "x.npy"), np.load(folder / "patients.npy")
    np.savez(folder / "cases.npz", x=x, groups=patients)
    for s in snippets(path):
        execute(s, folder)
