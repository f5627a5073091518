"""Limits of this process's resources."""

from __future__ import annotations

import resource
from pathlib import Path


def limit(number: int, value: int, *, grace: int = 0) -> None:
    """Set a limit that can't be raised again; a lower one that holds already stays.

    Args:
        number: ``resource.RLIMIT_…``.
        value: the limit.
        grace: added to the hard limit: at the soft limit of processor time the kernel sends ``SIGXCPU``, at the hard
            one it kills.
    """
    _, hard = resource.getrlimit(number)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    highest = value + grace if hard == resource.RLIM_INFINITY else min(value + grace, hard)
    resource.setrlimit(number, (value, highest))


def limit_memory(memory_bytes: int) -> None:
    """Limit private and all other memory to so much more than is allocated now.

    ``RLIMIT_DATA`` counts private memory that can be written, ``RLIMIT_AS`` also shared memory and mapped files.
    """
    fields = Path("/proc/self/statm").read_text().split()
    page_bytes = resource.getpagesize()
    limit(resource.RLIMIT_DATA, int(fields[5]) * page_bytes + memory_bytes)
    limit(resource.RLIMIT_AS, int(fields[0]) * page_bytes + memory_bytes)
