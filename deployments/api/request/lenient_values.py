"""Tolerant reading of values: alternative spellings whose meaning is clear, in forms, queries and JSON."""

from __future__ import annotations

import json
import re
from codecs import BOM_UTF8
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BeforeValidator

NOT_GIVEN = frozenset({"", "null", "none", "undefined"})
"""Spellings of a missing value in several programming languages."""


def is_blank(value: object) -> bool:
    """Return whether a value is ``None`` or blank text, which means "not given"."""
    return value is None or (isinstance(value, str) and not value.strip())


def is_nothing(value: object) -> bool:
    """Return whether a value of a type other than text means "not given", such as the text ``null``."""
    return is_blank(value) or (isinstance(value, str) and value.strip().lower() in NOT_GIVEN)


def trimmed(value: object) -> object:
    """Return text without surrounding whitespace, and any other value unchanged."""
    return value.strip() if isinstance(value, str) else value


def choice(value: object) -> object:
    """Normalise the spelling of a choice: ``HIGH`` to ``high``, ``.MP3`` to ``mp3``, ``-`` and spaces to ``_``."""
    return re.sub("[- ]+", "_", value.strip().lower().removeprefix(".")) if isinstance(value, str) else value


def json_text(body: bytes) -> bytes:
    """Return a JSON body without its byte order mark; an empty body becomes an empty object."""
    return body.removeprefix(BOM_UTF8).strip() or b"{}"


def listed(value: object) -> object:
    """Return the items of a list given as text with commas or semicolons, as a JSON array, or as one number."""
    if not isinstance(value, str):
        return [value] if isinstance(value, int | float) else value
    if value.strip().startswith("["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return [value.strip()]
    return [part.strip() for part in re.split("[,;]", value)]


def leaves(hint: Any) -> Iterator[Any]:
    """Yield the plain types that a type hint consists of."""
    parts = [part for part in get_args(hint) if isinstance(part, type) or get_args(part)]
    if not parts:
        yield hint
    for part in parts:
        yield from leaves(part)


Choice = BeforeValidator(choice)
Trimmed = BeforeValidator(trimmed)
