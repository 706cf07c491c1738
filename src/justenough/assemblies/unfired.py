"""The neurons of an area that never fired, known by nothing but the rounds they lost."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import binom

from justenough.assemblies.circuit import Slots
from justenough.assemblies.saved import unfit, whole, within
from justenough.assemblies.synapses import Ids
from justenough.compiled import has_numba, jit

# Rounds whose losers are remembered; beyond, the one that was last heard longest ago is not.
MOST_ROUNDS = 1024
# So many neurons of a level are drawn one by one, or so many times k if that is more.
MOST_TIED, TIMES_K = 4096, 8
# Levels that a neuron of the area reaches with less than this chance are taken as never reached.
_NEVER = 1e-15
_BUFFER = 1 << 15
_Reals = npt.NDArray[np.float64]


class Heard(NamedTuple):
    """What an area hears in a round: stimuli by number, their sizes, and source neurons."""

    stimuli: tuple[int, ...]
    sizes: tuple[int, ...]
    lines: Ids

    @property
    def size(self) -> int:
        """Neurons that fire."""
        return sum(self.sizes) + self.lines.size


class Found(NamedTuple):
    """Neurons drawn in a round, and all that there is to know of them.

    Attributes:
        level: Input of each, in synapses, shape (f,).
        stimuli: Synapses from each stimulus, shape (f, stimuli).
        lines: Sources of its synapses, all neurons' end to end.
        joined: How many of them each neuron has, shape (f,).
        bound: Level below which nothing was drawn.
        tied: Neurons there are at that level; more than were drawn if they are many.
    """

    level: Slots
    stimuli: Ids
    lines: Ids
    joined: Slots
    bound: int
    tied: int


class _World(NamedTuple):
    """Neurons that fire, by place: stimuli up to their `ends`, then `lines`; and the others."""

    ends: Slots
    base: int
    lines: Ids
    quiet: Ids
    law: _Reals


class _Book(NamedTuple):
    """The rounds lost: who fired, the level at which a neuron may have lost, and how often."""

    heard: npt.NDArray[np.uint8]
    uses: npt.NDArray[np.uint8]
    bound: Slots
    keep: _Reals
    rounds: int
    recent: int


def _subset(number: Any, among: Any, mark: Any, stamp: Any, rng: Any, out: Any) -> None:
    """Floyd's algorithm: `number` places of range(among)."""
    for i in range(number):
        j = among - number + i
        place = int(rng.random() * (j + 1))
        if mark[place] == stamp:
            place = j
        mark[place] = stamp
        out[i] = place


def _surely_won(stimuli: Any, lines: Any, book: Any) -> Any:
    """Whether these synapses alone would have won the latest round remembered."""
    if book.recent < 0:
        return False
    level = 0
    for i in range(stimuli.size):
        level += stimuli[i] * book.uses[i, book.recent]
    for line in lines:
        level += book.heard[line, book.recent]
    bound = book.bound[book.recent]
    return level > bound or (level == bound and book.keep[book.recent] == 0)


def _lost_all(stimuli: Any, lines: Any, book: Any, levels: Any, rng: Any) -> Any:
    levels[:] = 0
    for i in range(stimuli.size):
        for c in range(book.rounds):
            levels[c] += stimuli[i] * book.uses[i, c]
    for line in lines:
        for c in range(book.rounds):
            levels[c] += book.heard[line, c]
    for c in range(book.rounds):
        if levels[c] > book.bound[c]:
            return False
        if levels[c] == book.bound[c] and rng.random() >= book.keep[c]:
            return False
    return True


