"""The dialects that the task store knows, and the choice between them. Another database is one more dialect here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import URL, Dialect, Select, Table, make_url
from sqlalchemy.exc import ArgumentError

from pipeline.errors import ConfigurationError
from pipeline.store.connection.database_dialect import DatabaseDialect
from pipeline.store.connection.mysql_dialect import MYSQL
from pipeline.store.connection.sqlite_dialect import SQLITE

DIALECTS: tuple[DatabaseDialect, ...] = (SQLITE, MYSQL)
_BY_DRIVER = {driver: dialect for dialect in DIALECTS for driver in dialect.drivers}
_BY_NAME = {driver.partition("+")[0]: dialect for driver, dialect in _BY_DRIVER.items()}

TABLE_OPTIONS: Mapping[str, Any] = {
    name: value for dialect in DIALECTS for name, value in dialect.table_options.items()
}
"""Options of every table; SQLAlchemy picks those of the database at hand by their names."""
UNREUSED_ID_OPTIONS: Mapping[str, Any] = {
    name: value for dialect in DIALECTS for name, value in dialect.unreused_id_options.items()
}
"""Options of a table that never gives the id of a deleted row to another row."""


@dataclass(frozen=True, slots=True)
class DatabaseAddress:
    """A database: its URL and its dialect."""

    url: URL
    dialect: DatabaseDialect


def parse_url(url: str) -> DatabaseAddress:
    """Return the database of a URL. Raises ``ConfigurationError`` for one that the store can't use."""
    try:
        parsed = make_url(url)
    except ArgumentError:  # its text may hold the password
        raise ConfigurationError("The database URL can't be read.") from None
    dialect = _BY_DRIVER.get(parsed.drivername)
    if dialect is None:
        beginnings = " or ".join(f"{each.drivers[0]}://" for each in DIALECTS)
        raise ConfigurationError(f"The database URL must begin with {beginnings}.")
    dialect.verify_url(parsed)
    return DatabaseAddress(parsed, dialect)


def dialect_of(dialect: Dialect) -> DatabaseDialect:
    """Return our dialect for SQLAlchemy's, such as that of a connection.

    SQLAlchemy's dialect for printing statements counts as SQLite's, whose column types are the general ones.
    """
    return _BY_NAME.get(dialect.name, SQLITE)


def force_index(statement: Select[Any], table: Table, index: str) -> Select[Any]:
    """Return the statement with the hints to read a table by an index, of every database that takes hints."""
    for dialect in DIALECTS:
        statement = dialect.force_index(statement, table, index)
    return statement
