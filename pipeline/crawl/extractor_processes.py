"""Starts the processes that read pages, and holds sessions with them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import socket
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import httpx

from pipeline.confinement.fork_server_process import ForkServerProcess
from pipeline.confinement.probe import targets
from pipeline.crawl.diagnosis import NETWORK_KINDS, diagnose
from pipeline.crawl.extractor_messages import (
    CONFINED_MESSAGE,
    ExtractedPage,
    ExtractFailure,
    ExtractRequest,
    Message,
    ProbeReport,
    RecordingWritten,
    decode,
)
from pipeline.domain.confinement_level import Confinement, confinement_of
from pipeline.domain.scheduling.fair_queue import SlotLimits, TurnRequest
from pipeline.errors import MurmurationError, ReplicaLost, SourceTooLarge
from pipeline.fair_slots import FairSlots
from pipeline.net import GuardingProxy
from pipeline.ports import Clock
from pipeline.system_clock import SystemClock

logger = logging.getLogger(__name__)

MAX_LINE_BYTES = 512 * 1024
BLOCK_BYTES = 64 * 1024
MAX_PROCESSES = 16
GRACE_S = 5.0
"""Seconds after its timeout at which the kernel ends a process that the session has not ended."""
EXIT_TIMEOUT_S = 5.0
"""Seconds that the fork server, or a process that was killed, may take to end."""
READY_TIMEOUT_S = 60.0
"""Seconds that a process may take to confine itself; the first one waits until yt-dlp is loaded."""
SCRATCH_CHECK_S = 0.25
"""Interval at which the size of a scratch folder is checked."""
FOLDER_ENTRY_BYTES = 4096
"""Bytes that an empty file counts as."""
UNUSED_PORT = 9
"""TCP port of the proxy in a request that makes no connections (discard, RFC 863)."""
PROBE_BYTES = 256 * 1024 * 1024
"""Memory limit of the process that tries forbidden acts."""

OUT_OF_ORDER = ExtractFailure("OutOfTurn", "the process sent a message out of order")
"""The failure of a process that sends another message than the session waits for."""


def library_version() -> str:
    """Return the version of the installed yt-dlp."""
    return version("yt-dlp")


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
        self._places = FairSlots(limits, clock or SystemClock())
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
        async with self._places.turn(turn), self._process(request) as process:
            if (listener := process.detach_listener()) is not None:
                await proxy.accept_from(listener)
            yield PageSession(site, proxy, process)

    @asynccontextmanager
    async def _process(self, request: ExtractRequest) -> AsyncIterator[_ExtractorProcess]:
        """Start a confined process, and kill it when the block ends."""
        scratch = await asyncio.to_thread(tempfile.mkdtemp, prefix="murmuration-crawl-")
        try:
            ours, data_fd, status_fd = self._fork(scratch)
            data, transport = await _pipe_reader(data_fd)
            process = _ExtractorProcess(scratch, 2 * request.max_process_bytes, ours, data, status_fd)
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


@dataclass(slots=True)
class _ExtractorProcess:
    """A running process.

    Attributes:
        scratch: path of its scratch folder.
        max_scratch_bytes: largest total size of the files in that folder.
        data: the recording, as the process writes it.
        listener: the socket that it connects to, if it has a network of its own.
        overflowed: whether it was killed because its folder became too large.
    """

    scratch: str
    max_scratch_bytes: int
    _socket: socket.socket
    data: asyncio.StreamReader
    _status_fd: int
    listener: socket.socket | None = None
    overflowed: bool = False
    _reader: asyncio.StreamReader | None = None
    _writer: asyncio.StreamWriter | None = None
    _watching: asyncio.Task[None] | None = None

    async def send_request(self, request: ExtractRequest) -> None:
        """Send the request, and wait until the process is confined.

        Raises:
            ReplicaLost: the process ended before.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                await loop.sock_sendall(self._socket, request.encode())
                await _until_readable(self._socket)
            message, descriptors, _, _ = socket.recv_fds(self._socket, len(CONFINED_MESSAGE), 1)
        except OSError as error:  # a timeout among them
            raise ReplicaLost("The process that reads pages has died.") from error
        if message != CONFINED_MESSAGE:
            raise ReplicaLost("The process that reads pages has died.")
        self.listener = socket.socket(fileno=descriptors[0]) if descriptors else None
        self._reader, self._writer = await asyncio.open_unix_connection(sock=self._socket, limit=MAX_LINE_BYTES)
        self._watching = asyncio.create_task(self._watch_scratch())

    def detach_listener(self) -> socket.socket | None:
        """Return the socket that the process connects to, once. The caller owns it from then on and must close it."""
        listener, self.listener = self.listener, None
        return listener

    async def read_line(self) -> bytes:
        """Return the next line of the process; empty once it has ended.

        Raises:
            ValueError: the line is too long.
        """
        return await self._reader.readline() if self._reader else b""

    def send(self, line: str) -> None:
        """Send a line."""
        if self._writer:
            self._writer.write(f"{line}\n".encode())

    async def probe_results(self) -> Mapping[str, Mapping[str, str]]:
        """Return the results of the forbidden acts.

        Raises:
            ReplicaLost: the process ended before it could answer.
        """
        message = decode(line) if (line := await self.read_line()) else None
        if not isinstance(message, ProbeReport):
            raise ReplicaLost("The process that tries forbidden acts has died.")
        return message.results

    async def end(self) -> None:
        """Kill the process, and wait until it has ended."""
        self._kill()  # before the first await, which may be cancelled
        (self._writer or self._socket).close()
        if self.listener is not None:
            self.listener.close()
        if self._watching:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(EXIT_TIMEOUT_S):
                while await self.data.read(BLOCK_BYTES):  # its end of the pipe is closed with it
                    pass

    def _kill(self) -> None:
        """Close the status pipe, upon which the fork server kills the process."""
        if self._status_fd >= 0:
            os.close(self._status_fd)
            self._status_fd = -1

    async def _watch_scratch(self) -> None:
        """Kill the process when its scratch folder becomes too large."""
        while not self.overflowed:
            await asyncio.sleep(SCRATCH_CHECK_S)
            self.overflowed = await asyncio.to_thread(_exceeds, self.scratch, self.max_scratch_bytes)
        self._kill()


