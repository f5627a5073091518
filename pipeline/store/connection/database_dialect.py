"""The seam between the task store and its database: everything that differs from one database to another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from sqlalchemy import URL, Connection, Insert, Select, Table
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.types import TypeEngine

T = TypeVar("T")

DURABLE = "murmuration_durable"
"""Execution option of a connection: whether the commits of its transactions wait for the disk."""


@dataclass(frozen=True, slots=True)
class ColumnTypes:
    """The column types that a database has for values for which SQLAlchemy's general types do not do.

    Attributes:
        time: a time without an offset, to the microsecond.
        long_text: text of any length.
        indexed_text: text of up to 255 characters that an index can hold.
        row_id: a 64-bit id that the database counts up.
    """

    time: TypeEngine[datetime]
    long_text: TypeEngine[str]
    indexed_text: TypeEngine[str]
    row_id: TypeEngine[int]


class Connections(Protocol):
    """The connections of one process to a database, opened at first use.

    A function that is given to them runs over one of them and may block. It is one transaction at most.
    """

    async def run_read(self, function: Callable[[Connection], T]) -> T:
        """Run a function that changes nothing.

        Raises what the function raises; SQLAlchemy's ``TimeoutError`` if no connection becomes free in time.
        """
        ...

    async def run_write(self, function: Callable[[Connection], T]) -> T:
        """Run a function that begins a transaction, writes and commits. Raises as ``run_read`` does."""
        ...

    async def renew(self) -> None:
        """Close the connections that are idle, so that the next function gets a new one."""
        ...

    async def close(self) -> None:
        """Close the connections, none of which is in use, and end their threads. Nothing can run after this."""
        ...


class DatabaseServer(Protocol):
    """The additional abilities of a database that runs as a server: a clock, named locks, and settings.

    A named lock belongs to the server and to the connection that holds it. It needs no table, and is released when the
    connection ends, also if its process dies.
    """

    def open_unpooled(self, url: URL) -> AsyncEngine:
        """Return an engine that opens a connection for each use."""
        ...

    def read_time(self, connection: Connection) -> datetime:
        """Return the time of the server's clock."""
        ...

    def lossy_settings(self, connection: Connection) -> list[str]:
        """Return a sentence for each setting with which the server may lose commits in a power cut."""
        ...

    def take_lock(self, connection: Connection, name: str, timeout_s: float) -> bool:
        """Take a named lock. Return ``False`` if another connection holds it for longer than ``timeout_s``."""
        ...

    def release_lock(self, connection: Connection, name: str) -> None:
        """Release a named lock of this connection."""
        ...

    def is_locked(self, connection: Connection, name: str) -> bool:
        """Return whether any connection to the server holds a named lock."""
        ...


class DatabaseDialect(Protocol):
    """A kind of database that can hold the tasks. A dialect has no state.

    Attributes:
        drivers: the beginnings of its URLs; the first one is the one to recommend.
        server: abilities of its server; ``None`` for a database that is a file.
        column_types: its column types.
        table_options: options of every table, under names that begin with the dialect's.
        unreused_id_options: options of a table that never gives the id of a deleted row to another row.
        loose_index_scans: whether ``DISTINCT`` over the first columns of an index skips from one value to the next
            instead of reading every row.
    """

    drivers: ClassVar[tuple[str, ...]]
    server: ClassVar[DatabaseServer | None]
    column_types: ClassVar[ColumnTypes]
    table_options: ClassVar[Mapping[str, str]]
    unreused_id_options: ClassVar[Mapping[str, bool]]
    loose_index_scans: ClassVar[bool]

    def verify_url(self, url: URL) -> None:
        """Raise ``ConfigurationError`` if the URL names no database that several processes can share."""
        ...

    def file_of(self, url: URL) -> Path | None:
        """Return the file of the database; ``None`` for one on a server."""
        ...

    def open_connections(self, url: URL, busy_timeout_s: float) -> Connections:
        """Return connections whose statements wait up to ``busy_timeout_s`` for a lock."""
        ...

    async def run_migration(self, url: URL, busy_timeout_s: float, migration: Callable[[Connection], None]) -> None:
        """Run a function in a transaction of its own connection, where a statement may take as long as it needs."""
        ...

    def migration_lock(self, url: URL, timeout_s: float) -> AbstractAsyncContextManager[None]:
        """Hold the lock with which one process at a time migrates the database.

        Raises:
            DatabaseUnavailable: another process has held it for longer than ``timeout_s``.
        """
        ...

    def must_repeat(self, error: DBAPIError) -> bool:
        """Return whether the database rolled the transaction back and wants it to be run again."""
        ...

    def sentence_of(self, error: DBAPIError) -> str | None:
        """Return a sentence about a failure, for operators; ``None`` for one that the dialect does not know."""
        ...

    def locking_upsert(self, table: Table, values: Mapping[str, Any]) -> Insert | None:
        """Return a statement that inserts a row or finds it by its primary key, and locks it for the transaction.

        ``None`` where a transaction that writes has the whole database to itself, so that no lock is needed.
        """
        ...

    def force_index(self, statement: Select[Any], table: Table, index: str) -> Select[Any]:
        """Return the statement with a hint to read the table by an index, if the database takes hints."""
        ...
