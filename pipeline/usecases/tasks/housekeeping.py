"""Housekeeping: deletion of expired tasks, uploads, media, callbacks and keys."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta

from pipeline.domain.tasks.lifecycle import CLOCK_TOLERANCE
from pipeline.domain.tasks.task import Status
from pipeline.ports import Clock, MediaStore, Metrics, NullMetrics, TaskStore, UploadStore
from pipeline.settings import Settings
from pipeline.usecases.background_loop import SupervisedLoop, failure_messages

logger = logging.getLogger(__name__)

BATCH_ROWS = 200
"""Number of rows deleted in one transaction."""

RETRYABLE_STATUSES = (Status.FAILED, Status.CANCELLED)
"""Statuses from which a client may retry a task, for which its recording is kept."""


class Housekeeper:
    """A worker that deletes expired records and media.

    Any number of housekeepers may share one database and one media store.
    """

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
        self._checked_at = (clock.now(), clock.monotonic())
        self._clock_changed = False
        self._loops = {
            step: SupervisedLoop("housekeeping", work, clock, metrics or NullMetrics())
            for step, work in self._steps.items()
        }

    @property
    def failure_messages(self) -> tuple[str, ...]:
        """Reasons why expired records or media are not deleted, one sentence each."""
        return failure_messages(*self._loops.values())

    async def run(self) -> None:
        """Run all steps at intervals until cancelled. A step that fails is logged and does not hold up the others."""
        while True:
            for step, loop in self._loops.items():
                await loop.attempt(step)
            await self._clock.sleep(self._settings.dispatch.housekeeping_s)

    async def run_once(self) -> None:
        """Run all steps once: first tasks and uploads, then orphaned media."""
        for step in self._steps:
            await step()

    @property
    def _steps(self) -> dict[Callable[[], Awaitable[None]], str]:
        return {
            self._check_clock: "looking for changes of the clock",
            self._fail_unreachable: "failing damaged tasks",
            self._expire_unawaited: "deleting tasks whose client is gone",
            self._expire_tasks: "deleting tasks past their retention",
            self._expire_uploads: "deleting expired uploads",
            self._expire_media: "deleting recordings past their retention",
            self._prune: "deleting finished callbacks and expired keys",
            self._delete_orphans: "deleting orphaned media",
        }

    async def _fail_unreachable(self) -> None:
        while await self._store.fail_unreachable(BATCH_ROWS):
            continue

    async def _check_clock(self) -> None:
        """Compare the system clock with the monotonic clock since the last round.

        If the system clock was changed, nothing is deleted for its age in this round: rows in use would look old until
        they are touched again, which takes less than a round. Rows that were postponed by a clock that has been set
        back since are made due now.
        """
        (time_before, monotonic_before), self._checked_at = (
            self._checked_at,
            (self._clock.now(), self._clock.monotonic()),
        )
        passed = timedelta(seconds=self._checked_at[1] - monotonic_before)
        self._clock_changed = abs(self._checked_at[0] - time_before - passed) > CLOCK_TOLERANCE
        if self._clock_changed:
            logger.warning("the system clock was changed: nothing expires in this round")
        if released := await self._store.release_postponed():
            logger.warning("%d rows were postponed by a clock that was ahead, and are due now", released)

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
        """Delete media of no task or upload, and media that a completed task does not need any more.

        Media without a task or upload is deleted once it is ``media.orphan_age_s`` old. Media that is being received
        is touched far more often. A completed task still has media if its Dispatcher died before it could delete it.
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
            logger.info("deleting orphaned media", extra={"media_prefix": prefix})
            await self._media.delete_prefix(prefix)
