"""Who runs: a name for this process that no other has, and from which others on its machine can tell that it has died.

A lease or a half-written file whose owner is certainly dead need not be waited for. Only Linux says enough to be
certain: the boot, the PID namespace, the PID and when it started. Anywhere else nobody is ever taken for dead, and time
decides.
"""

from __future__ import annotations

import os
import socket
import uuid
from pathlib import Path

UNKNOWN = "x"


def own_name() -> str:
    """A new name for this process: host, boot, PID namespace, PID, start time, and a number of its own."""
    pid = os.getpid()
    fields = (socket.gethostname(), _boot(), _pid_namespace(), str(pid), _started(pid) or UNKNOWN, uuid.uuid4().hex[:8])
    return "_".join(fields)


def is_dead(name: str) -> bool:
    """Whether the process of that name has ended for certain; ``False`` for names of other machines or containers."""
    fields = name.rsplit("_", 5)
    if len(fields) != len(("host", "boot", "namespace", "pid", "started", "number")):
        return False
    _, boot, namespace, pid, started, _ = fields
    if UNKNOWN in (boot, namespace, started) or (boot, namespace) != (_boot(), _pid_namespace()):
        return False
    return pid.isdecimal() and _started(int(pid)) != started


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")[:12]
    except OSError:
        return UNKNOWN


def _pid_namespace() -> str:
    try:
        return Path("/proc/self/ns/pid").readlink().name.strip("pid:[]") or UNKNOWN
    except OSError:
        return UNKNOWN


def _started(pid: int) -> str | None:
    """When a process started, in clock ticks since the boot; ``None`` where there is none, or it is a zombie."""
    try:
        state, *others = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in ("Z", "X") else others[18]
