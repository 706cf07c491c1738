from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort  # type: ignore[import-untyped,unused-ignore]
import pytest
from numpy.typing import NDArray
from onnx import helper as h
from onnx import numpy_helper as nh
from onnx.parser import parse_model

from justenough.core.subject import Site, Variant
from justenough.errors import InputError
from justenough.subjects import local_choices as module
from justenough.subjects.local_choices import (
    FORMS,
    LOCAL,
    apply_local,
    block_of,
    local_choices,
    round_choice,
    runs_here,
    stored_bytes,
    weight_shape,
)
from justenough.subjects.local_nodes import read_in
from justenough.subjects.measure import calibrate
from justenough.subjects.onnx_model import OnnxModel, find_sites
from justenough.subjects.prepare import prepare
from justenough.subjects.quantize import write_variant
from justenough.transforms.gptq import BlockCodes, gptq

Array = NDArray[Any]


def built(body: str, head: str, tail: str, **weights: Array) -> onnx.ModelProto:
    """A model from ONNX text, each node named after what it makes."""
    model = parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> g ({head}) => ({tail}) {{ {body} }}'
    )
    for name, value in weights.items():
        model.graph.initializer.append(nh.from_array(value.astype(np.float32), name))
    for n in model.graph.node:
        n.name = n.output[0]
    onnx.checker.check_model(model)
    return model


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def product(body: str = "y = MatMul(x, w)", **weights: Array) -> onnx.ModelProto:
    return built(body, "float[n,32] x", "float[n,16] y", **(weights or {"w": normal(32, 16)}))


def run(model: onnx.ModelProto, x: Array) -> Array:
    onnx.checker.check_model(model)
    o = ort.SessionOptions()
    o.log_severity_level = 4
    out: Array = ort.InferenceSession(model.SerializeToString(), o).run(None, {"x": x})[0]
    return out


def refused(model: onnx.ModelProto, choice: str, **more: Any) -> str:
    """What `apply_local` says to `choice` at the site that makes y."""
    sites = find_sites(model)
    [site] = [s.name for s in sites if "y" in s.nodes]
    with pytest.raises(InputError) as e:
        apply_local(model, sites, {site: choice}, **more)
    return str(e.value)


INTEGERS = [n for n, f in FORMS.items() if f.integer]


class TestRefusals:
    def test_unknown_names_are_said_with_the_known_ones(self) -> None:
        assert refused(product(), "int3-weight") == (
            f"no local choice 'int3-weight'; there are: {', '.join(FORMS)}"
        )
        model = product()
        with pytest.raises(InputError, match=r"^no site 'z'; there are: y$"):
            apply_local(model, find_sites(model), {"z": "fp16"})
        codes = round_choice(normal(16, 32), "int4-weight")
        with pytest.raises(InputError, match=r"^no site 'z'; there are: y$"):
            apply_local(model, find_sites(model), {}, {"z": codes})

    def test_a_site_of_another_model(self) -> None:
        site = Site("fc", "MatMul", ("fc", "fd"), 512, 512)
        with pytest.raises(InputError, match=r"^site 'fc' has no node 'fc' in this model$"):
            apply_local(product(), [site], {"fc": "fp16"})

    @pytest.mark.parametrize("choice", INTEGERS)
    @pytest.mark.parametrize(
        ("model", "why"),
        [
            (
                built("y = MatMul(w, x)", "float[32,n] x", "float[16,n] y", w=normal(16, 32)),
                "has its weight on the left",
            ),
            (
                built("y = MatMul(x, w)", "float[3,n,4] x", "float[3,n,2] y", w=normal(3, 4, 2)),
                "has a weight of shape (3, 4, 2), which is no matrix",
            ),
            (
                built(
                    "y = Gemm<transA = 1>(x, w)", "float[4,n] x", "float[n,2] y", w=normal(4, 2)
                ),
                "reads its input transposed",
            ),
            (
                built("y = MatMul(x, w)", "float[32] x", "float[16] y", w=normal(32, 16)),
                "multiplies a single vector",
            ),
            (
                built(
                    "a = Gemm(x, w) y = Gemm<transB = 1>(a, w)",
                    "float[n,8] x",
                    "float[n,8] y",
                    w=normal(8, 8),
                ),
                "has nodes that read their weight in two ways",
            ),
            (
                built("y = MatMul(x, z)", "float[n,4] x, float[4,4] z", "float[n,4] y"),
                "has no weight of its own",
            ),
            (
                product(w=np.where(np.eye(32, 16) > 0, np.nan, 1)),
                "has weights that are not finite",
            ),
        ],
    )
    def test_sites_where_codes_cannot_be(
        self, model: onnx.ModelProto, why: str, choice: str
    ) -> None:
        name = next(s.name for s in find_sites(model) if "y" in s.nodes)
        assert refused(model, choice) == f"site {name!r} cannot be {choice!r}: it {why}"
        assert not {c.name for c in local_choices(model, find_sites(model))[name]} & set(INTEGERS)

    @pytest.mark.parametrize("choice", [n for n, f in FORMS.items() if "Conv" not in f.ops])
    def test_a_conv_has_only_some(self, choice: str) -> None:
        model = built("y = Conv(x, w)", "float[n,2,8] x", "float[n,3,6] y", w=normal(3, 2, 3))
        assert refused(model, choice) == f"site 'y' cannot be {choice!r}: it is a Conv"

    @pytest.mark.parametrize("choice", ["fp16", "fp16-weight"])
    def test_fp16_does_not_hold_every_weight(self, choice: str) -> None:
        model = product(w=normal(32, 16) + 70000 * np.eye(32, 16))
        assert refused(product(w=normal(32, 16) * np.inf), choice).endswith("not finite")
        assert refused(model, choice) == (
            f"site 'y' cannot be {choice!r}: it has weights up to 7e+04, and fp16 ends at 65504"
        )
        names = {c.name for c in local_choices(model, find_sites(model))["y"]}
        assert "fp16-weight" not in names
        assert "bf16-weight" in names

    def test_a_weight_that_the_caller_may_override_is_none_of_the_model_s_own(self) -> None:
        model = product()
        model.graph.input.append(h.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [32, 16]))
        assert refused(model, "int4-weight").endswith("it has no weight of its own")
        assert weight_shape(model, find_sites(model)[0]) is None
        assert local_choices(model, find_sites(model)) == {"y": ()}


