"""The task store's databases: one schema, and clear errors while they are unavailable."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

from pipeline.domain.audio.spans import to_samples
from pipeline.domain.tasks.task import NewTask, Status
from pipeline.errors import CommitUnanswered, ConfigurationError, DatabaseUnavailable
from pipeline.ports import Lease, TaskQuery
from pipeline.store.connection.failures import (
    DATABASE_BUSY,
    DATABASE_UNWRITABLE,
    LOGIN_REFUSED,
    SCHEMA_MISSING,
    UNAVAILABLE,
)
from pipeline.store.sql_task_store import SqlTaskStore
from pipeline.store.tables import METADATA
from pipeline.system_clock import SynchronizedClock
from pipeline.testing.manual_clock import ManualClock
from tests.contract.older_store import make_0007
from tests.support.mariadb import PASSWORD, MariaDbServer
from tests.support.stores import sql_store

LEASE = timedelta(seconds=30)
OpenStore = Callable[..., SqlTaskStore]


@pytest.fixture
async def open_store(clock: ManualClock) -> AsyncIterator[OpenStore]:
    """Opens SQL stores, and closes them in the end."""
    opened: list[SqlTaskStore] = []

    def open_one(url: str, busy_timeout_s: float = 10.0) -> SqlTaskStore:
        opened.append(sql_store(url, clock, busy_timeout_s))
        return opened[-1]

    yield open_one
    for store in opened:
        await store.close()
    # The thread of a connection that could not be opened answers the event loop once more, unless that is closed.
    for thread in threading.enumerate():
        if "_connection_worker_thread" in thread.name:
            thread.join(1)


@pytest.fixture(params=["sqlite", "mysql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a database without a table; SQLite's folder is still to be made."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path / 'to be' / 'made %41' / 'tasks.db'}"
    server: MariaDbServer = request.getfixturevalue("mariadb")
    server.execute("DROP DATABASE IF EXISTS fresh")
    return server.create_database("fresh")


def _differences(connection: Connection) -> list[object]:
    return list(compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), METADATA))


async def test_migrations_build_what_the_tables_declare(empty_url: str, open_store: OpenStore) -> None:
    await open_store(empty_url).migrate()

    engine = create_async_engine(empty_url)
    async with engine.connect() as connection:
        differences = await connection.run_sync(_differences)
    await engine.dispose()

    assert differences == []


async def test_an_upgrade_keeps_what_is_there(empty_url: str, open_store: OpenStore) -> None:
    Path(str(make_url(empty_url).database)).parent.mkdir(parents=True, exist_ok=True)
    engine = create_async_engine(empty_url)
    async with engine.begin() as connection:
        await connection.run_sync(make_0007)
    store = open_store(empty_url)
    await store.migrate()
    async with engine.connect() as connection:
        assert await connection.run_sync(_differences) == []
    await engine.dispose()
    assert (await store.client_load("ann")).audio_s == 100.0
    claimed = await store.claim("me", LEASE, 10, [0, 1, 2])
    assert [(task.client, (task.platform or "")[:4]) for task in claimed] == [("ann", "site"), ("ann", "xxxx")]
    await store.add_part(Lease(claimed[0].id, claimed[0].fence), 0, 0, to_samples(30.0), ())
    assert (await store.client_load("ann")).audio_s == 100.0  # part 0 was taken as a whole


async def test_many_may_migrate_at_once(empty_url: str, open_store: OpenStore) -> None:
    stores = [open_store(empty_url) for _ in range(6)]

    await asyncio.gather(*(store.migrate() for store in stores))

    for store in stores:
        await store.create(NewTask(media_prefix="a"))
    assert (await stores[0].query(TaskQuery())).total_count == 6


async def test_a_database_of_a_newer_version_is_refused(empty_url: str, open_store: OpenStore) -> None:
    store = open_store(empty_url)
    await store.migrate()
    engine = create_async_engine(empty_url)
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    await engine.dispose()

    with pytest.raises(ConfigurationError, match="newer version"):
        await store.migrate()


async def test_a_task_outlives_the_process(sql_url: str, open_store: OpenStore) -> None:
    first = open_store(sql_url)
    task, _ = await first.create(NewTask(media_prefix="a"))
    await first.close()

    assert await open_store(sql_url).get(task.id) == task


async def test_calls_that_are_cancelled_leave_no_lock_behind(sql_url: str, open_store: OpenStore) -> None:
    store, other = open_store(sql_url), open_store(sql_url)
    for step in range(25):
        call = asyncio.create_task(store.create(NewTask(media_prefix="a")))
        await asyncio.sleep(step * 0.0005)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)

        await asyncio.wait_for(other.create(NewTask(media_prefix="b")), 2)
    await store.close()

    # What began was finished, whole; only the first call was cancelled before it began.
    assert 49 <= (await other.query(TaskQuery())).total_count <= 50


@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.migrate(),
        lambda store: store.ping(),
        lambda store: store.create(NewTask(media_prefix="a")),
        lambda store: store.get(1),
        lambda store: store.claim("me", LEASE, 1, (0, 1, 2)),
        lambda store: store.stats(),
    ],
)
async def test_a_server_that_does_not_listen(
    call: Callable[[SqlTaskStore], Awaitable[object]], free_port: int, open_store: OpenStore
) -> None:
    store = open_store(f"mysql+asyncmy://someone:hidden-word@127.0.0.1:{free_port}/tasks")

    with pytest.raises(DatabaseUnavailable) as refusal:
        await call(store)

    assert refusal.value.message == UNAVAILABLE
    assert refusal.value.retry_after_s > 0


async def test_a_server_that_refuses_the_login(mariadb: MariaDbServer, open_store: OpenStore) -> None:
    for url in (mariadb.url("contract", password="hidden-word"), mariadb.url("no_such_database")):
        with pytest.raises(DatabaseUnavailable) as refusal:
            await open_store(url).ping()
        assert refusal.value.message == LOGIN_REFUSED


async def test_a_server_that_dies_and_comes_back(mysql_url: str, mariadb: MariaDbServer, open_store: OpenStore) -> None:
    store = open_store(mysql_url)
    task, _ = await store.create(NewTask(media_prefix="a"))
    await asyncio.gather(*(store.ping() for _ in range(4)))

    mariadb.kill()
    for call in (store.ping, store.stats, lambda: store.cancel(task.id), store.migrate):
        with pytest.raises(DatabaseUnavailable) as refusal:
            await call()
        assert PASSWORD not in str(refusal.value)
    mariadb.start()

    await asyncio.gather(*(store.ping() for _ in range(4)))
    assert await store.get(task.id) == task
    assert (await store.cancel(task.id)).status is Status.CANCELLED


async def test_a_row_another_process_holds_for_too_long(mysql_url: str, open_store: OpenStore) -> None:
    store = open_store(mysql_url, busy_timeout_s=0.5)
    task, _ = await store.create(NewTask(media_prefix="a"))
    engine = create_async_engine(mysql_url)
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE tasks SET attempts = 0, owner = 'other'"))
        with pytest.raises(DatabaseUnavailable) as refusal:
            await store.cancel(task.id)
    await engine.dispose()

    assert refusal.value.message == DATABASE_BUSY
    assert (await store.cancel(task.id)).status is Status.CANCELLED


async def test_a_file_another_process_holds_for_too_long(sqlite_url: str, open_store: OpenStore) -> None:
    store = open_store(sqlite_url, busy_timeout_s=0.2)
    task, _ = await store.create(NewTask(media_prefix="a"))
    with closing(sqlite3.connect(str(make_url(sqlite_url).database), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseUnavailable) as refusal:
            await store.cancel(task.id)
        readable = await store.get(task.id)
        other.execute("ROLLBACK")

    assert refusal.value.message == DATABASE_BUSY
    assert readable == task
    assert (await store.cancel(task.id)).status is Status.CANCELLED


async def test_a_file_that_can_not_be(tmp_path: Path, open_store: OpenStore) -> None:
    (tmp_path / "file").write_text("in the way")
    store = open_store(f"sqlite+aiosqlite:///{tmp_path / 'file' / 'tasks.db'}")

    for call in (store.migrate, store.ping, store.stats):
        with pytest.raises(DatabaseUnavailable) as refusal:
            await call()
        assert refusal.value.message == DATABASE_UNWRITABLE


async def test_a_file_that_is_no_database(tmp_path: Path, open_store: OpenStore) -> None:
    (tmp_path / "tasks.db").write_text("Dear diary, today I was not a database. " * 100)
    store = open_store(f"sqlite+aiosqlite:///{tmp_path / 'tasks.db'}")

    for call in (store.migrate, store.ping):
        with pytest.raises(DatabaseUnavailable) as refusal:
            await call()
        assert str(tmp_path) not in refusal.value.message


async def test_a_database_that_nobody_has_migrated_yet(empty_url: str, open_store: OpenStore) -> None:
    store = open_store(empty_url)
    if (file := make_url(empty_url).database) and file.startswith("/"):
        Path(file).parent.mkdir(parents=True)
    for call in (store.stats, lambda: store.create(NewTask(media_prefix="a")), lambda: store.get(1)):
        with pytest.raises(DatabaseUnavailable) as refusal:
            await call()
        assert refusal.value.message == SCHEMA_MISSING


# --- clocks that differ -----------------------------------------------------------------------------------------------


class AheadClock(SynchronizedClock):
    """The clock of a machine that is an hour ahead, unless it is told better."""

    def now(self) -> datetime:
        return super().now() + (timedelta(hours=1) if self._synchronized is None else timedelta())


async def test_a_node_whose_clock_is_ahead_takes_nothing_from_others(mysql_url: str) -> None:
    exact, ahead = sql_store(mysql_url, SynchronizedClock()), sql_store(mysql_url, AheadClock())
    task, _ = await exact.create(NewTask(media_prefix="a"))
    [claimed] = await exact.claim("exact", LEASE, 1, (0, 1, 2))

    assert await ahead.claim("ahead", LEASE, 1, (0, 1, 2)) == []
    assert await ahead.fail_exhausted(1) == []
    created, _ = await ahead.create(NewTask(media_prefix="b"))
    assert abs(created.created_at - task.created_at) < timedelta(minutes=1)
    assert claimed.lease_expires_at is not None
    for store in (exact, ahead):
        await store.close()


# --- connections that break, processes that die -----------------------------------------------------------------------


@asynccontextmanager
async def _deaf_after_the_commit(port: int) -> AsyncIterator[int]:
    """Open a port that leads to a server until a task is committed: the server commits, and its response is lost."""

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        answers = asyncio.create_task(_relay(far_reader, writer))
        inserted = False
        while data := await reader.read(65_536):
            inserted = inserted or b"INSERT INTO tasks" in data
            if inserted and data.endswith(b"COMMIT"):
                answers.cancel()
                await asyncio.gather(answers, return_exceptions=True)
                far_writer.write(data)
                await far_reader.read(1)
                break
            far_writer.write(data)
        for end in (writer, far_writer):
            end.close()
            await end.wait_closed()

    async with await asyncio.start_server(connect, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


async def _relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)


async def test_a_commit_that_is_not_answered_is_told_from_one_that_did_not_happen(
    mysql_url: str, open_store: OpenStore
) -> None:
    url = make_url(mysql_url)
    async with _deaf_after_the_commit(int(url.port or 0)) as port:
        store = open_store(url.set(port=port).render_as_string(hide_password=False))
        with pytest.raises(CommitUnanswered, match="Idempotency-Key"):
            await store.create(NewTask(media_prefix="a"))
    assert (await open_store(mysql_url).query(TaskQuery())).total_count == 1


CLAIMER = """
import asyncio, sys
from datetime import timedelta
from pipeline.domain.tasks.task import NewTask
from tests.support.stores import sql_store
from pipeline.testing.manual_clock import ManualClock

async def claim_for_ever():
    store = sql_store(sys.argv[1], ManualClock())
    while True:
        await store.create(NewTask(media_prefix="a"))
        await store.claim("dead", timedelta(seconds=30), 1, (0, 1, 2))
        print("claimed", flush=True)

asyncio.run(claim_for_ever())
"""


def kill_a_claimer(url: str) -> None:
    """Let another process create and claim tasks, and kill it while it does."""
    with subprocess.Popen([sys.executable, "-c", CLAIMER, url], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in range(5):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)


async def test_a_process_that_is_killed_while_it_writes_leaves_no_lock_behind(
    sql_url: str, open_store: OpenStore
) -> None:
    store = open_store(sql_url)
    kill_a_claimer(sql_url)
    before = (await store.query(TaskQuery())).total_count
    async with asyncio.timeout(5):
        await store.expire_leases_of("dead")
        claimed = await store.claim("next", LEASE, 1000, (0, 1, 2))
    assert len(claimed) == before >= 5
