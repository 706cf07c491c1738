"""Labelled pictures of groups, and which groups no network here is trained on."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from justenough.core.cases import Cases, key_fraction

Array = NDArray[Any]

INPUT = "x"
# Groups below this place are trained on. The key is hashed with a word of its own: without it
# all that is held out would lie at the upper end of [0, 1), where the splits that come after,
# by the bare key, see certification cases only.
TRAINED_BELOW = 0.5
WORD = "train:"
# Of the groups trained on, those below this place are kept back in a trial of a recipe.
TRIED_BELOW = 0.2
TRIAL_WORD = "trial:"


@dataclass(frozen=True, eq=False)
class Pictures:
    """One row per picture.

    Attributes:
        pixels: (n, channels, height, width) uint8.
        label: (n,) integer, index into `classes`.
        group: (n,) keys of what is independent: patient or lesion.
        classes: Names of the classes.
    """

    pixels: Array
    label: Array
    group: Array
    classes: tuple[str, ...]

    @property
    def held_out(self) -> Array:
        """Per row (n,) whether its group is kept from training, by hash; there is no seed."""
        return places(self.group, WORD) >= TRAINED_BELOW

    @property
    def tried(self) -> Array:
        """Per row (n,) whether a trial of a recipe keeps its group back; none is held out."""
        return ~self.held_out & (places(self.group, TRIAL_WORD) < TRIED_BELOW)

    def take(self, rows: Array) -> "Pictures":
        """The pictures at `rows`, an index or mask array."""
        return Pictures(self.pixels[rows], self.label[rows], self.group[rows], self.classes)

    def said(self) -> str:
        """Rows, groups and classes in words."""
        each = np.bincount(self.label, minlength=len(self.classes)).tolist()
        classes = ", ".join(f"{k:,} {c}" for c, k in zip(self.classes, each, strict=True))
        groups = len(set(self.group.tolist()))
        return f"{len(self.label):,} pictures of {groups:,} groups ({classes})"


def places(groups: Array, word: str) -> Array:
    """Per key (n,) its place on [0, 1), by hash of `word` and the key."""
    place_of = {g: key_fraction(word + g) for g in set(groups.tolist())}
    return np.array([place_of[g] for g in groups.tolist()])


def join_identical(pixels: Array, group: Array) -> Array:
    """Groups (n,), those that share an identical picture made one.

    Files that hold the same picture under two patients' names are one patient twice, or a
    mistake; either way they must not be on both sides of a split.

    Args:
        pixels: (n, ...) uint8.
        group: (n,) keys; of joined groups the first in alphabetical order is kept.

    >>> join_identical(np.array([[1], [2], [1], [3]]), np.array(["b", "b", "c", "d"])).tolist()
    ['b', 'b', 'b', 'd']
    """
    joined: dict[str, str] = {}
    first: dict[bytes, str] = {}
    for picture, key in zip(pixels, group.tolist(), strict=True):
        digest = hashlib.blake2b(picture.tobytes(), digest_size=16).digest()
        one, other = _root(joined, key), _root(joined, first.setdefault(digest, key))
        joined[max(one, other)] = min(one, other)
    return np.array([_root(joined, key) for key in group.tolist()])


def cases(pictures: Pictures) -> Cases:
    """The pictures held out, as `x` to answer, labelled and grouped."""
    kept = pictures.take(np.flatnonzero(pictures.held_out))
    return Cases({INPUT: kept.pixels}, kept.label, kept.group)


def write_cases(pictures: Pictures, path: Path) -> Cases:
    """Write the cases held out as an uncompressed npz, for `--cases`; its folder is made."""
    held = cases(pictures)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = {k: v for k, v in (("labels", held.labels), ("groups", held.groups)) if v is not None}
    with path.open("wb") as f:
        np.savez(f, allow_pickle=False, **held.inputs, **aside)
    return held


def _root(joined: Mapping[str, str], key: str) -> str:
    while joined.get(key, key) != key:
        key = joined[key]
    return key
