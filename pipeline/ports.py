"""The seams of the system: what the use cases need from the world, each as one Protocol.

Every port has a fake in ``pipeline.testing`` that passes the same contract tests as the real adapter.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, BinaryIO, Generic, Protocol, TypeVar

from pipeline.domain.access import Client, ClientLoad
from pipeline.domain.audio import Chunk
from pipeline.domain.crawl import CrawlRecord, Link
from pipeline.domain.extraction import Extraction
from pipeline.domain.options import TranscriptionOptions
from pipeline.domain.summary import StructuredSummary, Summary, SummaryOptions, Usage
from pipeline.domain.summary_prompts import Prompt
from pipeline.domain.task import IdempotencyClaim, NewTask, Priority, Status, Task, TaskError
from pipeline.domain.transcript import ChunkResult, Transcript
from pipeline.domain.upload import Upload, UploadPart


class Clock(Protocol):
    """Time, passed in so that tests can hold it still."""

    def now(self) -> datetime:
        """The time of day, aware UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds that never run backwards."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Waits."""
        ...


# --- media ------------------------------------------------------------------------------------------------------------


class MediaStore(Protocol):
    """Bytes under keys (``<task>/source``, ``<task>/pcm/00000.s16le``) in a folder or bucket every node can reach.

    A key appears whole or not at all. Errors: ``FileNotFoundError`` for an absent key, ``StorageFull``.
    """

    async def write(self, key: str, data: AsyncIterator[bytes]) -> int:
        """Stores the stream and returns its size in bytes. If the stream raises, nothing stays behind."""
        ...

    async def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes ``[offset, offset + length)`` of a key, or to its end."""
        ...

    def open(self, key: str) -> BinaryIO:
        """A seekable file object for a decoder, to be used off the event loop."""
        ...

    async def delete_prefix(self, prefix: str) -> None:
        """Removes every key under a folder. Absent is fine."""
        ...

    async def touch(self, prefix: str) -> None:
        """Makes a task folder count as changed now: so whoever still writes there keeps it from sweeps."""
        ...

    async def prefixes(self) -> Mapping[str, datetime]:
        """The task folders that exist, with the time each was last changed; for sweeping orphans.

        Folders whose name begins with a dot are not a task's, and not among them.
        A folder in which somebody has died over a half-written key counts as changed very long ago.
        """
        ...


@dataclass(frozen=True, slots=True)
class CrawlRequest:
    """A recording to be fetched into the MediaStore.

    Attributes:
        task_id: whose it is.
        fence: of the claim under which it is fetched; once the task runs under another, or not at all, the crawl ends.
        url: where to look.
        link: what the URL is.
        media_key: where the recording is to lie.
    """

    task_id: int
    fence: int
    url: str
    link: Link
    media_key: str


@dataclass(frozen=True, slots=True)
class CrawlProgress:
    """A sign of life, every few seconds: bytes stored so far, and in all where the source says."""

    size_bytes: int
    total_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class CrawledMedia:
    """The recording is in the MediaStore.

    Attributes:
        size_bytes: of it.
        file_name: what to call it, with the extension that its bytes deserve.
        platform: the extractor that read the link, in lower case; ``None`` for a plain URL.
        record: what the site says about it; ``None`` for a plain URL.
    """

    size_bytes: int
    file_name: str
    platform: str | None = None
    record: CrawlRecord | None = None


class Crawler(Protocol):
    """Fetches recordings from URLs and links into the MediaStore, guarded and bounded in time and size."""

    def crawl(self, request: CrawlRequest) -> AsyncGenerator[CrawlProgress | CrawledMedia, None]:
        """Signs of life, then one ``CrawledMedia``. Closing the stream ends the download and leaves nothing behind.

        Raises:
            UrlNotAllowed, UnsupportedLink: an address, or a link, that is not taken.
            SourceError: what the site does instead of giving the recording; ``LinkError`` is for good.
            LeaseLost: the task passed to another owner, or ended.
            StorageFull, ReplicaLost: as they say.
        """
        ...


@dataclass(frozen=True, slots=True)
class SplitRequest:
    """A recording to be prepared.

    Attributes:
        task_id: for logs.
        media_key: where the recording lies.
        media_prefix: folder for the prepared audio.
        options: ``vad_filter`` and ``clip_timestamps`` are what matters here.
        max_chunk_s: longest chunk, in seconds.
        first_part: number of the first part to write; parts before it, up to ``resume_at``, are already stored.
        first_chunk: index of the first chunk to give out.
        resume_at: sample of the original timeline where ``first_part`` begins.
    """

    task_id: int
    media_key: str
    media_prefix: str
    options: TranscriptionOptions
    max_chunk_s: float
    first_part: int = 0
    first_chunk: int = 0
    resume_at: int = 0


@dataclass(frozen=True, slots=True)
class SplitPart:
    """One more part of prepared audio is in the MediaStore.

    Attributes:
        part: its number, from 0, without gaps.
        start: where it begins on the original timeline, in samples.
        end: where it ends, in samples; the next part begins there.
        chunks: the chunks that lie in it, possibly none.
    """

    part: int
    start: int
    end: int
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True, slots=True)
class SplitDone:
    """The whole recording has been decoded.

    Attributes:
        duration_s: length of the recording, in seconds.
        truncated: it broke off before its end, or is shorter than its header says.
    """

    duration_s: float
    truncated: bool


class Splitter(Protocol):
    """Turns a recording into prepared audio and chunks, as a stream whose memory does not grow with the file."""

    def split(self, request: SplitRequest) -> AsyncGenerator[SplitPart | SplitDone, None]:
        """Parts in order, then one ``SplitDone``. Raises ``MediaError``, ``StorageFull``, ``ReplicaLost``."""
        ...


class AudioExtractor(Protocol):
    """Takes the sound out of recordings for clients who wait for it. Files are temporary: closing one removes it."""

    def place(self) -> AbstractAsyncContextManager[None]:
        """Room for one more, for as long as the block lasts. Raises ``ExtractionsFull``."""
        ...

    async def receive(self, data: AsyncIterator[bytes]) -> BinaryIO:
        """A recording as it comes, as a file. If the stream raises, nothing stays behind. Raises ``StorageFull``."""
        ...

    async def extract(self, source: BinaryIO, wanted: Extraction) -> BinaryIO:
        """The sound of a file, as another. Raises ``MediaError``, ``DecoderCrashed``, ``StorageFull``."""
        ...

    def blocks(self, file: BinaryIO) -> AsyncGenerator[bytes, None]:
        """The content of a file."""
        ...


# --- transcription ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Unit:
    """Chunks of one task sent to a replica in one call.

    Attributes:
        task_id: whose they are.
        media_prefix: folder of the task's prepared audio.
        chunks: at most a batch.
        options: how to decode them.
        language: of the speech, or ``None`` to detect it on the unit's first chunk (and use it for the others).
        priority_rank: 0 is served first.
        tag: the smaller goes first within a rank: see ``domain.chunk_queue``.
        previous_tokens: text before the first chunk, for ``condition_on_previous_text``.
    """

    task_id: int
    media_prefix: str
    chunks: tuple[Chunk, ...]
    options: TranscriptionOptions
    language: str | None
    priority_rank: int
    tag: float
    previous_tokens: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ChunkFailure:
    """A chunk the model could not decode, with an error's code and sentence."""

    index: int
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What a replica runs.

    Attributes:
        engine: ``faster_whisper`` …
        model: the name it was asked for (``base``, ``large-v3-turbo`` …).
        device: ``cpu`` or ``cuda``.
        compute_type: ``int8``, ``float16`` …
        languages: ISO codes it knows; ``("en",)`` for an English-only model.
        max_batch_size: chunks it decodes together.
    """

    engine: str
    model: str
    device: str
    compute_type: str
    languages: tuple[str, ...]
    max_batch_size: int


class Transcriber(Protocol):
    """Decodes units of chunks; in production a fleet of replicas behind one handle."""

    def transcribe(self, unit: Unit) -> AsyncGenerator[Sequence[ChunkResult | ChunkFailure], None]:
        """Yields nothing (an empty sequence) once a replica has taken the unit in, then results as they are finished.

        Those come in any order, each chunk once. Raises ``ReplicaLost``: before that first word no replica is to blame
        the unit for its end.

        Closing the stream early drops the chunks that still wait; what is being decoded is dropped with its batch.
        """
        ...

    async def describe(self) -> EngineInfo:
        """What runs, once a replica has loaded its model and decoded with it."""
        ...

    async def replica_count(self) -> int:
        """Replicas that can take work now; 0 where the fleet is scaled to zero."""
        ...


# --- summaries --------------------------------------------------------------------------------------------------------

Answer = TypeVar("Answer", str, StructuredSummary)


@dataclass(frozen=True, slots=True)
class Written(Generic[Answer]):
    """What a language model wrote.

    Attributes:
        content: the text, or the parts.
        model: as its server calls it.
        completion_id: the server's name for the call.
        usage: of all calls that this took.
    """

    content: Answer
    model: str
    completion_id: str
    usage: Usage


class LanguageModel(Protocol):
    """One model of one server, asked with one key.

    Errors: ``LlmError``, ``LlmRateLimited``.
    """

    def count_tokens(self, text: str) -> int:
        """How many tokens the text has, or at most has where the model's tokenizer is not at hand."""
        ...

    async def text(self, prompt: Prompt) -> Written[str]:
        """Prose, never empty. Raises ``LlmAnswerUnusable`` where it is cut off."""
        ...

    async def notes(self, prompt: Prompt) -> Written[str]:
        """Prose that may be cut off."""
        ...

    async def structured(self, prompt: Prompt, end_s: float) -> Written[StructuredSummary]:
        """A summary in parts; no chapter begins after ``end_s``. ``LlmAnswerUnusable`` if it can't be had."""
        ...


