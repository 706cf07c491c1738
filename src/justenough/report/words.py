"""Numbers and clauses in words: sensible digits, always a unit."""

import contextlib
import math
import re
from dataclasses import dataclass
from typing import Any

from justenough.core.contract import Clause, parse_clause
from justenough.errors import InputError

NARROW = "\u202f"
NONE = "\u2013"
TIMES = "\u00d7"
DIGITS_MOST = 8
_UNIT = re.compile(r"(?<=\d) (?=(?:%|ms|µs|s|dB|[kMG]?B|[mµ]?J)(?!\w))|(?<=[≥≤]) ")


def finite(value: Any) -> float | None:
    """The value as a float, or None when it is no finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def count(value: Any) -> str:
    """A whole number in groups of three.

    >>> count(49044) == f"49{NARROW}044"
    True
    """
    number = finite(value)
    if number is None:
        return NONE
    text = f"{round(number):,}"
    return text.replace(",", NARROW if abs(number) >= 10_000 else "")


def significant(value: Any, digits: int = 3) -> str:
    """A number in `digits` significant digits, without an exponent where it can be read.

    >>> significant(0.013747923), significant(1234.6), significant(2.5e-9)
    ('0.0137', '1235', '2.5e-09')
    """
    number = finite(value)
    if number is None:
        return NONE
    if number == 0:
        return "0"
    if not 1e-5 <= abs(number) < 1e6:
        return f"{number:.{digits}g}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(number))))
    text = f"{number:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def seconds(value: Any) -> str:
    """A time with its unit.

    >>> seconds(0.000618), seconds(0.0123), seconds(4.2e-5), seconds(85.553)
    ('0.62 ms', '12.3 ms', '42 µs', '86 s')
    """
    s = finite(value)
    if s is None:
        return NONE
    if s < 1e-4:
        return f"{s * 1e6:.2g} µs" if s < 1e-5 else f"{s * 1e6:.0f} µs"
    if s < 1:
        ms = s * 1e3
        return f"{ms:.{2 if ms < 10 else 1 if ms < 100 else 0}f} ms"
    if s < 600:
        return f"{s:.{1 if s < 10 else 0}f} s"
    return f"{s / 60:.0f} min" if s < 36_000 else f"{s / 3600:.1f} h"


def size(value: Any) -> str:
    """Bytes with a decimal unit.

    >>> size(752126), size(2793026), size(12)
    ('752 kB', '2.79 MB', '12 B')
    """
    number = finite(value)
    if number is None:
        return NONE
    for scale, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if number >= scale:
            return f"{significant(number / scale)} {unit}"
    return f"{number:.0f} B"


def energy(value: Any) -> str:
    """Joules with a decimal unit.

    >>> energy(0.00123), energy(4.2e-7), energy(2.5)
    ('1.23 mJ', '0.42 µJ', '2.5 J')
    """
    number = finite(value)
    if number is None:
        return NONE
    for scale, unit in ((1.0, "J"), (1e-3, "mJ")):
        if number >= scale:
            return f"{significant(number / scale)} {unit}"
    return f"{significant(number / 1e-6)} µJ"


def times(value: Any) -> str:
    """A ratio of times.

    >>> times(3.16), times(1.034), times(12.4)
    ('3.2×', '1.03×', '12×')
    """
    ratio = finite(value)
    if ratio is None:
        return NONE
    return f"{ratio:.{2 if ratio < 2 else 1 if ratio < 10 else 0}f}{TIMES}"


def given(value: Any) -> str:
    """A share that somebody chose, as chosen: a bound, a confidence.

    >>> given(0.95), given(0.9995)
    ('95 %', '99.95 %')
    """
    number = finite(value)
    return NONE if number is None else f"{100 * number:.10g} %"


def tick(value: float) -> str:
    """A share beside an axis.

    >>> tick(0.1), tick(0.0005)
    ('10 %', '0.05 %')
    """
    return f"{significant(100 * value)} %"


def share(value: Any, toward: int = 0, like: float | None = None) -> str:
    """A measured share in percent: one digit, more near 0 and 100 %.

    Args:
        value: In [0, 1], or a difference of shares.
        toward: -1 rounds down and 1 up, for limits: none is overstated.
        like: A bound that it is read beside; it gets at least as many decimals.

    >>> share(0.9952106), share(0.00823), share(0.989945, -1, 0.99), share(0.99996), share(1.0)
    ('99.5 %', '0.8 %', '98.9 %', '99.996 %', '100 %')
    """
    number = finite(value)
    if number is None:
        return NONE
    percent = 100 * number
    rest = min(abs(percent), abs(100 - percent))
    if rest < 1e-9:
        return f"{percent:.0f} %"
    decimals = max(1, math.ceil(-math.log10(rest)))
    if like is not None:
        _, _, after = f"{100 * like:.10g}".partition(".")
        decimals = max(decimals, len(after))
    return f"{_toward(percent, min(decimals, DIGITS_MOST), toward)} %"


def _toward(value: float, decimals: int, toward: int) -> str:
    """The value with so many decimals, rounded down, up or to the nearest."""
    scaled = round(value * 10**decimals, 6)
    whole = round(scaled)
    if toward:
        whole = math.floor(scaled) if toward < 0 else math.ceil(scaled)
    return f"{whole / 10**decimals:.{decimals}f}"


def decibel(signal: Any, noise: Any) -> float | None:
    """10 log10(signal / noise); infinite without noise, None where it is not known.

    >>> decibel(1.0, 0.001)
    30.0
    """
    s, n = finite(signal), finite(noise)
    if s is None or n is None or s <= 0 or n < 0:
        return None
    return math.inf if n == 0 else 10 * math.log10(s / n)


def in_decibel(value: float | None) -> str:
    """A ratio of powers with its unit."""
    if value is None:
        return NONE
    return "no noise" if math.isinf(value) else f"{value:.1f} dB"


@dataclass(frozen=True)
class Promise:
    """A clause as a reader needs it.

    Attributes:
        text: As written.
        words: As a sentence's end: "at least 99 % of cases keep their decision".
        at_least: Whether it reads `>=`.
        bound: Value to reach or not to exceed; None where the text cannot be read.
        unit: Of estimate, limit and bound.
    """

    text: str
    words: str
    at_least: bool
    bound: float | None
    unit: str

    @property
    def is_share(self) -> bool:
        """Whether values are shares, shown in percent."""
        return self.unit.startswith("share")

    def value(self, value: Any, toward: int = 0) -> str:
        """A value of this clause with its unit."""
        number = finite(value)
        if number is None:
            return NONE
        if self.is_share:
            return share(number, toward, self.bound)
        if self.unit == "dB":
            return f"{_toward(number, 1, toward)} dB"
        decimals = 4
        if self.unit == "rho" and 0 < 1 - abs(number) < 0.001:
            decimals = min(DIGITS_MOST, 1 - math.floor(math.log10(1 - abs(number))))
        unit = "" if self.unit in ("mean loss", "AUC", "rho", "") else f" {self.unit}"
        return f"{_toward(number, decimals, toward)}{unit}"

    def limit(self, value: Any) -> str:
        """A confidence limit, rounded against the claim."""
        return self.value(value, -1 if self.at_least else 1)

    @property
    def asked(self) -> str:
        """The bound with its sign and unit."""
        if self.bound is None:
            return self.text
        sign = "≥" if self.at_least else "≤"
        number = given(self.bound) if self.is_share else f"{self.bound:.10g}"
        return f"{sign} {number}{' dB' if self.unit == 'dB' else ''}"

    def loss(self, value: Any) -> float | None:
        """A share kept as a share lost; other values as they are."""
        number = finite(value)
        if number is None or not (self.is_share and self.at_least):
            return number
        return max(0.0, 1 - number)


_CLAUSE = re.compile(
    r"\s*(?P<metric>[\w.:]+).*?(?P<rest>(?P<op>>=|<=)\s*(?P<bound>\S+))\s*$", re.S
)


def promise(text: str, *, grouped: bool) -> Promise:
    """Read a clause; one that cannot be read whole is said by its metric and bound, or as it is.

    >>> promise("decision_stability >= 0.99", grouped=True).words
    'at least 99 % of groups keep every decision'
    >>> promise("decision_stability(output=a(b)) >= 0.99", grouped=False).words
    'at least 99 % of cases keep their decision'
    """
    found = _CLAUSE.match(text)
    simple = f"{found['metric']} {found['rest']}" if found else text
    for tried in (text, simple):
        with contextlib.suppress(InputError):
            clause = parse_clause(tried)
            words = _words(clause, "groups" if grouped else "cases", grouped)
            return Promise(text, words, clause.kind.at_least, clause.bound, clause.kind.unit)
    bound = None
    if found:
        with contextlib.suppress(ValueError):
            bound = finite(float(found["bound"]))
    said = f"this clause holds: {text}"
    return Promise(text, said, found is None or found["op"] == ">=", bound, "")


def _words(c: Clause, units: str, grouped: bool) -> str:
    bound = f"{c.bound:.10g}"
    some = f"at least {given(c.bound)} of {units}"
    each = "every case of theirs" if grouped and c.per == "any" else "their answer"
    if c.per == "max":
        each = "their highest score"
    if c.per == "mean":
        some, each = f"at least {given(c.bound)} of cases, each of the {units} alike,", "it"
    kept = {"max": "keep the decision of their highest score", "mean": "keep their decision"}.get(
        c.per, "keep every decision" if grouped else "keep their decision"
    )
    eps = f"{c.eps or 0:g} {c.eps_unit}".strip()
    top = f"of the top {c.k} stay in the top {c.k}"
    if c.is_list:
        top = f"of each case's top {c.k} stay in it"
        top += ", on average over " + (units if c.per == "mean" else f"the worst case of {units}")
    sentences = {
        "decision_stability": f"{some} {kept}",
        "top_k_stability": f"{some} keep the same {c.k} top answers",
        "top_k_overlap": f"at least {given(c.bound)} {top}",
        "within_tolerance": f"{some} move {each} by no more than {eps}",
        "relative_within": f"{some} move {each} by no more than {given(c.eps)} of its value",
        "snr_db": f"outputs differ by a noise at least {bound} dB below the signal",
        "spearman": f"the rank correlation with the reference is at least {bound}",
        "accuracy_drop": f"accuracy falls by at most {given(c.bound)} (percentage points)",
        "auc_drop": f"the area under the ROC curve falls by at most {bound}",
    }
    return sentences.get(c.metric, f"the mean loss {c.metric} is at most {bound}")


def shortened(names: list[str], ends: list[str], most: int) -> dict[str, str]:
    """Names without the folders that all share, without repetition, cut in the middle.

    Args:
        names: Different names.
        ends: Last part of each that says nothing more, such as its operator.
        most: Characters to keep at most.

    >>> shortened(["/net/a/a.0/Conv", "/net/a/a.1/Conv"], ["Conv", "Conv"], 20)
    {'/net/a/a.0/Conv': 'a.0', '/net/a/a.1/Conv': 'a.1'}
    """
    parts = [
        n.removesuffix(f"/{e}").strip("/").split("/") for n, e in zip(names, ends, strict=True)
    ]
    while all(len(p) > 1 for p in parts) and len({p[0] for p in parts}) == 1:
        parts = [p[1:] for p in parts]
    short = ["/".join(_without_repetition(p)) for p in parts]
    if len(set(short)) < len(names) or not all(short):
        short = names
    return {n: squeezed(s, most) for n, s in zip(names, short, strict=True)}


def _without_repetition(parts: list[str]) -> list[str]:
    """Folders that the next one repeats, as in `blocks/blocks.0`, left out."""
    after = [*parts[1:], ""]
    return [p for p, q in zip(parts, after, strict=True) if not q.startswith(f"{p}.")]


def kept_together(text: str) -> str:
    """The text with no number parted from its unit.

    >>> kept_together("at 95 % in 3 ms") == "at 95\u00a0% in 3\u00a0ms"
    True
    """
    return _UNIT.sub("\u00a0", text)


def squeezed(text: str, most: int) -> str:
    """The text with its middle left out where it is longer than `most`.

    >>> squeezed("abcdefghij", 7)
    'ab…ghij'
    """
    if len(text) <= most:
        return text
    tail = (most - 1) * 2 // 3
    return f"{text[: most - 1 - tail]}…{text[len(text) - tail :]}"
