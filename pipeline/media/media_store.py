"""The media store on fsspec: a folder that every node mounts, or a bucket (``s3://…``), by the same code."""

from __future__ import annotations

import errno
import os
import posixpath
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec

from pipeline.durable_files import make_folders, sync_folder
from pipeline.errors import ConfigurationError, InvalidValue
from pipeline.media.storage_failures import translate_storage_errors
from pipeline.process_identity import is_dead, own_name
from pipeline.worker_threads import in_thread

WRITE_BLOCK_BYTES = 1024 * 1024
"""What is handed to a worker thread at a time: a thread per network packet would cost more than the write."""

STORAGE_ID_KEY = ".cluster/mark"
"""Where the nodes of a cluster look whether they see the same store; folders with a leading dot are no task's."""

BUCKET_BLOCK_BYTES = 8 * 1024 * 1024
"""Part of an upload to a bucket, and what a decoder reads ahead: fsspec's own 50 MiB would be held by each upload. With
at most 10,000 parts an object, 80 GiB is the largest."""

PARTIAL_SUFFIX = ".partial"
"""Of a file in a folder that is still being written, after the name of the process that writes it; it has no key."""

IN_USE = ".in-use"
"""A key that says by its age when a folder was last in use."""

DELETE_ATTEMPTS = 4
"""How often a folder is deleted in which others write or delete at the same time."""

DEAD_WRITER_TIME = datetime.min.replace(tzinfo=UTC)
"""When a folder was changed whose writer is dead."""


def validate_key(key: str) -> str:
    """The key, if it can't lead out of the store: relative, no empty component, no ``.`` or ``..``.

    Raises:
        InvalidValue: it could.
    """
    if "\\" in key or "\0" in key or any(part in ("", ".", "..") for part in key.split("/")):
        raise InvalidValue("A media key is made of names joined by slashes.", "media_key")
    return key


