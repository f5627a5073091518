"""The confinement of decoders and extractors: the rights that remain, and the steps that give up all others."""

from __future__ import annotations

import mmap
import os
import resource
import signal
import socket
import sys
import sysconfig
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.confinement import landlock, limits, namespaces, seccomp
from pipeline.confinement.landlock import MANAGE_FILES, READ, RUN, LandlockFileAccess, Ruleset
from pipeline.confinement.seccomp import MISSING, Condition, Filter, Rule, allow, refuse
from pipeline.confinement.syscalls import prctl

MAX_PROCESSES = 256
"""Largest number of processes and threads of an extractor that may start a JavaScript runtime."""
MAX_FILES = 256
"""Largest number of descriptors of an extractor."""

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38

_OF_ANY_PROCESS = """
    futex clock_gettime clock_getres clock_nanosleep gettimeofday time nanosleep getrandom
    mremap munmap madvise brk rt_sigprocmask rt_sigaction rt_sigreturn sigaltstack sched_yield restart_syscall
    getpid getppid gettid getuid geteuid getgid getegid getcpu exit exit_group
"""
_NO_EXECUTABLE_MEMORY = tuple(
    Rule(name, conditions=(Condition(2, mmap.PROT_EXEC, 0),)) for name in ("mmap", "mprotect", "pkey_mprotect")
)
"""Rules that allow allocating memory, but no executable memory."""

DECODER = Filter(
    (
        *allow("read", "write", "recvfrom", "sendto"),
        *_NO_EXECUTABLE_MEMORY,
        *allow(*_OF_ANY_PROCESS.split(), "close", "poll", "ppoll"),
        Rule("clone3", MISSING),
    )
)
"""System calls of a decoder: it may use memory and its open descriptors.

It can't start threads. FFmpeg starts none: it reads the number of processors with ``sched_getaffinity``, and if that is
refused, it assumes one.
"""

_FILES = """
    read write readv writev pread64 pwrite64 lseek close open openat openat2 stat fstat lstat newfstatat statx access
    faccessat faccessat2 readlink readlinkat getdents getdents64 getcwd fcntl flock ftruncate fsync fdatasync fadvise64
    rename renameat renameat2 unlink unlinkat statfs fstatfs umask
"""
_CONNECTIONS = """
    connect sendto recvfrom sendmsg recvmsg setsockopt getsockopt getsockname getpeername shutdown
    poll ppoll select pselect6
"""
_TERMINAL_ATTRIBUTES, _SET_BLOCKING, _CLOSE_ON_EXEC, _KEEP_ON_EXEC = 0x5401, 0x5421, 0x5451, 0x5450
_ALL_BITS = 0xFFFF_FFFF

EXTRACTOR = Filter(
    (
        *allow(*_FILES.split(), *_CONNECTIONS.split(), *_OF_ANY_PROCESS.split()),
        Rule("socket", conditions=(Condition(0, _ALL_BITS, socket.AF_INET), Condition(1, 0xF, socket.SOCK_STREAM))),
        *(
            Rule("ioctl", conditions=(Condition(1, _ALL_BITS, request),))
            for request in (_SET_BLOCKING, _TERMINAL_ATTRIBUTES, _CLOSE_ON_EXEC, _KEEP_ON_EXEC)
        ),
        *allow("mmap", "mprotect", "uname", "sysinfo", "getrusage", "times", "sched_getaffinity", "membarrier"),
        *allow("getitimer", "setitimer"),
        Rule("clone3", MISSING),
    )
)
"""System calls of an extractor: it may use files, TCP over IPv4, and memory, and load code from files.

Landlock and the network namespace decide which files and addresses.
"""

_NEVER = """
    chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat utime utimes utimensat futimesat setxattr lsetxattr
    fsetxattr setxattrat removexattr truncate link linkat symlink symlinkat mknod mknodat
    bind listen accept accept4 ptrace process_vm_readv process_vm_writev process_madvise process_mrelease kcmp
    tkill rt_sigqueueinfo rt_tgsigqueueinfo pidfd_open pidfd_send_signal pidfd_getfd
    setuid setgid setreuid setregid setresuid setresgid setgroups unshare setns mount umount2 pivot_root chroot
    open_tree move_mount fsopen fsmount mount_setattr add_key request_key keyctl bpf perf_event_open userfaultfd
    io_uring_setup io_uring_enter shmget shmat shmctl semget msgget mq_open memfd_secret open_by_handle_at
    name_to_handle_at personality acct swapon reboot sethostname init_module finit_module delete_module kexec_load
    kexec_file_load quotactl syslog settimeofday clock_settime clock_adjtime setrlimit inotify_init inotify_init1
    fanotify_init move_pages
"""
_NEW_NAMESPACES = (0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000, 0x0002_0000)

RUNTIME = Filter(
    (
        *refuse(*_NEVER.split()),
        *(Rule("clone", seccomp.REFUSE, (Condition(0, flag, flag),)) for flag in _NEW_NAMESPACES),
        Rule("clone3", MISSING),
        Rule("socket", conditions=(Condition(0, _ALL_BITS, socket.AF_INET), Condition(1, 0xF, socket.SOCK_STREAM))),
        *refuse("socket", "setpriority"),
        Rule("kill", seccomp.REFUSE, (Condition(0, _ALL_BITS, _ALL_BITS),)),
        Rule("prlimit64", conditions=(Condition(0, _ALL_BITS, 0),)),
        *refuse("prlimit64"),
    ),
    default=seccomp.ALLOW,
)
"""System calls of an extractor that may start a JavaScript runtime.

A runtime needs more calls than can be listed, so this filter lists the refused ones. It allows starting processes and
signalling them; Landlock ensures that signals reach no others.
"""


