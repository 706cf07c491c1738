from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper as nh
from onnx.parser import parse_model

from justenough.core.subject import Site, Variant
from justenough.errors import InputError
from justenough.subjects.measure import all_int8, calibrate
from justenough.subjects.onnx_model import OnnxModel, find_sites
from justenough.subjects.prepare import prepare
from justenough.subjects.quantize import (
    CALIBRATIONS,
    Ranges,
    find_ranges,
    followers,
    has_activations,
    int8_nodes,
    least_error_range,
    observed_tensors,
    unfused,
    with_outputs,
    write_variant,
)

Array = NDArray[Any]
RNG = np.random.default_rng(0)
X: Array = RNG.normal(size=(200, 16)).astype(np.float32)


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    """Three products with a Relu and a concatenation between."""
    body = """
        a = MatMul(x, w1)
        b = Relu(a)
        c = MatMul(b, w2)
        d = Concat<axis = 1>(c, b)
        y = MatMul(d, w3)
    """
    made = parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> g (float[n,16] x) => (float[n,4] y) {{ {body} }}'
    )
    rng = np.random.default_rng(1)
    for k, shape in (("w1", (16, 32)), ("w2", (32, 32)), ("w3", (64, 4))):
        w = rng.normal(0, shape[0] ** -0.5, shape).astype(np.float32)
        made.graph.initializer.append(nh.from_array(w, k))
    for node in made.graph.node:
        node.name = node.output[0]
    return prepare(made)


@pytest.fixture(scope="module")
def sites(model: onnx.ModelProto) -> tuple[Site, ...]:
    return find_sites(model)


@pytest.fixture(scope="module")
def ranges(model: onnx.ModelProto, sites: tuple[Site, ...]) -> Ranges:
    return calibrate(model, sites, {"x": X}, batch=32, threads=1).ranges


def kinds(path: Path) -> list[str]:
    return [n.op_type for n in onnx.load(path).graph.node]


def test_followers_need_all_their_data_in_int8(model: onnx.ModelProto) -> None:
    assert followers(model, {"a"}) == set(), "a Relu whose result stays float stays float"
    assert followers(model, {"c"}) == set()
    assert followers(model, {"a", "c"}) == {"b", "d"}


def test_nodes_of_a_variant(model: onnx.ModelProto, sites: tuple[Site, ...]) -> None:
    assert int8_nodes(model, sites, Variant()) == set()
    assert int8_nodes(model, sites, Variant.of({"a": "int8"})) == {"a"}
    assert int8_nodes(model, sites, all_int8(sites)) == {"a", "b", "c", "d", "y"}
    assert set(observed_tensors(model, sites)) == {"x", "a", "b", "c", "d", "y"}


@pytest.mark.parametrize("calibration", CALIBRATIONS)
def test_every_variant_runs_and_is_close(
    model: onnx.ModelProto,
    sites: tuple[Site, ...],
    ranges: Ranges,
    calibration: str,
    tmp_path: Path,
) -> None:
    onnx.save(model, tmp_path / "exact.onnx")
    exact = OnnxModel(tmp_path / "exact.onnx").run({"x": X})["y"]
    noise = {}
    for picks in ((), ("a",), ("y",), ("a", "c", "y")):
        path = tmp_path / f"{len(picks)}{picks[:1]}.onnx"
        variant = Variant.of(dict.fromkeys(picks, "int8"), calibration)
        write_variant(model, sites, variant, ranges, path)
        onnx.checker.check_model(str(path))
        got = OnnxModel(path).run({"x": X})["y"]
        noise[picks] = float(((got - exact) ** 2).mean() / (exact**2).mean())
    assert noise[()] == 0
    assert 0 < noise[("a",)] < 1e-2
    assert 0 < noise[("a", "c", "y")] < 3e-2


def test_outputs_stay_float(
    model: onnx.ModelProto, sites: tuple[Site, ...], ranges: Ranges, tmp_path: Path
) -> None:
    """256 levels of a score tie; the last product must give more than that."""
    path = tmp_path / "all.onnx"
    write_variant(model, sites, all_int8(sites), ranges, path)
    graph = onnx.load(path).graph
    made = {t: n.op_type for n in graph.node for t in n.output}
    assert made["y"] == "MatMul"
    many = RNG.normal(size=(2000, 16)).astype(np.float32)
    assert len(np.unique(OnnxModel(path).run({"x": many})["y"][:, 0])) > 1000
    stored = {i.name: i for i in graph.initializer}
    used = {t for n in graph.node for t in n.input}
    assert set(stored) <= used, "no constant is left behind"
    assert sum(i.data_type == onnx.TensorProto.INT8 and len(i.dims) == 2 for i in stored.values())


