"""The page docs/benchmarks.md, from results as `benchmarks.run` and `benchmarks.compress` write.

`python -m benchmarks.table` writes it again from the JSON files.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import compress_table
from benchmarks.compress_table import int8_by

Row = Mapping[str, Any]
NAMES = {
    "ours": "justenough",
    "ort": "ONNX Runtime static int8, all, its defaults",
    "nncf": "NNCF accuracy control",
}


def whole_page(decided: Path, results: Path = Path("benchmarks/results.json")) -> str:
    """The page of `make bench`, and the section of `make bench-compress` where it was run."""
    text = page(json.loads(results.read_text("utf8")))
    if decided.is_file():
        text += "\n" + compress_table.section(json.loads(decided.read_text("utf8")))
    return text


def page(results: Row) -> str:
    """What `make bench` found, as Markdown."""
    m = results["machine"]
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench`; do not edit. One run, every tool on the same calibration and",
        "search rows, judged on certification cases that none of them saw. Times are ratios to",
        "fp32 in ONNX Runtime, both sides interleaved in one process with pinned threads: ratio",
        "of medians, 10 % to 90 % over passes in brackets.",
        "",
        f"{results['date']}; {m['processor']}, {m['cores']} cores, {int8_by(m)}, {m['system']}; "
        f"{m['name']} {m['version']}, Python {m['python']}.",
    ]
    for bench in results["models"].values():
        lines += ["", *_model(bench)]
    return "\n".join(lines) + "\n"


def _model(bench: Row) -> list[str]:
    parts = ", ".join(f"{k} {n:,} rows of {u:,} groups" for k, (n, u) in bench["parts"].items())
    lines = [
        f"## {bench['title']}",
        "",
        f"Contract: `{bench['contract']}`, a group changes when any of its rows does. {parts}.",
        f"fp32: {bench['bytes'] / 1e6:.2f} MB.",
        "",
        "| tool | seconds | inferences | outcome | file | groups changed | on fresh cases |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in bench["tools"].items():
        lines.append(_taken(name, row))
    lines += [
        "",
        "| tool | batch 1, 1 thread | batch 32, 1 thread | batch 32, 2 threads |",
        "|---|---|---|---|",
    ]
    for name, row in bench["tools"].items():
        if "judged" in row:
            cells = [_ratio(row["judged"][k]) for k in ("b1t1", "b32t1", "b32t2")]
            lines.append(f"| {NAMES[name]} | {' | '.join(cells)} |")
    return [*lines, "", *_ours(bench)]


def _taken(name: str, row: Row) -> str:
    judged = row.get("judged")
    size = changed = verdict = "none"
    if judged:
        e = judged["evidence"]
        size = f"{judged['bytes'] / 1e6:.2f} MB"
        changed = f"{e['changed']} of {e['n']} ({judged['rows_changed']} of {judged['rows']} rows)"
        verdict = f"{e['verdict']}: {e['estimate']:.4f}, limit {e['limit']:.4f}"
    outcome = row["outcome"]
    if row.get("agreement") is not None:
        outcome += f", says {row['agreement']:.4f} on its search rows"
    if row.get("quantized"):
        outcome += f", {row.get('reverted') or 0} of {row['quantized']} operations reverted"
    if row.get("reason"):
        outcome += f", {row['reason']}"
    return (
        f"| {NAMES[name]} ({row['peer'].split()[1]}) | {row['seconds']:.1f} | "
        f"{row['inferences']:,} | {outcome} | {size} | {changed} | {verdict} |"
    )


def _ratio(r: Row) -> str:
    ms = f"{r['candidate_s'] * 1e3:.3f} ms of {r['reference_s'] * 1e3:.3f} ms"
    return f"{r['speedup']:.2f}x [{r['low']:.2f}, {r['high']:.2f}], {ms} a case"


def _ours(bench: Row) -> list[str]:
    ours = bench["tools"]["ours"]
    lines = []
    if ours["result"]:
        r = ours["result"]
        int8 = sum(c == "int8" for c in r["sites"].values())
        lines.append(
            f"Found: {r['kind']}, int8 at {int8} of {len(r['sites'])} sites, "
            f"{r['deferral']:.2%} of certification rows answered by the exact model; "
            f"sensitivity by {ours['sensitivity']}; calibration {ours['calibrations']['best']}."
        )
    o = bench["overhead"]
    cost = ", ".join(
        f"{1 / o[k]['speedup'] - 1:+.1%} at {label}"
        for k, label in (("b1t1", "batch 1"), ("b32t1", "batch 32"))
    )
    lines.append(f"The gate of a cascade that defers nothing costs, beside int8 alone: {cost}.")
    steps = sorted(ours["spent"]["steps"].items(), key=lambda s: -s[1])[:6]
    spent = ", ".join(f"{k} {t:.1f}" for k, t in steps)
    nncf = bench["tools"].get("nncf")
    if nncf and nncf["seconds"]:
        capped = nncf["outcome"] == "capped"
        lines.append(
            f"Search and certification together took {'at most ' * capped}"
            f"{ours['seconds'] / nncf['seconds']:.2f} of NNCF's time and "
            f"{ours['inferences'] / max(nncf['inferences'], 1):.2f} of its inferences"
            f"{', NNCF having been stopped unfinished' * capped}; NNCF certifies nothing."
        )
    lines.append(f"Longest steps in seconds: {spent}.")
    return [line for pair in zip(lines, [""] * len(lines), strict=True) for line in pair][:-1]


if __name__ == "__main__":
    Path("docs/benchmarks.md").write_text(whole_page(Path("benchmarks/compress.json")), "utf8")
