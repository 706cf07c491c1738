from itertools import permutations

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from justenough.stats.learn_then_test import learn_then_test, risk_p_values
from justenough.stats.multiplicity import (
    Rejections,
    _without,
    benjamini_hochberg,
    fixed_sequence,
    graphical,
    holm,
)
from justenough.stats.proportion import clopper_pearson_upper


def _graph(m: int, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    share = rng.dirichlet(np.ones(m)) * rng.integers(0, 2, m)
    edges = rng.dirichlet(np.ones(m), m)
    np.fill_diagonal(edges, 0.0)
    edges *= rng.random((m, m)) < 0.8
    return share, edges


@pytest.mark.parametrize("seed", range(5))
def test_graph_does_not_depend_on_the_order_of_rejection(seed: int) -> None:
    """Bretz et al. 2009, appendix: the graph left does not depend on the order."""
    share, edges = _graph(4, np.random.default_rng(seed))
    found = []
    for order in permutations((0, 2, 3)):
        s, e = share.copy(), edges.copy()
        for j in order:
            s, e = _without(j, s, e)
        found.append(s)
    for s in found[1:]:
        assert s == pytest.approx(found[0], abs=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_graphical_is_the_closed_test(seed: int) -> None:
    """Every intersection by weighted Bonferroni; a hypothesis' adjusted p-value is the largest
    over the intersections that it is in."""
    rng = np.random.default_rng(seed)
    m = 4
    share, edges = _graph(m, rng)
    p = rng.random(m) ** 3
    closed = np.zeros(m)
    for members in range(1, 2**m):
        s, e = share.copy(), edges.copy()
        inside = [j for j in range(m) if members >> j & 1]
        for j in range(m):
            if j not in inside:
                s, e = _without(j, s, e)
        of_set = min([1.0, *(p[j] / s[j] for j in inside if s[j] > 0)])
        for j in inside:
            closed[j] = max(closed[j], of_set)
    assert graphical(p, share, edges, alpha=0.05).adjusted == pytest.approx(closed, rel=1e-9)


def test_no_weight_means_no_rejection() -> None:
    found = graphical([0.0, 0.0], [0.0, 0.0], [[0, 1], [1, 0]], alpha=0.05)
    assert not found.rejected.any()
    assert found.adjusted.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("procedure", [fixed_sequence, holm, benjamini_hochberg])
def test_ties_and_single_hypotheses(procedure: object) -> None:
    for p, rejected in (([0.05], [True]), ([0.2] * 4, [False] * 4), ([0.0] * 3, [True] * 3)):
        assert procedure(p, alpha=0.05).rejected.tolist() == rejected  # type: ignore[operator]


def test_rejections_are_those_of_the_adjusted_values() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        p = rng.random(6) ** 4
        for procedure in (fixed_sequence, holm, benjamini_hochberg):
            for alpha in (0.01, 0.05, 0.2):
                found = procedure(p, alpha=alpha)
                assert found.rejected.tolist() == (found.adjusted <= alpha).tolist()


def test_holm_written_out() -> None:
    rng = np.random.default_rng(1)
    for _ in range(100):
        p = rng.random(5) ** 4
        rejected, left = np.zeros(5, bool), 5
        for j in np.argsort(p):
            if p[j] > 0.05 / left:
                break
            rejected[j], left = True, left - 1
        assert holm(p, alpha=0.05).rejected.tolist() == rejected.tolist()


# Learn then test

LOSSES = (np.arange(600)[:, None] < [0, 1, 2, 3, 9]).astype(np.float64)


def test_exact_p_values_are_those_of_clopper_and_pearson() -> None:
    p = risk_p_values(LOSSES, at_most=0.01, p_value="binomial")
    shown = [clopper_pearson_upper(k, 600, alpha=0.05) <= 0.01 for k in (0, 1, 2, 3, 9)]
    assert (p <= 0.05).tolist() == shown


def test_valid_sets() -> None:
    for procedure, valid in (
        (fixed_sequence, [True, True, False, False, False]),
        (holm, [True, False, False, False, False]),
    ):
        found = learn_then_test(
            LOSSES, at_most=0.01, alpha=0.05, procedure=procedure, p_value="binomial"
        )
        assert found.rejected.tolist() == valid


def test_graph_as_procedure() -> None:
    chain = np.eye(5, k=1)

    def gatekeeper(p: ArrayLike, *, alpha: float) -> Rejections:
        return graphical(p, np.eye(5)[0], chain, alpha=alpha)

    found = learn_then_test(LOSSES, at_most=0.01, alpha=0.05, procedure=gatekeeper)
    same = learn_then_test(LOSSES, at_most=0.01, alpha=0.05, procedure=fixed_sequence)
    assert found.adjusted == pytest.approx(same.adjusted, rel=1e-12)
