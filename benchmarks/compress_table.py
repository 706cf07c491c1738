"""The section of docs/benchmarks.md that `make bench-compress` fills."""

from collections.abc import Mapping
from typing import Any

Row = Mapping[str, Any]
NAMES = {
    "ours": "justenough",
    "ours-b1": "justenough, for batch 1",
    "openvino": "OpenVINO, float32",
    "openvino-bf16": "OpenVINO, bfloat16, no search",
    "nncf": "NNCF `quantize`, OpenVINO",
    "nncf-bf16": "the same, the rest in bfloat16",
    "ort": "ONNX Runtime static, defaults",
    "ort-channel": "ONNX Runtime static, per channel",
    "ort-reduced": "ONNX Runtime static, per channel, reduced range",
    "ort-dynamic": "ONNX Runtime dynamic",
    "aimet": "AIMET",
    "inc": "Neural Compressor for ONNX",
    "control-onnx": "NNCF accuracy control, ONNX",
    "control-openvino": "NNCF accuracy control, OpenVINO",
    "control-openvino-bf16": "the same, the rest in bfloat16",
}
WITHIN = 0.02
CONTROL = ("control-onnx", "control-openvino")


def section(results: Row) -> str:
    """The section as Markdown."""
    m, s = results["machine"], results["settings"]
    threads = ", ".join(map(str, s["threads"]))
    lines = [
        "# The benchmark that decides",
        "",
        "Written by `make bench-compress`; do not edit. Every tool gets the same calibration and",
        "search rows, runs in a process of its own, and is judged by the same contract on",
        "certification cases that none of them saw. Times are ratios to fp32 in ONNX Runtime,",
        "both sides in turn in one process with pinned threads on fresh rows in their order:",
        "ratio of medians, 10 % to 90 % over passes in brackets. Memory is the most that a tool's",
        "processes held, as a multiple of what the reference needs to answer the same cases. The",
        "inferences of the others leave out what they run of single layers; ours counts gradients",
        "as the reference passes that take as long. Seconds of ours hold its certification too,",
        "which no other tool does.",
        "",
        f"{results['date']}; {m['processor']}, {m['cores']} cores, {int8_by(m)}, {m['system']}; "
        f"{m['name']} {m['version']}, Python {m['python']}; threads: {threads}; "
        f"a tool is stopped after {s['cap_s']:.0f} s.",
    ]
    for text in results["left_out"]:
        lines += ["", f"{text[0].upper()}{text[1:]}."]
    for bench in results["models"].values():
        lines += ["", *_model(bench)]
    return "\n".join(lines) + "\n"


def int8_by(machine: Row) -> str:
    """Which instructions a machine multiplies int8 with: what int8 is worth depends on them."""
    flags = machine.get("cpu_flags", ())
    best = next((f for f in ("amx_int8", "avx512_vnni", "avx_vnni") if f in flags), None)
    wide = max((f for f in flags if f in ("avx2", "avx512f")), default="no AVX2")
    return f"int8 by {best}" if best else f"{wide} without VNNI"


def _model(bench: Row) -> list[str]:
    parts = ", ".join(f"{k} {n:,} rows of {u:,} groups" for k, (n, u) in bench["parts"].items())
    races = next((r["judged"]["races"] for r in bench["rows"].values() if "races" in
                  r.get("judged", {})), {})  # fmt: skip
    heads = " | ".join(_setting(k) for k in races)
    lines = [
        f"## {bench['title']}",
        "",
        f"Contract: {', '.join(f'`{c}`' for c in bench['contract'])}. {parts}. "
        f"fp32: {bench['bytes'] / 1e6:.2f} MB. Own batch: {bench['batch']}.",
        "",
        f"| tool | holds? | changed | {heads} | MB | seconds | inferences | memory |",
        "|---" * (7 + len(races)) + "|",
    ]
    lines += [_line(name, row, bench, list(races)) for name, row in bench["rows"].items()]
    lines += ["", _fastest(bench)]
    if (control := _control(bench)) is not None:
        lines += ["", control]
    if bench.get("splits"):
        lines += ["", _splits(bench["splits"])]
    return lines


def _setting(key: str) -> str:
    """Words for `b8t1`."""
    batch, _, threads = key[1:].partition("t")
    return f"batch {batch}" + ("" if threads == "1" else f", {threads} threads")


