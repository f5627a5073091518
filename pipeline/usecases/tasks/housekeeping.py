"""Housekeeping: what goes is past its retention, or awaited or needed by nobody any more."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta

from pipeline.domain.tasks.lifecycle import CLOCK_TOLERANCE
from pipeline.domain.tasks.task import Status
from pipeline.observability import NoMetrics
from pipeline.ports import Clock, MediaStore, Metrics, TaskStore, UploadStore
from pipeline.settings import Settings
from pipeline.usecases.background_loop import SupervisedLoop, failure_messages

logger = logging.getLogger(__name__)

BATCH_ROWS = 200
"""Rows deleted in one go."""

RETRYABLE_STATUSES = (Status.FAILED, Status.CANCELLED)


class Housekeeper:
    """Deletes what nobody needs any more. Any number of them may work on one database and one media store."""

    def __init__(
        self,
        store: TaskStore,
        uploads: UploadStore,
        media: MediaStore,
        clock: Clock,
        settings: Settings,
        metrics: Metrics | None = None,
    ) -> None:
        self._store = store
        self._uploads = uploads
        self._media = media
        self._clock = clock
        self._settings = settings
        self._looked_at = (clock.now(), clock.monotonic())
        self._clock_changed = False
        self._loops = {
            step: SupervisedLoop("housekeeping", work, clock, metrics or NoMetrics())
            for step, work in self._steps.items()
        }

    @property
    def failure_messages(self) -> tuple[str, ...]:
        """What is not tidied up, a sentence each."""
        return failure_messages(*self._loops.values())

    async def run(self) -> None:
        """Reaps at intervals until cancelled. What fails is logged and tried again; nothing else waits for it."""
        while True:
            for step, loop in self._loops.items():
                await loop.attempt(step)
            await self._clock.sleep(self._settings.dispatch.housekeeping_s)

    async def reap(self) -> None:
        """Does all of it once: tasks and uploads first, then media of which nobody knows any more."""
        for step in self._steps:
            await step()

    @property
    def _steps(self) -> dict[Callable[[], Awaitable[None]], str]:
        return {
            self._check_clock: "looking for changes of the clock",
            self._fail_unreachable: "failing damaged tasks",
            self._expire_unawaited: "deleting tasks nobody waits for",
            self._expire_tasks: "deleting tasks past their retention",
            self._expire_uploads: "deleting uploads that were given up",
            self._expire_media: "deleting recordings past their retention",
            self._prune: "deleting settled callbacks and expired keys",
            self._delete_orphans: "deleting media that nobody needs",
        }

    async def _fail_unreachable(self) -> None:
        while await self._store.fail_unreachable(BATCH_ROWS):
            continue

    async def _check_clock(self) -> None:
        """Looks whether the time of day has moved otherwise than time itself since the last round.

        If so, nothing is deleted for its age in this round: what is in use gets its new time within one, and would
        look old until then. What a clock has postponed that was set back is due now.
        """
        (day, at), self._looked_at = self._looked_at, (self._clock.now(), self._clock.monotonic())
        passed = timedelta(seconds=self._looked_at[1] - at)
        self._clock_changed = abs(self._looked_at[0] - day - passed) > CLOCK_TOLERANCE
        if self._clock_changed:
            logger.warning("the time of day was changed: nothing expires in this round")
        if released := await self._store.release_postponed():
            logger.warning("%d rows waited for a time of the future, and are due now", released)

    async def _expire_unawaited(self) -> None:
        await self._delete_media_of(lambda: self._store.delete_unawaited(BATCH_ROWS))

    async def _expire_tasks(self) -> None:
        if (retention_s := self._settings.dispatch.retention_s) is not None:
            before = self._clock.now() - timedelta(seconds=retention_s)
            await self._delete_media_of(lambda: self._store.expire(before, BATCH_ROWS))

    async def _expire_uploads(self) -> None:
        await self._delete_media_of(lambda: self._uploads.expire(BATCH_ROWS))

    async def _expire_media(self) -> None:
        if (retention_s := self._settings.media.retention_s) is not None:
            before = self._clock.now() - timedelta(seconds=retention_s)
            statuses = (
                (*RETRYABLE_STATUSES, Status.COMPLETED) if self._settings.media.keep_source else RETRYABLE_STATUSES
            )
            await self._delete_media_of(lambda: self._store.delete_expired_media(before, BATCH_ROWS, statuses))

    async def _delete_media_of(self, expire: Callable[[], Awaitable[list[str]]]) -> None:
        while not self._clock_changed and (prefixes := await expire()):
            for prefix in prefixes:
                await self._media.delete_prefix(prefix)

    async def _prune(self) -> None:
        if self._clock_changed:
            return
        await self._store.delete_old_usage()
        while await self._store.prune_idempotency_keys(BATCH_ROWS):
            continue
        if (retention_s := self._settings.callback.retention_s) is not None:
            before = self._clock.now() - timedelta(seconds=retention_s)
            while await self._store.prune_callbacks(before, BATCH_ROWS):
                continue

    async def _delete_orphans(self) -> None:
        """Removes media of no task or upload, once it is old, and what a Dispatcher that died left of a completed task.

        What is on its way in is touched far more often than this age, so that an old folder has no one behind it.
        """
        if self._clock_changed:
            return
        old = self._clock.now() - timedelta(seconds=self._settings.media.orphan_age_s)
        stored_prefixes = await self._media.prefixes()
        if not stored_prefixes:
            return
        live, uploading = (
            await self._store.live_prefixes(stored_prefixes),
            await self._uploads.live_prefixes(stored_prefixes),
        )
        orphans = {prefix for prefix, changed in stored_prefixes.items() if changed < old} - live - uploading
        keeps_all = self._settings.media.keep_source
        needed = live if keeps_all else await self._store.live_prefixes(live, transcribed=False)
        for prefix in orphans | (live - needed):
            logger.info("removing media that nobody needs", extra={"media_prefix": prefix})
            await self._media.delete_prefix(prefix)
