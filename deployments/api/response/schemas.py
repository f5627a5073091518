"""The shapes that go over the wire: task records, envelopes, errors, and the query's filter."""

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
"""UTC with its offset."""


class Schema(BaseModel):
    """What all shapes have in common."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class ErrorCause(Schema):
    """Why a task failed."""

    code: str = Field(examples=["media_undecodable"])
    """Stable name."""
    message: str
    """A sentence."""


class ChapterBody(Schema):
    """A part of the recording."""

    start: float = Field(examples=[90.0])
    """Where it begins, in seconds."""
    title: str
    summary: str


class SummaryBody(Schema):
    """A summary by a language model."""

    text: str
    """Prose; `[HH:MM:SS]` cites a time of the recording."""
    format: SummaryFormat
    language: str
    model: str
    """The language model that wrote it."""
    title: str | None
    """This and the next three only in the format `structured`."""
    chapters: list[ChapterBody] | None
    action_items: list[str] | None
    keywords: list[str] | None
    calls: int
    """Calls of the language model that it took."""
    input_tokens: int | None
    output_tokens: int | None
    cost: float | None
    """By the prices in the settings; null where the model has none there."""
    created_at: Time


class TaskRecord(Schema):
    """A task, as every answer and callback shows it."""

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
    """When the last attempt began."""
    finished_at: Time | None
    task_processing_time: float | None
    """Seconds from the last attempt's start to its end."""
    file_path: str | None = Field(examples=["0f8fad5bd9cb469fa16570867728950e/source"])
    """Key of the recording in the media store."""
    file_url: str | None
    file_name: str | None = Field(examples=["interview.mp3"])
    file_size_bytes: int | None = Field(examples=[1048576])
    file_duration: float | None = Field(examples=[65.5])
    """Length of the recording, in seconds."""
    language: str | None = Field(examples=["en"])
    """Asked for or detected."""
    platform: str | None
    decode_options: dict[str, Any]
    """Every option in force."""
    stage: Stage | None
    """What is being done."""
    progress: float | None = Field(examples=[0.25])
    """Share of the speech that is decoded, 0..1; null until the recording is split."""
    attempts: int
    truncated: bool
    """The recording broke off; what there was is transcribed."""
    error: ErrorCause | None
    error_message: str | None
    output_url: str = Field(examples=["/api/whisper/tasks/result?task_id=1"])
    """Where the result is."""
    result: Transcript | None
    summary: SummaryBody | None
    summary_status: SummaryStatus | None
    """How far the summary is; null where none was asked for. The task is completed with or without it."""
    summary_error: ErrorCause | None
    """Why there is no summary, or what its last attempt met."""


class TaskPageData(Schema):
    """One page of tasks."""

    tasks: list[TaskRecord]
    total_count: int
    """Tasks that match, on all pages."""
    has_more: bool
    next_offset: int | None
    """The `offset` of the next page."""


class CrawlRecordBody(Schema):
    """What a site said about the recording of a task, when its link was followed."""

    task_id: int
    platform: str = Field(examples=["tiktok"])
    """The extractor that read the link."""
    media_id: str = Field(examples=["7332187682480590112"])
    """The site's id of the recording."""
    url: str
    """Its page."""
    title: str | None
    description: str | None
    author: str | None
    """The account."""
    author_id: str | None
    author_name: str | None
    """What the account calls itself."""
    author_url: str | None
    duration_s: float | None
    """As the site says, in seconds."""
    published_at: Time | None
    view_count: int | None
    like_count: int | None
    comment_count: int | None
    repost_count: int | None
    thumbnail_url: str | None
    crawled_at: Time
    library: str = Field(examples=["yt-dlp 2026.10.26"])
    """What read the page."""


class DeletedTask(Schema):
    """A task that is no more."""

    task_id: int
    message: str


Data = TypeVar("Data")


class Envelope(Schema, Generic[Data]):
    """Every successful answer of the task routes."""

    code: int = Field(200, examples=[200])
    """The HTTP status."""
    router: str = Field(examples=["http://localhost:8000/api/whisper/tasks/result?task_id=1"])
    """The request's URL."""
    params: dict[str, Any]
    """The request's parameters, shortened, without secrets."""
    data: Data


AnyEnvelope = Envelope[Any]
"""An envelope around anything. Pydantic forgets the classes that nobody holds, and takes 10 ms to build one again."""
EmptyEnvelope = Envelope[None]
"""An envelope around nothing, held for the same reason."""


class FieldProblem(Schema):
    """A field that can't be as it is."""

    field: str
    message: str


class ErrorDetail(Schema):
    """What went wrong."""

    code: int = Field(examples=[422])
    """The HTTP status."""
    error: str = Field(examples=["invalid_value"])
    """Stable name of the error, to be switched on."""
    message: str = Field(examples=["beam_size: Input should be less than or equal to 20."])
    """A sentence that says what to do about it."""
    time: Time
    router: str
    params: dict[str, Any]
    errors: list[FieldProblem] | None = None
    """The fields in question; only where there are any."""


class ErrorBody(Schema):
    """Every error."""

    detail: ErrorDetail


class EngineBody(Schema):
    """What transcribes."""

    engine: str
    model: str
    device: str
    compute_type: str
    languages: list[str]


