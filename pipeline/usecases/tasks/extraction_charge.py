"""Charging of extractions: the decoded audio counts against the client's limit, although there is no task."""

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
"""Interval at which the decoded seconds of a running extraction are stored; a short one ends before the first time."""

ReportDecoded = Callable[[float], None]
"""A function to call with the seconds decoded so far."""


async def refuse_extraction(store: TaskRecords, client: Client | None, clock: Clock) -> None:
    """Raise ``QuotaExceeded`` if the client's audio is used up, before its recording is received."""
    if client is not None and client.max_audio_s is not None:
        refuse_more_audio(client.max_audio_s, await store.client_load(client.name), clock.now())


@asynccontextmanager
async def charge_while_extracting(
    store: TaskRecords, client: Client | None, clock: Clock, size_bytes: int
) -> AsyncIterator[ReportDecoded]:
    """Charge a recording's audio to its client while the block extracts it.

    At first an estimate from the recording's size is charged. The block calls the yielded function with the seconds
    decoded so far; these replace the estimate at the end, even if the block raises.

    Raises:
        QuotaExceeded: the client's audio is used up.
    """
    if client is None:
        yield lambda _decoded_s: None
        return
    extraction_id = uuid.uuid4().hex
    charge = _ExtractionCharge(store, extraction_id, await store.begin_extraction(client, extraction_id, size_bytes))
    storing = asyncio.create_task(charge.store_periodically(clock))
    try:
        yield charge.set_decoded
    finally:
        storing.cancel()
        await asyncio.shield(charge.settle())


class _ExtractionCharge:
    """The audio that one extraction has charged to its client."""

    def __init__(self, store: TaskRecords, extraction_id: str, charged_s: float) -> None:
        self._store = store
        self._id = extraction_id
        self._charged_s = charged_s
        self._decoded_s = 0.0

    def set_decoded(self, decoded_s: float) -> None:
        """Set the seconds decoded so far; a smaller number than before is ignored."""
        self._decoded_s = max(self._decoded_s, decoded_s)

    async def store_periodically(self, clock: Clock) -> None:
        """Store the decoded seconds at intervals once they exceed the estimate."""
        while True:
            await clock.sleep(CHARGE_INTERVAL_S)
            if self._decoded_s > self._charged_s:
                await self._store_decoded()

    async def settle(self) -> None:
        """Store the final number of decoded seconds in place of the estimate."""
        await self._store_decoded()

    async def _store_decoded(self) -> None:
        try:
            await self._store.charge_extraction(self._id, self._decoded_s)
            self._charged_s = self._decoded_s
        except DatabaseUnavailable as error:
            logger.warning("the audio of an extraction could not be charged: %s", error)
