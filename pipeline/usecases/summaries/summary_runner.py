"""The last stage of tasks that want a summary: due ones are taken from the store and written side by side.

A summary is taken under a lease of its own. Who dies with one in hand leaves it to be taken again; whatever the
language model does, the transcript is stored already, and the task ends ``completed``.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

from pipeline.domain.retry import Backoff
from pipeline.domain.summaries.summary import Summary
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
from pipeline.usecases.outage_retry import insist
from pipeline.usecases.task_notifier import wait_for_event

logger = logging.getLogger(__name__)

RETRYABLE_ERRORS = (LlmTimeout, LlmUnreachable, Unavailable, ReplicaLost)
"""Troubles that may be over at the next attempt."""


class SummaryRunner:
    """Sees to summaries until it is stopped.

    Args:
        store: who is due, and where summaries go.
        summarizer: writes one.
        clock: the time.
        metrics: where the figures go.
        dispatch: lease, heartbeat and poll, as for tasks.
        llm: how many at a time, and how often one is tried.
        owner: a name no other runner has, ever.
        finished: told the task that has ended with its summary, or without.
        jitter: numbers in ``[0, 1)``.
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
        self._finished = finished
        self._jitter = jitter
        self._work = asyncio.Event()
        self._turns: dict[int, tuple[SummaryLease, asyncio.Task[None]]] = {}
        poll_s = dispatch.poll_s
        self._taking = SupervisedLoop(
            "summaries", "taking summaries in hand", clock, metrics, outage_s=lambda _: poll_s
        )
        self._renewing = SupervisedLoop(
            "summary_heartbeat", "renewing the leases of summaries", clock, metrics, outage_s=lambda _: poll_s
        )

    @property
    def failure_messages(self) -> tuple[str, ...]:
        """Why no summary is written, a sentence each."""
        return failure_messages(self._taking, self._renewing)

    def wake(self) -> None:
        """There is a summary to write."""
        self._work.set()

    async def cancel(self, task_id: int) -> None:
        """Stops writing the summary of a task that was cancelled or deleted, if it is in hand here."""
        if task_id in self._turns:
            _, writing = self._turns[task_id]
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)

    async def run(self) -> None:
        """Works until cancelled; then gives back what is in hand."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._claim_loop())
                group.create_task(self._renew_loop())
        finally:
            await self._release_summaries()

    async def _claim_loop(self) -> None:
        while True:
            self._work.clear()
            await self._taking.round(self._claim)
            await wait_for_event(self._work, self._settings.poll_s)

    async def _renew_loop(self) -> None:
        while True:
            await self._clock.sleep(self._settings.heartbeat_s)
            await self._renewing.round(self._renew)

    async def _claim(self) -> None:
        room = self._max_active - len(self._turns)
        for turn in await self._store.claim_summaries(self._owner, self._lease, room):
            writing = asyncio.create_task(self._write(turn), name=f"summary-{turn.task_id}")
            self._turns[turn.task_id] = (turn, writing)
            writing.add_done_callback(lambda ended, task_id=turn.task_id: self._forget(task_id, ended))  # type: ignore[misc]

    def _forget(self, task_id: int, ended: asyncio.Task[None]) -> None:
        if task_id in self._turns and self._turns[task_id][1] is ended:
            del self._turns[task_id]
        self._work.set()
        if not ended.cancelled() and (error := ended.exception()) is not None:
            logger.error("a summary failed by our own defect; it will be taken again", exc_info=error)

    async def _renew(self) -> None:
        turns = [turn for turn, _ in self._turns.values()]
        for task_id in await self._store.renew_summaries(turns, self._lease) if turns else ():
            logger.info("a summary is no longer wanted from here", extra={"task_id": task_id})
            await self.cancel(task_id)

    async def _write(self, turn: SummaryLease) -> None:
        began = self._clock.monotonic()
        with suppress(LeaseLost):  # it was cancelled or deleted, or somebody else has it now
            outcome = await self._outcome(turn)
            self._metrics.observe("summary_seconds", self._clock.monotonic() - began)
            if outcome is not None:
                await self._finish(turn, outcome, self._clock.monotonic() - began)

    async def _outcome(self, turn: SummaryLease) -> Summary | TaskError | None:
        """What the task ends with; ``None`` where there will be another attempt."""
        if turn.attempts > self._max_attempts:
            return _exhausted(self._max_attempts)
        try:
            order = SummaryJob(turn.task_id, turn.media_prefix, turn.options)
            return await self._summarizer.summarize(order)
        except Exception as error:  # noqa: BLE001 - whatever went wrong belongs in the task's record
            return await self._postpone_or_fail(turn, error)

    async def _postpone_or_fail(self, turn: SummaryLease, error: Exception) -> TaskError | None:
        reason = _reason(error, turn.task_id)
        delay_s = self._delay_s(turn, error)
        if delay_s is None:
            return _exhausted(turn.attempts) if isinstance(error, ReplicaLost) else reason
        logger.warning(
            "the summary waits: %s",
            reason.message,
            extra={"task_id": turn.task_id, "attempt": turn.attempts, "delay_s": round(delay_s, 1)},
        )
        due_at = self._clock.now() + timedelta(seconds=delay_s)
        await insist(lambda: self._store.postpone_summary(turn, due_at, reason), self._clock)
        return None

    def _delay_s(self, turn: SummaryLease, error: Exception) -> float | None:
        if not isinstance(error, RETRYABLE_ERRORS) or isinstance(error, LlmNotConfigured):
            return None
        delay_s = self._backoff.delay_s(turn.attempts, self._jitter)
        if delay_s is None:
            return None
        return max(delay_s, error.retry_after_s) if isinstance(error, Unavailable) else delay_s

    async def _finish(self, turn: SummaryLease, outcome: Summary | TaskError, seconds: float) -> None:
        task = await insist(lambda: self._store.finish_summary(turn, outcome), self._clock)
        failed = isinstance(outcome, TaskError)
        self._metrics.count("summaries_finished", outcome="failed" if failed else "completed")
        figures: dict[str, Any] = {"task_id": task.id, "attempt": turn.attempts, "seconds": round(seconds, 3)}
        if isinstance(outcome, TaskError):
            logger.warning("no summary", extra=figures | {"error": outcome.code})
        else:
            usage = outcome.usage
            log_fields = {"model": outcome.model, "calls": usage.calls, "cost": outcome.cost}
            logger.info(
                "summary", extra=figures | log_fields | {"sent": usage.input_tokens, "written": usage.output_tokens}
            )
        self._finished(task)

    async def _release_summaries(self) -> None:
        in_hand = list(self._turns.values())
        for _, writing in in_hand:
            writing.cancel()
        await asyncio.gather(*(writing for _, writing in in_hand), return_exceptions=True)
        for turn, _ in in_hand:
            with suppress(LeaseLost, DatabaseUnavailable):
                await self._store.postpone_summary(turn, self._clock.now(), counted=False)


def _reason(error: Exception, task_id: int) -> TaskError:
    if isinstance(error, MurmurationError) and error.code != MurmurationError.code:
        return TaskError(error.code, error.message)
    logger.error("the summary failed by our own defect", exc_info=error, extra={"task_id": task_id})
    return TaskError(MurmurationError.code, "The service failed on this summary; the reason is in its log.")


def _exhausted(attempts: int) -> TaskError:
    return TaskError(AttemptsExhausted.code, f"The process that wrote this summary died {attempts} times.")
