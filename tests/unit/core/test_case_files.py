"""Case files that stay on disk: the same cases as in memory, and every damage is a sentence."""

import io
import os
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays, scalar_dtypes
from numpy.typing import NDArray

from justenough.core import case_files
from justenough.core.cases import Cases, load_cases, split
from justenough.core.rows import Rows
from justenough.errors import InputError

X = np.random.default_rng(0).normal(size=(50, 4, 3)).astype(np.float32)
SAVE: Any = np.savez


@contextmanager
def large(limit: int = 0, block: int = 100, gap: int = 40) -> Iterator[pytest.MonkeyPatch]:
    """Take arrays of more than `limit` bytes for large, and read them in small pieces."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(case_files, "IN_MEMORY_BYTES", limit)
        patch.setattr(case_files, "BLOCK_BYTES", block)
        patch.setattr(case_files, "GAP_BYTES", gap)
        yield patch


def on_disk(path: Path, name: str = "x") -> Cases:
    with large():
        cases = load_cases(path, [name])
    assert isinstance(cases.inputs[name], Rows)
    return cases


def test_small_files_are_in_memory(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", x=X)
    np.save(tmp_path / "c.npy", X)
    for name in ("c.npz", "c.npy"):
        assert isinstance(load_cases(tmp_path / name, ["x"]).inputs["x"], np.ndarray)


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f2", "u1", "<i8", "?"])
def test_the_same_cases_from_disk(tmp_path: Path, dtype: str) -> None:
    x = X > 0 if dtype == "?" else (X * 9).astype(dtype)
    groups = np.array([f"p{k // 2}" for k in range(len(x))])
    np.savez(tmp_path / "c.npz", x=x, labels=np.arange(50), groups=groups)
    np.save(tmp_path / "c.npy", x)
    held, disk = load_cases(tmp_path / "c.npz", ["x"]), on_disk(tmp_path / "c.npz")
    assert isinstance(disk.labels, np.ndarray) and isinstance(disk.groups, np.ndarray)
    assert disk.fingerprint == held.fingerprint
    assert disk.digests == held.digests
    assert on_disk(tmp_path / "c.npy").fingerprint == Cases({"x": x}).fingerprint
    with large():
        for a, b in zip(vars(split(held)).values(), vars(split(disk)).values(), strict=True):
            assert a.cases.fingerprint == b.cases.fingerprint


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    arrays(scalar_dtypes(), array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=9)),
    st.integers(1, 200),
    st.integers(0, 60),
    st.data(),
)
def test_any_rows_of_any_array(
    value: NDArray[Any], block: int, gap: int, data: st.DataObject
) -> None:
    pick = np.array(data.draw(st.lists(st.integers(-len(value), len(value) - 1), max_size=12))
                    if len(value) else [], np.intp)  # fmt: skip
    with tempfile.TemporaryDirectory() as folder, large(0, block, gap):
        SAVE(Path(folder) / "c.npz", x=value)
        got = case_files.read_arrays(Path(folder) / "c.npz", ["x"])["x"]
        assert got.dtype == value.dtype and got.shape == value.shape
        np.testing.assert_array_equal(got[pick], value[pick])
        np.testing.assert_array_equal(got[:], value)


def test_rows_far_apart_are_not_read_over(tmp_path: Path) -> None:
    """Only what is asked for is read, and small gaps between."""
    x = np.arange(50 * 30, dtype=np.uint8).reshape(50, 30)
    np.save(tmp_path / "c.npy", x)
    rows = on_disk(tmp_path / "c.npy").inputs["x"]
    read: list[tuple[int, int]] = []

    class Watched(io.FileIO):
        def readinto(self, buffer: Any, /) -> int:
            read.append((self.tell() // 30 * 30, len(buffer)))
            return super().readinto(buffer)

    with large(block=10**6) as patch:
        patch.setattr(Path, "open", lambda p, *a, **k: Watched(p))
        got = rows[np.array([40, 3, 4, 6, 6, 49])]
    assert np.array_equal(got, x[[40, 3, 4, 6, 6, 49]])
    assert [size for _, size in read] == [4 * 30, 30, 30]


def test_an_archive_with_two_inputs_and_a_comment(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", y=X, x=X + 1)
    with zipfile.ZipFile(tmp_path / "c.npz", "a") as z:
        z.comment = b"cases"
    with large():
        got = load_cases(tmp_path / "c.npz", ["x", "y"]).inputs
    assert np.array_equal(got["x"][:], X + 1) and np.array_equal(got["y"][3:5], X[3:5])


def test_an_archive_that_needs_64_bit_sizes(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, X)
    with (
        zipfile.ZipFile(tmp_path / "c.npz", "w") as z,
        z.open("x.npy", "w", force_zip64=True) as f,
    ):
        f.write(buffer.getvalue())
    assert np.array_equal(on_disk(tmp_path / "c.npz").inputs["x"][:], X)


# What cannot stay on disk


@pytest.mark.parametrize("order", ["compressed", "Fortran"])
def test_what_has_to_be_unpacked_must_fit_into_memory(tmp_path: Path, order: str) -> None:
    if order == "compressed":
        np.savez_compressed(tmp_path / "c.npz", x=X)
        files = ["c.npz"]
    else:
        SAVE(tmp_path / "c.npz", x=np.asfortranarray(X))
        np.save(tmp_path / "c.npy", np.asfortranarray(X))
        files = ["c.npz", "c.npy"]
    for name in files:
        with large() as patch:
            got = load_cases(tmp_path / name, ["x"])
            assert isinstance(got.inputs["x"], np.ndarray)
            assert got.fingerprint == Cases({"x": X}).fingerprint
            patch.setattr(case_files, "memory_bytes", lambda: 4 * X.nbytes)
            with pytest.raises(InputError, match=rf"c\.np. is (in )?{order}.* with numpy\.savez"):
                load_cases(tmp_path / name, ["x"])


def test_memory_is_that_of_the_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = case_files.memory_bytes()
    assert machine > 2**26
    (tmp_path / "max").write_text("max\n")
    (tmp_path / "some").write_text("12345678\n")
    limits = [str(tmp_path / n) for n in ("none", "max")]
    monkeypatch.setattr(case_files, "LIMITS", limits)
    assert case_files.memory_bytes() >= machine
    monkeypatch.setattr(case_files, "LIMITS", [*limits, str(tmp_path / "some")])
    assert case_files.memory_bytes() == 12345678


# Damage


def test_a_wrong_checksum_is_noticed_when_the_file_is_opened(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", x=X)
    data = bytearray((tmp_path / "c.npz").read_bytes())
    data[300] ^= 1
    (tmp_path / "c.npz").write_bytes(data)
    with (
        large(),
        pytest.raises(InputError, match=r"cannot read c\.npz: Bad CRC-32 .*numpy\.savez"),
    ):
        load_cases(tmp_path / "c.npz", ["x"])


def test_a_file_that_is_cut_short_or_holds_objects(tmp_path: Path) -> None:
    np.save(tmp_path / "c.npy", X)
    whole = (tmp_path / "c.npy").read_bytes()
    (tmp_path / "c.npy").write_bytes(whole[:-1])
    np.save(tmp_path / "o.npy", np.array([{}] * 9, object), allow_pickle=True)
    (tmp_path / "v.npy").write_bytes(whole[:6] + b"\x03\x00" + whole[8:])
    for name, words in (
        ("c.npy", r"cannot read c\.npy: it is cut short: its header says \(50, 4, 3\) float32"),
        ("o.npy", "it holds pickled objects; save plain"),
        ("v.npy", r"version \(3, 0\) of NumPy's format"),
    ):
        with large(), pytest.raises(InputError, match=words):
            load_cases(tmp_path / name, ["x"])
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "<f4", "fortran_order": False, "shape": (10**12, 9)}
    )
    with zipfile.ZipFile(tmp_path / "c.npz", "w") as z:
        z.writestr("x.npy", buffer.getvalue() + bytes(64))
        z.writestr("y.npy", whole)
    with large(), pytest.raises(InputError, match="it is cut short: its header says"):
        load_cases(tmp_path / "c.npz", ["x", "y"])


def overwrite(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def touch(path: Path) -> None:
    os.utime(path, ns=(0, 0))


@pytest.mark.parametrize(
    ("meanwhile", "words"),
    [
        (overwrite, r"c\.npy changed while it was read; leave the cases alone"),
        (touch, r"c\.npy changed while it was read; leave the cases alone"),
        (Path.unlink, r"cannot read c\.npy any more \(No such file or directory\); leave"),
    ],
)
def test_a_file_that_changes_meanwhile(tmp_path: Path, meanwhile: Any, words: str) -> None:
    np.save(tmp_path / "c.npy", X)
    cases = on_disk(tmp_path / "c.npy")
    meanwhile(tmp_path / "c.npy")
    for read in (lambda: cases.fingerprint, lambda: cases.take(np.arange(2)).inputs["x"][:1]):
        with pytest.raises(InputError, match=words):
            read()


def test_a_file_that_shrinks_between_two_reads(tmp_path: Path) -> None:
    np.save(tmp_path / "c.npy", X)
    cases = on_disk(tmp_path / "c.npy")
    os.truncate(tmp_path / "c.npy", 1000)
    now = case_files.stamp((tmp_path / "c.npy").stat())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(case_files, "stamp", lambda found: cases.inputs["x"].source.stamp)  # type: ignore[union-attr]
        with pytest.raises(InputError, match=r"c\.npy changed while it was read"):
            cases.inputs["x"][40:]
    assert now[1] == 1000


def test_the_working_folder_may_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "c.npy", X)
    monkeypatch.chdir(tmp_path)
    cases = on_disk(Path("c.npy"))
    monkeypatch.chdir("/")
    assert np.array_equal(cases.inputs["x"][:], X)


def as_bytes(save: Any) -> bytes:
    buffer = io.BytesIO()
    save(buffer, x=X[:20], labels=np.arange(20))
    return buffer.getvalue()


WHOLE = (as_bytes(SAVE), as_bytes(np.savez_compressed))


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_damage_is_a_sentence_or_changes_nothing(data: st.DataObject) -> None:
    """What is read in spite of it is the same from disk as in memory."""
    changed = bytearray(data.draw(st.sampled_from(WHOLE)))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(changed) - 1))
        changed[at] = data.draw(st.integers(0, 255))
    found = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "c.npz"
        path.write_bytes(changed)
        for limit in (0, 10**9):
            with large(limit, 10**6), suppress(InputError):
                found.append(load_cases(path, ["x"]).fingerprint)
    assert len(set(found)) <= 1


def test_labels_and_groups_come_into_memory_and_nothing_else(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", x=X, labels=np.zeros((50, 9), int))
    with large(), pytest.raises(InputError, match=r"labels has shape \(50, 9\); give one value"):
        load_cases(tmp_path / "c.npz", ["x"])
    np.savez(tmp_path / "c.npz", labels=X)
    assert on_disk(tmp_path / "c.npz", "labels").labels is None
