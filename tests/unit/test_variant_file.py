import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from justenough.core.gate import Gate
from justenough.core.subject import RUNTIMES, Runtime, Variant
from justenough.errors import DataReuseError, InputError
from justenough.search.goal import Given
from justenough.variant_file import read_variant_toml, write_variant_toml

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
RUNTIME = st.builds(
    Runtime, st.sampled_from(RUNTIMES), st.sampled_from(["fp32", "bf16", "fp16"]),
    st.sampled_from(["cpu", "cuda", "vulkan"]),
)  # fmt: skip
NUMBER = st.floats(-1e30, 1e30)
GATE = st.builds(
    Gate, NAMES, st.sampled_from(["top_k", "cut"]), st.integers(1, 9), st.integers(-3, 3),
    NUMBER, st.none() | st.integers(0, 9), NUMBER,
)  # fmt: skip
GIVEN = st.builds(
    Given,
    st.builds(
        Variant.of, st.dictionaries(NAMES, st.sampled_from(["int8", "int4-weight", "fp32"])),
        st.sampled_from(["minmax", "kl"]), RUNTIME, st.sampled_from(["full", "nncf", "plain"]),
        st.lists(NAMES, max_size=2).map(tuple),
    ),
    st.none() | GATE,
    st.none() | st.tuples(RUNTIME, NUMBER),
    cases=st.text("0123456789abcdef", max_size=8),
)  # fmt: skip
GIVEN_ONE = Given(
    Variant.of({"a": "int8", "b": "fp32"}, "kl", Runtime("openvino", "bf16"), "nncf"),
    Gate("y", threshold=0.25), (Runtime("openvino", "bf16"), 0.5), cases="c0ffee",
)  # fmt: skip
SITES = {"a": "int8", "b": "fp32"}


def put(folder: Path, text: str) -> Path:
    path = folder / "variant.toml"
    path.write_text(text, encoding="utf-8", errors="surrogateescape", newline="")
    return path


@given(GIVEN)
@settings(deadline=None, max_examples=150)
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, given: Given) -> None:
    text = write_variant_toml(given, dict(given.variant.picks))
    assert read_variant_toml(put(tmp_path_factory.mktemp("v"), text)) == given


@given(st.dictionaries(NAMES, NAMES), st.data())
@settings(deadline=None, max_examples=100)
def test_any_edit_of_an_entry_is_seen(
    tmp_path_factory: pytest.TempPathFactory, sites: Mapping[str, str], data: Any
) -> None:
    folder = tmp_path_factory.mktemp("v")
    given = Given(Variant.of(sites), Gate("y", threshold=0.25), cases="c0ffee")
    text = write_variant_toml(given, sites)
    assert not read_variant_toml(put(folder, text)).edited
    body = text.partition("[certified]")[0]
    at = data.draw(st.integers(0, len(body) - 1))
    mark = data.draw(st.sampled_from(["1", "x", "int4", "#", "\n", '"', " "]))
    changed = body[:at] + mark + text[at:]
    try:
        same = tomllib.loads(changed) == tomllib.loads(text)
        got = read_variant_toml(put(folder, changed))
    except (InputError, ValueError):
        return
    assert got.edited is not same
    if got.edited:
        with pytest.raises(DataReuseError):
            got.check_fresh("c0ffee")
    else:
        got.check_fresh("c0ffee")
    got.check_fresh("others")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"a" = "int8"', '"a" = "fp32"'),
        ('"b" = "fp32"\n', ""),
        ('"b" = "fp32"', '"b" = "fp32"\n"c" = "fp32"'),
        ("threshold = 0.25", "threshold = 0.125"),
        ("threshold = 0.5", "threshold = 0.25"),
        ("k = 1", "k = 2"),
        ('"kl"', '"minmax"'),
        ('form = "nncf"', 'form = "inputs"'),
        ("repairs = []", 'repairs = ["equalize"]'),
        ('[middle]\nruntime = "openvino bf16"', '[middle]\nruntime = "openvino"'),
        ("[cascade]", "[cascade]\ncolumn = 1"),
    ],
)
def test_each_edit_is_refused_on_the_same_cases_only(tmp_path: Path, old: str, new: str) -> None:
    text = write_variant_toml(GIVEN_ONE, SITES)
    assert text.count(old) == 1
    got = read_variant_toml(put(tmp_path, text.replace(old, new)))
    assert got.edited and got.cases == "c0ffee"
    with pytest.raises(DataReuseError, match="edited after these cases had certified it"):
        got.check_fresh("c0ffee")
    got.check_fresh("decaf")


