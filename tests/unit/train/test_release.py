"""Released weights: what is written is what is read, and the ONNX file answers alike."""

import argparse
import struct
from pathlib import Path

import numpy as np
import onnx
import pytest

from justenough.errors import InputError

torch = pytest.importorskip("torch", reason="weights need the torch extra")
pytest.importorskip("safetensors", reason="weights need safetensors")

from justenough.train import course, release  # noqa: E402
from justenough.train.answers import answer, table  # noqa: E402
from justenough.train.classify import Array, Recipe, Trained, predict  # noqa: E402
from justenough.train.held_out import Pictures  # noqa: E402
from justenough.train.networks import NETWORKS, Network, build  # noqa: E402
from justenough.train.release import export, halved, load_half, save_half  # noqa: E402
from justenough.train.scores import accuracy  # noqa: E402

SIZE = (33, 40)


def lived_in(name: str, channels: int) -> Network:
    """A network whose norms have seen something, so that folding them matters."""
    torch.manual_seed(0)
    network = build(name, 3, channels)
    for part in network.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.uniform_(-0.2, 0.2)
            part.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(part.weight, 0.5, 1.5)
            torch.nn.init.uniform_(part.bias, -0.2, 0.2)
    return network.eval()


def bytes_of(channels: int, n: int = 5) -> Array:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (n, channels, *SIZE), dtype=np.uint8)


@pytest.mark.parametrize(
    ("name", "channels"),
    [pytest.param("densenet121", 1, marks=pytest.mark.slow), ("efficientnet_b0", 3)],
)
def test_the_exported_file_answers_like_the_released_weights(
    name: str, channels: int, tmp_path: Path
) -> None:
    network, x = lived_in(name, channels), bytes_of(channels)
    save_half(network, tmp_path / "sub" / "w", {"network": name, "licence": "none"})
    read, said = load_half(tmp_path / "sub" / "w", 3, channels)
    assert said == {"network": name, "licence": "none"}
    wanted = predict(halved(network), x)
    np.testing.assert_array_equal(predict(read, x), wanted)
    export(read, tmp_path / "m.onnx", SIZE, said)
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(answer(tmp_path / "m.onnx", x), wanted, atol=1e-4 * scale)
    alone = answer(tmp_path / "m.onnx", x[2:3])
    np.testing.assert_allclose(alone[0], wanted[2], atol=1e-4 * scale)
    model = onnx.load(tmp_path / "m.onnx")
    kinds = [node.op_type for node in model.graph.node]
    assert kinds[0] == "Cast"
    assert "Identity" not in kinds, "equal weights are stored apart"
    assert model.opset_import[0].version == 17
    # before its last convolution of every layer, transition and head DenseNet normalises
    # what it has gathered, which cannot be folded
    assert kinds.count("BatchNormalization") == (62 if name == "densenet121" else 0)
    assert {p.key: p.value for p in model.metadata_props} == said
    for weights in model.graph.initializer:
        weights.raw_data = b""
    assert b".py" not in model.SerializeToString()


def test_half_is_float16_and_what_it_cannot_hold_is_refused(tmp_path: Path) -> None:
    network = lived_in("efficientnet_b0", 1)
    before = network.stem.weight.clone()
    for name, value in halved(network).state_dict().items():
        assert value.dtype == network.state_dict()[name].dtype
        if value.is_floating_point():
            assert torch.equal(value, value.half().float()), name
    assert torch.equal(network.stem.weight, before), "the network itself is left alone"
    with torch.no_grad():
        network.head.weight[0, 0] = 1e6
    with pytest.raises(InputError, match=r"head\.weight has values that float16 cannot hold"):
        save_half(network, tmp_path / "w", {})


