"""Sound taken out of recordings for clients who wait for it: few at a time, off the event loop, out of our process.

Of those that wait, the client with the fewest goes first; those that are worked on take turns, some hundred
milliseconds at a time, so that what is short is soon done.
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

from pipeline.domain.audio.extraction import ExtractionOptions
from pipeline.domain.scheduling.fair_queue import SlotLimits, TurnRequest
from pipeline.errors import ExtractionsFull
from pipeline.fair_slots import FairSlots, SlicedWork
from pipeline.media.sandbox.sandbox import Sandbox, extract_in
from pipeline.media.storage_failures import translate_storage_errors
from pipeline.ports import Clock
from pipeline.settings import MediaSettings
from pipeline.system_clock import SystemClock
from pipeline.worker_threads import in_worker

BLOCK_BYTES = 256 * 1024
MAX_OUTPUT_BYTES = 2**32 - 1
"""What a WAV file's header can say of its size."""
RETRY_AFTER_S = 10
SCRATCH_FULL = "The server has no room left for temporary files; try again later."

STEP_S = 0.1
"""How long one recording is worked on before the next has its turn; a step of the child's may take longer."""


class SandboxedExtractor:
    """``ports.AudioExtractor`` with a child process for each recording.

    Args:
        sandbox: where the children come from.
        settings: how many at a time, and how large.
        clock: the time that the work takes.
        turns: how many are worked on at the same moment; half of the cores unless given.
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
        self._strangers = count()

    @asynccontextmanager
    async def place(self, client: str | None = None) -> AsyncIterator[None]:
        """See ``ports.AudioExtractor.place``."""
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
                f"{admitted} recordings are being extracted or wait for it: try later.", RETRY_AFTER_S
            )
        own = self._admitted[name]
        if own and admitted >= places - places // 2:
            raise ExtractionsFull(
                f"{own} of your recordings are being extracted or wait for it, and what room is left is for others: "
                "try later.",
                RETRY_AFTER_S,
            )

    def _share_key(self, client: str | None) -> str:
        """The name under which a request shares; one of nobody in particular has its own."""
        return f"request {next(self._strangers)}" if client is None else f"client {client}"

    async def receive(self, data: AsyncIterator[bytes]) -> BinaryIO:
        """See ``ports.AudioExtractor.receive``."""
        file = _scratch()
        try:
            async for block in data:
                await in_worker(self._files, _write, file, block)
        except BaseException:
            file.close()
            raise
        return file

    async def extract(
        self,
        source: BinaryIO,
        wanted: ExtractionOptions,
        client: str | None = None,
        progress: Callable[[float], None] = lambda _decoded_s: None,
    ) -> BinaryIO:
        """See ``ports.AudioExtractor.extract``."""
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
        finally:  # a client that has gone away takes the child with it
            await in_worker(self._workers, steps.close)

    async def blocks(self, file: BinaryIO) -> AsyncGenerator[bytes]:
        """See ``ports.AudioExtractor.blocks``."""
        await in_worker(self._files, file.seek, 0)
        while block := await in_worker(self._files, file.read, BLOCK_BYTES):
            yield block


def _scratch() -> BinaryIO:
    """A file without a name, in the system's temporary folder: it is gone when it is closed, or we are."""
    return cast("BinaryIO", tempfile.TemporaryFile())


def _write(file: BinaryIO, block: bytes) -> None:
    with translate_storage_errors(SCRATCH_FULL):
        file.write(block)


def _steps_for(steps: Generator[float], seconds: float) -> tuple[float, bool]:
    """Do steps for a while; return the seconds of sound decoded by the last of them, and whether there are more."""
    until = time.monotonic() + seconds
    decoded_s = 0.0
    with translate_storage_errors(SCRATCH_FULL):
        for decoded_s in steps:
            if time.monotonic() >= until:
                return decoded_s, True
    return decoded_s, False
