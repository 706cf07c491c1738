"""This machine's processor: its name, and the vector instructions that int8 depends on."""

import platform
import re
from pathlib import Path

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
