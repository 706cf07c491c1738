"""The command line: `justenough VERB`. Exit codes: 0 held, 1 broken, 2 bad input, 3 undecided."""

import errno
import sys

import typer
from rich.console import Console

from justenough.cli import (
    certify,
    claims,
    compress,
    demo,
    inspect,
    neurons,
    report,
    run,
    study,
    verify,
)
from justenough.errors import JustEnoughError

STOPPED = 130
app = typer.Typer(
    help="Just enough precision, with proof: cheaper ONNX models whose decisions are certified.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for verb in (inspect, compress, certify, verify, run, report, demo):
    app.command(name=verb.__name__.rpartition(".")[2])(verb.run)
for many in (study, neurons, claims):
    app.add_typer(many.app, name=many.__name__.rpartition(".")[2])


def main() -> None:
    """Run the command line; bad input is one sentence on stderr and exit code 2."""
    if any("\ud800" <= c <= "\udfff" for c in "".join(sys.argv)):  # how Python reads other bytes
        fail(f"the arguments {sys.argv[1:]!a} are not all UTF-8 text; rename the file")
    try:
        code = app(standalone_mode=False)
    except JustEnoughError as e:
        fail(str(e))
    except MemoryError:
        fail("this machine has too little memory for it; give fewer or smaller cases")
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            fail("the disk is full; free some space and call again, nothing done so far is lost")
        fail(f"{e.strerror or e}: {e.filename}" if e.filename else str(e))
    except typer.Exit as e:
        code = e.exit_code
    except (typer.Abort, KeyboardInterrupt):
        code = STOPPED
    except Exception as e:
        usage(e)
        raise
    if code == STOPPED:
        fail("stopped; the same call goes on where it was", STOPPED)
    sys.exit(code or 0)


def usage(e: Exception) -> None:
    """Say a usage error as click says it; anything else is a defect, and is left alone."""
    if hasattr(e, "format_message"):
        said = str(e.format_message())
        if said.startswith("Usage"):  # nothing was asked for: the help, as it is
            print(said, file=sys.stderr)
            sys.exit(2)
        fail(said)


def fail(sentence: str, code: int = 2) -> None:
    """Say one sentence on stderr and leave."""
    Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True).print(
        f"justenough: {' '.join(sentence.split())}"
    )
    sys.exit(code)
