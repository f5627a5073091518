"""Delivering callbacks: due ones are taken from the outbox, posted side by side, and every attempt is recorded.

A callback is delivered at least once. It is taken under a lease; a courier that dies, or can't record an attempt before
the lease ends, leaves it to be taken again, with the same message id.
"""

from __future__ import annotations

import asyncio
import logging
import random
import sys
from collections.abc import Callable, Coroutine
from datetime import timedelta
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

logger = logging.getLogger(__name__)

MAX_PER_HOST = 4
"""Callbacks under way to one host: a slow receiver occupies no more of the courier than that, and one client's
receivers together no more than half of it."""

MAX_CLAIMED = 500
"""Callbacks taken at a time, most of which wait for their host's turn; the rest stay in the outbox."""

REFILL_AT = (MAX_CLAIMED // 2, MAX_CLAIMED // 4)
"""With so many left, more are taken at once; one client has no more than half of those in hand."""

RECORD_MARGIN_S = 10.0
"""Part of the lease that is kept for recording the attempt, through a short absence of the database."""

MAX_RETRY_AFTER_S = 3600.0
"""A receiver that asks for more patience than this is asked again after this."""

DATABASE_BACKOFF = Backoff(base_s=1.0, cap_s=30.0, max_attempts=sys.maxsize)


class CallbackDeliverer:
    """Delivers callbacks until it is told to stop.

    Args:
        store: holds the outbox and the tasks.
        sender: posts one callback.
        encode: renders the body.
        clock: the time.
        metrics: where the figures go.
        settings: delays between attempts, how many at a time, the time limit of one.
        owner: a name no other courier has.
        poll_s: how often the outbox is looked at when nobody wakes the courier.
        jitter: numbers in ``[0, 1)``.
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
        self._patience_s = 2 * settings.timeout_s
        self._lease_s = self._patience_s + settings.timeout_s + RECORD_MARGIN_S
        self._slots = FairSlots(SlotLimits(settings.concurrency, MAX_PER_HOST, reserve=True), clock)
        self._owner = owner
        self._poll_s = poll_s
        self._jitter = jitter
        self._work = asyncio.Event()
        self._stopping = False
        self._in_hand: set[asyncio.Task[None]] = set()
        self._taking = SupervisedLoop(
            "callbacks",
            "taking callbacks in hand",
            clock,
            metrics,
            outage_s=lambda outages: _database_pause_s(outages, jitter),
            jitter=jitter,
        )

    @property
    def failure_messages(self) -> tuple[str, ...]:
        """Why no callback is delivered, a sentence each."""
        return failure_messages(self._taking)

    def wake(self) -> None:
        """There is a callback to deliver."""
        self._work.set()

    async def run_once(self) -> int:
        """Delivers what is due now; returns how many callbacks that were. Raises ``DatabaseUnavailable``."""
        taken = await self._claim()
        if taken:
            await asyncio.wait(taken)
        return len(taken)

    async def run(self, stop: asyncio.Event) -> None:
        """Delivers callbacks until ``stop`` is set; what is being posted then is seen through."""
        try:
            while not stop.is_set():
                pause_s = await self._taking.attempt(self._claim)
                await self._pause(stop, self._poll_s if pause_s is None else pause_s)
            self._stopping = True
            if self._in_hand:
                await asyncio.wait(self._in_hand)
        finally:
            for delivery in self._in_hand:
                delivery.cancel()

    async def _claim(self) -> set[asyncio.Task[None]]:
        self._work.clear()
        room = MAX_CLAIMED - len(self._in_hand)
        if room <= 0:
            return set()
        taken_at = self._clock.monotonic()
        messages = await self._store.claim_callbacks(self._owner, timedelta(seconds=self._lease_s), room)
        return {self._start(self._deliver(message, taken_at)) for message in messages}

    def _start(self, delivery: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(delivery)
        self._in_hand.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, delivery: asyncio.Task[None]) -> None:
        self._in_hand.discard(delivery)
        if len(self._in_hand) in REFILL_AT:
            self._work.set()
        if not delivery.cancelled() and (error := delivery.exception()) is not None:
            logger.error("a callback failed by our own defect; it will be taken again", exc_info=error)

    async def _pause(self, stop: asyncio.Event, seconds: float) -> None:
        waits = [asyncio.create_task(wait) for wait in (stop.wait(), self._work.wait(), self._clock.sleep(seconds))]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _deliver(self, message: OutboxMessage, taken_at: float) -> None:
        async with self._slots.turn(_turn_request(message)):
            # Too late to finish within the lease, or being shut down: it stays in the outbox for the next to take it.
            if self._stopping or self._clock.monotonic() - taken_at > self._patience_s:
                return
            try:
                attempt = await self._attempt(message)
            except DatabaseUnavailable as error:
                logger.warning("a callback waits for the database: %s", error, extra=_log_fields(message))
                return
            if attempt is None:
                return  # the lease runs out, and whoever can read the task may take it
            await self._record(message, attempt, taken_at + self._lease_s)

    async def _attempt(self, message: OutboxMessage) -> DeliveryAttempt | None:
        """Posts it; ``None`` where only a newer version can say what there is to post."""
        try:
            task = await self._store.get(message.task_id, include_result=True)
        except TaskNotFound:
            return DeliveryAttempt(delivered=False, status_code=None, message="The task was deleted.", retry_at=None)
        if task.defect is not None and task.defect.newer:
            return None
        started = self._clock.monotonic()
        answer = await self._sender.send(message, self._encode(task))
        self._log_attempt(message, answer, self._clock.monotonic() - started)
        delay_s = retry_delay_s(self._schedule, message.attempts + 1, answer, self._jitter)
        return DeliveryAttempt(
            delivered=answer.verdict is DeliveryVerdict.DELIVERED,
            status_code=answer.status_code,
            message=answer.message,
            retry_at=None if delay_s is None else self._clock.now() + timedelta(seconds=delay_s),
        )

    def _log_attempt(self, message: OutboxMessage, answer: CallbackResponse, seconds: float) -> None:
        self._metrics.count("callback_attempts", outcome=answer.verdict.value)
        self._metrics.observe("callback_seconds", seconds)
        logger.info(
            "callback",
            extra=_log_fields(message)
            | {"outcome": answer.verdict.value, "status_code": answer.status_code, "seconds": round(seconds, 3)},
        )

    async def _record(self, message: OutboxMessage, attempt: DeliveryAttempt, expires_at: float) -> None:
        """Insists while the lease lasts: an attempt that goes unrecorded is made again."""
        outages = 0
        while not await self._recorded(message, attempt):
            outages += 1
            pause_s = _database_pause_s(outages, self._jitter)
            if self._stopping or self._clock.monotonic() + pause_s > expires_at:
                logger.warning("an attempt could not be recorded and will be made again", extra=_log_fields(message))
                return
            await self._clock.sleep(pause_s)

    async def _recorded(self, message: OutboxMessage, attempt: DeliveryAttempt) -> bool:
        try:
            await self._store.record_delivery(message, attempt)
        except DatabaseUnavailable:
            return False
        return True


def retry_delay_s(
    schedule: RetrySchedule, attempts: int, answer: CallbackResponse, jitter: Callable[[], float]
) -> float | None:
    """Seconds until the next attempt, or ``None`` if there is none.

    Args:
        schedule: the table of delays.
        attempts: attempts made so far, this one included.
        answer: what the receiver said; ``Retry-After`` prolongs the delay, up to ``MAX_RETRY_AFTER_S``.
        jitter: numbers in ``[0, 1)``.
    """
    if answer.verdict is not DeliveryVerdict.RETRY:
        return None
    delay_s = schedule.delay_s(attempts, jitter)
    if delay_s is None:
        return None
    return max(delay_s, min(answer.retry_after_s or 0.0, MAX_RETRY_AFTER_S))


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
        return ""  # not a URL; the sender will say so
