"""Latent factors of a tensor: Tucker, CP, and how many factors the data support.

Errors come from norms and the small core, never from a residual of the tensor's own size. A
difference of squared norms loses digits: relative errors below about 1e-7 are rounding.
"""

import itertools
import math
import string
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from justenough.errors import InputError
from justenough.stats.checks import all_finite, checked_count, numbers

_Array = NDArray[np.float64]


@dataclass(frozen=True)
class Tucker:
    """core x_1 factors[0] x_2 factors[1] ..., with orthonormal factors.

    Attributes:
        core: Shape (r_1, ..., r_d).
        factors: One of shape (n_j, r_j) for each mode.
        error: Norm of the residual over the norm of the tensor.
    """

    core: _Array
    factors: tuple[_Array, ...]
    error: float


@dataclass(frozen=True)
class CP:
    """Sum over components r of weights[r] times the outer product of the factors' columns r.

    Attributes:
        weights: Norms of the components, largest first, shape (rank,).
        factors: One of shape (n_j, rank) for each mode, columns of norm 1.
        error: Norm of the residual over the norm of the tensor.
    """

    weights: _Array
    factors: tuple[_Array, ...]
    error: float

    @property
    def explained(self) -> float:
        """Share of the sum of squares that is explained."""
        return 1.0 - self.error**2


@dataclass(frozen=True)
class Support:
    """What each number of factors explains, and whether the data bear it.

    Attributes:
        ranks: Ranks tried, 1, 2, ...
        explained: Share of the sum of squares explained by CP of each rank.
        consistency: Core consistency of each, in percent.
        gain: Share of what the rank before left over that each rank explains.
        noise: Largest share that one component explained of several tensors of noise.
        rank: The largest rank up to which every consistency reached the limit and every gain was
            above `noise`; 0 if none did.
    """

    ranks: tuple[int, ...]
    explained: tuple[float, ...]
    consistency: tuple[float, ...]
    gain: tuple[float, ...]
    noise: float
    rank: int


def st_hosvd(tensor: ArrayLike, ranks: tuple[int, ...]) -> Tucker:
    """Return the sequentially truncated higher-order SVD.

    Vannieuwenhoven, Vandebril & Meerbergen 2012 (SIAM J. Sci. Comput. 34(2)), algorithm 1: each
    mode is truncated in turn, so that the next works on a smaller tensor. Short modes go first
    (their section 6.4), and each basis comes from the Gram matrix of the smaller side. The
    error is at most sqrt(d) times the smallest possible one (their theorem 6.5).

    Args:
        tensor: Shape (n_1, ..., n_d), d >= 2.
        ranks: r_j of each mode, 1 <= r_j <= n_j.

    Raises:
        InputError: If the tensor is not finite or all 0, or ranks do not fit it.

    >>> x = np.einsum("i,j,k->ijk", [1.0, 2.0], [1.0, 0.0, 1.0], [3.0, 1.0])
    >>> st_hosvd(x, (1, 1, 1)).error < 1e-7
    True
    """
    x = _checked(tensor)
    _checked_ranks(x, ranks)
    factors: list[_Array] = [np.empty((0, 0))] * x.ndim
    core = x
    for mode in sorted(range(x.ndim), key=lambda j: x.shape[j]):
        factors[mode] = _basis(_unfold(core, mode), ranks[mode])
        core = _times(core, factors[mode].T, mode)
    return Tucker(core, tuple(factors), _tucker_error(x, core))


def hooi(
    tensor: ArrayLike, ranks: tuple[int, ...], *, sweeps: int = 100, tolerance: float = 1e-8
) -> Tucker:
    """Return the Tucker decomposition by higher-order orthogonal iteration, from ST-HOSVD.

    De Lathauwer, De Moor & Vandewalle 2000 (SIAM J. Matrix Anal. Appl. 21(4)): each factor in
    turn is the leading left singular vectors of the tensor projected on all the others, until
    the error falls by less than `tolerance` in a sweep.

    Args:
        tensor: Shape (n_1, ..., n_d), d >= 2.
        ranks: r_j of each mode.
        sweeps: At most so many.
        tolerance: Fall in relative error at which it stops.

    Raises:
        InputError: As `st_hosvd`, or for sweeps below 1.

    >>> x = np.random.default_rng(0).random((6, 5, 4))
    >>> hooi(x, (2, 2, 2)).error <= st_hosvd(x, (2, 2, 2)).error
    True
    """
    checked_count("sweeps", sweeps, 1)
    x = _checked(tensor)
    found = st_hosvd(x, ranks)
    factors, core, error = list(found.factors), found.core, found.error
    for _ in range(sweeps):
        for mode in range(x.ndim):
            small = _project(x, factors, mode)
            factors[mode] = _basis(_unfold(small, mode), ranks[mode])
        core = _times(small, factors[-1].T, x.ndim - 1)
        before, error = error, _tucker_error(x, core)
        if before - error < tolerance:
            break
    return Tucker(core, tuple(factors), error)


