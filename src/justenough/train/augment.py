"""Pictures changed without changing what they show: moved, tinted, blotted, many at once."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812  (the name that every PyTorch reader knows)
from torch import Tensor


@dataclass(frozen=True)
class Augmentation:
    """What may be done to a picture; every amount is drawn anew for each.

    Attributes:
        mirror: Left and right may change places.
        flip: Above and below may change places.
        degrees: Turned by up to so many, either way.
        zoom: Smallest and largest part of a side that is seen; where it is less than 1, any
            place in the picture may be seen.
        stretch: The two sides are scaled apart by up to this share.
        shift: Moved by up to this share of a side.
        brightness: Times 1 plus or minus up to this.
        contrast: Distance from the picture's mean, the same.
        saturation: Distance from the pixel's mean over channels, the same.
        tint: Each channel by itself, the same.
        erase: Share of pictures of which a rectangle is blotted out with the picture's mean
            (Zhong et al. 2020, "Random erasing data augmentation").
    """

    mirror: bool = True
    flip: bool = False
    degrees: float = 0.0
    zoom: tuple[float, float] = (1.0, 1.0)
    stretch: float = 0.0
    shift: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    tint: float = 0.0
    erase: float = 0.0


def augment(x: Tensor, how: Augmentation, chance: torch.Generator) -> Tensor:
    """Change every picture by itself.

    Args:
        x: (n, c, h, w) float in [0, 1].
        how: What may be done.
        chance: Draws the amounts; on the device of `x`.

    Returns:
        The same shape and range; what comes in from outside is the picture mirrored at its
        border.
    """
    return _blotted(_tinted(_moved(x, how, chance), how, chance), how, chance)


def _moved(x: Tensor, how: Augmentation, chance: torch.Generator) -> Tensor:
    n, c, h, w = x.shape
    turn = math.radians(how.degrees) * _either_way(x, (n,), chance)
    low, high = how.zoom
    seen = low + (high - low) * torch.rand(n, generator=chance, device=x.device)
    apart = how.stretch * _either_way(x, (n,), chance)
    across, down = seen * (1 + apart), seen * (1 - apart)
    if how.mirror:
        across = across * _sign(x, n, chance)
    if how.flip:
        down = down * _sign(x, n, chance)
    room = 2 * how.shift + (1 - seen).clamp(min=0)
    to = room[:, None] * _either_way(x, (n, 2), chance)
    # grid_sample measures both sides from -1 to 1: a turn of a picture that is no square
    # mixes the two measures
    cos, sin = turn.cos(), turn.sin()
    first = torch.stack((cos * across, -sin * down * (h / w), to[:, 0]), 1)
    second = torch.stack((sin * across * (w / h), cos * down, to[:, 1]), 1)
    grid = F.affine_grid(torch.stack((first, second), 1), [n, c, h, w], align_corners=False)
    return F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)


def _tinted(x: Tensor, how: Augmentation, chance: torch.Generator) -> Tensor:
    n, c = x.shape[:2]
    if how.saturation:
        grey = x.mean(1, keepdim=True)
        x = grey + (x - grey) * (1 + how.saturation * _either_way(x, (n, 1, 1, 1), chance))
    if how.contrast:
        mean = x.mean((1, 2, 3), keepdim=True)
        x = mean + (x - mean) * (1 + how.contrast * _either_way(x, (n, 1, 1, 1), chance))
    gain = 1 + how.brightness * _either_way(x, (n, 1, 1, 1), chance)
    if how.tint:
        gain = gain * (1 + how.tint * _either_way(x, (n, c, 1, 1), chance))
    return (x * gain).clamp(0, 1)


def _blotted(x: Tensor, how: Augmentation, chance: torch.Generator) -> Tensor:
    if not how.erase:
        return x
    n, _, h, w = x.shape
    # sides of 0.15 to 0.45 of the picture's: 2 to 20 per cent of its area
    half = 0.075 + 0.15 * torch.rand(n, 2, 1, generator=chance, device=x.device)
    centre = torch.rand(n, 2, 1, generator=chance, device=x.device)
    asked = torch.rand(n, 1, 1, 1, generator=chance, device=x.device) < how.erase
    rows, columns = ((torch.arange(s, device=x.device) + 0.5) / s for s in (h, w))
    tall = (rows - centre[:, 0]).abs() < half[:, 0]
    wide = (columns - centre[:, 1]).abs() < half[:, 1]
    blot = tall[:, None, :, None] & wide[:, None, None, :] & asked
    return torch.where(blot, x.mean((2, 3), keepdim=True), x)


def _either_way(x: Tensor, shape: tuple[int, ...], chance: torch.Generator) -> Tensor:
    return 2 * torch.rand(shape, generator=chance, device=x.device) - 1


def _sign(x: Tensor, n: int, chance: torch.Generator) -> Tensor:
    return 2.0 * torch.randint(0, 2, (n,), generator=chance, device=x.device) - 1
