from __future__ import annotations

import errno
import os
import sys
from datetime import UTC, datetime, timedelta
from io import BufferedWriter
from pathlib import Path

import pytest
from fsspec.implementations.local import LocalFileOpener, LocalFileSystem

from pipeline.errors import ConfigurationError, StorageFull
from pipeline.media.media_store import DEAD_WRITER_TIME, FsspecMediaStore
from pipeline.process_identity import own_name
from pipeline.testing.memory_media import MemoryMediaStore
from tests.support.processes import name_of_a_dead_process
from tests.support.recordings import stream


class FullDisk(LocalFileSystem):  # type: ignore[misc]  # fsspec has no types
    """A file system whose files can hold only 100 bytes."""

    cachable = False

    def _open(self, path: str, mode: str = "rb", **options: bool | None) -> LocalFileOpener:
        file = super()._open(path, mode, **options)
        if "w" in mode:
            file.f = _FullFile(file.f)
        return file


class _FullFile:
    def __init__(self, file: BufferedWriter) -> None:
        self._file = file

    def write(self, data: bytes) -> None:
        self._file.write(data[:100])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)


def files_in(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]


async def test_a_full_disk_is_named_and_nothing_stays_behind(tmp_path: Path) -> None:
    store = FsspecMediaStore((tmp_path / "media").as_uri())
    store._fs = FullDisk()
    with pytest.raises(StorageFull):
        await store.write("t1/source", stream(bytes(3_000_000)))
    assert files_in(tmp_path) == []
    assert await store.prefixes() == {}


async def test_the_memory_store_can_be_full() -> None:
    with pytest.raises(StorageFull):
        await MemoryMediaStore(capacity_bytes=10).write("t1/source", stream(bytes(11)))


@pytest.mark.parametrize("url", ["nonsense://bucket/folder"])
def test_a_url_nothing_can_open_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigurationError):
        FsspecMediaStore(url)


async def test_the_folder_holds_the_keys_as_paths(tmp_path: Path) -> None:
    store = FsspecMediaStore(tmp_path.as_uri())
    await store.write("t1/source", stream(b"x"))
    assert files_in(tmp_path) == ["t1/source"]


async def test_a_folder_left_by_a_crash_is_listed(tmp_path: Path) -> None:
    (tmp_path / "t1").mkdir()
    assert set(await FsspecMediaStore(tmp_path.as_uri()).prefixes()) == {"t1"}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says who is dead")
async def test_what_a_dead_process_left_half_written_is_old_at_once(tmp_path: Path) -> None:
    store = FsspecMediaStore(tmp_path.as_uri())
    for folder, writer in (("dead", name_of_a_dead_process()), ("alive", own_name()), ("unknown", "x")):
        (tmp_path / folder / "pcm").mkdir(parents=True)
        (tmp_path / folder / "pcm" / f"00000.s16le~{writer}.partial").write_bytes(b"half")
    changed = await store.prefixes()
    assert changed["dead"] == DEAD_WRITER_TIME
    assert min(changed["alive"], changed["unknown"]) > datetime.now(UTC) - timedelta(minutes=1)


async def test_a_key_is_synced_before_it_has_its_name_and_its_folders_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noted_fsync(descriptor: int) -> None:
        steps.append(os.path.relpath(Path(f"/proc/self/fd/{descriptor}").readlink(), tmp_path).partition("~")[0])
        fsync(descriptor)

    def noted_replace(path: Path, target: str) -> Path:
        steps.append("rename")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    store = FsspecMediaStore((tmp_path / "media").as_uri())
    for made in (["."], []):  # only the first upload creates the store's folder
        steps.clear()
        await store.write("t1/pcm/00000.s16le", stream(b"x"))
        key = "media/t1/pcm/00000.s16le"
        assert steps == [*made, key, "rename", "media/t1/pcm", "media/t1", "media"]
