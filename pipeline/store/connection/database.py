"""Connections to SQLite or MySQL: how they are opened, how transactions begin, and what their failures are called."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import URL, Connection, DateTime, Dialect, NullPool, event, make_url, text
from sqlalchemy.dialects import mysql
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    DisconnectionError,
    IntegrityError,
    NotSupportedError,
    PendingRollbackError,
    ProgrammingError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.types import TypeDecorator, TypeEngine

from pipeline.domain.durability import Durability
from pipeline.errors import CommitUnanswered, ConfigurationError, DatabaseUnavailable
from pipeline.store.connection.sqlite_file import (
    DATABASE_DAMAGED,
    DATABASE_LOST,
    FILE_REMOVED,
    OTHER_DATABASE,
    DatabaseFile,
    FileSnapshot,
    IdentityFile,
    identity_of,
    verify_integrity,
)

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

MYSQL_DIALECTS = ("mysql", "mariadb")
SQLITE_READERS = 4
"""Connections of one process that read at the same time; WAL lets them read beside the one that writes."""
MYSQL_CONNECTIONS = 10
POOL_RECYCLE_S = 1800
"""Connections are renewed long before the server's ``wait_timeout`` (8 h by default) or a firewall drops them."""
READ_TIMEOUT_MARGIN_S = 15.0
"""On top of the time a lock may take: a MySQL server that says nothing for so long is gone."""
TRANSACTION_ATTEMPTS = 3
RETRIED_CODES = frozenset({1020, 1205, 1213})
"""MySQL: row changed since it was read, lock wait timeout, deadlock. The server asks for the transaction again."""
LOGIN_CODES = frozenset({1044, 1045, 1049, 1698})
"""MySQL: no access to the database, wrong user or password, unknown database, no access without a password."""

FULL_CODES = frozenset({1021, 1114})
"""MySQL: disk full, table full."""

UNPREPARED_CODES = frozenset({1054, 1146})
"""MySQL: unknown column, unknown table. An Ingress may be up before the Dispatcher has migrated."""

DURABLE = "murmuration_durable"
"""Execution option of a connection: whether its transactions' commits wait for the disk."""

UNAVAILABLE = "The task database does not answer."
DATABASE_BUSY = "The task database is busy: another process held its lock for too long."
DATABASE_UNWRITABLE = (
    "The task database can't be opened or written: look at its folder, its permissions and the free space."
)
UNWRITABLE_WORDS = ("unable to open", "readonly", "disk is full", "disk I/O", "No space left", "Errcode: 28")
COMMIT_UNANSWERED = (
    "The task database went away while it stored this, so that nobody knows whether it did: ask again. With the same "
    "Idempotency-Key nothing is done twice."
)
SCHEMA_MISSING = (
    "The task database is not prepared: its tables are missing, or of another version. They are made when the "
    "Dispatcher starts."
)
CONNECTION_GONE = (
    "The file of the task database was removed or replaced while this was stored, so that it may be lost: ask again. "
    "With the same Idempotency-Key nothing is done twice."
)
LOGIN_REFUSED = "The task database refuses the login or does not exist: look at the user, password and name in its URL."


class UtcDateTime(TypeDecorator[datetime]):
    """An aware time, kept as UTC to the microsecond; a naive one is refused."""

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """``DATETIME(6)`` on MySQL, whose plain ``DATETIME`` drops fractions of a second."""
        in_mysql = dialect.name in MYSQL_DIALECTS
        return dialect.type_descriptor(mysql.DATETIME(fsp=6) if in_mysql else DateTime())

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """To UTC, without the offset that no column would keep."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("A time without an offset can't be stored: which time zone would it be?")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Back to an aware time."""
        return value if value is None else value.replace(tzinfo=UTC)

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:
        """What is no time comes as it is stored: it must not keep the other rows from being read."""
        parse = self.impl_instance.result_processor(dialect, coltype)

        def read(value: Any) -> Any:
            try:
                moment = parse(value) if parse else value
            except (ValueError, TypeError):
                return value
            is_time = isinstance(moment, datetime) and moment.tzinfo is None
            return self.process_result_value(moment, dialect) if is_time else value

        return read