def cp(
    tensor: ArrayLike,
    rank: int,
    *,
    rng: np.random.Generator,
    starts: int = 10,
    sweeps: int = 500,
    tolerance: float = 1e-8,
) -> CP:
    """Return the CP (PARAFAC) decomposition by alternating least squares on a compressed core.

    The tensor is compressed by ST-HOSVD to rank + 2 in each mode (Bro & Andersson 1998,
    Chemometr. Intell. Lab. Syst. 42), all starts run side by side on that core, one from its
    leading singular vectors and the others random, and the best goes on at full size until a
    sweep gains less than `tolerance`.

    Args:
        tensor: Shape (n_1, ..., n_d), d >= 3; for matrices CP is not unique.
        rank: Number of components, >= 1.
        rng: Source of randomness.
        starts: Number of starts, >= 1.
        sweeps: At most so many on the core, and again at full size.
        tolerance: Fall in relative error at which it stops.

    Raises:
        InputError: If the tensor is not finite, all 0, or has fewer than 3 modes, or rank, starts
            or sweeps are below 1.

    >>> rng = np.random.default_rng(0)
    >>> a, b, c = rng.random((8, 2)), rng.random((7, 2)), rng.random((6, 2))
    >>> cp(np.einsum("ir,jr,kr->ijk", a, b, c), 2, rng=rng).error < 1e-3
    True
    """
    x = _checked(tensor)
    if x.ndim < 3:
        raise InputError(
            f"the tensor has {x.ndim} modes; CP is unique for 3 or more, use st_hosvd"
        )
    for name, value in (("rank", rank), ("starts", starts), ("sweeps", sweeps)):
        checked_count(name, value, 1)
    small = st_hosvd(x, tuple(min(n, rank + 2) for n in x.shape))
    first = [_start(n, rank, starts, rng) for n in small.core.shape]
    # one stage from all starts on the core, one from the best of them on the tensor itself
    factors, errors = _als(small.core, first, sweeps, tolerance)
    best = int(errors.argmin())
    whole = [u @ f[best] for u, f in zip(small.factors, factors, strict=True)]
    factors, errors = _als(x, [f[None] for f in whole], sweeps, tolerance)
    return _normalised([f[0] for f in factors], float(errors[0]))


def core_consistency(tensor: ArrayLike, found: CP) -> float:
    """Return the core consistency in percent (CORCONDIA, Bro & Kiers 2003, J. Chemometr. 17).

    The least-squares Tucker core for the factors of a CP model is compared with the superdiagonal
    of ones that the model claims: 100 (1 - sum of squared differences / rank). Near 100: every
    factor is at work in one component only. Near 0 or below: the components mix, so there are too
    many.

    Args:
        tensor: Shape (n_1, ..., n_d).
        found: Its CP decomposition.

    Raises:
        InputError: If shapes do not fit.

    >>> rng = np.random.default_rng(0)
    >>> x = np.einsum("ir,jr,kr->ijk", *(rng.random((9, 2)) for _ in range(3)))
    >>> core_consistency(x, cp(x, 2, rng=rng)) > 99
    True
    """
    x = _checked(tensor)
    shape = tuple(len(f) for f in found.factors)
    if shape != x.shape:
        raise InputError(f"the model has shape {shape}, the tensor {x.shape}; they must agree")
    core = x
    rank = len(found.weights)
    for mode, factor in enumerate(found.factors):
        scaled = factor * found.weights if mode == 0 else factor
        core = _times(core, np.asarray(np.linalg.pinv(scaled), np.float64), mode)
    ideal = np.zeros_like(core)
    ideal[(np.arange(rank),) * x.ndim] = 1.0
    return float(100.0 * (1.0 - ((core - ideal) ** 2).sum() / rank))


