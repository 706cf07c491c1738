"""topk is a sort cut at k, whatever the guess, the ties and the threads; BitSet is a set."""

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from justenough import compiled
from justenough.assemblies import topk as module
from justenough.assemblies.bits import BitSet
from justenough.assemblies.topk import KINDS, topk
from justenough.errors import InputError

TYPES = st.sampled_from([np.dtype(t) for t in KINDS])


@st.composite
def asked(draw: st.DrawFn) -> tuple[NDArray[Any], int]:
    dtype = draw(TYPES)
    n = draw(st.integers(1, 200))
    if draw(st.booleans()):
        few: list[int] = draw(st.lists(st.sampled_from([0, 1, 2, 250]), min_size=n, max_size=n))
        values = np.array(few, dtype)
    else:
        raw = draw(hnp.arrays(np.dtype(f"u{dtype.itemsize}"), n))
        values = np.nan_to_num(raw.view(dtype), nan=0, posinf=np.inf, neginf=-np.inf)
    return values, draw(st.integers(1, n))


def sorted_out(values: NDArray[Any], k: int) -> list[int]:
    wide = values.astype(np.float64)
    order: list[int] = np.lexsort((np.arange(len(values)), -wide))[:k].tolist()
    return order


@given(asked(), st.one_of(st.none(), st.floats(allow_nan=False)), st.sampled_from([1, 2, 4]))
@example((np.array([0.1, 0.1, 1], np.float32), 2), 0.1, 2)
@example((np.array([np.inf, -np.inf, -np.inf], np.float32), 3), np.inf, 1)
@example((np.array([0.0, -0.0, 0.0], np.float16), 2), 0.0, 1)
def test_topk_is_a_stable_sort(
    case: tuple[NDArray[Any], int], guess: float | None, threads: int
) -> None:
    values, k = case
    got = topk(values, k, guess, threads)
    assert got.indices.tolist() == sorted_out(values, k)
    assert got.threshold == values[got.indices[-1]]


LOOPS = pytest.mark.parametrize(
    "loops",
    [
        "numpy",
        pytest.param(
            "compiled",
            marks=pytest.mark.skipif(not compiled.has_numba(), reason="Numba is not installed"),
        ),
    ],
)


def through(loops: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send arrays of any size through the compiled loops, or all through NumPy."""
    monkeypatch.setattr(compiled, "FAST_FROM", 0 if loops == "compiled" else 1 << 60)


@LOOPS
@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("chunk", [1, 7, 24, 1 << 18])
@pytest.mark.parametrize("guess", [None, -1.0, 3.0, 3.5, 900.0])
def test_every_route_gives_the_same(
    loops: str, dtype: Any, chunk: int, guess: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ties over many chunks, guesses too low and too high, samples far smaller than n."""
    through(loops, monkeypatch)
    monkeypatch.setattr(module, "_CHUNK", chunk)
    monkeypatch.setattr(module, "_COLUMNS", 4)
    monkeypatch.setattr(module, "_SAMPLE", 50)
    values = np.random.default_rng(0).poisson(2, 3000).astype(dtype)
    for k in (1, 10, 400, 3000):
        for threads in (1, 3):
            monkeypatch.setattr(module, "_SPARE", 1 if threads == 1 else 1 << 16)
            got = topk(values, k, guess, threads)
            assert got.indices.tolist() == sorted_out(values, k)


@LOOPS
@pytest.mark.parametrize("kind", [np.dtype(t) for t in KINDS])
def test_compiled_loops_order_all_bit_patterns(
    loops: str, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Signed zeros, subnormal numbers, infinities, and views that skip values."""
    through(loops, monkeypatch)
    rng = np.random.default_rng(1)
    raw = rng.integers(0, 1 << 8 * kind.itemsize, 4000).astype(f"u{kind.itemsize}").view(kind)
    values = np.nan_to_num(raw, nan=0.0, posinf=np.inf, neginf=-np.inf).astype(kind)
    if kind.kind == "f":
        values[:600] = rng.choice(np.array([0.0, -0.0, np.inf, -np.inf, 1.0], kind), 600)
    rng.shuffle(values)
    for kept in (values, values[1::3], values[::-1]):
        for k in (1, 100, 700, len(kept)):
            for guess in (None, 0.0, -0.0, 1e9, -1e9, float(np.sort(kept)[-k])):
                assert topk(kept, k, guess, 2).indices.tolist() == sorted_out(kept, k)


@LOOPS
@pytest.mark.parametrize("guess", [None, 2.0, 99.0])
@pytest.mark.parametrize("place", [0, 70_000, 99_999])
@pytest.mark.parametrize("nan", [np.nan, -np.nan])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_nan_is_refused(
    loops: str,
    guess: float | None,
    place: int,
    nan: float,
    ties: bool,
    dtype: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    through(loops, monkeypatch)
    values = np.random.default_rng(0).standard_normal(100_000).astype(dtype)
    if ties:
        values[:] = 3
        monkeypatch.setattr(module, "_SPARE", 0)
    values[place] = nan
    with pytest.raises(InputError, match="NaN"):
        topk(values, 5, guess, 2)


def test_bad_input_is_refused() -> None:
    values = np.zeros(4, np.float32)
    for k in (0, 5):
        with pytest.raises(InputError, match=f"k={k}"):
            topk(values, k)
    with pytest.raises(InputError, match="float64"):
        topk(np.zeros(4), 1)
    with pytest.raises(InputError, match="threshold is NaN"):
        topk(values, 1, float("nan"))


@given(st.integers(1, 300), st.data())
def test_a_bit_set_is_a_set(n: int, data: st.DataObject) -> None:
    ids = st.lists(st.integers(0, n - 1), max_size=40)
    bits, held = BitSet(n), set[int]()
    for _ in range(3):
        more = data.draw(ids)
        bits.add(more)
        held |= set(more)
        assert bits.members().tolist() == sorted(held)
        assert len(bits) == len(held)
        assert bits.holds(np.arange(n)).tolist() == [i in held for i in range(n)]
    assert bits.bytes.nbytes == -(-n // 8)


@pytest.mark.parametrize("ids", [[-1], [8], [0.5]])
def test_a_bit_set_refuses_what_it_cannot_hold(ids: list[Any]) -> None:
    with pytest.raises(InputError, match=r"the set h"):
        BitSet(8).add(ids)
