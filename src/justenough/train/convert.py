"""Released weights as an ONNX file: the command that every study of pictures has."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from justenough.train.release import export, load_half


def main(classes: Sequence[str], channels: int, size: tuple[int, int]) -> None:
    """Read `--weights`, write the ONNX file `-o`.

    Args:
        classes: Names of the classes.
        channels: Of the pictures.
        size: (height, width) of the pictures.
    """
    parser = argparse.ArgumentParser(description="turn released weights into an ONNX file")
    parser.add_argument("--weights", type=Path, required=True, help="safetensors file")
    parser.add_argument("-o", "--output", type=Path, required=True, help="ONNX file to write")
    given = parser.parse_args()
    network, said = load_half(given.weights, len(classes), channels)
    export(network, given.output, size, said)
    Console().print(f"{given.output.name}: {given.output.stat().st_size:,} bytes")
