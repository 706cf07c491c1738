"""Reading pictures from a tar that somebody else made."""

import io
import sys
import tarfile
import warnings
from pathlib import Path

import numpy as np
import pytest

from justenough.errors import InputError
from justenough.train import pictures
from justenough.train.pictures import decode, read_tar

Image = pytest.importorskip("PIL.Image", reason="pictures need the imaging extra")


def jpeg(width: int = 8, height: int = 6, colour: tuple[int, int, int] = (200, 20, 40)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(out, "JPEG", quality=95)
    return out.getvalue()


def tar_of(path: Path, members: list[tuple[str, bytes]], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def test_pictures_come_in_order_with_their_colours(tmp_path: Path) -> None:
    members = [
        ("b/2.jpeg", jpeg(colour=(255, 0, 0))),
        ("b/.DS_Store", b"not a picture"),
        ("a/1.JPG", jpeg(colour=(0, 0, 255))),
    ]
    got = read_tar(tar_of(tmp_path / "t.tar", members), width=8, height=6)
    assert list(got) == ["b/2.jpeg", "a/1.JPG"]
    for picture, wanted in zip(got.values(), ((255, 0, 0), (0, 0, 255)), strict=True):
        assert picture.shape == (3, 6, 8)
        assert picture.dtype == np.uint8
        np.testing.assert_allclose(picture.mean((1, 2)), wanted, atol=3)


def test_grey_is_luma(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "t.tar", [("1.jpg", jpeg(colour=(200, 20, 40)))])
    (got,) = read_tar(path, width=8, height=6, grey=True).values()
    assert got.shape == (1, 6, 8)
    # ITU-R BT.601
    np.testing.assert_allclose(got, 0.299 * 200 + 0.587 * 20 + 0.114 * 40, atol=3)


@pytest.mark.parametrize("name", ["/etc/1.jpg", "../1.jpg", "a/../../1.jpg", "a\\..\\1.jpg"])
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    path = tar_of(tmp_path / "t.tar", [(name, jpeg())])
    with pytest.raises(InputError, match="which leads out of a folder; give plain names"):
        read_tar(path, width=8, height=6)


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE]
)
def test_links_devices_and_folders_named_like_pictures_are_refused(
    tmp_path: Path, kind: bytes
) -> None:
    (tmp_path / "secret.jpg").write_bytes(jpeg())
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        info = tarfile.TarInfo("1.jpg")
        info.type, info.linkname = kind, str(tmp_path / "secret.jpg")
        tar.addfile(info)
    with pytest.raises(InputError, match=r"'1\.jpg' is no plain file in the tar"):
        read_tar(tmp_path / "t.tar", width=8, height=6)


def test_a_name_that_comes_twice_is_refused(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "t.tar", [("1.jpg", jpeg()), ("1.jpg", jpeg())])
    with pytest.raises(InputError, match=r"'1\.jpg' is twice in the tar"):
        read_tar(path, width=8, height=6)


def test_too_large_and_too_many_members_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tar_of(tmp_path / "t.tar", [(f"{k}.jpg", jpeg()) for k in range(3)])
    monkeypatch.setattr(pictures, "MOST_MEMBERS", 2)
    with pytest.raises(InputError, match="has more than 2 members; give the data set alone"):
        read_tar(path, width=8, height=6)
    monkeypatch.setattr(pictures, "MOST_BYTES", 100)
    with pytest.raises(InputError, match="bytes in the tar; give at most 100"):
        read_tar(path, width=8, height=6)


def test_a_member_of_negative_size_ends_in_a_sentence(tmp_path: Path) -> None:
    info = tarfile.TarInfo("1.jpg")
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" * 10 + (-512 & 0xFFFF).to_bytes(2, "big")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    path = tmp_path / "t.tar"
    path.write_bytes(bytes(header) * 2 + bytes(10240))
    with pytest.raises(InputError):
        read_tar(path, width=8, height=6)


@pytest.mark.parametrize("kept", [100, 600, 1100])
def test_a_tar_that_is_cut_short_is_refused(tmp_path: Path, kept: int) -> None:
    path = tar_of(tmp_path / "t.tar", [("1.jpg", jpeg()), ("2.jpg", jpeg())])
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match="cannot be read to its end as an uncompressed tar"):
        read_tar(path, width=8, height=6)


def test_a_compressed_tar_is_refused(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "t.tar", [("1.jpg", jpeg())], "w:gz")
    with pytest.raises(InputError, match="cannot be read to its end as an uncompressed tar"):
        read_tar(path, width=8, height=6)


def test_no_file_and_no_pictures(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no file 'none\.tar'"):
        read_tar(tmp_path / "none.tar", width=8, height=6)
    path = tar_of(tmp_path / "t.tar", [("a.txt", b"words")])
    with pytest.raises(InputError, match="holds no name that ends in"):
        read_tar(path, width=8, height=6)


def test_another_size_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(InputError, match=r"'x' is 9x6 pixels; give pictures of 8x6"):
        decode("x", jpeg(width=9), (8, 6))
    # a header that promises 60,000 x 2,000 pixels: too many for Pillow's peace of mind
    data = bytearray(jpeg())
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = (2000).to_bytes(2, "big") + (60_000).to_bytes(2, "big")
    with warnings.catch_warnings(), pytest.raises(InputError, match="is 60000x2000 pixels"):
        warnings.simplefilter("error")
        decode("x", bytes(data), (8, 6))
    data[at : at + 4] = (60_000).to_bytes(2, "big") * 2
    with pytest.raises(InputError, match="cannot be decoded as JPEG"):
        decode("x", bytes(data), (8, 6))


def test_other_formats_and_broken_files_are_refused() -> None:
    out = io.BytesIO()
    Image.new("RGB", (8, 6)).save(out, "PNG")
    for data in (out.getvalue(), b"", b"\xff\xd8\xff", jpeg(64, 64)[:500]):
        with pytest.raises(InputError, match="'x' cannot be decoded as JPEG"):
            decode("x", data, (64, 64))


def test_missing_pillow_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    data = jpeg()
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(InputError, match=r"pip install 'justenough\[imaging\]'"):
        decode("x", data, (8, 6))
