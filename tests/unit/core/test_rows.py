"""Rows that stay where they are: they answer as the array would, and read only what is asked."""

import pickle
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from justenough.core import rows as module
from justenough.core.cases import Cases, split, split_apart
from justenough.core.rows import Rows, blocks, converted, not_finite, take
from justenough.errors import InputError

X = np.random.default_rng(0).normal(size=(40, 3, 2)).astype(np.float32)


class Counted:
    """A source that counts the rows it gave."""

    def __init__(self, array: NDArray[Any]) -> None:
        self.array, self.given = array, 0

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.array.dtype

    def __getitem__(self, rows: NDArray[np.intp]) -> NDArray[Any]:
        self.given += len(rows)
        return self.array[rows]


@pytest.mark.parametrize(
    "key",
    [
        slice(3, 9), slice(None), slice(-4, None), slice(30, 2, -3), slice(7, 7), slice(35, 99),
        np.array([5, 0, 5, 39]), np.array([-1, -40]), np.arange(40) % 3 == 0,
        np.zeros(0, np.intp), 0, -1, np.int64(17),
    ],
    ids=str,
)  # fmt: skip
def test_indexing_is_that_of_the_array(key: Any) -> None:
    pick = np.array([9, 1, 33, *range(37)])
    whole, some = Rows.of(X), Rows.of(X).take(pick)
    assert whole.ndim == X.ndim
    for got, want in ((whole[key], X[key]), (some[key], X[pick][key])):
        assert type(got) is np.ndarray
        assert got.dtype == want.dtype and np.array_equal(got, want)


@pytest.mark.parametrize("key", [40, -41, np.array([40]), (0, 1), "x"])
def test_what_is_no_row_is_an_index_error(key: Any) -> None:
    with pytest.raises(IndexError):
        Rows.of(X)[key]


def test_taking_and_converting_read_nothing() -> None:
    source = Counted(X)
    rows = Rows.of(source).take(np.arange(30)).take(np.arange(30) % 2 == 0).astype(np.float64)
    assert (len(rows), rows.shape, source.given) == (15, (15, 3, 2), 0)
    assert rows.dtype == np.dtype(np.float64)
    assert np.array_equal(rows[2:4], X[[4, 6]].astype(np.float64))
    assert source.given == 2
    assert np.array_equal(np.asarray(rows), X[:30:2])
    assert np.concatenate([rows[:1], rows[-1:]]).shape == (2, 3, 2)
    assert np.array_equal(pickle.loads(pickle.dumps(rows))[1], X[2])


def test_blocks_are_small_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK_BYTES", 5 * 24 + 1)
    parts = list(blocks(Rows.of(X)))
    assert [len(p) for p in parts] == [5] * 8
    assert np.array_equal(np.concatenate(parts), X)
    monkeypatch.setattr(module, "BLOCK_BYTES", 1)
    assert [len(p) for p in blocks(X)] == [1] * 40


def test_values_that_are_not_finite_are_counted_once() -> None:
    bad = X.copy()
    bad[3, 0, 0], bad[7] = np.nan, np.inf
    source = Counted(bad)
    rows = Rows.of(source)
    assert rows.not_finite == rows.not_finite == 7 == not_finite(bad)
    assert source.given == 40
    assert rows.take(np.array([3, 4])).not_finite == 1
    fine = Rows.of(Counted(X))
    assert fine.not_finite == 0
    part = fine.take(np.arange(9))
    assert part.not_finite == 0
    assert isinstance(fine.source, Counted) and fine.source.given == 40
    assert Rows.of(np.array([1e30], np.float64)).astype(np.float16).not_finite == 1


@pytest.mark.parametrize(
    ("value", "want", "kept"),
    [
        (X, np.float64, True),
        (X, np.float16, True),
        (X * 1e9, np.float16, False),
        (np.array([0, 255]), np.uint8, True),
        (np.array([0, 256]), np.uint8, False),
        (np.array([0, -1]), np.uint64, False),
        (np.array([True, False]), np.int32, True),
        (np.array([0, 2]), np.bool_, False),
        (np.array([0, 1]), np.float32, False),
        (X, np.int32, False),
    ],
)
def test_conversion_changes_no_value(value: Any, want: Any, kept: bool) -> None:
    for given in (value, Rows.of(value)):
        got = converted(given, want)
        assert (got is not None) == kept
        if got is not None:
            assert type(got) is type(given) and got.dtype == want
            assert np.array_equal(got[:], value.astype(want))
    assert converted(value, value.dtype) is value


