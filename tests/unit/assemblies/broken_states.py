"""Restore damaged states of the lazy tier, by the thousand; `test_lazy_saved.py` calls it.

In a process of its own: where a check is missing, a compiled loop may write anywhere.
"""

import faulthandler
import json
import sys
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from justenough.assemblies.circuit import Area, Circuit, Fibre, Stimulus
from justenough.assemblies.lazy import LazyBrain
from justenough.errors import InputError

State = dict[str, NDArray[Any]]
Inputs = dict[str, list[str]]
# Circuits by name: areas, of which each hears itself and the one before it, and stimuli.
CASES = {"one area": ("a", "s"), "three areas": ("abc", "s"), "stimuli": ("a", "stu")}
KINDS: tuple[Any, ...] = (np.int64, np.int32, np.uint64, np.float64, np.uint8, ">i4", object)


def circuit(case: str) -> Circuit:
    """So many synapses that sources have several chunks."""
    areas, stimuli = CASES[case]
    joined = (Fibre(x, y) for x, y in pairwise(areas))
    return Circuit(
        0.2,
        tuple(Area(x, 3000, 40, 0.2) for x in areas),
        tuple(Stimulus(x, 40) for x in stimuli),
        (*(Fibre(x, x) for x in areas), *joined),
    )


def inputs(case: str, number: int) -> Inputs:
    """Of a round, from 0."""
    areas, stimuli = CASES[case]
    names = areas[: number + 1]
    return {
        name: [names[i - 1] if i else stimuli[number % len(stimuli)], *name * (number > i)]
        for i, name in enumerate(names)
    }


def entries(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Copies with one entry changed: the first, the last, and some between them."""
    values: list[Any] = [np.nan, np.inf, -0.5, 1.5]
    least, most = -np.inf, np.inf
    if array.dtype.kind in "iu":
        least, most = np.iinfo(array.dtype).min, np.iinfo(array.dtype).max
        values = [least, most, most // 2, -1, 1 << 12, 33]
    for place in {0, array.size // 3, array.size // 2, array.size - 1} if array.size else ():
        old = array.flat[place].item()
        for value in (*values, old - 1, old + 1):
            if not least <= value <= most and value == value:
                continue
            wrong = array.copy()
            wrong.flat[place] = value
            yield wrong


def arrays(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """The same, and with another type, shape or order."""
    yield from entries(array)
    with np.errstate(invalid="ignore"):
        yield from (array.astype(kind) for kind in KINDS if array.dtype != kind)
    flat = array.reshape(-1)
    yield from (flat[:0], flat[:-1], flat[:1], flat[::-1].copy(), np.append(flat, flat[-1:]))
    yield from (array[None], array[:-1], array[1:], np.concatenate([array, array]))
    yield from (np.zeros_like(array), np.roll(array, 1), np.full_like(array, 7))


def trees(tree: Any) -> Iterator[Any]:
    """JSON with one leaf changed, or one branch left out."""
    wrong: tuple[Any, ...] = (-1, 2**31, 2**70, 0.5, float("nan"), None, True, "a0", [], {})

    def walk(node: Any) -> Iterator[None]:
        keys = list(node) if isinstance(node, dict) else range(len(node))
        for key in keys:
            held = node[key]
            if isinstance(held, dict | list):
                yield from walk(held)
            near = (held + 1, held - 1, float(held)) if isinstance(held, int) else ()
            for value in (*wrong, *near):
                node[key] = value
                yield
            node[key] = held
        if isinstance(node, list) and node:
            last = node.pop()
            yield
            node.append(last)
            node.append(last)
            yield
            node.pop()

    for _ in walk(tree):
        yield tree


def damaged(state: State) -> Iterator[State]:
    """All of it."""
    for name, array in state.items():
        if name != "tree":
            yield from (state | {name: wrong} for wrong in arrays(array))
            yield {other: a for other, a in state.items() if other != name}
    for wrong in trees(json.loads(state["tree"].tobytes())):
        yield state | {"tree": np.frombuffer(json.dumps(wrong).encode(), np.uint8)}


def main(case: str, rounds: int) -> None:
    """Print how many states were refused, and how many went on for three rounds."""
    faulthandler.enable()
    first = LazyBrain(circuit(case), 1)
    for number in range(rounds):
        first.fire(inputs(case, number))
    refused = fired = 0
    for state in damaged(first.saved()):
        brain = LazyBrain(circuit(case), 2)
        try:
            brain.restore(state)
            for number in range(rounds, rounds + 3):
                brain.fire(inputs(case, number))
        except InputError:  # of a round: last winners may be none
            refused += 1
            continue
        assert all(brain.winners(name).size == 40 for name in CASES[case][0])
        fired += 1
    sys.stdout.write(f"{refused} {fired}\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
