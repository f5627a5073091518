"""SQLite: a database in a file, with one writer at a time."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar, TypeVar
from weakref import WeakSet

from filelock import AsyncFileLock, Timeout
from sqlalchemy import (
    URL,
    Connection,
    DateTime,
    Engine,
    Integer,
    QueuePool,
    Select,
    Table,
    Text,
    create_engine,
    event,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from typing_extensions import override

from pipeline.durable_files import make_folders
from pipeline.errors import ConfigurationError, DatabaseUnavailable
from pipeline.store.connection.database_dialect import DURABLE, ColumnTypes, Connections, DatabaseDialect
from pipeline.store.connection.failures import DATABASE_BUSY, DATABASE_UNWRITABLE, SCHEMA_MISSING
from pipeline.store.connection.sqlite_file import DATABASE_DAMAGED

T = TypeVar("T")

DRIVER = "sqlite+pysqlite"
"""The driver of every connection, whichever the URL names. Earlier versions used aiosqlite."""
READER_CONNECTIONS = 4
"""Connections of one process that read at the same time; WAL lets them read beside the one that writes."""

WORDS_OF_FAILURES: Mapping[str, tuple[str, ...]] = {
    DATABASE_DAMAGED: ("malformed", "not a database"),
    SCHEMA_MISSING: ("no such table", "no such column"),
    DATABASE_BUSY: ("locked",),
    DATABASE_UNWRITABLE: ("unable to open", "readonly", "disk is full", "disk I/O"),
}
"""Sentences about failures, each with the words by which SQLite's messages are recognized."""


class DriverConnection(sqlite3.Connection):
    """A connection whose rollback closes every open cursor, and so ends what the transaction has read.

    An open cursor keeps the connection at the state of the database that it began with, and an exception may keep the
    cursor alive for as long as somebody looks at it (https://www.sqlite.org/isolation.html).
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._cursors: WeakSet[sqlite3.Cursor] = WeakSet()

    def cursor(self, _factory: None = None) -> sqlite3.Cursor:  # type: ignore[override]  # SQLAlchemy names none
        """Return a new cursor, which the next rollback closes."""
        cursor = super().cursor()
        self._cursors.add(cursor)
        return cursor

    @override
    def rollback(self) -> None:
        for cursor in list(self._cursors):
            cursor.close()
        super().rollback()


class SqliteConnections(Connections):
    """One connection for writing and several for reading, each used by one thread at a time.

    SQLite has one writer at a time. The writers of one process queue for its thread, in order, instead of polling for
    the lock. Each takes the lock when it begins, because a transaction that reads first can't wait for the lock later
    (``SQLITE_BUSY``). A function runs in its thread from its beginning to its end: a thread for each statement, as
    aiosqlite has it, costs several times what the statements cost.

    Args:
        url: of a file.
        busy_timeout_s: how long a statement waits for a lock that another process holds.
    """

    def __init__(self, url: URL, busy_timeout_s: float) -> None:
        queue_timeout_s = 2 * busy_timeout_s
        self._writer = _Workers(_open_engine(url, busy_timeout_s, "BEGIN IMMEDIATE", 1), 1, queue_timeout_s)
        self._readers = _Workers(
            _open_engine(url, busy_timeout_s, "BEGIN", READER_CONNECTIONS), READER_CONNECTIONS, queue_timeout_s
        )

    @override
    async def run_read(self, function: Callable[[Connection], T]) -> T:
        return await self._readers.run(function)

    @override
    async def run_write(self, function: Callable[[Connection], T]) -> T:
        return await self._writer.run(function)

    @override
    async def renew(self) -> None:
        for workers in (self._writer, self._readers):
            await workers.renew()

    @override
    async def close(self) -> None:
        for workers in (self._writer, self._readers):
            await workers.close()


class _Workers:
    """Threads that run functions over the connections of an engine, one connection for each thread."""

    def __init__(self, engine: Engine, threads: int, queue_timeout_s: float) -> None:
        self._engine = engine
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="sqlite")
        self._queue_timeout_s = queue_timeout_s

    async def run(self, function: Callable[[Connection], T]) -> T:
        """Run a function in a thread. Raises ``PoolTimeoutError`` if none becomes free in time."""
        job = self._threads.submit(self._run, function)
        result = asyncio.wrap_future(job)
        done, _ = await asyncio.wait([result], timeout=self._queue_timeout_s)
        if not done and job.cancel():  # it can't be cancelled once a thread has begun it
            raise PoolTimeoutError("no thread became free")
        return await result

    async def renew(self) -> None:
        """Close the idle connections."""
        await asyncio.to_thread(self._engine.dispose)

    async def close(self) -> None:
        """Close the connections and end the threads."""
        await self.renew()
        self._threads.shutdown(wait=False)

    def _run(self, function: Callable[[Connection], T]) -> T:
        with self._engine.connect() as connection:
            return function(connection)


class SqliteDialect(DatabaseDialect):
    """The dialect of SQLite. Several processes may use one file, on a local file system."""

    drivers = ("sqlite+aiosqlite", "sqlite", DRIVER)
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
    def open_connections(self, url: URL, busy_timeout_s: float) -> SqliteConnections:
        return SqliteConnections(url, busy_timeout_s)

    @override
    async def run_migration(self, url: URL, busy_timeout_s: float, migration: Callable[[Connection], None]) -> None:
        await asyncio.to_thread(_migrate, url, busy_timeout_s, migration)

    @override
    @asynccontextmanager
    async def migration_lock(self, url: URL, timeout_s: float) -> AsyncIterator[None]:
        """Hold a lock file beside the database, whose folder is created if it is missing."""
        database = self.file_of(url)
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


def _migrate(url: URL, busy_timeout_s: float, migration: Callable[[Connection], None]) -> None:
    """Run a migration over a connection of its own."""
    engine = _open_engine(url, busy_timeout_s, "BEGIN IMMEDIATE", 1)
    try:
        with engine.begin() as connection:
            migration(connection)
    finally:
        engine.dispose()


def _open_engine(url: URL, busy_timeout_s: float, begin: str, connections: int) -> Engine:
    # The driver begins no transactions of its own (isolation_level None): the event below does, for reads too.
    engine = create_engine(
        url.set(drivername=DRIVER),
        hide_parameters=True,
        poolclass=QueuePool,
        pool_size=connections,
        max_overflow=0,
        pool_timeout=busy_timeout_s,
        # A connection goes from one thread to another, but only one at a time uses it.
        connect_args={
            "timeout": busy_timeout_s,
            "isolation_level": None,
            "check_same_thread": False,
            "factory": DriverConnection,
        },
    )

    def prepare(connection: Any, _record: object) -> None:
        try:
            connection.text_factory = _decode_text
            _set_pragmas(connection)
        except BaseException:
            connection.close()  # the pool forgets a connection that was never ready
            raise

    def start(connection: Connection) -> None:
        _set_synchronous(connection)
        connection.exec_driver_sql(begin)

    event.listen(engine, "connect", prepare)
    event.listen(engine, "begin", start)
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
