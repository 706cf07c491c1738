"""A trained network as it is given away: half-precision weights, and the ONNX file from them.

The released weights are the reference: their float16 values, computed with in float32.
"""

import warnings
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from justenough.errors import InputError
from justenough.train.classify import FULL_SCALE
from justenough.train.networks import Network, build

OPSET = 17
INPUT, OUTPUT = "x", "logits"
# More than any file of these networks: what is larger is something else.
MOST_BYTES = 64_000_000


def halved(network: Network) -> Network:
    """A copy whose every weight is rounded to float16 and kept in float32.

    Raises:
        InputError: A weight is beyond what float16 holds.
    """
    out: Network = deepcopy(network).cpu().eval()
    state = {}
    for name, value in out.state_dict().items():
        state[name] = value.half().float() if value.is_floating_point() else value
        if not torch.isfinite(state[name]).all():
            raise InputError(f"{name} has values that float16 cannot hold; train again")
    out.load_state_dict(state)
    return out


def save_half(network: Network, path: Path, said: Mapping[str, str]) -> None:
    """Write the weights as float16 in the safetensors format.

    Args:
        network: Whose weights.
        path: File to write; its folder is made.
        said: Metadata of the file; `network` is what `load_half` asks for.

    Raises:
        InputError: A weight is beyond what float16 holds.
    """
    from safetensors.torch import save_file

    state = halved(network).state_dict()
    # counts of batches are no weights: nothing reads them after training
    kept = {k: v.half().contiguous() for k, v in state.items() if v.is_floating_point()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(kept, path, dict(said))


def load_half(path: Path, classes: int, channels: int) -> tuple[Network, Mapping[str, str]]:
    """Read what `save_half` wrote.

    Args:
        path: The file.
        classes: Number of logits that the network must have.
        channels: Of the pictures that it must take.

    Returns:
        The network in evaluation mode, float32, and the metadata.

    Raises:
        InputError: There is no such file, it is no safetensors file, it is of another network,
            or its weights are not finite.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file() or path.stat().st_size > MOST_BYTES:
        raise InputError(f"{path.name} is no file of at most {MOST_BYTES:,} bytes of weights")
    try:
        with safe_open(path, "pt") as f:
            said = f.metadata() or {}
            state = {name: f.get_tensor(name).float() for name in f.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as e:
        raise InputError(f"{path.name} cannot be read as safetensors: {e}") from e
    network = build(said.get("network", "(none named)"), classes, channels)
    wanted = {k: v for k, v in network.state_dict().items() if v.is_floating_point()}
    for name in sorted({*wanted, *state}):
        here, there = state.get(name), wanted.get(name)
        if here is None or there is None or here.shape != there.shape:
            raise InputError(
                f"{path.name} does not fit {said['network']} with {channels} channels and "
                f"{classes} classes: {name} differs; give the weights of that network"
            )
        if not torch.isfinite(here).all():
            raise InputError(f"{name} in {path.name} is not finite; give other weights")
    network.load_state_dict(state, strict=False)
    return network.eval(), said


class Deployed(nn.Module):
    """The network as it is exported: uint8 pictures in, logits out.

    The division by 255 is folded into the stem, which has no bias, so that nothing but a cast
    stands between the bytes and the first convolution.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = deepcopy(network).eval()
        with torch.no_grad():
            self.network.stem.weight /= FULL_SCALE

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, classes)."""
        logits: Tensor = self.network(x.float())
        return logits


def export(network: Network, path: Path, size: tuple[int, int], said: Mapping[str, str]) -> None:
    """Write the network as ONNX: `x` uint8 (n, channels, height, width) to `logits`.

    Batch normalisation that follows a convolution is folded into it; what stands before one,
    as in DenseNet, stays as its own node. The file holds no source paths.

    Args:
        network: Float32 weights.
        path: File to write; its folder is made.
        size: (height, width) of the pictures.
        said: Metadata of the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = network.stem.in_channels
    with warnings.catch_warnings():
        # the exporter that replaces this one needs onnxscript and leaves more behind
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            Deployed(network).eval(),
            (torch.zeros(2, channels, *size, dtype=torch.uint8),),
            str(path),
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes={INPUT: {0: "n"}, OUTPUT: {0: "n"}},
            opset_version=OPSET,
            dynamo=False,
        )
    model = onnx.load(path)
    _give_each_its_own(model.graph)
    model.doc_string = ""
    model.graph.name = said.get("network", "network")
    for node in model.graph.node:
        # torch writes where in which source file each node came from
        node.doc_string = ""
        del node.metadata_props[:]
    onnx.helper.set_model_props(model, dict(said))
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def _give_each_its_own(graph: onnx.GraphProto) -> None:
    # torch stores equal weights once and hands them on through Identity nodes; two biases
    # that happen to be equal are still two places, each to be made cheaper by itself
    stored = {w.name: w for w in graph.initializer}
    shared = [n for n in graph.node if n.op_type == "Identity" and n.input[0] in stored]
    for node in shared:
        own = graph.initializer.add()
        own.CopyFrom(stored[node.input[0]])
        own.name = node.output[0]
        graph.node.remove(node)
