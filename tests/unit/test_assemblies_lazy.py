"""The operations of the Assembly Calculus on the lazy tier and on the authors' method."""

import tracemalloc

import numpy as np
import pytest
from scipy.stats import binom

from justenough.assemblies import synapses, unfired
from justenough.assemblies.arithmetic import PLACES, weights
from justenough.assemblies.circuit import Area, Circuit, Fibre, Slots, Stimulus
from justenough.assemblies.lazy import LazyBrain
from justenough.assemblies.operations import (
    Trace,
    complete,
    learn_sequence,
    overlap,
    project,
    recall_sequence,
    reciprocal_project,
)
from justenough.assemblies.reference import ReferenceBrain
from justenough.errors import InputError

Tier = type[LazyBrain] | type[ReferenceBrain]
TIERS = [LazyBrain, ReferenceBrain]


def circuit(
    n: int, k: int, p: float, beta: float, areas: str = "a", stimuli: str = "s"
) -> Circuit:
    """All areas joined with all."""
    return Circuit(
        p,
        tuple(Area(x, n, k, beta) for x in areas),
        tuple(Stimulus(x, k) for x in stimuli),
        tuple(Fibre(x, y) for x in areas for y in areas),
    )


@pytest.mark.parametrize("tier", TIERS)
def test_same_seed_same_winners(tier: Tier) -> None:
    runs = [project(tier(circuit(10**6, 50, 0.1, 0.1), s), "s", "a", 8) for s in (1, 1, 2)]
    one, same, other = (np.array(r.winners) for r in runs)
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("tier", TIERS)
def test_a_projection_settles(tier: Tier) -> None:
    trace = project(tier(circuit(10**6, 50, 0.2, 0.2), 3), "s", "a", 25)
    assert trace.settled() is not None
    assert trace.stability()[-1] == 1.0
    assert list(trace.support) == sorted(trace.support)
    assert all(w.size == 50 == np.unique(w).size for w in trace.winners)


@pytest.mark.parametrize("tier", TIERS)
def test_without_plasticity_the_brain_learns_nothing(tier: Tier) -> None:
    """beta of 0 and plastic=False are the same rounds, and no weight grows."""
    still = project(tier(circuit(10**5, 30, 0.1, 0.3), 1), "s", "a", 6, plastic=False)
    zero = project(tier(circuit(10**5, 30, 0.1, 0.0), 1), "s", "a", 6)
    grown = project(tier(circuit(10**5, 30, 0.1, 0.3), 1), "s", "a", 6)
    assert np.array_equal(np.array(still.winners), np.array(zero.winners))
    assert still.support[-1] > grown.support[-1]


def test_with_every_synapse_there_are_only_ties() -> None:
    """p = 1, no learning: every neuron has the same input, and each round draws k of n."""
    k, n = 100, 400
    brain = LazyBrain(circuit(n, k, 1.0, 0.0), 1)
    trace = project(brain, "s", "a", 30, plastic=False)
    shared = [s * k for s in trace.stability()]
    assert np.mean(shared) == pytest.approx(k * k / n, abs=3)
    assert trace.support[-1] > 0.95 * n


def test_a_first_round_has_the_tail_of_the_binomial() -> None:
    """The least input of the first winners is the k-th largest of n binomials."""
    n, k, p = 10**9, 100, 0.1
    least = []
    for seed in range(40):
        brain = LazyBrain(circuit(n, k, p, 0.0), seed)
        brain.fire({"a": ["s"]})
        state = brain._areas["a"]
        counts = state.stimuli["s"][1][state.slot]
        assert counts.size == k
        least.append(counts.min())
    level = binom.isf(k / n, k, p)
    assert set(least) <= {level, level + 1}


def neurons(brain: LazyBrain, area: str) -> int:
    """Neurons that are known and neurons that are not, which are n."""
    state = brain._areas[area]
    return state.unfired.number + state.row.size


