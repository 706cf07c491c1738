"""What a certificate and a timing depend on: runtime, processor, threads."""

import os
import platform
from typing import Any

import onnxruntime as ort

from justenough.subjects.processor import cpu_flags, processor


def runtime(*, threads: int, batch: int) -> dict[str, Any]:
    """The runtime that a certificate is bound to."""
    return {
        "name": "onnxruntime",
        "version": ort.__version__,
        "provider": "CPUExecutionProvider",
        "processor": processor(),
        "cpu_flags": cpu_flags(),
        "threads": threads,
        "batch": batch,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
