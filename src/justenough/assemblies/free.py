"""Bytes that are free, of the machine, its container and the process's own limit."""

import os
from contextlib import suppress
from pathlib import Path

from justenough.core.case_files import LIMITS, memory_bytes


def free_bytes() -> int:
    """Bytes that this process may still take: of the machine, its container and its own limit."""
    known = [memory_bytes()]
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        found = next(line for line in lines if line.startswith("MemAvailable"))
        known.append(1024 * int(found.split()[1]))
    for limit, used, idle in _CGROUPS:
        with suppress(OSError, ValueError, StopIteration):
            rows = Path(limit).with_name("memory.stat").read_text(encoding="utf-8").split()
            cache = int(rows[rows.index(idle) + 1])
            most, now = (int(Path(p).read_text(encoding="utf-8")) for p in (limit, used))
            known.append(most - now + cache)
    with suppress(ImportError, OSError, ValueError):
        import resource

        most = resource.getrlimit(resource.RLIMIT_AS)[0]
        pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0])
        if most != resource.RLIM_INFINITY:
            known.append(most - pages * os.sysconf("SC_PAGE_SIZE"))
    return max(0, min(known))


# Where a container's limit is, what it uses, and how much of that is cache that would be given up.
_CGROUPS = (
    (LIMITS[0], LIMITS[0].replace("max", "current"), "inactive_file"),
    (LIMITS[1], LIMITS[1].replace("limit", "usage"), "total_inactive_file"),
)
