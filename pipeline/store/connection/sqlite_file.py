"""Whether an SQLite database is still the file it was.

SQLite goes on writing into a file that was deleted or replaced for as long as a connection to it is open: what is
"stored" then is gone with the process. So the file is looked at before and after each transaction, by ``stat`` alone.
It must never be opened here: closing it would drop the locks of this process
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

FILE_REMOVED = "The file of the task database was removed: put it back; until then nothing is accepted."
OTHER_DATABASE = (
    "The file of the task database was replaced by another one: put the right one back, or a backup of it; until then "
    "nothing is accepted."
)
DATABASE_DAMAGED = (
    "The file of the task database is damaged: put a backup in its place; until then nothing is accepted."
)
DATABASE_LOST = (
    "The task database is gone, or empty: put its file back, or a backup of it. To begin with an empty one, remove the "
    "file beside it that has its name and ends in .id."
)

Inode = tuple[int, int]


@dataclass(frozen=True, slots=True)
class FileSnapshot:
    """What ``stat`` says of a database.

    Attributes:
        file: device and inode of its file.
        size_bytes: of its file.
        journals: device and inode of the write-ahead log and of its index, where they exist.
    """

    file: Inode
    size_bytes: int
    journals: tuple[Inode | None, Inode | None]

    def follows(self, before: FileSnapshot) -> bool:
        """Return whether this is what is left of the same database when nobody but SQLite touches it."""
        kept = all(old is None or old == new for old, new in zip(before.journals, self.journals, strict=True))
        return self.file == before.file and self.size_bytes >= before.size_bytes and kept


class DatabaseFile:
    """The file of an SQLite database."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._paths = str(path), f"{path}-wal", f"{path}-shm"

    def snapshot(self) -> FileSnapshot | None:
        """Return what is there now; ``None`` where there is no file."""
        try:
            file_status = os.stat(self._paths[0])  # noqa: PTH116 - a thousand times a second
        except OSError:
            return None
        return FileSnapshot(
            (file_status.st_dev, file_status.st_ino),
            file_status.st_size,
            (_inode(self._paths[1]), _inode(self._paths[2])),
        )


class IdentityFile:
    """The identity of a store, kept beside its database: by it a database that is gone is told from a new one."""

    def __init__(self, database: Path) -> None:
        self._database = database
        self._path = database.with_name(f"{database.name}.id")

    def read(self) -> str | None:
        """Return the identity of the store that is to be found here; ``None`` for a new one."""
        try:
            return self._path.read_text().strip() or None
        except (FileNotFoundError, NotADirectoryError):
            return None

    def write(self, identity: str) -> None:
        """Keep the identity of a new store."""
        self._path.touch(mode=0o600)
        self._path.write_text(f"{identity}\n")

    def refuse_absence(self) -> None:
        """Raise ``DatabaseUnavailable`` where there was a database and is none: opening it would make an empty one."""
        if self.read() is not None and not self._database.exists():
            raise DatabaseUnavailable(DATABASE_LOST)


def identity_of(connection: Connection) -> str | None:
    """Return the identity of the store in a database; ``None`` before its migrations have made one."""
    if not inspect(connection).has_table("store_identity"):
        return None
    return connection.execute(text("SELECT identity FROM store_identity")).scalar()


def verify_integrity(connection: Connection, expected: str | None) -> None:
    """Raise ``DatabaseUnavailable`` unless a database that was opened again is whole, and of the store expected."""
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
