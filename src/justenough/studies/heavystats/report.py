"""The study's report: one HTML file, and the few lines of it that a terminal shows."""

from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from typing import Any

from justenough.report import words
from justenough.report.html import fill
from justenough.report.tables import Table
from justenough.studies.heavystats import drawings
from justenough.studies.heavystats.drawings import number, numbers
from justenough.studies.heavystats.world import SIGNALS

Said = Mapping[str, Any]
NAMES = {
    "exact": "exact", "nuts": "NUTS", "laplace": "Laplace", "mean_field": "mean field",
    "full_rank": "full rank", "pathfinder": "Pathfinder",
}  # fmt: skip
TITLES = {
    "montecarlo": "Monte Carlo",
    "posterior": "Posterior by MCMC",
    "variational": "Variational inference",
    "bootstrap": "Bootstrap",
    "permutation": "Permutation test",
    "search": "Search of the weights",
    "factors": "Tensor decomposition",
    "architectures": "Architecture search",
}
# What document 003 says that each needs, on a graphics card of its time.
DOCUMENT = {
    "montecarlo": ("2 to 4 h", "20 GB"),
    "posterior": ("1 to 2 h", "8 GB"),
    "variational": ("10 to 20 min", "4 GB"),
    "bootstrap": ("30 min", "4 GB"),
    "permutation": ("20 min", "2 GB"),
    "search": ("1 h", "4 GB"),
    "factors": ("2 to 3 h", "10 GB"),
    "architectures": ("3 to 4 h", "6 GB"),
}


def said(body: Said) -> list[str]:
    """What was found, for a terminal."""
    stages = body["stages"]
    out = [_source(body), ""]
    out += [
        f"{TITLES[name] + ':':24}{line}" for name, s in stages.items() for line in [_line(name, s)]
    ]
    total = sum(s["seconds"] for s in stages.values())
    out += [
        "",
        f"{len(stages)} of 8 analyses in {words.seconds(total)} on "
        f"{body['machine']['cores']} cores",
    ]
    return out


def _source(body: Said) -> str:
    m = body["stages"]["montecarlo"]
    kind = (
        f"turns of {body['asked']['table']['name']}" if body["asked"]["table"] else "made-up turns"
    )
    return f"{m['turns']:,} {kind} in {m['conversations']:,} conversations"


def _line(name: str, s: Said) -> str:
    """One analysis in one line."""
    if "left_out" in s:
        return f"left out: {s['left_out']}"
    return _LINES[name](s)


def _weights(w: Sequence[Any]) -> str:
    return ", ".join(f"{n} {x:.3f}" for n, x in zip(SIGNALS, numbers(w), strict=True))


def _of_montecarlo(s: Said) -> str:
    best, told = s["best"], s["told_apart"]
    return (
        f"best of 169: {_weights(s['weights'][best])}; r = {s['r'][best]:.4f} +/- "
        f"{1.96 * s['standard_error'][best]:.1g}; {told['worse']} of {told['others']} others are "
        "shown to be worse"
    )


def _of_posterior(s: Said) -> str:
    exact = s["methods"][0]
    surprise = exact["low"][1], exact["high"][1]
    return (
        f"surprise {number(exact['mean'][1]):.4f} [{number(surprise[0]):.4f}, "
        f"{number(surprise[1]):.4f}]; NUTS is {number(s['methods'][1]['error']['mean']):.2g} sd "
        f"away, R-hat {number(s['methods'][1]['r_hat']):.4f}"
    )


def _of_variational(s: Said) -> str:
    return "; ".join(
        f"{NAMES[m['method']]} off by {number(m['error']['mean']):.2g} sd, "
        f"its sd by {words.share(number(m['error']['sd']))}"
        for m in s["methods"]
    )


def _of_bootstrap(s: Said) -> str:
    low, high = numbers(s["intervals"]["bca"])
    ratio = numbers(s["ratio_by_moments"])
    return (
        f"r = {s['estimate']:.4f} [{low:.4f}, {high:.4f}] (BCa); without resampling in "
        f"{words.seconds(s['moments_seconds']['seconds'])}: standard errors {ratio[0]:.3f} to "
        f"{ratio[2]:.3f} of the resampled"
    )


