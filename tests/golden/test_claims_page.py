"""docs/claims.md is what the ledger says."""

from pathlib import Path

from justenough.cli.claims import STUDIES
from justenough.ledger import page, read_ledger

PAGE = Path(__file__).parents[2] / "docs" / "claims.md"


def test_the_page_is_what_the_ledger_says() -> None:
    again = "write it again: justenough claims --page docs/claims.md"
    assert PAGE.read_text(encoding="utf-8") == page(read_ledger(STUDIES)), again
