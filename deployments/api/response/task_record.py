"""Tasks, summaries and crawl records in the form that clients see."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pydantic import Field

from deployments.api.response.schemas import Schema, Time
from pipeline.domain.decoding.engine_name import EngineName
from pipeline.domain.decoding.transcript import Transcript
from pipeline.domain.decoding.transcription_options import TaskType
from pipeline.domain.summaries.summary import Summary, SummaryFormat, SummaryStatus
from pipeline.domain.tasks.task import Priority, Stage, Status, Task, TaskError

RESULT_PATH = "/api/whisper/tasks/result"


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
