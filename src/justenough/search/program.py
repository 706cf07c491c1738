"""The program behind the chain: the fastest choice of sites within a budget of noise.

Noise power nearly adds over sites, and time over nodes and conversions, so one mixed-integer
program per budget is enough; the run store keeps what was predicted beside what was measured.
"""

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array, vstack

from justenough.core.subject import INT8, Variant
from justenough.cost.table import CostTable

Floats = NDArray[np.float64]


Noise = Mapping[tuple[str, str], float]


@dataclass(frozen=True)
class Program:
    """The program of one cost table; `solve` it for any noise budget.

    Attributes:
        cost: (columns,) objective of each variable.
        matrix, upper: matrix x <= upper.
        picks: (site, choice) of the first columns, which are 0 or 1.
        base: Cost of the variant that picks nothing, in the objective's unit.
    """

    cost: Floats
    matrix: csr_array
    upper: Floats
    picks: tuple[tuple[str, str], ...]
    base: float

    def solve(
        self,
        noise: Noise,
        budget: float,
        exclude: Sequence[Variant] = (),
        pins: Mapping[str, str] = {},
    ) -> tuple[Variant, float] | None:
        """Return the cheapest variant whose noise power is within `budget`, and its cost.

        Args:
            noise: Noise power by (site, choice), in squared units of the score; a pick that is
                not there is not taken.
            budget: Largest sum of noise power, in the same unit.
            exclude: Variants not to return again.
            pins: Choice by site that is settled; the exact one where no pick has its name.
        """
        width, n = len(self.cost), len(self.picks)
        if not width:
            return Variant(), self.base
        power = np.zeros(width)
        power[:n] = [noise.get(p, 0.0) for p in self.picks]
        rows, limits = [self.matrix], [self.upper]
        # What is over the budget alone is no column of the budget's row: coefficients far apart
        # are what the solver is worst at.
        over = power > budget
        if np.isfinite(budget):
            scale = max(budget, np.finfo(float).tiny)
            rows.append(csr_array(np.where(over, 0.0, power)[None] / scale))
            limits.append(np.ones(1))
        for known in exclude:
            picked = np.array([known.at(s) == c for s, c in self.picks])
            cut = np.zeros(width)
            cut[:n] = np.where(picked, 1.0, -1.0)
            rows.append(csr_array(cut[None]))
            limits.append(np.array([picked.sum() - 1.0]))
        integral = np.zeros(width)
        integral[:n] = 1
        low, high = np.zeros(width), np.ones(width)
        for k, (site, choice) in enumerate(self.picks):
            if site in pins:
                low[k] = high[k] = float(pins[site] == choice)
                if low[k] and over[k]:
                    return None
            elif (site, choice) not in noise or over[k]:
                high[k] = 0
        unit = float(np.abs(self.cost).max(initial=0.0)) or 1.0
        with hushed():
            found = milp(
                self.cost / unit,
                constraints=[LinearConstraint(vstack(rows), -np.inf, np.concatenate(limits))],
                integrality=integral,
                bounds=Bounds(low, high),
                options={"time_limit": 20.0},
            )
        if found.x is None:
            return None
        chosen = {s: c for (s, c), on in zip(self.picks, found.x, strict=False) if on > 0.5}
        return Variant.of(chosen), self.base + unit * float(found.fun)


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Nothing that C code prints meanwhile reaches standard output.

    HiGHS prints a line of its debugging for some programs, whatever it is told; between the
    lines of a result, or in a pipe that someone reads, it is noise.
    """
    libc = ctypes.CDLL(None)
    try:
        sys.stdout.flush()
        kept = os.dup(1)
    except (OSError, ValueError, AttributeError):  # there is no standard output
        yield
        return
    libc.fflush(None)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        libc.fflush(None)
        os.dup2(kept, 1)
        os.close(nowhere)
        os.close(kept)


def additive_program(change: Mapping[tuple[str, str], float], base: float) -> Program:
    """The program of costs that simply add: what each pick changes, in the cost's unit.

    Bytes and energy add so, and so do seconds where a runtime does its own conversions.
    """
    picks = tuple(change)
    sites = tuple(dict.fromkeys(s for s, _ in picks))
    one = csr_array([[float(s == site) for s, _ in picks] for site in sites] or np.zeros((0, 0)))
    return Program(np.array([change[p] for p in picks]), one, np.ones(len(sites)), picks, base)


def build_program(table: CostTable) -> Program:
    """Write a cost table as a mixed-integer program.

    Variables: one per site for int8 and one per local choice, then per unit, then per edge
    whether it is int8, its Q, and a DQ for each reader. A follower is the AND of its parents,
    by inequalities. A site takes one choice at most.
    """
    sites = table.sites
    site_at = {s: k for k, s in enumerate(sites)}
    local = tuple(c for c in table.local if c.site in site_at)
    picks = (*((s, INT8.name) for s in sites), *((c.site, c.choice) for c in local))
    n_sites = len(picks)
    cost = [0.0] * len(sites) + [c.change_s for c in local]
    cost += [u.int8_s - u.fp32_s for u in table.units]
    rows: list[dict[int, float]] = []
    upper: list[float] = []

    def at_most(terms: Mapping[int, float], limit: float) -> None:
        rows.append(dict(terms))
        upper.append(limit)

    for site in {c.site for c in local}:
        at_most({k: 1.0 for k, (s, _) in enumerate(picks) if s == site}, 1)
    for k, unit in enumerate(table.units):
        x = n_sites + k
        if unit.site is not None:
            at_most({x: 1, site_at[unit.site]: -1}, 0)
            at_most({x: -1, site_at[unit.site]: 1}, 0)
            continue
        for parent in unit.parents:
            at_most({x: 1, n_sites + parent: -1}, 0)
        at_most({**{n_sites + p: 1.0 for p in unit.parents}, x: -1}, len(unit.parents) - 1)
    for edge in table.edges:
        y = len(cost)
        cost += [0.0, edge.quantize_s]
        near = [n_sites + c for c in edge.consumers if c >= 0]
        if edge.producer is not None and not edge.pinned_float:
            near.append(n_sites + edge.producer)
        for x in near:
            at_most({x: 1, y: -1}, 0)
        writes_int8 = edge.producer is not None and not edge.pinned_float
        made = {n_sites + edge.producer: -1.0} if writes_int8 and edge.producer is not None else {}
        at_most({y: 1, y + 1: -1, **made}, 0)
        for c in edge.consumers:
            z = len(cost)
            cost.append(edge.dequantize_s)
            at_most({y: 1, z: -1, **({n_sites + c: -1.0} if c >= 0 else {})}, 0)
    matrix = csr_array(
        (
            [v for r in rows for v in r.values()],
            (
                [i for i, r in enumerate(rows) for _ in r],
                [j for r in rows for j in r],
            ),
        ),
        shape=(len(rows), len(cost)),
    )
    return Program(np.array(cost), matrix, np.array(upper), picks, table.fp32_s)
