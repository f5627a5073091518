"""A disk that is full: accepted tasks wait for room, and the service goes on."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from pipeline.asr.silero_vad import SileroVad
from pipeline.domain.decoding.transcription_options import TranscriptionOptions
from pipeline.domain.tasks.task import NewTask, Status, Task
from pipeline.errors import DatabaseUnavailable, StorageFull
from pipeline.media.audio_decoder import AudioDecoder
from pipeline.media.media_store import FsspecMediaStore
from pipeline.media.streaming_splitter import StreamingSplitter
from pipeline.ports import NullMetrics, TaskStore
from pipeline.settings import Settings
from pipeline.store.connection.failures import DATABASE_UNWRITABLE
from pipeline.system_clock import SystemClock
from pipeline.testing.fake_splitter import FakeSplitter, make_chunks
from pipeline.testing.fake_transcriber import FakeTranscriber
from pipeline.testing.memory_media import MemoryMediaStore
from pipeline.testing.memory_task_store import MemoryTaskStore
from pipeline.testing.memory_uploads import MemoryUploadStore
from pipeline.usecases.dispatch.dispatcher import Dispatcher
from pipeline.usecases.tasks.resumable_uploads import ResumableUploads
from tests.support.recordings import encode, stream, tone
from tests.support.stores import sql_store

MEBIBYTE = 1024 * 1024
PLAIN = TranscriptionOptions(language="en", vad_filter=False)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MiB; only root can have one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounting = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True)
    if mounting.returncode:
        pytest.skip("a disk of one's own can't be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


async def test_an_upload_finds_no_room_and_leaves_nothing(small_disk: Path) -> None:
    media = FsspecMediaStore(small_disk.as_uri())
    with pytest.raises(StorageFull, match="no room left"):
        await media.write("t1/source", stream(bytes(3 * MEBIBYTE)))
    assert await media.prefixes() == {}
    assert await media.write("t2/source", stream(bytes(MEBIBYTE))) == MEBIBYTE


@pytest.fixture
async def service(small_disk: Path) -> AsyncIterator[tuple[FsspecMediaStore, MemoryTaskStore]]:
    """A Dispatcher at work whose media lies on the small disk."""
    media, clock = FsspecMediaStore(small_disk.as_uri()), SystemClock()
    settings = Settings(dispatch={"poll_s": 0.05, "retry_base_s": 0.1})
    store = MemoryTaskStore(clock)
    dispatcher = Dispatcher(
        owner="me",
        store=store,
        media=media,
        splitter=StreamingSplitter(
            media,
            SileroVad,
            settings.vad,
            settings.split,
            lambda file, sound: AudioDecoder(file, settings.media.max_duration_s, sound),
        ),
        transcriber=FakeTranscriber(),
        clock=clock,
        settings=settings,
        metrics=NullMetrics(),
    )
    running = asyncio.create_task(dispatcher.run())
    yield media, store
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


Service = tuple[FsspecMediaStore, MemoryTaskStore]


async def test_a_recording_whose_sound_does_not_fit_waits_and_the_others_go_on(
    service: Service, small_disk: Path
) -> None:
    media, store = service
    large, small = [await _add(media, store, name, seconds) for name, seconds in (("large", 80.0), ("small", 3.0))]
    assert (await _end_of(store, small)).status is Status.COMPLETED
    waiting = await _waits_for_space(store, large)
    assert waiting.error is not None
    assert waiting.error.message.startswith("Waiting for space: the media store has no room left")
    assert waiting.failures == 0
    async with asyncio.timeout(30):
        while _files_in(small_disk) != ["large/source"]:  # what was prepared of it made room
            await asyncio.sleep(0.01)


async def test_a_task_goes_on_when_there_is_room_again(service: Service, small_disk: Path) -> None:
    media, store = service
    await media.write("t2/source", stream(encode(tone(20.0), "ogg")))
    task = await _add(media, store, "t1", 20.0)
    filler = small_disk / "filler"
    _fill_up(filler)
    second, _ = await store.create(NewTask(media_prefix="t2", media_key="t2/source", options=PLAIN))
    await _waits_for_space(store, second)
    filler.unlink()
    assert [(await _end_of(store, each)).status for each in (task, second)] == [Status.COMPLETED] * 2


async def test_a_full_disk_refuses_uploads_of_pieces_and_keeps_what_was_acknowledged(small_disk: Path) -> None:
    media = FsspecMediaStore(small_disk.as_uri())
    uploads = ResumableUploads(
        MemoryUploadStore(SystemClock()), media, SystemClock(), max_upload_bytes=10 * MEBIBYTE, ttl_s=60.0
    )
    upload = await uploads.create(4 * MEBIBYTE, {})
    upload = await uploads.append(upload, 0, stream(bytes(MEBIBYTE)))
    with pytest.raises(StorageFull):
        await uploads.append(upload, MEBIBYTE, stream(bytes(3 * MEBIBYTE)))
    upload = await uploads.get(upload.id)
    assert upload.received_bytes == MEBIBYTE
    assert len(_files_in(small_disk)) == 1, "nothing of the piece that found no room"
    upload = await uploads.append(upload, MEBIBYTE, stream(bytes(MEBIBYTE // 2)))
    assert upload.received_bytes == MEBIBYTE * 3 // 2


def _files_in(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]


async def _fill(store: TaskStore) -> None:
    for number in range(1000):
        await store.create(NewTask(media_prefix=f"{number}", platform="x" * 4096))


def _fill_up(file: Path) -> None:
    with pytest.raises(OSError, match="No space left"):
        file.write_bytes(bytes(3 * MEBIBYTE))


async def _waits_for_space(store: MemoryTaskStore, task: Task) -> Task:
    async with asyncio.timeout(30):
        while (found := await store.get(task.id)).status is not Status.QUEUED or found.error is None:
            await asyncio.sleep(0.005)
        assert found.error.code == "storage_full"
        return found


async def _add(media: FsspecMediaStore, store: MemoryTaskStore, name: str, seconds: float) -> Task:
    await media.write(f"{name}/source", stream(encode(tone(seconds), "ogg")))
    task, _ = await store.create(NewTask(media_prefix=name, media_key=f"{name}/source", options=PLAIN))
    return task


async def _end_of(store: MemoryTaskStore, task: Task) -> Task:
    async with asyncio.timeout(30):
        while not (found := await store.get(task.id)).status.finished:
            await asyncio.sleep(0.02)
        return found


async def test_a_database_that_finds_no_room_says_so_and_comes_back(small_disk: Path) -> None:
    store = sql_store(f"sqlite+aiosqlite:///{small_disk / 'tasks.db'}", SystemClock())
    await store.migrate()
    filler = small_disk / "filler"
    _fill_up(filler)
    with pytest.raises(DatabaseUnavailable) as refusal:
        await _fill(store)
    assert refusal.value.message == DATABASE_UNWRITABLE
    filler.unlink()
    task, _ = await store.create(NewTask(media_prefix="again"))
    assert await store.get(task.id) == task
    await store.close()


async def test_an_accepted_task_outlives_a_database_without_room(small_disk: Path) -> None:
    clock, fleet, media = SystemClock(), FakeTranscriber(), MemoryMediaStore()
    store = sql_store(f"sqlite+aiosqlite:///{small_disk / 'tasks.db'}", clock)
    await store.migrate()
    fleet.open_gate.clear()
    dispatcher = Dispatcher(
        owner="me",
        store=store,
        media=media,
        splitter=FakeSplitter(make_chunks(3)),
        transcriber=fleet,
        clock=clock,
        settings=Settings(dispatch={"poll_s": 0.05, "heartbeat_s": 0.2}),
        metrics=NullMetrics(),
    )
    await media.write("t1/source", stream(b"sound"))
    task, _ = await store.create(NewTask(media_prefix="t1", media_key="t1/source", options=PLAIN))
    running = asyncio.create_task(dispatcher.run())
    async with asyncio.timeout(30):
        while not fleet.units:
            await asyncio.sleep(0.01)
    filler = small_disk / "filler"
    _fill_up(filler)
    with pytest.raises(DatabaseUnavailable):
        await _fill(store)
    fleet.open_gate.set()  # results that can't be stored
    while dispatcher.database_ready:
        await asyncio.sleep(0.01)
    filler.unlink()
    async with asyncio.timeout(60):
        while not (found := await store.get(task.id)).status.finished:
            await asyncio.sleep(0.05)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await store.close()
    assert (found.status, found.attempts) == (Status.COMPLETED, 1)
