"""The ledger of claims: what was said, how it was tested, and what came out."""

import datetime
import tomllib
from collections import Counter
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, get_args

from justenough.errors import InputError

TESTED = ("reproduced", "refuted", "holds only when")
VERDICTS = (*TESTED, "not testable here", "not yet tested")
LONGEST_QUOTE = 160


@dataclass(frozen=True)
class Measured:
    """What a check found.

    Attributes:
        value: The number that the claim is about, in `unit`.
        unit: Unit of `value`, `low` and `high`; empty for a plain number.
        low: Lower end of the interval, or None where there is none.
        high: Its upper end.
        verdict: What follows from the measurement by the rule that the check states.
        said: One sentence or more: what was measured, in numbers.
    """

    value: float
    unit: str
    low: float | None
    high: float | None
    verdict: str
    said: str

    @property
    def text(self) -> str:
        """Value and unit as the ledger writes them.

        >>> Measured(73.42, "dB", None, None, "refuted", "").text
        '73.4 dB'
        """
        number = f"{self.value:.3g}" if abs(self.value) < 1000 else f"{self.value:,.0f}"
        return f"{number} {self.unit}".strip()


@dataclass(frozen=True)
class Claim:
    """One row of the ledger; the fields are the keys of its table in the file.

    Attributes:
        id: Number of the document, then words; unique in the ledger.
        document: Number of the document, three digits.
        quote: Words of the document, at most 160 characters; "..." stands for what is left out.
        quantity: What is measured, with its unit.
        claimed: The value that the document gives.
        test: How a program tests it.
        study: The study that tests it, or is to; empty where none could.
        verdict: One of `VERDICTS`; "holds only when" is followed by the condition.
        check: Function of the study's `claims.py` that measures it.
        measured: Value and unit, as `Measured.text`.
        low: Lower end of the interval, in that unit.
        high: Upper end of the interval.
        interval: How the interval was obtained.
        covers: What the verdict covers and what not; the reason of "not testable here".
        date: When it was measured.
        machine: Where it was measured, with versions.
    """

    id: str
    document: str
    quote: str
    quantity: str
    claimed: str
    test: str
    study: str
    verdict: str
    check: str = ""
    measured: str = ""
    low: float | None = None
    high: float | None = None
    interval: str = ""
    covers: str = ""
    date: datetime.date | None = None
    machine: str = ""

    @property
    def kind(self) -> str:
        """The verdict without its condition."""
        return next(v for v in VERDICTS if self.verdict.startswith(v))

    @property
    def tested(self) -> bool:
        """Whether something was measured."""
        return self.kind in TESTED


KEYS = {f.name: f for f in fields(Claim)}
_NEEDED_WHEN_TESTED = ("check", "measured", "covers", "date", "machine")
_ONLY_WHEN_TESTED = ("check", "measured", "low", "high", "interval", "date", "machine")


def read_ledger(folder: Path) -> tuple[Claim, ...]:
    """Return all rows below a folder of studies, sorted by id.

    Rows stand in `claims.toml` of the study that tests them, and in `claims.toml` of the folder
    itself while no study does.

    Raises:
        InputError: A row is wrong, an id occurs twice, or a row stands with another study.
    """
    found: dict[str, tuple[Claim, Path]] = {}
    for path in sorted([*folder.glob("claims.toml"), *folder.glob("*/claims.toml")]):
        for claim in read_claims(path):
            if claim.id in found:
                first = found[claim.id][1].relative_to(folder)
                raise InputError(
                    f"claim '{claim.id}' of {path.relative_to(folder)} is in {first} too; keep one"
                )
            _in_its_place(claim, path, folder)
            found[claim.id] = (claim, path)
    return tuple(found[key][0] for key in sorted(found))


