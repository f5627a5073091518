"""Summaries and callbacks in memory, which are claimed when they are due."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from typing_extensions import override

from pipeline.domain.scheduling.due_choice import choose_fairly
from pipeline.domain.scheduling.fair_queue import AGEING_S
from pipeline.domain.summaries.summary import Summary
from pipeline.domain.tasks.task import CallbackState, Status, Task, TaskError
from pipeline.errors import LeaseLost
from pipeline.ports import DeliveryAttempt, OutboxMessage, SummaryLease
from pipeline.testing.memory_rows import due_summary
from pipeline.testing.memory_tables import MemoryTables


class MemoryQueues(MemoryTables):
    """The methods of ``TaskStore`` for summaries and callbacks, in memory."""

    @override
    async def claim_summaries(self, owner: str, lease: timedelta, limit: int) -> list[SummaryLease]:
        now = self._now()
        tasks = [record.task for record in self._records.values()]
        waiting = {task.id: (task, task.summary.due_at) for task in tasks if task.summary.due_at}
        held = [due_summary(task, at) for task, at in waiting.values() if task.summary.owner == owner and at > now]
        due = [due_summary(task, at) for task, at in waiting.values() if at <= now]
        chosen = choose_fairly(due, held, limit, now.timestamp(), AGEING_S)
        return [self._claim_summary(self._record(number).task, owner, now + lease) for number in chosen]

    @override
    async def renew_summaries(self, turns: Sequence[SummaryLease], lease: timedelta) -> frozenset[int]:
        now = self._now()
        for turn in turns:
            if self._summary_held(turn):
                self._change_summary(turn, due_at=now + lease)
        return frozenset(turn.task_id for turn in turns if not self._summary_held(turn))

    @override
    async def finish_summary(self, turn: SummaryLease, outcome: Summary | TaskError) -> Task:
        now = self._now()
        result = {"error": outcome} if isinstance(outcome, TaskError) else {"result": outcome, "error": None}
        task = self._change_summary(turn, owner=None, due_at=None, **result)
        return self._finish(task, Status.COMPLETED, task.error, now)

    @override
    async def postpone_summary(
        self, turn: SummaryLease, due_at: datetime, error: TaskError | None = None, *, counted: bool = True
    ) -> None:
        now = self._now()
        attempts = turn.attempts if counted else turn.attempts - 1
        shown = {"error": error} if error else {}
        task = self._change_summary(turn, owner=None, due_at=due_at, attempts=attempts, **shown)
        self._put(replace(task, updated_at=now))

    @override
    async def claim_callbacks(self, owner: str, lease: timedelta, limit: int) -> list[OutboxMessage]:
        now = self._now()
        waiting = [(each, each.due_at) for each in self._outbox.values() if each.due_at]
        held = [each.due(at) for each, at in waiting if each.owner == owner and at > now]
        due = [each.due(at) for each, at in waiting if at <= now]
        claimed = sorted(choose_fairly(due, held, limit, now.timestamp(), AGEING_S))
        for number in claimed:
            self._outbox[number].due_at, self._outbox[number].owner = now + lease, owner
        return [self._outbox[number].message for number in claimed]

    @override
    async def record_delivery(self, message: OutboxMessage, attempt: DeliveryAttempt) -> None:
        """Record an attempt. A callback that was settled or withdrawn in the meantime is not changed."""
        now = self._now()
        callback = self._outbox.get(message.id)
        if callback is None or callback.due_at is None:
            return
        callback.message = replace(callback.message, attempts=callback.message.attempts + 1)
        callback.due_at, callback.owner = None if attempt.delivered else attempt.retry_at, None
        state = CallbackState(attempt.status_code, attempt.message, now)
        self._put(replace(self._record(message.task_id).task, callback=state, updated_at=now))

    def _claim_summary(self, task: Task, owner: str, lease_expires_at: datetime) -> SummaryLease:
        assert task.summary_options is not None  # noqa: S101 (only tasks with these options have summaries)
        attempts = task.summary.attempts + 1
        claimed = replace(task.summary, owner=owner, due_at=lease_expires_at, attempts=attempts)
        self._put(replace(task, summary=claimed))
        return SummaryLease(task.id, task.media_prefix, task.fence, owner, attempts, task.summary_options)

    def _summary_held(self, turn: SummaryLease) -> bool:
        record = self._records.get(turn.task_id)
        if record is None or record.task.fence != turn.fence:
            return False
        return (record.task.summary.owner, record.task.summary.attempts) == (turn.owner, turn.attempts)

    def _change_summary(self, turn: SummaryLease, **changes: Any) -> Task:
        if not self._summary_held(turn):
            raise LeaseLost(f"The summary of task {turn.task_id} passed to another owner, or is no longer wanted.")
        task = self._records[turn.task_id].task
        return self._put(replace(task, summary=replace(task.summary, **changes)))
