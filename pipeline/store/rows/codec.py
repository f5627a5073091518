"""Rows ↔ domain values, and the compact JSON that results are kept as."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from typing import Any

from pydantic import TypeAdapter

from pipeline.domain.audio.spans import Chunk, Span
from pipeline.domain.audio.tracks import Track
from pipeline.domain.decoding.engine_name import EngineName
from pipeline.domain.decoding.transcript import ChunkResult, Segment, Transcript, TranscriptInfo, Word
from pipeline.domain.decoding.transcription_options import RETIRED_OPTIONS, TaskType, TranscriptionOptions
from pipeline.domain.links.platforms import CrawlRecord, Link, LinkKind
from pipeline.domain.summaries.summary import Summary, SummaryFormat, SummaryOptions
from pipeline.domain.tasks.record_defect import RecordDefect
from pipeline.domain.tasks.task import (
    CallbackState,
    NewTask,
    Priority,
    Stage,
    Status,
    SummaryState,
    Task,
    TaskError,
)
from pipeline.ports import OutboxMessage, SummaryLease
from pipeline.store.rows.row_reader import (
    RowReader,
    amount,
    count,
    flag,
    json_object,
    json_of,
    keyword,
    media_prefix,
    moment,
    number,
    optional,
    rank,
    refuse_newer,
    text,
)
from pipeline.store.rows.transcript_json import transcript_values

PRIORITY_OF_RANK = {priority.rank: priority for priority in Priority}
MIN_TIME = datetime(1970, 1, 1, tzinfo=UTC)
"""Stands for a time that can't be read and has to be there."""

PLAIN_COLUMNS: Mapping[str, tuple[Callable[[Any], Any], Any]] = {
    "id": (number, 0),
    "media_prefix": (media_prefix, ""),
    "created_at": (moment, MIN_TIME),
    "updated_at": (moment, MIN_TIME),
    "started_at": (optional(moment), None),
    "finished_at": (optional(moment), None),
    "attempts": (count, 0),
    "failures": (count, 0),
    "losses": (count, 0),
    "owner": (optional(text), None),
    "fence": (count, 0),
    "lease_expires_at": (optional(moment), None),
    "available_at": (optional(moment), None),
    "platform": (optional(text), None),
    "media_key": (optional(media_prefix), None),
    "file_url": (optional(text), None),
    "file_name": (optional(text), None),
    "file_size_bytes": (optional(number), None),
    "file_duration_s": (optional(amount), None),
    "audio_total_s": (amount, 0.0),
    "audio_done_s": (amount, 0.0),
    "split_done": (flag, False),
    "truncated": (flag, False),
    "language": (optional(text), None),
    "language_probability": (optional(amount), None),
    "callback_url": (optional(text), None),
    "awaited_until": (optional(moment), None),
    "client": (optional(text), None),
}
"""Fields of ``Task`` that are columns of the same name: how each is read, and what stands for one that can't be."""

_STATUS, _STAGE, _ENGINE = keyword(Status), optional(keyword(Stage)), keyword(EngineName)
_LINK_KIND, _TASK_TYPE, _PRIORITY = optional(keyword(LinkKind)), keyword(TaskType), rank(PRIORITY_OF_RANK)
_TEXT, _TIME, _NUMBER = optional(text), optional(moment), optional(number)

_OPTIONS = TypeAdapter(TranscriptionOptions)
_OPTION_NAMES = frozenset(TranscriptionOptions.__dataclass_fields__) | RETIRED_OPTIONS
_OPTION_WORDS = {"task_type": TaskType}
_SUMMARY_OPTIONS = TypeAdapter(SummaryOptions)
_SUMMARY_OPTION_NAMES = frozenset(SummaryOptions.__dataclass_fields__)
_SUMMARY_OPTION_WORDS = {"summary_format": SummaryFormat}
_SUMMARY = TypeAdapter(Summary)
_TRACKS = TypeAdapter(tuple[Track, ...])
_SPANS = TypeAdapter(tuple[tuple[int, int], ...])
_RESULT = TypeAdapter(ChunkResult)
_SEGMENT = TypeAdapter(Segment)
_SPOKEN = TypeAdapter(str)
_INFO = TypeAdapter(TranscriptInfo)
_CRAWL = TypeAdapter(CrawlRecord)
_WORDS = TypeAdapter(tuple[tuple[float, float, str, float], ...])


