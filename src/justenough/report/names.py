"""Runtimes, choices and variants in words."""

from collections.abc import Mapping
from typing import Any

from justenough.core.subject import ONNXRUNTIME, Runtime
from justenough.errors import InputError

Said = Mapping[str, Any]
BRANDS = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "ncnn": "ncnn"}
DEVICES = {"cuda": "CUDA", "dml": "DirectML", "vulkan": "Vulkan"}
EXACT = "fp32"


def _parsed(text: str) -> Runtime | None:
    try:
        return Runtime.parse(text)
    except InputError:
        return None


def brand(text: str) -> str:
    """A runtime without its precision, as its makers write it.

    >>> brand("onnxruntime"), brand("openvino bf16"), brand("ncnn fp16 vulkan")
    ('ONNX Runtime', 'OpenVINO', 'ncnn Vulkan')
    """
    found = _parsed(text)
    if found is None:
        return text
    return f"{BRANDS[found.name]} {DEVICES.get(found.device, '')}".strip()


def runtime(text: str) -> str:
    """A runtime with its precision where that is not fp32.

    >>> runtime("openvino bf16"), runtime("ncnn fp16 vulkan"), runtime("openvino")
    ('OpenVINO bf16', 'ncnn fp16 Vulkan', 'OpenVINO')
    """
    found = _parsed(text)
    if found is None:
        return text
    precision = "" if found.precision == EXACT else found.precision
    parts = (BRANDS[found.name], precision, DEVICES.get(found.device, ""))
    return " ".join(p for p in parts if p)


def own(text: str) -> str:
    """The precision of a runtime where nothing was picked.

    >>> own("openvino bf16"), own("onnxruntime")
    ('bf16', 'fp32')
    """
    found = _parsed(text)
    return EXACT if found is None else found.precision


def runtime_of(entry: Said | None) -> str:
    """The runtime that a variant's entry names, as it names it."""
    return str((entry or {}).get("runtime", ONNXRUNTIME))


def picked(entry: Said) -> dict[str, int]:
    """How many sites of a variant's entry take each choice, its own precision left out."""
    given = entry.get("picks")
    choices = [c for _, c in given] if given is not None else ["int8" for _ in entry["int8_sites"]]
    return {str(c): choices.count(c) for c in dict.fromkeys(choices)}


def placed(counts: Mapping[str, int], rest: str, total: int) -> str:
    """Which choice stands at how many sites.

    Args:
        counts: Sites of each choice, but for `rest`.
        rest: Precision of all other sites.
        total: Sites of the model.

    >>> placed({"int8": 14}, "bf16", 16), placed({"int8": 16}, "bf16", 16)
    ('int8 at 14 of 16 sites, the rest bf16', 'int8 at all 16 sites')
    >>> placed({"int8": 9, "int4-weight": 3}, "fp32", 16)
    'int8 at 9 and int4-weight at 3 of 16 sites, the rest fp32'
    >>> placed({}, "bf16", 16)
    'bf16 at every site'
    """
    if not counts:
        return f"{rest} at every site"
    some = sum(counts.values())
    if len(counts) == 1 and some == total:
        return f"{next(iter(counts))} at all {total} sites"
    said = [f"{c} at {n}" for c, n in counts.items()]
    text = " and ".join([*([", ".join(said[:-1])] if said[1:] else []), said[-1]])
    return f"{text} of {total} sites" + (f", the rest {rest}" if some < total else "")


def stage(entry: Said, total: int) -> str:
    """A variant as a stage: its runtime and what stands where.

    >>> stage({"runtime": "openvino bf16", "picks": [("a", "int8")]}, 3)
    'OpenVINO int8 at 1 of 3 sites, the rest bf16'
    >>> stage({"runtime": "openvino bf16", "picks": []}, 3)
    'OpenVINO bf16'
    """
    text, counts = runtime_of(entry), picked(entry)
    if not counts:
        return runtime(text) if own(text) != EXACT else f"{runtime(text)} {EXACT}"
    return f"{brand(text)} {placed(counts, own(text), total)}"


def labels(found: Said, total: int) -> dict[str, str]:
    """A short name for each variant, no two alike.

    >>> labels({"a": {"runtime": "openvino bf16", "picks": [("s", "int8")], "form": "nncf"},
    ...         "b": {"runtime": "openvino bf16", "picks": []}}, 2)
    {'a': 'OpenVINO int8 1/2 nncf', 'b': 'OpenVINO bf16'}
    """
    short = {k: _label(v, total) for k, v in found.items()}
    for longer in (_with_calibration, _with_repairs, _with_digest):
        seen = list(short.values())
        short = {
            k: longer(s, k, found[k]) if seen.count(s) > 1 else s for k, s in short.items()
        }  # fmt: skip
    return short


def _label(entry: Said, total: int) -> str:
    text, counts = runtime_of(entry), picked(entry)
    if not counts:
        return stage(entry, total)
    said = " + ".join(f"{c} {n}/{total}" for c, n in counts.items())
    form = str(entry.get("form", ""))
    return " ".join([brand(text), said, *([form] if form in ("inputs", "nncf", "whole") else [])])


def _with_calibration(short: str, _: str, entry: Said) -> str:
    return f"{short} {entry.get('calibration', '')}".strip()


def _with_repairs(short: str, _: str, entry: Said) -> str:
    return " ".join([short, *map(str, entry.get("repairs") or ())])


def _with_digest(short: str, key: str, _: Said) -> str:
    return f"{short} {key.rpartition('-')[2]}"


def runtimes(search: Said) -> list[str]:
    """Every runtime that some variant runs in, ONNX Runtime first."""
    found = dict.fromkeys(runtime_of(v) for v in (search.get("variants") or {}).values())
    return sorted(found, key=lambda r: r != str(ONNXRUNTIME))
