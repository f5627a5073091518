"""The HTTP application over the shipped fakes, with values that tests set."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from typing import Any

import httpx
from fastapi import FastAPI

from deployments.api.application import build_api, connect
from deployments.api.concurrency.event_loop import FairSemaphore
from deployments.api.middleware.admission import AdmissionMiddleware, RequestSlots
from deployments.api.services import Readiness, Services, build_submitter, build_uploads
from pipeline.domain.audio.tracks import Track
from pipeline.domain.confinement_level import Confinement
from pipeline.domain.decoding.transcript import Segment, Transcript, TranscriptInfo, Word
from pipeline.domain.tasks.task import NewTask, Task, TaskError
from pipeline.net import GuardedClient
from pipeline.ports import EngineInfo, Lease, TaskQuery
from pipeline.settings import NetworkSettings, Settings
from pipeline.testing.fake_dispatcher import FakeDispatcher
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
    counted: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.store = MemoryTaskStore(self.clock)
        self.uploads = MemoryUploadStore(self.clock)
        self.dispatcher = FakeDispatcher(self.clock)

    async def ask_readiness(self) -> Readiness:
        return self.readiness

    async def ask_engine(self) -> EngineInfo | None:
        return (await self.ask_readiness()).engine

    def count(self, name: str, value: float = 1.0, **labels: str) -> None:
        self.counted[name] = self.counted.get(name, 0.0) + value

    def services(self, *, fetch_available: bool = False, **settings: Any) -> Services:
        chosen = (
            Settings(**{"crawl": {"enabled": fetch_available}} | settings)
            if settings
            else _default_settings(fetch_available)
        )
        check_url = GuardedClient(NetworkSettings(), ScriptedResolver({})).check
        return Services(
            store=self.store,
            submitter=build_submitter(chosen, self.store, self.media, self.dispatcher, self.clock, check_url),
            uploads=build_uploads(chosen, self.uploads, self.media, self.clock),
            media=self.media,
            settings=chosen,
            clock=self.clock,
            dispatcher=self.dispatcher,
            readiness=self.ask_readiness,
            engine=self.ask_engine,
            summarizer=self.summarizer,
            extractor=self.extractor,
            transcript_slots=FairSemaphore(chosen.http.max_results_in_hand),
            stream_slots=FairSemaphore(chosen.http.max_replays_in_hand),
            count=self.count,
            confinement=self.confinement,
        )

    def api(self, *, fetch_available: bool = False, **settings: Any) -> FastAPI:
        """Return the application, connected to this world. All worlds share one, since building the routes is slow."""
        app = _application()
        connect(app, self.services(fetch_available=fetch_available, **settings))
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
def _default_settings(fetch_available: bool) -> Settings:
    """Return the settings that most tests use: to look for each in the environment takes 1 ms."""
    return Settings(crawl={"enabled": fetch_available})


@cache
def _application() -> FastAPI:
    return build_api(World().services())


def middleware_argument(app: FastAPI, middleware: type, name: str) -> Any:
    """Return an argument that a middleware of the application is made with."""
    [layer] = [layer for layer in app.user_middleware if layer.cls is middleware]
    return layer.kwargs[name]


def slots_of(app: FastAPI) -> RequestSlots:
    slots = middleware_argument(app, AdmissionMiddleware, "slots")
    assert isinstance(slots, RequestSlots)
    return slots


def client_of(api: FastAPI) -> httpx.AsyncClient:
    """Return a client without a socket. It receives the response to an internal error instead of the exception."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(api, raise_app_exceptions=False), base_url="http://service")


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
