"""Transcripts in the formats of OpenAI's audio API."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from fastapi import Response
from pydantic import BaseModel

from deployments.api.answers import problems_of
from deployments.api.openai.errors import OpenAIErrorBody
from deployments.api.openai.forms import AudioRequest, Granularity, ResponseFormat
from deployments.api.openai.schemas import (
    DurationUsage,
    LogProb,
    TranscriptionBody,
    VerboseBody,
    VerboseSegment,
    VerboseWord,
)
from pipeline.domain.languages import LANGUAGES
from pipeline.domain.options import TaskType
from pipeline.domain.transcript import Segment, Transcript
from pipeline.subtitles.cues import CueStyle
from pipeline.subtitles.writers import FORMATS, write_subtitles

SMALLEST_PROBABILITY = 1e-9
"""A logarithm needs more than nothing."""


def openai_problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI documentation of error statuses, all of OpenAI's shape."""
    documented = problems_of(OpenAIErrorBody, *statuses)
    return documented | ({404: documented[404] | {"description": "No such model"}} if 404 in documented else {})


def transcript_answer(transcript: Transcript, asked: AudioRequest) -> Response:
    """The transcript as the client wants it. May take a while for hours of speech."""
    match asked.response_format:
        case ResponseFormat.JSON:
            return _json(_plain(transcript, asked))
        case ResponseFormat.VERBOSE_JSON:
            return _json(_verbose(transcript, asked))
        case ResponseFormat.TEXT:
            return Response(f"{transcript.text}\n", media_type="text/plain; charset=utf-8")
        case ResponseFormat.SRT | ResponseFormat.VTT as name:
            content = write_subtitles(transcript, name, CueStyle())
            return Response(content.encode(), media_type=FORMATS[name].media_type)


def usage(transcript: Transcript) -> DurationUsage:
    """What the call is counted as."""
    return DurationUsage(seconds=_duration_s(transcript))


def _duration_s(transcript: Transcript) -> float:
    """To the millisecond."""
    return round(transcript.info.duration, 3)


def text_of(segment: Segment) -> str:
    """A segment's text with single blanks, as it stands in the transcript's."""
    return " ".join(segment.text.split())


def log_probs(segments: Iterable[Segment]) -> list[LogProb]:
    """How sure the model is of each word."""
    words = [word for segment in segments for word in segment.words or ()]
    return [
        LogProb(
            token=word.word,
            bytes=list(word.word.encode()),
            logprob=math.log(max(word.probability, SMALLEST_PROBABILITY)),
        )
        for word in words
    ]


def _json(body: BaseModel) -> Response:
    return Response(body.model_dump_json(exclude_none=True), media_type="application/json")


def _plain(transcript: Transcript, asked: AudioRequest) -> TranscriptionBody:
    logprobs = log_probs(transcript.segments) if asked.logprobs else None
    return TranscriptionBody(text=transcript.text, logprobs=logprobs, usage=usage(transcript))


def _verbose(transcript: Transcript, asked: AudioRequest) -> VerboseBody:
    return VerboseBody(
        task=asked.submission.options.task_type,
        language=_language(transcript, asked),
        duration=_duration_s(transcript),
        text=transcript.text,
        words=_words(transcript) if Granularity.WORD in asked.granularities else None,
        segments=_segments(transcript) if Granularity.SEGMENT in asked.granularities else None,
        usage=usage(transcript),
    )


def _language(transcript: Transcript, asked: AudioRequest) -> str:
    if asked.submission.options.task_type is TaskType.TRANSLATE:
        return LANGUAGES["en"]
    code = transcript.info.language
    return LANGUAGES.get(code, code)


def _words(transcript: Transcript) -> list[VerboseWord]:
    words = [word for segment in transcript.segments for word in segment.words or ()]
    return [VerboseWord(word=word.word.strip(), start=word.start, end=word.end) for word in words]


_SEGMENT_FIELDS = [field.name for field in fields(Segment) if field.name in VerboseSegment.model_fields]


def _segments(transcript: Transcript) -> list[VerboseSegment]:
    return [
        VerboseSegment(**{name: getattr(segment, name) for name in _SEGMENT_FIELDS} | {"id": number})
        for number, segment in enumerate(transcript.segments)
    ]
