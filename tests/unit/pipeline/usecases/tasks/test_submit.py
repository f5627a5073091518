from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from pipeline.domain.decoding.transcript import ChunkResult
from pipeline.domain.decoding.transcription_options import TranscriptionOptions
from pipeline.domain.tasks.client import Client, Scope
from pipeline.domain.tasks.submission import Submission
from pipeline.domain.tasks.task import IdempotencyClaim, NewTask, Priority, Task
from pipeline.errors import (
    CommitUnanswered,
    DatabaseUnavailable,
    IdempotencyConflict,
    InvalidValue,
    QueueFull,
    QuotaExceeded,
    SourceConflict,
    SourceMissing,
    UploadTooLarge,
    UrlNotAllowed,
)
from pipeline.net import GuardedClient
from pipeline.ports import Lease, TaskQuery
from pipeline.settings import LlmSettings, NetworkSettings
from pipeline.testing.fake_splitter import make_chunks
from pipeline.testing.manual_clock import ManualClock
from pipeline.testing.memory_media import MemoryMediaStore
from pipeline.testing.memory_task_store import MemoryTaskStore
from pipeline.testing.scripted_network import ScriptedResolver
from pipeline.usecases.tasks.submit import Submitter
from tests.support.builders import blocks

URL = Submission(file_url="https://example.org/a.mp3")