def parse_url(url: str) -> URL:
    """The URL of a database this store can use, or ``ConfigurationError``."""
    try:
        parsed = make_url(url)
    except ArgumentError:  # its text may hold the password
        raise ConfigurationError("The database URL can't be read.") from None
    if parsed.drivername in {f"{name}+asyncmy" for name in MYSQL_DIALECTS}:
        return parsed
    if parsed.drivername != "sqlite+aiosqlite":
        raise ConfigurationError("The database URL must begin with sqlite+aiosqlite:// or mysql+asyncmy://.")
    if not parsed.database or not Path(parsed.database).is_absolute():
        raise ConfigurationError("The SQLite database must be a file, given by its absolute path.")
    return parsed


def single_connection_engine(url: URL, busy_timeout_s: float) -> AsyncEngine:
    """An engine for the migrations, which may take their time."""
    if url.drivername in {f"{name}+asyncmy" for name in MYSQL_DIALECTS}:
        return create_async_engine(url, poolclass=NullPool, hide_parameters=True)
    return _sqlite_engine(url, busy_timeout_s, "BEGIN IMMEDIATE", poolclass=NullPool)


class Database:
    """Runs functions over a connection, each in a transaction of its own.

    A call that is cancelled returns at once, but its transaction goes on and may be committed.

    Args:
        url: from ``parse_url``.
        busy_timeout_s: how long a statement waits for a lock.
        durability: whether a commit waits for the disk.
        recomputable: functions whose commits never wait for the disk, because what they store is made again after a
            power cut. A later commit that waits makes them durable too.
    """

    def __init__(
        self,
        url: URL,
        busy_timeout_s: float,
        durability: Durability = Durability.FULL,
        recomputable: Collection[Callable[..., Awaitable[Any]]] = (),
    ) -> None:
        self._running: set[asyncio.Task[Any]] = set()
        self._durability = durability
        self._recomputable = frozenset(recomputable)
        self._commits_elsewhere = url.get_backend_name() in MYSQL_DIALECTS
        self._file = None if self._commits_elsewhere else DatabaseFile(Path(str(url.database)))
        self._trusted: FileSnapshot | None = None
        self._identity: str | None = None
        self._doubted = False
        self._verifying = asyncio.Lock()
        if self._commits_elsewhere:
            self._writer = self._reader = _mysql_engine(url, busy_timeout_s)
            return
        # SQLite has one writer at a time. Those of one process queue here, in order, instead of polling for the lock;
        # each takes it at the start, because a transaction that reads first can't wait for it later (SQLITE_BUSY).
        limits = {"max_overflow": 0, "pool_timeout": 2 * busy_timeout_s}
        self._writer = _sqlite_engine(url, busy_timeout_s, "BEGIN IMMEDIATE", pool_size=1, **limits)
        self._reader = _sqlite_engine(url, busy_timeout_s, "BEGIN", pool_size=SQLITE_READERS, **limits)

    async def read(
        self, work: Callable[Concatenate[AsyncConnection, P], Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Runs ``work(connection, …)`` without changing anything. Raises ``DatabaseUnavailable``."""
        return await self._run_to_end(self._read(work, *args, **kwargs))

    async def write(
        self, work: Callable[Concatenate[AsyncConnection, P], Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Runs ``work(connection, …)`` and commits; runs it again where the database asks for that.

        With ``Durability.FULL`` it returns once the disk has the commit, unless ``work`` is recomputable.

        Raises ``DatabaseUnavailable``; ``CommitUnanswered`` where a connection broke in mid-commit.
        """
        return await self._run_to_end(self._write(work, *args, **kwargs))

    async def warn_of_lossy_server(self) -> None:
        """Log a warning where a MySQL server may lose commits in a power cut although durability is full.

        The settings belong to the whole server, so that a session can't change them
        (https://mariadb.com/docs/server/server-usage/storage-engines/innodb/innodb-system-variables).
        """
        if self._commits_elsewhere and self._durability is Durability.FULL:
            for sentence in await self.read(_lossy_settings):
                logger.warning("%s", sentence)

    async def close(self) -> None:
        """Lets go of every connection, once what still runs has ended."""
        await asyncio.gather(*self._running, return_exceptions=True)
        await self._dispose_connections()

    async def _run_to_end(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs a transaction to its end even where its caller is cancelled.

        One that is torn off keeps SQLite's lock from every process for as long as a cursor of it is not collected: a
        connection that is closed under an open statement lives on (https://www.sqlite.org/c3ref/close.html).
        """
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_log_unobserved_failure)
            raise

    async def _read(
        self, work: Callable[Concatenate[AsyncConnection, P], Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        with translate_database_errors():
            await self._verify_file()
            async with self._reader.connect() as connection:
                return await work(connection, *args, **kwargs)

    async def _write(
        self, work: Callable[Concatenate[AsyncConnection, P], Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        with translate_database_errors():
            await self._verify_file()
            for attempt in range(1, TRANSACTION_ATTEMPTS):
                try:
                    return await self._transaction(work, *args, **kwargs)
                except DBAPIError as error:
                    if _code(error) not in RETRIED_CODES:
                        raise
                    await asyncio.sleep(random.random() * 0.02 * attempt)  # noqa: S311  # jitter is no secret
            return await self._transaction(work, *args, **kwargs)

    async def _transaction(
        self, work: Callable[Concatenate[AsyncConnection, P], Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        async with self._writer.connect() as connection:
            durable = self._durability is Durability.FULL and work not in self._recomputable
            await connection.execution_options(**{DURABLE: durable})
            return await self._committed(connection, work, *args, **kwargs)

    async def _committed(
        self,
        connection: AsyncConnection,
        work: Callable[Concatenate[AsyncConnection, P], Awaitable[T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        async with connection.begin() as transaction:
            result = await work(connection, *args, **kwargs)
            try:
                await transaction.commit()
            except (DBAPIError, OSError) as error:
                if self._commits_elsewhere and not (isinstance(error, DBAPIError) and _code(error) in RETRIED_CODES):
                    raise CommitUnanswered(COMMIT_UNANSWERED) from error
                raise
            if self._file is not None and not self._is_trusted(self._file.snapshot()):
                raise CommitUnanswered(CONNECTION_GONE)
            return result

    # the file of SQLite

    async def _verify_file(self) -> None:
        """Opens the database anew where its file is another than before.

        Raises:
            DatabaseUnavailable: there is none, or it is damaged, or another store's.
        """
        if self._file is None or (self._identity and self._is_trusted(self._file.snapshot())):
            return
        async with self._verifying:
            if self._identity and self._is_trusted(self._file.snapshot()):
                return
            try:
                await (self._verify_identity(self._file) if self._identity else self._record_identity(self._file))
            except BaseException:  # what was opened belongs to a file that may be another one next time
                await self._dispose_connections()
                raise

    async def _record_identity(self, file: DatabaseFile) -> None:
        """Notes which database this is, once its migrations have said so."""
        kept = IdentityFile(file.path)
        kept.refuse_absence()
        async with self._reader.connect() as connection:
            identity = await connection.run_sync(identity_of)
        expected = kept.read()
        if expected is not None and identity != expected:
            raise DatabaseUnavailable(OTHER_DATABASE if identity else DATABASE_LOST)
        self._identity, self._trusted = identity, file.snapshot()

    async def _verify_identity(self, file: DatabaseFile) -> None:
        """Takes the file for the database that it was, if it is; connections to an earlier one are given up."""
        if not self._doubted:
            logger.error("the file of the task database, or its log, was removed or replaced: it is opened anew")
        self._doubted = True
        if file.snapshot() is None:
            raise DatabaseUnavailable(FILE_REMOVED)
        await self._dispose_connections()
        async with self._reader.connect() as connection:
            await connection.run_sync(verify_integrity, self._identity)
        logger.warning("the task database is there again")
        self._trusted, self._doubted = file.snapshot(), False

    async def _dispose_connections(self) -> None:
        await self._writer.dispose()
        await self._reader.dispose()

    def _is_trusted(self, sight: FileSnapshot | None) -> bool:
        if self._doubted or sight is None or self._trusted is None or not sight.follows(self._trusted):
            return False
        self._trusted = sight
        return True


@contextmanager
def translate_database_errors() -> Iterator[None]:
    """Turns the failures of a database that is away into ``DatabaseUnavailable``; defects of ours pass as they are."""
    try:
        yield
    except (IntegrityError, DataError, NotSupportedError):
        raise
    except DBAPIError as error:
        sentence = _sentence(error)
        if isinstance(error, ProgrammingError) and sentence == UNAVAILABLE and "closed" not in str(error.orig):
            raise
        raise DatabaseUnavailable(sentence) from error
    except PoolTimeoutError as error:
        raise DatabaseUnavailable(DATABASE_BUSY) from error
    except (DisconnectionError, PendingRollbackError, OSError) as error:  # refused, reset, timed out, broken off
        raise DatabaseUnavailable(UNAVAILABLE) from error


def _sentence(error: DBAPIError) -> str:
    if _code(error) in LOGIN_CODES:
        return LOGIN_REFUSED
    text = str(error.orig)
    if "malformed" in text or "not a database" in text:
        return DATABASE_DAMAGED
    if "no such table" in text or "no such column" in text or _code(error) in UNPREPARED_CODES:
        return SCHEMA_MISSING
    if "locked" in text or _code(error) in RETRIED_CODES:
        return DATABASE_BUSY
    if _code(error) in FULL_CODES or any(words in text for words in UNWRITABLE_WORDS):
        return DATABASE_UNWRITABLE
    return UNAVAILABLE


def _code(error: DBAPIError) -> int | None:
    """The server's error number, on MySQL."""
    args = error.orig.args if error.orig else ()
    return args[0] if args and isinstance(args[0], int) else None


def _mysql_engine(url: URL, busy_timeout_s: float) -> AsyncEngine:
    return create_async_engine(
        url,
        # Each statement sees what is committed: a claim must see the rows others released, and locks no gaps.
        isolation_level="READ COMMITTED",
        hide_parameters=True,
        pool_size=MYSQL_CONNECTIONS,
        max_overflow=MYSQL_CONNECTIONS,
        pool_timeout=2 * busy_timeout_s,
        pool_pre_ping=True,
        pool_recycle=POOL_RECYCLE_S,
        connect_args={
            "connect_timeout": busy_timeout_s,
            "read_timeout": busy_timeout_s + READ_TIMEOUT_MARGIN_S,
            "init_command": f"SET SESSION innodb_lock_wait_timeout = {max(1, round(busy_timeout_s))}",
        },
    )


def _sqlite_engine(url: URL, busy_timeout_s: float, begin: str, **pool: Any) -> AsyncEngine:
    # The driver begins no transactions of its own (isolation_level None): the event below does, for reads too.
    engine = create_async_engine(
        url, hide_parameters=True, connect_args={"timeout": busy_timeout_s, "isolation_level": None}, **pool
    )

    def prepare(connection: Any, _record: object) -> None:
        try:
            connection.driver_connection.text_factory = _text
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


def _text(stored: bytes) -> str | bytes:
    """A text of SQLite; what is no UTF-8 comes as bytes, where the driver would fail the whole statement."""
    try:
        return stored.decode()
    except UnicodeDecodeError:
        return stored


def _set_pragmas(connection: Any) -> None:
    """Set up a fresh SQLite connection. WAL: readers and the writer don't wait for each other."""
    cursor = connection.cursor()
    try:
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            cursor.execute(f"PRAGMA {pragma}")
    finally:
        cursor.close()


def _set_synchronous(connection: Connection) -> None:
    """Say whether the commit of the coming transaction waits for the disk; SQLite refuses that once it has begun.

    With FULL every commit syncs the WAL, and so all commits before it; the first sync of a new WAL also syncs its
    folder. With NORMAL a crash of the process loses nothing, one of the machine the commits since the last sync. EXTRA
    adds nothing in WAL mode (https://www.sqlite.org/pragma.html#pragma_synchronous).
    """
    level = "FULL" if connection.get_execution_options().get(DURABLE, True) else "NORMAL"
    if connection.info.get(DURABLE, "FULL") != level:
        connection.exec_driver_sql(f"PRAGMA synchronous = {level}")
        connection.info[DURABLE] = level


async def _lossy_settings(connection: AsyncConnection) -> list[str]:
    """Sentences about a server's settings with which it may lose commits in a power cut."""
    row = (await connection.execute(text("SELECT @@innodb_flush_log_at_trx_commit, @@log_bin, @@sync_binlog"))).one()
    flush, logs, sync = row
    sentences = []
    if flush != 1:
        sentences.append(_lossy_setting("innodb_flush_log_at_trx_commit", flush))
    if logs and sync != 1:
        sentences.append(_lossy_setting("sync_binlog", sync))
    return sentences


def _lossy_setting(name: str, value: int) -> str:
    return (
        f"The database server runs with {name}={value}: a power cut may lose tasks that were accepted. Set it to 1, or "
        "set database.durability to normal if that is meant."
    )


def _log_unobserved_failure(task: asyncio.Task[Any]) -> None:
    """Log how a transaction failed whose caller no longer waits for it; asyncio would report a defect."""
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.info("a transaction failed after its caller was cancelled: %s: %s", type(error).__name__, error)
