"""The whole road: measure, search, certify, cascade, export."""

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from justenough.core.cases import SHARES, Cases
from justenough.core.contract import Contract
from justenough.core.evidence import Verdict
from justenough.core.gate import Gate
from justenough.core.subject import Variant
from justenough.deploy import export
from justenough.deploy.deployment import NAME, Deployment, load
from justenough.errors import InputError
from justenough.measured import make_plan, measure_variants, variant_of
from justenough.proof import certify_plan, write_deployed
from justenough.report.html import render
from justenough.search.goal import Goal
from justenough.search.workbench import Progress
from justenough.survey import Announce, Road, described, nothing, open_road, too_few


def nobody(at_best: list[dict[str, Any]]) -> None:
    """Tell nobody what is possible."""


def quiet(stage: str, done: float) -> None:
    """Tell nobody about progress."""


@dataclass(frozen=True)
class Result:
    """What a run found.

    Attributes:
        verdict: HELD when something cheaper was certified.
        summary: Everything the report shows, as JSON-ready values.
        before: Whether the run had ended before this call, so that nothing was run.
    """

    verdict: Verdict
    summary: Mapping[str, Any]
    before: bool = False


def compress(  # noqa: PLR0913 - a verb of the public interface, keywords with defaults
    model: Path | str,
    cases: Cases,
    contract: Contract,
    out: Path | str,
    *,
    fresh: Cases | None = None,
    shares: tuple[float, float, float] = SHARES,
    batch: int = 32,
    threads: int = 1,
    progress: Progress = quiet,
    announce: Announce = nobody,
    goal: Goal = Goal(),  # noqa: B008 - frozen
) -> Result:
    """Find the cheapest variant of an ONNX model that keeps a contract, and prove it.

    Writes `out/model.onnx`, or `cascade.toml` with its files where a stage needs a runtime of
    its own; and `certificate.json`, `variant.toml`, `report.html` and `run.sqlite`. Killed at
    any moment, the same call goes on where it was.

    Args:
        model: An ONNX file of opset 13 or later.
        contract: What must not change.
        out: Folder for the results; made when it is not there.
        shares: Calibration, search and certification, adding to 1.
        progress: Told the stage and how much of it is done, 0 to 1.
        announce: Told, before any search, what the certification cases can at best show.
        cases: Split by hash of the group into calibration, search and certification cases;
            with `fresh`, into the first two only.
        fresh: Certification cases given apart.
        batch: Rows of a call when deployed; times are measured there.
        goal: What to minimise, for what machine, with which runtimes, pins and time.
        threads: Threads of a session when deployed.

    Raises:
        InputError: The model, the cases, the contract or `out` cannot be used; `out` is as
            it was.
        DataReuseError: `fresh` shares groups or rows with `cases`.
    """
    road = open_road(
        model, cases, contract, out, fresh, shares, batch, threads, progress, announce, goal
    )
    try:
        known = road.store.get("summary")
        summary = known if known is not None else walk(road)
        finish(road, summary)
        return Result(Verdict(summary["verdict"]), summary, known is not None)
    finally:
        road.bench.close()
        road.store.close()


def walk(road: Road) -> dict[str, Any]:
    """From the first reference pass to the certificate; the summary of all of it."""
    start = time.perf_counter()
    summary: dict[str, Any] = {**described(road), "at_best": road.at_best}
    if not all(b["reachable"] for b in road.at_best):
        return {**summary, **nothing(Verdict.UNDECIDED, too_few(road.at_best))}
    measured = measure_variants(road)
    summary["search"] = measured
    if not measured["sites"]:
        said = [*measured.get("notes", ()), "the model has no site to make cheaper"]
        return {**summary, **nothing(Verdict.BROKEN, said[0])}
    plan = make_plan(road, measured)
    summary |= {"plan": plan, **certify_plan(road, measured, plan)}
    return {**summary, "spent": spent(road, time.perf_counter() - start)}


def spent(road: Road, seconds: float) -> dict[str, Any]:
    """Full-equivalent inferences and seconds, by step."""
    steps = road.store.seconds()
    rows = {s.removeprefix("rows/"): road.store.get(s) for s in steps if s.startswith("rows/")}
    return {
        "inferences": sum(rows.values()),
        "rows": rows,
        # The calibrations' step only holds the search passes that it asked for.
        "seconds": max(seconds, sum(steps.values()) - steps.get("calibrations", 0.0)),
        "steps": {s: t for s, t in steps.items() if t >= 0.001},
    }


def finish(road: Road, summary: dict[str, Any]) -> None:
    """Put the outputs in place, then record the summary and clear the work folder."""
    result = summary["result"]
    if result is not None:
        put_points(road, summary)
        put_model(road, summary, result)
        certificate = {**summary["certificate"]}
        certificate["candidate"] = {**certificate["candidate"], "file": deployed_name(result)}
        export.write_text(road.out / "certificate.json", json.dumps(certificate, indent=2) + "\n")
        export.write_text(road.out / "variant.toml", summary["variant_toml"])
    export.write_text(road.out / "report.html", render(summary))
    road.store.put("summary", summary)
    shutil.rmtree(road.bench.folder, ignore_errors=True)


def deployed_name(result: Mapping[str, Any]) -> str:
    """Name in the output folder of what is deployed."""
    return NAME if Path(result["file"]).name == NAME else "model.onnx"


def put_model(road: Road, summary: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    """Put the certified files in place, built again if they are gone; never beside another's."""
    certified = summary["certificate"]["candidate"]["sha256"]
    _put(road, summary, result, certified, road.out / deployed_name(result))


def put_points(road: Road, summary: Mapping[str, Any]) -> None:
    """Put every point of a curve into a folder of its own, with its certificate."""
    if "curve" not in summary:
        return
    for k, step in enumerate(summary["steps"], 1):
        folder = road.out / "curve" / str(k)
        folder.mkdir(parents=True, exist_ok=True)
        name, body = deployed_name(step), step["certificate"]
        _put(road, summary, step, body["candidate"]["sha256"], folder / name)
        body = {**body, "candidate": {**body["candidate"], "file": name}}
        export.write_text(folder / "certificate.json", json.dumps(body, indent=2) + "\n")


def _put(
    road: Road,
    summary: Mapping[str, Any],
    result: Mapping[str, Any],
    certified: str,
    deployed: Path,
) -> None:
    if deployed.is_file():
        if _digest(deployed) != certified:
            raise InputError(
                f"{str(deployed)!r} is not the file that was certified; move it away to have "
                "that one put back"
            )
        return
    built = road.bench.folder / result["file"]
    entries, held = summary["search"]["variants"], summary["plan"]["gate"]
    stages: list[tuple[Variant, Gate | None]] = []
    for s in result["stages"]:
        gate = None if s["threshold"] is None else Gate(**{**held, "threshold": s["threshold"]})
        stages.append((variant_of(entries[s["variant"]]), gate))
    write_deployed(road, stages, built.parent if built.name == NAME else built.with_suffix(""))
    if _digest(built) != certified:
        raise InputError(
            f"{str(deployed)!r} is gone and cannot be built again to the byte; compress into a "
            "new folder"
        )
    extras = Deployment(built).files[1:] if built.name == NAME else ()
    for extra in (*extras, *built.parent.glob(built.name + ".data")):
        shutil.copyfile(extra, deployed.parent / extra.name)
    shutil.copyfile(built, deployed.with_name(deployed.name + ".part"))
    deployed.with_name(deployed.name + ".part").replace(deployed)


def _digest(path: Path) -> str:
    try:
        return load(path).sha256
    except InputError:
        return ""
