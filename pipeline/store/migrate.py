"""Brings a database to the schema of this version, by one process at a time."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from filelock import AsyncFileLock, Timeout
from sqlalchemy import URL, Connection, inspect, text
from sqlalchemy.ext.asyncio import AsyncEngine

from pipeline.durable_files import make_folders
from pipeline.errors import ConfigurationError, DatabaseUnavailable
from pipeline.store.connection.database import (
    DATABASE_BUSY,
    DATABASE_UNWRITABLE,
    single_connection_engine,
    translate_database_errors,
)
from pipeline.store.connection.sqlite_file import DATABASE_LOST, OTHER_DATABASE, IdentityFile, identity_of

MIGRATIONS = Path(__file__).parent / "migrations"
LOCK_TIMEOUT_S = 60.0
"""How long to wait for another process that migrates."""


async def migrate(url: URL, busy_timeout_s: float) -> None:
    """Upgrades to the newest revision; does nothing where it is there already.

    Raises:
        DatabaseUnavailable: the database does not answer, another process has been migrating it for too long, or a file
            of SQLite that was there is gone or replaced by another store's.
        ConfigurationError: a newer version of this software has migrated it before.
    """
    engine = single_connection_engine(url, busy_timeout_s)
    identity = IdentityFile(Path(str(url.database))) if url.get_backend_name() == "sqlite" else None
    turn = _file_lock(url) if url.get_backend_name() == "sqlite" else _server_lock(engine, url)
    try:
        with translate_database_errors():
            async with turn:
                if identity is not None:
                    identity.refuse_absence()
                async with engine.begin() as connection:
                    await connection.run_sync(_upgrade_verified, identity)
    except CommandError as error:
        raise ConfigurationError("The task database was made by a newer version of this software.") from error
    finally:
        await engine.dispose()


def _upgrade_verified(connection: Connection, kept: IdentityFile | None) -> None:
    """Runs the missing migrations, unless the database is not the one that is to be found here."""
    expected = kept.read() if kept else None
    before = identity_of(connection)
    if expected is not None:
        if not inspect(connection).has_table("alembic_version"):
            raise DatabaseUnavailable(DATABASE_LOST)
        if before not in (None, expected):
            raise DatabaseUnavailable(OTHER_DATABASE)
    upgrade(connection)
    if expected is not None and before is None:  # a backup of before stores had an identity
        connection.execute(text("UPDATE store_identity SET identity = :identity"), {"identity": expected})
    elif kept is not None and expected is None:
        kept.write(str(identity_of(connection)))


def upgrade(connection: Connection) -> None:
    """Runs the missing migrations over an open connection."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


@asynccontextmanager
async def _file_lock(url: URL) -> AsyncIterator[None]:
    """Holds a lock file beside the SQLite database, whose folder is made where it is missing."""
    database = Path(str(url.database))
    try:
        make_folders(database.parent)
        lock = AsyncFileLock(database.with_name(f"{database.name}.migrating"), timeout=LOCK_TIMEOUT_S)
        await lock.acquire()
    except Timeout as error:
        raise DatabaseUnavailable(DATABASE_BUSY) from error
    except OSError as error:
        raise DatabaseUnavailable(DATABASE_UNWRITABLE) from error
    try:
        yield
    finally:
        await lock.release()


@asynccontextmanager
async def _server_lock(engine: AsyncEngine, url: URL) -> AsyncIterator[None]:
    """Holds a named lock of the MySQL server, which goes with the connection if this process dies."""
    name = f"murmuration.{hashlib.sha256(str(url.database).encode()).hexdigest()[:32]}"
    async with engine.connect() as connection:
        turn = await connection.execute(
            text("SELECT GET_LOCK(:name, :timeout_s)"), {"name": name, "timeout_s": LOCK_TIMEOUT_S}
        )
        if turn.scalar_one() != 1:
            raise DatabaseUnavailable(DATABASE_BUSY)
        try:
            yield
        finally:
            await connection.execute(text("SELECT RELEASE_LOCK(:name)"), {"name": name})
