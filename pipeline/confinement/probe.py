"""Forbidden acts, tried by a confined process, and what the kernel answered.

An act that succeeds does no harm: it signals with 0, changes what belongs to the probe, or is called so that the kernel
refuses its arguments once it has let it pass.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.confinement.syscalls import call, numbers
from pipeline.domain.confinement_level import DONE

_AT_FDCWD = -100
_PAGE_BYTES = mmap.PAGESIZE


@dataclass(frozen=True, slots=True)
class ProbeTargets:
    """What the acts are aimed at; made by ``targets``.

    Attributes:
        folder: of a stranger's, which everybody may write.
        file: in it, which everybody may write.
        pid: a process that is not to be touched.
        port: where a stranger listens on 127.0.0.1.
        name: where a stranger listens on an abstract Unix socket.
        memory_bytes: more than the process may take.
    """

    folder: str
    file: str
    pid: int
    port: int
    name: str
    memory_bytes: int

    def encode(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return asdict(self)


@contextmanager
def targets(memory_bytes: int) -> Iterator[ProbeTargets]:
    """Provide something to aim at until the block ends; ``memory_bytes`` is what the process may take."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="murmuration-probe-")))
        folder.chmod(0o777)
        for name in ("file", "to-rename", "to-rename-too", "to-remove", "to-unlink"):
            (folder / name).write_bytes(b"content")
            (folder / name).chmod(0o666)
        (folder / "empty").mkdir(mode=0o777)
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        name = f"murmuration-probe-{os.getpid()}-{tcp.getsockname()[1]}"
        abstract = stack.enter_context(socket.socket(socket.AF_UNIX))
        abstract.bind(f"\0{name}")
        abstract.listen()
        yield ProbeTargets(str(folder), str(folder / "file"), os.getpid(), tcp.getsockname()[1], name, 2 * memory_bytes)


@dataclass(frozen=True, slots=True)
class ForbiddenAct:
    """A forbidden act.

    Attributes:
        part: the attribute of ``Confinement`` that it belongs to.
        name: of the act.
        do: tries it; raises ``OSError`` where it is refused.
        reached: errors that only come once the act was let through.
    """

    part: str
    name: str
    do: Callable[[ProbeTargets], object]
    reached: frozenset[str] = frozenset()

    def attempt(self, at: ProbeTargets) -> str:
        """Return ``DONE``, or the name of the ``errno`` it was refused with."""
        try:
            self.do(at)
        except OSError as error:
            name = errno.errorcode.get(error.errno or 0, "EPERM")
            return DONE if name in self.reached else name
        except (MemoryError, RuntimeError):  # what Python makes of memory or a thread that it does not get
            return "ENOMEM"
        return DONE


def attempt_all(at: ProbeTargets) -> dict[str, dict[str, str]]:
    """Try every act and return the results by part and name."""
    results: dict[str, dict[str, str]] = {}
    for act in ACTS:
        results.setdefault(act.part, {})[act.name] = act.attempt(at)
    return results


def _path(path: str) -> bytes:
    return path.encode() + b"\0"


def _syscall_act(name: str, *arguments: object) -> Callable[[ProbeTargets], object]:
    """Return an act that makes a system call; strings among its arguments are templates of paths."""

    def do(at: ProbeTargets) -> object:
        filled = (
            _path(argument.format_map(at.encode())) if isinstance(argument, str) else argument for argument in arguments
        )
        return call(name, *(at.pid if argument is _PID else argument for argument in filled))

    return do


_PID: object = object()
"""Stands for the number of the process that is not to be touched."""


def _open(flags: int, path: str) -> Callable[[ProbeTargets], object]:
    def do(at: ProbeTargets) -> object:
        descriptor = call("openat", _AT_FDCWD, _path(path.format_map(at.encode())), flags, 0o600)
        os.close(descriptor)
        return descriptor

    return do


def _connect(family: int, kind: int, address: Callable[[ProbeTargets], Any]) -> Callable[[ProbeTargets], object]:
    def do(at: ProbeTargets) -> object:
        with socket.socket(family, kind) as sock:
            sock.settimeout(5)
            sock.connect(address(at))
        return at

    return do


def _send(at: ProbeTargets) -> object:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        return sock.sendto(b"", ("127.0.0.1", at.port))


def _listen(at: ProbeTargets) -> object:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
    return at


def _sockets_of(family: int, kind: int, protocol: int = 0) -> Callable[[ProbeTargets], object]:
    def do(at: ProbeTargets) -> object:
        socket.socket(family, kind, protocol).close()
        return at

    return do


def _fork(name: str, *arguments: int) -> Callable[[ProbeTargets], object]:
    def do(at: ProbeTargets) -> object:
        pid = call(name, *arguments)
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        return at

    return do


def _thread(at: ProbeTargets) -> object:
    """A thread without shared signal handlers, which the kernel refuses once it has looked."""
    return call("clone", 0x0001_0000, 0, 0, 0, 0)


def _execute(at: ProbeTargets) -> object:
    """A program with arguments that can't be read."""
    return call("execve", _path("/proc/self/exe"), 1, 1)


def _read_memory(name: str) -> Callable[[ProbeTargets], object]:
    """A byte at an address that no process has."""

    def do(at: ProbeTargets) -> object:
        byte = ctypes.create_string_buffer(1)
        here = (ctypes.c_ulong * 2)(ctypes.addressof(byte), 1)
        there = (ctypes.c_ulong * 2)(8, 1)
        return call(name, at.pid, ctypes.byref(here), 1, ctypes.byref(there), 1, 0)

    return do


def _keep_priority(at: ProbeTargets) -> object:
    return call("setpriority", os.PRIO_PROCESS, at.pid, os.getpriority(os.PRIO_PROCESS, at.pid))


def _signal_by_descriptor(at: ProbeTargets) -> object:
    descriptor = call("pidfd_open", at.pid, 0)
    try:
        return call("pidfd_send_signal", descriptor, 0, 0, 0)
    finally:
        os.close(descriptor)


def _limits(resource: int, soft: int, hard: int) -> Any:
    return (ctypes.c_ulong * 2)(soft, hard), resource


def _raise_limit(at: ProbeTargets) -> object:
    values, core = _limits(4, 0, 1)
    return call("prlimit64", 0, core, ctypes.byref(values), 0)


def _raise_limit_by_the_old_call(at: ProbeTargets) -> object:
    values, core = _limits(4, 0, 1)
    return call("setrlimit", core, ctypes.byref(values))


def _limit_of_another(at: ProbeTargets) -> object:
    values = (ctypes.c_ulong * 2)()
    return call("prlimit64", at.pid, 4, 0, ctypes.byref(values))


def _shared_segment(at: ProbeTargets) -> object:
    segment = call("shmget", 0, _PAGE_BYTES, 0o600)
    return call("shmctl", segment, 0, 0)


def _map(flags: int) -> Callable[[ProbeTargets], object]:
    def do(at: ProbeTargets) -> object:
        mmap.mmap(-1, at.memory_bytes, flags=flags).close()
        return at

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
        "connect to a port": _connect(socket.AF_INET, socket.SOCK_STREAM, lambda at: ("127.0.0.1", at.port)),
        "connect to an abstract socket": _connect(socket.AF_UNIX, socket.SOCK_STREAM, lambda at: f"\0{at.name}"),
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
