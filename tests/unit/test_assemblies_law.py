"""The lazy tier against the random graph itself, written out as a matrix."""

import numpy as np
import pytest
from scipy.stats import ks_2samp

from justenough.assemblies.circuit import Area, Circuit, Fibre, Stimulus
from justenough.assemblies.lazy import LazyBrain
from justenough.assemblies.operations import project
from justenough.assemblies.reference import ReferenceBrain

SEEDS = 60
ROUNDS = 12


def dense_support(n: int, k: int, p: float, beta: float, seed: int) -> list[int]:
    """Neurons that ever fired after each round; ties at random, in each round anew."""
    rng = np.random.default_rng(seed)
    exists = rng.random((n, n)) < p
    exponent = np.zeros((n, n), np.int16)
    stimulus = rng.binomial(k, p, n)
    times = np.zeros(n)
    winners = np.empty(0, int)
    fired = np.zeros(n, bool)
    found = []
    for _ in range(ROUNDS):
        rows = exists[winners] * (1 + beta) ** exponent[winners]
        total = np.round(stimulus * (1 + beta) ** times + rows.sum(0), 9)
        best = np.lexsort((rng.random(n), -total))[:k]
        exponent[np.ix_(winners, best)] += 1
        times[best] += 1
        winners = best
        fired[best] = True
        found.append(int(fired.sum()))
    return found


def tier_support(tier, n: int, k: int, p: float, beta: float, seed: int) -> list[int]:
    circuit = Circuit(p, (Area("a", n, k, beta),), (Stimulus("s", k),), (Fibre("a", "a"),))
    return list(project(tier(circuit, seed), "s", "a", ROUNDS).support)


def sample(run, *where) -> np.ndarray:
    return np.array([run(*where, seed) for seed in range(SEEDS)])


@pytest.mark.slow
@pytest.mark.parametrize(("p", "beta"), [(0.2, 0.05), (0.02, 0.05), (0.02, 0.2)])
def test_support_has_the_law_of_the_random_graph(p, beta):
    """No round's law differs at 1 in 100, and the mean at the end is within 6 %."""
    where = 2000, 50, p, beta
    dense = sample(dense_support, *where)
    lazy = sample(lambda *a: tier_support(LazyBrain, *a), *where)
    for at in (1, 2, 4, ROUNDS - 1):
        assert ks_2samp(dense[:, at], lazy[:, at]).pvalue > 0.01, at
    assert lazy[:, -1].mean() == pytest.approx(dense[:, -1].mean(), rel=0.06)


@pytest.mark.slow
def test_the_same_test_sees_the_bias_of_the_authors_method():
    where = 2000, 50, 0.02, 0.2
    dense = sample(dense_support, *where)
    other = sample(lambda *a: tier_support(ReferenceBrain, *a), *where)
    assert ks_2samp(dense[:, -1], other[:, -1]).pvalue < 1e-4
