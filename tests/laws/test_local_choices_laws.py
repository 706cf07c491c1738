"""Every local choice, at every kind of site: what is stored, what is computed, what stays."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort  # type: ignore[import-untyped,unused-ignore]
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper as nh
from onnx.parser import parse_model

from justenough.core.subject import Site
from justenough.subjects.local_choices import (
    FORMS,
    ROWS_COUPLED,
    apply_local,
    block_of,
    local_choices,
    round_choice,
    runs_here,
    stored_bytes,
    weight_shape,
)
from justenough.subjects.onnx_model import find_sites

Array = NDArray[Any]
INTEGER = [n for n, f in FORMS.items() if f.integer]
OPTIONS = ort.SessionOptions()
OPTIONS.log_severity_level = 4
OPTIONS.intra_op_num_threads = 1


@dataclass(frozen=True)
class Case:
    """A site: its node in ONNX text, the stored weight's shape, the shapes of x and of y."""

    body: str
    weight: tuple[int, ...]
    x: tuple[int, ...]
    y: tuple[int, ...]
    bias: tuple[int, ...] = ()

    @property
    def conv(self) -> bool:
        """Whether the node is a Conv."""
        return "Conv" in self.body

    def model(self) -> onnx.ModelProto:
        """The model, weights of unequal columns, one of them zero."""
        rng = np.random.default_rng(0)
        sizes = [",".join(map(str, ("n", *s[1:]))) for s in (self.x, self.y)]
        model = parse_model(
            f'<ir_version: 8, opset_import: ["": 17]> g (float[{sizes[0]}] x) => '
            f"(float[{sizes[1]}] y) {{ {self.body} }}"
        )
        w = rng.normal(size=self.weight) * rng.uniform(0.1, 2, self.weight[-1])
        w[..., -1] = 0
        model.graph.initializer.append(nh.from_array(w.astype(np.float32), "w"))
        if self.bias:
            b = rng.normal(size=self.bias).astype(np.float32)
            model.graph.initializer.append(nh.from_array(b, "b"))
        model.graph.node[0].name = "site"
        onnx.checker.check_model(model)
        return model

    def rows(self) -> Array:
        """Inputs that differ in size from row to row and block to block."""
        rng = np.random.default_rng(1)
        return (rng.normal(size=self.x) * rng.uniform(0.1, 3, self.x)).astype(np.float32)


LINEAR = {
    "even": Case("y = MatMul(x, w)", (128, 64), (9, 128), (9, 64)),
    "one row": Case("y = MatMul(x, w)", (384, 96), (1, 384), (1, 96)),
    "odd": Case("y = MatMul(x, w)", (100, 17), (5, 100), (5, 17)),
    "prime": Case("y = MatMul(x, w)", (131, 7), (3, 131), (3, 7)),
    "short": Case("y = MatMul(x, w)", (5, 33), (4, 5), (4, 33)),
    "single": Case("y = MatMul(x, w)", (1, 1), (2, 1), (2, 1)),
    "tokens": Case("y = MatMul(x, w)", (40, 24), (2, 7, 40), (2, 7, 24)),
    "heads": Case("y = MatMul(x, w)", (33, 16), (2, 3, 5, 33), (2, 3, 5, 16)),
    "gemm": Case("y = Gemm(x, w)", (70, 31), (6, 70), (6, 31)),
    "gemm turned": Case("y = Gemm<transB = 1>(x, w, b)", (31, 70), (6, 70), (6, 31), (31,)),
    "gemm scaled": Case(
        "y = Gemm<alpha = -0.5, beta = 3.0>(x, w, b)", (70, 31), (6, 70), (6, 31), (1, 31)
    ),
    "gemm no bias": Case(
        "y = Gemm<beta = 0.0, transB = 1>(x, w, b)", (9, 64), (6, 64), (6, 9), (1,)
    ),
}
CONV = {
    "plane": Case(
        "y = Conv<pads = [1, 1, 1, 1]>(x, w, b)", (6, 4, 3, 3), (2, 4, 9, 9), (2, 6, 9, 9), (6,)
    ),
    "groups": Case("y = Conv<group = 4>(x, w)", (8, 1, 3), (2, 4, 12), (2, 8, 10)),
    "point": Case("y = Conv(x, w)", (5, 7, 1, 1), (3, 7, 4, 4), (3, 5, 4, 4)),
}
CASES = LINEAR | CONV
CODED = [(c, n) for c in INTEGER for n, k in CASES.items() if not k.conv or "Conv" in FORMS[c].ops]
PAIRS = [(c, n) for c in FORMS for n, k in CASES.items() if not k.conv or "Conv" in FORMS[c].ops]
EACH = pytest.mark.parametrize(("choice", "case"), PAIRS)


def site_of(model: onnx.ModelProto) -> Site:
    [site] = find_sites(model)
    return site


