"""Starts fork servers and gives them jobs; ``pipeline.confinement.fork_server`` is what runs in them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ForkServerProcess:
    """A fork server in a process of its own, and the socket over which it gets jobs; made by ``start``."""

    _process: subprocess.Popen[bytes]
    _control: socket.socket

    @classmethod
    def start(cls, module: str, *arguments: str, environment: Mapping[str, str]) -> ForkServerProcess:
        """Start a module as a fork server, without waiting until it has loaded its libraries.

        Args:
            module: the module; its first argument is the descriptor of its end of the socket.
            arguments: its further arguments.
            environment: its environment, to which the module path is added. It inherits nothing, because the
                environment of this process holds secrets.

        Raises:
            OSError: no process could be started.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                process = subprocess.Popen(  # noqa: S603 - our own module
                    [sys.executable, "-P", "-m", module, str(theirs.fileno()), *arguments],
                    pass_fds=[theirs.fileno()],
                    env={**environment, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                    cwd="/",
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                )
            except OSError:
                ours.close()
                raise
        return cls(process, ours)

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """``True`` until the process has ended."""
        return self._process.poll() is None

    def send_job(self, message: bytes, descriptors: Sequence[int]) -> None:
        """Send a job with descriptors for its child; they stay open here.

        Raises:
            OSError: the fork server has died.
        """
        socket.send_fds(self._control, [message], descriptors)

    def stop(self, timeout_s: float = 0.0) -> None:
        """Close the socket, upon which the fork server ends; kill it if that takes longer than ``timeout_s``."""
        self._control.close()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