def test_weights_are_symmetric_per_channel_and_activations_not(
    model: onnx.ModelProto, sites: tuple[Site, ...], ranges: Ranges, tmp_path: Path
) -> None:
    path = tmp_path / "all.onnx"
    write_variant(model, sites, all_int8(sites), ranges, path)
    stored = {i.name: nh.to_array(i) for i in onnx.load(path).graph.initializer}
    scale, zero = stored["w1_scale"], stored["w1_zero_point"]
    assert scale.shape == (32,) and not zero.any() and zero.dtype == np.int8
    assert stored["x_scale"].shape == () and stored["x_zero_point"].dtype == np.uint8


@pytest.fixture(scope="module")
def gated() -> onnx.ModelProto:
    """Convolutions with SiLU and a squeeze-and-excitation gate, as in EfficientNet."""
    body = """
        a = Conv <kernel_shape = [3,3]> (x, w1)
        sa = Sigmoid(a)
        b = Mul(a, sa)
        p = GlobalAveragePool(b)
        q = Conv(p, w2)
        g = Sigmoid(q)
        c = Mul(b, g)
        d = Conv(c, w3)
        y = GlobalAveragePool(d)
    """
    made = parse_model(
        '<ir_version: 8, opset_import: ["": 17]> '
        f"g (float[n,4,12,12] x) => (float[n,5,1,1] y) {{ {body} }}"
    )
    rng = np.random.default_rng(3)
    for k, shape in (("w1", (8, 4, 3, 3)), ("w2", (8, 8, 1, 1)), ("w3", (5, 8, 1, 1))):
        w = rng.normal(0, np.prod(shape[1:]) ** -0.5, shape).astype(np.float32)
        made.graph.initializer.append(nh.from_array(w, k))
    for node in made.graph.node:
        node.name = node.output[0]
    return prepare(made)


def test_silu_is_two_nodes_and_the_same_again(gated: onnx.ModelProto, tmp_path: Path) -> None:
    assert [n.op_type for n in gated.graph.node].count("QuickGelu") == 1
    split = unfused(gated)
    assert "QuickGelu" not in {n.op_type for n in split.graph.node}
    assert unfused(gated, set()) == gated
    x = RNG.normal(size=(3, 4, 12, 12)).astype(np.float32)
    got = []
    for k, m in enumerate((gated, split)):
        onnx.save(m, str(tmp_path / f"{k}.onnx"))
        got.append(OnnxModel(tmp_path / f"{k}.onnx").run({"x": x})["y"])
    np.testing.assert_allclose(got[1], got[0], rtol=1e-4, atol=1e-6)


def test_the_whole_form_leaves_no_float_between_sites(
    gated: onnx.ModelProto, tmp_path: Path
) -> None:
    sites = find_sites(gated)
    assert has_activations(gated, sites)
    x = RNG.normal(size=(64, 4, 12, 12)).astype(np.float32)
    ranges = calibrate(gated, sites, {"x": x}, batch=16, threads=1).ranges
    onnx.save(gated, str(tmp_path / "exact.onnx"))
    exact = OnnxModel(tmp_path / "exact.onnx").run({"x": x})["y"]
    kinds = {}
    for form in ("full", "whole"):
        variant = Variant(all_int8(sites).picks, "minmax-narrow", form=form)
        write_variant(gated, sites, variant, ranges, tmp_path / f"{form}.onnx")
        got = OnnxModel(tmp_path / f"{form}.onnx").run({"x": x})["y"]
        assert np.abs(got - exact).max() < 0.1 * np.abs(exact).max()
        options = ort.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
        options.log_severity_level = 4
        ort.InferenceSession(str(tmp_path / f"{form}.onnx"), options)
        written = onnx.load(str(tmp_path / "optimised.onnx")).graph
        kinds[form] = [n.op_type for n in written.node]
    assert kinds["whole"].count("QLinearSigmoid") == kinds["whole"].count("QLinearMul") == 2
    assert "QuickGelu" in kinds["full"] and "QLinearSigmoid" not in kinds["full"]
    assert kinds["whole"].count("QuantizeLinear") < kinds["full"].count("QuantizeLinear")


