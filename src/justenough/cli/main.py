"""The command line: `justenough VERB`. Exit codes: 0 held, 1 broken, 2 bad input, 3 undecided."""

import errno
import sys

import typer
from rich.console import Console

from justenough.cli import certify, compress, demo, inspect, report, verify
from justenough.errors import JustEnoughError

app = typer.Typer(
    help="Just enough precision, with proof: cheaper ONNX models whose decisions are certified.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for verb in (inspect, compress, certify, verify, report, demo):
    app.command(name=verb.__name__.rpartition(".")[2])(verb.run)


def main() -> None:
    """Run the command line; bad input is one sentence on stderr and exit code 2."""
    try:
        code = app(standalone_mode=False)
    except JustEnoughError as e:
        fail(str(e))
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            fail("the disk is full; free some space and call again, nothing done so far is lost")
        fail(f"{e.strerror or e}: {e.filename}" if e.filename else str(e))
    except typer.Exit as e:
        sys.exit(e.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        fail("stopped; the same call goes on where it was", 130)
    except Exception as e:
        # click's own usage errors know how to say themselves; anything else is a defect.
        if hasattr(e, "format_message"):
            fail(e.format_message())
        raise
    sys.exit(code or 0)


def fail(sentence: str, code: int = 2) -> None:
    """Say one sentence on stderr and leave."""
    Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print(
        f"justenough: {sentence}"
    )
    sys.exit(code)
