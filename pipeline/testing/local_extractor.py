"""An extractor of audio in this process."""

from __future__ import annotations

import io
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import BinaryIO

from typing_extensions import override

from pipeline.domain.audio.extraction import ExtractionOptions
from pipeline.errors import ExtractionsFull
from pipeline.media.audio_extraction import extract_audio
from pipeline.ports import AudioExtractor


class LocalExtractor(AudioExtractor):
    """An ``AudioExtractor`` that keeps its files in memory and runs in the calling thread.

    Args:
        places: number of extractions at the same time.
        max_duration_s: longest recording that is accepted.

    Attributes:
        files: all files, in order.
        clients: client of each extraction, in order.
    """

    def __init__(self, places: int = 1, max_duration_s: float = 600.0) -> None:
        self.places = places
        self.max_duration_s = max_duration_s
        self.files: list[io.BytesIO] = []
        self.clients: list[str | None] = []

    @asynccontextmanager
    @override
    async def place(self, client: str | None = None) -> AsyncIterator[None]:
        if not self.places:
            raise ExtractionsFull("All places are taken; try again later.", 10)
        self.places -= 1
        try:
            yield
        finally:
            self.places += 1

    @override
    async def receive(self, data: AsyncIterator[bytes]) -> BinaryIO:
        file = self._file()
        async for block in data:
            file.write(block)
        return file

    @override
    async def extract(
        self,
        source: BinaryIO,
        wanted: ExtractionOptions,
        client: str | None = None,
        progress: Callable[[float], None] = lambda _decoded_s: None,
    ) -> BinaryIO:
        self.clients.append(client)
        source.seek(0)
        target = self._file()
        try:
            extract_audio(source, target, wanted, self.max_duration_s, progress)
        except BaseException:
            target.close()
            raise
        return target

    @override
    async def blocks(self, file: BinaryIO) -> AsyncGenerator[bytes]:
        file.seek(0)
        while block := file.read(65_536):
            yield block

    def _file(self) -> io.BytesIO:
        self.files.append(io.BytesIO())
        return self.files[-1]
