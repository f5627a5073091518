"""Request bodies: as a stream of blocks, as bytes, and as URL-encoded forms."""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import parse_qsl

from fastapi import Request
from starlette.requests import ClientDisconnect

from deployments.api.concurrency.event_loop import SMALL_BYTES
from deployments.api.services import services_of
from pipeline.errors import RequestError, UploadInterrupted, UploadTooLarge

FORM_TYPE = "application/x-www-form-urlencoded"
MAX_FIELDS = 200
MAX_FORM_BYTES = 1024 * 1024
"""Largest body without a recording, and the most that a multipart body may hold besides the recording."""


class RequestBody:
    """A request's body as a stream of blocks. A new iteration continues where the last one stopped.

    Raises:
        UploadInterrupted: the client disconnected.
    """

    def __init__(self, request: Request) -> None:
        self._blocks = request.stream()
        self.workers = services_of(request).workers

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for block in self._blocks:
                if block:
                    yield block
        except ClientDisconnect as error:
            raise UploadInterrupted("The connection ended during the upload: send it again.") from error

    async def read(self, limit_bytes: int) -> bytes:
        """Read the whole body. Raises ``UploadTooLarge`` beyond the limit."""
        content = bytearray()
        async for block in self:
            content += block
            if len(content) > limit_bytes:
                raise UploadTooLarge(
                    f"The body is too large: {len(content):,} bytes have arrived and the limit is {limit_bytes:,}."
                )
        return bytes(content)


async def read_urlencoded(body: RequestBody) -> list[tuple[str, str]]:
    """Read the body as a URL-encoded form and return its names and values. Raises as ``parse_urlencoded``."""
    content = await body.read(MAX_FORM_BYTES)
    if len(content) < SMALL_BYTES:
        return parse_urlencoded(content)
    return await body.workers.run(parse_urlencoded, content)


def parse_urlencoded(body: bytes) -> list[tuple[str, str]]:
    """Return the names and values of a URL-encoded form. Raises ``RequestError`` if it can't be parsed."""
    try:
        return parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict")
    except ValueError as error:
        raise RequestError("The form can't be read: it has too many fields, or is not UTF-8.") from error
