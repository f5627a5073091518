"""Transcripts in the formats of OpenAI's audio API."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Any

from pydantic import BaseModel

from deployments.api.concurrency.event_loop import PIECE_BYTES, slices
from deployments.api.openai.audio_form import AudioRequest, Granularity, ResponseFormat
from deployments.api.openai.bodies import (
    DurationUsage,
    LogProb,
    VerboseSegment,
    VerboseWord,
)
from deployments.api.response.envelope import error_responses_of
from deployments.api.response.large_json import JsonItems, object_pieces, text_json
from deployments.api.response.openai_errors import OpenAIErrorBody
from pipeline.domain.decoding.languages import LANGUAGES
from pipeline.domain.decoding.transcript import Segment, Transcript, Word
from pipeline.domain.decoding.transcription_options import TaskType
from pipeline.subtitles.cues import CueStyle
from pipeline.subtitles.writers import FORMATS, write_subtitles

SMALLEST_PROBABILITY = 1e-9
"""The lower bound of probabilities, since 0 has no logarithm."""


def openai_error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe error statuses for OpenAPI, all in OpenAI's shape."""
    documented = error_responses_of(OpenAIErrorBody, *statuses)
    return documented | ({404: documented[404] | {"description": "No such model"}} if 404 in documented else {})


@dataclass(frozen=True, slots=True)
class TranscriptContent:
    """A transcript in the requested format, to be written piece by piece."""

    media_type: str
    pieces: Iterator[bytes]


def transcript_content(transcript: Transcript, transcript_request: AudioRequest) -> TranscriptContent:
    """Return the transcript in the requested format.

    Both the call and the iteration over the pieces take long for hours of speech.
    """
    match transcript_request.response_format:
        case ResponseFormat.JSON:
            return TranscriptContent("application/json", _plain(transcript, transcript_request))
        case ResponseFormat.VERBOSE_JSON:
            return TranscriptContent("application/json", _verbose(transcript, transcript_request))
        case ResponseFormat.TEXT:
            return TranscriptContent("text/plain; charset=utf-8", iter((f"{transcript.text}\n".encode(),)))
        case ResponseFormat.SRT | ResponseFormat.VTT as name:
            content = write_subtitles(transcript, name, CueStyle()).encode()
            return TranscriptContent(FORMATS[name].media_type, slices(content, PIECE_BYTES))


def usage(transcript: Transcript) -> DurationUsage:
    """Return the usage that the call is counted as."""
    return DurationUsage(seconds=_duration_s(transcript))


def _duration_s(transcript: Transcript) -> float:
    """Return the length of the recording, rounded to milliseconds."""
    return round(transcript.info.duration, 3)


def text_of(segment: Segment) -> str:
    """Return a segment's text with single spaces, as in the transcript's text."""
    return " ".join(segment.text.split())


def log_probs(segments: Iterable[Segment]) -> list[LogProb]:
    """Return the log-probability of each word."""
    return [_log_prob(word) for segment in segments for word in segment.words or ()]


def _log_prob(word: Word) -> LogProb:
    return LogProb(
        token=word.word,
        bytes=list(word.word.encode()),
        logprob=math.log(max(word.probability, SMALLEST_PROBABILITY)),
    )


def _plain(transcript: Transcript, transcript_request: AudioRequest) -> Iterator[bytes]:
    """Yield a ``TranscriptionBody`` as JSON."""
    logprobs = (_json(_log_prob(word)) for word in _all_words(transcript))
    return object_pieces(
        (
            ("text", text_json(transcript.text)),
            *((("logprobs", JsonItems(logprobs)),) if transcript_request.logprobs else ()),
            ("usage", _json(usage(transcript))),
        )
    )


def _verbose(transcript: Transcript, transcript_request: AudioRequest) -> Iterator[bytes]:
    """Yield a ``VerboseBody`` as JSON."""
    head = (
        ("task", text_json(transcript_request.submission.options.task_type)),
        ("language", text_json(_language(transcript, transcript_request))),
        ("duration", json.dumps(_duration_s(transcript)).encode()),
        ("text", text_json(transcript.text)),
    )
    words = (("words", JsonItems(map(_json, _words(transcript)))),)
    segments = (("segments", JsonItems(map(_json, _segments(transcript)))),)
    return object_pieces(
        (
            *head,
            *(words if Granularity.WORD in transcript_request.granularities else ()),
            *(segments if Granularity.SEGMENT in transcript_request.granularities else ()),
            ("usage", _json(usage(transcript))),
        )
    )


def _json(body: BaseModel) -> bytes:
    return body.model_dump_json(exclude_none=True).encode()


def _language(transcript: Transcript, transcript_request: AudioRequest) -> str:
    if transcript_request.submission.options.task_type is TaskType.TRANSLATE:
        return LANGUAGES["en"]
    code = transcript.info.language
    return LANGUAGES.get(code, code)


def _all_words(transcript: Transcript) -> Iterator[Word]:
    return (word for segment in transcript.segments for word in segment.words or ())


def _words(transcript: Transcript) -> Iterator[VerboseWord]:
    return (VerboseWord(word=word.word.strip(), start=word.start, end=word.end) for word in _all_words(transcript))


_SEGMENT_FIELDS = [field.name for field in fields(Segment) if field.name in VerboseSegment.model_fields]


def _segments(transcript: Transcript) -> Iterator[VerboseSegment]:
    return (
        VerboseSegment(**{name: getattr(segment, name) for name in _SEGMENT_FIELDS} | {"id": number})
        for number, segment in enumerate(transcript.segments)
    )
