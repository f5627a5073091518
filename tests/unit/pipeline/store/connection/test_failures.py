"""Failures of the database, and what they are called."""

from __future__ import annotations

import pytest
from sqlalchemy.exc import OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from pipeline.errors import DatabaseUnavailable
from pipeline.store.connection.database_dialect import DatabaseDialect
from pipeline.store.connection.dialects import DIALECTS
from pipeline.store.connection.failures import (
    DATABASE_BUSY,
    DATABASE_UNWRITABLE,
    UNAVAILABLE,
    translate_database_errors,
)
from pipeline.store.connection.mysql_dialect import MYSQL
from pipeline.store.connection.sqlite_dialect import SQLITE


@pytest.mark.parametrize(
    ("cause", "sentence"),
    [
        (PoolTimeoutError("QueuePool limit"), DATABASE_BUSY),
        (ConnectionResetError("10.0.0.7"), UNAVAILABLE),
        (OSError(), UNAVAILABLE),
    ],
)
@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: type(dialect).__name__)
def test_failures_beneath_the_driver_have_names_too(cause: Exception, sentence: str, dialect: DatabaseDialect) -> None:
    with pytest.raises(DatabaseUnavailable) as refusal, translate_database_errors(dialect):
        raise cause

    assert refusal.value.message == sentence
    assert refusal.value.__cause__ is cause


@pytest.mark.parametrize(
    ("dialect", "cause"),
    [
        (SQLITE, Exception("database or disk is full")),
        (SQLITE, Exception("disk I/O error")),
        (MYSQL, Exception(1021, "Disk full (/data); waiting for someone to free some space")),
        (MYSQL, Exception(1114, "The table 'tasks' is full")),
        (MYSQL, Exception(1030, 'Got error 28 "No space left on device" from storage engine InnoDB')),
        (MYSQL, Exception(1026, "Error writing file '/data/tasks.ibd' (Errcode: 28)")),
    ],
    ids=lambda value: str(value) if isinstance(value, Exception) else type(value).__name__,
)
def test_a_database_without_room_says_where_to_look(dialect: DatabaseDialect, cause: Exception) -> None:
    with pytest.raises(DatabaseUnavailable) as refusal, translate_database_errors(dialect):
        raise OperationalError("INSERT", {}, cause)
    assert refusal.value.message == DATABASE_UNWRITABLE


def test_a_server_that_names_nothing_of_a_file_is_away() -> None:
    with pytest.raises(DatabaseUnavailable, match=UNAVAILABLE), translate_database_errors(MYSQL):
        raise OperationalError("SELECT", {}, Exception(1835, "Malformed communication packet."))


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: type(dialect).__name__)
def test_a_defect_in_a_statement_passes_as_it_is(dialect: DatabaseDialect) -> None:
    with pytest.raises(ProgrammingError), translate_database_errors(dialect):
        raise ProgrammingError("SELEC", {}, Exception(1064, "You have an error in your SQL syntax"))
