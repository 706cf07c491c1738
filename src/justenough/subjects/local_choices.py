"""Choices inside one site: what goes in and what comes out stay float32.

Such a choice costs nothing at its borders, unlike static int8, and needs no calibration.

- `int8-dynamic`: int8 with a scale per output; activations are rounded to uint8 in every call,
  with one range over all its rows: an answer then depends on what else is in the batch.
- `int8-weight`, `int4-weight`, `int2-weight`: codes with a scale and a zero per block of
  inputs; activations are rounded to int8 per row and block. `int4-weight-b128` asks for
  another block than the usual one. In a Conv, `int8-weight` has a scale per output channel
  and is widened to float32 when the file loads.
- `fp16-weight`, `bf16-weight`: 16-bit floats, widened to float32 when the file loads.
- `fp16`: computed in 16 bits where the runtime has kernels for it; elsewhere ONNX Runtime
  takes the conversions out and computes what `fp16-weight` does.

The operators are ONNX's DynamicQuantizeLinear and MatMulInteger and ONNX Runtime's
MatMulNBits; its documentation of contributed operators defines how codes are packed.
"""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from justenough.core.subject import FP32, INT8, Choice, Site
from justenough.errors import InputError
from justenough.formats.floats import BF16
from justenough.formats.packing import packed_size
from justenough.subjects import local_nodes
from justenough.subjects.local_nodes import attribute, rows_of_weight, transposed
from justenough.subjects.onnx_model import shapes_of
from justenough.subjects.prepare import MICROSOFT
from justenough.subjects.processor import adds_in_16_bits
from justenough.transforms.gptq import BlockCodes
from justenough.transforms.rounding import NARROW_TOP, TOP, block_grid, channel_grid

Array = NDArray[Any]
LINEAR = ("MatMul", "Gemm")
BLOCKS = (16, 32, 64, 128)
# Blocks of 16 two-bit codes have no kernel that computes in int8, and are widened in every call.
SMALLEST_BLOCK = {2: 32, 4: 16, 8: 16}
USUAL_BLOCK = {8: 128, 4: 32, 2: 64}
FP16_MOST = 65504.0
# Choices whose answer for a row depends on the other rows of the call.
ROWS_COUPLED = frozenset({"int8-dynamic"})
# Values rounded at once: what is needed meanwhile is many times as large.
_ROUNDED_AT_ONCE = 1 << 21


@dataclass(frozen=True)
class Form:
    """A choice, how its weight is kept, inputs per scale (0: all), and where it exists."""

    choice: Choice
    way: str
    block: int = 0
    ops: tuple[str, ...] = (*LINEAR, "Conv")

    @property
    def integer(self) -> bool:
        """Whether the weight is kept as codes."""
        return self.way in ("dynamic", "blocks")


def _blocks(bits: int, block: int) -> Form:
    usual = block == USUAL_BLOCK[bits]
    name = f"int{bits}-weight" + ("" if usual else f"-b{block}")
    ops = (*LINEAR, "Conv") if usual and bits == 8 else LINEAR
    return Form(Choice(name, bits), "blocks", block, ops)


FORMS = {
    f.choice.name: f
    for f in (
        Form(Choice("int8-dynamic", 8), "dynamic", ops=LINEAR),
        *(_blocks(b, g) for b in (8, 4, 2) for g in BLOCKS if g >= SMALLEST_BLOCK[b]),
        Form(Choice("fp16", 16), "half"),
        Form(Choice("fp16-weight", 16), "cast"),
        Form(Choice("bf16-weight", 16), "cast"),
    )
}
LOCAL: tuple[Choice, ...] = tuple(
    FORMS[n].choice
    for n in (
        "fp16", "fp16-weight", "bf16-weight", "int8-dynamic", "int8-weight", "int4-weight",
        "int4-weight-b128", "int2-weight",
    )
)  # fmt: skip


def _form(choice: str) -> Form:
    if choice not in FORMS:
        raise InputError(f"no local choice {choice!r}; there are: {', '.join(FORMS)}")
    return FORMS[choice]


def block_of(choice: str, inputs: int) -> int:
    """Inputs per scale of an integer choice: no more than it takes to hold `inputs` of them.

    >>> block_of("int4-weight", 384), block_of("int4-weight", 10), block_of("int8-dynamic", 10)
    (32, 16, 10)
    """
    form = _form(choice)
    if not form.block:
        return max(inputs, 1)
    enough = 1 << max(inputs - 1, 0).bit_length()
    return max(min(form.block, enough), SMALLEST_BLOCK[form.choice.bits])


