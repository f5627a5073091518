"""The named lock by which nodes see that they reach the same database server."""

from __future__ import annotations

import pytest

from pipeline.errors import DatabaseUnavailable
from pipeline.store.connection.storage_id import database_id_is_held, hold_database_id

LONG = "murmuration-" + "x" * 80


@pytest.mark.parametrize("name", ["murmuration-1", LONG])
async def test_a_lock_is_seen_while_it_is_held(mysql_url: str, name: str) -> None:
    assert not await database_id_is_held(mysql_url, name)
    async with hold_database_id(mysql_url, name):
        assert await database_id_is_held(mysql_url, name)
        assert not await database_id_is_held(mysql_url, "another")
    assert not await database_id_is_held(mysql_url, name)


async def test_no_lock_is_held_in_a_server_that_is_away(mysql_url: str, free_port: int) -> None:
    elsewhere = f"mysql+asyncmy://u:p@127.0.0.1:{free_port}/m"
    assert not await database_id_is_held(elsewhere, "murmuration-1")
    with pytest.raises(DatabaseUnavailable):
        async with hold_database_id(elsewhere, "murmuration-1"):
            pass


async def test_a_file_needs_no_lock(sqlite_url: str) -> None:
    async with hold_database_id(sqlite_url, "murmuration-1"):
        assert await database_id_is_held(sqlite_url, "murmuration-1")
