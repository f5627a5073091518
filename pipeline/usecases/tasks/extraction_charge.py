"""Audio of extractions, taken from a client as it is decoded: there is no task that it could count for."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from pipeline.domain.tasks.client import Client, refuse_more_audio
from pipeline.errors import DatabaseUnavailable
from pipeline.ports import Clock, TaskRecords

logger = logging.getLogger(__name__)

CHARGE_INTERVAL_S = 5.0
"""How often a running extraction's seconds are stored; a short one ends before the first time."""

Progress = Callable[[float], None]


async def refuse_extraction(store: TaskRecords, client: Client | None, clock: Clock) -> None:
    """Raise ``QuotaExceeded`` if the client's audio is used up, before its recording is received."""
    if client is not None and client.max_audio_s is not None:
        refuse_more_audio(client.max_audio_s, await store.client_load(client.name), clock.now())


@asynccontextmanager
async def charge_while_extracting(
    store: TaskRecords, client: Client | None, clock: Clock, size_bytes: int
) -> AsyncIterator[Progress]:
    """Take a recording's audio from its client: an estimate at first, and what was decoded as it is.

    Yields what is to be told how many seconds are decoded. However the block ends, those count.

    Raises:
        QuotaExceeded: the client's audio is used up.
    """
    if client is None:
        yield lambda _decoded_s: None
        return
    extraction_id = uuid.uuid4().hex
    charge = _ExtractionCharge(store, extraction_id, await store.begin_extraction(client, extraction_id, size_bytes))
    keeping = asyncio.create_task(charge.keep(clock))
    try:
        yield charge.note
    finally:
        keeping.cancel()
        await asyncio.shield(charge.settle())


class _ExtractionCharge:
    """What one extraction takes."""

    def __init__(self, store: TaskRecords, extraction_id: str, charged_s: float) -> None:
        self._store = store
        self._id = extraction_id
        self._charged_s = charged_s
        self._decoded_s = 0.0

    def note(self, decoded_s: float) -> None:
        """Say how many seconds are decoded."""
        self._decoded_s = max(self._decoded_s, decoded_s)

    async def keep(self, clock: Clock) -> None:
        """Store at intervals what has gone beyond the estimate."""
        while True:
            await clock.sleep(CHARGE_INTERVAL_S)
            if self._decoded_s > self._charged_s:
                await self._store_decoded()

    async def settle(self) -> None:
        """Store what was decoded in the end, in the place of the estimate."""
        await self._store_decoded()

    async def _store_decoded(self) -> None:
        try:
            await self._store.charge_extraction(self._id, self._decoded_s)
            self._charged_s = self._decoded_s
        except DatabaseUnavailable as error:
            logger.warning("the audio of an extraction counts as before: %s", error)