def _candidates(
    level: Any, most: Any, want: Any, world: Any, book: Any, out: Any, rng: Any
) -> Any:
    """Draw up to `most` neurons of that level; keep up to `want` that lost every round."""
    counts, edges, ends = out
    stimuli, active, quiet = world.ends.size, world.lines.size, world.quiet.size
    total = world.base + active
    mark, other = np.zeros(total, np.int32), np.zeros(quiet, np.int32)
    levels = np.zeros(book.rounds, np.int32)
    place = np.empty(max(level, world.law.shape[1]), np.int64)
    kept, used = 0, 0
    for tried in range(1, most + 1):
        own, end = counts[kept], used
        own[:] = 0
        _subset(level, total, mark, tried, rng, place)
        for i in range(level):
            if place[i] >= world.base:
                edges[end] = world.lines[place[i] - world.base]
                end += 1
            else:
                own[np.searchsorted(world.ends, place[i], "right")] += 1
        if _surely_won(own, edges[used:end], book):
            continue
        for i in range(stimuli):
            if world.law[i, 0] >= 0:
                own[i] = np.searchsorted(world.law[i], rng.random(), "right")
        number = np.searchsorted(world.law[stimuli], rng.random(), "right")
        _subset(number, quiet, other, tried, rng, place)
        for i in range(number):
            edges[end] = world.quiet[place[i]]
            end += 1
        if not _lost_all(own, edges[used:end], book, levels, rng):
            continue
        ends[kept] = used = end
        kept += 1
        if kept == min(want, ends.size) or used + level + world.law.shape[1] > edges.size:
            return tried, kept
    return most, kept


@lru_cache
def _loop() -> Callable[..., tuple[int, int]]:
    """Compiled, or as it is where Numba is not installed: same results, far slower."""
    if not has_numba():
        return _candidates
    from numba.extending import register_jitable

    for called in (_subset, _surely_won, _lost_all):
        register_jitable(called)
    return jit(_candidates)


@lru_cache(16)
def _tail(size: int, p: float) -> tuple[_Reals, _Reals]:
    """Chance of each level, and of that level or more, up to where they do not matter."""
    top = int(binom.isf(1e-40, size, p))
    law = binom.pmf(np.arange(top + 1), size, p)
    return law, np.cumsum(law[::-1])[::-1]


@lru_cache(64)
def _distribution(size: int, p: float) -> _Reals:
    """Binomial distribution function, up to where it is 1."""
    if p == 1:
        return np.append(np.zeros(size), 1.0)
    most = int(size * p)
    width = min(size, int(most + 12 * np.sqrt(size * p * (1 - p)) + 30))
    # Ratios of neighbours, from the most likely number outwards.
    up = np.arange(most, width)
    down = np.arange(most, 0, -1)
    odds = p / (1 - p)
    above = np.cumprod((size - up) / (up + 1) * odds)
    below = np.cumprod(down / (size - down + 1) / odds)
    law = np.cumsum(np.concatenate([below[::-1], [1.0], above]))
    law /= law[-1]
    return law


