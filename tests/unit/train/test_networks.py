"""The two networks: their published size, their shapes, their parts."""

import pytest

from justenough.errors import InputError

torch = pytest.importorskip("torch", reason="networks need the torch extra")

from justenough.train.networks import EfficientNetB0, Gate, InvertedBlock, build  # noqa: E402

# Parameters with 3 channels and 1000 classes, as torchvision publishes them for its
# densenet121 and efficientnet_b0.
PUBLISHED = {"densenet121": 7_978_856, "efficientnet_b0": 5_288_548}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_as_many_as_published(name: str) -> None:
    network = build(name, 1000)
    assert sum(p.numel() for p in network.parameters()) == PUBLISHED[name]


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("size", [(32, 32), (38, 50)])
def test_pictures_of_any_size_become_logits(name: str, size: tuple[int, int]) -> None:
    network = build(name, 7, 1).eval()
    with torch.no_grad():
        assert network(torch.rand(2, 1, *size)).shape == (2, 7)
    assert network.stem.bias is None


@pytest.mark.parametrize("name", PUBLISHED)
def test_sides_are_halved_five_times(name: str) -> None:
    network = build(name, 2).eval()
    seen = []
    network.pool.register_forward_hook(lambda _, given, __: seen.append(given[0].shape))
    with torch.no_grad():
        network(torch.rand(1, 3, 64, 96))
    assert seen == [(1, 1024 if name == "densenet121" else 1280, 2, 3)]


def test_another_name_is_refused() -> None:
    with pytest.raises(InputError, match="no network 'vgg'; give densenet121 or efficientnet_b0"):
        build("vgg", 2)


def test_a_gate_scales_whole_channels_by_less_than_one() -> None:
    torch.manual_seed(0)
    gate, x = Gate(6, 2), torch.rand(3, 6, 4, 5) + 0.5
    ratio = gate(x) / x
    assert torch.allclose(ratio, ratio[:, :, :1, :1].expand_as(ratio), atol=1e-6)
    assert ((ratio > 0) & (ratio < 1)).all()


def test_a_dropped_path_leaves_the_picture_and_the_rest_keep_the_mean() -> None:
    torch.manual_seed(0)
    block = InvertedBlock(4, 4, 2, 3, 1, 0.5)
    x = torch.rand(1, 4, 6, 6).expand(400, -1, -1, -1)
    with torch.no_grad():
        added = block.train()(x) - x
    dropped = (added == 0).flatten(1).all(1)
    assert 130 < int(dropped.sum()) < 270  # 200, and seven standard errors
    kept = added[~dropped]
    with torch.no_grad():
        whole = block.layers(x)[:1]
    assert torch.allclose(kept, (2 * whole).expand_as(kept), atol=1e-4)


def test_paths_are_dropped_more_often_the_deeper_and_never_at_the_start() -> None:
    drops = [m.drop for m in EfficientNetB0(2).modules() if isinstance(m, InvertedBlock)]
    assert len(drops) == 16
    assert drops == sorted(drops) and drops[0] == 0 and drops[-1] == pytest.approx(0.2 * 15 / 16)