@cache
def vocabulary_digest() -> str:
    """Return a digest of all that this version knows to read, the same for every process of it.

    A row that is left to a newer version is marked with it, so that this version does not look at the row again.
    """
    enums = (Status, Priority, Stage, EngineName, TaskType, LinkKind, SummaryFormat)
    shapes = (TranscriptionOptions, SummaryOptions, Track)
    known = [[str(word) for word in enum] for enum in enums] + [sorted(each.name for each in fields(s)) for s in shapes]
    return hashlib.sha256(to_json(known).encode()).hexdigest()[:16]


def new_task_row(new: NewTask, now: datetime) -> dict[str, Any]:
    """The columns of a task that was just created."""
    return {
        "status": Status.QUEUED.value,
        "priority_rank": new.priority.rank,
        "engine_name": new.engine_name.value,
        "task_type": new.options.task_type.value,
        "options": to_json(new.options.as_dict()),
        "media_prefix": new.media_prefix,
        "created_at": now,
        "updated_at": now,
        "attempts": 0,
        "failures": 0,
        "losses": 0,
        "fence": 0,
        "platform": new.platform,
        "media_key": new.media_key,
        "file_url": new.file_url,
        "file_name": new.file_name,
        "file_size_bytes": new.file_size_bytes,
        **_link_columns(new.link),
        "audio_total_s": 0.0,
        "audio_done_s": 0.0,
        "split_done": False,
        "truncated": False,
        "language": new.options.language,
        "callback_url": new.callback_url,
        "awaited_until": new.awaited_until,
        "summary_options": to_json(new.summary_options.as_dict()) if new.summary_options else None,
        "summary_attempts": 0,
        "client": new.client,
    }


def read_task(row: Mapping[str, Any]) -> Task:
    """Return the task in a row of ``tasks``, with its result where the row has a ``transcript`` column.

    Never fails: what can't be read has a stand-in, ``Task.defect`` names the column, and a task that had not finished
    is shown as failed, with the reason; one that is left to a newer version is shown as it is, with that reason.
    """
    reader = RowReader("tasks", row)
    values = {name: reader.read(name, parse, instead) for name, (parse, instead) in PLAIN_COLUMNS.items()}
    status = reader.read("status", _STATUS, None)
    task = Task(
        **values,
        status=status or (Status.FAILED if values["finished_at"] else Status.PROCESSING),
        priority=reader.read("priority_rank", _PRIORITY, Priority.NORMAL),
        engine_name=reader.read("engine_name", _ENGINE, EngineName.FASTER_WHISPER),
        options=reader.read("options", options_of_json, TranscriptionOptions()),
        stage=reader.read("stage", _STAGE, None),
        tracks=reader.read("tracks", _tracks_of_json, ()),
        link=_link_of_row(reader),
        error=_error_of(reader, "error_code", "error_message"),
        callback=CallbackState(
            reader.read("callback_status_code", _NUMBER, None),
            reader.read("callback_message", _TEXT, None),
            reader.read("callback_time", _TIME, None),
        ),
        summary_options=reader.read("summary_options", optional(summary_options_of_json), None),
        summary=_summary_state(reader),
        result=reader.read("transcript", optional(transcript_of_json), None) if "transcript" in row else None,
    )
    reader.read("task_type", _TASK_TYPE, TaskType.TRANSCRIBE)
    return task if reader.defect is None else _presentable(task, reader.defect, known_status=status is not None)


def _presentable(task: Task, defect: RecordDefect, *, known_status: bool) -> Task:
    """A task of which something could not be read, as clients see it."""
    reason = TaskError(defect.code, defect.sentence)
    if known_status and task.status.finished and defect.column != "transcript":
        if task.status is Status.CANCELLED or defect.newer:  # what this version knows of it is all true
            return replace(task, defect=defect)
        return replace(task, defect=defect, error=task.error or reason)
    if defect.newer:
        return replace(task, defect=defect, error=reason)
    return replace(task, defect=defect, error=reason, status=Status.FAILED, stage=None)


def _summary_state(reader: RowReader) -> SummaryState:
    return SummaryState(
        result=reader.read("summary", optional(_summary_of_json), None),
        error=_error_of(reader, "summary_error_code", "summary_error_message"),
        attempts=reader.read("summary_attempts", count, 0),
        owner=reader.read("summary_owner", _TEXT, None),
        due_at=reader.read("summary_due_at", _TIME, None),
    )