class LanguageModels(Protocol):
    """The language models of the configured server."""

    def open(self, model: str, api_key: str | None) -> LanguageModel:
        """The model of that name, asked with this key, or with the configured one."""
        ...


@dataclass(frozen=True, slots=True)
class SummaryOrder:
    """A summary to be written now.

    Attributes:
        task_id: whose transcript.
        options: what it is to be like.
        api_key: the client's own; it goes to the language model's server and nowhere else.
    """

    task_id: int
    options: SummaryOptions
    api_key: str | None = field(default=None, repr=False)


class Summarizer(Protocol):
    """Writes summaries of stored transcripts; in production replicas behind one handle."""

    async def summarize(self, order: SummaryOrder) -> Summary:
        """The summary, which is not stored yet.

        Raises ``TaskNotFound``, ``TaskNotFinished``, ``NothingSaid``, ``LlmError``, ``LlmNotConfigured``,
        ``LlmRateLimited``, ``InvalidValue`` (a model that may not be named), ``ReplicaLost``.
        """
        ...


# --- tasks ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskQuery:
    """A filter over tasks; ``None`` switches a condition off. Times are aware UTC and inclusive."""

    status: Status | None = None
    priority: Priority | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    language: str | None = None
    engine_name: str | None = None
    task_type: str | None = None
    platform: str | None = None
    has_result: bool | None = None
    has_error: bool | None = None
    client: str | None = None
    include_result: bool = True
    descending: bool = False
    limit: int = 20
    offset: int = 0


