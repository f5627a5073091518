"""The application with a Dispatcher behind it, and OpenAI's own client in front of it; no socket, no model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import httpx
import openai
import pytest
from fastapi import FastAPI

from deployments.api.services import Readiness
from pipeline.clock import SystemClock
from pipeline.domain.task import Task
from pipeline.observability import NoMetrics
from pipeline.ports import TaskQuery
from pipeline.settings import Settings
from pipeline.testing.fleet import FakeSplitter, FakeTranscriber, made_chunks
from pipeline.testing.store import MemoryTaskStore
from pipeline.testing.uploads import MemoryUploadStore
from pipeline.usecases.dispatch import Dispatcher
from tests.unit.deployments.api.world import ENGINE, World

AUDIO = ("talk.mp3", b"ID3 audio")


@dataclass
class Service(World):
    """A service that works: five chunks of ten seconds are heard in whatever is sent."""

    splitter: FakeSplitter = field(default_factory=lambda: FakeSplitter(made_chunks(5)))
    fleet: FakeTranscriber = field(default_factory=FakeTranscriber)

    def __post_init__(self) -> None:
        self.clock = SystemClock()  # type: ignore[assignment]  # a Dispatcher works in real time
        self.store = MemoryTaskStore(self.clock)
        self.uploads = MemoryUploadStore(self.clock)
        self.dispatcher = Dispatcher(
            owner="test",
            store=self.store,
            media=self.media,
            splitter=self.splitter,
            transcriber=self.fleet,
            clock=self.clock,
            settings=Settings(dispatch={"poll_s": 0.01, "retry_base_s": 0.001}),
            metrics=NoMetrics(),
        )
        self.sent = 0

    async def wake(self) -> None:
        self.dispatcher.wake()

    async def watch(self, task_id: int, seen: int, timeout_s: float) -> int:
        return await self.dispatcher.watch(task_id, seen, timeout_s)

    async def watch_end(self, task_id: int, timeout_s: float) -> None:
        await self.dispatcher.watch_end(task_id, timeout_s)

    async def cancel(self, task_id: int) -> None:
        await super().cancel(task_id)
        await self.dispatcher.cancel(task_id)

    async def tasks(self) -> tuple[Task, ...]:
        return (await self.store.query(TaskQuery(include_result=False))).tasks

    async def until_gone(self, api: FastAPI) -> None:
        """Returns when no task and no media are left."""
        async with asyncio.timeout(5):
            await api.state.services.errands.done()
            while await self.tasks() or self.media.keys:
                await asyncio.sleep(0)

    async def until_decoding(self) -> None:
        """Returns when a replica has work."""
        async with asyncio.timeout(5):
            while not self.fleet.units:
                await asyncio.sleep(0)


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    service = Service()
    service.readiness = Readiness(ready=True, engine=ENGINE)
    await service.dispatcher.prepare()
    running = asyncio.create_task(service.dispatcher.run())
    yield service
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.fixture
def api(service: Service) -> FastAPI:
    return service.api()


@pytest.fixture
async def http(api: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(api, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        yield client


@pytest.fixture
def client(http: httpx.AsyncClient) -> openai.AsyncOpenAI:
    """OpenAI's client, which tries nothing twice."""
    return openai.AsyncOpenAI(api_key="any", base_url="http://service/v1", http_client=http, max_retries=0)
