"""ncnn through Vulkan on lavapipe, Mesa's driver that computes on the processor.

Only answers are judged: the time of a processor that plays a graphics card says nothing.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from justenough.errors import InputError
from justenough.studies.nodules import contours, render
from justenough.studies.nodules.study import MODEL
from justenough.subjects import ncnn_session
from justenough.subjects.ncnn_convert import convert
from justenough.subjects.ncnn_session import answers_apart, vulkan_devices
from justenough.subjects.sessions import session

pytest.importorskip("ncnn", reason="needs the vulkan extra")
pytest.importorskip("pnnx", reason="needs the vulkan extra")

Array = NDArray[Any]
ROWS = 60
FOLDERS = ("/usr/share", "/usr/local/share", "/etc")
DRIVERS = [p for f in FOLDERS for p in sorted(Path(f, "vulkan/icd.d").glob("lvp_icd*.json"))]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not DRIVERS, reason="no lavapipe; apt-get install mesa-vulkan-drivers libvulkan1"
    ),
]


@pytest.fixture(autouse=True)
def lavapipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that the test starts see lavapipe and no other driver."""
    for name in ("VK_DRIVER_FILES", "VK_ICD_FILENAMES"):  # new and old name of one setting
        monkeypatch.setenv(name, str(DRIVERS[0]))
    ncnn_session._probed.cache_clear()


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert(MODEL, tmp_path_factory.mktemp("ncnn"))


@pytest.fixture(scope="module")
def views() -> Array:
    drawn: Array = render.render(contours.read().take(0, ROWS))[0]
    return drawn


def snr_db(exact: Array, got: Array) -> float:
    return float(10 * np.log10(np.sum(exact**2) / np.sum((exact - got) ** 2)))


def test_the_device_is_found_and_named() -> None:
    (name,) = vulkan_devices()
    assert "llvmpipe" in name


def test_float32_gives_the_answers_of_onnx_runtime(network: Path, views: Array) -> None:
    exact = session(MODEL).run(None, {"views": views})
    got = answers_apart(network, {"views": views}, device="vulkan")
    assert list(got) == ["malignancy", "sphericity"]
    for e, g in zip(exact, got.values(), strict=True):
        assert snr_db(e, g) > 100
        np.testing.assert_array_equal(e > 0, g > 0)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_narrow_arithmetic_is_narrow_and_near(network: Path, views: Array, precision: str) -> None:
    exact = session(MODEL).run(None, {"views": views})
    got = answers_apart(network, {"views": views}, precision=precision, device="vulkan")
    for e, g in zip(exact, got.values(), strict=True):
        assert 30 < snr_db(e, g) < 90


SAYS = """
import sys
from pathlib import Path
from justenough.subjects.ncnn_session import open_ncnn
for precision in ("fp32", "fp16"):
    live = open_ncnn(Path(sys.argv[1]), precision=precision, device="vulkan")
    print(live.device, live.net.vulkan_device() is not None, len(live.in_force), sep="|")
"""


def test_a_session_says_where_it_runs_and_ends_well(network: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", SAYS, str(network)],
        capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    exact, narrow = (line.split("|") for line in ended.stdout.splitlines())
    assert exact == [*vulkan_devices(), "True", "0"]
    assert narrow[:2] == exact[:2]
    assert int(narrow[2]) > 0


def test_without_the_driver_nothing_falls_back_in_silence(
    network: Path, views: Array, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("VK_DRIVER_FILES", "VK_ICD_FILENAMES"):
        monkeypatch.setenv(name, str(tmp_path / "none.json"))
    with pytest.raises(InputError, match="no Vulkan device is found"):
        answers_apart(network, {"views": views}, device="vulkan")
