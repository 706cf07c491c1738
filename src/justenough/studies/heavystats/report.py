"""The study's report: one HTML file, and the few lines of it that a terminal shows."""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from typing import Any

from markupsafe import Markup

from justenough.report import words
from justenough.report.html import fill
from justenough.report.tables import Table
from justenough.studies.heavystats import drawings
from justenough.studies.heavystats.drawings import number, numbers
from justenough.studies.heavystats.world import SIGNALS, WEIGHTS

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
ANCHORS = {"variational": "posterior"}
WIDE = 100
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
    for name, s in stages.items():
        lead = f"{TITLES[name] + ':':24}"
        out += textwrap.wrap(
            _line(name, s), WIDE, initial_indent=lead, subsequent_indent=" " * len(lead),
            break_long_words=False, break_on_hyphens=False,
        )  # fmt: skip
    total = sum(s["seconds"] for s in stages.values())
    done = sum("left_out" not in s for s in stages.values())
    out += [
        "",
        f"{done} of 8 analyses in {words.seconds(total)} on {body['machine']['cores']} cores",
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


def _off(e: Any) -> str:
    """A distance with its own Monte Carlo standard error."""
    return f"{number(e):.2g} ± {e['mc_se']:.1g}"


def _gap(m: Said) -> str:
    gap = number(m["gap"])
    return "0" if gap < 1e-15 else f"{gap:.1g}"


def _of_montecarlo(s: Said) -> str:
    best, told = s["best"], s["told_apart"]
    return (
        f"best of 169: {_weights(s['weights'][best])}; correlation r = {s['r'][best]:.4f}, "
        f"standard error {s['standard_error'][best]:.1g}; {told['worse']} of the {told['others']} "
        "others are shown to be worse"
    )


def _of_posterior(s: Said) -> str:
    exact = s["methods"][0]
    surprise = exact["low"][1], exact["high"][1]
    return (
        f"surprise {number(exact['mean'][1]):.4f}, 95 % interval [{number(surprise[0]):.4f}, "
        f"{number(surprise[1]):.4f}]; NUTS is off by {_off(s['methods'][1]['error']['mean'])} "
        f"posterior sd, R-hat {number(s['methods'][1]['r_hat']):.4f}"
    )


def _of_variational(s: Said) -> str:
    return "; ".join(
        f"{NAMES[m['method']]} off by {_off(m['error']['mean'])} posterior sd, its sd by "
        f"{words.share(number(m['error']['sd']))}"
        for m in s["methods"]
    )


def _of_bootstrap(s: Said) -> str:
    low, high = numbers(s["intervals"]["bca"])
    ratio = numbers(s["ratio_by_moments"])
    return (
        f"r = {s['estimate']:.4f}, 95 % interval [{low:.4f}, {high:.4f}] (BCa); without "
        f"resampling in {words.seconds(s['moments_seconds']['seconds'])}: standard errors "
        f"{ratio[0]:.3f} to {ratio[2]:.3f} of the resampled"
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
        + ", ".join(f"{m['method']} {_gap(m)}" for m in s["methods"][1:])
    )


def _of_factors(s: Said) -> str:
    cp, rank = s["methods"][2], number(s["supported"]["rank"])
    return (
        f"three components explain {words.share(1 - number(cp['error']) ** 2)}; core consistency "
        f"supports {rank:.0f}"
    )


def _of_architectures(s: Said) -> str:
    low, high = numbers(s["gain_interval"])
    return (
        f"best of {s['candidates']}: {s['winner']}, r = {number(s['test']):.4f} on new turns; "
        f"less that of the best linear weights {number(s['gain']):+.4f} [{low:+.4f}, {high:+.4f}]"
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
        "short": _short(stages),
        "times": _times(stages),
        "total": words.seconds(sum(s["seconds"] for s in stages.values())),
        "machine": f"{body['machine']['processor']}, {body['machine']['cores']} cores",
        "montecarlo": _montecarlo(stages["montecarlo"]),
        "posterior": _posterior(stages),
        "bootstrap": _bootstrap(stages),
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


def _short(stages: Said) -> Table:
    """Each analysis in a line, with the way to its section."""
    rows = [
        (Markup('<a href="#{}">{}</a>').format(ANCHORS.get(name, name), TITLES[name]),
         _line(name, s))
        for name, s in stages.items()
    ]  # fmt: skip
    return Table(("analysis", "what was found"), tuple(rows), stack=True)


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
        ("against equal weights", f"Cohen's q = {told['cohen_q_against_equal']:.3f}: the "
                                  "difference of Fisher's z of the two correlations"),
        ("shown to be worse than the best", f"{told['worse']} of {told['others']}; each "
                                            "difference tested, corrected together (Holm, 5 %)"),
        *((f"needed for a power of {words.given(n['power'])}",
           f"{words.count(n['nearest'])} conversations to show that the nearest is worse, "
           f"{words.count(n['median'])} for half of the others (one test at 5 %, if the "
           "differences are as found here; never fewer than 30)") for n in told["needed"]),
    ]  # fmt: skip
    if "exact_r" in m:
        facts.append((
            "error against the truth",
            f"of the 169 correlations none is off by more than {m['largest_error']:.1g}, or by "
            f"more than {m['largest_error_in_se']:.1f} of its standard errors",
        ))  # fmt: skip
    return {
        "facts": facts, "figure": drawings.weightings(m), "convergence": drawings.convergence(m),
        "known": "exact_r" in m,
    }  # fmt: skip


def _posterior(stages: Said) -> Said | None:
    if "posterior" not in stages:
        return None
    p = stages["posterior"]
    put_in = WEIGHTS[0] if "exact_r" in stages["montecarlo"] else None
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
            *(words.NONE if m is methods[0] else _off(e[k]) for k in ("mean", "sd", "ends")),
        ))  # fmt: skip
    figures = []
    for k, name in enumerate(SIGNALS):
        lines = [
            (NAMES[m["method"]], number(m["low"][k]), number(m["mean"][k]), number(m["high"][k]))
            for m in methods
        ]
        figures.append(
            (name, drawings.intervals(lines, f"weight of {name}, 95 %", put_in and put_in[k]))
        )
    heads = ("method", "#time", "#ESS", "diagnosis", "#mean off by", "#sd off by",
             "#ends off by")  # fmt: skip
    return {
        "known": put_in is not None, "weights": _marginals(methods[0], put_in),
        "table": Table(heads, tuple(rows)), "figures": figures,
        "effect": f"{p['design_effect']:.2f}", "rows": words.count(p["effective_rows"]),
    }  # fmt: skip


