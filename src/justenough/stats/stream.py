"""Moments of blocks of rows that are read once, on several threads."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from justenough.errors import InputError
from justenough.stats.checks import checked_count
from justenough.stats.fast import compiled, usable_cores
from justenough.stats.moments import Moments, block_moments, checked_block, pilot_mean, slices
from justenough.stats.totals import block_totals, checked_weights, correlations, local

_Array = NDArray[np.float64]
_T = TypeVar("_T")


def stream_moments(
    blocks: Iterable[Any | Callable[[], Any]], *, threads: int | None = None
) -> Moments:
    """Return the moments of blocks of rows that are read once, merged in their order.

    Each thread works on one block, in compiled loops where Numba is installed, and no more
    than two blocks a thread are held. The answer does not depend on the number of threads.

    Args:
        blocks: Arrays or tensors as `moments` takes them: (n, d) with rows for units, or
            (c, t, d) with c units of t rows. A callable is called for its block in the thread
            that works on it, so that blocks can be made or read side by side too.
        threads: Number of threads; without it, the cores that this process may use.

    Raises:
        InputError: For no block at all, or one that `moments` would not take.

    >>> rows = np.random.default_rng(0).standard_normal((6, 50, 3), dtype=np.float32)
    >>> found = stream_moments([rows[:4], rows[4:]])
    >>> found.units, found.rows
    (6, 300)
    """
    found: Moments | None = None
    loops = compiled()

    def work(rows: Any) -> Moments:
        block = checked_block(rows)
        return block_moments(block if len(block.shape) == 3 else block[:, None, :], loops)

    for part in _each(blocks, work, threads):
        found = part if found is None else found.merged(part)
    if found is None:
        raise InputError("no block was given; moments need at least one row")
    return found


@dataclass(frozen=True, eq=False)
class CorrelationsWithin:
    """Correlations within units, over the units.

    Attributes:
        units: Number of units.
        mean: Mean correlation for each weight vector, shape (m,).
        covariance: Covariance over units, divisor units - 1, shape (m, m).
    """

    units: int
    mean: _Array
    covariance: _Array


def stream_correlations_within(
    blocks: Iterable[Any | Callable[[], Any]],
    weights: ArrayLike,
    *,
    threads: int | None = None,
) -> CorrelationsWithin:
    """Return mean and covariance over units of the correlation within each unit, in one pass.

    Where `stream_moments` pools the rows, this asks each unit, such as a conversation, for its
    own correlation of every weighted sum with the outcome.

    Args:
        blocks: Shape (c, t, d) each, or callables, as for `stream_moments`.
        weights: Shape (m, d - 1).
        threads: As for `stream_moments`.

    Raises:
        InputError: For blocks of another shape, fewer than two units, weights that do not fit, or
            a unit in which the outcome or a sum is constant.

    >>> rows = np.random.default_rng(0).standard_normal((6, 50, 3), dtype=np.float32)
    >>> stream_correlations_within([rows[:4], rows[4:]], [[1.0, 0.0], [0.5, 0.5]]).mean.shape
    (2,)
    """
    given = np.asarray(weights, np.float64)
    checked = checked_weights(given, given.shape[-1] + 1 if given.ndim else 1)

    loops = compiled()

    def work(rows: Any) -> tuple[int, _Array, _Array]:
        block = checked_block(rows)
        if len(block.shape) != 3 or block.shape[1] < 2:
            got = f"a block has shape {tuple(block.shape)}"
            raise InputError(f"{got}; it must be (c, t, d) with t >= 2 rows in each unit")
        checked_weights(checked, block.shape[2])
        sums, products = np.zeros(len(checked)), np.zeros((len(checked),) * 2)
        pilot = pilot_mean(block)
        for part in slices(block):
            r = correlations(local(block_totals(part, pilot, loops)), checked)
            sums += r.sum(0)
            products += r.T @ r
        return len(block), sums, products

    g, sums, products = 0, np.zeros(len(checked)), np.zeros((len(checked),) * 2)
    for count, part_sums, part_products in _each(blocks, work, threads):
        g, sums, products = g + count, sums + part_sums, products + part_products
    if g < 2:
        raise InputError(f"{g} units; a covariance over units needs at least 2")
    mean = sums / g
    return CorrelationsWithin(g, mean, (products - g * np.outer(mean, mean)) / (g - 1))


def _each(
    blocks: Iterable[Any | Callable[[], Any]], work: Callable[[Any], _T], threads: int | None
) -> Iterator[_T]:
    """Results of `work` in the order of the blocks, with at most two blocks a thread at hand."""
    count = usable_cores() if threads is None else checked_count("threads", threads, 1)

    def called(block: Any) -> _T:
        return work(block() if callable(block) else block)

    with ThreadPoolExecutor(count) as pool:
        waiting: deque[Future[_T]] = deque()
        for block in blocks:
            waiting.append(pool.submit(called, block))
            if len(waiting) >= 2 * count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
