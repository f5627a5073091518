"""Reports for operators about rows that can't be read: one log line and one count a row."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict

from pipeline.domain.tasks.record_defect import RecordDefect
from pipeline.domain.tasks.task import Task
from pipeline.ports import Metrics

logger = logging.getLogger(__name__)

MAX_REMEMBERED_ROWS = 10_000
"""Rows that this process remembers, so that it reports each only once."""


class DefectReport:
    """A log line and a count for each row that can't be read, the first time that this process reads it.

    Transactions report from several threads.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._known: OrderedDict[RecordDefect, None] = OrderedDict()
        self._lock = threading.Lock()

    def note(self, defect: RecordDefect) -> None:
        """Report a defect of a row, unless it was reported before."""
        with self._lock:
            if defect in self._known:
                return
            self._known[defect] = None
            if len(self._known) > MAX_REMEMBERED_ROWS:
                self._known.popitem(last=False)
            self._report(defect)

    def seen(self, task: Task) -> Task:
        """Report the defect of a task, if it has one, and return the task."""
        if task.defect is not None:
            self.note(task.defect)
        return task

    def _report(self, defect: RecordDefect) -> None:
        where = {"table": defect.table, "column": defect.column, "row": defect.row}
        if defect.table != "outbox" and defect.row.isdecimal():
            where["task_id"] = defect.row
        if defect.newer:
            logger.warning("a record is left to a newer version", extra=where)
            return
        logger.error("a record can't be read", extra=where)
        self._metrics.count("unreadable_records", table=defect.table, column=defect.column)
