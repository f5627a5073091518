"""What a child gives up before it looks at a recording."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
from contextlib import suppress
from pathlib import Path

NOBODY = 65_534
_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_libc = ctypes.CDLL(None, use_errno=True)


def confine(cpu_s: int, memory_bytes: int) -> None:
    """Leaves this process its memory, its socket and so much of the processor; not to be undone.

    No descriptor can be opened any more, so no file, no socket and no pipe: FFmpeg may have holes, and what comes
    through one has nowhere to go. A superuser becomes nobody, who may not look at other processes either.

    Args:
        cpu_s: processor seconds after which the kernel ends the process (``SIGXCPU``).
        memory_bytes: memory on top of what is allocated now, the stacks of threads included (FFmpeg starts up to 16);
            beyond it, allocating fails.
    """
    allocated = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    if os.getuid() == 0:
        with suppress(OSError):  # a user namespace may have no such user
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # after the change of user, which clears it
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    for limit, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_DATA, allocated + memory_bytes),
        (resource.RLIMIT_NOFILE, 0),
    ):
        _, hard = resource.getrlimit(limit)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        # The kernel sends SIGXCPU at the soft limit and SIGKILL at the hard one.
        resource.setrlimit(limit, (value, value + 5 if limit == resource.RLIMIT_CPU else value))
