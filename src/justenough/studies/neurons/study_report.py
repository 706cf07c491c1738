"""The report of the study: one HTML file, and the few lines of it that a terminal shows."""

import textwrap
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from markupsafe import Markup

from justenough.assemblies.formats import WEIGHTS
from justenough.core.contract import parse_clause
from justenough.report import svg, words
from justenough.report.html import fill
from justenough.report.tables import Table

Said = Mapping[str, Any]
WIDE = 100
NAMES = {
    "exact": "exact tier",
    "lazy": "lazy tier",
    "authors": "authors' lazy method",
    "top-k 0.95": "approximate top-k, recall 0.95",
    "uint16": "16-bit counts",
    "lowest": "ties to the lowest number",
    "fp64": "fp64 weights, fp64 sums",
    "fp32": "fp32 weights, fp32 sums",
    "fp16": "fp16 weights, fp32 sums",
    "bf16": "bf16 weights, fp32 sums",
    "bf16 stochastic": "bf16 weights, stochastic, fp32 sums",
    "lns12": "12-bit logarithmic weights, fp32 sums",
    "bf16 sums": "bf16 weights, bf16 sums",
    "redrawn": "exact tier, another graph",
    "xor": "edges by a xor hash",
    "fnv": "edges by an FNV hash",
}
OUTCOMES = {"support": "support", "settled": "settled", "completion": "completion",
            "winner_overlap": "winner overlap"}  # fmt: skip
TITLE = "Which simulator do assemblies need?"


def said(body: Said) -> list[str]:
    """What was found, for a terminal."""
    out = [_problem(body), "", *_wrapped("Verdict", _headline(body))]
    if body["reason"]:
        out += _wrapped("Reason", f"{body['reason']}.")
    floor = body["free"].get("fp64 and fp32")
    if floor:
        out += _wrapped("Noise floor", f"fp32 and fp64, left to run on the same graph, end with "
                        f"{_four(floor['mean'])} of their winners in common.")  # fmt: skip
    out.append("")
    for title, steps in (("Certified in order", body["steps"]), ("Judged beside", body["beside"])):
        out += [f"{title}, seeds that fail:"] if steps else []
        for s in steps:
            failed = (f"{_output(e['clause'])} {e['changed']} of {e['n']}" for e in s["clauses"])
            out.append(f"  {s['verdict']:10} {NAMES[s['variant']]}: {', '.join(failed)}")
    out += [f"  refused    {NAMES[k]}: {why}" for k, why in body["refused"].items()]
    out += [f"  left out   {NAMES[k]}: {why}" for k, why in body["left_out"].items()]
    return out


