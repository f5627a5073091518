"""Resource limits of this process."""

from __future__ import annotations

import resource
from pathlib import Path


def limit(number: int, value: int, *, grace: int = 0) -> None:
    """Set a limit that can't be raised again; a lower existing limit stays.

    Args:
        number: ``resource.RLIMIT_…``.
        value: soft limit, in the resource's unit.
        grace: difference between hard and soft limit. At the soft limit of processor time the kernel sends
            ``SIGXCPU``; at the hard one it kills the process.
    """
    _, hard = resource.getrlimit(number)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    highest = value + grace if hard == resource.RLIM_INFINITY else min(value + grace, hard)
    resource.setrlimit(number, (value, highest))


def limit_memory(memory_bytes: int) -> None:
    """Limit memory to the amount allocated now plus ``memory_bytes``.

    ``RLIMIT_DATA`` counts private writable memory; ``RLIMIT_AS`` also counts shared memory and mapped files.
    """
    fields = Path("/proc/self/statm").read_text().split()
    page_bytes = resource.getpagesize()
    limit(resource.RLIMIT_DATA, int(fields[5]) * page_bytes + memory_bytes)
    limit(resource.RLIMIT_AS, int(fields[0]) * page_bytes + memory_bytes)
