"""Claims on how far rounding moves numbers: SNR, digits, angstroms, kilocalories."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from justenough.formats.floats import FP16
from justenough.formats.format import Floats, Format
from justenough.formats.integers import IntFormat
from justenough.ledger import Measured

Draw = Callable[[np.random.Generator, int], NDArray[np.float64]]
SEEDS = 20
# Shapes of arrays, each with a typical magnitude of 1. The last spreads over four decades.
SHAPES: dict[str, Draw] = {
    "uniform": lambda rng, n: rng.uniform(-1, 1, n),
    "normal": lambda rng, n: rng.standard_normal(n),
    "lognormal": lambda rng, n: 10 ** (0.5 * rng.standard_normal(n)),
}


def fp16_snr() -> Measured:
    """SNR of rounding arrays to FP16, and the magnitude at which it would be 40 dB.

    Rule: "about 40 dB" is 37 to 43. Uniform, normal and lognormal arrays at magnitudes 0.01, 1 and
    100, 20 seeds each: all inside, reproduced; none, refuted; else it holds only for some.
    """
    found = [
        _snr(FP16, scale * draw(np.random.default_rng(seed), 20_000))
        for draw in SHAPES.values()
        for scale in (0.01, 1.0, 100.0)
        for seed in range(SEEDS)
    ]
    rng = np.random.default_rng(0)
    near = [
        10**k
        for k in np.arange(-8, 4, 0.05)
        if 37 <= _snr(FP16, 10**k * rng.standard_normal(20_000)) <= 43
    ]
    verdict = _inside(found, 37, 43, "the arrays are of some shapes and magnitudes")
    return Measured(
        float(np.median(found)), "dB", min(found), max(found), verdict,
        f"Three shapes at magnitudes 0.01, 1 and 100: {min(found):.1f} to {max(found):.1f} dB; "
        f"normal values give 37 to 43 dB at root mean squares from {min(near):.1e} to "
        f"{max(near):.1e}, where FP16 has lost most of its digits.",
    )  # fmt: skip


def _snr(form: Format, x: NDArray[np.float64]) -> float:
    """SNR against the float64 values; -infinity where something overflows."""
    rounded = form.round(x.astype(np.float32)).astype(np.float64)
    if not np.isfinite(rounded).all():
        return -math.inf
    return 10 * math.log10(float((x**2).sum() / ((rounded - x) ** 2).sum()))


def _inside(found: list[float], low: float, high: float, condition: str) -> str:
    inside = [low <= x <= high for x in found]
    if all(inside):
        return "reproduced"
    return f"holds only when {condition}" if any(inside) else "refuted"


# Kyte & Doolittle 1982, J Mol Biol 157, table 2, and average residue masses in Da, in the order
# ARNDCQEGHILKMFPSTWYV.
HYDROPATHY = (
    1.8, -4.5, -3.5, -3.5, 2.5, -3.5, -3.5, -0.4, -3.2, 4.5,
    3.8, -3.9, 1.9, 2.8, -1.6, -0.8, -0.7, -0.9, -1.3, 4.2,
)  # fmt: skip
MASS_DA = (
    71.0788, 156.1875, 114.1038, 115.0886, 103.1388, 128.1307, 129.1155, 57.0519, 137.1411,
    113.1594, 113.1594, 128.1741, 131.1926, 147.1766, 97.1167, 87.0782, 101.1051, 186.2132,
    163.1760, 99.1326,
)  # fmt: skip


def node_snr() -> Measured:
    """SNR of amino acid features in FP16: hydropathy and mass, raw and standardised.

    Rule: "42 dB" is 39 to 45 for all four, reproduced; for none, refuted; else only for some.
    """
    raw = {"hydropathy": np.array(HYDROPATHY), "mass": np.array(MASS_DA)}
    standard = {f"standardised {k}": (x - x.mean()) / x.std() for k, x in raw.items()}
    found = {k: _snr(FP16, x) for k, x in {**raw, **standard}.items()}
    values = list(found.values())
    verdict = _inside(values, 39, 45, "the feature is one of some")
    each = ", ".join(f"{k} {x:.1f} dB" for k, x in found.items())
    return Measured(
        float(np.median(values)), "dB", min(values), max(values), verdict,
        f"Twenty amino acids, each once: {each}; one-hot features are exact.",
    )  # fmt: skip


def fp32_digits() -> Measured:
    """Correct decimal digits of dot products of 256 terms, added one by one in FP32.

    Rule: "about 7" is a median that rounds to 7, for pairs with cosine 0.8 and for independent
    pairs; for the first alone, it holds only when terms do not cancel; else refuted.
    """
    return _digits(_dot_fp32, 7, 7, "FP32")


def int8_digits() -> Measured:
    """Correct digits of dot products of 256 terms whose vectors are INT8, each with its scale.

    Rule: "about 2-3" is a median that rounds to 2 or 3, for pairs with cosine 0.8 and for
    independent pairs; for the first alone, only when terms do not cancel; else refuted.
    """
    return _digits(_dot_int8, 2, 3, "INT8")


def _digits(
    dot: Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]],
    low: int,
    high: int,
    name: str,
) -> Measured:
    medians: dict[str, list[float]] = {"independent": [], "cosine 0.8": []}
    short = []
    for seed in range(SEEDS):
        u, w = np.random.default_rng(seed).standard_normal((2, 5000, 256))
        for kind, v in (("independent", w), ("cosine 0.8", 0.8 * u + 0.6 * w)):
            exact = (u * v).sum(axis=1)
            error = np.abs(dot(u, v) - exact) / np.abs(exact)
            digits = -np.log10(np.maximum(error, 1e-17))
            medians[kind].append(float(np.median(digits)))
            if kind == "independent":
                short.append(float((digits < low - 0.5).mean()))
    held = [all(low <= round(m) <= high for m in found) for found in medians.values()]
    verdict = "reproduced" if all(held) else "refuted"
    if not held[0] and held[1]:
        verdict = "holds only when the terms do not cancel, as for vectors that are alike"
    alike, apart = (float(np.median(medians[k])) for k in ("cosine 0.8", "independent"))
    every = medians["cosine 0.8"] + medians["independent"]
    return Measured(
        alike, "digits", min(every), max(every), verdict,
        f"{name}: median {alike:.2f} digits for pairs with cosine 0.8, {apart:.2f} for "
        f"independent ones, of which {np.mean(short):.1%} have fewer than {low - 0.5:g}.",
    )  # fmt: skip


def _dot_fp32(u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.float64]:
    a, b = u.astype(np.float32), v.astype(np.float32)
    total = np.zeros(len(a), np.float32)
    for k in range(a.shape[1]):
        total += a[:, k] * b[:, k]
    return total.astype(np.float64)


def _dot_int8(u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.float64]:
    form = IntFormat(8, axis=0)
    a, b = (form.round(x.astype(np.float32)).astype(np.float64) for x in (u, v))
    return np.asarray((a * b).sum(axis=1))


def worst_fp16_error(exponent: int) -> float:
    """Largest error of FP16 for numbers from 2**exponent to twice that, in their unit.

    Every midpoint of two neighbours is met, where the error is largest; numbers above the
    largest of FP16 are left out.
    """
    x = np.ldexp(np.linspace(1, 2, 2**13, endpoint=False), exponent).astype(np.float32)
    x = x[x <= FP16.largest]
    return float(np.abs(FP16.round(x).astype(np.float64) - x).max())


def coordinate_error() -> Measured:
    """Largest error of a coordinate in FP16 up to 128 angstrom, and where it is 0.001 angstrom.

    Rule: at most 0.001 up to 128 angstrom, reproduced; nowhere from 1 angstrom on, refuted; else
    only below the first power of two where it is more.
    """
    return _angstrom("a coordinate's magnitude")


def distance_error() -> Measured:
    """Largest error of a distance in FP16 up to 128 angstrom, and where it is 0.001 angstrom.

    Rule: as for coordinates; the 0.01 angstrom that the document needs are said beside it.
    """
    return _angstrom("the distance")


def _angstrom(what: str) -> Measured:
    worst = {2.0**e: worst_fp16_error(e) for e in range(7)}
    over = [start for start, error in worst.items() if error > 0.001]
    coarse = [start for start, error in worst.items() if error > 0.01]
    verdict = "reproduced"
    if over:
        condition = f"{what} is below {over[0]:g} angstrom"
        verdict = "refuted" if over[0] == 1 else f"holds only when {condition}"
    each = ", ".join(f"{error:.4f} from {start:g}" for start, error in worst.items())
    needed = f"0.01 angstrom is kept below {coarse[0]:g} angstrom" if coarse else "0.01 is kept"
    spacing = float(np.spacing(np.float32(1)))
    return Measured(
        worst[64.0], "angstrom", None, None, verdict,
        f"Largest error in angstrom by magnitude: {each}; {needed}. FP32 has steps of "
        f"{spacing:.1e} relative to a power of two.",
    )  # fmt: skip


def affinity_error() -> Measured:
    """Largest error of 256 levels over [-12, 0] kcal/mol.

    Rule: at most 0.024 with a symmetric and with an asymmetric int8 scale, reproduced; with the
    asymmetric one alone, only when all levels span the range; else refuted.
    """
    x = np.linspace(-12, 0, 120_001).astype(np.float32)

    def worst(form: IntFormat, rng: np.random.Generator | None = None) -> float:
        return float(np.abs(form.round(x, rng=rng).astype(np.float64) - x).max())

    whole, half = worst(IntFormat(8, symmetric=False)), worst(IntFormat(8))
    drawn = worst(IntFormat(8, symmetric=False), np.random.default_rng(0))
    verdict = "reproduced" if max(whole, half) <= 0.024 else "refuted"
    if whole <= 0.024 < half:
        verdict = "holds only when all 256 levels span the range and rounding is to nearest"
    return Measured(
        whole, "kcal/mol", None, None, verdict,
        f"Asymmetric to nearest {whole:.4f}; symmetric, which leaves the half of its levels above "
        f"0 unused, {half:.4f}; asymmetric and stochastic up to {drawn:.4f}.",
    )  # fmt: skip


def stochastic_accuracy() -> Measured:
    """Share of the decisions' accuracy that a network keeps under stochastic rounding.

    Random features and a fitted readout on four gaussian clouds; weights and activations are
    rounded as the document's code does, to whole numbers, and to the steps of FP16.

    Rule: 99.9 % of the accuracy kept, on average over 20 seeds, as written: reproduced; with the
    steps of FP16 alone: only then; else refuted.
    """
    kept = np.array([_kept(seed) for seed in range(SEEDS)])
    whole, fp16, activations = kept.mean(axis=0)
    verdict = "reproduced" if whole >= 0.999 else "refuted"
    if whole < 0.999 <= fp16:
        verdict = "holds only when it rounds to the steps of FP16, not as written to whole numbers"
    return Measured(
        100 * float(whole), "%", 100 * float(kept[:, 0].min()), 100 * float(kept[:, 0].max()),
        verdict,
        f"Accuracy kept: as written {whole:.2%} (of activations alone {activations:.2%}), to the "
        f"steps of FP16 {fp16:.3%}.",
    )  # fmt: skip


def _kept(seed: int) -> tuple[float, float, float]:
    """Accuracy kept as written, by FP16, and as written on activations alone."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((4, 64))
    labels = rng.integers(0, 4, 6000)
    x = centres[labels] + 1.5 * rng.standard_normal((6000, 64))
    first = rng.standard_normal((64, 256)) / 8
    hidden = np.maximum(x @ first, 0)
    train = slice(0, 3000)
    gram = hidden[train].T @ hidden[train] + np.eye(256)
    last = np.linalg.solve(gram, hidden[train].T @ np.eye(4)[labels[train]])

    def accuracy(weights: Callable[[Floats], Floats], values: Callable[[Floats], Floats]) -> float:
        a, b = (weights(w.astype(np.float32)) for w in (first, last))
        between = values(np.maximum(values(x[3000:].astype(np.float32)) @ a, 0))
        return float(((between @ b).argmax(axis=1) == labels[3000:]).mean())

    def whole(v: Floats) -> Floats:
        low = np.floor(v)
        return low + (rng.random(v.shape, np.float32) < v - low).astype(np.float32)

    exact = accuracy(lambda v: v, lambda v: v)
    fp16 = accuracy(lambda v: FP16.round(v, rng=rng), lambda v: FP16.round(v, rng=rng))
    return accuracy(whole, whole) / exact, fp16 / exact, accuracy(lambda v: v, whole) / exact