def test_other_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    with pytest.raises(InputError, match=r"w\.safetensors is no file of at most 64,000,000 bytes"):
        load_half(path, 2, 1)
    save_half(lived_in("efficientnet_b0", 1), path, {"network": "efficientnet_b0"})
    with pytest.raises(InputError, match=r"1 channels and 2 classes: head\.bias differs"):
        load_half(path, 2, 1)
    with pytest.raises(InputError, match="with 3 channels and 3 classes"):
        load_half(path, 3, 3)
    save_half(lived_in("efficientnet_b0", 1), path, {})
    with pytest.raises(InputError, match=r"no network '\(none named\)'"):
        load_half(path, 3, 1)
    from safetensors.torch import load_file, save_file

    weights = load_file(path)
    weights["head.bias"][0] = torch.nan
    save_file(weights, path, {"network": "efficientnet_b0"})
    with pytest.raises(InputError, match=r"head\.bias in w\.safetensors is not finite"):
        load_half(path, 3, 1)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x04\x95",
        struct.pack("<Q", 2**60),
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 62) + b'{"a":{"dtype":"F16","shape":[999999],"data_offsets":[0,1]}}   ',
    ],
    ids=["empty", "pickle", "endless header", "no table", "offsets that lie"],
)
def test_what_is_no_safetensors_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(data)
    with pytest.raises(InputError, match="cannot be read as safetensors"):
        load_half(tmp_path / "w", 2, 1)


def world(n: int = 40) -> Pictures:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (n, 1, *SIZE), dtype=np.uint8)
    group = np.array([f"g{k // 2}" for k in range(n)])
    return Pictures(pixels, rng.integers(0, 2, n), group, ("no", "yes"))


def test_a_run_trains_on_nothing_held_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures, path, seen = world(), tmp_path / "w", []

    def fit(network: Network, x: Array, y: Array, recipe: Recipe, **_: object) -> Trained:
        seen.append(x)
        return Trained(network.eval(), [0.7, 0.6], 1.0)

    monkeypatch.setattr(course, "fit", fit)
    for trial in (False, True):
        given = argparse.Namespace(
            network="efficientnet_b0", output=path, device="cpu", limit=1.0, trial=trial
        )
        course.run(pictures, Recipe(epochs=3), given, {"name": "x"})
    full, tried = seen
    held = pictures.pixels[pictures.held_out]
    for x in (full, tried):
        assert not (x[:, None] == held[None]).all((2, 3, 4)).any()
    np.testing.assert_array_equal(full, pictures.pixels[~pictures.held_out])
    np.testing.assert_array_equal(tried, pictures.pixels[~pictures.held_out & ~pictures.tried])
    _, said = load_half(path, 2, 1)
    assert said == {"name": "x", "network": "efficientnet_b0", "epochs": "2 of 3"}
    assert "2 of 3 epochs" in capsys.readouterr().out


def test_the_arguments_of_training() -> None:
    given = course.parser("pictures").parse_args(
        ["--data", "t.tar", "--network", "densenet121", "-o", "w", "--trial"]
    )
    assert (given.data, given.network, given.trial, given.epochs) == (
        Path("t.tar"), "densenet121", True, None,
    )  # fmt: skip
    assert set(NETWORKS) == {"densenet121", "efficientnet_b0"}


def test_the_table_is_of_what_is_held_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("justenough.train.scores.REPEATS", 20)
    network, pictures = lived_in("efficientnet_b0", 1), world()
    export(network, tmp_path / "net.onnx", SIZE, {})
    logits = predict(network, pictures.pixels[pictures.held_out])
    wanted = accuracy(logits, pictures.label[pictures.held_out])
    lines = table(tmp_path / "net.onnx", pictures, {"accuracy": accuracy}).splitlines()
    assert lines[0] == "| network | pictures | groups | accuracy |"
    n, groups = pictures.held_out.sum(), len(set(pictures.group[pictures.held_out].tolist()))
    assert lines[2].startswith(f"| net | {n} | {groups} | {wanted:.3f} [")
    assert release.OPSET == 17
