"""Augmentation: what it may do to a picture and what it must not."""

import math

import pytest

torch = pytest.importorskip("torch", reason="augmentation needs the torch extra")

from torch import Generator, Tensor  # noqa: E402

from justenough.train.augment import Augmentation, augment  # noqa: E402

STILL = Augmentation(mirror=False)


def chance(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


def pictures(n: int = 16, c: int = 3, h: int = 12, w: int = 20) -> Tensor:
    return torch.rand(n, c, h, w, generator=chance(1))


def test_nothing_asked_nothing_done() -> None:
    x = pictures()
    assert torch.allclose(augment(x, STILL, chance()), x, atol=1e-5)


def test_mirror_and_flip_give_each_of_the_four() -> None:
    x = pictures(64)
    y = augment(x, Augmentation(mirror=True, flip=True), chance())
    ways = [x, x.flip(3), x.flip(2), x.flip(2, 3)]
    hits = torch.stack([(y - v).abs().flatten(1).amax(1) < 1e-4 for v in ways])
    assert (hits.sum(0) == 1).all()
    assert (hits.sum(1) > 0).all()


def test_a_quarter_turn_of_a_square_is_a_quarter_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    x = pictures(2, 1, 9, 9)
    monkeypatch.setattr(torch, "rand", lambda *a, **k: torch.ones(a[0] if a else k["size"]))
    # every amount at its largest: turned by all of 90 degrees
    y = augment(x, Augmentation(mirror=False, degrees=90), chance())
    assert torch.allclose(y, torch.rot90(x, 1, (2, 3)), atol=1e-4) or torch.allclose(
        y, torch.rot90(x, -1, (2, 3)), atol=1e-4
    )


def test_a_turned_disc_stays_a_disc_in_a_picture_that_is_no_square() -> None:
    h, w = 60, 100
    down, across = torch.meshgrid(torch.arange(h) - 29.5, torch.arange(w) - 49.5, indexing="ij")
    disc = ((down**2 + across**2).sqrt() < 20).float().expand(8, 1, h, w)
    y = augment(disc, Augmentation(mirror=False, degrees=180), chance())
    # further out the disc can be seen again, mirrored at the border
    apart = (y - disc)[..., 22:78].abs().sum((1, 2, 3))
    # the edge moves by interpolation only: a share of the circumference
    assert apart.max() < 0.7 * 2 * math.pi * 20


def test_range_and_shape_are_kept_and_draws_can_be_repeated() -> None:
    x = pictures()
    how = Augmentation(
        flip=True, degrees=180, zoom=(0.6, 1.2), stretch=0.1, shift=0.1, brightness=0.5,
        contrast=0.5, saturation=0.5, tint=0.2, erase=0.5,
    )  # fmt: skip
    y = augment(x, how, chance(3))
    assert y.shape == x.shape
    assert float(y.min()) >= 0 and float(y.max()) <= 1
    assert torch.equal(y, augment(x, how, chance(3)))
    assert not torch.allclose(y, augment(x, how, chance(4)))


def test_no_saturation_left_is_grey() -> None:
    x = torch.rand(50, 3, 2, 2, generator=chance(2)) / 2 + 0.25
    y = augment(x, Augmentation(mirror=False, saturation=1.0), chance())
    spread = (y.amax(1) - y.amin(1)).flatten(1).amax(1)
    before = (x.amax(1) - x.amin(1)).flatten(1).amax(1)
    ratio = spread / before
    assert float(ratio.min()) < 0.2 and float(ratio.max()) > 1.5


def test_blots_are_rectangles_of_the_mean_on_the_share_asked() -> None:
    x = torch.zeros(400, 1, 40, 40)
    x[:, :, ::2] = 1.0
    y = augment(x, Augmentation(mirror=False, erase=0.25), chance())
    blot = (y - 0.5).abs() < 0.01
    hit = blot.flatten(1).any(1)
    assert 55 < int(hit.sum()) < 145  # 100, and five standard errors
    for b in blot[hit][:20, 0]:
        rows, columns = torch.where(b)
        assert int(b.sum()) == (int(rows.max()) - int(rows.min()) + 1) * (
            int(columns.max()) - int(columns.min()) + 1
        )
