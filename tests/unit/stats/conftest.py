"""Tensors on every device that is here."""

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture(params=["cpu", "cuda"])
def tensor(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    """Puts an array on a device of PyTorch; a device that is missing is skipped."""
    torch = pytest.importorskip("torch")
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device is here")
    return lambda array: torch.from_numpy(array).to(request.param)
