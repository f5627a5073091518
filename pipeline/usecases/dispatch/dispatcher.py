"""The Dispatcher: claims tasks, runs an attempt at each, keeps its leases alive, and tells whoever waits.

Any number of them may share one database. Which of them has a task is decided there, by the claim and its fence.
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
from pipeline.fair_slots import FairSlots
from pipeline.observability import log_attempt
from pipeline.ports import Clock, Crawler, EngineInfo, Lease, MediaStore, Metrics, Splitter, TaskStore, Transcriber
from pipeline.process_identity import is_dead
from pipeline.settings import DispatchSettings, Settings
from pipeline.usecases.background_loop import RoundOutcome, SupervisedLoop, failure_messages
from pipeline.usecases.dispatch.attempt import Attempt, AttemptContext, was_transcribed_under
from pipeline.usecases.dispatch.chunk_scheduler import ChunkScheduler
from pipeline.usecases.dispatch.fetcher import Fetcher
from pipeline.usecases.dispatch.resumable_splitter import ResumableSplitter
from pipeline.usecases.dispatch.task_places import TaskSlots
from pipeline.usecases.outage_retry import insist
from pipeline.usecases.task_notifier import TaskNotifier, wait_for_event

logger = logging.getLogger(__name__)

MAX_RETRY_AFTER_S = 6 * 3600.0
"""A site that wants to be left alone for longer is asked again after this long."""

FINAL_ERRORS = (MediaError, RequestError, LinkError, SourceTooLarge, AttemptsExhausted)
"""Errors that another attempt would meet again."""

WAITABLE_ERRORS: Mapping[type[MurmurationError], str] = {
    StorageFull: "Waiting for space",
    StorageUnavailable: "Waiting for the media store",
    QuotaExceeded: "Waiting for your quota",
}
"""Errors that pass by themselves, and what is said of a task that waits: such an attempt is not held against it."""

PREPARED_LOST_ERRORS = (StorageFull, PreparedAudioLost, RecordUnreadable)
"""Errors after which prepared audio goes: it makes room, part of it is missing, or its rows are damaged. The recording
stays."""

MAX_WAIT_S = 600.0
"""A task that waits is tried again after this long, whatever it waits for: room may come unannounced."""


class Dispatcher:
    """Runs tasks until it is stopped.

    Args:
        owner: a name no other Dispatcher has, ever.
        store: the queue.
        media: the recordings.
        splitter: prepares them.
        transcriber: decodes them.
        crawler: fetches those that are links; ``None`` where nothing does.
        clock: the time.
        settings: leases, limits, retries.
        metrics: where the figures go.
        finished: told whenever a task has finished, since its callback is due then.
        transcribed: told whenever only a task's summary is missing.
        is_dead: whether the owner of that name is dead for certain.
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
        self._patience = UnlimitedBackoff(settings.dispatch.retry_base_s, MAX_WAIT_S)
        self._rate_limits = RetrySchedule(settings.crawl.rate_limit_delays_s)
        self._metrics = metrics
        self._on_finished = finished
        self._is_dead = is_dead
        self._news = TaskNotifier()
        self._on_transcribed = transcribed
        self._scheduler = ChunkScheduler(transcriber, clock, settings.dispatch, metrics)
        self._driver = AttemptContext(
            store=store,
            media=media,
            fetcher=Fetcher(crawler, media, settings, clock),
            splitter=ResumableSplitter(splitter, clock, settings.dispatch.max_attempts),
            scheduler=self._scheduler,
            clock=clock,
            settings=settings,
            audio_limits=settings.auth.audio_limits,
            changed=self._news.notify,
            finished=self._news.notify_end,
            split_places=_split_places(clock, settings.dispatch),
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
        if outcome is not RoundOutcome.FAILED:  # which says nothing about the database
            self.database_ready = outcome is RoundOutcome.DONE

    @property
    def failure_messages(self) -> tuple[str, ...]:
        """Why no task is worked at, a sentence each."""
        return (*failure_messages(self._preparing, self._claiming, self._renewing), *self._scheduler.failure_messages)

    # what others ask of it

    def wake(self) -> None:
        """There is a task to claim."""
        self._work.set()

    @property
    def engine(self) -> EngineInfo | None:
        """What the replicas run, once one has loaded its model."""
        return self._scheduler.engine

    async def watch(self, task_id: int, seen: int, timeout_s: float) -> int:
        """Returns when something about the task has changed: see ``TaskNotifier.watch``."""
        return await self._news.watch(task_id, seen, timeout_s)

    async def watch_end(self, task_id: int, timeout_s: float) -> None:
        """Returns when the task has finished, or after ``timeout_s``."""
        await self._news.watch_end(task_id, timeout_s)

    async def cancel(self, task_id: int) -> None:
        """Stops the attempt at a task that was cancelled or deleted, if it runs here."""
        attempt = self._attempts.get(task_id)
        if attempt is not None:
            attempt.cancel()
            await asyncio.gather(attempt, return_exceptions=True)
        self._news.notify_end(task_id)

    # its life

    async def run(self) -> None:
        """Works until cancelled; then hands every task back."""
        try:
            async with asyncio.TaskGroup() as group:
                for loop in (self._scheduler.run(), self._claim_loop(), self._heartbeat_loop()):
                    group.create_task(loop)
        finally:
            await self._release_tasks()

    async def prepare(self) -> None:
        """Brings the database up to date, and waits for it as long as that takes; to be awaited before ``run``.

        What a dead predecessor on this machine left running is taken from it, or its leases would have to run out.
        """
        while not self.database_ready:
            await self._preparing.round(self._prepare_database)

    async def _prepare_database(self) -> None:
        await self._store.migrate()
        await self._expire_leases_of_dead_owners()

    async def _expire_leases_of_dead_owners(self) -> None:
        for owner in await self._store.lease_owners():
            if self._is_dead(owner):
                logger.warning("taking over from an owner that died", extra={"owner": owner})
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
            await self._heartbeat()  # before anyone, us included, takes our leases for abandoned
        for task in await self._store.fail_exhausted(self._settings.max_losses):
            self._news.notify_end(task.id)
        while claims := await self._claim_round():
            for task in claims:
                self._start(task)

    async def _claim_round(self) -> list[Task]:
        """Claims what there is room for; where there is none, what clients lack that run less than their share.

        So a client whose tasks fill all room keeps nobody else waiting until they are done. Together, those beside the
        room are no more than it holds.
        """
        limit = max(self._settings.max_active_tasks, self._scheduler.capacity.chunks)
        active = self._count_active(limit)
        held = Counter((task.priority.rank, task.client) for task in self._claimed.values())
        room = {priority.rank: limit - active[priority.rank] for priority in Priority}
        beside = {rank: limit + free for rank, free in room.items() if free <= 0}
        return await self._claim_for_ranks(room, RunningTasks(held)) or await self._claim_for_ranks(
            beside, RunningTasks(held, limit)
        )

    def _count_active(self, limit: int) -> Counter[int]:
        """Count the tasks of each rank that keep others from being claimed.

        Those that are fetched do not, nor do those that wait to be split, up to ``limit`` of them: where long
        recordings have every place at the Splitters, short ones still get into the line for the next.
        """
        fetching, waiting = self._driver.fetcher.active_task_ids, self._driver.split_places.waiting
        ranks = {task_id: task.priority.rank for task_id, task in self._claimed.items() if task_id not in fetching}
        aside = Counter(rank for task_id, rank in ranks.items() if task_id in waiting)
        return Counter({rank: count - min(aside[rank], limit) for rank, count in Counter(ranks.values()).items()})

    async def _claim_for_ranks(self, room: Mapping[int, int], running_tasks: RunningTasks) -> list[Task]:
        """Claims tasks of the ranks that have room."""
        free = {rank: count for rank, count in room.items() if count > 0}
        if not free:
            return []
        return await self._store.claim(self._owner, self._lease, min(free.values()), list(free), running_tasks)

    def _start(self, task: Task) -> None:
        lost_lease = self._attempts.get(task.id)  # its lease was lost, and it has not noticed yet
        self._claimed[task.id] = task
        attempt = asyncio.create_task(self._attempt(task, lost_lease), name=f"task-{task.id}")
        self._attempts[task.id] = attempt
        attempt.add_done_callback(lambda done: self._forget(task.id, done))
        self._news.begin(task.id)

    def _forget(self, task_id: int, attempt: asyncio.Task[None]) -> None:
        if self._attempts.get(task_id) is attempt:
            del self._attempts[task_id], self._claimed[task_id]
        self._work.set()
        if not attempt.cancelled() and (error := attempt.exception()) is not None:
            logger.error(
                "an attempt ended by our own defect; the task is claimed again once its lease has expired",
                exc_info=error,
                extra={"task_id": task_id},
            )

    @property
    def _heartbeat_is_late(self) -> bool:
        """Whether the leases may be about to run out: this process was held up, and claims are made first."""
        return self._clock.monotonic() - self._renewed_at > self._lease.total_seconds() / 2

    async def _heartbeat(self) -> None:
        began = self._clock.monotonic()
        leases = {task.id: Lease(task.id, task.fence) for task in self._claimed.values()}
        lost = await self._store.heartbeat(list(leases.values()), self._lease)
        self._renewed_at = began
        for task_id in lost:
            if not await self._is_released_by_attempt(leases[task_id]):
                logger.warning("lease lost", extra={"task_id": task_id})
                self._metrics.count("lost_leases")
                await self.cancel(task_id)

    async def _is_released_by_attempt(self, lease: Lease) -> bool:
        """Whether a lease that does not hold any more was given up by its own attempt, which must not be disturbed."""
        running = self._claimed.get(lease.task_id)
        if running is None or running.fence != lease.fence:
            return True
        try:
            task = await self._store.get(lease.task_id)
            return task.fence == lease.fence or was_transcribed_under(lease.fence, task)
        except TaskNotFound:
            return False

    async def _attempt(self, task: Task, lost_lease: asyncio.Task[None] | None) -> None:
        if lost_lease is not None:
            lost_lease.cancel()
            await asyncio.gather(lost_lease, return_exceptions=True)
        attempt = Attempt(self._driver, task)
        ended: Task | None
        try:
            ended = await attempt.run()
        except LeaseLost:
            logger.info("another owner has the task", extra={"task_id": task.id})
            return
        except Exception as error:  # noqa: BLE001 - whatever went wrong belongs in the task's record
            ended = await self._note_failure(attempt, error)
        if ended is not None:
            self._report_attempt(ended, attempt)

    def _report_attempt(self, task: Task, attempt: Attempt) -> None:
        outcome = "transcribed" if task.stage is Stage.SUMMARIZING else None
        log_attempt(task, attempt.stage_s, attempt.audio_s, outcome=outcome)
        for stage, seconds in attempt.stage_s.items():
            self._metrics.observe("stage_seconds", seconds, stage=stage)
        if task.stage is Stage.SUMMARIZING:
            self._on_transcribed()
            self._news.notify(task.id)
        else:
            self.ended(task)

    def ended(self, task: Task) -> None:
        """Nothing more is done for the task here, or, where only its summary was missing, anywhere."""
        if task.status.finished:
            self._metrics.count("tasks_finished", status=task.status)
            age_s = (self._clock.now() - task.created_at).total_seconds()
            self._metrics.observe("task_seconds", age_s, priority=task.priority)
            self._on_finished()
            self._news.notify_end(task.id)
        else:
            self._news.notify(task.id)

    async def _note_failure(self, attempt: Attempt, error: Exception) -> Task | None:
        task, failures = attempt.task, attempt.failures + 1
        waits = _may_wait(task, error)
        reason = _task_error(error, failures, self._settings.max_attempts, waits=waits)
        if reason.code == MurmurationError.code:
            logger.error("attempt failed by our own defect", exc_info=error, extra={"task_id": task.id})
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
            ended = await insist(fail, self._clock)
            if dropped:
                await attempt.drop_prepared()
        except LeaseLost as lost:
            logger.warning("the failure could not be noted: %s", lost, extra={"task_id": task.id})
            return None
        if isinstance(error, MediaError):  # no retry will ever make sense of it
            await attempt.drop_media()
        return ended

    def _retry_delay_s(self, error: Exception, attempts: int) -> float | None:
        """When to try again, in seconds; ``None``: not at all."""
        if isinstance(error, FINAL_ERRORS):
            return None
        if isinstance(error, RateLimited):
            delay_s = self._rate_limits.delay_s(attempts, random.random)
            return None if delay_s is None else max(delay_s, min(error.retry_after_s or 0.0, MAX_RETRY_AFTER_S))
        return self._backoff.delay_s(attempts, random.random)

    def _wait_delay_s(self, error: Exception, attempts: int) -> float:
        """How long a task waits for what will come by itself, in seconds."""
        delay_s = self._patience.delay_s(attempts, random.random)
        if isinstance(error, QuotaExceeded):  # it says itself when there is some again
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


def _split_places(clock: Clock, settings: DispatchSettings) -> TaskSlots:
    limits = SlotLimits(settings.max_concurrent_splits, reserve=True)
    return TaskSlots(FairSlots(limits, clock, settings.ageing_s))


def _may_wait(task: Task, error: Exception) -> bool:
    """Whether a task waits for what its attempt lacked; not one whose client waits for it, and can be told."""
    return isinstance(error, tuple(WAITABLE_ERRORS)) and task.awaited_until is None


def _waiting_sentence(error: MurmurationError) -> str:
    prefix = next(words for kind, words in WAITABLE_ERRORS.items() if isinstance(error, kind))
    return f"{prefix}: {error.message[:1].lower()}{error.message[1:]}"


def _task_error(error: Exception, failures: int, max_attempts: int, *, waits: bool) -> TaskError:
    if isinstance(error, ReplicaLost) and failures >= max_attempts:
        return TaskError(AttemptsExhausted.code, f"The process that worked on this recording died {failures} times.")
    if isinstance(error, MurmurationError):
        return TaskError(error.code, _waiting_sentence(error) if waits else error.message)
    return TaskError(MurmurationError.code, "The service failed on this task; the reason is in its log.")
