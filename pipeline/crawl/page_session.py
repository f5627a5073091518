"""Holds the session with a process that reads the pages of one link."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from importlib.metadata import version

from pipeline.crawl.diagnosis import NETWORK_KINDS, diagnose
from pipeline.crawl.extractor_messages import ExtractedPage, ExtractFailure, Message, RecordingWritten, decode
from pipeline.crawl.extractor_process import BLOCK_BYTES, ExtractorProcess
from pipeline.errors import MurmurationError, ReplicaLost, SourceTooLarge
from pipeline.net import GuardingProxy

logger = logging.getLogger(__name__)

GRACE_S = 5.0
"""Seconds after its timeout at which the kernel ends a process that the session has not ended."""

OUT_OF_ORDER = ExtractFailure("OutOfTurn", "the process sent a message out of order")
"""The failure of a process that sends another message than the session waits for."""


def library_version() -> str:
    """Return the version of the installed yt-dlp."""
    return version("yt-dlp")


@dataclass(slots=True)
class PageSession:
    """A session with one process; made by ``ExtractorProcesses.open_session``."""

    _site: str
    _proxy: GuardingProxy
    _process: ExtractorProcess

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
