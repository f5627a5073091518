"""MariaDB is killed and started again with 200 tasks in flight: each is completed once, under one callback."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from datetime import timedelta

from typing_extensions import override

from pipeline.domain.decoding.transcript import ChunkResult
from pipeline.domain.decoding.transcription_options import TranscriptionOptions
from pipeline.domain.tasks.task import NewTask, Status
from pipeline.ports import ChunkFailure, NullMetrics, TaskQuery, TaskStore, Unit
from pipeline.settings import Settings
from pipeline.system_clock import SynchronizedClock
from pipeline.testing.fake_splitter import FakeSplitter, make_chunks
from pipeline.testing.fake_transcriber import FakeTranscriber
from pipeline.testing.memory_media import MemoryMediaStore
from pipeline.usecases.dispatch.dispatcher import Dispatcher
from tests.support.mariadb import MariaDbServer
from tests.support.recordings import stream
from tests.support.stores import sql_store

TASKS = 200
CHUNKS = 4


class CountingFleet(FakeTranscriber):
    """A transcriber that counts the decoded chunks, and takes a moment for each."""

    def __init__(self) -> None:
        super().__init__(replicas=4)
        self.decoded: Counter[tuple[int, int]] = Counter()

    @override
    async def transcribe(self, unit: Unit) -> AsyncGenerator[Sequence[ChunkResult | ChunkFailure], None]:
        async for results in super().transcribe(unit):
            await asyncio.sleep(0.001)
            self.decoded.update((unit.task_id, result.index) for result in results)
            yield results


async def test_two_hundred_tasks_outlive_a_restart_of_their_database(mariadb: MariaDbServer) -> None:
    clock, fleet, media = SynchronizedClock(), CountingFleet(), MemoryMediaStore()
    store = sql_store(mariadb.create_database("restarted"), clock, busy_timeout_s=5.0)
    await store.migrate()
    await media.write("t/source", stream(b"sound"))
    options = TranscriptionOptions(language="en")
    for number in range(TASKS):
        hook = f"http://example.com/{number}"
        await store.create(NewTask(media_prefix=f"t{number}", media_key="t/source", options=options, callback_url=hook))
    dispatcher = Dispatcher(
        owner="me",
        store=store,
        media=media,
        splitter=FakeSplitter(make_chunks(CHUNKS)),
        transcriber=fleet,
        clock=clock,
        settings=Settings(dispatch={"poll_s": 0.2, "heartbeat_s": 0.5, "max_active_tasks": TASKS}),
        metrics=NullMetrics(),
    )
    running = asyncio.create_task(dispatcher.run())
    try:
        while fleet.decoded.total() < TASKS * CHUNKS // 10:
            await asyncio.sleep(0.01)
        in_flight = (await _statuses(store))[Status.PROCESSING]
        await asyncio.to_thread(mariadb.kill)
        await asyncio.sleep(1.0)
        await asyncio.to_thread(mariadb.start)
        async with asyncio.timeout(200):
            while await _statuses(store) != {Status.COMPLETED: TASKS}:
                await asyncio.sleep(0.5)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    tasks = (await store.query(TaskQuery(include_result=False, limit=2 * TASKS))).tasks
    owed = await store.claim_callbacks("me", timedelta(minutes=5), 2 * TASKS)
    await store.close()
    assert in_flight >= TASKS // 2
    assert {task.attempts for task in tasks} == {1}, "the leases outlived the outage"
    assert Counter(message.task_id for message in owed) == Counter(task.id for task in tasks)
    assert fleet.decoded.keys() == {(task.id, index) for task in tasks for index in range(CHUNKS)}


async def _statuses(store: TaskStore) -> Counter[Status]:
    page = await store.query(TaskQuery(include_result=False, limit=2 * TASKS))
    return Counter(task.status for task in page.tasks)
