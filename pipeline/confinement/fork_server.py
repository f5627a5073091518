"""The fork server: a process that forks a child for each job. It has the libraries loaded, one thread, and no secrets.

A job arrives over a socket as a message with descriptors for the child. The last descriptor is a pipe on which the fork
server reports how the child ended. When the reader of that pipe is gone, the fork server kills the child; when the
parent is gone, it kills all children.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

STATUS = struct.Struct("!i")
"""Format in which a child's wait status (``os.waitpid``) is reported to the parent."""

MAX_JOB_BYTES = 64 * 1024
FIRST_DESCRIPTOR = 3
"""Number of a child's first descriptor; 0, 1 and 2 are ``/dev/null``."""


@dataclass(frozen=True, slots=True)
class _RunningChild:
    """A running child and the message of its job."""

    pid: int
    message: bytes


class ForkServer:
    """A server that forks children, kills those that are no longer needed, and reports how they ended.

    Args:
        control: socket on which jobs arrive.
        descriptors: number of descriptors that come with each job, the status pipe included.
        run: runs a job in the child; takes the message.
        clean_up: removes the files that a child left behind; takes the message.
    """

    def __init__(
        self,
        control: socket.socket,
        descriptors: int,
        run: Callable[[bytes], None],
        clean_up: Callable[[bytes], None] = lambda _: None,
    ) -> None:
        self._control = control
        self._descriptors = descriptors
        self._run = run
        self._clean_up = clean_up
        self._children: dict[int, _RunningChild] = {}  # by the descriptor of the status pipe
        self._woken, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        self._poll.register(self._woken, select.POLLIN)

    def serve(self) -> None:
        """Serve jobs until the parent is gone, then kill the children that still run."""
        while True:
            ready = {descriptor for descriptor, _ in self._poll.poll()}
            for status in ready & self._children.keys():  # before `_reap` closes any, since its number may be reused
                self._kill(status)
            if self._woken in ready:
                os.read(self._woken, 4096)
                self._reap()
            if self._control.fileno() in ready and not self._receive_job():
                self._kill_all()
                return

    def _receive_job(self) -> bool:
        message, descriptors, _, _ = socket.recv_fds(self._control, MAX_JOB_BYTES, self._descriptors)
        if not message:
            return False
        *of_child, status = descriptors
        pid = os.fork()
        if pid == 0:
            self._become_child(message, of_child)
        for descriptor in of_child:
            os.close(descriptor)
        self._children[status] = _RunningChild(pid, message)
        self._poll.register(status, 0)  # poll always reports an error, which means that the reader is gone
        return True

    def _kill(self, status: int) -> None:
        self._poll.unregister(status)
        os.kill(self._children[status].pid, signal.SIGKILL)  # not reaped yet, so no other process has this id

    def _kill_all(self) -> None:
        for child in self._children.values():
            os.kill(child.pid, signal.SIGKILL)
        for child in self._children.values():
            os.waitpid(child.pid, 0)
            self._clean_up(child.message)

    def _reap(self) -> None:
        for status, child in list(self._children.items()):
            ended, wait_status = os.waitpid(child.pid, os.WNOHANG)
            if ended:
                self._clean_up(child.message)
                with suppress(BrokenPipeError):  # the reader is gone
                    os.write(status, STATUS.pack(wait_status))
                with suppress(KeyError):  # `_kill` has unregistered it
                    self._poll.unregister(status)
                os.close(status)
                del self._children[status]

    def _become_child(self, message: bytes, descriptors: list[int]) -> NoReturn:
        """Run the job and exit without returning, since the frames above belong to the server."""
        ended = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _keep_only(descriptors)
            self._run(message)
            ended = 0
        finally:
            os._exit(ended)


def _keep_only(descriptors: list[int]) -> None:
    """Move descriptors to ``FIRST_DESCRIPTOR`` and up, and close all others.

    Standard output becomes ``/dev/null``, so that a child can't write to the service's log.
    """
    high = [_duplicate_above(descriptor, FIRST_DESCRIPTOR + len(descriptors)) for descriptor in descriptors]
    for place, descriptor in enumerate(high, FIRST_DESCRIPTOR):
        os.dup2(descriptor, place)
    null = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(null, standard)
    os.closerange(FIRST_DESCRIPTOR + len(descriptors), 1 << 16)


def _duplicate_above(descriptor: int, lowest: int) -> int:
    """Duplicate a descriptor; return the lowest free number that is at least ``lowest``."""
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD, lowest)
