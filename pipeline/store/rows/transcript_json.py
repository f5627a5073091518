"""Stored JSON read in steps, so that other threads get their turn while a transcript of hours is read.

A call into the interpreter's own parser is not interrupted: 30 MB at once would hold up every thread for half a second.
"""

from __future__ import annotations

import json
from typing import Any

_DECODER = json.JSONDecoder()


def transcript_values(text: str) -> Any:
    """Return what ``json.loads`` would of a stored transcript, a segment at a time.

    JSON that is written otherwise, in another order or with blanks, is read at once.

    Raises:
        ValueError: it is no JSON.
    """
    try:
        return _values(text)
    except _UnexpectedLayout:
        return json.loads(text)


class _UnexpectedLayout(Exception):
    """The text is not as ``codec.to_json`` writes it."""


def _values(text: str) -> dict[str, Any]:
    spoken, at = _value(text, _after('{"text":', text, 0))
    segments, at = _segments(text, _after(',"segments":[', text, at))
    info, at = _value(text, _after('],"info":', text, at))
    if text[at:] != "}":
        raise _UnexpectedLayout
    return {"text": spoken, "segments": segments, "info": info}


def _segments(text: str, at: int) -> tuple[list[Any], int]:
    """Return the items of a list that begins behind its bracket, and where its closing bracket is."""
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
