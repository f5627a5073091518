"""Parts, chunks and their results as rows, and back."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pydantic import TypeAdapter

from pipeline.domain.audio.spans import Chunk, Span
from pipeline.domain.decoding.transcript import ChunkResult
from pipeline.domain.tasks.record_defect import RecordDefect
from pipeline.store.rows.compact_json import to_json
from pipeline.store.rows.row_reader import RowReader, StoredRow, count, json_object, json_of, number
from pipeline.store.rows.transcript_codec import segments_data, segments_of

_SPANS = TypeAdapter(tuple[tuple[int, int], ...])
_RESULT = TypeAdapter(ChunkResult)


def chunk_row(task_id: int, chunk: Chunk) -> dict[str, Any]:
    """Return the columns of a chunk."""
    return {
        "task_id": task_id,
        "chunk_index": chunk.index,
        "part": chunk.part,
        "part_start": chunk.part_start,
        "spans": to_json([(span.start, span.end) for span in chunk.spans]),
    }


def read_chunk(row: StoredRow) -> tuple[Chunk, RecordDefect | None]:
    """Return the chunk in a row of ``chunks``, and the row's defect, if it has one."""
    reader = RowReader("chunks", row, "task_id")
    chunk = Chunk(
        reader.read("chunk_index", count, 0),
        reader.read("part", count, 0),
        reader.read("part_start", number, 0),
        reader.read("spans", _spans_of_json, ()),
    )
    return chunk, reader.defect


def read_part(row: StoredRow) -> tuple[tuple[int, int, int], RecordDefect | None]:
    """Return a committed part as (part, start, end), and the row's defect, if it has one."""
    reader = RowReader("parts", row, "task_id")
    part = reader.read("part", count, 0), reader.read("part_start", number, 0), reader.read("part_end", number, 0)
    return part, reader.defect


def read_result(row: StoredRow) -> tuple[ChunkResult | None, RecordDefect | None]:
    """Return the result in a row of ``chunk_results``, and the row's defect, if it has one."""
    reader = RowReader("chunk_results", row, "task_id")
    return reader.read("result", result_of_json, None), reader.defect


def result_to_json(result: ChunkResult) -> str:
    """Return the result of a chunk as JSON."""
    values = asdict(result)
    values["segments"] = segments_data(result.segments)
    return to_json(values)


def result_of_json(value: str) -> ChunkResult:
    """Return the result of ``result_to_json``. Raises one of ``row_reader.UNREADABLE``."""
    values = json_object(value)
    values["segments"] = list(segments_of(values["segments"]))
    return _RESULT.validate_python(values)


def _spans_of_json(value: Any) -> tuple[Span, ...]:
    spans = tuple(Span(start, end) for start, end in _SPANS.validate_python(json_of(value)))
    if any(span.start < 0 or span.end < span.start for span in spans):
        raise ValueError("a span that ends before it starts")
    return spans