class TestGivenCodes:
    def test_they_are_used(self) -> None:
        # Inputs that nearly repeat each other: rounding one can make up for another.
        x = normal(400, 4, seed=1) @ normal(4, 32, seed=2) + 0.1 * normal(400, 32, seed=3)
        model = product()
        w = nh.to_array(model.graph.initializer[0])
        codes = gptq(w.T, x.T @ x, bits=4, block=block_of("int4-weight", 32))
        sites = find_sites(model)
        exact = x @ w
        error = [
            float(
                ((run(apply_local(model, sites, {"y": "int4-weight"}, g), x) - exact) ** 2).sum()
            )
            for g in (None, {"y": codes})
        ]
        assert error[1] < 0.5 * error[0]

    def test_they_are_those_of_the_weight_before_alpha(self) -> None:
        model = product("y = Gemm<alpha = 2.0>(x, w)")
        w = nh.to_array(model.graph.initializer[0])
        codes = round_choice(w.T, "int8-weight")
        got = apply_local(model, find_sites(model), {"y": "int8-weight"}, {"y": codes})
        plain = apply_local(model, find_sites(model), {"y": "int8-weight"})
        assert got.SerializeToString() == plain.SerializeToString()
        assert nh.to_array(
            next(i for i in got.graph.initializer if i.name.endswith("/scale"))
        ) == pytest.approx(2 * codes.scales)

    @pytest.mark.parametrize(
        ("choice", "change", "why"),
        [
            ("fp16-weight", {}, "'fp16-weight' keeps floats: it takes no codes"),
            ("fp16", {}, "'fp16' keeps floats: it takes no codes"),
            (
                "int4-weight",
                {"codes": np.zeros((32, 16), np.uint8)},
                "codes (32, 16) with scales (16, 1) and zeros (16, 1) do not fit 'int4-weight': "
                "it takes (16, 32) with (16, 1) in blocks of 32",
            ),
            (
                "int4-weight-b16",
                {},
                "codes (16, 32) with scales (16, 1) and zeros (16, 1) do not fit "
                "'int4-weight-b16': it takes (16, 32) with (16, 2) in blocks of 16",
            ),
            (
                "int4-weight",
                {"zero_points": np.zeros((16, 2), np.uint8)},
                "codes (16, 32) with scales (16, 1) and zeros (16, 2) do not fit 'int4-weight': "
                "it takes (16, 32) with (16, 1) in blocks of 32",
            ),
            (
                "int4-weight",
                {"codes": np.full((16, 32), 16, np.uint8)},
                "a code or zero of 16 does not fit 'int4-weight': it has 4 bits",
            ),
            (
                "int2-weight",
                {"zero_points": np.full((16, 1), 7, np.uint8)},
                "a code or zero of 7 does not fit 'int2-weight': it has 2 bits",
            ),
            (
                "int8-dynamic",
                {"zero_points": np.full((16, 1), 127, np.uint8)},
                "'int8-dynamic' in a MatMul takes zeros of 128 only; round symmetrically",
            ),
        ],
    )
    def test_those_that_do_not_fit(self, choice: str, change: dict[str, Array], why: str) -> None:
        parts: dict[str, Array] = {
            "codes": np.zeros((16, 32), np.uint8),
            "scales": np.ones((16, 1), np.float32),
            "zero_points": np.zeros((16, 1), np.uint8),
        }
        assert refused(product(), choice, rounding={"y": BlockCodes(**{**parts, **change})}) == why


