"""Two classifiers of pictures, written out: DenseNet-121 and EfficientNet-B0.

Both are as published, so that a saving shown on them says something about networks that
others use; only the number of channels of the picture and of classes is free.
"""

import torch
import torch.nn.functional as F  # noqa: N812  (the name that every PyTorch reader knows)
from torch import Tensor, nn

from justenough.errors import InputError

GROWTH = 32
# Convolutions per dense block of DenseNet-121, Huang et al. 2017, table 1.
DENSE_BLOCKS = (6, 12, 24, 16)
# Expansion, kernel, stride, width, repeats: the stages of B0, Tan & Le 2019, table 1, with the
# expansions of the MnasNet-like search space that it came from.
STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
STEM_WIDTH, HEAD_WIDTH = 32, 1280
DROPOUT = 0.2
DROP_PATH = 0.2


class DenseLayer(nn.Module):
    """Norm, 1 x 1, norm, 3 x 3; its 32 channels are added to what came in."""

    def __init__(self, c_in: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(c_in)
        self.conv1 = nn.Conv2d(c_in, 4 * GROWTH, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(4 * GROWTH)
        self.conv2 = nn.Conv2d(4 * GROWTH, GROWTH, 3, 1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) to (n, c + 32, h, w)."""
        new = self.conv1(F.relu(self.norm1(x)))
        new = self.conv2(F.relu(self.norm2(new)))
        return torch.cat((x, new), 1)


class Transition(nn.Module):
    """Between two dense blocks: half the channels, half the side."""

    def __init__(self, c_in: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(c_in)
        self.conv = nn.Conv2d(c_in, c_in // 2, 1, bias=False)
        self.pool = nn.AvgPool2d(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) to (n, c / 2, h / 2, w / 2)."""
        out: Tensor = self.pool(self.conv(F.relu(self.norm(x))))
        return out


class DenseNet121(nn.Module):
    """DenseNet-121: pictures (n, channels, h, w) to logits (n, classes).

    Huang, Liu, van der Maaten & Weinberger 2017, "Densely connected convolutional networks"
    (CVPR), with bottlenecks and compression 0.5.
    """

    def __init__(self, classes: int, channels: int = 3) -> None:
        super().__init__()
        width = 2 * GROWTH
        self.stem = nn.Conv2d(channels, width, 7, 2, 3, bias=False)
        self.stem_norm = nn.BatchNorm2d(width)
        self.stem_pool = nn.MaxPool2d(3, 2, 1)
        blocks: list[nn.Module] = []
        for k, layers in enumerate(DENSE_BLOCKS):
            if k > 0:
                blocks.append(Transition(width))
                width //= 2
            for _ in range(layers):
                blocks.append(DenseLayer(width))
                width += GROWTH
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(width)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(width, classes)
        _start(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.stem_pool(F.relu(self.stem_norm(self.stem(x))))
        x = F.relu(self.norm(self.blocks(x)))
        logits: Tensor = self.head(self.pool(x).flatten(1))
        return logits


class Gate(nn.Module):
    """Squeeze and excitation: every channel times a number in (0, 1) found from all of them.

    Hu, Shen & Sun 2018, "Squeeze-and-excitation networks" (CVPR).
    """

    def __init__(self, width: int, squeezed: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce = nn.Conv2d(width, squeezed, 1)
        self.expand = nn.Conv2d(squeezed, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) to the same."""
        gate = self.expand(F.silu(self.reduce(self.pool(x))))
        return x * torch.sigmoid(gate)


class InvertedBlock(nn.Module):
    """Widen, convolve each channel by itself, gate, narrow; Sandler et al. 2018 (MobileNetV2).

    Where the shape stays, what came in is added, and in training the rest is left out of
    some pictures at random (stochastic depth, Huang et al. 2016).
    """

    def __init__(
        self, c_in: int, c_out: int, expansion: int, kernel: int, stride: int, drop: float
    ) -> None:
        super().__init__()
        wide = c_in * expansion
        layers: list[nn.Module] = []
        if wide != c_in:
            layers += [nn.Conv2d(c_in, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.SiLU()]
        layers += [
            nn.Conv2d(wide, wide, kernel, stride, kernel // 2, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            nn.SiLU(),
            Gate(wide, max(1, c_in // 4)),
            nn.Conv2d(wide, c_out, 1, bias=False),
            nn.BatchNorm2d(c_out),
        ]
        self.layers = nn.Sequential(*layers)
        self.adds = stride == 1 and c_in == c_out
        self.drop = drop

    def forward(self, x: Tensor) -> Tensor:
        """(n, c_in, h, w) to (n, c_out, h / stride, w / stride)."""
        out: Tensor = self.layers(x)
        if not self.adds:
            return out
        if self.training and self.drop > 0:
            keep = torch.rand(len(x), 1, 1, 1, device=x.device) >= self.drop
            out = out * (keep / (1 - self.drop)).to(out.dtype)
        return x + out


class EfficientNetB0(nn.Module):
    """EfficientNet-B0: pictures (n, channels, h, w) to logits (n, classes).

    Tan & Le 2019, "EfficientNet: rethinking model scaling for convolutional neural networks"
    (ICML). Convolutions are padded alike on all sides.
    """

    def __init__(self, classes: int, channels: int = 3) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv2d(channels, STEM_WIDTH, 3, 2, 1, bias=False),
            nn.BatchNorm2d(STEM_WIDTH),
            nn.SiLU(),
        ]
        width, done, total = STEM_WIDTH, 0, sum(stage[-1] for stage in STAGES)
        for expansion, kernel, stride, c_out, repeats in STAGES:
            for k in range(repeats):
                drop = DROP_PATH * done / total
                layers.append(
                    InvertedBlock(width, c_out, expansion, kernel, stride if k == 0 else 1, drop)
                )
                width, done = c_out, done + 1
        layers += [
            nn.Conv2d(width, HEAD_WIDTH, 1, bias=False),
            nn.BatchNorm2d(HEAD_WIDTH),
            nn.SiLU(),
        ]
        self.layers = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(DROPOUT)
        self.head = nn.Linear(HEAD_WIDTH, classes)
        _start(self)

    @property
    def stem(self) -> nn.Conv2d:
        """The convolution that reads the picture."""
        return self.layers[0]

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.head(self.dropout(self.pool(self.layers(x)).flatten(1)))
        return logits


Network = DenseNet121 | EfficientNetB0
NETWORKS: dict[str, type[Network]] = {
    "densenet121": DenseNet121,
    "efficientnet_b0": EfficientNetB0,
}


def build(name: str, classes: int, channels: int = 3) -> Network:
    """A network by its name, with random weights.

    Args:
        name: `densenet121` or `efficientnet_b0`.
        classes: Number of logits.
        channels: Of the pictures.

    Raises:
        InputError: There is no network of that name.
    """
    if name not in NETWORKS:
        raise InputError(f"there is no network {name!r}; give {' or '.join(NETWORKS)}")
    return NETWORKS[name](classes, channels)


def _start(network: nn.Module) -> None:
    # He et al. 2015: the variance of what goes out of a convolution, kept; logits start at 0
    for part in network.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=0.01)
            nn.init.zeros_(part.bias)
