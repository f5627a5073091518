"""Extraction for clients that wait for the result: a few recordings at a time, each in a child of the sandbox.

Among waiting requests, the client with the fewest goes first. Recordings in progress take turns of some hundred
milliseconds, so that short ones finish soon.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import count
from typing import BinaryIO, cast

from typing_extensions import override

from pipeline.domain.audio.extraction import ExtractionOptions
from pipeline.domain.scheduling.fair_queue import SlotLimits, TurnRequest
from pipeline.errors import ExtractionsFull
from pipeline.fair_slots import FairSlots, SlicedWork
from pipeline.media.sandbox.sandbox import Sandbox
from pipeline.media.sandbox.sandboxed_decoder import extract_in
from pipeline.media.storage_failures import translate_storage_errors
from pipeline.ports import AudioExtractor, Clock
from pipeline.settings import MediaSettings
from pipeline.system_clock import SystemClock
from pipeline.worker_threads import in_worker

BLOCK_BYTES = 256 * 1024
MAX_OUTPUT_BYTES = 2**32 - 1
"""Largest size that a WAV file's header can state."""
RETRY_AFTER_S = 10
SCRATCH_FULL = "The server has no room left for temporary files; try again later."

STEP_S = 0.1
"""Length of a recording's turn. A single step of the child may take longer."""


class SandboxedExtractor(AudioExtractor):
    """An extractor with a child process for each recording.

    Args:
        sandbox: starts the children.
        settings: number of extractions at a time, their queue, and size limits.
        clock: measures the time that the work takes.
        turns: number of recordings worked on at the same moment; by default half of the cores.
    """

    def __init__(
        self, sandbox: Sandbox, settings: MediaSettings, clock: Clock | None = None, turns: int | None = None
    ) -> None:
        self._sandbox = sandbox
        self._settings = settings
        self._clock = clock or SystemClock()
        self._open = FairSlots(SlotLimits(settings.max_extractions, reserve=True), self._clock)
        self._turns = FairSlots(SlotLimits(turns or max(1, len(os.sched_getaffinity(0)) // 2)), self._clock)
        self._workers = ThreadPoolExecutor(settings.max_extractions, "extract")
        self._files = ThreadPoolExecutor(2, "extract-files")
        self._admitted: Counter[str] = Counter()
        self._anonymous_ids = count()

    @override
    @asynccontextmanager
    async def place(self, client: str | None = None) -> AsyncIterator[None]:
        name = self._share_key(client)
        self._check_room(name)
        self._admitted[name] += 1
        try:
            yield
        finally:
            self._admitted[name] -= 1
            if not self._admitted[name]:
                del self._admitted[name]

    def _check_room(self, name: str) -> None:
        places = self._settings.max_extractions + self._settings.max_waiting_extractions
        admitted = self._admitted.total()
        if admitted >= places:
            raise ExtractionsFull(
                f"{admitted} recordings are being extracted or wait, and no place is left; try again later.",
                RETRY_AFTER_S,
            )
        own = self._admitted[name]
        if own and admitted >= places - places // 2:
            raise ExtractionsFull(
                f"{own} of your recordings are being extracted or wait, and the places left are reserved for other "
                "clients; try again later.",
                RETRY_AFTER_S,
            )

    def _share_key(self, client: str | None) -> str:
        """Return the client's share key; a request without a client gets a key of its own."""
        return f"request {next(self._anonymous_ids)}" if client is None else f"client {client}"

    @override
    async def receive(self, data: AsyncIterator[bytes]) -> BinaryIO:
        file = _scratch()
        try:
            async for block in data:
                await in_worker(self._files, _write, file, block)
        except BaseException:
            file.close()
            raise
        return file

    @override
    async def extract(
        self,
        source: BinaryIO,
        wanted: ExtractionOptions,
        client: str | None = None,
        progress: Callable[[float], None] = lambda _decoded_s: None,
    ) -> BinaryIO:
        request = TurnRequest(self._share_key(client))
        target = _scratch()
        try:
            async with self._open.turn(replace(request, size=os.fstat(source.fileno()).st_size)):
                await self._run(source, target, wanted, SlicedWork(self._turns, request, self._clock), progress)
        except BaseException:
            target.close()
            raise
        return target

    async def _run(
        self,
        source: BinaryIO,
        target: BinaryIO,
        wanted: ExtractionOptions,
        slices: SlicedWork,
        progress: Callable[[float], None],
    ) -> None:
        steps = extract_in(
            self._sandbox,
            source,
            target,
            wanted,
            max_duration_s=self._settings.max_duration_s,
            max_bytes=min(self._settings.max_upload_bytes, MAX_OUTPUT_BYTES),
        )
        try:
            more = True
            while more:
                decoded_s, more = await slices.run(lambda: in_worker(self._workers, _steps_for, steps, STEP_S))
                progress(decoded_s)
        finally:  # ends the child, also when the client has disconnected
            await in_worker(self._workers, steps.close)

    @override
    async def blocks(self, file: BinaryIO) -> AsyncGenerator[bytes]:
        await in_worker(self._files, file.seek, 0)
        while block := await in_worker(self._files, file.read, BLOCK_BYTES):
            yield block


def _scratch() -> BinaryIO:
    """Create a nameless file in the system's temporary folder; it is gone once it is closed or this process ends."""
    return cast("BinaryIO", tempfile.TemporaryFile())


def _write(file: BinaryIO, block: bytes) -> None:
    with translate_storage_errors(SCRATCH_FULL):
        file.write(block)


def _steps_for(steps: Generator[float], seconds: float) -> tuple[float, bool]:
    """Run steps for some seconds; return the seconds of sound decoded so far, and whether more steps remain."""
    until = time.monotonic() + seconds
    decoded_s = 0.0
    with translate_storage_errors(SCRATCH_FULL):
        for decoded_s in steps:
            if time.monotonic() >= until:
                return decoded_s, True
    return decoded_s, False
