"""Values whose meaning is plain, in other spellings than ours: what a form, a query or JSON may say for them."""

from __future__ import annotations

import json
import re
from codecs import BOM_UTF8
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BeforeValidator

NOT_GIVEN = frozenset({"", "null", "none", "undefined"})
"""Spellings, in several programming languages, of a value that a client does not have."""


def is_blank(value: object) -> bool:
    """Return whether a value was not given: ``None``, or text without anything in it."""
    return value is None or (isinstance(value, str) and not value.strip())


def is_nothing(value: object) -> bool:
    """Return whether a value that can't be text was not given, though its client wrote something for it."""
    return is_blank(value) or (isinstance(value, str) and value.strip().lower() in NOT_GIVEN)


def trimmed(value: object) -> object:
    """Return text without the blanks around it, anything else as it is."""
    return value.strip() if isinstance(value, str) else value


def choice(value: object) -> object:
    """Return a choice as ours are written: ``HIGH`` as ``high``, ``.MP3`` as ``mp3``, ``faster-whisper`` with ``_``."""
    return re.sub("[- ]+", "_", value.strip().lower().removeprefix(".")) if isinstance(value, str) else value


def json_text(body: bytes) -> bytes:
    """Return a body of JSON without a byte order mark; an empty one is an empty object."""
    return body.removeprefix(BOM_UTF8).strip() or b"{}"


def listed(value: object) -> object:
    """Return the items of a list that may be text with commas or semicolons, a JSON array, or one number."""
    if not isinstance(value, str):
        return [value] if isinstance(value, int | float) else value
    if value.strip().startswith("["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return [value.strip()]
    return [part.strip() for part in re.split("[,;]", value)]


def leaves(hint: Any) -> Iterator[Any]:
    """Yield the types that a type hint is made of."""
    parts = [part for part in get_args(hint) if isinstance(part, type) or get_args(part)]
    if not parts:
        yield hint
    for part in parts:
        yield from leaves(part)


Choice = BeforeValidator(choice)
Trimmed = BeforeValidator(trimmed)
