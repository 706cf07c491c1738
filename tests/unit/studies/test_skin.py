"""The skin study: its table, its pictures, its lesions; none of the data are here."""

import io
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from justenough.core.cases import load_cases
from justenough.errors import InputError
from justenough.studies.skin import data, evaluate
from justenough.studies.skin.study import CONTRACT

Image = pytest.importorskip("PIL.Image", reason="pictures need the imaging extra")

ROOT = Path(__file__).parents[3]
HEAD = "lesion_id,image_id,dx,dx_type,age,sex,localization"


def table(path: Path, rows: list[str]) -> Path:
    path.write_text("\n".join([HEAD, *rows, ""]))
    return path


def tar_of(path: Path, images: dict[str, int]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, seed in images.items():
            out = io.BytesIO()
            noise = np.random.default_rng(seed).integers(0, 256, (150, 200, 3), dtype=np.uint8)
            Image.fromarray(noise).save(out, "JPEG", quality=30)
            info = tarfile.TarInfo(f"images/{name}.jpg")
            info.size = len(out.getvalue())
            tar.addfile(info, io.BytesIO(out.getvalue()))
    return path


def test_images_are_read_with_class_and_lesion(tmp_path: Path) -> None:
    rows = [
        "HAM_2,ISIC_3,mel,histo,80.0,male,scalp",
        "HAM_1,ISIC_1,akiec,,,,",
        "HAM_2,ISIC_2,mel,,,,",
    ]
    tar = tar_of(tmp_path / "t.tar", {"ISIC_1": 0, "ISIC_2": 1, "ISIC_3": 2})
    got = data.load(tar, table(tmp_path / "m.csv", rows))
    assert got.pixels.shape == (3, 3, 150, 200)
    assert got.pixels.dtype == np.uint8
    assert [got.classes[k] for k in got.label] == ["akiec", "mel", "mel"]
    assert got.group.tolist() == ["HAM_1", "HAM_2", "HAM_2"]


def test_one_image_under_two_lesions_is_one_group(tmp_path: Path) -> None:
    rows = [f"HAM_{k},ISIC_{k},nv,,,," for k in range(3)]
    tar = tar_of(tmp_path / "t.tar", {"ISIC_0": 0, "ISIC_1": 1, "ISIC_2": 0})
    got = data.load(tar, table(tmp_path / "m.csv", rows))
    assert got.group.tolist() == ["HAM_0", "HAM_1", "HAM_0"]


def test_an_image_without_a_row_is_refused(tmp_path: Path) -> None:
    tar = tar_of(tmp_path / "t.tar", {"ISIC_9": 0})
    with pytest.raises(InputError, match=r"m\.csv says nothing of image ISIC_9"):
        data.load(tar, table(tmp_path / "m.csv", ["HAM_1,ISIC_1,nv,,,,"]))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("HAM_1,ISIC_1,melanoma,,,,", "dx 'melanoma'"),
        ("HAM_1,../ISIC_1,nv,,,,", r"image_id '\.\./ISIC_1'"),
        (",ISIC_1,nv,,,,", "lesion_id ''"),
        ("HAM_1", "image_id ''"),
        (f"{'H' * 999}_1,ISIC_1,nv,,,,", f"lesion_id '{'H' * 40}'"),
    ],
)
def test_rows_that_are_none_are_refused(tmp_path: Path, row: str, said: str) -> None:
    path = table(tmp_path / "m.csv", ["HAM_0,ISIC_0,nv,,,,", row])
    with pytest.raises(InputError, match=rf"row 2 of m\.csv has .*{said}.*as published"):
        data.read_metadata(path)


def test_tables_that_are_none_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    with pytest.raises(InputError, match=r"m\.csv is no file of at most 10,000,000 bytes"):
        data.read_metadata(path)
    for content in (b"\xff\xfe\x00", b'lesion_id,image_id,dx\n"a"b,c,d\n'):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"m\.csv is no table of comma-separated text"):
            data.read_metadata(path)
    path.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=r"row 1 of m\.csv has lesion_id ''"):
        data.read_metadata(path)
    table(path, ["HAM_1,ISIC_1,nv,,,,", "HAM_2,ISIC_1,nv,,,,"])
    with pytest.raises(InputError, match=r"image ISIC_1 is twice in m\.csv"):
        data.read_metadata(path)


def test_the_command_writes_what_is_held_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = range(12)
    metadata = table(tmp_path / "m.csv", [f"HAM_{k},ISIC_{k},nv,,,," for k in ids])
    tar, out = tar_of(tmp_path / "t.tar", {f"ISIC_{k}": k for k in ids}), tmp_path / "c.npz"
    given = ["data", "--data", str(tar), "--metadata", str(metadata), "-o", str(out)]
    monkeypatch.setattr(sys, "argv", given)
    data.main()
    held, images = load_cases(out, ["x"]), data.load(tar, metadata)
    assert held.keys == tuple(images.group[images.held_out].tolist())
    assert 0 < held.n < 12
    assert f"{held.n} images of {held.n} lesions" in capsys.readouterr().out


def test_the_card_says_what_is_asked_and_what_may_not_be_done() -> None:
    said = (ROOT / "src/justenough/studies/skin/README.md").read_text()
    assert f"| network | pictures | groups | {' | '.join(evaluate.ASKED)} |" in said
    assert "Not a medical device" in said and "CC BY-NC 4.0" in said
    assert CONTRACT.clauses[0].bound == 0.995


def test_nothing_of_the_data_is_in_the_repository() -> None:
    held = [p for folder in ("models", "src", "docs") for p in (ROOT / folder).rglob("*")]
    assert held
    assert not [p for p in held if p.name.lower().startswith("ham")]
    for weights in (ROOT / "models").glob("*.safetensors"):
        assert b"HAM10000" not in weights.read_bytes()[:100_000]