def round_choice(weight: Array, choice: str, op: str = "MatMul") -> BlockCodes:
    """Codes of a weight under an integer choice, each to nearest on the grid that errs least.

    In blocks the grid is asymmetric, see `block_grid`. `int8-dynamic`, and a Conv, have one
    block of inputs per output and zeros of 128; the former keeps to codes that this machine
    multiplies without cutting off.

    Args:
        weight: (out, in), finite float32; of a Conv (out channels, all that each holds).
        choice: Name of an integer choice.
        op: Operator of the site.
    """
    form = _form(choice)
    if not form.integer:
        raise InputError(f"{choice!r} keeps floats: it has no codes")
    if form.way == "dynamic" or op == "Conv":
        narrow = form.way == "dynamic" and adds_in_16_bits()
        grid = channel_grid(weight, top=NARROW_TOP if narrow else TOP)
        codes = (grid.nearest(weight) + 128).astype(np.uint8)
        return BlockCodes(codes, grid.scale, np.full(grid.scale.shape, 128, np.uint8))
    out, width = weight.shape
    bits, block = form.choice.bits, block_of(choice, width)
    parts = []
    for i in range(0, out, step := max(_ROUNDED_AT_ONCE // width, 1)):
        rows = weight[i : i + step]
        grid = block_grid(rows, bits=bits, block=block)
        zero = np.asarray(grid.zero)[:, ::block].astype(np.uint8)
        parts.append((grid.nearest(rows).astype(np.uint8), grid.scale[:, ::block], zero))
    codes, scales, zeros = (np.concatenate(p) for p in zip(*parts, strict=True))
    return BlockCodes(codes, scales, zeros)


def rounded_weight(weight: Array, choice: str, op: str = "MatMul") -> Array:
    """The weight (out, in), float32, that a choice computes with; as `round_choice` takes it.

    >>> rounded_weight(np.array([[1.0, 1e-3, -1.0]], np.float32), "int8-dynamic").tolist()
    [[1.0, 0.0, -1.0]]
    """
    form = _form(choice)
    if not form.integer:
        half = choice.startswith("fp16")
        return (
            weight.astype(np.float16).astype(np.float32)
            if half
            else np.asarray(BF16.round(weight))
        )
    whole = form.way == "dynamic" or op == "Conv"
    block = weight.shape[1] if whole else block_of(choice, weight.shape[1])
    return round_choice(weight, choice, op).values(max(block, 1))


def stored_bytes(shape: Sequence[int], choice: str) -> int:
    """Bytes of a weight with its scales and zeros, as they lie in the file.

    Args:
        shape: (out, in), or (out, in, ...) of a Conv, as `weight_shape` gives it.
        choice: Name of a local choice, or `fp32`.

    >>> [stored_bytes((384, 384), c) for c in ("fp32", "int8-dynamic", "int4-weight")]
    [589824, 148992, 94464]
    """
    size = int(np.prod(shape, dtype=np.int64))
    if choice == FP32.name:
        return 4 * size
    form = _form(choice)
    if not form.integer:
        return 2 * size
    if form.way == "dynamic" or len(shape) != 2:
        return size + 4 * shape[0]
    bits, block = form.choice.bits, block_of(choice, shape[1])
    blocks = -(-shape[1] // block)
    return shape[0] * (packed_size(blocks * block, bits) + 4 * blocks + packed_size(blocks, bits))


@dataclass(frozen=True)
class _Look:
    """A graph by name."""

    nodes: Mapping[str, onnx.NodeProto]
    constants: Mapping[str, onnx.TensorProto]
    overridable: frozenset[str]
    shapes: Mapping[str, tuple[int, ...]]

    @staticmethod
    def at(model: onnx.ModelProto) -> "_Look":
        """The look-ups of `model`."""
        g = model.graph
        return _Look(
            {n.name: n for n in g.node},
            {i.name: i for i in g.initializer},
            frozenset(i.name for i in g.input),
            shapes_of(model),
        )

    def of(self, site: Site) -> list[onnx.NodeProto]:
        """The nodes of `site`, in graph order."""
        missing = [n for n in site.nodes if n not in self.nodes]
        if missing:
            raise InputError(f"site {site.name!r} has no node {missing[0]!r} in this model")
        return [n for name, n in self.nodes.items() if name in site.nodes]

    def weight(self, site: Site) -> onnx.TensorProto | None:
        """The constant that the nodes of `site` share, or None."""
        node = self.of(site)[0]
        inputs = node.input[1:2] if site.op == "Conv" else node.input[:2]
        held = [t for t in inputs if t in self.constants]
        return self.constants[held[0]] if held and held[0] not in self.overridable else None


def weight_shape(model: onnx.ModelProto, site: Site) -> tuple[int, ...] | None:
    """(out, in) of a matrix that `site` holds, (out, in, ...) of a Conv; None without a weight."""
    return _weight_shape(_Look.at(model), site)


def _weight_shape(look: _Look, site: Site) -> tuple[int, ...] | None:
    weight = look.weight(site)
    if weight is None:
        return None
    dims = tuple(weight.dims)
    turned = site.op in LINEAR and len(dims) == 2 and not transposed(look.of(site)[0])
    return dims[::-1] if turned else dims


def _obstacle(look: _Look, site: Site, form: Form) -> str | None:
    """Why `form` cannot be at `site`, or None."""
    weight = look.weight(site)
    if weight is None:
        return "has no weight of its own"
    if site.op not in form.ops:
        return f"is a {site.op}"
    if form.integer and site.op in LINEAR:
        why = _not_linear(look, look.of(site), weight)
        if why:
            return why
    peak = float(np.abs(numpy_helper.to_array(weight)).max(initial=0.0))
    if not np.isfinite(peak):
        return "has weights that are not finite"
    if form.choice.name.startswith("fp16") and peak > FP16_MOST:
        return f"has weights up to {peak:.3g}, and fp16 ends at {FP16_MOST:g}"
    return None


def _not_linear(
    look: _Look, nodes: Sequence[onnx.NodeProto], weight: onnx.TensorProto
) -> str | None:
    if any(n.input[1] != weight.name or n.input[0] == weight.name for n in nodes):
        return "has its weight on the left"
    if len(weight.dims) != 2 or not all(weight.dims):
        return f"has a weight of shape {tuple(weight.dims)}, which is no matrix"
    if any(attribute(n, "transA", 0) for n in nodes):
        return "reads its input transposed"
    if len({(transposed(n), attribute(n, "alpha", 1.0)) for n in nodes}) > 1:
        return "has nodes that read their weight in two ways"
    if any(len(look.shapes.get(n.input[0], (0, 0))) == 1 for n in nodes):
        return "multiplies a single vector"
    return None


def local_choices(model: onnx.ModelProto, sites: Iterable[Site]) -> dict[str, tuple[Choice, ...]]:
    """The local choices open at each site, by its name: possible there, smaller, known here.

    `fp16` is open only where the runtime computes in 16 bits. Whether a choice is faster is
    for the clock to say.
    """
    look = _Look.at(model)
    known = [c for c in LOCAL if runs_here(c.name)]
    out = {}
    for site in sites:
        shape = _weight_shape(look, site)
        out[site.name] = tuple(
            c
            for c in known
            if shape is not None
            and stored_bytes(shape, c.name) < stored_bytes(shape, FP32.name)
            and not _obstacle(look, site, _form(c.name))
        )
    return out


@cache
def runs_here(choice: str) -> bool:
    """Whether the installed ONNX Runtime computes a small product rightly under `choice`.

    False also for `fp16` where it gives the same bits as `fp16-weight`: nothing is then
    computed in 16 bits.
    """
    form = _form(choice)
    rng = np.random.default_rng(0)
    weight, x = (rng.standard_normal(s).astype(np.float32) for s in ((64, 16), (5, 64)))
    try:
        got = _product(weight, x, choice)
        exact = x @ weight
        if form.way == "half":
            return not np.array_equal(got, _product(weight, x, "fp16-weight"))
        if form.integer:
            exact = x @ round_choice(weight.T, choice).values(block_of(choice, 64)).T
    except Exception:  # ONNX Runtime raises a type of its own for every failure kind
        return False
    return bool(np.abs(got - exact).max() < 0.02 * np.abs(exact).max())


def _product(weight: Array, x: Array, choice: str) -> Array:
    """What ONNX Runtime makes of x @ weight under `choice`."""
    kind, site = onnx.TensorProto.FLOAT, Site("y", "MatMul", ("y",), weight.size, weight.size)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], site.name)],
        "product",
        [helper.make_tensor_value_info("x", kind, x.shape)],
        [helper.make_tensor_value_info("y", kind, (len(x), weight.shape[1]))],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    o = ort.SessionOptions()
    o.intra_op_num_threads, o.inter_op_num_threads, o.log_severity_level = 1, 1, 4
    file = apply_local(model, [site], {site.name: choice}).SerializeToString()
    run = ort.InferenceSession(file, o, providers=["CPUExecutionProvider"])
    return np.asarray(run.run(None, {"x": x})[0])


