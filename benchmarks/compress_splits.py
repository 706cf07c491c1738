"""How much a certificate owes to the split: choice and proof again, over random splits.

Calibration, and with it every variant's file, is held fixed. The answers of the reference and of
all variants that a run timed are known for all other rows; for each seed a salted hash says which
groups choose the candidates and which certify them, in the shares of the run itself.
"""

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.compress_models import Bench
from justenough.core.cases import SHARES
from justenough.core.contract import Contract
from justenough.core.evidence import Verdict, overall
from justenough.core.gate import Gate
from justenough.core.judge import Paired
from justenough.core.subject import Outputs
from justenough.deploy.certify import fixed_sequence
from justenough.search.chain import DeferralCost, Measured, Middle, Rung, rungs

Array = NDArray[Any]
SEARCH_SHARE = SHARES[1] / (SHARES[1] + SHARES[2])


@dataclass(frozen=True, eq=False)
class Recorded:
    """What one run measured, on all rows that it did not calibrate on.

    Attributes:
        contract: What must not change.
        answers: Outputs by variant, each (n, ...); `reference` among them.
        seconds: Per case, by variant; `reference` among them.
        gate_s: Seconds per case that looking at a variant's margin takes.
        cost: Seconds of stages that answer deferred rows; `reference` among them.
        keys: (n,) group of each row.
        worst: Predicted risk above which a candidate is left out.
    """

    contract: Contract
    answers: Mapping[str, Outputs]
    seconds: Mapping[str, float]
    gate_s: Mapping[str, float]
    cost: Mapping[str, DeferralCost]
    keys: tuple[str, ...]
    worst: float

    @property
    def variants(self) -> list[str]:
        """Names of all but the reference."""
        return [n for n in self.answers if n != "reference"]


@dataclass(frozen=True)
class Outcome:
    """One split.

    Attributes:
        held: Whether a candidate was certified.
        speedup: Predicted by the cost model for the cheapest one that was; 1 where none was.
        deferral: Share of the certification rows that the exact model answers.
        changed: Certification units that it changes, of `units`.
    """

    seed: int
    held: bool
    speedup: float
    variant: str
    deferral: float
    changed: int
    units: int


def searched(keys: tuple[str, ...], seed: int) -> NDArray[np.bool_]:
    """Per row (n,), whether its group chooses; the others certify.

    >>> a = searched(tuple(map(str, range(1000))), 1)
    >>> 0.1 < a.mean() < 0.25, bool((a == searched(tuple(map(str, range(1000))), 2)).all())
    (True, False)
    """
    salt = seed.to_bytes(8, "big")

    def place(key: str) -> float:
        digest = hashlib.blake2b(key.encode(), digest_size=8, salt=salt).digest()
        return int.from_bytes(digest, "big") / 2**64

    chosen = {k: place(k) < SEARCH_SHARE for k in set(keys)}
    return np.array([chosen[k] for k in keys])


def one_split(known: Recorded, seed: int) -> Outcome:
    """Choose the candidates on one part of the groups and certify them on the other."""
    search = searched(known.keys, seed)
    share = search.mean() / (1 - search.mean())
    contract = known.contract.scaled(float(share))
    exact = _at(known.answers["reference"], search)
    gate = contract.gate(exact)
    order = _order(known, search, gate, contract)
    fresh = {n: _at(a, ~search) for n, a in known.answers.items()}
    units = np.unique(np.array(known.keys)[~search], return_inverse=True)[1]

    def pairs(step: str) -> Paired:
        got, _ = answered(fresh, order[int(step)], gate)
        return Paired(fresh["reference"], got, units)

    found = fixed_sequence(known.contract, [str(k) for k in range(len(order))], pairs)
    held = [(order[int(k)], e) for k, e in found if overall(e) is Verdict.HELD]
    n = int(units.max()) + 1
    if not held:
        return Outcome(seed, False, 1.0, "", 0.0, 0, n)
    whole = known.seconds["reference"]
    timed = [(*_seconds(known, fresh, rung, gate), rung, e) for rung, e in held]
    seconds, deferral, rung, evidence = min(timed, key=lambda t: t[0])
    if seconds >= whole:
        return Outcome(seed, False, 1.0, rung.variant, deferral, 0, n)
    changed = evidence[0].changed or 0
    return Outcome(seed, True, whole / seconds, rung.variant, deferral, changed, n)


def _at(outputs: Outputs, rows: Array) -> dict[str, Array]:
    return {k: v[rows] for k, v in outputs.items()}


def _order(known: Recorded, search: Array, gate: Gate | None, contract: Contract) -> list[Rung]:
    """The candidates, safest first, from the search rows alone."""
    exact = _at(known.answers["reference"], search)
    said = {
        n: measured(n, exact, _at(known.answers[n], search), gate, contract, known)
        for n in known.variants
    }
    middles = [Middle(said[n], c) for n, c in known.cost.items() if n in said]
    margins = None if gate is None else gate.signed(exact, exact)
    return rungs(
        margins, list(said.values()), known.seconds["reference"], known.cost["reference"],
        middles, worst=known.worst,
    )  # fmt: skip


