"""Restricting this process's access to files and TCP ports with Landlock (Linux 5.13 and later).

Source: ``Documentation/userspace-api/landlock.rst`` and ``include/uapi/linux/landlock.h`` of Linux 6.18.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import IntFlag

from pipeline.confinement.syscalls import syscall

_VERSION = 1  # LANDLOCK_CREATE_RULESET_VERSION
_PATH_BENEATH, _NET_PORT = 1, 2
_PATH_RULE = struct.Struct("=Qi")
_PORT_RULE = struct.Struct("=QQ")


class LandlockFileAccess(IntFlag):
    """Rights to files and folders: ``LANDLOCK_ACCESS_FS_…``."""

    EXECUTE = 1 << 0
    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13
    TRUNCATE = 1 << 14
    IOCTL_DEV = 1 << 15


class LandlockNetAccess(IntFlag):
    """Rights to TCP ports: ``LANDLOCK_ACCESS_NET_…``."""

    BIND_TCP = 1
    CONNECT_TCP = 2


class LandlockScope(IntFlag):
    """Means of communication limited to processes confined by the same ruleset: ``LANDLOCK_SCOPE_…``."""

    ABSTRACT_UNIX_SOCKET = 1
    SIGNAL = 2


READ = LandlockFileAccess.READ_FILE | LandlockFileAccess.READ_DIR
RUN = READ | LandlockFileAccess.EXECUTE
MANAGE_FILES = (
    READ
    | LandlockFileAccess.WRITE_FILE
    | LandlockFileAccess.REMOVE_FILE
    | LandlockFileAccess.MAKE_REG
    | LandlockFileAccess.TRUNCATE
)
"""Rights to create, read, change and remove files in a folder, but no folders, links or devices."""
_OF_FILES = (
    LandlockFileAccess.EXECUTE
    | LandlockFileAccess.WRITE_FILE
    | LandlockFileAccess.READ_FILE
    | LandlockFileAccess.TRUNCATE
)


@dataclass(frozen=True, slots=True)
class Ruleset:
    """The permitted access; all other is refused.

    Attributes:
        paths: rights by path; those to a folder hold for everything below it.
        connect_ports: TCP ports to which connections are permitted, at any address.
    """

    paths: Mapping[str, LandlockFileAccess]
    connect_ports: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class HandledAccess:
    """The access that a version of Landlock can refuse."""

    files: LandlockFileAccess
    net: LandlockNetAccess
    scope: LandlockScope

    @classmethod
    def by_version(cls, version: int) -> HandledAccess:
        """Return the access that a version, from 1 on, can refuse."""
        files = LandlockFileAccess((LandlockFileAccess.MAKE_SYM << 1) - 1)
        for since, right in (
            (2, LandlockFileAccess.REFER),
            (3, LandlockFileAccess.TRUNCATE),
            (5, LandlockFileAccess.IOCTL_DEV),
        ):
            files |= right if version >= since else LandlockFileAccess(0)
        net = LandlockNetAccess.BIND_TCP | LandlockNetAccess.CONNECT_TCP if version >= 4 else LandlockNetAccess(0)
        scope = LandlockScope.ABSTRACT_UNIX_SOCKET | LandlockScope.SIGNAL if version >= 6 else LandlockScope(0)
        return cls(files, net, scope)

    def encode(self, version: int) -> bytes:
        """Return ``struct landlock_ruleset_attr`` with the fields that the version has."""
        fields = (self.files, *([self.net] if version >= 4 else ()), *([self.scope] if version >= 6 else ()))
        return struct.pack(f"={len(fields)}Q", *map(int, fields))


def version() -> int:
    """Return the kernel's version of Landlock; 0 if it has none."""
    try:
        return syscall("landlock_create_ruleset", 0, 0, _VERSION)
    except OSError:
        return 0


def restrict(ruleset: Ruleset) -> None:
    """Apply a ruleset to this thread and everything it starts. It can't be removed, and needs ``no_new_privs``.

    Raises:
        OSError: the kernel has no Landlock.
    """
    number = version()
    handled = HandledAccess.by_version(max(1, number))
    attributes = handled.encode(number)
    descriptor = syscall("landlock_create_ruleset", attributes, len(attributes), 0)
    try:
        for path, access in ruleset.paths.items():
            _allow_path(descriptor, path, access & handled.files)
        if handled.net:
            _allow_ports(descriptor, ruleset.connect_ports)
        syscall("landlock_restrict_self", descriptor, 0)
    finally:
        os.close(descriptor)


def _allow_path(ruleset: int, path: str, access: LandlockFileAccess) -> None:
    """Add a rule for a path, unless the path does not exist."""
    with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
        beneath = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            if not stat.S_ISDIR(os.fstat(beneath).st_mode):
                access &= _OF_FILES
            syscall("landlock_add_rule", ruleset, _PATH_BENEATH, _PATH_RULE.pack(int(access), beneath), 0)
        finally:
            os.close(beneath)


def _allow_ports(ruleset: int, ports: Iterable[int]) -> None:
    for port in ports:
        rule = ctypes.create_string_buffer(_PORT_RULE.pack(int(LandlockNetAccess.CONNECT_TCP), port))
        syscall("landlock_add_rule", ruleset, _NET_PORT, rule, 0)