@pytest.mark.parametrize(
    ("old", "new"),
    [("# Edit it", "# My notes"), ("\n[sites]", "\n\n\n[sites]"), ("k = 1", "k   =   1 # one"),
     ('"kl"', "'kl'"), ("\n", "\r\n")],
)  # fmt: skip
def test_spaces_and_comments_are_no_edit(tmp_path: Path, old: str, new: str) -> None:
    text = write_variant_toml(GIVEN_ONE, SITES)
    assert old in text
    got = read_variant_toml(put(tmp_path, text.replace(old, new)))
    assert not got.edited
    got.check_fresh("c0ffee")


def test_without_its_mark_a_file_is_edited_by_someone(tmp_path: Path) -> None:
    text = write_variant_toml(GIVEN_ONE, SITES).partition("[certified]")[0]
    got = read_variant_toml(put(tmp_path, text))
    assert got.edited and got.cases == ""
    for mark in ("certified = 3\n", "[certified]\ncontent = 3\ncases = 4\n"):
        kept = mark + text if "[" not in mark else text + mark
        assert read_variant_toml(put(tmp_path, kept)).edited


def test_a_file_of_sites_alone_is_enough(tmp_path: Path) -> None:
    got = read_variant_toml(put(tmp_path, '[sites]\nconv = "int8"\n'))
    assert got.variant == Variant.of({"conv": "int8"})
    assert got.gate is None and got.middle is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no table [sites]; it holds: calibration, cascade, certified, form, middle, "),
        ("sites = 3", "has no table [sites]"),
        ("[sites]\n[more]", "has unknown more; it holds"),
        ("b = 1\na = 1\n[sites]", "has unknown a, b"),
        ("[sites]\nconv = 8", "gives site 'conv' as 8; a choice is a word"),
        ("[sites]\na.b = 'int8'", "gives site 'a' as {'b': 'int8'}"),
        ("repairs = 3\n[sites]", "gives repairs as 3; a list of names is needed"),
        ("repairs = [3]\n[sites]", "gives repairs as [3]"),
        ("calibration = 3\n[sites]", "gives calibration as 3; a word is needed"),
        ("form = []\n[sites]", "gives form as []; a word is needed"),
        ("runtime = 3\n[sites]", "gives runtime as 3; a word is needed"),
        ("runtime = 'tvm'\n[sites]", "'tvm' is no runtime; it is one of"),
        ("cascade = 3\n[sites]", "has a gate 3; it takes"),
        ("[cascade]\noutput = 'y'\nk = 0\n[sites]", "k is a whole number from 1"),
        ("[cascade]\noutput = 'y'\nthreshold = nan\n[sites]", "finite"),
        ("middle = 3\n[sites]", "gives the middle stage as 3; it needs a threshold"),
        ("[middle]\nruntime = 'openvino'\n[sites]", "it needs a threshold"),
        ("[middle]\nthreshold = true\n[sites]", "it needs a threshold"),
        ("[middle]\nthreshold = inf\n[sites]", "it needs a threshold"),
        ("[middle]\nthreshold = nan\n[sites]", "it needs a threshold"),
        ("[middle]\nthreshold = 1\n[sites]", "'' is no runtime"),
        ("[middle]\nthreshold = 1\nruntime = 1\n[sites]", "gives runtime as 1"),
        ("a = ", "is not TOML"),
        ("a = " + "[" * 50_000, "is not TOML"),
        ("a = " + "9" * 5_000, "is not TOML"),
        ("\udcff", "is not TOML"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InputError) as e:
        read_variant_toml(put(tmp_path, text))
    assert said in str(e.value)


def test_no_file_is_one_sentence(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "gone.toml"):
        with pytest.raises(InputError, match=r"give the variant\.toml of a compress run"):
            read_variant_toml(path)
