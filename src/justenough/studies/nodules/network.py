"""A small residual network from eight views of a nodule to six ratings.

He et al. 2016, "Deep residual learning for image recognition" (CVPR), basic blocks, six of
them after a stride-2 stem; 0.7 million parameters.
"""

from copy import deepcopy

import torch
from torch import Tensor, nn

# The ratings that the heads are trained on, in the order of the heads.
HEADS = ("malignancy", "sphericity", "lobulation", "spiculation", "margin", "calcification")
# The heads that the exported model keeps, as its outputs.
OUTPUTS = HEADS[:2]
WIDTHS = (32, 64, 128)
BLOCKS = 2
VIEWS = 8


class Block(nn.Module):
    """Two 3 x 3 convolutions around a shortcut: (n, c_in, h, w) to (n, c_out, h/s, w/s)."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(c_out),
            nn.ReLU(),
            nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False),
            nn.BatchNorm2d(c_out),
        )
        self.shortcut: nn.Module = nn.Identity()
        if c_in != c_out or stride != 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        return torch.relu(self.shortcut(x) + self.body(x))


class NoduleNet(nn.Module):
    """Views (n, 8, 64, 64), float in [0, 1], to one logit per head (n, 6)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(VIEWS, WIDTHS[0], 3, 2, 1, bias=False)
        blocks: list[nn.Module] = []
        c_in = WIDTHS[0]
        for stage, width in enumerate(WIDTHS):
            for k in range(BLOCKS):
                blocks.append(Block(c_in, width, 2 if stage > 0 and k == 0 else 1))
                c_in = width
        self.norm = nn.BatchNorm2d(WIDTHS[0])
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.3)
        self.heads = nn.Linear(c_in, len(HEADS))

    def forward(self, x: Tensor) -> Tensor:
        """Logits of all heads."""
        x = self.blocks(torch.relu(self.norm(self.stem(x))))
        logits: Tensor = self.heads(self.dropout(self.pool(x).flatten(1)))
        return logits


class Deployed(nn.Module):
    """The network as it is exported: uint8 views in, one logit (n,) per name in `OUTPUTS`.

    The division by 255 is folded into the stem, which has no bias, so that nothing but a
    cast stands between the bytes and the first convolution.
    """

    def __init__(self, network: NoduleNet) -> None:
        super().__init__()
        self.network = deepcopy(network).eval()
        keep = self.network.heads
        heads = nn.Linear(keep.in_features, len(OUTPUTS))
        with torch.no_grad():
            self.network.stem.weight /= 255
            heads.weight.copy_(keep.weight[: len(OUTPUTS)])
            heads.bias.copy_(keep.bias[: len(OUTPUTS)])
        self.network.heads = heads

    def forward(self, views: Tensor) -> tuple[Tensor, ...]:
        """One logit per output."""
        logits = self.network(views.float())
        return tuple(logits[:, k] for k in range(len(OUTPUTS)))
