"""One run: rounds of a chain of areas, kept as they go, with results and a report at the end."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
from numpy.typing import NDArray

from justenough.assemblies.cuda import card
from justenough.assemblies.memory import support_bound
from justenough.assemblies.operations import Trace, overlap
from justenough.core.folder_lock import lock_folder, unlock
from justenough.deploy.export import write_text
from justenough.errors import InputError
from justenough.report import words
from justenough.studies.neurons.ask import Asked
from justenough.studies.neurons.brains import Kept, brain, check_memory
from justenough.studies.neurons.checkpoint import read_arrays, read_head, write_arrays
from justenough.studies.neurons.forecast import forecast
from justenough.studies.neurons.report import render, said
from justenough.subjects.processor import machine, versions

FORMAT = "justenough neurons 1"
CHECKPOINT, ARRAYS, RESULTS, REPORT = (
    "checkpoint.npz", "results.npz", "results.json", "report.html",
)  # fmt: skip
# A checkpoint so often, and never so often that it takes more than one part in so many.
_EVERY_S, _SHARE = 10.0, 50
# A guess until one was made.
_BYTES_A_SECOND = 1e8
# What document 001 counts for each neuron.
DOCUMENT_BYTES = 60
Said = dict[str, Any]


@dataclass(frozen=True)
class Seen:
    """A round that has ended, for a progress bar: of the last area that fired in it."""

    round: int
    overlap: float
    support: int
    seconds: float


@dataclass
class _Record:
    """What is known of each round: of area i, winners[i] (rounds, k), -1 before it fires."""

    winners: list[NDArray[np.int64]]
    support: NDArray[np.int64]
    seconds: NDArray[np.float64]
    done: int = 0
    # Rounds before which the run was stopped, and its counts had to be made again.
    resumed: list[int] = field(default_factory=list)

    @staticmethod
    def of(asked: Asked) -> "_Record":
        """An empty one."""
        many = len(asked.areas)
        return _Record(
            [np.empty((asked.rounds, asked.k), np.int64) for _ in range(many)],
            np.zeros((asked.rounds, many), np.int64),
            np.zeros(asked.rounds),
        )

    def note(self, mind: Kept, seconds: float) -> Seen:
        """Take down the round that just ended."""
        at = self.done
        for i, area in enumerate(mind.circuit.areas):
            fired = i <= at
            self.winners[i][at] = mind.winners(area.name) if fired else -1
            self.support[at, i] = mind.support(area.name)
        self.seconds[at] = seconds
        self.done += 1
        last = min(at, len(self.winners) - 1)
        rows = self.winners[last]
        same = overlap(rows[at - 1], rows[at]) if at > last else float("nan")
        return Seen(self.done, same, int(self.support[at, last]), seconds)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All of it, of the rounds that are done, by name."""
        found = {f"winners_area{i}": w[: self.done] for i, w in enumerate(self.winners, start=1)}
        return {
            **found,
            "support": self.support[: self.done],
            "seconds": self.seconds[: self.done],
        }


