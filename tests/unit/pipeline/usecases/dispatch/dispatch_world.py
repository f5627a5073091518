"""A Dispatcher over the shipped fakes, whose clock hardly waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from pipeline.domain.decoding.transcript import Transcript
from pipeline.domain.decoding.transcription_options import TranscriptionOptions
from pipeline.domain.summaries.summary import SummaryOptions
from pipeline.domain.tasks.task import NewTask, Priority, Task
from pipeline.errors import DatabaseUnavailable
from pipeline.ports import Lease
from pipeline.settings import Settings
from pipeline.testing.fake_crawler import FakeCrawler
from pipeline.testing.fake_splitter import FakeSplitter, make_chunks
from pipeline.testing.fake_transcriber import FakeTranscriber
from pipeline.testing.memory_media import MemoryMediaStore
from pipeline.testing.memory_task_store import MemoryTaskStore
from pipeline.testing.recording_metrics import RecordingMetrics
from pipeline.usecases.dispatch.dispatcher import Dispatcher
from pipeline.usecases.task_notifier import TaskNotifier
from tests.support.builders import blocks
from tests.support.clocks import QuickClock

ENDLESS_S = 1e9


class MoodyStore(MemoryTaskStore):
    """A store whose connection breaks after the commit, ``unanswered`` times."""

    unanswered = 0

    async def complete(self, lease: Lease, transcript: Transcript) -> Task:
        task = await super().complete(lease, transcript)
        if self.unanswered:
            self.unanswered -= 1
            raise DatabaseUnavailable("The connection broke.")
        return task


def quick_settings(**dispatch: object) -> Settings:
    return Settings(dispatch={"poll_s": 0.01, "heartbeat_s": 0.01, "retry_base_s": 0.001} | dispatch)


@dataclass
class DispatchWorld:
    """A Dispatcher with its fakes."""

    splitter: FakeSplitter = field(default_factory=lambda: FakeSplitter(make_chunks(5)))
    fleet: FakeTranscriber = field(default_factory=FakeTranscriber)
    settings: Settings = field(default_factory=quick_settings)
    media: MemoryMediaStore = field(default_factory=MemoryMediaStore)
    crawler: FakeCrawler | None = None
    finished: int = 0
    transcribed: int = 0
    dead: set[str] = field(default_factory=set)
    metrics: RecordingMetrics = field(default_factory=RecordingMetrics)

    def __post_init__(self) -> None:
        self.clock = QuickClock(ENDLESS_S)
        self.store = MoodyStore(self.clock)
        self.notifier = TaskNotifier()

    def dispatcher(self, owner: str = "one") -> Dispatcher:
        return Dispatcher(
            owner=owner,
            store=self.store,
            media=self.media,
            splitter=self.splitter,
            transcriber=self.fleet,
            crawler=self.crawler,
            clock=self.clock,
            settings=self.settings,
            metrics=self.metrics,
            notifier=self.notifier,
            finished=self._note_end,
            transcribed=self._note_transcript,
            is_dead=self.dead.__contains__,
        )

    def _note_end(self) -> None:
        self.finished += 1

    def _note_transcript(self) -> None:
        self.transcribed += 1

    @asynccontextmanager
    async def running(self, owner: str = "one") -> AsyncIterator[Dispatcher]:
        dispatcher = self.dispatcher(owner)
        await dispatcher.prepare()
        loop = asyncio.create_task(dispatcher.run())
        try:
            yield dispatcher
        finally:
            loop.cancel()
            await asyncio.gather(loop, return_exceptions=True)

    async def add(
        self,
        priority: Priority = Priority.NORMAL,
        summary: SummaryOptions | None = None,
        client: str | None = None,
        **options: object,
    ) -> Task:
        number = len(await self.media.prefixes())
        prefix = f"t{number}"
        await self.media.write(f"{prefix}/source", blocks(b"sound"))
        new = NewTask(
            media_prefix=prefix,
            media_key=f"{prefix}/source",
            priority=priority,
            options=TranscriptionOptions(**options),  # type: ignore[arg-type]
            summary_options=summary,
            client=client,
        )
        task, _ = await self.store.create(new)
        return task

    async def until(self, task: Task, reached: Callable[[Task], bool]) -> Task:
        async with asyncio.timeout(5):
            while not reached(task := await self.store.get(task.id, include_result=True)):
                await asyncio.sleep(0.001)
            return task

    async def end_of(self, task: Task) -> Task:
        return await self.until(task, lambda task: task.status.finished)
