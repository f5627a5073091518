"""Bodies of requests, read as they arrive.

A recording passes from the socket to the media store block by block; fields may come before or after it. FastAPI's own
``UploadFile`` would spool the whole body to disk before the handler runs.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote_to_bytes

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from deployments.api.concurrency.event_loop import SLICE_BYTES, SMALL_BYTES, LoopBudget, WorkerThreads, slices
from pipeline.domain.text.file_names import plain_file_name
from pipeline.errors import (
    InvalidValue,
    RequestError,
    SourceMissing,
    UnsupportedMediaType,
    UploadInterrupted,
    UploadTooLarge,
)

FORM_TYPE = "application/x-www-form-urlencoded"
FILE_PARTS = ("file_upload", "file")
MAX_BOUNDARY = 256
MAX_FIELDS = 200
MAX_PARTS = MAX_FIELDS + 20
"""Parts of a multipart body, those that a browser sends for file fields left empty included."""
MAX_NAME_BYTES = 200
"""Of a field's name. The headers of a part are bounded by the parser: eight, of 4 KiB each."""
MAX_FIELD_BYTES = 64 * 1024
MAX_FORM_BYTES = 1024 * 1024
"""Largest body without a recording in it, and what a multipart body may hold beside the recording."""
MAX_AROUND_BYTES = 64 * 1024
"""What may stand before the first part of a multipart body, or after the last: nobody reads it."""

RECORDING_WANTED = (
    "Send the recording as multipart/form-data, in a part named file_upload or file; options may be form fields too."
)

_EXTENDED_NAME = re.compile(r";\s*filename\*\s*=\s*\"?utf-8'[^']*'([^;\"\s]+)", re.IGNORECASE)

_ESCAPES = {"%22": '"', "%0D": "\r", "%0A": "\n", "%09": "\t"}
_ESCAPED = re.compile("|".join(_ESCAPES))

FileSink = Callable[[AsyncIterator[bytes], str | None], Awaitable[object]]
"""Takes a recording's bytes as they come, and the name its client gave it."""


class RequestBody:
    """A request's body as a stream of blocks that can be taken up again where it was left.

    Raises:
        UploadInterrupted: the client went away.
    """

    def __init__(self, request: Request) -> None:
        self._blocks = request.stream()
        self.workers: WorkerThreads = request.app.state.services.workers

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for block in self._blocks:
                if block:
                    yield block
        except ClientDisconnect as error:
            raise UploadInterrupted("The connection ended in the middle of the upload: send it again.") from error

    async def read(self, limit_bytes: int) -> bytes:
        """All of it. Raises ``UploadTooLarge`` beyond the limit."""
        content = bytearray()
        async for block in self:
            content += block
            if len(content) > limit_bytes:
                raise UploadTooLarge(
                    f"The body is too large: {len(content):,} bytes have arrived and the limit is {limit_bytes:,}."
                )
        return bytes(content)


@asynccontextmanager
async def open_body(request: Request) -> AsyncIterator[RequestBody]:
    """The request's body. What is left of it after an error is ``hardening.BodyLimitMiddleware``' to drain."""
    yield RequestBody(request)


