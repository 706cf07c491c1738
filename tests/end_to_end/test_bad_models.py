import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx.external_data_helper import set_external_data
from small_world import (
    FEATURES,
    KEEP,
    Cli,
    Given,
    compress_refused,
    mlp,
    network,
    process,
    refused,
)

Array = NDArray[Any]


# Model files


def missing(path: Path) -> None:
    path.unlink()


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


def text(path: Path) -> None:
    path.write_text("this is a letter to my grandmother, not a network")


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def zeros(path: Path) -> None:
    path.write_bytes(bytes(1000))


def image(path: Path) -> None:
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))


def old(path: Path) -> None:
    model = onnx.load(path)
    model.opset_import[0].version = 12
    onnx.save(model, path)


def newer_than_anything(path: Path) -> None:
    model = onnx.load(path)
    model.opset_import[0].version = 999
    onnx.save(model, path)


def unknown_operator(path: Path) -> None:
    model = onnx.load(path)
    model.graph.node[1].op_type = "Relux"
    onnx.save(model, path)


def unknown_domain(path: Path) -> None:
    model = onnx.load(path)
    model.graph.node[1].domain = "org.nowhere"
    model.opset_import.append(helper.make_opsetid("org.nowhere", 1))
    onnx.save(model, path)


def dangling(path: Path) -> None:
    model = onnx.load(path)
    model.graph.node[1].input[0] = "nobody makes this"
    onnx.save(model, path)


MODELS: list[tuple[Callable[[Path], None], tuple[str, ...]]] = [
    (missing, ("no model file at", "small.onnx")),
    (folder_instead, ("no model file at", "small.onnx")),
    (text, ("small.onnx is not an ONNX file or is cut short",)),
    (cut_short, ("small.onnx", "cut short")),
    (empty, ("small.onnx holds no graph; it is empty",)),
    (zeros, ("small.onnx is not an ONNX file or is cut short",)),
    (image, ("small.onnx is not an ONNX file or is cut short",)),
    (old, ("opset 12", "opset 13 or later is needed", "convert_version")),
    (newer_than_anything, ("small.onnx uses ONNX opset 999", "export with an earlier one")),
    (unknown_operator, ("small.onnx is not valid ONNX", "Relux")),
    (unknown_domain, ("ONNX Runtime", "cannot load small.onnx", "org.nowhere")),
    (dangling, ("small.onnx is not valid ONNX", "nobody makes this")),
]


@pytest.mark.parametrize(("spoil", "words"), MODELS, ids=lambda p: getattr(p, "__name__", ""))
def test_bad_model(
    spoil: Callable[[Path], None],
    words: tuple[str, ...],
    given: Given,
    cli: Cli,
    tmp_path: Path,
) -> None:
    model = tmp_path / "small.onnx"
    shutil.copy(given.model, model)
    spoil(model)
    compress_refused(cli, tmp_path, (model, "--cases", given.cases, *KEEP), *words)
    refused(cli("inspect", model), *words)
    certificate = tmp_path / "certificate.json"
    for pair in (model, given.model), (given.model, model):
        refused(cli("certify", *pair, "--cases", given.cases, *KEEP, "-o", certificate), *words)
        assert not certificate.exists()


def test_model_that_may_not_be_read(given: Given, tmp_path: Path) -> None:
    model = tmp_path / "small.onnx"
    shutil.copy(given.model, model)
    model.chmod(0)
    tmp_path.chmod(0o755)
    if os.getuid() == 0:
        pytest.skip("root reads everything")
    refused(process("inspect", model), "small.onnx")


def test_other_formats_are_not_guessed_from_the_name(
    given: Given, cli: Cli, tmp_path: Path
) -> None:
    for name in ("m.json", "m.textproto", "m.onnxtxt"):
        path = tmp_path / name
        path.write_text("{}")
        refused(cli("inspect", path), name)


# Weights outside the model's folder


def with_external(folder: Path, location: str, **where: Any) -> Path:
    model = mlp(hidden=16)
    tensor = model.graph.initializer[0]
    set_external_data(tensor, location, **where)
    tensor.ClearField("raw_data")
    folder.mkdir()
    path = folder / "small.onnx"
    path.write_bytes(model.SerializeToString())
    return path


WEIGHTS = FEATURES * 16 * 4