async def _until_readable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(sock, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(sock)


def _remove(folder: Path) -> None:
    """Remove a scratch folder, which the fork server may be removing at the same time."""
    for _ in range(100):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.01)


def _exceeds(folder: str, max_bytes: int) -> bool:
    """Return whether a folder's files use more disk space than allowed; each counts at least ``FOLDER_ENTRY_BYTES``."""
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                max_bytes -= max(FOLDER_ENTRY_BYTES, entry.stat(follow_symlinks=False).st_blocks * 512)
            if max_bytes < 0:
                return True
    return False


@dataclass(slots=True)
class PageSession:
    """A session with one process; made by ``ExtractorProcesses.open_session``."""

    _site: str
    _proxy: GuardingProxy
    _process: _ExtractorProcess

    async def read_page(self) -> ExtractedPage:
        """Return the recording that the page leads to.

        Raises:
            MurmurationError: the page leads to no recording (``diagnosis``), or the process died.
        """
        message = await self._read_message()
        if isinstance(message, ExtractedPage) and not self._proxy.exhausted:
            return message
        raise self._error(message)

    def allow_bytes(self, more_bytes: int) -> None:
        """Allow this many bytes in addition to those received for the pages."""
        self._proxy.max_bytes = self._proxy.received + more_bytes

    async def read_recording(self, timeout_s: float) -> AsyncGenerator[bytes, None]:
        """Yield the recording, which the process assembles. Raises as ``read_page``.

        Args:
            timeout_s: most seconds that the recording may take.
        """
        self._process.send(f"{timeout_s + GRACE_S:.3f}")
        message = asyncio.create_task(self._read_message())
        try:
            while block := await self._process.data.read(BLOCK_BYTES):
                yield block
            if not isinstance(end := await message, RecordingWritten) or self._proxy.exhausted:
                raise self._error(end)
        finally:
            message.cancel()
            with contextlib.suppress(asyncio.CancelledError, MurmurationError):
                await message

    async def _read_message(self) -> Message:
        try:
            line = await self._process.read_line()
            if line:
                return decode(line)
        except ValueError as error:
            raise ReplicaLost(f"The process that read the pages of {self._site} sent an invalid message.") from error
        if self._process.overflowed:
            raise SourceTooLarge(f"{self._site} sends a part of a recording that is larger than allowed.")
        raise ReplicaLost(f"The process that read the pages of {self._site} died.")

    def _error(self, message: Message) -> MurmurationError:
        failure = message if isinstance(message, ExtractFailure) else OUT_OF_ORDER
        logger.info(
            "a link led to no recording",
            extra={"site": self._site, "kind": failure.kind, "reason": failure.message, "status": failure.status},
        )
        if self._proxy.exhausted:
            return SourceTooLarge(f"{self._site} sends more than the {self._proxy.max_bytes:,} bytes that are allowed.")
        if self._proxy.refusals and (failure.kind in NETWORK_KINDS or failure.status in (403, 502)):
            return self._proxy.refusals[-1]
        return diagnose(failure, self._site, library_version())


async def _pipe_reader(read_fd: int) -> tuple[asyncio.StreamReader, asyncio.ReadTransport]:
    reader = asyncio.StreamReader(limit=BLOCK_BYTES)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read_fd, "rb", 0)
    )
    return reader, transport


def host_name_of(url: str) -> str:
    """Return a URL's host without ``www.``, for error sentences and settings."""
    try:
        return httpx.URL(url).host.removeprefix("www.")
    except httpx.InvalidURL:
        return "that address"
