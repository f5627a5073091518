"""Telling operators of rows that can't be read: once a row in the log, and as a count."""

from __future__ import annotations

import logging
from collections import OrderedDict

from pipeline.domain.tasks.record_defect import RecordDefect
from pipeline.domain.tasks.task import Task
from pipeline.ports import Metrics

logger = logging.getLogger(__name__)

MAX_REMEMBERED_ROWS = 10_000
"""Rows that are not told of again, however often they are read."""


class DefectReport:
    """Logs and counts each row that can't be read, the first time it is met by this process."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._known: OrderedDict[RecordDefect, None] = OrderedDict()

    def note(self, defect: RecordDefect) -> None:
        """Tell of a row, unless it was told of before."""
        if defect in self._known:
            return
        self._known[defect] = None
        if len(self._known) > MAX_REMEMBERED_ROWS:
            self._known.popitem(last=False)
        where = {"table": defect.table, "column": defect.column, "row": defect.row}
        if defect.table != "outbox" and defect.row.isdecimal():
            where["task_id"] = defect.row
        if defect.newer:
            logger.warning("a record is left to a newer version", extra=where)
            return
        logger.error("a record can't be read", extra=where)
        self._metrics.count("unreadable_records", table=defect.table, column=defect.column)

    def seen(self, task: Task) -> Task:
        """Tell of a task that could not be read as a whole, and return it."""
        if task.defect is not None:
            self.note(task.defect)
        return task
