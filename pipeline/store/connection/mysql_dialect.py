"""MySQL and MariaDB: a database on a server, which any number of nodes may use."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, ClassVar, TypeVar

from sqlalchemy import URL, BigInteger, Connection, Insert, NullPool, Select, String, Table, text
from sqlalchemy.dialects import mysql
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from typing_extensions import override

from pipeline.errors import DatabaseUnavailable
from pipeline.store.connection.database_dialect import ColumnTypes, Connections, DatabaseDialect, DatabaseServer
from pipeline.store.connection.failures import DATABASE_BUSY, DATABASE_UNWRITABLE, LOGIN_REFUSED, SCHEMA_MISSING

T = TypeVar("T")

NAMES = ("mysql", "mariadb")
"""SQLAlchemy's names of the dialect, which are those of the URLs."""
POOL_CONNECTIONS = 10
POOL_RECYCLE_S = 1800
"""Connections are renewed long before the server's ``wait_timeout`` (8 h by default) or a firewall drops them."""
CONNECT_TIMEOUT_S = 10
"""Timeout for a connection outside the pool."""
READ_TIMEOUT_MARGIN_S = 15.0
"""Added to the time that a lock may take: a server that sends nothing for so long is taken for dead."""
MAX_LOCK_NAME_CHARS = 64

REPEAT_CODES = frozenset({1020, 1205, 1213})
"""Row changed since it was read, lock wait timeout, deadlock: the server wants the transaction to be run again."""
SENTENCES: Mapping[int, str] = {
    **dict.fromkeys(REPEAT_CODES, DATABASE_BUSY),
    1044: LOGIN_REFUSED,  # no access to the database
    1045: LOGIN_REFUSED,  # wrong user or password
    1049: LOGIN_REFUSED,  # unknown database
    1698: LOGIN_REFUSED,  # no access without a password
    1021: DATABASE_UNWRITABLE,  # disk full
    1114: DATABASE_UNWRITABLE,  # table full
    1054: SCHEMA_MISSING,  # unknown column: an Ingress may be up before the Dispatcher has migrated
    1146: SCHEMA_MISSING,  # unknown table
}
"""Sentences about failures, by the server's error number."""
FULL_DISK_WORDS = ("No space left", "Errcode: 28")
"""Words of messages about a full disk, which come with several error numbers."""


class MysqlServer(DatabaseServer):
    """A MySQL or MariaDB server."""

    @override
    def open_unpooled(self, url: URL) -> AsyncEngine:
        return create_async_engine(
            url, poolclass=NullPool, hide_parameters=True, connect_args={"connect_timeout": CONNECT_TIMEOUT_S}
        )

    @override
    def read_time(self, connection: Connection) -> datetime:
        now: datetime = connection.execute(text("SELECT UTC_TIMESTAMP(6)")).scalar_one()
        return now.replace(tzinfo=UTC)

    @override
    def lossy_settings(self, connection: Connection) -> list[str]:
        settings = text("SELECT @@innodb_flush_log_at_trx_commit, @@log_bin, @@sync_binlog")
        flush, has_log, sync = connection.execute(settings).one()
        sentences = []
        if flush != 1:
            sentences.append(_lossy_setting("innodb_flush_log_at_trx_commit", flush))
        if has_log and sync != 1:
            sentences.append(_lossy_setting("sync_binlog", sync))
        return sentences

    @override
    def take_lock(self, connection: Connection, name: str, timeout_s: float) -> bool:
        statement = text("SELECT GET_LOCK(:name, :timeout_s)")
        values = {"name": name[:MAX_LOCK_NAME_CHARS], "timeout_s": timeout_s}
        return bool(connection.execute(statement, values).scalar_one() == 1)

    @override
    def release_lock(self, connection: Connection, name: str) -> None:
        connection.execute(text("SELECT RELEASE_LOCK(:name)"), {"name": name[:MAX_LOCK_NAME_CHARS]})

    @override
    def is_locked(self, connection: Connection, name: str) -> bool:
        statement = text("SELECT IS_USED_LOCK(:name)")
        holder = connection.scalar(statement, {"name": name[:MAX_LOCK_NAME_CHARS]})
        return holder is not None


