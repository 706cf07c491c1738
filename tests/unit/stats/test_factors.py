"""Tensor factors: errors against the full residual, results against TensorLy where installed."""

import numpy as np
import pytest
from numpy.typing import NDArray

from justenough.errors import InputError
from justenough.stats.factors import (
    CP,
    Tucker,
    core_consistency,
    cp,
    hooi,
    st_hosvd,
    supported_rank,
)

Array = NDArray[np.float64]


def tensor(
    shape: tuple[int, ...], rank: int, noise: float, seed: int = 0, *, positive: bool = True
) -> Array:
    rng = np.random.default_rng(seed)
    draw = rng.random if positive else rng.standard_normal
    factors = [draw((n, rank)) for n in shape]
    x = built(CP(np.ones(rank), tuple(factors), 0.0))
    x += noise * rng.standard_normal(shape)
    return x


def built(found: CP | Tucker) -> Array:
    if isinstance(found, Tucker):
        out = found.core
        for mode, u in enumerate(found.factors):
            out = np.moveaxis(np.tensordot(u, out, (1, mode)), 0, mode)
        return out
    out = np.zeros([len(f) for f in found.factors])
    for r, weight in enumerate(found.weights):
        part = np.array(weight)
        for f in found.factors:
            part = np.multiply.outer(part, f[:, r])
        out += part
    return out


def residual(x: Array, found: CP | Tucker) -> float:
    return float(np.linalg.norm(x - built(found)) / np.linalg.norm(x))


SHAPES = [(30, 7, 4), (4, 7, 30), (20, 9, 4, 3), (5, 6), (3, 3, 3, 3, 3)]


@pytest.mark.parametrize("shape", SHAPES)
def test_tucker_errors_are_those_of_the_full_residual(shape: tuple[int, ...]) -> None:
    x = tensor(shape, 3, 0.3)
    ranks = tuple(min(n, 2 + j % 2) for j, n in enumerate(shape))
    quick, best = st_hosvd(x, ranks), hooi(x, ranks)
    for found in (quick, best):
        assert found.error == pytest.approx(residual(x, found), abs=1e-10)
        assert found.core.shape == ranks
        for u in found.factors:
            np.testing.assert_allclose(u.T @ u, np.eye(u.shape[1]), atol=1e-12)
    assert best.error <= quick.error + 1e-12
    assert quick.error <= np.sqrt(len(shape)) * best.error


def test_a_matrix_has_the_error_of_its_singular_values() -> None:
    x = np.random.default_rng(0).random((9, 6))
    s = np.linalg.svd(x, compute_uv=False)
    expected = np.sqrt((s[2:] ** 2).sum() / (s**2).sum())
    assert st_hosvd(x, (2, 2)).error == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(30, 7, 4), (20, 9, 4, 3), (3, 4, 3, 5, 3)])
@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_cp_errors_are_those_of_the_full_residual(shape: tuple[int, ...], noise: float) -> None:
    x = tensor(shape, 2, noise)
    made = tensor(shape, 2, 0.0)
    found = cp(x, 2, rng=np.random.default_rng(1))
    assert found.error == pytest.approx(residual(x, found), abs=1e-7)
    assert (np.diff(found.weights) <= 0).all()
    for f in found.factors:
        np.testing.assert_allclose(np.linalg.norm(f, axis=0), 1.0)
    # least squares cannot do worse than the factors that made the tensor
    assert found.error <= np.linalg.norm(x - made) / np.linalg.norm(x) + 1e-3


def test_cp_finds_the_factors_that_made_the_tensor() -> None:
    rng = np.random.default_rng(0)
    true: list[Array] = [rng.standard_normal((n, 3)) for n in (12, 11, 10)]
    x = np.einsum("ir,jr,kr->ijk", *true)
    found = cp(x, 3, rng=rng, tolerance=1e-13)
    for mine, theirs in zip(found.factors, true, strict=True):
        cosines = np.abs(mine.T @ theirs) / np.linalg.norm(theirs, axis=0)
        np.testing.assert_allclose(cosines.max(axis=0), 1.0, atol=1e-4)


def test_cp_of_rank_one_is_better_than_any_starting_point() -> None:
    x = np.random.default_rng(3).standard_normal((6, 5, 4))
    found = cp(x, 1, rng=np.random.default_rng(0))
    rng = np.random.default_rng(1)
    for _ in range(200):
        a, b, c = (rng.standard_normal((n,)) for n in x.shape)
        shown = np.einsum("ijk,i,j,k", x, a, b, c) ** 2 / (a @ a * (b @ b) * (c @ c))
        assert shown <= found.explained * (x**2).sum()


