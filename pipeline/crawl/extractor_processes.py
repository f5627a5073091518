"""Starts the processes that read pages, one for each link, and opens sessions with them."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from pipeline.confinement.fork_server_process import ForkServerProcess
from pipeline.confinement.probe import targets
from pipeline.crawl.extractor_messages import ExtractRequest
from pipeline.crawl.extractor_process import BLOCK_BYTES, EXIT_TIMEOUT_S, READY_TIMEOUT_S, ExtractorProcess
from pipeline.crawl.page_session import GRACE_S, PageSession
from pipeline.domain.confinement_level import Confinement, confinement_of
from pipeline.domain.scheduling.fair_queue import SlotLimits, TurnRequest
from pipeline.errors import ReplicaLost
from pipeline.fair_slots import FairSlots
from pipeline.net import GuardingProxy
from pipeline.ports import Clock
from pipeline.system_clock import SystemClock

MAX_PROCESSES = 16
UNUSED_PORT = 9
"""TCP port of the proxy in a request that makes no connections (discard, RFC 863)."""
PROBE_BYTES = 256 * 1024 * 1024
"""Memory limit of the process that tries forbidden acts."""


class ExtractorProcesses:
    """The processes that read pages, one for each link, forked by ``extractor_fork_server``.

    Args:
        ca_file: authorities that TLS trusts instead of certifi's.
        max_processes: most processes at the same time; further links wait. One host gets at most half of them, and one
            client leaves half of them to others.
        clock: for the ageing of links that wait.
    """

    def __init__(
        self, ca_file: Path | None = None, max_processes: int = MAX_PROCESSES, clock: Clock | None = None
    ) -> None:
        self._ca_file = ca_file
        limits = SlotLimits(max_processes, max_per_host=max(1, max_processes // 2), reserve=True)
        self._slots = FairSlots(limits, clock or SystemClock())
        self._fork_server: ForkServerProcess | None = None

    def start(self) -> None:
        """Start the fork server, unless it is running."""
        self._running_server()

    async def aclose(self) -> None:
        """End the fork server. The processes end with their sessions."""
        server, self._fork_server = self._fork_server, None
        if server is not None:
            await asyncio.to_thread(server.stop, EXIT_TIMEOUT_S)

    async def confinement(self, js_runtime: str | None = None) -> Confinement:
        """Let a process try forbidden acts, and return which parts of its confinement hold.

        Args:
            js_runtime: path of the program that processes may start.

        Raises:
            ReplicaLost: the process ended before it could answer.
        """
        with targets(PROBE_BYTES) as aims:
            request = ExtractRequest(
                url="",
                extractors=(),
                formats="",
                proxy=f"http://127.0.0.1:{UNUSED_PORT}",
                timeout_s=READY_TIMEOUT_S,
                max_process_bytes=PROBE_BYTES,
                scratch="",
                js_runtime=js_runtime,
                targets=aims.encode(),
            )
            async with self._process(request) as process:
                return confinement_of(await process.probe_results())

    @asynccontextmanager
    async def open_session(
        self, request: ExtractRequest, site: str, proxy: GuardingProxy, turn: TurnRequest
    ) -> AsyncIterator[PageSession]:
        """Open a session with a process that works on a request; it lasts until the block ends.

        Args:
            request: the page to read; its ``scratch`` is set here.
            site: the link's host, for the sentences of errors.
            proxy: the proxy that the process connects through.
            turn: the client that shares the processes, and the priority of the link.

        Raises:
            ReplicaLost: no process could be started.
        """
        async with self._slots.turn(turn), self._process(request) as process:
            if (listener := process.detach_listener()) is not None:
                await proxy.accept_from(listener)
            yield PageSession(site, proxy, process)

    @asynccontextmanager
    async def _process(self, request: ExtractRequest) -> AsyncIterator[ExtractorProcess]:
        """Start a confined process, and kill it when the block ends."""
        scratch = await asyncio.to_thread(tempfile.mkdtemp, prefix="murmuration-crawl-")
        try:
            ours, data_fd, status_fd = self._fork(scratch)
            data, transport = await _pipe_reader(data_fd)
            process = ExtractorProcess(scratch, 2 * request.max_process_bytes, ours, data, status_fd)
            try:
                await process.send_request(self._complete_request(request, scratch))
                yield process
            finally:
                await process.end()
                transport.close()
        finally:
            await asyncio.to_thread(_remove, Path(scratch))

    def _fork(self, scratch: str) -> tuple[socket.socket, int, int]:
        """Fork a process; return the service's ends of its session socket, data pipe and status pipe."""
        ours, theirs = socket.socketpair()
        data, status = os.pipe(), os.pipe()
        try:
            self._running_server().send_job(os.fsencode(scratch), [theirs.fileno(), data[1], status[1]])
        except OSError as error:
            ours.close()
            os.close(data[0])
            os.close(status[0])
            raise ReplicaLost("The process that reads pages has died.") from error
        finally:
            theirs.close()
            os.close(data[1])
            os.close(status[1])
        ours.setblocking(False)
        return ours, data[0], status[0]

    def _complete_request(self, request: ExtractRequest, scratch: str) -> ExtractRequest:
        own_authorities = self._ca_file is not None
        timeout_s = request.timeout_s + GRACE_S
        return replace(request, scratch=scratch, timeout_s=timeout_s, system_authorities=own_authorities)

    def _running_server(self) -> ForkServerProcess:
        if self._fork_server is None or not self._fork_server.running:
            if self._fork_server is not None:
                self._fork_server.stop()
            self._fork_server = ForkServerProcess.start(
                "pipeline.crawl.extractor_fork_server", environment=self._environment()
            )
        return self._fork_server

    def _environment(self) -> dict[str, str]:
        environment = {
            "PATH": "",
            "LANG": "C.UTF-8",
            "PYTHONDONTWRITEBYTECODE": "1",
            "YTDLP_NO_PLUGINS": "1",
        }
        return environment | ({"SSL_CERT_FILE": str(self._ca_file)} if self._ca_file else {})


async def _pipe_reader(read_fd: int) -> tuple[asyncio.StreamReader, asyncio.ReadTransport]:
    reader = asyncio.StreamReader(limit=BLOCK_BYTES)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read_fd, "rb", 0)
    )
    return reader, transport


def _remove(folder: Path) -> None:
    """Remove a scratch folder, which the fork server may be removing at the same time."""
    for _ in range(100):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.01)
