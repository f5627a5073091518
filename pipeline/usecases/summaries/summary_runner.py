"""The last stage of tasks that request a summary: due summaries are claimed from the store and written concurrently.

A summary is claimed under a lease of its own. If the process dies, the summary is claimed again. The transcript is
stored already, so the task ends ``completed`` whether or not the summary succeeds.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any

from pipeline.domain.retry import Backoff
from pipeline.domain.summaries.summary import Summary
from pipeline.domain.tasks.exhaustion import summary_message
from pipeline.domain.tasks.task import Task, TaskError
from pipeline.errors import (
    AttemptsExhausted,
    DatabaseUnavailable,
    LeaseLost,
    LlmNotConfigured,
    LlmTimeout,
    LlmUnreachable,
    MurmurationError,
    ReplicaLost,
    Unavailable,
)
from pipeline.ports import Clock, Metrics, Summarizer, SummaryJob, SummaryLease, TaskStore
from pipeline.settings import DispatchSettings, LlmSettings
from pipeline.usecases.background_loop import SupervisedLoop, failure_messages
from pipeline.usecases.outage_retry import retry_until_available
from pipeline.usecases.running_work import RunningWork

logger = logging.getLogger(__name__)

RETRYABLE_ERRORS = (LlmTimeout, LlmUnreachable, Unavailable, ReplicaLost)
"""Errors whose cause may have ended by the next attempt."""


class SummaryRunner:
    """A worker that has summaries written until it is stopped.

    Args:
        store: holds the due summaries and their results.
        summarizer: writes one summary.
        clock: tells and measures time.
        metrics: counts and times the summaries.
        dispatch: intervals of lease, heartbeat and polling, the same as for tasks.
        llm: number of concurrent summaries, and of attempts at one.
        owner: a name that no other runner ever has.
        finished: called with each task that ends, with or without its summary.
        jitter: returns random numbers in ``[0, 1)``.
    """

    def __init__(
        self,
        store: TaskStore,
        summarizer: Summarizer,
        clock: Clock,
        metrics: Metrics,
        dispatch: DispatchSettings,
        llm: LlmSettings,
        *,
        owner: str,
        finished: Callable[[Task], None],
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._store = store
        self._summarizer = summarizer
        self._clock = clock
        self._metrics = metrics
        self._settings = dispatch
        self._lease = timedelta(seconds=dispatch.lease_duration_s)
        self._max_active = llm.max_active_summaries
        self._max_attempts = llm.max_attempts
        self._backoff = Backoff(base_s=llm.retry_base_s, cap_s=600.0, max_attempts=llm.max_attempts)
        self._owner = owner
        self._on_finished = finished
        self._jitter = jitter
        self._work = asyncio.Event()
        self._writing: RunningWork[int, SummaryLease] = RunningWork(
            "summary", "a summary failed because of a defect in the service; it is claimed again", self._work.set
        )
        poll_s = dispatch.poll_s
        self._claiming = SupervisedLoop("summaries", "claiming summaries", clock, metrics, outage_s=lambda _: poll_s)
        self._renewing = SupervisedLoop(
            "summary_heartbeat", "renewing the leases of summaries", clock, metrics, outage_s=lambda _: poll_s
        )

    @property
    def failure_messages(self) -> tuple[str, ...]:
        """Reasons why no summary is written, one sentence each."""
        return failure_messages(self._claiming, self._renewing)

    def wake(self) -> None:
        """Signal that a summary is due."""
        self._work.set()

    async def cancel(self, task_id: int) -> None:
        """Stop writing the summary of a task that was cancelled or deleted, if this runner holds it."""
        await self._writing.cancel(task_id)

    async def run(self) -> None:
        """Write summaries until cancelled, then return the unfinished ones to the store."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._claiming.run(self._claim, self._work, self._settings.poll_s))
                group.create_task(self._renewing.run_every(self._settings.heartbeat_s, self._renew))
        finally:
            await self._release_summaries()

    async def _claim(self) -> None:
        room = self._max_active - len(self._writing)
        for lease in await self._store.claim_summaries(self._owner, self._lease, room):
            self._writing.start(lease.task_id, lease, partial(self._write, lease), {"task_id": lease.task_id})

    async def _renew(self) -> None:
        leases = self._writing.items
        for task_id in await self._store.renew_summaries(leases, self._lease) if leases else ():
            logger.info("the lease of a summary is lost", extra={"task_id": task_id})
            await self.cancel(task_id)

    async def _write(self, lease: SummaryLease) -> None:
        started_at = self._clock.monotonic()
        with suppress(LeaseLost):  # the task was cancelled or deleted, or another owner has the summary
            outcome = await self._outcome(lease)
            self._metrics.observe("summary_seconds", self._clock.monotonic() - started_at)
            if outcome is not None:
                await self._finish(lease, outcome, self._clock.monotonic() - started_at)

    async def _outcome(self, lease: SummaryLease) -> Summary | TaskError | None:
        """Return the summary, or the reason why there is none, or ``None`` if there will be another attempt."""
        if lease.attempts > self._max_attempts:
            return _exhausted(self._max_attempts)
        try:
            return await self._summarizer.summarize(SummaryJob(lease.task_id, lease.media_prefix, lease.options))
        except Exception as error:  # noqa: BLE001 - any error is stored in the task's record
            return await self._postpone_or_fail(lease, error)

    async def _postpone_or_fail(self, lease: SummaryLease, error: Exception) -> TaskError | None:
        reason = _reason(error, lease.task_id)
        delay_s = self._delay_s(lease, error)
        if delay_s is None:
            return _exhausted(lease.attempts) if isinstance(error, ReplicaLost) else reason
        logger.warning(
            "the summary waits: %s",
            reason.message,
            extra={"task_id": lease.task_id, "attempt": lease.attempts, "delay_s": round(delay_s, 1)},
        )
        due_at = self._clock.now() + timedelta(seconds=delay_s)
        await retry_until_available(lambda: self._store.postpone_summary(lease, due_at, reason), self._clock)
        return None

    def _delay_s(self, lease: SummaryLease, error: Exception) -> float | None:
        if not isinstance(error, RETRYABLE_ERRORS) or isinstance(error, LlmNotConfigured):
            return None
        delay_s = self._backoff.delay_s(lease.attempts, self._jitter)
        if delay_s is None:
            return None
        return max(delay_s, error.retry_after_s) if isinstance(error, Unavailable) else delay_s

    async def _finish(self, lease: SummaryLease, outcome: Summary | TaskError, duration_s: float) -> None:
        task = await retry_until_available(lambda: self._store.finish_summary(lease, outcome), self._clock)
        failed = isinstance(outcome, TaskError)
        self._metrics.count("summaries_finished", outcome="failed" if failed else "completed")
        log_fields: dict[str, Any] = {
            "task_id": task.id,
            "attempt": lease.attempts,
            "seconds": round(duration_s, 3),
        }
        if isinstance(outcome, TaskError):
            logger.warning("no summary", extra=log_fields | {"error": outcome.code})
        else:
            usage = outcome.usage
            log_fields |= {"model": outcome.model, "calls": usage.calls, "cost": outcome.cost}
            logger.info("summary", extra=log_fields | {"sent": usage.input_tokens, "written": usage.output_tokens})
        self._on_finished(task)

    async def _release_summaries(self) -> None:
        for lease in await self._writing.cancel_all():
            with suppress(LeaseLost, DatabaseUnavailable):
                await self._store.postpone_summary(lease, self._clock.now(), counted=False)


def _reason(error: Exception, task_id: int) -> TaskError:
    if isinstance(error, MurmurationError) and error.code != MurmurationError.code:
        return TaskError(error.code, error.message)
    logger.error("a summary failed because of a defect in the service", exc_info=error, extra={"task_id": task_id})
    return TaskError(
        MurmurationError.code, "The service failed on this summary because of a defect. Its log has the details."
    )


def _exhausted(attempts: int) -> TaskError:
    return TaskError(AttemptsExhausted.code, summary_message(attempts))
