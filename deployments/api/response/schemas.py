"""The schemas of the task API: task records, envelopes, errors, health, and the filter of queries."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, model_validator

from deployments.api.request.lenient_values import Choice, Trimmed, is_blank, trimmed
from pipeline.domain.decoding.languages import parse_language
from pipeline.domain.decoding.transcript import Transcript
from pipeline.domain.decoding.transcription_options import TaskType
from pipeline.domain.summaries.summary import Summary, SummaryFormat, SummaryStatus
from pipeline.domain.tasks.task import EngineName, Priority, Stage, Status, Task, TaskError
from pipeline.ports import TaskQuery

RESULT_PATH = "/api/whisper/tasks/result"

Time = Annotated[
    datetime,
    PlainSerializer(datetime.isoformat, return_type=str, when_used="json"),
    Field(examples=["2026-01-31T12:00:00.000000+00:00"], json_schema_extra={"format": "date-time"}),
]
"""A time in UTC, written with its offset."""


class Schema(BaseModel):
    """The settings that all schemas share."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class ErrorCause(Schema):
    """The reason why a task failed."""

    code: str = Field(examples=["media_undecodable"])
    """Stable name of the reason."""
    message: str
    """A sentence for readers."""


class ChapterBody(Schema):
    """A chapter of the recording."""

    start: float = Field(examples=[90.0])
    """Its start, in seconds."""
    title: str
    summary: str


class SummaryBody(Schema):
    """A summary by a language model."""

    text: str
    """Prose; `[HH:MM:SS]` refers to a time of the recording."""
    format: SummaryFormat
    language: str
    model: str
    """The language model that wrote it."""
    title: str | None
    """This field and the next three are set only in the format `structured`."""
    chapters: list[ChapterBody] | None
    action_items: list[str] | None
    keywords: list[str] | None
    calls: int
    """Number of calls of the language model."""
    input_tokens: int | None
    output_tokens: int | None
    cost: float | None
    """Cost at the prices in the settings; null if they have none for the model."""
    created_at: Time


class TaskRecord(Schema):
    """A task, as responses and callbacks show it."""

    id: int
    status: Status
    callback_url: str | None
    callback_status_code: int | None
    callback_message: str | None
    callback_time: Time | None
    priority: Priority
    engine_name: EngineName
    task_type: TaskType
    created_at: Time
    updated_at: Time
    started_at: Time | None
    """Start of the last attempt."""
    finished_at: Time | None
    task_processing_time: float | None
    """Duration of the last attempt, in seconds."""
    file_path: str | None = Field(examples=["0f8fad5bd9cb469fa16570867728950e/source"])
    """Key of the recording in the media store."""
    file_url: str | None
    file_name: str | None = Field(examples=["interview.mp3"])
    file_size_bytes: int | None = Field(examples=[1048576])
    file_duration: float | None = Field(examples=[65.5])
    """Length of the recording, in seconds."""
    language: str | None = Field(examples=["en"])
    """The requested or detected language."""
    platform: str | None
    decode_options: dict[str, Any]
    """All options in effect."""
    stage: Stage | None
    """The stage of a task in progress."""
    progress: float | None = Field(examples=[0.25])
    """Decoded share of the speech, from 0 to 1; null until the recording is split."""
    attempts: int
    truncated: bool
    """Whether the recording was incomplete; only its intact beginning is transcribed."""
    error: ErrorCause | None
    error_message: str | None
    output_url: str = Field(examples=["/api/whisper/tasks/result?task_id=1"])
    """Link to the result."""
    result: Transcript | None
    summary: SummaryBody | None
    summary_status: SummaryStatus | None
    """State of the summary; null if none was requested. The task completes with or without it."""
    summary_error: ErrorCause | None
    """The reason why there is no summary, or why the last attempt to write it failed."""


class TaskPageData(Schema):
    """One page of tasks."""

    tasks: list[TaskRecord]
    total_count: int
    """Number of matching tasks on all pages."""
    has_more: bool
    next_offset: int | None
    """The `offset` of the next page."""


class CrawlRecordBody(Schema):
    """Information from a site about the recording of a task, stored when its link was fetched."""

    task_id: int
    platform: str = Field(examples=["tiktok"])
    """The extractor that read the page."""
    media_id: str = Field(examples=["7332187682480590112"])
    """The recording's id on the site."""
    url: str
    """URL of the page."""
    title: str | None
    description: str | None
    author: str | None
    """Name of the account."""
    author_id: str | None
    author_name: str | None
    """Display name of the account."""
    author_url: str | None
    duration_s: float | None
    """Duration according to the site, in seconds."""
    published_at: Time | None
    view_count: int | None
    like_count: int | None
    comment_count: int | None
    repost_count: int | None
    thumbnail_url: str | None
    crawled_at: Time
    library: str = Field(examples=["yt-dlp 2026.10.26"])
    """The library that read the page, with its version."""


