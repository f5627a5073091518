"""Columns of rows as checked values: SQLite stores a value of any type in a column, and people repair rows by hand.

An unreadable value is either newer or damaged. A value that a newer version may have written raises ``NewerValue``, and
the row is left to that version: a word, a number or a key of options that this version does not know. Everything else
is damage.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeVar

from pydantic_core import from_json

from pipeline.domain.tasks.record_defect import RecordDefect
from pipeline.domain.tasks.task import TaskError

T = TypeVar("T")
Word = TypeVar("Word", bound=StrEnum)

StoredRow = Mapping[Any, Any]
"""The values of a row by the names of their columns. SQLAlchemy's type has other keys than names too."""

MAX_COUNT = 2_000_000_000
"""Counters are 32 bits wide in MySQL; one beyond this is damage, and raising it would overflow the column."""
MAX_NUMBER = 2**63 - 1
MIN_TIME = datetime(1970, 1, 1, tzinfo=UTC)
"""Stand-in for an unreadable time in a field that must have one."""
UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)
"""Errors that the parsers of this module raise for a damaged value."""
_KEYWORD = re.compile(r"[a-z][a-z0-9_]{0,31}")
"""The form of a word in the vocabulary of any version."""
_RANKS = range(-(2**15), 2**15)
"""The numbers that fit the column of ranks."""


class NewerValue(ValueError):
    """A value that a newer version may have written."""


class RowReader:
    """One row, read column by column; a column that can't be read gets a stand-in and is recorded as a defect.

    Args:
        table: name of the table.
        row: the row's columns.
        key: the column that names the row.
    """

    def __init__(self, table: str, row: StoredRow, key: str = "id") -> None:
        self._table = table
        self._row = row
        self._key = key
        self._defects: list[RecordDefect] = []

    @property
    def defect(self) -> RecordDefect | None:
        """The first defect of the row: a newer version's value, if there is one, before any damage."""
        return next((defect for defect in self._defects if defect.newer), next(iter(self._defects), None))

    def read(self, column: str, parse: Callable[[Any], T], instead: T) -> T:
        """Return the value of a column, or ``instead`` if it can't be read."""
        try:
            return parse(self._row[column])
        except UNREADABLE as error:
            row = str(self._row.get(self._key))[:64]
            self._defects.append(RecordDefect(self._table, column, row, isinstance(error, NewerValue)))
            return instead


def read_error(reader: RowReader, code_column: str, message_column: str) -> TaskError | None:
    """Return the error in two columns of a row; ``None`` if there is no code."""
    code = reader.read(code_column, optional(text), None)
    message = reader.read(message_column, optional(text), None)
    return TaskError(code, message or "") if code else None


def text(value: Any) -> str:
    """Return a text that can be encoded as UTF-8."""
    if not isinstance(value, str):
        raise TypeError("not a text")
    if not value.isascii():
        value.encode()
    return value


def moment(value: Any) -> datetime:
    """Return a time."""
    if not isinstance(value, datetime):
        raise TypeError("not a time")
    return value


def number(value: Any, largest: int = MAX_NUMBER) -> int:
    """Return a whole number that is not negative."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError("not a whole number")
    if not 0 <= value <= largest:
        raise ValueError("out of range")
    return value


def count(value: Any) -> int:
    """Return a counter that can still be raised."""
    return number(value, MAX_COUNT)


def amount(value: Any) -> float:
    """Return a finite number that is not negative, such as a number of seconds."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("not a number")
    if not math.isfinite(value) or value < 0:
        raise ValueError("out of range")
    return float(value)


def flag(value: Any) -> bool:
    """Return a boolean; SQLite stores one as 0 or 1."""
    if value not in (True, False):
        raise TypeError("neither true nor false")
    return bool(value)


def optional(parse: Callable[[Any], T]) -> Callable[[Any], T | None]:
    """Return a parser that also accepts ``NULL``."""
    return lambda value: None if value is None else parse(value)


def media_prefix(value: Any) -> str:
    """Return the name of a folder that can't lead out of the media store."""
    name = text(value)
    if "\\" in name or "\0" in name or any(part in ("", ".", "..") for part in name.split("/")):
        raise ValueError("not a folder of the media store")
    return name


def keyword(kind: type[Word]) -> Callable[[Any], Word]:
    """Return a parser of an enumeration's words."""
    words = {word.value: word for word in kind}

    def parse(value: Any) -> Word:
        name = text(value)
        if name in words:
            return words[name]
        if _KEYWORD.fullmatch(name):
            raise NewerValue("a word this version does not know")
        raise ValueError("not a word")

    return parse


def rank(known: Mapping[int, T]) -> Callable[[Any], T]:
    """Return a parser of ranks."""

    def parse(value: Any) -> T:
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError("not a rank")
        if value in known:
            return known[value]
        if value in _RANKS:
            raise NewerValue("a rank this version does not know")
        raise ValueError("not a rank")

    return parse


def json_of(value: Any) -> Any:
    """Return the value that a JSON text holds."""
    return from_json(text(value))


def json_object(value: Any) -> dict[str, Any]:
    """Return the object that a JSON text holds."""
    data = json_of(value)
    if not isinstance(data, dict):
        raise TypeError("not an object")
    return data


def refuse_newer(data: Mapping[str, Any], known: Collection[str], words: Mapping[str, type[StrEnum]]) -> None:
    """Raise ``NewerValue`` for a key that this version does not know, or a word under a key that it does."""
    if any(name not in known for name in data):
        raise NewerValue("a key this version does not know")
    for name, kind in words.items():
        value = data.get(name)
        if isinstance(value, str) and value not in tuple(kind) and _KEYWORD.fullmatch(value):
            raise NewerValue("a word this version does not know")
