"""Reports of rows that this version can't read."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from pipeline.domain.tasks.record_defect import RecordDefect
from pipeline.errors import RecordUnreadable

T = TypeVar("T")
ReportDefect = Callable[[RecordDefect], None]
"""Called for each row that can't be read."""


def require_readable(read: tuple[T, RecordDefect | None], report_defect: ReportDefect) -> T:
    """Return the value of a row. If the row has a defect, report it and raise ``RecordUnreadable``."""
    value, defect = read
    if defect is not None:
        report_defect(defect)
        raise RecordUnreadable(defect.sentence, defect.newer)
    return value
