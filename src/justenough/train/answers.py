"""What a network answers on pictures held out, and the model card's table of how often rightly."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime  # type: ignore[import-untyped, unused-ignore]
from numpy.typing import NDArray

from justenough.train.held_out import INPUT, Pictures
from justenough.train.scores import Measure, intervals

Array = NDArray[Any]
BATCH = 32


def answer(model: Path, pixels: Array) -> Array:
    """Run an ONNX file on pictures (n, channels, height, width) uint8; logits (n, classes)."""
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    parts = [
        session.run(None, {INPUT: pixels[k : k + BATCH]})[0] for k in range(0, len(pixels), BATCH)
    ]
    return np.concatenate(parts)


def table(model: Path, pictures: Pictures, asked: Mapping[str, Measure]) -> str:
    """The model card's row, in Markdown: each number with its 95 % interval, groups held out.

    Args:
        model: ONNX file.
        pictures: All of them; those held out are answered.
        asked: By name, what is computed from logits and labels.
    """
    kept = pictures.take(np.flatnonzero(pictures.held_out))
    found = intervals(answer(model, kept.pixels), kept.label, kept.group, asked)
    head = ["network", "pictures", "groups", *found]
    cells = [f"{value:.3f} [{low:.3f}, {high:.3f}]" for value, low, high in found.values()]
    groups = len(set(kept.group.tolist()))
    row = [model.stem, f"{len(kept.label):,}", f"{groups:,}", *cells]
    return "".join(f"| {' | '.join(line)} |\n" for line in (head, ["---"] * len(head), row))
