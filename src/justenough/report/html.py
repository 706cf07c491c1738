"""The report: one HTML file that needs no network, made from a run's summary."""

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from justenough.report import (
    curve,
    deployed,
    figures,
    goal,
    left_out,
    names,
    pareto,
    tables,
    words,
)

Said = Mapping[str, Any]
BUSY, FOLDED = 1.3, 4
VIEWS = {
    "speed": "speed", "size": "file size", "cost": "estimated cost",
    "measured": "measured", "predicted": "predicted",
}  # fmt: skip


def render(summary: Mapping[str, Any]) -> str:
    """The report of a run as one HTML page: no network, light and dark, screen and paper.

    Every text of the summary is escaped, and the page's policy lets no script but its own
    run. Figures are drawn as SVG when the page is made; the script only shows and hides.

    Args:
        summary: As `compress` makes it, JSON-ready; a run that stopped early has fewer keys.
    """
    return fill(_text("report.html.j2"), page(summary))


def fill(template: str, page: Mapping[str, Any]) -> str:
    """A page in the report's style and with its script, both allowed by their hashes alone.

    Args:
        template: Jinja; it gets `page`, `style`, `script` and their hashes, and may import from
            `macros.html.j2`.
        page: What it shows; texts that are no markup are escaped.
    """
    script, style = _text("report.js"), _text("report.css")
    return _environment().from_string(template).render(
        page=page, script=Markup(script), style=Markup(style),
        script_hash=_hash(script), style_hash=_hash(style),
    )  # fmt: skip


def _hash(text: str) -> str:
    """The source expression of a content security policy that allows just this text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@cache
def _environment() -> Environment:
    return Environment(
        loader=FunctionLoader(_text), autoescape=True, undefined=StrictUndefined,
        finalize=_kept_together, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip


def _kept_together(value: object) -> object:
    """Text in which no number is parted from its unit; markup as it is."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return words.kept_together(value)
    return value


@cache
def _text(name: str) -> str:
    return resources.files("justenough.report").joinpath(name).read_text(encoding="utf-8")


def page(summary: Said) -> dict[str, Any]:
    """Everything that the template shows, in the order of the page."""
    grouped = bool(summary["cases"].get("grouped"))
    found = figures.sites(summary)
    search: Said = summary.get("search") or {}
    return {
        "verdict": str(summary["verdict"]),
        "model": str(summary["model"]["file"]),
        "headline": headline(summary, grouped=grouped),
        "deployed": deployed.sentence(summary),
        "reason": str(summary.get("reason") or ""),
        "gains": gains(summary, grouped=grouped),
        "files": files(summary),
        "code": deployed.code(summary),
        "notes": notes(summary),
        "limits": limits(summary),
        "at_best": at_best(summary, grouped=grouped),
        "comparison": tables.comparison(summary, grouped=grouped),
        "plain": plain_words(summary, grouped=grouped),
        "stages": stage_section(summary),
        "curve": curve.section(summary),
        "pareto": pareto_section(summary, grouped=grouped),
        "clauses": clause_section(summary, grouped=grouped),
        "sites": site_section(summary, found),
        "margins": margin_section(summary),
        "search": search_section(summary, search, grouped=grouped),
        "quality": quality_section(summary),
        "binding": binding(summary),
        "sources": deployed.sources(summary),
        "runtime": runtime_rows(summary["environment"]),
    }


def headline(summary: Said, *, grouped: bool) -> str:
    """The verdict in one sentence."""
    contract = summary["contract"]
    promises = [words.promise(c, grouped=grouped).words for c in contract["clauses"]]
    sentence = "; and ".join(promises) or "nothing was asked"
    confidence = words.given(1 - contract["alpha"])
    verdict = str(summary["verdict"])
    if verdict == "HELD":
        return f"{sentence[0].upper()}{sentence[1:]}, at {confidence} confidence."
    if verdict == "BROKEN":
        return "No cheaper file that keeps the contract was found. The model stays as it is."
    return f"These cases can neither show nor refute, at {confidence} confidence, that {sentence}."


