"""What another machine needs to run a study again, and how two runs are compared."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from justenough.errors import InputError

FORMAT = "justenough heavystats 1"
LIBRARIES = ("numpy", "scipy", "numba", "jax", "blackjax", "numpyro", "nutpie", "cma", "torch")
RELATIVE = 1e-6
STANDARD_ERRORS = 5.0
MOST_BYTES = 50_000_000
Said = Mapping[str, Any]


@dataclass(frozen=True)
class Difference:
    """A number that two runs do not share.

    Attributes:
        where: Its path in the results.
        theirs, ours: The two values.
        allowed: How far apart they may be.
    """

    where: str
    theirs: float
    ours: float
    allowed: float


def read_bundle(path: Path) -> dict[str, Any]:
    """A bundle as it was written.

    Raises:
        InputError: No such file, not JSON, or not a bundle of this study.
    """
    if not path.is_file() or path.stat().st_size > MOST_BYTES:
        raise InputError(f"no bundle at {str(path)!r}; give the bundle.json of another run")
    try:
        body = json.loads(path.read_text("utf8"))
    except (ValueError, RecursionError) as e:
        raise InputError(f"{path.name} is no JSON; give the bundle.json of another run") from e
    if not isinstance(body, dict) or body.get("format") != FORMAT:
        raise InputError(f"{path.name} is no bundle of this study; its format must be {FORMAT!r}")
    if not isinstance(body.get("asked"), dict) or not isinstance(body.get("stages"), dict):
        raise InputError(f"{path.name} lacks what was asked or what was found; it was edited")
    return body


def differences(theirs: Any, ours: Any, where: str = "") -> Iterator[Difference | str]:
    """Where two trees of results disagree: numbers too far apart, or a sentence for anything else.

    A number may differ by a millionth of itself. One that was drawn at random is written with its
    Monte Carlo standard error, `{"value": v, "mc_se": s}`, and may differ by five of both joined:
    another processor rounds otherwise, and a chain that rounds otherwise goes elsewhere. Times
    (`seconds`) are no results.

    >>> [d.where for d in differences({"a": 1.0, "b": {"value": 2.0, "mc_se": 0.1}},
    ...                               {"a": 1.1, "b": {"value": 2.5, "mc_se": 0.1}})]
    ['a']
    """
    if isinstance(theirs, dict) and isinstance(ours, dict):
        if set(theirs) == set(ours) == {"value", "mc_se"}:
            se = (_number(theirs["mc_se"]) ** 2 + _number(ours["mc_se"]) ** 2) ** 0.5
            yield from _apart(theirs["value"], ours["value"], where, STANDARD_ERRORS * se)
            return
        for key in sorted({*theirs, *ours} - {"seconds"}):
            if key in theirs and key in ours:
                yield from differences(theirs[key], ours[key], f"{where}.{key}".lstrip("."))
            else:
                yield f"{where}.{key}".lstrip(".") + " is in one of the two only"
    elif isinstance(theirs, list) and isinstance(ours, list) and len(theirs) == len(ours):
        for k, (a, b) in enumerate(zip(theirs, ours, strict=True)):
            yield from differences(a, b, f"{where}[{k}]")
    elif _is_number(theirs) and _is_number(ours):
        yield from _apart(theirs, ours, where, 0.0)
    elif theirs != ours:
        yield f"{where} is {str(theirs)[:60]!r} there and {str(ours)[:60]!r} here"


def _apart(theirs: Any, ours: Any, where: str, room: float) -> Iterator[Difference]:
    a, b = _number(theirs), _number(ours)
    allowed = RELATIVE * max(abs(a), abs(b)) + room + 1e-12
    if not abs(a - b) <= allowed:
        yield Difference(where, a, b, allowed)


def _is_number(x: Any) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool)


def _number(x: Any) -> float:
    if not _is_number(x):
        raise InputError(f"the bundle has {str(x)[:40]!r} where a number belongs; it was edited")
    return float(x)
