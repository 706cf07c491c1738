"""`justenough claims`: the table, the page, and one check run again."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from small_world import ROOT, Cli, Ran, process, refused

from justenough.cli import show
from justenough.cli.claims import STUDIES
from justenough.ledger import read_ledger


@pytest.mark.parametrize("width", [40, 80, 100, 120])
def test_the_list_fits_the_terminal_and_ends_with_counts(
    width: int, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(show.console, "width", width)
    got = cli("claims", "--document", "002")
    assert got.code == 0 and got.err == ""
    *lines, last = got.out.splitlines()
    assert (lines[0].split() == ["claim", "claimed", "measured", "verdict"]) == (width >= 100)
    assert max(map(len, lines)) <= width
    assert last.startswith("12 claims: ")
    assert "000-" not in got.out


@pytest.mark.parametrize("width", [50, 80, 100, 120])
def test_no_word_is_broken(width: int, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(show.console, "width", width)
    shown = set(cli("claims").out.split())
    for c in read_ledger(STUDIES):
        assert {c.id, *c.claimed.split(), *c.measured.split(), *c.verdict.split()} <= shown


def test_filters_go_together(cli: Cli) -> None:
    got = cli("claims", "--study", "formats", "--verdict", "refuted", "--document", "001")
    assert got.code == 0
    ids = {line.split()[0] for line in got.out.splitlines() if line.startswith("001-")}
    assert "001-lns-memory" in ids
    assert got.out.splitlines()[-1] == f"{len(ids)} claims: {len(ids)} refuted"


def test_a_filter_that_nothing_passes_names_what_there_is(cli: Cli) -> None:
    refused(cli("claims", "--document", "009"), "--document '009'; there are 000, 001, 002")
    refused(cli("claims", "--study", "format"), "--study 'format'; there are", "formats")
    refused(cli("claims", "--verdict", "false"), "--verdict 'false'; there are", "refuted")


def test_the_page_is_written(cli: Cli, tmp_path: Path) -> None:
    got = cli("claims", "--page", tmp_path / "claims.md")
    assert got.code == 0
    assert (tmp_path / "claims.md").read_bytes() == (ROOT / "docs" / "claims.md").read_bytes()


def test_the_page_is_whole(cli: Cli, tmp_path: Path) -> None:
    page = tmp_path / "claims.md"
    refused(cli("claims", "--page", page, "--study", "formats"), "give --page without a filter")
    assert not page.exists()


def test_a_check_that_agrees_is_0() -> None:
    got = process("claims", "run", "001-lns-memory")
    assert got.code == 0, got.err
    assert "claimed   50%" in got.out
    assert got.out.count("0 %") == 2, "what was measured stands beside the ledger"
    assert "verdict   refuted\n  ledger    the same" in got.out


def test_what_cannot_be_run_is_refused(cli: Cli) -> None:
    refused(cli("claims", "run", "lns-memory"), "no claim has id 'lns-memory'", "001-lns-memory")
    refused(cli("claims", "run", "zzz"), "`justenough claims` lists them")
    refused(cli("claims", "run", "004-first-study"), "is not testable here; nothing measures it")
    refused(cli("claims", "run"), "give the ID of one claim, or --all")
    refused(cli("claims", "run", "001-lns-memory", "--all"), "give the ID of one claim, or --all")


@pytest.mark.slow
def test_all_checks_agree(cli: Cli) -> None:
    got = cli("claims", "run", "--all", "--study", "formats")
    assert got.code == 0, got.out
    assert got.out.splitlines()[-1].endswith("; 0 verdicts differ")


# A ledger that says something else: a copy of the package with one word changed


def changed(folder: Path, before: str, after: str, *args: str) -> Ran:
    """Run `justenough ARGS` of a copy whose formats study has `after` where it had `before`."""
    skip = shutil.ignore_patterns("*.onnx", "__pycache__")
    shutil.copytree(ROOT / "src", folder, ignore=skip)
    path = folder / "justenough" / "studies" / "formats" / "claims.toml"
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after, 1), encoding="utf-8")
    got = subprocess.run(
        [sys.executable, "-m", "justenough", *args],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(folder)},
    )
    return Ran(got.returncode, got.stdout, got.stderr)


LNS = 'verdict = "refuted"\ncheck = "lns_struct"'


def test_a_verdict_that_differs_is_1(tmp_path: Path) -> None:
    other = LNS.replace("refuted", "reproduced")
    got = changed(tmp_path / "src", LNS, other, "claims", "run", "001-lns-memory")
    assert got.code == 1, got.err
    assert "verdict   refuted\n  ledger    reproduced" in got.out


def test_a_wrong_row_is_2(tmp_path: Path) -> None:
    other = LNS.replace("refuted", "false")
    got = changed(tmp_path / "src", LNS, other, "claims")
    refused(got, "claim '001-lns-memory' has verdict 'false'; verdicts are reproduced, refuted")


def test_a_check_that_is_not_there_is_2(tmp_path: Path) -> None:
    other = LNS.replace("lns_struct", "lns")
    got = changed(tmp_path / "src", LNS, other, "claims", "run", "001-lns-memory")
    refused(got, "names check 'lns', which is not in justenough.studies.formats.claims")
