"""The measurements of a search, each written to the run store the moment it is known."""

import errno
import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from justenough.core.cases import CalibrationCases, SearchCases
from justenough.core.contract import Contract
from justenough.core.gate import Gate
from justenough.core.rows import Column
from justenough.core.store import Store
from justenough.core.subject import INT8, ONNXRUNTIME, Outputs, Runtime, Site, Variant
from justenough.cost.table import CostTable, Edge, Local, Unit
from justenough.errors import InputError
from justenough.search.chain import Measured, deferral_for
from justenough.search.families import Family, site_program
from justenough.search.goal import THIS_MACHINE, Goal
from justenough.search.objective import Objective
from justenough.search.program import Program, build_program
from justenough.search.workers import Failed, Job, Workers, open_workers
from justenough.subjects import measure
from justenough.subjects.answering import files_of
from justenough.subjects.local_choices import (
    FORMS,
    LINEAR,
    ROWS_COUPLED,
    local_choices,
    stored_bytes,
    weight_shape,
)
from justenough.subjects.mended import Mended
from justenough.subjects.nncf_quantize import attends, nncf_quantize
from justenough.subjects.onnx_model import OnnxModel, file_bytes, find_sites, load_proto
from justenough.subjects.prepare import prepare
from justenough.subjects.processor import adds_in_16_bits
from justenough.subjects.quantize import CALIBRATIONS, NARROW, Ranges, save_model
from justenough.subjects.repair_statistics import Feed

