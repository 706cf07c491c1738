"""The made-up conversations are what they say, and a table of one's own is read or refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from justenough.core.store import Store
from justenough.errors import InputError
from justenough.studies.heavystats.bundle import Difference, differences, read_bundle
from justenough.studies.heavystats.searches import architectures
from justenough.studies.heavystats.table import COLUMNS, read_table
from justenough.studies.heavystats.work import Work
from justenough.studies.heavystats.world import BLOCK, World


@pytest.mark.parametrize("bend", [0.0, 1.0])
@pytest.mark.parametrize("shared", [0.0, 0.3, 0.8])
def test_the_exact_covariance_is_that_of_the_conversations(shared: float, bend: float) -> None:
    world = World(40_000, turns=20, shared=shared, bend=bend, seed=3)
    rows = [world.block(b).astype(np.float64) for b in range(world.n_blocks)]
    per_conversation = np.concatenate(rows)
    away = per_conversation - per_conversation.mean((0, 1))
    products = np.einsum("cti,ctj->cij", away, away) / world.turns
    error = products.std(0) / np.sqrt(world.conversations)
    found = products.mean(0)
    assert (np.abs(found - world.covariance()) <= 4.5 * error).all()


def test_a_block_is_made_from_seed_and_number_alone() -> None:
    world = World(2 * BLOCK + 7, seed=5)
    assert world.n_blocks == 3
    assert np.array_equal(world.block(2), World(2 * BLOCK + 7, seed=5).block(2))
    assert world.block(2).shape == (7, 50, 5)
    assert not np.array_equal(world.block(0), world.block(1))
    assert not np.array_equal(world.block(0), World(2 * BLOCK + 7, seed=6).block(0))


def test_signals_lie_between_0_and_1() -> None:
    block = World(BLOCK).block(0, outcomes=3)
    assert block.shape == (BLOCK, 50, 7)
    assert block[..., :4].min() >= 0.0 and block[..., :4].max() <= 1.0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"conversations": 1}, "1 conversations of 50 turns"),
        ({"conversations": 9, "turns": 1}, "of 1 turns"),
        ({"conversations": 9, "shared": 1.0}, "share 1.0"),
        ({"conversations": 9, "noise": 0.0}, "noise of a turn"),
    ],
)
def test_a_world_that_cannot_be_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        World(**given)


def _columns(groups: int = 40, turns: int = 5, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    n = groups * turns
    out: dict[str, Any] = {name: rng.random(n) for name in COLUMNS[:-1]}
    out["conversation"] = rng.permutation(np.repeat(np.arange(groups), turns))
    return out


def _npz(path: Path, columns: dict[str, Any]) -> Path:
    np.savez(path, allow_pickle=False, **columns)
    return path


def test_a_table_is_sorted_by_conversation(tmp_path: Path) -> None:
    columns = _columns()
    table = read_table(_npz(tmp_path / "t.npz", columns))
    order = np.argsort(columns["conversation"], kind="stable")
    assert np.array_equal(table.values[:, 0], columns["decay"][order])
    assert table.conversations == 40 and len(table.values) == 200


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_parquet_and_csv_say_the_same_as_npz(tmp_path: Path, suffix: str) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import csv, parquet

    columns = _columns()
    columns["conversation"] = np.array([f"c{k}" for k in columns["conversation"]])
    arrow = pa.table({**{k: columns[k] for k in reversed(COLUMNS)}, "extra": columns["decay"]})
    path = tmp_path / f"t{suffix}"
    (parquet.write_table if suffix == ".parquet" else csv.write_csv)(arrow, path)
    found = read_table(path)
    wanted = read_table(_npz(tmp_path / "t.npz", columns))
    assert np.array_equal(found.values, wanted.values)
    assert np.array_equal(found.unit, wanted.unit)


def _constant(c: dict[str, Any]) -> None:
    c["decay"][:] = 0.5


def _not_finite(c: dict[str, Any]) -> None:
    c["surprise"][3] = np.nan


def _no_column(c: dict[str, Any]) -> None:
    del c["relevance"]


def _texts(c: dict[str, Any]) -> None:
    c["importance"] = np.array(["high"] * len(c["decay"]))


def _numbers_as_text(c: dict[str, Any]) -> None:
    c["importance"] = c["importance"].astype(str)


def _huge(c: dict[str, Any]) -> None:
    c["decay"] *= 1e200


def _far_away(c: dict[str, Any]) -> None:
    c["decay"] = 1e9 + 1e-3 * c["decay"]


def _same_signals(c: dict[str, Any]) -> None:
    c["decay"] = 2 * c["surprise"]


def _no_noise(c: dict[str, Any]) -> None:
    c["importance"] = -sum(c[name] for name in COLUMNS[:4])


def _nameless(c: dict[str, Any]) -> None:
    c["conversation"] = c["conversation"].astype(str)
    c["conversation"][7] = ""


def _one(c: dict[str, Any]) -> None:
    c["conversation"][:] = 3


def _each_its_own(c: dict[str, Any]) -> None:
    c["conversation"] = np.arange(len(c["decay"]))


def _few(c: dict[str, Any]) -> None:
    c["conversation"] %= 29


def _short_key(c: dict[str, Any]) -> None:
    c["conversation"] = c["conversation"][:-1]


def _short(c: dict[str, Any]) -> None:
    c["decay"] = c["decay"][:-1]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_constant, "'decay' of t.npz is 0.5 in every row"),
        (_not_finite, "'surprise' of t.npz is nan in row 3"),
        (_no_column, "has no column relevance"),
        (_texts, "'importance' of t.npz holds values that are no numbers"),
        (_numbers_as_text, "'importance' of t.npz holds values that are no numbers"),
        (_huge, "'decay' of t.npz reaches"),
        (_far_away, "spans 0.000"),
        (_same_signals, "the signals of t.npz depend on each other"),
        (_no_noise, "signals and importance of t.npz depend on each other"),
        (_nameless, "'conversation' of t.npz is empty in row 7"),
        (_one, "holds 1 conversation; "),
        (_each_its_own, "has one turn"),
        (_few, "holds 29 conversations"),
        (_short_key, "one whole number or text for each row"),
        (_short, "columns of t.npz have 199 and 200 rows"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(tmp_path: Path, spoil: Any, said: str) -> None:
    columns = _columns()
    spoil(columns)
    with pytest.raises(InputError, match=said):
        read_table(_npz(tmp_path / "t.npz", columns))


@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.npz", "t.txt", "none.csv"])
def test_a_file_that_is_something_else_is_refused(tmp_path: Path, name: str) -> None:
    if not name.startswith("none"):
        (tmp_path / name).write_bytes(b"\x00\x01something else\n")
    if name.endswith((".parquet", ".csv")) and not name.startswith("none"):
        pytest.importorskip("pyarrow")
    with pytest.raises(InputError):
        read_table(tmp_path / name)


def test_an_archive_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    whole = _npz(tmp_path / "t.npz", _columns()).read_bytes()
    for cut in (4, 30, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.npz").write_bytes(whole[:cut])
        with pytest.raises(InputError, match=r"cut\.npz cannot be read"):
            read_table(tmp_path / "cut.npz")


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "t.csv"
    path.write_text(",".join(("decay", *COLUMNS)) + "\n" + "1,2,3,4,5,6,7\n" * 50)
    with pytest.raises(InputError, match="more than one column 'decay'"):
        read_table(path)


def test_few_conversations_leave_networks_out(tmp_path: Path) -> None:
    table = read_table(_npz(tmp_path / "t.npz", _columns()))
    store = Store(tmp_path / "run.sqlite", {"study": "heavystats"})
    work = Work(table, np.random.default_rng(0), store, lambda _: None)
    assert architectures(work) == {
        "left_out": "it needs 120 conversations to train, choose and judge on; there are 40"
    }
    store.close()


def test_a_pickle_in_an_npz_is_refused(tmp_path: Path) -> None:
    columns = _columns()
    columns["conversation"] = np.array([{"a": 1}] * len(columns["decay"]), dtype=object)
    np.savez(tmp_path / "t.npz", **columns)
    with pytest.raises(InputError, match="cannot be read"):
        read_table(tmp_path / "t.npz")


def test_numbers_may_differ_by_their_errors_only() -> None:
    theirs = {"a": 1.0, "seconds": 3.0, "b": [{"value": 2.0, "mc_se": 0.1}], "c": "x", "d": None}
    ours = json.loads(json.dumps(theirs))
    assert list(differences(theirs, ours)) == []
    ours["seconds"], ours["a"], ours["b"][0]["value"] = 9.0, 1.0 + 1e-7, 2.5
    assert list(differences(theirs, ours)) == []
    ours["a"], ours["b"][0]["value"], ours["c"], ours["e"] = 1.001, 3.0, "y", 1
    found = list(differences(theirs, ours))
    assert [d.where for d in found if isinstance(d, Difference)] == ["a", "b[0]"]
    assert [d for d in found if isinstance(d, str)] == [
        "c is 'x' there and 'y' here",
        "e is in one of the two only",
    ]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": "other"}', "[" * 100_000, '{"format": 1}']
)
def test_a_bundle_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bundle.json"
    path.write_text(text)
    with pytest.raises(InputError):
        read_bundle(path)
    with pytest.raises(InputError, match="no bundle at"):
        read_bundle(tmp_path / "none.json")


def test_a_number_that_is_none_is_refused() -> None:
    with pytest.raises(InputError, match="where a number belongs"):
        list(differences({"value": 1.0, "mc_se": "x"}, {"value": 1.0, "mc_se": 0.1}))
