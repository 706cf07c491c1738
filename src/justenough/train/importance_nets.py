"""A search over 252 small networks that learn importance from signals, judged once.

Selection sees training and validation rows. The winner, and no other, meets the test rows.
"""

import hashlib
import itertools
import math
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import t as student

from justenough.errors import InputError
from justenough.stats.checks import checked_alpha, finite_matrix, finite_vector, same_length
from justenough.stats.simplex import summary
from justenough.stats.weights import exact_weights
from justenough.train.side_by_side import (
    Architecture,
    Batch,
    Data,
    advance,
    answers,
    keep,
    untrained,
)

_Array = NDArray[Any]

HIDDEN: tuple[tuple[int, ...], ...] = (
    (), (8,), (16,), (32,), (16, 8), (32, 16), (64, 32, 16),
)  # fmt: skip
DROPOUT = (0.0, 0.1, 0.2, 0.3)
RATE = (0.001, 0.01, 0.1)
ACTIVATION = ("relu", "tanh", "elu")
_FEWEST = 30


@dataclass(frozen=True)
class Rows:
    """Signals of shape (n, k) and what they should predict, shape (n,)."""

    x: _Array
    y: _Array

    def __post_init__(self) -> None:
        x, y = finite_matrix("x", self.x), finite_vector("y", self.y)
        n = same_length(x=x, y=y)
        if n < _FEWEST:
            raise InputError(f"{n} rows; at least {_FEWEST} are needed")
        if y.min() == y.max():
            raise InputError(f"every y is {y[0]:g}; it must vary")
        object.__setattr__(self, "x", x)
        object.__setattr__(self, "y", y)


@dataclass(frozen=True)
class Recipe:
    """How long networks train.

    Attributes:
        epochs: Most steps, each over all training rows.
        patience: A network stops when its validation correlation, looked at every 10 steps, has
            not risen by 1e-5 for so many steps; 0 lets every network run to the end.
        halving: Successive halving (Jamieson & Talwalkar 2016): after an eighth, a quarter and a
            half of the steps only the better half of all networks goes on.
    """

    epochs: int = 1000
    patience: int = 100
    halving: bool = False

    def __post_init__(self) -> None:
        if self.epochs < 8:
            raise InputError(f"epochs is {self.epochs}; at least 8 are needed")
        if self.patience < 0:
            raise InputError(f"patience is {self.patience}; it must be 0 (off) or more")


@dataclass(frozen=True)
class Candidate:
    """An architecture's best validation correlation, and the steps it was trained for."""

    architecture: Architecture
    validation: float
    epochs: int


@dataclass(frozen=True)
class Outcome:
    """What the search found.

    Attributes:
        table: All candidates, best validation correlation first.
        winner: The first of them.
        test: The winner's correlation with y on the test rows.
        test_interval: Its two-sided confidence interval.
        linear: That of the best weights on the simplex, found on the training rows.
        linear_interval: Its two-sided confidence interval.
        gain: `test` less `linear`.
        gain_interval: Its two-sided confidence interval; rows are paired.
    """

    table: tuple[Candidate, ...]
    winner: Candidate
    test: float
    test_interval: tuple[float, float]
    linear: float
    linear_interval: tuple[float, float]
    gain: float
    gain_interval: tuple[float, float]


def architectures() -> tuple[Architecture, ...]:
    """Return the 252 candidates; those that train in one batch stand together.

    >>> len(architectures()), len({(a.hidden, a.activation) for a in architectures()})
    (252, 21)
    """
    return tuple(
        Architecture(hidden, dropout, rate, activation)
        for hidden, activation, dropout, rate in itertools.product(
            HIDDEN, ACTIVATION, DROPOUT, RATE
        )
    )


