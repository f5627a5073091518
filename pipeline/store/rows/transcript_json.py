"""A parser of stored transcripts that reads one segment at a time, so that other threads run in between.

Python's JSON parser keeps the interpreter lock for the whole call: 30 MB at once would block every thread for half a
second.
"""

from __future__ import annotations

import json
from typing import Any

_DECODER = json.JSONDecoder()


def transcript_values(text: str) -> Any:
    """Return the values of a stored transcript, as ``json.loads`` would, but read one segment at a time.

    JSON in another layout, with other keys or with blanks, is read in one call.

    Raises:
        ValueError: the text is not JSON.
    """
    try:
        return _values(text)
    except _UnexpectedLayout:
        return json.loads(text)


class _UnexpectedLayout(Exception):
    """A text in another layout than ``transcript_to_json`` writes."""


def _values(text: str) -> dict[str, Any]:
    spoken, at = _value(text, _after('{"text":', text, 0))
    segments, at = _segments(text, _after(',"segments":[', text, at))
    info, at = _value(text, _after('],"info":', text, at))
    if text[at:] != "}":
        raise _UnexpectedLayout
    return {"text": spoken, "segments": segments, "info": info}


def _segments(text: str, at: int) -> tuple[list[Any], int]:
    """Return the items of a list that begins at ``at``, and the index of its closing bracket."""
    items: list[Any] = []
    while not text.startswith("]", at):
        item, at = _value(text, _after(",", text, at) if items else at)
        items.append(item)
    return items, at


def _after(prefix: str, text: str, at: int) -> int:
    if not text.startswith(prefix, at):
        raise _UnexpectedLayout
    return at + len(prefix)


def _value(text: str, at: int) -> tuple[Any, int]:
    try:
        return _DECODER.raw_decode(text, at)
    except ValueError as error:
        raise _UnexpectedLayout from error
