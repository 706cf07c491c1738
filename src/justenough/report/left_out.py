"""What a search left out, and why: the notes of a summary, sorted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from justenough.report import names

Said = Mapping[str, Any]


@dataclass(frozen=True)
class LeftOut:
    """Sentences about what was not tried.

    Attributes:
        skipped: Variants that could not be built or run, with the reason.
        missing: Runtimes that are not installed, with what they would bring.
        other: Anything else, such as time that was over.
    """

    skipped: tuple[str, ...]
    missing: tuple[str, ...]
    other: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.skipped or self.missing or self.other)


def left_out(summary: Said) -> LeftOut:
    """The notes of a summary's search."""
    given: Sequence[Any] = (summary.get("search") or {}).get("notes") or ()
    notes = [str(n) for n in given]
    skipped = tuple(n for n in notes if " was skipped" in n)
    missing = tuple(n for n in notes if n not in skipped and " is not installed" in n)
    return LeftOut(skipped, missing, tuple(n for n in notes if n not in (*skipped, *missing)))


def as_sentence(text: str) -> str:
    """A note with a capital and a full stop, unless it begins with a name of code.

    >>> as_sentence("the time was over"), as_sentence("openvino is not installed")
    ('The time was over.', 'OpenVINO is not installed.')
    >>> as_sentence("int8-3-minmax-0a was skipped: no")
    'int8-3-minmax-0a was skipped: no.'
    """
    first, space, rest = text.partition(" ")
    lead = text[:1].upper() + text[1:] if first.isalpha() else text
    if first in names.BRANDS:
        lead = names.BRANDS[first] + space + rest
    return lead if lead.endswith((".", "!", "?")) else f"{lead}."
