"""A named lock that one node holds in a database server, so that others can check that they reach the same server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.exc import SQLAlchemyError

from pipeline.errors import DatabaseUnavailable
from pipeline.store.connection.dialects import parse_url


@asynccontextmanager
async def hold_database_id(url: str, name: str) -> AsyncIterator[None]:
    """Hold the lock while the block runs; do nothing for SQLite, which has no server.

    Raises:
        DatabaseUnavailable: the server can't be reached.
    """
    address = parse_url(url)
    server = address.dialect.server
    if server is None:
        yield
        return
    engine = server.open_unpooled(address.url)
    try:
        connection = await engine.connect()
    except (SQLAlchemyError, OSError) as error:
        await engine.dispose()
        raise DatabaseUnavailable("The database does not answer.") from error
    try:
        await connection.run_sync(server.take_lock, name, timeout_s=0)
        yield
    finally:
        await connection.close()
        await engine.dispose()


async def database_id_is_held(url: str, name: str) -> bool:
    """Return whether any process holds the lock in the server that the URL leads to from here; true for SQLite."""
    address = parse_url(url)
    server = address.dialect.server
    if server is None:
        return True
    engine = server.open_unpooled(address.url)
    try:
        async with engine.connect() as connection:
            return await connection.run_sync(server.is_locked, name)
    except (SQLAlchemyError, OSError):
        return False
    finally:
        await engine.dispose()
