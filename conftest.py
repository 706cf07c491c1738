"""Leaves out the modules that need PyTorch or OpenVINO where it is not installed, and says so."""

import importlib.util
import signal
from collections.abc import Callable
from typing import Any

import pytest

# In the background of a script Ctrl-C is ignored, and processes of tests would inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

TORCH = importlib.util.find_spec("torch") is not None
NEED_TORCH = [
    "src/justenough/studies/nodules/network.py",
    "src/justenough/studies/nodules/train.py",
    "src/justenough/subjects/gradient.py",
    "src/justenough/subjects/gradient_weights.py",
    "src/justenough/subjects/torch_graph.py",
    "src/justenough/train/augment.py",
    "src/justenough/train/classify.py",
    "src/justenough/train/convert.py",
    "src/justenough/train/course.py",
    "src/justenough/train/importance_nets.py",
    "src/justenough/train/networks.py",
    "src/justenough/train/release.py",
    "src/justenough/train/side_by_side.py",
    "src/justenough/studies/skin/model.py",
    "src/justenough/studies/skin/train.py",
    "src/justenough/studies/xray/model.py",
    "src/justenough/studies/xray/train.py",
]
OPENVINO = importlib.util.find_spec("openvino") is not None
NEED_OPENVINO = [
    "src/justenough/subjects/openvino_session.py",
    "src/justenough/subjects/openvino_variants.py",
]
NEED_NUMBA = ["src/justenough/formats/fast.py"]
NUMBA = importlib.util.find_spec("numba") is not None
collect_ignore = [
    *([] if TORCH else NEED_TORCH),
    *([] if OPENVINO else NEED_OPENVINO),
    *([] if NUMBA else NEED_NUMBA),
]


def pytest_report_header() -> str:
    """Say at the top what is missing."""
    said = [] if TORCH else ["PyTorch is not installed: sensitivity by gradients is not tested"]
    said += [] if OPENVINO else ["OpenVINO is not installed: its variants are not tested"]
    return "; ".join(said)


@pytest.fixture(params=["cpu", "cuda"])
def tensor(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    """Puts an array on a device of PyTorch; a device that is missing is skipped."""
    torch = pytest.importorskip("torch")
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device is here")
    return lambda array: torch.from_numpy(array).to(request.param)
