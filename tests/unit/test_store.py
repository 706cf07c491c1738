"""The run store: once, again after a kill, and never for other inputs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from justenough.core.store import Store
from justenough.errors import InputError

MINE = {"model": "a", "contract": "b"}


def never() -> Any:
    raise AssertionError("computed twice")


def _open(folder: Path, identity: dict[str, str] | None = None) -> Store:
    return Store(folder / "run.sqlite", MINE if identity is None else identity)


def test_a_step_is_computed_once_and_found_again(tmp_path: Path) -> None:
    store = _open(tmp_path)
    assert store.once("plan", lambda: {"order": [1, 2]}) == {"order": [1, 2]}
    assert store.once("plan", never) == {"order": [1, 2]}
    assert store.once("nothing", list) == []
    assert store.once("nothing", never) == []
    got = store.once_arrays("answers", lambda: {"y": np.arange(6.0).reshape(2, 3)})
    assert got["y"].tolist() == [[0, 1, 2], [3, 4, 5]]
    store.close()
    again = _open(tmp_path)
    assert again.once("plan", never) == {"order": [1, 2]}
    assert again.once_arrays("answers", never)["y"].dtype == np.float64
    assert again.seconds()["plan"] >= 0
    again.close()
    assert [p.name for p in tmp_path.iterdir()] == ["run.sqlite"]


def test_a_threshold_comes_back_bit_for_bit(tmp_path: Path) -> None:
    store, exact = _open(tmp_path), float(np.float32(0.1) / 3)
    assert store.once("plan", lambda: [exact]) == [exact]
    assert store.once("plan", never) == [exact]
    store.close()


def test_a_step_that_fails_leaves_no_record(tmp_path: Path) -> None:
    store = _open(tmp_path)

    def fail() -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.once("slow", fail)
    with pytest.raises(KeyboardInterrupt):
        store.once_arrays("slow", fail)
    assert store.get("slow") is None
    assert store.once("slow", lambda: 1) == 1
    store.close()


def test_a_store_belongs_to_its_inputs(tmp_path: Path) -> None:
    _open(tmp_path).close()
    for other, what in (
        ({**MINE, "contract": "c"}, "contract"),
        ({"model": "x", "contract": "y"}, "model, contract"),
        ({**MINE, "option": "1"}, "option"),
    ):
        with pytest.raises(InputError, match=f"a run with another {what}; give a new output"):
            _open(tmp_path, other)
    _open(tmp_path).close()


def test_what_cannot_be_opened_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run store at "):
        Store(tmp_path / "run.sqlite")
    (tmp_path / "run.sqlite").write_bytes(b"not a database, but long enough to be taken for one")
    with pytest.raises(InputError, match=r"run\.sqlite is not a run store"):
        _open(tmp_path)


def test_arrays_that_are_not_there(tmp_path: Path) -> None:
    store = _open(tmp_path)
    store.put("value", 1)
    for step in ("value", "none"):
        with pytest.raises(InputError, match=f"the run store has no arrays for '{step}'"):
            store.arrays(step)
    store.close()


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    store = _open(tmp_path)
    store.put("objects", 1, {"y": np.array([object.__name__, None], object)})
    with pytest.raises(ValueError, match="allow_pickle"):
        store.arrays("objects")
    store.close()
