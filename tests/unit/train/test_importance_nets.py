"""252 networks side by side: the gradient, the search, and what it may look at."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the torch extra")

from justenough.errors import InputError  # noqa: E402
from justenough.train import importance_nets  # noqa: E402
from justenough.train.importance_nets import (  # noqa: E402
    Outcome,
    Recipe,
    Rows,
    architectures,
    search,
)
from justenough.train.side_by_side import (  # noqa: E402
    Architecture,
    Data,
    advance,
    answers,
    untrained,
)


def rows(n: int, seed: int, *, curved: bool = False) -> Rows:
    rng = np.random.default_rng(seed)
    x = rng.random((n, 4))
    y = x @ [0.1, 0.6, 0.2, 0.1] + 0.05 * rng.standard_normal(n)
    if curved:
        y = 4 * (x[:, 0] - 0.5) * (x[:, 1] - 0.5) + 0.1 * y
    return Rows(x, y)


@pytest.fixture(scope="module")
def parts() -> tuple[Rows, Rows, Rows]:
    return rows(200, 0), rows(150, 1), rows(150, 2)


def same_step_by_autograd(members: list[Architecture], batch: Any, data: Data, steps: int) -> Any:
    """PyTorch's modules of arithmetic, autograd and Adam, with the same masks of dropout."""
    found = []
    for i, member in enumerate(members):
        chance = np.random.default_rng(5)
        vector, flat = batch.best[i], []
        for n, m in batch.layers:
            flat.append(vector[: n * m].view(n, m).clone().requires_grad_())
            flat.append(vector[n * m : n * m + m].clone().requires_grad_())
            vector = vector[n * m + m :]
        optimizer = torch.optim.Adam(flat, lr=member.rate)
        act = {"relu": torch.relu, "tanh": torch.tanh, "elu": torch.nn.functional.elu}
        for _ in range(steps):
            z = data.x
            for j in range(0, len(flat) - 2, 2):
                z = act[member.activation](z @ flat[j] + flat[j + 1])
                bits = chance.integers(-(2**15), 2**15, tuple(z.shape), dtype=np.int16)
                if member.dropout:
                    kept = torch.from_numpy(bits >= round(member.dropout * 2**16) - 2**15)
                    z = z * kept / (1 - member.dropout)
            p = torch.sigmoid(z @ flat[-2] + flat[-1])[:, 0]
            away = p - p.mean()
            loss = -(away @ data.y) / away.norm()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        found.append(torch.cat([t.detach().ravel() for t in flat]))
    return torch.stack(found)


@pytest.mark.parametrize("activation", ["relu", "tanh", "elu"])
@pytest.mark.parametrize("hidden", [(), (8,), (16, 8)])
def test_steps_are_those_of_autograd_and_adam(activation: str, hidden: tuple[int, ...]) -> None:
    members = [
        Architecture(hidden, dropout, rate, activation)
        for dropout in (0.0, 0.1, 0.3)
        for rate in (0.001, 0.01)
    ]
    part = rows(100, 0)
    away = part.y - part.y.mean()
    x, y = torch.from_numpy(part.x * 4 - 2), torch.from_numpy(away / np.linalg.norm(away))
    data = Data(x, y, x, y)
    batch = untrained(members, 4, np.random.default_rng(0))
    # in float64: Adam's first steps are signs, also of a slope that is rounding
    batch.state, batch.best = batch.state.double(), batch.best.double()
    expected = same_step_by_autograd(members, batch, data, 10)
    advance(batch, data, 10, 0, np.random.default_rng(5))
    torch.testing.assert_close(batch.best, expected, rtol=1e-5, atol=1e-6)


def test_the_252_architectures_are_all_there() -> None:
    everyone = architectures()
    assert len(set(everyone)) == 252
    for values, count in (
        ({a.hidden for a in everyone}, 7),
        ({a.dropout for a in everyone}, 4),
        ({a.rate for a in everyone}, 3),
        ({a.activation for a in everyone}, 3),
    ):
        assert len(values) == count


@pytest.fixture(scope="module")
def short(parts: tuple[Rows, Rows, Rows]) -> Outcome:
    return search(*parts, Recipe(40, 0), rng=np.random.default_rng(0))


@pytest.mark.slow
def test_a_linear_truth_needs_no_network(short: Outcome) -> None:
    assert len(short.table) == 252
    assert all(c.epochs == 40 for c in short.table)
    values = [c.validation for c in short.table]
    assert values == sorted(values, reverse=True)
    assert short.winner == short.table[0]
    assert short.linear > 0.95
    assert short.test > 0.94
    assert short.test_interval[0] < short.test < short.test_interval[1]
    assert short.gain == pytest.approx(short.test - short.linear)
    assert short.gain_interval[0] < short.gain < short.gain_interval[1] < 0.01


@pytest.mark.slow
def test_an_interaction_is_found_by_a_network_and_not_by_weights() -> None:
    train, validation, test = (rows(500, seed, curved=True) for seed in range(3))
    found = search(train, validation, test, Recipe(120, 40), rng=np.random.default_rng(0))
    assert found.winner.architecture.hidden != ()
    assert found.gain_interval[0] > 0.3


