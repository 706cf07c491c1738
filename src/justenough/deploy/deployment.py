"""Deployments whose stages need more than one runtime: `cascade.toml` and the files beside it.

    format = "justenough cascade 1"
    outputs = ["logits"]

    [[stage]]
    file = "stage-1.xml"
    runtime = "openvino bf16"
    gate = { output = "logits", kind = "top_k", k = 1, axis = 1, threshold = 0.25 }

    [[stage]]
    file = "stage-2.onnx"
    runtime = "onnxruntime"

Each stage but the last has a gate: rows that it finds unsure go on to the next stage. One stage
alone is a variant in a runtime of its own.
"""

import hashlib
import json
import shutil
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from justenough.core.cases import Cases
from justenough.core.gate import Gate
from justenough.core.rows import Column
from justenough.core.subject import Runtime
from justenough.deploy.runner import CascadeRunner
from justenough.errors import InputError
from justenough.subjects.onnx_model import OnnxModel, load_proto, weights_beside
from justenough.subjects.sessions import described, first_line

Array = NDArray[Any]
FORMAT = "justenough cascade 1"
NAME = "cascade.toml"
DEFERRED = "deferred"
FLOAT32_MAX = float(np.finfo(np.float32).max)
SUFFIXES = (".onnx", ".xml", ".param")


@dataclass(frozen=True)
class Stage:
    """One model of a deployment.

    Attributes:
        file: Name of a file in the deployment's folder.
        runtime: What runs it.
        gate: Which rows go on to the next stage; None for the last one.
    """

    file: str
    runtime: Runtime
    gate: Gate | None = None


