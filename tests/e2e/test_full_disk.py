"""A disk that is full: the task fails in words, and the service goes on."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.asr.vad import SileroVad
from pipeline.clock import SystemClock
from pipeline.domain.options import TranscriptionOptions
from pipeline.domain.task import NewTask, Status, Task
from pipeline.errors import DatabaseUnavailable, StorageFull
from pipeline.media.decode import AudioDecoder
from pipeline.media.split import StreamingSplitter
from pipeline.media.store import FsspecMediaStore
from pipeline.observability import NoMetrics
from pipeline.ports import StoredChunks, TaskStore
from pipeline.settings import Settings
from pipeline.store.engine import UNWRITABLE
from pipeline.testing.fleet import FakeTranscriber
from pipeline.testing.store import MemoryTaskStore
from pipeline.usecases.dispatch import Dispatcher
from tests.contract.conftest import sql_store
from tests.recordings import encode, stream, tone

MEBIBYTE = 1024 * 1024


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


async def test_a_recording_whose_sound_does_not_fit_fails_alone(small_disk: Path) -> None:
    media, clock, settings = FsspecMediaStore(small_disk.as_uri()), SystemClock(), Settings()
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
        metrics=NoMetrics(),
    )
    large, small = [await _add(media, store, name, seconds) for name, seconds in (("large", 80.0), ("small", 3.0))]
    running = asyncio.create_task(dispatcher.run())
    ended = [await _end_of(store, task) for task in (large, small)]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert [task.status for task in ended] == [Status.FAILED, Status.COMPLETED]
    assert ended[0].error is not None
    assert (ended[0].error.code, "no room left" in ended[0].error.message) == ("storage_full", True)
    assert _files_in(small_disk) == ["large/source"], (
        "what was prepared of it made room, and the recording waits for a retry"
    )
    assert await store.chunks(large.id) == StoredChunks()


def _files_in(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]


async def _fill(store: TaskStore) -> None:
    for number in range(1000):
        await store.create(NewTask(media_prefix=f"{number}", platform="x" * 4096))


async def _add(media: FsspecMediaStore, store: MemoryTaskStore, name: str, seconds: float) -> Task:
    await media.write(f"{name}/source", stream(encode(tone(seconds), "ogg")))
    options = TranscriptionOptions(language="en", vad_filter=False)
    task, _ = await store.create(NewTask(media_prefix=name, media_key=f"{name}/source", options=options))
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
    with pytest.raises(OSError, match="No space left"):
        filler.write_bytes(bytes(3 * MEBIBYTE))
    with pytest.raises(DatabaseUnavailable) as refusal:
        await _fill(store)
    assert refusal.value.message == UNWRITABLE
    filler.unlink()
    task, _ = await store.create(NewTask(media_prefix="again"))
    assert await store.get(task.id) == task
    await store.close()