class HealthBody(Schema):
    """The service answers."""

    status: Literal["ok"] = "ok"


class ConfinementBody(Schema):
    """What the processes that open recordings can't do on the answering node, should one be taken over."""

    level: Literal["none", "partial", "full"]
    filesystem: bool
    """Read, create, change or remove files."""
    network: bool
    """Make or accept connections."""
    processes: bool
    """Start processes or programs."""
    signals: bool
    """Signal, trace or look into other processes."""
    privileges: bool
    """Gain rights, raise limits, or reach rarely used parts of the kernel."""
    memory: bool
    """Take more memory than its limit."""


class ReadyBody(Schema):
    """The service transcribes."""

    status: Literal["ready"] = "ready"
    engine: EngineBody | None
    """What runs; null where that is not known yet."""
    problems: list[str] = []
    """What fails in the background although tasks are worked at, a sentence each; only where something does."""
    confinement: ConfinementBody | None = None
    """Left out where it was not tried. Every replica logs its own at its start."""


def _blank_as_none(value: object) -> object:
    return None if is_blank(value) else trimmed(value)


def _as_utc(value: datetime | None) -> datetime | None:
    if value is None:
        return None
    try:
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("The date lies beyond what can be told in UTC") from error


def _language_code(text: str | None) -> str | None:
    return None if text is None else parse_language(text)


def _or_blank(schema: dict[str, Any]) -> None:
    """In the document of a field that may be left empty."""
    schema["anyOf"].append({"type": "string", "pattern": r"^\s*$"})


def _or_null(schema: dict[str, Any]) -> None:
    """In the document of a field for which null means its default."""
    own = {key: schema.pop(key) for key in [*schema] if key not in ("default", "description", "title")}
    schema["anyOf"] = [own, {"type": "null"}]


Off = (BeforeValidator(_blank_as_none), Field(json_schema_extra=_or_blank))
OrDefault = Field(json_schema_extra=_or_null)
ShortText = Annotated[str, Field(max_length=200)]


class TaskFilter(Schema):
    """Which tasks to list. `null` (or an empty text) switches a condition off.

    A condition that is given always holds; a default that it rules out does not apply. With another `status` than
    `completed` (or `null`), `has_result` and `has_error` are off unless they are given; with `has_result` false or
    `has_error` true, so are the other two of the three.
    """

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid")

    status: Annotated[Status | None, Choice, *Off] = Status.COMPLETED
    priority: Annotated[Priority | None, Choice, *Off] = Priority.NORMAL
    created_after: Annotated[datetime | None, *Off] = None
    """Inclusive; UTC where no offset is given."""
    created_before: Annotated[datetime | None, *Off] = None
    """Inclusive; UTC where no offset is given."""
    language: Annotated[ShortText | None, AfterValidator(_language_code), *Off] = None
    """A code, a tag or a name, as the option `language` of a task."""
    engine_name: Annotated[EngineName | None, Choice, *Off] = EngineName.FASTER_WHISPER
    has_result: Annotated[bool | None, *Off] = True
    has_error: Annotated[bool | None, *Off] = False
    limit: Annotated[int, Field(ge=1, le=500), OrDefault] = 20
    offset: Annotated[int, Field(ge=0, le=2**53), OrDefault] = 0
    task_type: Annotated[TaskType | None, Choice, *Off] = None
    platform: Annotated[ShortText | None, *Off] = None
    include_result: Annotated[bool, Trimmed, OrDefault] = True
    """Whether each record carries its transcript."""
    order: Annotated[Literal["asc", "desc"], Choice, OrDefault] = "asc"
    """By time of creation: oldest or newest first."""

    @model_validator(mode="before")
    @classmethod
    def _drop_blank_paging(cls, values: object) -> object:
        """The paging can't be switched off: null, or an empty text, means its default."""
        if not isinstance(values, dict):
            return values
        paging = ("limit", "offset", "include_result", "order")
        return {name: value for name, value in values.items() if not (name in paging and is_blank(value))}

    @model_validator(mode="after")
    def _ruled_out_defaults_are_off(self) -> Self:
        """Switch off the defaults that do not apply: the three mean "transcribed" together."""
        if self.status is not Status.COMPLETED or self.has_result is False or self.has_error is True:
            for name in {"status", "has_result", "has_error"} - self.model_fields_set:
                object.__setattr__(self, name, None)  # without noting it as given
        return self

    @model_validator(mode="after")
    def _times_in_utc(self) -> Self:
        self.created_after, self.created_before = _as_utc(self.created_after), _as_utc(self.created_before)
        return self

    def as_query(self) -> TaskQuery:
        """The same for the store."""
        conditions = self.model_dump(exclude={"order"})
        return TaskQuery(descending=self.order == "desc", **conditions)


def record(task: Task, base_url: str = "") -> TaskRecord:
    """The task as clients see it.

    Args:
        task: as stored.
        base_url: goes before the path of ``output_url``; empty for a relative link.
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
    """The summary as clients see it."""
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
    """The task record as JSON: the body of a callback (``pipeline.ports.TaskRecordEncoder``)."""
    return record(task, base_url).model_dump_json().encode()
