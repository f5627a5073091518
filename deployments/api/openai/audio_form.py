"""The form fields that an OpenAI client sends with a recording, parsed into values of the domain.

Parsing is lenient: unknown names are ignored, and lists may be written as ``name[]``, ``name[0]`` or with commas.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le, MaxLen
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from deployments.api.request.forms import Form
from deployments.api.request.lenient_values import choice
from deployments.api.request.task_options import CHECKS
from pipeline.domain.decoding.transcription_options import DEFAULT_TEMPERATURES, TaskType, TranscriptionOptions
from pipeline.domain.tasks.submission import Submission
from pipeline.domain.tasks.task import Priority
from pipeline.errors import InvalidValue

NESTED = "chunking_strategy"
MAX_HOTWORDS = 4000
"""Characters of ``hotwords`` and ``keywords`` together; the limit is that of a task's option ``hotwords``."""


class ResponseFormat(StrEnum):
    """The format of the response."""

    JSON = "json"
    TEXT = "text"
    SRT = "srt"
    VERBOSE_JSON = "verbose_json"
    VTT = "vtt"


TIMED_BY_WORDS = frozenset({ResponseFormat.SRT, ResponseFormat.VTT})
"""Formats with cues. A long segment can be divided into cues at the right place only if its words have times."""


class Granularity(StrEnum):
    """The units that have times in ``verbose_json``."""

    WORD = "word"
    SEGMENT = "segment"


class ServerVad(BaseModel):
    """Settings of the voice activity detection in OpenAI's terms. Omitted ones have the service's defaults."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    type: Literal["server_vad"]
    threshold: float | None = Field(default=None, gt=0, lt=1)
    silence_duration_ms: int | None = Field(default=None, ge=0, le=60_000)
    prefix_padding_ms: int | None = Field(default=None, ge=0, le=10_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioFields:
    """The form fields besides the recording."""

    model: Annotated[str, MaxLen(200)] | None = None
    """The model: `whisper-1`, the name of the loaded model, or empty. All three mean the loaded model."""
    language: str | None = None
    """Language of the speech: a code (`en`), a tag (`pt-BR`) or a name (`German`). Empty or `auto`: it is detected."""
    languages: Annotated[tuple[str, ...], MaxLen(200)] = ()
    """Languages that detection may choose from."""
    prompt: Annotated[str, MaxLen(4000)] | None = None
    """Text that sets vocabulary and style."""
    response_format: str = ResponseFormat.JSON.value
    """`json`, `text`, `srt`, `verbose_json` or `vtt`."""
    temperature: Annotated[float, Ge(0.0), Le(1.0)] = 0.0
    """Sampling temperature. 0 starts without sampling and rises while the quality thresholds are not met."""
    timestamp_granularities: Annotated[tuple[str, ...], MaxLen(20)] = ()
    """The units that have times: `word`, `segment` (the default) or both. Needs `verbose_json`."""
    stream: bool = False
    """Send the text as server-sent events while it is decoded. With `json` and `text` only."""
    include: Annotated[tuple[str, ...], MaxLen(20)] = ()
    """`logprobs` adds the log-probability of each word. With `json` only."""
    chunking_strategy: Annotated[str, MaxLen(1000)] | None = None
    """`auto`, or a `server_vad` object that configures the voice activity detection."""
    keywords: Annotated[tuple[str, ...], MaxLen(1000)] = ()
    """Words or phrases to expect."""
    vad_filter: bool | None = None
    """Extension: whether to skip audio without speech."""
    hotwords: Annotated[str, MaxLen(MAX_HOTWORDS)] | None = None
    """Extension: words to expect, as one text."""
    priority: Priority = Priority.HIGH
    """Extension: the priority of the call."""


@dataclass(frozen=True, slots=True)
class AudioRequest:
    """A parsed request: the submission, and the form of the response."""

    submission: Submission
    model: str | None
    response_format: ResponseFormat
    granularities: frozenset[Granularity]
    stream: bool
    logprobs: bool


def read_fields(items: Sequence[tuple[str, str]]) -> AudioFields:
    """Parse the fields of a form, ignoring unknown ones.

    Raises:
        InvalidValue: a field has an invalid value. The message names every such field.
    """
    return AudioFields(**AUDIO_FORM.parse(_by_name(items)))


def audio_request(fields: AudioFields, task_type: TaskType) -> AudioRequest:
    """Combine the fields into a request.

    Raises:
        InvalidValue: fields contradict each other.
    """
    _check_together(fields)
    logprobs = bool(fields.include)
    granularities = frozenset(map(Granularity, fields.timestamp_granularities)) or frozenset({Granularity.SEGMENT})
    response_format = ResponseFormat(fields.response_format)
    vad = _vad(fields.chunking_strategy)
    options = TranscriptionOptions(
        task_type=task_type,
        language=fields.language,
        languages=fields.languages,
        initial_prompt=fields.prompt,
        hotwords=_hotwords(fields),
        temperature=(fields.temperature,) if fields.temperature else DEFAULT_TEMPERATURES,
        word_timestamps=logprobs or Granularity.WORD in granularities or response_format in TIMED_BY_WORDS,
        vad_filter=True if fields.vad_filter is None else fields.vad_filter,
        vad_threshold=vad.threshold if vad else None,
        vad_min_silence_duration_ms=vad.silence_duration_ms if vad else None,
        vad_speech_pad_ms=vad.prefix_padding_ms if vad else None,
    )
    return AudioRequest(
        Submission(options=options, priority=fields.priority, awaited=True),
        fields.model,
        response_format,
        granularities,
        fields.stream,
        logprobs,
    )


def _hotwords(fields: AudioFields) -> str | None:
    return ", ".join(filter(None, (fields.hotwords, *fields.keywords))) or None


def _check_together(fields: AudioFields) -> None:
    if len(_hotwords(fields) or "") > MAX_HOTWORDS:
        raise InvalidValue(f"keywords and hotwords may have {MAX_HOTWORDS:,} characters together.", "keywords")
    response_format = fields.response_format
    if fields.timestamp_granularities and response_format != ResponseFormat.VERBOSE_JSON:
        raise InvalidValue(
            "timestamp_granularities needs response_format verbose_json: the other formats have no such times.",
            "timestamp_granularities",
        )
    if fields.stream and response_format not in (ResponseFormat.JSON, ResponseFormat.TEXT):
        raise InvalidValue("stream needs response_format json or text: a stream contains only text.", "stream")
    if fields.include and response_format != ResponseFormat.JSON:
        raise InvalidValue("include needs response_format json: the other formats have no logprobs.", "include")


def _by_name(items: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Return the fields by plain name: lists joined by commas, a nested object as JSON, else the last value."""
    values: dict[str, list[str]] = {}
    nested: dict[str, str] = {}
    for name, value in items:
        plain, _, index = name.partition("[")
        if plain == NESTED and index:
            nested[index.removesuffix("]")] = value
        elif plain in AUDIO_FORM.names and re.fullmatch(r"([0-9]*\])?", index):
            values.setdefault(plain, []).append(value)
    named = {name: ",".join(given) if name in LISTS else given[-1] for name, given in values.items()}
    return named | ({NESTED: json.dumps(nested)} if nested else {})