@dataclass(frozen=True, slots=True)
class TaskPage:
    """One page of a query, in the order (created_at, id), and how many match in all."""

    tasks: tuple[Task, ...]
    total_count: int


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write to a task: the fence is that of the claim."""

    task_id: int
    fence: int


@dataclass(frozen=True, slots=True)
class StoredChunks:
    """All that is stored of a task's chunks, for resuming and stitching, each in order of index.

    ``parts`` are the committed parts of prepared audio as (part, start, end) in samples.
    """

    chunks: tuple[Chunk, ...] = ()
    results: tuple[ChunkResult, ...] = ()
    parts: tuple[tuple[int, int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class QueueStats:
    """How much waits and runs, per priority: tasks, and seconds of audio not yet decoded.

    A recording that is not split yet counts by its size, at the seconds a byte of those that finished last.
    """

    queued_tasks: Mapping[Priority, int]
    processing_tasks: int
    pending_audio_s: float
    oldest_queued_s: float
    oldest_s: Mapping[Priority, float] = field(default_factory=dict)
    """Age of the oldest queued task of each priority, in seconds; 0 where none waits."""
    waiting_callbacks: int = 0


@dataclass(frozen=True, slots=True)
class OutboxMessage:
    """A callback to be delivered: one per completed or failed run, with the same ``message_id`` at every attempt.

    ``attempts`` counts the attempts made before. The body is the task's record, rendered when it is sent.
    """

    id: int
    message_id: str
    task_id: int
    url: str
    attempts: int


@dataclass(frozen=True, slots=True)
class DeliveryAttempt:
    """What came of one attempt to deliver a callback.

    Attributes:
        delivered: a 2xx came in time.
        status_code: the receiver's, if it answered.
        message: the first 512 characters of its answer (public hosts only) or why there was none.
        retry_at: when to try again; ``None`` ends it.
    """

    delivered: bool
    status_code: int | None
    message: str
    retry_at: datetime | None


@dataclass(frozen=True, slots=True)
class SummaryTurn:
    """The right to write a task's summary; ``attempts`` is raised each time it is taken, ``fence`` is the task's."""

    task_id: int
    fence: int
    owner: str
    attempts: int
    options: SummaryOptions


class Verdict(StrEnum):
    """What an attempt to deliver a callback means for the next one."""

    DELIVERED = "delivered"
    RETRY = "retry"
    FINAL = "final"


@dataclass(frozen=True, slots=True)
class CallbackAnswer:
    """What a receiver made of a callback.

    Attributes:
        status_code: ``None`` where there was no answer.
        message: as ``DeliveryAttempt.message``.
        retry_after_s: how long the receiver asks to be left alone, in seconds.
    """

    verdict: Verdict
    status_code: int | None
    message: str
    retry_after_s: float | None = None


class CallbackSender(Protocol):
    """Posts one callback to its receiver."""

    async def send(self, message: OutboxMessage, body: bytes) -> CallbackAnswer:
        """One attempt, bounded in time. Whatever the receiver does is an answer, never an error."""
        ...


class TaskRecords(Protocol):
    """The record of every task, as clients see and change it: what the HTTP surface has of the task store.

    Every method raises ``DatabaseUnavailable`` while the database does not answer.
    """

    async def ping(self) -> None:
        """Returns if the database answers."""
        ...

    async def create(
        self, new: NewTask, idempotency: IdempotencyClaim | None = None, client: Client | None = None
    ) -> tuple[Task, bool]:
        """Stores a task as ``queued``; returns it and whether it is new.

        The same idempotency key with the same fingerprint returns the original task; with another, raises
        ``IdempotencyConflict``. A key lives as long as the store is told to keep keys.
        ``QuotaExceeded``: the client may not have another task now.
        """
        ...

    async def client_load(self, client: str) -> ClientLoad:
        """What a client has in the queue, and what was taken from it in the last 24 hours."""
        ...

    async def get(self, task_id: int, *, include_result: bool = False) -> Task:
        """The task, or ``TaskNotFound``."""
        ...

    async def crawl_record(self, task_id: int) -> CrawlRecord | None:
        """What is kept of the task's link. Raises ``TaskNotFound``."""
        ...

    async def query(self, query: TaskQuery) -> TaskPage:
        """The tasks that match."""
        ...

    async def stats(self) -> QueueStats:
        """How much waits and runs."""
        ...

    async def cancel(self, task_id: int) -> Task:
        """Queued or processing → ``cancelled`` at once. A running task's fence is raised, so its owner's lease is lost.

        Raises ``TaskNotFound``, or ``TaskStateConflict`` for a finished task.
        """
        ...

    async def retry(self, task_id: int) -> Task:
        """Failed or cancelled → ``queued`` with attempts 0; stored chunks are kept. Else ``TaskStateConflict``.

        A task that was cancelled while only its summary was missing goes back to that stage instead. One whose
        recording has gone (``expire_media``), and can't be fetched again, is a conflict too.
        """
        ...

    async def await_until(self, task_id: int, until: datetime) -> None:
        """Moves on the time until which a client is known to wait for the task; a task that is gone stays so."""
        ...

    async def delete(self, task_id: int) -> str:
        """Removes the task and all that hangs on it, whatever its state; returns its media prefix."""
        ...

    async def chunks(self, task_id: int) -> StoredChunks:
        """All that is stored of the task's chunks."""
        ...

    async def results(self, task_id: int, first: int) -> tuple[ChunkResult, ...]:
        """What is stored of the results of the chunk of index ``first`` and of those after it, in order."""
        ...

    async def save_summary(self, task_id: int, summary: Summary) -> None:
        """Stores a summary that was asked for apart from the task's run. Raises ``TaskNotFound``."""
        ...


