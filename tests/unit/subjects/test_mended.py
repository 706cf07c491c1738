"""Repaired files come again to the byte, and weights of few bits get GPTQ's codes."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.parser import parse_model

from justenough.core.subject import Variant
from justenough.errors import InputError
from justenough.subjects.measure import calibrate
from justenough.subjects.mended import Mended, local_rounding
from justenough.subjects.onnx_model import OnnxModel, find_sites
from justenough.subjects.prepare import prepare
from justenough.subjects.repair_statistics import Feed

Array = NDArray[Any]
PICKS = {"a": "int4-weight", "c": "int8", "d": "int2-weight", "y": "int8-weight"}


def made() -> tuple[onnx.ModelProto, Array]:
    """Four products, and rows whose inputs are far from equal in size."""
    body = (
        "a = MatMul(x, w1)  b = Relu(a)  c = MatMul(b, w2)  d = MatMul(c, w3)  y = MatMul(d, w4)"
    )
    model = parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> g (float[n,64] x) => (float[n,4] y) {{ {body} }}'
    )
    rng = np.random.default_rng(1)
    for k, shape in (("w1", (64, 96)), ("w2", (96, 64)), ("w3", (64, 64)), ("w4", (64, 4))):
        w = rng.normal(0, shape[0] ** -0.5, shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(w, k))
    for node in model.graph.node:
        node.name = node.output[0]
    mixed = rng.normal(size=(64, 64)) * np.geomspace(0.05, 3, 64)
    return prepare(model), (rng.normal(size=(512, 64)) @ mixed).astype(np.float32)


def noise(mended: Mended, variant: Variant, rows: Array, folder: Path) -> float:
    """Mean squared change of the outputs."""
    sites, path = find_sites(mended.model), folder / "v.onnx"
    exact = folder / "exact.onnx"
    onnx.save(made()[0], str(exact))
    mended.write(sites, variant, path)
    change = OnnxModel(path).run({"x": rows})["y"] - OnnxModel(exact).run({"x": rows})["y"]
    return float((change**2).sum(1).mean())


def test_names_alone_give_the_same_bytes(tmp_path: Path) -> None:
    model, x = made()
    sites, feed = find_sites(model), Feed({"x": x[:256]}, 32)
    variant = Variant.of(PICKS, repairs=("equalised", "rounded", "bias_corrected"))
    files = []
    for k in range(2):
        ranges = calibrate(model, sites, {"x": x[:256]}, batch=32, threads=1).ranges
        found = Mended(model, ranges, {})
        for name in variant.repairs:
            found = found.repaired(name, sites, variant, feed)
        files.append(tmp_path / f"{k}.onnx")
        found.write(sites, variant, files[-1])
    plain = tmp_path / "plain.onnx"
    Mended(model, ranges, {}).write(sites, variant, plain)
    assert files[0].read_bytes() == files[1].read_bytes() != plain.read_bytes()


def test_rounding_of_few_bits_lowers_the_noise_on_other_rows(tmp_path: Path) -> None:
    model, x = made()
    sites, feed = find_sites(model), Feed({"x": x[:256]}, 32)
    ranges = calibrate(model, sites, {"x": x[:256]}, batch=32, threads=1).ranges
    variant = Variant.of({"a": "int4-weight", "d": "int2-weight"})
    nearest = Mended(model, ranges, {})
    found = nearest.repaired("rounded", sites, variant, feed)
    assert set(found.rounding) == {"a", "d"}
    assert found.model == model, "no site is in static int8"
    after, before = (noise(m, variant, x[256:], tmp_path) for m in (found, nearest))
    assert after < 0.8 * before


def test_a_repair_that_changes_nothing_gives_itself_back() -> None:
    model, x = made()
    sites, feed = find_sites(model), Feed({"x": x[:64]}, 32)
    ranges = calibrate(model, sites, {"x": x[:64]}, batch=32, threads=1).ranges
    start = Mended(model, ranges, {})
    eight = Variant.of({"y": "int8-weight"})
    assert start.repaired("rounded", sites, eight, feed) is start
    assert local_rounding(model, sites, eight, feed) == {}
    with pytest.raises(InputError, match="unknown repair 'prayed'"):
        start.repaired("prayed", sites, eight, feed)