def _of_permutation(s: Said) -> str:
    return (
        f"r = {s['r']:.4f}, {s['exceedances']} of {s['permutations']:,} shuffles reach it: "
        f"p = {s['p']:.2g} (not 0)"
    )


def _of_search(s: Said) -> str:
    exact = s["methods"][0]
    return (
        f"optimum {_weights(exact['weights'])} in {words.seconds(exact['seconds'])}; short of it: "
        + ", ".join(f"{m['method']} {number(m['gap']):.1g}" for m in s["methods"][1:])
    )


def _of_factors(s: Said) -> str:
    cp = s["methods"][2]
    return (
        f"rank 3 explains {words.share(1 - number(cp['error']) ** 2)}; the data bear "
        f"{number(s['supported']['rank']):.0f} components"
    )


def _of_architectures(s: Said) -> str:
    low, high = numbers(s["gain_interval"])
    return (
        f"best of {s['candidates']}: {s['winner']}, r = {number(s['test']):.4f} on new turns; "
        f"more than linear by {number(s['gain']):+.4f} [{low:+.4f}, {high:+.4f}]"
    )


_LINES: Mapping[str, Callable[[Said], str]] = {
    "montecarlo": _of_montecarlo, "posterior": _of_posterior, "variational": _of_variational,
    "bootstrap": _of_bootstrap, "permutation": _of_permutation, "search": _of_search,
    "factors": _of_factors, "architectures": _of_architectures,
}  # fmt: skip


def render(body: Said) -> str:
    """The report as one HTML page that needs no network."""
    template = resources.files("justenough.studies.heavystats").joinpath("report.html.j2")
    return fill(template.read_text("utf8"), page(body))


def page(body: Said) -> dict[str, Any]:
    """Everything that the template shows."""
    stages = body["stages"]
    made_up = body["asked"]["table"] is None
    return {
        "title": "Heavy statistics",
        "source": _source(body),
        "made_up": made_up,
        "headline": _headline(stages),
        "limits": _limits(made_up, stages),
        "times": _times(stages),
        "total": words.seconds(sum(s["seconds"] for s in stages.values())),
        "machine": f"{body['machine']['processor']}, {body['machine']['cores']} cores",
        "montecarlo": _montecarlo(stages["montecarlo"]),
        "posterior": _posterior(stages),
        "bootstrap": _bootstrap(stages.get("bootstrap")),
        "permutation": _permutation(stages.get("permutation")),
        "search": _search(stages.get("search")),
        "factors": _factors(stages.get("factors")),
        "architectures": _architectures(stages.get("architectures")),
        "binding": _binding(body),
    }


def _headline(stages: Said) -> str:
    m = stages["montecarlo"]
    w = m["optimum"]["weights"]
    text = f"Importance is predicted best by {_weights(w)}: r = {m['optimum']['r']:.4f}"
    hoped = m["hoped"]["r"]
    equal = m["equal"]["r"]
    return f"{text}; the weights that were hoped for reach {hoped:.4f}, equal ones {equal:.4f}."


def _limits(made_up: bool, stages: Said) -> list[tuple[str, str]]:
    out = []
    if made_up:
        out.append((
            "Made-up data",
            "The weights that come out are those that were put in. This shows whether the "
            "analyses find them, how sure they are and how long they take; it says nothing of how "
            "people remember. No number of made-up conversations changes that: the intervals "
            "describe the generator.",
        ))  # fmt: skip
    out += [
        ("Association", "A correlation of signals with importance is not its cause."),
        ("Units", "Conversations are the independent units; turns of one resemble each other. "
                  "Standard errors, resamples and the rows of the posterior count conversations."),
        ("Many weightings", "The best of 169 was chosen on the data that judge it; its lead over "
                            "the nearest others is too good by that, over the rest it is not."),
    ]  # fmt: skip
    if "architectures" in stages and "left_out" not in stages["architectures"]:
        out.append((
            "Networks",
            "The winner was chosen on validation turns and met the test turns once. Its "
            "validation score, the best of 252, is too good.",
        ))  # fmt: skip
    return out


def _times(stages: Said) -> Table:
    rows = [
        (TITLES[name], words.seconds(s["seconds"]), *DOCUMENT[name]) for name, s in stages.items()
    ]
    return Table(("analysis", "#here", "#document: time", "#document: memory"), tuple(rows))


