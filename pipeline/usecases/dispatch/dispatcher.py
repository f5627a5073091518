"""The Dispatcher, which claims tasks, runs an attempt at each, renews their leases and notifies watchers.

Any number of Dispatchers may share one database. The claim and its fence decide which of them works on a task.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from functools import partial

from pipeline.domain.retry import Backoff, RetrySchedule, UnlimitedBackoff
from pipeline.domain.scheduling.claim_rule import RunningTasks
from pipeline.domain.scheduling.fair_queue import SlotLimits
from pipeline.domain.tasks.task import Priority, Stage, Task, TaskError
from pipeline.errors import (
    AttemptsExhausted,
    DatabaseUnavailable,
    LeaseLost,
    LinkError,
    MediaError,
    MurmurationError,
    PreparedAudioLost,
    QuotaExceeded,
    RateLimited,
    RecordUnreadable,
    ReplicaLost,
    RequestError,
    SourceTooLarge,
    StorageFull,
    StorageUnavailable,
    TaskNotFound,
)
from pipeline.event_log import log_attempt
from pipeline.fair_slots import FairSlots
from pipeline.ports import Clock, Crawler, EngineInfo, Lease, MediaStore, Metrics, Splitter, TaskStore, Transcriber
from pipeline.process_identity import is_dead
from pipeline.settings import DispatchSettings, Settings
from pipeline.usecases.background_loop import RoundOutcome, SupervisedLoop, failure_messages
from pipeline.usecases.dispatch.attempt import Attempt, AttemptContext, was_transcribed_under
from pipeline.usecases.dispatch.chunk_scheduler import ChunkScheduler
from pipeline.usecases.dispatch.fetcher import Fetcher
from pipeline.usecases.dispatch.resumable_splitter import ResumableSplitter
from pipeline.usecases.dispatch.task_slots import TaskSlots
from pipeline.usecases.outage_retry import retry_until_available
from pipeline.usecases.task_notifier import TaskNotifier, wait_for_event

logger = logging.getLogger(__name__)

MAX_RETRY_AFTER_S = 6 * 3600.0
"""Upper bound of the delay that a site can ask for with ``Retry-After``."""

FINAL_ERRORS = (MediaError, RequestError, LinkError, SourceTooLarge, AttemptsExhausted)
"""Errors that another attempt would end with too."""

WAITABLE_ERRORS: Mapping[type[MurmurationError], str] = {
    StorageFull: "Waiting for space",
    StorageUnavailable: "Waiting for the media store",
    QuotaExceeded: "Waiting for your quota",
}
"""Errors whose cause ends by itself, and how the waiting task's message begins. Such an attempt is not counted."""

PREPARED_LOST_ERRORS = (StorageFull, PreparedAudioLost, RecordUnreadable)
"""Errors after which prepared audio is deleted: to free space, or because part of it is missing or its rows are
damaged. The recording is kept."""

MAX_WAIT_S = 600.0
"""Longest wait of a task before its next attempt, whatever it waits for: the end of a cause is not announced."""


