"""Delivery of callbacks: due callbacks are claimed from the outbox and posted concurrently; each attempt is recorded.

A callback is delivered at least once. It is claimed under a lease. If the process dies, or can't record an attempt
before the lease ends, the callback is claimed again and posted with the same message id.
"""

from __future__ import annotations

import asyncio
import logging
import random
import sys
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from pipeline.domain.retry import Backoff, RetrySchedule
from pipeline.domain.scheduling.fair_queue import SlotLimits, TurnRequest, share_key
from pipeline.errors import DatabaseUnavailable, TaskNotFound
from pipeline.fair_slots import FairSlots
from pipeline.ports import (
    CallbackResponse,
    CallbackSender,
    Clock,
    DeliveryAttempt,
    DeliveryVerdict,
    Metrics,
    OutboxMessage,
    TaskRecordEncoder,
    TaskStore,
)
from pipeline.settings import CallbackSettings
from pipeline.usecases.background_loop import SupervisedLoop, failure_messages
from pipeline.usecases.running_work import RunningWork

logger = logging.getLogger(__name__)

MAX_PER_HOST = 4
"""Concurrent deliveries to one host. A slow receiver occupies no more slots than this, and all receivers of one client
together no more than half of the slots."""

MAX_CLAIMED = 500
"""Callbacks that are claimed at once. Most of them wait for a slot of their host; the rest stay in the outbox."""

