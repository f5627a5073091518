"""JSON of any size and content, read and written without holding up the event loop.

A large body is read by the standard library's parser in Python instead of the one in C, which would hold the
interpreter until it is done: it takes twenty times as long, in a worker thread, while others go on.
"""

from __future__ import annotations

import json
import math
from codecs import BOM_UTF8
from collections.abc import Iterator
from json import scanner
from typing import Any, cast

from deployments.api.concurrency.event_loop import SMALL_BYTES, WorkerThreads
from pipeline.errors import InvalidValue

MAX_DEPTH = 64
"""Lists and objects inside each other; a task's record has seven."""


async def read_object(body: bytes, workers: WorkerThreads, what: str) -> dict[str, Any]:
    """Return a body that is a JSON object, with U+FFFD for what no text in UTF-8 can have: halves of surrogate pairs.

    Args:
        body: as it came; a byte order mark of UTF-8 may stand before it.
        workers: read it, if it is large.
        what: the sentence that says what is wanted.

    Raises:
        InvalidValue: it is not JSON in UTF-8 (RFC 8259, §8.1), is no object, or is nested too deep.
    """
    if len(body) < SMALL_BYTES:
        return _object(body, json.JSONDecoder(parse_constant=_no_number), what)
    return await workers.run(_object, body, _decoder_in_python(), what)


def _decoder_in_python() -> json.JSONDecoder:
    decoder: Any = json.JSONDecoder(parse_constant=_no_number)
    decoder.scan_once = cast("Any", scanner).py_make_scanner(decoder)
    return cast("json.JSONDecoder", decoder)


def written(value: object) -> Iterator[bytes]:
    """Yield a value as JSON, in small pieces."""
    for piece in json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).iterencode(value):
        yield piece.encode()


def _object(body: bytes, decoder: json.JSONDecoder, what: str) -> dict[str, Any]:
    try:
        value = _plain(decoder.decode(body.removeprefix(BOM_UTF8).decode()), MAX_DEPTH)
    except (ValueError, RecursionError) as error:
        raise InvalidValue(what) from error
    if not isinstance(value, dict):
        raise InvalidValue(what)
    return value


def _plain(value: object, depth_left: int) -> object:
    """Return a value as it can be written. Raises ``ValueError`` for what is too deep, or too large a number."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a number is larger than any")
    if not isinstance(value, dict | list):
        return value
    if not depth_left:
        raise ValueError("it is nested too deep")
    if isinstance(value, list):
        return [_plain(item, depth_left - 1) for item in value]
    return {_text(name): _plain(item, depth_left - 1) for name, item in value.items()}


def _text(text: str) -> str:
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is not JSON")
