"""This machine: its processor, the vector instructions that int8 depends on, what is installed."""

import os
import platform
import re
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

_VECTOR = re.compile(r"(avx|amx|fma|f16c|sse4|ssse3|vnni|asimd|sve|bf16|i8mm|neon|fphp)")


def cpu_flags() -> list[str]:
    """Vector instructions of this processor, sorted; int8 results differ between them."""
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return []
    found = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", info.read_text(), re.MULTILINE)
    return sorted({f for f in (found[1].split() if found else []) if _VECTOR.search(f)})


def adds_in_16_bits() -> bool:
    """Whether int8 products are added in pairs in 16 bits, where two large ones do not fit.

    So x86 does it (`vpmaddubsw`) before VNNI: 255 * 127 twice is cut off at 32,767, and nothing
    says so.
    """
    flags = cpu_flags()
    exact = any("vnni" in f or "amx_int8" in f for f in flags)
    return platform.machine().lower() in ("x86_64", "amd64") and not exact


def processor() -> str:
    """Name of this processor."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.is_file() else ""
    found = re.search(r"^model name\s*:\s*(.*)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()


def machine() -> dict[str, object]:
    """Where a run was made; nothing that numbers depend on beyond rounding."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def versions(libraries: Iterable[str]) -> dict[str, str]:
    """Versions of justenough and of the `libraries`, those installed."""
    found = {}
    for name in ("justenough", *libraries):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