@dataclass(frozen=True)
class Deployment:
    """A `cascade.toml` as a subject: it answers cases as an ONNX file does.

    Attributes:
        path: The file.
        threads, batch: As for `OnnxModel`.
    """

    path: Path
    threads: int = 1
    batch: int = 32

    @property
    def name(self) -> str:
        """File name."""
        return self.path.name

    @cached_property
    def table(self) -> dict[str, Any]:
        """What the file says, checked."""
        return _read(self.path)

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """The stages, cheapest first."""
        return tuple(
            Stage(s["file"], Runtime.parse(s["runtime"]), gate_in(s.get("gate"), self.path.name))
            for s in self.table["stage"]
        )

    @cached_property
    def models(self) -> tuple[OnnxModel, ...]:
        """A model for each stage."""
        folder = self.path.parent
        return tuple(
            OnnxModel(folder / s.file, self.threads, self.batch, s.runtime) for s in self.stages
        )

    @cached_property
    def sha256(self) -> str:
        """Digest of `cascade.toml` and of every file that it names."""
        h = hashlib.sha256(self.path.read_bytes())
        for model in self.models:
            h.update(bytes.fromhex(model.sha256))
        return h.hexdigest()

    @property
    def input_names(self) -> tuple[str, ...]:
        """Inputs of the last stage, the reference."""
        return self.models[-1].input_names

    @property
    def output_names(self) -> tuple[str, ...]:
        """Outputs that every stage gives."""
        return tuple(self.table["outputs"])

    @property
    def fixed_batch(self) -> int | None:
        """The batch size baked into a stage, or None when it is free."""
        return max((m.fixed_batch for m in self.models if m.fixed_batch), default=None)

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that belongs to it, `cascade.toml` first."""
        named = [p for m in self.models for p in (m.path, *weights_beside(m.path))]
        return (self.path, *dict.fromkeys(named))

    @cached_property
    def runner(self) -> CascadeRunner | OnnxModel:
        """The stages nested into one."""
        last: Any = self.models[-1]
        self._check_faces()
        for stage, model in zip(self.stages[-2::-1], self.models[-2::-1], strict=True):
            assert stage.gate is not None
            answer = last.run if isinstance(last, OnnxModel) else last
            last = CascadeRunner(
                model.run, answer, stage.gate, self.output_names, model.input_names
            )
        found: CascadeRunner | OnnxModel = last
        return found

    def _check_faces(self) -> None:
        """Refuse stages whose answers cannot stand for one another."""
        taken = set(self.models[-1].input_names)
        wanted = _faces(self.models[-1])
        for model in self.models:
            more, given = sorted(set(model.input_names) - taken), _faces(model)
            if more:
                raise InputError(
                    f"{self.name}: {model.name} takes {more}, which the last stage does not"
                )
            for name in self.output_names:
                if name not in given:
                    raise InputError(
                        f"{self.name}: {model.name} has no output {name!r}; it has: "
                        f"{', '.join(given)}"
                    )
                if not _alike(given[name], wanted.get(name, given[name])):
                    raise InputError(
                        f"{self.name}: output {name!r} is {given[name]} in {model.name} and "
                        f"{wanted[name]} in the last stage; they have to be alike"
                    )

    @property
    def deferred_name(self) -> str:
        """Under which `run` says what was deferred: `deferred`, unless an output has that name."""
        name = DEFERRED
        while name in self.output_names:
            name += "_"
        return name

    def answer(self, inputs: Mapping[str, Array]) -> tuple[dict[str, Array], Array]:
        """One call: outputs, and which rows (n,) the first stage passed on."""
        if isinstance(self.runner, OnnxModel):
            found = self.runner.run(inputs)
            return {k: found[k] for k in self.output_names}, np.zeros(len(_first(found)), bool)
        try:
            return self.runner.run(inputs)
        except InputError:
            raise
        except (IndexError, ValueError) as e:  # numpy's, of axes and columns that are not there
            raise InputError(
                f"{self.name} has a gate that does not fit its stage's output: {first_line(e)}"
            ) from e

    def run(self, inputs: Mapping[str, Column]) -> dict[str, Array]:
        """Answer `inputs` (n, ...) a batch at a time, as deployed."""
        step = self.fixed_batch or self.batch
        n = len(next(iter(inputs.values())))
        parts = [
            self.answer({k: np.asarray(v[i : i + step]) for k, v in inputs.items()})
            for i in range(0, n, step)
        ]
        out = {k: np.concatenate([p[0][k] for p in parts]) for k in self.output_names}
        return {**out, self.deferred_name: np.concatenate([p[1] for p in parts])}

    def check_cases(self, cases: Cases) -> Cases:
        """As `OnnxModel.check_cases`, by the last stage."""
        return self.models[-1].check_cases(cases)

    def described(self) -> list[dict[str, Any]]:
        """File, digest and runtime of each stage, for a certificate."""
        return [
            {"file": s.file, "sha256": m.sha256, "runtime": described(s.runtime)}
            for s, m in zip(self.stages, self.models, strict=True)
        ]


Loaded = OnnxModel | Deployment


def load(path: Path | str, threads: int = 1, batch: int = 32) -> Loaded:
    """Load what a run gives back, an ONNX file or a `cascade.toml`, as a subject.

    Args:
        path: File; untrusted.
        threads: Threads that one session uses.
        batch: Rows of one call.

    Raises:
        InputError: Missing or damaged, or it names files outside its own folder.
    """
    path = Path(path)
    if path.suffix == ".toml":
        found = Deployment(path, threads, batch)
        for model in found.models:
            if model.path.suffix == ".xml" and not _inside(model.path.with_suffix(".bin")):
                raise InputError(
                    f"{model.name} needs the weights file beside it, with suffix .bin"
                )
            if model.path.suffix == ".onnx":
                load_proto(model.path)
        return found
    load_proto(path)
    return OnnxModel(path, threads, batch)


def write_deployment(
    stages: Sequence[tuple[Path, Runtime, Gate | None]],
    outputs: Sequence[str],
    folder: Path,
    metadata: Mapping[str, str],
) -> Path:
    """Write `cascade.toml` into `folder`, with copies of the stages' files.

    Args:
        stages: File, runtime and gate of each, cheapest first; the last one has no gate.
        outputs: Names of the outputs.
        folder: Made when it is not there.
        metadata: Further entries.
    """
    folder.mkdir(exist_ok=True)
    lines = [f"format = {_toml(FORMAT)}", f"outputs = {_toml(list(outputs))}"]
    lines += [f"{_toml(k)} = {_toml(v)}" for k, v in metadata.items()]
    copied: dict[Path, str] = {}
    for k, (path, runtime, gate) in enumerate(stages, 1):
        kind = path.suffix if path.suffix in SUFFIXES else ".onnx"  # a reference has any name
        name = copied.get(path) or f"stage-{k}{kind}"
        if path not in copied:
            _copy(path, folder / name)
            copied[path] = name
        lines += ["", "[[stage]]", f"file = {_toml(name)}", f"runtime = {_toml(str(runtime))}"]
        if gate is not None:
            held = {f: v for f, v in asdict(gate).items() if v is not None}
            inner = ", ".join(f"{f} = {_toml(v)}" for f, v in held.items())
            lines.append(f"gate = {{ {inner} }}")
    out = folder / NAME
    part = out.with_name(NAME + ".part")
    part.write_text("\n".join(lines) + "\n", encoding="utf-8")
    part.replace(out)
    return out


def _copy(path: Path, to: Path) -> None:
    if to.suffix != ".onnx":
        for beside in weights_beside(path):
            shutil.copyfile(beside, to.with_suffix(beside.suffix))
    elif weights_beside(path):
        # Weights apart are named inside the file, so that a copy needs a name of its own.
        to.with_name(to.name + ".data").unlink(missing_ok=True)  # of a run that was killed here
        onnx.save(
            onnx.load(str(path)), str(to), save_as_external_data=True, location=to.name + ".data"
        )
        return
    shutil.copyfile(path, to)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(
            f"no deployment at {str(path)!r}; give the cascade.toml of a compress run"
        )
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as e:  # also of numbers and nesting beyond all use
        raise InputError(f"{path.name} is not TOML: {e}") from e
    stages = table.get("stage")
    if table.get("format") != FORMAT or not isinstance(stages, list) or not stages:
        raise InputError(
            f"{path.name} is no deployment; it needs format = {FORMAT!r} and [[stage]]"
        )
    outputs = table.get("outputs")
    if not isinstance(outputs, list) or not outputs or not _words(outputs):
        raise InputError(f"{path.name} gives outputs as {outputs!r}; a list of names is needed")
    for k, stage in enumerate(stages, 1):
        _check_stage(path, stage, k)
        if (k < len(stages)) != ("gate" in stage):
            raise InputError(f"{path.name}: every stage but the last has a gate, and only those")
    return table


def _check_stage(path: Path, stage: Any, k: int) -> None:
    if not isinstance(stage, dict):
        raise InputError(f"{path.name}: stage {k} is not a table")
    name, runtime = stage.get("file"), stage.get("runtime")
    if not isinstance(name, str) or not isinstance(runtime, str):
        raise InputError(f"{path.name}: stage {k} needs a file and a runtime")
    if Path(name).name != name or not _inside(path.parent / name):
        raise InputError(f"{path.name}: stage {k} names {name!r}, which is not a file beside it")
    if Path(name).suffix not in SUFFIXES:
        raise InputError(
            f"{path.name}: stage {k} names {name!r}; a stage is a file of the kind "
            f"{', '.join(SUFFIXES)}"
        )


def gate_in(held: Any, file: str) -> Gate | None:
    """The gate that a table of the untrusted file named `file` says; None where there is none."""
    if held is None:
        return None
    known = {f.name for f in fields(Gate)}
    if not isinstance(held, dict) or set(held) - known or not isinstance(held.get("output"), str):
        raise InputError(f"{file} has a gate {held!r}; it takes: {', '.join(sorted(known))}")
    real = [held[k] for k in ("cut", "threshold") if k in held]
    whole = [held[k] for k in ("k", "axis", "column") if k in held]
    sound = all(is_number(v) for v in real) and all(
        type(v) is int and abs(v) < 2**31 for v in whole
    )
    if not sound or held.get("k", 1) < 1:
        raise InputError(
            f"{file} has a gate {held!r}; k is a whole number from 1, axis and column are whole, "
            "cut and threshold are finite"
        )
    if held.get("kind", "top_k") not in ("top_k", "cut"):
        raise InputError(f"{file} has a gate of kind {held['kind']!r}; known: top_k, cut")
    return Gate(**held)


def is_number(value: Any) -> bool:
    """Whether an entry of an untrusted file is a number that float32 holds."""
    return type(value) in (int, float) and abs(value) <= FLOAT32_MAX


def _words(held: list[Any]) -> bool:
    return all(isinstance(o, str) for o in held)


def _inside(path: Path) -> bool:
    """Whether a file is there, and in that very folder: a link may lead out of it."""
    return path.is_file() and path.resolve().parent == path.parent.resolve()


def _faces(model: OnnxModel) -> dict[str, tuple[str, tuple[int | None, ...]]]:
    """Type and sizes of each output, None where a size is free."""
    return {
        o.name: (o.type, tuple(s if isinstance(s, int) else None for s in o.shape))
        for o in model.session.get_outputs()
    }


def _alike(a: tuple[str, Sequence[int | None]], b: tuple[str, Sequence[int | None]]) -> bool:
    """Whether two outputs have one type, and one size at every axis but the rows'."""
    sizes = zip(a[1][1:], b[1][1:], strict=False)
    same = all(m == n or m is None or n is None for m, n in sizes)
    return a[0] == b[0] and len(a[1]) == len(b[1]) and same


def _toml(value: Any) -> str:
    """A TOML value: JSON's, whose escapes TOML shares but for DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _first(arrays: Mapping[str, Array]) -> Array:
    return next(iter(arrays.values()))
