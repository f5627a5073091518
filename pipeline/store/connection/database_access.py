"""Connections to the database: every transaction of the stores runs here, and its failures get their names."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Collection, Coroutine
from functools import partial
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from pipeline.domain.durability import Durability
from pipeline.errors import CommitUnanswered, DatabaseUnavailable
from pipeline.store.connection.database_dialect import DURABLE
from pipeline.store.connection.dialects import DatabaseAddress
from pipeline.store.connection.failures import COMMIT_UNANSWERED, CONNECTION_GONE, translate_database_errors
from pipeline.store.connection.sqlite_file import (
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

TRANSACTION_ATTEMPTS = 3
REPEAT_DELAY_S = 0.02
"""Longest delay before the first repetition of a transaction; each further one may take as much longer."""


class Database:
    """A database in which functions run over a connection, each in a transaction of its own.

    The functions are synchronous. With SQLite they run in a thread of the database.

    A call that is cancelled returns at once, but its transaction continues and may be committed.

    Args:
        address: from ``parse_url``.
        busy_timeout_s: how long a statement waits for a lock.
        durability: whether a commit waits for the disk.
        recomputable: functions whose commits never wait for the disk, because what they store is computed again after a
            power cut. A later commit that waits makes them durable too.
    """

    def __init__(
        self,
        address: DatabaseAddress,
        busy_timeout_s: float,
        durability: Durability = Durability.FULL,
        recomputable: Collection[Callable[..., Any]] = (),
    ) -> None:
        self._running: set[asyncio.Task[Any]] = set()
        self._durability = durability
        self._recomputable = frozenset(recomputable)
        self._dialect = address.dialect
        path = self._dialect.file_of(address.url)
        self._file = None if path is None else DatabaseFile(path)
        self._trusted: FileSnapshot | None = None
        self._identity: str | None = None
        self._doubted = False
        self._verifying = asyncio.Lock()
        self._connections = self._dialect.open_connections(address.url, busy_timeout_s)

    async def read(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``work(connection, …)``, which changes nothing. Raises ``DatabaseUnavailable``."""
        return await self._run_to_end(self._read(work, *args, **kwargs))

    async def write(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``work(connection, …)`` and commit; run it again if the database wants that.

        With ``Durability.FULL`` the call returns once the disk has the commit, unless ``work`` is recomputable.

        Raises:
            DatabaseUnavailable: nothing was committed.
            CommitUnanswered: the connection broke during the commit, whose result is unknown.
        """
        return await self._run_to_end(self._write(work, *args, **kwargs))

    async def warn_of_lossy_server(self) -> None:
        """Log a warning if the server may lose commits in a power cut although durability is full.

        The settings belong to the whole server, so that a session can't change them
        (https://mariadb.com/docs/server/server-usage/storage-engines/innodb/innodb-system-variables).
        """
        if (server := self._dialect.server) is not None and self._durability is Durability.FULL:
            for sentence in await self.read(server.lossy_settings):
                logger.warning("%s", sentence)

    async def close(self) -> None:
        """Close every connection, after the running transactions have ended."""
        await asyncio.gather(*self._running, return_exceptions=True)
        await self._connections.close()

    async def _run_to_end(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a transaction to its end even if its caller is cancelled.

        An interrupted transaction holds SQLite's lock until its cursor is garbage-collected: a connection that is
        closed under an open statement stays alive (https://www.sqlite.org/c3ref/close.html).
        """
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_log_unobserved_failure)
            raise

    async def _read(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        with translate_database_errors(self._dialect):
            await self._verify_file()
            return await self._connections.run_read(lambda connection: work(connection, *args, **kwargs))

    async def _write(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        with translate_database_errors(self._dialect):
            await self._verify_file()
            for attempt in range(1, TRANSACTION_ATTEMPTS):
                try:
                    return await self._transaction(work, *args, **kwargs)
                except DBAPIError as error:
                    if not self._dialect.must_repeat(error):
                        raise
                    await asyncio.sleep(random.random() * REPEAT_DELAY_S * attempt)  # noqa: S311  # jitter is no secret
            return await self._transaction(work, *args, **kwargs)

    async def _transaction(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        durable = self._durability is Durability.FULL and work not in self._recomputable
        result = await self._connections.run_write(
            lambda connection: self._commit(
                connection.execution_options(**{DURABLE: durable}), lambda: work(connection, *args, **kwargs)
            )
        )
        if self._file is not None and not self._is_trusted(self._file.snapshot()):
            raise CommitUnanswered(CONNECTION_GONE)
        return result

    def _commit(self, connection: Connection, work: Callable[[], T]) -> T:
        """Run ``work`` in a transaction."""
        with connection.begin() as transaction:
            result = work()
            try:
                transaction.commit()
            except (DBAPIError, OSError) as error:
                if self._dialect.server is None or (isinstance(error, DBAPIError) and self._dialect.must_repeat(error)):
                    raise
                raise CommitUnanswered(COMMIT_UNANSWERED) from error
            return result

    # the file of SQLite

    async def _verify_file(self) -> None:
        """Open the database again if its file has been replaced since.

        Raises:
            DatabaseUnavailable: the file is missing or damaged, or belongs to another store.
        """
        if self._file is None or (self._identity and self._is_trusted(self._file.snapshot())):
            return
        async with self._verifying:
            if self._identity and self._is_trusted(self._file.snapshot()):
                return
            try:
                await (self._verify_identity(self._file) if self._identity else self._record_identity(self._file))
            except BaseException:  # the connections belong to a file that may be replaced before the next try
                await self._connections.renew()
                raise

    async def _record_identity(self, file: DatabaseFile) -> None:
        """Remember the identity of the database, once its migrations have created one."""
        kept = IdentityFile(file.path)
        kept.refuse_absence()
        identity = await self._connections.run_read(identity_of)
        expected = kept.read()
        if expected is not None and identity != expected:
            raise DatabaseUnavailable(OTHER_DATABASE if identity else DATABASE_LOST)
        self._identity, self._trusted = identity, file.snapshot()

    async def _verify_identity(self, file: DatabaseFile) -> None:
        """Reopen the database, and trust the file again if it is undamaged and of the same store."""
        if not self._doubted:
            logger.error("the file of the task database, or its log, was removed or replaced: it is opened again")
        self._doubted = True
        if file.snapshot() is None:
            raise DatabaseUnavailable(FILE_REMOVED)
        await self._connections.renew()
        await self._connections.run_read(partial(verify_integrity, expected=self._identity))
        logger.warning("the task database is there again")
        self._trusted, self._doubted = file.snapshot(), False

    def _is_trusted(self, snapshot: FileSnapshot | None) -> bool:
        if self._doubted or snapshot is None or self._trusted is None or not snapshot.follows(self._trusted):
            return False
        self._trusted = snapshot
        return True


def _log_unobserved_failure(task: asyncio.Task[Any]) -> None:
    """Log the failure of a transaction whose caller no longer waits for it; asyncio would report it as a defect."""
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.info("a transaction failed after its caller was cancelled: %s: %s", type(error).__name__, error)
