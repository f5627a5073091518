"""Our side of the conversation with the processes that read pages."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import httpx

from pipeline.crawl.diagnosis import NETWORK_KINDS, diagnose
from pipeline.crawl.wire import Done, ExtractRequest, Found, Message, Trouble, decode
from pipeline.errors import MurmurationError, ReplicaLost, SourceTooLarge
from pipeline.net import GuardingProxy

logger = logging.getLogger(__name__)

MAX_LINE_BYTES = 4 * 1024 * 1024
BLOCK_BYTES = 64 * 1024
GRACE_S = 5.0
"""The kernel ends a process this long after we should have."""
FAREWELL_S = 5.0
"""How long the parent of the processes may take to end."""


def library_version() -> str:
    """Which yt-dlp is installed."""
    return version("yt-dlp")


class ExtractorProcesses:
    """Starts a process for every link, from a parent that has yt-dlp loaded; see ``zygote``.

    Args:
        ca_file: whom TLS trusts instead of certifi's authorities.
    """

    def __init__(self, ca_file: Path | None = None) -> None:
        self._ca_file = ca_file
        self._zygote: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def start(self) -> None:
        """Starts the parent, unless it lives."""
        if self._zygote is not None and self._zygote.poll() is None:
            return
        self._close_control()
        self._control, theirs = socket.socketpair()
        with theirs:
            self._zygote = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-P", "-m", "pipeline.crawl.zygote", str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                env=self._environment(),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )

    async def aclose(self) -> None:
        """Ends the parent; the processes end with their conversations."""
        self._close_control()
        if self._zygote is not None:
            await asyncio.to_thread(_wait_or_kill, self._zygote)
            self._zygote = None

    @asynccontextmanager
    async def conversation(self, request: ExtractRequest, site: str, proxy: GuardingProxy) -> AsyncIterator[Extraction]:
        """A process that works on a request, until the block ends; ``scratch`` is filled in here.

        Args:
            request: what is to be found out.
            site: the link's host, for the sentences of errors.
            proxy: what the process connects by.

        Raises:
            ReplicaLost: no process could be started.
        """
        scratch = await asyncio.to_thread(tempfile.mkdtemp, prefix="murmuration-crawl-")
        try:
            ours, data_fd = self._fork()
            reader, writer = await asyncio.open_unix_connection(sock=ours, limit=MAX_LINE_BYTES)
            data, transport = await _pipe_reader(data_fd)
            try:
                writer.write(self._completed(request, scratch).encode())
                yield Extraction(site, proxy, reader, writer, data)
            finally:
                writer.close()  # which ends the process
                transport.close()
        finally:
            await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)

    def _fork(self) -> tuple[socket.socket, int]:
        """Our ends of a new process's conversation and data."""
        ours, theirs = socket.socketpair()
        read_fd, write_fd = os.pipe()
        try:
            self.start()
            assert self._control is not None  # noqa: S101 (start made it)
            socket.send_fds(self._control, [b"1"], [theirs.fileno(), write_fd])
        except OSError as error:
            ours.close()
            os.close(read_fd)
            raise ReplicaLost("The process that reads pages has died.") from error
        finally:
            theirs.close()
            os.close(write_fd)
        ours.setblocking(False)
        return ours, read_fd

    def _completed(self, request: ExtractRequest, scratch: str) -> ExtractRequest:
        own_authorities = self._ca_file is not None
        timeout_s = request.timeout_s + GRACE_S
        return replace(request, scratch=scratch, timeout_s=timeout_s, system_authorities=own_authorities)

    def _environment(self) -> dict[str, str]:
        """Nothing of ours but where modules are: the environment holds the service's secrets."""
        environment = {
            "PATH": "",
            "LANG": "C.UTF-8",
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "PYTHONDONTWRITEBYTECODE": "1",
            "YTDLP_NO_PLUGINS": "1",
        }
        return environment | ({"SSL_CERT_FILE": str(self._ca_file)} if self._ca_file else {})

    def _close_control(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None


@dataclass(slots=True)
class Extraction:
    """One process at work; made by ``ExtractorProcesses.conversation``."""

    _site: str
    _proxy: GuardingProxy
    _reader: asyncio.StreamReader
    _writer: asyncio.StreamWriter
    _data: asyncio.StreamReader

    async def found(self) -> Found:
        """What the page leads to.

        Raises:
            MurmurationError: what ``diagnosis`` makes of the trouble.
        """
        message = await self._next()
        if isinstance(message, Found) and not self._proxy.exhausted:
            return message
        raise self._error(message)

    async def media(self, timeout_s: float) -> AsyncGenerator[bytes, None]:
        """The recording, put together by the process; raises as ``found``."""
        self._writer.write(f"{timeout_s + GRACE_S:.3f}\n".encode())
        message = asyncio.create_task(self._next())
        try:
            while block := await self._data.read(BLOCK_BYTES):
                yield block
            if not isinstance(ended := await message, Done) or self._proxy.exhausted:
                raise self._error(ended)
        finally:
            message.cancel()
            with contextlib.suppress(asyncio.CancelledError, MurmurationError):
                await message

    async def _next(self) -> Message:
        try:
            line = await self._reader.readline()
            if not line:
                raise ReplicaLost(f"The process that read the pages of {self._site} died.")
            return decode(line)
        except ValueError as error:
            raise ReplicaLost(
                f"The process that read the pages of {self._site} does not answer as it should."
            ) from error

    def _error(self, message: Message) -> MurmurationError:
        trouble = message if isinstance(message, Trouble) else Trouble("OutOfTurn", "it answered out of turn")
        logger.info(
            "no recording at a link",
            extra={"site": self._site, "kind": trouble.kind, "reason": trouble.message, "status": trouble.status},
        )
        if self._proxy.exhausted:
            return SourceTooLarge(f"{self._site} sends more than the {self._proxy.max_bytes:,} bytes that are taken.")
        if self._proxy.refusals and (trouble.kind in NETWORK_KINDS or trouble.status in (403, 502)):
            return self._proxy.refusals[-1]
        return diagnose(trouble, self._site, library_version())


async def _pipe_reader(read_fd: int) -> tuple[asyncio.StreamReader, asyncio.ReadTransport]:
    reader = asyncio.StreamReader(limit=BLOCK_BYTES)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read_fd, "rb", 0)
    )
    return reader, transport


def _wait_or_kill(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(FAREWELL_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def host_of(url: str) -> str:
    """A URL's host, for sentences and settings."""
    try:
        return httpx.URL(url).host.removeprefix("www.")
    except httpx.InvalidURL:
        return "that address"
