"""Runs a cascade as two stages, for runtimes that cannot hold it in one file."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from justenough.core.gate import Gate
from justenough.deploy.cascade import DEFERRED
from justenough.errors import InputError

Array = NDArray[Any]
Stage = Callable[[Mapping[str, Array]], dict[str, Array]]


@dataclass(frozen=True)
class CascadeRunner:
    """A fast stage answers every row, an exact stage answers the deferred rows again.

    A stage maps named inputs (n, ...) to named outputs (n, ...). The runner is itself a stage,
    so runners nest: `CascadeRunner(int8, CascadeRunner(bf16, fp32, inner), outer)`.

    Attributes:
        fast: Answers all rows; takes the inputs named in `fast_inputs`, or all.
        exact: Answers the deferred rows; never called when there are none.
        gate: Decides on the fast stage's outputs which rows are deferred.
        outputs: Names to return; None returns all outputs of the fast stage.
        fast_inputs: Names that the fast stage takes; None hands it every input.
        whole_batch: Hand the exact stage every row and use the deferred ones, because it has
            a fixed batch.

    >>> cheap = lambda inputs: {"y": np.round(inputs["x"])}
    >>> exact = lambda inputs: {"y": inputs["x"]}
    >>> runner = CascadeRunner(cheap, exact, Gate("y", threshold=0.5))
    >>> answers, deferred = runner.run({"x": np.array([[0.1, 2.2], [1.4, 0.6]])})
    >>> answers["y"].tolist(), deferred.tolist()
    ([[0.0, 2.0], [1.4, 0.6]], [False, True])
    """

    fast: Stage
    exact: Stage
    gate: Gate
    outputs: tuple[str, ...] | None = None
    fast_inputs: tuple[str, ...] | None = None
    whole_batch: bool = False

    @staticmethod
    def load(
        fast: Path,
        exact: Path,
        gate: Gate,
        *,
        session_options: ort.SessionOptions | None = None,
        providers: Sequence[str] = ("CPUExecutionProvider",),
    ) -> "CascadeRunner":
        """Open two ONNX files in ONNX Runtime; answers equal those of `write_cascade`'s file.

        Args:
            fast: File of the fast model; its inputs and outputs as `write_cascade` wants them.
            exact: File of the reference.
            gate: Decides which rows are deferred.
            session_options: Threads and other settings of both sessions.
            providers: Execution providers of both sessions, the preferred one first.
        """
        cheap, reference = (
            ort.InferenceSession(path, session_options, providers=list(providers))
            for path in (fast, exact)
        )
        inner = reference.get_modelmeta().custom_metadata_map.get(DEFERRED)
        return CascadeRunner(
            _stage(cheap),
            _stage(reference),
            gate,
            tuple(o.name for o in reference.get_outputs() if o.name != inner),
            tuple(i.name for i in cheap.get_inputs()),
            any(isinstance(size, int) for i in reference.get_inputs() for size in i.shape[:1]),
        )

    def run(
        self, inputs: Mapping[str, Array], *, threshold: float | None = None
    ) -> tuple[dict[str, Array], NDArray[np.bool_]]:
        """Answer all rows.

        Args:
            inputs: Arrays (n, ...) by input name; an array without axes belongs to every row.
            threshold: Replaces the gate's, in the unit of its output.

        Returns:
            Outputs (n, ...) by name, and which rows (n,) the exact stage answered.

        Raises:
            InputError: A stage does not give an output that is needed.
        """
        gate = self.gate if threshold is None else replace(self.gate, threshold=threshold)
        wanted = inputs if self.fast_inputs is None else {n: inputs[n] for n in self.fast_inputs}
        answers = self.fast(wanted)
        _need("fast", answers, (gate.output, *(self.outputs or ())))
        with np.errstate(invalid="ignore", over="ignore"):  # infinities are unsure, not an error
            deferred = gate.deferred(answers)
        result = {name: answers[name] for name in self.outputs or answers}
        if not deferred.any():
            return result, deferred
        rows = slice(None) if self.whole_batch else deferred
        better = self.exact({n: x[rows] if x.ndim else x for n, x in inputs.items()})
        _need("exact", better, result)
        for name, answer in result.items():
            result[name] = answer.copy()  # a stage may hand out memory that it owns
            result[name][deferred] = better[name][deferred] if self.whole_batch else better[name]
        return result, deferred

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Answer all rows, as a stage does: outputs (n, ...) by name."""
        return self.run(inputs)[0]


def _need(stage: str, answers: Mapping[str, Array], names: Iterable[str]) -> None:
    for name in names:
        if name not in answers:
            raise InputError(
                f"the {stage} stage gave no output {name!r}; it gave: {', '.join(answers)}"
            )


def _stage(session: ort.InferenceSession) -> Stage:
    names = [o.name for o in session.get_outputs()]

    def answer(inputs: Mapping[str, Array]) -> dict[str, Array]:
        return dict(zip(names, session.run(names, dict(inputs)), strict=True))

    return answer