class TaskStore(TaskRecords, Protocol):
    """The durable queue and the record of every task, on SQLite or MySQL.

    Methods that take a ``Lease`` raise ``LeaseLost`` unless the task is still ``processing`` under that very fence.
    """

    async def migrate(self) -> None:
        """Brings the schema to this version; safe to call from many processes at once."""
        ...

    async def close(self) -> None:
        """Lets go of every connection."""
        ...

    # the run of a task

    async def claim(self, owner: str, lease: timedelta, limit: int, ranks: Collection[int]) -> list[Task]:
        """Takes up to ``limit`` tasks of the given priority ranks that are queued and due, or whose lease expired.

        Order: priority (lifted by age), then age, then id. Each claim sets owner, lease, ``fence + 1``,
        ``attempts + 1``, ``started_at``, ``processing``, ``Task.first_stage``; ``losses + 1`` where a lease expired.
        Expired tasks that were lost too often without getting any further are not returned: ``bury`` is for them.
        """
        ...

    async def heartbeat(self, leases: Sequence[Lease], lease: timedelta) -> frozenset[int]:
        """Renews leases; returns the ids of tasks that are no longer ours (lost, cancelled or deleted)."""
        ...

    async def bury(self, max_losses: int) -> list[Task]:
        """Fails (``attempts_exhausted``) the tasks whose lease expired so many times in a row without progress between.

        Progress is a part or a result that was not stored before. Returns the tasks.
        """
        ...

    async def owners(self) -> frozenset[str]:
        """Who holds the lease of a task, or of a callback that others are still kept from."""
        ...

    async def disown(self, owner: str) -> None:
        """Ends every lease of an owner that is dead for certain, so that nobody need wait for them to expire."""
        ...

    async def update(self, lease: Lease, **changes: Any) -> None:
        """Sets fields of the record (names of ``Task``): stage, media_key, file_duration_s and so on.

        With ``split_done`` the recording's ``file_duration_s`` counts as taken from the task's client, once a task.
        """
        ...

    async def save_crawl(self, lease: Lease, record: CrawlRecord) -> None:
        """Keeps what a site says about the task's recording; a later record takes the place of an earlier one."""
        ...

    async def add_part(self, lease: Lease, part: int, start: int, end: int, chunks: Sequence[Chunk]) -> None:
        """Commits a part of prepared audio with its chunks, and raises ``audio_total_s`` by theirs.

        That is progress: ``failures`` and ``losses`` count from 0 again, as they do with ``save_results``.
        """
        ...

    async def save_results(self, lease: Lease, results: Sequence[ChunkResult]) -> None:
        """Stores finished chunks once each and raises ``audio_done_s`` by theirs; a chunk stored before is ignored."""
        ...

    async def complete(self, lease: Lease, transcript: Transcript) -> Task:
        """``completed``, with its transcript and, if it has a ``callback_url``, its outbox row, in one transaction.

        Where a summary was asked for, the task stays ``processing`` in stage ``summarizing`` instead, without an owner:
        its summary is due, and the fence is raised, since the lease has served its purpose.
        """
        ...

    async def fail(
        self, lease: Lease, error: TaskError, retry_at: datetime | None = None, *, keep_prepared: bool = True
    ) -> Task:
        """``failed`` with its outbox row; or back to ``queued`` from ``retry_at`` on, with the error kept for show.

        Either counts as one of ``failures``. Without ``keep_prepared`` its parts, chunks and results are forgotten, so
        that a retry begins at the recording.
        """
        ...

    async def release(self, lease: Lease) -> None:
        """Back to ``queued`` at once, the attempt not counted: for a Dispatcher that shuts down."""
        ...

    # summaries

    async def due_summaries(self, owner: str, lease: timedelta, limit: int) -> list[SummaryTurn]:
        """Takes up to ``limit`` summaries that are due, for as long as the lease lasts, longest due first."""
        ...

    async def renew_summaries(self, turns: Sequence[SummaryTurn], lease: timedelta) -> frozenset[int]:
        """Renews leases; returns the ids of tasks whose summary is no longer the caller's to write."""
        ...

    async def finish_summary(self, turn: SummaryTurn, outcome: Summary | TaskError) -> Task:
        """``completed``, with its summary or the reason why there is none, and its outbox row. Else ``LeaseLost``."""
        ...

    async def postpone_summary(
        self, turn: SummaryTurn, due_at: datetime, error: TaskError | None = None, *, counted: bool = True
    ) -> None:
        """Gives the summary back until ``due_at``, with the error kept for show. Raises ``LeaseLost``."""
        ...

    # callbacks

    async def due_callbacks(self, owner: str, lease: timedelta, limit: int) -> list[OutboxMessage]:
        """Takes up to ``limit`` callbacks that are due, for as long as the lease lasts."""
        ...

    async def record_delivery(self, message: OutboxMessage, attempt: DeliveryAttempt) -> None:
        """Notes an attempt, in the outbox and in the task's record."""
        ...

    # housekeeping

    async def expire(self, older_than: datetime, limit: int) -> list[str]:
        """Deletes up to ``limit`` finished tasks finished before then; returns their media prefixes."""
        ...

    async def expire_unawaited(self, limit: int) -> list[str]:
        """Deletes up to ``limit`` tasks, whatever their state, that nobody waits for any more.

        Those are the tasks whose ``awaited_until`` has passed. Returns their media prefixes.
        """
        ...

    async def expire_media(self, older_than: datetime, limit: int, statuses: Collection[Status]) -> list[str]:
        """Takes the recordings from up to ``limit`` tasks that finished so before then; returns their media prefixes.

        Their stored chunks go too, and ``media_key`` is empty from then on.
        """
        ...

    async def prune_callbacks(self, older_than: datetime, limit: int) -> int:
        """Deletes up to ``limit`` callbacks created before then that are delivered or given up; returns how many."""
        ...

    async def prune_keys(self, limit: int) -> int:
        """Deletes up to ``limit`` idempotency keys that have expired; returns how many."""
        ...

    async def live_prefixes(self, prefixes: Collection[str], *, transcribed: bool = True) -> set[str]:
        """Which of these media prefixes belong to a task that exists.

        Without ``transcribed``, only to one that has no transcript yet, and so may need them.
        """
        ...

    async def forget_taken_audio(self) -> None:
        """Forgets what was taken from clients so long ago that no limit asks for it."""
        ...


