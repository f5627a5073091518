"""JSON of any size, parsed and serialised without blocking the event loop.

A large body is parsed by the standard library's pure-Python parser in a worker thread. It takes twenty times as long as
the parser in C, but the C parser holds the interpreter lock until it returns, which stops every other request.
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
"""Levels of nested lists and objects. A task's record has seven."""


async def read_object(body: bytes, workers: WorkerThreads, expectation: str) -> dict[str, Any]:
    """Parse a body as a JSON object. Lone surrogates, which UTF-8 cannot encode, become U+FFFD.

    Args:
        body: the bytes as received. They may begin with a UTF-8 byte order mark.
        workers: the threads that parse a large body.
        expectation: the sentence of the error, which says what to send.

    Raises:
        InvalidValue: the body is not JSON in UTF-8 (RFC 8259, §8.1), not an object, or nested too deeply.
    """
    if len(body) < SMALL_BYTES:
        return _object(body, json.JSONDecoder(parse_constant=_reject_constant), expectation)
    return await workers.run(_object, body, _decoder_in_python(), expectation)


def _decoder_in_python() -> json.JSONDecoder:
    decoder: Any = json.JSONDecoder(parse_constant=_reject_constant)
    decoder.scan_once = cast("Any", scanner).py_make_scanner(decoder)
    return cast("json.JSONDecoder", decoder)


def written(value: object) -> Iterator[bytes]:
    """Yield a value as JSON in small pieces."""
    for piece in json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).iterencode(value):
        yield piece.encode()


def _object(body: bytes, decoder: json.JSONDecoder, expectation: str) -> dict[str, Any]:
    try:
        value = _plain(decoder.decode(body.removeprefix(BOM_UTF8).decode()), MAX_DEPTH)
    except (ValueError, RecursionError) as error:
        raise InvalidValue(expectation) from error
    if not isinstance(value, dict):
        raise InvalidValue(expectation)
    return value


def _plain(value: object, depth_left: int) -> object:
    """Return a value that can be written as JSON again.

    Raises:
        ValueError: the value is nested too deeply, or a number is not finite.
    """
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a number is too large for a float")
    if not isinstance(value, dict | list):
        return value
    if not depth_left:
        raise ValueError("the value is nested too deeply")
    if isinstance(value, list):
        return [_plain(item, depth_left - 1) for item in value]
    return {_text(name): _plain(item, depth_left - 1) for name, item in value.items()}


def _text(text: str) -> str:
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _reject_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")
