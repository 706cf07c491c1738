"""Writes what a run gives back: the deployable file and the editable variant."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import onnx

from justenough.core.gate import Gate
from justenough.core.subject import Variant
from justenough.deploy.cascade import write_cascade


def write_text(path: Path, text: str) -> None:
    """Write `text` whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def write_model(
    fast: Path, exact: Path, gate: Gate | None, out: Path, metadata: Mapping[str, str]
) -> None:
    """Write the deployable file: `fast` alone, or with a gate the cascade of both."""
    if gate is not None:
        write_cascade(fast, exact, gate, out, metadata=metadata)
        return
    model = onnx.load(str(fast))
    for k, v in metadata.items():
        model.metadata_props.add(key=k, value=v)
    part = out.with_name(out.name + ".part")
    large = model.ByteSize() > 2**31 - 2**20
    onnx.save(model, str(part), save_as_external_data=large, location=out.name + ".data")
    part.replace(out)


def variant_toml(variant: Variant, gate: Gate | None, sites: Mapping[str, str]) -> str:
    """The variant as TOML: calibration, cascade, and the choice of every site."""
    lines = [
        "# The choice at every site of the model, and when the exact model answers instead.",
        f"calibration = {_toml(variant.calibration)}",
        "",
    ]
    if gate is not None:
        fields = {k: v for k, v in asdict(gate).items() if v is not None}
        lines += ["[cascade]", *(f"{k} = {_toml(v)}" for k, v in fields.items()), ""]
    lines += ["[sites]", *(f"{_toml(s)} = {_toml(c)}" for s, c in sites.items())]
    return "\n".join(lines) + "\n"


def _toml(value: str | float) -> str:
    """A TOML value: JSON's, whose escapes TOML shares but for DEL and pairs of surrogates."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
