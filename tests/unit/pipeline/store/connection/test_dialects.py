"""The dialects: the URLs that each takes, and the choice between them."""

from __future__ import annotations

import pytest
from sqlalchemy import Column, MetaData, String, Table, select
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.dialects.mysql.mariadb import MariaDBDialect

from pipeline.errors import ConfigurationError
from pipeline.store.connection.dialects import DIALECTS, dialect_of, force_index, parse_url
from pipeline.store.connection.mysql_dialect import MYSQL
from pipeline.store.connection.sqlite_dialect import SQLITE
from pipeline.store.tables import CLIENTS


@pytest.mark.parametrize(
    "url",
    [
        "sqlite+aiosqlite:////var/lib/tasks.db",
        "sqlite:////var/lib/tasks.db",
        "mysql+asyncmy://user:word@host:3307/tasks?charset=utf8mb4",
        "mariadb+asyncmy://host/tasks",
    ],
)
def test_urls_that_can_be_used(url: str) -> None:
    assert parse_url(url).url.render_as_string(hide_password=False) == url


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("postgresql+asyncpg://user:hidden@host/tasks", "must begin with"),
        ("mysql+pymysql://user:hidden@host/tasks", "must begin with"),
        ("sqlite+aiosqlite:///tasks.db", "absolute path"),
        ("sqlite+aiosqlite:///:memory:", "absolute path"),
        ("sqlite+aiosqlite://", "absolute path"),
        ("hidden", "can't be read"),
    ],
)
def test_urls_that_can_not(url: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint) as refusal:
        parse_url(url)
    assert "hidden" not in refusal.value.message


def test_a_dialect_is_chosen_by_the_url_and_by_the_connection() -> None:
    assert parse_url("sqlite+aiosqlite:////var/lib/tasks.db").dialect is dialect_of(sqlite.dialect()) is SQLITE
    assert parse_url("mysql+asyncmy://host/tasks").dialect is dialect_of(mysql.dialect()) is MYSQL
    assert parse_url("mariadb+asyncmy://host/tasks").dialect is dialect_of(MariaDBDialect()) is MYSQL
    assert dialect_of(postgresql.dialect()) is SQLITE  # type: ignore[no-untyped-call]  # its column types serve for printing


def test_only_a_server_locks_rows() -> None:
    upsert = MYSQL.locking_upsert(CLIENTS, {"name": "ann"})
    assert "ON DUPLICATE KEY UPDATE name = VALUES(name)" in str(upsert.compile(dialect=mysql.dialect()))
    assert SQLITE.locking_upsert(CLIENTS, {"name": "ann"}) is None


def test_an_index_is_forced_where_the_database_takes_hints() -> None:
    birds = Table("birds", MetaData(), Column("name", String))
    statement = force_index(select(birds.c.name), birds, "ix_birds_name")
    for dialect in (mysql.dialect(), MariaDBDialect()):
        assert "FORCE INDEX (ix_birds_name)" in str(statement.compile(dialect=dialect))
    assert "INDEX" not in str(statement.compile(dialect=sqlite.dialect()))


def test_table_options_name_their_database() -> None:
    for dialect in DIALECTS:
        names = tuple(driver.partition("+")[0] for driver in dialect.drivers)
        options = {**dialect.table_options, **dialect.unreused_id_options}
        assert all(option.startswith(names) for option in options)
