"""`justenough neurons run`: a brain area, or a chain of them, of up to ten billion neurons."""

import os
import signal
import sys
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from threading import Event, Thread
from typing import Annotated, Literal, TypeVar

import typer

from justenough.cli import show

STOPPED = 130
AT_ONCE = "stopped at once; the same call goes on from the last checkpoint"
_T = TypeVar("_T")
app = typer.Typer(
    help="Simulate neurons of the Assembly Calculus.", no_args_is_help=True, rich_markup_mode=None
)


@app.callback()
def neurons() -> None:
    """Simulate neurons of the Assembly Calculus."""


@app.command()
def run(  # noqa: PLR0913 - one for each option
    areas: Annotated[
        str,
        typer.Option(
            help="Neurons of each area: 1e9, or 1e6,1e6. The first hears a stimulus, each other "
            "one the area before it, and all hear themselves."
        ),
    ] = "1e6",
    k: Annotated[str, typer.Option(help="How many fire at once in an area.")] = "1000",
    p: Annotated[str, typer.Option(help="Probability of a synapse.")] = "0.001",
    beta: Annotated[str, typer.Option(help="Plasticity, 0 to 1.")] = "0.1",
    rounds: Annotated[str, typer.Option(help="How many.")] = "25",
    tier: Annotated[
        Literal["exact", "lazy"],
        typer.Option(
            help="exact: every neuron, one or two bytes each. lazy: those that fired or nearly "
            "did, others are drawn when they first fire; cost does not depend on their number."
        ),
    ] = "exact",
    ties: Annotated[
        Literal["random", "lowest"] | None,
        typer.Option(help="Which of equal neurons fire; with --tier exact. [random]"),
    ] = None,
    seed: Annotated[str, typer.Option(help="Of all that is random.")] = "0",
    threads: Annotated[
        str, typer.Option(help="How many; results do not depend on it. [all cores]")
    ] = "",
    device: Annotated[
        Literal["cpu", "cuda"],
        typer.Option(help="Where counts are kept; results do not depend on it."),
    ] = "cpu",
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the results.")] = Path(
        "neurons-out"
    ),
) -> None:
    """Let an area hear a stimulus until an assembly has formed, and say what it took."""
    from justenough.studies.neurons import run as work
    from justenough.studies.neurons.ask import ask
    from justenough.studies.neurons.report import said

    typed = {
        "areas": areas, "k": k, "p": p, "beta": beta, "rounds": rounds, "seed": seed,
        "threads": threads,
    }  # fmt: skip
    asked = ask(typed, tier=tier, ties=ties, device=device)
    body = work.known(asked, out)
    if body is not None:
        show.said("Known", f"this run has ended before, and its results are in {out}")
    else:
        for name, text in work.before(asked, out):
            show.said(name, text)
        out.mkdir(parents=True, exist_ok=True)
        try:
            with show.rounds_bar(asked.rounds) as progress:
                body = stoppable(lambda stop: work.simulate(asked, out, progress, stop))
        except KeyboardInterrupt:
            print(f"justenough: {AT_ONCE}", file=sys.stderr, flush=True)
            os._exit(STOPPED)  # threads that still compute would be waited for
    if body is None:
        raise typer.Exit(STOPPED)
    for name, text in said(body):
        show.said(name, text)
    show.console.print(f"\nLook:       {out / work.REPORT}\nResults:    {out / work.ARRAYS}")


def stoppable(work: Callable[[Event], _T]) -> _T:
    """Call `work` in another thread, so that Ctrl-C is heard at once, whatever it computes.

    The first Ctrl-C sets the event, and `work` ends when it can; a second one is raised.
    """
    stop, ended = Event(), Future[_T]()

    def thread() -> None:
        try:
            ended.set_result(work(stop))
        except BaseException as e:
            ended.set_exception(e)

    Thread(target=thread, daemon=True).start()
    try:
        return ended.result()
    except KeyboardInterrupt:
        stop.set()
        print("justenough: stopping after this round; Ctrl-C again stops at once", file=sys.stderr)
        found = ended.result()
        # All is on disk, and a Ctrl-C now could only break off the farewell.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return found
