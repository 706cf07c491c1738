"""House rules that no linter knows."""

import ast
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "justenough"
SOURCES = sorted(PACKAGE.rglob("*.py"))
FILES = [*SOURCES, *sorted((ROOT / "tests").rglob("*.py"))]
BANNED = {
    "utils", "util", "helpers", "helper", "misc", "common", "manager", "handler", "registry",
    "factory", "kwargs",
}  # fmt: skip
HEAVY = ("torch", "onnx", "onnxruntime", "scipy", "plotly")
MACHINE = re.compile(r"/(?:root|home|work|Users)/\w")


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_file_is_small_named_and_described(path: Path) -> None:
    found = tree(path)
    assert path.read_text(encoding="utf-8").count("\n") <= 500
    assert path.stem not in BANNED
    assert (ast.get_docstring(found) or "").splitlines()[:1], "first line: what it is for"
    roots = [
        n for n in ast.walk(found) if isinstance(n, ast.ImportFrom) and n.module == "justenough"
    ]
    assert not roots, "import from the room that owns the name, not from the package root"
    if path.name == "__init__.py" and path.parent != PACKAGE:
        assert len(found.body) == 1, "a room's __init__ holds its docstring only"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_banned_name_and_no_path_of_one_machine(path: Path) -> None:
    words: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            words |= set(re.split(r"_|(?<=[a-z])(?=[A-Z])", node.name))
        elif isinstance(node, ast.arg) and node.arg != "tmp_path_factory":  # pytest's own
            words |= set(node.arg.split("_"))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            assert not MACHINE.search(node.value), f"a path of one machine: {node.value!r}"
    assert not {w.lower() for w in words} & BANNED


def test_every_room_has_a_place_in_the_layers() -> None:
    """import-linter checks this too; here it does not need to be installed."""
    layers = re.search(r"layers = \[(.*?)\]", (ROOT / "pyproject.toml").read_text(), re.DOTALL)
    assert layers
    known = set(re.findall(r"\w+", layers[1])) | {"__main__", "errors", "__init__"}
    rooms = {
        p.stem for p in PACKAGE.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()
    }
    assert rooms <= known


@pytest.mark.parametrize(
    "code",
    [
        "import justenough; dir(justenough)",
        "import sys, runpy\nsys.argv = ['justenough', '--help']\n"
        "try: runpy.run_module('justenough', run_name='__main__')\nexcept SystemExit: pass",
        "import sys, runpy\nsys.argv = ['justenough', 'compress', '--help']\n"
        "try: runpy.run_module('justenough', run_name='__main__')\nexcept SystemExit: pass",
    ],
    ids=["import", "help", "help of a verb"],
)
def test_start_is_lean(code: str) -> None:
    ask = f"{code}\nimport sys; print('!', [m for m in {HEAVY!r} if m in sys.modules])"
    out = subprocess.run(
        [sys.executable, "-c", ask],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(PACKAGE.parent)},
    )
    assert out.stdout.splitlines()[-1] == "! []"


def test_public_names_can_all_be_loaded() -> None:
    import justenough

    assert len(justenough.__all__) <= 16
    for name in justenough.__all__:
        assert getattr(justenough, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'Cases2'"):
        justenough.Cases2  # noqa: B018


def test_every_verb_is_offered() -> None:
    from justenough.cli.main import app

    offered = {c.name for c in app.registered_commands} | {g.name for g in app.registered_groups}
    files = {p.stem for p in (PACKAGE / "cli").glob("*.py")}
    assert offered == files - {"__init__", "main", "options", "show"}


@pytest.mark.slow
def test_the_wheel_has_all_that_a_run_needs(tmp_path: Path) -> None:
    build = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--disable-pip-version-check"]
    got = subprocess.run(
        [sys.executable, *build, "-w", str(tmp_path), str(ROOT)],
        capture_output=True,
        text=True,
        check=False,
    )
    if got.returncode and "hatchling" in got.stderr:
        pytest.skip("no network to fetch the build tool from")
    assert got.returncode == 0, got.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as z:
        held = set(z.namelist())
    needed = {f"justenough/{p.relative_to(PACKAGE)}" for p in SOURCES}
    beside = {".onnx", ".j2", ".css", ".js", ".toml", ".cu"}
    needed |= {
        f"justenough/{p.relative_to(PACKAGE)}" for p in PACKAGE.rglob("*") if p.suffix in beside
    }
    assert "justenough/studies/nodules/model.onnx" in needed
    assert "justenough/report/report.html.j2" in needed
    assert needed <= held
    assert not any("test" in Path(n).parts or "__pycache__" in n for n in held)


def test_modules_that_need_torch_are_left_out_without_it() -> None:
    asked = (ROOT / "conftest.py").read_text(encoding="utf-8")
    need = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "src").rglob("*.py")
        if re.search(r"^(import|from) torch\b", path.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert len(need) > 5
    assert [path for path in need if f'"{path}"' not in asked] == []