def search(
    train: Rows,
    validation: Rows,
    test: Rows,
    recipe: Recipe = Recipe(),
    *,
    rng: np.random.Generator,
    folder: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Return the table of 252 trained networks, and how the best does on rows never looked at.

    Intervals have confidence 0.95 and use the influence function of Pearson's correlation (Devlin,
    Gnanadesikan & Kettenring 1975), on Fisher's scale for one correlation; they are asymptotic.

    Args:
        train: For the gradients.
        validation: For stopping and selection.
        test: For the winner alone.
        recipe: How long networks train.
        rng: Source of first weights and dropout. A run that is resumed needs the same seed.
        folder: Where each finished batch is kept as .npz, so that a run which was stopped goes
            on from there; nothing is kept otherwise.
        progress: Called with batches done and batches in all.

    Raises:
        InputError: If the rows have different numbers of signals, a row is in two of the three
            parts, or signals of the training rows are constant or depend on each other linearly.

    >>> rng = np.random.default_rng(0)
    >>> parts = [Rows(x := rng.random((60, 4)), x @ [0.1, 0.6, 0.2, 0.1]) for _ in range(3)]
    >>> found = search(*parts, Recipe(8, 0), rng=rng)
    >>> len(found.table), 0.99 < found.linear < 1.0001
    (252, True)
    """
    if not train.x.shape[1] == validation.x.shape[1] == test.x.shape[1]:
        got = [r.x.shape[1] for r in (train, validation, test)]
        raise InputError(f"numbers of signals are {got}; all rows need the same")
    _checked_apart(train, validation, test)
    m = summary(train.x, train.y)
    linear = exact_weights(m.covariance).weights
    centre, spread = m.mean[:-1], np.sqrt(np.diag(m.covariance)[:-1])
    data = Data(*_tensors(train, centre, spread), *_tensors(validation, centre, spread))
    seed = int(rng.integers(2**63))
    identity = _identity(train, validation, recipe, seed)
    groups = itertools.groupby(architectures(), lambda a: (a.hidden, a.activation))
    batches = [
        untrained(list(group), len(centre), np.random.default_rng([seed, i]))
        for i, (_, group) in enumerate(groups)
    ]
    rungs = [recipe.epochs // part for part in ((8, 4, 2, 1) if recipe.halving else (1,))]
    for r, rung in enumerate(rungs):
        for i, batch in enumerate(batches):
            kept = folder / f"{i:02d}-{rung}.npz" if folder else None
            if kept is None or not _restored(batch, kept, identity):
                chance = np.random.default_rng([seed, i, rung])
                advance(batch, data, rung, recipe.patience, chance)
                if kept is not None:
                    _keep(batch, kept, identity)
            if progress:
                progress(r * len(batches) + i + 1, len(rungs) * len(batches))
        if rung < recipe.epochs:
            _halve(batches)
    standard = Rows((test.x - centre) / spread, test.y)
    return _judged(batches, standard, test.x @ linear)


def _checked_apart(train: Rows, validation: Rows, test: Rows) -> None:
    parts = {"train": train, "validation": validation, "test": test}
    found = {
        name: {row.tobytes() for row in np.column_stack([part.x, part.y])}
        for name, part in parts.items()
    }
    for one, two in itertools.combinations(found, 2):
        shared = len(found[one] & found[two])
        if shared:
            raise InputError(f"{one} and {two} share {shared} rows; every row belongs to one part")


def _tensors(rows: Rows, centre: _Array, spread: _Array) -> tuple[Any, Any]:
    """Signals on the training rows' scale, and y with mean 0 and norm 1."""
    x = ((rows.x - centre) / spread).astype(np.float32)
    away = rows.y - rows.y.mean()
    y = (away / np.linalg.norm(away)).astype(np.float32)
    return torch.from_numpy(x), torch.from_numpy(y)


def _halve(batches: list[Batch]) -> None:
    """Keep the better half of the networks that still train; those that stopped stand aside."""
    pool = np.concatenate([b.validation[b.active] for b in batches])
    if len(pool) < 2:
        return
    cut = np.sort(pool)[len(pool) // 2]
    for b in batches:
        keep(b, b.validation[b.active] >= cut)


def _identity(train: Rows, validation: Rows, recipe: Recipe, seed: int) -> str:
    digest = hashlib.sha256(f"{recipe}|{seed}|{architectures()}".encode())
    for rows in (train, validation):
        for part in (rows.x, rows.y):
            digest.update(str(part.shape).encode())
            digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


def _keep(batch: Batch, path: Path, identity: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    with partial.open("wb") as file:
        np.savez(
            file,
            identity=np.array(identity),
            active=batch.active,
            state=batch.state.numpy(),
            best=batch.best.numpy(),
            validation=batch.validation,
            since=batch.since,
            epochs=batch.epochs,
            steps=np.array(batch.steps),
        )
    partial.replace(path)


def _restored(batch: Batch, path: Path, identity: str) -> bool:
    """Whether a finished batch of this very run was there; anything else is trained again."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            if str(kept["identity"]) != identity:
                return False
            read = {name: kept[name] for name in kept.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return False
    batch.active, batch.validation = read["active"], read["validation"]
    batch.since, batch.epochs, batch.steps = read["since"], read["epochs"], int(read["steps"])
    batch.state, batch.best = torch.from_numpy(read["state"]), torch.from_numpy(read["best"])
    return True


def _judged(batches: list[Batch], test: Rows, composite: _Array) -> Outcome:
    """The winner on the test rows; signals as the networks take them, composite as it comes."""
    table = [
        (Candidate(a, float(r), int(e)), batch, i)
        for batch in batches
        for i, (a, r, e) in enumerate(
            zip(batch.members, batch.validation, batch.epochs, strict=True)
        )
    ]
    table.sort(key=lambda row: -row[0].validation)
    winner, batch, member = table[0]
    r, influence = _influence(answers(batch, member, test.x), test.y)
    r_linear, influence_linear = _influence(composite, test.y)
    gain, reach = r - r_linear, _reach(influence - influence_linear)
    return Outcome(
        tuple(row[0] for row in table),
        winner,
        r,
        _fisher(r, influence),
        r_linear,
        _fisher(r_linear, influence_linear),
        gain,
        (gain - reach, gain + reach),
    )


def _influence(x: _Array, y: _Array) -> tuple[float, _Array]:
    """Pearson's correlation, and the influence of each row on it."""
    if x.min() == x.max():
        raise InputError("the chosen network answers the same to every test row; train longer")
    a, b = ((v - v.mean()) / v.std() for v in (x, y))
    r = float((a * b).mean())
    return r, a * b - 0.5 * r * (a * a + b * b)


def _reach(influence: _Array, alpha: float = 0.05) -> float:
    n = len(influence)
    quantile = student.isf(0.5 * checked_alpha(alpha), n - 1)
    return float(quantile * influence.std(ddof=1) / math.sqrt(n))


def _fisher(r: float, influence: _Array) -> tuple[float, float]:
    left = max(1.0 - r * r, 1e-15)
    z, reach = math.atanh(min(max(r, -1.0 + 1e-15), 1.0 - 1e-15)), _reach(influence) / left
    return math.tanh(z - reach), math.tanh(z + reach)
