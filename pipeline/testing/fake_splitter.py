"""A Splitter with prescribed parts, and the chunks that tests make."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from typing_extensions import override

from pipeline.domain.audio.spans import SAMPLE_RATE, Chunk, Span
from pipeline.domain.audio.tracks import Track
from pipeline.errors import MurmurationError
from pipeline.ports import SplitDone, SplitPart, SplitRequest, Splitter

TRACKS = (Track(0, "aac", "eng", channels=2, default=True, chosen=True),)
"""Audio tracks of every recording that a ``FakeSplitter`` splits."""


def make_chunks(number: int, *, first: int = 0, seconds: float = 10.0, part: int = 0) -> tuple[Chunk, ...]:
    """Return chunks of equal length that follow each other on the timeline."""
    step = int(seconds * SAMPLE_RATE)
    return tuple(Chunk(i, part, 0, (Span(i * step, (i + 1) * step),)) for i in range(first, first + number))


class FakeSplitter(Splitter):
    """A ``Splitter`` with prescribed parts, each a tuple of chunks.

    Attributes:
        requests: all requests, in order.
        failure: error to raise after the parts, in place of ``SplitDone``.
    """

    def __init__(self, *parts: tuple[Chunk, ...], failure: MurmurationError | None = None) -> None:
        self._parts = parts
        self.failure = failure
        self.requests: list[SplitRequest] = []

    @override
    async def split(self, request: SplitRequest) -> AsyncGenerator[SplitPart | SplitDone, None]:
        self.requests.append(request)
        end = 0
        for number, chunks in enumerate(self._parts):
            start, end = end, max([end, *(chunk.spans[-1].end for chunk in chunks)])
            if number >= request.first_part:
                yield SplitPart(number, start, end, chunks)
        if self.failure is not None:
            raise self.failure
        yield SplitDone(end / SAMPLE_RATE, truncated=False, tracks=TRACKS)
