"""The HTTP application over the shipped fakes, with values that tests set."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from typing import Any

import httpx
from fastapi import FastAPI

from deployments.api.app import attach, build_api
from deployments.api.services import Readiness, Services
from pipeline.domain.audio.tracks import Track
from pipeline.domain.confinement_level import Confinement
from pipeline.domain.decoding.transcript import Segment, Transcript, TranscriptInfo, Word
from pipeline.domain.tasks.task import NewTask, Task, TaskError
from pipeline.net import GuardedClient
from pipeline.ports import EngineInfo, Lease, TaskQuery
from pipeline.settings import NetworkSettings, Settings
from pipeline.testing.fake_summarizer import FakeSummarizer
from pipeline.testing.local_extractor import LocalExtractor
from pipeline.testing.manual_clock import ManualClock
from pipeline.testing.memory_media import MemoryMediaStore
from pipeline.testing.memory_task_store import MemoryTaskStore
from pipeline.testing.memory_uploads import MemoryUploadStore
from pipeline.testing.scripted_network import ScriptedResolver

ENGINE = EngineInfo("faster_whisper", "base", "cpu", "int8", ("en", "de", "zh"), 8)
LEASE = timedelta(seconds=30)

TRANSCRIPT = Transcript(
    text="Hello there. General Kenobi!",
    segments=(
        Segment(1, 0, 0.0, 1.2, " Hello there.", (50364, 2425), 0.0, -0.2, 1.1, 0.01, (Word(0.0, 0.6, " Hello", 0.9),)),
        Segment(2, 0, 1.5, 3.0, " General Kenobi!", (50364, 10409), 0.2, -0.3, 1.2, 0.02),
    ),
    info=TranscriptInfo(
        "en",
        0.98,
        3.0,
        2.7,
        (("en", 0.98), ("de", 0.01)),
        {"beam_size": 5},
        {"threshold": 0.5},
        (Track(0, "aac", "eng", channels=2, default=True, chosen=True),),
    ),
)


@dataclass
class World:
    """The service behind the HTTP surface, with values that tests set."""

    clock: ManualClock = field(default_factory=ManualClock)
    media: MemoryMediaStore = field(default_factory=MemoryMediaStore)
    extractor: LocalExtractor = field(default_factory=LocalExtractor)
    readiness: Readiness = field(default_factory=lambda: Readiness(ready=True, engine=ENGINE))
    summarizer: FakeSummarizer = field(default_factory=FakeSummarizer)
    confinement: Confinement | None = None
    wakes: int = 0
    cancelled: list[int] = field(default_factory=list)
    watched: list[tuple[int, float]] = field(default_factory=list)
    counted: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.store = MemoryTaskStore(self.clock)
        self.uploads = MemoryUploadStore(self.clock)
        self.on_watch: Callable[[float], Awaitable[None]] = self._time_passes

    async def wake(self) -> None:
        self.wakes += 1

    async def watch(self, task_id: int, seen: int, timeout_s: float) -> int:
        if seen >= 0:
            await self.watch_end(task_id, timeout_s)
        return seen + 1

    async def watch_end(self, task_id: int, timeout_s: float) -> None:
        self.watched.append((task_id, timeout_s))
        await self.on_watch(timeout_s)

    async def _time_passes(self, timeout_s: float) -> None:
        self.clock.advance(timeout_s)

    async def cancel(self, task_id: int) -> None:
        self.cancelled.append(task_id)

    async def ask_readiness(self) -> Readiness:
        return self.readiness

    async def ask_engine(self) -> EngineInfo | None:
        return (await self.ask_readiness()).engine

    def count(self, name: str, value: float = 1.0, **labels: str) -> None:
        self.counted[name] = self.counted.get(name, 0.0) + value

    def services(self, *, fetch_available: bool = False, **settings: Any) -> Services:
        return Services(
            store=self.store,
            uploads=self.uploads,
            media=self.media,
            settings=Settings(**settings),
            clock=self.clock,
            wake=self.wake,
            watch=self.watch,
            watch_end=self.watch_end,
            cancel=self.cancel,
            readiness=self.ask_readiness,
            engine=self.ask_engine,
            summarizer=self.summarizer,
            check_url=GuardedClient(NetworkSettings(), ScriptedResolver({})).check,
            extractor=self.extractor,
            count=self.count,
            confinement=self.confinement,
            fetch_available=fetch_available,
        )

    def api(self, *, fetch_available: bool = False, **settings: Any) -> FastAPI:
        """Return the application, attached to this world. All worlds share one, since building the routes is slow."""
        app = _application()
        attach(app, self.services(fetch_available=fetch_available, **settings))
        return app

    async def task_count(self) -> int:
        return (await self.store.query(TaskQuery())).total_count

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


@cache
def _application() -> FastAPI:
    return build_api(World().services())


def client_of(api: FastAPI) -> httpx.AsyncClient:
    """Return a client without a socket. It receives the response to an internal error instead of the exception."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(api, raise_app_exceptions=False), base_url="http://service")


async def blocks(*data: bytes) -> AsyncIterator[bytes]:
    for block in data:
        yield block


def detail(answer: httpx.Response, status: int, error: str) -> dict[str, Any]:
    """Return an error's detail, after checking the shape of the error."""
    assert answer.status_code == status, answer.text
    [body] = answer.json().values()
    assert (body["code"], body["error"]) == (status, error)
    assert datetime.fromisoformat(body["time"]).utcoffset() is not None
    assert body["router"].startswith(str(answer.request.url.copy_with(query=None)))
    for message in (body["message"], *(item["message"] for item in body.get("errors") or ())):
        assert re.search(r"[^.?!\s][.?!]$", message), message
    assert body.keys() - {"errors"} == {"code", "error", "message", "time", "router", "params"}
    return dict(body)


def fields(body: dict[str, Any]) -> list[str]:
    """Return the names of the fields that an error reports."""
    return [item["field"] for item in body["errors"]]