@dataclass(frozen=True, slots=True)
class ExtractorRights:
    """The rights that remain to an extractor.

    Attributes:
        scratch: folder in which it may write files.
        readable: further files and folders that it may read.
        proxy_port: TCP port on 127.0.0.1 to which it may connect.
        memory_bytes: memory in addition to that allocated at the start; not limited if there is a runtime.
        file_bytes: size of the largest file that it may write.
        runtime: program that it may start.
        own_network: move into new namespaces; only if ``namespaces.has_loopback``.
    """

    scratch: str
    readable: tuple[str, ...]
    proxy_port: int
    memory_bytes: int
    file_bytes: int
    runtime: str | None = None
    own_network: bool = True

    def ruleset(self) -> Ruleset:
        """Return the rights to files and the port as a ruleset for Landlock."""
        paths: dict[str, LandlockFileAccess] = dict.fromkeys((*library_folders(), *_SYSTEM, *self.readable), READ)
        paths |= {"/dev/null": READ | LandlockFileAccess.WRITE_FILE, "/dev/urandom": READ, self.scratch: MANAGE_FILES}
        if self.runtime is not None:
            paths |= dict.fromkeys((str(Path(self.runtime).resolve()), *_loaders()), RUN) | {"/proc/self": READ}
        return Ruleset(paths, (self.proxy_port,))


_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib")
_SYSTEM = (*_LIBRARIES, "/usr/share/zoneinfo", "/etc/localtime", "/etc/ssl", "/etc/pki", "/usr/share/ca-certificates")


def _loaders() -> tuple[str, ...]:
    """Return the paths of dynamic loaders, which every dynamically linked program needs to start."""
    return tuple(str(path.resolve()) for folder in ("/lib", "/lib64") for path in Path(folder).glob("ld-*.so.*"))


def library_folders() -> tuple[str, ...]:
    """Return the folders of Python, its packages and yt-dlp."""
    folders = {path for name, path in sysconfig.get_paths().items() if name.endswith(("lib", "stdlib"))}
    loaded = (getattr(sys.modules.get(name), "__file__", None) for name in ("yt_dlp", "certifi"))
    folders |= {str(Path(file).resolve().parent) for file in loaded if file}
    return tuple(sorted(folders | {os.path.realpath(folder) for folder in folders}))


def confine_decoder(cpu_s: int, memory_bytes: int) -> None:
    """Confine this process to its memory, its descriptors and some processor time. This can't be undone.

    Args:
        cpu_s: processor seconds after which the kernel ends the process (``SIGXCPU``).
        memory_bytes: memory in addition to that allocated now; allocating more fails.
    """
    namespaces.become_nobody()
    namespaces.separate()
    _bind_to_parent()
    limits.limit_memory(memory_bytes)
    with suppress(OSError):  # the kernel has no Landlock; a probe reports that
        landlock.restrict(Ruleset({}))
    limits.limit(resource.RLIMIT_CORE, 0)
    limits.limit(resource.RLIMIT_FSIZE, 0)
    limits.limit(resource.RLIMIT_CPU, cpu_s, grace=5)
    limits.limit(resource.RLIMIT_NOFILE, 0)
    with suppress(OSError):
        seccomp.install(DECODER)


def confine_extractor(rights: ExtractorRights) -> socket.socket | None:
    """Confine this process to ``rights``, except for the filter of system calls. This can't be undone.

    Returns:
        A socket that listens on ``proxy_port`` in the process's own network, if the kernel permits such a network.
        The caller sends it to the guarding proxy, which accepts the connections; nothing else can be reached.
    """
    if _readable_by_nobody((*library_folders(), *rights.readable)):
        os.chown(rights.scratch, namespaces.NOBODY, namespaces.NOBODY)
        namespaces.become_nobody()
    separated = rights.own_network and namespaces.separate()
    listener = namespaces.loopback_listener(rights.proxy_port) if separated else None
    _bind_to_parent()
    if rights.runtime is None:
        limits.limit_memory(rights.memory_bytes)
    elif separated:
        limits.limit(resource.RLIMIT_NPROC, MAX_PROCESSES)
    with suppress(OSError):
        landlock.restrict(rights.ruleset())
    limits.limit(resource.RLIMIT_CORE, 0)
    limits.limit(resource.RLIMIT_FSIZE, rights.file_bytes)
    limits.limit(resource.RLIMIT_NOFILE, MAX_FILES)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write fails with EFBIG instead
    return listener


def filter_extractor(rights: ExtractorRights) -> None:
    """Apply the filter of system calls. Call this after the socket of ``confine_extractor`` was sent to the proxy."""
    with suppress(OSError):
        seccomp.install(EXTRACTOR if rights.runtime is None else RUNTIME)


def _bind_to_parent() -> None:
    """Let the kernel kill this process when its parent ends, and never grant rights by starting a program."""
    prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))  # a change of user clears it, so it must come after that
    prctl(_PR_SET_NO_NEW_PRIVS, 1)


def _readable_by_nobody(paths: tuple[str, ...]) -> bool:
    """Return whether this process is a superuser and could still read these paths as nobody."""
    if os.getuid() != 0:
        return False
    try:
        os.seteuid(namespaces.NOBODY)
    except OSError:
        return False
    try:
        return all(os.access(path, os.R_OK, effective_ids=True) for path in paths if _may_exist(path))
    finally:
        os.seteuid(0)


def _may_exist(path: str) -> bool:
    """Return whether a path exists; true if that can't be determined."""
    try:
        Path(path).stat()
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return True
