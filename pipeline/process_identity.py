"""Unique names for processes, from which other processes on the machine can tell that one has ended.

Nobody need wait for a lease or a half-written file whose owner has certainly ended. Only Linux gives enough facts to be
certain: the boot, the PID namespace, the PID and its start time. Elsewhere no process ever counts as ended, and the
lease must expire.
"""

from __future__ import annotations

import os
import socket
import uuid
from pathlib import Path

UNKNOWN = "x"


def own_name() -> str:
    """Return a new name for this process: host, boot, PID namespace, PID, start time, and a random number."""
    pid = os.getpid()
    fields = (socket.gethostname(), _boot(), _pid_namespace(), str(pid), _started(pid) or UNKNOWN, uuid.uuid4().hex[:8])
    return "_".join(fields)


def is_dead(name: str) -> bool:
    """Return whether the named process has certainly ended; ``False`` for names of other machines or containers."""
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
    """Return the start time of a process, in clock ticks since the boot, or ``None`` if it has ended or is a zombie."""
    try:
        state, *others = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in ("Z", "X") else others[18]
