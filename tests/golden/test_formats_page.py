"""The table of docs/formats.md is what the formats do."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm

from justenough.formats.adaptive import AdaptiveFormat
from justenough.formats.blocks import (
    MXFP4,
    MXFP6_E2M3,
    MXFP6_E3M2,
    MXFP8_E4M3,
    MXFP8_E5M2,
    NVFP4,
    BlockFormat,
)
from justenough.formats.floats import (
    BF16,
    FP4_E2M1,
    FP6_E2M3,
    FP6_E3M2,
    FP8_E4M3,
    FP8_E5M2,
    FP16,
    FloatFormat,
)
from justenough.formats.integers import IntFormat
from justenough.formats.logarithmic import ADD_ERROR, LNS8, LNS16, SUBTRACT_ERROR, LogFormat
from justenough.formats.snr import snr_db

PAGE = Path(__file__).parents[2] / "docs" / "formats.md"
RESULTS = Path(__file__).parents[2] / "benchmarks" / "formats.json"
ROWS, COLUMNS = 256, 4096


def gaussian() -> NDArray[np.float32]:
    """Standard gaussian values from raw PCG64 numbers, which NumPy keeps the same."""
    raw = np.random.PCG64(0).random_raw(ROWS * COLUMNS)
    share = ((raw >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    values: NDArray[np.float32] = norm.ppf(share).astype(np.float32)
    return values.reshape(ROWS, COLUMNS)


# Name in the table, format, how `largest` reads where it follows the data.
FORMATS: list[tuple[str, Any, str]] = [
    *((f.name, f, "") for f in (FP16, BF16, FP8_E4M3, FP8_E5M2, FP6_E3M2, FP6_E2M3, FP4_E2M1)),
    *((f"{f.name} ({f.integer_bits}.{f.fraction_bits})", f, "") for f in (LNS16, LNS8)),
    *((f"int{b}, tensor", IntFormat(b), "max of the tensor") for b in (8, 4, 2)),
    *((f"int{b}, rows", IntFormat(b, axis=0), "max of the row") for b in (8, 4, 2)),
    *((f"int{b}, block 32", IntFormat(b, block=32), "max of the block") for b in (8, 4, 2)),
    *(
        (f"uint{b}, block 32", IntFormat(b, block=32, symmetric=False), "range of the block")
        for b in (4, 2)
    ),
    *((f.name, f, "as float32") for f in (MXFP8_E4M3, MXFP8_E5M2, MXFP6_E3M2, MXFP6_E2M3, MXFP4)),
    ("nvfp4", NVFP4, "max of the tensor"),
    ("1 % bf16, rest int4", AdaptiveFormat(BF16, IntFormat(4), share=0.01), "as bf16"),
]


def number(value: float) -> str:
    exponent = int(np.floor(np.log2(value)))
    power = f"2^{exponent}"
    return power if value == 2.0**exponent else f"{value:.5g}"


def ends(form: Any, largest: str) -> list[str]:
    """Largest, smallest normal and smallest positive number as the table says them."""
    if isinstance(form, FloatFormat):
        return [number(form.largest), number(form.smallest_normal), number(form.smallest)]
    if isinstance(form, LogFormat):
        return [number(form.largest), "none", number(form.smallest)]
    if isinstance(form, BlockFormat):
        e = form.element
        return [largest, f"{number(e.smallest_normal)} scale", f"{number(e.smallest)} scale"]
    if isinstance(form, AdaptiveFormat):
        return [largest, "as bf16", "as int4"]
    return [largest, "none", "scale"]


def table() -> list[str]:
    """Rows of the page's table of formats, which has seven columns."""
    rows = [r for r in PAGE.read_text("utf8").splitlines() if r.startswith("| ")]
    return [r for r in rows if r.count("|") == 8][1:]


@pytest.fixture(scope="module")
def x() -> NDArray[np.float32]:
    return gaussian()


@pytest.mark.parametrize(("name", "form", "largest"), FORMATS, ids=[f[0] for f in FORMATS])
def test_row(name: str, form: Any, largest: str, x: NDArray[np.float32]) -> None:
    """All cells but the SNR to the letter; the SNR within 0.06 dB, for it is rounded to 0.1."""
    found = [r for r in table() if r.startswith(f"| {name} |")]
    snr = snr_db(x, form.round(x))
    stored = form.bytes_of(x.shape) / x.size
    cells = [name, str(form.bits), *ends(form, largest), f"{snr:.1f}", f"{stored:.4f}"]
    wanted = f"| {' | '.join(cells)} |"
    assert len(found) == 1, wanted
    said = [c.strip() for c in found[0].strip("|").split("|")]
    assert said[:5] + said[6:] == cells[:5] + cells[6:], wanted
    assert abs(float(said[5]) - snr) <= 0.06, wanted


def test_no_row_is_left_over() -> None:
    assert len(table()) == len(FORMATS)


def test_errors_of_adding_are_those_of_the_page() -> None:
    text = PAGE.read_text("utf8")
    assert f"{ADD_ERROR:.4f}" in text
    assert f"{SUBTRACT_ERROR:.4f}" in text


def test_ratios_are_those_of_the_last_run() -> None:
    results = json.loads(RESULTS.read_text("utf8"))
    one, two = (r["rows"] for r in results["formats"])
    text = PAGE.read_text("utf8")
    assert f"NumPy {results['machine']['numpy']}, Numba {results['machine']['numba']}" in text
    for side in one:
        name, _, route = side.partition("|")
        if route == "fast":
            plain = one[f"{name}|plain"]["of_copy"]
            cells = (
                one[side]["of_copy"], one[side]["of_copy_cpu"], two[side]["of_copy"], plain,
            )  # fmt: skip
            assert f"| {name} | {' | '.join(f'{100 * c:.0f} %' for c in cells)} |" in text
    casts = one["fp16|numpy casts"]["of_copy"]
    assert f"casts to float16 and back reach {100 * casts:.0f} %" in text
