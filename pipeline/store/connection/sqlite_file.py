"""Checks that an SQLite database is still the same file.

While a connection is open, SQLite keeps writing into its file even if that was deleted or replaced, and everything
written then is lost when the process ends. So each transaction checks the file before and after it, with ``stat`` only.
The file must never be opened here: closing it would drop the locks of this process
(https://www.sqlite.org/howtocorrupt.html#_posix_advisory_locks_canceled_by_a_separate_thread_doing_close_).
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, inspect, text

from pipeline.errors import DatabaseUnavailable

logger = logging.getLogger(__name__)

FILE_REMOVED = "The file of the task database was removed. Put it back; until then the service accepts nothing."
OTHER_DATABASE = (
    "The file of the task database was replaced by another one. Put the right file back, or a backup of it; until then "
    "the service accepts nothing."
)
DATABASE_DAMAGED = (
    "The file of the task database is damaged. Put a backup in its place; until then the service accepts nothing."
)
DATABASE_LOST = (
    "The task database is missing or empty. Put its file back, or a backup of it. To begin with an empty database, "
    "remove the file beside it that has its name and ends in .id."
)

Inode = tuple[int, int]


@dataclass(frozen=True, slots=True)
class FileSnapshot:
    """The state of a database's files, from ``stat``.

    Attributes:
        file: device and inode of its file.
        size_bytes: size of its file.
        journals: device and inode of the write-ahead log and of its index, where they exist.
    """

    file: Inode
    size_bytes: int
    journals: tuple[Inode | None, Inode | None]

    def follows(self, before: FileSnapshot) -> bool:
        """Return whether this can be a later state of the same database, if only SQLite changed its files."""
        kept = all(old is None or old == new for old, new in zip(before.journals, self.journals, strict=True))
        return self.file == before.file and self.size_bytes >= before.size_bytes and kept


class DatabaseFile:
    """The file of an SQLite database."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._paths = str(path), f"{path}-wal", f"{path}-shm"

    def snapshot(self) -> FileSnapshot | None:
        """Return the present state of the files; ``None`` if there is no database file."""
        try:
            file_status = os.stat(self._paths[0])  # noqa: PTH116  # faster than Path.stat; called a thousand times a second
        except OSError:
            return None
        return FileSnapshot(
            (file_status.st_dev, file_status.st_ino),
            file_status.st_size,
            (_inode(self._paths[1]), _inode(self._paths[2])),
        )


class IdentityFile:
    """The identity of a store in a file beside its database, which tells a lost database from a new one."""

    def __init__(self, database: Path) -> None:
        self._database = database
        self._path = database.with_name(f"{database.name}.id")

    def read(self) -> str | None:
        """Return the identity of the store that belongs here; ``None`` for a new one."""
        try:
            return self._path.read_text().strip() or None
        except (FileNotFoundError, NotADirectoryError):
            return None

    def write(self, identity: str) -> None:
        """Store the identity of a new store."""
        self._path.touch(mode=0o600)
        self._path.write_text(f"{identity}\n")

    def refuse_absence(self) -> None:
        """Raise ``DatabaseUnavailable`` if a known database is missing: opening it would create an empty one."""
        if self.read() is not None and not self._database.exists():
            raise DatabaseUnavailable(DATABASE_LOST)


def identity_of(connection: Connection) -> str | None:
    """Return the identity of the store in a database; ``None`` before its migrations created one."""
    if not inspect(connection).has_table("store_identity"):
        return None
    return connection.execute(text("SELECT identity FROM store_identity")).scalar()


def verify_integrity(connection: Connection, expected: str | None) -> None:
    """Raise ``DatabaseUnavailable`` unless a reopened database is undamaged and of the expected store."""
    if connection.execute(text("PRAGMA quick_check(1)")).scalar() != "ok":
        raise DatabaseUnavailable(DATABASE_DAMAGED)
    if expected is not None and identity_of(connection) != expected:
        raise DatabaseUnavailable(OTHER_DATABASE)


def _inode(path: str) -> Inode | None:
    try:
        file_status = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    return file_status.st_dev, file_status.st_ino