def test_the_whole_form_splits_only_what_goes_int8(gated: onnx.ModelProto, tmp_path: Path) -> None:
    sites = find_sites(gated)
    x = RNG.normal(size=(8, 4, 12, 12)).astype(np.float32)
    ranges = calibrate(gated, sites, {"x": x}, batch=8, threads=1).ranges
    last = Variant.of({sites[-1].name: "int8"}, form="whole")
    write_variant(gated, sites, last, ranges, tmp_path / "last.onnx")
    ops = [n.op_type for n in onnx.load(str(tmp_path / "last.onnx")).graph.node]
    assert ops.count("QuickGelu") == 1 and ops.count("Sigmoid") == 1


def test_a_model_without_activations_has_no_whole_form(
    model: onnx.ModelProto, sites: tuple[Site, ...]
) -> None:
    assert not has_activations(model, sites)


def test_writing_twice_gives_the_same_bytes(
    model: onnx.ModelProto, sites: tuple[Site, ...], ranges: Ranges, tmp_path: Path
) -> None:
    for name in ("1", "2"):
        write_variant(model, sites, all_int8(sites), ranges, tmp_path / name)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_the_model_is_not_changed(
    model: onnx.ModelProto, sites: tuple[Site, ...], ranges: Ranges, tmp_path: Path
) -> None:
    before = model.SerializeToString(deterministic=True)
    write_variant(model, sites, all_int8(sites), ranges, tmp_path / "v.onnx")
    assert with_outputs(model, ["a", "y"]).graph.output[-1].name == "a"
    assert model.SerializeToString(deterministic=True) == before


def test_unknown_calibration(
    model: onnx.ModelProto, sites: tuple[Site, ...], ranges: Ranges, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"unknown calibration 'best'; it is one of minmax"):
        write_variant(model, sites, Variant((), "best"), ranges, tmp_path / "v.onnx")


def test_narrow_weights_fit_16_bits_on_any_processor(tmp_path: Path) -> None:
    """Two products of the largest codes: a processor that adds them in 16 bits cuts 127 off."""
    body = "y = MatMul(x, w)"
    made = parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> g (float[n,64] x) => (float[n,8] y) {{ {body} }}'
    )
    made.graph.initializer.append(nh.from_array(np.ones((64, 8), np.float32), "w"))
    made.graph.node[0].name = "y"
    one = prepare(made)
    ranges = Ranges({"minmax": {"x": (0.0, 1.0), "y": (0.0, 64.0)}})
    variant = Variant.of({"y": "int8"}, "minmax-narrow")
    write_variant(one, find_sites(one), variant, ranges, tmp_path / "v.onnx")
    stored = {
        i.name: nh.to_array(i) for i in onnx.load(str(tmp_path / "v.onnx")).graph.initializer
    }
    assert max(int(np.abs(v).max()) for v in stored.values() if v.dtype == np.int8) == 64
    got = OnnxModel(tmp_path / "v.onnx").run({"x": np.ones((2, 64), np.float32)})["y"]
    np.testing.assert_allclose(got, 64.0, rtol=1e-3)


def test_ranges_hold_zero_and_lie_within_each_other() -> None:
    values = RNG.normal(3, 1, 5000).astype(np.float32)
    values[0] = 40
    found = find_ranges({"t": (float(values.min()), 40.0, values)}).table
    low, high = found["minmax"]["t"]
    assert low <= 0 and high == 40
    for method in CALIBRATIONS:
        assert low <= found[method]["t"][0] <= 0 < found[method]["t"][1] <= high
    assert found["percentile"]["t"][1] < 40


def test_ranges_read_back() -> None:
    values = RNG.normal(size=100).astype(np.float32)
    ranges = find_ranges({"b": (-3.0, 3.0, values), "a": (0.0, 1.0, values)})
    assert Ranges.from_arrays(ranges.to_arrays()) == ranges


def test_clipping_pays_only_where_the_tail_is_long() -> None:
    uniform = np.linspace(-1, 1, 2001).astype(np.float32)
    assert least_error_range(-1.0, 1.0, uniform) == (-1.0, 1.0)
    tailed = np.concatenate([RNG.normal(size=20_000), [30.0]]).astype(np.float32)
    assert least_error_range(-30.0, 30.0, tailed)[1] < 30
    constant = np.zeros(10, np.float32)
    assert least_error_range(0.0, 0.0, constant) == (0.0, 0.0)
