"""A task: one recording that a client wants transcribed, with its states and the transitions between them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from pipeline.domain.audio.tracks import Track
from pipeline.domain.decoding.engine_name import EngineName
from pipeline.domain.decoding.transcript import Transcript
from pipeline.domain.decoding.transcription_options import TranscriptionOptions
from pipeline.domain.links.platforms import Link
from pipeline.domain.summaries.summary import Summary, SummaryOptions, SummaryStatus
from pipeline.domain.tasks.record_defect import RecordDefect

LARGEST_TASK_ID = 2**63 - 1
"""Ids have 64 bits in the database; a larger one is the id of no task, and a driver can't send it."""


class Status(StrEnum):
    """The status of a task."""

    QUEUED = "queued"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def finished(self) -> bool:
        """True if nothing more happens to the task by itself."""
        return self in (Status.COMPLETED, Status.FAILED, Status.CANCELLED)


class Priority(StrEnum):
    """The priority of a task."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"

    @property
    def rank(self) -> int:
        """0 is served first."""
        return (Priority.HIGH, Priority.NORMAL, Priority.LOW).index(self)


class Stage(StrEnum):
    """The stage of a task in progress."""

    FETCHING = "fetching"
    SPLITTING = "splitting"
    TRANSCRIBING = "transcribing"
    FINISHING = "finishing"
    SUMMARIZING = "summarizing"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTask:
    """The data of a task at its creation.

    Attributes:
        media_prefix: the folder of all its media keys.
        awaited_until: time from which the task may be deleted, because its client no longer waits for it; a keep-alive
            extends it. ``None``: the task is kept.
        link: kind of ``file_url``, for tasks that have one.
        summary_options: set if a summary is requested.
        client: name of the key that it was created with; ``None`` without a key.
    """

    media_prefix: str
    options: TranscriptionOptions = field(default_factory=TranscriptionOptions)
    summary_options: SummaryOptions | None = None
    priority: Priority = Priority.NORMAL
    engine_name: EngineName = EngineName.FASTER_WHISPER
    platform: str | None = None
    callback_url: str | None = None
    media_key: str | None = None
    file_url: str | None = None
    file_name: str | None = None
    file_size_bytes: int | None = None
    awaited_until: datetime | None = None
    link: Link | None = None
    client: str | None = None


@dataclass(frozen=True, slots=True)
class IdempotencyClaim:
    """A client's key for a request, with the fingerprint (SHA-256, hex) of the request's content."""

    key: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class TaskError:
    """The reason why a task failed: a stable code (see ``pipeline.errors``) and a sentence."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class CallbackState:
    """The last response of the callback's receiver."""

    status_code: int | None = None
    message: str | None = None
    time: datetime | None = None


@dataclass(frozen=True, slots=True)
class SummaryState:
    """The state of a task's summary.

    Attributes:
        result: the last summary stored, whichever request it was for.
        error: reason why there is none.
        attempts: number of times that it was claimed since the transcript was stored.
        owner: owner of its lease.
        due_at: time of the first or next attempt; ``None`` while there is nothing to do.
    """

    result: Summary | None = None
    error: TaskError | None = None
    attempts: int = 0
    owner: str | None = None
    due_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task as stored. Times are aware UTC, durations seconds.

    Attributes:
        fence: raised by every claim; a write with an older fence is refused.
        attempts: number of times that it was claimed.
        failures: attempts in a row that failed without progress.
        losses: leases in a row that expired without progress.
        audio_total_s: seconds of audio to decode, known once splitting is done (``split_done``).
        audio_done_s: seconds of audio decoded and stored.
        language: the requested or, later, the detected language.
        link: kind of ``file_url``, for tasks that have one.
        truncated: the recording is cut short; the part that exists is transcribed.
        tracks: the recording's audio tracks, known once splitting is done.
        awaited_until: as in ``NewTask``.
        summary_options: set if a summary was requested with the task.
        client: name of the key that it was created with, if any; ``domain.tasks.client`` decides who else may see it.
        result: only loaded on request.
        defect: set if the record could not be read completely; the rest is shown, with the reason as ``error``.
    """

    id: int
    status: Status
    priority: Priority
    engine_name: EngineName
    options: TranscriptionOptions
    media_prefix: str
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    stage: Stage | None = None
    attempts: int = 0
    failures: int = 0
    losses: int = 0
    owner: str | None = None
    fence: int = 0
    lease_expires_at: datetime | None = None
    available_at: datetime | None = None
    platform: str | None = None
    media_key: str | None = None
    file_url: str | None = None
    file_name: str | None = None
    file_size_bytes: int | None = None
    link: Link | None = None
    file_duration_s: float | None = None
    audio_total_s: float = 0.0
    audio_done_s: float = 0.0
    split_done: bool = False
    truncated: bool = False
    tracks: tuple[Track, ...] = ()
    language: str | None = None
    language_probability: float | None = None
    error: TaskError | None = None
    callback_url: str | None = None
    callback: CallbackState = field(default_factory=CallbackState)
    awaited_until: datetime | None = None
    summary_options: SummaryOptions | None = None
    summary: SummaryState = field(default_factory=SummaryState)
    client: str | None = None
    result: Transcript | None = None
    defect: RecordDefect | None = None

    @property
    def summary_status(self) -> SummaryStatus | None:
        """The status of the summary; ``None`` if there is none and none was requested."""
        if self.summary.result is not None:
            return SummaryStatus.COMPLETED
        if self.summary.error is not None and self.status is Status.COMPLETED:
            return SummaryStatus.FAILED
        if self.summary_options is None:
            return None
        if self.status.finished:
            return SummaryStatus.SKIPPED
        return SummaryStatus.PROCESSING if self.summary.owner else SummaryStatus.QUEUED

    @property
    def progress(self) -> float | None:
        """Share of the speech that is decoded, 0..1; ``None`` until the total is known. It is never an estimate."""
        if self.status is Status.COMPLETED or self.stage is Stage.SUMMARIZING:
            return 1.0
        if not self.split_done:
            return None
        return min(1.0, self.audio_done_s / self.audio_total_s) if self.audio_total_s else 1.0

    @property
    def first_stage(self) -> Stage:
        """The first stage of the next attempt, given the results that earlier attempts have stored."""
        if self.split_done:
            return Stage.TRANSCRIBING
        return Stage.SPLITTING if self.media_key else Stage.FETCHING

    @property
    def processing_s(self) -> float | None:
        """Seconds from the last attempt's claim to its end."""
        if self.started_at is None or self.finished_at is None:
            return None
        return (self.finished_at - self.started_at).total_seconds()
