"""Train a classifier of pictures from nothing, with all pictures in the device's memory.

Pictures stay uint8 until they are part of a batch and are changed there, many at once, so
that the device and not a loader sets the pace.
"""

import math
import time
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (the name that every PyTorch reader knows)
from numpy.typing import NDArray
from torch import Tensor, nn

from justenough.train.augment import Augmentation, augment
from justenough.train.networks import Network

Array = NDArray[Any]
FULL_SCALE = 255


@dataclass(frozen=True)
class Recipe:
    """Everything that training depends on besides network, pictures and labels.

    Attributes:
        epochs: How often as many pictures as there are, are drawn.
        batch: Pictures per step.
        rate: Largest rate of AdamW (Loshchilov & Hutter 2019); it rises for a twentieth of
            the steps and then falls to 0 as half a cosine.
        weight_decay: Of the weights of convolutions and of the head; nothing else decays.
        smoothing: Probability spread over all classes (Szegedy et al. 2016).
        mixup: Parameter of the Beta distribution of shares (Zhang et al. 2018); 0 is none.
        balance: Classes are drawn in proportion to their size to the power of 1 less this:
            0 as they come, 1 all alike.
        average: Decay per step of the running mean of the weights, which is what is kept.
        seed: Of batches and augmentation.
        augmentation: How pictures are changed.
    """

    epochs: int = 100
    batch: int = 64
    rate: float = 1e-3
    weight_decay: float = 0.05
    smoothing: float = 0.1
    mixup: float = 0.2
    balance: float = 0.0
    average: float = 0.998
    seed: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)


@dataclass(frozen=True)
class Trained:
    """What training made.

    Attributes:
        network: With the running mean of the weights, in evaluation mode, on the CPU.
        losses: Mean loss per epoch; fewer than the recipe's epochs if time ran out.
        seconds: Time taken.
    """

    network: Network
    losses: list[float]
    seconds: float


def fit(
    network: Network,
    pictures: Array,
    labels: Array,
    recipe: Recipe,
    *,
    device: str = "cpu",
    limit_s: float = math.inf,
) -> Trained:
    """Train on all pictures given; nothing is chosen by looking at others.

    On a GPU convolutions run in bfloat16 and last figures differ from run to run; on a CPU
    in float32, the same each time.

    Args:
        network: Where to start; moved to `device` and changed.
        pictures: (n, c, h, w) uint8.
        labels: (n,) integer classes.
        recipe: How.
        device: Where, as PyTorch names it.
        limit_s: Seconds after which no further epoch starts.
    """
    began = time.perf_counter()
    torch.manual_seed(recipe.seed)
    chance = torch.Generator(device).manual_seed(recipe.seed)
    shares = np.random.default_rng(recipe.seed)
    network = network.to(device=device, memory_format=torch.channels_last).train()
    mean = deepcopy(network)
    x = torch.from_numpy(pictures).to(device)
    y = torch.from_numpy(labels.astype(np.int64)).to(device)
    optimizer, schedule = _descent(network, recipe, len(x))
    losses: list[float] = []
    step = 0
    for _ in range(recipe.epochs):
        if time.perf_counter() - began > limit_s:
            break
        each = []
        for rows in _draw(y, recipe, chance):
            seen = augment(x[rows].float() / FULL_SCALE, recipe.augmentation, chance)
            target = _soft(y[rows], network.head.out_features, recipe.smoothing)
            if recipe.mixup:
                share = float(shares.beta(recipe.mixup, recipe.mixup))
                seen, target = (torch.lerp(t, t.roll(1, 0), share) for t in (seen, target))
            with torch.autocast(x.device.type, torch.bfloat16, enabled=x.is_cuda):
                logits = network(seen.contiguous(memory_format=torch.channels_last))
            loss = F.cross_entropy(logits.float(), target)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            step += 1
            _follow(mean, network, min(recipe.average, step / (step + 10)))
            each.append(loss.detach())
        losses.append(float(torch.stack(each).mean()))
    mean = mean.to(device="cpu", memory_format=torch.contiguous_format).eval()
    return Trained(mean, losses, time.perf_counter() - began)


def predict(network: nn.Module, pictures: Array, *, device: str = "cpu") -> Array:
    """Logits (n, classes) float32 of pictures (n, c, h, w) uint8; moves the network."""
    network = network.to(device).eval()
    parts = []
    with torch.no_grad():
        for k in range(0, len(pictures), 256):
            x = torch.from_numpy(pictures[k : k + 256]).to(device)
            parts.append(network(x.float() / FULL_SCALE).cpu().numpy())
    return np.concatenate(parts)


def _descent(network: Network, recipe: Recipe, n: int) -> tuple[Any, Any]:
    decayed = [p for p in network.parameters() if p.ndim > 1]
    free = [p for p in network.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed}, {"params": free, "weight_decay": 0.0}],
        lr=recipe.rate,
        weight_decay=recipe.weight_decay,
        fused=True,
    )
    steps = recipe.epochs * max(1, n // recipe.batch)
    rise = max(1, steps // 20)

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        return 0.5 + 0.5 * math.cos(math.pi * (step - rise) / max(1, steps - rise))

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


@torch.no_grad()
def _follow(mean: Network, network: Network, decay: float) -> None:
    # running means and variances of the norms are averaged like weights; counts are left alone
    pairs = zip(mean.state_dict().values(), network.state_dict().values(), strict=True)
    both = [(a, b) for a, b in pairs if a.is_floating_point()]
    torch._foreach_lerp_([a for a, _ in both], [b for _, b in both], 1 - decay)


def _draw(y: Tensor, recipe: Recipe, chance: torch.Generator) -> list[Tensor]:
    # one epoch's batches, all full unless there is only one
    n = len(y)
    if recipe.balance == 0:
        rows = torch.randperm(n, generator=chance, device=y.device)
    else:
        weight = torch.bincount(y).clamp(min=1).float().pow(-recipe.balance)[y]
        rows = torch.multinomial(weight, n, replacement=True, generator=chance)
    size = min(recipe.batch, n)
    return list(rows[: n // size * size].split(size))


def _soft(y: Tensor, classes: int, smoothing: float) -> Tensor:
    return F.one_hot(y, classes).float() * (1 - smoothing) + smoothing / classes
