"""The report of runs over several runtimes, stages, objectives, and of whole curves."""

import copy
import re
from typing import Any

import pytest
from report_world import (
    BF16,
    MISSING,
    NNCF,
    ORT,
    bf16_alone,
    costed,
    curved,
    evidence,
    goal,
    held,
    shown,
    stopped,
    three_stages,
    two_runtimes,
    without_openvino,
)

from justenough.report import (
    curve,
    deployed,
    figures,
    left_out,
    marks,
    names,
    pareto,
    tables,
    timing,
)
from justenough.report import goal as goals
from justenough.report.html import render

WORDS = (
    "OpenVINO int8 at 2 of 3 sites, the rest bf16; 1.1 % of cases go on to OpenVINO bf16, "
    "0.2 % are answered again by the exact model in ONNX Runtime."
)


def test_headline_names_runtimes_and_stages() -> None:
    text = shown(render(three_stages()))
    assert WORDS in text
    assert text.index(WORDS) < text.index("What to deploy")
    assert shown(render(bf16_alone())).count("The model as it is, in OpenVINO bf16.") >= 1


def test_cascade_in_one_file_speaks_of_one_runtime_only() -> None:
    said = deployed.sentence(held())
    assert said == (
        "ONNX Runtime int8 at all 3 sites; 0.8 % of cases are answered again by the exact model."
    )
    assert deployed.sentence(two_runtimes()) == ""


def test_each_stage_has_its_file_its_threshold_and_its_share() -> None:
    found = deployed.stages(three_stages())
    assert [(s.variant, s.file, s.threshold) for s in found] == [
        (NNCF, "stage-1.xml", 0.0243), (BF16, "stage-2.onnx", 0.0033), ("", "stage-2.onnx", None),
    ]  # fmt: skip
    assert [s.reached for s in found] == [1.0, 0.011, 0.002]
    assert sum(s.answered for s in found) == pytest.approx(1.0)
    table = tables.stages(three_stages())
    assert table is not None
    text = shown(render(three_stages()))
    assert "1. OpenVINO int8 at 2 of 3 sites, the rest bf16 stage-1.xml up to 0.0243" in text
    assert "2. OpenVINO bf16 stage-2.onnx up to 0.0033 1.1 % (44)" in text
    assert "3. the exact model in ONNX Runtime stage-2.onnx answers all 0.2 % (8)" in text
    assert tables.stages(bf16_alone()) is None


def test_time_of_the_stages_is_that_of_their_calls() -> None:
    s = three_stages()
    keys, reached = [NNCF, BF16, ""], [1.0, 0.011, 0.002]
    took = timing.stage_seconds(s, keys, reached)
    assert took is not None
    per_row, fixed = (0.034 - 0.0012) / 31, 0.0012 - (0.034 - 0.0012) / 31
    some = 1 - (1 - 0.011) ** 32
    assert took[0] == pytest.approx(0.002 / 3.8 + 5e-5)
    assert took[1] == pytest.approx(some * fixed / 32 + 0.011 * per_row)
    assert took[2] == pytest.approx(0.002 * 0.002)
    # Nothing is said of a stage that was not timed.
    del s["search"]["call_cost"][BF16]
    assert timing.stage_seconds(s, keys, reached) is None
    table = tables.stages(s)
    assert table is not None
    assert [row[-1] for row in table.rows] == ["\u2013"] * 3


def test_batches_of_one_size_cost_a_whole_call() -> None:
    s = held()
    s["search"]["call_cost"] = {"reference": [[32, 0.064]]}
    took = timing.stage_seconds(s, [ORT, ""], [1.0, 0.5])
    assert took is not None
    assert took[1] == pytest.approx(0.064 / 32, rel=1e-6)
    s["search"]["call_cost"] = {"reference": [[1, 0.002]]}
    s["environment"]["batch"] = 1
    took = timing.stage_seconds(s, [ORT, ""], [1.0, 0.5])
    assert took is not None
    assert took[1] == pytest.approx(0.001)