@dataclass
class Unfired:
    """Neurons that never fired and of which none is known by itself.

    They are alike and independent: each has every synapse with chance p, given that it lost
    every round that the area fired in. A round is remembered by who fired, by the level at
    which the area's cap cut (a neuron above it won), and by the chance that a neuron at that
    very level lost. So neurons that win or tie now are drawn by the law of the random graph and
    kept if they would have lost each earlier round.

    Args:
        n: Neurons of the area.
        p: Probability of a synapse.
        rng: Source of randomness.
    """

    n: int
    p: float
    rng: np.random.Generator
    number: int = field(init=False)
    sizes: list[int] = field(default_factory=list)
    _lines: int = 0
    _heard: npt.NDArray[np.uint8] = field(init=False)
    _uses: npt.NDArray[np.uint8] = field(init=False)
    _bound: Slots = field(init=False)
    _keep: _Reals = field(init=False)
    # Column of each round remembered, longest unheard first, by its sources.
    _columns: dict[tuple[tuple[int, ...], bytes], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.number = self.n
        self._heard = np.zeros((0, 8), np.uint8)
        self._uses = np.zeros((0, 8), np.uint8)
        self._bound, self._keep = np.zeros(8, np.int64), np.zeros(8)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        arrays = (self._heard, self._uses, self._bound, self._keep)
        return sum(a.nbytes for a in arrays)

    @property
    def rounds(self) -> int:
        """Rounds remembered."""
        return len(self._columns)

    def check(self, n: int, p: float, known: int, sizes: list[int], lines: int) -> None:
        """Refuse, of what was saved, all that would lead a compiled loop astray.

        Args:
            n: Neurons of the area.
            p: Probability of a synapse.
            known: Neurons of the area that are not among these.
            sizes: Those of the stimuli heard, by their number.
            lines: Source neurons.

        Raises:
            InputError: No run leaves such neurons.
        """
        held = vars(self)
        if whole(held, "n", n) != n or type(self.p) is not type(p) or self.p != p:
            raise unfit(f"its neurons are {self.n!r:.40} with p={self.p!r:.40}")
        if whole(held, "number", n) + known != n:
            raise unfit(f"{self.number} neurons that never fired and {known} others are not {n}")
        if self.sizes != sizes or whole(held, "_lines", lines) != lines:
            raise unfit("it was made for other stimuli or sources")
        self.sizes = sizes  # whole numbers, and not what only equals them
        room = within(held, "_bound", np.int64, (None,)).size
        keep = within(held, "_keep", np.float64, (room,))
        if not ((keep >= 0) & (keep <= 1)).all():
            raise unfit("a chance is not within 0 and 1")
        heard = within(held, "_heard", np.uint8, (None, room), 1)
        within(held, "_uses", np.uint8, (len(sizes), room), 1)
        if len(heard) < lines or heard[lines:].any():
            raise unfit(f"rounds are remembered of other neurons than {lines}")
        self._check_columns()

    def _check_columns(self) -> None:
        columns = list(self._columns.values())
        for column in columns:
            whole({"column": column}, "column", len(columns) - 1)
        if len(set(columns)) < len(columns) or not len(columns) <= min(
            MOST_ROUNDS, self._bound.size
        ):
            raise unfit("rounds remembered are mixed up")
        for key, column in self._columns.items():
            stimuli = np.flatnonzero(self._uses[:, column]).tolist()
            lines = np.flatnonzero(self._heard[:, column]).astype(np.int32)
            heard = Heard(tuple(stimuli), tuple(self.sizes[s] for s in stimuli), lines)
            if key != _key(heard) or not 0 <= self._bound[column] <= heard.size:
                raise unfit("a round remembered is not what it is called")

    def new_stimulus(self, size: int) -> int:
        """Make a stimulus known; its number."""
        self.sizes.append(size)
        self._uses = np.vstack([self._uses, np.zeros((1, self._bound.size), np.uint8)])
        return len(self.sizes) - 1

    def new_lines(self, count: int) -> Ids:
        """Make source neurons known; their numbers."""
        first, self._lines = self._lines, self._lines + count
        if self._lines > len(self._heard):
            more = self._lines + self._lines // 4 - len(self._heard)
            room = np.zeros((more, self._bound.size), np.uint8)
            self._heard = np.vstack([self._heard, room])
        return np.arange(first, self._lines, dtype=np.int32)

    def draw(self, heard: Heard, values: _Reals, k: int) -> Found:
        """Neurons whose input is among the k largest, and those that tie with the k-th.

        Args:
            heard: Who fires.
            values: The largest inputs, ascending, of neurons that are known, in synapses; if
                they are k or more, none below the k-th largest is needed.
            k: How many fire.
        """
        law, tail = _tail(heard.size, self.p)
        low = int(np.ceil(values[-k])) if values.size >= k else 0
        high = int((tail * self.n > _NEVER).sum())
        column = self._columns.get(_key(heard))
        if column is not None and self._keep[column] == 0:
            high = min(high, int(self._bound[column]))
        levels = np.arange(high - 1, low - 1, -1)
        # The chance of a level is that of a neuron that lost, so far as this is known already.
        chance = law[levels] * self.n / max(self.number, 1)
        if low:  # otherwise no neuron is below
            chance = np.append(chance, max(0.0, 1 - chance.sum()))
        drawn = self.rng.multinomial(self.number, chance / chance.sum())
        larger = values.size - np.searchsorted(values, levels, "right")
        world, pieces = None, []
        bound, found, tied = high, 0, 0
        for level, many, above in zip(levels.tolist(), drawn.tolist(), larger, strict=False):
            if found + above >= k:
                break
            bound, tied = level, 0
            if many:
                world = world or self._world(heard)
                more, tied = self._survivors(level, many, world, max(TIMES_K * k, MOST_TIED))
                pieces += more
                found += tied
        return _found(pieces, len(self.sizes), bound, tied)

    def lost(self, heard: Heard, bound: int, keep: float) -> None:
        """Remember a round: those above `bound` won, those at it lost with chance `keep`."""
        tail = _tail(heard.size, self.p)[1]
        if bound >= tail.size or tail[bound] * self.n <= _NEVER:
            return
        key = _key(heard)
        column = self._columns.pop(key, None)
        if column is None:
            column = self._new_column(heard)
        elif bound >= self._bound[column]:
            keep = self._keep[column] * (keep if bound == self._bound[column] else 1.0)
            bound = int(self._bound[column])
        self._bound[column], self._keep[column] = bound, keep
        self._columns[key] = column

    def _new_column(self, heard: Heard) -> int:
        column = len(self._columns)
        if column == MOST_ROUNDS:
            column = self._columns.pop(next(iter(self._columns)))
        elif column == self._bound.size:
            self._heard = np.hstack([self._heard, np.zeros_like(self._heard)])
            self._uses = np.hstack([self._uses, np.zeros_like(self._uses)])
            self._bound = np.append(self._bound, np.zeros_like(self._bound))
            self._keep = np.append(self._keep, np.zeros_like(self._keep))
        self._heard[:, column], self._uses[:, column] = 0, 0
        self._heard[heard.lines, column] = 1
        self._uses[list(heard.stimuli), column] = 1
        return column

    def _world(self, heard: Heard) -> _World:
        """What fires and what does not, with the laws of what does not."""
        fires = np.zeros(self._lines, bool)
        fires[heard.lines] = True
        quiet = np.flatnonzero(~fires).astype(np.int32)
        now = np.zeros(len(self.sizes), np.int64)
        now[list(heard.stimuli)] = heard.sizes
        # A stimulus that fires is not drawn apart: its law is not asked for.
        sizes = [0 if fires else s for fires, s in zip(now > 0, self.sizes, strict=True)]
        laws = [_distribution(size, self.p) for size in (*sizes, quiet.size)]
        table = np.ones((len(laws), max(law.size for law in laws)))
        for row, law in zip(table, laws, strict=True):
            row[: law.size] = law
        table[:-1][now > 0] = -1.0
        return _World(np.cumsum(now), int(now.sum()), heard.lines, quiet, table)

    def _survivors(
        self, level: int, many: int, world: _World, most: int
    ) -> tuple[list[Found], int]:
        """Of `many` neurons of that level, those that lost every round: drawn, and in all."""
        recent = next(reversed(self._columns.values())) if self._columns else -1
        book = _Book(self._heard, self._uses, self._bound, self._keep, len(self._columns), recent)
        size = max(_BUFFER, 2 * (level + world.law.shape[1]))
        rows = max(1, min(many, most, _BUFFER // 8))
        room = (
            np.zeros((rows + 1, len(self.sizes)), np.int32),
            np.empty(size, np.int32),
            np.empty(rows, np.int64),
        )
        pieces, tried, found = [], 0, 0
        while tried < many and found < most:
            here, kept = _loop()(level, many - tried, most - found, world, book, room, self.rng)
            tried, found = tried + here, found + kept
            counts, edges, ends = room[0][:kept].copy(), room[1], room[2][:kept]
            lines = edges[: ends[-1] if kept else 0].copy()
            own = np.diff(ends, prepend=0)
            pieces.append(Found(np.full(kept, level), counts, lines, own, level, 0))
        return pieces, found if tried == many else round(found * many / tried)


def _key(heard: Heard) -> tuple[tuple[int, ...], bytes]:
    """The same for the same sources."""
    digest = blake2b(np.sort(heard.lines).tobytes(), digest_size=16).digest()
    return tuple(sorted(heard.stimuli)), digest


def _found(pieces: Sequence[Found], stimuli: int, bound: int, tied: int) -> Found:
    """All pieces as one."""
    none = Found(
        np.empty(0, np.int64),
        np.empty((0, stimuli), np.int32),
        np.empty(0, np.int32),
        np.empty(0, np.int64),
        bound,
        tied,
    )
    parts = list(zip(none, *pieces, strict=True))[:4]
    level, counts, lines, own = (np.concatenate(part) for part in parts)
    return Found(level, counts, lines, own, bound, tied)
