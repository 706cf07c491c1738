"""The neurons of an area that never fired, as counts of equal ones: cost independent of n."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import binom, hypergeom

from justenough.assemblies.circuit import Slots

# A class of so few neurons is drawn neuron by neuron; both ways have the same law.
_FEW = 16
# Beyond so many classes, the memory of what fired least recently is given up.
MOST_CLASSES = 1 << 18


@dataclass
class _Rows:
    """Which source neurons a fibre's columns count: `seen` fired last, of `known` in all."""

    seen: Slots
    known: int


class _Drawn(NamedTuple):
    """So many neurons of the class `parent` had this outcome."""

    parent: Slots
    outcome: Slots
    number: Slots


@dataclass
class Unfired:
    """Neurons that never fired, in classes of equal counts of synapses.

    A class is a row of `table`: the number of synapses from each stimulus, and for each fibre
    from those of its source's neurons that fired last (`name`) and from those that fired at any
    time before (`name` + "~"). `number` says how many neurons are in each class. See `lazy` for
    what is exact and what is not.

    Args:
        n: Neurons.
        p: Probability of a synapse.
        rng: Source of randomness.
    """

    n: int
    p: float
    rng: np.random.Generator
    columns: list[str] = field(default_factory=list)
    table: npt.NDArray[np.int32] = field(init=False)
    number: Slots = field(init=False)
    rows: dict[str, _Rows] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.table = np.zeros((1, 0), np.int32)
        self.number = np.array([self.n], np.int64)

    def hear_stimulus(self, name: str, k: int) -> None:
        """Know the counts of synapses from a stimulus of `k` neurons: fixed from then on."""
        if name not in self.columns:
            self._draw_new(name, k)
        self._last(name)

    def hear_area(self, name: str, active: Slots, ever: int) -> None:
        """Know the counts from the `active` of the `ever` neurons of an area that ever fired.

        Rows of neurons that go on firing keep their counts; those that stop take with them a
        hypergeometric part of the counts, those that start again bring one back; those never
        heard before bring a binomial number.
        """
        if name not in self.columns:
            self._draw_new(name, active.size)
            self._draw_new(name + "~", ever - active.size)
        else:
            self._change(name, active, ever)
        self.rows[name] = _Rows(active, ever)
        self._last(name)

    def _change(self, name: str, active: Slots, ever: int) -> None:
        was, rest = self.rows[name], name + "~"
        if was.known == ever and np.array_equal(was.seen, active):
            return
        fires = np.zeros(ever, bool)
        fires[active] = True
        fired = np.zeros(ever, bool)
        fired[was.seen] = True
        back = int((fires & ~fired)[: was.known].sum())
        left = int((fired & ~fires).sum())
        first = int(fires[was.known :].sum())
        if rest in self.columns:
            self._move(rest, "+", back, was.known - was.seen.size)
            self._move(name, rest, left, was.seen.size)
            self._absorb("+", name)
            self._gain(rest, ever - was.known - first)
            self._gain(name, first)
        else:
            self._move(name, None, left, was.seen.size)
            self._gain(name, back + first)

    def level(self, names: Sequence[str]) -> Slots:
        """Sum of the counts from these sources, for each class."""
        columns = [self.columns.index(name) for name in names]
        total: Slots = self.table[:, columns].sum(1, dtype=np.int64)
        return total

    def take(self, classes: Slots) -> npt.NDArray[np.int32]:
        """Remove one neuron of each class named (a class may be named often); their counts."""
        taken: npt.NDArray[np.int32] = self.table[classes]
        np.subtract.at(self.number, classes, 1)
        keep = self.number > 0
        self.table, self.number = self.table[keep], self.number[keep]
        return taken

    def _draw_new(self, name: str, size: int) -> None:
        self.columns.append(name)
        zero = np.zeros((len(self.table), 1), np.int32)
        self.table = np.hstack([self.table, zero])
        self._gain(name, size)

    def _gain(self, name: str, size: int) -> None:
        if size:
            law = binom.pmf(np.arange(size + 1), size, self.p)[None, :]
            drawn = self._split(np.zeros(len(self.table), np.int64), law)
            self._become(drawn.parent, {name: drawn.outcome}, drawn.number)

    def _move(self, source: str, target: str | None, size: int, among: int) -> None:
        """Move the synapses of `size` of the `among` rows of a column to another one."""
        column = self.columns.index(source)
        if target == "+":
            self.columns.append("+")
            self.table = np.hstack([self.table, np.zeros((len(self.table), 1), np.int32)])
        if size:
            most = int(self.table[:, column].max(initial=0))
            outcomes, values = np.arange(min(size, most) + 1), np.arange(most + 1)
            law = hypergeom.pmf(outcomes[None, :], among, values[:, None], size)
            drawn = self._split(self.table[:, column].astype(np.int64), law)
            moved = {source: -drawn.outcome} | ({target: drawn.outcome} if target else {})
            self._become(drawn.parent, moved, drawn.number)

    def _absorb(self, source: str, target: str) -> None:
        self.table[:, self.columns.index(target)] += self.table[:, self.columns.index(source)]
        self._drop(source)

    def _drop(self, name: str) -> None:
        self.table = np.delete(self.table, self.columns.index(name), 1)
        self.columns.remove(name)
        self._become(np.arange(len(self.table)), {}, self.number)

    def _split(self, given: Slots, law: npt.NDArray[np.float64]) -> _Drawn:
        """Draw an outcome for every neuron, with the law in row `given` of its class.

        Numbers of outcomes are conditional binomials from the top outcome downwards, so that
        the tail, from which winners come, is drawn with its small probabilities as they are.
        """
        law = np.nan_to_num(law)
        shown = np.flatnonzero(law.max(0) > 1e-30)
        law = law[:, shown[::-1]]
        law /= law.sum(1, keepdims=True)
        few = self.number <= _FEW
        one = np.repeat(np.flatnonzero(few), self.number[few])
        edges, u = np.cumsum(law, 1), self.rng.random(one.size)
        outcome = np.empty(one.size, np.int64)
        for value in np.unique(given[one]):
            mine = given[one] == value
            outcome[mine] = np.searchsorted(edges[value], u[mine] * edges[value, -1], "right")
        many = np.flatnonzero(~few)
        drawn = self.rng.multinomial(self.number[many], law[given[many]])
        row, column = np.nonzero(drawn)
        return _Drawn(
            np.concatenate([one, many[row]]),
            shown[::-1][np.concatenate([outcome, column])],
            np.concatenate([np.ones(one.size, np.int64), drawn[row, column]]),
        )

    def _become(self, parent: Slots, changes: dict[str, Slots], number: Slots) -> None:
        """Classes of the drawn outcomes, equal ones together."""
        table = self.table[parent]
        for name, change in changes.items():
            table[:, self.columns.index(name)] += change.astype(np.int32)
        key, span = np.zeros(len(table), np.int64), 1
        for column in table.T:
            width = int(column.max(initial=0)) + 1
            if span * width >= 2**62:
                key = np.unique(key, return_inverse=True)[1]
                span = len(table)
            key, span = key * width + column, span * width
        _, first, group = np.unique(key, return_index=True, return_inverse=True)
        self.table = table[first]
        self.number = np.zeros(first.size, np.int64)
        np.add.at(self.number, group, number)

    def forget(self, keep: Sequence[str]) -> None:
        """While classes are many, give up what was heard least recently and is not in `keep`.

        Counts given up are drawn afresh when their source is heard again.
        """
        while len(self.table) > MOST_CLASSES:
            old = [c for c in self.columns if c not in keep]
            old.sort(key=lambda c: not c.endswith("~"))
            if not old:
                return
            self._drop(old[0])
            if old[0] in self.rows:
                del self.rows[old[0]]
                if old[0] + "~" in self.columns:
                    self._drop(old[0] + "~")

    def _last(self, name: str) -> None:
        """Put the source's columns last: the first ones are forgotten first."""
        mine = [c for c in self.columns if c.rstrip("~") == name]
        order = [c for c in self.columns if c not in mine] + mine
        if order == self.columns:
            return
        self.table = self.table[:, [self.columns.index(c) for c in order]]
        self.columns = order