def test_files_to_deploy_are_named_with_what_lies_beside_them() -> None:
    files = dict(deployed.files(three_stages()))
    assert list(files) == ["cascade.toml", "stage-1.xml, stage-1.bin", "stage-2.onnx"]
    assert files["stage-2.onnx"] == (
        "stage 2: OpenVINO bf16; stage 3: the exact model in ONNX Runtime"
    )
    assert [n for n, _ in deployed.files(held())] == ["model.onnx"]
    assert list(dict(deployed.files(bf16_alone()))) == ["cascade.toml", "stage-1.onnx"]
    assert deployed.files(stopped()) == []


def test_two_lines_of_python_run_it() -> None:
    text = shown(render(three_stages()))
    python = 'from justenough import load load("OUT/cascade.toml").run({"x": rows})'
    assert python in text
    assert "justenough run OUT/cascade.toml --cases C.npz -o answers.npz" in text
    assert 'load("OUT/model.onnx").run({"x": rows})' in shown(render(held()))
    s = held()
    s["model"]["inputs"] = ["ids", "mask"]
    assert '.run({"ids": rows, "mask": ...})' in deployed.code(s)[0]
    for line in deployed.code(s)[0].splitlines():
        compile(line, "shown", "exec")


def test_every_runtime_is_named_with_its_version() -> None:
    said = deployed.judged_in(three_stages())
    assert (
        said
        == "OpenVINO 2026.4.1 (bf16, cpu) and ONNX Runtime 1.32.0 (fp32, CPUExecutionProvider)"
    )
    assert deployed.judged_in(held()) == "ONNX Runtime 1.32.0 (CPU)"
    text = shown(render(three_stages()))
    assert f"Judged in {said};" in text
    assert "(here avx512_vnni, avx512_bf16) can answer differently in int8 and bf16" in text
    assert "sha256 of stage-1.xml" in text


def test_summary_that_lists_no_stages_is_still_said() -> None:
    s = held()
    for key in ("stages", "passed", "runtime"):
        del s["result"][key]
    for entry in s["search"]["variants"].values():
        for key in ("picks", "runtime", "form", "repairs"):
            del entry[key]
    for rung in (*s["plan"]["rungs"], *s["steps"]):
        for key in ("middle", "middle_threshold", "passed"):
            del rung[key]
    del s["search"]["notes"]
    assert "ONNX Runtime int8 at all 3 sites; 0.8 % of cases are answered" in shown(render(s))


def test_variants_come_fastest_first_with_runtime_form_and_choices() -> None:
    table = tables.variants(three_stages(), grouped=True)
    assert table is not None
    rows = [[re.sub(r"<[^>]+>", " ", c).split() for c in row] for row in table.rows]
    assert [r[0][-1] for r in rows] == [NNCF, ORT, BF16, "int8-1-minmax-0d"]
    assert rows[0][:3] == [
        ["OpenVINO", "bf16", NNCF], ["nncf"], ["int8", "2,", "bf16", "1", "minmax"],
    ]  # fmt: skip
    assert rows[2][1:3] == [["plain"], ["bf16", "3"]]
    assert table.marked == (0, 2)


def test_repairs_are_named_and_variants_never_share_a_label() -> None:
    s = two_runtimes()
    entry = s["search"]["variants"][NNCF]
    entry["repairs"] = ["equalised", "bias"]
    assert "minmax, equalised, bias" in shown(render(s))
    twins = {"a-1": entry, "b-2": {**entry, "repairs": []}, "c-3": {**entry, "repairs": []},
             "d-4": {**entry, "calibration": "mse"}}  # fmt: skip
    found = names.labels(twins, 3)
    assert len(set(found.values())) == 4
    assert found["a-1"] == "OpenVINO int8 2/3 nncf minmax equalised bias"
    assert found["c-3"] == "OpenVINO int8 2/3 nncf minmax 3"
    assert found["d-4"] == "OpenVINO int8 2/3 nncf mse"


def test_runtimes_differ_by_shape_and_by_colour() -> None:
    views = pareto.views(three_stages())
    assert views[0].runtimes == {"onnxruntime", "openvino bf16"}
    styles = marks.styles([f"r{k}" for k in range(6)])
    assert len({s.shape for s in styles.values()}) == 6
    assert len({s.colour for s in styles.values()}) == 6
    drawn = str(views[0].drawing)
    assert re.search(r'<circle [^>]*class="dot rt-0 ', drawn)
    assert re.search(r'<polygon [^>]*class="dot rt-1 ', drawn)
    first, second = pareto.legend(three_stages(), views)
    assert [said for _, said in first] == ["ONNX Runtime", "OpenVINO bf16"]
    assert any("hollow" in said for _, said in second)