def _error_of(reader: RowReader, code_column: str, message_column: str) -> TaskError | None:
    code = reader.read(code_column, _TEXT, None)
    message = reader.read(message_column, _TEXT, None)
    return TaskError(code, message or "") if code else None


def options_of_json(value: str) -> TranscriptionOptions:
    """Return how a recording is to be decoded. Raises ``NewerValue`` for an option this version does not have."""
    data = json_object(value)
    refuse_newer(data, _OPTION_NAMES, _OPTION_WORDS)
    return _OPTIONS.validate_python(data)


def summary_options_of_json(value: str) -> SummaryOptions:
    """Return what a summary is to be like. Raises ``NewerValue`` for an option this version does not have."""
    data = json_object(value)
    refuse_newer(data, _SUMMARY_OPTION_NAMES, _SUMMARY_OPTION_WORDS)
    return _SUMMARY_OPTIONS.validate_python(data)


def read_turn(row: Mapping[str, Any], owner: str) -> tuple[SummaryLease, RecordDefect | None]:
    """Return the right to write the summary of a row of ``tasks``, and what of the row could not be read."""
    reader = RowReader("tasks", row)
    turn = SummaryLease(
        task_id=reader.read("id", number, 0),
        media_prefix=reader.read("media_prefix", media_prefix, ""),
        fence=reader.read("fence", count, 0),
        owner=owner,
        attempts=reader.read("summary_attempts", count, 0),
        options=reader.read("summary_options", summary_options_of_json, SummaryOptions()),
    )
    return turn, reader.defect


def read_message(row: Mapping[str, Any]) -> tuple[OutboxMessage, RecordDefect | None]:
    """Return the callback in a row of ``outbox``, and what of the row could not be read."""
    reader = RowReader("outbox", row)
    message = OutboxMessage(
        id=reader.read("id", number, 0),
        message_id=reader.read("message_id", text, ""),
        task_id=reader.read("task_id", number, 0),
        url=reader.read("url", text, ""),
        attempts=reader.read("attempts", count, 0),
        client=reader.read("client", optional(text), None),
    )
    return message, reader.defect


def summary_columns(outcome: Summary | TaskError) -> dict[str, Any]:
    """The columns of a summary, or of the reason why there is none; a summary that is there stays."""
    if isinstance(outcome, TaskError):
        return {"summary_error_code": outcome.code, "summary_error_message": outcome.message}
    return {"summary": to_json(outcome.as_dict()), "summary_error_code": None, "summary_error_message": None}