REFILL_AT = (MAX_CLAIMED // 2, MAX_CLAIMED // 4)
"""Numbers of remaining callbacks at which more are claimed at once. One client holds at most half of those claimed."""

RECORD_MARGIN_S = 10.0
"""Part of the lease that is kept for recording the attempt, so that a short outage of the database does no harm."""

MAX_RETRY_AFTER_S = 3600.0
"""Upper bound of the delay that a receiver can ask for with ``Retry-After``."""

DATABASE_BACKOFF = Backoff(base_s=1.0, cap_s=30.0, max_attempts=sys.maxsize)


class CallbackDeliverer:
    """A background worker that delivers callbacks until it is stopped.

    Args:
        store: holds the outbox and the tasks.
        sender: posts one callback.
        encode: renders the body.
        clock: tells and measures time.
        metrics: counts and times the attempts.
        settings: delays between attempts, number of concurrent deliveries, timeout of one.
        owner: a name that no other deliverer has.
        poll_s: interval at which the outbox is queried if ``wake`` is not called.
        jitter: returns random numbers in ``[0, 1)``.
    """

    def __init__(
        self,
        store: TaskStore,
        sender: CallbackSender,
        encode: TaskRecordEncoder,
        clock: Clock,
        metrics: Metrics,
        settings: CallbackSettings,
        *,
        owner: str,
        poll_s: float = 3.0,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._store = store
        self._sender = sender
        self._encode = encode
        self._clock = clock
        self._metrics = metrics
        self._schedule = RetrySchedule(settings.delays_s)
        self._max_slot_wait_s = 2 * settings.timeout_s
        self._lease_s = self._max_slot_wait_s + settings.timeout_s + RECORD_MARGIN_S
        self._slots = FairSlots(SlotLimits(settings.concurrency, MAX_PER_HOST, reserve=True), clock)
        self._owner = owner
        self._poll_s = poll_s
        self._jitter = jitter
        self._work = asyncio.Event()
        self._stopping = False
        self._deliveries: RunningWork[tuple[str, float], OutboxMessage] = RunningWork(
            "callback", "a callback failed because of a defect in the service; it is claimed again", self._claim_early
        )
        self._claiming = SupervisedLoop(
            "callbacks",
            "claiming callbacks",
            clock,
            metrics,
            outage_s=lambda outages: _database_pause_s(outages, jitter),
            jitter=jitter,
        )

    @property
    def failure_messages(self) -> tuple[str, ...]:
        """Reasons why no callback is delivered, one sentence each."""
        return failure_messages(self._claiming)

    def wake(self) -> None:
        """Signal that a callback is due."""
        self._work.set()

    async def run_once(self) -> int:
        """Deliver the callbacks that are due now, and return their number. Raises ``DatabaseUnavailable``."""
        deliveries = await self._claim()
        if deliveries:
            await asyncio.wait(deliveries)
        return len(deliveries)

    async def run(self, stop: asyncio.Event) -> None:
        """Deliver callbacks until ``stop`` is set, then wait for the deliveries that are under way."""
        try:
            while not stop.is_set():
                pause_s = await self._claiming.attempt(self._claim)
                await self._pause(stop, self._poll_s if pause_s is None else pause_s)
            self._stopping = True
            await self._deliveries.wait()
        finally:
            await self._deliveries.cancel_all()

    async def _claim(self) -> set[asyncio.Task[None]]:
        self._work.clear()
        room = MAX_CLAIMED - len(self._deliveries)
        if room <= 0:
            return set()
        claimed_at = self._clock.monotonic()
        messages = await self._store.claim_callbacks(self._owner, timedelta(seconds=self._lease_s), room)
        return {self._start(message, claimed_at) for message in messages}

    def _start(self, message: OutboxMessage, claimed_at: float) -> asyncio.Task[None]:
        key = message.message_id, claimed_at  # an earlier delivery, whose lease has expired, may still wait for a slot
        return self._deliveries.start(key, message, partial(self._deliver, message, claimed_at), _log_fields(message))

    def _claim_early(self) -> None:
        """Claim more callbacks before the next poll once few remain."""
        if len(self._deliveries) in REFILL_AT:
            self._work.set()

    async def _pause(self, stop: asyncio.Event, seconds: float) -> None:
        waits = [asyncio.create_task(wait) for wait in (stop.wait(), self._work.wait(), self._clock.sleep(seconds))]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _deliver(self, message: OutboxMessage, claimed_at: float) -> None:
        async with self._slots.turn(_turn_request(message)):
            # A delivery now could outlast the lease or the shutdown: leave the callback in the outbox.
            if self._stopping or self._clock.monotonic() - claimed_at > self._max_slot_wait_s:
                return
            try:
                attempt = await self._attempt(message)
            except DatabaseUnavailable as error:
                logger.warning("a callback waits for the database: %s", error, extra=_log_fields(message))
                return
            if attempt is None:
                return  # once the lease has expired, a process that can read the task may claim the callback
            await self._record(message, attempt, claimed_at + self._lease_s)

    async def _attempt(self, message: OutboxMessage) -> DeliveryAttempt | None:
        """Post a callback. Return ``None`` if only a newer version of this software can read the task."""
        try:
            task = await self._store.get(message.task_id, include_result=True)
        except TaskNotFound:
            return DeliveryAttempt(delivered=False, status_code=None, message="The task was deleted.", retry_at=None)
        if task.defect is not None and task.defect.newer:
            return None
        started_at = self._clock.monotonic()
        response = await self._sender.send(message, self._encode(task))
        self._log_attempt(message, response, self._clock.monotonic() - started_at)
        delay_s = retry_delay_s(self._schedule, message.attempts + 1, response, self._jitter)
        return DeliveryAttempt(
            delivered=response.verdict is DeliveryVerdict.DELIVERED,
            status_code=response.status_code,
            message=response.message,
            retry_at=None if delay_s is None else self._clock.now() + timedelta(seconds=delay_s),
        )

    def _log_attempt(self, message: OutboxMessage, response: CallbackResponse, duration_s: float) -> None:
        outcome = response.verdict.value
        self._metrics.count("callback_attempts", outcome=outcome)
        self._metrics.observe("callback_seconds", duration_s)
        logger.info(
            "callback",
            extra=_log_fields(message)
            | {"outcome": outcome, "status_code": response.status_code, "seconds": round(duration_s, 3)},
        )

    async def _record(self, message: OutboxMessage, attempt: DeliveryAttempt, expires_at: float) -> None:
        """Record an attempt, and retry while the lease lasts: an unrecorded attempt is made again."""
        outages = 0
        while not await self._try_record(message, attempt):
            outages += 1
            pause_s = _database_pause_s(outages, self._jitter)
            if self._stopping or self._clock.monotonic() + pause_s > expires_at:
                logger.warning("a delivery could not be recorded and will be repeated", extra=_log_fields(message))
                return
            await self._clock.sleep(pause_s)

    async def _try_record(self, message: OutboxMessage, attempt: DeliveryAttempt) -> bool:
        try:
            await self._store.record_delivery(message, attempt)
        except DatabaseUnavailable:
            return False
        return True


def retry_delay_s(
    schedule: RetrySchedule, attempts: int, response: CallbackResponse, jitter: Callable[[], float]
) -> float | None:
    """Return the seconds until the next attempt, or ``None`` if there is none.

    Args:
        schedule: the table of delays.
        attempts: attempts made so far, this one included.
        response: the receiver's response. ``Retry-After`` lengthens the delay, up to ``MAX_RETRY_AFTER_S``.
        jitter: returns random numbers in ``[0, 1)``.
    """
    if response.verdict is not DeliveryVerdict.RETRY:
        return None
    delay_s = schedule.delay_s(attempts, jitter)
    if delay_s is None:
        return None
    return max(delay_s, min(response.retry_after_s or 0.0, MAX_RETRY_AFTER_S))


def _database_pause_s(outages: int, jitter: Callable[[], float]) -> float:
    return DATABASE_BACKOFF.delay_s(outages, jitter) or 0.0


def _log_fields(message: OutboxMessage) -> dict[str, Any]:
    return {
        "task_id": message.task_id,
        "message_id": message.message_id,
        "host": _host(message),
        "attempt": message.attempts + 1,
    }


def _turn_request(message: OutboxMessage) -> TurnRequest:
    return TurnRequest(share_key(message.task_id, message.client), 0, host=_host(message), cost=1.0)


def _host(message: OutboxMessage) -> str:
    try:
        return urlsplit(message.url).hostname or ""
    except ValueError:
        return ""  # not a URL; the sender reports it