@pytest.mark.slow
def test_the_test_rows_choose_nothing(parts: tuple[Rows, Rows, Rows], short: Outcome) -> None:
    train, validation, test = parts
    other = Rows(test.x[::-1].copy(), test.y)  # the pairs are broken
    found = search(train, validation, other, Recipe(40, 0), rng=np.random.default_rng(0))
    assert found.table == short.table
    assert found.winner == short.winner
    assert abs(found.test) < 0.3


@pytest.mark.slow
def test_a_run_goes_on_where_it_stopped(
    parts: tuple[Rows, Rows, Rows], short: Outcome, tmp_path: Path
) -> None:
    class StoppedError(Exception):
        pass

    def stop(done: int, total: int) -> None:
        assert total == 21
        if done == 9:
            raise StoppedError

    def ask(rng_seed: int = 0, **more: Any) -> Outcome:
        return search(*parts, Recipe(40, 0), rng=np.random.default_rng(rng_seed), **more)

    with pytest.raises(StoppedError):
        ask(folder=tmp_path, progress=stop)
    kept = sorted(tmp_path.iterdir())
    assert len(kept) == 9
    written = {p: p.stat().st_mtime_ns for p in kept}
    kept[0].write_bytes(kept[0].read_bytes()[:100])  # cut off
    kept[1].write_bytes(b"")
    assert ask(folder=tmp_path) == short
    assert len(list(tmp_path.iterdir())) == 21
    assert all(p.stat().st_mtime_ns == written[p] for p in kept[2:])
    # another seed does not take over what this one left
    assert ask(1, folder=tmp_path) != short


@pytest.mark.slow
def test_halving_trains_the_best_to_the_end(parts: tuple[Rows, Rows, Rows]) -> None:
    found = search(*parts, Recipe(80, 0, halving=True), rng=np.random.default_rng(0))
    epochs = np.array([c.epochs for c in found.table])
    assert [int((epochs >= e).sum()) for e in (10, 20, 40, 80)] == [252, 126, 63, 32]
    assert found.winner.epochs == 80


@pytest.mark.slow
def test_patience_saves_steps(parts: tuple[Rows, Rows, Rows]) -> None:
    found = search(*parts, Recipe(160, 20), rng=np.random.default_rng(0))
    epochs = np.array([c.epochs for c in found.table])
    assert epochs.min() < 160
    assert epochs.min() >= 20


def test_a_network_that_saturates_is_left_aside() -> None:
    part = rows(100, 0)
    away = part.y - part.y.mean()
    x = torch.from_numpy(part.x.astype(np.float32))
    y = torch.from_numpy((away / np.linalg.norm(away)).astype(np.float32))
    members = [Architecture((8,), 0.0, 0.01, "relu")]
    batch = untrained(members, 4, np.random.default_rng(0))
    batch.state[0] = 0.0  # no unit is alive: the same answer to all rows, and no slope
    advance(batch, Data(x, y, x, y), 10, 0, np.random.default_rng(0))
    assert abs(batch.validation[0]) < 1e-6
    assert np.isfinite(answers(batch, 0, part.x)).all()
    assert torch.isfinite(batch.state).all()


def test_intervals_of_the_correlation_cover() -> None:
    rng, hits, gains = np.random.default_rng(0), 0, 0
    for _ in range(600):
        z = rng.standard_normal((200, 3))
        y = z[:, 0]
        a, b = 0.8 * y + 0.6 * z[:, 1], 0.8 * y + 0.6 * z[:, 2]
        (r, influence), (s, other) = (importance_nets._influence(v, y) for v in (a, b))
        low, high = importance_nets._fisher(r, influence)
        hits += low < 0.8 < high
        gains += abs(r - s) < importance_nets._reach(influence - other)
    # nominally 570; 3.3 standard errors of 600 are 18
    assert hits >= 552
    assert gains >= 552


def test_refusals(parts: tuple[Rows, Rows, Rows]) -> None:
    train, validation, test = parts
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match=r"numbers of signals are \[4, 3, 4\]"):
        search(train, Rows(validation.x[:, :3], validation.y), test, rng=rng)
    with pytest.raises(InputError, match="signal 2 has variance 0"):
        flat = train.x.copy()
        flat[:, 2] = 1.0
        search(replace(train, x=flat), validation, test, rng=rng)
    with pytest.raises(InputError, match="train and test share 150 rows"):
        search(train, validation, Rows(train.x[:150], train.y[:150]), rng=rng)
    with pytest.raises(InputError, match="every y is 1; it must vary"):
        Rows(train.x, np.ones(200))
    with pytest.raises(InputError, match="29 rows; at least 30 are needed"):
        Rows(train.x[:29], train.y[:29])
    with pytest.raises(InputError, match="epochs is 4; at least 8 are needed"):
        Recipe(4)
    with pytest.raises(InputError, match=r"patience is -1; it must be 0 \(off\) or more"):
        Recipe(patience=-1)
    with pytest.raises(InputError, match="answers the same to every test row"):
        importance_nets._influence(np.ones(40), test.y[:40])
