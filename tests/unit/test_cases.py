"""Cases: what is accepted, who belongs to whom, how they are read."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from justenough.core.cases import Cases, key_fraction, load_cases, roles, split, split_apart
from justenough.errors import InputError

X = np.arange(12, dtype=np.float32).reshape(6, 2)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "the cases hold no input array"),
        ({"x": X[:0]}, "the cases are empty; give at least one row"),
        ({"x": np.float32(3)}, "input 'x' is a single number; give an array with a row per case"),
        ({"x": X, "m": X[:3]}, "one row a case each; their lengths are {'x': 6, 'm': 3}"),
        ({"x": X.astype(str)}, "input 'x' has type <U32; give a numeric array of at most 64 bits"),
        ({"x": X.astype(complex)}, "input 'x' has type complex128"),
        ({"x": X.astype(object)}, "input 'x' has type object"),
        ({"x": X / np.where(X == 3, np.nan, 1)}, r"\(shape \(6, 2\)\) has 1 NaN or infinite"),
        ({"x": np.where(X > 9, np.inf, X)}, "has 2 NaN or infinite values; clip or drop them"),
    ],
)
def test_inputs_are_checked(inputs: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Cases(inputs)


@pytest.mark.parametrize(
    ("labels", "groups", "message"),
    [
        (np.zeros(5, int), None, r"labels has shape \(5,\); give one value per case, \(6,\)"),
        (np.zeros((6, 1), int), None, r"labels has shape \(6, 1\)"),
        (np.zeros(6), None, "labels has type float64; give integers"),
        (None, np.zeros(6), "groups has type float64; give integers or strings"),
        (None, np.array(["a"] * 5), r"groups has shape \(5,\)"),
    ],
)
def test_labels_and_groups_are_checked(labels: Any, groups: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Cases({"x": X}, labels, groups)


def test_units_are_groups_or_distinct_rows() -> None:
    x = X.copy()
    x[3] = x[0]
    alone = Cases({"x": x})
    assert (alone.n, alone.n_units, alone.unit_name) == (6, 5, "case")
    assert alone.units[0] == alone.units[3]
    grouped = Cases({"x": x}, None, np.array(["b", "a", "b", "c", "c", "a"]))
    assert (grouped.n_units, grouped.unit_name) == (3, "group")
    assert grouped.units.tolist() == [1, 0, 1, 2, 2, 0]


@pytest.mark.parametrize("kind", ["U", "S", "object"])
def test_keys_do_not_depend_on_how_text_is_stored(kind: str) -> None:
    names = np.array(["1", "2", "3", "4", "5", "6"])
    keys = names.astype(np.int64) if kind == "object" else names.astype(kind)
    assert Cases({"x": X}, None, keys).keys == ("1", "2", "3", "4", "5", "6")


def test_a_row_of_all_inputs_is_what_repeats() -> None:
    other = np.array([1, 1, 2, 2, 3, 3])
    same = np.zeros((6, 1), np.float32)
    assert Cases({"a": same, "b": other}).n_units == 3
    assert Cases({"b": other, "a": same}).digests == Cases({"a": same, "b": other}).digests


def test_a_fingerprint_is_of_everything() -> None:
    base = Cases({"x": X})
    changed: list[NDArray[Any]] = [X + 1, X.astype(np.float64), X.reshape(6, 2, 1)]
    assert base.fingerprint == Cases({"x": X.copy()}).fingerprint
    assert all(Cases({"x": x}).fingerprint != base.fingerprint for x in changed)
    assert Cases({"z": X}).fingerprint != base.fingerprint
    one = np.zeros(6, np.int64)
    labelled, grouped = Cases({"x": X}, one), Cases({"x": X}, None, one)
    assert len({base.fingerprint, labelled.fingerprint, grouped.fingerprint}) == 3


def test_take_keeps_labels_and_groups() -> None:
    cases = Cases({"x": X}, np.arange(6), np.arange(6) % 2).take(np.array([4, 1]))
    assert cases.labels is not None
    assert cases.groups is not None
    assert (cases.labels.tolist(), cases.groups.tolist()) == ([4, 1], [0, 1])


def test_shares_are_met_and_must_add_up() -> None:
    got = np.bincount(roles([str(k) for k in range(20000)])) / 20000
    assert np.allclose(got, [0.15, 0.15, 0.7], atol=0.01)
    assert 0 <= key_fraction("") < 1
    for shares in ((0.5, 0.5, 0.5), (0.0, 0.5, 0.5), (0.5, 0.5)):
        with pytest.raises(InputError, match="must be three positive numbers that add to 1"):
            roles(["a"], shares)  # type: ignore[arg-type]


def test_too_few_to_split() -> None:
    with pytest.raises(InputError, match="1 groups leave no case for "):
        split(Cases({"x": X}, None, np.zeros(6, int)))
    with pytest.raises(InputError, match="1 groups are too few to search on; give more"):
        split_apart(
            Cases({"x": X}, None, np.zeros(6, int)), Cases({"x": X + 99}, None, np.ones(6, int))
        )


# Files


def test_files_are_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", x=X, labels=np.arange(6), groups=np.array(["a"] * 6))
    got = load_cases(tmp_path / "c.npz", ["x"])
    assert got.labels is not None
    assert got.keys == ("a",) * 6
    np.save(tmp_path / "c.npy", X)
    assert load_cases(str(tmp_path / "c.npy"), ["x"]).fingerprint == Cases({"x": X}).fingerprint
    np.savez(tmp_path / "labels.npz", labels=X)
    assert load_cases(tmp_path / "labels.npz", ["labels"]).labels is None


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", X)
    np.savez(tmp_path / "c.npz", x=X, y=X)
    np.save(tmp_path / "o.npy", np.array([{}], object), allow_pickle=True)
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 no")
    (tmp_path / "c.csv").write_text("1,2")
    (tmp_path / "one.npz").write_bytes((tmp_path / "one.npy").read_bytes())
    for name, names, message in (
        ("none.npz", ["x"], "no cases file at '.*none.npz'; give an .npz or .npy file"),
        ("c.csv", ["x"], "cases file 'c.csv' ends in '.csv'; give .npz or .npy"),
        ("one.npy", ["x", "m"], r"holds one array but the model has the inputs \['m', 'x'\]"),
        ("c.npz", ["x"], r"missing \[\], unknown \['y'\]; 'labels' and 'groups' may be added"),
        ("c.npz", ["x", "y", "z"], r"missing \['z'\], unknown \[\]"),
        ("o.npy", ["x"], "cannot read o.npy: it holds pickled objects; save plain numeric"),
        ("bad.npz", ["x"], "cannot read bad.npz: "),
        ("one.npz", ["x"], "one.npz is one array named .npz; rename it to .npy"),
    ):
        with pytest.raises(InputError, match=message):
            load_cases(tmp_path / name, names)