async def read_form(
    request: Request,
    body: RequestBody,
    sink: FileSink,
    limit_bytes: int,
    items: list[tuple[str, str]] | None = None,
    wanted: str = RECORDING_WANTED,
) -> dict[str, str]:
    """Reads a form, its file part (if there is one) into ``sink``; an absent body is an empty form.

    Args:
        request: ``multipart/form-data`` or ``application/x-www-form-urlencoded``.
        body: the request's body, not yet read.
        sink: called for each file part.
        limit_bytes: largest recording; a body announced as larger is refused unread.
        items: filled, as they come, with the names and values of the fields that are not files.
        wanted: the sentence that refuses a body of another type; says what to send.

    Returns:
        The fields that are not files. A name that comes twice has its last value.

    Raises:
        RequestError: a body that is neither, is broken, or is too large.
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
            raise UnsupportedMediaType(wanted)
    return dict(items)


def _check_announced(request: Request, limit_bytes: int) -> None:
    announced = request.headers.get("content-length", "")
    if re.fullmatch(r"[0-9]{1,18}", announced) and int(announced) > limit_bytes + MAX_FORM_BYTES:
        raise UploadTooLarge(
            f"The file is too large: the upload has {int(announced):,} bytes and the limit is {limit_bytes:,}."
        )


async def read_urlencoded(body: RequestBody) -> list[tuple[str, str]]:
    """Return the names and values of a form that is the body. Raises as ``parse_urlencoded``."""
    content = await body.read(MAX_FORM_BYTES)
    if len(content) < SMALL_BYTES:
        return parse_urlencoded(content)
    return await body.workers.run(parse_urlencoded, content)


def parse_urlencoded(body: bytes) -> list[tuple[str, str]]:
    """Return the names and values of a form's fields. Raises ``RequestError`` for a form that can't be read."""
    try:
        return parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict")
    except ValueError as error:
        raise RequestError("The form can't be read: it has too many fields, or is not UTF-8.") from error


# --- multipart --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _PartBegin:
    name: str
    file_name: str | None

    @property
    def is_file(self) -> bool:
        return self.name in FILE_PARTS or self.file_name is not None


class _PartEnd:
    """The part that was begun is complete."""


_Event = _PartBegin | bytes | _PartEnd


class _MultipartEvents:
    """What the push parser finds, in order, to be pulled."""

    def __init__(self, boundary: bytes) -> None:
        self.found: deque[_Event] = deque()
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
                "on_part_data": lambda data, start, end: self.found.append(data[start:end]),
                "on_part_end": lambda: self.found.append(_PartEnd()),
                "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_finished,
                "on_end": self._end,
            },
        )

    def feed(self, block: bytes) -> None:
        """Parse a slice. Raises ``RequestError`` at the byte that goes too far."""
        if self.ended or not self._parts:
            self._around_bytes += len(block)
        if self._around_bytes > MAX_AROUND_BYTES:
            raise RequestError("The multipart body has more than its parts: text before the first, or after the last.")
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
        self.found.append(_PartBegin(name, _file_name(self._disposition, parameters.get(b"filename"))))

    def _end(self) -> None:
        self.ended = True


def _file_name(disposition: str, plain: bytes | None) -> str | None:
    """Return the name of a part's file, if the part is one.

    ``filename*`` (RFC 5987) goes before ``filename``: a form may not have it (RFC 7578, §4.2), but .NET's clients send
    it beside a ``filename`` that no one can read.

    Browsers escape quotes and line breaks in ``filename`` and nothing else, not even ``%`` (WHATWG HTML, "Multipart
    form data"); httpx escapes tabs too. So no other percent sequence is decoded.
    """
    if extended := _EXTENDED_NAME.search(disposition):
        return plain_file_name(unquote_to_bytes(extended[1]).decode(errors="replace"))
    if plain is None:
        return None
    return plain_file_name(_ESCAPED.sub(lambda escape: _ESCAPES[escape[0]], plain.decode(errors="replace")))


async def _events(body: RequestBody, boundary: bytes) -> AsyncIterator[_Event]:
    """Begin, data and end of each part. Raises ``UploadInterrupted`` where the body stops before its last boundary."""
    events: _MultipartEvents | None = None
    turns = LoopBudget(SLICE_BYTES)
    async for block in body:
        events = events or _MultipartEvents(boundary)
        for piece in slices(block):
            events.feed(piece)
            while events.found:
                yield events.found.popleft()
            await turns.spend(len(piece))
    if events is not None and not events.ended:
        raise UploadInterrupted("The body ends before its last part does: send it again.")


async def _read_multipart(body: RequestBody, boundary: bytes, sink: FileSink, items: list[tuple[str, str]]) -> None:
    fields_bytes = 0
    async with aclosing(_events(body, boundary)) as events:  # type: ignore[type-var]
        async for part in events:
            assert isinstance(part, _PartBegin)  # noqa: S101 (the others are consumed below)
            if part.is_file:
                await _take_file(part, events, sink)
            elif len(items) < MAX_FIELDS:
                value = await _take_field(part, events, MAX_FORM_BYTES - fields_bytes)
                fields_bytes += len(value)
                items.append((part.name, _text_of(part, value)))
            else:
                raise RequestError(f"The form has more than {MAX_FIELDS} fields.")


async def _take_file(part: _PartBegin, events: AsyncIterator[_Event], sink: FileSink) -> None:
    if part.name not in FILE_PARTS:
        raise InvalidValue("The file must be in a part named file_upload (or file).", part.name[:100])
    first = await anext(events)
    if not isinstance(first, _PartEnd):
        await sink(_part_data(first, events), part.file_name or None)
    elif part.file_name:
        raise SourceMissing("The uploaded file is empty.")
    # an empty part without a name is a form's file field that nobody filled in


async def _part_data(first: Any, events: AsyncIterator[_Event]) -> AsyncIterator[bytes]:
    yield first
    async for event in events:
        if isinstance(event, _PartEnd):
            return
        assert isinstance(event, bytes)  # noqa: S101 (parts don't nest)
        yield event


async def _take_field(part: _PartBegin, events: AsyncIterator[_Event], left_bytes: int) -> bytes:
    value = bytearray()
    while isinstance(event := await anext(events), bytes):
        value += event
        if len(value) > MAX_FIELD_BYTES:
            raise InvalidValue(f"The field is longer than {MAX_FIELD_BYTES:,} bytes.", part.name[:100])
        if len(value) > left_bytes:
            raise UploadTooLarge(f"The fields beside the recording have more than {MAX_FORM_BYTES:,} bytes together.")
    return bytes(value)


def _text_of(part: _PartBegin, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise InvalidValue("The field is not UTF-8 text.", part.name[:100]) from error