def test_a_mapped_array_is_not_copied_by_a_split(tmp_path: Any) -> None:
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    part = take(mapped, np.arange(40) % 2 == 1)
    assert isinstance(part, Rows) and part.source is mapped
    assert type(part[:2]) is np.ndarray and np.array_equal(part[:2], X[[1, 3]])


# Cases that hold such rows


def twins() -> tuple[Cases, Cases, Counted]:
    x, labels = X.copy(), np.arange(40) % 4
    x[7] = x[30]
    other, groups = np.arange(40, dtype=np.uint8), np.array([f"p{k // 3}" for k in range(40)])
    other[7] = other[30]
    source = Counted(x)
    held = Cases({"x": x, "other": other}, labels, groups)
    return held, Cases({"x": Rows.of(source), "other": other}, labels, groups), source


def test_cases_are_the_same_wherever_their_rows_are() -> None:
    held, rows, _ = twins()
    assert rows.fingerprint == held.fingerprint
    assert rows.digests == held.digests
    assert rows.digests[7] == rows.digests[30]
    for a, b in ((split(held), split(rows)), (split_apart(held.take(np.arange(15)),
            held.take(np.arange(15, 30))), split_apart(rows.take(np.arange(15)),
            rows.take(np.arange(15, 30))))):  # fmt: skip
        for part in ("calibration", "search", "certification"):
            one, other = getattr(a, part).cases, getattr(b, part).cases
            assert isinstance(other.inputs["x"], Rows)
            assert one.fingerprint == other.fingerprint
            assert one.digests == other.digests
            assert one.keys == other.keys


def test_a_split_reads_each_row_once_for_its_check_and_once_for_its_digest() -> None:
    _, rows, source = twins()
    parts = split(rows)
    assert source.given == 2 * 40
    assert [p.cases.digests for p in (parts.calibration, parts.search)]
    assert source.given == 2 * 40


def test_digests_follow_their_rows() -> None:
    held, _, _ = twins()
    for pick in (np.array([4, 1, 1]), np.arange(40) > 20, np.array([-1])):
        known = held.take(pick)
        assert held.digests and held.take(pick).digests == known.digests


def test_rows_are_checked_as_arrays_are() -> None:
    bad = X.copy()
    bad[:, 0, 0] = np.nan
    with pytest.raises(InputError, match=r"'x' \(shape \(40, 3, 2\)\) has 40 NaN or infinite"):
        Cases({"x": Rows.of(bad)})
    with pytest.raises(InputError, match="input 'x' has type complex64"):
        Cases({"x": Rows.of(X.astype(np.complex64))})
    with pytest.raises(InputError, match="the cases are empty"):
        Cases({"x": Rows.of(X[:0])})


def test_fingerprints_are_those_of_earlier_certificates() -> None:
    """Recorded with justenough 0.1.0, before rows could stay on disk."""
    x = np.arange(60, dtype=np.float32).reshape(5, 3, 4)
    other = np.array([[1], [2], [2], [1], [9]], np.uint8)
    groups = np.array(["a", "b", "b", "é", "a"])
    cases = Cases({"x": x, "m": other}, np.array([0, 1, -1, 1, 0]), groups)
    assert cases.fingerprint == "655f2362a4552f678afaaa1b1080793fc5c6d93e8c0e0f1777c92c5b50a242cd"
    assert cases.digests[:2] == ("1e0eae4644898743", "1c8890ad50595348")
    turned = Cases({"x": np.asfortranarray(x).astype(">f2")})
    assert turned.fingerprint == "d709770a5e589b02182e9e36289eb88af19078eae2ddfda4adff60eb50b347c5"
    assert turned.digests[0] == "bac491ae98fc72df"
