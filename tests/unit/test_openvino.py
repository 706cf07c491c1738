"""OpenVINO answers as ONNX Runtime does, and its int8 models hold the sites that they should."""

import subprocess
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper as nh
from onnx.parser import parse_model

from justenough.core.subject import Runtime, Site
from justenough.errors import InputError
from justenough.subjects import nncf_quantize as apart
from justenough.subjects.onnx_model import OnnxModel, find_sites
from justenough.subjects.prepare import prepare
from justenough.subjects.sessions import session

ov = pytest.importorskip("openvino")

from justenough.subjects import openvino_session, openvino_variants  # noqa: E402 - needs it
from justenough.subjects.openvino_session import (  # noqa: E402
    open_openvino,
    precisions,
    read_model,
)
from justenough.subjects.openvino_variants import seconds_by_site, write_excluding  # noqa: E402

Array = NDArray[Any]
pytestmark = pytest.mark.timeout(120)
MANY = (
    "g (float[N,4] b, uint8[N,4] a, int64[N,4] c, bool[N,4] d) => (float[N,2] z, float[N,2] y, "
    "float[N,4] same, int64[N] place, float[N,4] again) { z, y = Split<axis=1>(b) "
    "fa = Cast<to=1>(a) fc = Cast<to=1>(c) fd = Cast<to=1>(d) s = Add(fa, fc) t = Add(s, fd) "
    "again = Relu(t) same = Identity(b) place = ArgMax<axis=1,keepdims=0>(t) }"
)
NET = (
    "g (float[N,3,12,12] x) => (float[N,5] y) { a = Conv<pads=[1,1,1,1]>(x,w1,b1) b = Relu(a) "
    "c = Conv<pads=[1,1,1,1]>(b,w2,b2) d = Add(c,b) e = Relu(d) p = GlobalAveragePool(e) "
    "f = Flatten(p) y = Gemm<transB=1>(f,w3,b3) }"
)
ATTENTION = (
    "g (float[N,6,16] x) => (float[N,6,16] y) { q = MatMul(x,wq) k = MatMul(x,wk) "
    "v = MatMul(x,wv) kt = Transpose<perm=[0,2,1]>(k) s = MatMul(q,kt) p = Softmax<axis=-1>(s) "
    "a = MatMul(p,v) o = MatMul(a,wo) h = Add(o,x) z = Relu(h) y = MatMul(z,wy) }"
)
SHAPES = {
    "w1": (8, 3, 3, 3), "b1": (8,), "w2": (8, 8, 3, 3), "b2": (8,), "w3": (5, 8), "b3": (5,),
}  # fmt: skip


def save(path: Path, text: str, weights: Iterable[tuple[str, Array]] = ()) -> Path:
    made = parse_model(f'<ir_version: 8, opset_import: ["": 17]> {text}')
    for k, node in enumerate(made.graph.node):
        node.name = f"node {k}"
    for name, value in weights:
        made.graph.initializer.append(nh.from_array(value, name))
    onnx.save(prepare(made) if weights else made, path)
    return path


def many_inputs(n: int) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    return {
        "b": rng.normal(size=(n, 4)).astype(np.float32),
        "a": rng.integers(0, 255, (n, 4)).astype(np.uint8),
        "c": rng.integers(-(2**20), 2**20, (n, 4)),
        "d": rng.integers(0, 2, (n, 4)).astype(bool),
    }