def gains(summary: Said, *, grouped: bool) -> list[tuple[str, str, str]]:
    """Figures beside the verdict: value, name, remark; what was minimised comes first."""
    result = summary.get("result")
    if not result:
        return []
    env = summary["environment"]
    out = [
        (words.times(result["speedup"]), "as fast",
         f"{words.seconds(result['candidate_s'])} a case against "
         f"{words.seconds(result['reference_s'])} (batch {env.get('batch')}, "
         f"{env.get('threads')} {'thread' if env.get('threads') == 1 else 'threads'})")
    ]  # fmt: skip
    first = (summary.get("certificate") or {}).get("clauses") or []
    if first and first[0].get("changed") is not None:
        e, units = first[0], "groups" if grouped else "cases"
        p = words.promise(summary["contract"]["clauses"][0], grouped=grouped)
        out.append(
            (f"{words.count(e['changed'])} of {words.count(e['n'])}", f"{units} changed",
             f"limit {p.limit(e.get('limit'))}, asked {p.asked}")
        )  # fmt: skip
    if result["kind"] == "cascade":
        out.append((words.share(result["deferral"]), "of cases", "answered by the exact model"))
    several = deployed.deployed_name(result) == deployed.CASCADE
    size = (words.size(result["bytes"]), "all files" if several else "file",
            f"reference {words.size(summary['model']['bytes'])}")  # fmt: skip
    cost = goal.in_unit(summary, goal.cost_of(summary, result))
    if goal.is_estimate(summary) and cost != words.NONE:
        out.insert(0, (cost, "estimated", str(goal.cost_name(summary)).removesuffix(", estimate")))
    return [size, *out] if goal.minimised(summary) == "bytes" else [*out, size]


def files(summary: Said) -> list[tuple[str, str]]:
    """Files of the run's folder and what each is for."""
    out = deployed.files(summary)
    if out:
        out += [
            ("certificate.json", "what was shown, to check again"),
            ("variant.toml", "the choice at every site, to edit and apply again"),
        ]
    return [*out, ("report.html", "this page")]


def notes(summary: Said) -> list[str]:
    """What has to be known before relying on the result."""
    out = [str(n) for n in (summary.get("certificate") or {}).get("note") or ()]
    if not summary["contract"].get("population"):
        out.append(
            "No population was stated, so nobody can tell which patients or inputs the cases "
            "stand for. State it in the contract."
        )
    return out


def limits(summary: Said) -> list[tuple[str, str]]:
    """What the verdict does not say."""
    env, contract = summary["environment"], summary["contract"]
    threads = f"{env.get('threads')} {'thread' if env.get('threads') == 1 else 'threads'}"
    population = contract.get("population") or "the population that the cases were drawn from"
    flags = [str(f) for f in env.get("cpu_flags") or ()]
    own = names.own(names.runtime_of(summary.get("result")))
    wanted = ("vnni", "amx", *([own] if own != names.EXACT else []))
    widest = [f for f in ("avx512f", "avx2", "avx", "sve2", "sve", "asimd") if f in flags][:1]
    plain = [f"{f}, no VNNI" if f.startswith("avx") else f for f in widest]
    vector = [f for f in flags if any(w in f for w in wanted)] or plain or flags[-3:]
    precisions = "int8" if own == names.EXACT else f"int8 and {own}"
    return [
        ("Truth", "It compares with the reference model. It does not say that either is right."),
        ("Population", f"It speaks for {population}, and for no other."),
        (
            "Runtime",
            f"Judged in {deployed.judged_in(summary)}; "
            "another runtime or version may answer differently.",
        ),
        (
            "Processor",
            f"Judged on {env.get('processor')}. Processors with other vector instructions (here "
            f"{', '.join(vector) or 'none known'}) can answer differently in {precisions}. Times "
            f"are of this machine with {threads} and batch {env.get('batch')}.",
        ),
    ]


def at_best(summary: Said, *, grouped: bool) -> list[str]:
    """What the number of cases could show, whatever the candidate."""
    units, out = "groups" if grouped else "cases", []
    for b in summary.get("at_best") or ():
        p = words.promise(str(b["clause"]), grouped=grouped)
        n = words.count(b["units"])
        if b.get("limit") is None:
            out.append(f"{p.text}: what {n} {units} can show depends on their values.")
            continue
        said = f"{n} {units} without a single change would show {p.limit(b['limit'])}"
        asked = f"the contract asks for {p.asked}"
        if b.get("reachable"):
            out.append(f"{said}; {asked}, which is within reach.")
        else:
            more = f" It takes {words.count(b['needed'])} {units}." if b.get("needed") else ""
            out.append(f"{said}; {asked}, which is out of reach.{more}")
    return out


