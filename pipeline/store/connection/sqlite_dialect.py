"""SQLite: a database in a file, with one writer at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

from filelock import AsyncFileLock, Timeout
from sqlalchemy import URL, Connection, DateTime, Integer, NullPool, Select, Table, Text, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from typing_extensions import override

from pipeline.durable_files import make_folders
from pipeline.errors import ConfigurationError, DatabaseUnavailable
from pipeline.store.connection.database_dialect import DURABLE, ColumnTypes, DatabaseDialect, EnginePair
from pipeline.store.connection.failures import DATABASE_BUSY, DATABASE_UNWRITABLE, SCHEMA_MISSING
from pipeline.store.connection.sqlite_file import DATABASE_DAMAGED

READER_CONNECTIONS = 4
"""Connections of one process that read at the same time; WAL lets them read beside the one that writes."""

WORDS_OF_FAILURES: Mapping[str, tuple[str, ...]] = {
    DATABASE_DAMAGED: ("malformed", "not a database"),
    SCHEMA_MISSING: ("no such table", "no such column"),
    DATABASE_BUSY: ("locked",),
    DATABASE_UNWRITABLE: ("unable to open", "readonly", "disk is full", "disk I/O"),
}
"""Sentences about failures, each with the words by which SQLite's messages are recognized."""


class SqliteDialect(DatabaseDialect):
    """The dialect of SQLite. Several processes may use one file, on a local file system."""

    drivers = ("sqlite+aiosqlite",)
    server = None
    column_types = ColumnTypes(
        time=DateTime(),
        long_text=Text(),
        indexed_text=Text(),
        row_id=Integer(),  # it counts up only in a column called INTEGER, which has 64 bits here
    )
    table_options: ClassVar[Mapping[str, str]] = {}
    unreused_id_options: ClassVar[Mapping[str, bool]] = {"sqlite_autoincrement": True}
    loose_index_scans = False

    @override
    def verify_url(self, url: URL) -> None:
        if not url.database or not Path(url.database).is_absolute():
            raise ConfigurationError("The SQLite database must be a file, given by its absolute path.")

    @override
    def file_of(self, url: URL) -> Path:
        return Path(str(url.database))

    @override
    def open_engines(self, url: URL, busy_timeout_s: float) -> EnginePair:
        """Open one connection for writing and several for reading.

        SQLite has one writer at a time. The writers of one process queue for the connection, in order, instead of
        polling for the lock. Each takes the lock when it begins, because a transaction that reads first can't wait for
        the lock later (``SQLITE_BUSY``).
        """
        limits = {"max_overflow": 0, "pool_timeout": 2 * busy_timeout_s}
        return EnginePair(
            writer=_open_engine(url, busy_timeout_s, "BEGIN IMMEDIATE", pool_size=1, **limits),
            reader=_open_engine(url, busy_timeout_s, "BEGIN", pool_size=READER_CONNECTIONS, **limits),
        )

    @override
    def open_migration_engine(self, url: URL, busy_timeout_s: float) -> AsyncEngine:
        return _open_engine(url, busy_timeout_s, "BEGIN IMMEDIATE", poolclass=NullPool)

    @override
    @asynccontextmanager
    async def migration_lock(self, engine: AsyncEngine, timeout_s: float) -> AsyncIterator[None]:
        """Hold a lock file beside the database, whose folder is created if it is missing."""
        database = self.file_of(engine.url)
        try:
            make_folders(database.parent)
            lock = AsyncFileLock(database.with_name(f"{database.name}.migrating"), timeout=timeout_s)
            await lock.acquire()
        except Timeout as error:
            raise DatabaseUnavailable(DATABASE_BUSY) from error
        except OSError as error:
            raise DatabaseUnavailable(DATABASE_UNWRITABLE) from error
        try:
            yield
        finally:
            await lock.release()

    @override
    def must_repeat(self, error: DBAPIError) -> bool:
        return False

    @override
    def sentence_of(self, error: DBAPIError) -> str | None:
        message = str(error.orig)
        matches = (each for each, words in WORDS_OF_FAILURES.items() if any(word in message for word in words))
        return next(matches, None)

    @override
    def locking_upsert(self, table: Table, values: Mapping[str, Any]) -> None:
        return None

    @override
    def force_index(self, statement: Select[Any], table: Table, index: str) -> Select[Any]:
        return statement


SQLITE = SqliteDialect()


def _open_engine(url: URL, busy_timeout_s: float, begin: str, **pool: Any) -> AsyncEngine:
    # The driver begins no transactions of its own (isolation_level None): the event below does, for reads too.
    engine = create_async_engine(
        url, hide_parameters=True, connect_args={"timeout": busy_timeout_s, "isolation_level": None}, **pool
    )

    def prepare(connection: Any, _record: object) -> None:
        try:
            connection.driver_connection.text_factory = _decode_text
            _set_pragmas(connection)
        except BaseException:
            connection.close()  # the pool forgets a connection that was never ready
            raise

    def start(connection: Connection) -> None:
        _set_synchronous(connection)
        connection.exec_driver_sql(begin)

    event.listen(engine.sync_engine, "connect", prepare)
    event.listen(engine.sync_engine, "begin", start)
    return engine


def _decode_text(stored: bytes) -> str | bytes:
    """Return a stored text; return bytes that are not UTF-8 as they are, where the driver would fail the statement."""
    try:
        return stored.decode()
    except UnicodeDecodeError:
        return stored


def _set_pragmas(connection: Any) -> None:
    """Set up a new connection. With WAL, readers and the writer don't wait for each other."""
    cursor = connection.cursor()
    try:
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            cursor.execute(f"PRAGMA {pragma}")
    finally:
        cursor.close()


def _set_synchronous(connection: Connection) -> None:
    """Set whether the commit of the next transaction waits for the disk; SQLite refuses that once it has begun.

    With FULL every commit syncs the WAL, and so all commits before it; the first sync of a new WAL also syncs its
    folder. With NORMAL a crash of the process loses nothing; a crash of the machine loses the commits since the last
    sync. EXTRA adds nothing in WAL mode (https://www.sqlite.org/pragma.html#pragma_synchronous).
    """
    level = "FULL" if connection.get_execution_options().get(DURABLE, True) else "NORMAL"
    if connection.info.get(DURABLE, "FULL") != level:
        connection.exec_driver_sql(f"PRAGMA synchronous = {level}")
        connection.info[DURABLE] = level
