"""A simulation that was stopped goes on bit for bit; a state that cannot be is refused."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from justenough.assemblies.circuit import Area, Circuit, Fibre, Stimulus
from justenough.assemblies.exact import ExactBrain
from justenough.assemblies.free import free_bytes
from justenough.assemblies.lazy import LazyBrain
from justenough.assemblies.memory import (
    exact_bytes,
    lazy_bytes,
    likely_support,
    support_bound,
)
from justenough.assemblies.packed import pack, unpack
from justenough.core.case_files import memory_bytes
from justenough.errors import InputError

State = dict[str, NDArray[Any]]
TIERS = [ExactBrain, LazyBrain]
CIRCUIT = Circuit(
    0.02,
    (Area("a", 5_000, 60, 0.1), Area("b", 4_000, 60, 0.1)),
    (Stimulus("s", 60),),
    (Fibre("a", "a"), Fibre("a", "b"), Fibre("b", "b")),
)
ROUNDS = 12


def fire(brain: Any, number: int) -> list[NDArray[np.int64]]:
    """Round `number`, from 0, and who won."""
    inputs = {"a": ["s", "a"] if number else ["s"]}
    if number:
        inputs["b"] = ["a", "b"] if number > 1 else ["a"]
    brain.fire(inputs)
    return [brain.winners("a"), brain.winners("b")]


def state(tier: Any, rounds: int, seed: int = 3) -> State:
    brain = tier(CIRCUIT, seed)
    for number in range(rounds):
        fire(brain, number)
    return {name: array.copy() for name, array in brain.saved().items()}


@pytest.mark.parametrize("tier", TIERS)
def test_what_is_restored_goes_on_the_same(tier: Any) -> None:
    whole = tier(CIRCUIT, 3)
    all_won = [fire(whole, number) for number in range(ROUNDS)]
    end = whole.saved()
    for cut in (0, 1, 2, 5, ROUNDS - 1):
        # Another seed of the draws: the state has to bring its own.
        brain = tier(CIRCUIT, 3 if tier is ExactBrain else 99)
        brain.restore(state(tier, cut))
        for number in range(cut, ROUNDS):
            for mine, theirs in zip(fire(brain, number), all_won[number], strict=True):
                assert np.array_equal(mine, theirs)
        again = brain.saved()
        assert again.keys() == end.keys()
        assert all(np.array_equal(again[name], end[name]) for name in end)
        assert [brain.support(x) for x in "ab"] == [whole.support(x) for x in "ab"]


@pytest.mark.parametrize("tier", TIERS)
def test_a_restored_brain_does_not_share_arrays(tier: Any) -> None:
    kept = state(tier, 4)
    copy = {name: array.copy() for name, array in kept.items()}
    brain = tier(CIRCUIT, 3)
    brain.restore(kept)
    for number in range(4, ROUNDS):
        fire(brain, number)
    assert all(np.array_equal(kept[name], copy[name]) for name in kept)


def test_more_than_64_different_rounds_are_restored() -> None:
    """Histories of several words."""
    slow = Circuit(0.02, (Area("a", 5_000, 60, 0.001),), (Stimulus("s", 60),), (Fibre("a", "a"),))

    def play(brain: ExactBrain, first: int, last: int) -> list[NDArray[np.int64]]:
        found = []
        for number in range(first, last):
            brain.fire({"a": ["s", "a"] if number else ["s"]})
            found.append(brain.winners("a"))
        return found

    whole = ExactBrain(slow, 1)
    all_won = play(whole, 0, 140)
    for cut in (64, 65, 100, 129):
        part, brain = ExactBrain(slow, 1), ExactBrain(slow, 1)
        play(part, 0, cut)
        brain.restore(part.saved())
        assert all(
            np.array_equal(x, y) for x, y in zip(play(brain, cut, 140), all_won[cut:], strict=True)
        )


def changed(name: str, change: Callable[[NDArray[Any]], NDArray[Any]]) -> Any:
    return pytest.param(name, change, id=name)


def with_first(value: Any) -> Callable[[NDArray[Any]], NDArray[Any]]:
    def change(array: NDArray[Any]) -> NDArray[Any]:
        array.reshape(-1)[0] = value
        return array

    return change


@pytest.mark.parametrize(
    ("name", "change"),
    [
        changed("clock", lambda a: a[:1]),
        changed("clock", lambda a: -a),
        changed("a~ids", with_first(5_000)),
        changed("a~ids", with_first(-1)),
        changed("a~ids", lambda a: np.append(a[:-1], a[0])),
        changed("a~ids", lambda a: a.astype(np.float64)),
        changed("a~winners", with_first(10**6)),
        changed("a~winners", lambda a: a[::-1]),
        changed("a~s~counts", lambda a: a[1:]),
        changed("a~s~exponents", lambda a: a + 100),
        changed("a~a~edges", lambda a: a[:, 1:]),
        changed("a~a~edges", lambda a: np.full_like(a, 2**64 - 1)),
        changed("a~a~sent", lambda a: np.full_like(a, 2**64 - 1)),
        changed("a~b~heard", lambda a: a[:1]),
        changed("b~b~times", with_first(10**9)),
        changed("b~b~rounds", lambda a: np.repeat(a[:1], len(a), 0)),
    ],
)
def test_a_state_that_cannot_be_is_refused(
    name: str, change: Callable[[NDArray[Any]], NDArray[Any]]
) -> None:
    kept = state(ExactBrain, 6)
    kept[name] = change(kept[name])
    brain = ExactBrain(CIRCUIT, 3)
    with pytest.raises(InputError, match="saved state is not one of this circuit"):
        brain.restore(kept)
    with pytest.raises(InputError, match="broken off"):
        brain.fire({"a": ["s"]})


def test_a_state_without_a_part_is_refused() -> None:
    kept = state(ExactBrain, 6)
    del kept["b~ids"]
    with pytest.raises(InputError, match="b~ids is missing"):
        ExactBrain(CIRCUIT, 3).restore(kept)


def test_the_lazy_tier_refuses_what_it_did_not_save() -> None:
    other = Circuit(0.02, CIRCUIT.areas[:1], CIRCUIT.stimuli, CIRCUIT.fibres[:1])
    for wrong, why in (
        (LazyBrain(other, 3).saved(), "circuit is another"),
        ({"tree": np.zeros(3, np.uint8)}, "saved state"),
        ({}, "saved state"),
        (pack({"a": 1}), "parts are missing"),
    ):
        with pytest.raises(InputError, match=why):
            LazyBrain(CIRCUIT, 3).restore(wrong)


def test_only_named_classes_are_unpacked() -> None:
    packed = pack(Area("a", 10, 1, 0.1))
    assert unpack(packed, (Area,)) == Area("a", 10, 1, 0.1)
    with pytest.raises(InputError, match="KeyError"):
        unpack(packed, (Stimulus,))
    with pytest.raises(TypeError, match="cannot be kept"):
        pack({"a": {1, 2}})


def test_types_come_back() -> None:
    value = [1, 2.5, "x", None, True, b"ab", (1, [2]), {"k": np.uint64(2**63)}, np.eye(2)]
    again = unpack(pack(value), ())
    assert again[:7] == value[:7]
    assert again[7]["k"].dtype == np.uint64 and again[7]["k"] == 2**63
    assert np.array_equal(again[8], np.eye(2))


def test_the_memory_that_is_foretold_is_enough() -> None:
    area = Area("a", 50_000, 100, 0.2)
    circuit = Circuit(0.02, (area,), (Stimulus("s", 100),), (Fibre("a", "a"),))
    for tier, foretold in ((ExactBrain, exact_bytes), (LazyBrain, lazy_bytes)):
        brain: Any = tier(circuit, 3)
        for number in range(ROUNDS):
            brain.fire({"a": ["s", "a"] if number else ["s"]})
        assert brain.support("a") <= likely_support(circuit, area, ROUNDS)
        needed = foretold(circuit, ROUNDS)
        assert all(size <= needed[name] for name, size in brain.nbytes.items())
    assert exact_bytes(circuit, ROUNDS)["counts"] == 50_000


@pytest.mark.parametrize(
    ("k", "p", "beta"), [(1000, 0.01, 0.05), (1000, 0.001, 0.1), (10_000, 0.001, 0.1)]
)
def test_the_lazy_tier_takes_what_is_foretold_at_a_billion_neurons(
    k: int, p: float, beta: float
) -> None:
    """Never more, and not so much less that a run that fits would be refused."""
    area = Area("a", 10**9, k, beta)
    circuit = Circuit(p, (area,), (Stimulus("s", k),), (Fibre("a", "a"),))
    brain = LazyBrain(circuit, 1)
    for number in range(25):
        brain.fire({"a": ["s", "a"] if number else ["s"]})
    needed = lazy_bytes(circuit, 25)
    assert brain.support("a") <= likely_support(circuit, area, 25)
    assert brain.nbytes.keys() == needed.keys()
    for name, size in brain.nbytes.items():
        assert size <= needed[name] <= 4 * size


def test_the_lazy_tier_takes_what_is_foretold_of_a_chain() -> None:
    """Later areas settle later, and know more neurons."""
    names = "abcd"
    circuit = Circuit(
        0.02,
        tuple(Area(x, 10**6, 200, 0.2) for x in names),
        (Stimulus("s", 200),),
        (*(Fibre(x, x) for x in names), *(Fibre(x, y) for x, y in pairwise(names))),
    )
    brain = LazyBrain(circuit, 1)
    for number in range(50):
        chain = names[: number + 1]
        brain.fire(
            {x: [chain[i - 1] if i else "s", *x * (number > i)] for i, x in enumerate(chain)}
        )
    for area in circuit.areas:
        assert brain.support(area.name) <= likely_support(circuit, area, 50)
    needed = lazy_bytes(circuit, 50)
    assert all(size <= needed[name] for name, size in brain.nbytes.items())


def test_free_memory_is_some_of_all() -> None:
    assert 0 < free_bytes() <= memory_bytes()


def test_the_bound_holds_where_it_is_proved() -> None:
    """Above beta0, the support of a projection is within the theorem's bound."""
    area = Area("a", 10_000, 100, 0.9)
    bound, least = support_bound(area, 0.2)
    assert least < area.beta
    brain = ExactBrain(Circuit(0.2, (area,), (Stimulus("s", 100),), (Fibre("a", "a"),)), 5)
    for number in range(20):
        brain.fire({"a": ["s", "a"] if number else ["s"]})
    assert brain.support("a") <= bound
    assert support_bound(Area("a", 10, 5, 0.0), 0.5)[0] == float("inf")