Array = NDArray[Any]
CALIBRATION_ROWS = 256
NNCF_ROWS = 32
NNCF_ROWS_ATTENTION = 300  # there its own ranges and scales stay, and 32 rows are too few
Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Workbench:
    """A reference, the cases a search may see, and the store that remembers.

    Attributes:
        folder: Where variant files are built; rebuilt when missing.
        batch: Rows of a call, as deployed.
        progress: Told the stage and how much of it is done, 0 to 1.
        goal: What the search is for.
    """

    store: Store
    folder: Path
    reference: OnnxModel
    calibration: CalibrationCases
    search: SearchCases
    contract: Contract
    batch: int
    threads: int
    progress: Progress
    goal: Goal

    @cached_property
    def model(self) -> Any:
        """The prepared graph that variants are made from."""
        return prepare(load_proto(self.reference.path))

    @cached_property
    def prepared(self) -> Path:
        """The prepared graph as a file, for runtimes with quantizers of their own."""
        path = self.folder / "prepared.onnx"
        if not path.is_file():
            self.folder.mkdir(exist_ok=True)
            save_model(self.model, path)
        return path

    @cached_property
    def sites(self) -> tuple[Site, ...]:
        """Sites of the prepared graph."""
        return find_sites(self.model)

    def spent(self, step: str, rows: float) -> None:
        """Count rows that went through a model, as full-equivalent inferences."""
        self.store.put(f"rows/{step}", round(rows))

    @cached_property
    def outputs(self) -> dict[str, Array]:
        """Outputs of the reference on the search rows."""

        def run() -> dict[str, Array]:
            self.spent("reference", self.search.cases.n)
            return self.reference.run(self.search.cases.inputs)

        return self.store.once_arrays("reference/search", run)

    @cached_property
    def gate(self) -> Gate | None:
        """The margin that the contract gives, read off the search rows."""
        return self.contract.gate(self.outputs)

    def raw_score(self, outputs: Outputs) -> Array:
        """What the first clause with a margin looks at, or the first clause: (n, ...)."""
        if self.gate is None:
            return np.asarray(self.contract.clauses[0].values(outputs), np.float64)
        y = np.asarray(outputs[self.gate.output], np.float64)
        return y if self.gate.column is None else y[:, self.gate.column]

    @cached_property
    def calibrated(self) -> measure.Calibration:
        """Ranges by each calibration, from one pass over calibration rows."""

        def run() -> dict[str, Array]:
            rows = measure.rows_of(self.calibration.cases.inputs, CALIBRATION_ROWS)
            found = measure.calibrate(
                self.model, self.sites, rows, batch=self.batch, threads=os.cpu_count() or 1
            )
            self.spent("calibration", len(next(iter(rows.values()))))
            names = sorted(found.sizes)
            return {
                **found.ranges.to_arrays(),
                "sized": np.array(names),
                "sizes": np.array([found.sizes[n] for n in names]),
            }

        got = self.store.once_arrays("calibration", run)
        sizes = dict(zip(got.pop("sized").tolist(), got.pop("sizes").tolist(), strict=True))
        return measure.Calibration(Ranges.from_arrays(got), sizes)

    def file(self, variant: Variant, mended: Mended | None = None) -> Path:
        """The file of `variant`, built when it is not there yet, from `mended` if known."""
        if variant.runtime.name == "ncnn":
            return self._ncnn
        if not variant.picks and not variant.repairs:
            return self.reference.path
        path = self.folder / f"{key(variant)}{'.xml' if variant.form == 'nncf' else '.onnx'}"
        if not path.is_file():
            self.folder.mkdir(exist_ok=True)
            if variant.form == "nncf":
                self._write_nncf(variant, path)
            else:
                part = path.with_suffix(".part")
                (mended or self.mended(variant)).write(self.sites, variant, part)
                part.replace(path)
        return path

    def mended(self, variant: Variant) -> Mended:
        """What the file of `variant` is written from: the model with its repairs."""
        found = Mended(self.model, self.calibrated.ranges, {})
        for name in variant.repairs:
            found = found.repaired(name, self.sites, variant, self.feed)
        return found

    @cached_property
    def feed(self) -> Feed:
        """Calibration rows, as repairs read them."""
        rows = measure.rows_of(self.calibration.cases.inputs, CALIBRATION_ROWS)
        return Feed(rows, self.batch, self.threads)

    def _write_nncf(self, variant: Variant, path: Path) -> None:
        from justenough.subjects.openvino_variants import write_excluding

        narrow = variant.calibration.endswith(NARROW)
        everything = self.folder / f"nncf-everything{NARROW if narrow else ''}.xml"
        if not everything.is_file():
            attention = attends(self.model)
            most = NNCF_ROWS_ATTENTION if attention else NNCF_ROWS
            rows = measure.rows_of(self.calibration.cases.inputs, most)
            nncf_quantize(self.prepared, rows, everything, narrow=narrow, transformer=attention)
            self.spent("nncf", len(next(iter(rows.values()))))
        table = self.calibrated.ranges.of(variant.calibration)
        made = {n.name: n.output[0] for n in self.model.graph.node}
        made |= {i.name: i.name for i in self.model.graph.input}
        ranges = {node: table[t] for node, t in made.items() if t in table}
        write_excluding(everything, self.prepared, self.sites, variant.sites("int8"), ranges, path)

    @cached_property
    def _ncnn(self) -> Path:
        from justenough.subjects.ncnn_convert import convert

        self.folder.mkdir(exist_ok=True)
        shapes = {k: v.shape[1:] for k, v in self.search.cases.inputs.items()}
        return convert(self.reference.path, self.folder / "ncnn", shapes)

    def subject(self, variant: Variant) -> OnnxModel:
        """The file of `variant` in its runtime."""
        return OnnxModel(self.file(variant), self.threads, self.batch, variant.runtime)

    @cached_property
    def workers(self) -> Workers:
        """Where files are run that may crash, several at a time where there are several."""
        self.folder.mkdir(exist_ok=True)
        found = open_workers(self.goal.workers, threads=self.threads, folder=self.folder)
        rows = [v for v in self.search.cases.inputs.values() if isinstance(v, np.ndarray)]
        found.share(*rows)
        return found

    def close(self) -> None:
        """End the workers, if there are any."""
        if "workers" in self.__dict__:
            self.workers.close()

    def answer_all(self, variants: Sequence[Variant]) -> dict[str, str]:
        """Run the search rows through variants side by side; why, by key, where one failed."""
        jobs = [
            self.job(key(v), self.file(v), v.runtime, self.search.cases.inputs)
            for v in {key(v): v for v in variants}.values()
            if self.store.get(f"search/{key(v)}") is None
        ]
        failed: dict[str, str] = {}
        start = time.perf_counter()
        for name, got in self.workers.map(jobs) if jobs else ():
            if isinstance(got, Failed):
                _refuse_full_disk(got)
                failed[name] = f"{name} {got.kind}: {got.message}"
                continue
            self.spent(f"search/{name}", self.search.cases.n)
            seconds, start = time.perf_counter() - start, time.perf_counter()
            self.store.put(f"search/{name}", sorted(got), got, seconds=seconds)
        return failed

    def probe(self, variant: Variant) -> None:
        """Run one batch apart, for a runtime that may end the process it is in.

        Raises:
            InputError: It failed or crashed.
        """
        if variant.runtime == ONNXRUNTIME:
            return
        rows = next(measure.batches(self.search.cases.inputs, self.batch))
        job = self.job(key(variant), self.file(variant), variant.runtime, rows)
        for _, got in self.workers.map([job]):
            if isinstance(got, Failed):
                _refuse_full_disk(got)
                raise InputError(f"{variant.runtime} {got.kind}: {got.message}")

    def job(self, name: str, path: Path, runtime: Runtime, inputs: Mapping[str, Column]) -> Job:
        """Running a file on rows, as a job for the workers."""
        local = self.goal.workers
        each = int(local) if local.isdigit() else (os.cpu_count() or 1)
        at_once = max(1, (os.cpu_count() or 1) // self.threads // max(each, 1))
        arguments = {
            "files": files_of(path), "name": path.name, "runtime": runtime, "inputs": inputs,
            "threads": self.threads, "batch": self.batch, "at_once": at_once,
        }  # fmt: skip
        return Job(name, "justenough.subjects.answering:answer", arguments)

    def answers(self, variant: Variant) -> dict[str, Array]:
        """Outputs of the file of `variant` on the search rows.

        Raises:
            InputError: Its runtime failed or crashed on them.
        """
        failed = self.answer_all([variant])
        if failed:
            raise InputError(failed[key(variant)])
        return self.store.arrays(f"search/{key(variant)}")

    def measured(self, variant: Variant, seconds: float, gate_s: float = 0.0) -> Measured:
        """What the search rows say of `variant`, which takes `seconds` per case."""
        got = self.answers(variant)
        change = (self.raw_score(got) - self.raw_score(self.outputs)).reshape(
            self.search.cases.n, -1
        )
        noise = float((np.asarray(change, np.float64) ** 2).sum(1).mean())
        if self.gate is None:
            return Measured(key(variant), seconds, None, None, noise)
        kept = self.gate.signed(self.outputs, got)
        return Measured(key(variant), seconds, kept, self.gate.margin(got), noise, gate_s)

    @property
    def margins(self) -> Array | None:
        """Signed margins of the reference on the search rows, or None without a gate."""
        return None if self.gate is None else self.gate.signed(self.outputs, self.outputs)

    @property
    def rows_per_unit(self) -> float:
        """Mean number of search rows in a unit."""
        return self.search.cases.n / self.search.cases.n_units

    def best_calibration(self) -> dict[str, Any]:
        """The calibration that makes all-int8 defer least, and what each would defer.

        Judged by deferral and not by decibels: clipping lowers the noise and makes confident
        flips, which no margin catches. Without a margin, by noise.
        """

        def run() -> dict[str, Any]:
            everything = measure.all_int8(self.sites)
            by = "deferral" if self.gate is not None else "noise"
            found: dict[str, dict[str, Any]] = {}

            def best_of(names: Sequence[str]) -> str:
                variants = [Variant(everything.picks, c) for c in names]
                self.answer_all(variants)
                for k, name in enumerate(names):
                    self.progress("calibration", k / len(names))
                    m = self.measured(variants[k], 0.0)
                    found[name] = {"noise": m.noise, "deferral": self._deferral(m)}
                return min(found, key=lambda c: (found[c][by], found[c]["noise"]))

            # What does not fit 16 bits is cut off whatever the ranges: that is looked at first.
            cut = (NARROW, "") if adds_in_16_bits() else ("",)
            first = best_of([CALIBRATIONS[0] + c for c in cut])
            narrow = NARROW if first.endswith(NARROW) else ""
            best = best_of([c + narrow for c in CALIBRATIONS[1:]])
            return {"best": best, "by": by, "found": found}

        got: dict[str, Any] = self.store.once("calibrations", run)
        return got

    def _deferral(self, m: Measured) -> float | None:
        if self.margins is None:
            return None
        bound = self.contract.clauses[0].bound
        allowed = min(max(1 - bound, 1e-4), 0.1)
        return deferral_for(self.margins, m, 0.25 * allowed / self.rows_per_unit)

    @cached_property
    def objective(self) -> Objective | None:
        """What is made small; None for seconds measured here."""
        if self.goal.minimise == "latency" and self.goal.target == THIS_MACHINE:
            return None
        layers = measure.layers_of(self.model, self.sites)
        return Objective(self.goal, layers, self.batch, file_bytes(self.reference.path))

    @cached_property
    def local(self) -> dict[str, tuple[str, ...]]:
        """Local choices of ONNX Runtime that are open at each site."""
        usual = {s.name: {c.name for c in s.choices} for s in self.sites}
        return {s: tuple(c for c in cs if c not in usual[s]) for s, cs in self.choices.items()}

    @cached_property
    def choices(self) -> dict[str, tuple[str, ...]]:
        """Choices that can be had at each site in ONNX Runtime, the exact one first."""
        return open_choices(self.model, self.sites, self.batch)

    @cached_property
    def worthwhile(self) -> dict[str, tuple[str, ...]]:
        """Local choices that the objective may gain by, and those that are pinned, by site."""
        pins = dict(self.goal.pins)
        if self.objective is None:
            faster = {(c.site, c.choice) for c in self.cost_table.local if c.change_s < 0}
        else:
            known = self.objective.runs(ONNXRUNTIME)
            faster = {(s, c) for s, cs in self.local.items() for c in cs if c in known}
        return {
            s: tuple(c for c in cs if (s, c) in faster or pins.get(s) == c)
            for s, cs in self.local.items()
        }

    def program(self, family: Family) -> Program:
        """The program of a family, from what its sites cost at the target's batch and threads."""
        full = family.form == "full"
        if self.objective is not None:
            return self.objective.program(
                {s.name: (INT8.name, *(self.worthwhile[s.name] if full else ()))
                 for s in self.sites},
                self._stored,
            )  # fmt: skip
        if full:
            return build_program(self.cost_table)
        if family.form == "whole":
            return build_program(self._cost_table("profile/whole", {}, "whole"))

        def run() -> dict[str, Any]:
            from justenough.subjects.openvino_variants import seconds_by_site

            self.progress(f"profile {family.name}", 0.0)
            everything = self.everything(family)
            files = {"float": self.prepared, "int8": self.file(everything)}
            got: dict[str, Any] = {
                name: seconds_by_site(
                    path, self.sites, self.one_batch,
                    threads=self.threads, precision=family.runtime.precision,
                )
                for name, path in files.items()
            }  # fmt: skip
            self.spent(f"profile/{family.name}", 8 * self.batch)
            return got

        got = self.store.once(f"profile/{family.name}", run)
        return site_program(got["float"], got["int8"], sum(got["float"].values()))

    def _stored(self, site: str, choice: str) -> int:
        """Bytes of the weight of a site under a choice."""
        shape = self._shapes[site]
        if shape is None:
            return 0
        if choice != INT8.name:
            return stored_bytes(shape, choice)
        return int(np.prod(shape, dtype=np.int64)) + 5 * shape[0]  # a scale and a zero a channel

    @cached_property
    def _shapes(self) -> dict[str, tuple[int, ...] | None]:
        return {s.name: weight_shape(self.model, s) for s in self.sites}

    @property
    def one_batch(self) -> dict[str, Array]:
        """Rows of one call."""
        return next(measure.batches(self.search.cases.inputs, self.batch))

    def everything(self, family: Family) -> Variant:
        """The boldest variant of a family: int8 at every site that is not pinned."""
        pins = dict(self.goal.pins)
        picks = {s.name: pins.get(s.name, "int8") for s in self.sites}
        best = self.store.get("calibrations")["best"] if family.form != "plain" else "minmax"
        return family.variant({} if family.form == "plain" else picks, best)

    @cached_property
    def cost_table(self) -> CostTable:
        """Seconds per call of nodes, conversions and local choices in ONNX Runtime."""
        # 16-bit weights are widened when the file loads, and a Conv's are too: they run as fp32.
        computed = {s.name for s in self.sites if s.op in LINEAR}
        by_choice: dict[str, list[str]] = {}
        for site, open_here in self.local.items():
            for c in open_here:
                if FORMS[c].integer and site in computed:
                    by_choice.setdefault(c, []).append(site)
        found = self._cost_table("profile", by_choice, "full")
        seen = {(c.site, c.choice) for c in found.local}
        more = [Local(s, c, 0.0) for s, c in self.goal.pins
                if c in self.local.get(s, ()) and (s, c) not in seen]  # fmt: skip
        return replace(found, local=(*found.local, *more))

    def _cost_table(self, step: str, by_choice: Mapping[str, list[str]], form: str) -> CostTable:
        """The cost table of a form of file, recorded as `step`."""

        def run() -> dict[str, Any]:
            self.progress("profile", 0.0)
            table = measure.cost_table(
                self.model, self.sites, self.calibrated, self.one_batch,
                threads=self.threads, local=by_choice, form=form,
            )  # fmt: skip
            files = 3 + len(by_choice)
            self.spent(step, files * measure.PROFILED_RUNS * self.batch)
            return {
                "units": [(u.name, u.site, u.parents, u.fp32_s, u.int8_s) for u in table.units],
                "edges": [
                    (e.producer, e.consumers, e.quantize_s, e.dequantize_s, e.pinned_float)
                    for e in table.edges
                ],
                "fp32_s": table.fp32_s,
                "local": [(c.site, c.choice, c.change_s) for c in table.local],
            }

        got = self.store.once(step, run)
        return CostTable(
            tuple(Unit(n, s, tuple(p), f, q) for n, s, p, f, q in got["units"]),
            tuple(Edge(p, tuple(c), q, d, f) for p, c, q, d, f in got["edges"]),
            got["fp32_s"],
            tuple(Local(s, c, change) for s, c, change in got["local"]),
        )


def open_choices(model: Any, sites: Sequence[Site], batch: int) -> dict[str, tuple[str, ...]]:
    """Choices that can be had at each site of a prepared model in ONNX Runtime, fp32 first."""
    found = local_choices(model, sites)
    # What int8-dynamic says of a row depends on the rows beside it. In calls of more than
    # one a certificate would hold for that company only, which nobody can keep.
    out = ROWS_COUPLED if batch > 1 else frozenset()
    return {
        s.name: (*(c.name for c in s.choices),
                 *(c.name for c in found[s.name] if c.name not in out))
        for s in sites
    }  # fmt: skip


def key(variant: Variant) -> str:
    """A short name of `variant`: runtime, form, choices, calibration, and a digest."""
    digest = hashlib.sha256(repr(variant).encode()).hexdigest()[:8]
    words = [] if variant.runtime == ONNXRUNTIME else str(variant.runtime).split()
    words += [] if variant.form in ("full", "plain") else [variant.form]
    choices = dict.fromkeys(c for _, c in variant.picks)
    words += [f"{c}-{len(variant.sites(c))}" for c in choices]
    words += [variant.calibration] if variant.picks else []
    return "-".join([*words, *variant.repairs, digest])


def _refuse_full_disk(failed: Failed) -> None:
    """A full disk ends the call and not the candidate: with room the next call has it again."""
    if "No space left" in failed.message:
        raise OSError(errno.ENOSPC, "the disk is full")