def _wrapped(name: str, text: str) -> list[str]:
    lead = f"{name + ':':13}"
    return textwrap.wrap(
        text, WIDE, initial_indent=lead, subsequent_indent=" " * 13,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def _output(clause: str) -> str:
    output = str(parse_clause(clause).output)
    return OUTCOMES.get(output, output)


def _four(value: float) -> str:
    return f"{value:.4f}"


def _problem(body: Said) -> str:
    p = body["asked"]["problem"]
    return (
        f"n = {words.count(p['n'])}, k = {words.count(p['k'])}, p = {p['p']:g}, "
        f"beta = {p['beta']:g}, {p['rounds']} rounds"
    )


def _headline(body: Said) -> str:
    confidence = words.given(1 - body["asked"]["contract"]["alpha"])
    n = words.count(body["asked"]["seeds"])
    if body["chosen"]:
        timed = body["timed"][body["chosen"]]
        return (
            f"The {NAMES[body['chosen']]} keeps the contract at {confidence} confidence, on {n} "
            f"random graphs, {words.times(timed['speedup'])} as fast as the exact tier."
        )
    if not body["steps"]:
        return "Nothing was faster than the exact tier here: use it."
    if body["verdict"] == "BROKEN":
        return "Nothing faster keeps the contract: use the exact tier."
    return f"{n} random graphs cannot show whether a faster simulator keeps the contract."


def render(body: Said) -> str:
    """The report as one HTML page that needs no network."""
    template = resources.files("justenough.studies.neurons").joinpath("study.html.j2")
    return fill(template.read_text("utf8"), page(body))


def page(body: Said) -> dict[str, Any]:
    """Everything that the template shows."""
    e = body["machine"]
    return {
        "title": TITLE,
        "source": _problem(body),
        "verdict": body["verdict"],
        "headline": _headline(body),
        "reason": body["reason"][:1].upper() + body["reason"][1:],
        "contract": [_clause(c) for c in body["at_best"]],
        "certified": _verdicts(body, body["steps"]) if body["steps"] else None,
        "judged": _verdicts(body, body["beside"]),
        "seeds": words.count(body["asked"]["seeds"]),
        "beside": words.count(max((s["seeds"] for s in body["beside"]), default=0)),
        "few": min((s["seeds"] for s in body["beside"]), default=0),
        "refused": [(NAMES[k], why) for k, why in body["refused"].items()]
        + [(NAMES[k], why) for k, why in body["left_out"].items()],
        "costs": _costs(body),
        "machine": f"{e['processor']}, {e['threads']} threads",
        "search_seeds": body["asked"]["search_seeds"],
        "figure": _figure(body),
        "formats": _formats(body),
        "format_clause": _format_clause(body),
        "floor": _floor(body),
        "bias": _bias(body),
        "simulator": [(k, str(v)) for k, v in body["simulator"]["sites"].items()],
        "chosen": NAMES[body["simulator"]["simulator"]],
        "certificate": body["chosen"] is not None,
        "plan": body["plan_sha256"],
        "notes": (body["certificate"] or {}).get("note", ()),
    }


def _clause(best: Said) -> tuple[str, str]:
    c = parse_clause(best["clause"])
    room = words.given(c.eps) if c.metric == "relative_within" else f"{c.eps:g}"
    shown = words.share(best["limit"], -1, c.bound) if best["limit"] is not None else words.NONE
    return (
        _output(best["clause"]),
        f"within {room} of the exact tier's on at least {words.given(c.bound)} of random graphs; "
        f"with no seed failing {shown} would be shown",
    )


def _verdicts(body: Said, steps: Sequence[Said]) -> Table:
    """Each simulator: seeds that fail each clause, and the share that is shown to keep it."""
    rows = []
    for s in steps:
        cells = [
            f"{e['changed']} of {e['n']}, ≥ "
            f"{words.share(e['limit'], -1, parse_clause(e['clause']).bound)}"
            for e in s["clauses"]
        ]
        rows.append((NAMES[s["variant"]], s["verdict"], *cells))
    marked = tuple(k for k, s in enumerate(steps) if s["variant"] == body["chosen"])
    heads = [f"{_output(c)} fails" for c in body["asked"]["contract"]["clauses"]]
    return Table(("*simulator", "verdict", *heads), tuple(rows), marked, pairs=True)


def _costs(body: Said) -> Table:
    """Measured times and bytes; formats hold more than the exact tier and are not timed."""
    rows = []
    for name, t in body["timed"].items():
        held = sum(body["bytes"].get(name, {}).values())
        spread = f"{words.times(t['low'])} to {words.times(t['high'])}"
        rows.append(
            (NAMES[name], words.seconds(t["seconds"]),
             words.times(t["speedup"]) if name != "exact" else f"1{words.TIMES}",
             spread if name != "exact" else words.NONE,
             words.size(held) if held else words.NONE)
        )  # fmt: skip
    marked = tuple(k for k, name in enumerate(body["timed"]) if name == body["chosen"])
    heads = ("simulator", "#a run", "#speed", "#10 to 90 % of runs", "#holds")
    return Table(heads, tuple(rows), marked, stack=True)


def _formats(body: Said) -> Table:
    """Formats of weights and sums: one round from the exact state, left to run, and their bits."""
    verdicts = {s["variant"]: s["verdict"] for s in [*body["steps"], *body["beside"]]}
    rows = [("exponents, whole sums (exact tier)", "0", "1", "1", "", "1", "")]
    for name, t in body["taught"].items():
        if name not in body["bytes"] or name == "uint16":
            continue
        free = body["free"].get(f"exact and {name}")
        e = t["evidence"]
        weights = name.removesuffix(" stochastic").removesuffix(" sums")
        rows.append(
            (NAMES[name], str(WEIGHTS[weights]), f"{t['mean']:.5f}", f"{t['least']:.5f}",
             e["verdict"] if e else "", _four(free["mean"]) if free else words.NONE,
             verdicts.get(name, ""))
        )  # fmt: skip
    heads = ("weights and sums", "#bits a synapse", "#one round: mean", "#least seed",
             "one round: verdict", "#left to run", "contract")  # fmt: skip
    return Table(heads, tuple(rows), pairs=True)


def _format_clause(body: Said) -> str:
    found = [t["evidence"]["clause"] for t in body["taught"].values() if t["evidence"]]
    return str(found[0]) if found else ""


def _floor(body: Said) -> list[tuple[str, str]]:
    """What nobody can keep: differences that mean nothing."""
    out = []
    said_of = {
        "fp64 and fp32": "fp32 against fp64",
        "exact and lowest": "ties at random against ties to the lowest",
        "exact and top-k 0.95": "approximate top-k against exact",
    }
    for key, name in said_of.items():
        f = body["free"].get(key)
        if f:
            out.append((name, f"{_four(f['mean'])} of the winners in common after the last round, "
                              f"{_four(f['least'])} in the worst seed"))  # fmt: skip
    redrawn = body["support"].get("redrawn")
    if redrawn:
        apart = sorted(abs(r - 1) for r in redrawn["each"])
        at = apart[min(len(apart) - 1, int(0.9 * len(apart)))]
        out.append((
            "another graph of the exact tier",
            f"its support differs by up to {words.share(at)} in nine of ten seeds; other random "
            "draws, such as the lazy tier's, contain this spread",
        ))  # fmt: skip
    return out


def _bias(body: Said) -> Table:
    """Mean support over that of the exact tier, with 95 % intervals."""
    rows = []
    for name, s in body["support"].items():
        interval = words.NONE
        if "low" in s:
            interval = f"{s['low']:.3f} to {s['high']:.3f}"
        rows.append((NAMES[name], words.count(len(s["each"])), f"{s['ratio']:.3f}", interval))
    heads = ("simulator", "#seeds", "#support over exact", "#95 % interval")
    return Table(heads, tuple(rows))


def _figure(body: Said) -> Markup:
    """Support of each seed over that of the exact tier, a row for each simulator."""
    left = ("uint16", "xor", "fnv")  # the same by construction, and off every scale
    found = {k: s for k, s in body["support"].items() if k not in left}
    clauses = map(parse_clause, body["asked"]["contract"]["clauses"])
    room = next((c.eps for c in clauses if c.output == "support"
                 and c.metric == "relative_within"), None)  # fmt: skip
    bounds = [v for v in (1 - room, 1 + room) if v > 0] if room else []
    step = 26

    def draw(width: int) -> Markup:
        wide = width == svg.WIDE
        above = 0 if wide else 15
        box = svg.Box(270 if wide else 10, 12, width - 14, 12 + (step + above) * len(found))
        ends = [*(v for s in found.values() for v in s["each"]), 1.0, *bounds]
        x = svg.linear(ends, box.left, box.right, pad=0.04)
        parts = []
        for v in x.ticks(9 if wide else 5):
            parts += [svg.line(x(v), box.top, x(v), box.bottom, "grid"),
                      svg.text(x(v), box.bottom + 17, f"{v:g}", "tick", "middle")]  # fmt: skip
        for v in bounds:
            parts.append(svg.line(x(v), box.top, x(v), box.bottom, "bound"))
        for k, (name, s) in enumerate(found.items()):
            top = box.top + k * (step + above)
            parts.append(_row(svg.Box(box.left, top + above, box.right, top + above + step), x,
                              NAMES[name], s["each"], wide))  # fmt: skip
        parts.append(svg.text(box.right, box.bottom + 36, "support over the exact tier's",
                              "title", "end"))  # fmt: skip
        return svg.picture(width, box.bottom + 44, "support of each seed by simulator", *parts)

    return svg.both(draw)


def _row(box: svg.Box, x: svg.Scale, name: str, each: Sequence[float], wide: bool) -> Markup:
    at = (box.top + box.bottom) / 2
    label = svg.text(box.left, box.top, words.squeezed(name, 48), "tick haloed")
    if wide:
        label = svg.text(box.left - 10, at + 4, words.squeezed(name, 42), "tick", "end")
    dots = [svg.mark("circle", x(v), at, 3.4, "dot open") for v in each]
    middle = sorted(each)[len(each) // 2]
    tip = f"{name}\nmedian {middle:.3f}, {min(each):.3f} to {max(each):.3f} of {len(each)} seeds"
    touch = svg.bar(svg.Box(box.left, box.top, box.right, box.bottom), "touch")
    return svg.element("g", label, *dots, touch, class_="point", data_tip=tip)