def _line(name: str, row: Row, bench: Row, settings: list[str]) -> str:
    judged = row.get("judged", {})
    cells = [_holds(row), _changed(judged)]
    for key in settings:
        race = judged.get("races", {}).get(key)
        cells.append(f"{race['speedup']:.2f}x [{race['low']:.2f}, {race['high']:.2f}]"
                     if race else "")  # fmt: skip
    cells.append(f"{judged['bytes'] / 1e6:.2f}" if "bytes" in judged else "")
    cells.append(f"{row['seconds']:.0f}")
    cells.append(f"{row['inferences']:,}" if "inferences" in row else "")
    memory = row.get("peak_bytes", 0) / max(bench["reference"]["peak_bytes"], 1)
    cells.append(f"{memory:.1f}x" if memory else "")
    return f"| {NAMES[name]} | {' | '.join(cells)} |"


def _holds(row: Row) -> str:
    judged = row.get("judged", {})
    if row["outcome"] != "done" or not judged:
        return f"{row['outcome'] if row['outcome'] != 'done' else 'nothing'}: {_short(row)}"
    said = {"HELD": "**yes**", "BROKEN": "no", "UNDECIDED": "not shown", "SLOW": "not judged"}
    word = said.get(judged["verdict"], f"failed: {judged.get('message', '')}")
    if row.get("agreement") is not None:
        word += f" (says {row['agreement']:.2%})"
    return word.replace("|", "/")


def _short(row: Row) -> str:
    return str(row.get("message", "")).replace("|", "/")[:120] or "stopped at the limit"


def _changed(judged: Row) -> str:
    if "evidence" not in judged:
        return ""
    e = judged["evidence"][0]
    if e["changed"] is None:
        return f"{e['estimate']:.4g}"
    if "mean" in e["clause"]:
        return f"mean {e['estimate']:.4f}, limit {e['limit']:.4f}"
    return f"{e['changed']} of {e['n']}"


def _holding(bench: Row, key: str) -> dict[str, float]:
    """Speed-up by tool of those whose contract holds."""
    return {
        name: row["judged"]["races"][key]["speedup"]
        for name, row in bench["rows"].items()
        if row.get("judged", {}).get("verdict") == "HELD"
    }


def _fastest(bench: Row) -> str:
    key = f"b{bench['batch']}t1"
    held = _holding(bench, key)
    where = f"At batch {bench['batch']}"
    if not held:
        return f"{where} nothing holds."
    best = max(held, key=lambda n: held[n])
    if "ours" not in held:
        return f"{where} {NAMES[best]} is the fastest that holds; ours certified nothing."
    others = {n: s for n, s in held.items() if not n.startswith("ours")}
    if not others:
        return f"{where} ours is the only one that holds."
    rival = max(others, key=lambda n: others[n])
    ratio = held["ours"] / others[rival]
    if ratio >= 1:
        return f"{where} ours is the fastest that holds, {ratio:.2f} times {NAMES[rival]}."
    near = "within 2 % of" if ratio >= 1 - WITHIN else "slower than"
    return f"{where} ours is {near} {NAMES[rival]}, which holds too: {ratio:.2f} times its speed."


def _control(bench: Row) -> str | None:
    """Time and inferences of ours beside accuracy control's, whichever ran."""
    ours = bench["rows"].get("ours")
    said = []
    for name in CONTROL:
        row = bench["rows"].get(name)
        if not ours or not row or row["outcome"] == "failed":
            continue
        capped = row["outcome"] == "capped"
        said.append(
            f"{'at most ' * capped}{ours['seconds'] / row['seconds']:.2f} of the time and "
            f"{ours['inferences'] / max(row.get('inferences', 0), 1):.2f} of the inferences of "
            f"{NAMES[name]}{' (stopped unfinished)' * capped}"
        )
    if not said:
        return None
    searching = ours["seconds"] - ours.get("certifying_s", 0.0)
    return (
        f"Ours took {'; '.join(said)}. Of its {ours['seconds']:.0f} s, {searching:.0f} s were "
        "the search and the rest certified what it found."
    )


def _splits(s: Row) -> str:
    return (
        f"Over {s['splits']} random splits of the groups into search and certification cases, the "
        f"calibration held fixed, a certificate is granted {s['held']} times; predicted speed-up "
        f"{s['speedup']:.2f}x [{s['low']:.2f}, {s['high']:.2f}] by the cost model, those without "
        f"one counting as 1x, with a median of {s['deferral']:.2%} of rows deferred."
    )
