"""Tools with environments of their own: `python compress_foreign.py TOOL MODEL ROWS OUT`.

Run by that environment's Python; needs nothing of this project. ROWS is an `.npz` with an array
for each input of MODEL; OUT is the ONNX file to write.
"""

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

BATCH = 32


def feeds(rows: str) -> Iterator[dict[str, Any]]:
    """The rows, `BATCH` at a time."""
    with np.load(rows, allow_pickle=False) as held:
        inputs = {k: held[k] for k in held.files}
    for i in range(0, len(next(iter(inputs.values()))), BATCH):
        yield {k: v[i : i + BATCH] for k, v in inputs.items()}


def aimet(model: str, rows: str, out: str) -> None:
    """AIMET: a simulation at its defaults (int8 weights and activations), exported as QDQ."""
    import onnx
    from aimet_onnx.quantsim import QuantizationSimModel

    sim = QuantizationSimModel(onnx.load(model))
    sim.compute_encodings(list(feeds(rows)))
    onnx.save(sim.to_onnx_qdq(), out)


def inc(model: str, rows: str, out: str) -> None:
    """Neural Compressor for ONNX: static quantization in QDQ form, else at its defaults."""
    import onnx
    from onnx_neural_compressor import data_reader
    from onnx_neural_compressor.quantization import QuantFormat, config, quantize

    class Reader(data_reader.CalibrationDataReader):
        def __init__(self) -> None:
            self.rewind()

        def get_next(self) -> dict[str, Any] | None:
            return next(self.left, None)

        def rewind(self) -> None:
            self.left = feeds(rows)

    settings = config.StaticQuantConfig(Reader(), quant_format=QuantFormat.QDQ)
    quantize(model, out, settings)
    onnx.save(onnx.load(out), out)  # it leaves the weights beside; one file as the others have


if __name__ == "__main__":
    {"aimet": aimet, "inc": inc}[sys.argv[1]](*sys.argv[2:5])