class FsspecMediaStore:
    """A ``MediaStore`` wherever fsspec reaches.

    Args:
        url: ``file:///shared/folder`` or ``s3://bucket/folder`` (needs ``s3fs``); the folder is made when needed.
    """

    def __init__(self, url: str) -> None:
        try:
            # No cached listings: other nodes write to the store as well.
            self._fs, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
        except (ValueError, ImportError) as error:
            raise ConfigurationError("media.url is of a kind that can't be opened with what is installed.") from error
        self._root = root.rstrip("/")

    async def write(self, key: str, data: AsyncIterator[bytes]) -> int:
        """Stores the stream and returns its size in bytes. If the stream raises, nothing stays behind.

        In a folder a power cut after the return leaves the key whole: its bytes and its name were synced.
        """
        upload = _KeyWriter(self._fs, self._root, self._path(key))
        try:
            size = 0
            await in_thread(upload.begin)
            async for block in _in_blocks(data):
                await in_thread(upload.write, block)
                size += len(block)
            await in_thread(upload.commit)
        except BaseException:
            await in_thread(upload.discard)
            raise
        return size

    async def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes ``[offset, offset + length)`` of a key, or to its end. ``FileNotFoundError`` for an absent key."""
        path = self._path(key)
        if length == 0:
            return b""  # which HTTP ranges can't ask for
        # Without a range where none is needed: S3 refuses any on an empty object.
        start, end = offset or None, None if length is None else offset + length
        with translate_storage_errors():
            return cast("bytes", await in_thread(self._fs.cat_file, path, start=start, end=end))

    def open(self, key: str) -> BinaryIO:
        """A seekable file object, to be used off the event loop. ``FileNotFoundError`` for an absent key."""
        with translate_storage_errors():
            return cast("BinaryIO", self._fs.open(self._path(key), "rb", block_size=BUCKET_BLOCK_BYTES))

    async def delete_prefix(self, prefix: str) -> None:
        """Removes every key under a folder. Absent is fine."""
        path = self._path(prefix)
        for _ in range(DELETE_ATTEMPTS - 1):
            try:
                await in_thread(self._fs.rm, path, recursive=True)
            except FileNotFoundError:
                if not await in_thread(self._fs.exists, path):
                    return  # it may also have been a file in it that another process removed at the same time
            except OSError as error:
                if error.errno != errno.ENOTEMPTY:  # somebody still writes there
                    raise
            else:
                return
        with suppress(FileNotFoundError):
            await in_thread(self._fs.rm, path, recursive=True)

    async def touch(self, prefix: str) -> None:
        """Makes a task folder count as changed now."""
        await in_thread(self._touch, self._path(f"{prefix}/{IN_USE}"))

    def _touch(self, path: str) -> None:
        with translate_storage_errors():
            if getattr(self._fs, "local_file", False):
                self._fs.makedirs(posixpath.dirname(path), exist_ok=True)
            self._fs.pipe_file(path, b"")

    async def prefixes(self) -> Mapping[str, datetime]:
        """The task folders that exist, with the time each was last changed; very long ago if its writer is dead."""
        return await in_thread(self._list_prefixes)

    def _path(self, key: str) -> str:
        return f"{self._root}/{validate_key(key)}"

    def _list_prefixes(self) -> dict[str, datetime]:
        self._fs.invalidate_cache()
        try:
            entries = self._fs.find(self._root, withdirs=True, detail=True)
        except FileNotFoundError:
            return {}
        latest: dict[str, datetime] = {}
        abandoned: set[str] = set()
        for path, info in entries.items():
            inside = path[len(self._root) :].strip("/")
            if inside and not inside.startswith("."):
                prefix, changed = inside.split("/")[0], _changed_at(info)
                latest[prefix] = max(changed, latest.get(prefix, changed))
                if _is_abandoned(inside):
                    abandoned.add(prefix)
        return latest | dict.fromkeys(abandoned, DEAD_WRITER_TIME)


class _KeyWriter:
    """One key that is being written; every method blocks.

    A bucket shows an object once its upload is committed. A folder shows a file from its first byte on, so there it is
    written beside its final place and renamed, which is atomic. (fsspec's own ``autocommit=False`` would put it into
    the system's temporary folder, from where it may have to be copied.) The bytes are synced before the rename, and
    the folders on the way to the file after it: a name that points to unwritten bytes, or no name, would lose a
    recording that was accepted (https://www.kernel.org/doc/html/latest/filesystems/ext4/overview.html, fsync(2)).
    """

    def __init__(self, fs: Any, root: str, path: str) -> None:
        self._fs, self._root, self._path = fs, root, path
        self._is_folder = getattr(fs, "local_file", False)
        self._partial = f"{path}~{own_name()}{PARTIAL_SUFFIX}"
        self._file: Any = None

    def begin(self) -> None:
        with translate_storage_errors():
            if self._is_folder:
                make_folders(self._root)  # with the first key; the folders below are synced with each
                self._fs.makedirs(posixpath.dirname(self._path), exist_ok=True)
                self._file = self._fs.open(self._partial, "wb")
            else:
                self._file = self._fs.open(self._path, "wb", block_size=BUCKET_BLOCK_BYTES, autocommit=False)

    def write(self, block: bytes) -> None:
        with translate_storage_errors():
            self._file.write(block)

    def commit(self) -> None:
        with translate_storage_errors():
            if self._is_folder:
                self._file.flush()
                os.fsync(self._file.fileno())
                self._file.close()
                Path(self._partial).replace(self._path)
                self._sync_folders()
            else:
                self._file.close()
                self._file.commit()

    def _sync_folders(self) -> None:
        """Sync every folder from the file's up to the root: another upload may have made one and not synced it yet."""
        folder = posixpath.dirname(self._path)
        sync_folder(folder)
        while folder not in (self._root, posixpath.dirname(folder)):
            folder = posixpath.dirname(folder)
            sync_folder(folder)

    def discard(self) -> None:
        if self._file is not None and not self._is_folder:
            self._file.discard()
        elif self._file is not None:
            with suppress(OSError):  # what can't be flushed for want of room is to be thrown away anyway
                self._file.close()
            with suppress(FileNotFoundError):
                self._fs.rm_file(self._partial)
        if self._is_folder:
            with suppress(OSError):  # other keys lie in the folder, or it was never made
                self._fs.rmdir(posixpath.dirname(self._path))


async def _in_blocks(data: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in blocks of at least ``WRITE_BLOCK_BYTES``, but for the last."""
    pending = bytearray()
    async for piece in data:
        pending += piece
        if len(pending) >= WRITE_BLOCK_BYTES:
            yield bytes(pending)
            pending.clear()
    if pending:
        yield bytes(pending)


def _is_abandoned(path: str) -> bool:
    """Return whether a file is half-written by a process that is dead for certain."""
    _, _, writer = path.removesuffix(PARTIAL_SUFFIX).rpartition("~")
    return path.endswith(PARTIAL_SUFFIX) and is_dead(writer)


def _changed_at(info: Mapping[str, Any]) -> datetime:
    """When a file or object was last changed: a number from folders, a datetime from buckets.

    A bucket's folders have no time of their own; they are as old as what lies in them.
    """
    changed = info.get("mtime", info.get("LastModified"))
    if isinstance(changed, datetime):
        return changed
    return datetime.fromtimestamp(changed or 0.0, UTC)
