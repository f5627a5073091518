"""The media store on fsspec: a folder that every node mounts, or a bucket (``s3://…``)."""

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
from typing_extensions import override

from pipeline.durable_files import make_folders, sync_folder
from pipeline.errors import ConfigurationError, InvalidValue
from pipeline.media.storage_failures import translate_storage_errors
from pipeline.ports import MediaStore
from pipeline.process_identity import is_dead, own_name
from pipeline.worker_threads import in_thread

WRITE_BLOCK_BYTES = 1024 * 1024
"""Size of blocks that a worker thread writes: a thread call per network packet would cost more than the write."""

STORAGE_ID_KEY = ".cluster/mark"
"""Key of the storage id, by which nodes check that they use the same store. No task's folder has a leading dot."""

BUCKET_BLOCK_BYTES = 8 * 1024 * 1024
"""Size of one part of an upload to a bucket, and of a decoder's read-ahead. Each upload holds one such block in memory;
fsspec's default is 50 MiB. An object has at most 10,000 parts, so the largest is 80 GiB."""

PARTIAL_SUFFIX = ".partial"
"""End of the name of a partly written file, after the name of the process that writes it. The file has no key."""

IN_USE = ".in-use"
"""Key whose age tells when a media prefix was last in use."""

DELETE_ATTEMPTS = 4
"""Number of times to try to delete a folder while other processes write or delete in it."""

DEAD_WRITER_TIME = datetime.min.replace(tzinfo=UTC)
"""Time of change reported for a folder whose writer is dead."""


def validate_key(key: str) -> str:
    """Return the key if it is relative and has no empty component, ``.`` or ``..``, so that it stays within the store.

    Raises:
        InvalidValue: the key could lead out of the store.
    """
    if "\\" in key or "\0" in key or any(part in ("", ".", "..") for part in key.split("/")):
        raise InvalidValue("A media key must consist of names joined by slashes, without `.` or `..`.", "media_key")
    return key


class FsspecMediaStore(MediaStore):
    """A media store in a folder or bucket that fsspec can open.

    Args:
        url: ``file:///shared/folder`` or ``s3://bucket/folder`` (needs ``s3fs``). The folder is created when needed.
    """

    def __init__(self, url: str) -> None:
        try:
            # Listings are not cached, since other nodes write to the store as well.
            self._fs, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
        except (ValueError, ImportError) as error:
            raise ConfigurationError(
                "media.url can't be opened: its scheme is unknown, or the package for it is not installed."
            ) from error
        self._root = root.rstrip("/")

    @override
    async def write(self, key: str, data: AsyncIterator[bytes]) -> int:
        """Store the stream and return its size in bytes. If the stream raises, nothing is kept.

        In a folder, the key survives a power cut after the return: its bytes and its name were synced.
        """
        upload = _KeyWriter(self._fs, self._root, self._path(key))
        try:
            size = 0
            await in_thread(upload.begin)
            async for block in _join_into_blocks(data):
                await in_thread(upload.write, block)
                size += len(block)
            await in_thread(upload.commit)
        except BaseException:
            await in_thread(upload.discard)
            raise
        return size

    @override
    async def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        path = self._path(key)
        if length == 0:
            return b""  # an HTTP range can't be empty
        # S3 refuses every range on an empty object, so none is sent unless it is needed.
        start, end = offset or None, None if length is None else offset + length
        with translate_storage_errors():
            return cast("bytes", await in_thread(self._fs.cat_file, path, start=start, end=end))

    @override
    def open(self, key: str) -> BinaryIO:
        with translate_storage_errors():
            return cast("BinaryIO", self._fs.open(self._path(key), "rb", block_size=BUCKET_BLOCK_BYTES))

    @override
    async def delete_prefix(self, prefix: str) -> None:
        path = self._path(prefix)
        for _ in range(DELETE_ATTEMPTS - 1):
            try:
                await in_thread(self._fs.rm, path, recursive=True)
            except FileNotFoundError:
                if not await in_thread(self._fs.exists, path):
                    return  # otherwise only a file in it was absent, since another process removed it at the same time
            except OSError as error:
                if error.errno != errno.ENOTEMPTY:  # another process still writes there
                    raise
            else:
                return
        with suppress(FileNotFoundError):
            await in_thread(self._fs.rm, path, recursive=True)

    @override
    async def touch(self, prefix: str) -> None:
        await in_thread(self._touch, self._path(f"{prefix}/{IN_USE}"))

    def _touch(self, path: str) -> None:
        with translate_storage_errors():
            if getattr(self._fs, "local_file", False):
                self._fs.makedirs(posixpath.dirname(path), exist_ok=True)
            self._fs.pipe_file(path, b"")

    @override
    async def prefixes(self) -> Mapping[str, datetime]:
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
    """A key that is being written. Every method blocks.

    A bucket shows an object only once its upload is committed. A folder shows a file from its first byte on, so the
    file is written beside its final place and renamed, which is atomic. fsspec's ``autocommit=False`` would instead
    write to the system's temporary folder, from which the file may have to be copied.

    The bytes are synced before the rename, and every folder from the file's up to the root after it. Otherwise a power
    cut could leave a name without bytes, or no name, and lose an accepted recording
    (https://www.kernel.org/doc/html/latest/filesystems/ext4/overview.html, fsync(2)).
    """

    def __init__(self, fs: Any, root: str, path: str) -> None:
        self._fs, self._root, self._path = fs, root, path
        self._is_folder = getattr(fs, "local_file", False)
        self._partial = f"{path}~{own_name()}{PARTIAL_SUFFIX}"
        self._file: Any = None

    def begin(self) -> None:
        with translate_storage_errors():
            if self._is_folder:
                make_folders(self._root)  # creates it with the first key; `commit` syncs the folders below
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
        """Sync every folder from the file's up to the root: another upload may have created one and not synced it."""
        folder = posixpath.dirname(self._path)
        sync_folder(folder)
        while folder not in (self._root, posixpath.dirname(folder)):
            folder = posixpath.dirname(folder)
            sync_folder(folder)

    def discard(self) -> None:
        if self._file is not None and not self._is_folder:
            self._file.discard()
        elif self._file is not None:
            with suppress(OSError):  # closing flushes, which fails on a full disk; the bytes are discarded anyway
                self._file.close()
            with suppress(FileNotFoundError):
                self._fs.rm_file(self._partial)
        if self._is_folder:
            with suppress(OSError):  # the folder holds other keys, or was never created
                self._fs.rmdir(posixpath.dirname(self._path))


async def _join_into_blocks(data: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the same bytes in blocks of at least ``WRITE_BLOCK_BYTES``; the last one may be shorter."""
    pending = bytearray()
    async for piece in data:
        pending += piece
        if len(pending) >= WRITE_BLOCK_BYTES:
            yield bytes(pending)
            pending.clear()
    if pending:
        yield bytes(pending)


def _is_abandoned(path: str) -> bool:
    """Return whether a file is partly written and its writer is known to be dead."""
    _, _, writer = path.removesuffix(PARTIAL_SUFFIX).rpartition("~")
    return path.endswith(PARTIAL_SUFFIX) and is_dead(writer)


def _changed_at(info: Mapping[str, Any]) -> datetime:
    """Return the time at which a file or object was last changed.

    fsspec gives a number of seconds for folders and a datetime for buckets. Folders of a bucket have no time of their
    own and count as very old, so that only the objects in them decide.
    """
    changed = info.get("mtime", info.get("LastModified"))
    if isinstance(changed, datetime):
        return changed
    return datetime.fromtimestamp(changed or 0.0, UTC)
