"""Rows ↔ domain values, and the compact JSON that results are kept as."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from enum import StrEnum
from typing import Any

from pipeline.domain.audio import Chunk, Span
from pipeline.domain.crawl import CrawlRecord, Link, LinkKind
from pipeline.domain.options import TranscriptionOptions
from pipeline.domain.summary import Summary, SummaryOptions
from pipeline.domain.task import (
    CallbackState,
    EngineName,
    NewTask,
    Priority,
    Stage,
    Status,
    SummaryState,
    Task,
    TaskError,
)
from pipeline.domain.tracks import Track
from pipeline.domain.transcript import ChunkResult, LanguageDetection, Segment, Transcript, TranscriptInfo, Word
from pipeline.store.slices import transcript_values

PRIORITY_OF_RANK = {priority.rank: priority for priority in Priority}
SAME_IN_ROW = (
    "id",
    "media_prefix",
    "created_at",
    "updated_at",
    "started_at",
    "finished_at",
    "attempts",
    "failures",
    "losses",
    "owner",
    "fence",
    "lease_expires_at",
    "available_at",
    "platform",
    "media_key",
    "file_url",
    "file_name",
    "file_size_bytes",
    "file_duration_s",
    "audio_total_s",
    "audio_done_s",
    "split_done",
    "truncated",
    "language",
    "language_probability",
    "callback_url",
    "awaited_until",
    "client",
)
"""Fields of ``Task`` that are columns of the same name and type."""


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


def task_of_row(row: Mapping[str, Any]) -> Task:
    """The task in a row of ``tasks``, with its result where the row has a ``transcript`` column."""
    transcript, summary_options = row.get("transcript"), row["summary_options"]
    return Task(
        **{name: row[name] for name in SAME_IN_ROW},
        status=Status(row["status"]),
        priority=PRIORITY_OF_RANK[row["priority_rank"]],
        engine_name=EngineName(row["engine_name"]),
        options=TranscriptionOptions.from_dict(json.loads(row["options"])),
        stage=Stage(row["stage"]) if row["stage"] else None,
        tracks=_tracks_of(json.loads(row["tracks"] or "[]")),
        link=_link_of_row(row),
        error=_error_of(row["error_code"], row["error_message"]),
        callback=CallbackState(row["callback_status_code"], row["callback_message"], row["callback_time"]),
        summary_options=summary_options_of_json(summary_options) if summary_options else None,
        summary=_summary_state(row),
        result=transcript_of_json(transcript) if transcript is not None else None,
    )


def _summary_state(row: Mapping[str, Any]) -> SummaryState:
    return SummaryState(
        result=Summary.from_dict(json.loads(row["summary"])) if row["summary"] else None,
        error=_error_of(row["summary_error_code"], row["summary_error_message"]),
        attempts=row["summary_attempts"],
        owner=row["summary_owner"],
        due_at=row["summary_due_at"],
    )


def _error_of(code: str | None, message: str | None) -> TaskError | None:
    return TaskError(code, message or "") if code else None


def summary_options_of_json(text: str) -> SummaryOptions:
    """What a summary is to be like."""
    return SummaryOptions.from_dict(json.loads(text))


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


def chunk_of_row(row: Mapping[str, Any]) -> Chunk:
    """The inverse of ``chunk_row``."""
    spans = tuple(Span(start, end) for start, end in json.loads(row["spans"]))
    return Chunk(row["chunk_index"], row["part"], row["part_start"], spans)


def result_to_json(result: ChunkResult) -> str:
    """One chunk's result."""
    values = asdict(result)
    values["segments"] = _segments_data(result.segments)
    return to_json(values)


def result_of_json(text: str) -> ChunkResult:
    """The inverse of ``result_to_json``."""
    values = json.loads(text)
    detection = values["detection"]
    values["segments"] = _segments_of(values["segments"])
    values["detection"] = _detection_of(detection) if detection else None
    return ChunkResult(**values)


def transcript_to_json(transcript: Transcript) -> str:
    """A whole transcript."""
    return to_json(
        {"text": transcript.text, "segments": _segments_data(transcript.segments), "info": asdict(transcript.info)}
    )


def transcript_of_json(text: str) -> Transcript:
    """The inverse of ``transcript_to_json``."""
    values = transcript_values(text)
    info = values["info"]
    info["all_language_probs"] = _pairs(info["all_language_probs"])
    info["tracks"] = _tracks_of(info.get("tracks", []))
    return Transcript(values["text"], _segments_of(values["segments"]), TranscriptInfo(**info))


def crawl_to_json(record: CrawlRecord) -> str:
    """What a site says about a recording."""
    values = {name: value for name, value in asdict(record).items() if value is not None}
    return to_json({name: v.isoformat() if isinstance(v, datetime) else v for name, v in values.items()})


def crawl_of_json(text: str) -> CrawlRecord:
    """The inverse of ``crawl_to_json``."""
    values = json.loads(text)
    times = {name: datetime.fromisoformat(values[name]) for name in ("published_at", "crawled_at") if name in values}
    return CrawlRecord(**values | times)


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


def _link_of_row(row: Mapping[str, Any]) -> Link | None:
    if row["link_kind"] is None:
        return None
    return Link(LinkKind(row["link_kind"]), row["link_extractor"], bool(row["link_keep_record"]))


def _segments_data(segments: Sequence[Segment]) -> list[dict[str, Any]]:
    return [_segment_data(segment) for segment in segments]


def _segment_data(segment: Segment) -> dict[str, Any]:
    """A word is a bare list: there are ten thousand an hour, and their keys would be most of the text."""
    words = segment.words
    values = {name: getattr(segment, name) for name in Segment.__dataclass_fields__}
    values["words"] = words and [(word.start, word.end, word.word, word.probability) for word in words]
    return values


def _segments_of(data: list[dict[str, Any]]) -> tuple[Segment, ...]:
    return tuple(_segment_of(values) for values in data)


def _segment_of(values: dict[str, Any]) -> Segment:
    words = values["words"]
    return Segment(
        **values
        | {"tokens": tuple(values["tokens"]), "words": None if words is None else tuple(Word(*w) for w in words)}
    )


def _detection_of(values: dict[str, Any]) -> LanguageDetection:
    return LanguageDetection(values["language"], values["probability"], _pairs(values["all_probabilities"]) or ())


def _tracks_of(data: Sequence[Mapping[str, Any]]) -> tuple[Track, ...]:
    return tuple(Track(**values) for values in data)


def _pairs(data: list[list[Any]] | None) -> tuple[tuple[str, float], ...] | None:
    return None if data is None else tuple((language, probability) for language, probability in data)
