"""The task stores of the contract: in memory, on SQLite, and on one private MariaDB for the whole session."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from pipeline.ports import TaskStore
from pipeline.testing.manual_clock import ManualClock
from pipeline.testing.memory_task_store import MemoryTaskStore
from tests.support.mariadb import MariaDbServer
from tests.support.s3 import S3Server
from tests.support.stores import AGEING_S, IDEMPOTENCY_TTL_S, MAX_LOSSES, migrate, sql_store


@pytest.fixture(scope="session")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of an empty bucket, on a private S3 server."""
    with S3Server(tmp_path_factory.mktemp("s3")) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server.create_bucket("media")


@pytest.fixture(scope="session")
def migrated_mysql(mariadb: MariaDbServer) -> str:
    url = mariadb.create_database("contract")
    asyncio.run(migrate(sql_store(url, ManualClock())))
    return url


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("sqlite") / "tasks.db"
    asyncio.run(migrate(sql_store(f"sqlite+aiosqlite:///{file}", ManualClock())))
    return file


@pytest.fixture
def mysql_url(mariadb: MariaDbServer, migrated_mysql: str) -> str:
    """URL of the session's MySQL database, without a task in it."""
    for table in ("tasks", "uploads", "taken_audio", "extracted_audio", "clients"):
        mariadb.execute(f"DELETE FROM contract.{table}")
    return migrated_mysql


@pytest.fixture
def sqlite_url(migrated_sqlite: Path, tmp_path: Path) -> str:
    """URL of an SQLite database of the test's own."""
    shutil.copy(migrated_sqlite, tmp_path / "tasks.db")
    return f"sqlite+aiosqlite:///{tmp_path / 'tasks.db'}"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["sqlite", "mysql"])
def sql_url(request: pytest.FixtureRequest) -> str:
    """URL of an empty, migrated database."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture(params=["memory", "sqlite", "mysql"])
def make_store(request: pytest.FixtureRequest, clock: ManualClock) -> Callable[[], TaskStore]:
    """Opens stores over one and the same database."""
    if request.param == "memory":
        only = MemoryTaskStore(clock, idempotency_ttl_s=IDEMPOTENCY_TTL_S, ageing_s=AGEING_S, max_losses=MAX_LOSSES)
        return lambda: only
    url: str = request.getfixturevalue(f"{request.param}_url")
    return lambda: sql_store(url, clock)


@pytest.fixture
async def store(make_store: Callable[[], TaskStore]) -> AsyncIterator[TaskStore]:
    opened = make_store()
    yield opened
    await opened.close()


@pytest.fixture
async def other_store(make_store: Callable[[], TaskStore]) -> AsyncIterator[TaskStore]:
    """Another process's view of the same database."""
    opened = make_store()
    yield opened
    await opened.close()
