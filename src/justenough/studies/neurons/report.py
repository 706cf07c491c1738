"""The report of a run: one HTML file, and the few lines of it that a terminal shows."""

from collections.abc import Mapping
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from justenough.report import words
from justenough.report.html import fill
from justenough.report.tables import Table
from justenough.studies.neurons import drawings

Said = Mapping[str, Any]
Arrays = Mapping[str, NDArray[Any]]
THEOREM = (
    "Dabagia, Papadimitriou and Vempala, Assemblies of neurons learn to classify well-separated "
    "distributions (COLT 2022)"
)


def said(body: Said) -> list[tuple[str, str]]:
    """What was found, for a terminal: names and texts."""
    found = []
    many = len(body["areas"]) > 1
    for area in body["areas"]:
        lead = f"{area['name']}: " if many else ""
        found.append(("Winners", f"{lead}{_settled(area)}"))
        found.append(("Support", f"{lead}{_support(area, body)}"))
    per_second = body["settings"]["rounds"] / body["seconds"]
    found += [
        ("Time", f"{words.seconds(body['seconds'])} for {_rounds(body)}, "
                 f"{words.significant(per_second)} a second on average"),
        ("Bytes", f"{_sizes(body)}; the mission's document 001 counts 60 B a neuron, "
                  f"{words.size(body['document_bytes'])}"),
    ]  # fmt: skip
    return found


def _settled(area: Said) -> str:
    if area["settled"] is not None:
        return f"settled after round {area['settled']}: the same neurons fired in every later one"
    if not area["support"]:
        return "none, there were too few rounds for it to hear anything"
    if area["last_overlap"] is None:
        return "there were too few rounds to compare any"
    share = words.share(area["last_overlap"])
    return f"still changing: {share} of those of the round before fired in the last one"


def _support(area: Said, body: Said) -> str:
    times = area["support"] / body["settings"]["k"]
    ever = f"{area['support']:,} neurons ever fired, {times:.2f} k"
    return f"{ever}; {_bound(area, body)}"


def _bound(area: Said, body: Said) -> str:
    if area["bound"] is None:
        return "without plasticity there is no bound"
    bound, why = f"{area['bound']:,.0f}", _unproved(area, body)
    return f"a theorem's bound is {bound}" + (f", but {why}" if why else "")


def _unproved(area: Said, body: Said) -> str:
    """Why the theorem promises nothing of this area; empty where it does."""
    if area is not body["areas"][0]:
        return "it is about an area that hears a stimulus"
    if body["settings"]["beta"] < area["bound_from_beta"]:
        return f"it asks for a beta of at least {area['bound_from_beta']:.2f}"
    return ""


def _rounds(body: Said) -> str:
    number = body["settings"]["rounds"]
    return f"{words.count(number)} round{'s'[: number > 1]}"


def _sizes(body: Said) -> str:
    return ", ".join(f"{words.size(size)} {name}" for name, size in body["bytes"].items())


def render(body: Said, arrays: Arrays) -> str:
    """The report as one HTML page that needs no network.

    Args:
        body: What results.json holds.
        arrays: What results.npz holds.
    """
    template = resources.files("justenough.studies.neurons").joinpath("report.html.j2")
    return fill(template.read_text("utf8"), page(body, arrays))


def page(body: Said, arrays: Arrays) -> dict[str, Any]:
    """Everything that the template shows."""
    names = [a["name"] for a in body["areas"]]
    settings = body["settings"]
    speed = 1 / np.maximum(arrays["seconds"], 1e-9)
    first = [int(np.argmax(column > 0)) for column in arrays["support"].T]
    support = {
        name: np.where(np.arange(len(column)) >= start, column, np.nan).tolist()
        for name, column, start in zip(names, arrays["support"].T, first, strict=True)
    }
    overlaps = dict(zip(names, arrays["overlap"].T.tolist(), strict=True))
    return {
        "title": "A simulation of neurons",
        "source": _what(body),
        "headline": _headline(body),
        "gains": _gains(body),
        "simulated": _simulated(settings),
        "areas": _areas(body),
        "names": [(f"rt-{k % 6}", name) for k, name in enumerate(names)] if names[1:] else [],
        "overlap": drawings.by_round(overlaps, "overlap with the round before", words.tick),
        "support": drawings.by_round(support, "neurons that ever fired", words.count),
        "speed": drawings.by_round(
            {"all areas": speed.tolist()}, "rounds a second", words.significant, log=True
        ),
        "resumed": ", ".join(str(r + 1) for r in body["resumed"]),
        "bytes": _bytes(body),
        "theorem": _theorem(body),
        "theorem_source": THEOREM,
        "limits": _limits(settings),
        "binding": _binding(body),
        "call": _call(body),
    }


def _what(body: Said) -> str:
    sizes = [a["n"] for a in body["areas"]]
    if len(set(sizes)) == 1:
        many = f"{len(sizes)} areas of " if sizes[1:] else ""
        return f"{many}{words.count(sizes[0])} neuron{'s'[: sizes[0] > 1]}"
    return f"{', '.join(map(words.count, sizes[:-1]))} and {words.count(sizes[-1])} neurons"


def _headline(body: Said) -> str:
    ends = [a["settled"] for a in body["areas"]]
    how = "each of them simulated" if body["settings"]["tier"] == "exact" else "the lazy tier"
    if None in ends:
        return f"{_what(body)}, {how}: winners still change after {_rounds(body)}."
    return f"{_what(body)}, {how}: the same winners from round {max(ends)} on."


