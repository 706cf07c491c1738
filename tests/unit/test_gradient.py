"""Sensitivity by gradients: the interpreter against ONNX Runtime, the noise against real files."""

import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402, N812
from torch import Tensor, nn  # noqa: E402

from justenough.core.gate import Gate  # noqa: E402
from justenough.core.subject import Site, Variant  # noqa: E402
from justenough.errors import InputError  # noqa: E402
from justenough.subjects import quantize  # noqa: E402
from justenough.subjects.gradient import SiteNoise, site_noise  # noqa: E402
from justenough.subjects.onnx_model import find_sites, session  # noqa: E402
from justenough.subjects.prepare import prepare  # noqa: E402
from justenough.subjects.torch_graph import UnsupportedOperator, torch_graph  # noqa: E402

Array = NDArray[Any]
Inputs = dict[str, Array]
BATCH_FREE = "batch"


class ConvNet(nn.Module):
    """Batch norms, a depthwise and a residual block with SiLU, pooling, uneven padding."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU())
        self.deep = nn.Sequential(
            nn.Conv2d(12, 12, 3, padding=1, groups=12), nn.BatchNorm2d(12), nn.SiLU(),
            nn.Conv2d(12, 12, 1), nn.BatchNorm2d(12),
        )  # fmt: skip
        self.down = nn.Sequential(
            nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(12, 20, 3, 2), nn.BatchNorm2d(20), nn.ReLU6(),
            nn.MaxPool2d(3, 2, 1), nn.Conv2d(20, 20, 3, padding=1, bias=False), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(20, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.stem(x), 2)
        x = torch.relu(x + self.deep(x))
        return self.head(F.adaptive_avg_pool2d(self.down(x), 1).flatten(1))  # type: ignore[no-any-return]


class Layer(nn.Module):
    """Attention with a mask, then a GELU layer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.n1, self.n2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        b, t, w = x.shape
        h = self.n1(x)
        q, k, v = (
            f(h).view(b, t, self.heads, w // self.heads).transpose(1, 2)
            for f in (self.q, self.k, self.v)
        )
        score = q @ k.transpose(-1, -2) / (w // self.heads) ** 0.5 + bias
        mixed = (torch.softmax(score, -1) @ v).transpose(1, 2).reshape(b, t, w)
        x = x + self.o(mixed)
        return x + self.down(F.gelu(self.up(self.n2(x))))  # type: ignore[no-any-return]


class Transformer(nn.Module):
    """Two layers over token numbers and a mask of those that count."""

    def __init__(self, width: int = 24, length: int = 12) -> None:
        super().__init__()
        self.token, self.place = nn.Embedding(20, width), nn.Embedding(length, width)
        self.layers = nn.ModuleList(Layer(width, 3) for _ in range(2))
        self.head = nn.Linear(width, 4)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.token(ids) + self.place(torch.arange(ids.shape[1]))
        bias = torch.where(mask[:, None, None, :] > 0, 0.0, -1e4)
        for layer in self.layers:
            x = layer(x, bias)
        seen = mask.to(x.dtype)[..., None]
        return self.head((x * seen).sum(1) / seen.sum(1))  # type: ignore[no-any-return]


def waves(n: int, seed: int) -> tuple[Inputs, Array]:
    """Gratings of five directions in noise."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 5, n)
    angle = label * np.pi / 5 + rng.normal(0, 0.1, n)
    y, x = np.mgrid[:20, :20]
    wave = np.cos(angle)[:, None, None] * x + np.sin(angle)[:, None, None] * y
    image = np.sin(wave + rng.uniform(0, 6, n)[:, None, None]) * rng.uniform(0.3, 1, (n, 1, 1))
    return {"x": (image + rng.normal(0, 0.5, image.shape))[:, None].astype(np.float32)}, label


def words(n: int, seed: int) -> tuple[Inputs, Array]:
    """Tokens of four groups; the answer is the group that occurs most among those that count."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 20, (n, 12))
    length = rng.integers(6, 13, n)
    mask = (np.arange(12) < length[:, None]).astype(np.int64)
    counts = np.stack([((ids // 5 == g) & (mask > 0)).sum(1) for g in range(4)], 1)
    return {"ids": ids, "mask": mask}, (counts + np.arange(4) * 0.1).argmax(1)


def export(net: nn.Module, inputs: Inputs, path: Path) -> onnx.ModelProto:
    net.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net, tuple(torch.from_numpy(v[:2]) for v in inputs.values()), str(path),
            dynamo=False, opset_version=17, input_names=list(inputs), output_names=["y"],
            dynamic_axes={k: {0: BATCH_FREE} for k in (*inputs, "y")},
        )  # fmt: skip
    return prepare(onnx.load(str(path)))


def train(net: nn.Module, inputs: Inputs, label: Array, steps: int) -> None:
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(net.parameters(), 3e-3)
    data, target = [torch.from_numpy(v) for v in inputs.values()], torch.from_numpy(label)
    net.train()
    for _ in range(steps):
        at = torch.randint(0, len(target), (64,))
        optimizer.zero_grad()
        F.cross_entropy(net(*(d[at] for d in data)), target[at]).backward()
        optimizer.step()


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[int, int], tuple[Inputs, Array]], int]]
CASES = {"conv": (ConvNet, waves, 60), "transformer": (Transformer, words, 300)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], onnx.ModelProto]:
    @cache
    def make(name: str) -> onnx.ModelProto:
        build, draw, steps = CASES[name]
        torch.manual_seed(0)
        net = build()
        inputs, label = draw(4000, 0)
        train(net, inputs, label, steps)
        return export(net, inputs, tmp_path_factory.mktemp(name) / "net.onnx")

    return make


def run(model: onnx.ModelProto, inputs: Inputs, path: Path) -> dict[str, Array]:
    onnx.save(model, str(path))
    s = session(path)
    return dict(zip((o.name for o in s.get_outputs()), s.run(None, inputs), strict=True))


def calibrate(
    model: onnx.ModelProto, sites: tuple[Site, ...], inputs: Inputs, path: Path
) -> quantize.Ranges:
    tensors = quantize.observed_tensors(model, sites)
    seen = run(quantize.with_outputs(model, tensors), inputs, path)
    return quantize.find_ranges(
        {t: (float((v := {**inputs, **seen}[t]).min()), float(v.max()), v) for t in tensors}
    )