def test_line_of_the_contract_is_named_where_no_candidate_stands() -> None:
    s = held()
    for step in (*s["steps"], s["certificate"], s["plain_int8"]):
        step["clauses"] = [evidence(5, 0.987, 0.97, "UNDECIDED")]
    del s["search"]["variants"]["int8-1-minmax-0d"]
    crowded = str(pareto.views(s)[0].drawing)
    label = r'<text x="([0-9.]+)"[^>]*>contract'
    at = [float(m) for m in re.findall(label, crowded)]
    assert at[0] < 100, "at the left, since every candidate stands at the right"
    free = str(pareto.views(three_stages())[0].drawing)
    assert float(re.findall(label, free)[0]) > 800


def test_one_candidate_is_one() -> None:
    s = bf16_alone()
    s["plan"]["rungs"] = s["plan"]["rungs"][:1]
    assert "The only candidate, safest first" in shown(render(s))


def test_path_leads_through_the_candidates_in_order() -> None:
    drawn = str(pareto.views(three_stages())[0].drawing)
    wide = drawn[: drawn.index('class="phone"')]
    points = re.search(r'<polyline points="([^"]+)" class="path"', wide)
    assert points is not None
    across = [float(p.split(",")[0]) for p in points[1].split()]
    assert len(across) == 4
    assert across == sorted(across)


def test_candidates_with_the_same_first_stage_are_told_apart() -> None:
    s = three_stages()
    s["steps"] = s["steps"][:3]
    table = tables.candidates(s, grouped=True)
    assert table is not None
    assert [row[5] for row in table.rows] == ["HELD", "HELD", "HELD", "not tested"]
    assert table.rows[1][0].endswith("defers up to 0.1")
    assert table.rows[2][0].endswith("up to 0.1 to OpenVINO bf16, which defers up to 0.0125")
    assert [row[1] for row in table.rows] == ["0 %", "3.0 %", "3.0 %", "1.1 %"]
    assert table.marked == (3,)


def test_sizes_count_a_shared_file_once() -> None:
    p = pareto.picture(three_stages())
    assert p is not None
    rungs = p.summary["plan"]["rungs"]
    assert p.gain(rungs[0], "size") == 2_793_026
    assert p.gain(rungs[1], "size") == p.gain(rungs[2], "size") == 878_947 + 2_793_026


def test_sites_say_what_is_deployed_at_each() -> None:
    s = three_stages()
    found = figures.sites(s)
    assert [x.choice for x in found] == ["bf16", "int8", "int8"]
    assert [x.colour for x in found] == ["choice-own", "choice-0", "choice-0"]
    assert "48.0 bf16" in shown(str(figures.sensitivity(found)))
    text = shown(render(s))
    assert "int8: 2 sites" in text
    assert "bf16: 1 site, the runtime's own precision" in text
    assert "1 /net/block.0/Conv bf16" in text


def test_choices_keep_their_colours() -> None:
    both = figures.choice_colours({"a": "int4-weight", "b": "int8", "c": "fp32"})
    assert both == {"int8": "choice-0", "int4-weight": "choice-1", "fp32": "choice-exact"}
    many = figures.choice_colours({str(k): f"made-up-{k}" for k in range(9)})
    assert many["made-up-8"] == "choice-5"


def test_nothing_held_over_two_runtimes_says_so_and_shows_both() -> None:
    text = shown(render(two_runtimes()))
    assert "No cheaper file that keeps the contract was found" in text
    assert "OpenVINO bf16, alone" in text
    assert "mixtures were sought in OpenVINO bf16 nncf" in text
    assert "What to deploy" not in text


def test_missing_labels_leave_the_quality_out() -> None:
    text = shown(render(bf16_alone()))
    assert "Quality where labels exist" not in text
    assert "Who answers Each stage" not in text
    assert "answered by the exact model" not in text.split("What to deploy")[0]


