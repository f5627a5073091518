"""Values of the domain with only what a test is about, and bodies in blocks."""

from __future__ import annotations

from collections.abc import AsyncIterator

from pipeline.domain.decoding.transcript import Segment, Word


async def blocks(*data: bytes, then: BaseException | None = None) -> AsyncIterator[bytes]:
    """Yield blocks of a body, then raise ``then``, if there is one."""
    for block in data:
        yield block
    if then is not None:
        raise then


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


def segment_of(*words: Word, tokens: tuple[int, ...] = ()) -> Segment:
    """Make a segment that consists of its words."""
    return segment(words[0].start, words[-1].end, "".join(one.word for one in words), words=words, tokens=tokens)
