"""Tasks as rows of ``tasks``, and back."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import TypeAdapter

from pipeline.domain.audio.tracks import Track
from pipeline.domain.decoding.engine_name import EngineName
from pipeline.domain.decoding.transcription_options import RETIRED_OPTIONS, TaskType, TranscriptionOptions
from pipeline.domain.links.platforms import Link, LinkKind
from pipeline.domain.tasks.record_defect import RecordDefect
from pipeline.domain.tasks.task import CallbackState, NewTask, Priority, Stage, Status, Task, TaskError
from pipeline.store.rows.compact_json import to_json
from pipeline.store.rows.row_reader import (
    MIN_TIME,
    RowReader,
    StoredRow,
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
    read_error,
    refuse_newer,
    text,
)
from pipeline.store.rows.summary_codec import read_summary_state, summary_options_of_json
from pipeline.store.rows.transcript_codec import transcript_of_json

PRIORITY_OF_RANK = {priority.rank: priority for priority in Priority}

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
"""Fields of ``Task`` that are columns of the same name, each with its parser and its stand-in when it can't be read."""

_STATUS, _STAGE, _ENGINE = keyword(Status), optional(keyword(Stage)), keyword(EngineName)
_LINK_KIND, _TASK_TYPE, _PRIORITY = optional(keyword(LinkKind)), keyword(TaskType), rank(PRIORITY_OF_RANK)
_TEXT, _TIME, _NUMBER = optional(text), optional(moment), optional(number)

_OPTIONS = TypeAdapter(TranscriptionOptions)
_OPTION_NAMES = frozenset(TranscriptionOptions.__dataclass_fields__) | RETIRED_OPTIONS
_OPTION_WORDS = {"task_type": TaskType}
_TRACKS = TypeAdapter(tuple[Track, ...])


def new_task_row(new: NewTask, now: datetime) -> dict[str, Any]:
    """Return the columns of a new task."""
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


def read_task(row: StoredRow) -> Task:
    """Return the task in a row of ``tasks``, with its result if the row has a ``transcript`` column.

    An unreadable column never raises: it gets a stand-in, and ``Task.defect`` names it. A task that had not finished is
    then shown as failed, with the reason; one that is left to a newer version is shown as it is, with that reason.
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
        error=read_error(reader, "error_code", "error_message"),
        callback=CallbackState(
            reader.read("callback_status_code", _NUMBER, None),
            reader.read("callback_message", _TEXT, None),
            reader.read("callback_time", _TIME, None),
        ),
        summary_options=reader.read("summary_options", optional(summary_options_of_json), None),
        summary=read_summary_state(reader),
        result=reader.read("transcript", optional(transcript_of_json), None) if "transcript" in row else None,
    )
    reader.read("task_type", _TASK_TYPE, TaskType.TRANSCRIBE)
    return task if reader.defect is None else _presentable(task, reader.defect, known_status=status is not None)


def columns_of(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields of ``Task`` as columns: enums as their text, tracks as JSON."""
    columns: dict[str, Any] = {
        name: value.value if isinstance(value, StrEnum) else value for name, value in changes.items()
    }
    if "tracks" in columns:
        columns["tracks"] = to_json([asdict(track) for track in columns["tracks"]])
    return columns


def options_of_json(value: str) -> TranscriptionOptions:
    """Return the options of a transcription. Raises ``NewerValue`` for an option that this version does not have."""
    data = json_object(value)
    refuse_newer(data, _OPTION_NAMES, _OPTION_WORDS)
    return _OPTIONS.validate_python(data)


def key_digest(key: str) -> str:
    """Return the digest by which an idempotency key is stored."""
    return hashlib.sha256(key.encode()).hexdigest()


def _presentable(task: Task, defect: RecordDefect, *, known_status: bool) -> Task:
    """Return a task with an unreadable column as clients see it."""
    reason = TaskError(defect.code, defect.sentence)
    if known_status and task.status.finished and defect.column != "transcript":
        if task.status is Status.CANCELLED or defect.newer:  # all that this version can read of it is true
            return replace(task, defect=defect)
        return replace(task, defect=defect, error=task.error or reason)
    if defect.newer:
        return replace(task, defect=defect, error=reason)
    return replace(task, defect=defect, error=reason, status=Status.FAILED, stage=None)


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


def _tracks_of_json(value: Any) -> tuple[Track, ...]:
    data = [] if value is None else json_of(value)
    for values in data:
        refuse_newer(values, Track.__dataclass_fields__, {})
    return _TRACKS.validate_python(data)
