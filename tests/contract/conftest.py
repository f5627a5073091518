"""The task stores of the contract: in memory, on SQLite, and on one private MariaDB for the whole session."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from pipeline.ports import Clock, TaskStore
from pipeline.store.store import SqlTaskStore
from pipeline.testing.clock import ManualClock
from pipeline.testing.store import MemoryTaskStore
from tests.mariadb import MariaDbServer
from tests.s3 import S3Server

AGEING_S = 600.0
IDEMPOTENCY_TTL_S = 3600.0
MAX_LOSSES = 3


def sql_store(url: str, clock: Clock, busy_timeout_s: float = 10.0) -> SqlTaskStore:
    return SqlTaskStore(
        url,
        clock,
        busy_timeout_s=busy_timeout_s,
        idempotency_ttl_s=IDEMPOTENCY_TTL_S,
        ageing_s=AGEING_S,
        max_losses=MAX_LOSSES,
    )


async def _migrate(url: str) -> None:
    store = sql_store(url, ManualClock())
    await store.migrate()
    await store.close()


@pytest.fixture(scope="session")
def mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDbServer]:
    """A running server; without MariaDB the test is skipped, or fails where ``MURMURATION_REQUIRE_MARIADB=1``."""
    try:
        server = MariaDbServer(tmp_path_factory.mktemp("mariadb"))
    except FileNotFoundError as error:
        if os.environ.get("MURMURATION_REQUIRE_MARIADB") == "1":
            pytest.fail(f"{error} MURMURATION_REQUIRE_MARIADB=1 asks for it.")
        pytest.skip(str(error))
    with server:
        yield server


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
    asyncio.run(_migrate(url))
    return url


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("sqlite") / "tasks.db"
    asyncio.run(_migrate(f"sqlite+aiosqlite:///{file}"))
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