@dataclass(frozen=True)
class Net:
    """A small network with NNCF's model of it."""

    model: Path
    everything: Path
    sites: tuple[Site, ...]
    x: Array

    def variant(self, names: Iterable[str], out: Path, **ranges: tuple[float, float]) -> Path:
        sound = {k.replace("_", " "): v for k, v in ranges.items()}
        write_excluding(self.everything, self.model, self.sites, names, sound, out)
        return out

    def noise(self, path: Path) -> float:
        exact = open_openvino(self.model).run(None, {"x": self.x})[0]
        return float(((open_openvino(path).run(None, {"x": self.x})[0] - exact) ** 2).mean())


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Net:
    pytest.importorskip("nncf")
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("net")
    scale = {"w": 0.3, "b": 0.1}
    weights = [
        (n, (rng.normal(size=s) * scale[n[0]]).astype(np.float32)) for n, s in SHAPES.items()
    ]
    model = save(folder / "net.onnx", NET, weights)
    x = rng.normal(size=(16, 3, 12, 12)).astype(np.float32)
    assert not apart.attends(onnx.load(model))
    everything = apart.nncf_quantize(model, {"x": x}, folder / "all.xml")
    return Net(model, everything, find_sites(onnx.load(model)), x)


@pytest.fixture(scope="module")
def attention(tmp_path_factory: pytest.TempPathFactory) -> Net:
    """Attention over rows one of whose columns is far larger than the others."""
    pytest.importorskip("nncf")
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("attention")
    names = ("wq", "wk", "wv", "wo", "wy")
    weights = [(n, (0.2 * rng.normal(size=(16, 16))).astype(np.float32)) for n in names]
    model = save(folder / "net.onnx", ATTENTION, weights)
    x = rng.normal(size=(32, 6, 16)).astype(np.float32)
    x[..., 3] *= 40
    assert apart.attends(onnx.load(model))
    everything = apart.nncf_quantize(model, {"x": x}, folder / "all.xml", transformer=True)
    return Net(model, everything, find_sites(onnx.load(model)), x)


# As a runtime


def test_fp32_answers_as_onnx_runtime_does(net: Net) -> None:
    want = OnnxModel(net.model).run({"x": net.x})["y"]
    got = OnnxModel(net.model, runtime=Runtime("openvino")).run({"x": net.x})["y"]
    assert got.dtype == want.dtype
    assert np.abs(got - want).max() <= 1e-4 * np.abs(want).max()


def test_names_and_types_are_those_of_the_onnx_file(tmp_path: Path) -> None:
    path = save(tmp_path / "many.onnx", MANY)
    ov.save_model(read_model(path), str(tmp_path / "many.xml"), compress_to_fp16=False)
    exact = session(path)
    feed = many_inputs(3)
    want = exact.run(None, feed)
    for file in (path, tmp_path / "many.xml"):
        found = open_openvino(file)
        assert found.get_overridable_initializers() == ()
        for ours, theirs in (
            (found.get_inputs(), exact.get_inputs()),
            (found.get_outputs(), exact.get_outputs()),
        ):
            assert [(f.name, f.type) for f in ours] == [(f.name, f.type) for f in theirs]
            assert [f.shape[1:] for f in ours] == [f.shape[1:] for f in theirs]
            assert all(f.shape[0] is None for f in ours)
        for got, w in zip(found.run(None, feed), want, strict=True):
            assert got.dtype == w.dtype
            np.testing.assert_array_equal(got, w)
        some = found.run(["place", "z"], feed)
        np.testing.assert_array_equal(some[0], want[3])
        np.testing.assert_array_equal(some[1], want[0])


def test_rows_may_change_from_call_to_call_and_answers_stay(tmp_path: Path) -> None:
    found = open_openvino(save(tmp_path / "many.onnx", MANY))
    first = found.run(["again"], many_inputs(5))[0]
    kept = first.copy()
    for n in (1, 7, 5):
        assert len(found.run(["again"], many_inputs(n))[0]) == n
    np.testing.assert_array_equal(first, kept)


def test_threads_that_call_at_once_get_their_own_answers(net: Net) -> None:
    found = open_openvino(net.model)
    parts = [net.x[k : k + 1 + k % 3] for k in range(12)]
    want = [found.run(None, {"x": p})[0] for p in parts]
    with ThreadPoolExecutor(6) as pool:
        for _ in range(5):
            for got, w in zip(pool.map(lambda p: found.run(None, {"x": p})[0], parts), want,
                              strict=True):  # fmt: skip
                np.testing.assert_array_equal(got, w)


