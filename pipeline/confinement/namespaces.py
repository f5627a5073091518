"""Namespaces of its own for this process: users, network and IPC."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from contextlib import suppress

from pipeline.confinement.syscalls import call

NOBODY = 65_534

_NEW_USER, _NEW_NET, _NEW_IPC = 0x1000_0000, 0x4000_0000, 0x0800_0000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_INTERFACE = struct.Struct("16sh14x")


def become_nobody() -> None:
    """Give up a superuser's user and groups; a user namespace may have no such user."""
    if os.getuid() == 0:
        with suppress(OSError):
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)


def separate() -> bool:
    """Move into new namespaces, where the kernel and a container's rules allow it.

    The process keeps its user outside of them. In the new network there is nothing, not even a loopback device that is
    up; ``RLIMIT_NPROC`` counts this process's own threads and children only.

    Returns:
        Whether it was allowed.
    """
    try:
        call("unshare", _NEW_USER | _NEW_NET | _NEW_IPC)
    except OSError:
        return False
    return True


def has_loopback() -> bool:
    """Return whether a process could use a new network's loopback device; tries it in a process of its own.

    A kernel may allow a new network and refuse rights in it (Ubuntu's ``apparmor_restrict_unprivileged_userns``), and
    whoever has moved into one can't go back.
    """
    pid = os.fork()
    if pid == 0:
        works = False
        try:
            works = separate() and loopback_listener(0) is not None
        finally:
            os._exit(0 if works else 1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def loopback_listener(port: int) -> socket.socket:
    """Bring the new network's loopback device up and return a socket that listens on it.

    Whoever gets that socket, also in another network, can accept connections that are made in this one.

    Args:
        port: of 127.0.0.1.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = fcntl.ioctl(control, _SIOCGIFFLAGS, _INTERFACE.pack(b"lo", 0))
        name, flags = _INTERFACE.unpack(request)
        fcntl.ioctl(control, _SIOCSIFFLAGS, _INTERFACE.pack(name, flags | _IFF_UP))
    return socket.create_server(("127.0.0.1", port), backlog=64)