def test_what_was_left_out_is_said_with_its_reasons() -> None:
    text = shown(render(without_openvino()))
    start, end = text.index("What was left out"), text.index("What the run took")
    section = text[start:end]
    assert f"OpenVINO{MISSING.removeprefix('openvino')}." in section
    assert "int8-3-minmax-0f was skipped: ONNX Runtime 1.32.0 cannot load a<b.onnx." in section
    assert "The time was over" in section
    assert "What was left out" not in shown(render(held()))


def test_many_skipped_variants_are_folded() -> None:
    s = without_openvino()
    s["search"]["notes"] += [f"v{k} was skipped: no" for k in range(9)]
    assert "<summary>11 variants that were skipped, and why</summary>" in render(s)


def test_notes_are_sorted_by_what_they_are_about() -> None:
    found = left_out.left_out(without_openvino())
    assert (len(found.skipped), found.missing, len(found.other)) == (2, (MISSING,), 1)
    assert not left_out.left_out(stopped())


def test_curve_says_that_all_limits_hold_at_once() -> None:
    s = curved()
    text = shown(render(s))
    assert (
        "All 4 limits hold at once with 95 % confidence: each is tested at alpha / 4 = 0.0125 "
        "(Bonferroni)" in text
    )
    assert "with the upper 98.75 % confidence limit as a whisker" in text
    assert "Each clause is tested at alpha = 1.25 %" in text
    found = curve.section(s)
    assert found is not None
    assert [row[1] for row in found.table.rows] == ["HELD", "HELD", "HELD", "UNDECIDED"]
    assert [row[-1] for row in found.table.rows] == [f"curve/{k}/cascade.toml" for k in range(4)]
    assert found.table.marked == (2,)
    assert curve.section(three_stages()) is None


def test_curve_marks_which_points_hold() -> None:
    found = curve.section(curved())
    assert found is not None
    drawn = str(found.figure)
    wide = drawn[: drawn.index('class="phone"')]
    assert len(re.findall(r'class="dot rt-1 HELD"', wide)) == 3
    assert len(re.findall(r'class="dot rt-1 UNDECIDED"', wide)) == 1
    assert len(re.findall(r'class="estimate"', wide)) == 4
    assert wide.count('class="ring"') == 1
    assert {said for _, said in found.legend} == {
        "OpenVINO bf16", "filled: holds the contract", "light: not shown to hold it",
        "ringed: deployed",
    }  # fmt: skip


def test_curve_in_another_unit_and_without_limits() -> None:
    s = curved()
    s["contract"]["clauses"] = ["snr_db >= 30"]
    e = {**evidence(0, 37.6, 36.9), "clause": "snr_db >= 30", "unit": "dB", "changed": None}
    for k, entry in enumerate((*s["steps"], s["plain_int8"], s["certificate"])):
        entry["clauses"] = [e if k else {**e, "estimate": None, "limit": None}]
    text = shown(render(s))
    assert "estimate and limit, dB" in text
    assert "36.9 dB" in text


def test_goal_is_said_when_it_is_known() -> None:
    s = three_stages()
    assert "Sought:" not in shown(render(s))
    s["goal"] = goal(pins=[["/stem", "fp32"]], budget_s=600.0)
    text = shown(render(s))
    assert "Sought: the least time a case on this machine, in ONNX Runtime or OpenVINO." in text
    assert "Settled beforehand: /stem = fp32." in text
    assert "Time allowed: 10 min." in text
    assert "estimate" not in goals.sought(s)[0]
    s["goal"] = goal(given=True)
    assert "A variant was given and taken as it is" in shown(render(s))


def test_nothing_is_said_to_be_predicted_of_a_given_variant() -> None:
    s = held()
    s["goal"] = goal(given=True)
    table = tables.candidates(s, grouped=True)
    assert table is not None
    assert table.rows[0][1:4] == ("\u2013",) * 3


