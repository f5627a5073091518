"""Streaming parsing of forms with recordings.

A recording passes from the socket to the media store block by block; fields may precede or follow it. FastAPI's own
``UploadFile`` would spool the whole body to disk before the handler runs.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from deployments.api.concurrency.event_loop import SLICE_BYTES, LoopBudget, slices
from deployments.api.request.body import MAX_FIELDS, MAX_FORM_BYTES, RequestBody, read_urlencoded
from pipeline.domain.text.file_names import plain_file_name
from pipeline.errors import (
    InvalidValue,
    RequestError,
    SourceMissing,
    UnsupportedMediaType,
    UploadInterrupted,
    UploadTooLarge,
)

FILE_PARTS = ("file_upload", "file")
MAX_BOUNDARY = 256
MAX_PARTS = MAX_FIELDS + 20
"""Parts of a multipart body, including those that a browser sends for empty file fields."""
MAX_NAME_BYTES = 200
"""Length of a field's name. The parser limits the headers of a part: eight, of 4 KiB each."""
MAX_FIELD_BYTES = 64 * 1024
MAX_AROUND_BYTES = 64 * 1024
"""Bytes before the first part of a multipart body and after its last. They are ignored."""

RECORDING_EXPECTED = (
    "Send the recording as multipart/form-data, in a part named file_upload or file; options may be form fields too."
)

_EXTENDED_NAME = re.compile(r";\s*filename\*\s*=\s*\"?utf-8'[^']*'([^;\"\s]+)", re.IGNORECASE)

_ESCAPES = {"%22": '"', "%0D": "\r", "%0A": "\n", "%09": "\t"}
_ESCAPED = re.compile("|".join(_ESCAPES))

FileSink = Callable[[AsyncIterator[bytes], str | None], Awaitable[object]]
"""A function that receives a recording: its bytes as they arrive, and the file name given by the client."""


async def read_form(
    request: Request,
    body: RequestBody,
    sink: FileSink,
    limit_bytes: int,
    items: list[tuple[str, str]] | None = None,
    expectation: str = RECORDING_EXPECTED,
) -> dict[str, str]:
    """Parse a form, passing its file parts to ``sink``. A missing body is an empty form.

    Args:
        request: a request with ``multipart/form-data`` or ``application/x-www-form-urlencoded``.
        body: the request's body, not yet read.
        sink: called for each file part.
        limit_bytes: largest recording. A body with a larger ``Content-Length`` is refused unread.
        items: receives the names and values of the other fields as they arrive.
        expectation: the sentence of the error for another content type, which says what to send.

    Returns:
        The fields that are not files. A repeated name has its last value.

    Raises:
        RequestError: the body has another content type, is malformed, or is too large.
    """
    items = [] if items is None else items
    _check_announced(request, limit_bytes)
    media_type, parameters = parse_options_header(request.headers.get("content-type", ""))
    if media_type == b"multipart/form-data":
        await _read_multipart(body, parameters.get(b"boundary", b""), sink, items)
    elif media_type == b"application/x-www-form-urlencoded":
        items += await read_urlencoded(body)
    else:
        async for _ in body:
            raise UnsupportedMediaType(expectation)
    return dict(items)


def _check_announced(request: Request, limit_bytes: int) -> None:
    announced = request.headers.get("content-length", "")
    if re.fullmatch(r"[0-9]{1,18}", announced) and int(announced) > limit_bytes + MAX_FORM_BYTES:
        raise UploadTooLarge(
            f"The file is too large: the upload has {int(announced):,} bytes and the limit is {limit_bytes:,}."
        )


# --- multipart --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _PartBegin:
    name: str
    file_name: str | None

    @property
    def is_file(self) -> bool:
        return self.name in FILE_PARTS or self.file_name is not None


class _PartEnd:
    """The end of the current part."""


_Event = _PartBegin | bytes | _PartEnd