def _in_its_place(claim: Claim, path: Path, folder: Path) -> None:
    central = path.parent == folder
    if central and claim.tested:
        raise InputError(
            f"claim '{claim.id}' is tested; move it to {claim.study or 'STUDY'}/claims.toml"
        )
    if not central and claim.study != path.parent.name:
        raise InputError(
            f"claim '{claim.id}' says study '{claim.study}' and stands in "
            f'{path.parent.name}/claims.toml; write study = "{path.parent.name}"'
        )


def read_claims(path: Path) -> tuple[Claim, ...]:
    """Return the rows of one file in their order.

    Raises:
        InputError: The file is not TOML, or a row has an unknown key, lacks one, holds a value
            of another type, or says what does not go together.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise InputError(f"{path.name} is not TOML: {e}") from e
    rows = table.pop("claim", [])
    if table or not isinstance(rows, list):
        other = next(iter(table), "claim")
        raise InputError(f"{path.name} has '{other}'; it holds [[claim]] tables and nothing else")
    claims = tuple(_claim(row, f"{path.name}, row {k}") for k, row in enumerate(rows, 1))
    twice = [key for key, n in Counter(c.id for c in claims).items() if n > 1]
    if twice:
        raise InputError(f"claim '{twice[0]}' is in {path.name} twice; keep one")
    return claims


def _claim(row: Any, where: str) -> Claim:
    """One row, with every key and value checked."""
    if not isinstance(row, dict):
        raise InputError(f"{where} is {row!r}; it must be a table")
    where = f"claim '{row['id']}'" if isinstance(row.get("id"), str) else where
    for key, value in row.items():
        if key not in KEYS:
            raise InputError(f"{where} has unknown key '{key}'; keys are {', '.join(KEYS)}")
        if isinstance(value, bool) or not isinstance(value, _types(key)):
            raise InputError(f"{where} has {key} = {value!r}; it must be {_type_words(key)}")
    for key, field in KEYS.items():
        if field.default is MISSING and key not in row:
            raise InputError(f"{where} has no {key}; add it")
    row = {k: float(v) if k in ("low", "high") else v for k, v in row.items()}
    claim = Claim(**row)
    _check_words(claim, where)
    _check_verdict(claim, where)
    return claim


def _types(key: str) -> tuple[type, ...]:
    kind = KEYS[key].type
    kinds = get_args(kind) or (kind,)
    if float in kinds:
        return (float, int)
    return tuple(k for k in kinds if isinstance(k, type) and k is not type(None))


def _type_words(key: str) -> str:
    if key == "date":
        return "a date, such as 2026-01-31"
    return "a number" if key in ("low", "high") else "text"


def _check_words(claim: Claim, where: str) -> None:
    document = claim.document
    if len(document) != 3 or not document.isdigit() or not claim.id.startswith(f"{document}-"):
        raise InputError(
            f"{where} has document '{document}'; give three digits, and begin the id with them"
        )
    if len(claim.quote) > LONGEST_QUOTE:
        raise InputError(
            f"{where} quotes {len(claim.quote)} characters; shorten it to {LONGEST_QUOTE} with ..."
        )
    for key in ("quote", "quantity", "claimed", "test"):
        if not getattr(claim, key).strip():
            raise InputError(f"{where} has an empty {key}; fill it in")


def _check_verdict(claim: Claim, where: str) -> None:
    conditional = claim.verdict.removeprefix("holds only when ")
    if claim.verdict not in VERDICTS and (conditional == claim.verdict or not conditional.strip()):
        raise InputError(f"{where} has verdict '{claim.verdict}'; verdicts are {_verdict_words()}")
    if claim.verdict == "holds only when":
        raise InputError(f"{where} holds only when nothing is said; add the condition")
    if not claim.tested:
        for key in _ONLY_WHEN_TESTED:
            if getattr(claim, key) not in ("", None):
                raise InputError(f"{where} is {claim.verdict} and has {key}; take it out")
        if claim.kind == "not testable here" and not claim.covers:
            raise InputError(f"{where} is not testable here; say why in covers")
        return
    for key in _NEEDED_WHEN_TESTED:
        if getattr(claim, key) in ("", None):
            raise InputError(f"{where} is {claim.kind} and has no {key}; add it")
    if not claim.study:
        raise InputError(f"{where} is {claim.kind} and names no study; add the one that tests it")
    _check_interval(claim, where)


def _check_interval(claim: Claim, where: str) -> None:
    given = [claim.low is not None, claim.high is not None, claim.interval != ""]
    if any(given) and not all(given):
        raise InputError(f"{where} has part of an interval; give low, high and interval, or none")
    if claim.low is not None and claim.high is not None and not claim.low <= claim.high:  # or NaN
        raise InputError(f"{where} has low {claim.low:g} above high {claim.high:g}; swap them")


def _verdict_words() -> str:
    return ", ".join(v + " CONDITION" * (v == "holds only when") for v in VERDICTS)


def counts(claims: Iterable[Claim]) -> dict[str, int]:
    """Return how many claims have each verdict, in the order of `VERDICTS`."""
    found = Counter(c.kind for c in claims)
    return {v: found[v] for v in VERDICTS}


def interval_text(low: float | None, high: float | None) -> str:
    """Return an interval as it is written, or nothing.

    >>> interval_text(73.21, 74)
    '[73.2, 74]'
    """
    return "" if low is None or high is None else f"[{low:.3g}, {high:.3g}]"


def page(claims: tuple[Claim, ...]) -> str:
    """Return the ledger as a page of Markdown."""
    documents = sorted({c.document for c in claims})
    lines = [*_INTRO, "", "| document | " + " | ".join(VERDICTS) + " |", "|---" * 6 + "|"]
    for d in documents:
        lines.append(_row(d, *counts(c for c in claims if c.document == d).values()))
    lines.append(_row("all", *counts(claims).values()))
    for d in documents:
        rows = [c for c in claims if c.document == d]
        lines += ["", f"## Document {d}", *_tested(rows), *_untested(rows)]
    return "\n".join(lines) + "\n"


_INTRO = """# Claims

