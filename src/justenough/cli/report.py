"""`justenough report`: rebuild the HTML from the run store."""

from pathlib import Path
from typing import Annotated

import typer

from justenough.cli import show
from justenough.errors import InputError


def run(
    out: Annotated[Path, typer.Argument(help="Folder of a compress run.")],
    file: Annotated[
        Path | None, typer.Option("-o", "--out", help="HTML file to write. [OUT/report.html]")
    ] = None,
) -> None:
    """Rebuild the HTML report of a run from its store."""
    from justenough.core.store import Store
    from justenough.deploy.export import write_text
    from justenough.report.html import render

    store = Store(out / "run.sqlite")
    try:
        summary = store.get("summary")
    finally:
        store.close()
    if summary is None:
        raise InputError(f"the run in {str(out)!r} has not ended; call compress again to go on")
    path = file or out / "report.html"
    write_text(path, render(summary))
    show.console.print(f"Report: {path}")
