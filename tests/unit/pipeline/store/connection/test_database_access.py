"""Transactions: the set-up of their connections, their repetition and their failures."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from typing_extensions import override

from pipeline.domain.durability import Durability
from pipeline.errors import DatabaseUnavailable, LeaseLost
from pipeline.store.connection.database_access import TRANSACTION_ATTEMPTS, Database
from pipeline.store.connection.dialects import DatabaseAddress, parse_url
from pipeline.store.connection.failures import DATABASE_BUSY, UNAVAILABLE
from pipeline.store.connection.mysql_dialect import MYSQL
from pipeline.store.connection.sqlite_dialect import SqliteDialect

NORMAL, FULL = 1, 2
"""The levels of ``PRAGMA synchronous``."""


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = Database(parse_url(f"sqlite+aiosqlite:///{tmp_path / 'tasks.db'}"), busy_timeout_s=1.0)
    await opened.write(_run, "CREATE TABLE birds (name TEXT UNIQUE)")
    yield opened
    await opened.close()


def _run(connection: Connection, statement: str) -> None:
    connection.execute(text(statement))


def _count(connection: Connection) -> int:
    return int(connection.execute(text("SELECT count(*) FROM birds")).scalar_one())


def _pragma(connection: Connection, name: str) -> object:
    return connection.execute(text(f"PRAGMA {name}")).scalar_one()


async def test_sqlite_is_set_up_for_many_processes(database: Database) -> None:
    for run in (database.read, database.write):
        assert await run(_pragma, "journal_mode") == "wal"
        assert await run(_pragma, "synchronous") == FULL
        assert await run(_pragma, "foreign_keys") == 1
        assert await run(_pragma, "busy_timeout") == 1000


def _fail_at_the_first_row(connection: Connection) -> None:
    rows = connection.execute(text("SELECT name FROM birds"))
    for _ in rows:
        raise LeaseLost("It is lost.")


async def test_a_read_that_failed_halfway_leaves_its_connection_at_no_old_moment(database: Database) -> None:
    flock = ", ".join(f"('starling {number}')" for number in range(9))
    await database.write(_run, f"INSERT INTO birds VALUES {flock}")
    with pytest.raises(LeaseLost) as failure:  # its traceback keeps the rows alive
        await database.read(_fail_at_the_first_row)
    await database.write(_run, "INSERT INTO birds VALUES ('wren')")
    assert await database.read(_count) == 10
    assert failure.value.message == "It is lost."


def _synchronous(connection: Connection) -> object:
    return _pragma(connection, "synchronous")


async def test_only_what_is_made_again_does_not_wait_for_the_disk(tmp_path: Path) -> None:
    url = parse_url(f"sqlite+aiosqlite:///{tmp_path / 'tasks.db'}")
    database = Database(url, 1.0, recomputable=[_synchronous])
    levels = [await database.write(work) for work in (_promise, _synchronous, _promise, _promise, _synchronous)]
    await database.close()
    assert levels == [FULL, NORMAL, FULL, FULL, NORMAL], "a connection serves both, one after the other"


async def test_with_normal_durability_no_commit_waits(tmp_path: Path) -> None:
    database = Database(parse_url(f"sqlite+aiosqlite:///{tmp_path / 'tasks.db'}"), 1.0, Durability.NORMAL)
    assert [await database.write(_promise) for _ in range(2)] == [NORMAL, NORMAL]
    await database.close()


def _promise(connection: Connection) -> object:
    return _synchronous(connection)


async def test_a_transaction_that_raises_changes_nothing(database: Database) -> None:
    def work(connection: Connection) -> None:
        _run(connection, "INSERT INTO birds VALUES ('starling')")
        raise LookupError

    with pytest.raises(LookupError):
        await database.write(work)

    assert await database.read(_count) == 0


async def test_defects_of_ours_pass_as_they_are(database: Database) -> None:
    await database.write(_run, "INSERT INTO birds VALUES ('starling')")

    with pytest.raises(IntegrityError):
        await database.write(_run, "INSERT INTO birds VALUES ('starling')")


class ServerErrorDialect(SqliteDialect):
    """SQLite whose failures are read as those of a MySQL server."""

    @override
    def must_repeat(self, error: DBAPIError) -> bool:
        return MYSQL.must_repeat(error)

    @override
    def sentence_of(self, error: DBAPIError) -> str | None:
        return MYSQL.sentence_of(error)


@pytest.fixture
async def server_database(database: Database, tmp_path: Path) -> AsyncIterator[Database]:
    url = parse_url(f"sqlite+aiosqlite:///{tmp_path / 'tasks.db'}").url
    opened = Database(DatabaseAddress(url, ServerErrorDialect()), busy_timeout_s=1.0)
    yield opened
    await opened.close()


def _server_error(code: int) -> OperationalError:
    return OperationalError("UPDATE birds", {}, Exception(code, "Deadlock found when trying to get lock"))


@pytest.mark.parametrize("code", [1020, 1205, 1213])
async def test_the_server_may_ask_for_a_transaction_again(server_database: Database, code: int) -> None:
    failures = TRANSACTION_ATTEMPTS - 1

    def work(connection: Connection) -> str:
        nonlocal failures
        _run(connection, f"INSERT INTO birds VALUES ('attempt {failures}')")
        if failures:
            failures -= 1
            raise _server_error(code)
        return "done"

    assert await server_database.write(work) == "done"
    assert await server_database.read(_count) == 1


async def test_the_server_may_not_ask_for_ever(server_database: Database) -> None:
    attempts = 0

    def work(_connection: Connection) -> None:
        nonlocal attempts
        attempts += 1
        raise _server_error(1213)

    with pytest.raises(DatabaseUnavailable, match=DATABASE_BUSY):
        await server_database.write(work)
    assert attempts == TRANSACTION_ATTEMPTS


async def test_other_failures_are_not_tried_again(server_database: Database) -> None:
    attempts = 0

    def work(_connection: Connection) -> None:
        nonlocal attempts
        attempts += 1
        raise _server_error(2013)

    with pytest.raises(DatabaseUnavailable, match=UNAVAILABLE):
        await server_database.write(work)
    assert attempts == 1


async def test_a_transaction_that_fails_after_its_caller_was_cancelled_is_no_defect(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pipeline.store.connection.database_access")
    gc.freeze()  # only what is made from here on is collected below
    begun, goes_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    reported: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _loop, context: reported.append(context))

    def work(_connection: Connection) -> None:
        loop.call_soon_threadsafe(begun.set)
        goes_on.wait()
        raise LeaseLost("Task 1 ended.")

    caller = asyncio.create_task(database.write(work))
    await begun.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    goes_on.set()
    await database.close()
    gc.collect()

    assert not reported
    assert "after its caller was cancelled: LeaseLost: Task 1 ended." in caplog.text


async def test_a_transaction_is_committed_although_its_caller_is_cancelled(database: Database) -> None:
    begun, goes_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def work(connection: Connection) -> None:
        loop.call_soon_threadsafe(begun.set)
        goes_on.wait()
        _run(connection, "INSERT INTO birds VALUES ('starling')")

    caller = asyncio.create_task(database.write(work))
    await begun.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    goes_on.set()
    await database.write(_run, "INSERT INTO birds VALUES ('wren')")

    assert await database.read(_count) == 2


async def test_writers_run_in_order(database: Database) -> None:
    order: list[int] = []

    def work(_connection: Connection, number: int) -> None:
        order.append(number)

    await asyncio.gather(*(database.write(work, number) for number in range(20)))

    assert order == list(range(20))
