"""The page docs/assemblies-benchmarks.md, from the results of five benchmarks and the claims.

`python -m benchmarks.assemblies_table` writes it again from their files.
"""

import json
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from justenough.report.words import seconds, size

Row = Mapping[str, Any]
CLAIMS = Path("src/justenough/studies/neurons/claims.toml")
PAGE = Path("docs/assemblies-benchmarks.md")
FOLDER = Path("benchmarks")
FILES = {
    "topk": "topk.json",
    "cpu": "assemblies_scaling.json",
    "card": "assemblies_scaling_card.json",
    "counts": "cuda_counts.json",
    "lazy": "lazy_tier.json",
}
# What document 001 projects for "quantized" neurons: gigabytes, and steps a second.
PROJECTED = {10**6: (0.009, 90_000), 10**7: (0.09, 9_000), 10**8: (0.9, 900), 10**9: (9, 90),
             10**10: (90, 9)}  # fmt: skip
FORMING = 25

_INTRO = """# Assemblies of neurons, measured

Written by `make bench-assemblies` and, on a machine with a card, `make bench-assemblies-card`; do
not edit. One area, one stimulus, synapses within the area. A round is **settled** when the same
neurons fire as before. Times of rounds are single ones of the wall, since a round cannot be
repeated; others are medians with least and most in brackets.
""".rstrip().splitlines()


def load(root: Path = Path()) -> dict[str, Any]:
    """Results by what they are of."""
    found = {
        name: json.loads((root / FOLDER / file).read_text("utf8")) for name, file in FILES.items()
    }
    claims = tomllib.loads((root / CLAIMS).read_text("utf8"))
    return found | {"claims": next(iter(claims.values()))}


def page(results: Row) -> str:
    """What the last runs found, as Markdown."""
    lines = [
        *_INTRO,
        "",
        *_where(results),
        "",
        *_goals(results),
        "",
        *_topk(results["topk"]),
        "",
        *_exact(results["cpu"], "The exact tier on a processor"),
        "",
        *_exact(results["card"], "The exact tier with its counts on a card"),
        "",
        *_card(results["counts"]),
        "",
        *_lazy(results["lazy"]),
        "",
        *_document(results),
        "",
        *_techniques(results["claims"]),
    ]
    return "\n".join(lines) + "\n"


def _where(results: Row) -> list[str]:
    lines = []
    for name in ("cpu", "card"):
        m = results[name]["machine"]
        versions = ", ".join(f"{k} {v}" for k, v in m["versions"].items())
        card = f", {m['card']}" if "card" in m else ""
        lines.append(
            f"- {'Card' if card else 'Processor'}: {m['date']}, {m['processor']}, {m['cores']} "
            f"cores{card}, Python {m['python']}, {versions}; load {m['load']:.1f} at the end."
        )
    return lines


