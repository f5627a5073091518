"""The process that children are forked from: it has the codecs loaded, one thread, and nothing to hide.

It takes jobs from its parent over a socket, each with two descriptors: the child's end of the wire, and a pipe on which
it reports how the child ended. Where nobody reads that pipe any more, the child is killed; where the parent is gone,
all are.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from pipeline.media.sandbox.confine import confine
from pipeline.media.sandbox.jobs import perform, rehearse
from pipeline.media.sandbox.wire import STATUS, Wire

MAX_JOB_BYTES = 64 * 1024


class Zygote:
    """Forks children, watches over them, and tells how they ended."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._pids: dict[int, int] = {}  # by the descriptor of the pipe that waits for its end
        self._woken, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        self._poll.register(self._woken, select.POLLIN)

    def run(self) -> None:
        """Until the parent is gone."""
        while True:
            ready = {descriptor for descriptor, _ in self._poll.poll()}
            for status in ready & self._pids.keys():  # before any of them is closed, and its number used again
                self._kill(status)
            if self._woken in ready:
                os.read(self._woken, 4096)
                self._reap()
            if self._control.fileno() in ready and not self._take():
                return  # and the children with us: see PR_SET_PDEATHSIG

    def _take(self) -> bool:
        message, descriptors, _, _ = socket.recv_fds(self._control, MAX_JOB_BYTES, 2)
        if not message:
            return False
        data, status = descriptors
        pid = os.fork()
        if pid == 0:
            _be_child(data, json.loads(message))
        os.close(data)
        self._pids[status] = pid
        self._poll.register(status, 0)  # an error is told unasked: the reader has gone
        return True

    def _kill(self, status: int) -> None:
        self._poll.unregister(status)
        os.kill(self._pids[status], signal.SIGKILL)  # not reaped yet, so the id is still its own

    def _reap(self) -> None:
        for status, pid in list(self._pids.items()):
            ended, wait_status = os.waitpid(pid, os.WNOHANG)
            if ended:
                with suppress(BrokenPipeError):  # nobody wants to know any more
                    os.write(status, STATUS.pack(wait_status))
                with suppress(KeyError):  # it was killed
                    self._poll.unregister(status)
                os.close(status)
                del self._pids[status]


def _be_child(data: int, job: Mapping[str, Any]) -> None:
    """Never returns: what lies above on the stack is the zygote's."""
    ended = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.dup2(data, 3)
        os.closerange(4, 1 << 16)
        wire = Wire(socket.socket(fileno=3))
        confine(job["cpu_s"], job["memory_bytes"])
        perform(wire, job)
        ended = 0
    finally:
        os._exit(ended)


def main() -> None:
    """``python -m pipeline.media.sandbox.zygote DESCRIPTOR NICENESS``."""
    control, niceness = map(int, sys.argv[1:])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent decides
    os.nice(niceness)
    rehearse()
    Zygote(socket.socket(fileno=control)).run()


if __name__ == "__main__":
    main()
