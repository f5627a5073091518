"""Moving this process into user, network and IPC namespaces of its own."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from contextlib import suppress

from pipeline.confinement.syscalls import syscall

NOBODY = 65_534
"""Id of the user and group without rights."""

_NEW_USER, _NEW_NET, _NEW_IPC = 0x1000_0000, 0x4000_0000, 0x0800_0000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_INTERFACE = struct.Struct("16sh14x")


def become_nobody() -> None:
    """Change from a superuser to the user and group nobody, since a user namespace may not have the superuser."""
    if os.getuid() == 0:
        with suppress(OSError):
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)


def separate() -> bool:
    """Move into new namespaces, if the kernel and a container's rules permit it.

    Outside of them, the process keeps its user. The new network is empty; even its loopback device is down.
    ``RLIMIT_NPROC`` then counts only this process's own threads and children.

    Returns:
        Whether the process was moved.
    """
    try:
        syscall("unshare", _NEW_USER | _NEW_NET | _NEW_IPC)
    except OSError:
        return False
    return True


def has_loopback() -> bool:
    """Return whether a process can use the loopback device of a new network.

    A kernel may permit a new network and refuse rights in it (Ubuntu's ``apparmor_restrict_unprivileged_userns``). This
    is tried in a child, since a process can't leave the new network.
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
    """Bring up the new network's loopback device and return a socket that listens on it.

    A process in another network that receives this socket can accept connections made in this network.

    Args:
        port: TCP port on 127.0.0.1.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = fcntl.ioctl(control, _SIOCGIFFLAGS, _INTERFACE.pack(b"lo", 0))
        name, flags = _INTERFACE.unpack(request)
        fcntl.ioctl(control, _SIOCSIFFLAGS, _INTERFACE.pack(name, flags | _IFF_UP))
    return socket.create_server(("127.0.0.1", port), backlog=64)
