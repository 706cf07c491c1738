"""The lazy method of the Assembly Calculus authors: the baseline, with its bias.

Papadimitriou et al. 2020, doi:10.1073/pnas.2001893117, and its public simulator; written anew
from the method. In each round the inputs of k neurons that never fired are drawn as normals
above the threshold that k of them should exceed, rounded. Nothing about losers is kept, and the
normal stands for a binomial tail: supports differ from those of the random graph, by tens of
percent at kp near 1. Use `lazy` for results; this is what it is held against.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import binom, truncnorm

from justenough.assemblies.circuit import Area, Circuit, Slots
from justenough.errors import InputError

_Weights = npt.NDArray[np.float32]


class ReferenceBrain:
    """A circuit simulated by the authors' method, with float32 weights in dense matrices.

    Neurons of an area are numbered in the order in which they first fire.

    Args:
        circuit: What is simulated.
        seed: The same seed gives the same winners.
    """

    def __init__(self, circuit: Circuit, seed: int = 0):
        self._circuit = circuit
        self._rng = np.random.default_rng(seed)
        self._winners = {a.name: np.empty(0, np.int64) for a in circuit.areas}
        self._ever = {a.name: 0 for a in circuit.areas}
        self._size = {s.name: s.k for s in circuit.stimuli}
        # Weights of fibres, (sources, targets), and total weights of stimuli, (targets,).
        self._weights: dict[tuple[str, str], _Weights] = {
            (f.source, f.target): np.zeros((0, 0), np.float32) for f in circuit.fibres
        }
        self._stimuli: dict[tuple[str, str], _Weights] = {
            (s.name, a.name): np.zeros(0, np.float32)
            for s in circuit.stimuli
            for a in circuit.areas
        }

    @property
    def circuit(self) -> Circuit:
        """What is simulated."""
        return self._circuit

    def winners(self, area: str) -> Slots:
        """Neurons that fired last, sorted."""
        return self._winners[self._circuit.area(area).name].copy()

    def support(self, area: str) -> int:
        """How many neurons ever fired."""
        return self._ever[self._circuit.area(area).name]

    def activate(self, area: str, winners: Slots) -> None:
        """Make these neurons the last winners; InputError for one that never fired."""
        ever = self.support(area)
        chosen = np.unique(winners)
        if chosen.size and not (chosen[0] >= 0 and chosen[-1] < ever):
            raise InputError(f"area {area}: give neurons that ever fired, 0 to {ever - 1}")
        self._winners[area] = chosen.astype(np.int64)

    def fire(self, inputs: Mapping[str, Sequence[str]], plastic: bool = True) -> None:
        """One round: each area in `inputs` fires on the sources named.

        Raises:
            InputError: A source that the circuit lacks, an area that never fired named as a
                source, or fewer than k neurons left that never fired.
        """
        self._circuit.check(inputs)
        for source in (s for sources in inputs.values() for s in sources):
            if source in self._winners and not self._winners[source].size:
                raise InputError(f"area {source} has no winners yet; let it fire first")
        before = dict(self._ever)
        fired = {t: self._target(self._circuit.area(t), s, before) for t, s in inputs.items()}
        for target, sources in inputs.items():
            if plastic:
                self._grow(self._circuit.area(target), sources, fired[target])
        for target, winners in fired.items():
            self._winners[target] = winners
        self._new_sources(before)

    def _target(self, area: Area, sources: Sequence[str], before: dict[str, int]) -> Slots:
        ever = self._ever[area.name]
        own = np.zeros(ever)
        for source in sources:
            if source in self._size:
                own += self._stimuli[source, area.name]
            else:
                own += self._weights[source, area.name][self._winners[source]].sum(0)
        sizes = [self._size.get(s) or self._winners[s].size for s in sources]
        fresh = self._first_time(area, sum(sizes))
        values = np.concatenate([own, fresh])
        best = np.argsort(-values, kind="stable")[: area.k]
        old, new = best[best < ever], best[best >= ever] - ever
        self._admit(area.name, sources, sizes, fresh[new], before)
        return np.sort(np.concatenate([old, ever + np.arange(new.size)]))

    def _first_time(self, area: Area, total: int) -> npt.NDArray[np.float64]:
        """Inputs of k neurons that never fired: rounded normals above the k-th's threshold."""
        p, left = self._circuit.p, area.n - self._ever[area.name]
        if left < area.k:
            raise InputError(
                f"area {area.name}: {left} neurons never fired, fewer than k={area.k}; "
                "give more neurons"
            )
        alpha = float(binom.ppf((left - area.k) / left, total, p))
        mean, spread = total * p, float(np.sqrt(total * p * (1 - p)))
        if spread == 0:
            return np.full(area.k, float(total))
        low = (max(alpha, 0.0) - mean) / spread
        drawn = truncnorm.rvs(
            low, np.inf, loc=mean, scale=spread, size=area.k, random_state=self._rng
        )
        rounded: npt.NDArray[np.float64] = np.minimum(np.rint(drawn), float(total))
        return rounded

    def _admit(
        self,
        target: str,
        sources: Sequence[str],
        sizes: Sequence[int],
        fresh: npt.NDArray[np.float64],
        before: dict[str, int],
    ) -> None:
        """Split each first-time winner's input over the neurons that fired; p for the rest."""
        ends, new = np.cumsum(sizes), fresh.size
        self._ever[target] += new
        heard = [
            np.sort(self._rng.choice(int(ends[-1]), int(m), replace=False, shuffle=False))
            for m in fresh
        ]
        for (source, area), weights in self._weights.items():
            if area == target:
                more = (self._rng.random((before[source], new)) < self._circuit.p).astype("f4")
                if source in sources:
                    at = sources.index(source)
                    more[self._winners[source]] = 0
                    for i, picked in enumerate(heard):
                        mine = picked[(picked >= ends[at] - sizes[at]) & (picked < ends[at])]
                        more[self._winners[source][mine - (ends[at] - sizes[at])], i] = 1
                self._weights[source, area] = np.hstack([weights, more])
        for (source, area), total in self._stimuli.items():
            if area == target:
                count = self._rng.binomial(self._size[source], self._circuit.p, new)
                if source in sources:
                    at = sources.index(source)
                    low, high = ends[at] - sizes[at], ends[at]
                    count = np.array([((h >= low) & (h < high)).sum() for h in heard], int)
                self._stimuli[source, area] = np.append(total, count.astype(np.float32))

    def _grow(self, area: Area, sources: Sequence[str], winners: Slots) -> None:
        """Hebbian growth of the weights from what fired to the winners."""
        factor = np.float32(1 + area.beta)
        for source in sources:
            if source in self._size:
                self._stimuli[source, area.name][winners] *= factor
            else:
                grid = np.ix_(self._winners[source], winners)
                self._weights[source, area.name][grid] *= factor

    def _new_sources(self, before: dict[str, int]) -> None:
        for (source, target), weights in self._weights.items():
            new = self._ever[source] - before[source]
            if new:
                more = self._rng.random((new, self._ever[target])) < self._circuit.p
                self._weights[source, target] = np.vstack([weights, more.astype(np.float32)])
