"""Types of columns whose name or behaviour differs between databases."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, DateTime, Dialect, Text
from sqlalchemy.types import TypeDecorator, TypeEngine
from typing_extensions import override

from pipeline.store.connection.dialects import dialect_of


class UtcDateTime(TypeDecorator[datetime]):
    """An aware time, stored as UTC to the microsecond; a naive time is refused."""

    impl = DateTime
    cache_ok = True

    @override
    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(dialect_of(dialect).column_types.time)

    @override
    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert to UTC and remove the offset, which no column would keep."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("A time without an offset can't be stored, because its time zone is unknown.")
        return value.astimezone(UTC).replace(tzinfo=None)

    @override
    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value if value is None else value.replace(tzinfo=UTC)

    @override
    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:
        """Return a function that passes on a value that is no time: it must not keep the other rows from being read."""
        parse = self.impl_instance.result_processor(dialect, coltype)

        def read(value: Any) -> Any:
            try:
                moment = parse(value) if parse else value
            except (ValueError, TypeError):
                return value
            is_time = isinstance(moment, datetime) and moment.tzinfo is None
            return self.process_result_value(moment, dialect) if is_time else value

        return read


class LongText(TypeDecorator[str]):
    """Text of any length."""

    impl = Text
    cache_ok = True

    @override
    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(dialect_of(dialect).column_types.long_text)


class IndexedText(TypeDecorator[str]):
    """Text of up to 255 characters that an index can hold."""

    impl = Text
    cache_ok = True

    @override
    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(dialect_of(dialect).column_types.indexed_text)


class RowId(TypeDecorator[int]):
    """A 64-bit id that the database counts up."""

    impl = BigInteger
    cache_ok = True

    @override
    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(dialect_of(dialect).column_types.row_id)
