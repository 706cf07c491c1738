import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from justenough.core.cases import Cases
from justenough.core.rows import Rows
from justenough.errors import InputError
from justenough.subjects.images import load_images

image = pytest.importorskip("PIL.Image")


def paint(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (6, 4)) -> None:
    path.parent.mkdir(exist_ok=True, parents=True)
    image.new("RGB", size, colour).save(path)


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    paint(tmp_path / "dog" / "b.png", (0, 255, 0))
    paint(tmp_path / "cat" / "a.png", (255, 0, 0))
    paint(tmp_path / "cat" / "c.jpeg", (255, 255, 255))
    (tmp_path / "cat" / "notes.txt").write_text("not an image")
    return tmp_path


def x(cases: Cases) -> NDArray[np.float32]:
    return np.asarray(cases.inputs["x"])


def test_classes_in_alphabetical_order(pets: Path) -> None:
    cases = load_images(pets, "x", "3x2")
    assert cases.labels is not None
    assert cases.labels.tolist() == [0, 0, 1]
    assert cases.groups is None
    assert x(cases).shape == (3, 3, 2, 3) and x(cases).dtype == np.float32
    np.testing.assert_allclose(x(cases)[0, :, 0, 0], [1, 0, 0])
    np.testing.assert_allclose(x(cases)[2, :, 1, 2], [0, 1, 0])


def test_channels_last_and_scaled(pets: Path) -> None:
    cases = load_images(pets, "x", "3x2", mean="0.5,0.25,0", std="0.5", layout="nhwc")
    assert x(cases).shape == (3, 2, 3, 3)
    np.testing.assert_allclose(x(cases)[0, 0, 0], [1, -0.5, 0])


def test_groups_need_two_underscores_in_every_name(tmp_path: Path) -> None:
    for name in ("anna__left", "anna__right", "otto__left__2"):
        paint(tmp_path / "eye" / f"{name}.png", (1, 2, 3))
    groups = load_images(tmp_path, "x", "2x2").groups
    assert groups is not None and groups.tolist() == ["anna", "anna", "otto"]
    paint(tmp_path / "eye" / "stranger.png", (1, 2, 3))
    assert load_images(tmp_path, "x", "2x2").groups is None


def test_other_kinds_of_images_become_rgb(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    image.new("L", (4, 4), 255).save(tmp_path / "a" / "grey.png")
    image.new("RGBA", (4, 4), (255, 255, 255, 9)).save(tmp_path / "a" / "clear.png")
    image.new("P", (4, 4), 0).save(tmp_path / "a" / "palette.gif")
    assert x(load_images(tmp_path, "x", "4x4")).shape == (3, 3, 4, 4)


@pytest.mark.parametrize(
    ("size", "options", "words"),
    [
        ("224", {}, "--image '224' is not WIDTHxHEIGHT"),
        ("0x5", {}, "--image '0x5' is not WIDTHxHEIGHT"),
        ("-1x5", {}, "is not WIDTHxHEIGHT"),
        ("axb", {}, "is not WIDTHxHEIGHT"),
        ("200000x200000", {}, "--image '200000x200000' has more than"),
        ("2x2", {"mean": "a"}, "--mean 'a' is not one number or three"),
        ("2x2", {"mean": "1,2"}, "--mean '1,2' is not one number or three"),
        ("2x2", {"mean": "nan"}, "--mean 'nan' is not one number or three"),
        ("2x2", {"mean": "1e39"}, "--mean '1e39' is not one number or three"),
        ("2x2", {"std": "0"}, "--std 0 must be positive"),
        ("2x2", {"std": "0.1,-1,1"}, "--std 0.1,-1,1 must be positive"),
        ("2x2", {"layout": "hwc"}, "layout 'hwc' is unknown; give nchw or nhwc"),
    ],
)
def test_bad_options(pets: Path, size: str, options: dict[str, str], words: str) -> None:
    with pytest.raises(InputError) as e:
        load_images(pets, "x", size, **options)
    assert words in str(e.value)


def test_folders_that_hold_no_images(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no class subfolder with images in it"):
        load_images(tmp_path, "x", "2x2")
    paint(tmp_path / "beside.png", (0, 0, 0))
    with pytest.raises(InputError, match="holds no class subfolder with images in it"):
        load_images(tmp_path, "x", "2x2")


def test_images_that_cannot_be_read(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = pets / "cat" / "broken.png"
    broken.write_bytes((pets / "cat" / "a.png").read_bytes()[:40])
    with pytest.raises(InputError, match=r"cannot read the image broken\.png"):
        load_images(pets, "x", "2x2")
    broken.write_text("no image")
    with pytest.raises(InputError, match=r"cannot read the image broken\.png"):
        load_images(pets, "x", "2x2")
    broken.unlink()
    monkeypatch.setattr("justenough.subjects.images.LARGEST", 20)
    with pytest.raises(InputError, match=r"has 6x4 pixels; at most 20"):
        load_images(pets, "x", "2x2")


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_many_images_are_decoded_when_they_are_asked_for(
    pets: Path, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    options = {"mean": "0.5,0.25,0", "std": "0.5", "layout": layout}
    held = load_images(pets, "x", "3x2", **options)
    monkeypatch.setattr("justenough.subjects.images.IN_MEMORY_BYTES", 3 * 72 - 1)
    cases = load_images(pets, "x", "3x2", **options)
    assert isinstance(held.inputs["x"], np.ndarray) and isinstance(cases.inputs["x"], Rows)
    assert cases.fingerprint == held.fingerprint
    assert cases.digests == held.digests
    pick = np.array([2, 0])
    assert np.array_equal(cases.take(pick).inputs["x"][:], held.inputs["x"][pick])


def test_images_that_change_meanwhile(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("justenough.subjects.images.IN_MEMORY_BYTES", 0)
    cases = load_images(pets, "x", "3x2")
    os.utime(pets / "dog" / "b.png", ns=(0, 0))
    assert cases.inputs["x"][:2].shape == (2, 3, 2, 3)
    with pytest.raises(InputError, match=r"the image b\.png changed while the cases were read"):
        cases.inputs["x"][2:]
    (pets / "dog" / "b.png").unlink()
    with pytest.raises(InputError, match=r"cannot read the image b\.png: .*No such file"):
        cases.inputs["x"][2:]
