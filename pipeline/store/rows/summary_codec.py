"""Summaries as columns of ``tasks``, and back."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import TypeAdapter

from pipeline.domain.summaries.summary import Summary, SummaryFormat, SummaryOptions
from pipeline.domain.tasks.record_defect import RecordDefect
from pipeline.domain.tasks.task import SummaryState, TaskError
from pipeline.ports import SummaryLease
from pipeline.store.rows.compact_json import to_json
from pipeline.store.rows.row_reader import (
    RowReader,
    StoredRow,
    count,
    json_object,
    media_prefix,
    moment,
    number,
    optional,
    read_error,
    refuse_newer,
    text,
)

_OPTIONS = TypeAdapter(SummaryOptions)
_OPTION_NAMES = frozenset(SummaryOptions.__dataclass_fields__)
_OPTION_WORDS = {"summary_format": SummaryFormat}
_SUMMARY = TypeAdapter(Summary)


def summary_options_of_json(value: str) -> SummaryOptions:
    """Return the options of a summary. Raises ``NewerValue`` for an option that this version does not have."""
    data = json_object(value)
    refuse_newer(data, _OPTION_NAMES, _OPTION_WORDS)
    return _OPTIONS.validate_python(data)


def summary_columns(outcome: Summary | TaskError) -> dict[str, Any]:
    """Return the columns of a summary, or of the reason why there is none; a stored summary then stays."""
    if isinstance(outcome, TaskError):
        return {"summary_error_code": outcome.code, "summary_error_message": outcome.message}
    return {"summary": to_json(outcome.as_dict()), "summary_error_code": None, "summary_error_message": None}


def read_turn(row: StoredRow, owner: str) -> tuple[SummaryLease, RecordDefect | None]:
    """Return the lease of a summary from its row of ``tasks``, and the row's defect, if it has one."""
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


def read_summary_state(reader: RowReader) -> SummaryState:
    """Return the state of a task's summary."""
    return SummaryState(
        result=reader.read("summary", optional(_summary_of_json), None),
        error=read_error(reader, "summary_error_code", "summary_error_message"),
        attempts=reader.read("summary_attempts", count, 0),
        owner=reader.read("summary_owner", optional(text), None),
        due_at=reader.read("summary_due_at", optional(moment), None),
    )


def _summary_of_json(value: Any) -> Summary:
    data = json_object(value)
    return _SUMMARY.validate_python(data | {"created_at": datetime.fromisoformat(data["created_at"])})
