"""`justenough inspect`: the sites of a model, and what each holds and costs."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from justenough.cli import options, show


def run(  # noqa: PLR0913 - one for each option
    model: Annotated[Path, typer.Argument(help="ONNX file, opset 13 or later.")],
    cases: Annotated[
        Path | None, typer.Option("--cases", help="Cases to time the sites on.")
    ] = None,
    batch: options.BatchOption = 32,
    threads: options.ThreadsOption = 1,
    image: options.ImageOption = None,
    mean: options.MeanOption = "",
    std: options.StdOption = "",
    layout: options.LayoutOption = "nchw",
) -> None:
    """List the sites of MODEL: parameters, bytes, operations, and time with --cases."""
    from justenough.subjects import measure
    from justenough.subjects.onnx_model import OnnxModel, find_sites, load_proto, opset_of
    from justenough.subjects.prepare import prepare

    proto = load_proto(model)
    subject = OnnxModel(model, threads, batch)
    inputs = subject.input_names
    prepared = prepare(proto)
    sites = find_sites(prepared)
    times: dict[str, float] = {}
    total = 0.0
    if cases is not None:
        given = options.cases_of(cases, inputs, image, mean, std, layout)
        rows = subject.check_cases(given).inputs
        rows = next(measure.batches(rows, subject.fixed_batch or batch))
        names = {n.name: n.name for n in prepared.graph.node}
        nodes = {**{t: n.name for n in prepared.graph.node for t in n.output}, **names}
        with measure.scratch(prepared) as path:
            got = measure.profile(path, nodes, rows, threads=threads)
        times, total = measure.seconds_by_site(prepared, sites, got), got.total
    show.console.print(
        f"{model.name}: {show.size(model.stat().st_size)}, opset {opset_of(proto)}, "
        f"inputs {', '.join(inputs)}, outputs {', '.join(subject.output_names)}"
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("site")
    table.add_column("op")
    for column in ("weights", "bytes", "multiply-adds", *(("time", "share") if times else ())):
        table.add_column(column, justify="right")
    for s in sites:
        spent = times.get(s.name, 0.0)
        timed = (show.duration(spent), f"{spent / total:.1%}") if times else ()
        table.add_row(
            s.name, s.op, f"{s.size:,}", show.size(4 * s.size),
            f"{s.operations:,}" if s.operations else "?", *timed,
        )  # fmt: skip
    show.console.print(table)
    weights, operations = sum(s.size for s in sites), sum(s.operations for s in sites)
    end = (
        f"; {show.duration(total)} a call of {len(next(iter(rows.values())))} cases"
        if times
        else ""
    )
    show.console.print(
        f"{len(sites)} sites, {weights:,} weights, {operations:,} multiply-adds a case{end}"
    )
