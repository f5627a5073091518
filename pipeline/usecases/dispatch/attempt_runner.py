"""Attempts with their ends: the outcome of each is stored, logged and reported."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from functools import partial

from pipeline.domain.tasks.failure_policy import FailureDecision, FailurePolicy
from pipeline.domain.tasks.task import Stage, Task
from pipeline.errors import LeaseLost
from pipeline.event_log import log_attempt
from pipeline.ports import Metrics
from pipeline.usecases.dispatch.attempt import Attempt
from pipeline.usecases.dispatch.attempt_context import AttemptContext
from pipeline.usecases.outage_retry import retry_until_available
from pipeline.usecases.task_completion import TaskCompletion

logger = logging.getLogger(__name__)


class AttemptRunner:
    """A runner of attempts at claimed tasks.

    Args:
        context: the adapters and settings of all attempts.
        failure_policy: decides what follows a failed attempt.
        completion: reports the end of a task.
        metrics: counts and times the attempts.
        on_transcribed: called whenever a task lacks only its summary.
    """

    def __init__(
        self,
        context: AttemptContext,
        failure_policy: FailurePolicy,
        completion: TaskCompletion,
        metrics: Metrics,
        on_transcribed: Callable[[], None],
    ) -> None:
        self._context = context
        self._failure_policy = failure_policy
        self._completion = completion
        self._metrics = metrics
        self._on_transcribed = on_transcribed

    async def run(self, task: Task) -> None:
        """Run one attempt at a task, and store the error if it fails."""
        attempt = Attempt(self._context, task)
        result: Task | None
        try:
            result = await attempt.run()
        except LeaseLost:
            logger.info("the attempt ended: the lease is lost", extra={"task_id": task.id})
            return
        except Exception as error:  # noqa: BLE001 - any error is stored in the task's record
            result = await self._record_failure(attempt, error)
        if result is not None:
            self._report(result, attempt)

    def _report(self, task: Task, attempt: Attempt) -> None:
        outcome = "transcribed" if task.stage is Stage.SUMMARIZING else None
        log_attempt(task, attempt.stage_s, attempt.audio_s, outcome=outcome)
        for stage, seconds in attempt.stage_s.items():
            self._metrics.observe("stage_seconds", seconds, stage=stage)
        if task.stage is Stage.SUMMARIZING:
            self._on_transcribed()
        self._completion.report(task)

    async def _record_failure(self, attempt: Attempt, error: Exception) -> Task | None:
        """Store the error. Return the task, or ``None`` if its lease is lost."""
        task = attempt.task
        decision = self._failure_policy.decide(task, error, attempt.failures + 1)
        self._log_failure(task, decision, error)
        try:
            result = await self._store_failure(attempt, decision)
            if decision.drops_prepared:
                await attempt.drop_prepared()
        except LeaseLost as lost:
            logger.warning("the failure could not be recorded: %s", lost, extra={"task_id": task.id})
            return None
        if decision.drops_media:
            await attempt.drop_media()
        return result

    def _log_failure(self, task: Task, decision: FailureDecision, error: Exception) -> None:
        if decision.is_defect:
            logger.error(
                "an attempt failed because of a defect in the service", exc_info=error, extra={"task_id": task.id}
            )
        if decision.waits:
            logger.warning("the task waits: %s", decision.reason.message, extra={"task_id": task.id})
            self._metrics.count("postponed_attempts", code=decision.reason.code)

    async def _store_failure(self, attempt: Attempt, decision: FailureDecision) -> Task:
        clock = self._context.clock
        retry_at = None if decision.delay_s is None else clock.now() + timedelta(seconds=decision.delay_s)
        fail = partial(
            self._context.store.fail,
            attempt.lease,
            decision.reason,
            retry_at,
            keep_prepared=not decision.drops_prepared,
            counted=not decision.waits,
        )
        return await retry_until_available(fail, clock)
