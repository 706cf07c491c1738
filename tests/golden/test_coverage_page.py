"""The tables of docs/coverage.md are what the bounds do."""

import importlib
import re
from typing import Any

import pytest

# Not followed by the type checker: the benchmarks' neighbours need packages of their own.
coverage: Any = importlib.import_module("benchmarks.coverage")

NUMBER = re.compile(r"\d+(?:\.\d+)?")


@pytest.mark.slow
def test_the_page_is_what_the_bounds_do() -> None:
    """Words to the letter; numbers within their last digit, which a library may round its way."""
    said = coverage.PAGE.read_text("utf8").splitlines()
    found = coverage.page().splitlines()
    assert [NUMBER.sub("#", line) for line in said] == [NUMBER.sub("#", line) for line in found]
    for one, other in zip(said, found, strict=True):
        for a, b in zip(NUMBER.findall(one), NUMBER.findall(other), strict=True):
            digits = len(a.partition(".")[2])
            assert abs(float(a) - float(b)) <= 1.01 * 10.0**-digits * bool(digits), (
                f"{one}\n{other}"
            )