def supported_rank(
    tensor: ArrayLike,
    largest: int = 5,
    *,
    rng: np.random.Generator,
    limit: float = 80.0,
    noise_fits: int = 19,
) -> Support:
    """Return what CP of each rank explains and which rank the data support.

    Core consistency alone passes a component that fits noise apart from the others, so each
    component must also explain more of what was left over than one component explains of a tensor
    of independent normal noise (parallel analysis, Horn 1965, Psychometrika 30). With 19 such
    tensors a component of noise passes about once in 20.

    Args:
        tensor: Shape (n_1, ..., n_d), d >= 3.
        largest: Ranks 1 to this are tried.
        rng: Source of randomness.
        limit: Least core consistency in percent. Bro & Kiers give no number; they call values
            near 100 appropriate and values near 50 problematic.
        noise_fits: Number of tensors of noise, >= 1.

    Raises:
        InputError: As `cp`, or for largest or noise_fits below 1.

    >>> rng = np.random.default_rng(1)
    >>> x = np.einsum("ir,jr,kr->ijk", *(rng.standard_normal((9, 2)) for _ in range(3)))
    >>> x += 0.1 * rng.standard_normal(x.shape)
    >>> supported_rank(x, 3, rng=rng).rank
    2
    """
    for name, value in (("largest", largest), ("noise_fits", noise_fits)):
        checked_count(name, value, 1)
    x = _checked(tensor)
    ranks = tuple(range(1, largest + 1))
    fits = [cp(x, rank, rng=rng) for rank in ranks]
    explained = tuple(fit.explained for fit in fits)
    consistency = tuple(core_consistency(x, fit) for fit in fits)
    left = [1.0, *(1.0 - e for e in explained)]
    gain = tuple(1.0 - after / max(before, 1e-14) for before, after in itertools.pairwise(left))
    noise = max(
        cp(rng.standard_normal(x.shape), 1, rng=rng, starts=3, tolerance=1e-5).explained
        for _ in range(noise_fits)
    )
    borne = [c >= limit and g > noise for c, g in zip(consistency, gain, strict=True)]
    rank = borne.index(False) if False in borne else largest
    return Support(ranks, explained, consistency, gain, noise, rank)


def _checked(tensor: ArrayLike) -> _Array:
    x = numbers("tensor", tensor)
    if x.ndim < 2 or x.ndim > 12 or x.size == 0:
        raise InputError(f"the tensor has shape {x.shape}; it must have 2 to 12 modes, none of 0")
    if not all_finite("tensor", x).any():
        raise InputError("every value of the tensor is 0; there is nothing to decompose")
    return x


def _checked_ranks(x: _Array, ranks: tuple[int, ...]) -> None:
    fits = len(ranks) == x.ndim and all(1 <= r <= n for r, n in zip(ranks, x.shape, strict=False))
    if not fits:
        raise InputError(f"ranks are {ranks} for shape {x.shape}; give 1 to n for each mode")


def _unfold(x: _Array, mode: int) -> _Array:
    return np.moveaxis(x, mode, 0).reshape(x.shape[mode], -1)


def _times(x: _Array, matrix: _Array, mode: int) -> _Array:
    """Mode product: (m, n_mode) times the tensor along that mode."""
    return np.moveaxis(np.tensordot(matrix, x, (1, mode)), 0, mode)


def _project(x: _Array, factors: list[_Array], but: int) -> _Array:
    """The tensor on the factors of all modes but one, the mode that shrinks most first."""
    others = [j for j in range(x.ndim) if j != but]
    for mode in sorted(others, key=lambda j: factors[j].shape[1] / x.shape[j]):
        x = _times(x, factors[mode].T, mode)
    return x


def _basis(flat: _Array, rank: int) -> _Array:
    """Leading left singular vectors, by the Gram matrix of the smaller side."""
    rows, columns = flat.shape
    if rows <= columns:
        return np.linalg.eigh(flat @ flat.T)[1][:, : -rank - 1 : -1]
    right = np.linalg.eigh(flat.T @ flat)[1][:, ::-1]
    # orthonormal whatever the rank of the data; columns beyond it complete the basis
    q, r = np.linalg.qr(flat @ right[:, : min(rank, columns)])
    if rank <= columns:
        return q * np.where(np.diag(r) < 0.0, -1.0, 1.0)
    return np.linalg.svd(flat, full_matrices=True)[0][:, :rank]


