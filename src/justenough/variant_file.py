"""`variant.toml`: what was deployed, to be edited and applied again."""

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from justenough.core.subject import Runtime, Variant
from justenough.deploy.deployment import gate_in, is_number
from justenough.errors import InputError
from justenough.search.goal import Given

MARK = "certified"


def write_variant_toml(given: Given, sites: Mapping[str, str]) -> str:
    """The file's text: how the file is made, the cascade, and the choice at every site."""
    v = given.variant
    lines = [
        f"calibration = {_toml(v.calibration)}",
        f"runtime = {_toml(str(v.runtime))}",
        f"form = {_toml(v.form)}",
        f"repairs = {_toml(list(v.repairs))}",
        "",
    ]
    if given.gate is not None:
        held = {k: x for k, x in asdict(given.gate).items() if x is not None}
        lines += ["[cascade]", *(f"{k} = {_toml(x)}" for k, x in held.items()), ""]
    if given.middle is not None:
        runtime, threshold = given.middle
        lines += ["[middle]", f"runtime = {_toml(str(runtime))}", f"threshold = {threshold!r}", ""]
    lines += ["[sites]", *(f"{_toml(s)} = {_toml(c)}" for s, c in sites.items()), ""]
    head = [
        "# What every site of the model runs in, and when the exact model answers instead.",
        "# Edit it, and apply it again: justenough compress MODEL --variant variant.toml ...",
    ]
    body = "\n".join(lines)
    mark = [f"[{MARK}]", f"content = {_toml(_digest(tomllib.loads(body)))}",
            f"cases = {_toml(given.cases)}"]  # fmt: skip
    return "\n".join([*head, body, *mark]) + "\n"


def read_variant_toml(path: Path) -> Given:
    """Read a `variant.toml`, edited or not; every wrong entry is named.

    Raises:
        InputError: Missing, not TOML, or an entry that means nothing.
    """
    if not path.is_file():
        raise InputError(f"no variant at {str(path)!r}; give the variant.toml of a compress run")
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as e:  # also of numbers and nesting beyond all use
        raise InputError(f"{path.name} is not TOML: {e}") from e
    known = {"calibration", "runtime", "form", "repairs", "cascade", "middle", "sites", MARK}
    unknown = sorted(set(table) - known)
    sites = table.get("sites")
    if unknown or not isinstance(sites, dict):
        said = f"unknown {', '.join(unknown)}" if unknown else "no table [sites]"
        raise InputError(f"{path.name} has {said}; it holds: {', '.join(sorted(known))}")
    bad = next((s for s, c in sites.items() if not isinstance(c, str)), None)
    if bad is not None:
        raise InputError(f"{path.name} gives site {bad!r} as {sites[bad]!r}; a choice is a word")
    mark = table.pop(MARK, {})
    mark = mark if isinstance(mark, dict) else {}
    repairs = table.get("repairs", [])
    if not isinstance(repairs, list) or not all(isinstance(r, str) for r in repairs):
        raise InputError(f"{path.name} gives repairs as {repairs!r}; a list of names is needed")
    variant = Variant.of(
        sites,
        _word(table, "calibration", "minmax", path),
        Runtime.parse(_word(table, "runtime", "onnxruntime", path)),
        _word(table, "form", "full", path),
        tuple(repairs),
    )
    return Given(
        variant,
        gate_in(table.get("cascade"), path.name),
        _middle(table.get("middle"), path),
        mark.get("content") != _digest(table),
        str(mark.get("cases", "")),
    )


def _middle(held: Any, path: Path) -> tuple[Runtime, float] | None:
    if held is None:
        return None
    threshold: Any = held.get("threshold") if isinstance(held, dict) else None
    if not is_number(threshold):
        raise InputError(f"{path.name} gives the middle stage as {held!r}; it needs a threshold")
    return Runtime.parse(_word(held, "runtime", "", path)), float(threshold)


def _word(table: Mapping[str, Any], key: str, usual: str, path: Path) -> str:
    value = table.get(key, usual)
    if not isinstance(value, str):
        raise InputError(f"{path.name} gives {key} as {value!r}; a word is needed")
    return value


def _digest(table: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(table, sort_keys=True, default=str).encode()).hexdigest()


def _toml(value: Any) -> str:
    """A TOML value: JSON's, whose escapes TOML shares but for DEL and pairs of surrogates."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
