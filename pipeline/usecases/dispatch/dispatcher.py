"""The Dispatcher, which claims tasks, runs an attempt at each, renews their leases and notifies watchers.

Any number of Dispatchers may share one database. The claim and its fence decide which of them works on a task.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from math import inf

from pipeline.domain.scheduling.fair_queue import SlotLimits
from pipeline.domain.tasks.failure_policy import FailurePolicy
from pipeline.domain.tasks.lifecycle import was_transcribed_under
from pipeline.domain.tasks.task import Task
from pipeline.errors import DatabaseUnavailable, LeaseLost, TaskNotFound
from pipeline.fair_slots import FairSlots
from pipeline.ports import Clock, Crawler, EngineInfo, Lease, MediaStore, Metrics, Splitter, TaskStore, Transcriber
from pipeline.process_identity import is_dead
from pipeline.settings import DispatchSettings, Settings
from pipeline.usecases.background_loop import RoundOutcome, SupervisedLoop, failure_messages
from pipeline.usecases.dispatch.attempt_context import AttemptContext
from pipeline.usecases.dispatch.attempt_runner import AttemptRunner
from pipeline.usecases.dispatch.chunk_scheduler import ChunkScheduler
from pipeline.usecases.dispatch.fetcher import Fetcher
from pipeline.usecases.dispatch.resumable_splitter import ResumableSplitter
from pipeline.usecases.dispatch.task_claimer import TaskClaimer
from pipeline.usecases.dispatch.task_slots import TaskSlots
from pipeline.usecases.running_work import RunningWork
from pipeline.usecases.task_completion import TaskCompletion
from pipeline.usecases.task_notifier import TaskNotifier

logger = logging.getLogger(__name__)


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
        self._store = store
        self._clock = clock
        self._settings = settings.dispatch
        self._lease = timedelta(seconds=settings.dispatch.lease_duration_s)
        self._metrics = metrics
        self._notifier = notifier or TaskNotifier()
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
        self._runner = AttemptRunner(
            self._context,
            _failure_policy(settings),
            TaskCompletion(self._notifier, metrics, clock, finished),
            metrics,
            transcribed,
        )
        self._claimer = TaskClaimer(
            store,
            owner,
            settings.dispatch,
            scheduler=self._scheduler,
            fetcher=self._context.fetcher,
            split_slots=self._context.split_slots,
            is_dead=is_dead,
        )
        self._work = asyncio.Event()
        self._attempts: RunningWork[int, Task] = RunningWork(
            "task",
            "an attempt failed because of a defect in the service; its task is claimed again after the lease",
            self._note_room,
        )
        self._renewed_at = clock.monotonic()
        self._searched_exhausted_at = -inf
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
        await self._attempts.cancel(task_id)
        self._notifier.notify_end(task_id)

    # the loops

    async def run(self) -> None:
        """Run tasks until cancelled, then release every claimed task."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._scheduler.run())
                group.create_task(self._claiming.run(self._claim_all, self._work, self._settings.poll_s))
                group.create_task(self._renewing.run_every(self._settings.heartbeat_s, self._heartbeat))
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
        await self._claimer.expire_leases_of_dead_owners()

    async def _claim_all(self) -> None:
        if not self.database_ready or self._heartbeat_is_late:
            await self._heartbeat()  # or a claim, even one of this process, would take over our expired leases
        await self._fail_exhausted()
        while claimed := await self._claimer.claim(self._attempts.items):
            for task in claimed:
                self._start(task)

    async def _fail_exhausted(self) -> None:
        """Fail the tasks whose lease expired too often. They are not claimed, so there is no hurry to find them."""
        now = self._clock.monotonic()
        if now - self._searched_exhausted_at < self._settings.poll_s:
            return
        self._searched_exhausted_at = now
        for task in await self._store.fail_exhausted(self._settings.max_losses):
            self._notifier.notify_end(task.id)

    def _note_room(self) -> None:
        """Claim again after the end of an attempt, if tasks may wait only because there was no room for them."""
        if self._claimer.more_may_wait:
            self._work.set()

    def _start(self, task: Task) -> None:
        """Start an attempt. An earlier one, whose lease was lost, may not have ended yet: it is cancelled first."""
        self._attempts.start(task.id, task, partial(self._runner.run, task), {"task_id": task.id})
        self._notifier.begin(task.id)

    @property
    def _heartbeat_is_late(self) -> bool:
        """``True`` if half of the lease has passed since the last heartbeat, as after a stall of this process."""
        return self._clock.monotonic() - self._renewed_at > self._lease.total_seconds() / 2

    async def _heartbeat(self) -> None:
        started_at = self._clock.monotonic()
        leases = {task.id: Lease(task.id, task.fence) for task in self._attempts.items}
        lost = await self._store.heartbeat(list(leases.values()), self._lease)
        self._renewed_at = started_at
        for task_id in lost:
            if not await self._is_released_by_attempt(leases[task_id]):
                logger.warning("lease lost", extra={"task_id": task_id})
                self._metrics.count("lost_leases")
                await self.cancel(task_id)

    async def _is_released_by_attempt(self, lease: Lease) -> bool:
        """Return whether the attempt itself ended this lease by storing its outcome. It must not be cancelled then."""
        running = self._attempts.get(lease.task_id)
        if running is None or running.fence != lease.fence:
            return True
        try:
            task = await self._store.get(lease.task_id)
            return task.fence == lease.fence or was_transcribed_under(lease.fence, task)
        except TaskNotFound:
            return False

    async def _release_tasks(self) -> None:
        for task in await self._attempts.cancel_all():
            with suppress(LeaseLost, DatabaseUnavailable):
                await self._store.release(Lease(task.id, task.fence))


def _split_slots(clock: Clock, settings: DispatchSettings) -> TaskSlots:
    limits = SlotLimits(settings.max_concurrent_splits, reserve=True)
    return TaskSlots(FairSlots(limits, clock, settings.ageing_s))


def _failure_policy(settings: Settings) -> FailurePolicy:
    return FailurePolicy(
        settings.dispatch.retry_base_s,
        settings.dispatch.max_attempts,
        settings.crawl.rate_limit_delays_s,
        random.random,
    )
