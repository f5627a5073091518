"""Transcripts and segments as the JSON in which they are stored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from pydantic import TypeAdapter

from pipeline.domain.decoding.transcript import Segment, Transcript, TranscriptInfo, Word
from pipeline.store.rows.compact_json import to_json
from pipeline.store.rows.row_reader import text
from pipeline.store.rows.transcript_json import transcript_values

_SEGMENT = TypeAdapter(Segment)
_TEXT = TypeAdapter(str)
_INFO = TypeAdapter(TranscriptInfo)
_WORDS = TypeAdapter(tuple[tuple[float, float, str, float], ...])


def transcript_to_json(transcript: Transcript) -> str:
    """Return a whole transcript as JSON."""
    return to_json(
        {"text": transcript.text, "segments": segments_data(transcript.segments), "info": asdict(transcript.info)}
    )


def transcript_of_json(value: Any) -> Transcript:
    """Return the transcript of ``transcript_to_json``, read one segment at a time.

    Raises one of ``row_reader.UNREADABLE``.
    """
    values = transcript_values(text(value))
    if not isinstance(values, dict):
        raise TypeError("not an object")
    segments = tuple(_SEGMENT.validate_python(segment) for segment in segments_of(values["segments"]))
    return Transcript(_TEXT.validate_python(values["text"]), segments, _INFO.validate_python(values["info"]))


def segments_data(segments: Sequence[Segment]) -> list[dict[str, Any]]:
    """Return segments as values of JSON."""
    return [_segment_data(segment) for segment in segments]


def segments_of(data: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the fields of each segment that ``segments_data`` wrote, its words as ``Word``."""
    return (values | {"words": _words_of(values["words"])} for values in data)


def _segment_data(segment: Segment) -> dict[str, Any]:
    """Return the fields of a segment, each word as a list.

    An hour has ten thousand words: with keys for each, the keys would be most of the text.
    """
    words = segment.words
    values = {name: getattr(segment, name) for name in Segment.__dataclass_fields__}
    values["words"] = words and [(word.start, word.end, word.word, word.probability) for word in words]
    return values


def _words_of(data: Any) -> tuple[Word, ...] | None:
    return None if data is None else tuple(Word(*values) for values in _WORDS.validate_python(data))