class DeletedTask(Schema):
    """A deleted task."""

    task_id: int
    message: str


Data = TypeVar("Data")


class Envelope(Schema, Generic[Data]):
    """The shape of all successful responses of the task routes."""

    code: int = Field(200, examples=[200])
    """The HTTP status."""
    router: str = Field(examples=["http://localhost:8000/api/whisper/tasks/result?task_id=1"])
    """The request's URL."""
    params: dict[str, Any]
    """The request's parameters, shortened and without secrets."""
    data: Data


AnyEnvelope = Envelope[Any]
"""An envelope around any data. Pydantic discards unreferenced generic classes, and takes 10 ms to rebuild one."""
EmptyEnvelope = Envelope[None]
"""An envelope without data, kept for the same reason."""


class FieldProblem(Schema):
    """An invalid field."""

    field: str
    message: str


class ErrorDetail(Schema):
    """The details of an error."""

    code: int = Field(examples=[422])
    """The HTTP status."""
    error: str = Field(examples=["invalid_value"])
    """Stable name of the error, for use in programs."""
    message: str = Field(examples=["beam_size: Input should be less than or equal to 20."])
    """A sentence about the cause and the remedy."""
    time: Time
    router: str
    params: dict[str, Any]
    errors: list[FieldProblem] | None = None
    """The invalid fields; omitted if there are none."""


class ErrorBody(Schema):
    """The shape of all errors on the task routes."""

    detail: ErrorDetail


class EngineBody(Schema):
    """The engine that transcribes."""

    engine: str
    model: str
    device: str
    compute_type: str
    languages: list[str]


class HealthBody(Schema):
    """A response that shows that the service is alive."""

    status: Literal["ok"] = "ok"


class ConfinementBody(Schema):
    """The restrictions on the processes that open recordings, on the responding node.

    A field is true if such a process cannot do what it names, even if an attacker controls it.
    """

    level: Literal["none", "partial", "full"]
    filesystem: bool
    """Reading, creating, changing or deleting files."""
    network: bool
    """Opening or accepting connections."""
    processes: bool
    """Starting processes or programs."""
    signals: bool
    """Signalling, tracing or inspecting other processes."""
    privileges: bool
    """Gaining privileges, raising limits, or reaching rarely used parts of the kernel."""
    memory: bool
    """Allocating more memory than the limit."""


class ReadyBody(Schema):
    """A response that shows that the service can transcribe."""

    status: Literal["ready"] = "ready"
    engine: EngineBody | None
    """The loaded engine; null while it is unknown."""
    problems: list[str] = []
    """Background failures that do not stop the processing of tasks, a sentence each; omitted if there are none."""
    confinement: ConfinementBody | None = None
    """The confinement on this node; omitted if it was not tried. Every replica logs its own when it starts."""


def _blank_as_none(value: object) -> object:
    return None if is_blank(value) else trimmed(value)


def _as_utc(value: datetime | None) -> datetime | None:
    if value is None:
        return None
    try:
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("The date is outside the range that UTC can represent") from error


def _language_code(text: str | None) -> str | None:
    return None if text is None else parse_language(text)


def _or_blank(schema: dict[str, Any]) -> None:
    """Document that a field may be left empty."""
    schema["anyOf"].append({"type": "string", "pattern": r"^\s*$"})


def _or_null(schema: dict[str, Any]) -> None:
    """Document that null means the default of a field."""
    own = {key: schema.pop(key) for key in [*schema] if key not in ("default", "description", "title")}
    schema["anyOf"] = [own, {"type": "null"}]


Off = (BeforeValidator(_blank_as_none), Field(json_schema_extra=_or_blank))
OrDefault = Field(json_schema_extra=_or_null)
ShortText = Annotated[str, Field(max_length=200)]


