"""Moments of blocks of rows that are read once, on several threads."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from justenough.compiled import usable_cores
from justenough.errors import InputError
from justenough.stats.checks import checked_count
from justenough.stats.fast import compiled
from justenough.stats.moments import Moments, block_moments, checked_block


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

    >>> import numpy as np
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


def _each(
    blocks: Iterable[Any | Callable[[], Any]], work: Callable[[Any], Moments], threads: int | None
) -> Iterator[Moments]:
    """Results of `work` in the order of the blocks, with at most two blocks a thread at hand."""
    count = usable_cores() if threads is None else checked_count("threads", threads, 1)

    def called(block: Any) -> Moments:
        return work(block() if callable(block) else block)

    with ThreadPoolExecutor(count) as pool:
        waiting: deque[Future[Moments]] = deque()
        for block in blocks:
            waiting.append(pool.submit(called, block))
            if len(waiting) >= 2 * count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