def _table(head: str, rows: Iterable[list[str]]) -> list[str]:
    columns = head.split(" | ")
    return [
        f"| {head} |",
        "|" + "---|" * len(columns),
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def _spread(found: Row) -> str:
    return f"{seconds(found['median'])} ({seconds(found['least'])} to {seconds(found['most'])})"


def _power(n: float) -> str:
    return f"{n:.0e}".replace("e+0", "e").replace("e+", "e")


def _name(r: Row) -> list[str]:
    return [_power(r["n"]), f"{r['k']:,}", f"{r['p']:g}", f"{r['beta']:g}"]


def _floor(r: Row) -> float:
    """Seconds to read each byte of the counts once, at the speed of a copy's reads and writes."""
    return float(sum(r["bytes"].values()) * r["copy"]["median"] / r["copy_bytes"])


def _exact(results: Row, title: str) -> list[str]:
    rows = []
    for r in results["runs"]:
        if r["tier"] != "exact":
            continue
        settled = r["settled"]
        held = sum(r["bytes"].values())
        rows.append([
            *_name(r),
            size(held),
            f"{held / r['n']:.3g}",
            seconds(sum(r["seconds"][:FORMING])),
            seconds(max(r["seconds"])),
            _spread(settled) if settled else "not reached",
            _spread(r["pass"]),
            seconds(_floor(r)),
            f"{r['support'][-1] / r['k']:.3g} k",
        ])  # fmt: skip
    return [
        f"## {title}",
        "",
        *_table(
            f"n | k | p | beta | bytes | a neuron | {FORMING} rounds | longest round | a settled "
            "round | one pass over the counts | floor of a pass | support",
            rows,
        ),
        "",
        "The floor reads each byte once, at the speed at which a copy reads and writes. A settled "
        "round makes no pass: the counts are what they were.",
    ]


def _topk(results: Row) -> list[str]:
    rows = [
        [
            r["values"],
            r["side"] + (f" (scaled, {r['scaled_by']:.3g} times)" if r["scaled_by"] != 1 else ""),
            f"{seconds(r['seconds'])} ({seconds(r['fastest'])} to {seconds(r['slowest'])})",
            f"{r['ratio']:.3g}",
            size(r["extra_bytes"]),
        ]
        for r in results["rows"]
    ]
    shares = [f"{name}: {100 * one['share']:.0f} %" for name, one in results["one_pass"].items()]
    return [
        f"## The {results['k']:,} largest of {_power(results['n'])} values",
        "",
        *_table("values | by | time | times ours | memory beside", rows),
        "",
        "One pass with a threshold carried over, bytes read a second over those that a copy reads "
        f"and writes: {'; '.join(shares)}.",
    ]


def _card(results: Row) -> list[str]:
    rows = []
    for r in results["rows"]:
        copy = next(c for c in results["rows"] if c["work"] == "copy" and c["n"] == r["n"])
        rows.append([
            _power(r["n"]),
            r["work"],
            _spread(r),
            f"{r['median'] / copy['median']:.2g}",
        ])  # fmt: skip
    return [
        f"## Counts on a card: {results['card']}",
        "",
        *_table("n | work | time | copies of the counts", rows),
    ]


def _speed(run: Row, first: int, last: int) -> float | None:
    taken = run["seconds"][first:last]
    return (last - first) / sum(taken) if len(taken) == last - first else None


def _speeds(found: Row, first: int, last: int) -> str:
    each = [_speed(run, first, last) for run in found["runs"]]
    known = [e for e in each if e is not None]
    if len(known) < len(each):
        return "not reached"
    if len(known) == 1:
        return f"{known[0]:.3g}"
    return f"{np.median(known):.3g} ({min(known):.3g} to {max(known):.3g})"


def _lazy(results: list[Row]) -> list[str]:
    rows = []
    for r in results:
        n, k, p, beta = r["case"]
        name = _name({"n": n, "k": k, "p": p, "beta": beta})
        ours = next(o for o in results if o["case"] == r["case"] and o["program"] == "lazy")
        program = {"lazy": "ours", "reference": "authors' method"}.get(r["program"], r["program"])
        if "error" in r:
            rows.append([*name, program, r["error"], "", "", "", ""])
            continue
        made = min(len(run["seconds"]) for run in r["runs"])
        took = np.median([sum(run["seconds"][:made]) for run in r["runs"]])
        mine = np.median([sum(run["seconds"][:made]) for run in ours["runs"]])
        supports = np.median([run["support"] for run in r["runs"]])
        rows.append([
            *name, program, _speeds(r, 0, FORMING), _speeds(r, FORMING, FORMING + 100),
            size(r["rss"]), f"{supports / k:.3g} k after {made}",
            f"{took / mine:.3g} over {made} rounds" if r is not ours else "1",
        ])  # fmt: skip
    return [
        "## The lazy tier and other programs, on one core",
        "",
        *_table(
            "n | k | p | beta | by | rounds 1-25, a second | rounds 26-125, a second | memory | "
            "support | time over ours",
            rows,
        ),
        "",
        "The authors' method is our own write-up of it (`assemblies/reference.py`), NumPy and one "
        "seed; `neural-assemblies` is the package from PyPI with its engine `numpy_sparse`.",
    ]


def _document(results: Row) -> list[str]:
    rows = []
    runs = [*results["cpu"]["runs"], *results["card"]["runs"]]
    for n, (gigabytes, steps) in PROJECTED.items():
        for r in runs:
            if r["n"] != n or r["k"] != 1000 or not r["settled"]:
                continue
            held = sum(r["bytes"].values()) if "bytes" in r else r["peak_rss"] - r["rss_before"]
            rows.append([
                _power(n),
                f"60 B a neuron: {size(60.0 * n)}",
                f"{gigabytes:g} GB, {steps:,}",
                f"{r['tier']}, {'card' if r['device'] == 'cuda' else 'processor'}, "
                f"p = {r['p']:g}, beta = {r['beta']:g}",
                size(held),
                f"{r['rounds_a_second']:.3g}",
                f"{1 / r['settled']['median']:.3g}",
            ])  # fmt: skip
    return [
        "## Beside the document's projections",
        "",
        *_table(
            "n | the document now | its projection: memory, steps a second | ours, k = 1,000 | "
            f"bytes | rounds 1-{FORMING}, a second | settled rounds, a second",
            rows,
        ),
        "",
        "The document's steps are not these: it says nothing of k, p or plasticity, and its code "
        "held no synapses.",
    ]


def _techniques(claims: list[Row]) -> list[str]:
    """Each technique of the document, on over off, as its claims were measured."""
    rows = [
        [
            c["quantity"].removesuffix(", ratio"), c["claimed"],
            f"{c['measured']} ({c['low']:g} to {c['high']:g})" if "low" in c else c["measured"],
            c["verdict"],
        ]
        for c in claims
        if c.get("measured", "").endswith(" x")
    ]  # fmt: skip
    return [
        "## Techniques switched on and off",
        "",
        *_table("what | claimed | measured | verdict", rows),
        "",
        "From `justenough claims run --all --study neurons` on the processor; what a row covers "
        "is in the [claims](claims.md), rows 001.",
    ]


def _one(results: Row, where: str, n: int, beta: float, k: int = 1000) -> Row:
    found: Row = next(
        r
        for r in results[where]["runs"]
        if (r["tier"], r["n"], r["beta"], r["k"]) == ("exact", n, beta, k)
    )
    return found


def _goals(results: Row) -> list[str]:
    top = {r["side"]: r for r in results["topk"]["rows"] if r["values"] == "float32, normal"}
    share = results["topk"]["one_pass"]["float32, normal"]["share"]
    eight, nine = _one(results, "cpu", 10**8, 0.1), _one(results, "cpu", 10**9, 0.25)
    slow = _one(results, "cpu", 10**9, 0.1)
    rate = nine["k"] * nine["p"] * nine["n"] / nine["seconds"][0] / 1e6
    goals = [
        ("top-k of 1e8 float32 over argpartition", 10, top["np.argpartition"]["ratio"], True, ""),
        ("top-k over torch.topk", 30, top["torch.topk"]["ratio"], True, ""),
        ("verify pass, share of copy bandwidth", 0.7, share, True, ""),
        ("exact, 1e8: settled round", 0.05, eight["settled"]["median"], False, " s"),
        ("exact, 1e9: bytes a neuron", 2.5, sum(nine["bytes"].values()) / 1e9, False, ""),
        ("exact, 1e9: settled round", 0.4, nine["settled"]["median"], False, " s"),
        ("exact, 1e9: longest round, beta = 0.1", 6.0, max(slow["seconds"]), False, " s"),
        ("exact, 1e9: rows of all winners changed", 6.0, slow["all_change"], False, " s"),
        ("exact, 1e9: million edges a second, first round", 200.0, rate, True, ""),
    ]
    for n in (10**9, 10**10):
        r = _one(results, "card", n, 0.25)
        ratio = r["settled"]["median"] / _floor(r)
        goals.append((f"card, {_power(n)}: settled round over the floor", 2.0,
                      ratio, False, ""))  # fmt: skip
    for case, goal in (((10**9, 1000, 0.01, 0.05), 400), ((10**9, 1000, 0.01, 0.1), 400),
                       ((10**9, 10**4, 0.001, 0.1), 20)):  # fmt: skip
        r = next(o for o in results["lazy"] if o["program"] == "lazy" and tuple(o["case"]) == case)
        median = float(np.median([_speed(run, 0, FORMING) for run in r["runs"]]))
        what = f"lazy, 1e9, k = {case[1]:,}, beta = {case[3]}: rounds 1-25 a second"
        goals.append((what, goal, median, True, ""))
        if case[1] == 1000:
            goals.append((f"lazy, beta = {case[3]}: MB", 20, r["rss"] / 1e6, False, ""))
    rows = []
    for what, goal, found, at_least, unit in goals:
        reached = found >= goal if at_least else found <= goal
        sign = ">=" if at_least else "<="
        rows.append([what, f"{sign} {goal:g}{unit}", f"{found:.3g}{unit}",
                     "yes" if reached else "**no**"])  # fmt: skip
    return ["## Goals", "", *_table("what | goal | measured | reached", rows)]


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(load()), "utf8")
    print(f"{PAGE} is what the last runs found")


if __name__ == "__main__":
    main()