def _tucker_error(x: _Array, core: _Array) -> float:
    whole = float(np.vdot(x, x))
    return math.sqrt(max(0.0, whole - float(np.vdot(core, core))) / whole)


def _start(n: int, rank: int, starts: int, rng: np.random.Generator) -> _Array:
    """Factors (starts, n, rank), random but for the first start.

    That has the leading singular vectors, as far as there are any: unit vectors on the core of
    ST-HOSVD.
    """
    out = rng.standard_normal((starts, n, rank))
    leading = min(n, rank)
    out[0, :, :leading] = np.eye(n)[:, :leading]
    return out


def _als(
    x: _Array, factors: list[_Array], sweeps: int, tolerance: float
) -> tuple[list[_Array], _Array]:
    """Alternating least squares from several starts at once; factors (starts, n_j, rank).

    Returns the factors and the relative error of each start.
    """
    whole = float(np.vdot(x, x))
    factors = list(factors)
    error = np.full(len(factors[0]), np.inf)
    grams = [np.swapaxes(f, 1, 2) @ f for f in factors]
    for _ in range(sweeps):
        for mode in range(x.ndim):
            along = _along(x, factors, mode)
            gram = np.prod([g for j, g in enumerate(grams) if j != mode], axis=0)
            factors[mode] = along @ np.linalg.pinv(gram, hermitian=True)
            grams[mode] = np.swapaxes(factors[mode], 1, 2) @ factors[mode]
        # <x, model> is <along, last factor>, and the squared norm of the model a sum of grams
        inner = (along * factors[-1]).sum(axis=(1, 2))
        norm = np.prod(grams, axis=0).sum(axis=(1, 2))
        before, error = error, np.sqrt(np.maximum(0.0, whole - 2.0 * inner + norm) / whole)
        if (before - error).max() < tolerance:
            break
        _even(factors, grams)
    return factors, error


def _even(factors: list[_Array], grams: list[_Array]) -> None:
    """Give every mode the same norm in each component, so that none runs off."""
    norms = np.array([np.linalg.norm(f, axis=1) for f in factors])
    norms = np.maximum(norms, 1e-150)
    target = np.exp(np.log(norms).mean(axis=0))
    for mode, f in enumerate(factors):
        factors[mode] = f * (target / norms[mode])[:, None, :]
        grams[mode] = np.swapaxes(factors[mode], 1, 2) @ factors[mode]


def _along(x: _Array, factors: list[_Array], mode: int) -> _Array:
    """The tensor times the factors of all modes but one, (starts, n_mode, rank) (MTTKRP)."""
    starts, _, rank = factors[0].shape
    others = [j for j in range(x.ndim) if j != mode]
    # the largest of the others is summed over by one matrix product for all starts, the rest
    # on what that leaves
    first = max(others, key=lambda j: x.shape[j])
    wide = np.moveaxis(factors[first], 1, 0).reshape(x.shape[first], starts * rank)
    left = np.tensordot(x, wide, (first, 0)).reshape(
        *(n for j, n in enumerate(x.shape) if j != first), starts, rank
    )
    letters = string.ascii_lowercase
    rest = [j for j in others if j != first]
    kept = "".join(letters[j] for j in range(x.ndim) if j != first)
    for j in sorted(rest, key=lambda j: -x.shape[j]):
        after = kept.replace(letters[j], "")
        left = np.einsum(f"{kept}yz,y{letters[j]}z->{after}yz", left, factors[j])
        kept = after
    return np.moveaxis(left, 0, 1)


def _normalised(factors: list[_Array], error: float) -> CP:
    norms = np.array([np.linalg.norm(f, axis=0) for f in factors])
    weights = norms.prod(axis=0)
    order = np.argsort(-weights)
    unit = [f / np.where(n > 0.0, n, 1.0) for f, n in zip(factors, norms, strict=True)]
    return CP(weights[order], tuple(f[:, order] for f in unit), error)