def columns_of(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of ``Task`` as columns: enums as their text, tracks as JSON."""
    columns: dict[str, Any] = {
        name: value.value if isinstance(value, StrEnum) else value for name, value in changes.items()
    }
    if "tracks" in columns:
        columns["tracks"] = to_json([asdict(track) for track in columns["tracks"]])
    return columns


def key_digest(key: str) -> str:
    """What is kept of an idempotency key."""
    return hashlib.sha256(key.encode()).hexdigest()


def chunk_row(task_id: int, chunk: Chunk) -> dict[str, Any]:
    """The columns of a chunk."""
    return {
        "task_id": task_id,
        "chunk_index": chunk.index,
        "part": chunk.part,
        "part_start": chunk.part_start,
        "spans": to_json([(span.start, span.end) for span in chunk.spans]),
    }


def read_chunk(row: Mapping[str, Any]) -> tuple[Chunk, RecordDefect | None]:
    """Return the inverse of ``chunk_row``, and what of the row could not be read."""
    reader = RowReader("chunks", row, "task_id")
    chunk = Chunk(
        reader.read("chunk_index", count, 0),
        reader.read("part", count, 0),
        reader.read("part_start", number, 0),
        reader.read("spans", _spans_of_json, ()),
    )
    return chunk, reader.defect


def read_part(row: Mapping[str, Any]) -> tuple[tuple[int, int, int], RecordDefect | None]:
    """Return a committed part as (part, start, end), and what of the row could not be read."""
    reader = RowReader("parts", row, "task_id")
    part = reader.read("part", count, 0), reader.read("part_start", number, 0), reader.read("part_end", number, 0)
    return part, reader.defect


def read_result(row: Mapping[str, Any]) -> tuple[ChunkResult | None, RecordDefect | None]:
    """Return the inverse of ``result_to_json``, and what of the row could not be read."""
    reader = RowReader("chunk_results", row, "task_id")
    return reader.read("result", result_of_json, None), reader.defect


def read_crawl(row: Mapping[str, Any]) -> tuple[CrawlRecord | None, RecordDefect | None]:
    """Return the inverse of ``crawl_to_json``, and what of the row could not be read."""
    reader = RowReader("crawl_records", row, "task_id")
    return reader.read("record", crawl_of_json, None), reader.defect


def _spans_of_json(value: Any) -> tuple[Span, ...]:
    spans = tuple(Span(start, end) for start, end in _SPANS.validate_python(json_of(value)))
    if any(span.start < 0 or span.end < span.start for span in spans):
        raise ValueError("a span that ends before it starts")
    return spans


def result_to_json(result: ChunkResult) -> str:
    """One chunk's result."""
    values = asdict(result)
    values["segments"] = _segments_data(result.segments)
    return to_json(values)


def result_of_json(value: str) -> ChunkResult:
    """Return the inverse of ``result_to_json``. Raises one of ``reading.UNREADABLE``."""
    values = json_object(value)
    values["segments"] = list(_segments_of(values["segments"]))
    return _RESULT.validate_python(values)


def transcript_to_json(transcript: Transcript) -> str:
    """A whole transcript."""
    return to_json(
        {"text": transcript.text, "segments": _segments_data(transcript.segments), "info": asdict(transcript.info)}
    )


def transcript_of_json(value: Any) -> Transcript:
    """Return the inverse of ``transcript_to_json``, read a segment at a time. Raises one of ``reading.UNREADABLE``."""
    values = transcript_values(text(value))
    if not isinstance(values, dict):
        raise TypeError("not an object")
    segments = tuple(_SEGMENT.validate_python(segment) for segment in _segments_of(values["segments"]))
    return Transcript(_SPOKEN.validate_python(values["text"]), segments, _INFO.validate_python(values["info"]))


def crawl_to_json(record: CrawlRecord) -> str:
    """What a site says about a recording."""
    values = {name: value for name, value in asdict(record).items() if value is not None}
    return to_json({name: v.isoformat() if isinstance(v, datetime) else v for name, v in values.items()})


def crawl_of_json(value: str) -> CrawlRecord:
    """Return the inverse of ``crawl_to_json``. Raises one of ``reading.UNREADABLE``."""
    values = json_object(value)
    times = {name: datetime.fromisoformat(values[name]) for name in ("published_at", "crawled_at") if name in values}
    return _CRAWL.validate_python(values | times)


def to_json(value: object) -> str:
    """JSON without blanks, and with every script as it is written."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _link_columns(link: Link | None) -> dict[str, Any]:
    if link is None:
        return {}
    return {
        "link_kind": link.kind.value,
        "link_extractor": link.extractor,
        "link_keep_record": link.keep_record,
    }


def _link_of_row(reader: RowReader) -> Link | None:
    kind = reader.read("link_kind", _LINK_KIND, None)
    extractor = reader.read("link_extractor", _TEXT, None)
    keep_record = reader.read("link_keep_record", optional(flag), None)
    return None if kind is None else Link(kind, extractor, bool(keep_record))


def _segments_data(segments: Sequence[Segment]) -> list[dict[str, Any]]:
    return [_segment_data(segment) for segment in segments]


def _segment_data(segment: Segment) -> dict[str, Any]:
    """A word is a bare list: there are ten thousand an hour, and their keys would be most of the text."""
    words = segment.words
    values = {name: getattr(segment, name) for name in Segment.__dataclass_fields__}
    values["words"] = words and [(word.start, word.end, word.word, word.probability) for word in words]
    return values


def _segments_of(data: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    return (values | {"words": _words_of(values["words"])} for values in data)


def _words_of(data: Any) -> tuple[Word, ...] | None:
    return None if data is None else tuple(Word(*values) for values in _WORDS.validate_python(data))


def _tracks_of_json(value: Any) -> tuple[Track, ...]:
    data = [] if value is None else json_of(value)
    for values in data:
        refuse_newer(values, Track.__dataclass_fields__, {})
    return _TRACKS.validate_python(data)


def _summary_of_json(value: Any) -> Summary:
    data = json_object(value)
    return _SUMMARY.validate_python(data | {"created_at": datetime.fromisoformat(data["created_at"])})