@pytest.mark.parametrize("most", [1, 3])
def test_rounds_beyond_the_most_remembered_are_forgotten(
    monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(unfired, "MOST_ROUNDS", most)
    brain = LazyBrain(circuit(10**5, 30, 0.1, 0.1, "ab", "st"), 1)
    for _ in range(4):
        brain.fire({"a": ["s", "a"] if brain.support("a") else ["s"]})
        brain.fire({"b": ["a", "t"]})
        brain.fire({"a": ["b"]})
    for name in "ab":
        assert brain._areas[name].unfired.rounds == most
        assert neurons(brain, name) == 10**5


def test_a_billion_equals_are_not_drawn_one_by_one() -> None:
    """p = 1, and a billion neurons tie: only winners are drawn, and they win from then on."""
    brain = LazyBrain(circuit(10**9, 40, 1.0, 0.1), 1)
    trace = project(brain, "s", "a", 4)
    assert trace.support == (40,) * 4
    assert brain._areas["a"].row.size == 40
    assert neurons(brain, "a") == 10**9


def test_losers_are_remembered() -> None:
    """Neurons are neither lost nor made, and a settled round draws and changes none."""
    brain = LazyBrain(circuit(10**9, 50, 0.2, 0.3), 5)
    assert project(brain, "s", "a", 20).settled()
    state = brain._areas["a"]
    before = state.row.copy(), state.synapses.size, state.unfired.rounds, brain.nbytes
    chance = brain._rng.bit_generator.state
    brain.fire({"a": ["s", "a"]})
    assert np.array_equal(before[0], state.row)
    assert before[1:] == (state.synapses.size, state.unfired.rounds, brain.nbytes)
    assert chance == brain._rng.bit_generator.state
    assert neurons(brain, "a") == 10**9


@pytest.mark.slow
def test_loops_give_the_same_winners_without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> list[int]:
        brain = LazyBrain(circuit(10**6, 20, 0.1, 0.2, "ab"), 4)
        trace = project(brain, "s", "a", 6)
        other = project(brain, "a", "b", 4)
        return [*trace.support, *np.concatenate([*trace.winners, *other.winners])]

    compiled = run()
    for loops in (synapses, unfired):
        monkeypatch.setattr(loops, "has_numba", lambda: False)
    synapses._loops.cache_clear()
    unfired._loop.cache_clear()
    plain = run()
    synapses._loops.cache_clear()
    unfired._loop.cache_clear()
    assert plain == compiled


@pytest.mark.parametrize("targets", [60, 2**20 + 60])
def test_synapses_are_found_by_their_source_and_outgrow_a_word(targets: int) -> None:
    """Each source's synapses lie in chunks; exponents and targets have room in 64 bits."""
    made = synapses.Synapses(np.random.default_rng(1))
    made.new_sources(3, 60, 0.5)
    late = np.repeat(np.arange(targets - 50, targets, dtype=np.int32), 3)
    made.join(np.tile(np.arange(3, dtype=np.int32), 50), late)
    grown, one = np.arange(6000), np.ones(6000, np.int64)
    fires, won = np.array([0, 2], np.int32), np.zeros(targets, bool)
    won[-50:] = True
    for _ in range(5000):
        made.grow(fires, won)
    heard, exponents = np.zeros(targets, np.int64), np.zeros(targets, np.int64)
    made.total(fires, one, heard)
    made.total(fires, grown, exponents)
    assert (heard[-50:] >= 2).all()
    assert 0 < heard[:10].sum() < 20
    assert np.array_equal(exponents, 5000 * heard * won)
    assert made.size == heard.sum() + made_by(made, 1, targets).sum()


def made_by(made: synapses.Synapses, source: int, targets: int) -> Slots:
    out = np.zeros(targets, np.int64)
    made.total(np.array([source], np.int32), np.ones(6000, np.int64), out)
    return out


def test_memory_does_not_depend_on_the_number_of_neurons() -> None:
    peaks = []
    for n in (10**7, 10**10):
        tracemalloc.start()
        project(LazyBrain(circuit(n, 50, 0.1, 0.2), 1), "s", "a", 6)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 5 * peaks[0]
    assert peaks[1] < 50e6


def test_sequences_are_recalled_from_their_first_stimulus() -> None:
    brain = LazyBrain(circuit(10**5, 100, 0.1, 0.5, stimuli="stuv"), 2)
    learned = learn_sequence(brain, "stuv", "a", 8)
    recalled = recall_sequence(brain, "s", "a", 4)
    assert min(overlap(a, b) for a, b in zip(learned, recalled, strict=True)) > 0.8


def test_reciprocal_projection_settles() -> None:
    brain = LazyBrain(circuit(10**5, 60, 0.2, 0.2, "ab"), 1)
    project(brain, "s", "a", 10)
    trace = reciprocal_project(brain, "s", "a", "b", 25)
    assert min(trace.stability()[-3:]) > 0.95


def test_weights_are_powers_and_never_wrap() -> None:
    table = weights(0.1, 20, 1000)
    assert np.allclose(table / 10**PLACES, 1.1 ** np.arange(21), rtol=1e-6)
    with pytest.raises(InputError, match="do not fit"):
        weights(0.1, 400, 1000)
    with pytest.raises(InputError, match="do not fit"):
        project(LazyBrain(circuit(100, 10, 0.5, 1.0), 1), "s", "a", 60)


@pytest.mark.parametrize(
    ("area", "p"),
    [
        (Area("a", 10, 11, 0.1), 0.1),
        (Area("a", 10, 0, 0.1), 0.1),
        (Area("a", 10**10 + 1, 5, 0.1), 0.1),
        (Area("a", 10, 5, -0.1), 0.1),
        (Area("a", 10, 5, float("nan")), 0.1),
        (Area("a", 10, 5, 0.1), 0.0),
        (Area("a", 10, 5, 0.1), 1.5),
        (Area("a", 10, 5, 0.1), float("nan")),
    ],
)
def test_numbers_out_of_range_are_refused(area: Area, p: float) -> None:
    with pytest.raises(InputError, match="give"):
        Circuit(p, (area,))


def test_names_that_do_not_fit_are_refused() -> None:
    area = Area("a", 10, 5, 0.1)
    with pytest.raises(InputError, match="each name once"):
        Circuit(0.1, (area, area))
    with pytest.raises(InputError, match="no ~"):
        Circuit(0.1, (area, Area("a~", 10, 5, 0.1)))
    with pytest.raises(InputError, match="must be areas"):
        Circuit(0.1, (area,), fibres=(Fibre("a", "b"),))
    with pytest.raises(InputError, match="twice"):
        Circuit(0.1, (area,), fibres=(Fibre("a", "a"),) * 2)
    with pytest.raises(InputError, match="at least 1"):
        Circuit(0.1, (area,), (Stimulus("s", 0),))


@pytest.mark.parametrize("tier", TIERS)
def test_a_round_without_its_input_is_refused(tier: Tier) -> None:
    brain = tier(circuit(100, 5, 0.1, 0.1), 1)
    refused: list[tuple[dict[str, list[str]], str]] = [
        ({"b": ["s"]}, "no area b"),
        ({"a": ["t"]}, "no input from t"),
        ({"a": ["a"]}, "no winners yet"),
        ({"a": ["s", "s"]}, "named twice"),
        ({"a": []}, "no sources"),
    ]
    for inputs, why in refused:
        with pytest.raises(InputError, match=why):
            brain.fire(inputs)
    with pytest.raises(InputError, match="ever fired"):
        brain.activate("a", np.array([3]))
    with pytest.raises(InputError, match="at least 1"):
        project(brain, "s", "a", 0)
    with pytest.raises(InputError, match="part="):
        complete(brain, "a", 0.0, 1)


def test_measures() -> None:
    one, two = np.array([1, 2, 3, 4]), np.array([3, 4, 5, 6])
    trace = Trace("a", (one, two, two, two), (4, 6, 6, 6))
    assert trace.stability() == (0.5, 1.0, 1.0)
    assert trace.settled() == 2
    assert Trace("a", (one, two), (4, 6)).settled() is None
    with pytest.raises(InputError, match="no winners"):
        overlap(np.empty(0, np.int64), one)


def test_a_round_that_is_refused_changes_nothing() -> None:
    # The second area's weights outgrow 64 bits, the first one's do not.
    areas = (Area("a", 1000, 20, 0.1), Area("b", 1000, 20, 1.0))
    brain = LazyBrain(Circuit(0.1, areas, (Stimulus("s", 20),), (Fibre("a", "a"),)), 1)
    both = {"a": ["s"], "b": ["s"]}
    with pytest.raises(InputError, match="fewer plastic rounds"):
        for _ in range(80):
            before = {name: array.tobytes() for name, array in brain.saved().items()}
            brain.fire(both)
    assert {name: array.tobytes() for name, array in brain.saved().items()} == before
