"""The simulator as a subject: sites, choices, and what each variant answers."""

import numpy as np
import pytest

from justenough.assemblies import hashed
from justenough.assemblies.audit import audit
from justenough.assemblies.circuit import Area, Circuit, Fibre, Stimulus
from justenough.assemblies.counts import Step
from justenough.assemblies.exact import ExactBrain
from justenough.assemblies.graph import ImpliedGraph
from justenough.assemblies.hashed import HashedCounts
from justenough.assemblies.operations import project
from justenough.assemblies.sampled import SampledBrain, buckets
from justenough.assemblies.subject import (
    EXACT,
    OTHER_SEED,
    OUTPUTS,
    SITES,
    Problem,
    has_exact_state,
    run,
    simulator,
    taught,
)
from justenough.errors import InputError

SMALL = Problem(2000, 40, 0.05, 0.05, 8)


def test_the_exact_variant_is_the_exact_tier() -> None:
    area = Area("a", 2000, 40, 0.05)
    circuit = Circuit(0.05, (area,), (Stimulus("s", 40),), (Fibre("a", "a"),))
    trace = project(ExactBrain(circuit, 5, threads=1), "s", "a", 8)
    got = run(EXACT, SMALL, 5, 1)
    assert (got.winners == trace.winners[-1]).all()
    assert got.outputs["support"] == trace.support[-1]
    assert got.outputs["settled"] == (trace.settled() or 9)
    assert set(got.outputs) == set(OUTPUTS) and sum(got.bytes.values()) > 2000


def test_16_bit_counts_change_nothing_but_bytes() -> None:
    one, two = run(EXACT, SMALL, 2, 1), run(simulator(counts="uint16"), SMALL, 2, 1)
    assert (one.winners == two.winners).all() and one.outputs == two.outputs
    assert two.bytes["counts"] == 2 * one.bytes["counts"] == 4000


def test_a_stored_format_counts_its_synapses() -> None:
    held = {w: run(simulator(weights=w, sums="fp32"), SMALL, 2, 1).bytes for w in ("fp32", "fp16")}
    assert held["fp32"]["weights"] == 2 * held["fp16"]["weights"] > 0
    assert "weights" not in run(EXACT, SMALL, 2, 1).bytes


def test_another_seed_is_another_graph_and_the_same_comes_again() -> None:
    here, there = run(EXACT, SMALL, 2, 1), run(simulator(edges=OTHER_SEED), SMALL, 2, 1)
    assert (here.winners != there.winners).any()
    assert (there.winners == run(simulator(edges=OTHER_SEED), SMALL, 2, 1).winners).all()


def test_taught_is_1_for_the_exact_arithmetic_and_less_for_a_coarse_one() -> None:
    variants = [EXACT, simulator(counts="uint16"), simulator(weights="lns12", sums="fp32")]
    found, kept = taught(SMALL, 4, variants, 1)
    assert kept[:2] == (1.0, 1.0) and 0.8 < kept[2] < 1
    assert found.outputs == run(EXACT, SMALL, 4, 1).outputs
    with pytest.raises(InputError, match="has not the graph"):
        taught(SMALL, 4, [simulator(sampler="lazy")], 1)


def test_formats_that_share_a_round_win_as_they_do_alone() -> None:
    forms = [simulator(weights=w, sums="fp32") for w in ("bf16", "bf16 stochastic", "lns12")]
    _, together = taught(SMALL, 4, forms, 1)
    assert together == tuple(taught(SMALL, 4, [f], 1)[1][0] for f in forms)


def test_which_variants_share_the_exact_state() -> None:
    assert has_exact_state(simulator(weights="bf16", sums="bf16"))
    for picks in ({"sampler": "lazy"}, {"ties": "lowest"}, {"edges": "xor"}, {"topk": "0.95"}):
        assert not has_exact_state(simulator(**picks))


