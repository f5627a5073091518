from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection

from pipeline.domain.durability import Durability
from pipeline.errors import ConfigurationError, DatabaseUnavailable, LeaseLost
from pipeline.store.connection.database import (
    DATABASE_BUSY,
    DATABASE_UNWRITABLE,
    TRANSACTION_ATTEMPTS,
    UNAVAILABLE,
    Database,
    UtcDateTime,
    parse_url,
    translate_database_errors,
)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite+aiosqlite:////var/lib/tasks.db",
        "mysql+asyncmy://user:word@host:3307/tasks?charset=utf8mb4",
        "mariadb+asyncmy://host/tasks",
    ],
)
def test_urls_that_can_be_used(url: str) -> None:
    assert parse_url(url).render_as_string(hide_password=False) == url


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("postgresql+asyncpg://user:hidden@host/tasks", "must begin with"),
        ("sqlite:////var/lib/tasks.db", "must begin with"),
        ("mysql+pymysql://user:hidden@host/tasks", "must begin with"),
        ("sqlite+aiosqlite:///tasks.db", "absolute path"),
        ("sqlite+aiosqlite:///:memory:", "absolute path"),
        ("sqlite+aiosqlite://", "absolute path"),
        ("hidden", "can't be read"),
    ],
)
def test_urls_that_can_not(url: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint) as refusal:
        parse_url(url)
    assert "hidden" not in refusal.value.message


def test_times_are_kept_as_utc() -> None:
    column, dialect = UtcDateTime(), sqlite.dialect()
    berlin = datetime(2025, 7, 1, 14, 0, 0, 123456, tzinfo=timezone(timedelta(hours=2)))

    kept = column.process_bind_param(berlin, dialect)

    assert kept == datetime(2025, 7, 1, 12, 0, 0, 123456)  # noqa: DTZ001  # what the column holds
    assert str(column.process_result_value(kept, dialect)) == "2025-07-01 12:00:00.123456+00:00"
    assert column.process_bind_param(None, dialect) is column.process_result_value(None, dialect) is None


def test_a_naive_time_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        UtcDateTime().process_bind_param(datetime(2025, 7, 1), sqlite.dialect())  # noqa: DTZ001  # on purpose


def test_mysql_keeps_microseconds() -> None:
    assert UtcDateTime().compile(dialect=mysql.dialect()) == "DATETIME(6)"


NORMAL, FULL = 1, 2
"""What SQLite calls the levels of ``PRAGMA synchronous``."""


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = Database(parse_url(f"sqlite+aiosqlite:///{tmp_path / 'tasks.db'}"), busy_timeout_s=1.0)
    await opened.write(_run, "CREATE TABLE birds (name TEXT UNIQUE)")
    yield opened
    await opened.close()


async def _run(connection: AsyncConnection, statement: str) -> None:
    await connection.execute(text(statement))


async def _count(connection: AsyncConnection) -> int:
    return int((await connection.execute(text("SELECT count(*) FROM birds"))).scalar_one())


async def _pragma(connection: AsyncConnection, name: str) -> object:
    return (await connection.execute(text(f"PRAGMA {name}"))).scalar_one()


async def test_sqlite_is_set_up_for_many_processes(database: Database) -> None:
    for run in (database.read, database.write):
        assert await run(_pragma, "journal_mode") == "wal"
        assert await run(_pragma, "synchronous") == FULL
        assert await run(_pragma, "foreign_keys") == 1
        assert await run(_pragma, "busy_timeout") == 1000


async def _synchronous(connection: AsyncConnection) -> object:
    return await _pragma(connection, "synchronous")


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


async def _promise(connection: AsyncConnection) -> object:
    return await _synchronous(connection)


async def test_a_transaction_that_raises_changes_nothing(database: Database) -> None:
    async def work(connection: AsyncConnection) -> None:
        await _run(connection, "INSERT INTO birds VALUES ('starling')")
        raise LookupError

    with pytest.raises(LookupError):
        await database.write(work)

    assert await database.read(_count) == 0


async def test_defects_of_ours_pass_as_they_are(database: Database) -> None:
    await database.write(_run, "INSERT INTO birds VALUES ('starling')")

    with pytest.raises(IntegrityError):
        await database.write(_run, "INSERT INTO birds VALUES ('starling')")


def _server_error(code: int) -> OperationalError:
    return OperationalError("UPDATE birds", {}, Exception(code, "Deadlock found when trying to get lock"))


@pytest.mark.parametrize("code", [1020, 1205, 1213])
async def test_the_server_may_ask_for_a_transaction_again(database: Database, code: int) -> None:
    failures = TRANSACTION_ATTEMPTS - 1

    async def work(connection: AsyncConnection) -> str:
        nonlocal failures
        await _run(connection, f"INSERT INTO birds VALUES ('attempt {failures}')")
        if failures:
            failures -= 1
            raise _server_error(code)
        return "done"

    assert await database.write(work) == "done"
    assert await database.read(_count) == 1


async def test_the_server_may_not_ask_for_ever(database: Database) -> None:
    attempts = 0

    async def work(_connection: AsyncConnection) -> None:
        nonlocal attempts
        attempts += 1
        raise _server_error(1213)

    with pytest.raises(DatabaseUnavailable, match=DATABASE_BUSY):
        await database.write(work)
    assert attempts == TRANSACTION_ATTEMPTS


async def test_other_failures_are_not_tried_again(database: Database) -> None:
    attempts = 0

    async def work(_connection: AsyncConnection) -> None:
        nonlocal attempts
        attempts += 1
        raise _server_error(2013)

    with pytest.raises(DatabaseUnavailable, match=UNAVAILABLE):
        await database.write(work)
    assert attempts == 1


@pytest.mark.parametrize(
    ("cause", "sentence"),
    [
        (PoolTimeoutError("QueuePool limit"), DATABASE_BUSY),
        (ConnectionResetError("10.0.0.7"), UNAVAILABLE),
        (OSError(), UNAVAILABLE),
    ],
)
def test_failures_beneath_the_driver_have_names_too(cause: Exception, sentence: str) -> None:
    with pytest.raises(DatabaseUnavailable) as refusal, translate_database_errors():
        raise cause

    assert refusal.value.message == sentence
    assert refusal.value.__cause__ is cause


@pytest.mark.parametrize(
    "cause",
    [
        Exception("database or disk is full"),
        Exception("disk I/O error"),
        Exception(1021, "Disk full (/data); waiting for someone to free some space"),
        Exception(1114, "The table 'tasks' is full"),
        Exception(1030, 'Got error 28 "No space left on device" from storage engine InnoDB'),
        Exception(1026, "Error writing file '/data/tasks.ibd' (Errcode: 28)"),
    ],
    ids=str,
)
def test_a_database_without_room_says_where_to_look(cause: Exception) -> None:
    with pytest.raises(DatabaseUnavailable) as refusal, translate_database_errors():
        raise OperationalError("INSERT", {}, cause)
    assert refusal.value.message == DATABASE_UNWRITABLE


async def test_a_transaction_that_fails_after_its_caller_was_cancelled_is_no_defect(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pipeline.store.connection.database")
    gc.freeze()  # only what is made from here on is collected below
    begun, goes_on = asyncio.Event(), asyncio.Event()
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reported.append(context))

    async def work(_connection: AsyncConnection) -> None:
        begun.set()
        await goes_on.wait()
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