def test_core_consistency_falls_when_there_are_too_many_factors() -> None:
    x = tensor((100, 20, 4, 3), 3, 0.1)
    rng = np.random.default_rng(0)
    assert core_consistency(x, cp(x, 2, rng=rng)) > 80
    assert core_consistency(x, cp(x, 3, rng=rng)) > 80
    assert core_consistency(x, cp(x, 5, rng=rng)) < 60


def test_core_consistency_of_a_core_known_by_hand() -> None:
    """A Tucker model with orthonormal factors: the least-squares core is the core itself."""
    core = np.zeros((2, 2, 2))
    core[0, 0, 0] = core[1, 1, 1] = 1.0
    core[0, 1, 0] = 0.5
    eye = np.eye(4)[:, :2]
    x = np.einsum("abc,ia,jb,kc->ijk", core, eye, eye, eye)
    found = CP(np.ones(2), (eye, eye, eye), 0.0)
    assert core_consistency(x, found) == pytest.approx(100 * (1 - 0.25 / 2))


@pytest.mark.slow
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_the_rank_that_made_the_tensor_is_supported(rank: int) -> None:
    right = 0
    for seed in range(6):
        x = tensor((12, 11, 10), rank, 0.2, seed, positive=False)
        right += supported_rank(x, 4, rng=np.random.default_rng(seed)).rank == rank
    assert right >= 5


@pytest.mark.slow
def test_noise_alone_supports_no_factor() -> None:
    found = [
        supported_rank(
            np.random.default_rng(seed).standard_normal((8, 7, 6)),
            2,
            rng=np.random.default_rng(100 + seed),
        ).rank
        for seed in range(6)
    ]
    assert found.count(0) >= 4


def test_refusals() -> None:
    x, rng = tensor((5, 4, 3), 2, 0.1), np.random.default_rng(0)
    hole = x.copy()
    hole[0, 0, 0] = np.inf
    with pytest.raises(InputError, match=r"tensor is inf in place \(0, 0, 0\); every value"):
        st_hosvd(hole, (1, 1, 1))
    with pytest.raises(InputError, match="every value of the tensor is 0"):
        hooi(np.zeros((2, 2, 2)), (1, 1, 1))
    with pytest.raises(InputError, match=r"the tensor has shape \(3,\); it must have 2 to 12"):
        st_hosvd(np.ones(3), (1,))
    with pytest.raises(InputError, match=r"ranks are \(1, 1\) for shape \(5, 4, 3\)"):
        st_hosvd(x, (1, 1))
    with pytest.raises(InputError, match=r"ranks are \(1, 5, 1\)"):
        hooi(x, (1, 5, 1))
    with pytest.raises(InputError, match="sweeps is 0"):
        hooi(x, (1, 1, 1), sweeps=0)
    with pytest.raises(InputError, match="the tensor has 2 modes; CP is unique for 3 or more"):
        cp(x[0], 1, rng=rng)
    with pytest.raises(InputError, match="rank is 0; it must be a whole number, 1 or more"):
        cp(x, 0, rng=rng)
    with pytest.raises(InputError, match="largest is 0"):
        supported_rank(x, 0, rng=rng)
    with pytest.raises(
        InputError, match=r"the model has shape \(5, 4, 3\), the tensor \(4, 4, 3\)"
    ):
        core_consistency(x[:4], cp(x, 1, rng=rng))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("noise", [0.05, 0.5])
def test_tensorly_is_not_better(noise: float) -> None:
    tensorly = pytest.importorskip("tensorly", reason="an oracle that is not needed otherwise")
    decomposition = pytest.importorskip("tensorly.decomposition")
    x = tensor((40, 20, 4, 3), 3, noise)
    theirs = tensorly.tucker_to_tensor(
        decomposition.tucker(tensorly.tensor(x), rank=[6, 4, 3, 2], n_iter_max=200, tol=1e-9)
    )
    mine = hooi(x, (6, 4, 3, 2), tolerance=1e-10)
    assert mine.error == pytest.approx(np.linalg.norm(x - theirs) / np.linalg.norm(x), abs=1e-5)
    theirs = tensorly.cp_to_tensor(
        decomposition.parafac(tensorly.tensor(x), rank=3, n_iter_max=500, tol=1e-9, init="svd")
    )
    found = cp(x, 3, rng=np.random.default_rng(0))
    assert found.error <= np.linalg.norm(x - theirs) / np.linalg.norm(x) + 1e-5