class SlowStore(MemoryTaskStore):
    """A store whose commit waits for ``go``."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock)
        self.entered, self.go = asyncio.Event(), asyncio.Event()

    async def create(
        self, new: NewTask, idempotency: IdempotencyClaim | None = None, client: Client | None = None
    ) -> tuple[Task, bool]:
        self.entered.set()
        await self.go.wait()
        return await super().create(new, idempotency, client)


class SubmitWorld:
    def __init__(
        self,
        store: MemoryTaskStore | None = None,
        *,
        queue: int = 10,
        fetch_available: bool = False,
        max_queued_audio_s: float | None = None,
        llm: LlmSettings | None = None,
    ) -> None:
        self.clock = ManualClock()
        self.store = store or MemoryTaskStore(self.clock)
        self.media = MemoryMediaStore(now=self.clock.now)
        self.wakes = 0
        self.submitter = Submitter(
            self.store,
            self.media,
            self._wake,
            clock=self.clock,
            max_upload_bytes=10,
            max_queued_tasks=queue,
            max_queued_audio_s=max_queued_audio_s,
            fetch_available=fetch_available,
            llm=llm or LlmSettings(),
            check_url=GuardedClient(NetworkSettings(), ScriptedResolver(HOSTS)).check,
        )

    async def _wake(self) -> None:
        self.wakes += 1

    async def tasks(self) -> int:
        return (await self.store.query(TaskQuery())).total_count


HOSTS = {"inside.example": [["10.0.0.1"]], "outside.example": [["93.184.216.34"]]}


async def test_a_recording_becomes_a_task_and_the_dispatcher_is_woken() -> None:
    world = SubmitWorld()
    options = TranscriptionOptions(language="de")
    submission = Submission(options=options, priority=Priority.HIGH, platform="radio", callback_url="https://a.example")
    task = await world.submitter.submit(submission, blocks(b"abc", b"def"), file_name="a.mp3")
    assert (task.options, task.priority, task.platform) == (options, Priority.HIGH, "radio")
    assert (task.callback_url, task.file_name, task.file_size_bytes) == ("https://a.example", "a.mp3", 6)
    assert task.media_key is not None
    assert task.media_key.startswith(f"{task.media_prefix}/")
    assert await world.media.read(task.media_key) == b"abcdef"
    assert world.wakes == 1


async def test_bytes_are_accepted_too() -> None:
    world = SubmitWorld()
    task = await world.submitter.submit(Submission(), b"abc")
    assert (task.file_size_bytes, task.file_name) == (3, None)


async def test_a_url_is_accepted_if_recordings_can_be_fetched() -> None:
    task = await SubmitWorld(fetch_available=True).submitter.submit(URL)
    assert (task.file_url, task.media_key) == (URL.file_url, None)


async def test_a_url_is_refused_if_recordings_can_not_be_fetched() -> None:
    with pytest.raises(InvalidValue, match="upload the file") as caught:
        await SubmitWorld().submitter.submit(URL)
    assert caught.value.field == "file_url"


@pytest.mark.parametrize("data", [b"", blocks(), blocks(b"", b"")])
async def test_an_empty_recording_is_refused(data: bytes | AsyncIterator[bytes]) -> None:
    world = SubmitWorld()
    with pytest.raises(SourceMissing, match=r"The uploaded file is empty\."):
        await world.submitter.submit(Submission(), data)
    assert (await world.tasks(), world.media.keys) == (0, frozenset())


async def test_neither_recording_nor_url() -> None:
    with pytest.raises(SourceMissing, match="file_upload"):
        await SubmitWorld().submitter.submit(Submission())


async def test_a_recording_and_a_url_leave_nothing_behind() -> None:
    world = SubmitWorld(fetch_available=True)
    with pytest.raises(SourceConflict):
        await world.submitter.submit(URL, b"abc")
    assert (await world.tasks(), world.media.keys, world.wakes) == (0, frozenset(), 0)


async def test_two_recordings_leave_nothing_behind() -> None:
    world = SubmitWorld()
    async with world.submitter.intake() as intake:
        await intake.receive(blocks(b"abc"))
        with pytest.raises(SourceConflict):
            await intake.receive(blocks(b"abc"))
    assert world.media.keys == frozenset()


async def test_the_limit_itself_is_allowed() -> None:
    assert (await SubmitWorld().submitter.submit(Submission(), b"0123456789")).file_size_bytes == 10


async def test_too_much_is_refused_as_it_arrives_with_both_counts() -> None:
    world, read = SubmitWorld(), []

    async def endless() -> AsyncIterator[bytes]:
        while True:
            read.append(4)
            yield b"four"

    with pytest.raises(UploadTooLarge, match=r"12 bytes have arrived and the limit is 10\."):
        await world.submitter.submit(Submission(), endless())
    assert len(read) == 3
    assert world.media.keys == frozenset()


async def test_a_stream_that_breaks_off_leaves_nothing_behind() -> None:
    world = SubmitWorld()

    async def broken() -> AsyncIterator[bytes]:
        yield b"abc"
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await world.submitter.submit(Submission(), broken())
    assert (await world.tasks(), world.media.keys) == (0, frozenset())


async def test_a_database_that_is_away_leaves_nothing_behind() -> None:
    world = SubmitWorld()
    async with world.submitter.intake() as intake:
        await intake.receive(blocks(b"abc"))
        world.store.available = False
        with pytest.raises(DatabaseUnavailable):
            await intake.create(Submission())
    assert (world.media.keys, world.wakes) == (frozenset(), 0)


class UnansweredStore(MemoryTaskStore):
    """A store whose connection breaks after the commit."""

    async def create(
        self, new: NewTask, idempotency: IdempotencyClaim | None = None, client: Client | None = None
    ) -> tuple[Task, bool]:
        await super().create(new, idempotency, client)
        raise CommitUnanswered("Nobody knows.")


async def test_a_recording_is_kept_if_the_commit_is_uncertain() -> None:
    world = SubmitWorld(UnansweredStore(ManualClock()))
    with pytest.raises(CommitUnanswered):
        await world.submitter.submit(Submission(), b"abc")
    assert (await world.tasks(), len(world.media.keys)) == (1, 1)


async def test_a_slow_upload_is_not_deleted_as_an_orphan() -> None:
    world = SubmitWorld()
    async with world.submitter.intake() as intake:
        await intake.receive(blocks(b"abc"))
        for _ in range(10):
            world.clock.advance(120)
            for _ in range(10):
                await asyncio.sleep(0)
            assert world.clock.now() - (await world.media.prefixes())[intake.prefix] < timedelta(seconds=600)
        task, _ = await intake.create(Submission())
    assert task.media_key in world.media.keys


async def test_a_caller_that_goes_away_during_the_upload_leaves_nothing_behind() -> None:
    world = SubmitWorld()

    async def stalled() -> AsyncIterator[bytes]:
        yield b"abc"
        await asyncio.Event().wait()

    upload = asyncio.create_task(world.submitter.submit(Submission(), stalled()))
    await asyncio.sleep(0)
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload
    assert (await world.tasks(), world.media.keys) == (0, frozenset())


async def test_a_caller_that_goes_away_during_the_commit_leaves_a_whole_task() -> None:
    store = SlowStore(ManualClock())
    world = SubmitWorld(store)
    upload = asyncio.create_task(world.submitter.submit(Submission(), b"abc"))
    await store.entered.wait()
    upload.cancel()
    await asyncio.sleep(0)
    store.go.set()
    with pytest.raises(asyncio.CancelledError):
        await upload
    assert (await world.tasks(), len(world.media.keys), world.wakes) == (1, 1, 1)


async def test_the_same_key_returns_the_original_and_drops_the_second_upload() -> None:
    world = SubmitWorld()
    first = await world.submitter.submit(Submission(), b"abc", file_name="a.mp3", idempotency_key="k")
    again = await world.submitter.submit(Submission(), blocks(b"a", b"bc"), file_name="b.mp3", idempotency_key="k")
    assert again == first
    assert world.media.keys == {first.media_key}
    assert world.wakes == 1


@pytest.mark.parametrize("other", [(Submission(), b"abd"), (Submission(priority=Priority.LOW), b"abc")])
async def test_the_same_key_with_another_request_is_a_conflict(other: tuple[Submission, bytes]) -> None:
    world = SubmitWorld()
    await world.submitter.submit(Submission(), b"abc", idempotency_key="k")
    with pytest.raises(IdempotencyConflict):
        await world.submitter.submit(*other, idempotency_key="k")
    assert len(world.media.keys) == 1


async def test_a_full_queue_refuses_tasks_until_there_is_room() -> None:
    world = SubmitWorld(queue=2)
    first = await world.submitter.submit(Submission(), b"abc")
    await world.submitter.submit(Submission(), b"abc")
    with pytest.raises(QueueFull, match=r"2 tasks wait already, and the limit is 2") as caught:
        async with world.submitter.intake():
            pytest.fail("the door is open")
    assert caught.value.retry_after_s > 0
    await world.store.delete(first.id)
    world.clock.advance(1.0)
    await world.submitter.submit(Submission(), b"abc")
    assert await world.tasks() == 2


async def test_one_client_does_not_fill_the_queue() -> None:
    world, other = SubmitWorld(queue=18), Client("bob", frozenset({Scope.WRITE}))
    greedy = Client("ann", frozenset({Scope.WRITE}))
    for _ in range(16):
        await world.submitter.submit(Submission(), b"abc", client=greedy)
    with pytest.raises(QuotaExceeded, match=r"16 of your tasks wait already, .* is for others"):
        await world.submitter.submit(Submission(), b"abc", client=greedy)
    await world.submitter.submit(Submission(), b"abc", client=other)
    await world.submitter.submit(Submission(), b"abc", client=other)
    with pytest.raises(QueueFull):
        await world.submitter.submit(Submission(), b"abc", client=other)


async def test_too_much_queued_audio_refuses_tasks_until_there_is_less() -> None:
    world = SubmitWorld(max_queued_audio_s=20.0)
    task = await world.submitter.submit(Submission(), b"abc")
    [claimed] = await world.store.claim("me", timedelta(seconds=30), 1, [1])
    await world.store.add_part(Lease(task.id, claimed.fence), 0, 0, 1, make_chunks(2))
    world.clock.advance(1.0)
    with pytest.raises(QueueFull, match=r"20 seconds of audio wait already, and the limit is 20"):
        await world.submitter.submit(Submission(), b"abc")
    await world.store.save_results(Lease(task.id, claimed.fence), [ChunkResult(0, 10.0, (), "en")])
    world.clock.advance(1.0)
    await world.submitter.submit(Submission(), b"abc")


async def test_a_url_that_the_guard_refuses_creates_no_task() -> None:
    world = SubmitWorld()
    with pytest.raises(UrlNotAllowed) as refused:
        await world.submitter.submit(Submission(callback_url="http://inside.example/hook"), b"abc")
    assert refused.value.field == "callback_url"
    assert (await world.tasks(), world.media.keys) == (0, frozenset())


@pytest.mark.parametrize("host", ["outside.example", "not-up-yet.example"])
async def test_an_unreachable_receiver_is_accepted(host: str) -> None:
    world = SubmitWorld()
    task = await world.submitter.submit(Submission(callback_url=f"https://{host}/hook"), b"abc")
    assert task.callback_url == f"https://{host}/hook"