class _MultipartEvents:
    """A queue of the push parser's events, so that they can be pulled in order."""

    def __init__(self, boundary: bytes) -> None:
        self.queue: deque[_Event] = deque()
        self.ended = False
        self._parts = 0
        self._around_bytes = 0
        self._header = bytearray(), bytearray()
        self._disposition = ""
        if not 0 < len(boundary) <= MAX_BOUNDARY:
            raise RequestError(
                f"A multipart body needs a boundary in its Content-Type, of at most {MAX_BOUNDARY} bytes."
            )
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._part_begin,
                "on_part_data": lambda data, start, end: self.queue.append(data[start:end]),
                "on_part_end": lambda: self.queue.append(_PartEnd()),
                "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_finished,
                "on_end": self._end,
            },
        )

    def feed(self, block: bytes) -> None:
        """Parse a slice. Raises ``RequestError`` at the first violation."""
        if self.ended or not self._parts:
            self._around_bytes += len(block)
        if self._around_bytes > MAX_AROUND_BYTES:
            raise RequestError("The multipart body has too much text before the first part, or after the last one.")
        if self.ended:
            return
        try:
            self._parser.write(block)
        except FormParserError as error:
            raise RequestError("The body is not valid multipart/form-data.") from error

    def _part_begin(self) -> None:
        self._disposition = ""
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise RequestError(f"The form has more than {MAX_PARTS} parts.")

    def _header_end(self) -> None:
        name, value = self._header
        if name.lower() == b"content-disposition":
            self._disposition = value.decode("latin-1")
        self._header = bytearray(), bytearray()

    def _headers_finished(self) -> None:
        _, parameters = parse_options_header(self._disposition)
        if b"name" not in parameters:
            raise RequestError("A part of the multipart body has no name.")
        if len(parameters[b"name"]) > MAX_NAME_BYTES:
            raise RequestError(f"A part of the multipart body has a name of more than {MAX_NAME_BYTES} bytes.")
        name = parameters[b"name"].decode(errors="replace")
        self.queue.append(_PartBegin(name, _file_name(self._disposition, parameters.get(b"filename"))))

    def _end(self) -> None:
        self.ended = True


def _file_name(disposition: str, plain: bytes | None) -> str | None:
    """Return the file name of a part; ``None`` if the part is not a file.

    ``filename*`` (RFC 5987) takes precedence over ``filename``. Forms may not contain it (RFC 7578, §4.2), but .NET's
    clients send it beside an unreadable ``filename``.

    In ``filename``, browsers escape only quotes and line breaks, not even ``%`` (WHATWG HTML, "Multipart form data");
    httpx escapes tabs too. No other percent sequence is therefore decoded.
    """
    if extended := _EXTENDED_NAME.search(disposition):
        return plain_file_name(unquote_to_bytes(extended[1]).decode(errors="replace"))
    if plain is None:
        return None
    return plain_file_name(_ESCAPED.sub(lambda escape: _ESCAPES[escape[0]], plain.decode(errors="replace")))


async def _events(body: RequestBody, boundary: bytes) -> AsyncIterator[_Event]:
    """Yield the begin, the data and the end of each part.

    Raises:
        UploadInterrupted: the body ends before its last boundary.
    """
    events: _MultipartEvents | None = None
    turns = LoopBudget(SLICE_BYTES)
    async for block in body:
        events = events or _MultipartEvents(boundary)
        for piece in slices(block):
            events.feed(piece)
            while events.queue:
                yield events.queue.popleft()
            await turns.spend(len(piece))
    if events is not None and not events.ended:
        raise UploadInterrupted("The body ends in the middle of a part: send it again.")


async def _read_multipart(body: RequestBody, boundary: bytes, sink: FileSink, items: list[tuple[str, str]]) -> None:
    fields_bytes = 0
    async with aclosing(_events(body, boundary)) as events:  # type: ignore[type-var]
        async for part in events:
            assert isinstance(part, _PartBegin)  # noqa: S101 (other events are consumed below)
            if part.is_file:
                await _read_file(part, events, sink)
            elif len(items) < MAX_FIELDS:
                value = await _read_field(part, events, MAX_FORM_BYTES - fields_bytes)
                fields_bytes += len(value)
                items.append((part.name, _text_of(part, value)))
            else:
                raise RequestError(f"The form has more than {MAX_FIELDS} fields.")


async def _read_file(part: _PartBegin, events: AsyncIterator[_Event], sink: FileSink) -> None:
    if part.name not in FILE_PARTS:
        raise InvalidValue("The file must be in a part named file_upload (or file).", part.name[:100])
    first = await anext(events)
    if not isinstance(first, _PartEnd):
        await sink(_part_data(first, events), part.file_name or None)
    elif part.file_name:
        raise SourceMissing("The uploaded file is empty.")
    # An empty part without a file name is a form's file field that was left empty.


async def _part_data(first: Any, events: AsyncIterator[_Event]) -> AsyncIterator[bytes]:
    yield first
    async for event in events:
        if isinstance(event, _PartEnd):
            return
        assert isinstance(event, bytes)  # noqa: S101 (parts don't nest)
        yield event


async def _read_field(part: _PartBegin, events: AsyncIterator[_Event], left_bytes: int) -> bytes:
    value = bytearray()
    while isinstance(event := await anext(events), bytes):
        value += event
        if len(value) > MAX_FIELD_BYTES:
            raise InvalidValue(f"The field is longer than {MAX_FIELD_BYTES:,} bytes.", part.name[:100])
        if len(value) > left_bytes:
            raise UploadTooLarge(f"The fields besides the recording have more than {MAX_FORM_BYTES:,} bytes together.")
    return bytes(value)


def _text_of(part: _PartBegin, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise InvalidValue("The field is not UTF-8 text.", part.name[:100]) from error
