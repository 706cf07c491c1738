"""Which groups are trained on, tried on and held out."""

from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from justenough.core.cases import key_fraction, load_cases, roles
from justenough.train.held_out import (
    TRAINED_BELOW,
    WORD,
    Pictures,
    cases,
    join_identical,
    places,
    write_cases,
)

KEYS = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=30)


def some(n: int = 60, seed: int = 0) -> Pictures:
    rng = np.random.default_rng(seed)
    group = np.array([f"g{k}" for k in rng.integers(0, n // 2, n)])
    pixels = rng.integers(0, 256, (n, 1, 4, 5), dtype=np.uint8)
    return Pictures(pixels, rng.integers(0, 2, n), group, ("no", "yes"))


def test_no_group_is_on_two_sides() -> None:
    p = some(400)
    parts = (p.held_out, p.tried, ~p.held_out & ~p.tried)
    np.testing.assert_array_equal(np.stack(parts).sum(0), 1)
    groups = [set(p.group[part].tolist()) for part in parts]
    assert all(groups)
    assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]


@settings(deadline=None)
@given(KEYS, KEYS)
def test_a_key_lies_where_it_lies_whatever_the_others(mine: list[str], others: list[str]) -> None:
    alone = places(np.array(mine), WORD)
    together = places(np.array([*others, *mine]), WORD)[len(others) :]
    np.testing.assert_array_equal(alone, together)
    assert [key_fraction(WORD + str(k)) for k in np.array(mine).tolist()] == alone.tolist()


def test_half_are_held_out_and_all_roles_are_among_them() -> None:
    keys = np.array([f"patient{k}" for k in range(4000)])
    held = keys[places(keys, WORD) >= TRAINED_BELOW].tolist()
    # five standard errors
    assert abs(len(held) - 2000) < 5 * np.sqrt(4000 / 4)
    shares = np.bincount(roles(held)) / len(held)
    np.testing.assert_allclose(shares, (0.15, 0.15, 0.7), atol=5 * np.sqrt(0.25 / 2000))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_identical_pictures_are_of_one_group(rows: list[tuple[int, int]]) -> None:
    pixels = np.array([[p] for p, _ in rows], np.uint8)
    group = np.array([f"g{g}" for _, g in rows])
    joined = join_identical(pixels, group)
    for k in range(len(rows)):
        # what was one group stays one, and what is one picture becomes one
        assert len(set(joined[group == group[k]].tolist())) == 1
        assert len(set(joined[(pixels == pixels[k]).all(1)].tolist())) == 1
    # nothing else is joined: the classes are those of the graph of shared groups and pictures
    assert len(set(joined.tolist())) == components(rows)
    assert set(joined.tolist()) <= set(group.tolist())


def components(rows: list[tuple[int, int]]) -> int:
    sets: list[set[tuple[str, int]]] = []
    for p, g in rows:
        mine = {("p", p), ("g", g)}
        touching = [s for s in sets if s & mine]
        sets = [s for s in sets if not s & mine] + [mine.union(*touching)]
    return len(sets)


def test_cases_are_what_is_held_out_and_can_be_loaded(tmp_path: Path) -> None:
    p = some()
    path = tmp_path / "sub" / "c.npz"
    written = write_cases(p, path)
    read = load_cases(path, ["x"])
    assert read.fingerprint == written.fingerprint == cases(p).fingerprint
    assert read.keys == tuple(p.group[p.held_out].tolist())
    assert read.labels is not None
    assert read.labels.tolist() == p.label[p.held_out].tolist()


def test_said_counts_rows_groups_and_classes() -> None:
    p = Pictures(
        np.zeros((3, 1, 1, 1), np.uint8),
        np.array([0, 1, 1]),
        np.array(["a", "b", "b"]),
        ("n", "y"),
    )
    assert p.said() == "3 pictures of 2 groups (1 n, 2 y)"