def applied(model: onnx.ModelProto, choice: str) -> onnx.ModelProto:
    return apply_local(model, [site_of(model)], {"site": choice})


def run(model: onnx.ModelProto, x: Array) -> Array:
    onnx.checker.check_model(model)
    s = ort.InferenceSession(model.SerializeToString(), OPTIONS)
    out: Array = s.run(["y"], {"x": x})[0]
    return out


def stored(model: onnx.ModelProto, case: Case) -> Array:
    """The weight in its first shape, read code by code from the file as its operators define."""
    node = next(n for n in model.graph.node if n.name == "site")
    read = {i.name: nh.to_array(i) for i in model.graph.initializer if not i.name.endswith("bf16")}
    made = {n.output[0]: n for n in model.graph.node}
    if node.op_type == "MatMulNBits":
        number = {a.name: a.i for a in node.attribute}
        bits, block = number["bits"], number["block_size"]
        codes, scale, zero = (read[t] for t in node.input[1:4])
        w = np.zeros((number["N"], number["K"]))
        for out in range(number["N"]):
            for k in range(number["K"]):
                b, at = divmod(k, block)
                code = (codes[out, b, at * bits // 8] >> (at * bits % 8)) & (2**bits - 1)
                z = (zero[out, b * bits // 8] >> (b * bits % 8)) & (2**bits - 1)
                w[out, k] = (float(code) - float(z)) * scale[out, b]
        return w
    if node.op_type == "MatMulInteger":
        scales = [read[t] for n in made.values() for t in n.input if t == "w/int8-dynamic/scale"]
        return np.asarray(read[node.input[1]].astype(float) * scales[0]).T
    if case.conv:
        scaled = made[node.input[1]]
        cast = made[scaled.input[0]]
        return np.asarray(read[cast.input[0]].astype(float) * read[scaled.input[1]])
    raise AssertionError(node.op_type)


def as_rows(w: Array, case: Case) -> Array:
    """(out, in)."""
    if case.conv:
        return w.reshape(len(w), -1)
    return w if "transB" in case.body else w.T


def with_weight(model: onnx.ModelProto, w: Array) -> onnx.ModelProto:
    """The same node on another weight, in float64."""
    out = onnx.ModelProto()
    out.CopyFrom(model)
    for t in out.graph.initializer:
        value = w if t.name == "w" else nh.to_array(t)
        t.CopyFrom(nh.from_array(value.astype(np.float64), t.name))
    for v in (*out.graph.input, *out.graph.output):
        v.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    return out


def computed(model: onnx.ModelProto, w: Array, x: Array) -> Array:
    """The exact result with weight `w`, by ONNX's reference in float64."""
    from onnx.reference import ReferenceEvaluator

    run_exact = ReferenceEvaluator(with_weight(model, w))
    return np.asarray(next(iter(run_exact.run(None, {"x": x.astype(np.float64)}))))


@pytest.mark.parametrize(("choice", "case"), CODED)
def test_codes_in_the_file_are_those_of_round_choice(choice: str, case: str) -> None:
    c = CASES[case]
    model = c.model()
    w = nh.to_array(model.graph.initializer[0])
    rows = as_rows(w, c)
    got = stored(applied(model, choice), c)
    alpha = -0.5 if "alpha" in c.body else 1.0
    op = "Conv" if c.conv else "MatMul"
    block = rows.shape[1] if c.conv else block_of(choice, rows.shape[1])
    want = round_choice(rows, choice, op).values(block) * alpha
    np.testing.assert_allclose(got.reshape(want.shape), want, rtol=1e-6)


@pytest.mark.parametrize(("choice", "case"), CODED)
def test_a_value_on_the_grid_errs_by_half_a_step_and_others_take_its_end(
    choice: str, case: str
) -> None:
    c = CASES[case]
    rows = as_rows(nh.to_array(c.model().graph.initializer[0]), c)
    got = round_choice(rows, choice, "Conv" if c.conv else "MatMul")
    whole = choice == "int8-dynamic" or c.conv
    block = rows.shape[1] if whole else block_of(choice, rows.shape[1])
    bits = 8 if whole else FORMS[choice].choice.bits
    scale, zero = (
        np.repeat(a.astype(np.float64), block, 1)[:, : rows.shape[1]]
        for a in (got.scales, got.zero_points)
    )
    ends = (0 - zero) * scale, (2**bits - 1 - zero) * scale
    value, error = got.values(block), np.abs(got.values(block) - rows)
    inside = (rows >= ends[0]) & (rows <= ends[1])
    assert (error[inside] <= 0.5 * scale[inside] * (1 + 1e-5)).all()
    np.testing.assert_allclose(value[~inside], np.clip(rows, *ends)[~inside], rtol=1e-5)
    assert inside.mean() > 0.5


def room(choice: str, case: Case, w: Array, x: Array) -> Array:
    """How far the runtime may be from the exact result: what it rounds inputs to, and floats."""
    exact = np.abs(x) @ np.abs(w)
    float_error = 1e-5 * exact + 1e-5
    form = FORMS[choice]
    if form.way == "half":
        return 2.0**-8 * exact + 2.0**-8
    if form.way == "dynamic":
        step = (max(x.max(), 0) - min(x.min(), 0)) / 255
        return np.asarray(0.55 * step * np.abs(w).sum(0) + float_error)
    if form.way == "cast":
        return np.asarray(float_error)
    block, k = block_of(choice, len(w)), len(w)
    out = float_error
    for i in range(0, k, block):
        peak = np.abs(x[..., i : i + block]).max(-1, keepdims=True)
        out = out + 0.52 * peak / 127 * np.abs(w[i : i + block]).sum(0)
    return np.asarray(out)


@EACH
def test_the_runtime_computes_with_the_stored_weight(choice: str, case: str) -> None:
    c = CASES[case]
    model, x = c.model(), c.rows()
    changed = applied(model, choice)
    w = nh.to_array(model.graph.initializer[0])
    if FORMS[choice].integer:
        alpha = -0.5 if "alpha" in c.body else 1.0
        flat = stored(changed, c) / alpha
        held = flat.reshape(w.shape) if c.conv or "transB" in c.body else flat.T
    elif choice == "bf16-weight":
        ml_dtypes = pytest.importorskip("ml_dtypes")
        held = w.astype(ml_dtypes.bfloat16).astype(np.float32)
    else:
        held = w.astype(np.float16).astype(np.float32)
    want, got = computed(model, held, x), run(changed, x)
    assert got.dtype == np.float32
    assert got.shape == want.shape
    if c.conv:
        atol = 0.05 if choice == "fp16" else 1e-4
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=atol)
        return
    assert (np.abs(got - want) <= room(choice, c, as_rows(held, c).T, x)).all()


@EACH
def test_stored_bytes_are_those_in_the_file(choice: str, case: str) -> None:
    model = CASES[case].model()
    shape = weight_shape(model, site_of(model))
    assert shape is not None
    before = {i.name for i in model.graph.initializer}
    new = [i for i in applied(model, choice).graph.initializer if i.name not in before]
    assert sum(len(i.raw_data) for i in new if "/beta" not in i.name) == stored_bytes(
        shape, choice
    )


@pytest.mark.parametrize("choice", FORMS)
@pytest.mark.parametrize("case", ["odd", "gemm scaled"])
def test_applied_twice_gives_the_same_bytes_and_leaves_the_model(choice: str, case: str) -> None:
    model = CASES[case].model()
    before = model.SerializeToString(deterministic=True)
    one, two = (applied(model, choice).SerializeToString(deterministic=True) for _ in range(2))
    assert one == two
    assert model.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("choice", FORMS)
def test_the_float_weight_is_gone_and_result_and_node_keep_their_names(choice: str) -> None:
    model = applied(LINEAR["gemm turned"].model(), choice)
    assert "w" not in {i.name for i in model.graph.initializer}
    assert "site" in {n.name for n in model.graph.node}
    assert model.graph.node[-1].output[0] == "y"
    names = [n.name for n in model.graph.node]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("choice", [c for c in FORMS if c not in ROWS_COUPLED])
@pytest.mark.parametrize("case", ["even", "odd", "tokens"])
def test_a_row_has_the_same_answer_alone(choice: str, case: str) -> None:
    model, x = applied(LINEAR[case].model(), choice), LINEAR[case].rows()
    x[0] *= 1000
    together = run(model, x)
    alone = np.concatenate([run(model, x[i : i + 1]) for i in range(len(x))])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("choice", sorted(ROWS_COUPLED))
def test_a_coupled_choice_answers_a_row_otherwise_beside_a_large_one(choice: str) -> None:
    model, x = applied(LINEAR["even"].model(), choice), LINEAR["even"].rows()
    calm = run(model, x)[1:]
    x[0] *= 1000
    assert np.abs(run(model, x)[1:] - calm).max() > 0.5 * np.abs(calm).max()


@pytest.mark.parametrize("choice", FORMS)
def test_zeros_in_give_zeros_out(choice: str) -> None:
    case = LINEAR["odd"]
    model = applied(case.model(), choice)
    assert not run(model, np.zeros(case.x, np.float32)).any()


@pytest.mark.parametrize("case", CASES)
def test_what_is_open_is_smaller_and_runs(case: str) -> None:
    model, x = CASES[case].model(), CASES[case].rows()
    site = site_of(model)
    shape = weight_shape(model, site)
    assert shape is not None
    for c in local_choices(model, [site])["site"]:
        assert runs_here(c.name)
        assert stored_bytes(shape, c.name) < stored_bytes(shape, "fp32")
        assert np.isfinite(run(applied(model, c.name), x)).all()
