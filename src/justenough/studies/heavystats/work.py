"""What every analysis of the study gets, and the data in the forms that they need."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from justenough.core.store import Store
from justenough.stats.moments import Moments, UnitTotals, moments_from, unit_totals
from justenough.stats.moments import moments as moments_of
from justenough.stats.stream import stream_moments
from justenough.studies.heavystats.table import Table
from justenough.studies.heavystats.world import BLOCK, WEIGHTS, World

Array = NDArray[np.float64]
Said = dict[str, Any]
# The weights that the document hopes to find. Fixed before any data are seen, so that a test
# about them has selected nothing.
HOPED = np.array(WEIGHTS[0])
UNITS = 100_000
DECADE = 10


@dataclass(frozen=True)
class Work:
    """One analysis at work.

    Attributes:
        source: The conversations.
        rng: Of this analysis alone.
        store: Where parts of long work are kept.
        tick: Called with the share that is done.
    """

    source: World | Table
    rng: np.random.Generator
    store: Store
    tick: Callable[[float], None]

    def ticking(self, first: float = 0.0, last: float = 1.0) -> Callable[[int, int], None]:
        """`tick` for something that counts what it has done, between two shares of the whole."""
        return lambda done, whole: self.tick(first + (last - first) * done / whole)


def value(x: float, mc_se: float) -> Said:
    """A number that was drawn at random, with its Monte Carlo standard error."""
    return {"value": float(x), "mc_se": float(mc_se)}


def prefixes(work: Work) -> list[Moments]:
    """Moments of the first 1,000 conversations, the first 10,000, and so on, and of all.

    Each part is recorded when it is known: nothing of a pass over a billion turns is lost.
    """
    if isinstance(work.source, Table):
        return [_of_table(work.source)]
    world, ends = work.source, [1]
    while ends[-1] < world.n_blocks:
        ends.append(min(ends[-1] * DECADE, world.n_blocks))
    found: list[Moments] = []
    so_far: Moments | None = None
    for first, last in zip([0, *ends], ends, strict=False):
        for start in range(first, last, 1000):
            stop = min(start + 1000, last)
            part = moments_from(
                work.store.once_arrays(f"pass {start}", partial(_pass, world, start, stop))
            )
            so_far = part if so_far is None else so_far.merged(part)
            work.tick(stop / world.n_blocks)
        if so_far is not None:
            found.append(so_far)
    return found


def everything(work: Work) -> Moments:
    """Moments of all conversations."""
    return prefixes(work)[-1]


def _pass(world: World, first: int, last: int) -> dict[str, NDArray[Any]]:
    return stream_moments(partial(world.block, b) for b in range(first, last)).arrays()


def _of_table(table: Table) -> Moments:
    return moments_of(table.values, table.unit)


def units(work: Work) -> UnitTotals:
    """Totals of each of the first conversations, at most 100,000."""
    if isinstance(work.source, Table):
        return unit_totals(work.source.values, work.source.unit)
    world = work.source
    few = min(UNITS, world.conversations)
    rows = np.concatenate([world.block(b) for b in range(-(-few // BLOCK))])[:few]
    return unit_totals(rows)


def one_turn_each(source: World | Table, first: int, last: int, rng: np.random.Generator) -> Array:
    """One turn of each conversation `first` to `last` - 1, (m, 5): independent rows."""
    if isinstance(source, Table):
        starts = np.searchsorted(source.unit, np.arange(source.conversations + 1))
        first, last = min(first, source.conversations), min(last, source.conversations)
        begin, end = starts[first:last], starts[first + 1 : last + 1]
        chosen: Array = source.values[begin + rng.integers(0, end - begin)]
        return chosen
    last = min(last, source.conversations)
    blocks = range(first // BLOCK, -(-last // BLOCK))
    rows = np.concatenate([source.block(b) for b in blocks])
    rows = rows[first - blocks[0] * BLOCK : last - blocks[0] * BLOCK]
    turn = rng.integers(0, source.turns, len(rows))
    picked: Array = rows[np.arange(len(rows)), turn].astype(np.float64)
    return picked
