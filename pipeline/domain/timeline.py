"""Putting what was heard in a chunk, whose silences were cut out, back on the recording's own timeline."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from pipeline.domain.audio import Chunk
from pipeline.domain.transcript import Segment, Word


def place(chunk: Chunk, segments: Iterable[Segment]) -> tuple[Segment, ...]:
    """Segments with times on the original timeline, none beyond the chunk, without empty ones.

    Args:
        chunk: where the audio comes from.
        segments: with times in seconds from the chunk's first sample, in order.
    """
    placed = (_place_segment(chunk, segment) for segment in segments if segment.text.strip())
    return tuple(segment for segment in placed if segment.start < segment.end)


def shift(segment: Segment, by_s: float) -> Segment:
    """The segment ``by_s`` seconds later."""
    words = None
    if segment.words is not None:
        words = tuple(replace(word, start=word.start + by_s, end=word.end + by_s) for word in segment.words)
    return replace(segment, start=segment.start + by_s, end=segment.end + by_s, words=words)


def _place_segment(chunk: Chunk, segment: Segment) -> Segment:
    start = _rounded(chunk, chunk.to_timeline(segment.start))
    end = _rounded(chunk, chunk.to_timeline(segment.end, is_end=True))
    words = segment.words
    if words:
        words = tuple(_place_word(chunk, word) for word in words)
        start, end = words[0].start, words[-1].end
    return replace(segment, seek=round(chunk.start_s * 100), start=start, end=end, words=words)


def _place_word(chunk: Chunk, word: Word) -> Word:
    """A word lies in one span, that of its middle: no word lasts through a silence that was cut out."""
    middle = (word.start + word.end) / 2
    offset = 0.0
    for span in chunk.spans:
        if middle < offset + span.duration_s or span is chunk.spans[-1]:
            break
        offset += span.duration_s
    start, end = (
        _rounded(chunk, span.start_s + min(max(time - offset, 0.0), span.duration_s)) for time in (word.start, word.end)
    )
    return replace(word, start=start, end=max(start, end))


def _rounded(chunk: Chunk, time_s: float) -> float:
    """Milliseconds, as subtitles have them, without rounding past the chunk's end."""
    return min(round(time_s, 3), chunk.end_s)