def _marginals(exact: Said, put_in: Sequence[float] | None) -> Table:
    """The exact posterior of each weight, with Monte Carlo errors, beside what was put in."""
    rows = []
    for k, name in enumerate(SIGNALS):
        mean, sd = exact["mean"][k], number(exact["sd"][k])
        row = [
            name, f"{number(mean):.5f} ± {mean['mc_se']:.1g}", f"{sd:.2g}",
            f"{number(exact['low'][k]):.4f} to {number(exact['high'][k]):.4f}",
        ]  # fmt: skip
        if put_in is not None:
            row += [f"{put_in[k]:.2f}", f"{(number(mean) - put_in[k]) / sd:+.1f} sd"]
        rows.append(tuple(row))
    heads = ["weight of", "#mean ± Monte Carlo error", "#sd", "#95 % interval"]
    heads += ["#put in", "#mean less put in"] if put_in is not None else []
    return Table(tuple(heads), tuple(rows), stack=True)


def _bootstrap(stages: Said) -> Said | None:
    b = stages.get("bootstrap")
    if b is None:
        return None
    exact = stages["montecarlo"].get("exact_r")
    truth = None if exact is None else exact[b["best"]]
    names = {"bca": "BCa"}
    lines = [
        (names.get(k, k), numbers(v)[0], b["estimate"], numbers(v)[1])
        for k, v in b["intervals"].items()
    ]
    formula, quick = numbers(b["ratio_to_formula"]), numbers(b["ratio_by_moments"])
    facts = [
        ("conversations", words.count(b["conversations"])),
        ("resamples", f"{words.count(b['replicates'])}, of all 169 weightings at once, in "
                      f"{words.seconds(b['resampling_seconds']['seconds'])}"),
        ("without resampling", f"{words.seconds(b['moments_seconds']['seconds'])}; standard "
                               f"errors {quick[0]:.3f} to {quick[2]:.3f} of the resampled ones"),
        ("by formula", f"standard errors of the influence function, for many conversations: the "
                       f"resampled ones are {formula[0]:.3f} to {formula[2]:.3f} of them; Monte "
                       f"Carlo error {b['ratio_to_formula'][1]['mc_se']:.1g}"),
    ]  # fmt: skip
    if truth is not None:
        away = (b["estimate"] - truth) / b["formula_error"]
        facts.append(
            ("error against the truth", f"r is {truth:.5f} in the generator and "
                                        f"{b['estimate']:.5f} here, {away:+.1f} standard errors")
        )  # fmt: skip
    title = "r of the best weighting, 95 %"
    return {
        "facts": facts, "known": truth is not None,
        "figure": drawings.intervals(lines, title, truth),
    }  # fmt: skip


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
        ("effect", f"r = {p['r']:.4f} is {number(p['effect_size']):.1f} of these"),
        ("with no effect", "with importance shuffled beforehand, Besag and Clifford's rule (stop "
                           "at the tenth that reaches r) ends after "
                           f"{p['stopped']['permutations']} shuffles, "
                           f"p = {p['stopped']['p']:.2f}"),
    ]  # fmt: skip
    return {"facts": facts, "figure": drawings.null(p)}


def _search(s: Said | None) -> Said | None:
    if s is None:
        return None
    rows = [
        (m["method"], *(f"{w:.4f}" for w in numbers(m["weights"])), _gap(m),
         words.count(number(m["evaluations"])), words.seconds(m["seconds"]))
        for m in s["methods"]
    ]  # fmt: skip
    heads = ("method", *(f"#{n}" for n in SIGNALS), "#short of optimum", "#tried", "#time")
    return {
        "table": Table(heads, tuple(rows)), "figure": drawings.gaps(s["trajectories"]),
        "hoped": f"{s['hoped_gap']:.1g}",
        "put_in": _weights(s["weights_put_in"]) if "weights_put_in" in s else "",
    }  # fmt: skip


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
        (str(r), words.share(number(e)), _consistency(number(c)))
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


def _consistency(percent: float) -> str:
    """Core consistency; far below zero its size says nothing."""
    return f"{percent:.0f} %" if percent >= -100 else "below -100 %"


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
        short = a["ceiling"] - number(a["test"])
        facts.append(
            ("exact ceiling", f"r = {a['ceiling']:.4f}: the rest is noise, which no function of "
                              f"the signals predicts; less the network's, {short:+.4f}")
        )  # fmt: skip
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
