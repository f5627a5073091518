"""The forbidden acts that a confined process tries.

An act that succeeds does no harm: it sends signal 0, changes only what belongs to the probe, or passes arguments that
the kernel refuses after it has permitted the call.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pipeline.confinement.probe import ForbiddenAct, ProbeTargets
from pipeline.confinement.syscalls import numbers, syscall

_AT_FDCWD = -100
_PAGE_BYTES = mmap.PAGESIZE


def _path(path: str) -> bytes:
    return path.encode() + b"\0"


def _syscall_act(name: str, *arguments: object) -> Callable[[ProbeTargets], object]:
    """Return an act that makes a system call; strings among its arguments are templates of paths."""

    def do(targets: ProbeTargets) -> object:
        filled = (
            _path(argument.format_map(targets.encode())) if isinstance(argument, str) else argument
            for argument in arguments
        )
        return syscall(name, *(targets.pid if argument is _PID else argument for argument in filled))

    return do


_PID: object = object()
"""Placeholder for the process id of the targets."""


def _open(flags: int, path: str) -> Callable[[ProbeTargets], object]:
    def do(targets: ProbeTargets) -> object:
        descriptor = syscall("openat", _AT_FDCWD, _path(path.format_map(targets.encode())), flags, 0o600)
        os.close(descriptor)
        return descriptor

    return do


def _connect(family: int, kind: int, address: Callable[[ProbeTargets], Any]) -> Callable[[ProbeTargets], object]:
    def do(targets: ProbeTargets) -> object:
        with socket.socket(family, kind) as sock:
            sock.settimeout(5)
            sock.connect(address(targets))
        return targets

    return do


def _send(targets: ProbeTargets) -> object:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        return sock.sendto(b"", ("127.0.0.1", targets.port))


def _listen(targets: ProbeTargets) -> object:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
    return targets


def _sockets_of(family: int, kind: int, protocol: int = 0) -> Callable[[ProbeTargets], object]:
    def do(targets: ProbeTargets) -> object:
        socket.socket(family, kind, protocol).close()
        return targets

    return do


def _fork(name: str, *arguments: int) -> Callable[[ProbeTargets], object]:
    def do(targets: ProbeTargets) -> object:
        pid = syscall(name, *arguments)
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        return targets

    return do


def _thread(targets: ProbeTargets) -> object:
    """Start a thread without shared signal handlers, which the kernel refuses after it has permitted the call."""
    return syscall("clone", 0x0001_0000, 0, 0, 0, 0)


def _execute(targets: ProbeTargets) -> object:
    """Start a program with arguments at an unreadable address."""
    return syscall("execve", _path("/proc/self/exe"), 1, 1)


def _read_memory(name: str) -> Callable[[ProbeTargets], object]:
    """Return an act that reads or writes a byte at an address that no process has."""

    def do(targets: ProbeTargets) -> object:
        byte = ctypes.create_string_buffer(1)
        here = (ctypes.c_ulong * 2)(ctypes.addressof(byte), 1)
        there = (ctypes.c_ulong * 2)(8, 1)
        return syscall(name, targets.pid, ctypes.byref(here), 1, ctypes.byref(there), 1, 0)

    return do


def _keep_priority(targets: ProbeTargets) -> object:
    return syscall("setpriority", os.PRIO_PROCESS, targets.pid, os.getpriority(os.PRIO_PROCESS, targets.pid))


def _signal_by_descriptor(targets: ProbeTargets) -> object:
    descriptor = syscall("pidfd_open", targets.pid, 0)
    try:
        return syscall("pidfd_send_signal", descriptor, 0, 0, 0)
    finally:
        os.close(descriptor)


def _limits(resource: int, soft: int, hard: int) -> Any:
    return (ctypes.c_ulong * 2)(soft, hard), resource


def _raise_limit(targets: ProbeTargets) -> object:
    values, core = _limits(4, 0, 1)
    return syscall("prlimit64", 0, core, ctypes.byref(values), 0)


def _raise_limit_by_the_old_call(targets: ProbeTargets) -> object:
    values, core = _limits(4, 0, 1)
    return syscall("setrlimit", core, ctypes.byref(values))


def _limit_of_another(targets: ProbeTargets) -> object:
    values = (ctypes.c_ulong * 2)()
    return syscall("prlimit64", targets.pid, 4, 0, ctypes.byref(values))


def _shared_segment(targets: ProbeTargets) -> object:
    segment = syscall("shmget", 0, _PAGE_BYTES, 0o600)
    return syscall("shmctl", segment, 0, 0)


def _map(flags: int) -> Callable[[ProbeTargets], object]:
    def do(targets: ProbeTargets) -> object:
        mmap.mmap(-1, targets.memory_bytes, flags=flags).close()
        return targets

    return do


_INVALID = frozenset({"EINVAL"})
_FAULT = frozenset({"EFAULT"})


def _files() -> Iterator[ForbiddenAct]:
    acts: dict[str, Callable[[ProbeTargets], object]] = {
        "read a file": _open(os.O_RDONLY, "{file}"),
        "write a file": _open(os.O_WRONLY, "{file}"),
        "append to a file": _open(os.O_WRONLY | os.O_APPEND, "{file}"),
        "empty a file": _open(os.O_WRONLY | os.O_TRUNC, "{file}"),
        "create a file": _open(os.O_WRONLY | os.O_CREAT, "{folder}/new"),
        "create a file without a name": _open(os.O_WRONLY | os.O_TMPFILE, "{folder}"),
        "list a folder": _open(os.O_RDONLY | os.O_DIRECTORY, "{folder}"),
        "read the environment of another process": _open(os.O_RDONLY, "/proc/{pid}/environ"),
        "read the accounts": _open(os.O_RDONLY, "/etc/passwd"),
        "truncate": _syscall_act("truncate", "{file}", 1),
        "link": _syscall_act("linkat", _AT_FDCWD, "{file}", _AT_FDCWD, "{folder}/link", 0),
        "make a symbolic link": _syscall_act("symlinkat", "{file}", _AT_FDCWD, "{folder}/symlink"),
        "make a folder": _syscall_act("mkdirat", _AT_FDCWD, "{folder}/made", 0o700),
        "make a pipe": _syscall_act("mknodat", _AT_FDCWD, "{folder}/fifo", 0o10600, 0),
        "make a socket": _syscall_act("mknodat", _AT_FDCWD, "{folder}/socket", 0o140600, 0),
        "change a mode": _syscall_act("fchmodat", _AT_FDCWD, "{file}", 0o666),
        "change an owner": _syscall_act("fchownat", _AT_FDCWD, "{file}", -1, -1, 0),
        "change times": _syscall_act("utimensat", _AT_FDCWD, "{file}", 0, 0),
        "set an attribute": _syscall_act("setxattr", "{file}", "user.probe", b"1", 1, 0),
        "rename": _syscall_act("renameat2", _AT_FDCWD, "{folder}/to-rename", _AT_FDCWD, "{folder}/renamed", 0),
        "remove a file": _syscall_act("unlinkat", _AT_FDCWD, "{folder}/to-remove", 0),
        "remove a folder": _syscall_act("unlinkat", _AT_FDCWD, "{folder}/empty", 0x200),
    }
    if "open" in numbers():
        acts |= {
            "chmod": _syscall_act("chmod", "{file}", 0o666),
            "rename by the old call": _syscall_act("rename", "{folder}/to-rename-too", "{folder}/renamed-too"),
            "unlink": _syscall_act("unlink", "{folder}/to-unlink"),
            "creat": _syscall_act("creat", "{folder}/created", 0o600),
        }
    return (ForbiddenAct("filesystem", name, do) for name, do in acts.items())


def _network() -> Iterator[ForbiddenAct]:
    acts: Mapping[str, Callable[[ProbeTargets], object]] = {
        "connect to a port": _connect(socket.AF_INET, socket.SOCK_STREAM, lambda targets: ("127.0.0.1", targets.port)),
        "connect to an abstract socket": _connect(
            socket.AF_UNIX, socket.SOCK_STREAM, lambda targets: f"\0{targets.name}"
        ),
        "send a datagram": _send,
        "listen": _listen,
        "open a raw socket": _sockets_of(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
        "open a socket of IPv6": _sockets_of(socket.AF_INET6, socket.SOCK_STREAM),
        "talk to the kernel's network": _sockets_of(socket.AF_NETLINK, socket.SOCK_RAW),
        "open a packet socket": _sockets_of(socket.AF_PACKET, socket.SOCK_RAW),
    }
    return (ForbiddenAct("network", name, do) for name, do in acts.items())


def _processes() -> Iterator[ForbiddenAct]:
    yield ForbiddenAct("processes", "fork", _fork(*(("fork",) if "fork" in numbers() else ("clone", 17, 0, 0, 0, 0))))
    yield ForbiddenAct("processes", "clone", _fork("clone", 17, 0, 0, 0, 0))
    yield ForbiddenAct("processes", "clone3", _syscall_act("clone3", 0, 0), _INVALID)
    yield ForbiddenAct("processes", "start a thread", _thread, _INVALID)
    yield ForbiddenAct("processes", "start a program", _execute, _FAULT)
    yield ForbiddenAct(
        "processes",
        "start a program by descriptor",
        _syscall_act("execveat", _AT_FDCWD, "/proc/self/exe", 1, 1, 0),
        _FAULT,
    )


def _signals() -> Iterator[ForbiddenAct]:
    acts: Mapping[str, Callable[[ProbeTargets], object]] = {
        "signal": _syscall_act("kill", _PID, 0),
        "signal everybody": _syscall_act("kill", -1, 0),
        "signal a thread": _syscall_act("tkill", _PID, 0),
        "signal a thread of a process": _syscall_act("tgkill", _PID, _PID, 0),
        "signal by descriptor": _signal_by_descriptor,
        "trace": _syscall_act("ptrace", 0x4206, _PID, 0, 0),
        "change the priority of another": _keep_priority,
        "read the limits of another": _limit_of_another,
    }
    for name, do in acts.items():
        yield ForbiddenAct("signals", name, do)
    yield ForbiddenAct("signals", "queue a signal", _syscall_act("rt_sigqueueinfo", _PID, 0, 0), _FAULT)
    yield ForbiddenAct("signals", "read memory of another", _read_memory("process_vm_readv"), _FAULT)
    yield ForbiddenAct("signals", "write memory of another", _read_memory("process_vm_writev"), _FAULT)
    yield ForbiddenAct(
        "signals", "take a descriptor of another", _syscall_act("pidfd_getfd", -1, 0, 0), frozenset({"EBADF"})
    )


def _privileges() -> Iterator[ForbiddenAct]:
    acts: Mapping[str, Callable[[ProbeTargets], object]] = {
        "raise a limit": _raise_limit,
        "raise a limit by the old call": _raise_limit_by_the_old_call,
        "become root": _syscall_act("setresuid", 0, 0, 0),
        "read a key": _syscall_act("keyctl", 0, -3, 0),
        "add a key": _syscall_act("add_key", "user", "probe", b"1", 1, -1),
        "make a shared segment": _shared_segment,
    }
    for name, do in acts.items():
        yield ForbiddenAct("privileges", name, do)
    yield ForbiddenAct("privileges", "enter a namespace", _syscall_act("setns", -1, 0), frozenset({"EBADF"}))
    yield ForbiddenAct(
        "privileges", "mount", _syscall_act("mount", "none", "{folder}", "no-such-type", 0, 0), frozenset({"ENODEV"})
    )
    yield ForbiddenAct("privileges", "open a mount", _syscall_act("fsopen", "tmpfs", 0))
    yield ForbiddenAct("privileges", "load a program into the kernel", _syscall_act("bpf", 0, 0, 0), _INVALID | _FAULT)
    yield ForbiddenAct("privileges", "make a ring", _syscall_act("io_uring_setup", 0, 0), _INVALID | _FAULT)
    yield ForbiddenAct("privileges", "catch page faults", _syscall_act("userfaultfd", 1))
    yield ForbiddenAct(
        "privileges", "count events", _syscall_act("perf_event_open", 0, 0, -1, -1, 0), _INVALID | _FAULT
    )
    yield ForbiddenAct(
        "privileges",
        "open a file by handle",
        _syscall_act("open_by_handle_at", -1, 0, 0),
        frozenset({"EBADF"}) | _FAULT,
    )
    yield ForbiddenAct("privileges", "make a namespace", _syscall_act("unshare", 0x1000_0000))
    yield ForbiddenAct("privileges", "change the root", _syscall_act("chroot", "{folder}"))


def _memory() -> Iterator[ForbiddenAct]:
    yield ForbiddenAct("memory", "take private memory", _map(mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
    yield ForbiddenAct("memory", "take shared memory", _map(mmap.MAP_SHARED | mmap.MAP_ANONYMOUS))
    yield ForbiddenAct("memory", "make a file of memory", _syscall_act("memfd_create", "probe", 0))


ACTS: tuple[ForbiddenAct, ...] = (*_files(), *_network(), *_processes(), *_signals(), *_memory(), *_privileges())


def try_all(targets: ProbeTargets) -> dict[str, dict[str, str]]:
    """Try every act; return the results by part and name of the act."""
    results: dict[str, dict[str, str]] = {}
    for act in ACTS:
        results.setdefault(act.part, {})[act.name] = act.try_act(targets)
    return results
