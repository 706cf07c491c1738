"""Leaves out the modules that need PyTorch where it is not installed, and says so."""

import importlib.util

TORCH = importlib.util.find_spec("torch") is not None
NEED_TORCH = [
    "src/justenough/studies/nodules/network.py",
    "src/justenough/studies/nodules/train.py",
    "src/justenough/subjects/gradient.py",
    "src/justenough/subjects/torch_graph.py",
]
collect_ignore = [] if TORCH else NEED_TORCH


def pytest_report_header() -> str:
    """Say at the top what is missing."""
    return "" if TORCH else "PyTorch is not installed: sensitivity by gradients is not tested"
