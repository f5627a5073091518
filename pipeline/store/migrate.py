"""Migrations to the schema of this version, run by one process at a time."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, inspect, text

from pipeline.errors import ConfigurationError, DatabaseUnavailable
from pipeline.store.connection.dialects import DatabaseAddress
from pipeline.store.connection.failures import translate_database_errors
from pipeline.store.connection.sqlite_file import DATABASE_LOST, OTHER_DATABASE, IdentityFile, identity_of

MIGRATIONS = Path(__file__).parent / "migrations"
LOCK_TIMEOUT_S = 60.0
"""How long to wait for another process that migrates the database."""


async def migrate(address: DatabaseAddress, busy_timeout_s: float) -> None:
    """Upgrade to the newest revision; do nothing if the database has it.

    Raises:
        DatabaseUnavailable: the database does not answer, another process has been migrating it for too long, or the
            file of an SQLite database was removed or replaced by another store's.
        ConfigurationError: a newer version of this software has migrated it before.
    """
    dialect = address.dialect
    path = dialect.file_of(address.url)
    identity = None if path is None else IdentityFile(path)
    try:
        with translate_database_errors(dialect):
            async with dialect.migration_lock(address.url, LOCK_TIMEOUT_S):
                if identity is not None:
                    identity.refuse_absence()
                await dialect.run_migration(address.url, busy_timeout_s, partial(_upgrade_verified, kept=identity))
    except CommandError as error:
        raise ConfigurationError("The task database was made by a newer version of this software.") from error


def _upgrade_verified(connection: Connection, kept: IdentityFile | None) -> None:
    """Run the missing migrations, unless the database is another one than belongs here."""
    expected = kept.read() if kept else None
    before = identity_of(connection)
    if expected is not None:
        if not inspect(connection).has_table("alembic_version"):
            raise DatabaseUnavailable(DATABASE_LOST)
        if before not in (None, expected):
            raise DatabaseUnavailable(OTHER_DATABASE)
    upgrade(connection)
    if expected is not None and before is None:  # a backup from before stores had an identity
        connection.execute(text("UPDATE store_identity SET identity = :identity"), {"identity": expected})
    elif kept is not None and expected is None:
        kept.write(str(identity_of(connection)))


def upgrade(connection: Connection) -> None:
    """Run the missing migrations over an open connection."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