def test_given_variant_is_not_called_int8_everywhere_nor_predicted() -> None:
    s = held()
    s["goal"] = goal(given=True)
    entry = s["search"]["variants"][ORT]
    entry["picks"] = entry["picks"][:2]
    s["search"]["sensitivity"] = {"noise": {}, "method": "not measured", "rows": 0}
    text = shown(render(s))
    assert "ONNX Runtime int8 at 2 of 3 sites, the rest fp32, without a cascade, is 3.2" in text
    assert "the noise of single sites was not measured" in text
    assert "Sensitivity of" not in text
    assert {v.y for v in pareto.views(s)} == {"measured"}


def test_estimates_are_marked_as_estimates() -> None:
    s = costed("energy-estimate", "rx580", 0.001)
    text = shown(render(s))
    assert "estimated energy a case on rx580" in text
    assert "energy a case on rx580, estimate" in text
    assert "Its costs are estimates, counted and not measured" in text
    assert "1.1 mJ" in text
    assert "cost" in {v.x for v in pareto.views(s)}
    assert "time a case on rx580, estimate" in shown(render(costed("latency", "rx580", 0.01)))


def test_bytes_are_no_estimate_and_come_first() -> None:
    s = costed("bytes", "this-machine", 900_000.0)
    text = shown(render(s))
    assert text.index("3.57 MB file") < text.index("3.2\u00d7 as fast")
    assert "estimate on" not in text
    assert "Sought: the fewest bytes of everything deployed" in text
    assert {v.x for v in pareto.views(s)} == {"speed", "size"}


@pytest.mark.parametrize("minimise", ["bytes", "energy-estimate"])
def test_costs_are_never_read_as_seconds(minimise: str) -> None:
    """Candidates give their cost as their seconds; speed comes from what was timed."""
    s = costed(minimise, "this-machine", 900_000.0)
    p = pareto.picture(s)
    assert p is not None
    for rung in s["plan"]["rungs"]:
        speed = p.gain(rung, "speed")
        assert speed is not None
        assert 1 < speed < 3.2


def test_goal_without_costs_leaves_them_out() -> None:
    s = held()
    s["goal"] = goal(minimise="energy-estimate", estimated=True)
    for rung in s["plan"]["rungs"]:
        rung["seconds"] = 0.001
    assert "estimated" not in shown(render(s)).split("What to deploy")[0]


def test_source_of_every_number_is_named() -> None:
    text = shown(render(three_stages()))
    at = text.index("Where each number is recorded")
    for key in ("certificate.json", "result.passed", "search.variants", "step race/deployed",
                "steps certification/VARIANT", "step sensitivity", "at_best"):  # fmt: skip
        assert key in text[at:]


def large() -> dict[str, Any]:
    """A run of twenty variants, 24 candidates and 200 sites."""
    s = copy.deepcopy(curved())
    entry = s["search"]["variants"][NNCF]
    s["search"]["variants"] |= {
        f"{NNCF}-{k}": {**entry, "speedup": 1 + k / 8, "noise": 1e-5 * k} for k in range(1, 18)
    }
    first = s["plan"]["rungs"][1]
    s["plan"]["rungs"] += [{**first, "threshold": 0.2 + k / 100} for k in range(20)]
    s["steps"] += [{**s["steps"][1], "threshold": 0.2 + k / 100} for k in range(20)]
    sites = s["search"]["sites"]
    site = next(iter(sites.values()))
    for k in range(200):
        sites[f"/x/layer.{k}/Conv"] = {**site, "name": f"/x/layer.{k}/Conv"}
        s["search"]["sensitivity"]["noise"][f"/x/layer.{k}/Conv"] = 1e-6 * (k + 1)
        s["result"]["sites"][f"/x/layer.{k}/Conv"] = ("int8", "bf16")[k % 2]
    return s


def test_large_runs_stay_below_a_megabyte() -> None:
    page = render(large())
    assert len(page.encode()) < 1_000_000
    assert "Runtime, choices, times, sizes and noise of all 21 variants" in page


@pytest.mark.parametrize(
    ("text", "said"),
    [("onnxruntime", "ONNX Runtime"), ("onnxruntime cuda", "ONNX Runtime CUDA"),
     ("ncnn fp16 vulkan", "ncnn fp16 Vulkan"), ("something else", "something else")],
)  # fmt: skip
def test_runtimes_in_words(text: str, said: str) -> None:
    assert names.runtime(text) == said
