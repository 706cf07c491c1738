"""Writes what a run gives back."""

from collections.abc import Mapping
from pathlib import Path

import onnx

from justenough.core.gate import Gate
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