def _montecarlo(m: Said) -> Said:
    told, best = m["told_apart"], m["best"]
    facts = [
        ("best of 169", f"{_weights(m['weights'][best])}; r = {m['r'][best]:.5f}, standard error "
                        f"{m['standard_error'][best]:.2g}"),
        ("exact optimum", f"{_weights(m['optimum']['weights'])}; r = {m['optimum']['r']:.5f}"),
        ("against equal weights", f"Cohen's q = {told['cohen_q_against_equal']:.3f}"),
        ("shown to be worse than the best", f"{told['worse']} of {told['others']} (Holm, 5 %)"),
        *((f"needed for a power of {words.given(n['power'])}",
           f"{words.count(n['median'])} conversations for half of the others, "
           f"{words.count(n['nearest'])} for the nearest") for n in told["needed"]),
    ]  # fmt: skip
    if "exact_r" in m:
        facts.append((
            "error against the truth",
            f"at most {m['largest_error']:.1g} over the 169, {m['largest_error_in_se']:.1f} "
            "standard errors",
        ))  # fmt: skip
    return {
        "facts": facts, "figure": drawings.weightings(m), "convergence": drawings.convergence(m),
        "known": "exact_r" in m,
    }  # fmt: skip


def _posterior(stages: Said) -> Said | None:
    if "posterior" not in stages:
        return None
    p = stages["posterior"]
    methods = [*p["methods"], *stages.get("variational", {}).get("methods", [])]
    rows = []
    for m in methods:
        check = m["pareto_k"]
        sign = f"Pareto k {number(check):.2f}" if check is not None else ""
        if m["r_hat"] is not None:
            sign = f"R-hat {number(m['r_hat']):.4f}, {m['divergences']} divergences"
        e = m["error"]
        rows.append((
            NAMES[m["method"]], words.seconds(m["seconds"]), words.count(number(m["ess"])), sign,
            *(f"{number(e[k]):.2g}" for k in ("mean", "sd", "ends")),
        ))  # fmt: skip
    figures = []
    for k, name in enumerate(SIGNALS):
        lines = [
            (NAMES[m["method"]], number(m["low"][k]), number(m["mean"][k]), number(m["high"][k]))
            for m in methods
        ]
        figures.append((name, drawings.intervals(lines, f"weight of {name}, 95 %")))
    heads = ("method", "#time", "#ESS", "diagnosis", "#mean", "#sd", "#ends")
    return {
        "table": Table(heads, tuple(rows)), "figures": figures,
        "effect": f"{p['design_effect']:.2f}", "rows": words.count(p["effective_rows"]),
    }  # fmt: skip


def _bootstrap(b: Said | None) -> Said | None:
    if b is None:
        return None
    lines = [(k, numbers(v)[0], b["estimate"], numbers(v)[1]) for k, v in b["intervals"].items()]
    formula, quick = numbers(b["ratio_to_formula"]), numbers(b["ratio_by_moments"])
    facts = [
        ("conversations", words.count(b["conversations"])),
        ("resamples", f"{words.count(b['replicates'])}, of all 169 weightings at once, in "
                      f"{words.seconds(b['resampling_seconds']['seconds'])}"),
        ("without resampling", f"{words.seconds(b['moments_seconds']['seconds'])}; standard "
                               f"errors {quick[0]:.3f} to {quick[2]:.3f} of the resampled ones"),
        ("resampled over formula", f"{formula[0]:.3f} to {formula[2]:.3f} (influence function)"),
    ]  # fmt: skip
    return {"facts": facts, "figure": drawings.intervals(lines, "r of the best weighting, 95 %")}


def _permutation(p: Said | None) -> Said | None:
    if p is None:
        return None
    facts = [
        ("rows", f"{words.count(p['rows'])}: one turn of each conversation, so that rows may be "
                 "exchanged"),
        ("weights", "those hoped for, fixed before"),
        ("p", f"{p['p']:.2g} = ({p['exceedances']} + 1) / ({words.count(p['permutations'])} + 1); "
              f"without the ones it would be {p['p_of_the_document']:.2g}, which no number of "
              "shuffles can show"),
        ("spread of shuffles", f"{number(p['null_sd']):.5f}; exactly 1 / sqrt(n - 1) = "
                               f"{p['exact_null_sd']:.5f}"),
        ("effect", f"{number(p['effect_size']):.1f} of these"),
        ("with no effect", f"Besag and Clifford's rule stops after {p['stopped']['permutations']} "
                           f"shuffles at p = {p['stopped']['p']:.2f}"),
    ]  # fmt: skip
    return {"facts": facts, "figure": drawings.null(p)}


