"""The study of simulators grants a wrong certificate at most alpha of the time, search included.

Synthetic simulators whose true share of seeds within the tolerance is known take the place of
real ones; ordering on search seeds and judging on fresh ones are the study's own functions.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pytest

from justenough.core.contract import Contract, parse_clause
from justenough.core.judge import Paired
from justenough.studies.neurons.certifying import Searched, decide, ordered, risk, seeds_for

ALPHA = 0.05
TERMS = Contract(
    (
        parse_clause("relative_within(0.1, output=support) >= 0.9"),
        parse_clause("within_tolerance(0.05, output=completion) >= 0.9"),
    ),
    ALPHA,
)
SEARCH = 6


@dataclass(frozen=True)
class Made:
    """A simulator that leaves the tolerance of the support on a share of seeds."""

    fails: float
    seconds: float

    def outputs(
        self, rng: np.random.Generator, exact: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        n = len(exact["support"])
        away = np.where(rng.random(n) < self.fails, 1.15, 1 + rng.uniform(-0.09, 0.09, n))
        return {"support": exact["support"] * away, "completion": exact["completion"] + 0.01}


def study(made: Mapping[str, Made], rng: np.random.Generator) -> str | None:
    """Which simulator is certified, by the road of the study."""

    def exact(n: int) -> dict[str, np.ndarray]:
        return {"support": rng.uniform(3000, 4000, n), "completion": rng.uniform(0.8, 0.9, n)}

    here = exact(SEARCH)
    found = {
        k: Searched(risk(TERMS, here, m.outputs(rng, here)), m.seconds, True)
        for k, m in made.items()
    }
    n = seeds_for(TERMS)
    fresh = exact(n)
    return decide(
        TERMS, ordered(found), found,
        lambda k: Paired(fresh, made[k].outputs(rng, fresh), np.arange(n)),
    ).chosen  # fmt: skip


@pytest.mark.slow
@pytest.mark.coverage_study
@pytest.mark.parametrize("many", [1, 4])
def test_a_wrong_certificate_is_as_rare_as_promised(many: int) -> None:
    """True shares just below the bound, so that every certificate is wrong: the worst case."""
    rng, runs = np.random.default_rng(many), 1500
    made = {f"s{i}": Made(0.1 + 1e-9, 4.0 - i) for i in range(many)}
    wrong = sum(study(made, rng) is not None for _ in range(runs))
    allowed = ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / runs)
    print(f"{many} simulators at the bound: {wrong} of {runs} certified wrongly")  # noqa: T201
    assert wrong / runs <= allowed
    assert wrong > 0, "a test that never certifies shows nothing"


@pytest.mark.slow
@pytest.mark.coverage_study
def test_the_fastest_that_holds_is_found_and_a_bad_one_is_not() -> None:
    rng, runs = np.random.default_rng(7), 200
    made = {"good": Made(0.0, 3.0), "better": Made(0.0, 2.0), "bad": Made(0.4, 1.0)}
    found = [study(made, rng) for _ in range(runs)]
    # But where no search seed shows how bad it is, and it comes first: 0.6^6 = 0.047 of runs.
    assert "bad" not in found and found.count("better") > 0.88 * runs
