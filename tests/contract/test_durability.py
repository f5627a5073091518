"""The settings that a MySQL server needs, so that a power cut loses no accepted task."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from pipeline.domain.durability import Durability
from pipeline.store.connection.database_access import Database
from pipeline.store.connection.dialects import parse_url
from tests.support.mariadb import MariaDbServer

FLUSH = "innodb_flush_log_at_trx_commit"


@pytest.fixture
def server(mariadb: MariaDbServer) -> Iterator[MariaDbServer]:
    """The session's server, whose log is flushed once a second again afterwards, as its tests like it."""
    yield mariadb
    mariadb.execute(f"SET GLOBAL {FLUSH} = 2")


async def warnings(url: str, durability: Durability, caplog: pytest.LogCaptureFixture) -> list[str]:
    caplog.clear()
    database = Database(parse_url(url), 10.0, durability)
    with caplog.at_level(logging.WARNING, "pipeline"):
        await database.warn_of_lossy_server()
    await database.close()
    return [record.getMessage() for record in caplog.records if record.name.startswith("pipeline")]


@pytest.mark.parametrize(("value", "warned"), [(0, True), (1, False), (2, True)])
async def test_a_server_that_may_lose_commits_is_named(
    server: MariaDbServer, mysql_url: str, caplog: pytest.LogCaptureFixture, value: int, warned: bool
) -> None:
    server.execute(f"SET GLOBAL {FLUSH} = {value}")
    found = await warnings(mysql_url, Durability.FULL, caplog)
    assert [f"{FLUSH}={value}" in sentence for sentence in found] == [True] * warned
    assert await warnings(mysql_url, Durability.NORMAL, caplog) == []


async def test_sqlite_needs_no_warning(sqlite_url: str, caplog: pytest.LogCaptureFixture) -> None:
    assert await warnings(sqlite_url, Durability.FULL, caplog) == []
