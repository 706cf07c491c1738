"""The program finds what trying everything finds."""

import ctypes
import itertools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from justenough.core.subject import INT8, Variant
from justenough.cost.table import CostTable, Edge, Local, Unit
from justenough.search.program import build_program, hushed


def _unit_states(table: CostTable, picked: frozenset[str]) -> list[bool]:
    states: list[bool] = []
    for unit in table.units:
        if unit.site is not None:
            states.append(unit.site in picked)
        else:
            states.append(all(states[p] for p in unit.parents))
    return states


def _edge_seconds(edge: Edge, states: Sequence[bool]) -> float:
    """An edge is int8 when an int8 unit reads or writes it; it is converted where needed."""
    written = edge.producer is not None and not edge.pinned_float and states[edge.producer]
    read = [c >= 0 and states[c] for c in edge.consumers]
    if not (written or any(read)):
        return 0.0
    quantized = 0.0 if written else edge.quantize_s
    return quantized + edge.dequantize_s * sum(not r for r in read)


def _seconds(table: CostTable, picked: frozenset[str]) -> float:
    states = _unit_states(table, picked)
    units = sum(u.int8_s - u.fp32_s for u, on in zip(table.units, states, strict=True) if on)
    return table.fp32_s + units + sum(_edge_seconds(e, states) for e in table.edges)


def keyed(noise: dict[str, float]) -> dict[tuple[str, str], float]:
    return {(s, "int8"): power for s, power in noise.items()}


def _random(rng: np.random.Generator) -> tuple[CostTable, dict[str, float]]:
    units: list[Unit] = []
    for k in range(8):
        fp32, int8 = rng.uniform(0.5, 3.0), rng.uniform(0.2, 2.5)
        parents = tuple(sorted({int(p) for p in rng.integers(0, k, 2)})) if k else ()
        follower = k > 1 and rng.random() < 0.35
        # Two units may share a site.
        site = None if follower else f"s{int(rng.integers(0, 6))}"
        units.append(Unit(f"n{k}", site, parents if follower else (), fp32, int8))
    edges = []
    for producer in (None, *range(8)):
        start = 0 if producer is None else producer + 1
        later = [c for c in range(start, 8) if rng.random() < 0.4]
        consumers = tuple(later) + ((-1,) if rng.random() < 0.3 or not later else ())
        edges.append(
            Edge(producer, consumers, rng.uniform(0, 1), rng.uniform(0, 1), rng.random() < 0.2)
        )
    table = CostTable(tuple(units), tuple(edges), 20.0)
    return table, {s: float(rng.uniform(0.1, 5)) for s in table.sites}


@pytest.mark.parametrize("seed", range(12))
def test_solve_equals_trying_everything(seed: int) -> None:
    rng = np.random.default_rng(seed)
    table, noise = _random(rng)
    program = build_program(table)
    subsets = [
        frozenset(c) for r in range(len(table.sites) + 1)
        for c in itertools.combinations(table.sites, r)
    ]  # fmt: skip
    for budget in (np.inf, 0.6 * sum(noise.values()), 0.3 * sum(noise.values()), 0.01):
        found = program.solve(keyed(noise), budget)
        assert found is not None
        variant, seconds = found
        within = [s for s in subsets if sum(noise[x] for x in s) <= budget]
        best = min(_seconds(table, s) for s in within)
        picked = frozenset(variant.sites(INT8.name))
        assert picked in within
        assert seconds == pytest.approx(best, abs=1e-6)
        assert _seconds(table, picked) == pytest.approx(seconds, abs=1e-6)


def _mixed_seconds(table: CostTable, picks: Mapping[str, str]) -> float:
    added = sum(c.change_s for c in table.local if picks.get(c.site) == c.choice)
    return added + _seconds(table, frozenset(s for s, c in picks.items() if c == INT8.name))


@pytest.mark.parametrize("seed", range(8))
def test_solve_with_local_choices_equals_trying_everything(seed: int) -> None:
    """At most one choice a site, and a local one converts nothing at its borders."""
    rng = np.random.default_rng(seed)
    table, noise = _random(rng)
    local = tuple(
        Local(s, c, float(rng.uniform(-1.5, 0.5))) for s in table.sites for c in ("half", "codes")
        if rng.random() < 0.7
    )  # fmt: skip
    table = replace(table, local=local)
    power = keyed(noise) | {(c.site, c.choice): float(rng.uniform(0.1, 5)) for c in local}
    program = build_program(table)
    ways = [[None, *(c for s, c in program.picks if s == site)] for site in table.sites]
    everything = [
        {s: c for s, c in zip(table.sites, chosen, strict=True) if c is not None}
        for chosen in itertools.product(*ways)
    ]
    pinned = local[0]
    for budget, pins in ((np.inf, {}), (6.0, {}), (2.0, {}), (9.0, {pinned.site: pinned.choice})):
        within = [
            p for p in everything
            if sum(power[x] for x in p.items()) <= budget
            and all(p.get(s) == c for s, c in pins.items())
        ]  # fmt: skip
        best = min(_mixed_seconds(table, p) for p in within)
        found = program.solve(power, budget, pins=pins)
        assert found is not None
        assert dict(found[0].picks) in within
        assert found[1] == pytest.approx(best, abs=1e-6)
        assert _mixed_seconds(table, dict(found[0].picks)) == pytest.approx(best, abs=1e-6)


def test_excluded_variants_do_not_come_again() -> None:
    rng = np.random.default_rng(3)
    table, noise = _random(rng)
    program = build_program(table)
    known: list[Variant] = []
    seconds = []
    for _ in range(2 ** len(table.sites)):
        found = program.solve(keyed(noise), np.inf, known)
        assert found is not None
        known.append(found[0])
        seconds.append(found[1])
    assert len(set(known)) == 2 ** len(table.sites)
    assert (np.diff(seconds) >= -1e-6).all()
    assert program.solve(keyed(noise), np.inf, known) is None


def test_a_budget_of_nothing_keeps_the_exact_model() -> None:
    table = CostTable((Unit("n", "s", (), 2.0, 1.0),), (), 2.0)
    assert build_program(table).solve({("s", "int8"): 1.0}, 1e-9) == (Variant(), 2.0)
    assert build_program(table).solve({("s", "int8"): 1.0}, 1.0) == (
        Variant.of({"s": "int8"}),
        1.0,
    )


def test_sites_come_in_the_order_of_their_units() -> None:
    units = tuple(Unit(n, s, (), 1.0, 1.0) for n, s in (("a", "y"), ("b", "x"), ("c", "y")))
    assert CostTable(units, (), 3.0).sites == ("y", "x")


def test_what_the_solver_prints_by_itself_does_not_reach_standard_output(
    capfd: pytest.CaptureFixture[str],
) -> None:
    libc = ctypes.CDLL(None)
    sys.stdout.write("before\n")
    with hushed():
        libc.printf(b"a line of debugging\n")
    libc.printf(b"after\n")
    libc.fflush(None)
    assert capfd.readouterr().out == "before\nafter\n"