def known(asked: Asked, out: Path) -> Said | None:
    """The results that `out` has already; None where it is new or a run was stopped in it.

    Raises:
        InputError: It holds results of another run, something else, or damaged files.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out.name!r} is not a folder; give one with -o")
    if (out / RESULTS).is_file():
        try:
            body = json.loads((out / RESULTS).read_text("utf8"))
            theirs = body["settings"] if body["format"] == FORMAT else None
            said(body)
        except (
            ArithmeticError,
            AttributeError,
            LookupError,
            RecursionError,
            TypeError,
            ValueError,
        ):
            theirs = None
        if not isinstance(theirs, dict):
            raise InputError(
                f"{RESULTS} in {out.name!r} is not of this command, or was damaged; give a new "
                "output folder with -o"
            )
        _check_same(theirs, asked, out)
        return dict(body)
    if (out / CHECKPOINT).is_file():
        _check_same(_head(out).get("settings"), asked, out)
        return None
    for name in (ARRAYS, REPORT):
        if (out / name).exists():
            raise InputError(f"{out.name!r} holds a {name} of something else; give a new -o")
    return None


def _head(out: Path) -> Said:
    head = read_head(out / CHECKPOINT)
    if head.get("format") != FORMAT or not isinstance(head.get("done"), int):
        raise InputError(f"{CHECKPOINT} in {out.name!r} is of another command; give a new -o")
    return head


def _check_same(theirs: Any, asked: Asked, out: Path) -> None:
    mine = asked.settings
    theirs = theirs if isinstance(theirs, dict) else {}
    differs = sorted(k for k in {*mine, *theirs} if mine.get(k) != theirs.get(k))
    if differs:
        raise InputError(
            f"{out.name!r} belongs to a run with another {', '.join(differs)}; give a new output "
            "folder with -o"
        )


def before(asked: Asked, out: Path) -> Iterator[tuple[str, str]]:
    """What is about to happen, for a terminal: names and texts; nothing large is made.

    Raises:
        InputError: There is too little memory.
    """
    needed, free = check_memory(asked)
    sizes = ", ".join(f"{words.size(b)} {name}" for name, b in needed.items() if b >= 1_000_000)
    yield "Simulates", _asked_in_words(asked)
    yield (
        "Memory",
        f"about {words.size(sum(needed.values()))} at most: {sizes}; {words.size(free)} are free"
        + ("; the counts are on the card" if asked.device == "cuda" else ""),
    )
    done = int(_head(out)["done"]) if (out / CHECKPOINT).is_file() else 0
    guess = forecast(asked, done)
    times = f"about {words.seconds(guess.changing_s)} a round while winners change"
    if guess.changing < guess.rounds:
        times += (
            f" (a guess: {guess.changing} of {guess.rounds} rounds), "
            f"{words.seconds(guess.settled_s)} once they are settled"
        )
    yield "Time", f"{times}; about {words.seconds(guess.total_s)} in all"
    if done:
        again = ", which first makes the counts again" if asked.tier == "exact" else ""
        yield "Goes on", f"after round {done} of {asked.rounds}{again}"


def _asked_in_words(asked: Asked) -> str:
    areas, many = ", ".join(f"{n:,}" for n in asked.areas), sum(asked.areas) > 1
    return (
        f"{areas} neuron{'s'[:many]}, k = {asked.k:,}, p = {asked.p:g}, beta = {asked.beta:g}, "
        f"{asked.rounds} round{'s'[: asked.rounds > 1]}, the {asked.tier} tier on {asked.device}, "
        f"seed {asked.seed}"
    )


def simulate(
    asked: Asked, out: Path, progress: Callable[[Seen], None], stop: Event
) -> Said | None:
    """Run what is asked, or go on with it; write results.npz, results.json and report.html.

    results.npz holds, for area i from 1, winners_areai (rounds, k), numbers of neurons, -1 before
    the area fires (of the lazy tier, in the order in which they first fired); support and overlap
    with the round before, (rounds, areas); seconds of each round, (rounds,); bytes, and bytes_of
    what they are; head, the settings in JSON, and a digest of all.

    Args:
        asked: From `ask`.
        out: An existing folder; it is locked meanwhile.
        progress: Called after each round.
        stop: Once set, the round is ended, a checkpoint is made, and None is returned.

    Returns:
        The body of results.json.

    Raises:
        InputError: The folder cannot be used (`known`), or a round is refused.
    """
    lock = lock_folder(out)
    try:
        body = known(asked, out)
        return _rounds(asked, out, progress, stop) if body is None else body
    except MemoryError as e:
        raise InputError(
            "there was too little memory for the next round; the same call goes on from the last "
            "checkpoint where more is free"
        ) from e
    finally:
        if lock is not None:
            unlock(lock)


def _rounds(asked: Asked, out: Path, progress: Callable[[Seen], None], stop: Event) -> Said | None:
    mind, record = brain(asked), _Record.of(asked)
    if (out / CHECKPOINT).is_file():
        _go_on(out, mind, record)
    else:
        _save(out, asked, mind, record)
    last, cost = time.monotonic(), 0.0
    while record.done < asked.rounds:
        start = time.perf_counter()
        mind.fire(asked.inputs(record.done))
        progress(record.note(mind, time.perf_counter() - start))
        ended = record.done == asked.rounds
        # At the end too, where it is cheap: the results are about to be written.
        pause = max(0.0 if ended else _EVERY_S, _SHARE * max(cost, _guessed_cost(mind)))
        if stop.is_set() or time.monotonic() - last > pause:
            start = time.monotonic()
            _save(out, asked, mind, record)
            last = time.monotonic()
            cost = last - start
        if stop.is_set() and not ended:
            return None
    return _finish(asked, out, mind, record)


def _guessed_cost(mind: Kept) -> float:
    """Seconds of a checkpoint, before there was one; counts are not in it."""
    return sum(size for name, size in mind.nbytes.items() if name != "counts") / _BYTES_A_SECOND


def _save(out: Path, asked: Asked, mind: Kept, record: _Record) -> None:
    head = {
        "format": FORMAT, "settings": asked.settings, "resumed": record.resumed,
        "done": record.done,
    }  # fmt: skip
    state = {f"brain {name}": array for name, array in mind.saved().items()}
    write_arrays(out / CHECKPOINT, head, {**record.arrays(), **state})


def _go_on(out: Path, mind: Kept, record: _Record) -> None:
    """Put the brain and the record where the checkpoint was made."""
    head, arrays = read_arrays(out / CHECKPOINT)
    state = {n.removeprefix("brain "): a for n, a in arrays.items() if n.startswith("brain ")}
    mind.restore(state)
    try:
        record.done = len(arrays["seconds"])
        for name, mine in record.arrays().items():
            mine[...] = arrays[name]
        record.resumed = [*map(int, head["resumed"]), record.done]
    except (KeyError, ValueError, TypeError) as e:
        raise InputError(
            f"{CHECKPOINT} in {out.name!r} is not of these settings; give a new -o"
        ) from e


def _finish(asked: Asked, out: Path, mind: Kept, record: _Record) -> Said:
    """Write what was found; results.json last: where it is, all is."""
    sizes = mind.nbytes
    many = sum(asked.areas)
    areas = [_found(asked, record, i) for i in range(len(asked.areas))]
    arrays = {
        **record.arrays(),
        "overlap": np.array([a.pop("overlaps") for a in areas]).T,
        "bytes": np.array([*sizes.values()]),
        "bytes_of": np.array([*sizes]),
    }
    body = {
        "format": FORMAT,
        "settings": asked.settings,
        "threads": asked.threads,
        "device": asked.device,
        "versions": versions(("numpy", "scipy", "numba", "cupy")),
        "machine": machine() | ({"card": card()} if asked.device == "cuda" else {}),
        "areas": areas,
        "seconds": float(record.seconds.sum()),
        "resumed": record.resumed,
        "bytes": sizes,
        "document_bytes": DOCUMENT_BYTES * many,
    }
    write_arrays(out / ARRAYS, {"settings": asked.settings}, arrays)
    write_text(out / REPORT, render(body, arrays))
    write_text(out / RESULTS, json.dumps(body, indent=1) + "\n")
    (out / CHECKPOINT).unlink(missing_ok=True)
    return body


def _found(asked: Asked, record: _Record, index: int) -> Said:
    """What became of one area; `overlaps` (rounds,) with the round before, NaN without one."""
    area = asked.circuit.areas[index]
    rows = record.winners[index][index:]
    trace = Trace(area.name, tuple(rows), ())
    bound, least = support_bound(area, asked.p)
    settled = trace.settled()
    nothing = [float("nan")] * min(index + 1, asked.rounds)
    stability = trace.stability()
    return {
        "name": area.name,
        "n": area.n,
        "settled": None if settled is None else settled + index,
        "support": int(record.support[-1, index]),
        "last_overlap": stability[-1] if stability else None,
        "bound": bound if np.isfinite(bound) else None,
        "bound_from_beta": least,
        "overlaps": [*nothing, *stability],
    }