Every quantitative sentence of the five documents behind this project, and what became of it.
`justenough claims --page docs/claims.md` writes this page from the `claims.toml` files below
`src/justenough/studies`; `justenough claims run ID` measures one again.

- **reproduced**: measured, and as claimed.
- **refuted**: measured, and not as claimed, better or worse.
- **holds only when**: as claimed under the condition that follows, and not without it.
- **not testable here**: no program here could measure it.
- **not yet tested**: a study is to measure it.

A verdict covers what its row says and no more; brackets hold an interval, and the row says which.
""".rstrip().splitlines()


def _tested(rows: list[Claim]) -> list[str]:
    rows = [c for c in rows if c.tested]
    if not rows:
        return []
    lines = ["", "| claim | quote | claimed | measured | verdict | covers |", "|---" * 6 + "|"]
    for c in rows:
        interval = interval_text(c.low, c.high)
        measured = f"{c.measured} {interval} ({c.interval})" if interval else c.measured
        name = f"{c.id} (`{c.check}`)"
        lines.append(_row(name, _code(c.quote), c.claimed, measured, f"**{c.verdict}**", c.covers))
    where: dict[str, list[str]] = {}
    for c in rows:
        where.setdefault(f"{c.date}, {c.machine}", []).append(c.id)
    for k, ids in where.items():
        lines += ["", f"Measured {k}: {'all of these' if len(where) == 1 else ', '.join(ids)}."]
    return lines


def _untested(rows: list[Claim]) -> list[str]:
    rows = [c for c in rows if not c.tested]
    if not rows:
        return []
    lines = ["", "| claim | quote | claimed | verdict | study or reason |", "|---" * 5 + "|"]
    for c in rows:
        why = c.covers or c.study
        lines.append(_row(c.id, _code(c.quote), c.claimed, c.verdict, why))
    return lines


def _code(quote: str) -> str:
    return f"`` {quote} ``"


def _row(*cells: object) -> str:
    return "| " + " | ".join(str(c).replace("|", "\\|") for c in cells) + " |"
