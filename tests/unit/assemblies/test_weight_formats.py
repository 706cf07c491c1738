"""Weights in number formats: tables, sums, and stochastic rounding."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from justenough.assemblies.arithmetic import Heard, WholeNumbers
from justenough.assemblies.circuit import Area, Circuit, Fibre, Stimulus
from justenough.assemblies.exact import ExactBrain
from justenough.assemblies.formats import SUMS, WEIGHTS, Rounded, grown, rounded
from justenough.assemblies.graph import ImpliedGraph
from justenough.assemblies.learned import Learned
from justenough.errors import InputError
from justenough.formats.floats import BF16


class Listed(Learned):
    """Synapses as they are given, in place of a history."""

    def __init__(self, source: list[int], target: list[int], exponent: list[int]) -> None:
        super().__init__(ImpliedGraph(100, 0.1, 0))
        self.given = tuple(np.array(x, np.int64) for x in (source, target, exponent))

    def synapses(self, active):  # type: ignore[no-untyped-def]
        return self.given


def heard(learned: Learned, ever: int = 2, beta: float = 0.1) -> Heard:
    counts, exponents = np.array([2, 0]), np.array([1, 0])
    return Heard(beta, ever, 50, 100, ((counts, exponents),), ((learned, np.arange(5)),))


@pytest.mark.parametrize("name", ["fp64", "fp32", "fp16", "bf16", "lns12"])
@pytest.mark.parametrize("beta", [0.01, 0.05, 0.2])
def test_a_table_is_one_growth_after_the_other(name: str, beta: float) -> None:
    table = grown(name, beta, 40)
    for before, after in pairwise(table):
        factor = np.array([1 + beta]) if name == "fp64" else np.array([1 + beta], np.float32)
        assert after == rounded(name, before * factor.astype(np.float64))[0]
    step = 2.0 ** -{"fp64": 53, "fp32": 24, "fp16": 11, "bf16": 8, "lns12": 5}[name]
    assert np.abs(table / (1 + beta) ** np.arange(41) - 1).max() < 41 * 1.5 * step


def test_exponents_are_correctly_rounded_powers() -> None:
    assert np.allclose(grown("exponents", 0.05, 100), 1.05 ** np.arange(101), rtol=1e-13)


def test_bf16_stagnates_where_half_a_unit_exceeds_the_growth() -> None:
    assert (grown("bf16", 0.0039, 50) == 1).all()
    assert grown("bf16", 0.0041, 50)[-1] > 1
    assert grown("fp16", 0.0039, 50)[-1] > 1.1


def test_fp16_overflows_where_it_ends() -> None:
    table = grown("fp16", 0.5, 40)
    assert table[27] < 65504 < table[28] == np.inf and np.isfinite(grown("bf16", 0.5, 40)).all()


@pytest.mark.parametrize("sums", SUMS)
def test_sums_are_added_in_order_and_rounded_each_time(sums: str) -> None:
    learned = Listed([0, 1, 1, 3], [0, 0, 1, 0], [3, 0, 7, 2])
    got = Rounded("fp32", sums).inputs(heard(learned))
    table = grown("fp32", 0.1, 7)
    want = []
    for weights in ([table[1], table[1], table[3], table[0], table[2]], [table[7]]):
        total = 0.0
        for weight in rounded(sums, np.array(weights)):
            total = rounded(sums, np.array([total + weight]))[0]
        want.append(total)
    assert got.tolist() == want


def test_a_full_sum_of_ones_stops_growing_as_unweighted_says() -> None:
    many = 300
    learned = Listed([0] * many, [1] * many, [0] * many)
    quiet = replace(heard(learned), stimuli=())
    form = Rounded("bf16", "bf16")
    assert form.inputs(quiet)[1] == form.unweighted(np.array([many]), quiet)[0] == 256


@pytest.mark.parametrize("name", ["fp16", "bf16", "lns12"])
def test_stochastic_growth_is_right_on_average_and_comes_out_again(name: str) -> None:
    """4,000 synapses, 20 growths of 1.05: the mean is within 5 standard errors."""
    m = 4000
    learned = Listed(list(range(m)), list(range(m)), [20] * m)
    quiet = replace(heard(learned, m, 0.05), stimuli=(), fibres=((learned, np.arange(m)),))
    form = Rounded(name, "fp64", stochastic=True, seed=7)
    got = form.inputs(quiet)
    assert len(np.unique(got)) > 3, "each synapse goes its own way"
    assert abs(got.mean() - 1.05**20) < 5 * got.std() / m**0.5
    assert (got == form.inputs(quiet)).all()
    assert (got != Rounded(name, "fp64", stochastic=True, seed=8).inputs(quiet)).any()
    if name == "bf16":
        assert (BF16.round(got.astype(np.float32)) == got).all()


def circuit() -> Circuit:
    return Circuit(
        0.05, (Area("a", 3000, 40, 0.05),), (Stimulus("s", 40),), (Fibre("a", "a"),)
    )  # fmt: skip


def test_exact_powers_in_fp64_have_the_winners_of_whole_numbers() -> None:
    """But where two sums tie but for rounding; so nearly all of them, over 10 rounds."""
    brain = ExactBrain(circuit(), 3, threads=1)
    kept = 0
    for t in range(10):
        sources = {"a": ["s", "a"] if t else ["s"]}
        whole = brain.would_win(sources, WholeNumbers(1))["a"]
        assert (brain.would_win(sources, brain.arithmetic)["a"] == whole).all()
        kept += int(
            np.isin(whole, brain.would_win(sources, Rounded("exponents", "fp64"))["a"]).sum()
        )
        brain.fire(sources)
    assert kept >= 10 * 40 - 4


def test_coarse_weights_lose_winners() -> None:
    brain = ExactBrain(circuit(), 3, threads=1)
    lost = 0
    for t in range(10):
        sources = {"a": ["s", "a"] if t else ["s"]}
        here = brain.would_win(sources, Rounded("lns12", "fp32"))["a"]
        brain.fire(sources)
        lost += int((~np.isin(brain.winners("a"), here)).sum())
    assert lost > 0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("int4", "fp32", False), f"weights='int4'; give one of {', '.join(WEIGHTS)}"),
        (("fp32", "int8", False), "sums='int8'"),
        (("fp32", "fp32", True), "weights in fp32 are not rounded stochastically"),
    ],
)
def test_unknown_formats_are_refused(given: tuple[str, str, bool], said: str) -> None:
    with pytest.raises(InputError, match=said.split(";")[0]):
        Rounded(*given)
