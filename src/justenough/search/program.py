"""The program behind the chain: the fastest choice of sites within a budget of noise.

Noise power nearly adds over sites, and time over nodes and conversions, so one mixed-integer
program per budget is enough; the run store keeps what was predicted beside what was measured.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array, vstack

from justenough.core.subject import FP32, INT8, Variant
from justenough.cost.table import CostTable

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Program:
    """The program of one cost table; `solve` it for any noise budget."""

    cost: Floats
    matrix: csr_array
    upper: Floats
    sites: tuple[str, ...]
    fp32_s: float

    def solve(
        self, noise: Mapping[str, float], budget: float, exclude: Sequence[Variant] = ()
    ) -> tuple[Variant, float] | None:
        """Return the fastest variant whose noise power is within `budget`, and its seconds.

        Args:
            noise: Noise power by site, in squared units of the score.
            budget: Largest sum of noise power, in the same unit.
            exclude: Variants not to return again.
        """
        width = len(self.cost)
        power = np.zeros(width)
        power[: len(self.sites)] = [noise[s] for s in self.sites]
        rows, limits = [self.matrix], [self.upper]
        if np.isfinite(budget):
            scale = max(budget, np.finfo(float).tiny)
            rows.append(csr_array(power[None] / scale))
            limits.append(np.ones(1))
        for known in exclude:
            picked = np.array([known.at(s) == INT8.name for s in self.sites])
            cut = np.zeros(width)
            cut[: len(self.sites)] = np.where(picked, 1.0, -1.0)
            rows.append(csr_array(cut[None]))
            limits.append(np.array([picked.sum() - 1.0]))
        integral = np.zeros(width)
        integral[: len(self.sites)] = 1
        found = milp(
            self.cost,
            constraints=[LinearConstraint(vstack(rows), -np.inf, np.concatenate(limits))],
            integrality=integral,
            bounds=Bounds(0, 1),
            options={"time_limit": 20.0},
        )
        if found.x is None:
            return None
        chosen = {
            s: INT8.name if on > 0.5 else FP32.name
            for s, on in zip(self.sites, found.x, strict=False)
        }
        return Variant.of(chosen), self.fp32_s + float(found.fun)


def build_program(table: CostTable) -> Program:
    """Write a cost table as a mixed-integer program.

    Variables: one per site, then per unit, then per edge whether it is int8, its Q, and a DQ
    for each reader. A follower is the AND of its parents, by inequalities.
    """
    sites = table.sites
    site_at = {s: k for k, s in enumerate(sites)}
    n_sites = len(sites)
    cost = [0.0] * n_sites + [u.int8_s - u.fp32_s for u in table.units]
    rows: list[dict[int, float]] = []
    upper: list[float] = []

    def at_most(terms: Mapping[int, float], limit: float) -> None:
        rows.append(dict(terms))
        upper.append(limit)

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
    return Program(np.array(cost), matrix, np.array(upper), sites, table.fp32_s)
