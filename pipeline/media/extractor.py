"""Sound taken out of recordings for clients who wait for it: few at a time, off the event loop, out of our process."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import BinaryIO, cast

from pipeline.domain.extraction import Extraction
from pipeline.errors import ExtractionsFull
from pipeline.media.blocking import in_worker
from pipeline.media.sandbox.parent import Sandbox, extract_in
from pipeline.media.storage_failures import named_storage_failures
from pipeline.settings import MediaSettings

BLOCK_BYTES = 256 * 1024
MAX_OUTPUT_BYTES = 2**32 - 1
"""What a WAV file's header can say of its size."""
RETRY_AFTER_S = 10
NO_ROOM = "The server has no room left for temporary files; try again later."


class SandboxedExtractor:
    """``ports.AudioExtractor`` with a child process for each recording."""

    def __init__(self, sandbox: Sandbox, settings: MediaSettings) -> None:
        self._sandbox = sandbox
        self._settings = settings
        self._running = asyncio.Semaphore(settings.max_extractions)
        self._workers = ThreadPoolExecutor(settings.max_extractions, "extract")
        self._files = ThreadPoolExecutor(2, "extract-files")
        self._admitted = 0

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """See ``ports.AudioExtractor.place``."""
        limit = self._settings.max_extractions + self._settings.max_waiting_extractions
        if self._admitted >= limit:
            raise ExtractionsFull(
                f"{self._admitted} recordings are being extracted or wait for it: try later.", RETRY_AFTER_S
            )
        self._admitted += 1
        try:
            yield
        finally:
            self._admitted -= 1

    async def receive(self, data: AsyncIterator[bytes]) -> BinaryIO:
        """See ``ports.AudioExtractor.receive``."""
        file = _scratch()
        try:
            async for block in data:
                await in_worker(self._files, _write, file, block)
        except BaseException:
            file.close()
            raise
        return file

    async def extract(
        self, source: BinaryIO, wanted: Extraction, progress: Callable[[float], None] = lambda _decoded_s: None
    ) -> BinaryIO:
        """See ``ports.AudioExtractor.extract``."""
        target = _scratch()
        try:
            async with self._running:
                await self._run(source, target, wanted, progress)
        except BaseException:
            target.close()
            raise
        return target

    async def _run(
        self, source: BinaryIO, target: BinaryIO, wanted: Extraction, progress: Callable[[float], None]
    ) -> None:
        steps = extract_in(
            self._sandbox,
            source,
            target,
            wanted,
            max_duration_s=self._settings.max_duration_s,
            max_bytes=min(self._settings.max_upload_bytes, MAX_OUTPUT_BYTES),
        )
        try:
            while (decoded_s := await in_worker(self._workers, _step, steps)) is not None:
                progress(decoded_s)
        finally:  # a client that has gone away takes the child with it
            await in_worker(self._workers, steps.close)

    async def blocks(self, file: BinaryIO) -> AsyncGenerator[bytes]:
        """See ``ports.AudioExtractor.blocks``."""
        await in_worker(self._files, file.seek, 0)
        while block := await in_worker(self._files, file.read, BLOCK_BYTES):
            yield block


def _scratch() -> BinaryIO:
    """A file without a name, in the system's temporary folder: it is gone when it is closed, or we are."""
    return cast("BinaryIO", tempfile.TemporaryFile())


def _write(file: BinaryIO, block: bytes) -> None:
    with named_storage_failures(NO_ROOM):
        file.write(block)


def _step(steps: Generator[float]) -> float | None:
    with named_storage_failures(NO_ROOM):
        return next(steps, None)