def apply_local(
    model: onnx.ModelProto,
    sites: Iterable[Site],
    picks: Mapping[str, str],
    rounding: Mapping[str, BlockCodes] | None = None,
) -> onnx.ModelProto:
    """A copy of a prepared model with local choices at some sites; the rest stays as it is.

    The node that computes keeps its name and its result the tensor's, so that ranges and
    profiles still fit. A float weight that nobody reads any more is left out. Static int8 at
    other sites is written into the result, not before.

    Args:
        model: Prepared graph.
        sites: Its sites.
        picks: Choice by site; `fp32` and `int8` are left alone.
        rounding: Codes by site, (out, in) in blocks of `block_of`, of the weight before any
            factor `alpha`, instead of `round_choice`.

    Raises:
        InputError: An unknown site or choice, a choice that cannot be at its site, or codes
            that do not fit.
    """
    known, given = {s.name: s for s in sites}, rounding or {}
    unknown = sorted({*picks, *given} - set(known))
    if unknown:
        raise InputError(f"no site {unknown[0]!r}; there are: {', '.join(known)}")
    look = _Look.at(model)
    out = copy.deepcopy(model)
    taken = {t for n in model.graph.node for t in (n.name, *n.input, *n.output)}
    write = local_nodes.Writer(out.graph, taken | set(look.shapes))
    replaced: local_nodes.Replaced = {}
    left: set[str] = set()
    for name, site in known.items():
        choice = picks.get(name, FP32.name)
        if choice in (FP32.name, INT8.name):
            continue
        form, weight = _form(choice), look.weight(site)
        why = _obstacle(look, site, form)
        if why or weight is None:
            raise InputError(f"site {name!r} cannot be {choice!r}: it {why}")
        replaced |= _nodes(look.of(site), weight, form, write, given.get(name))
        left.add(weight.name)
    nodes = [m for n in out.graph.node for m in replaced.get(n.name, [n])]
    del out.graph.node[:]
    out.graph.node.extend(nodes)
    left -= local_nodes.read_in(out.graph) | {o.name for o in out.graph.output}
    kept = [i for i in out.graph.initializer if i.name not in left]
    del out.graph.initializer[:]
    out.graph.initializer.extend(kept)
    if any(n.domain == MICROSOFT for n in nodes) and not any(
        o.domain == MICROSOFT for o in out.opset_import
    ):
        out.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
    return out


