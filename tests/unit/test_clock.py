"""Times are ratios of the same rows in one run; here a clock that is told what each call takes."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx.parser import parse_model

from justenough.core.gate import Gate
from justenough.core.subject import ONNXRUNTIME
from justenough.deploy import clock
from justenough.deploy.clock import call_cost, duel, feeds_of, opened, race
from justenough.deploy.deployment import write_deployment

Array = NDArray[Any]
Feed = dict[str, Array]


class Time:
    """Seconds that pass only when something says that it took some."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []

    def taking(self, name: str, seconds: Callable[[int, int], float]) -> Callable[[Feed], None]:
        """A call whose seconds depend on its rows and on how often it was called."""
        count = 0

        def call(feed: Feed) -> None:
            nonlocal count
            self.now += seconds(len(feed["x"]), count)
            self.calls.append(name)
            count += 1

        return call


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    told = Time()
    monkeypatch.setattr(clock, "time", SimpleNamespace(perf_counter=lambda: told.now))
    return told


def rows(n: int) -> Feed:
    return {"x": np.arange(n, dtype=np.float32)[:, None]}


def test_the_ratio_is_of_medians_and_the_first_call_does_not_count(time: Time) -> None:
    slow = time.taking("reference", lambda n, k: 100.0 if k == 0 else 0.08 * n)
    fast = time.taking("candidate", lambda n, k: 100.0 if k == 0 else 0.02 * n)
    got = duel(slow, fast, feeds_of(rows(64), 8, 4), threads=2, seconds=20.0)
    assert [got.reference_s, got.candidate_s] == pytest.approx([0.08, 0.02])
    assert got.speedup == pytest.approx(4.0) and got.low <= got.speedup <= got.high
    assert (got.rows, got.batch, got.threads) == (32, 8, 2)
    assert got.repeats == 7  # 3.2 s a pass
    assert time.calls[:2] == ["reference", "candidate"]
    assert time.calls == ["reference", "candidate"] * (1 + 4 * 7)


def test_three_passes_at_least_and_fifty_at_most(time: Time) -> None:
    slow = time.taking("reference", lambda n, k: 9.0)
    assert duel(slow, slow, [rows(1)], threads=1, seconds=0.0).repeats == 3
    quick = time.taking("reference", lambda n, k: 1e-6)
    assert duel(quick, quick, [rows(1)], threads=1, seconds=1e9).repeats == 50


def test_one_slow_pass_is_in_the_spread_and_not_in_the_ratio(time: Time) -> None:
    slow = time.taking("reference", lambda n, k: 1.0)
    fast = time.taking("candidate", lambda n, k: 5.0 if k == 3 else 0.5)
    got = duel(slow, fast, [rows(1)], threads=1, seconds=9.0)
    assert got.speedup == pytest.approx(2.0)
    assert got.low < 2.0 and got.high == pytest.approx(2.0)


@pytest.mark.parametrize(("n", "batch", "passes"), [(64, 8, 4), (70, 8, 50), (9, 9, 3), (5, 8, 4)])
def test_feeds_are_whole_batches_spread_over_the_rows(n: int, batch: int, passes: int) -> None:
    feeds = feeds_of(rows(n), batch, passes)
    assert 1 <= len(feeds) <= passes
    assert all(len(f["x"]) == batch for f in feeds)
    starts = [float(f["x"][0, 0]) for f in feeds]
    assert starts == sorted(set(starts)) and starts[0] == 0
    if n > batch and passes > 1:
        assert starts[-1] == (n // batch - 1) * batch
    for f in feeds:
        np.testing.assert_array_equal(np.sort(np.unique(f["x"])), np.unique(f["x"]))


def test_a_call_costs_its_median_for_each_size(time: Time) -> None:
    call = time.taking("reference", lambda n, k: 0.5 + 0.1 * n)
    got = call_cost(call, rows(40), sizes=[1, 32])
    assert [n for n, _ in got] == [1, 32]
    assert [s for _, s in got] == pytest.approx([0.6, 3.7])


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, Path]:
    for name, op in ("fast", "Round"), ("exact", "Identity"):
        made = parse_model(
            '<ir_version: 8, opset_import: ["": 17]> g (float[N,2] x) => (float[N,2] y) '
            f"{{ y = {op}(x) }}"
        )
        onnx.save(made, tmp_path / f"{name}.onnx")
    fast, exact = tmp_path / "fast.onnx", tmp_path / "exact.onnx"
    parts = [(fast, ONNXRUNTIME, Gate("y", threshold=0.5)), (exact, ONNXRUNTIME, None)]
    return fast, exact, write_deployment(parts, ["y"], tmp_path / "out", {})


def test_a_model_and_a_cascade_are_opened_to_answer_any_batch(
    files: tuple[Path, Path, Path],
) -> None:
    x = np.array([[0.2, 0.1], [3, 0]], np.float32)
    got: Any = opened(files[0], threads=1)({"x": x})
    np.testing.assert_array_equal(got[0], x.round())
    got = opened(files[2], threads=1)({"x": np.tile(x, (500, 1))})
    assert got[0]["y"].shape == (1000, 2) and got[1].sum() == 500


def test_a_race_times_each_beside_the_reference(files: tuple[Path, Path, Path]) -> None:
    x = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
    got = race(
        files[1], {"alone": files[0], "cascade": files[2]}, {"x": x}, batch=8, threads=1,
        seconds=0.0, passes=2,
    )  # fmt: skip
    assert set(got) == {"alone", "cascade"}
    for r in got.values():
        assert r.repeats == 3 and r.rows == 16 and r.batch == 8
        assert r.reference_s > 0 and r.speedup == pytest.approx(r.reference_s / r.candidate_s)
    assert got["alone"].speedup > got["cascade"].speedup  # two sessions and a gate take longer
