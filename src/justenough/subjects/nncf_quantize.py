"""Runs NNCF apart: `python -m justenough.subjects.nncf_quantize MODEL ROWS OUT`.

A process of its own, because NNCF brings in several hundred megabytes that a search need not
hold, and may end badly on a graph that it does not know: that has to cost one variant and not
the run.
"""

import errno
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from justenough.errors import InputError

Array = NDArray[Any]
TIMEOUT_S = 1800.0


def attends(model: onnx.ModelProto) -> bool:
    """Whether a softmax weighs the rows of a product, which is what attention is."""
    weights = {n.output[0] for n in model.graph.node if n.op_type == "Softmax"}
    return any(n.op_type == "MatMul" and n.input[0] in weights for n in model.graph.node)


def nncf_quantize(
    model: Path,
    inputs: Mapping[str, Array],
    out: Path,
    *,
    narrow: bool = False,
    transformer: bool = False,
) -> Path:
    """Quantize every operator that NNCF would, for OpenVINO, and write the IR to `out`.

    Of NNCF this takes where it rounds. Its ranges clip (they are means over rows) and its bias
    correction gave nothing (docs/log.md): `openvino_variants.write_excluding` sets the ranges.

    Args:
        model: ONNX file.
        inputs: Calibration rows, (n, ...) each, all of which are used.
        out: `.xml` file to write, its weights beside it.
        narrow: Give every weight 7 bits, for processors that add int8 products in 16 bits.
        transformer: Tell NNCF that it is one, as it asks: it then leaves alone what attention
            cannot bear in int8 and moves scales from activations into weights (SmoothQuant).

    Raises:
        InputError: NNCF failed, crashed or took longer than half an hour.
    """
    rows = out.with_suffix(".rows.npz")
    with rows.open("wb") as f:
        np.savez(f, **{f"input/{k}": v for k, v in inputs.items()})  # type: ignore[arg-type]
    part = out.with_name("part-" + out.name)
    part.unlink(missing_ok=True)
    told = [str(narrow), str(transformer)]
    command = [sys.executable, "-m", __name__, str(model), str(rows), str(part), *told]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise InputError(f"NNCF did not end within {TIMEOUT_S:.0f} s") from None
    finally:
        rows.unlink(missing_ok=True)
    if done.returncode and any(w in done.stderr for w in ("iostream error", "No space left")):
        raise OSError(errno.ENOSPC, "the disk is full", str(out))
    if done.returncode or not part.is_file():
        said = [s for s in done.stderr.splitlines() if s.strip()][-1:] or ["it said nothing"]
        raise InputError(f"NNCF ended with code {done.returncode}: {said[0][:300]}")
    part.with_suffix(".bin").replace(out.with_suffix(".bin"))
    part.replace(out)
    return out


def _run(model: str, rows: str, out: str, narrow: str, transformer: str) -> None:
    import nncf
    import openvino as ov
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    with np.load(rows, allow_pickle=False) as stored:
        inputs = {k.removeprefix("input/"): stored[k] for k in stored.files}
    n = len(next(iter(inputs.values())))
    data = nncf.Dataset([{k: v[i : i + 1] for k, v in inputs.items()} for i in range(n)])
    fix = OverflowFix.ENABLE if narrow == "True" else OverflowFix.DISABLE
    settings = AdvancedQuantizationParameters(
        overflow_fix=fix,
        disable_bias_correction=True,
        activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
    )
    quantized = nncf.quantize(
        ov.Core().read_model(model), data, subset_size=n, advanced_parameters=settings,
        model_type=nncf.ModelType.TRANSFORMER if transformer == "True" else None,
    )  # fmt: skip
    ov.save_model(quantized, out, compress_to_fp16=False)


if __name__ == "__main__":
    _run(*sys.argv[1:6])