def _nodes(
    nodes: Sequence[onnx.NodeProto],
    weight: onnx.TensorProto,
    form: Form,
    write: local_nodes.Writer,
    given: BlockCodes | None,
) -> local_nodes.Replaced:
    """What takes the place of each node of a site."""
    choice, op = form.choice.name, nodes[0].op_type
    if given is not None:
        _check_given(given, form, op, rows_of_weight(nodes[0], weight).shape)
    if form.way == "cast":
        return local_nodes.stored_narrow(nodes, weight, choice, write)
    if form.way == "half":
        return local_nodes.computed_narrow(nodes, weight, choice, write)
    codes = given or round_choice(rows_of_weight(nodes[0], weight), choice, op)
    if op == "Conv":
        return local_nodes.widened_codes(nodes, weight, codes, choice, write)
    if form.way == "dynamic":
        return local_nodes.dynamic_int8(nodes, weight, codes, choice, write)
    block = block_of(choice, codes.codes.shape[1])
    return local_nodes.block_codes(
        nodes, weight, codes, choice, write, bits=form.choice.bits, block=block
    )


def _check_given(given: BlockCodes, form: Form, op: str, shape: tuple[int, ...]) -> None:
    """Refuse codes that the operator would read as something else."""
    choice, bits = form.choice.name, form.choice.bits
    if not form.integer:
        raise InputError(f"{choice!r} keeps floats: it takes no codes")
    whole = form.way == "dynamic" or op == "Conv"
    block = shape[1] if whole else block_of(choice, shape[1])
    grid = (shape[0], -(-shape[1] // block))
    got = (given.codes.shape, given.scales.shape, given.zero_points.shape)
    if got != (shape, grid, grid):
        raise InputError(
            f"codes {got[0]} with scales {got[1]} and zeros {got[2]} do not fit {choice!r}: "
            f"it takes {shape} with {grid} in blocks of {block}"
        )
    most = max(int(given.codes.max()), int(given.zero_points.max()))
    if most >= 2**bits:
        raise InputError(f"a code or zero of {most} does not fit {choice!r}: it has {bits} bits")
    if whole and (given.zero_points != 128).any():
        raise InputError(f"{choice!r} in a {op} takes zeros of 128 only; round symmetrically")
