"""A checkpoint is not trusted: the lazy tier refuses whatever would lead a loop astray."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import broken_states
import numpy as np
import pytest
from broken_states import CASES, circuit, inputs

from justenough.assemblies.lazy import LazyBrain
from justenough.assemblies.packed import pack
from justenough.errors import InputError


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_thousands_of_damaged_states_are_refused_or_fire(case: str, tmp_path: Path) -> None:
    """With loops compiled anew to check their bounds, since few steps beyond them would crash."""
    checked = {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, broken_states.__file__, case, "6"],
        capture_output=True, text=True, timeout=600, env=os.environ | checked,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    refused, fired = map(int, done.stdout.split())
    assert refused > 10 * fired > 1000


def brain(rounds: int, case: str = "three areas") -> LazyBrain:
    made = LazyBrain(circuit(case), 1)
    for number in range(rounds):
        made.fire(inputs(case, number))
    return made


@pytest.mark.parametrize(
    ("part", "name", "value", "why"),
    [
        ("synapses", "_bits", 13, "13 bits"),
        ("synapses", "_bits", 16, "_synapse is uint32"),
        ("synapses", "rounds", 7, "rounds is 7"),
        ("synapses", "_spare", np.array([10**6]), "_spare reaches"),
        ("synapses", "_chains", np.zeros((3, 500), np.int32), "chunks"),
        ("unfired", "number", -1, "number is -1"),
        ("unfired", "number", 3000, "others are not 3000"),
        ("unfired", "_lines", 1, "other stimuli or sources"),
        ("unfired", "_keep", np.full(8, np.nan), "not within 0 and 1"),
        ("unfired", "_columns", {((0,), b""): 0}, "not what it is called"),
        ("unfired", "_bound", np.full(8, 10**6), "not what it is called"),
        ("area", "winners", np.array([3, 3]), "fires twice"),
        ("area", "row", np.arange(100), "mixed up"),
        ("area", "slot", np.zeros(40, np.int64), "winners reaches"),
        ("area", "stimuli", {}, "other stimuli"),
        ("area", "lines", {}, "fibres are others"),
        ("area", "unfired", None, "AttributeError"),
    ],
)
def test_a_part_that_cannot_be_is_refused(part: str, name: str, value: Any, why: str) -> None:
    wrong = brain(4)
    area = wrong._areas["a"]
    held: Any = area if part == "area" else getattr(area, part)
    setattr(held, name, value)
    good = brain(2)
    before = good.saved()
    with pytest.raises(InputError, match=f"saved state is not one.*{why}"):
        good.restore(pack(vars(wrong)))
    assert all(np.array_equal(array, before[name]) for name, array in good.saved().items())


def test_two_chains_of_synapses_share_no_chunk() -> None:
    """Otherwise an exponent could grow twice in a round, and beyond the table of weights."""
    wrong = brain(4)
    head, tail, _ = wrong._areas["a"].synapses._chains
    head[0], tail[0] = head[1], tail[1]
    with pytest.raises(InputError, match="chain"):
        brain(0).restore(wrong.saved())


def test_a_generator_that_stands_still_is_refused() -> None:
    wrong = brain(1)
    state: Any = wrong._rng.bit_generator.state
    state["state"] = {"state": 0, "inc": 0}
    wrong._rng.bit_generator.state = state
    with pytest.raises(InputError, match="random generator"):
        brain(0).restore(wrong.saved())


def test_other_generators_are_refused() -> None:
    wrong = brain(1)
    wrong._rng = np.random.Generator(np.random.MT19937(1))
    with pytest.raises(InputError, match="saved state"):
        brain(0).restore(wrong.saved())
