"""A database that is lost, replaced or damaged under a running service is noticed: nothing is stored in vain."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url

from pipeline.domain.tasks.task import NewTask
from pipeline.errors import CommitUnanswered, DatabaseUnavailable
from pipeline.ports import TaskQuery
from pipeline.store.connection.failures import CONNECTION_GONE, SCHEMA_MISSING
from pipeline.store.connection.sqlite_file import DATABASE_DAMAGED, DATABASE_LOST, FILE_REMOVED, OTHER_DATABASE
from pipeline.store.sql_task_store import SqlTaskStore
from pipeline.testing.manual_clock import ManualClock
from tests.contract.older_store import make_0007
from tests.support.mariadb import MariaDbServer
from tests.support.stores import migrate, sql_store

NEW = NewTask(media_prefix="a")
JOURNALS = ("", "-wal", "-shm")


@pytest.fixture
async def store(sqlite_url: str, clock: ManualClock) -> AsyncIterator[SqlTaskStore]:
    opened = sql_store(sqlite_url, clock)
    await opened.migrate()
    yield opened
    await opened.close()


@pytest.fixture
def file(sqlite_url: str) -> Path:
    return Path(str(make_url(sqlite_url).database))


def files_of(file: Path) -> list[Path]:
    return [Path(f"{file}{suffix}") for suffix in JOURNALS if Path(f"{file}{suffix}").exists()]


def move_away(file: Path, folder: Path) -> None:
    folder.mkdir()
    for each in files_of(file):
        each.rename(folder / each.name)


def move_back(file: Path, folder: Path) -> None:
    for each in files_of(folder / file.name):
        each.rename(file.with_name(each.name))


def empty_file(file: Path) -> None:
    file.touch()


def other_store(file: Path) -> None:
    url = f"sqlite+aiosqlite:///{file}.other/tasks.db"
    asyncio.run(migrate(sql_store(url, ManualClock())))
    shutil.copy(f"{file}.other/tasks.db", file)


def other_schema(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE tasks (id INTEGER)")
        connection.commit()


def no_database(file: Path) -> None:
    file.write_text("Dear diary, today I was not a database. " * 100)


async def refused(store: SqlTaskStore, sentences: tuple[str, ...]) -> None:
    """Whatever is asked is refused with a sentence, however often."""
    calls: list[Callable[[], object]] = [
        lambda: store.create(NEW),
        lambda: store.get(1),
        lambda: store.query(TaskQuery()),
        lambda: store.claim("me", timedelta(seconds=30), 1, (0, 1, 2)),
        store.stats,
        store.ping,
    ]
    for call in calls:
        with pytest.raises(DatabaseUnavailable) as refusal:
            await call()  # type: ignore[misc]
        assert refusal.value.message in sentences
        assert not isinstance(refusal.value, CommitUnanswered)


async def test_a_file_that_is_removed_is_missed_until_it_is_back(
    store: SqlTaskStore, file: Path, tmp_path: Path
) -> None:
    task, _ = await store.create(NEW)
    move_away(file, tmp_path / "away")

    await refused(store, (FILE_REMOVED,))
    assert files_of(file) == []

    move_back(file, tmp_path / "away")
    assert await store.get(task.id) == task
    assert (await store.create(NEW))[0].id == task.id + 1


@pytest.mark.parametrize("put", [empty_file, other_schema, no_database])
async def test_a_file_that_is_replaced_is_refused_until_the_right_one_is_back(
    store: SqlTaskStore, file: Path, tmp_path: Path, put: Callable[[Path], None]
) -> None:
    task, _ = await store.create(NEW)
    move_away(file, tmp_path / "away")
    put(file)

    await refused(store, (OTHER_DATABASE, DATABASE_DAMAGED))

    for each in files_of(file):
        each.unlink()
    move_back(file, tmp_path / "away")
    assert await store.get(task.id) == task


async def test_the_file_of_another_store_is_refused(store: SqlTaskStore, file: Path, tmp_path: Path) -> None:
    await store.create(NEW)
    move_away(file, tmp_path / "away")
    await asyncio.to_thread(other_store, file)

    await refused(store, (OTHER_DATABASE,))


async def test_a_backup_of_the_same_store_is_taken(store: SqlTaskStore, file: Path, tmp_path: Path) -> None:
    task, _ = await store.create(NEW)
    with closing(sqlite3.connect(file)) as connection, closing(sqlite3.connect(tmp_path / "backup.db")) as backup:
        connection.backup(backup)
    await store.create(NEW)
    for each in files_of(file):
        each.unlink()
    (tmp_path / "backup.db").rename(file)

    assert (await store.query(TaskQuery())).total_count == 1
    assert await store.get(task.id) == task
    assert (await store.create(NEW))[0].id > task.id


@pytest.mark.parametrize("size_bytes", [0, 100, 5000, 40_000])
async def test_a_file_that_is_cut_off_is_refused(store: SqlTaskStore, file: Path, size_bytes: int) -> None:
    for _ in range(50):
        await store.create(NEW)
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    await store.ping()
    os.truncate(file, size_bytes)

    await refused(store, (DATABASE_DAMAGED, OTHER_DATABASE))


async def test_what_is_stored_while_the_file_goes_is_not_promised(
    store: SqlTaskStore, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.create(NEW)
    database = store.database
    is_trusted = database._is_trusted

    def removed_before_the_check(snapshot: object) -> bool:
        if not (tmp_path / "away").exists() and snapshots:
            move_away(file, tmp_path / "away")
            assert database._file is not None
            snapshot = database._file.snapshot()
        snapshots.append(snapshot)
        return is_trusted(snapshot)  # type: ignore[arg-type]

    snapshots: list[object] = []
    monkeypatch.setattr(database, "_is_trusted", removed_before_the_check)
    with pytest.raises(CommitUnanswered) as refusal:
        await store.create(NEW)
    assert refusal.value.message == CONNECTION_GONE


async def test_a_log_that_is_removed_is_noticed(
    store: SqlTaskStore, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await store.create(NEW)
    files_of(file)[1].unlink()
    await store.ping()

    assert "was removed or replaced" in caplog.text
    task, _ = await store.create(NEW)
    with closing(sqlite3.connect(file)) as connection:  # in the file, not in one that nobody sees
        assert connection.execute("SELECT count(*) FROM tasks WHERE id = ?", (task.id,)).fetchone() == (1,)


async def test_a_service_that_starts_without_its_file_makes_no_new_one(
    store: SqlTaskStore, file: Path, sqlite_url: str, clock: ManualClock, tmp_path: Path
) -> None:
    task, _ = await store.create(NEW)
    await store.close()
    move_away(file, tmp_path / "away")
    next_store = sql_store(sqlite_url, clock)

    for call in (next_store.migrate, next_store.ping, next_store.stats):
        with pytest.raises(DatabaseUnavailable) as refusal:
            await call()
        assert refusal.value.message == DATABASE_LOST
    assert files_of(file) == []

    empty_file(file)
    for call in (next_store.migrate, next_store.stats):
        with pytest.raises(DatabaseUnavailable) as refusal:
            await call()
        assert refusal.value.message == DATABASE_LOST
    for each in files_of(file):
        each.unlink()
    move_back(file, tmp_path / "away")
    await next_store.migrate()
    assert await next_store.get(task.id) == task
    await next_store.close()


async def test_an_operator_may_begin_anew(store: SqlTaskStore, file: Path, sqlite_url: str, clock: ManualClock) -> None:
    await store.create(NEW)
    await store.close()
    for each in (*files_of(file), file.with_name(f"{file.name}.id")):
        each.unlink()
    fresh = sql_store(sqlite_url, clock)
    await fresh.migrate()
    assert (await fresh.query(TaskQuery())).total_count == 0
    await fresh.close()


async def test_a_backup_of_before_stores_had_an_identity_is_taken(
    store: SqlTaskStore, file: Path, sqlite_url: str, clock: ManualClock
) -> None:
    await store.create(NEW)
    await store.close()
    for each in files_of(file):
        each.unlink()
    engine = create_engine(f"sqlite:///{file}")
    with engine.begin() as connection:
        make_0007(connection)
    engine.dispose()
    older = sql_store(sqlite_url, clock)
    await older.migrate()
    assert (await older.query(TaskQuery())).total_count == 2
    await older.close()
    again = sql_store(sqlite_url, clock)
    await again.migrate()
    await again.close()


async def test_tables_that_are_dropped_on_the_server(mariadb: MariaDbServer, clock: ManualClock) -> None:
    mariadb.execute("DROP DATABASE IF EXISTS dropped")
    store = sql_store(mariadb.create_database("dropped"), clock)
    await store.migrate()
    await store.create(NEW)
    mariadb.execute("SET foreign_key_checks = 0; USE dropped; DROP TABLE tasks")
    for call in (lambda: store.create(NEW), lambda: store.get(1), store.stats):
        with pytest.raises(DatabaseUnavailable) as refusal:
            await call()
        assert refusal.value.message == SCHEMA_MISSING
    mariadb.execute("USE dropped; CREATE TABLE tasks (id BIGINT PRIMARY KEY)")
    with pytest.raises(DatabaseUnavailable) as refusal:
        await store.get(1)
    assert refusal.value.message == SCHEMA_MISSING
    await store.close()