class Dispatcher:
    """A worker that runs tasks until it is stopped.

    Args:
        owner: a name that no other Dispatcher ever has.
        store: the queue.
        media: holds the recordings.
        splitter: prepares recordings.
        transcriber: decodes chunks.
        crawler: fetches recordings; ``None`` in a deployment without a Crawler.
        clock: tells and measures time.
        settings: leases, limits, retries.
        metrics: counts and times the attempts.
        notifier: notified of each change of a task; by default one without watchers.
        finished: called whenever a task has finished, since its callback is due then.
        transcribed: called whenever a task lacks only its summary.
        is_dead: returns ``True`` if the owner of a name is certainly dead.
    """

    def __init__(
        self,
        *,
        owner: str,
        store: TaskStore,
        media: MediaStore,
        splitter: Splitter,
        transcriber: Transcriber,
        crawler: Crawler | None = None,
        clock: Clock,
        settings: Settings,
        metrics: Metrics,
        notifier: TaskNotifier | None = None,
        finished: Callable[[], None] = lambda: None,
        transcribed: Callable[[], None] = lambda: None,
        is_dead: Callable[[str], bool] = is_dead,
    ) -> None:
        self._owner = owner
        self._store = store
        self._clock = clock
        self._settings = settings.dispatch
        self._lease = timedelta(seconds=settings.dispatch.lease_duration_s)
        self._backoff = Backoff(
            base_s=settings.dispatch.retry_base_s, cap_s=300.0, max_attempts=settings.dispatch.max_attempts
        )
        self._wait_backoff = UnlimitedBackoff(settings.dispatch.retry_base_s, MAX_WAIT_S)
        self._rate_limits = RetrySchedule(settings.crawl.rate_limit_delays_s)
        self._metrics = metrics
        self._on_finished = finished
        self._is_dead = is_dead
        self._notifier = notifier or TaskNotifier()
        self._on_transcribed = transcribed
        self._scheduler = ChunkScheduler(transcriber, clock, settings.dispatch, metrics)
        self._context = AttemptContext(
            store=store,
            media=media,
            fetcher=Fetcher(crawler, media, settings, clock),
            splitter=ResumableSplitter(splitter, clock, settings.dispatch.max_attempts),
            scheduler=self._scheduler,
            clock=clock,
            settings=settings,
            audio_limits=settings.auth.audio_limits,
            on_changed=self._notifier.notify,
            on_finished=self._notifier.notify_end,
            split_slots=_split_slots(clock, settings.dispatch),
        )
        self._work = asyncio.Event()
        self._attempts: dict[int, asyncio.Task[None]] = {}
        self._claimed: dict[int, Task] = {}
        self._renewed_at = clock.monotonic()
        self.database_ready = False
        self._preparing = self._loop("prepare", "preparing the database")
        self._claiming = self._loop("claim", "claiming tasks")
        self._renewing = self._loop("heartbeat", "renewing the leases of tasks")

    def _loop(self, name: str, work: str) -> SupervisedLoop:
        poll_s = self._settings.poll_s
        return SupervisedLoop(
            name, work, self._clock, self._metrics, outage_s=lambda _: poll_s, changed=self._note_round
        )

    def _note_round(self, outcome: RoundOutcome) -> None:
        if outcome is not RoundOutcome.FAILED:  # a defect says nothing about the database
            self.database_ready = outcome is RoundOutcome.DONE

    @property
    def failure_messages(self) -> tuple[str, ...]:
        """Reasons why no task is worked on, one sentence each."""
        return (*failure_messages(self._preparing, self._claiming, self._renewing), *self._scheduler.failure_messages)

    # calls from other processes

    def wake(self) -> None:
        """Signal that a task can be claimed."""
        self._work.set()

    @property
    def engine(self) -> EngineInfo | None:
        """The engine of the replicas; ``None`` until one has loaded its model."""
        return self._scheduler.engine

    async def cancel(self, task_id: int) -> None:
        """Stop the attempt at a task that was cancelled or deleted, if it runs here."""
        attempt = self._attempts.get(task_id)
        if attempt is not None:
            attempt.cancel()
            await asyncio.gather(attempt, return_exceptions=True)
        self._notifier.notify_end(task_id)

    # the loops

    async def run(self) -> None:
        """Run tasks until cancelled, then release every claimed task."""
        try:
            async with asyncio.TaskGroup() as group:
                for loop in (self._scheduler.run(), self._claim_loop(), self._heartbeat_loop()):
                    group.create_task(loop)
        finally:
            await self._release_tasks()

    async def prepare(self) -> None:
        """Migrate the database, and wait until it is available. Await this before ``run``.

        Leases of owners that died on this machine are ended, so that their tasks need not wait for the leases to
        expire.
        """
        while not self.database_ready:
            await self._preparing.round(self._prepare_database)

    async def _prepare_database(self) -> None:
        await self._store.migrate()
        await self._expire_leases_of_dead_owners()

    async def _expire_leases_of_dead_owners(self) -> None:
        for owner in await self._store.lease_owners():
            if self._is_dead(owner):
                logger.warning("ending the leases of an owner that died", extra={"owner": owner})
                await self._store.expire_leases_of(owner)

    async def _claim_loop(self) -> None:
        while True:
            self._work.clear()
            await self._claiming.round(self._claim_all)
            await wait_for_event(self._work, self._settings.poll_s)

    async def _heartbeat_loop(self) -> None:
        while True:
            await self._clock.sleep(self._settings.heartbeat_s)
            await self._renewing.round(self._heartbeat)

    async def _claim_all(self) -> None:
        if not self.database_ready or self._heartbeat_is_late:
            await self._heartbeat()  # or a claim, even one of this process, would take over our expired leases
        for task in await self._store.fail_exhausted(self._settings.max_losses):
            self._notifier.notify_end(task.id)
        while claims := await self._claim_round():
            for task in claims:
                self._start(task)

    async def _claim_round(self) -> list[Task]:
        """Claim tasks up to the limit; beyond the limit, only for clients with less than their fair share.

        So a client whose tasks fill the limit does not keep others waiting until they are done. Tasks beyond the limit
        are at most as many as the limit allows.
        """
        limit = max(self._settings.max_active_tasks, self._scheduler.capacity.chunks)
        active = self._count_active(limit)
        claimed = Counter((task.priority.rank, task.client) for task in self._claimed.values())
        room = {priority.rank: limit - active[priority.rank] for priority in Priority}
        extra_room = {rank: limit + free for rank, free in room.items() if free <= 0}
        return await self._claim_for_ranks(room, RunningTasks(claimed)) or await self._claim_for_ranks(
            extra_room, RunningTasks(claimed, limit)
        )

    def _count_active(self, limit: int) -> Counter[int]:
        """Count the tasks of each rank that count against the limit.

        Tasks whose recording is being fetched do not count, nor do up to ``limit`` tasks of a rank that wait to be
        split. So short recordings can queue for a Splitter even while long ones occupy all of them.
        """
        fetching, waiting = self._context.fetcher.active_task_ids, self._context.split_slots.waiting_ids
        ranks = {task_id: task.priority.rank for task_id, task in self._claimed.items() if task_id not in fetching}
        uncounted = Counter(rank for task_id, rank in ranks.items() if task_id in waiting)
        return Counter({rank: count - min(uncounted[rank], limit) for rank, count in Counter(ranks.values()).items()})

    async def _claim_for_ranks(self, room: Mapping[int, int], running_tasks: RunningTasks) -> list[Task]:
        """Claim tasks of the ranks that have room."""
        free = {rank: count for rank, count in room.items() if count > 0}
        if not free:
            return []
        return await self._store.claim(self._owner, self._lease, min(free.values()), list(free), running_tasks)

    def _start(self, task: Task) -> None:
        stale_attempt = self._attempts.get(task.id)  # its lease was lost, and it has not ended yet
        self._claimed[task.id] = task
        attempt = asyncio.create_task(self._attempt(task, stale_attempt), name=f"task-{task.id}")
        self._attempts[task.id] = attempt
        attempt.add_done_callback(lambda done: self._forget(task.id, done))
        self._notifier.begin(task.id)

    def _forget(self, task_id: int, attempt: asyncio.Task[None]) -> None:
        if self._attempts.get(task_id) is attempt:
            del self._attempts[task_id], self._claimed[task_id]
        self._work.set()
        if not attempt.cancelled() and (error := attempt.exception()) is not None:
            logger.error(
                "an attempt failed because of a defect in the service; its task is claimed again after the lease",
                exc_info=error,
                extra={"task_id": task_id},
            )

    @property
    def _heartbeat_is_late(self) -> bool:
        """``True`` if half of the lease has passed since the last heartbeat, as after a stall of this process."""
        return self._clock.monotonic() - self._renewed_at > self._lease.total_seconds() / 2

    async def _heartbeat(self) -> None:
        started_at = self._clock.monotonic()
        leases = {task.id: Lease(task.id, task.fence) for task in self._claimed.values()}
        lost = await self._store.heartbeat(list(leases.values()), self._lease)
        self._renewed_at = started_at
        for task_id in lost:
            if not await self._is_released_by_attempt(leases[task_id]):
                logger.warning("lease lost", extra={"task_id": task_id})
                self._metrics.count("lost_leases")
                await self.cancel(task_id)

    async def _is_released_by_attempt(self, lease: Lease) -> bool:
        """Return whether the attempt itself ended this lease by storing its outcome. It must not be cancelled then."""
        running = self._claimed.get(lease.task_id)
        if running is None or running.fence != lease.fence:
            return True
        try:
            task = await self._store.get(lease.task_id)
            return task.fence == lease.fence or was_transcribed_under(lease.fence, task)
        except TaskNotFound:
            return False

    async def _attempt(self, task: Task, stale_attempt: asyncio.Task[None] | None) -> None:
        if stale_attempt is not None:
            stale_attempt.cancel()
            await asyncio.gather(stale_attempt, return_exceptions=True)
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
            self._report_attempt(result, attempt)

    def _report_attempt(self, task: Task, attempt: Attempt) -> None:
        outcome = "transcribed" if task.stage is Stage.SUMMARIZING else None
        log_attempt(task, attempt.stage_s, attempt.audio_s, outcome=outcome)
        for stage, seconds in attempt.stage_s.items():
            self._metrics.observe("stage_seconds", seconds, stage=stage)
        if task.stage is Stage.SUMMARIZING:
            self._on_transcribed()
            self._notifier.notify(task.id)
        else:
            self.ended(task)

    def ended(self, task: Task) -> None:
        """Report that the work on a task has ended, either here or in the writing of its summary."""
        if task.status.finished:
            self._metrics.count("tasks_finished", status=task.status)
            age_s = (self._clock.now() - task.created_at).total_seconds()
            self._metrics.observe("task_seconds", age_s, priority=task.priority)
            self._on_finished()
            self._notifier.notify_end(task.id)
        else:
            self._notifier.notify(task.id)

    async def _record_failure(self, attempt: Attempt, error: Exception) -> Task | None:
        task, failures = attempt.task, attempt.failures + 1
        waits = _may_wait(task, error)
        reason = _task_error(error, failures, self._settings.max_attempts, waits=waits)
        if reason.code == MurmurationError.code:
            logger.error(
                "an attempt failed because of a defect in the service", exc_info=error, extra={"task_id": task.id}
            )
        delay_s = self._wait_delay_s(error, task.attempts) if waits else self._retry_delay_s(error, failures)
        retry_at = None if delay_s is None else self._clock.now() + timedelta(seconds=delay_s)
        dropped = isinstance(error, PREPARED_LOST_ERRORS)
        if waits:
            logger.warning("the task waits: %s", reason.message, extra={"task_id": task.id})
            self._metrics.count("postponed_attempts", code=reason.code)
        try:
            fail = partial(
                self._store.fail, attempt.lease, reason, retry_at, keep_prepared=not dropped, counted=not waits
            )
            result = await retry_until_available(fail, self._clock)
            if dropped:
                await attempt.drop_prepared()
        except LeaseLost as lost:
            logger.warning("the failure could not be recorded: %s", lost, extra={"task_id": task.id})
            return None
        if isinstance(error, MediaError):  # no retry could decode it
            await attempt.drop_media()
        return result

    def _retry_delay_s(self, error: Exception, attempts: int) -> float | None:
        """Return the seconds until the next attempt, or ``None`` if there is none."""
        if isinstance(error, FINAL_ERRORS):
            return None
        if isinstance(error, RateLimited):
            delay_s = self._rate_limits.delay_s(attempts, random.random)
            return None if delay_s is None else max(delay_s, min(error.retry_after_s or 0.0, MAX_RETRY_AFTER_S))
        return self._backoff.delay_s(attempts, random.random)

    def _wait_delay_s(self, error: Exception, attempts: int) -> float:
        """Return the seconds that a task waits for the end of the cause."""
        delay_s = self._wait_backoff.delay_s(attempts, random.random)
        if isinstance(error, QuotaExceeded):  # names the time at which audio can be used again
            return max(delay_s, min(error.retry_after_s, MAX_WAIT_S))
        return delay_s

    async def _release_tasks(self) -> None:
        claimed, attempts = list(self._claimed.values()), list(self._attempts.values())
        for attempt in attempts:
            attempt.cancel()
        await asyncio.gather(*attempts, return_exceptions=True)
        for task in claimed:
            with suppress(LeaseLost, DatabaseUnavailable):
                await self._store.release(Lease(task.id, task.fence))


def _split_slots(clock: Clock, settings: DispatchSettings) -> TaskSlots:
    limits = SlotLimits(settings.max_concurrent_splits, reserve=True)
    return TaskSlots(FairSlots(limits, clock, settings.ageing_s))


def _may_wait(task: Task, error: Exception) -> bool:
    """Return whether the task waits for the end of the cause.

    A task whose client is connected fails instead, so that the client learns of the error at once.
    """
    return isinstance(error, tuple(WAITABLE_ERRORS)) and task.awaited_until is None


def _waiting_message(error: MurmurationError) -> str:
    prefix = next(prefix for kind, prefix in WAITABLE_ERRORS.items() if isinstance(error, kind))
    return f"{prefix}: {error.message[:1].lower()}{error.message[1:]}"


def _task_error(error: Exception, failures: int, max_attempts: int, *, waits: bool) -> TaskError:
    if isinstance(error, ReplicaLost) and failures >= max_attempts:
        return TaskError(AttemptsExhausted.code, f"The process that worked on this recording died {failures} times.")
    if isinstance(error, MurmurationError):
        return TaskError(error.code, _waiting_message(error) if waits else error.message)
    return TaskError(
        MurmurationError.code, "The service failed on this task because of a defect. Its log has the details."
    )