class TestRounding:
    def test_floats_have_no_codes(self) -> None:
        with pytest.raises(InputError, match=r"^'bf16-weight' keeps floats: it has no codes$"):
            round_choice(normal(4, 4), "bf16-weight")

    def test_in_pieces_it_is_the_same(self, monkeypatch: pytest.MonkeyPatch) -> None:
        whole = round_choice(normal(23, 70), "int4-weight")
        monkeypatch.setattr(module, "_ROUNDED_AT_ONCE", 200)
        parts = round_choice(normal(23, 70), "int4-weight")
        for part in ("codes", "scales", "zero_points"):
            np.testing.assert_array_equal(getattr(whole, part), getattr(parts, part))

    def test_a_narrower_block_and_a_wider_code_err_less(self) -> None:
        w = normal(64, 512)

        def error(choice: str) -> float:
            got = round_choice(w, choice).values(block_of(choice, 512))
            return float(((got - w) ** 2).mean())

        for bits, blocks in ((8, (16, 32, 64, 0)), (4, (16, 0, 64, 128)), (2, (32, 0, 128))):
            names = [f"int{bits}-weight" + (f"-b{b}" if b else "") for b in blocks]
            assert sorted(names, key=error) == names
        assert error("int8-weight") < error("int4-weight") < error("int2-weight")

    @pytest.mark.parametrize("choice", INTEGERS)
    @pytest.mark.parametrize("k", [1, 15, 16, 17, 33, 100, 128, 129, 5000])
    def test_blocks_are_such_as_the_operator_takes(self, choice: str, k: int) -> None:
        block = block_of(choice, k)
        if choice == "int8-dynamic":
            assert block == k
            return
        assert block in ((32, 64, 128) if "int2" in choice else module.BLOCKS)
        assert block <= max(2 * k, 32)

    def test_bytes_by_hand(self) -> None:
        # 100 inputs in 4 blocks of 32: 16 bytes of codes, a scale and half a byte of zero each.
        assert stored_bytes((10, 100), "int4-weight") == 10 * (4 * 16 + 4 * 4 + 2)
        assert stored_bytes((10, 100), "int2-weight") == 10 * (2 * 16 + 2 * 4 + 1)
        assert stored_bytes((10, 100), "int8-weight") == 10 * (128 + 4 + 1)
        assert stored_bytes((10, 100), "int8-dynamic") == 10 * (100 + 4)
        assert stored_bytes((10, 100), "fp16") == stored_bytes((10, 100), "bf16-weight") == 2000
        assert stored_bytes((8, 4, 3, 3), "int8-weight") == 8 * 36 + 8 * 4
        with pytest.raises(InputError, match="no local choice 'int9'"):
            stored_bytes((10, 100), "int9")


