from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from pipeline.errors import InvalidValue
from pipeline.media.media_store import FsspecMediaStore
from pipeline.ports import MediaStore
from pipeline.testing.memory_media import MemoryMediaStore
from tests.support.recordings import stream


@pytest.fixture(params=["memory", "folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> MediaStore:
    makers: dict[str, Callable[[], MediaStore]] = {
        "memory": MemoryMediaStore,
        "folder": lambda: FsspecMediaStore((tmp_path / "media folder").as_uri()),
        "bucket": lambda: FsspecMediaStore(f"{request.getfixturevalue('bucket')}/{uuid4().hex}"),
    }
    return makers[request.param]()


async def breaking(after: int) -> AsyncIterator[bytes]:
    for _ in range(after):
        yield bytes(700_000)
    raise ConnectionResetError


@pytest.mark.parametrize("size", [0, 1, 1_048_576, 3_000_001])
async def test_what_was_written_can_be_read(store: FsspecMediaStore | MemoryMediaStore, size: int) -> None:
    content = bytes(range(256)) * (size // 256) + bytes(size % 256)
    assert await store.write("t1/source", stream(content)) == size
    assert await store.read("t1/source") == content


async def test_a_key_can_be_read_in_ranges(store: FsspecMediaStore | MemoryMediaStore) -> None:
    await store.write("t1/pcm/00000.s16le", stream(b"0123456789"))
    assert await store.read("t1/pcm/00000.s16le", 2, 3) == b"234"
    assert await store.read("t1/pcm/00000.s16le", 8) == b"89"
    assert await store.read("t1/pcm/00000.s16le", 8, 100) == b"89"
    assert await store.read("t1/pcm/00000.s16le", 2, 0) == b""


async def test_a_key_can_be_opened_and_sought(store: FsspecMediaStore | MemoryMediaStore) -> None:
    await store.write("t1/source", stream(b"0123456789"))
    with store.open("t1/source") as file:
        assert file.read(3) == b"012"
        assert file.seek(-2, 2) == 8
        assert file.read() == b"89"


async def test_a_key_is_replaced_as_a_whole(store: FsspecMediaStore | MemoryMediaStore) -> None:
    await store.write("t1/source", stream(b"first"))
    await store.write("t1/source", stream(b"2"))
    assert await store.read("t1/source") == b"2"


async def test_an_absent_key_is_not_found(store: FsspecMediaStore | MemoryMediaStore) -> None:
    await store.write("t1/source", stream(b"x"))
    with pytest.raises(FileNotFoundError):
        await store.read("t2/source")
    with pytest.raises(FileNotFoundError):
        store.open("t2/source")


@pytest.mark.parametrize("after", [0, 1, 4])
async def test_a_stream_that_breaks_leaves_nothing_behind(
    store: FsspecMediaStore | MemoryMediaStore, after: int
) -> None:
    with pytest.raises(ConnectionResetError):
        await store.write("t1/source", breaking(after))
    assert await store.prefixes() == {}
    with pytest.raises(FileNotFoundError):
        await store.read("t1/source")


async def test_a_stream_that_breaks_leaves_the_key_as_it_was(store: FsspecMediaStore | MemoryMediaStore) -> None:
    await store.write("t1/source", stream(b"first"))
    with pytest.raises(ConnectionResetError):
        await store.write("t1/source", breaking(2))
    assert await store.read("t1/source") == b"first"


async def test_a_cancelled_write_leaves_nothing_behind(store: FsspecMediaStore | MemoryMediaStore) -> None:
    started = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(500_000)
            started.set()
            await asyncio.sleep(0.001)

    writing = asyncio.create_task(store.write("t1/source", endless()))
    await started.wait()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert await store.prefixes() == {}


async def test_a_key_is_not_there_before_it_is_complete(store: FsspecMediaStore | MemoryMediaStore) -> None:
    async def watched() -> AsyncIterator[bytes]:
        yield bytes(2_000_000)
        with pytest.raises(FileNotFoundError):
            await store.read("t1/source")
        yield bytes(2_000_000)

    assert await store.write("t1/source", watched()) == 4_000_000


async def test_a_prefix_is_deleted_with_all_its_keys(store: FsspecMediaStore | MemoryMediaStore) -> None:
    for key in ("t1/source", "t1/pcm/00000.s16le", "t10/source"):
        await store.write(key, stream(b"x"))
    await store.delete_prefix("t1")
    await store.delete_prefix("t1")
    assert set(await store.prefixes()) == {"t10"}
    assert await store.read("t10/source") == b"x"


async def test_prefixes_are_the_task_folders_with_the_time_of_their_last_change(
    store: FsspecMediaStore | MemoryMediaStore,
) -> None:
    assert await store.prefixes() == {}
    earliest = datetime.now(UTC) - timedelta(seconds=5)
    await store.write("t1/source", stream(b"x"))
    await store.write("t2/pcm/00000.s16le", stream(b"x"))
    prefixes = await store.prefixes()
    assert set(prefixes) == {"t1", "t2"}
    assert all(earliest < changed < datetime.now(UTC) + timedelta(seconds=5) for changed in prefixes.values())


async def test_a_folder_with_a_leading_dot_is_no_tasks(store: FsspecMediaStore | MemoryMediaStore) -> None:
    await store.write(".cluster/mark", stream(b"x"))
    assert await store.prefixes() == {}
    assert await store.read(".cluster/mark") == b"x"


async def test_a_folder_that_is_touched_is_as_new(store: FsspecMediaStore | MemoryMediaStore) -> None:
    await store.write("t1/source", stream(b"x"))
    before = (await store.prefixes())["t1"]
    await asyncio.sleep(0.02 if before.microsecond else 1.1)  # a bucket tells whole seconds
    await store.touch("t1")
    await store.touch("t2")
    prefixes = await store.prefixes()
    assert prefixes["t1"] > before
    assert set(prefixes) == {"t1", "t2"}
    assert await store.read("t1/source") == b"x"
    await store.delete_prefix("t1")
    assert set(await store.prefixes()) == {"t2"}


@pytest.mark.parametrize("key", ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a/.", "a\\..\\b", "a/b\0"])
async def test_a_key_can_not_lead_out_of_the_store(store: FsspecMediaStore | MemoryMediaStore, key: str) -> None:
    with pytest.raises(InvalidValue):
        await store.write(key, stream(b"x"))
    with pytest.raises(InvalidValue):
        await store.read(key)
    with pytest.raises(InvalidValue):
        store.open(key)
    with pytest.raises(InvalidValue):
        await store.delete_prefix(key)


async def test_several_may_delete_a_folder_while_another_writes_there(
    store: FsspecMediaStore | MemoryMediaStore,
) -> None:
    for number in range(30):
        await store.write(f"t1/pcm/{number:05d}.s16le", stream(b"x"))
    writing = (store.write(f"t1/more/{number}", stream(b"x")) for number in range(10))
    outcomes = await asyncio.gather(*(store.delete_prefix("t1") for _ in range(4)), *writing, return_exceptions=True)
    assert not [outcome for outcome in outcomes[:4] if isinstance(outcome, BaseException)]
    await store.delete_prefix("t1")
    assert set(await store.prefixes()) == set()
