"""The report renders every end of a run, escapes every text, and needs no network."""

import copy
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from report_world import CLAUSE, ORT, evidence, held, searched, shown, stopped, three_stages

from justenough.report import figures, pareto, words
from justenough.report.html import headline, render
from justenough.report.svg import Scale, with_zero

EVIL = "\"'><img src=x onerror=alert(1)></script><script>alert(2)</script>{{ 7 * 191 }}<!--"


class Tags(HTMLParser):
    """Collects elements with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


def test_verdict_comes_first_in_a_sentence() -> None:
    text = shown(render(held()))
    assert text.index("At least 99 % of groups keep every decision, at 95 % confidence.") < 120
    assert "ONNX Runtime int8 at all 3 sites; 0.8 % of cases are answered again" in text
    assert "3.2\u00d7 as fast 0.62 ms a case against 1.95 ms (batch 32, 1 thread)" in text
    assert "0.8 % of cases answered by the exact model" in text
    assert "1 of 500 groups changed limit 99.0 %, asked ≥ 99 %" in text
    for name in ("model.onnx", "certificate.json", "variant.toml"):
        assert name in text
    assert "What this does not say" in text
    assert "It speaks for adults, and for no other" in text


def test_sections_of_a_held_run_come_in_order() -> None:
    text = shown(render(held()))
    heads = ["What to deploy", "How to run it", "What this does not say", "Who answers",
             "What the cases could show", "What is gained", "Clauses of the contract",
             "Sensitivity of 3 sites", "Margins and deferral", "The search", "Quality where",
             "What the result is bound to", "justenough verify OUT/certificate.json",
             "Where each number is recorded"]  # fmt: skip
    at = [text.index(h) for h in heads]
    assert at == sorted(at)


def test_run_that_stopped_before_its_search_says_why() -> None:
    s = stopped()
    s["at_best"] = [{"clause": CLAUSE, "units": 120, "limit": 0.97534, "reachable": False,
                     "needed": 299}]  # fmt: skip
    text = shown(render(s))
    assert "can neither show nor refute" in text
    assert "Too few cases." in text
    assert "would show 97.5 %" in text
    assert "out of reach. It takes 299 groups." in text
    for absent in ("What is gained", "Sensitivity", "The search", "variant.toml", "verify OUT",
                   "What to deploy", "Who answers", "justenough run"):  # fmt: skip
        assert absent not in text


def test_run_in_which_nothing_held_shows_the_safest_candidate() -> None:
    text = shown(render(searched()))
    assert "No cheaper file that keeps the contract was found" in text
    assert "No certificate was issued" in text
    assert "40 of 500 groups changed (limit 89.7 %)" in text
    assert "model.onnx" not in text.replace("net.onnx", "")


def test_other_ends_render() -> None:
    s = searched()
    s["search"] = {"sites": {}}
    for key in ("plan", "steps", "plain_int8"):
        del s[key]
    assert "Sensitivity" not in shown(render(s))
    s = searched()
    s["steps"], s["plan"]["rungs"] = [], []
    assert "no claim" in shown(render(s))


def test_notes_and_a_missing_population_are_prominent() -> None:
    s = held()
    s["certificate"]["note"] = ["Noise power is 3 times that on the search cases."]
    s["contract"]["population"] = ""
    text = shown(render(s))
    assert text.index("Noise power is 3 times") < text.index("What this does not say")
    assert text.index("No population was stated") < text.index("What this does not say")


def test_clause_without_counts_is_drawn_in_its_own_unit() -> None:
    s = held()
    clause = "snr_db >= 30"
    s["contract"]["clauses"] = [clause]
    e = {**evidence(0, 37.68, 36.91), "clause": clause, "unit": "dB", "changed": None,
         "other_limit": float("nan")}  # fmt: skip
    for entry in (*s["steps"], s["plain_int8"], s["certificate"]):
        entry["clauses"] = [e]
    s["plan"]["gate"] = s["margins"] = None
    s["at_best"] = [{"clause": clause, "units": 500, "limit": None, "reachable": True,
                     "needed": None}]  # fmt: skip
    text = shown(render(s))
    assert "Outputs differ by a noise at least 30 dB below the signal" in text
    assert "estimate 37.7 dB, limit 36.9 dB" in text
    assert "contract: ≥ 30 dB" in text


def test_numbers_that_do_not_exist_are_dashes() -> None:
    s = searched()
    e = {**evidence(0, 0.0, 0.0, "UNDECIDED"), "estimate": float("nan"), "limit": None,
         "other_limit": None, "changed": None, "note": "needs 20 units"}  # fmt: skip
    s["steps"][0] |= {"verdict": "UNDECIDED", "clauses": [e]}
    page = render(s)
    assert "needs 20 units" in shown(page)
    assert "nan" not in re.sub(r"[a-z]nan|nan[a-z]", "", shown(page)).lower()


def hostile() -> dict[str, Any]:
    """A held run in which every text that a user gives is an attack."""
    s = held()
    s["model"]["file"] = s["contract"]["population"] = s["environment"]["processor"] = EVIL
    s["contract"]["clauses"] = [f"decision_stability(output={EVIL}) >= 0.99"]
    s["certificate"]["note"] = [EVIL]
    s["search"]["sensitivity"]["method"] = EVIL
    name = next(iter(s["search"]["sites"]))
    for table in (s["search"]["sites"], s["search"]["sensitivity"]["noise"], s["result"]["sites"]):
        table[EVIL] = table.pop(name)
    s["result"]["sites"][EVIL] = EVIL
    entry = s["search"]["variants"][ORT]
    s["search"]["variants"] = {EVIL: entry, f"{EVIL}2": {**entry, "runtime": EVIL}}
    entry |= {"form": EVIL, "calibration": EVIL, "repairs": [EVIL],
              "picks": [[EVIL, EVIL]]}  # fmt: skip
    for rung in (*s["plan"]["rungs"], *s["steps"], s["plain_int8"], s["result"]):
        rung["variant"] = rung["middle"] = EVIL
        rung["middle_threshold"] = 0.1
    s["result"]["stages"][0] |= {"variant": EVIL, "runtime": EVIL}
    s["result"]["runtime"] = EVIL
    s["certificate"]["candidate"]["stages"] = [{"file": EVIL, "sha256": EVIL, "runtime": {
        "name": EVIL, "version": EVIL, "precision": EVIL, "device": EVIL}}]  # fmt: skip
    s["search"]["notes"] = [EVIL, f"{EVIL} was skipped: {EVIL}", f"{EVIL} is not installed"]
    s["search"]["families"] = s["search"]["searched"] = [EVIL]
    s["goal"] = {"minimise": EVIL, "target": EVIL, "runtimes": [EVIL], "pins": [[EVIL, EVIL]],
                 "estimated": True, "budget_s": 60.0}  # fmt: skip
    s["curve"] = {"alpha": 0.025, "points": 2}
    for step in s["steps"]:
        step |= {"speedup": 2.0, "low": 1.9, "high": 2.1, "bytes": 9, "file": EVIL}
    s["model"]["inputs"] = [EVIL]
    s["spent"]["steps"][EVIL] = 1.0
    return s


def test_hostile_names_stay_text() -> None:
    page = render(hostile())
    assert page.count("<script") == page.count("</script>") == 1
    assert "1337" not in page
    for tag, attrs in Tags(page).seen:
        assert tag != "img"
        assert not any(a.startswith("on") for a in attrs)
    assert shown(page).count("alert(2)") > 10


@pytest.mark.parametrize("make", [stopped, searched, held, three_stages, hostile])
def test_page_names_no_address_and_loads_nothing(make: Any) -> None:
    page = render(make())
    assert not re.search(r"https?://|url\(|@import", page)
    for tag, attrs in Tags(page).seen:
        assert attrs.get("src") is None
        assert attrs.get("href", "data:,") == "data:,", tag
    assert "default-src 'none'" in page


def test_render_leaves_its_summary_alone_and_repeats_itself() -> None:
    s = held()
    before = copy.deepcopy(s)
    assert render(s) == render(s)
    assert s == before


def test_many_sites_stay_small_and_their_table_folded() -> None:
    page = render(held(300))
    assert "All 300 sites" in page
    assert len(page) < 700_000
    assert 'class="long"' in page


def test_few_sites_are_named_and_coloured_by_choice() -> None:
    s = held()
    s["result"]["sites"]["/net/block.1/Conv"] = "fp32"
    found = figures.sites(s)
    assert [s.short for s in found] == ["block.0", "block.1", "block.2"]
    assert [s.colour for s in found] == ["choice-0", "choice-exact", "choice-0"]
    assert found[0].db == pytest.approx(47.99, abs=0.01)
    assert "9216 weights" in found[0].tip


def test_pareto_offers_every_view_and_none_without_candidates() -> None:
    assert [(v.x, v.y) for v in pareto.views(held())] == [
        ("speed", "measured"), ("size", "measured"), ("speed", "predicted"), ("size", "predicted")
    ]  # fmt: skip
    assert pareto.views(stopped()) == []


def test_shares_never_overstate_a_limit() -> None:
    p = words.promise("decision_stability >= 0.9955", grouped=False)
    assert p.limit(0.995499) == "99.54 %"
    assert p.limit(0.9955) == "99.55 %"
    drop = words.promise("auc_drop <= 0.01", grouped=False)
    assert drop.limit(0.00991) == "0.0100"
    assert words.promise("spearman >= 0.99", grouped=False).limit(0.9999683) == "0.999968"


@pytest.mark.parametrize(
    ("clause", "said"),
    [
        ("top_k_stability(2) >= 0.9", "at least 90 % of groups keep the same 2 top answers"),
        ("top_k_overlap(10) >= 0.9", "at least 90 % of the top 10 stay in the top 10"),
        ("top_k_overlap(10, axis=1, per=mean) >= 0.9",
         "at least 90 % of each case's top 10 stay in it, on average over groups"),
        ("within_tolerance(1 kcal/mol) >= 0.99",
         "at least 99 % of groups move every case of theirs by no more than 1 kcal/mol"),
        ("accuracy_drop <= 0.005", "accuracy falls by at most 0.5 % (percentage points)"),
        ("auc_drop <= 0.01", "the area under the ROC curve falls by at most 0.01"),
        ("spearman >= 0.99", "the rank correlation with the reference is at least 0.99"),
        ("mine:loss <= 0.1", "the mean loss mine:loss is at most 0.1"),
        ("no clause at all", "this clause holds: no clause at all"),
    ],
)  # fmt: skip
def test_clauses_are_said_in_words(clause: str, said: str) -> None:
    assert words.promise(clause, grouped=True).words == said


def test_several_clauses_are_one_sentence() -> None:
    s = held()
    s["contract"]["clauses"] = ["auc_drop <= 0.01", "snr_db >= 30"]
    assert headline(s, grouped=True) == (
        "The area under the ROC curve falls by at most 0.01; and outputs differ by a noise at "
        "least 30 dB below the signal, at 95 % confidence."
    )


def test_scales_hold_zero_apart() -> None:
    y = with_zero([0.0, 0.001, 0.05], 300, 40)
    assert y(0.0) > y(0.001) > y(0.05)
    assert y.zero is not None
    assert Scale(0, 1, 0, 100).ticks(5) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert Scale(0.001, 1, 0, 100, log=True).ticks(4) == pytest.approx([0.001, 0.01, 0.1, 1])
