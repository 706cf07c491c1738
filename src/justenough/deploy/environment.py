"""What a certificate and a timing depend on: runtime, processor, threads."""

import os
import platform
import re
from pathlib import Path
from typing import Any

import onnxruntime as ort

_VECTOR = re.compile(r"(avx|amx|fma|f16c|sse4|ssse3|vnni|asimd|sve|bf16|i8mm|neon|fphp)")


def cpu_flags() -> list[str]:
    """Vector instructions of this processor, sorted; int8 results differ between them."""
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return []
    found = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", info.read_text(), re.MULTILINE)
    return sorted({f for f in (found[1].split() if found else []) if _VECTOR.search(f)})


def processor() -> str:
    """Name of this processor."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.is_file() else ""
    found = re.search(r"^model name\s*:\s*(.*)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()


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
