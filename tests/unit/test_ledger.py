"""The ledger of claims: every sentence with which it refuses a row, and the page."""

import datetime
from pathlib import Path

import pytest

from justenough.errors import InputError
from justenough.ledger import (
    VERDICTS,
    Measured,
    counts,
    interval_text,
    page,
    read_claims,
    read_ledger,
)

BASE = {
    "id": '"000-speed"',
    "document": '"000"',
    "quote": '"2x faster"',
    "quantity": '"speed, ratio"',
    "claimed": '"2x"',
    "test": '"Time both."',
    "study": '"things"',
    "verdict": '"not yet tested"',
}
TESTED = {
    "verdict": '"refuted"',
    "check": '"speed"',
    "measured": '"1.1 x"',
    "low": "1",
    "high": "1.2",
    "interval": '"over 20 seeds"',
    "covers": '"One machine."',
    "date": "2026-01-31",
    "machine": '"a laptop"',
}


def written(path: Path, *rows: dict[str, str]) -> Path:
    tables = ("\n".join(["[[claim]]", *(f"{k} = {v}" for k, v in row.items())]) for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n\n".join(tables) + "\n")
    return path


def without(row: dict[str, str], *keys: str) -> dict[str, str]:
    return {k: v for k, v in row.items() if k not in keys}


def test_a_tested_row_is_read_as_it_stands(tmp_path: Path) -> None:
    (claim,) = read_claims(written(tmp_path / "claims.toml", {**BASE, **TESTED}))
    assert (claim.id, claim.kind, claim.tested) == ("000-speed", "refuted", True)
    assert (claim.low, claim.high) == (1.0, 1.2) and isinstance(claim.low, float)
    assert claim.date == datetime.date(2026, 1, 31)


def test_a_condition_stays_with_its_verdict(tmp_path: Path) -> None:
    row = {**BASE, **TESTED, "verdict": '"holds only when it rains"'}
    (claim,) = read_claims(written(tmp_path / "claims.toml", row))
    assert (claim.kind, claim.verdict) == ("holds only when", "holds only when it rains")


FULL = {**BASE, **TESTED}
WRONG = [
    ({**BASE, "colour": '"red"'}, "claim '000-speed' has unknown key 'colour'; keys are id, "),
    (without(BASE, "quote"), "claim '000-speed' has no quote; add it"),
    (without(BASE, "id"), "claims.toml, row 1 has no id; add it"),
    (without(BASE, "verdict"), "claim '000-speed' has no verdict; add it"),
    ({**BASE, "id": "7"}, "claims.toml, row 1 has id = 7; it must be text"),
    ({**BASE, "claimed": "2"}, "claim '000-speed' has claimed = 2; it must be text"),
    ({**FULL, "low": '"1"'}, "claim '000-speed' has low = '1'; it must be a number"),
    ({**FULL, "low": "true"}, "claim '000-speed' has low = True; it must be a number"),
    ({**FULL, "date": '"today"'}, "has date = 'today'; it must be a date, such as 2026-01-31"),
    ({**BASE, "document": '"00"'}, "has document '00'; give three digits, and begin the id with"),
    (
        {**BASE, "document": '"001"'},
        "has document '001'; give three digits, and begin the id with",
    ),
    ({**BASE, "quote": f'"{"x" * 161}"'}, "quotes 161 characters; shorten it to 160 with ..."),
    ({**BASE, "quote": '" "'}, "claim '000-speed' has an empty quote; fill it in"),
    ({**BASE, "test": '""'}, "claim '000-speed' has an empty test; fill it in"),
    (
        {**BASE, "verdict": '"maybe"'},
        "claim '000-speed' has verdict 'maybe'; verdicts are reproduced, refuted, holds only when "
        "CONDITION, not testable here, not yet tested",
    ),
    ({**FULL, "verdict": '"reproduced mostly"'}, "has verdict 'reproduced mostly'; verdicts are"),
    ({**FULL, "verdict": '"holds only when"'}, "holds only when nothing is said; add the cond"),
    ({**FULL, "verdict": '"holds only when "'}, "has verdict 'holds only when '; verdicts are"),
    (
        {**BASE, "check": '"speed"'},
        "claim '000-speed' is not yet tested and has check; take it out",
    ),
    ({**BASE, "low": "0"}, "claim '000-speed' is not yet tested and has low; take it out"),
    ({**BASE, "verdict": '"not testable here"'}, "is not testable here; say why in covers"),
    ({**FULL, "study": '""'}, "is refuted and names no study; add the one that tests it"),
    (without(FULL, "interval"), "has part of an interval; give low, high and interval, or none"),
    (without(FULL, "high"), "has part of an interval; give low, high and interval, or none"),
    ({**FULL, "low": "2"}, "claim '000-speed' has low 2 above high 1.2; swap them"),
    ({**FULL, "low": "nan"}, "claim '000-speed' has low nan above high 1.2; swap them"),
    *(
        (without(FULL, key), f"claim '000-speed' is refuted and has no {key}; add it")
        for key in ("check", "measured", "covers", "date", "machine")
    ),
]


@pytest.mark.parametrize(("row", "said"), WRONG, ids=[said[:60] for _, said in WRONG])
def test_a_wrong_row_is_refused_in_one_sentence(
    tmp_path: Path, row: dict[str, str], said: str
) -> None:
    with pytest.raises(InputError) as e:
        read_claims(written(tmp_path / "claims.toml", row))
    assert said in str(e.value)
    assert "\n" not in str(e.value)


def test_a_file_that_is_no_list_of_claims_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "claims.toml"
    path.write_text("claim = ")
    with pytest.raises(InputError, match=r"claims\.toml is not TOML: "):
        read_claims(path)
    path.write_bytes(b'title = "\xff"')
    with pytest.raises(InputError, match=r"claims\.toml is not TOML: "):
        read_claims(path)
    for text, key in (
        ('title = "x"', "title"),
        ("[claim]\nid = 1", "claim"),
        ("claim = 3", "claim"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=rf"has '{key}'; it holds \[\[claim\]\] tables"):
            read_claims(path)
    path.write_text("claim = [1]")
    with pytest.raises(InputError, match=r"claims\.toml, row 1 is 1; it must be a table"):
        read_claims(path)


def test_an_id_occurs_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"claim '000-speed' is in claims\.toml twice; keep one"):
        read_claims(written(tmp_path / "claims.toml", BASE, BASE))
    written(tmp_path / "claims.toml", BASE)
    written(tmp_path / "things" / "claims.toml", FULL)
    with pytest.raises(
        InputError, match=r"of things/claims\.toml is in claims\.toml too; keep one"
    ):
        read_ledger(tmp_path)


def test_rows_stand_with_the_study_that_tests_them(tmp_path: Path) -> None:
    other = {**BASE, "id": '"000-other"'}
    written(tmp_path / "things" / "claims.toml", FULL)
    written(tmp_path / "claims.toml", other)
    assert [c.id for c in read_ledger(tmp_path)] == ["000-other", "000-speed"]
    written(tmp_path / "claims.toml", {**FULL, "id": '"000-other"'})
    with pytest.raises(InputError, match=r"'000-other' is tested; move it to things/claims\.toml"):
        read_ledger(tmp_path)
    written(tmp_path / "claims.toml", other)
    written(tmp_path / "things" / "claims.toml", {**FULL, "study": '"stars"'})
    with pytest.raises(
        InputError, match=r"says study 'stars' and stands in things/claims\.toml; w"
    ):
        read_ledger(tmp_path)


def test_the_page_counts_and_keeps_bars_out_of_its_tables(tmp_path: Path) -> None:
    bars = {**BASE, "id": '"000-table"', "quote": '"| FP16 | 2x |"'}
    claims = read_claims(written(tmp_path / "claims.toml", FULL, bars))
    text = page(claims)
    assert counts(claims) == dict(zip(VERDICTS, (0, 1, 0, 0, 1), strict=True))
    assert "| 000 | 0 | 1 | 0 | 0 | 1 |\n| all | 0 | 1 | 0 | 0 | 1 |" in text
    assert "`` \\| FP16 \\| 2x \\| ``" in text
    assert "1.1 x [1, 1.2] (over 20 seeds)" in text
    assert "Measured 2026-01-31, a laptop: all of these." in text
    cells = {line.replace("\\|", "").count("|") for line in text.splitlines() if line[:1] == "|"}
    assert cells == {6, 7}


def test_numbers_are_written_to_three_digits() -> None:
    assert Measured(499_500.0, "pairs", None, None, "reproduced", "").text == "499,500 pairs"
    assert Measured(0.14061, "", None, None, "refuted", "").text == "0.141"
    assert interval_text(None, 2.0) == ""