class TaskFilter(Schema):
    """The conditions on the tasks to list. `null` or an empty text switches a condition off.

    A given condition always applies, and defaults that contradict it do not. If `status` is `null` or anything but
    `completed`, `has_result` and `has_error` apply only if they are given. If `has_result` is false or `has_error` is
    true, the other two of the three apply only if they are given.
    """

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid")

    status: Annotated[Status | None, Choice, *Off] = Status.COMPLETED
    priority: Annotated[Priority | None, Choice, *Off] = Priority.NORMAL
    created_after: Annotated[datetime | None, *Off] = None
    """Inclusive; UTC where no offset is given."""
    created_before: Annotated[datetime | None, *Off] = None
    """Inclusive; UTC where no offset is given."""
    language: Annotated[ShortText | None, AfterValidator(_language_code), *Off] = None
    """A code, a tag or a name, as in a task's option `language`."""
    engine_name: Annotated[EngineName | None, Choice, *Off] = EngineName.FASTER_WHISPER
    has_result: Annotated[bool | None, *Off] = True
    has_error: Annotated[bool | None, *Off] = False
    limit: Annotated[int, Field(ge=1, le=500), OrDefault] = 20
    offset: Annotated[int, Field(ge=0, le=2**53), OrDefault] = 0
    task_type: Annotated[TaskType | None, Choice, *Off] = None
    platform: Annotated[ShortText | None, *Off] = None
    include_result: Annotated[bool, Trimmed, OrDefault] = True
    """Whether each record contains its transcript."""
    order: Annotated[Literal["asc", "desc"], Choice, OrDefault] = "asc"
    """Order by time of creation: oldest or newest first."""

    @model_validator(mode="before")
    @classmethod
    def _drop_blank_paging(cls, values: object) -> object:
        """Remove blank paging fields: null or an empty text means their default, since paging can't be switched off."""
        if not isinstance(values, dict):
            return values
        paging = ("limit", "offset", "include_result", "order")
        return {name: value for name, value in values.items() if not (name in paging and is_blank(value))}

    @model_validator(mode="after")
    def _drop_excluded_defaults(self) -> Self:
        """Switch off the defaults that contradict a given condition. Together the three defaults mean "transcribed"."""
        if self.status is not Status.COMPLETED or self.has_result is False or self.has_error is True:
            for name in {"status", "has_result", "has_error"} - self.model_fields_set:
                object.__setattr__(self, name, None)  # without marking it as given
        return self

    @model_validator(mode="after")
    def _times_in_utc(self) -> Self:
        self.created_after, self.created_before = _as_utc(self.created_after), _as_utc(self.created_before)
        return self

    def as_query(self) -> TaskQuery:
        """Return the filter as a query of the store."""
        conditions = self.model_dump(exclude={"order"})
        return TaskQuery(descending=self.order == "desc", **conditions)


def task_record(task: Task, base_url: str = "") -> TaskRecord:
    """Convert a task to the record that clients see.

    Args:
        task: the stored task.
        base_url: the prefix of the path in ``output_url``; empty for a relative link.
    """
    return TaskRecord(
        id=task.id,
        status=task.status,
        callback_url=task.callback_url,
        callback_status_code=task.callback.status_code,
        callback_message=task.callback.message,
        callback_time=task.callback.time,
        priority=task.priority,
        engine_name=task.engine_name,
        task_type=task.options.task_type,
        created_at=task.created_at,
        updated_at=task.updated_at,
        started_at=task.started_at,
        finished_at=task.finished_at,
        task_processing_time=task.processing_s,
        file_path=task.media_key,
        file_url=task.file_url,
        file_name=task.file_name,
        file_size_bytes=task.file_size_bytes,
        file_duration=task.file_duration_s,
        language=task.language or task.options.language,
        platform=task.platform,
        decode_options=task.options.as_dict(),
        stage=task.stage,
        progress=task.progress,
        attempts=task.attempts,
        truncated=task.truncated,
        error=_cause(task.error),
        error_message=task.error.message if task.error else None,
        output_url=f"{base_url.rstrip('/')}{RESULT_PATH}?task_id={task.id}",
        result=task.result,
        summary=summary_body(task.summary.result) if task.summary.result else None,
        summary_status=task.summary_status,
        summary_error=_cause(task.summary.error),
    )


def summary_body(summary: Summary) -> SummaryBody:
    """Convert a summary to the form that clients see."""
    parts = summary.parts
    return SummaryBody(
        text=summary.text,
        format=SummaryFormat.STRUCTURED if parts else SummaryFormat.TEXT,
        language=summary.language,
        model=summary.model,
        title=parts.title if parts else None,
        chapters=[ChapterBody(**asdict(chapter)) for chapter in parts.chapters] if parts else None,
        action_items=list(parts.action_items) if parts else None,
        keywords=list(parts.keywords) if parts else None,
        calls=summary.usage.calls,
        input_tokens=summary.usage.input_tokens,
        output_tokens=summary.usage.output_tokens,
        cost=summary.cost,
        created_at=summary.created_at,
    )


def _cause(error: TaskError | None) -> ErrorCause | None:
    return ErrorCause(code=error.code, message=error.message) if error else None


def encode_record(task: Task, base_url: str = "") -> bytes:
    """Return a task's record as JSON: the body of a callback (``pipeline.ports.TaskRecordEncoder``)."""
    return task_record(task, base_url).model_dump_json().encode()