class UploadStore(Protocol):
    """The state of resumable uploads; their bytes are in the MediaStore.

    Every method raises ``DatabaseUnavailable`` while the database does not answer.
    """

    async def create(self, upload: Upload) -> None:
        """Notes an upload that has just begun."""
        ...

    async def get(self, upload_id: str) -> Upload:
        """The upload, or ``UploadNotFound``, expired ones included."""
        ...

    async def open_uploads(self, client: str) -> int:
        """How many uploads of a client have neither become a task nor expired."""
        ...

    async def parts(self, upload_id: str) -> tuple[UploadPart, ...]:
        """What has been received, in order, without gaps."""
        ...

    async def append(self, upload_id: str, parts: Sequence[UploadPart], expires_at: datetime) -> None:
        """Commits parts that follow each other, all or none.

        Raises ``UploadStateConflict`` unless the first begins where the upload ends: of two that come at once, one
        wins. Raises ``UploadNotFound`` too.
        """
        ...

    async def close(self, upload_id: str, task_id: int) -> None:
        """Notes the task that an upload became, and forgets its parts."""
        ...

    async def delete(self, upload_id: str) -> None:
        """Forgets an upload. Absent is fine."""
        ...

    async def expire(self, limit: int) -> list[str]:
        """Forgets up to ``limit`` uploads that have expired; returns their ids, which are their media prefixes."""
        ...

    async def live_prefixes(self, prefixes: Collection[str]) -> set[str]:
        """Which of these media prefixes belong to an upload that is not forgotten."""
        ...


class TaskRecordEncoder(Protocol):
    """Turns a finished task into the body of its callback; the HTTP edge owns that shape."""

    def __call__(self, task: Task) -> bytes:
        """The task record as JSON."""
        ...


# --- observability ----------------------------------------------------------------------------------------------------


class Metrics(Protocol):
    """Counters, gauges and histograms by name; the names and labels are listed in ``pipeline.observability``."""

    def count(self, name: str, value: float = 1.0, **labels: str) -> None:
        """Adds to a counter."""
        ...

    def gauge(self, name: str, value: float, **labels: str) -> None:
        """Sets a gauge."""
        ...

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Adds to a histogram."""
        ...
