"""The training loop learns, can be repeated, and keeps what it says it keeps."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the torch extra")

from torch import Tensor, nn  # noqa: E402

from justenough.train import classify  # noqa: E402
from justenough.train.augment import Augmentation  # noqa: E402
from justenough.train.classify import Array, Recipe, fit, predict  # noqa: E402


class Small(nn.Module):
    """A network of the same outline as those trained, in milliseconds."""

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.norm(self.stem(x))).mean((2, 3)))


def blobs(n: int = 64, seed: int = 0) -> tuple[Array, Array]:
    """Half of the pictures have vertical stripes, half horizontal ones."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    x = rng.integers(0, 80, (n, 1, 12, 12))
    x[y == 1, :, ::2] += 150
    x[y == 0, :, :, ::2] += 150
    return x.astype(np.uint8), y


def small() -> Small:
    torch.manual_seed(3)
    return Small()


RECIPE = Recipe(
    epochs=12, batch=16, rate=2e-2, average=0.9, augmentation=Augmentation(mirror=False)
)


def test_it_learns_and_can_be_repeated() -> None:
    x, y = blobs()
    trained = fit(small(), x, y, RECIPE)  # type: ignore[arg-type]
    assert len(trained.losses) == 12
    assert trained.losses[-1] < trained.losses[0] - 0.2
    fresh, labels = blobs(seed=1)
    assert (predict(trained.network, fresh).argmax(1) == labels).mean() > 0.9
    assert not trained.network.training
    again = fit(small(), x, y, RECIPE)  # type: ignore[arg-type]
    assert again.losses == trained.losses


def test_what_is_kept_is_the_running_mean_of_weights_and_norms() -> None:
    mean, network = small(), small()
    with torch.no_grad():
        for value in network.state_dict().values():
            value.add_(1)
    before = {k: v.clone() for k, v in mean.state_dict().items()}
    classify._follow(mean, network, 0.75)  # type: ignore[arg-type]
    for name, value in mean.state_dict().items():
        moved = 0.25 if value.is_floating_point() else 0
        assert torch.allclose(value, before[name] + moved), name


def test_time_ends_training_between_epochs() -> None:
    x, y = blobs()
    assert fit(small(), x, y, RECIPE, limit_s=-1).losses == []  # type: ignore[arg-type]


def test_balance_draws_small_classes_more_often() -> None:
    y = torch.tensor([0] * 900 + [1] * 100)
    share = {}
    for balance in (0.0, 0.5, 1.0):
        chance = torch.Generator().manual_seed(0)
        drawn = torch.cat(classify._draw(y, Recipe(batch=50, balance=balance), chance))
        assert len(drawn) == 1000
        share[balance] = float((y[drawn] == 1).float().mean())
    assert share[0.0] == pytest.approx(0.1)
    assert share[0.5] == pytest.approx(0.25, abs=0.07)
    assert share[1.0] == pytest.approx(0.5, abs=0.08)


def test_batches_are_full_and_draw_nothing_twice() -> None:
    chance = torch.Generator().manual_seed(0)
    batches = classify._draw(torch.zeros(50, dtype=torch.long), Recipe(batch=16), chance)
    assert [len(b) for b in batches] == [16, 16, 16]
    assert len(set(torch.cat(batches).tolist())) == 48
    few = classify._draw(torch.zeros(5, dtype=torch.long), Recipe(batch=16), chance)
    assert [len(b) for b in few] == [5]


def test_the_rate_rises_and_falls_to_nothing_and_norms_do_not_decay() -> None:
    network = small()
    optimizer, schedule = classify._descent(network, Recipe(epochs=10, batch=8), 80)  # type: ignore[arg-type]
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert max(rates) == pytest.approx(1e-3) and rates.index(max(rates)) in (4, 5)
    assert rates[-1] < 1e-5
    decays = [(g["weight_decay"], [p.ndim for p in g["params"]]) for g in optimizer.param_groups]
    assert decays == [(0.05, [4, 2]), (0.0, [1, 1, 1])]


def test_targets_are_smoothed() -> None:
    target = classify._soft(torch.tensor([1]), 4, 0.2)
    assert target.tolist() == [pytest.approx([0.05, 0.85, 0.05, 0.05])]