def _search(s: Said | None) -> Said | None:
    if s is None:
        return None
    rows = [
        (m["method"], *(f"{w:.4f}" for w in numbers(m["weights"])), f"{number(m['gap']):.1g}",
         words.count(number(m["evaluations"])), words.seconds(m["seconds"]))
        for m in s["methods"]
    ]  # fmt: skip
    heads = ("method", *(f"#{n}" for n in SIGNALS), "#short of optimum", "#tried", "#time")
    return {"table": Table(heads, tuple(rows)), "figure": drawings.gaps(s["trajectories"])}


def _factors(f: Said | None) -> Said | None:
    if f is None or "left_out" in f:
        return f
    rows = [
        (m["method"], " x ".join(map(str, m["ranks"])), words.share(1 - number(m["error"]) ** 2),
         words.seconds(m["seconds"]))
        for m in f["methods"]
    ]  # fmt: skip
    s = f["supported"]
    support = [
        (str(r), words.share(number(e)), f"{number(c):.0f} %")
        for r, e, c in zip(s["ranks"], s["explained"], s["consistency"], strict=True)
    ]
    loads = [
        (str(k + 1), *(f"{number(row[k]):.2f}" for row in f["signals"]))
        for k in range(len(f["signals"][0]))
    ]
    return {
        "shape": " x ".join(map(str, f["shape"])), "size": words.size(f["megabytes"] * 1e6),
        "table": Table(("method", "ranks", "#explained", "#time"), tuple(rows)),
        "support": Table(("#components", "#explained", "#core consistency"), tuple(support)),
        "loads": Table(("component", *(f"#{n}" for n in SIGNALS)), tuple(loads)),
        "rank": f"{number(s['rank']):.0f}",
    }  # fmt: skip


def _architectures(a: Said | None) -> Said | None:
    if a is None or "left_out" in a:
        return a
    low, high = numbers(a["gain_interval"])
    facts = [
        ("turns", f"{a['rows'][0]:,} to train on, {a['rows'][1]:,} to choose on, {a['rows'][2]:,} "
                  "to judge on; of other conversations each"),
        ("winner", f"{a['winner']}; validation {number(a['validation']):.4f}"),
        ("on new turns", f"r = {number(a['test']):.4f} [{numbers(a['test_interval'])[0]:.4f}, "
                         f"{numbers(a['test_interval'])[1]:.4f}]"),
        ("best linear weights there", f"r = {a['linear']:.4f}"),
        ("gain over linear", f"{number(a['gain']):+.4f} [{low:+.4f}, {high:+.4f}]"),
    ]  # fmt: skip
    if "ceiling" in a:
        facts.append(("no function can pass", f"r = {a['ceiling']:.4f}"))
    rows = [(r["hidden"], f"{number(r['best_validation']):.4f}") for r in a["by_hidden"]]
    top = [(r["network"], f"{number(r['validation']):.4f}") for r in a["table"]]
    return {
        "facts": facts,
        "by_hidden": Table(("hidden layers", "#best validation r"), tuple(rows)),
        "table": Table(("network", "#validation r"), tuple(top)),
        "verdict": _verdict(low, high),
    }


def _verdict(low: float, high: float) -> str:
    if low > 0:
        return "A network predicts more than the best linear weights do."
    if high < 0:
        return "The best linear weights predict more than the chosen network does."
    return "No difference between the chosen network and the best linear weights was shown."


def _binding(body: Said) -> list[tuple[str, str]]:
    asked = body["asked"]
    return [
        ("data", f"{asked['table']['name']}, digest {asked['table']['digest']}" if asked["table"]
         else f"{words.count(asked['conversations'])} conversations, generated: "
              + ", ".join(f"{k} {v}" for k, v in body["source"].items() if k != "conversations")),
        ("seed", str(asked["seed"])),
        ("versions", ", ".join(f"{k} {v}" for k, v in body["versions"].items())),
        ("system", f"{body['machine']['system']}, Python {body['machine']['python']}"),
    ]  # fmt: skip