def plain_words(summary: Said, *, grouped: bool) -> str:
    """What int8 everywhere would have done, in a sentence."""
    plain = summary.get("plain_int8")
    if not plain:
        return ""
    end = {
        "HELD": "it would have held by itself",
        "BROKEN": "it would have broken the contract",
        "UNDECIDED": "nobody could have certified it on these cases",
    }[str(plain["verdict"])]
    e = plain["clauses"][0] if plain["clauses"] else {}
    changed = ""
    if e.get("changed") is not None:
        units = "groups" if grouped else "cases"
        changed = f"{words.count(e['changed'])} of {words.count(e['n'])} {units} change; "
    speed = words.times(plain.get("speedup"))
    name = tables.plain_name(summary)
    return f"{name[:1].upper()}{name[1:]}, without a cascade, is {speed} as fast: {changed}{end}."


def stage_section(summary: Said) -> dict[str, Any] | None:
    """The stages of a cascade."""
    table = tables.stages(summary)
    if table is None:
        return None
    n = words.count(summary["cases"]["certification"]["rows"])
    return {
        "table": table,
        "what": "Each stage answers the cases it is sure of; cases with a smaller margin go on. "
        f"Shares are of the {n} certification cases. Shares of the time are predicted from times "
        "of single calls.",
    }


def pareto_section(summary: Said, *, grouped: bool) -> dict[str, Any] | None:
    """The picture of all candidates, with its buttons and its numbers."""
    found = pareto.views(summary)
    if not found:
        return None
    groups = []
    for key in ("y", "x"):
        options = list(dict.fromkeys(getattr(v, key) for v in found))
        if len(options) > 1:
            groups.append((key, [(o, VIEWS[o]) for o in options]))
    table = tables.candidates(summary, grouped=grouped)
    return {
        "views": found, "groups": groups, "table": table,
        "legends": pareto.legend(summary, found),
    }  # fmt: skip


def clause_section(summary: Said, *, grouped: bool) -> dict[str, Any] | None:
    """The certificate's clauses, or those of the safest candidate where none was issued."""
    certificate, steps = summary.get("certificate"), summary.get("steps")
    if certificate:
        entries, what = certificate["clauses"], "The deployed file on the certification cases."
    elif steps:
        entries = steps[0]["clauses"]
        what = "No certificate was issued; this is the safest candidate of the plan."
    else:
        return None
    alpha = words.given(round(1 - pareto.confidence(summary), 6))
    return {
        "table": tables.clauses(summary, entries, grouped=grouped),
        "what": f"{what} Each clause is tested at alpha = {alpha}; all must hold, which needs no "
        "correction (Berger 1982).",
    }


def site_section(summary: Said, found: list[figures.Site]) -> dict[str, Any] | None:
    """Sensitivity of every site; no figure where nothing was searched, so that none is known."""
    if not found:
        return None
    how = summary["search"].get("sensitivity") or {}
    own = names.own(names.runtime_of(summary.get("result")))
    colours = figures.choice_colours((summary.get("result") or {}).get("sites", {}), own)
    counts = {c: sum(s.choice == c for s in found) for c in colours}
    return {
        "figure": figures.sensitivity(found) if any(s.db is not None for s in found) else None,
        "table": tables.sites(found),
        "legend": [
            (
                f"{c}: {counts[c]} {'site' if counts[c] == 1 else 'sites'}"
                + (", the runtime's own precision" if c == own != names.EXACT else ""),
                colour,
            )
            for c, colour in colours.items()
        ],
        "deployed": bool(colours),
        "method": f"{how.get('method', 'not measured')}, {words.count(how.get('rows'))} cases",
        "n": len(found),
    }


def margin_section(summary: Said) -> dict[str, Any] | None:
    """How sure the cheap stage is, and who answers when it is not."""
    m, curve = summary.get("margins"), figures.deferral(summary)
    if not m and curve is None:
        return None
    out: dict[str, Any] = {"figure": None, "words": "", "deferral": curve}
    if m:
        rows, total = sum(m["rows"]), summary["cases"]["certification"]["rows"]
        out["figure"] = figures.margins(m)
        out["words"] = (
            f"The cheap stage alone changes {words.count(sum(m['changed']))} of the "
            f"{words.count(rows)} cases shown."
        )
        if total > rows:
            out["words"] += (
                f" {words.count(total - rows)} cases with larger margins are not drawn."
            )
        if m.get("threshold") is not None:
            at = words.significant(m["threshold"])
            found = deployed.stages(summary)
            to = found[1].said if found[1:] and found[1].variant else "the exact model"
            out["words"] += f" Cases with a margin up to {at} go on to {to}."
    return out