@pytest.mark.parametrize(
    "location", ["/etc/passwd", "../weights.bin", "a/../../weights.bin", "link.bin", "."]
)
def test_weights_outside_the_folder(location: str, given: Given, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(bytes(WEIGHTS))
    model = with_external(tmp_path / "model", location)
    (tmp_path / "model" / "link.bin").symlink_to(tmp_path / "weights.bin")
    words = ("small.onnx keeps weights at", "outside its own folder; move them beside the model")
    compress_refused(cli, tmp_path, (model, "--cases", given.cases, *KEEP), *words)
    refused(cli("inspect", model), *words)


def test_weights_that_are_missing_or_short(given: Given, cli: Cli, tmp_path: Path) -> None:
    model = with_external(tmp_path / "model", "weights.bin")
    refused(cli("inspect", model), "needs the weights file 'weights.bin' beside it")
    (tmp_path / "model" / "weights.bin").write_bytes(bytes(WEIGHTS - 4))
    refused(cli("inspect", model), "small.onnx")
    for where in ({"offset": -1}, {"offset": 10**18}, {"length": -5}, {"length": 10**18}):
        shutil.rmtree(tmp_path / "model")
        model = with_external(tmp_path / "model", "weights.bin", **where)
        (tmp_path / "model" / "weights.bin").write_bytes(bytes(WEIGHTS))
        refused(cli("inspect", model), "weights.bin")


@pytest.mark.parametrize("key", ["offset", "length", "location"])
def test_weights_entry_that_makes_no_sense(key: str, cli: Cli, tmp_path: Path) -> None:
    path = with_external(tmp_path / "model", "weights.bin", offset=0, length=WEIGHTS)
    (tmp_path / "model" / "weights.bin").write_bytes(bytes(WEIGHTS))
    model = onnx.load(path, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == key:
            entry.value = "a\0b"
    path.write_bytes(model.SerializeToString())
    refused(cli("inspect", path), "small.onnx")


def test_hidden_weights_outside_the_folder(cli: Cli, tmp_path: Path) -> None:
    """Weights are kept in other places too: constants, functions, sparse tensors."""
    (tmp_path / "weights.bin").write_bytes(bytes(8))
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../weights.bin")
    constant = helper.make_node("Constant", [], ["w"])
    constant.attribute.append(helper.make_attribute("value", tensor))
    use = helper.make_node("Add", ["x", "w"], ["y"])
    face = {"x": (TensorProto.FLOAT, ["n", 2])}, {"y": (TensorProto.FLOAT, ["n", 2])}
    plain = network([helper.make_node("Relu", ["x"], ["y"])], *face, {})

    in_constant = onnx.ModelProto()
    in_constant.CopyFrom(plain)
    del in_constant.graph.node[:]
    in_constant.graph.node.extend([constant, use])

    in_function = onnx.ModelProto()
    in_function.CopyFrom(plain)
    opsets = [helper.make_opsetid("", 17)]
    in_function.functions.append(
        helper.make_function("own", "shift", ["x"], ["y"], [constant, use], opsets)
    )
    in_function.opset_import.append(helper.make_opsetid("own", 1))
    in_function.graph.node[0].CopyFrom(helper.make_node("shift", ["x"], ["y"], domain="own"))

    in_sparse = onnx.ModelProto()
    in_sparse.CopyFrom(plain)
    sparse = in_sparse.graph.sparse_initializer.add(dims=[2])
    sparse.values.CopyFrom(tensor)
    sparse.indices.CopyFrom(helper.make_tensor("i", TensorProto.INT64, [2], [0, 1]))
    in_sparse.graph.node[0].CopyFrom(use)

    for k, model in enumerate((in_constant, in_function, in_sparse)):
        path = tmp_path / str(k) / "small.onnx"
        path.parent.mkdir()
        path.write_bytes(model.SerializeToString())
        refused(cli("inspect", path), "'../weights.bin'", "outside its own folder")


# What a model answers


def one_layer(
    output: str,
    *nodes: onnx.NodeProto,
    kind: int = TensorProto.FLOAT,
    shape: Sequence[str | int] = ("n", FEATURES),
) -> Any:
    """A model x (n, 64) to `output`, without a check."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", FEATURES])],
        [helper.make_tensor_value_info(output, kind, shape)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def test_outputs_that_are_not_one_row_per_case(given: Given, cli: Cli, tmp_path: Path) -> None:
    mean = helper.make_node("ReduceMean", ["x"], ["m"], keepdims=0)
    turned = helper.make_node("Transpose", ["x"], ["m"], perm=[1, 0])
    for k, (node, shape) in enumerate(((mean, ()), (turned, (FEATURES, "n")))):
        path = tmp_path / f"{k}.onnx"
        onnx.save(one_layer("m", node, shape=shape), path)
        args = (path, "--cases", given.cases, "--keep", "snr_db >= 20")
        compress_refused(
            cli,
            tmp_path,
            args,
            "output 'm'",
            "one row per case",
            "shape (64, " if k else "shape ()",
        )


def test_outputs_that_are_no_numeric_tensor(given: Given, cli: Cli, tmp_path: Path) -> None:
    sequence = one_layer("m", helper.make_node("SplitToSequence", ["x"], ["m"], axis=1))
    value = helper.make_tensor_sequence_value_info("m", TensorProto.FLOAT, None)
    sequence.graph.output[0].CopyFrom(value)
    words = one_layer(
        "m", helper.make_node("Cast", ["x"], ["m"], to=TensorProto.STRING), kind=TensorProto.STRING
    )
    for model in sequence, words:
        onnx.save(model, tmp_path / "m.onnx")
        args = (tmp_path / "m.onnx", "--cases", given.cases, "--keep", "snr_db >= 20")
        compress_refused(cli, tmp_path, args, "output 'm'", "numeric")


def test_reference_that_answers_nan(given: Given, cli: Cli, tmp_path: Path) -> None:
    model = mlp(hidden=16)
    model.graph.node[-1].output[0] = "product"
    model.graph.node.append(helper.make_node("Log", ["product"], ["logits"]))
    onnx.save(model, tmp_path / "m.onnx")
    args = (tmp_path / "m.onnx", "--cases", given.cases, "--keep", "snr_db >= 20")
    words = ("'logits' of the reference has NaN or infinite values",)
    compress_refused(cli, tmp_path, args, *words)
