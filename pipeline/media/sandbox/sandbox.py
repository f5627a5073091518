"""The sandbox from the outside: starting its fork server, and children for recordings."""

from __future__ import annotations

import io
import json
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

from pipeline.confinement.fork_server_process import ForkServerProcess
from pipeline.confinement.probe import targets
from pipeline.domain.confinement_level import Confinement, confinement_of
from pipeline.media.sandbox.decoder_child import DecoderChild
from pipeline.media.sandbox.decoder_messages import Wire

CHILD_TIMEOUT_S = 300.0
"""Silence after which a child counts as hanging. A child that works reaches its limit of processor time before."""

_MEBIBYTE = 1024 * 1024
_PASSED_VARIABLES = ("LD_LIBRARY_PATH", "LANG", "TZ")
"""Environment variables that the fork server inherits; others may hold secrets."""


@dataclass(frozen=True, slots=True)
class SandboxLimits:
    """The resources that a child may use.

    Attributes:
        cpu_s: processor seconds for any recording.
        cpu_s_per_mib: additional processor seconds for each MiB of the recording.
        memory_bytes: memory in addition to that of the loaded codecs.
    """

    cpu_s: float = 120.0
    cpu_s_per_mib: float = 20.0
    memory_bytes: int = 512 * _MEBIBYTE

    def cpu_s_for(self, size_bytes: int) -> int:
        """Return the processor seconds that a recording of this size may use."""
        return int(self.cpu_s + self.cpu_s_per_mib * size_bytes / _MEBIBYTE)


class Sandbox:
    """A fork server and its children, each of which opens one recording.

    The fork server is started on first use or by ``start``, and again if it has died. All methods are thread-safe.

    Args:
        limits: resources of one child.
        niceness: added to the niceness of this process, for background work.
    """

    def __init__(self, limits: SandboxLimits, niceness: int = 0) -> None:
        self._limits = limits
        self._niceness = niceness
        self._lock = threading.Lock()
        self._fork_server: ForkServerProcess | None = None

    def start(self) -> None:
        """Start the fork server without waiting for it, which would take half a second."""
        with self._lock:
            self._running_server()

    def close(self) -> None:
        """End the fork server and all children."""
        with self._lock:
            self._stop()

    def confinement(self) -> Confinement:
        """Let a child try every forbidden act, and return the confinement that holds.

        Raises:
            DecoderCrashed: the child died before it sent its results.
        """
        with (
            targets(self._limits.memory_bytes) as probe_targets,
            self.child("probe", io.BytesIO(), targets=probe_targets.encode()) as child,
        ):
            for _ in child.messages():
                pass
            return confinement_of(child.result)

    @contextmanager
    def child(self, name: str, file: BinaryIO, **arguments: Any) -> Iterator[DecoderChild]:
        """Provide a child that runs a job on a recording; end it when the block is left.

        Args:
            name: name of the job (``decoder_jobs``).
            file: the recording, seekable; read in the thread that iterates over the child's messages.
            arguments: arguments of the job, as JSON values.
        """
        size = file.seek(0, io.SEEK_END)
        job = {
            "name": name,
            "size": size,
            "arguments": arguments,
            "cpu_s": self._limits.cpu_s_for(size),
            "memory_bytes": self._limits.memory_bytes,
        }
        with ExitStack() as stack:
            ours, theirs = (stack.enter_context(end) for end in socket.socketpair())
            status, report = os.pipe()
            stack.callback(os.close, status)
            try:
                self._request_child(job, theirs.fileno(), report)
            finally:
                os.close(report)
                theirs.close()
            ours.settimeout(CHILD_TIMEOUT_S)
            yield DecoderChild(Wire(ours), status, file)

    def _request_child(self, job: Mapping[str, Any], *descriptors: int) -> None:
        message = json.dumps(job).encode()
        with self._lock:
            try:
                self._running_server().send_job(message, descriptors)
            except OSError:  # the fork server has died
                self._stop()
                self._running_server().send_job(message, descriptors)

    def _running_server(self) -> ForkServerProcess:
        if self._fork_server is None or not self._fork_server.running:
            self._stop()
            self._fork_server = _start_fork_server(self._niceness)
        return self._fork_server

    def _stop(self) -> None:
        if self._fork_server is not None:
            self._fork_server.stop()
            self._fork_server = None


def _start_fork_server(niceness: int) -> ForkServerProcess:
    environment = {name: os.environ[name] for name in _PASSED_VARIABLES if name in os.environ}
    environment["OPENBLAS_NUM_THREADS"] = "1"
    return ForkServerProcess.start("pipeline.media.sandbox.decoder_fork_server", str(niceness), environment=environment)
