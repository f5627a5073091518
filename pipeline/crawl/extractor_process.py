"""One process that reads pages, as the service sees it: its messages, its scratch folder and its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.crawl.extractor_messages import CONFINED_MESSAGE, ExtractRequest, ProbeReport, decode
from pipeline.errors import ReplicaLost

MAX_LINE_BYTES = 512 * 1024
BLOCK_BYTES = 64 * 1024
EXIT_TIMEOUT_S = 5.0
"""Seconds that the fork server, or a process that was killed, may take to end."""
READY_TIMEOUT_S = 60.0
"""Seconds that a process may take to confine itself; the first one waits until yt-dlp is loaded."""
SCRATCH_CHECK_S = 0.25
"""Interval at which the size of a scratch folder is checked."""
FOLDER_ENTRY_BYTES = 4096
"""Bytes that an empty file counts as."""


@dataclass(slots=True)
class ExtractorProcess:
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


def _exceeds(folder: str, max_bytes: int) -> bool:
    """Return whether a folder's files use more disk space than allowed; each counts at least ``FOLDER_ENTRY_BYTES``."""
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                max_bytes -= max(FOLDER_ENTRY_BYTES, entry.stat(follow_symlinks=False).st_blocks * 512)
            if max_bytes < 0:
                return True
    return False