@pytest.mark.parametrize(
    ("picks", "said"),
    [
        ({"tier": "lazy"}, "no site 'tier'; there are counts, weights"),
        ({"weights": "int3"}, "site 'weights' has no choice 'int3'"),
        ({"weights": "fp16"}, "weights in fp16 are not added as int64"),
        ({"sampler": "lazy", "ties": "lowest"}, "sampler=lazy goes with the exact choice"),
        ({"sampler": "lazy", "edges": "xor"}, "leave out edges"),
    ],
)
def test_choices_that_do_not_exist_are_refused(picks: dict[str, str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        simulator(**picks)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((2000, 40, 1.0, 0.05, 8), "p=1.0; give a probability"),
        ((2000, 40, 0.1, 0.05, 1), "rounds=1; give 2"),
        ((2000, 1500, 0.1, 0.05, 8), "k=1500 of n=2000"),
        ((2000, 40, 0.1, 2.0, 8), "beta=2.0"),
    ],
)
def test_bad_problems_are_refused(given: tuple[int, int, float, float, int], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Problem(*given)


def test_every_site_has_its_exact_choice_first() -> None:
    assert dict(EXACT.picks) == {s.name: s.choices[0].name for s in SITES}


# Hashed edges


@pytest.mark.parametrize("scheme", ["xor", "fnv"])
def test_hashed_counts_agree_with_their_edges_with_and_without_compiled_loops(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, rows = ImpliedGraph(3000, 0.05, 9), np.arange(50)
    fast = HashedCounts(3000, scheme)
    fast.change([Step(graph, rows, rows[:0])])
    fast.change([Step(graph, rows[:0], rows[:7])])
    bits = fast.among(graph, rows[7:], np.arange(3000))
    edges = np.unpackbits(bits.view(np.uint8), axis=1, bitorder="little")[:, :3000]
    assert (edges.sum(0) == fast.values).all() and edges.any()
    monkeypatch.setattr(hashed, "_compiled", lambda: None)
    slow = HashedCounts(3000, scheme)
    slow.change([Step(graph, rows[7:], rows[:0])])
    assert (slow.values == fast.values).all()


@pytest.mark.parametrize("scheme", ["xor", "fnv"])
def test_hashed_edges_fail_the_audit(scheme: str) -> None:
    graph, counts = ImpliedGraph(4000, 0.05, 9), HashedCounts(4000, scheme)

    def row(source: int) -> np.ndarray:
        bits = counts.among(graph, np.array([source]), np.arange(4000))
        return np.flatnonzero(np.unpackbits(bits.view(np.uint8), bitorder="little")[:4000])

    assert not audit(row, 400, 4000, 0.05, np.random.default_rng(0)).passed


def test_an_unknown_hash_is_refused() -> None:
    with pytest.raises(InputError, match="give xor or fnv"):
        HashedCounts(10, "md5")


# Approximate top-k


def test_the_approximate_topk_has_the_recall_it_states() -> None:
    """First rounds, where all inputs are counts: 20 graphs, mean recall of 20 x 40 winners."""
    circuit = Circuit(0.3, (Area("a", 4000, 40, 0.05),), (Stimulus("s", 400),))
    kept = []
    for seed in range(20):
        exact, near = ExactBrain(circuit, seed, threads=1), SampledBrain(circuit, seed, 0.9, 1)
        for brain in (exact, near):
            brain.fire({"a": ["s"]})
        assert near.winners("a").size == 40
        kept.append(np.isin(exact.winners("a"), near.winners("a")).mean())
    assert 0.88 < np.mean(kept) < 1


def test_many_buckets_are_exact() -> None:
    circuit = Circuit(0.3, (Area("a", 4000, 4, 0.05),), (Stimulus("s", 400),), (Fibre("a", "a"),))
    exact, near = ExactBrain(circuit, 1, threads=1), SampledBrain(circuit, 1, 0.997, 1)
    for t in range(6):
        for brain in (exact, near):
            brain.fire({"a": ["s", "a"] if t else ["s"]})
        assert (exact.winners("a") == near.winners("a")).all()


def test_recall_out_of_range_and_too_few_neurons_are_refused() -> None:
    with pytest.raises(InputError, match=r"recall=1.0"):
        buckets(10, 1.0)
    circuit = Circuit(0.3, (Area("a", 4000, 40, 0.05),))
    with pytest.raises(InputError, match="too many for n=4000"):
        SampledBrain(circuit, 1, 0.999)
    with pytest.raises(InputError, match="no teacher"):
        SampledBrain(circuit, 1, 0.9).would_win({"a": ["s"]}, EXACT)  # type: ignore[arg-type]
