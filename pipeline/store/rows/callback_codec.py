"""Callbacks of the outbox, read from their rows."""

from __future__ import annotations

from pipeline.domain.tasks.record_defect import RecordDefect
from pipeline.ports import OutboxMessage
from pipeline.store.rows.row_reader import RowReader, StoredRow, count, number, optional, text


def read_message(row: StoredRow) -> tuple[OutboxMessage, RecordDefect | None]:
    """Return the callback in a row of ``outbox``, and the row's defect, if it has one."""
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