class TestOpen:
    def test_by_kind_of_site(self) -> None:
        model = built(
            "a = Conv(x, c) b = Flatten(a) d = MatMul(b, w) e = Transpose(d) y = MatMul(d, e)",
            "float[n,4,12] x",
            "float[n,n] y",
            c=normal(8, 4, 5),
            w=normal(64, 24),
        )
        got = local_choices(model, find_sites(model))
        names = {k: {c.name for c in v} for k, v in got.items()}
        floats = {c.name for c in LOCAL if c.bits == 16 and runs_here(c.name)}
        assert names["a"] == floats | {"int8-weight"}
        assert names["d"] == {c.name for c in LOCAL if runs_here(c.name)}
        assert names["y"] == set()

    def test_not_where_it_is_no_smaller(self) -> None:
        model = built("y = MatMul(x, w)", "float[n,3] x", "float[n,4] y", w=normal(3, 4))
        names = {c.name for c in local_choices(model, find_sites(model))["y"]}
        assert "int8-weight" not in names
        assert "fp16-weight" in names

    def test_not_what_the_runtime_lacks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        runs_here.cache_clear()

        def fails(*_: Any, **__: Any) -> None:
            raise RuntimeError("only 4-bit weights are supported")

        monkeypatch.setattr(ort, "InferenceSession", fails)
        try:
            assert not any(runs_here(c.name) for c in LOCAL)
            assert local_choices(product(), find_sites(product())) == {"y": ()}
        finally:
            runs_here.cache_clear()

    def test_not_what_the_runtime_computes_wrongly(self, monkeypatch: pytest.MonkeyPatch) -> None:
        runs_here.cache_clear()
        monkeypatch.setattr(module, "_product", lambda w, x, choice: 1.1 * (x @ w))
        try:
            assert not any(runs_here(c.name) for c in LOCAL)
        finally:
            runs_here.cache_clear()

    def test_fp16_where_it_differs_from_its_stored_half(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        runs_here.cache_clear()
        monkeypatch.setattr(module, "_product", lambda w, x, choice: x @ w + len(choice))
        try:
            assert runs_here("fp16")
        finally:
            runs_here.cache_clear()


class TestTheRestStays:
    @pytest.mark.parametrize("choice", FORMS)
    def test_nodes_and_constants_of_other_sites(self, choice: str) -> None:
        model = built(
            "a = MatMul(x, v) b = Relu(a) y = MatMul(b, w)",
            "float[n,16] x",
            "float[n,16] y",
            v=normal(16, 64),
            w=normal(64, 16),
        )
        out = apply_local(model, find_sites(model), {"y": choice, "a": "fp32"})
        assert list(out.graph.node[:2]) == list(model.graph.node[:2])
        assert out.graph.initializer[0] == model.graph.initializer[0]
        assert out.graph.input == model.graph.input
        assert out.graph.output == model.graph.output

    def test_nothing_picked_changes_nothing(self) -> None:
        model = product()
        out = apply_local(model, find_sites(model), {"y": "int8"})
        assert out == model
        assert out is not model

    @pytest.mark.parametrize("choice", FORMS)
    def test_nodes_that_share_a_weight_share_what_is_stored(self, choice: str) -> None:
        model = built(
            "a = MatMul(x, w) b = Relu(a) y = MatMul(b, w)",
            "float[n,64] x",
            "float[n,64] y",
            w=normal(64, 64) / 8,
        )
        sites = find_sites(model)
        assert len(sites) == 1
        out = apply_local(model, sites, {"a": choice})
        assert sum(len(i.raw_data) for i in out.graph.initializer) == stored_bytes(
            (64, 64), choice
        )
        x = normal(5, 64, seed=1)
        exact = run(model, x)
        db = {16: 40, 8: 25, 4: 12, 2: 2}[FORMS[choice].choice.bits]
        assert ((run(out, x) - exact) ** 2).mean() < 10 ** (-db / 10) * (exact**2).mean()

    @pytest.mark.parametrize("choice", ["int4-weight", "int8-dynamic", "fp16-weight"])
    def test_nodes_of_a_site_in_another_order(self, choice: str) -> None:
        model = built(
            "a = MatMul(x, w) y = MatMul(a, w)", "float[n,8] x", "float[n,8] y", w=normal(8, 8)
        )
        site = Site("a", "MatMul", ("y", "a"), 64, 128)
        assert np.isfinite(run(apply_local(model, [site], {"a": choice}), normal(3, 8))).all()

    @pytest.mark.parametrize("choice", ["int4-weight", "int8-dynamic", "fp16-weight", "fp16"])
    def test_a_weight_that_others_read_is_kept(self, choice: str) -> None:
        model = built(
            "s = ReduceSum<keepdims = 1>(w) p = MatMul(x, w) y = Add(p, s)",
            "float[n,32] x",
            "float[n,16] y",
            w=normal(32, 16),
        )
        [site] = find_sites(model)
        out = apply_local(model, [site], {site.name: choice})
        assert "w" in {i.name for i in out.graph.initializer}
        assert out.graph.node[0] == model.graph.node[0]

    def test_reads_inside_bodies_count(self) -> None:
        inner = h.make_graph(
            [h.make_node("Identity", ["w"], ["z"])],
            "inner",
            [],
            [h.make_tensor_value_info("z", onnx.TensorProto.FLOAT, [32, 16])],
        )
        model = product()
        always = nh.from_array(np.array(True), "always")
        model.graph.initializer.append(always)
        branch = h.make_node("If", ["always"], ["v"], "v", then_branch=inner, else_branch=inner)
        model.graph.node.append(branch)
        model.graph.output.append(h.make_tensor_value_info("v", onnx.TensorProto.FLOAT, [32, 16]))
        assert read_in(model.graph) == {"x", "w", "always", "z"}
        out = apply_local(model, find_sites(model), {"y": "int4-weight"})
        assert "w" in {i.name for i in out.graph.initializer}
        run(out, normal(2, 32))

    def test_names_in_use_are_passed_over(self) -> None:
        model = product("q = Identity(x) y = MatMul(q, w)")
        model.graph.node[0].output[0] = model.graph.node[1].input[0] = "w/int4-weight/codes"
        out = apply_local(model, find_sites(model), {"y": "int4-weight"})
        assert "w/int4-weight/codes_1" in {i.name for i in out.graph.initializer}
        run(out, normal(2, 32))

    def test_a_bias_that_is_computed_is_added(self) -> None:
        model = product("c = ReduceMax<axes = [1]>(x) y = Gemm<beta = 2.0>(x, w, c)")
        x = normal(6, 32, seed=1)
        exact = run(model, x)
        for choice in ("int8-weight", "int8-dynamic"):
            got = run(apply_local(model, find_sites(model), {"y": choice}), x)
            assert np.abs(got - exact).max() < 0.05 * np.abs(exact).max()


class TestInFiles:
    def test_the_runtime_widens_16_bits_and_conv_codes_once(self, tmp_path: Path) -> None:
        model = built(
            "a = Conv(x, c) b = Flatten(a) y = MatMul(b, w)",
            "float[n,2,8] x",
            "float[n,5] y",
            c=normal(3, 2, 3),
            w=normal(18, 5),
        )
        for first in ("fp16-weight", "bf16-weight", "int8-weight"):
            out = apply_local(model, find_sites(model), {"a": first, "y": "bf16-weight"})
            o = ort.SessionOptions()
            o.log_severity_level = 4
            o.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
            o.optimized_model_filepath = str(tmp_path / f"{first}.onnx")
            ort.InferenceSession(out.SerializeToString(), o)
            kept = onnx.load(o.optimized_model_filepath).graph
            assert [n.op_type for n in kept.node] == ["Conv", "Flatten", "MatMul"]
            assert {i.data_type for i in kept.initializer} == {onnx.TensorProto.FLOAT}

    @pytest.mark.parametrize("choice", FORMS)
    def test_static_int8_at_other_sites(self, choice: str, tmp_path: Path) -> None:
        """`write_variant` on what `apply_local` made leaves its nodes and constants alone."""
        model = prepare(
            built(
                "a = MatMul(x, u) b = Relu(a) c = MatMul(b, v) d = Relu(c) y = MatMul(d, w)",
                "float[n,32] x",
                "float[n,8] y",
                u=normal(32, 64) / 6,
                v=normal(64, 64) / 8,
                w=normal(64, 8) / 8,
            )
        )
        sites, x = find_sites(model), {"x": normal(64, 32, seed=1)}
        first, middle, last = (s.name for s in sites)
        ranges = calibrate(model, sites, x, batch=16, threads=1).ranges
        local = apply_local(model, sites, {middle: choice})
        static = Variant.of({first: "int8", last: "int8"})
        path = tmp_path / "mixed.onnx"
        write_variant(local, sites, static, ranges, path)
        written = onnx.load(path)
        nodes = {n.name: n for n in written.graph.node}
        for node in local.graph.node:
            if node.name not in {n.name for n in model.graph.node}:
                assert nodes[node.name].op_type == node.op_type
        assert nodes[middle].op_type == next(
            n.op_type for n in local.graph.node if n.name == middle
        )
        before = {i.name: i for i in local.graph.initializer}
        after = {i.name: i for i in written.graph.initializer}
        added = set(before) - {i.name for i in model.graph.initializer}
        assert added
        assert all(after[n].raw_data == before[n].raw_data for n in added)
        dtypes = {i.data_type for i in written.graph.initializer if "quantized" in i.name}
        assert onnx.TensorProto.INT8 in dtypes
        exact = run(model, x["x"])
        noise = float(((OnnxModel(path).run(x)["y"] - exact) ** 2).mean() / (exact**2).mean())
        assert noise < {16: 0.001, 8: 0.001, 4: 0.03, 2: 0.5}[FORMS[choice].choice.bits]