def _gains(body: Said) -> list[tuple[str, str]]:
    total = sum(body["bytes"].values())
    many = sum(a["n"] for a in body["areas"])
    each = "a neuron" if total / many >= 0.01 else "a neuron: cost does not depend on n"
    return [
        (words.size(total), f"of arrays, {words.significant(total / many, 2)} B {each}"),
        (words.size(body["document_bytes"]), "by document 001, 60 B a neuron"),
        (words.seconds(body["seconds"]), f"for {_rounds(body)}"),
        (f"{sum(a['support'] for a in body['areas']) / body['settings']['k']:.2f} k",
         f"neurons ever fired{' in all areas' if body['areas'][1:] else ''}; k is how many "
         "fire at once"),
    ]  # fmt: skip


def _simulated(s: Said) -> list[tuple[str, str]]:
    k, p = words.count(s["k"]), words.significant(s["p"])
    return [
        ("stimulus", f"{k} neurons outside, which all fire in every round"),
        ("areas", "the first hears the stimulus, each other one the area before it, from the "
                  "round after that has fired; all hear themselves" if s["areas"][1:] else
                  "one, which hears the stimulus and, from round 2 on, itself"),
        ("synapses", f"from each neuron to each that it reaches with probability {p}, each "
                     "independently of all others; none is stored"),
        ("firing", f"in each round the {k} neurons with the largest input fire; "
                   + _ties(s)),
        ("learning", f"a synapse whose source fired in the round before its target does is "
                     f"multiplied by {1 + s['beta']:.10g}"),
        ("rounds", words.count(s["rounds"])),
    ]  # fmt: skip


def _ties(s: Said) -> str:
    if s["tier"] == "lazy" or s["ties"] == "random":
        return "among equals it is drawn, afresh in each round"
    return "of equals, those with the smaller number"


def _areas(body: Said) -> Table:
    rows = [
        (a["name"], words.count(a["n"]),
         words.NONE if a["settled"] is None else f"round {a['settled']}",
         words.NONE if a["last_overlap"] is None else words.share(a["last_overlap"]),
         words.count(a["support"]), f"{a['support'] / body['settings']['k']:.2f}")
        for a in body["areas"]
    ]  # fmt: skip
    heads = ("area", "#neurons", "#settled", "#last overlap", "#ever fired", "#in units of k")
    return Table(heads, tuple(rows), pairs=True)


def _bytes(body: Said) -> Any:
    mine = [(name, size, "choice-5") for name, size in body["bytes"].items()]
    return drawings.bars([*mine, ("document 001", body["document_bytes"], "choice-exact")])


def _theorem(body: Said) -> Table:
    rows = [
        (a["name"], words.count(a["support"]),
         "none" if a["bound"] is None else words.count(a["bound"]),
         f"{a['bound_from_beta']:.3f}",
         f"no, {why}" if (why := _unproved(a, body)) else "yes")
        for a in body["areas"]
    ]  # fmt: skip
    heads = ("area", "#ever fired", "#the bound", "#proved from beta", "proved here")
    return Table(heads, tuple(rows), pairs=True)


def _limits(s: Said) -> list[tuple[str, str]]:
    found = [
        ("A model", "of neurons that fire or do not, in steps, with random synapses. It is no "
                    "measurement of a brain."),
        ("One run", "of one random graph. Another seed gives another support."),
    ]  # fmt: skip
    if s["tier"] == "lazy":
        found.append((
            "Lazy", "Only neurons that fired or nearly did are kept. One that fires for the first "
                    "time is drawn then, with its synapses, by the law of a random graph, given "
                    "that it lost every round before. The law is that of the exact tier's graph, "
                    "but for three things: how many neurons have lost so far is estimated, to "
                    "about one part in the square root of their number; where thousands tie for a "
                    "place, losers are not kept one by one; and of more than 1,024 different "
                    "rounds the oldest are forgotten.",
        ))  # fmt: skip
    else:
        found.append((
            "Exact", "No neuron is left out and no input is rounded but by the weights' fixed "
                     "point, alike on every machine. The synapses are those that a seed implies, "
                     "by a pseudorandom generator.",
        ))  # fmt: skip
    return found


def _binding(body: Said) -> list[tuple[str, str]]:
    m = body["machine"]
    threads = "all cores" if body["threads"] is None else words.count(body["threads"])
    how = f", on {body['device']}, threads: {threads}"
    return [
        ("seed", str(body["settings"]["seed"])),
        ("tier", body["settings"]["tier"] + how * (body["settings"]["tier"] != "lazy")),
        ("machine", f"{m['processor']}, {m['cores']} cores, {m['system']}"
                    + (f"; {m['card']}" if "card" in m else "")),
        ("versions", ", ".join(f"{k} {v}" for k, v in body["versions"].items())
         + f", Python {m['python']}"),
    ]  # fmt: skip


def _call(body: Said) -> str:
    s = body["settings"]
    ties = f" --ties {s['ties']}" if s["tier"] == "exact" else ""
    return (
        f"justenough neurons run --areas {','.join(map(str, s['areas']))} --k {s['k']} "
        f"--p {s['p']} --beta {s['beta']} --rounds {s['rounds']} --tier {s['tier']}{ties} "
        f"--seed {s['seed']} -o NEW"
    )
