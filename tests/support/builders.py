"""Values of the domain with only what a test is about, and bodies in blocks."""

from __future__ import annotations

from collections.abc import AsyncIterator

from pipeline.domain.audio.spans import Span, to_samples
from pipeline.domain.decoding.transcript import Segment, Transcript, TranscriptInfo, Word


async def blocks(*data: bytes, then: BaseException | None = None) -> AsyncIterator[bytes]:
    """Yield blocks of a body, then raise ``then``, if there is one."""
    for block in data:
        yield block
    if then is not None:
        raise then


async def note_sizes(body: AsyncIterator[bytes], sizes: list[int]) -> None:
    """Append the size of each block of a body to a list as it arrives."""
    async for block in body:
        sizes += [len(block)]


def span(start_s: float, end_s: float) -> Span:
    """Make a span from seconds."""
    return Span(to_samples(start_s), to_samples(end_s))


def transcript_of(*segments: Segment, duration_s: float = 7200.0, language: str = "en") -> Transcript:
    """Make a transcript of segments; all of the recording is speech."""
    text = " ".join(one.text.strip() for one in segments)
    return Transcript(text, segments, TranscriptInfo(language, 1.0, duration_s, duration_s))


def segment(
    start: float,
    end: float,
    text: str = " said",
    words: tuple[Word, ...] | None = None,
    *,
    tokens: tuple[int, ...] = (1,),
    seek: int = 0,
    id: int = 0,  # noqa: A002  # the field's name
) -> Segment:
    """Make a segment of unremarkable figures."""
    return Segment(id, seek, start, end, text, tokens, 0.0, -0.2, 1.0, 0.0, words)


def words_of(one: Segment) -> tuple[Word, ...]:
    """Return the words of a segment that was decoded with them."""
    assert one.words is not None
    return one.words


def segment_of(*words: Word, tokens: tuple[int, ...] = ()) -> Segment:
    """Make a segment that consists of its words."""
    return segment(words[0].start, words[-1].end, "".join(one.word for one in words), words=words, tokens=tokens)
