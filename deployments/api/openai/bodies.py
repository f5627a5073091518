"""The schemas of OpenAI's audio API, as its official clients read them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from deployments.api.response.schemas import Schema
from pipeline.domain.decoding.transcription_options import TaskType


class DurationUsage(Schema):
    """The usage that the call is counted as."""

    type: Literal["duration"] = "duration"
    seconds: float = Field(examples=[10.02])
    """Length of the recording."""


class LogProb(Schema):
    """The log-probability of a word."""

    token: str = Field(examples=[" world,"])
    """The word as in the text, with the space before it."""
    bytes: list[int]
    """The UTF-8 bytes of the token."""
    logprob: float = Field(examples=[-0.08])
    """Natural logarithm of the mean probability of its tokens."""


class TranscriptionBody(Schema):
    """`json`: the text."""

    text: str = Field(examples=["Hello world."])
    logprobs: list[LogProb] | None = None
    """One entry per word; only with `include[]=logprobs`."""
    usage: DurationUsage


class VerboseWord(Schema):
    """A word and its times in seconds."""

    word: str
    start: float
    end: float


class VerboseSegment(Schema):
    """A segment of the text: times in seconds, `id` counted from 0, `seek` in hundredths of a second."""

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
    """`verbose_json`: the text and its times."""

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
    """The next text of a stream. All deltas joined are the whole text."""

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
    """A model name that requests accept."""

    id: str = Field(examples=["whisper-1"])
    object: Literal["model"] = "model"
    created: int
    """Time of Whisper's publication, in seconds since 1970."""
    owned_by: str


class ModelList(Schema):
    """All model names that requests accept."""

    object: Literal["list"] = "list"
    data: list[ModelBody]
