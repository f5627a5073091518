"""Column types on each kind of database."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from sqlalchemy.dialects import mysql, sqlite

from pipeline.store.connection.column_types import UtcDateTime


def test_times_are_kept_as_utc() -> None:
    column, dialect = UtcDateTime(), sqlite.dialect()
    berlin = datetime(2025, 7, 1, 14, 0, 0, 123456, tzinfo=timezone(timedelta(hours=2)))

    kept = column.process_bind_param(berlin, dialect)

    assert kept == datetime(2025, 7, 1, 12, 0, 0, 123456)  # noqa: DTZ001  # what the column holds
    assert str(column.process_result_value(kept, dialect)) == "2025-07-01 12:00:00.123456+00:00"
    assert column.process_bind_param(None, dialect) is column.process_result_value(None, dialect) is None


def test_a_naive_time_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        UtcDateTime().process_bind_param(datetime(2025, 7, 1), sqlite.dialect())  # noqa: DTZ001  # on purpose


def test_mysql_keeps_microseconds() -> None:
    assert UtcDateTime().compile(dialect=mysql.dialect()) == "DATETIME(6)"