class MysqlConnections(Connections):
    """A pool of connections whose functions run on the event loop and let it go on while the server works."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @override
    async def run_read(self, function: Callable[[Connection], T]) -> T:
        async with self._engine.connect() as connection:
            return await connection.run_sync(function)

    @override
    async def run_write(self, function: Callable[[Connection], T]) -> T:
        return await self.run_read(function)

    @override
    async def renew(self) -> None:
        await self._engine.dispose()

    @override
    async def close(self) -> None:
        await self._engine.dispose()


class MysqlDialect(DatabaseDialect):
    """The dialect of MySQL and MariaDB."""

    drivers = tuple(f"{name}+asyncmy" for name in NAMES)
    server = MysqlServer()
    column_types = ColumnTypes(
        time=mysql.DATETIME(fsp=6),  # a plain DATETIME drops fractions of a second
        long_text=mysql.LONGTEXT(),  # TEXT ends at 64 KiB, less than a transcript
        indexed_text=String(255),  # there is no index over all of a TEXT
        row_id=BigInteger(),
    )
    # Binary collation: text then compares as in SQLite and Python, letter case and accents included.
    table_options: ClassVar[Mapping[str, str]] = {
        f"{name}_{option}": value
        for name in NAMES
        for option, value in (("engine", "InnoDB"), ("charset", "utf8mb4"), ("collate", "utf8mb4_bin"))
    }
    unreused_id_options: ClassVar[Mapping[str, bool]] = {}
    loose_index_scans = True

    @override
    def verify_url(self, url: URL) -> None:
        return

    @override
    def file_of(self, url: URL) -> None:
        return None

    @override
    def open_connections(self, url: URL, busy_timeout_s: float) -> MysqlConnections:
        engine = create_async_engine(
            url,
            # Each statement sees what is committed: a claim must see the rows others released, and locks no gaps.
            isolation_level="READ COMMITTED",
            hide_parameters=True,
            pool_size=POOL_CONNECTIONS,
            max_overflow=POOL_CONNECTIONS,
            pool_timeout=2 * busy_timeout_s,
            pool_pre_ping=True,
            pool_recycle=POOL_RECYCLE_S,
            connect_args={
                "connect_timeout": busy_timeout_s,
                "read_timeout": busy_timeout_s + READ_TIMEOUT_MARGIN_S,
                "init_command": f"SET SESSION innodb_lock_wait_timeout = {max(1, round(busy_timeout_s))}",
            },
        )
        return MysqlConnections(engine)

    @override
    async def run_migration(self, url: URL, busy_timeout_s: float, migration: Callable[[Connection], None]) -> None:
        async with _unpooled(self.server, url) as engine, engine.begin() as connection:
            await connection.run_sync(migration)

    @override
    @asynccontextmanager
    async def migration_lock(self, url: URL, timeout_s: float) -> AsyncIterator[None]:
        """Hold a named lock of the server, one for each database on it."""
        name = f"murmuration.{hashlib.sha256(str(url.database).encode()).hexdigest()[:32]}"
        async with _unpooled(self.server, url) as engine, engine.connect() as connection:
            if not await connection.run_sync(self.server.take_lock, name, timeout_s):
                raise DatabaseUnavailable(DATABASE_BUSY)
            try:
                yield
            finally:
                await connection.run_sync(self.server.release_lock, name)

    @override
    def must_repeat(self, error: DBAPIError) -> bool:
        return _code_of(error) in REPEAT_CODES

    @override
    def sentence_of(self, error: DBAPIError) -> str | None:
        code = _code_of(error)
        if code is not None and code in SENTENCES:
            return SENTENCES[code]
        return DATABASE_UNWRITABLE if any(words in str(error.orig) for words in FULL_DISK_WORDS) else None

    @override
    def locking_upsert(self, table: Table, values: Mapping[str, Any]) -> Insert:
        """Return an ``INSERT … ON DUPLICATE KEY UPDATE``.

        ``SELECT … FOR UPDATE`` of a row that does not exist would lock nothing in ``READ COMMITTED``.
        """
        statement = mysql.insert(table).values(**values)
        return statement.on_duplicate_key_update({name: statement.inserted[name] for name in values})

    @override
    def force_index(self, statement: Select[Any], table: Table, index: str) -> Select[Any]:
        for name in NAMES:
            statement = statement.with_hint(table, f"FORCE INDEX ({index})", name)
        return statement


MYSQL = MysqlDialect()


@asynccontextmanager
async def _unpooled(server: MysqlServer, url: URL) -> AsyncIterator[AsyncEngine]:
    """Open an engine without a pool while the block runs."""
    engine = server.open_unpooled(url)
    try:
        yield engine
    finally:
        await engine.dispose()


def _code_of(error: DBAPIError) -> int | None:
    """Return the server's error number."""
    args = error.orig.args if error.orig else ()
    return args[0] if args and isinstance(args[0], int) else None


def _lossy_setting(name: str, value: int) -> str:
    return (
        f"The database server runs with {name}={value}: a power cut may lose tasks that were accepted. Set it to 1, or "
        "set database.durability to normal if this is intended."
    )
