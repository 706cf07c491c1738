"""What answers cases, the sites at which it can be made cheaper, and the choices open there."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from justenough.errors import InputError

Array = NDArray[Any]
Outputs = Mapping[str, Array]


@dataclass(frozen=True)
class Choice:
    """One way to store and compute what a site holds.

    Attributes:
        name: The field's own word: `fp32`, `int8`.
        bits: Stored bits of a weight, without the scales.
    """

    name: str
    bits: int


FP32 = Choice("fp32", 32)
INT8 = Choice("int8", 8)


@dataclass(frozen=True)
class Site:
    """A named place of a subject that can be made cheaper on its own.

    Attributes:
        name: Name of its first node.
        op: Operator type, `Conv`, `MatMul` or `Gemm`.
        nodes: Names of the nodes that must change together (they share a weight).
        size: Weights held.
        operations: Multiply-adds per case; 0 where shapes are unknown.
        choices: The ways open here, the exact one first.
    """

    name: str
    op: str
    nodes: tuple[str, ...]
    size: int
    operations: int
    choices: tuple[Choice, ...] = (FP32, INT8)

    def choice(self, name: str) -> Choice:
        """Return the choice called `name`, or say which names exist.

        >>> Site("fc", "Gemm", ("fc",), 10, 10).choice("int9")
        Traceback (most recent call last):
        justenough.errors.InputError: site 'fc' has no choice 'int9'; it has: fp32, int8
        """
        for c in self.choices:
            if c.name == name:
                return c
        known = ", ".join(c.name for c in self.choices)
        raise InputError(f"site {self.name!r} has no choice {name!r}; it has: {known}")


@dataclass(frozen=True)
class Runtime:
    """A program that runs files, on a device, and its arithmetic where nothing is quantized.

    Attributes:
        name: `onnxruntime`, `openvino` or `ncnn`.
        precision: `fp32`, `bf16` or `fp16`: what a site without an integer choice runs in.
        device: `cpu`, `cuda`, `dml` or `vulkan`.

    >>> str(Runtime()), str(Runtime("openvino", "bf16"))
    ('onnxruntime', 'openvino bf16')
    >>> Runtime.parse("ncnn fp16 vulkan")
    Runtime(name='ncnn', precision='fp16', device='vulkan')
    """

    name: str = "onnxruntime"
    precision: str = "fp32"
    device: str = "cpu"

    def __str__(self) -> str:
        parts = (self.name, self.precision, self.device)
        return " ".join(p for p in parts if p not in ("fp32", "cpu"))

    @staticmethod
    def parse(text: str) -> "Runtime":
        """The runtime that `str` writes, its words in any order after the name."""
        name, *words = text.split() or [""]
        precisions = [w for w in words if w in PRECISIONS]
        devices = [w for w in words if w in DEVICES]
        if name not in RUNTIMES or len(words) != len(precisions) + len(devices):
            raise InputError(
                f"{text!r} is no runtime; it is one of {', '.join(RUNTIMES)}, then if need be one "
                f"of {', '.join(PRECISIONS)} and one of {', '.join(DEVICES)}"
            )
        return Runtime(name, (precisions or ["fp32"])[0], (devices or ["cpu"])[0])


FORMS = ("full", "whole", "inputs", "nncf", "plain")
RUNTIMES = ("onnxruntime", "openvino", "ncnn")
PRECISIONS = ("fp32", "bf16", "fp16")
DEVICES = ("cpu", "cuda", "dml", "vulkan")
ONNXRUNTIME = Runtime()


@dataclass(frozen=True)
class Variant:
    """A choice by name for some sites, and what else makes its file; other sites stay as they are.

    Attributes:
        picks: (site, choice) where the choice is not the runtime's own precision.
        calibration: How the ranges of activations were found.
        runtime: What runs the file.
        form: Where values are rounded: `full`, every tensor between int8 nodes, as ONNX
            Runtime wants it; `whole`, the same with activations such as SiLU in int8;
            `inputs`, what int8 sites read and nothing else; `nncf`, where NNCF puts it for
            OpenVINO; `plain`, nowhere.
        repairs: What was done to the weights before they were rounded, in order.
    """

    picks: tuple[tuple[str, str], ...] = ()
    calibration: str = "minmax"
    runtime: Runtime = ONNXRUNTIME
    form: str = "full"
    repairs: tuple[str, ...] = ()

    @staticmethod
    def of(
        picks: Mapping[str, str],
        calibration: str = "minmax",
        runtime: Runtime = ONNXRUNTIME,
        form: str = "full",
        repairs: tuple[str, ...] = (),
    ) -> "Variant":
        """Build a variant whose order does not matter: equal picks, equal hash."""
        chosen = sorted((s, c) for s, c in picks.items() if c != runtime.precision)
        return Variant(tuple(chosen), calibration, runtime, form, repairs)

    def at(self, site: str) -> str:
        """Name of the choice at `site`; the runtime's precision where nothing was picked."""
        return dict(self.picks).get(site, self.runtime.precision)

    def sites(self, choice: str) -> tuple[str, ...]:
        """Names of the sites that take `choice`."""
        return tuple(s for s, c in self.picks if c == choice)


class Subject(Protocol):
    """Anything that answers cases. A cascade is a subject again."""

    @property
    def name(self) -> str:
        """Short name for reports."""

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the arrays it takes, each with a row per case."""

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the arrays it answers with, each with a row per case."""

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Answer inputs by name, each (n, ...), with outputs by name, each (n, ...)."""


def centred_power(x: Array) -> float:
    """Mean square of `x` (n, ...) around its mean over the rows, in squared units of `x`."""
    x = np.asarray(x, np.float64).reshape(len(x), -1)
    return float(((x - x.mean(0)) ** 2).sum(1).mean())