def test_a_failed_call_frees_the_next_one(net: Net) -> None:
    model = OnnxModel(net.model, runtime=Runtime("openvino"))
    for wrong in (np.ones((2, 4, 12, 12), np.float32), np.ones((2, 3), np.float32)):
        with pytest.raises(InputError, match=r"net\.onnx"):
            model.run({"x": wrong})
    assert model.run({"x": net.x})["y"].shape == (16, 5)


def test_a_fixed_batch_is_filled_up(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", "g (float[4,2] x) => (float[4,2] y) { y = Neg(x) }")
    x = np.arange(14, dtype=np.float32).reshape(7, 2)
    model = OnnxModel(path, runtime=Runtime("openvino"))
    assert model.fixed_batch == 4
    np.testing.assert_array_equal(model.run({"x": x})["y"], -x)


def test_a_precision_that_the_processor_lacks_is_refused(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert precisions()[0] == "fp32"
    monkeypatch.setattr(openvino_session, "precisions", lambda: ("fp32",))
    for word in ("bf16", "fp16", "fp8"):
        with pytest.raises(InputError, match=f"does not compute in {word} on this processor"):
            open_openvino(net.model, precision=word)
    open_openvino(net.model)


@pytest.mark.skipif("bf16" not in precisions(), reason="this processor has no bf16")
def test_bf16_is_coarser_and_close(net: Net) -> None:
    exact = open_openvino(net.model).run(None, {"x": net.x})[0]
    got = open_openvino(net.model, precision="bf16").run(None, {"x": net.x})[0]
    assert got.dtype == np.float32
    assert 0 < np.abs(got - exact).max() < 0.05 * np.abs(exact).max()


@pytest.mark.parametrize("name", ["m.pdmodel", "m.tflite", "m.pb", "m.bin", "m", "m.XML", "m.pt"])
def test_other_readers_are_never_tried(
    net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = tmp_path / name
    path.write_bytes(net.model.read_bytes())

    def reader(*_: object) -> None:
        raise AssertionError("OpenVINO was asked")

    monkeypatch.setattr(ov, "Core", lambda: type("C", (), {"read_model": reader})())
    with pytest.raises(InputError, match=f"takes .onnx and .xml files, got {name}"):
        read_model(path)


def test_damaged_files_are_one_sentence(net: Net, tmp_path: Path) -> None:
    whole = net.everything.read_bytes()
    contents = {
        "empty.onnx": b"", "noise.onnx": b"\x08\x07 not a model", "empty.xml": b"",
        "noise.xml": b"<net", "cut.xml": whole[: len(whole) // 2], "alone.xml": whole,
        "cut.onnx": net.model.read_bytes()[:900],
    }  # fmt: skip
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    for name in (*contents, "gone.xml", "gone.onnx"):
        with pytest.raises(InputError) as e:
            open_openvino(tmp_path / name)
        said = str(e.value)
        assert name in said, said
        assert "\n" not in said and "src/" not in said and "tflite" not in said, said
        assert len(said) < 420


def test_an_operator_that_it_lacks_is_one_sentence(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", "g (float[N,2] x) => (float[N,2] y) { y = Neg(x) }")
    made = onnx.load(path)
    made.graph.node[0].op_type, made.graph.node[0].domain = "Strange", "my.domain"
    made.opset_import.add(domain="my.domain", version=1)
    onnx.save(made, path)
    with pytest.raises(InputError) as e:
        open_openvino(path)
    assert "m.onnx" in str(e.value) and "\n" not in str(e.value)


# Int8 where it was chosen


def rounded(path: Path) -> dict[str, tuple[float, float]]:
    """Range by the node whose values a rounding takes, weights left out."""
    out = {}
    for node in read_model(path).get_ops():
        if node.get_type_name() == "FakeQuantize":
            source = node.input_value(0).get_node()
            if source.get_type_name() != "Constant":
                low, high = (node.input_value(k).get_node().data.ravel() for k in (1, 2))
                name = source.get_friendly_name().removesuffix("/WithoutBiases")
                out[name] = (float(low[0]), float(high[0]))
    return out


@pytest.mark.slow
def test_no_site_is_the_float_model_and_each_more_adds_noise(net: Net, tmp_path: Path) -> None:
    names = [s.name for s in net.sites]
    assert len(names) == 3
    exact = open_openvino(net.model).run(None, {"x": net.x})[0]
    none = net.variant([], tmp_path / "none.xml")
    np.testing.assert_array_equal(open_openvino(none).run(None, {"x": net.x})[0], exact)
    assert not any(o.get_type_name() == "FakeQuantize" for o in read_model(none).get_ops())
    noise = {
        chosen: net.noise(net.variant(chosen, tmp_path / "some.xml"))
        for k in range(4)
        for chosen in combinations(names, k)
    }
    everything = net.noise(net.everything)
    assert noise[()] == 0.0
    assert noise[tuple(names)] == pytest.approx(everything, rel=0.25)
    for name in names:
        assert 0 < noise[(name,)] < noise[tuple(names)]
    # Errors of sites are nearly independent: the noise of two is about the sum of each.
    for pair in combinations(names, 2):
        assert 0.4 < noise[pair] / sum(noise[(n,)] for n in pair) < 2.5


def test_only_the_chosen_sites_keep_rounded_weights(net: Net, tmp_path: Path) -> None:
    for chosen in net.sites:
        path = net.variant([chosen.name], tmp_path / "one.xml")
        floats = {o.get_friendly_name(): o for o in read_model(net.model).get_ops()}
        for node in read_model(path).get_ops():
            if node.get_type_name() not in openvino_variants.PRODUCTS:
                continue
            name = node.get_friendly_name().removesuffix("/WithoutBiases")
            weights = node.input_value(1).get_node()
            if name in chosen.nodes:
                assert weights.get_type_name() != "Constant"
                continue
            assert weights.get_type_name() == "Constant"
            twin = next(floats[n] for n in (node.get_friendly_name(), name) if n in floats)
            np.testing.assert_array_equal(weights.data, twin.input_value(1).get_node().data)


def test_all_sites_keep_every_rounding_that_a_product_reads(net: Net, tmp_path: Path) -> None:
    path = net.variant([s.name for s in net.sites], tmp_path / "all.xml")
    reads = set()
    for node in read_model(net.everything).get_ops():
        if node.get_type_name() in openvino_variants.PRODUCTS:
            source = node.input_value(0).get_node()
            if source.get_type_name() == "FakeQuantize":
                made = source.input_value(0).get_node().get_friendly_name()
                reads.add(made.removesuffix("/WithoutBiases"))
    assert reads and reads <= set(rounded(path))


def test_ranges_are_set_as_given(net: Net, tmp_path: Path) -> None:
    names = [s.name for s in net.sites]
    before = rounded(net.variant(names, tmp_path / "before.xml"))
    assert "x" in before
    signed = rounded(net.variant(names, tmp_path / "signed.xml", x=(-2.0, 3.0)))
    assert list(signed["x"]) == pytest.approx([-3.0 * 128 / 127, 3.0])
    low = rounded(net.variant(names, tmp_path / "low.xml", x=(-4.0, 1.0)))
    assert list(low["x"]) == pytest.approx([-4.0 * 128 / 127, 4.0])
    # A range always holds zero, and is never empty.
    assert rounded(net.variant(names, tmp_path / "up.xml", x=(1.0, 5.0)))["x"] == (0.0, 5.0)
    assert rounded(net.variant(names, tmp_path / "flat.xml", x=(0.0, 0.0)))["x"][1] > 0
    for other in set(before) - {"x"}:
        assert signed[other] == before[other]
    wide = net.noise(net.variant(names, tmp_path / "wide.xml", x=(-400.0, 400.0)))
    assert wide > 10 * net.noise(tmp_path / "before.xml")


def test_a_site_that_shares_its_weight_is_put_back_whole(net: Net, tmp_path: Path) -> None:
    """`_restore` takes every node of a site, and a name of no site harms nothing."""
    whole = net.variant([*(s.name for s in net.sites), "no such site"], tmp_path / "a.xml")
    same = net.variant([s.name for s in net.sites], tmp_path / "b.xml")
    assert net.noise(whole) == net.noise(same)
    assert {p.name for p in tmp_path.iterdir()} == {"a.xml", "a.bin", "b.xml", "b.bin"}


def test_seconds_of_sites_are_read_off_the_profile(net: Net) -> None:
    got = seconds_by_site(
        net.model, net.sites, {"x": net.x}, threads=1, precision="fp32"
    )  # fmt: skip
    assert set(got) == {s.name for s in net.sites}
    assert all(t >= 0 for t in got.values()) and sum(got.values()) > 0
    with pytest.raises(InputError, match="does not compute in fp8"):
        seconds_by_site(net.model, net.sites, {"x": net.x}, threads=1, precision="fp8")


# NNCF apart


def test_what_nncf_cannot_take_is_one_sentence(tmp_path: Path) -> None:
    pytest.importorskip("nncf")
    broken = tmp_path / "m.onnx"
    broken.write_bytes(b"not a model")
    with pytest.raises(InputError, match=r"^NNCF ended with code 1: ") as e:
        apart.nncf_quantize(broken, {"x": np.ones((2, 2), np.float32)}, tmp_path / "out.xml")
    assert "\n" not in str(e.value) and len(str(e.value)) < 360
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


def test_nncf_that_does_not_end_is_one_sentence(
    net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apart, "TIMEOUT_S", 0.05)
    with pytest.raises(InputError, match=r"^NNCF did not end within 0 s$"):
        apart.nncf_quantize(net.model, {"x": net.x}, tmp_path / "out.xml")
    assert list(tmp_path.iterdir()) == []


def test_nncf_that_dies_while_it_writes_leaves_no_model(
    net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a file that bears the final name would be taken for a model by the next call."""
    out = tmp_path / "out.xml"

    def dying(command: list[str], **_: object) -> Any:
        Path(command[5]).write_bytes(b"<net")
        return subprocess.CompletedProcess(command, -9, "", "")

    monkeypatch.setattr(subprocess, "run", dying)
    with pytest.raises(InputError, match="NNCF ended with code -9: it said nothing"):
        apart.nncf_quantize(net.model, {"x": net.x}, out)
    assert not out.exists() and not out.with_suffix(".rows.npz").exists()


# Attention


def test_scales_are_moved_into_weights_where_there_is_attention(net: Net, attention: Net) -> None:
    moved = [
        sum(o.get_friendly_name().endswith("/nncf_smooth_quant") for o in graph.get_ops())
        for graph in (read_model(net.everything), read_model(attention.everything))
    ]
    assert moved[0] == 0 and moved[1] > 0


def test_sites_put_back_read_values_without_the_moved_scales(
    attention: Net, tmp_path: Path
) -> None:
    names = [s.name for s in attention.sites]
    power = float((open_openvino(attention.model).run(None, {"x": attention.x})[0] ** 2).mean())
    # The products of attention have no weights, are no sites, and stay as NNCF wants them.
    assert attention.noise(attention.variant([], tmp_path / "none.xml")) < 1e-3 * power
    whole = attention.noise(attention.variant(names, tmp_path / "all.xml"))
    assert 0 < whole < 1e-2 * power
    for name in names:  # each alone in float: no noise of another scale comes in
        rest = [n for n in names if n != name]
        assert attention.noise(attention.variant(rest, tmp_path / "rest.xml")) < 2 * whole
