"""The HTTP application over the shipped fakes, and a client that talks to it without a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from deployments.api.app import build_api
from deployments.api.services import Readiness, Services
from pipeline.domain.task import NewTask, Task, TaskError
from pipeline.domain.transcript import Segment, Transcript, TranscriptInfo, Word
from pipeline.ports import EngineInfo, Lease
from pipeline.settings import Settings
from pipeline.testing.clock import ManualClock
from pipeline.testing.media import MemoryMediaStore
from pipeline.testing.store import MemoryTaskStore

ENGINE = EngineInfo("faster_whisper", "base", "cpu", "int8", ("en", "de", "zh"), 8)
LEASE = timedelta(seconds=30)

TRANSCRIPT = Transcript(
    text="Hello there. General Kenobi!",
    segments=(
        Segment(1, 0, 0.0, 1.2, " Hello there.", (50364, 2425), 0.0, -0.2, 1.1, 0.01, (Word(0.0, 0.6, " Hello", 0.9),)),
        Segment(2, 0, 1.5, 3.0, " General Kenobi!", (50364, 10409), 0.2, -0.3, 1.2, 0.02),
    ),
    info=TranscriptInfo("en", 0.98, 3.0, 2.7, (("en", 0.98), ("de", 0.01)), {"beam_size": 5}, {"threshold": 0.5}),
)


@dataclass
class World:
    """The service behind the HTTP surface, with its dials in reach of a test."""

    clock: ManualClock = field(default_factory=ManualClock)
    media: MemoryMediaStore = field(default_factory=MemoryMediaStore)
    readiness: Readiness = field(default_factory=lambda: Readiness(ready=True, engine=ENGINE))
    wakes: int = 0
    cancelled: list[int] = field(default_factory=list)
    watched: list[tuple[int, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store = MemoryTaskStore(self.clock)

    async def wake(self) -> None:
        self.wakes += 1

    async def watch(self, task_id: int, timeout_s: float) -> None:
        self.watched.append((task_id, timeout_s))
        self.clock.advance(timeout_s)

    async def cancel(self, task_id: int) -> None:
        self.cancelled.append(task_id)

    async def ask_readiness(self) -> Readiness:
        return self.readiness

    def api(self, *, fetch_available: bool = False, **settings: Any) -> FastAPI:
        return build_api(
            Services(
                store=self.store,
                media=self.media,
                settings=Settings(**settings),
                clock=self.clock,
                wake=self.wake,
                watch=self.watch,
                cancel=self.cancel,
                readiness=self.ask_readiness,
                fetch_available=fetch_available,
            )
        )

    async def task_exists(self) -> bool:
        return (await self.store.stats()).queued_tasks != {} and any((await self.store.stats()).queued_tasks.values())

    async def queued(self, **new: Any) -> Task:
        task, _ = await self.store.create(NewTask(**{"media_prefix": "aa", "media_key": "aa/source"} | new))
        return task

    async def processing(self, **new: Any) -> Lease:
        await self.queued(**new)
        [task] = await self.store.claim("test", LEASE, 1, {0, 1, 2})
        return Lease(task.id, task.fence)

    async def completed(self, transcript: Transcript = TRANSCRIPT, **new: Any) -> Task:
        lease = await self.processing(**new)
        self.clock.advance(2.5)
        return await self.store.complete(lease, transcript)

    async def failed(self, code: str, message: str = "It failed for a reason.", **new: Any) -> Task:
        return await self.store.fail(await self.processing(**new), TaskError(code, message))


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
async def client(world: World) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(world.api()) as client:
        yield client


def client_of(api: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://service")
