"""A mark that one process holds in a database server and others can see: whether both mean the same server.

It is a named lock, which belongs to the server, is gone with the connection that holds it, and needs no table.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from pipeline.errors import DatabaseUnavailable
from pipeline.store.connection.database import parse_url

LONGEST_NAME = 64
"""Characters of a name that MySQL takes."""


@asynccontextmanager
async def hold_database_id(url: str, name: str) -> AsyncIterator[None]:
    """Holds the mark while the block runs; does nothing for SQLite, which has no server.

    Raises:
        DatabaseUnavailable: the server can't be reached.
    """
    engine = _engine(url)
    if engine is None:
        yield
        return
    try:
        connection = await engine.connect()
    except (SQLAlchemyError, OSError) as error:
        await engine.dispose()
        raise DatabaseUnavailable("The database does not answer.") from error
    try:
        await connection.execute(text("SELECT GET_LOCK(:name, 0)"), {"name": name[:LONGEST_NAME]})
        yield
    finally:
        await connection.close()
        await engine.dispose()


async def database_id_is_held(url: str, name: str) -> bool:
    """Whether somebody holds the mark in the server that the URL means from here; always true for SQLite."""
    engine = _engine(url)
    if engine is None:
        return True
    try:
        async with engine.connect() as connection:
            holder = await connection.scalar(text("SELECT IS_USED_LOCK(:name)"), {"name": name[:LONGEST_NAME]})
        return holder is not None
    except (SQLAlchemyError, OSError):
        return False
    finally:
        await engine.dispose()


def _engine(url: str) -> AsyncEngine | None:
    parsed = parse_url(url)
    if parsed.get_backend_name() == "sqlite":
        return None
    return create_async_engine(parsed, poolclass=NullPool, connect_args={"connect_timeout": 10})
