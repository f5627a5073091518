"""Housekeeping: what goes is results past their retention, tasks nobody waits for, and media without a task."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta

from pipeline.errors import DatabaseUnavailable
from pipeline.ports import Clock, MediaStore, TaskStore, UploadStore
from pipeline.settings import DispatchSettings

logger = logging.getLogger(__name__)

INTERVAL_S = 60.0
"""How often expired tasks are looked for."""

ORPHAN_AGE = timedelta(hours=1)
"""Media without a task is left alone this long: an upload's row is written after its last byte."""

BATCH = 200
"""Tasks deleted in one go."""


class Reaper:
    """Deletes what nobody needs any more."""

    def __init__(
        self, store: TaskStore, uploads: UploadStore, media: MediaStore, clock: Clock, settings: DispatchSettings
    ) -> None:
        self._store = store
        self._uploads = uploads
        self._media = media
        self._clock = clock
        self._settings = settings

    async def run(self) -> None:
        """Reaps at intervals until cancelled."""
        while True:
            try:
                await self.reap()
            except DatabaseUnavailable as error:
                logger.warning("housekeeping waits: %s", error)
            await self._clock.sleep(INTERVAL_S)

    async def reap(self) -> None:
        """Tasks and uploads first, then media of which nobody knows any more."""
        await self._delete(lambda: self._store.expire_unawaited(BATCH))
        if self._settings.retention_s is not None:
            oldest = self._clock.now() - timedelta(seconds=self._settings.retention_s)
            await self._delete(lambda: self._store.expire(oldest, BATCH))
        await self._delete(lambda: self._uploads.expire(BATCH))
        await self._store.forget_taken_audio()
        await self._sweep()

    async def _delete(self, expire: Callable[[], Awaitable[list[str]]]) -> None:
        while prefixes := await expire():
            for prefix in prefixes:
                await self._media.delete_prefix(prefix)

    async def _sweep(self) -> None:
        old = self._clock.now() - ORPHAN_AGE
        candidates = [prefix for prefix, changed in (await self._media.prefixes()).items() if changed < old]
        live = await self._live(candidates) if candidates else set()
        for prefix in candidates:
            if prefix not in live:
                logger.info("removing media without a task", extra={"media_prefix": prefix})
                await self._media.delete_prefix(prefix)

    async def _live(self, prefixes: list[str]) -> set[str]:
        return await self._store.live_prefixes(prefixes) | await self._uploads.live_prefixes(prefixes)