def search_section(summary: Said, search: Said, *, grouped: bool) -> dict[str, Any] | None:
    """Calibrations, variants, what was left out, and what the run took."""
    by_step = tables.spent(summary, each=False)
    if not search and by_step is None:
        return None
    built: Said = search.get("variants") or {}
    spent, tried = summary.get("spent") or {}, search.get("calibrations") or {}
    by = (
        "the exact model would answer least" if tried.get("by") == "deferral" else "it is quietest"
    )
    result, labels = summary.get("result"), tables.labels(summary)
    return {
        "sought": " ".join(goal.sought(summary)),
        "families": family_words(search),
        "calibrations": tables.calibrations(search),
        "why": f"{tried.get('best')} was chosen because with it {by}.",
        "speeds": figures.speeds(built, result, labels) if built else None,
        "variants": tables.variants(summary, grouped=grouped),
        "busy": busy_words(built),
        "left_out": left_out_section(summary),
        "total": f"{words.count(spent.get('inferences'))} full-equivalent inferences in "
        f"{words.seconds(spent.get('seconds'))}." if spent else "",
        "spent": by_step,
        "steps": tables.spent(summary, each=True),
    }  # fmt: skip


def busy_words(built: Said) -> str:
    """A warning where the reference's own times differ much; empty where they do not."""
    took = [v["reference_s"] for v in built.values()]
    if not took or max(took) <= BUSY * min(took):
        return ""
    return (
        f"The reference itself took between {words.seconds(min(took))} and "
        f"{words.seconds(max(took))} a case: the machine was busy with other work. Speed-ups "
        "are ratios measured side by side and bear this; single times do not."
    )


def family_words(search: Said) -> str:
    """Which families were tried, and in which of them mixtures were sought."""
    tried, mixed = (
        [_family(str(f)) for f in search.get(k) or ()] for k in ("families", "searched")
    )
    if not tried:
        return ""
    some = f"mixtures were sought in {', '.join(mixed)}" if mixed else "no mixtures were sought"
    return f"Families of variants tried: {', '.join(tried)}; {some}."


def _family(name: str) -> str:
    """A family, which is a runtime and a form, in words."""
    runtime, _, form = name.rpartition(" ")
    return f"{names.runtime(runtime)} {form}"


def left_out_section(summary: Said) -> dict[str, Any] | None:
    """What was not tried and why, a sentence each."""
    found = left_out.left_out(summary)
    if not found:
        return None
    first = [left_out.as_sentence(n) for n in (*found.missing, *found.other)]
    skipped = [left_out.as_sentence(n) for n in found.skipped]
    return {"notes": first, "skipped": skipped, "fold": len(skipped) > FOLDED}


def quality_section(summary: Said) -> dict[str, Any] | None:
    """Accuracy and AUC where labels exist."""
    table = tables.quality(summary)
    if table is None:
        return None
    rows = (summary["quality"].get("reference") or {}).get("rows")
    return {"table": table, "rows": words.count(rows)}


def binding(summary: Said) -> list[tuple[str, str]]:
    """Hashes that the result is bound to, and versions."""
    certificate: Said = summary.get("certificate") or {}
    plan = (summary.get("plan") or {}).get("sha256") or certificate.get("plan_sha256")
    cases = summary["cases"]
    parts = [
        f"{name} {words.count(cases[name]['rows'])} cases"
        + (f" in {words.count(cases[name]['units'])} groups" if cases.get("grouped") else "")
        for name in ("calibration", "search", "certification")
        if isinstance(cases.get(name), Mapping)
    ]
    rows = [
        ("reference", f"{summary['model']['file']}, {words.size(summary['model']['bytes'])}"),
        ("sha256 of the reference", summary["model"].get("sha256")),
        ("sha256 of the certified file", (certificate.get("candidate") or {}).get("sha256")),
        *(
            (f"sha256 of {s.get('file')}", s.get("sha256"))
            for s in {
                s.get("file"): s for s in (certificate.get("candidate") or {}).get("stages") or ()
            }.values()
        ),
        ("fingerprint of the cases", (certificate.get("cases") or {}).get("fingerprint")),
        ("sha256 of the plan", plan),
        ("cases", "; ".join(parts)),
        ("population", summary["contract"].get("population") or "not stated"),
        ("created", certificate.get("created")),
        ("justenough", summary.get("justenough")),
    ]
    return [(k, str(v)) for k, v in rows if v]


def runtime_rows(env: Said) -> list[tuple[str, str]]:
    """The runtime and the machine."""
    out = []
    for key, value in env.items():
        shown = ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
        out.append((key.replace("_", " "), str(shown)))
    return out