def measured(
    name: str, exact: Outputs, got: Outputs, gate: Gate | None, contract: Contract, known: Recorded
) -> Measured:
    """What the search rows say of a variant."""
    if gate is None:
        y, z = (np.asarray(contract.clauses[0].values(o), np.float64) for o in (exact, got))
    else:
        y, z = (np.asarray(o[gate.output], np.float64) for o in (exact, got))
    noise = float(((z - y).reshape(len(y), -1) ** 2).sum(1).mean())
    if gate is None:
        return Measured(name, known.seconds[name], None, None, noise)
    return Measured(
        name, known.seconds[name], gate.signed(exact, got), gate.margin(got), noise,
        known.gate_s[name],
    )  # fmt: skip


def stages(rung: Rung, gate: Gate | None) -> list[tuple[str, Gate | None]]:
    """The variants of a rung with their gates, cheapest first."""
    if gate is None or rung.threshold is None:
        return [(rung.variant, None)]
    out: list[tuple[str, Gate | None]] = [(rung.variant, replace(gate, threshold=rung.threshold))]
    if rung.middle is not None and rung.middle_threshold is not None:
        out.append((rung.middle, replace(gate, threshold=rung.middle_threshold)))
    return out


def answered(
    answers: Mapping[str, Outputs], rung: Rung, gate: Gate | None
) -> tuple[dict[str, Array], list[float]]:
    """Outputs of a rung, and the share of rows that each of its gates passes on."""
    used = stages(rung, gate)
    found = dict(answers["reference"] if used[-1][1] is not None else answers[used[-1][0]])
    found = {k: found[k] for k in answers["reference"]}
    for name, g in reversed(used):
        if g is not None:
            rows = g.deferred(answers[name])
            found = {
                k: np.where(rows.reshape(-1, *(1,) * (v.ndim - 1)), v, answers[name][k])
                for k, v in found.items()
            }
    passed, shares = np.array(True), []
    for name, g in used:
        if g is not None:
            passed = passed & g.deferred(answers[name])
            shares.append(float(passed.mean()))
    return found, shares


def _seconds(
    known: Recorded, fresh: Mapping[str, Outputs], rung: Rung, gate: Gate | None
) -> tuple[float, float]:
    """Predicted seconds per case at the shares that the certification rows defer."""
    _, shares = answered(fresh, rung, gate)
    total = known.seconds[rung.variant]
    if not shares:
        return total, 0.0
    total += known.gate_s[rung.variant] + known.cost["reference"].per_case(shares[-1])
    if rung.middle is not None:
        total += known.cost[rung.middle].per_case(shares[0])
    return total, shares[-1]


def summary(outcomes: list[Outcome]) -> dict[str, Any]:
    """How often, and how fast: median and 10 to 90 %, those not held counting as 1x."""
    speed = np.array([o.speedup for o in outcomes])
    low, middle, high = np.quantile(speed, [0.1, 0.5, 0.9])
    return {
        "splits": len(outcomes),
        "held": sum(o.held for o in outcomes),
        "speedup": float(middle),
        "low": float(low),
        "high": float(high),
        "deferral": float(np.median([o.deferral for o in outcomes])),
        "outcomes": [o.__dict__ for o in outcomes],
    }


def repeat(bench: Bench, folder: Path, splits: int, threads: int) -> dict[str, Any]:
    """Repeat the run of ours in `folder`, which is left as it is, over random splits."""
    known = recorded(bench, folder, threads)
    return summary([one_split(known, seed) for seed in range(splits)])


def recorded(bench: Bench, folder: Path, threads: int) -> Recorded:
    """What the run knows, and the answers that it did not need, from its files built again."""
    from justenough.measured import WORST, cost_of, deferral_cost, variant_of
    from justenough.proof import Fresh
    from justenough.road import nobody, quiet
    from justenough.search.goal import Goal
    from justenough.subjects.sessions import ONNXRUNTIME
    from justenough.survey import open_road

    copy = folder / "splits"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder / "run", copy)
    road = open_road(
        bench.path, bench.load(), bench.contract, copy, None, SHARES, bench.batch, threads,
        quiet, nobody, Goal(),
    )  # fmt: skip
    try:
        found = road.store.get("summary")["search"]
        variants = {n: variant_of(e) for n, e in found["variants"].items()}
        fresh = Fresh(road, variants)
        answers = {}
        for name in ("reference", *variants):
            print(f"answers of {name}", flush=True)
            ours = (
                road.bench.outputs if name == "reference" else road.bench.answers(variants[name])
            )
            rest = fresh.answers(name)
            answers[name] = {k: np.concatenate([ours[k], rest[k]]) for k in road.bench.outputs}
        parts = (road.parts.search.cases, road.parts.certification.cases)
        gate_s = {
            n: found["gate_s"]["file" if v.runtime == ONNXRUNTIME else "runner"]
            for n, v in variants.items()
        }
        seconds = {n: cost_of(road, e) for n, e in found["variants"].items()}
        return Recorded(
            road.contract, answers, {**seconds, "reference": found["reference_s"]}, gate_s,
            {n: deferral_cost(road, c) for n, c in found["call_cost"].items()},
            tuple(k for p in parts for k in p.keys),
            WORST * max(1 - road.contract.clauses[0].bound, 1e-3),
        )  # fmt: skip
    finally:
        road.store.close()
        shutil.rmtree(copy, ignore_errors=True)
