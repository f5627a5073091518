"""A process that forks children: it has their libraries loaded, one thread, and nothing to hide.

It takes jobs over a socket: a message, and with it the descriptors for the child. The last of them is a pipe on which
it reports how the child ended. Where nobody reads that pipe any more, the child is killed; where the parent is gone,
all are.
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
"""A child's wait status (``os.waitpid``), as it is reported to the parent."""

MAX_JOB_BYTES = 64 * 1024
FIRST_DESCRIPTOR = 3
"""A child finds its descriptors from here on; 0, 1 and 2 are ``/dev/null``."""


@dataclass(frozen=True, slots=True)
class _RunningChild:
    """A child that runs, and the message it was forked for."""

    pid: int
    message: bytes


class ForkServer:
    """Forks children, watches over them, and reports how they ended.

    Args:
        control: where jobs arrive.
        descriptors: how many come with each job, the status pipe included.
        run: does a job in the child; takes the message.
        clean_up: removes what a child left behind; takes the message.
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
        self._jobs: dict[int, _RunningChild] = {}  # by the descriptor of the pipe that waits for its end
        self._woken, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        self._poll.register(self._woken, select.POLLIN)

    def serve(self) -> None:
        """Fork until the parent is gone, then kill what still runs."""
        while True:
            ready = {descriptor for descriptor, _ in self._poll.poll()}
            for status in ready & self._jobs.keys():  # before any of them is closed, and its number used again
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
        *given, status = descriptors
        pid = os.fork()
        if pid == 0:
            self._become_child(message, given)
        for descriptor in given:
            os.close(descriptor)
        self._jobs[status] = _RunningChild(pid, message)
        self._poll.register(status, 0)  # an error is reported unasked: the reader has gone
        return True

    def _kill(self, status: int) -> None:
        self._poll.unregister(status)
        os.kill(self._jobs[status].pid, signal.SIGKILL)  # not reaped yet, so the id is still its own

    def _kill_all(self) -> None:
        for job in self._jobs.values():
            os.kill(job.pid, signal.SIGKILL)
        for job in self._jobs.values():
            os.waitpid(job.pid, 0)
            self._clean_up(job.message)

    def _reap(self) -> None:
        for status, job in list(self._jobs.items()):
            ended, wait_status = os.waitpid(job.pid, os.WNOHANG)
            if ended:
                self._clean_up(job.message)
                with suppress(BrokenPipeError):  # nobody wants to know any more
                    os.write(status, STATUS.pack(wait_status))
                with suppress(KeyError):  # it was killed
                    self._poll.unregister(status)
                os.close(status)
                del self._jobs[status]

    def _become_child(self, message: bytes, descriptors: list[int]) -> NoReturn:
        """Do the job and end; what lies above on the stack is the server's."""
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
    """Move descriptors to ``FIRST_DESCRIPTOR`` and on, and close all others; nothing reaches the service's log."""
    high = [_duplicate_above(descriptor, FIRST_DESCRIPTOR + len(descriptors)) for descriptor in descriptors]
    for place, descriptor in enumerate(high, FIRST_DESCRIPTOR):
        os.dup2(descriptor, place)
    null = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(null, standard)
    os.closerange(FIRST_DESCRIPTOR + len(descriptors), 1 << 16)


def _duplicate_above(descriptor: int, lowest: int) -> int:
    """Return a duplicate of a descriptor whose number is not below the lowest."""
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD, lowest)