# --- checks of single fields (ValueError becomes InvalidValue) --------------------------------------------------------


def _one_of(*known: str) -> Callable[[tuple[str, ...]], tuple[str, ...]]:
    def check(values: tuple[str, ...]) -> tuple[str, ...]:
        named = tuple(value.lower() for value in values if value)
        for value in named:
            if value not in known:
                raise ValueError(f"There is no {value[:50]!a}: use {' or '.join(known)}")
        return named

    return check


def _response_format(text: str) -> str:
    name = str(choice(text))
    if name == "diarized_json":
        raise ValueError("This service does not distinguish speakers: use json, or verbose_json for times")
    if name not in set(ResponseFormat):
        raise ValueError(f"There is no format {name[:50]!a}: use {', '.join(ResponseFormat)}")
    return name


def _chunking_strategy(text: str) -> str:
    strategy = "auto" if text.strip().lower() == "auto" else text
    _vad(strategy)
    return strategy


def _vad(text: str | None) -> ServerVad | None:
    """Return the requested settings of the voice activity detection; ``None`` means the service's defaults."""
    if text is None or text == "auto":
        return None
    try:
        return ServerVad.model_validate_json(text)
    except ValidationError as error:
        names = [str(detail["loc"][0]) for detail in error.errors() if detail["loc"]]
        where = f" ({', '.join(names)})" if names else ""
        raise ValueError(f"This must be auto, or an object of type server_vad with numbers in range{where}") from error


GRANULARITIES, INCLUDE = tuple(Granularity), ("logprobs",)
LISTS = ("timestamp_granularities", "include", "languages", "keywords")
AUDIO_FORM = Form(
    AudioFields,
    checks={
        "model": CHECKS["model"],
        "language": CHECKS["language"],
        "languages": CHECKS["languages"],
        "response_format": _response_format,
        "timestamp_granularities": _one_of(*GRANULARITIES),
        "include": _one_of(*INCLUDE),
        "chunking_strategy": _chunking_strategy,
    },
)


def audio_body() -> dict[str, Any]:
    """Describe the body for OpenAPI. It is parsed by hand as it streams in, so FastAPI can't derive the description."""
    properties = AUDIO_FORM.properties()
    properties["response_format"]["enum"] = list(ResponseFormat)
    for name, choices in (
        ("timestamp_granularities", GRANULARITIES),
        ("include", INCLUDE),
        ("languages", ()),
        ("keywords", ()),
    ):
        items = {"type": "string"} | ({"enum": list(choices)} if choices else {})
        description = properties.pop(name)["description"]
        properties[f"{name}[]"] = {"type": "array", "items": items, "description": description}
    file = {"type": "string", "format": "binary", "description": "The recording, in any format that FFmpeg decodes."}
    schema = {"type": "object", "required": ["file"], "properties": {"file": file, **properties}}
    return {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
