"""Joining the results of a task's chunks to the transcript of the recording."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from pipeline.domain.audio.tracks import Track
from pipeline.domain.decoding.languages import stated_language
from pipeline.domain.decoding.transcript import ChunkResult, LanguageDetection, Segment, Transcript, TranscriptInfo
from pipeline.domain.decoding.transcription_options import TranscriptionOptions


def stitch(
    results: Iterable[ChunkResult],
    options: TranscriptionOptions,
    duration_s: float,
    vad_options: Mapping[str, Any] | None = None,
    language: str | None = None,
    tracks: tuple[Track, ...] = (),
) -> Transcript:
    """Return the transcript: segments in order, numbered from 1, none overlapping, none past the end of the recording.

    Args:
        results: results of the chunks, in any order, without those of chunks that failed.
        options: options of the task.
        duration_s: length of the recording, in seconds.
        vad_options: the VAD settings that were used, if any.
        language: language in the task's record, used if no result has one.
        tracks: audio tracks of the recording.
    """
    ordered = sorted(results, key=lambda result: result.index)
    segments = tuple(
        replace(segment, id=number) for number, segment in enumerate(_without_overlaps(ordered, duration_s), start=1)
    )
    detection = _detection(ordered, options, language)
    return Transcript(
        text=" ".join(" ".join(segment.text for segment in segments).split()),
        segments=segments,
        info=TranscriptInfo(
            language=stated_language(detection.language, options.languages),
            language_probability=detection.probability,
            duration=duration_s,
            duration_after_vad=sum(result.audio_s for result in ordered),
            all_language_probs=detection.all_probabilities or None,
            transcription_options=options.as_dict(),
            vad_options=dict(vad_options or {}),
            tracks=tracks,
        ),
    )


def chunk_segments(result: ChunkResult, duration_s: float, first_id: int) -> tuple[Segment, ...]:
    """Return the segments that one chunk adds to a transcript that grows chunk by chunk.

    They are the same as those of ``stitch``, since chunks do not overlap and segments lie within their chunk.

    Args:
        result: result of the chunk.
        duration_s: length of the recording, in seconds; infinity while it is not known.
        first_id: number of the first segment.
    """
    numbered = enumerate(_without_overlaps([result], duration_s), start=first_id)
    return tuple(replace(segment, id=number) for number, segment in numbered)


def _detection(
    results: Iterable[ChunkResult], options: TranscriptionOptions, language: str | None
) -> LanguageDetection:
    """Return the requested language with probability 1, else the detection of the first chunk that has one."""
    if options.language:
        return LanguageDetection(options.language, 1.0)
    all_results = list(results)
    detected = next((result.detection for result in all_results if result.detection), None)
    if detected:
        return detected
    known = language or next((result.language for result in all_results), "")
    return LanguageDetection(known, 1.0 if known else 0.0)


def _without_overlaps(results: Iterable[ChunkResult], duration_s: float) -> Iterator[Segment]:
    """Yield segments in order, clamped to the recording, each starting at or after the end of the one before."""
    previous: Segment | None = None
    for segment in (segment for result in results for segment in result.segments):
        current = _clamp(segment, 0.0, duration_s)
        if previous is not None:
            if _is_duplicate(previous, current):
                continue
            previous, current = _separate(previous, current)
            yield previous
        previous = current
    if previous is not None:
        yield previous


def _is_duplicate(previous: Segment, current: Segment) -> bool:
    """Return whether both have the same words over the same audio: decoded twice where two chunks meet.

    Words that are said again come later.
    """
    same = previous.text.split() == current.text.split()
    return same and previous.seek != current.seek and current.start < previous.end


def _separate(previous: Segment, current: Segment) -> tuple[Segment, Segment]:
    """Return the two segments without overlap; the later one is shortened, unless nothing would be left of it."""
    if current.start >= previous.end:
        return previous, current
    if current.end > previous.end:
        return previous, _clamp(current, previous.end, current.end)
    if current.start > previous.start:
        return _clamp(previous, previous.start, current.start), current
    middle = (previous.start + previous.end) / 2
    return _clamp(previous, previous.start, middle), _clamp(current, middle, previous.end, stretched=True)


def _clamp(segment: Segment, start: float, end: float, *, stretched: bool = False) -> Segment:
    """Return the segment and its words clamped to ``[start, end]``, or stretched to fill it."""
    words = segment.words
    if words is not None:
        words = tuple(
            replace(word, start=min(max(word.start, start), end), end=min(max(word.end, start), end)) for word in words
        )
    if stretched:
        return replace(segment, start=start, end=end, words=words)
    return replace(
        segment, start=min(max(segment.start, start), end), end=min(max(segment.end, start), end), words=words
    )
