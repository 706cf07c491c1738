"""Noise of local choices by gradients, against real files."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from test_gradient import CASES, Make, run
from test_gradient import nets as nets

from justenough.core.gate import Gate
from justenough.core.subject import Variant
from justenough.subjects import quantize
from justenough.subjects.gradient import site_noise
from justenough.subjects.local_choices import ROWS_COUPLED, local_choices
from justenough.subjects.onnx_model import find_sites
from justenough.subjects.sessions import session


@pytest.mark.parametrize("name", ["conv", "transformer", "tangled", "recurrent"])
def test_noise_of_local_choices_is_that_of_the_real_files(
    name: str, nets: Make, tmp_path: Path
) -> None:
    """Weight-only choices and 16 bits: all from one pass, each close to its real file."""
    model, inputs = nets(name), CASES[name][1](96, 3)[0]
    sites, gate = find_sites(model), Gate("y")
    open_here = {
        s: tuple(c.name for c in found if c.name not in ROWS_COUPLED)
        for s, found in local_choices(model, sites).items()
    }
    rng = np.random.default_rng(0)
    got = site_noise(model, sites, {}, inputs, gate, "y", choices=open_here, rng=rng)
    ref = run(model, inputs, tmp_path / "ref.onnx")
    ratios: dict[str, list[float]] = {}
    for site, choice in ((s, c) for s, found in open_here.items() for c in found):
        path = tmp_path / "local.onnx"
        variant = Variant.of({site: choice})
        quantize.write_variant(model, sites, variant, quantize.Ranges({"minmax": {}}), path)
        y = {"y": session(path).run(["y"], inputs)[0]}
        real = float(((gate.signed(ref, y) - gate.margin(ref)) ** 2).mean())
        ratios.setdefault(choice, []).append(got.local[choice][site] / max(real, 1e-20))
    assert set(ratios) == set(got.local) != set()
    for choice, found in ratios.items():
        assert 0.5 <= np.median(found) <= 2, (choice, found)
        # To first order: two bits of a small net are no small change.
        far = 5 if choice.startswith("int2") else 2.5
        assert all(1 / far <= r <= far for r in found), (choice, found)
