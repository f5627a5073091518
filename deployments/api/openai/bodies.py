"""The shapes of OpenAI's audio API, as its official clients read them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from deployments.api.response.schemas import Schema
from pipeline.domain.decoding.transcription_options import TaskType


class DurationUsage(Schema):
    """What the call used."""

    type: Literal["duration"] = "duration"
    seconds: float = Field(examples=[10.02])
    """Length of the recording."""


class LogProb(Schema):
    """How sure the model is of a word."""

    token: str = Field(examples=[" world,"])
    """The word as it stands in the text, with the blank before it."""
    bytes: list[int]
    """The same in UTF-8."""
    logprob: float = Field(examples=[-0.08])
    """Natural logarithm of the mean probability of its tokens."""


class TranscriptionBody(Schema):
    """`json`: the text."""

    text: str = Field(examples=["Hello world."])
    logprobs: list[LogProb] | None = None
    """One entry a word; only with `include[]=logprobs`."""
    usage: DurationUsage


class VerboseWord(Schema):
    """A word and its times in seconds."""

    word: str
    start: float
    end: float


class VerboseSegment(Schema):
    """A segment of the text; times in seconds, `id` from 0, `seek` in hundredths of a second."""

    id: int
    seek: int
    start: float
    end: float
    text: str
    tokens: list[int]
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float


class VerboseBody(Schema):
    """`verbose_json`: the text, and where it is said."""

    task: TaskType
    language: str = Field(examples=["english"])
    """Name of the text's language."""
    duration: float
    """Length of the recording, in seconds."""
    text: str
    words: list[VerboseWord] | None = None
    """With the granularity `word`."""
    segments: list[VerboseSegment] | None = None
    """With the granularity `segment`."""
    usage: DurationUsage


class TextDelta(Schema):
    """More text of a stream; all of them joined are the whole text."""

    type: Literal["transcript.text.delta"] = "transcript.text.delta"
    delta: str
    logprobs: list[LogProb] | None = None


class TextDone(Schema):
    """The last event of a stream."""

    type: Literal["transcript.text.done"] = "transcript.text.done"
    text: str
    """The whole text."""
    logprobs: list[LogProb] | None = None
    usage: DurationUsage


class ModelBody(Schema):
    """A model that can be named."""

    id: str = Field(examples=["whisper-1"])
    object: Literal["model"] = "model"
    created: int
    """When Whisper was published, in seconds since 1970."""
    owned_by: str


class ModelList(Schema):
    """All models that can be named."""

    object: Literal["list"] = "list"
    data: list[ModelBody]
